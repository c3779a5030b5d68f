//! One strict binary encoding for everything the org and its nodes sign.
//!
//! Fixed order, fixed width, little-endian; variable fields carry a `u8` or `u16` length. A decoder
//! names the field it stopped at, consumes all input, and accepts only what the encoder writes, so
//! that bytes and values correspond one to one.

use core::fmt;

use crate::{KeyError, Name, PublicKey, Signature, Tag};

/// Where and why bytes are not the encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field that was being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The 32 bytes are no usable public key.
    BadKey(KeyError),
    /// The bytes are not text of the kind wanted.
    BadText,
    /// Items that must ascend strictly do not.
    NotAscending,
    /// The number is outside its range.
    OutOfRange {
        /// The value read.
        got: u64,
    },
    /// Longer than allowed.
    TooLong {
        /// Most bytes or items allowed.
        max: usize,
        /// Bytes or items announced.
        got: usize,
    },
    /// Bytes follow the last field.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The input ends inside the field.
    Truncated {
        /// Bytes the field wants.
        wanted: usize,
        /// Bytes left.
        left: usize,
    },
    /// A version, kind, flag or tag this release does not know.
    Unknown {
        /// The value read.
        got: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {}: {}", self.field, self.fault)
    }
}

impl core::error::Error for DecodeError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey(why) => write!(f, "{why}"),
            Self::BadText => f.write_str("not text of the kind wanted"),
            Self::NotAscending => f.write_str("items do not ascend strictly"),
            Self::OutOfRange { got } => write!(f, "{got} is out of range"),
            Self::TooLong { max, got } => write!(f, "at most {max} allowed, {got} given"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the end"),
            Self::Truncated { wanted, left } => write!(f, "{wanted} bytes wanted, {left} left"),
            Self::Unknown { got } => write!(f, "{got} is not known to this release"),
        }
    }
}

/// Reads fields in order from bytes that nobody vouches for.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `wanted` bytes.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn bytes(&mut self, field: &'static str, wanted: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(wanted) else {
            return Err(DecodeError { field, fault: Fault::Truncated { wanted, left: self.rest.len() } });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let left = self.rest.len();
        let bytes = self.bytes(field, N)?;
        bytes.try_into().map_err(|_| DecodeError { field, fault: Fault::Truncated { wanted: N, left } })
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// One byte that must have this value: a version, or flags that must be clear.
    ///
    /// # Errors
    /// [`Fault::Unknown`] for another value.
    pub fn exactly(&mut self, field: &'static str, wanted: u8) -> Result<(), DecodeError> {
        match self.u8(field)? {
            got if got == wanted => Ok(()),
            got => Err(DecodeError { field, fault: Fault::Unknown { got: got.into() } }),
        }
    }

    /// A usable public key.
    ///
    /// # Errors
    /// [`Fault::BadKey`].
    pub fn key(&mut self, field: &'static str) -> Result<PublicKey, DecodeError> {
        PublicKey::from_bytes(&self.array(field)?)
            .map_err(|why| DecodeError { field, fault: Fault::BadKey(why) })
    }

    /// A signature, unverified.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn signature(&mut self, field: &'static str) -> Result<Signature, DecodeError> {
        self.array(field).map(Signature)
    }

    /// A count or length in one byte, bounded.
    ///
    /// # Errors
    /// [`Fault::TooLong`] above `max`.
    pub fn count(&mut self, field: &'static str, max: usize) -> Result<usize, DecodeError> {
        let got = usize::from(self.u8(field)?);
        if got > max { Err(DecodeError { field, fault: Fault::TooLong { max, got } }) } else { Ok(got) }
    }

    /// Bytes behind a `u8` length, at most `max` of them.
    ///
    /// # Errors
    /// [`Fault::TooLong`], [`Fault::Truncated`].
    pub fn short_bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.count(field, max)?;
        self.bytes(field, length)
    }

    /// Bytes behind a `u16` length, at most `max` of them.
    ///
    /// # Errors
    /// [`Fault::TooLong`], [`Fault::Truncated`].
    pub fn long_bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let got = usize::from(self.u16(field)?);
        if got > max {
            return Err(DecodeError { field, fault: Fault::TooLong { max, got } });
        }
        self.bytes(field, got)
    }

    /// One line of text that shows what it is, behind a `u8` length, at most `max` bytes.
    ///
    /// # Errors
    /// [`Fault::BadText`], [`Fault::TooLong`], [`Fault::Truncated`].
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        let bad = DecodeError { field, fault: Fault::BadText };
        let text = core::str::from_utf8(self.short_bytes(field, max)?).map_err(|_| bad)?;
        if text.chars().any(misleads) { Err(bad) } else { Ok(text) }
    }

    /// A [`Name`] behind a `u8` length.
    ///
    /// # Errors
    /// [`Fault::BadText`], [`Fault::TooLong`], [`Fault::Truncated`].
    pub fn name(&mut self, field: &'static str) -> Result<Name, DecodeError> {
        Name::parse(self.text(field, Name::MAX_BYTES)?)
            .map_err(|_| DecodeError { field, fault: Fault::BadText })
    }

    /// A [`Tag`] behind a `u8` length.
    ///
    /// # Errors
    /// [`Fault::BadText`], [`Fault::TooLong`], [`Fault::Truncated`].
    pub fn tag(&mut self, field: &'static str) -> Result<Tag, DecodeError> {
        Tag::parse(self.text(field, Tag::MAX_BYTES)?)
            .map_err(|_| DecodeError { field, fault: Fault::BadText })
    }

    /// Ends the decoding.
    ///
    /// # Errors
    /// [`Fault::Trailing`] when bytes are left.
    pub const fn finish(self, field: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError { field, fault: Fault::Trailing { bytes } }),
        }
    }
}

