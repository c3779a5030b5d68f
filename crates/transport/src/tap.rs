//! What passes on a connection first, kept for whoever explains it: the reference by which both ends
//! name one TLS connection, and the first bytes that the other side sent.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use conn_auth::Reference;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first bytes are remembered. Changes none of them.
#[derive(Debug)]
pub struct Tap<S> {
    stream: S,
    first: First,
}

/// What a [`Tap`] has seen; outlives the stream.
#[derive(Clone, Debug, Default)]
pub struct First(Arc<Mutex<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl<S> Tap<S> {
    /// Begins on a stream on which nothing has passed yet.
    pub fn new(stream: S) -> (Self, First) {
        let first = First::default();
        (Self { stream, first: first.clone() }, first)
    }
}

impl First {
    /// The reference of the TLS connection whose opening message was sent.
    #[must_use]
    pub fn reference(&self) -> Option<Reference> {
        hello_reference(&self.bytes(|bytes| bytes.sent.clone()))
    }

    /// The first bytes received, at most 1 KiB.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.bytes(|bytes| bytes.received.clone())
    }

    fn bytes<T>(&self, with: impl FnOnce(&mut Bytes) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name of a TLS connection for both ends' logs: the first eight bytes of the random in the opening
/// message, which the two share and nobody else has to know of. Needs [`HELLO_PREFIX_BYTES`].
#[must_use]
pub fn hello_reference(first: &[u8]) -> Option<Reference> {
    // Record: type, version, length; message: type, length, version; then the random.
    let [HANDSHAKE, _, _, _, _, CLIENT_HELLO, _, _, _, _, _, rest @ ..] = first else { return None };
    rest.first_chunk().copied().map(Reference)
}

/// As much of a connection as [`hello_reference`] looks at.
pub const HELLO_PREFIX_BYTES: usize = 11 + 8;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECEIVED_BYTES_MAX: usize = 1024;

fn keep(kept: &mut Vec<u8>, more: &[u8], max: usize) {
    let room = max.saturating_sub(kept.len());
    kept.extend(more.iter().take(room));
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        self.first.bytes(|bytes| keep(&mut bytes.received, new, RECEIVED_BYTES_MAX));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, buffer))?;
        let sent = buffer.get(..written).unwrap_or_default();
        self.first.bytes(|bytes| keep(&mut bytes.sent, sent, HELLO_PREFIX_BYTES));
        Poll::Ready(Ok(written))
    }

    // Passed on as it is: on the way out TLS gives an alert one call, and a stream that takes one buffer at a
    // time would take the piece before it and leave the alert.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, buffers))?;
        let all = written;
        for buffer in buffers {
            let sent = buffer.get(..written.min(buffer.len())).unwrap_or_default();
            self.first.bytes(|bytes| keep(&mut bytes.sent, sent, HELLO_PREFIX_BYTES));
            written -= sent.len();
        }
        Poll::Ready(Ok(all))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_opening_message_of_tls_has_a_reference() {
        let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        hello.extend(1..=32);
        assert_eq!(hello_reference(&hello), Some(Reference([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(hello_reference(&hello[..HELLO_PREFIX_BYTES - 1]), None);
        hello[0] = b'G';
        assert_eq!(hello_reference(&hello), None);
    }
}
