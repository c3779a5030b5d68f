//! The dialler's side: TCP, TLS, the org's settings, the WebSocket and conn_auth, one after the other
//! within one deadline, each failure with its step and its code.

use core::fmt;
use std::{io, time::Duration};

use conn_auth::{Accepted, Action, AwaitChallenge, Bind, Binding, ChallengeError, Dial, To, VerdictError};
use identity::{
    CharterId, Code, Heads, PublicKey, SecretKey,
    limits::{CHARTER_BYTES_MAX, CHARTERS_MAX, DIAL_DEADLINE_MS, SYNC_FRAME_BYTES_MAX, VERDICT_BYTES_MAX},
};
use org_trust::{CharterChain, CharterError, UnverifiedCharter};
use rand::TryRng as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::Instant,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::{handshake::derive_accept_key, protocol::Role};

use crate::{
    AUTH_PATH, Address, CHARTERS_PATH, Channel, ClientTls, EDGE_PATH, EDGE_SUBPROTOCOL, SUBPROTOCOL,
    TlsError, Way,
    deadline::{Broken, within},
    head::{AnswerHead, HeadBuffer, HeadError, HeadFault, switched},
    session::Session,
    tls,
    websocket::{MessageError, MessageFault, read_text, write_text},
};

/// How far a dial came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Finding the host's addresses.
    Resolve,
    /// Connecting to one of them.
    Tcp,
    /// TLS with an edge that opens it, and the WebSocket through it; only for an address that asks for it.
    Edge,
    /// TLS with the gateway, the certificate included.
    Tls,
    /// Fetching the org's settings.
    Charters,
    /// Opening the WebSocket: HELLO and CHALLENGE.
    Challenge,
    /// PROOF and VERDICT.
    Verdict,
}

/// A dial failed.
#[derive(Debug)]
pub struct DialError {
    /// Where.
    pub step: Step,
    /// Why.
    pub fault: DialFault,
}

/// Why a dial failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialFault {
    /// The connection ended, broke, or took too long.
    Broken(Broken),
    /// CHALLENGE was refused; nothing was signed.
    Challenge(ChallengeError),
    /// The settings that the server sent do not hold.
    Charter(CharterError),
    /// The operating system has no randomness, or our own signature came out wrong.
    Own(&'static str),
    /// Not an answer of ours.
    Head(HeadFault),
    /// Something else came where VERDICT was due.
    Message(MessageFault),
    /// A server with a valid certificate whose key the org's settings do not name.
    NotNamed(Box<PublicKey>),
    /// The bytes are no settings.
    NotCharters,
    /// The operating system's word for it.
    Os(io::ErrorKind),
    /// The server has not heard of settings that we hold.
    Behind,
    /// Another HTTP status than the one asked for.
    Status(u16),
    /// TLS failed.
    Tls(TlsError),
    /// VERDICT was no.
    Verdict(VerdictError),
}

/// What a gateway is dialled with.
#[derive(Debug)]
pub struct GatewayDial<'a> {
    /// Where.
    pub address: &'a Address,
    /// Whose certificates hold.
    pub tls: &'a ClientTls,
    /// Settings that the gateway must hold: the newest this machine has seen.
    pub anchor: Option<CharterId>,
    /// Our key.
    pub key: &'a SecretKey,
    /// What for.
    pub action: Action,
    /// What we hold, as a hint.
    pub heads: Heads,
    /// How much we hold.
    pub count: u64,
}

/// A session with a gateway.
pub type GatewaySession = Session<TlsStream<Way>>;

/// Dials a gateway: TCP, an edge if the address names one, TLS, the walk from the head of `chain` to the gateway's newest settings,
/// conn_auth with any gateway that those name. `chain` keeps what was verified, also on failure.
///
/// # Errors
/// [`DialError`].
pub async fn dial_gateway(
    dial: GatewayDial<'_>,
    chain: &mut CharterChain,
) -> Result<(GatewaySession, Accepted), DialError> {
    // The state of all steps is some kilobytes: kept in one place, not in every caller's future.
    Box::pin(dial_steps(dial, chain)).await
}

async fn dial_steps(
    dial: GatewayDial<'_>,
    chain: &mut CharterChain,
) -> Result<(GatewaySession, Accepted), DialError> {
    let until = Instant::now() + Duration::from_millis(DIAL_DEADLINE_MS);
    let tcp = connect(dial.address, until).await?;
    let way = reach(dial.address, tcp, until).await?;
    let (stream, exporter) = secure(dial.tls, dial.address.host(), way, until).await?;
    prove(dial, stream, exporter, chain, until).await
}

