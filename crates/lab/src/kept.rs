//! A lab that stays when the command that made it has ended, seen from outside.
//!
//! One process holds it: the parent of everything inside the sandbox. Its id stands in the lab's directory,
//! with the moment it began at, so that a number that was given away since is nobody's. What is inside
//! answers on a socket there; see [`crate::keeper`].

use core::convert::Infallible;
use core::fmt;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::daemon::remaining;
use crate::keeper::{Answer, Ask, Said, Standing};
use crate::org::{self, PASSPHRASE};
use crate::sandbox::{Sandbox, SandboxError};

/// A lab in a directory, up or not.
#[derive(Clone, Debug)]
pub struct Kept {
    dir: PathBuf,
}

/// Who holds a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from the start of this machine to that of the process.
    pub began: u64,
}

/// Whether there is a lab in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is none.
    None,
    /// There was one; it ended without [`Kept::down`].
    Gone,
    /// It is up, or on its way.
    Up(Holder),
}

impl Kept {
    /// The lab in this directory, whether there is one or not.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is one.
    #[must_use]
    pub fn presence(&self) -> Presence {
        let Ok(text) = fs::read(self.dir.join(RECORD)) else { return Presence::None };
        let holder: Option<Holder> = serde_json::from_slice(&text).ok();
        match holder.filter(|holder| began(holder.pid) == Some(holder.began)) {
            Some(holder) => Presence::Up(holder),
            None => Presence::Gone,
        }
    }

