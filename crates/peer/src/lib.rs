//! For programs that members reach through musterd: who is at the other end.
//!
//! musterd has proved the peer's key and asked the org's policy before it connects to a program, and says who
//! it is in one of two ways: in front of the stream, in a header of the PROXY protocol, version 2
//! (`muster expose ACTION --to ADDR --proxy-protocol`; [`accept`]), or when it is asked for a connection by the
//! address it comes from ([`whois`]).
//!
//! A header is worth as much as whoever can connect to the program. Let it listen on a socket that only
//! musterd may open, or on a machine whose local users you would believe anyway.

mod header;

use std::{io, path::Path};

use control::{
    framing,
    local::{Answer, Request, Whois},
};
use identity::limits::{CONTROL_MESSAGE_BYTES_MAX, PROXY_HEADER_BYTES_MAX};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

pub use header::{Header, HeaderError, Peer};

/// Where musterd listens unless told otherwise.
pub const CONTROL_SOCKET: &str = "/run/muster/musterd.sock";

/// Reads the header in front of a stream that musterd opened, and nothing behind it.
///
/// # Errors
/// The stream ends or breaks, or begins with something else: close it.
pub async fn accept<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Header> {
    let mut bytes = vec![0; header::FIXED_BYTES];
    stream.read_exact(&mut bytes).await?;
    let rest = header::rest(&bytes).filter(|rest| *rest <= PROXY_HEADER_BYTES_MAX);
    let rest = rest.ok_or_else(|| invalid(HeaderError::NotOne))?;
    bytes.resize(header::FIXED_BYTES + rest, 0);
    if let Some(rest) = bytes.get_mut(header::FIXED_BYTES..) {
        stream.read_exact(rest).await?;
    }
    Header::decode(&bytes).map_err(invalid)
}

/// Asks musterd who is behind `address`: an address of the overlay, or `ADDRESS:PORT` as the program sees its
/// peer. The asker needs to be in the socket's group.
///
/// # Errors
/// musterd cannot be asked, or knows nobody there; the error says which code it gave.
pub async fn whois(socket: &Path, address: &str) -> io::Result<Whois> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = Request::Whois { address: address.to_owned() };
    stream.write_all(&framing::encode(&request, CONTROL_MESSAGE_BYTES_MAX).map_err(invalid)?).await?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let length = framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).map_err(invalid)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let answer = framing::decode(&body).map_err(invalid)?;
    if let Answer::Failed(failed) = answer {
        return Err(io::Error::other(format!("{} {}", failed.code, failed.detail)));
    }
    let Answer::Whois(whois) = answer else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(*whois)
}

fn invalid(why: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
