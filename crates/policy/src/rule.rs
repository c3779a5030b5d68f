//! A rule and its words.

use core::{fmt, str::FromStr};

use identity::{Name, NameError, Tag};

use crate::decision::Subject;

/// Whom a rule is about, at one end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Every member.
    Any,
    /// Members with this role.
    Role(Tag),
    /// Members with this label.
    Label(Tag),
    /// Members that an admin called so.
    Member(Name),
}

/// What a rule permits to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// Every action that members serve each other.
    Any,
    /// This action.
    Action(Tag),
}

/// Members that match one of `from` may do each of `actions` to members that match one of `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Who, ascending; one at least.
    pub(crate) from: Vec<Selector>,
    /// To whom.
    pub(crate) to: Vec<Selector>,
    /// What.
    pub(crate) actions: Vec<Doing>,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectorError {
    /// The action is one of the protocol's own.
    BuiltIn {
        /// It.
        action: String,
    },
    /// What stands behind the colon is no name.
    Name(NameError),
    /// What stands before the colon is no kind of selector.
    Unknown {
        /// The kind that is closest in spelling.
        nearest: &'static str,
    },
}

/// What muster does itself, by the handshake's rules: no policy permits or forbids it. `blob-put`, and `blob-get`
/// of what others have put, are muster's own too, and yet a policy's to give.
pub const BUILT_IN: &[&str] = &["boot", "enrol", "fetch", "image", "link", "ping", "submit", "sync"];

impl Rule {
    /// Who.
    #[must_use]
    pub fn from(&self) -> &[Selector] {
        &self.from
    }

    /// To whom.
    #[must_use]
    pub fn to(&self) -> &[Selector] {
        &self.to
    }

    /// What.
    #[must_use]
    pub fn actions(&self) -> &[Doing] {
        &self.actions
    }

    pub(crate) fn is_about(&self, action: &str) -> bool {
        self.actions.iter().any(|doing| match doing {
            Doing::Any => true,
            Doing::Action(named) => named.as_str() == action,
        })
    }
}

impl Selector {
    pub(crate) const ROLE: &str = "role";
    pub(crate) const LABEL: &str = "label";
    pub(crate) const MEMBER: &str = "member";
    const KINDS: &[&str] = &[ANY, Self::ROLE, Self::LABEL, Self::MEMBER];

    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Role(role) => subject.roles.contains(role),
            Self::Label(label) => subject.labels.contains(label),
            Self::Member(name) => subject.name == Some(name),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (kind, word) = match text.split_once(':') {
            None if text == ANY => return Ok(Self::Any),
            None => (text, ""),
            Some(parts) => parts,
        };
        let tag = || Tag::parse(word).map_err(SelectorError::Name);
        match kind {
            Self::ROLE => tag().map(Self::Role),
            Self::LABEL => tag().map(Self::Label),
            Self::MEMBER => Name::parse(word).map(Self::Member).map_err(SelectorError::Name),
            _ => Err(SelectorError::Unknown { nearest: crate::text::nearest(kind, Self::KINDS) }),
        }
    }
}

impl FromStr for Doing {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text == ANY {
            return Ok(Self::Any);
        }
        if BUILT_IN.contains(&text) {
            return Err(SelectorError::BuiltIn { action: text.to_owned() });
        }
        Tag::parse(text).map(Self::Action).map_err(SelectorError::Name)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Role(role) => write!(f, "{}:{role}", Self::ROLE),
            Self::Label(label) => write!(f, "{}:{label}", Self::LABEL),
            Self::Member(name) => write!(f, "{}:{name}", Self::MEMBER),
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Action(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn { action } => write!(
                f,
                "{action} is muster's own: members do it by the rules of the handshake, whatever a policy says"
            ),
            Self::Name(why) => write!(f, "{why}"),
            Self::Unknown { nearest } => {
                let example = if *nearest == ANY { "" } else { ":NAME" };
                write!(
                    f,
                    "a role:NAME, label:NAME, member:NAME or any is wanted; the nearest is {nearest}{example}"
                )
            }
        }
    }
}

impl core::error::Error for SelectorError {}

/// Everybody, or everything.
pub(crate) const ANY: &str = "any";