/// Items that must ascend strictly: sorted and without repeats, so that a set has one encoding.
///
/// # Errors
/// [`Fault::NotAscending`].
pub fn ascending<T: Ord>(field: &'static str, items: &[T]) -> Result<(), DecodeError> {
    if items.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(DecodeError { field, fault: Fault::NotAscending })
    }
}

/// Writes what [`Reader`] reads.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Raw bytes, unframed.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A count in one byte. Values of our own types are bounded below 256 where they are built;
    /// a larger one would not decode, so it is written as 255 and refused by every reader.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u8(u8::try_from(count).unwrap_or(u8::MAX))
    }

    /// Bytes behind a `u8` length; see [`Writer::count`] on bounds.
    pub fn short_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).bytes(bytes)
    }

    /// Bytes behind a `u16` length; see [`Writer::count`] on bounds.
    pub fn long_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).bytes(bytes)
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Characters by which a text on a terminal shows something else than it says, or becomes two lines.
fn misleads(c: char) -> bool {
    let line_or_direction = matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || line_or_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_names_the_field_it_stopped_at() {
        let mut reader = Reader::new(&[3, 1, 2]);
        let error = reader.short_bytes("label", 8).unwrap_err();
        assert_eq!(error, DecodeError { field: "label", fault: Fault::Truncated { wanted: 3, left: 2 } });
        assert_eq!(error.to_string(), "field label: 3 bytes wanted, 2 left");
    }

    #[test]
    fn text_that_shows_something_else_than_it_says_is_refused() {
        let read = |text: &str| {
            let mut bytes = Writer::new();
            bytes.short_bytes(text.as_bytes());
            Reader::new(&bytes.into_bytes()).text("note", 64).map(str::len).map_err(|e| e.fault)
        };
        assert_eq!(read("the old Präzisions-Drehbank, 工場"), Ok(36));
        for text in [
            "two\nlines",
            "\u{1b}[2J",
            "\u{9b}2J",
            "web-1\u{202e}1-bew",
            "a\u{2028}b",
            "a\u{2066}b",
            "\u{61c}",
        ] {
            assert_eq!(read(text), Err(Fault::BadText), "{text:?}");
        }
    }

    #[test]
    fn trailing_bytes_and_unsorted_items_are_refused() {
        let mut reader = Reader::new(&[1, 0]);
        reader.exactly("version", 1).unwrap();
        assert_eq!(reader.finish("end").unwrap_err().fault, Fault::Trailing { bytes: 1 });
        assert!(ascending("labels", &[1, 2]).is_ok());
        assert_eq!(ascending("labels", &[2, 2]).unwrap_err().fault, Fault::NotAscending);
    }
}
