//! Keys, ids and bytes as they stand in JSON: the one text form that `identity` reads and writes.

use core::fmt;

use identity::{
    CharterId, Code, Heads, Name, OrgId, PublicKey, RosterDigest, StatementId, Tag, TpmId, encode_hex,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A value that stands in JSON as its one text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

/// Bytes that stand in JSON as lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> From<T> for Text<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: ReadText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read_text(&text).map(Self).ok_or_else(|| D::Error::custom(T::EXPECTED))
    }
}

/// What can be read back from the text that its `Display` writes.
pub trait ReadText: Sized {
    /// What to say about any other text.
    const EXPECTED: &'static str;
    /// The value, or nothing for any other text.
    fn read_text(text: &str) -> Option<Self>;
}

macro_rules! read_text {
    ($($kind:ty, $expected:literal, $read:expr;)*) => {$(
        impl ReadText for $kind {
            const EXPECTED: &'static str = $expected;
            fn read_text(text: &str) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text)
            }
        }
    )*};
}

read_text! {
    PublicKey, "a key of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    OrgId, "an org id of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    CharterId, "an id of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    StatementId, "an id of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    TpmId, "a TPM's id of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    Heads, "a digest of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    RosterDigest, "a digest of 64 hexadecimal digits", |t| Self::from_hex(t).ok();
    Code, "a code MU-nnnn", Self::parse;
    Name, "a name", |t| Self::parse(t).ok();
    Tag, "a label", |t| Self::parse(t).ok();
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_bytes(&text).map(Self).ok_or_else(|| D::Error::custom("an even number of hexadecimal digits"))
    }
}

fn read_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut digits = text.bytes();
    let mut bytes = Vec::with_capacity(text.len() / 2);
    while let Some(high) = digits.next() {
        bytes.push(digit(high)? << 4 | digit(digits.next()?)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text_form() {
        let bytes = Bytes(vec![0, 1, 0xfe]);
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(text, "\"0001fe\"");
        assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), bytes);
        for wrong in ["\"0\"", "\"0G\"", "\"FE\"", "\" 00\""] {
            assert!(serde_json::from_str::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_reads_back_and_a_weak_one_does_not() {
        let key = Text(identity::SecretKey::from_seed(&[1; 32]).public());
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<Text<PublicKey>>(&text).unwrap(), key);
        let weak = format!("\"{}\"", "00".repeat(32));
        assert!(serde_json::from_str::<Text<PublicKey>>(&weak).is_err());
    }
}
