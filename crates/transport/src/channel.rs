//! A stream of bytes inside the binary messages of a WebSocket: what TLS to a gateway runs over where an
//! edge opens TLS and makes a connection of its own.
//!
//! Messages mean nothing, only their bytes do: an edge may cut and join them. Nothing of theirs is kept, what
//! a frame holds goes straight to the reader. Pings, text, empty frames and anything else that a side of
//! ours never sends end the stream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use identity::limits::{EDGE_FRAME_BYTES_MAX, EDGE_PIECE_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::websocket::{
    BINARY, CLOSE, CONTINUATION, FINAL, LENGTH, MASKED, MessageFault, OPCODE, PING, PONG, RESERVED, TEXT,
    frame,
};

/// The stream, over the one that was upgraded.
#[derive(Debug)]
pub struct Channel<S> {
    stream: S,
    role: Role,
    reading: Reading,
    /// A message of theirs has begun and is not at its end.
    open: bool,
    /// Read before its time, and not given out yet.
    ahead: Vec<u8>,
    /// A frame of ours that has not left, and how much of it has.
    unsent: Vec<u8>,
    sent: usize,
    closed: bool,
}

#[derive(Debug)]
enum Reading {
    Header {
        bytes: [u8; HEADER_BYTES_MAX],
        filled: usize,
    },
    Payload {
        left: usize,
        mask: [u8; 4],
    },
    /// So much of a close frame is still to come: it is read, so that whoever sends it is not kept waiting.
    Closing {
        left: usize,
    },
    Ended,
}

/// What a whole header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Bytes { length: usize, mask: [u8; 4], last: bool },
    Close { left: usize },
}

const START: Reading = Reading::Header { bytes: [0; HEADER_BYTES_MAX], filled: 0 };

impl<S> Channel<S> {
    /// Begins behind the heads of the upgrade, with what is left of them read.
    pub(crate) const fn new(stream: S, role: Role) -> Self {
        Self {
            stream,
            role,
            reading: START,
            open: false,
            ahead: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            closed: false,
        }
    }
}

impl<S> Channel<S> {
    /// The same over the stream in another form.
    pub fn map<T>(self, with: impl FnOnce(S) -> T) -> Channel<T> {
        let Self { stream, role, reading, open, ahead, unsent, sent, closed } = self;
        Channel { stream: with(stream), role, reading, open, ahead, unsent, sent, closed }
    }
}

impl<S: AsyncRead + Unpin> Channel<S> {
    /// The first bytes, at most `count`, which stay to be read. The caller sets the deadline.
    ///
    /// # Errors
    /// That of the stream below, or what came in place of a binary message.
    pub async fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let mut first = core::mem::take(&mut self.ahead);
        while first.len() < count {
            let missing = count - first.len();
            let mut more = vec![0; missing];
            let got = self.read(&mut more).await?;
            if got == 0 {
                break;
            }
            first.extend(more.iter().take(got));
        }
        self.ahead = first;
        Ok(&self.ahead)
    }
}

impl<S: AsyncWrite + Unpin> Channel<S> {
    /// Sends on what is left of the last frame.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                got => self.sent += got,
            }
        }
        // Given back, and not kept for the next: most of the time nothing waits.
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Whether there is room for a frame.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.poll_drain(context)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.unsent = frame(BINARY, self.role, piece);
        // Taken, whether or not it leaves at once: the rest goes before anything else.
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(piece.len())),
        }
    }
}

/// How many bytes the header that begins with these has, and what it says once they are all there.
fn header(bytes: &[u8], role: Role, open: bool) -> Result<(usize, Option<Frame>), MessageFault> {
    let [first, second, rest @ ..] = bytes else { return Ok((2, None)) };
    if first & RESERVED != 0 {
        return Err(MessageFault::Reserved);
    }
    if (second & MASKED != 0) != (role == Role::Server) {
        return Err(MessageFault::Mask);
    }
    let last = first & FINAL != 0;
    let mask_bytes = if role == Role::Server { 4 } else { 0 };
    match first & OPCODE {
        CLOSE if second & LENGTH > CONTROL_BYTES_MAX => return Err(MessageFault::Oversize),
        CLOSE => {
            let left = usize::from(second & LENGTH) + mask_bytes;
            return Ok((2, Some(Frame::Close { left })));
        }
        BINARY if !open => {}
        CONTINUATION if open => {}
        BINARY | CONTINUATION => return Err(MessageFault::Fragment),
        PING | PONG => return Err(MessageFault::Control),
        TEXT => return Err(MessageFault::Text),
        _ => return Err(MessageFault::Reserved),
    }
    let length_bytes = match second & LENGTH {
        127 => return Err(MessageFault::Oversize),
        126 => 2,
        _ => 0,
    };
    let needed = 2 + length_bytes + mask_bytes;
    let Some((length, mask)) = rest.split_at_checked(length_bytes) else { return Ok((needed, None)) };
    let length = match length.first_chunk() {
        Some(length) => usize::from(u16::from_be_bytes(*length)),
        None => usize::from(second & LENGTH),
    };
    if length == 0 {
        return Err(MessageFault::Empty);
    }
    let mask = match (mask_bytes, mask.first_chunk()) {
        (0, _) => [0; 4],
        (_, Some(mask)) => *mask,
        (_, None) => return Ok((needed, None)),
    };
    Ok((needed, Some(Frame::Bytes { length, mask, last })))
}

