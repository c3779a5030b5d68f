//! What the control socket carries once a service is connected: pieces of its stream, each way.
//!
//! A piece is its length as `u32`, little-endian, and that many bytes. A length of nothing says that its
//! sender has sent everything; the other way goes on. [`OVER`] in the place of a length says that the session
//! is over before that: an [`crate::local::Answer::Failed`] follows, framed like every answer.

use identity::limits::SERVICE_FRAME_BYTES_MAX;

use crate::framing::FrameError;

/// In the place of a length: the session is over.
pub const OVER: [u8; 4] = [0xff; 4];

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more of this way.
    End,
    /// Why there is nothing more of either.
    Over,
}

/// What four bytes announce.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn next(head: [u8; 4]) -> Result<Next, FrameError> {
    if head == OVER {
        return Ok(Next::Over);
    }
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    match length {
        0 => Ok(Next::End),
        1..=SERVICE_FRAME_BYTES_MAX => Ok(Next::Bytes(length)),
        got => Err(FrameError::TooLong { max: SERVICE_FRAME_BYTES_MAX, got }),
    }
}

/// The length in front of a piece of at most [`SERVICE_FRAME_BYTES_MAX`] bytes; of nothing to say that
/// everything was sent.
#[must_use]
pub fn head(piece: &[u8]) -> [u8; 4] {
    u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_an_end_and_the_end_of_all_are_told_apart() {
        assert_eq!(next(head(b"abc")).unwrap(), Next::Bytes(3));
        assert_eq!(next(head(b"")).unwrap(), Next::End);
        assert_eq!(next(OVER).unwrap(), Next::Over);
        let most = u32::try_from(SERVICE_FRAME_BYTES_MAX).unwrap();
        assert_eq!(next(most.to_le_bytes()).unwrap(), Next::Bytes(SERVICE_FRAME_BYTES_MAX));
        assert!(matches!(next((most + 1).to_le_bytes()), Err(FrameError::TooLong { .. })));
    }
}
