//! What becomes of a record, and why one is not kept or a file not read.

use identity::{Code, codec::DecodeError, encode_hex};
use org_trust::{CharterError, ReportError, StatementError};

use crate::{document::DocumentError, trie::RecordId};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Verified, kept and in force. Pass it on.
    New {
        /// Its id.
        id: RecordId,
        /// The author signed another statement at the same place; [`crate::Replica::forks`] has both.
        fork: bool,
    },
    /// Held already, or older than what is held of its kind.
    Known,
    /// Not kept: the record with this id must come first.
    Waiting {
        /// That record.
        prev: RecordId,
    },
}

/// Why a record is not kept. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// This author revoked this key before in the same chain.
    AlreadyRevoked {
        /// The key.
        node: [u8; 32],
    },
    /// It does not continue its author's chain.
    Broken(Broken),
    /// A charter that does not hold.
    Charter(CharterError),
    /// The bytes are no record.
    Malformed(DecodeError),
    /// The author does not have the role that the statement needs.
    NotAuthorised {
        /// The author.
        author: [u8; 32],
    },
    /// A report that does not hold.
    Report(ReportError),
    /// A report by a node that no Admit held names.
    ReportOfStranger {
        /// The node.
        node: [u8; 32],
    },
    /// A statement whose signatures do not hold.
    Statement(StatementError),
    /// As much of its kind is kept as counts or proves anything.
    Surplus,
    /// The author revoked too many keys that nobody admitted.
    TooManyEarlyRevokes {
        /// The author.
        author: [u8; 32],
    },
}

/// How a statement fails to continue a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// It rotates to a key that the machine has had.
    KeyAgain,
    /// The kind does not belong into the lane.
    Lane,
    /// It cites an older charter than the statement before it.
    OlderCharter,
    /// The statement it names as previous is another author's, another lane's or not the one before.
    Previous,
    /// Its machine has had as many keys as it may.
    Rotations,
    /// The first of a lane does not name the charter that first named its author.
    Start,
}

/// Who is to blame for a record that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent it: an honest replica neither keeps nor passes on such a record.
    Sender,
    /// Its author; an honest replica may hold what this one does not.
    Author,
    /// Nobody: another order of arrival may change the answer.
    Nobody,
}

/// Why a file does not become a replica.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It is not a document of this org.
    Document(DocumentError),
    /// It holds no charter that begins the org.
    NoGenesis,
}

impl Rejected {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::AlreadyRevoked { .. } => Code::AlreadyRevoked,
            Self::Broken(_) => Code::ChangeBroken,
            Self::Charter(why) => why.code(),
            Self::Malformed(_) => Code::ChangeMalformed,
            Self::NotAuthorised { .. } | Self::TooManyEarlyRevokes { .. } => Code::ChangeNotAuthorised,
            Self::Report(why) => why.code(),
            Self::ReportOfStranger { .. } => Code::UnknownKey,
            Self::Statement(why) => why.code(),
            Self::Surplus => Code::ForkDetected,
        }
    }

    /// Who is to blame, which decides whether a session that brought it is closed.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::AlreadyRevoked { .. }
            | Self::Broken(_)
            | Self::Malformed(_)
            | Self::NotAuthorised { .. }
            | Self::Report(_)
            | Self::Statement(_) => Fault::Sender,
            Self::Charter(CharterError::Fork { .. } | CharterError::TooMany { .. }) => Fault::Author,
            Self::Charter(CharterError::NotNext { .. }) => Fault::Nobody,
            Self::Charter(_) => Fault::Sender,
            Self::Surplus | Self::TooManyEarlyRevokes { .. } => Fault::Author,
            Self::ReportOfStranger { .. } => Fault::Nobody,
        }
    }
}

impl core::fmt::Display for Rejected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AlreadyRevoked { node } => write!(f, "this author revoked {} before", short(node)),
            Self::Broken(why) => write!(f, "{why}"),
            Self::Charter(why) => write!(f, "{why}"),
            Self::Malformed(why) => write!(f, "{why}"),
            Self::NotAuthorised { author } => write!(f, "key {} may not say this", short(author)),
            Self::Report(why) => write!(f, "{why}"),
            Self::ReportOfStranger { node } => write!(f, "nobody admitted {}", short(node)),
            Self::Statement(why) => write!(f, "{why}"),
            Self::Surplus => f.write_str("as much of this is held as proves it"),
            Self::TooManyEarlyRevokes { author } => {
                write!(f, "key {} revoked too many keys that nobody admitted", short(author))
            }
        }
    }
}

impl core::error::Error for Rejected {}

fn short(key: &[u8; 32]) -> String {
    encode_hex(key).chars().take(8).collect()
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::KeyAgain => "it rotates to a key that the machine has had",
            Self::Lane => "this kind does not stand in this lane",
            Self::OlderCharter => "it cites an older charter than the statement before it",
            Self::Previous => "it does not continue its author's chain",
            Self::Rotations => "the machine has had as many keys as it may",
            Self::Start => "its author's chain does not begin so",
        })
    }
}

impl LoadError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Document(_) | Self::NoGenesis => Code::StoreDamaged,
        }
    }
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Document(why) => write!(f, "{why}"),
            Self::NoGenesis => f.write_str("the file does not begin with the org's first charter"),
        }
    }
}

impl core::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Document(why) => Some(why),
            Self::NoGenesis => None,
        }
    }
}
