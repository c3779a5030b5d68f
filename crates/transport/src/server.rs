//! The acceptor's side of a connection, one value for each state; the caller decides between them.

use core::fmt;

use identity::{
    CharterId, Code,
    limits::{PROOF_BYTES_MAX, VERDICT_BYTES_MAX},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    CHARTERS_PATH, Channel, EDGE_SUBPROTOCOL, SUBPROTOCOL,
    deadline::{Broken, Deadlines, within},
    head::{HeadBuffer, HeadError, HeadFault, RequestHead},
    session::Session,
    websocket::{MessageError, MessageFault, Received, read_text, write_close, write_text},
};

/// A connection whose next request is not read yet.
#[derive(Debug)]
#[must_use]
pub struct Incoming<S> {
    stream: S,
    buffer: HeadBuffer,
    deadlines: Deadlines,
}

/// What the other side asks for.
#[derive(Debug)]
pub enum Request<S> {
    /// A page, to anybody.
    Get(Get<S>),
    /// A WebSocket with HELLO.
    Upgrade(Upgrade<S>),
    /// A WebSocket in which TLS runs once more.
    Inner(Inner<S>),
}

/// An ordinary GET.
#[derive(Debug)]
#[must_use]
pub struct Get<S> {
    target: String,
    connection: Incoming<S>,
}

/// HELLO was received.
#[derive(Debug)]
#[must_use]
pub struct Upgrade<S> {
    target: String,
    hello: Vec<u8>,
    accept: String,
    stream: S,
    deadlines: Deadlines,
}

/// An edge that opened TLS asks for a WebSocket to pass TLS on in.
#[derive(Debug)]
#[must_use]
pub struct Inner<S> {
    target: String,
    accept: String,
    stream: S,
    deadlines: Deadlines,
}

/// CHALLENGE was sent.
#[derive(Debug)]
#[must_use]
pub struct AwaitProof<S> {
    stream: S,
    deadlines: Deadlines,
}

/// PROOF was received.
#[derive(Debug)]
#[must_use]
pub struct AwaitVerdict<S> {
    stream: S,
    deadlines: Deadlines,
}

