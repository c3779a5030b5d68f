//! The two text messages that pass before a session, one WebSocket frame each, read byte-exact: no
//! library's buffers exist for a peer that has proved nothing, and nothing but the awaited message
//! passes. After VERDICT tungstenite takes over the same stream.

use core::fmt;

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
    /// A part of a message.
    Fragment,
    /// Masked by a server or unmasked by a client.
    Mask,
    /// Longer than the message can be.
    Oversize,
    /// A reserved bit or opcode.
    Reserved,
}

/// A message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageError {
    Broken(Broken),
    Fault(MessageFault),
}

/// Reads one text message of at most `max` bytes as `role`.
pub(crate) async fn read_text<S: AsyncRead + Unpin>(
    stream: &mut S,
    role: Role,
    max: usize,
    until: Instant,
) -> Result<Vec<u8>, MessageError> {
    within(until, async {
        let [first, second] = read::<_, 2>(stream).await?;
        if let Err(fault) = check(first, second, role) {
            return Ok(Err(fault));
        }
        let length = match second & LENGTH {
            126 => usize::from(u16::from_be_bytes(read(stream).await?)),
            127 => return Ok(Err(MessageFault::Oversize)),
            short => usize::from(short),
        };
        if length > max {
            return Ok(Err(MessageFault::Oversize));
        }
        let mask: [u8; 4] = if role == Role::Server { read(stream).await? } else { [0; 4] };
        let mut text = vec![0; length];
        stream.read_exact(&mut text).await?;
        for (byte, mask) in text.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Ok(Ok(text))
    })
    .await
    .map_err(MessageError::Broken)?
    .map_err(MessageError::Fault)
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

fn frame(opcode: u8, role: Role, payload: &[u8]) -> Vec<u8> {
    let masked = if role == Role::Client { MASKED } else { 0 };
    let mut bytes = vec![FINAL | opcode];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => bytes.push(masked | short),
        _ => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    if role == Role::Client {
        let mask: [u8; 4] = rand::random();
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

async fn read<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "a binary message where text is due",
            Self::Closed => "the other side closed the WebSocket",
            Self::Control => "a ping or pong before the verdict",
            Self::Fragment => "a part of a message before the verdict",
            Self::Mask => "a frame masked the wrong way",
            Self::Oversize => "a message that is too long",
            Self::Reserved => "a frame with reserved bits",
        })
    }
}

impl core::error::Error for MessageFault {}

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
