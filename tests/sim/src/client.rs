//! Who comes to a gateway from outside: newcomers, machines that start, admins.

use identity::StatementId;
use org_trust::{Record, Reply};

/// What somebody outside wants.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    /// To become a member by an invite.
    Enrol { invite: StatementId, secret: usize, tries: u32 },
    /// The list, for a machine whose disk is lost.
    Boot { tries: u32 },
    /// To hand in what an admin signed.
    Submit {
        records: Vec<Record>,
        /// The gateway's disk of the time, by number.
        disk: u32,
    },
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Answered {
    /// The replies, to the end.
    Replies(Vec<Reply>),
    /// No session, or it ended early.
    Nothing,
    /// The key was refused.
    Refused(identity::Code),
}

impl Errand {
    pub(crate) const fn action(&self) -> &'static str {
        match self {
            Self::Enrol { .. } => "enrol",
            Self::Boot { .. } => "boot",
            Self::Submit { .. } => "submit",
        }
    }
}
