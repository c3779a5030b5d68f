//! The two text messages that pass before a session, one WebSocket frame each, read byte-exact: no
//! library's buffers exist for a peer that has proved nothing, and nothing but the awaited message
//! passes. After VERDICT tungstenite takes over the same stream, and what already came behind VERDICT.

use core::fmt;
use std::io;

use identity::limits::{PROOF_BYTES_MAX, VERDICT_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::deadline::{Broken, within};

/// What came instead of the awaited message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageFault {
    /// A binary message.
    Binary,
    /// A close frame.
    Closed,
    /// A ping or pong.
    Control,
    /// A frame with nothing in it.
    Empty,
    /// A part of a message.
    Fragment,
    /// Masked by a server or unmasked by a client.
    Mask,
    /// Longer than the message can be.
    Oversize,
    /// A reserved bit or opcode.
    Reserved,
    /// A text message.
    Text,
    /// Bytes behind the message that nobody may send yet.
    Trailing,
}

/// A message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageError {
    Broken(Broken),
    Fault(MessageFault),
}

/// The awaited message, and what the same read brought behind it: never more than a frame's length.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) text: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

/// Reads one text message of at most `max` bytes as `role`. A frame that arrives whole costs one read, not one for
/// each part of its header.
pub(crate) async fn read_text<S: AsyncRead + Unpin>(
    stream: &mut S,
    role: Role,
    max: usize,
    until: Instant,
) -> Result<Received, MessageError> {
    within(until, async {
        let mut buffer = [0; BUFFER_BYTES];
        let mut filled = 0;
        loop {
            let received = buffer.get(..filled).unwrap_or_default();
            if let Some(taken) = take(received, role, max).transpose() {
                return Ok(taken);
            }
            let room = buffer.get_mut(filled..).unwrap_or_default();
            match stream.read(room).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => filled += got,
            }
        }
    })
    .await
    .map_err(MessageError::Broken)?
    .map_err(MessageError::Fault)
}

/// The message at the head of `bytes`, or nothing while it is not all there.
fn take(bytes: &[u8], role: Role, max: usize) -> Result<Option<Received>, MessageFault> {
    let [first, second, bytes @ ..] = bytes else { return Ok(None) };
    check(*first, *second, role)?;
    let (length, bytes) = match second & LENGTH {
        126 => match bytes.split_first_chunk() {
            Some((length, bytes)) => (usize::from(u16::from_be_bytes(*length)), bytes),
            None => return Ok(None),
        },
        127 => return Err(MessageFault::Oversize),
        short => (usize::from(short), bytes),
    };
    if length > max {
        return Err(MessageFault::Oversize);
    }
    let (mask, bytes) = match role {
        Role::Client => (&[0; 4], bytes),
        Role::Server => match bytes.split_first_chunk() {
            Some(masked) => masked,
            None => return Ok(None),
        },
    };
    let Some((text, rest)) = bytes.split_at_checked(length) else { return Ok(None) };
    Ok(Some(Received { text: masked(text, mask).collect(), rest: rest.to_vec() }))
}

/// Writes one text message as `role`. The caller's messages are ASCII and short.
pub(crate) async fn write_text<S: AsyncWrite + Unpin>(
    stream: &mut S,
    role: Role,
    text: &[u8],
    until: Instant,
) -> Result<(), Broken> {
    write(stream, &frame(TEXT, role, text), until).await
}

/// Writes a close frame as `role`.
pub(crate) async fn write_close<S: AsyncWrite + Unpin>(
    stream: &mut S,
    role: Role,
    status: u16,
    until: Instant,
) -> Result<(), Broken> {
    write(stream, &frame(CLOSE, role, &status.to_be_bytes()), until).await
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], until: Instant) -> Result<(), Broken> {
    within(until, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await
}

fn check(first: u8, second: u8, role: Role) -> Result<(), MessageFault> {
    if first & RESERVED != 0 {
        return Err(MessageFault::Reserved);
    }
    match first & OPCODE {
        CLOSE => return Err(MessageFault::Closed),
        PING | PONG => return Err(MessageFault::Control),
        BINARY => return Err(MessageFault::Binary),
        CONTINUATION => return Err(MessageFault::Fragment),
        TEXT => {}
        _ => return Err(MessageFault::Reserved),
    }
    if first & FINAL == 0 {
        return Err(MessageFault::Fragment);
    }
    if (second & MASKED != 0) == (role == Role::Server) { Ok(()) } else { Err(MessageFault::Mask) }
}

pub(crate) fn frame(opcode: u8, role: Role, payload: &[u8]) -> Vec<u8> {
    let bit = if role == Role::Client { MASKED } else { 0 };
    let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    bytes.push(FINAL | opcode);
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => bytes.push(bit | short),
        _ => {
            bytes.push(bit | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    if role == Role::Client {
        let mask: [u8; 4] = rand::random();
        bytes.extend(mask);
        bytes.extend(masked(payload, &mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

fn masked(payload: &[u8], mask: &[u8; 4]) -> impl Iterator<Item = u8> {
    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask)
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "a binary message where text is due",
            Self::Closed => "the other side closed the WebSocket",
            Self::Control => "a ping or pong where none may be",
            Self::Empty => "a frame with nothing in it",
            Self::Fragment => "a part of a message before the verdict",
            Self::Mask => "a frame masked the wrong way",
            Self::Oversize => "a message that is too long",
            Self::Reserved => "a frame with reserved bits",
            Self::Text => "a text message where binary is due",
            Self::Trailing => "bytes before the verdict that are no part of the proof",
        })
    }
}

impl core::error::Error for MessageFault {}

/// Two bytes, a length of two more, and the mask.
const HEADER_BYTES_MAX: usize = 8;
/// The longest message with its header, and one byte that shows whether more follows.
const BUFFER_BYTES: usize = HEADER_BYTES_MAX + PROOF_BYTES_MAX + 1;
const _: () = assert!(VERDICT_BYTES_MAX <= PROOF_BYTES_MAX);
pub(crate) const FINAL: u8 = 0x80;
pub(crate) const RESERVED: u8 = 0x70;
pub(crate) const OPCODE: u8 = 0x0f;
pub(crate) const MASKED: u8 = 0x80;
pub(crate) const LENGTH: u8 = 0x7f;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
