//! The handshake as first published, on a stream: the negative control of the attack tests, and interop
//! on one machine. See [`conn_auth::v0`] for what it does not protect against.
//!
//! It listens on the loopback and nowhere else. Nothing frames what follows it; the page that
//! published it says only that application data does.

use core::fmt;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use conn_auth::v0::{self, Admitted, SeedWireError, Token};
use identity::{
    Code,
    limits::{HELLO_BYTES_MAX, PROOF_BYTES_MAX},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{Broken, Deadlines, LineReader, deadline::within, line::write_line};

/// A listener on the loopback.
#[derive(Debug)]
pub struct SeedListener {
    tcp: TcpListener,
}

/// Why nothing listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeedListenError {
    /// The operating system's word for it.
    Os(io::ErrorKind),
    /// The address is not of the loopback.
    Public(SocketAddr),
}

/// There is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeedError {
    /// The connection ended early or took too long.
    Broken(Broken),
    /// A line longer than any of its kind.
    TooLong,
    /// The lines were refused.
    Wire(SeedWireError),
}

/// The peer was let in; the stream is its own from here on.
#[derive(Debug)]
pub struct SeedSession<S> {
    /// Who, and for what.
    pub admitted: Admitted,
    /// What was received behind the last line.
    pub received: Vec<u8>,
    /// The stream.
    pub stream: S,
}

impl SeedListener {
    /// Listens on a loopback address.
    ///
    /// # Errors
    /// [`SeedListenError::Public`] for any other address, before a socket exists.
    pub async fn bind(address: SocketAddr) -> Result<Self, SeedListenError> {
        if !IpAddr::is_loopback(&address.ip().to_canonical()) {
            return Err(SeedListenError::Public(address));
        }
        let tcp = TcpListener::bind(address).await.map_err(|e| SeedListenError::Os(e.kind()))?;
        Ok(Self { tcp })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.tcp.accept().await
    }
}

/// The acceptor's side, with 32 fresh random bytes and the one question the page asks: is this key in
/// the member list?
///
/// # Errors
/// [`SeedError`]; nothing tells the peer why.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    deadlines: Deadlines,
    challenge: [u8; 32],
    is_member: impl FnOnce(&[u8; 32]) -> bool,
) -> Result<SeedSession<S>, SeedError> {
    let mut lines = LineReader::default();
    let hello = line(&mut lines, &mut stream, HELLO_BYTES_MAX, deadlines.hello()).await?;
    let pending = v0::on_hello(&hello, challenge).map_err(SeedError::Wire)?;
    let until = deadlines.verdict();
    let sent = within(until, async {
        stream.write_all(pending.challenge()).await?;
        stream.flush().await
    });
    sent.await.map_err(SeedError::Broken)?;
    let signature = line(&mut lines, &mut stream, PROOF_BYTES_MAX, until).await?;
    let proven = pending.on_signature(&signature).map_err(SeedError::Wire)?;
    let member = is_member(&proven.peer());
    let admitted = proven.admit(member).map_err(SeedError::Wire)?;
    Ok(SeedSession { admitted, received: lines.into_rest(), stream })
}

/// The dialler's side. Whoever answers has the signature, and nothing proves who did.
///
/// # Errors
/// [`Broken`].
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    dial: v0::Dial<'_>,
    until: Instant,
) -> Result<(), Broken> {
    write_line(stream, &dial.hello(), until).await?;
    let mut challenge = [0; 32];
    within(until, stream.read_exact(&mut challenge)).await?;
    write_line(stream, &dial.on_challenge(&challenge), until).await
}

/// Reads the token that a returning boot shows, and whether it is the one kept.
///
/// # Errors
/// [`SeedError`].
pub async fn accept_token<S: AsyncRead + Unpin>(
    stream: &mut S,
    deadlines: Deadlines,
    kept: &Token,
) -> Result<bool, SeedError> {
    let shown = line(&mut LineReader::default(), stream, HELLO_BYTES_MAX, deadlines.hello()).await?;
    Ok(shown.strip_prefix(b"token=").is_some_and(|token| kept.matches(token)))
}

/// Shows the token.
///
/// # Errors
/// [`Broken`].
pub async fn show_token<S: AsyncWrite + Unpin>(
    stream: &mut S,
    token: Token,
    until: Instant,
) -> Result<(), Broken> {
    write_line(stream, &format!("token={}", token.to_text()), until).await
}

async fn line<S: AsyncRead + Unpin>(
    lines: &mut LineReader,
    stream: &mut S,
    max: usize,
    until: Instant,
) -> Result<Vec<u8>, SeedError> {
    lines.line(stream, max, until).await.map_err(SeedError::Broken)?.ok_or(SeedError::TooLong)
}

impl SeedListenError {
    /// The code for people.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Os(_) => Code::PortInUse,
            Self::Public(_) => Code::SeedWirePublic,
        }
    }
}

impl SeedError {
    /// The code for the log.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Broken(why) => why.code(),
            Self::TooLong => Code::HelloMalformed,
            Self::Wire(why) => why.code(),
        }
    }
}

impl fmt::Display for SeedListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(kind) => write!(f, "{kind}"),
            Self::Public(address) => {
                write!(f, "the first handshake is served on the loopback only, not on {address}")
            }
        }
    }
}

impl core::error::Error for SeedListenError {}

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "{why}"),
            Self::TooLong => f.write_str("a line that is too long"),
            Self::Wire(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for SeedError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_but_the_loopback_is_listened_on() {
        for public in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0", "10.0.0.1:4714"] {
            let refused = SeedListener::bind(public.parse().unwrap()).await.unwrap_err();
            assert_eq!(refused, SeedListenError::Public(public.parse().unwrap()));
            assert_eq!(refused.code(), Code::SeedWirePublic);
        }
        assert!(SeedListener::bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }
}
