//! What a gateway's key admits: a machine that proves all its keys and spends a use of an invite that
//! names this very gateway. Pure: the caller applies, stores and answers.

use core::fmt;

use identity::{Code, PublicKey, SecretKey};
use member_crdt::{InviteState, Replica, Standing};
use org_trust::{Admit, EnrolError, EnrolRequest, Lane, Payload, Statement, StatementError};

/// A request that holds.
#[derive(Debug)]
pub enum Enrolled {
    /// The same machine was admitted by the same invite before: these are the bytes of that change.
    Before(Vec<u8>),
    /// To be applied, stored, and only then answered with.
    New(Box<Statement>),
}

/// Why a machine is not admitted. Nothing was signed or spent.
#[derive(Debug)]
#[non_exhaustive]
pub enum Declined {
    /// The invite's date has passed.
    Expired,
    /// It is no member any more, or was revoked before it became one.
    Former(Code),
    /// The request does not hold.
    Request(EnrolError),
    /// The invite was cancelled, or who made or redeems it lost the role.
    Cancelled,
    /// The invite names another gateway.
    OtherGateway,
    /// The request is for another key than the one that the connection proved.
    OtherKey,
    /// Our own statement cannot be made.
    Sign(StatementError),
    /// A key belongs to somebody.
    Taken,
    /// No such invite is known here.
    Unknown,
    /// All uses are spent.
    UsedUp,
}

impl Declined {
    /// The code that people meet.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Cancelled => Code::InviteCancelled,
            Self::Expired => Code::InviteExpired,
            Self::Former(code) => *code,
            Self::OtherGateway => Code::NotTheGateway,
            Self::OtherKey => Code::EnrolKeyUnproven,
            Self::Request(why) => why.code(),
            Self::Sign(why) => why.code(),
            Self::Taken => Code::EnrolKeyTaken,
            Self::Unknown => Code::InviteUnknown,
            Self::UsedUp => Code::InviteUsedUp,
        }
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(why) => why.fmt(f),
            Self::Sign(why) => why.fmt(f),
            Self::Cancelled
            | Self::Expired
            | Self::Former(_)
            | Self::OtherGateway
            | Self::OtherKey
            | Self::Taken
            | Self::Unknown
            | Self::UsedUp => f.write_str(self.code().title()),
        }
    }
}

impl core::error::Error for Declined {}

/// Decides about a request that came over a connection on which `peer` proved its key. `gateway` is
/// the role key of this gateway, `unix_s` the time for the one thing that has a date.
///
/// # Errors
/// [`Declined`].
pub fn decide(
    replica: &Replica,
    gateway: &SecretKey,
    peer: PublicKey,
    request: &[u8],
    unix_s: u64,
) -> Result<Enrolled, Declined> {
    let (org, roster) = (replica.org(), replica.roster());
    let request = EnrolRequest::decode(request).map_err(Declined::Request)?;
    if request.claimed().node != peer {
        return Err(Declined::OtherKey);
    }
    if request.claimed().redeemer != gateway.public() {
        return Err(Declined::OtherGateway);
    }
    let invite = request.invite().and_then(|id| roster.invite(&id)).ok_or(Declined::Unknown)?;
    if invite.redeemer != gateway.public() {
        return Err(Declined::OtherGateway);
    }
    let admit = request.verify(&org, &invite.key).map_err(Declined::Request)?.into_admit();
    if let Some(member) = roster.get(&admit.node) {
        let before = replica.statement(&member.admit).filter(|statement| admits(statement, &admit));
        return match (before, member.refusal()) {
            (Some(_), Some(code)) => Err(Declined::Former(code)),
            (Some(statement), None) => Ok(Enrolled::Before(statement.bytes().to_vec())),
            (None, _) => Err(Declined::Taken),
        };
    }
    match invite.state {
        InviteState::Open => {}
        InviteState::Spent => return Err(Declined::UsedUp),
        InviteState::Cancelled | InviteState::Void => return Err(Declined::Cancelled),
    }
    if invite.expires_unix_s != 0 && unix_s > invite.expires_unix_s {
        return Err(Declined::Expired);
    }
    if replica.is_revoked_early(&admit.node) {
        return Err(Declined::Former(Code::Revoked));
    }
    let keys = [admit.node, admit.wireguard, admit.boot];
    let taken = keys.iter().any(|key| {
        roster.standing(key) != Standing::Unknown
            || roster.by_wireguard(&key.to_wireguard()).is_some()
            || roster.gateways().iter().any(|other| other.key == *key)
    });
    if taken {
        return Err(Declined::Taken);
    }
    let place = replica.next_place(&gateway.public(), Lane::Main).ok_or(Declined::OtherGateway)?;
    let statement = Statement::sign(&org, gateway, place, &Payload::from(admit)).map_err(Declined::Sign)?;
    Ok(Enrolled::New(Box::new(statement)))
}

/// Whether `statement` admits exactly the machine that asks again, by the same invite.
fn admits(statement: &Statement, asked: &Admit) -> bool {
    statement.payload().admit().is_some_and(|held| {
        (held.wireguard, held.boot, held.invite) == (asked.wireguard, asked.boot, asked.invite)
    })
}
