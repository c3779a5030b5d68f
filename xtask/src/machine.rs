//! What this machine has, and running programs on it.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// Why a task ended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A check found something; the text says what.
    Found(String),
    /// The machine lacks something; the text says what to do.
    Machine(String),
    /// A program did not start.
    NotStarted(String, std::io::Error),
    /// A program ended badly.
    Status(String, ExitStatus),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(what) | Self::Machine(what) => f.write_str(what),
            Self::NotStarted(what, why) => write!(f, "{what} does not start: {why}"),
            Self::Status(what, status) => write!(f, "{what}: {status}"),
        }
    }
}

impl From<lab::org::OrgError> for Failure {
    fn from(why: lab::org::OrgError) -> Self {
        Self::Found(why.to_string())
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds in the profile `dev`.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let name = shown(command);
    let status = command.status().map_err(|why| Failure::NotStarted(name.clone(), why))?;
    if status.success() { Ok(()) } else { Err(Failure::Status(name, status)) }
}

/// Whether a program can be started from PATH.
pub(crate) fn has_program(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

fn shown(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().take(4).fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}
