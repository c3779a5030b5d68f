//! One software TPM on a pseudo-terminal, reached like a real one: by the path of a device.

use core::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, QueueSelector};

use crate::command::{self, CommandError};

/// A running swtpm. Dropping it ends the process and the device; the state directory stays.
///
/// One program at a time may talk to it: there is no resource manager behind a pseudo-terminal.
#[derive(Debug)]
pub struct Swtpm {
    state_dir: PathBuf,
    device: PathBuf,
    master: OwnedFd,
    // Held open so that the line does not hang up between one user and the next.
    slave: OwnedFd,
    child: Child,
}

impl Swtpm {
    /// Starts one on the state in `state_dir`, which is made (0700) when absent. A fresh directory is
    /// a fresh TPM; a copied one is the same TPM again.
    ///
    /// # Errors
    /// swtpm is not installed, or the pseudo-terminal or the process cannot be made.
    pub fn start(state_dir: &Path) -> Result<Self, SwtpmError> {
        if command::find("swtpm").is_none() {
            return Err(SwtpmError::NotInstalled);
        }
        let io = |what| move |source: io::Error| SwtpmError::Io { what, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(io("make the state directory"))?;
        let state_dir = fs::canonicalize(state_dir).map_err(io("resolve the state directory"))?;

        let errno = |what| move |source: rustix::io::Errno| SwtpmError::Io { what, source: source.into() };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).map_err(errno("open a pseudo-terminal"))?;
        rustix::pty::grantpt(&master).map_err(errno("grant the pseudo-terminal"))?;
        rustix::pty::unlockpt(&master).map_err(errno("unlock the pseudo-terminal"))?;
        let name = rustix::pty::ptsname(&master, Vec::new()).map_err(errno("name the pseudo-terminal"))?;
        let device = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(errno("open the other end"))?;
        let mut mode = rustix::termios::tcgetattr(&slave).map_err(errno("read the line's mode"))?;
        mode.make_raw();
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode)
            .map_err(errno("make the line raw"))?;

        let child = spawn(&state_dir, &master)?;
        Ok(Self { state_dir, device, master, slave, child })
    }

    /// The device to name in `[keys] tpm`: `/dev/pts/N`.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Where its memory is.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Cuts the power without warning and gives it again: PCRs, sessions and transient objects are
    /// gone, what is in its permanent memory stays, and the device keeps its name.
    ///
    /// # Errors
    /// The process cannot be ended or started.
    pub fn power_cycle(&mut self) -> Result<(), SwtpmError> {
        self.end();
        for end in [&self.master, &self.slave] {
            rustix::termios::tcflush(end, QueueSelector::IOFlush)
                .map_err(|source| SwtpmError::Io { what: "empty the line", source: source.into() })?;
        }
        self.child = spawn(&self.state_dir, &self.master)?;
        Ok(())
    }

    /// Makes it anew as a maker does, with a certificate for its endorsement key (RSA-2048) by the CA in `ca`,
    /// which is made when absent. Whatever it held is gone. Returns the CA's certificate, PEM.
    ///
    /// # Errors
    /// `swtpm_setup` is not installed or fails.
    pub fn manufacture(&mut self, ca: &Path) -> Result<PathBuf, SwtpmError> {
        let (maker, setup) = maker(ca)?;
        self.end();
        let state = format!("dir://{}", self.state_dir.display());
        let line = ["--tpm2", "--tpm-state", &state, "--create-ek-cert", "--overwrite", "--config", &setup];
        command::run("swtpm_setup", line.into_iter().chain(["--pcr-banks", "sha256"]))
            .map_err(SwtpmError::Setup)?;
        self.power_cycle()?;
        Ok(maker)
    }

    fn end(&mut self) {
        // Both fail only for a process that has already ended and been waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.end();
    }
}

/// What `swtpm_setup` is told so that a CA in this directory, which it makes when absent, certifies endorsement
/// keys: the CA's certificate, PEM, and the file with the settings.
pub(crate) fn maker(ca: &Path) -> Result<(PathBuf, String), SwtpmError> {
    let io = |what| move |source: io::Error| SwtpmError::Io { what, source };
    DirBuilder::new().recursive(true).mode(0o700).create(ca).map_err(io("make the CA's directory"))?;
    let ca = fs::canonicalize(ca).map_err(io("resolve the CA's directory"))?;
    let file = |name: &str| ca.join(name).display().to_string();
    let tool = command::find("swtpm_localca").ok_or(SwtpmError::NotInstalled)?;
    let setup = format!(
        "create_certs_tool={}\ncreate_certs_tool_config={}\ncreate_certs_tool_options={}\n",
        tool.display(),
        file("localca.conf"),
        file("localca.options")
    );
    let names =
        [("statedir", ""), ("signingkey", "key.pem"), ("issuercert", "ca.pem"), ("certserial", "serial")];
    let names = names.map(|(word, name)| format!("{word}={}\n", file(name))).concat();
    let maker = "--platform-manufacturer lab\n--platform-version 1\n--platform-model lab\n";
    for (name, text) in [("setup.conf", setup.as_str()), ("localca.conf", &names), ("localca.options", maker)]
    {
        fs::write(ca.join(name), text).map_err(io("write the CA's settings"))?;
    }
    Ok((ca.join("ca.pem"), file("setup.conf")))
}

/// Why there is no software TPM.
#[derive(Debug)]
#[non_exhaustive]
pub enum SwtpmError {
    /// The operating system refused.
    Io {
        /// What was being done.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The program is absent.
    NotInstalled,
    /// `swtpm_setup` failed.
    Setup(CommandError),
}

impl fmt::Display for SwtpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, .. } => write!(f, "swtpm: cannot {what}"),
            Self::NotInstalled => f.write_str(
                "swtpm is not installed: apt-get install --no-install-recommends swtpm swtpm-tools",
            ),
            Self::Setup(_) => f.write_str("a software TPM cannot be made"),
        }
    }
}

impl core::error::Error for SwtpmError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotInstalled => None,
            Self::Setup(error) => Some(error),
        }
    }
}

/// The pseudo-terminal travels as standard input, so that no other child inherits it; swtpm wants a
/// number above 2, which the shell gives it before it becomes swtpm under the same process id.
fn spawn(state_dir: &Path, master: &OwnedFd) -> Result<Child, SwtpmError> {
    let io = |what| move |source: io::Error| SwtpmError::Io { what, source };
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(state_dir.join("log"))
        .map_err(io("open its log"))?;
    let mut tpmstate = std::ffi::OsString::from("dir=");
    tpmstate.push(state_dir);
    let mut command: Command = command::command("sh");
    command
        .args(["-c", r#"exec swtpm chardev --tpm2 --fd 3 --flags not-need-init,startup-clear --tpmstate "$0" 3<&0 0</dev/null"#])
        .arg(tpmstate)
        .stdin(Stdio::from(master.try_clone().map_err(io("copy the pseudo-terminal"))?))
        .stdout(Stdio::from(log.try_clone().map_err(io("copy its log"))?))
        .stderr(Stdio::from(log));
    command.spawn().map_err(io("start the process"))
}
