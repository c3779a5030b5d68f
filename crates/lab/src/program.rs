//! Programs in the lab: started on a host, watched, and ended by their own process id.

use core::fmt;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::{self, CommandError};
use crate::daemon::{Daemon, kill, remaining, wait};
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
    keyboard: Option<Arc<io::PipeReader>>,
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
            keyboard: None,
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

    /// What it reads from standard input while it runs; a daemon's only. Nothing else is typed at it.
    #[must_use]
    pub fn keyboard(mut self, typed: io::PipeReader) -> Self {
        self.keyboard = Some(Arc::new(typed));
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
        let typed = match &self.keyboard {
            Some(typed) => Stdio::from(typed.try_clone().map_err(failed.clone())?),
            None => Stdio::null(),
        };
        command.stdin(typed).stdout(input.try_clone().map_err(failed.clone())?).stderr(input);
        let child = command.spawn().map_err(failed)?;
        // The command holds the writing ends: without them gone the output would never end.
        drop(command);
        watch.pump(output, log);
        let mut daemon = Daemon::new(self.name(), child, watch, notify);
        match ready {
            Ready::AtOnce => {}
            Ready::Line(text) => drop(daemon.wait_for_line(text, remaining(deadline))?),
            Ready::Notify => {
                daemon.wait_until(remaining(deadline), "READY=1", |seen| seen.ready.then_some(()))?
            }
        }
        Ok(daemon)
    }

    /// Starts it with its standard input and output in the caller's hands; what it says on standard error
    /// is shown.
    ///
    /// # Errors
    /// It does not start.
    pub fn open(self) -> Result<Open, ProgramError> {
        let mut command = self.command();
        let line = command::line(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|source| ProgramError::Command(CommandError::NotRun { line, source }))?;
        Ok(Open { input: child.stdin.take(), output: child.stdout.take(), child })
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
        let stdout = child.stdout.take().map(Reading::start);
        let stderr = child.stderr.take().map(Reading::start);
        let ended = wait(&mut child, deadline).map_err(failed)?;
        if ended.is_none() {
            kill(&mut child);
        }
        // Left to end by itself: a child of the program may hold the pipe.
        drop(writing);
        let (stdout, stderr) = (stdout.map(Reading::text), stderr.map(Reading::text));
        let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
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

/// A program that is talked with. It is ended when this is dropped.
#[derive(Debug)]
pub struct Open {
    /// What it reads; taken and dropped, that is its end.
    pub input: Option<ChildStdin>,
    /// What it writes.
    pub output: Option<ChildStdout>,
    child: Child,
}

impl Drop for Open {
    fn drop(&mut self) {
        kill(&mut self.child);
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

/// A pipe being read. Its other end may outlive the program, in a child that it left running.
struct Reading {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Reading {
    fn start(mut from: impl io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel::<()>();
        let read = Arc::clone(&bytes);
        thread::spawn(move || {
            let _dropped_at_the_end = end;
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let chunk = buffer.get(..length).unwrap_or_default();
                read.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk);
            }
        });
        Self { bytes, ended }
    }

    /// What came until the end, or until a second after the program's.
    fn text(self) -> String {
        // Nothing is ever sent: this returns when the thread has ended or the second has passed.
        self.ended.recv_timeout(Duration::from_secs(1)).ok();
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