/// What follows once TLS stands: the walk along the org's settings, then conn_auth with any gateway that
/// those name, bound to this TLS connection by `exporter`.
///
/// # Errors
/// [`DialError`] from [`Step::Charters`] on.
pub async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
    dial: GatewayDial<'_>,
    mut stream: S,
    exporter: [u8; 32],
    chain: &mut CharterChain,
    until: Instant,
) -> Result<(Session<S>, Accepted), DialError> {
    let GatewayDial { address, tls: _, anchor, key, action, heads, count } = dial;
    walk(&mut stream, address, chain, until).await?;
    if anchor.is_some_and(|anchor| chain.get(&anchor).is_none()) {
        return Err(at(Step::Charters, DialFault::Behind));
    }
    let gateways: Vec<PublicKey> = chain.head().charter().gateways.iter().map(|g| g.key).collect();
    let bound = action.rule(Bind::Tls).map_or(0, |rule| rule.frame_bytes_max);
    let pending =
        Dial { org: chain.org(), key, to: To::AnyOf(&gateways), binding: Binding::Tls(exporter), action }
            .start(nonce()?)
            .map_err(|_| at(Step::Challenge, DialFault::Own("the opening message cannot be made")))?;
    match authenticate(stream, &address.authority(), pending, (heads, count), bound, until).await {
        Err(DialError { step, fault: DialFault::Challenge(ChallengeError::WrongServer { got }) }) => {
            Err(at(step, DialFault::NotNamed(got)))
        }
        other => other,
    }
}

/// TCP to the first address of the host that answers.
///
/// # Errors
/// [`DialError`] at [`Step::Resolve`] or [`Step::Tcp`].
pub async fn connect(address: &Address, until: Instant) -> Result<TcpStream, DialError> {
    let found = within(until, lookup_host((address.host(), address.port()))).await;
    let found = found.map_err(|why| match why {
        Broken::Deadline => at(Step::Resolve, DialFault::Broken(why)),
        Broken::Ended => at(Step::Resolve, DialFault::Os(io::ErrorKind::UnexpectedEof)),
        Broken::Io(kind) => at(Step::Resolve, DialFault::Os(kind)),
    })?;
    let mut last = at(Step::Resolve, DialFault::Os(io::ErrorKind::NotFound));
    for socket_address in found {
        match within(until, TcpStream::connect(socket_address)).await {
            Ok(stream) => {
                // Small messages back and forth: waiting to fill packets would only add round trips.
                stream.set_nodelay(true).map_err(|e| at(Step::Tcp, DialFault::Os(e.kind())))?;
                return Ok(stream);
            }
            Err(Broken::Io(kind)) => last = at(Step::Tcp, DialFault::Os(kind)),
            Err(why) => last = at(Step::Tcp, DialFault::Broken(why)),
        }
    }
    Err(last)
}

/// The way to the gateway over this connection: the connection itself, or a WebSocket through the edge at its
/// end, where the address says that one opens TLS there.
///
/// # Errors
/// [`DialError`] at [`Step::Edge`].
pub async fn reach(address: &Address, tcp: TcpStream, until: Instant) -> Result<Way, DialError> {
    if !address.through_edge() {
        return Ok(tcp.into());
    }
    let stream = secure_to_edge(address, Way::from(tcp), until).await?;
    let channel = through(address, tokio_rustls::TlsStream::Client(stream), until).await?;
    Ok(channel.into())
}

/// TLS with an edge, which is believed nothing: whose certificate it shows is not looked at.
///
/// # Errors
/// [`DialError`] at [`Step::Edge`].
pub async fn secure_to_edge<S: AsyncRead + AsyncWrite + Unpin>(
    address: &Address,
    stream: S,
    until: Instant,
) -> Result<TlsStream<S>, DialError> {
    match tokio::time::timeout_at(until, tls::connect_unverified(address.host(), stream)).await {
        Ok(secured) => secured.map_err(|why| at(Step::Edge, DialFault::Tls(why))),
        Err(_) => Err(at(Step::Edge, DialFault::Broken(Broken::Deadline))),
    }
}

