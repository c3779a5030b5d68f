//! What a connection is for: the name and parameters in HELLO, and the registry of who may do what.

use std::{collections::BTreeMap, fmt};

use identity::limits::{
    ACTION_BYTES_MAX, PARAMETER_KEY_BYTES_MAX, PARAMETER_VALUE_BYTES_MAX, PARAMETERS_MAX,
    PING_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX, SERVICE_FRAME_BYTES_MAX, SYNC_FRAME_BYTES_MAX,
};

use crate::{
    Bind,
    refusal::{Holder, Standing},
};

/// An action with its parameters, both in their one text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    name: String,
    parameters: BTreeMap<String, String>,
}

/// Why a name with parameters is no action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionError {
    /// The parameter's key is not `[a-z0-9_.-]{1,32}`, or it is the name of a field of HELLO.
    Key {
        /// The key given.
        key: String,
    },
    /// The name is not `[a-z0-9-]{1,32}`.
    Name {
        /// The name given.
        name: String,
    },
    /// The key stands twice.
    Repeated {
        /// The key given.
        key: String,
    },
    /// More than [`PARAMETERS_MAX`] parameters.
    TooMany {
        /// How many.
        got: usize,
    },
    /// The parameter's value is not `[!-~]{0,256}`.
    Value {
        /// Whose value.
        key: String,
    },
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { key } => write!(f, "{key:?} is no key of a parameter"),
            Self::Name { name } => write!(f, "{name:?} is no name of an action"),
            Self::Repeated { key } => write!(f, "parameter {key} stands twice"),
            Self::TooMany { got } => write!(f, "at most {PARAMETERS_MAX} parameters allowed, {got} given"),
            Self::Value { key } => write!(f, "parameter {key} has a value that is too long or not printable"),
        }
    }
}

impl core::error::Error for ActionError {}

impl Action {
    /// An action; parameters in any order.
    ///
    /// # Errors
    /// [`ActionError`] naming the first part at fault.
    pub fn new(name: &str, parameters: &[(&str, &str)]) -> Result<Self, ActionError> {
        if !is_name(name.as_bytes()) {
            return Err(ActionError::Name { name: name.to_owned() });
        }
        if parameters.len() > PARAMETERS_MAX {
            return Err(ActionError::TooMany { got: parameters.len() });
        }
        let mut sorted = BTreeMap::new();
        for &(key, value) in parameters {
            if !is_key(key.as_bytes()) {
                return Err(ActionError::Key { key: key.to_owned() });
            }
            if !is_value(value.as_bytes()) {
                return Err(ActionError::Value { key: key.to_owned() });
            }
            if sorted.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(ActionError::Repeated { key: key.to_owned() });
            }
        }
        Ok(Self { name: name.to_owned(), parameters: sorted })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str)
    }

    /// All parameters, ascending by key.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What the registry says of it over this kind of channel.
    #[must_use]
    pub fn rule(&self, bind: Bind) -> Option<&'static ActionRule> {
        let named = ACTIONS.iter().find(|rule| rule.name == self.name && rule.bind == bind);
        named.or_else(|| self.service().map(|_| &ANY_OTHER).filter(|rule| rule.bind == bind))
    }

    /// Its name as that of a program's service; none for what the registry has or keeps.
    #[must_use]
    pub fn service(&self) -> Option<ServiceName> {
        ServiceName::parse(&self.name)
    }

    /// Whether the registry has it at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        ACTIONS.iter().any(|rule| rule.name == self.name)
    }
}

/// `NAME[ KEY=VALUE]...`, as HELLO ends.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.parameters().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// The name of an action that is a program's, not muster's own: one that the registry neither has nor keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    bytes: [u8; ACTION_BYTES_MAX],
    length: usize,
}

