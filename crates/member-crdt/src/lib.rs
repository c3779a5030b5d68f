//! The member list as a set: what was signed goes in, a [`Roster`] comes out, on every machine the
//! same one.
//!
//! A [`Replica`] holds charters, statements and reports. [`Replica::apply`] verifies one record and takes
//! it in; [`resolve`] says what the statements mean under the newest charter (docs/spec/roster.md).
//! Applying one by one, in any order and with repeats, gives the same as resolving all at once.
//! [`Session`] brings two replicas to the same set over frames (docs/spec/sync.md).
//!
//! This crate does no I/O, reads no clock and draws no randomness. It keeps nothing unverified, never
//! un-revokes a key, never lets one author's statements push out another's, and never lets automerge
//! parse a byte from another machine: the document is this machine's file, not the wire.

mod descent;
mod document;
mod frame;
mod held;
mod lineage;
mod load;
mod machine;
mod outcome;
mod policies;
mod replica;
mod reports;
mod resolve;
mod roster;
mod shards;
mod treesync;
mod trie;
#[cfg(test)]
mod vectors;

pub use document::DocumentError;
pub use held::{Fork, Tip};
pub use load::{Checked, Unchecked};
pub use outcome::{Applied, Broken, Fault, LoadError, Rejected};
pub use policies::{End, NotPermitted, Permitted, PolicyStanding};
pub use replica::{Loaded, Replica};
pub use reports::Coverage;
pub use resolve::resolve;
pub use roster::{
    EarlierKeys, FindError, InviteStanding, InviteState, Member, MemberState, Pending, Revoking, Roster,
    Standing,
};
pub use treesync::{Output, ReportPace, Session, SyncError};
pub use trie::RecordId;
