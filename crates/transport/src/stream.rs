//! conn_auth on a bare stream: the four lines, then frames behind their lengths (docs/spec/conn-auth.md,
//! Framing). The same steps as over a WebSocket, without HTTP around them.

use std::time::Duration;

use conn_auth::{Accepted, AwaitChallenge};
use identity::limits::{
    CHALLENGE_BYTES_MAX, FRAME_WRITE_DEADLINE_MS, HELLO_BYTES_MAX, PROOF_BYTES_MAX, VERDICT_BYTES_MAX,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::{
    Broken, Deadlines, LineReader, SessionError,
    client::{DialError, DialFault, Step},
    line::write_line,
    websocket::MessageFault,
};

/// A session that carries frames over a bare stream.
#[derive(Debug)]
pub struct StreamSession<S> {
    stream: S,
    received: Vec<u8>,
    frame_bytes_max: usize,
}

/// An accepted stream, between two lines; the caller knows which one is due.
#[derive(Debug)]
#[must_use]
pub struct StreamIncoming<S> {
    stream: S,
    lines: LineReader,
    deadlines: Deadlines,
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamIncoming<S> {
    /// Begins on a stream whose peer has sent nothing yet.
    pub fn new(stream: S, deadlines: Deadlines) -> Self {
        Self { stream, lines: LineReader::default(), deadlines }
    }

    /// HELLO, exactly as sent; nothing when it is too long to be one.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn hello(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        self.lines.line(&mut self.stream, HELLO_BYTES_MAX, self.deadlines.hello()).await
    }

    /// PROOF, exactly as sent; nothing when it is too long to be one.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn proof(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        self.lines.line(&mut self.stream, PROOF_BYTES_MAX, self.deadlines.verdict()).await
    }

    /// Sends CHALLENGE or VERDICT.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn say(&mut self, line: &str) -> Result<(), Broken> {
        write_line(&mut self.stream, line, self.deadlines.verdict()).await
    }

    /// After VERDICT ok: the session, which takes frames of up to `frame_bytes_max`.
    pub fn accepted(self, frame_bytes_max: usize) -> StreamSession<S> {
        StreamSession { stream: self.stream, received: self.lines.into_rest(), frame_bytes_max }
    }
}

/// The dialler's side of the four lines.
///
/// # Errors
/// [`DialError`] at [`Step::Challenge`] or [`Step::Verdict`].
pub async fn authenticate_stream<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    pending: AwaitChallenge<'_>,
    held: (identity::Heads, u64),
    frame_bytes_max: usize,
    until: Instant,
) -> Result<(StreamSession<S>, Accepted), DialError> {
    let at = |step, fault| DialError { step, fault };
    let broken = |step| move |why| DialError { step, fault: DialFault::Broken(why) };
    let too_long = |step| move || DialError { step, fault: DialFault::Message(MessageFault::Oversize) };
    let mut lines = LineReader::default();
    write_line(&mut stream, pending.hello(), until).await.map_err(broken(Step::Challenge))?;
    let challenge = lines.line(&mut stream, CHALLENGE_BYTES_MAX, until).await;
    let challenge = challenge.map_err(broken(Step::Challenge))?.ok_or_else(too_long(Step::Challenge))?;
    let proven =
        pending.on_challenge(&challenge).map_err(|why| at(Step::Challenge, DialFault::Challenge(why)))?;
    let (heads, count) = held;
    let pending = proven.prove(heads, count);
    write_line(&mut stream, pending.proof(), until).await.map_err(broken(Step::Verdict))?;
    let verdict = lines.line(&mut stream, VERDICT_BYTES_MAX, until).await;
    let verdict = verdict.map_err(broken(Step::Verdict))?.ok_or_else(too_long(Step::Verdict))?;
    let accepted = pending.on_verdict(&verdict).map_err(|why| at(Step::Verdict, DialFault::Verdict(why)))?;
    Ok((StreamSession { stream, received: lines.into_rest(), frame_bytes_max }, accepted))
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamSession<S> {
    /// Sends one frame.
    ///
    /// # Errors
    /// [`SessionError`]; after any the session is over, but for [`SessionError::Oversize`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), SessionError> {
        let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= self.frame_bytes_max);
        let length = length.ok_or(SessionError::Oversize)?;
        let bytes = [&length.to_le_bytes(), frame].concat();
        let sending = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(Duration::from_millis(FRAME_WRITE_DEADLINE_MS), sending).await {
            Ok(sent) => sent.map_err(|_| SessionError::Lost),
            Err(_) => Err(SessionError::Stuck),
        }
    }

    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub async fn recv(&mut self) -> Result<Vec<u8>, SessionError> {
        loop {
            if let Some((prefix, rest)) = self.received.split_first_chunk::<PREFIX_BYTES>() {
                let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
                if length > self.frame_bytes_max {
                    return Err(SessionError::Oversize);
                }
                if let Some(frame) = rest.get(..length) {
                    let frame = frame.to_vec();
                    self.received.drain(..PREFIX_BYTES + length);
                    return Ok(frame);
                }
            }
            if self.stream.read_buf(&mut self.received).await.map_err(|_| SessionError::Lost)? == 0 {
                return Err(SessionError::Lost);
            }
        }
    }

    /// The stream below.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