impl ServiceName {
    /// Checks a text: `[a-z0-9-]{1,32}`, and no action of muster's own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_own = KEPT.contains(&text) || ACTIONS.iter().any(|rule| rule.name == text);
        if is_own || !is_name(text.as_bytes()) {
            return None;
        }
        let mut bytes = [0; ACTION_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: text.len() })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both hold since `parse`.
        self.bytes.get(..self.length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

pub(crate) fn is_name(text: &[u8]) -> bool {
    (1..=ACTION_BYTES_MAX).contains(&text.len())
        && text.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The fields of HELLO name no parameter, so that a doubled field is refused and a reader is not fooled.
const FIELDS: [&[u8]; 5] = [b"action", b"bind", b"nonce", b"pubkey", b"to"];

pub(crate) fn is_key(text: &[u8]) -> bool {
    (1..=PARAMETER_KEY_BYTES_MAX).contains(&text.len())
        && !FIELDS.contains(&text)
        && text.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
}

pub(crate) fn is_value(text: &[u8]) -> bool {
    text.len() <= PARAMETER_VALUE_BYTES_MAX && text.iter().all(|c| matches!(c, b'!'..=b'~'))
}

/// Whose key may open a session for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A key the org has never seen, or a member that asks for its enrolment's answer again.
    Newcomer,
    /// Keys of this kind only.
    Only(Holder),
    /// Members that the org's policy lets do it.
    Permitted,
}

impl Who {
    /// Whether a key of this standing is meant.
    #[must_use]
    pub const fn includes(self, standing: Standing) -> bool {
        let holder = match standing {
            Standing::Barred(_) => return false,
            Standing::Permitted => Some(Holder::Member),
            Standing::Good(holder) => Some(holder),
            Standing::Unknown => None,
        };
        match (self, holder) {
            (Self::Permitted, _) => matches!(standing, Standing::Permitted),
            (Self::Newcomer, None | Some(Holder::Member))
            | (Self::Only(Holder::Member), Some(Holder::Member))
            | (Self::Only(Holder::BootKey), Some(Holder::BootKey))
            | (Self::Only(Holder::Admin), Some(Holder::Admin)) => true,
            (Self::Newcomer, Some(Holder::BootKey | Holder::Admin)) | (Self::Only(_), _) => false,
        }
    }
}

/// One line of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionRule {
    /// The name in HELLO.
    pub name: &'static str,
    /// Who may.
    pub who: Who,
    /// Over which channel.
    pub bind: Bind,
    /// Most bytes in one frame after VERDICT, either way; what a request may take of that is less where
    /// its codec says so.
    pub frame_bytes_max: usize,
}

/// Every action of muster's own; any other is [`ANY_OTHER`]. One that is served over both kinds of channel
/// has a line for each.
pub const ACTIONS: &[ActionRule] = &[
    rule("blob-get", Who::Only(Holder::BootKey), Bind::Tls, SYNC_FRAME_BYTES_MAX),
    rule("blob-get", Who::Only(Holder::Member), Bind::WireGuard, SYNC_FRAME_BYTES_MAX),
    rule("blob-put", Who::Permitted, Bind::WireGuard, SERVICE_FRAME_BYTES_MAX),
    rule("boot", Who::Only(Holder::BootKey), Bind::Tls, SYNC_FRAME_BYTES_MAX),
    rule("enrol", Who::Newcomer, Bind::Tls, SYNC_FRAME_BYTES_MAX),
    rule("fetch", Who::Only(Holder::Admin), Bind::Tls, SYNC_FRAME_BYTES_MAX),
    rule("link", Who::Only(Holder::Member), Bind::WireGuard, PING_FRAME_BYTES_MAX),
    rule("ping", Who::Only(Holder::Member), Bind::WireGuard, PING_FRAME_BYTES_MAX),
    rule("submit", Who::Only(Holder::Admin), Bind::Tls, REQUEST_FRAME_BYTES_MAX),
    rule("sync", Who::Only(Holder::Member), Bind::WireGuard, SYNC_FRAME_BYTES_MAX),
];

/// Any other name: a program's service, for members that the org's policy lets use it.
pub const ANY_OTHER: ActionRule = rule("*", Who::Permitted, Bind::WireGuard, SERVICE_FRAME_BYTES_MAX);

/// Names that muster may give a meaning one day, so that no program has them until then.
const KEPT: [&str; 1] = ["image"];

const fn rule(name: &'static str, who: Who, bind: Bind, frame_bytes_max: usize) -> ActionRule {
    ActionRule { name, who, bind, frame_bytes_max }
}
