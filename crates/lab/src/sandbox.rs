//! A set of namespaces in which the calling program runs once more.
//!
//! Network, mounts and processes are its own; without root, users too. When the program ends, by
//! whatever signal, the kernel ends everything in it and removes every interface, rule and mount.
//! `/run` is empty inside, so that names there (`ip netns`, sockets) are private as well.

use core::any::type_name;
use core::fmt;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::mount::MountFlags;
use tempfile::TempDir;

use crate::command::{self, CommandError};

/// Proof of being inside. What makes namespaces and bridges asks for it.
#[derive(Debug)]
pub struct Sandbox {
    _inside: (),
}

impl Sandbox {
    /// Runs the current program again inside and, there, returns. Outside it does not return: the
    /// process becomes the one inside and ends with its status. Call it before anything with an effect.
    ///
    /// Ctrl-C ends what is inside. Killing the outer process in any way does too.
    ///
    /// # Errors
    /// What is missing on this machine, or what the kernel refuses.
    pub fn enter() -> Result<Self, SandboxError> {
        if let Some(sandbox) = Self::if_inside()? {
            return Ok(sandbox);
        }
        Err(SandboxError::Exec(Self::command(std::env::args_os().skip(1))?.exec()))
    }

    /// A command that runs the current program inside, with these arguments; there [`Self::if_inside`]
    /// returns. Its process is the first one's parent: when it is killed, all that is inside goes.
    ///
    /// # Errors
    /// What is missing on this machine, or what the kernel refuses.
    pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command, SandboxError> {
        let mut command = outer_command()?;
        command.args(arguments);
        Ok(command)
    }

    /// The sandbox this process is in, set up on the first call; `None` outside.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn if_inside() -> Result<Option<Self>, SandboxError> {
        let Some(outside) = std::env::var_os(OUTSIDE) else { return Ok(None) };
        if outside == network_namespace()?.into_os_string() {
            return Err(SandboxError::NotIsolated);
        }
        // A sandbox may have been begun in another one, whose /run this still is.
        let own = network_namespace()?.into_os_string();
        if fs::read(SET_UP).ok().as_deref() != Some(own.as_encoded_bytes()) {
            mount_tmpfs(Path::new("/run"))?;
            command::run("ip", ["link", "set", "lo", "up"]).map_err(SandboxError::SetUp)?;
            fs::write(SET_UP, own.as_encoded_bytes())
                .map_err(|source| SandboxError::Io { what: "mark /run", source })?;
        }
        Ok(Some(Self { _inside: () }))
    }

    /// Puts an empty file system in memory over a directory, for what should not touch the disk.
    ///
    /// # Errors
    /// The directory is absent, or the kernel refuses.
    pub fn cover_with_memory(&self, dir: &Path) -> Result<(), SandboxError> {
        mount_tmpfs(dir)
    }

    /// Puts an empty disk of so many kilobytes over a directory, for its owner alone: one that can be full.
    ///
    /// # Errors
    /// The directory is absent, or the kernel refuses.
    pub fn cover_with_small_disk(&self, dir: &Path, kilobytes: u32) -> Result<(), SandboxError> {
        let options = CString::new(format!("mode=0700,size={kilobytes}k")).unwrap_or_default();
        mount(dir, &options)
    }
}

