//! Base64 (RFC 4648) in the two alphabets we meet, with one text for each value.

use zeroize::Zeroizing;

/// Which characters stand for 62 and 63, and whether the end is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// `+` and `/`, padded: what PEM has.
    Pem,
    /// `-` and `_`, not padded: what survives mail, shells and double clicks.
    Url,
}

/// The character at this offset cannot stand there, or the text ends too early (offset = length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64 {
    pub(crate) at: usize,
}

impl Alphabet {
    const fn last_two(self) -> [u8; 2] {
        match self {
            Self::Pem => *b"+/",
            Self::Url => *b"-_",
        }
    }

    fn digit(self, c: u8) -> Option<u32> {
        let [c62, c63] = self.last_two();
        Some(u32::from(match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            c if c == c62 => 62,
            c if c == c63 => 63,
            _ => return None,
        }))
    }

    fn character(self, six_bits: u32) -> char {
        let [c62, c63] = self.last_two();
        let value = u8::try_from(six_bits & 63).unwrap_or(0);
        char::from(match value {
            0..26 => b'A' + value,
            26..52 => b'a' + value - 26,
            52..62 => b'0' + value - 52,
            62 => c62,
            _ => c63,
        })
    }

    /// The text; wiped when dropped, since invites hold secrets.
    pub(crate) fn encode(self, bytes: &[u8]) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
        for chunk in bytes.chunks(3) {
            let bits =
                chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                if place <= chunk.len() {
                    text.push(self.character(bits >> (18 - 6 * place)));
                } else if self == Self::Pem {
                    text.push('=');
                }
            }
        }
        text
    }

    /// The bytes. Nothing is skipped; padding and the unused bits at the end must be as written.
    pub(crate) fn decode(self, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotBase64> {
        let end = NotBase64 { at: text.len() };
        let digits = match self {
            Self::Pem => {
                if !text.len().is_multiple_of(4) {
                    return Err(end);
                }
                text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text)
            }
            Self::Url => text,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 4 * 3 + 2));
        for (i, chunk) in digits.chunks(4).enumerate() {
            let mut bits = 0;
            for (j, &c) in chunk.iter().enumerate() {
                bits = bits << 6 | self.digit(c).ok_or(NotBase64 { at: 4 * i + j })?;
            }
            bits <<= 6 * (4 - chunk.len());
            let [_, a, b, c] = bits.to_be_bytes();
            match (chunk.len(), b, c) {
                (4, _, _) => bytes.extend([a, b, c]),
                (3, _, 0) => bytes.extend([a, b]),
                (2, 0, 0) => bytes.push(a),
                _ => return Err(end),
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_hold() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, padded) in vectors {
            assert_eq!(*Alphabet::Pem.encode(bytes.as_bytes()), padded);
            assert_eq!(Alphabet::Pem.decode(padded.as_bytes()).unwrap().as_slice(), bytes.as_bytes());
            let bare = padded.trim_end_matches('=');
            assert_eq!(*Alphabet::Url.encode(bytes.as_bytes()), bare);
            assert_eq!(Alphabet::Url.decode(bare.as_bytes()).unwrap().as_slice(), bytes.as_bytes());
        }
    }

    #[test]
    fn a_second_text_for_a_value_is_refused() {
        for text in ["Zh==", "Zm9=", "Zg=", "Zg", "Z===", "Zg==Zg==", "Zm 9", "Zm9-", "===="] {
            assert!(Alphabet::Pem.decode(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["Zh", "Zm9", "Z", "Zg==", "Zm9+", "Zm9v\n"] {
            assert!(Alphabet::Url.decode(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Alphabet::Url.decode(b"Zm9v!m8"), Err(NotBase64 { at: 4 }));
    }

    proptest! {
        #[test]
        fn bytes_and_text_correspond(bytes: Vec<u8>, text in "[A-Za-z0-9_-]{0,40}") {
            for alphabet in [Alphabet::Pem, Alphabet::Url] {
                let encoded = alphabet.encode(&bytes);
                prop_assert_eq!(alphabet.decode(encoded.as_bytes()).unwrap().to_vec(), bytes.clone());
                if let Ok(decoded) = alphabet.decode(text.as_bytes()) {
                    prop_assert_eq!(alphabet.encode(&decoded).to_string(), text.clone());
                }
            }
        }
    }
}
