//! Programs in the lab: started on a host, watched, and ended by their own process id.

use core::fmt;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::command::{self, CommandError};
use crate::watch::{NotifySocket, Watch};

/// A program to run.
#[derive(Clone, Debug)]
pub struct Program {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    namespace: Option<String>,
    log: Option<PathBuf>,
    input: Vec<u8>,
}

/// How a daemon says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It is as soon as it runs.
    AtOnce,
    /// By a line that contains this, on standard output or standard error.
    Line(String),
    /// By `READY=1` on `NOTIFY_SOCKET`, as it would tell systemd.
    Notify,
}

impl Program {
    /// By path, or by name to be found in `PATH`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            namespace: None,
            log: None,
            input: Vec::new(),
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The directory it starts in.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The network namespace it runs in; see [`crate::Namespace::program`].
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// The file that everything it writes is appended to; a daemon's only.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// What it reads from standard input; [`Self::run`] only.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, ends early, or is not ready in time; it is ended then.
    pub fn spawn(self, ready: &Ready, within: Duration) -> Result<Daemon, ProgramError> {
        let deadline = Instant::now() + within;
        let mut command = self.command();
        let failed =
            |line: String| move |source| ProgramError::Command(CommandError::NotRun { line, source });
        let failed = failed(command::line(&command));
        let watch = Watch::new();
        let notify = match ready {
            Ready::AtOnce | Ready::Line(_) => None,
            Ready::Notify => Some(NotifySocket::open(&watch).map_err(failed.clone())?),
        };
        if let Some(notify) = &notify {
            command.env("NOTIFY_SOCKET", notify.path());
        }
        let log = match &self.log {
            Some(path) => {
                Some(fs::OpenOptions::new().create(true).append(true).open(path).map_err(failed.clone())?)
            }
            None => None,
        };
        let (output, input) = io::pipe().map_err(failed.clone())?;
        command.stdin(Stdio::null()).stdout(input.try_clone().map_err(failed.clone())?).stderr(input);
        let child = command.spawn().map_err(failed)?;
        // The command holds the writing ends: without them gone the output would never end.
        drop(command);
        let pump = watch.pump(output, log);
        let mut daemon = Daemon { name: self.name(), child, watch, _notify: notify, pump: Some(pump) };
        match ready {
            Ready::AtOnce => {}
            Ready::Line(text) => drop(daemon.wait_for_line(text, remaining(deadline))?),
            Ready::Notify => {
                daemon.wait_until(remaining(deadline), "READY=1", |seen| seen.ready.then_some(()))?
            }
        }
        Ok(daemon)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It does not start, or does not end in time; it is ended then. A failure of its own is in
    /// [`Ended::status`]; see [`Ended::ok`].
    pub fn run(self, within: Duration) -> Result<Ended, ProgramError> {
        let deadline = Instant::now() + within;
        let mut command = self.command();
        let line = command::line(&command);
        let failed = |source| ProgramError::Command(CommandError::NotRun { line: line.clone(), source });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let input = self.input;
        // Its own thread: the program may write more than a pipe holds before it reads. A program that
        // ends without reading breaks the pipe, which says nothing.
        let writing = thread::spawn(move || drop(stdin.map(|mut stdin| stdin.write_all(&input))));
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        let ended = wait(&mut child, deadline).map_err(failed)?;
        if ended.is_none() {
            kill(&mut child);
        }
        drop(writing.join());
        let text = |reading: Option<JoinHandle<Vec<u8>>>| {
            let bytes = reading.and_then(|reading| reading.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        match ended {
            Some(status) => Ok(Ended { line, status, stdout, stderr }),
            None => Err(ProgramError::Late { name: line, waited_for: "its end".to_owned(), tail: stderr }),
        }
    }

    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                // It becomes the program without a process in between, so its id is the program's.
                let mut command = command::command("ip");
                command.args(["netns", "exec", namespace]).arg(&self.program);
                command
            }
            None => command::command(&self.program.to_string_lossy()),
        };
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        match &self.namespace {
            Some(namespace) => format!("{name} on {namespace}"),
            None => name.into_owned(),
        }
    }
}

/// A program that ran to its end.
#[derive(Clone, Debug)]
pub struct Ended {
    line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Itself if it succeeded.
    ///
    /// # Errors
    /// It failed.
    pub fn ok(self) -> Result<Self, ProgramError> {
        if self.status.success() {
            Ok(self)
        } else {
            Err(ProgramError::Command(CommandError::Failed {
                line: self.line,
                status: self.status,
                stderr: self.stderr,
            }))
        }
    }
}

/// A running program. Dropping it asks it to end, and makes it if it takes longer than two seconds.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    watch: Watch,
    _notify: Option<NotifySocket>,
    pump: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
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
        // A child of its own may hold the pipe open; its output is not waited for.
        self.watch.close();
        self.pump = None;
        status
    }

    fn wait_until<T>(
        &mut self,
        within: Duration,
        what: &str,
        found: impl Fn(&crate::watch::Seen) -> Option<T>,
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

/// Why a program did not do what it was started for.
#[non_exhaustive]
pub enum ProgramError {
    /// It could not be run, or ran to its end and failed.
    Command(CommandError),
    /// It ended before it was ready, or before what was waited for.
    Ended {
        /// Which program, where.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// The time passed.
    Late {
        /// Which program, where.
        name: String,
        /// What was waited for.
        waited_for: String,
        /// The last lines it wrote.
        tail: String,
    },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => write!(f, "{error}"),
            Self::Ended { name, status, tail } => write!(f, "{name} ended early ({status}):\n{tail}"),
            Self::Late { name, waited_for, tail } => {
                write!(f, "{name}: waited in vain for {waited_for}:\n{tail}")
            }
        }
    }
}

/// As [`fmt::Display`]: an `unwrap` in a test shows the program's last lines as lines.
impl fmt::Debug for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Command(error) => error.source(),
            Self::Ended { .. } | Self::Late { .. } => None,
        }
    }
}

/// Waits for the end of a child without polling it: its process descriptor becomes readable.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
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

fn kill(child: &mut Child) -> ExitStatus {
    // Fails only for a child that has ended, which the wait then tells.
    drop(child.kill());
    child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn read_all(mut from: impl io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        drop(from.read_to_end(&mut bytes));
        bytes
    })
}

const TAIL: usize = 30;