/// Runs the body of a test inside a sandbox of its own.
///
/// ```no_run
/// # fn main() {}
/// #[test]
/// fn hosts_reach_each_other() -> Result<(), lab::SandboxError> {
///     lab::test(|sandbox| {
///         let lab = lab::Lab::build(sandbox, lab::LabConfig::hosts(2)).unwrap();
///         // ...
///     })
/// }
/// ```
///
/// The test program starts itself once more for this one test, by the name of the function that the
/// closure is written in, and checks that the body did run. The closure must be written in the test
/// function itself.
///
/// # Errors
/// What is missing on this machine, or that the body failed; its output has been printed by then.
pub fn test<F: FnOnce(&Sandbox)>(body: F) -> Result<(), SandboxError> {
    if let Some(sandbox) = Sandbox::if_inside()? {
        body(&sandbox);
        if let Some(witness) = std::env::var_os(WITNESS) {
            fs::write(witness, "ran").map_err(|source| SandboxError::Io { what: "bear witness", source })?;
        }
        return Ok(());
    }
    let dir = tempfile::tempdir().map_err(|source| SandboxError::Io { what: "make a directory", source })?;
    let witness = dir.path().join("witness");
    let name = test_name(type_name::<F>());
    let unshare = outer_command()?;
    // Ends with this process too, which here stays in between.
    let mut command = command::command("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(unshare.get_program())
        .args(unshare.get_args())
        .envs(unshare.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(WITNESS, &witness);
    let output = command.output().map_err(SandboxError::Exec)?;
    // By the macros, so that the harness captures it for this test.
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    match (output.status.success(), witness.exists()) {
        (true, true) => Ok(()),
        (true, false) => Err(SandboxError::BodyNotFound { name }),
        (false, _) => Err(SandboxError::BodyFailed { status: output.status }),
    }
}

/// Why there is no sandbox, or what happened in it.
#[non_exhaustive]
pub enum SandboxError {
    /// The test body failed inside.
    BodyFailed {
        /// How its process ended.
        status: ExitStatus,
    },
    /// No test of this name ran inside: the closure is not written in a test function.
    BodyNotFound {
        /// The name looked for.
        name: String,
    },
    /// The program could not be run again.
    Exec(io::Error),
    /// The operating system refused.
    Io {
        /// What was being done.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A program is not installed.
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// The environment says inside, the namespace says outside.
    NotIsolated,
    /// The kernel, or what confines this process, gives no namespaces.
    Refused {
        /// Kernel settings that are known to do this and are set so here.
        settings: Vec<&'static str>,
        /// What unshare said.
        stderr: String,
    },
    /// The first command inside failed.
    SetUp(CommandError),
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyFailed { status } => write!(f, "the test failed inside the sandbox ({status})"),
            Self::BodyNotFound { name } => {
                write!(f, "no test {name} ran inside the sandbox: call lab::test in the test function itself")
            }
            Self::Exec(error) => write!(f, "cannot run this program again: {error}"),
            Self::Io { what, source } => write!(f, "sandbox: cannot {what}: {source}"),
            Self::Missing { program, package } => {
                write!(f, "{program} is missing: apt-get install --no-install-recommends {package}")
            }
            Self::NotIsolated => write!(f, "{OUTSIDE} is set, but this is not a sandbox: unset it"),
            Self::Refused { settings, stderr } => {
                write!(f, "no namespaces for this process: {}", stderr.trim_end())?;
                match settings.as_slice() {
                    [] => {
                        f.write_str(" (run as root; a container must allow unshare: CAP_SYS_ADMIN, seccomp)")
                    }
                    settings => write!(f, " (run as root, or set {})", settings.join(", ")),
                }
            }
            Self::SetUp(error) => write!(f, "the sandbox cannot be set up: {error}"),
        }
    }
}

/// As [`fmt::Display`]: a test that returns it prints this.
impl fmt::Debug for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for SandboxError {}

/// A directory that goes when it is dropped; inside a sandbox it goes with that in any case.
pub(crate) fn temporary_dir(prefix: &str) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    if Path::new(SET_UP).exists() { builder.tempdir_in("/run") } else { builder.tempdir() }
}

/// unshare, a first process that collects orphans and ignores Ctrl-C, and this program under it.
fn outer_command() -> Result<Command, SandboxError> {
    for (program, package) in [("unshare", "util-linux"), ("setpriv", "util-linux"), ("ip", "iproute2")] {
        if command::find(program).is_none() {
            return Err(SandboxError::Missing { program, package });
        }
    }
    let exe = std::env::current_exe().map_err(SandboxError::Exec)?;
    let flags = working_flags()?;
    let mut command = command::command("unshare");
    command
        .args(flags)
        .args(["--", "sh", "-c", r#""$0" "$@"; exit $?"#])
        .arg(exe)
        .env(OUTSIDE, network_namespace()?);
    Ok(command)
}

fn working_flags() -> Result<Vec<&'static str>, SandboxError> {
    let plain = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mapped = [["--user", "--map-root-user"].as_slice(), &plain].concat();
    let plain = plain.to_vec();
    let choices = if rustix::process::geteuid().is_root() { vec![plain, mapped] } else { vec![mapped] };
    let mut stderr = String::new();
    for flags in choices {
        let probe = flags.iter().copied().chain(["--", "true"]);
        match command::run("unshare", probe) {
            Ok(_) => return Ok(flags),
            Err(CommandError::Failed { stderr: said, .. }) => stderr = said,
            Err(CommandError::NotRun { source, .. }) => return Err(SandboxError::Exec(source)),
        }
    }
    Err(SandboxError::Refused { settings: forbidding_settings(), stderr })
}

fn forbidding_settings() -> Vec<&'static str> {
    [
        ("kernel.unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user.max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("user.max_net_namespaces", "0", "user.max_net_namespaces=10000"),
    ]
    .into_iter()
    .filter(|(name, forbidding, _)| {
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == *forbidding)
    })
    .map(|(_, _, remedy)| remedy)
    .collect()
}

fn network_namespace() -> Result<PathBuf, SandboxError> {
    fs::read_link("/proc/self/ns/net")
        .map_err(|source| SandboxError::Io { what: "name the network namespace", source })
}

fn mount_tmpfs(dir: &Path) -> Result<(), SandboxError> {
    mount(dir, c"mode=0755")
}

fn mount(dir: &Path, options: &CStr) -> Result<(), SandboxError> {
    rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
        .map_err(|source| SandboxError::Io { what: "mount a file system in memory", source: source.into() })
}

/// `crate::module::test::{{closure}}` is known to the harness as `module::test`.
fn test_name(closure: &str) -> String {
    let path = closure.trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, rest)| rest).to_owned()
}

const OUTSIDE: &str = "MUSTER_LAB_OUTSIDE";
const WITNESS: &str = "MUSTER_LAB_WITNESS";
const SET_UP: &str = "/run/muster-lab";
