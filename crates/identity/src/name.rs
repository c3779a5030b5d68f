//! Names people type: of orgs, members, labels.

use core::fmt;

/// A DNS label: `[a-z0-9-]{1,63}`, no hyphen at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A label or role on a member: `[a-z0-9-]{1,32}`, no hyphen at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The byte at this offset is not one of `a-z0-9-`, or is a hyphen at an end.
    Character {
        /// Byte offset into the text.
        at: usize,
    },
    /// Empty, or longer than allowed.
    Length {
        /// Most bytes allowed.
        max: usize,
        /// Bytes given.
        got: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character { at } => {
                write!(f, "character {at} is not allowed: use a-z, 0-9 and inner hyphens")
            }
            Self::Length { max, got } => write!(f, "1 to {max} characters wanted, {got} given"),
        }
    }
}

impl core::error::Error for NameError {}

macro_rules! names {
    ($($kind:ident $max:literal;)*) => {$(
        impl $kind {
            /// Most bytes a text may have.
            pub const MAX_BYTES: usize = $max;

            /// Checks a text; nothing is folded or trimmed.
            ///
            /// # Errors
            /// [`NameError`] naming the first character or the length at fault.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                if text.is_empty() || text.len() > $max {
                    return Err(NameError::Length { max: $max, got: text.len() });
                }
                let end = text.len() - 1;
                let wrong = |(at, c): (usize, u8)| {
                    let inner = c == b'-' && at != 0 && at != end;
                    !(inner || c.is_ascii_lowercase() || c.is_ascii_digit())
                };
                match text.bytes().enumerate().position(wrong) {
                    Some(at) => Err(NameError::Character { at }),
                    None => Ok(Self(text.to_owned())),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}

names! {
    Name 63;
    Tag 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        assert!(Name::parse("web-1").is_ok());
        assert_eq!(Name::parse(""), Err(NameError::Length { max: 63, got: 0 }));
        assert_eq!(Name::parse("-web"), Err(NameError::Character { at: 0 }));
        assert_eq!(Name::parse("web-"), Err(NameError::Character { at: 3 }));
        assert_eq!(Name::parse("Web"), Err(NameError::Character { at: 0 }));
        assert_eq!(Tag::parse(&"a".repeat(33)), Err(NameError::Length { max: 32, got: 33 }));
    }
}
