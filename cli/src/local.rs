//! The musterd of this machine, over its control socket.

use core::time::Duration;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use control::{
    framing,
    local::{Answer, Request},
};
use identity::{Code, limits::CONTROL_MESSAGE_BYTES_MAX};

use crate::failure::{Failure, Outcome};

/// Past every deadline that musterd keeps itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to musterd.
pub(crate) struct Daemon {
    stream: UnixStream,
}

impl Daemon {
    /// Connects, or says why not.
    pub(crate) fn connect(socket: &Path) -> Outcome<Self> {
        let stream = UnixStream::connect(socket).map_err(|error| {
            let code = if error.kind() == ErrorKind::PermissionDenied {
                Code::NotPermitted
            } else {
                Code::DaemonNotRunning
            };
            Failure::new(code, format_args!("{}: {error}", socket.display()))
        })?;
        let patience = Some(PATIENCE);
        stream.set_read_timeout(patience).map_err(|e| Failure::file(socket, &e))?;
        stream.set_write_timeout(patience).map_err(|e| Failure::file(socket, &e))?;
        Ok(Self { stream })
    }

    /// The connection itself, for a session that may be silent for as long as it likes.
    pub(crate) fn into_stream(self) -> Outcome<UnixStream> {
        let unlimited = self.stream.set_read_timeout(None).and_then(|()| self.stream.set_write_timeout(None));
        unlimited.map_err(gone)?;
        Ok(self.stream)
    }

    /// One question, one answer. A failure that musterd reports is one here.
    pub(crate) fn ask(&mut self, request: &Request) -> Outcome<Answer> {
        let bytes = framing::encode(request, CONTROL_MESSAGE_BYTES_MAX).map_err(malformed)?;
        self.stream.write_all(&bytes).map_err(gone)?;
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).map_err(gone)?;
        let mut body = vec![0; framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).map_err(malformed)?];
        self.stream.read_exact(&mut body).map_err(gone)?;
        let answer = framing::decode(&body).map_err(malformed)?;
        let Answer::Failed(failed) = answer else { return Ok(answer) };
        let code = failed.code.0;
        let seen = if failed.detail.is_empty() { code.cause() } else { &failed.detail };
        Err(Failure::new(code, seen))
    }
}

/// musterd answered something else than what was asked.
pub(crate) fn unexpected() -> Failure {
    Failure::new(Code::RequestMalformed, "musterd answered another question")
}

fn malformed(error: framing::FrameError) -> Failure {
    Failure::new(Code::RequestMalformed, error)
}

fn gone(error: std::io::Error) -> Failure {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        return Failure::new(Code::DaemonNotRunning, "musterd did not answer within 30 s")
            .remedy("Look at its log: `journalctl -u musterd`.");
    }
    Failure::new(Code::DaemonNotRunning, format_args!("the connection to musterd ended: {error}"))
        .remedy("Look at its log: `journalctl -u musterd`.")
}
