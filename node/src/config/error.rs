//! Why settings are not usable.

use core::fmt;

use identity::Code;

/// Why the configuration is not usable.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value of the wrong type or out of range.
    BadValue {
        /// File or environment variable.
        place: String,
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The file is missing, too large, not TOML, or others may write it.
    Unreadable {
        /// The file.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key that this release does not know.
    UnknownKey {
        /// File or environment variable.
        place: String,
        /// The key as written.
        key: String,
        /// The known key that is closest in spelling.
        nearest: &'static str,
    },
}

impl ConfigError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BadValue { .. } => Code::ConfigBadValue,
            Self::Unreadable { .. } => Code::ConfigUnreadable,
            Self::UnknownKey { .. } => Code::ConfigUnknownKey,
        }
    }

    /// File or environment variable.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::BadValue { place, .. }
            | Self::Unreadable { place, .. }
            | Self::UnknownKey { place, .. } => place,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { place, key, expected } => write!(f, "{place}: {key} takes {expected}"),
            Self::Unreadable { place, why } => write!(f, "{place}: {why}"),
            Self::UnknownKey { place, key, nearest } => {
                write!(f, "{place}: unknown setting {key}, the nearest is {nearest}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
