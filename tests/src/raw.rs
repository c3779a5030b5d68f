//! The four messages and what follows them, byte by byte, from either end and without any rule: what an
//! attacker and a broken program have in their hands.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Any stream.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// How the messages are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// The first handshake: lines, and a challenge of 32 raw bytes.
    Seed,
    /// Lines.
    Lines,
    /// HTTP heads, then a WebSocket.
    WebSocket,
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened it.
    Dialler,
    /// The other.
    Acceptor,
}

/// What is sent or awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first.
    Hello,
    /// The second.
    Challenge,
    /// The third.
    Proof,
    /// The fourth; the first handshake has none.
    Verdict,
    /// What follows.
    Application,
}

/// One end of a connection.
pub struct Raw {
    stream: Box<dyn Duplex>,
    framing: Framing,
    side: Side,
    received: Vec<u8>,
    /// Answers the WebSocket key that was received.
    accept: String,
}

impl Raw {
    /// This end of `stream`.
    pub fn new(stream: impl Duplex + 'static, framing: Framing, side: Side) -> Self {
        Self { stream: Box::new(stream), framing, side, received: Vec::new(), accept: String::new() }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn send(&mut self, message: Message, body: &[u8]) -> io::Result<()> {
        let bytes = match (self.framing, message) {
            (Framing::Seed, Message::Verdict) => return Ok(()),
            (Framing::Seed, Message::Challenge) => body.to_vec(),
            (Framing::Lines, Message::Application) => {
                [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
            }
            (Framing::Seed | Framing::Lines, _) => [body, b"\n"].concat(),
            (Framing::WebSocket, Message::Hello) => upgrade(body),
            (Framing::WebSocket, Message::Challenge) => self.switch(body),
            (Framing::WebSocket, Message::Proof | Message::Verdict) => self.frame(TEXT, body),
            (Framing::WebSocket, Message::Application) => self.frame(BINARY, body),
        };
        self.bytes(&bytes).await
    }

    /// Awaits a message.
    ///
    /// # Errors
    /// The operating system's, and of kind `UnexpectedEof` or `InvalidData` when something else came.
    pub async fn recv(&mut self, message: Message) -> io::Result<Vec<u8>> {
        match (self.framing, message) {
            (Framing::Seed, Message::Verdict) => Ok(Vec::new()),
            (Framing::Seed, Message::Challenge) => self.take(32).await,
            (Framing::Lines, Message::Application) => {
                let length = self.take(4).await?;
                self.take(usize::try_from(u32::from_le_bytes(length.try_into().unwrap())).unwrap()).await
            }
            (Framing::Seed | Framing::Lines, _) => {
                let mut line = self.until(b"\n").await?;
                line.pop();
                Ok(line)
            }
            (Framing::WebSocket, Message::Hello) => {
                let head = self.until(b"\r\n\r\n").await?;
                self.accept = derive_accept_key(&header(&head, "sec-websocket-key")?);
                header(&head, "muster-hello")
            }
            (Framing::WebSocket, Message::Challenge) => {
                let head = self.until(b"\r\n\r\n").await?;
                header(&head, "muster-challenge")
            }
            (Framing::WebSocket, Message::Proof | Message::Verdict | Message::Application) => {
                self.recv_frame().await
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Everything that still comes, until the other side closes or resets.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut chunk = [0; 1024];
        while let Ok(got @ 1..) = self.stream.read(&mut chunk).await {
            self.received.extend_from_slice(&chunk[..got]);
        }
        core::mem::take(&mut self.received)
    }

    /// Ends this side's half.
    pub async fn shutdown(&mut self) {
        // A peer that is gone already has ended both halves.
        drop(self.stream.shutdown().await);
    }

    fn frame(&self, first: u8, body: &[u8]) -> Vec<u8> {
        frame(first, self.side == Side::Dialler, body)
    }

    fn switch(&self, challenge: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Challenge: ",
            self.accept
        );
        [head.as_bytes(), challenge, b"\r\n\r\n"].concat()
    }

    async fn recv_frame(&mut self) -> io::Result<Vec<u8>> {
        let head = self.take(2).await?;
        let length = match head[1] & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.take(2).await?.try_into().unwrap())),
            127 => return Err(io::ErrorKind::InvalidData.into()),
            short => usize::from(short),
        };
        let mask = if head[1] & 0x80 == 0 { vec![0; 4] } else { self.take(4).await? };
        let mut body = self.take(length).await?;
        body.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        if head[0] & 0x0f == CLOSE & 0x0f { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.more().await?;
        }
        let rest = self.received.split_off(length);
        Ok(core::mem::replace(&mut self.received, rest))
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|w| w == end) {
                return self.take(at + end.len()).await;
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1024];
        let got = self.stream.read(&mut chunk).await?;
        self.received.extend_from_slice(&chunk[..got]);
        if got == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The upgrade that carries HELLO, as a client of ours writes it.
#[must_use]
pub fn upgrade(hello: &[u8]) -> Vec<u8> {
    let head = "GET /auth HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Hello: ";
    [head.as_bytes(), hello, b"\r\n\r\n"].concat()
}

/// One WebSocket frame with this first byte.
#[must_use]
pub fn frame(first: u8, masked: bool, body: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match u8::try_from(body.len()) {
        Ok(short) if short < 126 => bytes.push(bit | short),
        _ => {
            bytes.push(bit | 126);
            bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        }
    }
    if masked {
        bytes.extend(MASK);
        bytes.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(body);
    }
    bytes
}

fn header(head: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let head = core::str::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData)?;
    let found =
        head.lines().filter_map(|line| line.split_once(": ")).find(|h| h.0.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A whole text message.
pub const TEXT: u8 = 0x81;
/// A whole binary message.
pub const BINARY: u8 = 0x82;
/// The close frame.
pub const CLOSE: u8 = 0x88;

impl core::fmt::Debug for Raw {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Raw")
            .field("framing", &self.framing)
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}
