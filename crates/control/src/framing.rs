//! One message on a local socket: its length as u32 LE, then JSON.

use core::fmt;

use serde::{Serialize, de::DeserializeOwned};

/// Why a message cannot be written or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// Not the JSON of a message this release knows.
    Json(serde_json::Error),
    /// Longer than the socket allows.
    TooLong {
        /// Most bytes allowed.
        max: usize,
        /// Bytes it would take.
        got: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => f.write_str("not a message of this release"),
            Self::TooLong { max, got } => write!(f, "a message of {got} bytes where {max} are allowed"),
        }
    }
}

impl core::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Json(source) => Some(source),
            Self::TooLong { .. } => None,
        }
    }
}

/// A message with its length in front.
///
/// # Errors
/// [`FrameError::TooLong`] when it does not fit in `max` bytes.
pub fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Json)?;
    let got = bytes.len().saturating_sub(4);
    let length = u32::try_from(got).ok().filter(|_| got <= max).ok_or(FrameError::TooLong { max, got })?;
    for (out, byte) in bytes.iter_mut().zip(length.to_le_bytes()) {
        *out = byte;
    }
    Ok(bytes)
}

/// How many bytes follow a length; asked before anything is set aside for them.
///
/// # Errors
/// [`FrameError::TooLong`] above `max`.
pub fn body_length(prefix: [u8; 4], max: usize) -> Result<usize, FrameError> {
    let got = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if got > max { Err(FrameError::TooLong { max, got }) } else { Ok(got) }
}

/// A message from the bytes after its length.
///
/// # Errors
/// [`FrameError::Json`] for anything but one message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_a_long_one_is_refused_by_its_length() {
        let bytes = encode(&"ping", 16).unwrap();
        assert_eq!(bytes, b"\x06\0\0\0\"ping\"");
        assert_eq!(body_length([6, 0, 0, 0], 16).unwrap(), 6);
        assert_eq!(decode::<String>(&bytes[4..]).unwrap(), "ping");
        assert!(matches!(encode(&"ping", 5), Err(FrameError::TooLong { max: 5, got: 6 })));
        assert!(matches!(body_length([17, 0, 0, 0], 16), Err(FrameError::TooLong { max: 16, got: 17 })));
        assert!(matches!(decode::<String>(b"\"ping\"x"), Err(FrameError::Json(_))));
    }
}
