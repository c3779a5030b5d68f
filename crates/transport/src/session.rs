//! What follows VERDICT: binary frames within the action's bound, each one WebSocket message, until a
//! side closes with a reason.

use core::fmt;
use std::time::Duration;

use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use identity::{
    Code,
    limits::{CLOSE_FLUSH_MS, FRAME_WRITE_DEADLINE_MS},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

/// Close status of a session that is cut; the reason begins with the code.
pub const CLOSE_CUT: u16 = 4401;

/// An accepted session over `S`.
pub struct Session<S> {
    socket: WebSocketStream<S>,
    frame_bytes_max: usize,
}

/// The half that sends.
pub struct SessionSender<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    frame_bytes_max: usize,
}

/// The half that receives.
pub struct SessionReceiver<S> {
    stream: SplitStream<WebSocketStream<S>>,
}

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The other side closed it.
    Closed {
        /// Its WebSocket status: 1000 in good order, [`CLOSE_CUT`] when it was cut.
        status: u16,
        /// The code it gave.
        code: Option<Code>,
        /// Its words, at most 123 bytes.
        reason: String,
    },
    /// The connection broke or ended without a close frame.
    Lost,
    /// A frame longer than the action allows: theirs was refused, or ours not sent.
    Oversize,
    /// Nothing left within the deadline: the other side does not read.
    Stuck,
    /// A text message or a broken WebSocket frame.
    Unexpected,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// `received` is what came behind VERDICT already.
    pub(crate) async fn start(stream: S, received: Vec<u8>, role: Role, frame_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(frame_bytes_max.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX))
            .write_buffer_size(0)
            .max_write_buffer_size(2 * (frame_bytes_max + BUFFER_BYTES_MIN))
            .max_message_size(Some(frame_bytes_max))
            .max_frame_size(Some(frame_bytes_max));
        let socket = WebSocketStream::from_partially_read(stream, received, role, Some(config)).await;
        Self { socket, frame_bytes_max }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`SessionError`]; after any the session is over, but for [`SessionError::Oversize`].
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), SessionError> {
        if frame.len() > self.frame_bytes_max {
            return Err(SessionError::Oversize);
        }
        in_time(self.socket.send(Message::binary(frame))).await
    }

    /// The next frame. Dropping the future loses nothing. The caller sets the deadline, if the
    /// protocol above has one.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub async fn recv(&mut self) -> Result<Vec<u8>, SessionError> {
        loop {
            if let Some(frame) = taken(self.socket.next().await)? {
                return Ok(frame);
            }
        }
    }

    /// Ends the session in good order.
    pub async fn close(self) {
        finish(self.socket, normal()).await;
    }

    /// Ends the session because the peer may not have it any more; `code` and `reason` leave within
    /// [`CLOSE_FLUSH_MS`] or not at all.
    pub async fn cut(self, code: Code, reason: &str) {
        finish(self.socket, cut(code, reason)).await;
    }

    /// Two halves for two tasks.
    #[must_use]
    pub fn split(self) -> (SessionSender<S>, SessionReceiver<S>) {
        let (sink, stream) = self.socket.split();
        (SessionSender { sink, frame_bytes_max: self.frame_bytes_max }, SessionReceiver { stream })
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        self.socket.get_ref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> SessionSender<S> {
    /// Sends one frame.
    ///
    /// # Errors
    /// [`SessionError`]; after any the session is over, but for [`SessionError::Oversize`].
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), SessionError> {
        if frame.len() > self.frame_bytes_max {
            return Err(SessionError::Oversize);
        }
        in_time(self.sink.send(Message::binary(frame))).await
    }

    /// The same for as long as it takes: who reads slowly slows the one who sends. The caller ends it when
    /// it must.
    ///
    /// # Errors
    /// [`SessionError`], as for [`Self::send`].
    pub async fn send_patiently(&mut self, frame: Vec<u8>) -> Result<(), SessionError> {
        if frame.len() > self.frame_bytes_max {
            return Err(SessionError::Oversize);
        }
        self.sink.send(Message::binary(frame)).await.map_err(SessionError::from)
    }

    /// Ends the session in good order. The socket closes when the receiver is dropped too.
    pub async fn close(mut self) {
        flush(self.sink.send(Message::Close(Some(normal())))).await;
    }

    /// Like [`Session::cut`]. The socket closes when the receiver is dropped too.
    pub async fn cut(mut self, code: Code, reason: &str) {
        flush(self.sink.send(Message::Close(Some(cut(code, reason))))).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> SessionReceiver<S> {
    /// The next frame; see [`Session::recv`].
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub async fn recv(&mut self) -> Result<Vec<u8>, SessionError> {
        loop {
            if let Some(frame) = taken(self.stream.next().await)? {
                return Ok(frame);
            }
        }
    }
}

impl SessionError {
    /// The code for people: the other side's if it gave one.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Closed { code: Some(code), .. } => *code,
            Self::Closed { code: None, .. } | Self::Lost | Self::Stuck => Code::ConnectionLost,
            Self::Oversize | Self::Unexpected => Code::FrameMalformed,
        }
    }
}

