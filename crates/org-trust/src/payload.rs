//! What a statement says, kind by kind. The kind's number and lane stand here together.

use identity::{
    PublicKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{POLICY_STATEMENT_BYTES_MAX, STATEMENT_BYTES_MAX},
};

use crate::{
    admit::Admit,
    assign::{Assign, write_ids},
    invite::{Cancel, Invite},
    revoke::{Resume, Revoke, Suspend, read_reason},
    rotate::{Retire, Rotate},
};
use policy::Policy;

/// One change to the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A machine becomes a member.
    Admit(Box<Admit>),
    /// A member is one no longer, for ever.
    Revoke(Revoke),
    /// Machines that hold a secret may become members.
    Invite(Box<Invite>),
    /// No more of them may.
    Cancel(Cancel),
    /// The author, a node, leaves for ever.
    Leave,
    /// A member is one no longer, until a Resume.
    Suspend(Suspend),
    /// It is one again.
    Resume(Resume),
    /// What a member is called and what it is for.
    Assign(Box<Assign>),
    /// The author, a node, gets new keys.
    Rotate(Box<Rotate>),
    /// The keys before the author's, a node's, end.
    Retire(Retire),
    /// One more admin stands for a statement.
    Cosign(Cosign),
    /// Which member may do what to which.
    Policy(Box<PolicyChange>),
}

/// The chain of one author's statements that a statement stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Everything but what follows.
    Main,
    /// Revocations and suspensions, so that nothing else ever holds one back.
    Revokes,
}

/// An admin's word for a statement that needs more than its author's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosign {
    /// That statement.
    pub target: StatementId,
}

/// A policy of the org. The one with the highest number is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// From 1; one more than that of the policy that its author knew.
    pub number: u32,
    /// What it permits.
    pub policy: Policy,
}

impl Payload {
    /// The word for this kind of change.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Admit(_) => "admit",
            Self::Revoke(_) => "revoke",
            Self::Invite(_) => "invite",
            Self::Cancel(_) => "cancel",
            Self::Leave => "leave",
            Self::Suspend(_) => "suspend",
            Self::Resume(_) => "resume",
            Self::Assign(_) => "assign",
            Self::Rotate(_) => "rotate",
            Self::Retire(_) => "retire",
            Self::Cosign(_) => "cosign",
            Self::Policy(_) => "policy",
        }
    }

    /// The lane this kind stands in.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Revoke(_) | Self::Suspend(_) => Lane::Revokes,
            Self::Admit(_)
            | Self::Invite(_)
            | Self::Cancel(_)
            | Self::Leave
            | Self::Resume(_)
            | Self::Assign(_)
            | Self::Rotate(_)
            | Self::Retire(_)
            | Self::Cosign(_)
            | Self::Policy(_) => Lane::Main,
        }
    }

    /// Whether a machine says this of itself, with its own node key. Such a statement stands alone:
    /// its `prev` is what made the key a member's, an Admit or a Rotate.
    #[must_use]
    pub const fn is_by_node(&self) -> bool {
        matches!(self, Self::Leave | Self::Rotate(_) | Self::Retire(_))
    }

    /// The Admit, if it is one.
    #[must_use]
    pub const fn admit(&self) -> Option<&Admit> {
        if let Self::Admit(admit) = self { Some(admit) } else { None }
    }

    /// Most bytes of a statement of the kind with this number.
    pub(crate) const fn bytes_max(kind: u8) -> usize {
        if kind == POLICY { POLICY_STATEMENT_BYTES_MAX } else { STATEMENT_BYTES_MAX }
    }

    pub(crate) const fn number(&self) -> u8 {
        match self {
            Self::Admit(_) => ADMIT,
            Self::Revoke(_) => REVOKE,
            Self::Invite(_) => INVITE,
            Self::Cancel(_) => CANCEL,
            Self::Leave => LEAVE,
            Self::Suspend(_) => SUSPEND,
            Self::Resume(_) => RESUME,
            Self::Assign(_) => ASSIGN,
            Self::Rotate(_) => ROTATE,
            Self::Retire(_) => RETIRE,
            Self::Cosign(_) => COSIGN,
            Self::Policy(_) => POLICY,
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        match self {
            Self::Admit(admit) => admit.write(out),
            Self::Revoke(Revoke { node, reason, note }) | Self::Suspend(Suspend { node, reason, note }) => {
                out.bytes(node.as_bytes()).u8(reason.number()).short_bytes(note.as_bytes());
            }
            Self::Invite(invite) => invite.write(out),
            Self::Cancel(cancel) => {
                out.bytes(cancel.invite.as_bytes());
                write_optional_id(out, cancel.tip);
            }
            Self::Leave => {}
            Self::Resume(resume) => {
                out.bytes(resume.node.as_bytes());
                write_ids(out, &resume.suspends);
            }
            Self::Assign(assign) => assign.write(out),
            Self::Rotate(rotate) => rotate.write(out),
            Self::Retire(retire) => {
                out.bytes(retire.old.as_bytes());
            }
            Self::Cosign(cosign) => {
                out.bytes(cosign.target.as_bytes());
            }
            Self::Policy(change) => {
                out.u32(change.number);
                change.policy.write(out);
            }
        }
    }

    /// Reads the fields of the kind with this number, by this author.
    pub(crate) fn read(kind: u8, author: PublicKey, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match kind {
            ADMIT => Admit::read(author, r).map(Self::from),
            REVOKE => {
                let (node, reason, note) = read_reason(r, "revoked node")?;
                Ok(Self::Revoke(Revoke { node, reason, note }))
            }
            INVITE => Invite::read(r).map(Self::from),
            CANCEL => {
                let invite = StatementId(r.array("cancelled invite")?);
                Ok(Self::Cancel(Cancel { invite, tip: read_optional_id(r, "tip")? }))
            }
            LEAVE => Ok(Self::Leave),
            SUSPEND => {
                let (node, reason, note) = read_reason(r, "suspended node")?;
                Ok(Self::Suspend(Suspend { node, reason, note }))
            }
            RESUME => Resume::read(r).map(Self::Resume),
            ASSIGN => Assign::read(r).map(Self::from),
            ROTATE => Rotate::read(author, r).map(Self::from),
            RETIRE => Ok(Self::Retire(Retire { old: r.key("retired node")? })),
            COSIGN => Ok(Self::Cosign(Cosign { target: StatementId(r.array("cosigned")?) })),
            POLICY => {
                let number = r.u32("policy number")?;
                if number == 0 {
                    let fault = Fault::OutOfRange { got: 0 };
                    return Err(DecodeError { field: "policy number", fault });
                }
                Ok(PolicyChange { number, policy: Policy::read(r)? }.into())
            }
            got => Err(DecodeError { field: "kind", fault: Fault::Unknown { got: got.into() } }),
        }
    }
}

