//! What a gateway's key admits: a machine that proves all its keys and spends a use of an invite that
//! names this very gateway. Pure: the caller applies, stores and answers.

use core::fmt;

use identity::{Code, PublicKey, SecretKey, TpmId};
use member_crdt::{InviteState, Replica, Standing};
use org_trust::{Admit, Assurance, EnrolError, EnrolRequest, Lane, Payload, Statement, StatementError};

/// A request that holds.
#[derive(Debug)]
pub enum Enrolled {
    /// The same machine was admitted by the same invite before: these are the bytes of that change.
    Before(Vec<u8>),
    /// To be applied, stored, and only then answered with.
    New(Box<Statement>),
}

/// What a machine asks for, as far as its request and its invite go.
#[derive(Debug)]
pub enum Asked {
    /// It was admitted by the same invite before: the bytes of that change.
    Before(Vec<u8>),
    /// It may have this, if its TPM says what the invite wants to hear.
    New(Box<Admit>, Terms),
}

/// What an invite wants of a machine's TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether the TPM must speak at all.
    pub attestation: bool,
    /// The TPMs it is limited to; any when empty.
    pub tpms: Vec<TpmId>,
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
    /// The word that its TPM gave is not what the request says of it.
    OtherTpm,
    /// Our own statement cannot be made.
    Sign(StatementError),
    /// A key belongs to somebody.
    Taken,
    /// No such invite is known here.
    Unknown,
    /// It says that a TPM speaks for it, or has to, and none has.
    Unattested,
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
            Self::OtherTpm => Code::QuoteOfAnother,
            Self::Sign(why) => why.code(),
            Self::Taken => Code::EnrolKeyTaken,
            Self::Unattested => Code::AttestationRequired,
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
            | Self::OtherTpm
            | Self::Taken
            | Self::Unattested
            | Self::Unknown
            | Self::UsedUp => f.write_str(self.code().title()),
        }
    }
}

impl core::error::Error for Declined {}

/// Decides about a request that came over a connection on which `peer` proved its key. `gateway` is
/// the role key of this gateway, `tpm` the one that spoke for the machine in this session, `unix_s` the time
/// for the one thing that has a date.
///
/// # Errors
/// [`Declined`].
pub fn decide(
    replica: &Replica,
    gateway: &SecretKey,
    peer: PublicKey,
    request: &[u8],
    tpm: Option<TpmId>,
    unix_s: u64,
) -> Result<Enrolled, Declined> {
    let (admit, terms) = match ask(replica, gateway, peer, request, unix_s)? {
        Asked::Before(statement) => return Ok(Enrolled::Before(statement)),
        Asked::New(admit, terms) => (admit, terms),
    };
    let claims = admit.assurance == Assurance::TpmAttested || admit.attestation != [0; 32];
    match tpm {
        None if terms.attestation || claims => return Err(Declined::Unattested),
        Some(tpm) if admit.tpm() != Some(tpm) => return Err(Declined::OtherTpm),
        Some(tpm) if !terms.tpms.is_empty() && !terms.tpms.contains(&tpm) => return Err(Declined::OtherTpm),
        None | Some(_) => {}
    }
    let place = replica.next_place(&gateway.public(), Lane::Main).ok_or(Declined::OtherGateway)?;
    let payload = Payload::Admit(admit);
    let statement = Statement::sign(&replica.org(), gateway, place, &payload).map_err(Declined::Sign)?;
    Ok(Enrolled::New(Box::new(statement)))
}

/// All that can be said of a request before the machine's TPM speaks. Signs nothing.
///
/// # Errors
/// [`Declined`].
pub fn ask(
    replica: &Replica,
    gateway: &SecretKey,
    peer: PublicKey,
    request: &[u8],
    unix_s: u64,
) -> Result<Asked, Declined> {
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
            (Some(statement), None) => Ok(Asked::Before(statement.bytes().to_vec())),
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
    let terms = Terms { attestation: invite.attestation, tpms: invite.tpms.clone() };
    Ok(Asked::New(Box::new(admit), terms))
}

/// Whether `statement` admits exactly the machine that asks again, by the same invite.
fn admits(statement: &Statement, asked: &Admit) -> bool {
    statement.payload().admit().is_some_and(|held| {
        (held.wireguard, held.boot, held.invite) == (asked.wireguard, asked.boot, asked.invite)
    })
}
