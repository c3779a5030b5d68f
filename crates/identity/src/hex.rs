//! Lower-case hexadecimal, one text form for each value: upper case and odd lengths are refused.

use core::fmt;

/// Why a text is not the hexadecimal form of `N` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HexError {
    /// The character at this byte offset is not one of `0-9a-f`.
    Digit {
        /// Byte offset into the text.
        at: usize,
    },
    /// The text has the wrong number of digits.
    Length {
        /// Digits wanted.
        expected: usize,
        /// Bytes of text given.
        got: usize,
    },
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digit { at } => write!(f, "character {at} is not a lower-case hexadecimal digit"),
            Self::Length { expected, got } => write!(f, "{expected} hexadecimal digits wanted, {got} given"),
        }
    }
}

impl core::error::Error for HexError {}

/// The bytes behind exactly `2 * N` lower-case digits.
///
/// # Errors
/// [`HexError`] for any other text; nothing is trimmed or folded.
pub fn decode_hex<const N: usize>(text: &[u8]) -> Result<[u8; N], HexError> {
    if text.len() != 2 * N {
        return Err(HexError::Length { expected: 2 * N, got: text.len() });
    }
    let mut bytes = [0; N];
    for (i, (out, pair)) in bytes.iter_mut().zip(text.chunks_exact(2)).enumerate() {
        let mut value = 0u8;
        for (j, &c) in pair.iter().enumerate() {
            let digit = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'f' => c - b'a' + 10,
                _ => return Err(HexError::Digit { at: 2 * i + j }),
            };
            value = value << 4 | digit;
        }
        *out = value;
    }
    Ok(bytes)
}

/// Lower-case digits, two a byte.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let digits: Vec<u8> = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
    // Digits are text.
    String::from_utf8(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_one_form_for_each_value() {
        assert_eq!(decode_hex::<2>(b"0aff"), Ok([0x0a, 0xff]));
        assert_eq!(decode_hex::<2>(b"0aFf"), Err(HexError::Digit { at: 2 }));
        assert_eq!(decode_hex::<2>(b"0af"), Err(HexError::Length { expected: 4, got: 3 }));
        assert_eq!(encode_hex(&[0x0a, 0xff]), "0aff");
    }
}