impl From<Admit> for Payload {
    fn from(admit: Admit) -> Self {
        Self::Admit(Box::new(admit))
    }
}

impl From<Invite> for Payload {
    fn from(invite: Invite) -> Self {
        Self::Invite(Box::new(invite))
    }
}

impl From<Assign> for Payload {
    fn from(assign: Assign) -> Self {
        Self::Assign(Box::new(assign))
    }
}

impl From<Rotate> for Payload {
    fn from(rotate: Rotate) -> Self {
        Self::Rotate(Box::new(rotate))
    }
}

impl From<PolicyChange> for Payload {
    fn from(change: PolicyChange) -> Self {
        Self::Policy(Box::new(change))
    }
}

impl Lane {
    /// Both lanes.
    pub const ALL: &[Self] = &[Self::Main, Self::Revokes];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::Revokes => 1,
        }
    }

    /// The lane with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|lane| lane.number() == number)
    }

    pub(crate) fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let got = r.u8(field)?;
        Self::from_number(got).ok_or_else(|| DecodeError { field, fault: Fault::Unknown { got: got.into() } })
    }
}

/// No id is all zeros: ids are hashes.
pub(crate) fn write_optional_id(out: &mut Writer, id: Option<StatementId>) {
    out.bytes(id.unwrap_or(StatementId([0; 32])).as_bytes());
}

pub(crate) fn read_optional_id(
    r: &mut Reader<'_>,
    field: &'static str,
) -> Result<Option<StatementId>, DecodeError> {
    Ok(Some(StatementId(r.array(field)?)).filter(|id| id.0 != [0; 32]))
}

const ADMIT: u8 = 1;
const REVOKE: u8 = 2;
const INVITE: u8 = 3;
const CANCEL: u8 = 4;
const LEAVE: u8 = 5;
const SUSPEND: u8 = 6;
const RESUME: u8 = 7;
const ASSIGN: u8 = 8;
const ROTATE: u8 = 9;
const RETIRE: u8 = 10;
const COSIGN: u8 = 11;
const POLICY: u8 = 13;