/// The connection ends before a session. Whoever is behind it has proved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeError {
    /// It ended early or took too long.
    Broken(Broken),
    /// The request was refused.
    Head(HeadFault),
    /// The caller gave a line that cannot be carried.
    Line,
    /// Something else came where PROOF was due.
    Message(MessageFault),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Begins on a stream whose peer has sent nothing yet.
    pub fn new(stream: S, deadlines: Deadlines) -> Self {
        Self { stream, buffer: HeadBuffer::default(), deadlines }
    }

    /// Reads one request. A malformed one is answered with status 400.
    ///
    /// # Errors
    /// [`ServeError`]; the connection is closed.
    pub async fn next(mut self) -> Result<Request<S>, ServeError> {
        let head = match self.buffer.head(&mut self.stream, self.deadlines.hello()).await {
            Ok(head) => head,
            Err(HeadError::Broken(why)) => return Err(ServeError::Broken(why)),
            Err(HeadError::Fault(why)) => return Err(self.malformed(why).await),
        };
        match RequestHead::parse(&head) {
            Ok(RequestHead::Get { target }) => Ok(Request::Get(Get { target, connection: self })),
            Ok(RequestHead::Upgrade { .. } | RequestHead::Inner { .. }) if !self.buffer.is_empty() => {
                Err(self.malformed(HeadFault::Trailing).await)
            }
            Ok(RequestHead::Upgrade { target, hello, accept }) => {
                let Self { stream, deadlines, .. } = self;
                Ok(Request::Upgrade(Upgrade { target, hello, accept, stream, deadlines }))
            }
            Ok(RequestHead::Inner { target, accept }) => {
                let Self { stream, deadlines, .. } = self;
                Ok(Request::Inner(Inner { target, accept, stream, deadlines }))
            }
            Err(why) => Err(self.malformed(why).await),
        }
    }

    async fn malformed(mut self, why: HeadFault) -> ServeError {
        // Told as far as it can be; the connection ends either way.
        if let Err(lost) = refuse(&mut self.stream, self.deadlines, Status::BadRequest, None).await {
            tracing::debug!(%lost, "could not refuse");
        }
        ServeError::Head(why)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Get<S> {
    /// Path and query, as sent.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Answers 200 with `body` and keeps the connection.
    ///
    /// # Errors
    /// [`ServeError::Broken`].
    pub async fn answer(self, body: &[u8]) -> Result<Incoming<S>, ServeError> {
        let Self { mut connection, .. } = self;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        within(connection.deadlines.verdict(), async {
            connection.stream.write_all(head.as_bytes()).await?;
            connection.stream.write_all(body).await?;
            connection.stream.flush().await
        })
        .await
        .map_err(ServeError::Broken)?;
        Ok(connection)
    }

    /// Refuses: 404 for what is not here, 503 while nobody can answer. The connection is closed.
    ///
    /// # Errors
    /// [`ServeError::Broken`].
    pub async fn refuse(self, status: Status) -> Result<(), ServeError> {
        let Self { mut connection, .. } = self;
        refuse(&mut connection.stream, connection.deadlines, status, None).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Upgrade<S> {
    /// The path, as sent.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// HELLO, exactly as received.
    #[must_use]
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Switches to the WebSocket with this CHALLENGE.
    ///
    /// # Errors
    /// [`ServeError`]; the connection is closed.
    pub async fn challenge(self, line: &str) -> Result<AwaitProof<S>, ServeError> {
        if line.bytes().any(|c| !matches!(c, b' '..=b'~')) {
            return Err(ServeError::Line);
        }
        let Self { mut stream, deadlines, accept, .. } = self;
        let more = ["Muster-Challenge: ", line, "\r\n"].concat();
        switch(&mut stream, deadlines, &accept, SUBPROTOCOL, &more).await?;
        Ok(AwaitProof { stream, deadlines })
    }

    /// Refuses without a WebSocket: 404 for another path, 503 while nobody can decide. The connection
    /// is closed.
    ///
    /// # Errors
    /// [`ServeError::Broken`].
    pub async fn refuse(mut self, status: Status) -> Result<(), ServeError> {
        refuse(&mut self.stream, self.deadlines, status, None).await
    }

    /// Refuses HELLO with status 400 and this line (`no ref=..`) where CHALLENGE would stand. The
    /// connection is closed.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn refuse_hello(mut self, line: &str) -> Result<(), ServeError> {
        if line.bytes().any(|c| !matches!(c, b' '..=b'~')) {
            return Err(ServeError::Line);
        }
        refuse(&mut self.stream, self.deadlines, Status::BadRequest, Some(line)).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// The path, as sent.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Switches to the WebSocket. What comes in it is to be TLS, by the same deadlines.
    ///
    /// # Errors
    /// [`ServeError::Broken`].
    pub async fn open(self) -> Result<Channel<S>, ServeError> {
        let Self { mut stream, deadlines, accept, .. } = self;
        switch(&mut stream, deadlines, &accept, EDGE_SUBPROTOCOL, "").await?;
        Ok(Channel::new(stream, Role::Server))
    }

    /// Refuses without a WebSocket. The connection is closed.
    ///
    /// # Errors
    /// [`ServeError::Broken`].
    pub async fn refuse(mut self, status: Status) -> Result<(), ServeError> {
        refuse(&mut self.stream, self.deadlines, status, None).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AwaitProof<S> {
    /// Reads PROOF, exactly as sent.
    ///
    /// # Errors
    /// [`ServeError`]; the connection is closed.
    pub async fn proof(mut self) -> Result<(Vec<u8>, AwaitVerdict<S>), ServeError> {
        let until = self.deadlines.verdict();
        let fault = match read_text(&mut self.stream, Role::Server, PROOF_BYTES_MAX, until).await {
            Ok(Received { text, rest }) if rest.is_empty() => {
                return Ok((text, AwaitVerdict { stream: self.stream, deadlines: self.deadlines }));
            }
            Ok(_) => MessageFault::Trailing,
            Err(MessageError::Broken(why)) => return Err(ServeError::Broken(why)),
            Err(MessageError::Fault(why)) => why,
        };
        if let Err(lost) = write_close(&mut self.stream, Role::Server, CLOSE_PROTOCOL, until).await {
            tracing::debug!(%lost, "could not close");
        }
        Err(ServeError::Message(fault))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AwaitVerdict<S> {
    /// Sends VERDICT ok; the session takes frames of up to `frame_bytes_max`.
    ///
    /// # Errors
    /// [`ServeError`]; the connection is closed.
    pub async fn accept(mut self, line: &str, frame_bytes_max: usize) -> Result<Session<S>, ServeError> {
        self.verdict(line).await?;
        Ok(Session::start(self.stream, Vec::new(), Role::Server, frame_bytes_max).await)
    }

    /// Sends VERDICT no and closes.
    ///
    /// # Errors
    /// [`ServeError`] when VERDICT did not leave.
    pub async fn refuse(mut self, line: &str) -> Result<(), ServeError> {
        let until = self.deadlines.verdict();
        self.verdict(line).await?;
        let ended = async {
            write_close(&mut self.stream, Role::Server, CLOSE_POLICY, until).await?;
            within(until, self.stream.shutdown()).await
        };
        // Whoever has read the verdict need not wait for the rest.
        if let Err(lost) = ended.await {
            tracing::debug!(%lost, "the refused side was gone before the close frame");
        }
        Ok(())
    }

    async fn verdict(&mut self, line: &str) -> Result<(), ServeError> {
        if line.len() > VERDICT_BYTES_MAX || !line.is_ascii() {
            return Err(ServeError::Line);
        }
        write_text(&mut self.stream, Role::Server, line.as_bytes(), self.deadlines.verdict())
            .await
            .map_err(ServeError::Broken)
    }
}

/// How a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 503
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

async fn switch<S: AsyncWrite + Unpin>(
    stream: &mut S,
    deadlines: Deadlines,
    accept: &str,
    protocol: &str,
    more: &str,
) -> Result<(), ServeError> {
    let head = [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept,
        "\r\nSec-WebSocket-Protocol: ",
        protocol,
        "\r\n",
        more,
        "\r\n",
    ]
    .concat();
    within(deadlines.verdict(), async {
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await
    })
    .await
    .map_err(ServeError::Broken)
}

async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    deadlines: Deadlines,
    status: Status,
    line: Option<&str>,
) -> Result<(), ServeError> {
    let line = line.map(|l| format!("Muster-Challenge: {l}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: 0\r\n{line}\r\n", status.line());
    within(deadlines.verdict(), async {
        stream.write_all(head.as_bytes()).await?;
        stream.shutdown().await
    })
    .await
    .map_err(ServeError::Broken)
}

/// The id in `/charters?after=HEX`.
#[must_use]
pub fn after_of(target: &str) -> Option<CharterId> {
    let query = target.strip_prefix(CHARTERS_PATH)?.strip_prefix("?after=")?;
    CharterId::from_hex(query).ok()
}

impl ServeError {
    /// The code for the log.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Broken(why) => why.code(),
            Self::Head(_) | Self::Line => Code::HelloMalformed,
            Self::Message(_) => Code::ProofMalformed,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "{why}"),
            Self::Head(why) => write!(f, "{why}"),
            Self::Line => f.write_str("a line that cannot be carried"),
            Self::Message(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for ServeError {}

const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_POLICY: u16 = 1008;

#[cfg(test)]
mod tests {
    use identity::limits::{EDGE_PIECE_BYTES_MAX, HTTP_HEAD_BYTES_MAX, UNPROVEN_STATE_BYTES_MAX};
    use tokio::{io::DuplexStream, time::Instant};

    use super::*;

    #[test]
    fn a_stranger_costs_less_than_its_bound() {
        let (_, stream) = tokio::io::duplex(1);
        let deadlines = Deadlines::since(Instant::now());
        let reading = size_of_val(&Incoming::new(stream, deadlines).next());
        let (_, stream) = tokio::io::duplex(1);
        let proving = size_of_val(&AwaitProof { stream, deadlines }.proof());
        let head = HeadBuffer::PEAK_BYTES + reading;
        let proof = PROOF_BYTES_MAX + proving;
        println!(
            "unproven, HTTP head: {head} bytes; WebSocket: {proof}; of them futures {reading}, {proving}"
        );
        assert!(head.max(proof) <= UNPROVEN_STATE_BYTES_MAX);
        // Inside a WebSocket: a head that was sent too early, and a piece of ours that nobody takes.
        let channel = size_of::<Channel<DuplexStream>>();
        let inside = (head + channel).max(HTTP_HEAD_BYTES_MAX + EDGE_PIECE_BYTES_MAX + channel + reading);
        println!("inside a WebSocket: {inside} bytes, of them {channel} of its own");
        assert!(inside <= UNPROVEN_STATE_BYTES_MAX);
        assert!(size_of::<Upgrade<DuplexStream>>() < 256);
    }
}
