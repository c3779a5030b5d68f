//! Which member may do what to which: a policy is a set of rules that permit, and nothing else does.
//!
//! A person writes a file ([`PolicyFile`]): rules, and tests of them that stand beside. An admin signs
//! the [`Policy`] in it, whose bytes are the same for the same rules in whatever order they were written
//! (docs/spec/records.md). Every member then asks [`Policy::permits`].
//!
//! There is no rule that forbids, so a rule more never takes anything away, no order decides, and an
//! empty policy permits nothing. What the protocol itself does ([`BUILT_IN`]) is not subject to it.
//!
//! This crate does no I/O and reads no clock. It knows nobody's standing: who a member is, and what it is
//! called and for, arrives as a [`Subject`] that its caller vouches for.

mod codec;
mod decision;
mod file;
mod rule;
mod text;

pub use decision::{Decision, Subject, Unmatched};
pub use file::{FileError, PolicyFile, Test, TestFailure};
pub use rule::{BUILT_IN, Doing, Rule, Selector, SelectorError};

use identity::{
    codec::{DecodeError, Fault, Reader, Writer},
    limits::POLICY_BYTES_MAX,
};

/// A set of rules, each of which permits something. Without a rule nothing is permitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Ascending, none twice.
    rules: Vec<Rule>,
}

/// What is in one policy and not in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Rules of the second that are not in the first.
    pub added: Vec<&'a Rule>,
    /// Rules of the first that are not in the second.
    pub removed: Vec<&'a Rule>,
}

impl Policy {
    /// The rules, ascending.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it permits nothing at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What `next` changes.
    #[must_use]
    pub fn difference<'a>(&'a self, next: &'a Self) -> Difference<'a> {
        Difference {
            added: next.rules.iter().filter(|rule| !self.rules.contains(rule)).collect(),
            removed: self.rules.iter().filter(|rule| !next.rules.contains(rule)).collect(),
        }
    }

    /// Its one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.into_bytes()
    }

    /// Reads what [`Self::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > POLICY_BYTES_MAX {
            let fault = Fault::TooLong { max: POLICY_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "policy", fault });
        }
        let mut r = Reader::new(bytes);
        let policy = Self::read(&mut r)?;
        r.finish("end of policy")?;
        Ok(policy)
    }

    /// Writes the encoding behind other fields.
    pub fn write(&self, out: &mut Writer) {
        codec::write(self, out);
    }

    /// Reads it from among other fields, which bound its length.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        codec::read(r)
    }
}

impl Difference<'_> {
    /// Whether both are the same.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}