/// A frame, nothing yet, or the end.
fn taken(message: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Vec<u8>>, SessionError> {
    match message {
        None => Err(SessionError::Lost),
        Some(Ok(Message::Binary(frame))) => Ok(Some(frame.into())),
        // Answered by the library.
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Close(None))) => {
            Err(SessionError::Closed { status: 1005, code: None, reason: String::new() })
        }
        Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
            let (first, rest) = reason.split_once(' ').unwrap_or((reason.as_str(), ""));
            let known = Code::parse(first);
            let words = if known.is_some() { rest } else { reason.as_str() };
            Err(SessionError::Closed { status: code.into(), code: known, reason: words.to_owned() })
        }
        Some(Ok(Message::Text(_) | Message::Frame(_))) => Err(SessionError::Unexpected),
        Some(Err(error)) => Err(error.into()),
    }
}

impl From<tungstenite::Error> for SessionError {
    fn from(error: tungstenite::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the library's enum grows; the rest is a lost connection"
        )]
        match error {
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::Oversize,
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Lost,
            tungstenite::Error::Capacity(_)
            | tungstenite::Error::Protocol(_)
            | tungstenite::Error::Utf8(_) => Self::Unexpected,
            _ => Self::Lost,
        }
    }
}

async fn in_time(sending: impl Future<Output = Result<(), tungstenite::Error>>) -> Result<(), SessionError> {
    match timeout(Duration::from_millis(FRAME_WRITE_DEADLINE_MS), sending).await {
        Ok(sent) => sent.map_err(SessionError::from),
        Err(_) => Err(SessionError::Stuck),
    }
}

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, frame: CloseFrame) {
    flush(async {
        socket.send(Message::Close(Some(frame))).await?;
        socket.get_mut().shutdown().await.map_err(tungstenite::Error::Io)
    })
    .await;
}

async fn flush(sending: impl Future<Output = Result<(), tungstenite::Error>>) {
    // Nobody is left to tell when it fails: the socket is dropped either way.
    drop(timeout(Duration::from_millis(CLOSE_FLUSH_MS), sending).await);
}

fn normal() -> CloseFrame {
    CloseFrame { code: 1000.into(), reason: "".into() }
}

fn cut(code: Code, reason: &str) -> CloseFrame {
    let mut text = format!("{code} {reason}");
    let end = (0..=CLOSE_REASON_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    CloseFrame { code: CLOSE_CUT.into(), reason: text.into() }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { status, code: Some(code), reason } => {
                write!(f, "the other side closed the session ({status}): {code} {reason}")
            }
            Self::Closed { status, code: None, reason } => {
                write!(f, "the other side closed the session ({status}) {reason}")
            }
            Self::Lost => f.write_str("the connection was lost"),
            Self::Oversize => f.write_str("a frame is longer than the action allows"),
            Self::Stuck => f.write_str("the other side does not read"),
            Self::Unexpected => f.write_str("the other side sent something that is no frame"),
        }
    }
}

impl core::error::Error for SessionError {}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}

impl<S> fmt::Debug for SessionSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSender(..)")
    }
}

impl<S> fmt::Debug for SessionReceiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionReceiver(..)")
    }
}

/// A control frame carries 125 bytes, two of them the status.
const CLOSE_REASON_BYTES_MAX: usize = 123;
const BUFFER_BYTES_MIN: usize = 1024;
const BUFFER_BYTES_MAX: usize = 16 * 1024;
