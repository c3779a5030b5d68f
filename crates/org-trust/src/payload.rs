//! What a statement says, kind by kind. The kind's number, lane and fields stand here together.

use core::fmt;

use identity::{
    PublicKey, StatementId, Tag,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{INVITE_USES_MAX, LABELS_MAX, NOTE_BYTES_MAX},
};

use crate::{admit::Admit, charter::list};

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
}

/// The chain of one author's statements that a statement stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Everything but revocations.
    Main,
    /// Revocations, so that nothing else ever holds one back.
    Revokes,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// A node key of the member.
    pub node: PublicKey,
    /// Why, for people.
    pub reason: Reason,
    /// Why, in the admin's words; at most [`NOTE_BYTES_MAX`] bytes, no control characters.
    pub note: String,
}

/// Why a member was revoked. Shown to people; nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not said.
    Unspecified,
    /// The machine cannot be found.
    Lost,
    /// Somebody took the machine.
    Stolen,
    /// Somebody else may have its keys or run it.
    Compromised,
    /// It is no longer used.
    Retired,
}

/// An invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its public key; whoever has the secret half may use it.
    pub key: PublicKey,
    /// How many machines may, at least 1.
    pub uses: u32,
    /// The gateway's role key that admits them.
    pub redeemer: PublicKey,
    /// Labels they get, ascending.
    pub labels: Vec<Tag>,
    /// When the redeemer should stop by its clock, in Unix seconds; 0 for never. Advice: whether an
    /// Admit counts never depends on a clock.
    pub expires_unix_s: u64,
    /// What it is for, in the admin's words.
    pub note: String,
}

/// The end of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The invite.
    pub invite: StatementId,
    /// The redeemer's last statement up to which Admits under the invite count; none of them counts
    /// when it is absent.
    pub tip: Option<StatementId>,
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
        }
    }

    /// The lane this kind stands in.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Revoke(_) => Lane::Revokes,
            Self::Admit(_) | Self::Invite(_) | Self::Cancel(_) | Self::Leave => Lane::Main,
        }
    }

    pub(crate) const fn number(&self) -> u8 {
        match self {
            Self::Admit(_) => ADMIT,
            Self::Revoke(_) => REVOKE,
            Self::Invite(_) => INVITE,
            Self::Cancel(_) => CANCEL,
            Self::Leave => LEAVE,
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        match self {
            Self::Admit(admit) => admit.write(out),
            Self::Revoke(revoke) => {
                out.bytes(revoke.node.as_bytes()).u8(revoke.reason.number());
                out.short_bytes(revoke.note.as_bytes());
            }
            Self::Invite(invite) => invite.write(out),
            Self::Cancel(cancel) => {
                out.bytes(cancel.invite.as_bytes());
                write_optional_id(out, cancel.tip);
            }
            Self::Leave => {}
        }
    }

    /// Reads the fields of the kind with this number, by this author.
    pub(crate) fn read(kind: u8, author: PublicKey, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match kind {
            ADMIT => Admit::read(author, r).map(Self::from),
            REVOKE => {
                let (node, reason) = (r.key("revoked node")?, Reason::read(r)?);
                let note = r.text("note", NOTE_BYTES_MAX)?.to_owned();
                Ok(Self::Revoke(Revoke { node, reason, note }))
            }
            INVITE => Invite::read(r).map(Self::from),
            CANCEL => {
                let invite = StatementId(r.array("cancelled invite")?);
                Ok(Self::Cancel(Cancel { invite, tip: read_optional_id(r, "tip")? }))
            }
            LEAVE => Ok(Self::Leave),
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

impl Invite {
    fn write(&self, out: &mut Writer) {
        out.bytes(self.key.as_bytes()).u32(self.uses).bytes(self.redeemer.as_bytes());
        out.count(self.labels.len());
        for label in &self.labels {
            out.short_bytes(label.as_str().as_bytes());
        }
        out.u64(self.expires_unix_s).short_bytes(self.note.as_bytes());
        out.u8(NO_APPROVAL).u8(ANY_TPM);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key = r.key("invite key")?;
        let uses = r.u32("uses")?;
        if uses == 0 || uses > INVITE_USES_MAX {
            return Err(DecodeError { field: "uses", fault: Fault::OutOfRange { got: uses.into() } });
        }
        let redeemer = r.key("redeemer")?;
        let labels = list(r, "labels", LABELS_MAX, |r| r.tag("label"))?;
        ascending("labels", &labels)?;
        let expires_unix_s = r.u64("expires")?;
        let note = r.text("note", NOTE_BYTES_MAX)?.to_owned();
        r.exactly("invite flags", NO_APPROVAL)?;
        r.exactly("endorsement keys", ANY_TPM)?;
        Ok(Self { key, uses, redeemer, labels, expires_unix_s, note })
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

impl Reason {
    /// Every reason.
    pub const ALL: &[Self] = &[Self::Unspecified, Self::Lost, Self::Stolen, Self::Compromised, Self::Retired];

    /// The word people type and read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Lost => "lost",
            Self::Stolen => "stolen",
            Self::Compromised => "compromised",
            Self::Retired => "retired",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }

    const fn number(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::Lost => 1,
            Self::Stolen => 2,
            Self::Compromised => 3,
            Self::Retired => 4,
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let got = r.u8("reason")?;
        let known = Self::ALL.iter().copied().find(|reason| reason.number() == got);
        known.ok_or_else(|| DecodeError { field: "reason", fault: Fault::Unknown { got: got.into() } })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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

/// Flags of an invite: none is known to this release.
const NO_APPROVAL: u8 = 0;
/// The count of TPM endorsement keys an invite is limited to; this release limits none.
const ANY_TPM: u8 = 0;
