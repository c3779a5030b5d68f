//! What TLS to a gateway runs over: TCP, or a WebSocket inside another TLS connection, which ends at an edge.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::Channel;

/// The stream below TLS, at either end.
#[derive(Debug)]
pub enum Way {
    /// Nothing in between opens TLS.
    Direct(TcpStream),
    /// Through an edge that does. What its TLS connection says of it counts for nothing.
    Edge(Box<Channel<TlsStream<Self>>>),
}

impl From<TcpStream> for Way {
    fn from(stream: TcpStream) -> Self {
        Self::Direct(stream)
    }
}

impl From<Channel<TlsStream<Self>>> for Way {
    fn from(channel: Channel<TlsStream<Self>>) -> Self {
        Self::Edge(Box::new(channel))
    }
}

/// Calls the same of whichever it is.
macro_rules! either {
    ($way:ident, $stream:ident => $call:expr) => {
        match Pin::into_inner($way) {
            Way::Direct(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Way::Edge(channel) => {
                let $stream = Pin::new(&mut **channel);
                $call
            }
        }
    };
}

impl AsyncRead for Way {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Way {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(context, buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(stream) => stream.is_write_vectored(),
            Self::Edge(channel) => channel.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(context))
    }
}