/// The WebSocket in which TLS to the gateway runs, over the stream to an edge.
///
/// # Errors
/// [`DialError`] at [`Step::Edge`].
pub async fn through<S: AsyncRead + AsyncWrite + Unpin>(
    address: &Address,
    mut stream: S,
    until: Instant,
) -> Result<Channel<S>, DialError> {
    let key = encode_key(rand::random());
    let head = upgrade_head(EDGE_PATH, &address.authority(), &key, EDGE_SUBPROTOCOL, "");
    let opened = async {
        write(&mut stream, head.as_bytes(), until).await.map_err(DialFault::Broken)?;
        let mut buffer = HeadBuffer::default();
        let head = read_head(&mut buffer, &mut stream, until).await?;
        match switched(&head, &derive_accept_key(key.as_bytes())).map_err(DialFault::Head)? {
            // The gateway says nothing before the opening message of TLS.
            None if buffer.is_empty() => Ok(()),
            None => Err(DialFault::Head(HeadFault::Trailing)),
            Some(status) => Err(DialFault::Status(status)),
        }
    };
    opened.await.map_err(|why| at(Step::Edge, why))?;
    Ok(Channel::new(stream, Role::Client))
}

/// TLS over a connected stream, and the connection's channel binding.
///
/// # Errors
/// [`DialError`] at [`Step::Tls`].
pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &ClientTls,
    host: &str,
    stream: S,
    until: Instant,
) -> Result<(TlsStream<S>, [u8; 32]), DialError> {
    match tokio::time::timeout_at(until, tls.connect(host, stream)).await {
        Ok(secured) => secured.map_err(|why| at(Step::Tls, DialFault::Tls(why))),
        Err(_) => Err(at(Step::Tls, DialFault::Broken(Broken::Deadline))),
    }
}

/// Fetches and verifies the settings that follow the chain's head, until there are no more. The
/// connection stays open.
///
/// # Errors
/// [`DialError`] at [`Step::Charters`]; `chain` keeps what was verified before.
pub async fn walk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    address: &Address,
    chain: &mut CharterChain,
    until: Instant,
) -> Result<(), DialError> {
    for _ in 0..=CHARTERS_MAX {
        let page = charters(stream, &address.authority(), &chain.head().id(), until).await?;
        if page.is_empty() {
            return Ok(());
        }
        for bytes in page {
            let before = chain.head().id();
            let next =
                UnverifiedCharter::decode(&bytes).map_err(|_| at(Step::Charters, DialFault::NotCharters))?;
            let id = chain.extend(next).map_err(|why| at(Step::Charters, DialFault::Charter(why)))?;
            if id == before || chain.head().id() != id {
                // A page that repeats what we hold would never end.
                return Err(at(Step::Charters, DialFault::NotCharters));
            }
        }
    }
    Err(at(Step::Charters, DialFault::NotCharters))
}

