//! Running another program to its end, with an error that says all there is to say.

use core::fmt;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};

/// A program did not do what it was started for.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// It ran and failed.
    Failed {
        /// The command line.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// It could not be started or read from.
    NotRun {
        /// The command line.
        line: String,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { line, status, stderr } => {
                write!(f, "`{line}` ended with {status}: {}", stderr.trim_end())
            }
            Self::NotRun { line, .. } => write!(f, "`{line}` could not be run"),
        }
    }
}

impl core::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Failed { .. } => None,
            Self::NotRun { source, .. } => Some(source),
        }
    }
}

/// A command whose program is also looked for where an ordinary user's `PATH` does not lead.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.env("PATH", search_path());
    command
}

/// Where a program is, in `PATH` or among the system's programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Runs to the end and returns standard output.
pub(crate) fn run<I, S>(program: &str, args: I) -> Result<String, CommandError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = command(program);
    command.args(args).stdin(Stdio::null());
    let output = command.output().map_err(|source| not_run(&command, source))?;
    finished(&command, output)
}

/// Runs to the end with this text on standard input.
pub(crate) fn run_with_input<I, S>(program: &str, args: I, input: &str) -> Result<String, CommandError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = command(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| not_run(&command, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Ok(()) => {}
            // It ended early; its status and its words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => return Err(not_run(&command, source)),
        }
    }
    let output = child.wait_with_output().map_err(|source| not_run(&command, source))?;
    finished(&command, output)
}

/// The command line as a person would type it, for error texts.
pub(crate) fn line(command: &Command) -> String {
    let words = core::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn not_run(command: &Command, source: io::Error) -> CommandError {
    CommandError::NotRun { line: line(command), source }
}

fn finished(command: &Command, output: Output) -> Result<String, CommandError> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(CommandError::Failed {
            line: line(command),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push("/usr/sbin:/usr/bin:/sbin:/bin");
    path
}