    /// Runs this program inside a sandbox with `arguments`, where it is to call [`crate::keeper::hold`], and
    /// returns when that has an org that works. `said` hears of each step.
    ///
    /// # Errors
    /// The directory will not do, the machine refuses, or something in the lab failed; nothing runs then.
    pub fn up<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        mut said: impl FnMut(&str),
    ) -> Result<(), KeptError> {
        self.prepare()?;
        let inside = Sandbox::command(arguments).map_err(KeptError::Sandbox)?;
        let log = File::create(self.dir.join(LOG)).map_err(self.io("write to"))?;
        // A session of its own: neither Ctrl-C nor the end of the terminal is meant for it.
        let mut command = command::command("setsid");
        command.arg(inside.get_program()).args(inside.get_args());
        without_settings(&mut command);
        command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
        let mut child = command.spawn().map_err(self.io("begin"))?;
        let holder = began(child.id()).map(|began| Holder { pid: child.id(), began });
        let recorded = holder.ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(|holder| {
            fs::write(self.dir.join(RECORD), serde_json::to_vec(&holder).unwrap_or_default())
        });
        let outcome = recorded.map_err(self.io("write to")).and_then(|()| {
            let output = child.stdout.take().map(BufReader::new);
            for line in output.into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Said::Step(step)) => said(&step),
                    Ok(Said::Ready) => return Ok(()),
                    Ok(Said::Failed(why)) => return Err(KeptError::Failed(why)),
                    Err(_) => {}
                }
            }
            let log = fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
            Err(KeptError::Failed(format!("it ended early:\n{}", log.trim_end())))
        });
        if outcome.is_err() {
            drop(child.kill());
            drop(child.wait());
            // The log stays, to be looked at.
            drop(fs::remove_file(self.dir.join(SOCKET)));
        }
        outcome
    }

    /// Asks what is inside.
    ///
    /// # Errors
    /// No lab is up, or it does not answer, or refuses.
    pub fn standing(&self) -> Result<Standing, KeptError> {
        match self.ask(&Ask::Standing {})? {
            Answer::Standing(standing) => Ok(standing),
            Answer::Done {} | Answer::Failed(_) => Err(KeptError::Failed("another answer".to_owned())),
        }
    }

    /// Lets nothing pass between these machines and the others, in addition to what is apart already.
    ///
    /// # Errors
    /// As [`Self::standing`]; or no such machine.
    pub fn partition(&self, machines: &[String]) -> Result<(), KeptError> {
        if let Some(name) = machines.iter().find(|name| !is_machine(name) || !self.dir.join(name).is_dir()) {
            self.holder()?;
            return Err(KeptError::NoMachine(name.clone()));
        }
        self.ask(&Ask::Partition { machines: machines.to_owned() }).map(drop)
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// As [`Self::standing`].
    pub fn heal(&self) -> Result<(), KeptError> {
        self.ask(&Ask::Heal {}).map(drop)
    }

    /// Becomes a command on a machine, with that machine's network, settings and operator.
    ///
    /// # Errors
    /// No lab is up, there is no such machine, or the command cannot be run.
    pub fn exec(&self, machine: &str, programs: &Path, words: &[OsString]) -> Result<Infallible, KeptError> {
        let holder = self.holder()?;
        let dir = self.dir.join(machine);
        if !is_machine(machine) || !dir.is_dir() {
            return Err(KeptError::NoMachine(machine.to_owned()));
        }
        let inside = first_child(holder.pid).ok_or(KeptError::NotUp { left: true })?;
        let mut command = command::command("nsenter");
        command.args(["--target", &inside.to_string(), "--mount", "--net", "--pid"]);
        let users = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        if users(&inside.to_string()) != users("self") {
            command.args(["--user", "--preserve-credentials"]);
        }
        // Where the caller is, unless the sandbox has something else there.
        let here = std::env::current_dir().unwrap_or_default();
        let here = if here.starts_with(COVERED) || here.as_os_str().is_empty() { &dir } else { &here };
        command.args(["--", "ip", "netns", "exec", machine, "env", "-C"]).arg(here).args(words);
        without_settings(&mut command);
        command.envs(org::environment(&dir)).env("MUSTER_PASSPHRASE", PASSPHRASE);
        let mut path = programs.as_os_str().to_owned();
        path.push(":");
        path.push(command::search_path());
        command.env("PATH", path);
        Err(KeptError::Io { what: "run nsenter for", path: self.dir.clone(), source: command.exec() })
    }

    /// Ends it and removes what it left. What an earlier one left when it was killed goes as well.
    ///
    /// # Errors
    /// There was none, or something cannot be removed.
    pub fn down(&self) -> Result<Presence, KeptError> {
        let presence = self.presence();
        match presence {
            Presence::None => return Err(KeptError::NotUp { left: false }),
            Presence::Gone => {}
            Presence::Up(holder) => {
                // Asked first, so that musterds say goodbye; whatever it answers, it ends.
                drop(self.ask(&Ask::Down {}));
                end(holder).map_err(self.io("end the process of"))?;
            }
        }
        self.clear().map_err(self.io("remove"))?;
        Ok(presence)
    }

    /// Makes the directory, or finds it fit for a lab.
    fn prepare(&self) -> Result<(), KeptError> {
        let longest = self.dir.join(LONGEST).as_os_str().len();
        if longest > SOCKET_BYTES_MAX {
            return Err(KeptError::Place { dir: self.dir.clone(), why: "is too long for sockets below it" });
        }
        if self.dir.starts_with(COVERED) {
            return Err(KeptError::Place {
                dir: self.dir.clone(),
                why: "is in /run, which a lab has of its own",
            });
        }
        match self.presence() {
            Presence::Up(holder) => return Err(KeptError::IsUp(holder)),
            Presence::Gone => self.clear().map_err(self.io("remove"))?,
            Presence::None => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(self.io("make"))?;
        if fs::read_dir(&self.dir).map_err(self.io("read"))?.next().is_some() {
            return Err(KeptError::Place { dir: self.dir.clone(), why: "is not empty, and not a lab's" });
        }
        // Of two that begin at once, one has it.
        let record = OpenOptions::new().write(true).create_new(true).open(self.dir.join(RECORD));
        record.map(drop).map_err(self.io("begin"))
    }

    /// Removes what a lab makes and nothing else; then the directory, if that is all.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_machine(&name) && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if [LOG, SOCKET].contains(&name.as_ref()) {
                fs::remove_file(entry.path())?;
            }
        }
        // Last: until then it is a lab's directory.
        fs::remove_file(self.dir.join(RECORD))?;
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        }
    }

    fn holder(&self) -> Result<Holder, KeptError> {
        match self.presence() {
            Presence::Up(holder) => Ok(holder),
            Presence::Gone => Err(KeptError::NotUp { left: true }),
            Presence::None => Err(KeptError::NotUp { left: false }),
        }
    }

    fn ask(&self, ask: &Ask) -> Result<Answer, KeptError> {
        self.holder()?;
        let io = self.io("ask");
        let exchange = || {
            let mut stream = UnixStream::connect(self.dir.join(SOCKET))?;
            stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
            stream.write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        match exchange().map_err(io)? {
            Answer::Failed(why) => Err(KeptError::Failed(why)),
            answer @ (Answer::Done {} | Answer::Standing(_)) => Ok(answer),
        }
    }

    fn io(&self, what: &'static str) -> impl Fn(io::Error) -> KeptError + use<> {
        let path = self.dir.clone();
        move |source| KeptError::Io { what, path: path.clone(), source }
    }
}

