//! How long a stranger may take, and how a connection ends before its time.

use core::fmt;
use std::{io, time::Duration};

use identity::{
    Code,
    limits::{HANDSHAKE_DEADLINE_MS, HELLO_DEADLINE_MS},
};
use tokio::time::{Instant, timeout_at};

/// The two deadlines of a connection, both counted from the moment TCP accepted it.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    hello: Instant,
    verdict: Instant,
}

/// A connection ended before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// The other side did not keep the deadline.
    Deadline,
    /// The other side closed it.
    Ended,
    /// The operating system's or the TLS library's word for it.
    Io(io::ErrorKind),
}

impl Deadlines {
    /// Deadlines of a connection that was accepted at `accepted`.
    #[must_use]
    pub fn since(accepted: Instant) -> Self {
        Self {
            hello: accepted + Duration::from_millis(HELLO_DEADLINE_MS),
            verdict: accepted + Duration::from_millis(HANDSHAKE_DEADLINE_MS),
        }
    }

    /// HELLO must be complete by then, TLS included.
    #[must_use]
    pub const fn hello(self) -> Instant {
        self.hello
    }

    /// VERDICT must have left by then.
    #[must_use]
    pub const fn verdict(self) -> Instant {
        self.verdict
    }
}

/// Runs one step on a socket, until its deadline.
pub(crate) async fn within<T>(
    until: Instant,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, Broken> {
    match timeout_at(until, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Broken::Deadline),
    }
}

impl Broken {
    /// The code for people.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Deadline => Code::HandshakeTimeout,
            Self::Ended | Self::Io(_) => Code::ConnectionLost,
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::UnexpectedEof { Self::Ended } else { Self::Io(kind) }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("the other side took too long"),
            Self::Ended => f.write_str("the other side closed the connection"),
            Self::Io(kind) => write!(f, "the connection broke: {kind}"),
        }
    }
}

impl core::error::Error for Broken {}
