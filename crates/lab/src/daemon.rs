//! A program that keeps running: watched while it does, and ended by its own process id.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::command::CommandError;
use crate::program::ProgramError;
use crate::watch::{NotifySocket, Seen, Watch};

/// What a program takes of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: u64,
    /// Memory in use.
    pub kilobytes: u64,
}

/// A running program. Dropping it asks it to end, and makes it if it takes longer than two seconds.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    watch: Watch,
    _notify: Option<NotifySocket>,
}

impl Daemon {
    pub(crate) const fn new(name: String, child: Child, watch: Watch, notify: Option<NotifySocket>) -> Self {
        Self { name, child, watch, _notify: notify }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it holds, by the kernel's word; nothing once it has ended.
    #[must_use]
    pub fn holds(&self) -> Option<Held> {
        let process = std::path::PathBuf::from(format!("/proc/{}", self.pid()));
        let descriptors = std::fs::read_dir(process.join("fd")).ok()?.count();
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes = resident.split_whitespace().next()?.parse().ok()?;
        Some(Held { descriptors: u64::try_from(descriptors).ok()?, kilobytes })
    }

    /// Waits for a line that contains `text`, among those already written too, and returns it. Of very
    /// long outputs only the last lines are remembered.
    ///
    /// # Errors
    /// It ended or the time passed without one.
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> Result<String, ProgramError> {
        self.wait_until(within, text, |seen| seen.lines.iter().find(|line| line.contains(text)).cloned())
    }

    /// What it has written lately.
    #[must_use]
    pub fn output(&self) -> String {
        self.watch.tail(usize::MAX)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus, ProgramError> {
        match wait(&mut self.child, Instant::now() + within) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.late("its end")),
            Err(source) => {
                Err(ProgramError::Command(CommandError::NotRun { line: self.name.clone(), source }))
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        // Not once it has been waited for: its id may be another's by then.
        if self.ended().is_none()
            && let Some(pid) = pid(&self.child)
        {
            // It may have ended since; then there is nothing left to do.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Asks it to end (SIGTERM) and makes it (SIGKILL) when `within` has passed.
    pub fn stop(mut self, within: Duration) -> ExitStatus {
        self.end(within)
    }

    /// Ends it without a word, as a power cut would.
    pub fn kill(mut self) -> ExitStatus {
        self.end(Duration::ZERO)
    }

    fn end(&mut self, within: Duration) -> ExitStatus {
        if !within.is_zero() {
            self.signal(Signal::TERM);
        }
        let status = match wait(&mut self.child, Instant::now() + within) {
            Ok(Some(status)) => status,
            Ok(None) | Err(_) => kill(&mut self.child),
        };
        // Its last words reach the log first; a child of its own that holds the pipe open is not
        // waited for longer.
        self.watch.wait_until(Instant::now() + Duration::from_secs(1), |_| None::<()>);
        self.watch.close();
        status
    }

    pub(crate) fn wait_until<T>(
        &mut self,
        within: Duration,
        what: &str,
        found: impl Fn(&Seen) -> Option<T>,
    ) -> Result<T, ProgramError> {
        if let Some(value) = self.watch.wait_until(Instant::now() + within, found) {
            return Ok(value);
        }
        let grace = self.grace();
        match wait(&mut self.child, Instant::now() + grace) {
            Ok(Some(status)) => {
                Err(ProgramError::Ended { name: self.name.clone(), status, tail: self.watch.tail(TAIL) })
            }
            Ok(None) | Err(_) => Err(self.late(what)),
        }
    }

    /// The output of a program that ends is closed a moment before its end can be seen.
    fn grace(&self) -> Duration {
        if self.watch.is_closed() { Duration::from_secs(1) } else { Duration::ZERO }
    }

    fn late(&self, what: &str) -> ProgramError {
        ProgramError::Late {
            name: self.name.clone(),
            waited_for: what.to_owned(),
            tail: self.watch.tail(TAIL),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Duration::from_secs(2));
    }
}

/// Waits for the end of a child without polling it: its process descriptor becomes readable.
pub(crate) fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = remaining(deadline);
        let Some(pid) = pid(child).filter(|_| !left.is_zero()) else { return Ok(None) };
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let timeout = left.try_into().map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn kill(child: &mut Child) -> ExitStatus {
    // Fails only for a child that has ended, which the wait then tells.
    drop(child.kill());
    child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

pub(crate) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

const TAIL: usize = 30;
