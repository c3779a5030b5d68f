//! conn_auth on a bare stream: lines that end in one LF.

use identity::limits::HELLO_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::deadline::{Broken, within};

/// Reads lines and keeps what follows them.
#[derive(Debug, Default)]
pub struct LineReader {
    bytes: Vec<u8>,
}

impl LineReader {
    /// The next line without its end, or nothing when it is longer than `max`.
    ///
    /// # Errors
    /// [`Broken`] when the stream ends or the deadline passes first.
    pub async fn line<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        max: usize,
        until: Instant,
    ) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            if let Some(at) = self.bytes.iter().position(|c| *c == b'\n') {
                let rest = self.bytes.split_off(at + 1);
                let mut line = core::mem::replace(&mut self.bytes, rest);
                line.pop();
                return Ok(Some(line).filter(|l| l.len() <= max));
            }
            if self.bytes.len() > max {
                return Ok(None);
            }
            let mut chunk = [0; CHUNK_BYTES];
            let got = within(until, stream.read(&mut chunk)).await?;
            if got == 0 {
                return Err(Broken::Ended);
            }
            self.bytes.extend_from_slice(chunk.get(..got).unwrap_or_default());
        }
    }

    /// What was received behind the last line.
    #[must_use]
    pub fn into_rest(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes one line and its end.
///
/// # Errors
/// [`Broken`].
pub async fn write_line<S: AsyncWrite + Unpin>(
    stream: &mut S,
    line: &str,
    until: Instant,
) -> Result<(), Broken> {
    let bytes = [line.as_bytes(), b"\n"].concat();
    within(until, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    })
    .await
}

const CHUNK_BYTES: usize = 512;
const _: () = assert!(CHUNK_BYTES <= HELLO_BYTES_MAX);