/// One page of settings that follow `after`, oldest first, unverified.
///
/// # Errors
/// [`DialError`] at [`Step::Charters`].
pub async fn charters<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    after: &CharterId,
    until: Instant,
) -> Result<Vec<Vec<u8>>, DialError> {
    let broken = |why| at(Step::Charters, DialFault::Broken(why));
    let request = format!("GET {CHARTERS_PATH}?after={after} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    write(stream, request.as_bytes(), until).await.map_err(broken)?;
    let mut buffer = HeadBuffer::default();
    let head = read_head(&mut buffer, stream, until).await.map_err(|why| at(Step::Charters, why))?;
    let length = match AnswerHead::parse(&head, None) {
        Ok(AnswerHead::Body { length }) if length <= CHARTERS_BODY_BYTES_MAX => length,
        Ok(AnswerHead::Body { .. } | AnswerHead::Switched { .. }) => {
            return Err(at(Step::Charters, DialFault::NotCharters));
        }
        Ok(AnswerHead::Status { status: 404, .. }) => return Err(at(Step::Charters, DialFault::Behind)),
        Ok(AnswerHead::Status { status, .. }) => return Err(at(Step::Charters, DialFault::Status(status))),
        Err(why) => return Err(at(Step::Charters, DialFault::Head(why))),
    };
    let mut body = buffer.take();
    let missing = length.checked_sub(body.len());
    let missing = missing.ok_or_else(|| at(Step::Charters, DialFault::Head(HeadFault::Trailing)))?;
    let mut rest = vec![0; missing];
    within(until, stream.read_exact(&mut rest)).await.map_err(broken)?;
    body.append(&mut rest);
    decode_charters(&body).ok_or_else(|| at(Step::Charters, DialFault::NotCharters))
}

/// conn_auth over a WebSocket on `stream`. `host` goes into the request's head, `held` is the hint of
/// what we hold, and the session takes frames of up to `frame_bytes_max`.
///
/// # Errors
/// [`DialError`] at [`Step::Challenge`] or [`Step::Verdict`].
pub async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    pending: AwaitChallenge<'_>,
    held: (Heads, u64),
    frame_bytes_max: usize,
    until: Instant,
) -> Result<(Session<S>, Accepted), DialError> {
    let challenge = upgrade(&mut stream, host, pending.hello(), until)
        .await
        .map_err(|fault| at(Step::Challenge, fault))?;
    let proven =
        pending.on_challenge(&challenge).map_err(|why| at(Step::Challenge, DialFault::Challenge(why)))?;
    let (heads, count) = held;
    let pending = proven.prove(heads, count);
    let proof = pending.proof().as_bytes();
    write_text(&mut stream, Role::Client, proof, until)
        .await
        .map_err(|why| at(Step::Verdict, DialFault::Broken(why)))?;
    let verdict = read_text(&mut stream, Role::Client, VERDICT_BYTES_MAX, until).await;
    let verdict = verdict.map_err(|why| match why {
        MessageError::Broken(why) => at(Step::Verdict, DialFault::Broken(why)),
        MessageError::Fault(why) => at(Step::Verdict, DialFault::Message(why)),
    })?;
    let accepted =
        pending.on_verdict(&verdict.text).map_err(|why| at(Step::Verdict, DialFault::Verdict(why)))?;
    // The first frames may have come in one packet with VERDICT.
    Ok((Session::start(stream, verdict.rest, Role::Client, frame_bytes_max).await, accepted))
}

/// 32 fresh bytes for HELLO or CHALLENGE.
///
/// # Errors
/// [`DialError`] when the operating system has none.
pub fn nonce() -> Result<[u8; 32], DialError> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| at(Step::Challenge, DialFault::Own("the operating system has no randomness")))?;
    Ok(bytes)
}

/// The body of a page of settings: each behind its length as `u32` little-endian.
#[must_use]
pub fn encode_charters<'a>(charters: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for charter in charters {
        body.extend(u32::try_from(charter.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend(charter);
    }
    body
}

fn decode_charters(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = identity::codec::Reader::new(body);
    let mut charters = Vec::new();
    while !reader.rest().is_empty() {
        let length = usize::try_from(reader.u32("length").ok()?).ok()?;
        if length == 0 || length > CHARTER_BYTES_MAX {
            return None;
        }
        charters.push(reader.bytes("charter", length).ok()?.to_vec());
    }
    Some(charters)
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    hello: &str,
    until: Instant,
) -> Result<Vec<u8>, DialFault> {
    let key = encode_key(rand::random());
    let more = ["Muster-Hello: ", hello, "\r\n"].concat();
    let request = upgrade_head(AUTH_PATH, host, &key, SUBPROTOCOL, &more);
    write(stream, request.as_bytes(), until).await.map_err(DialFault::Broken)?;
    let mut buffer = HeadBuffer::default();
    let head = read_head(&mut buffer, stream, until).await?;
    match AnswerHead::parse(&head, Some(&derive_accept_key(key.as_bytes()))).map_err(DialFault::Head)? {
        AnswerHead::Switched { challenge } if buffer.is_empty() => Ok(challenge),
        AnswerHead::Switched { .. } => Err(DialFault::Head(HeadFault::Trailing)),
        AnswerHead::Status { refusal: Some(line), .. } => Ok(line),
        AnswerHead::Status { status, refusal: None } => Err(DialFault::Status(status)),
        AnswerHead::Body { .. } => Err(DialFault::Status(200)),
    }
}

fn upgrade_head(path: &str, host: &str, key: &str, protocol: &str, more: &str) -> String {
    [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ",
        key,
        "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ",
        protocol,
        "\r\n",
        more,
        "\r\n",
    ]
    .concat()
}