const PREFIX_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use conn_auth::{Accept, Action, Binding, Dial, Holder, Reference, Standing, To};
    use identity::{Heads, OrgId, SecretKey, WireGuardKey};
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const NONE: (Heads, u64) = (Heads([0; 32]), 0);

    fn incoming() -> (DuplexStream, StreamIncoming<DuplexStream>) {
        let (ours, theirs) = duplex(256 * 1024);
        (ours, StreamIncoming::new(theirs, Deadlines::since(Instant::now())))
    }

    #[tokio::test]
    async fn four_lines_and_then_frames_that_may_come_with_the_last() {
        let (org, key, server) =
            (OrgId([1; 32]), SecretKey::from_seed(&[2; 32]), SecretKey::from_seed(&[3; 32]));
        let binding = Binding::WireGuard { client: WireGuardKey([4; 32]), server: WireGuardKey([5; 32]) };
        let action = Action::new("sync", &[]).unwrap();
        let dial = Dial { org, key: &key, to: To::Key(server.public()), binding, action };
        let (ours, mut theirs) = incoming();
        let until = Instant::now() + Duration::from_secs(5);
        let dialled = authenticate_stream(ours, dial.start([6; 32]).unwrap(), NONE, 8, until);
        let served = async {
            let hello = theirs.hello().await.unwrap().unwrap();
            let pending = Accept { org, key: &server, binding }.on_hello(&hello, [7; 32]).unwrap();
            theirs.say(pending.challenge()).await.unwrap();
            let proof = theirs.proof().await.unwrap().unwrap();
            let admitted = pending.on_proof(&proof).unwrap().admit(Standing::Good(Holder::Member));
            let line = admitted.unwrap().verdict_ok(Reference([8; 8]), NONE.0, NONE.1);
            theirs.say(&line).await.unwrap();
            let mut session = theirs.accepted(8);
            session.send(b"at once").await.unwrap();
            session
        };
        let (dialled, mut server) = tokio::join!(dialled, served);
        let (mut client, _) = dialled.unwrap();
        assert_eq!(client.recv().await.unwrap(), b"at once");
        client.send(b"").await.unwrap();
        client.send(b"12345678").await.unwrap();
        assert_eq!(client.send(b"123456789").await, Err(SessionError::Oversize));
        assert_eq!(server.recv().await.unwrap(), b"");
        assert_eq!(server.recv().await.unwrap(), b"12345678");
        client.into_inner().write_all(&9u32.to_le_bytes()).await.unwrap();
        assert_eq!(server.recv().await, Err(SessionError::Oversize));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_have_their_bounds_and_their_deadlines() {
        let (mut peer, mut server) = incoming();
        peer.write_all(&vec![b'x'; HELLO_BYTES_MAX + 1]).await.unwrap();
        assert_eq!(server.hello().await, Ok(None));
        let (mut peer, mut server) = incoming();
        peer.write_all(b"no end").await.unwrap();
        assert_eq!(server.hello().await, Err(Broken::Deadline));
        let (peer, mut server) = incoming();
        drop(peer);
        assert_eq!(server.hello().await, Err(Broken::Ended));
    }
}