fn fault(why: MessageFault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<S: AsyncRead + Unpin> AsyncRead for Channel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.ahead.is_empty() {
            let count = buffer.remaining().min(self.ahead.len());
            let rest = self.ahead.split_off(count);
            buffer.put_slice(&self.ahead);
            self.ahead = rest;
            return Poll::Ready(Ok(()));
        }
        let Self { stream, role, reading, open, .. } = &mut *self;
        loop {
            match reading {
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Payload { left, mask } => {
                    let room = buffer.remaining().min(*left);
                    let place = buffer.initialize_unfilled_to(room);
                    let mut part = ReadBuf::new(place);
                    ready!(Pin::new(stream).poll_read(context, &mut part))?;
                    let got = part.filled().len();
                    // Where nothing comes in the middle of a frame TLS inside notices it.
                    for (byte, mask) in part.filled_mut().iter_mut().zip(mask.iter().cycle()) {
                        *byte ^= mask;
                    }
                    mask.rotate_left(got % 4);
                    buffer.advance(got);
                    *left -= got;
                    if got == 0 {
                        *reading = Reading::Ended;
                    } else if *left == 0 {
                        *reading = START;
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Closing { left: 0 } => *reading = Reading::Ended,
                Reading::Closing { left } => {
                    let mut scratch = [0; CONTROL_BYTES_MAX as usize];
                    let (place, _) = scratch.split_at_mut((*left).min(CONTROL_BYTES_MAX.into()));
                    let mut part = ReadBuf::new(place);
                    ready!(Pin::new(&mut *stream).poll_read(context, &mut part))?;
                    match part.filled().len() {
                        0 => *reading = Reading::Ended,
                        got => *left -= got,
                    }
                }
                Reading::Header { bytes, filled } => {
                    let known = bytes.get(..*filled).unwrap_or_default();
                    let (needed, whole) = header(known, *role, *open).map_err(fault)?;
                    match whole {
                        Some(Frame::Close { left }) => *reading = Reading::Closing { left },
                        Some(Frame::Bytes { length, mask, last }) => {
                            *open = !last;
                            *reading = Reading::Payload { left: length, mask };
                        }
                        None => {
                            let place = bytes.get_mut(*filled..needed).unwrap_or_default();
                            let mut part = ReadBuf::new(place);
                            ready!(Pin::new(&mut *stream).poll_read(context, &mut part))?;
                            match part.filled().len() {
                                0 => *reading = Reading::Ended,
                                got => *filled += got,
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Channel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        let (piece, _) = buffer.split_at(buffer.len().min(EDGE_PIECE_BYTES_MAX));
        self.poll_piece(context, piece)
    }

    // All of them, as far as they fit: on the way out TLS gives an alert one call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        let all = buffers.iter().flat_map(|buffer| buffer.iter().copied());
        let piece: Vec<u8> = all.take(EDGE_PIECE_BYTES_MAX).collect();
        self.poll_piece(context, &piece)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if !self.closed {
            self.closed = true;
            self.unsent = frame(CLOSE, self.role, &NORMAL.to_be_bytes());
            ready!(self.poll_drain(context))?;
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Two bytes, a length of two more, and the mask.
const HEADER_BYTES_MAX: usize = 8;
// What two bytes of length can say.
const _: () = assert!(EDGE_FRAME_BYTES_MAX == u16::MAX as usize);
const NORMAL: u16 = 1000;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: u8 = 125;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair(room: usize) -> (Channel<DuplexStream>, Channel<DuplexStream>) {
        let (ours, theirs) = duplex(room);
        (Channel::new(ours, Role::Client), Channel::new(theirs, Role::Server))
    }

    /// What a gateway reads when exactly these bytes came.
    async fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut ours, theirs) = duplex(1 << 20);
        ours.write_all(bytes).await?;
        drop(ours);
        let mut out = Vec::new();
        Channel::new(theirs, Role::Server).read_to_end(&mut out).await.map(|_| out)
    }

    fn refused(read: io::Result<Vec<u8>>) -> Option<MessageFault> {
        read.err()?.into_inner()?.downcast().ok().map(|why| *why)
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_through_the_narrowest_stream() {
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for room in [1, 7, 4096] {
            let (mut client, mut server) = pair(room);
            let (mut there, mut back) = (Vec::new(), Vec::new());
            let writing = async {
                client.write_all(&sent).await?;
                client.shutdown().await?;
                client.read_to_end(&mut back).await
            };
            let answering = async {
                server.read_to_end(&mut there).await?;
                server.write_all(&there).await?;
                server.shutdown().await
            };
            let (wrote, answered) = tokio::join!(writing, answering);
            assert!(wrote.is_ok() && answered.is_ok(), "{wrote:?} {answered:?}");
            assert!(there == sent && back == sent);
        }
    }

    #[tokio::test]
    async fn messages_may_be_cut_and_joined_on_the_way() {
        // With a mask of zeros.
        let one = |first: u8, text: &[u8]| {
            [&[first, MASKED | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text].concat()
        };
        let cut = [one(BINARY, b"TL"), one(CONTINUATION, b"S 1"), one(FINAL | CONTINUATION, b".3")].concat();
        assert_eq!(read(&cut).await.unwrap(), b"TLS 1.3");
        let long = frame(BINARY, Role::Client, &[7; 60_000]);
        assert_eq!(read(&long).await.unwrap(), [7; 60_000]);
    }

    #[tokio::test]
    async fn what_a_side_of_ours_never_sends_ends_the_stream() {
        let sent = |opcode| frame(opcode, Role::Client, b"x");
        let mut open = sent(BINARY);
        open[0] &= !FINAL;
        let mut reserved = sent(BINARY);
        reserved[0] |= 0x40;
        for (bytes, why) in [
            (sent(TEXT), MessageFault::Text),
            (sent(PING), MessageFault::Control),
            (sent(PONG), MessageFault::Control),
            (sent(CONTINUATION), MessageFault::Fragment),
            ([open.clone(), sent(BINARY)].concat(), MessageFault::Fragment),
            ([open, sent(PING)].concat(), MessageFault::Control),
            (sent(3), MessageFault::Reserved),
            (reserved, MessageFault::Reserved),
            (frame(BINARY, Role::Client, b""), MessageFault::Empty),
            (frame(BINARY, Role::Server, b"x"), MessageFault::Mask),
            (vec![FINAL | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 1, 0, 0], MessageFault::Oversize),
            // A length that would wrap is not even read.
            ([&[FINAL | BINARY, MASKED | 127][..], &[0xff; 8]].concat(), MessageFault::Oversize),
        ] {
            assert_eq!(refused(read(&bytes).await), Some(why), "{bytes:?}");
        }
        // Behind what was good already.
        let late = [sent(BINARY), sent(TEXT)].concat();
        assert_eq!(refused(read(&late).await), Some(MessageFault::Text));
    }

    #[tokio::test]
    async fn a_close_frame_is_the_end_and_nothing_behind_it_is_read() {
        let close = frame(CLOSE, Role::Client, &NORMAL.to_be_bytes());
        let good = frame(BINARY, Role::Client, b"x");
        assert_eq!(read(&[&good[..], &close, &good].concat()).await.unwrap(), b"x");
        assert_eq!(read(&close[..1]).await.unwrap(), b"");
        assert_eq!(read(&good[..good.len() - 1]).await.unwrap(), b"", "an end in the middle of a frame");
        let (mut client, _server) = pair(64);
        client.shutdown().await.unwrap();
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_was_looked_at_is_still_there() {
        let (mut client, mut server) = pair(64);
        client.write_all(b"he").await.unwrap();
        client.write_all(b"llo").await.unwrap();
        assert_eq!(server.peek(4).await.unwrap(), b"hell");
        assert_eq!(server.peek(3).await.unwrap(), b"hell");
        drop(client);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"hello");
        assert_eq!(server.peek(1).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_costs_one_piece() {
        let (mut client, _server) = pair(1);
        let took = client.write(&[0; 1 << 20]).await.unwrap();
        assert_eq!(took, EDGE_PIECE_BYTES_MAX);
        assert!(client.unsent.capacity() <= EDGE_PIECE_BYTES_MAX + HEADER_BYTES_MAX);
        let more = tokio::time::timeout(core::time::Duration::ZERO, client.write(&[0; 1])).await;
        assert!(more.is_err(), "a second piece was taken");
    }
}