async fn read_head<S: AsyncRead + Unpin>(
    buffer: &mut HeadBuffer,
    stream: &mut S,
    until: Instant,
) -> Result<Vec<u8>, DialFault> {
    buffer.head(stream, until).await.map_err(|why| match why {
        HeadError::Broken(why) => DialFault::Broken(why),
        HeadError::Fault(why) => DialFault::Head(why),
    })
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], until: Instant) -> Result<(), Broken> {
    within(until, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await
}

/// 16 bytes in base64, as `Sec-WebSocket-Key` wants them; they protect nothing here.
fn encode_key(bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = u128::from_be_bytes(bytes);
    // 128 bits and four zero bits make 22 digits.
    let digit = |i: u32| match i {
        21 => (value << 4) & 63,
        i => (value >> (122 - 6 * i)) & 63,
    };
    let digits = (0..22).filter_map(|i| DIGITS.get(usize::try_from(digit(i)).ok()?).copied());
    digits.map(char::from).chain(['=', '=']).collect()
}

const fn at(step: Step, fault: DialFault) -> DialError {
    DialError { step, fault }
}

impl DialError {
    /// The code for people.
    #[must_use]
    pub fn code(&self) -> Code {
        match &self.fault {
            DialFault::Behind => Code::GatewayBehind,
            DialFault::Broken(Broken::Deadline) if self.step <= Step::Tcp => Code::GatewayUnreachable,
            DialFault::Broken(why) => why.code(),
            DialFault::Challenge(why) => why.code(),
            DialFault::Charter(_) | DialFault::NotCharters => Code::ChartersInvalid,
            DialFault::Head(_) | DialFault::Status(_) if self.step == Step::Edge => Code::EdgeRefused,
            DialFault::Head(_) => Code::UpgradeRefused,
            DialFault::Message(MessageFault::Closed) => Code::ConnectionLost,
            DialFault::Message(_) => Code::VerdictMalformed,
            DialFault::NotNamed(_) => Code::GatewayNotNamed,
            DialFault::Os(_) if self.step == Step::Resolve => Code::NameNotResolved,
            DialFault::Os(io::ErrorKind::ConnectionRefused) => Code::GatewayRefused,
            DialFault::Os(_) => Code::GatewayUnreachable,
            DialFault::Own(_) => Code::ClientProofWrong,
            DialFault::Status(503) => Code::GatewayUnavailable,
            DialFault::Status(_) => Code::UpgradeRefused,
            DialFault::Tls(why) => why.code(),
            DialFault::Verdict(why) => why.code(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "finding the host",
            Self::Tcp => "connecting",
            Self::Edge => "passing the edge",
            Self::Tls => "TLS",
            Self::Charters => "fetching the org's settings",
            Self::Challenge => "asking the server to prove itself",
            Self::Verdict => "proving ourselves",
        })
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.fault)
    }
}

impl core::error::Error for DialError {}

impl fmt::Display for DialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str("the gateway does not hold the newest org settings known here"),
            Self::Broken(why) => write!(f, "{why}"),
            Self::Challenge(why) => write!(f, "{why}"),
            Self::Charter(why) => write!(f, "{why}"),
            Self::Head(why) => write!(f, "{why}"),
            Self::Message(why) => write!(f, "{why}"),
            Self::NotCharters => f.write_str("what the gateway sent is no org settings"),
            Self::NotNamed(key) => {
                write!(f, "the org's settings do not name the server's key {}", key.short())
            }
            Self::Os(kind) => write!(f, "{kind}"),
            Self::Own(why) => f.write_str(why),
            Self::Status(status) => write!(f, "the server answered with HTTP status {status}"),
            Self::Tls(why) => write!(f, "{why}"),
            Self::Verdict(why) => write!(f, "{why}"),
        }
    }
}

/// A page is cut before it passes this; one charter of the largest size always fits.
pub const CHARTERS_BODY_BYTES_MAX: usize = SYNC_FRAME_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_websocket_key_is_base64() {
        assert_eq!(encode_key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_page_of_settings_reads_back_and_a_cut_one_is_refused() {
        let body = encode_charters([&b"one"[..], b"two"]);
        assert_eq!(decode_charters(&body), Some(vec![b"one".to_vec(), b"two".to_vec()]));
        assert_eq!(decode_charters(&[]), Some(vec![]));
        for end in 1..body.len() {
            assert!(end == 7 || decode_charters(&body[..end]).is_none(), "{end}");
        }
        assert_eq!(decode_charters(&[0, 0, 0, 0]), None);
        assert_eq!(decode_charters(&[0xff; 8]), None);
    }
}
