//! The commands that change one member.

use clap::{Args, Subcommand, ValueEnum};
use identity::{Name, Tag};

use super::{Reason, Waiting};

#[derive(Debug, Args)]
pub(crate) struct Suspend {
    /// Name, or the first digits of its key
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// Why
    #[arg(long, default_value = "unspecified")]
    pub(crate) reason: Reason,
    /// Note for people, up to 96 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Name, or the first digits of its key
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// All members
    #[command(alias = "ls")]
    List {
        /// Also those that were revoked or left
        #[arg(long)]
        all: bool,
    },
    /// One member in full
    Show {
        /// Name, or the first digits of its key
        node: String,
    },
    /// Call a member something else
    Rename {
        /// Name, or the first digits of its key
        node: String,
        /// Its new name
        #[arg(value_parser = Name::parse)]
        name: Name,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Give a member a role, or take it away
    Role(TagChange),
    /// Put a label on a member, or take it off
    Label(TagChange),
}

#[derive(Debug, Args)]
pub(crate) struct TagChange {
    /// Name, or the first digits of its key
    pub(crate) node: String,
    /// What to do
    pub(crate) edit: Edit,
    /// Which
    #[arg(value_name = "WORD", value_parser = Tag::parse)]
    pub(crate) tag: Tag,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Edit {
    Add,
    Remove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pending {
    /// What waits: machines to be approved, revocations that need more admins
    #[command(alias = "ls")]
    List,
    /// Agree: let the machine in, or sign the revocation as well
    Approve {
        /// Name, or the first digits of its key
        node: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Refuse a machine that waits: its key is revoked and never comes back
    Reject {
        /// Name, or the first digits of its key
        node: String,
        /// Note for people, up to 96 bytes
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        waiting: Waiting,
    },
}
