//! What takes a member's standing: for ever, or until an admin gives it back.

use core::fmt;

use identity::{
    PublicKey, StatementId,
    codec::{DecodeError, Fault, Reader},
    limits::{NOTE_BYTES_MAX, SUSPENDS_RESUMED_MAX},
};

use crate::assign::read_ids;

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

/// A suspension: a revocation that a [`Resume`] ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspend {
    /// A node key of the member.
    pub node: PublicKey,
    /// Why, for people.
    pub reason: Reason,
    /// Why, in the admin's words; bounded like a revocation's.
    pub note: String,
}

/// The end of suspensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// A node key of the member.
    pub node: PublicKey,
    /// The suspensions that end, 1 to [`SUSPENDS_RESUMED_MAX`], ascending.
    pub suspends: Vec<StatementId>,
}

impl Resume {
    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let node = r.key("resumed node")?;
        let suspends = read_ids(r, "suspensions", "suspension", SUSPENDS_RESUMED_MAX)?;
        if suspends.is_empty() {
            return Err(DecodeError { field: "suspensions", fault: Fault::OutOfRange { got: 0 } });
        }
        Ok(Self { node, suspends })
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

    pub(crate) const fn number(self) -> u8 {
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

/// Node, reason and note, as both of them carry them.
pub(crate) fn read_reason(
    r: &mut Reader<'_>,
    node: &'static str,
) -> Result<(PublicKey, Reason, String), DecodeError> {
    Ok((r.key(node)?, Reason::read(r)?, r.text("note", NOTE_BYTES_MAX)?.to_owned()))
}