/// Why a lab is not as asked.
#[derive(Debug)]
pub enum KeptError {
    /// Something in it failed.
    Failed(String),
    /// The operating system refused.
    Io {
        /// What was being done.
        what: &'static str,
        /// To which lab.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// One is up in that directory.
    IsUp(Holder),
    /// No machine of this name.
    NoMachine(String),
    /// No lab is up there.
    NotUp {
        /// Whether one was, and ended without being taken down.
        left: bool,
    },
    /// The directory will not do.
    Place {
        /// It.
        dir: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// There is no sandbox to be had.
    Sandbox(SandboxError),
}

impl fmt::Display for KeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Io { what, path, source } => write!(f, "cannot {what} {}: {source}", path.display()),
            Self::IsUp(holder) => write!(f, "process {} holds it", holder.pid),
            Self::NoMachine(name) => f.write_str(name),
            Self::NotUp { left: false } => f.write_str("no lab is there"),
            Self::NotUp { left: true } => {
                f.write_str("the lab that was there ended without being taken down")
            }
            Self::Place { dir, why } => write!(f, "{} {why}", dir.display()),
            Self::Sandbox(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for KeptError {}

/// A caller's own settings of muster are not those of a lab's machines.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("MUSTER_") && !text.starts_with("MUSTER_TEST_");
        if ours || text == "NOTIFY_SOCKET" || text == "STATE_DIRECTORY" || text == "RUNTIME_DIRECTORY" {
            command.env_remove(&name);
        }
    }
}

/// `n1`, `n2` and so on.
fn is_machine(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|n| matches!(n.len(), 1..=3) && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Ends it: waits for it to go by itself for a while, then by its id.
fn end(holder: Holder) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(holder.pid.cast_signed()) else { return Ok(()) };
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Only now is it certain that the descriptor is of this process and of no later one.
    if began(holder.pid) != Some(holder.began) {
        return Ok(());
    }
    if !has_ended(&process, Instant::now() + GOES_WITHIN)? {
        rustix::process::pidfd_send_signal(&process, Signal::KILL)?;
        if !has_ended(&process, Instant::now() + GOES_WITHIN)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

fn has_ended(process: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = remaining(deadline);
        let timeout = left.try_into().map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// When a process began, unless it is gone or only waits to be collected.
fn began(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    fields.first().filter(|state| *state != "Z")?;
    fields.get(19)?.parse().ok()
}

fn first_child(of: u32) -> Option<u32> {
    let all = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = of.to_string();
    all.into_iter().find(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent)))
}

/// The fields of `/proc/PID/stat` behind the program's name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = text.rsplit_once(") ")?;
    Some(behind.split_whitespace().map(str::to_owned).collect())
}

pub(crate) const SOCKET: &str = "lab.sock";
const RECORD: &str = "lab.json";
const LOG: &str = "lab.log";
/// The sandbox has this empty, for itself.
const COVERED: &str = "/run";
/// The longest name of a socket in a lab.
const LONGEST: &str = "n100/run-gateway/gateway.sock";
const SOCKET_BYTES_MAX: usize = 107;
/// Each of its machines is asked in turn.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// For musterds to say goodbye, and for the kernel to clear away.
const GOES_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_given_away_holds_no_lab() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Kept::at(dir.path());
        assert_eq!(lab.presence(), Presence::None);
        let own = Holder { pid: std::process::id(), began: began(std::process::id()).unwrap() };
        let write =
            |holder| fs::write(dir.path().join(RECORD), serde_json::to_vec(&holder).unwrap()).unwrap();
        write(own);
        assert_eq!(lab.presence(), Presence::Up(own));
        write(Holder { began: own.began + 1, ..own });
        assert_eq!(lab.presence(), Presence::Gone);
    }

    #[test]
    fn what_is_not_the_labs_stays() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("lab");
        fs::create_dir_all(below.join("n2/state")).unwrap();
        for name in [RECORD, LOG, SOCKET, "notes", "n2x"] {
            fs::write(below.join(name), "").unwrap();
        }
        Kept::at(&below).down().unwrap();
        let mut left: Vec<_> = fs::read_dir(&below).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["n2x", "notes"]);
    }
}
