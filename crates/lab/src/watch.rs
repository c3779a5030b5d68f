//! What a running program has said: its lines, and whether it is ready.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tempfile::TempDir;

use crate::sandbox::temporary_dir;

/// Seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) lines: VecDeque<String>,
    pub(crate) ready: bool,
    closed: bool,
}

/// Written by the threads that read from the program, waited on by the one that watches it.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// Reads lines into the watch, and into the log, until there are no more.
    pub(crate) fn pump(&self, output: PipeReader, mut log: Option<File>) {
        let watch = self.clone();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
                if let Some(file) = &mut log
                    && file.write_all(&line).is_err()
                {
                    // A full disk: the program goes on, its lines are still in memory.
                    log = None;
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                watch.change(|seen| {
                    if seen.lines.len() == LINES_MAX {
                        seen.lines.pop_front();
                    }
                    seen.lines.push_back(text);
                });
                line.clear();
            }
            watch.close();
        });
    }

    pub(crate) fn close(&self) {
        self.change(|seen| seen.closed = true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.seen().closed
    }

    /// The first thing found, now or before the deadline; `None` when that passed or no more can come.
    pub(crate) fn wait_until<T>(&self, deadline: Instant, found: impl Fn(&Seen) -> Option<T>) -> Option<T> {
        let mut seen = self.seen();
        loop {
            if let Some(value) = found(&seen) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || seen.closed {
                return None;
            }
            let (_, changed) = &*self.shared;
            (seen, _) = changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn tail(&self, lines: usize) -> String {
        let seen = self.seen();
        let skipped = seen.lines.len().saturating_sub(lines);
        seen.lines.iter().skip(skipped).map(|line| format!("{line}\n")).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        let (_, changed) = &*self.shared;
        changed.notify_all();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let (seen, _) = &*self.shared;
        seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving end of sd_notify. Read until it is dropped, so that no sender ever blocks on it.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    // A short path of its own: socket names end at 107 bytes.
    _dir: TempDir,
    path: PathBuf,
    socket: UnixDatagram,
    reader: Option<JoinHandle<()>>,
}

impl NotifySocket {
    pub(crate) fn open(watch: &Watch) -> io::Result<Self> {
        let dir = temporary_dir("lab-")?;
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        let receiving = socket.try_clone()?;
        let watch = watch.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = receiving.recv(&mut buffer) {
                let message = buffer.get(..length).unwrap_or_default();
                if message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    watch.change(|seen| seen.ready = true);
                }
            }
        });
        Ok(Self { _dir: dir, path, socket, reader: Some(reader) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Wakes the reader, which then ends.
        if self.socket.shutdown(Shutdown::Both).is_ok()
            && let Some(reader) = self.reader.take()
        {
            drop(reader.join());
        }
    }
}

/// Enough for any test; a benchmark's log file has the rest.
const LINES_MAX: usize = 10_000;
