//! The whole lab: hosts on a bridge, each with a directory and a TPM of its own.

use core::fmt;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::network::{Bridge, Namespace, NetworkError, Underlay};
use crate::program::Program;
use crate::sandbox::{Sandbox, temporary_dir};
use crate::swtpm::{Swtpm, SwtpmError};

/// What to build.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// The hosts' names: 1 to 11 characters a-z, 0-9, `-`.
    pub names: Vec<String>,
    /// Whether each gets a TPM.
    pub tpms: Tpms,
    /// Their addresses.
    pub underlay: Underlay,
    /// Where their directories are made; kept afterwards. `None`: in the sandbox's memory, from where
    /// they go with the lab, also when it is killed.
    pub dir: Option<PathBuf>,
}

/// Whether hosts have TPMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tpms {
    /// None has.
    None,
    /// Each has one.
    #[default]
    Each,
}

impl LabConfig {
    /// Hosts `n1` to `nN` with everything.
    #[must_use]
    pub fn hosts(count: usize) -> Self {
        Self {
            names: (1..=count).map(|number| format!("n{number}")).collect(),
            tpms: Tpms::default(),
            underlay: Underlay::default(),
            dir: None,
        }
    }
}

/// Hosts on one bridge. Dropping it ends their TPMs and removes their namespaces; the daemons on them
/// belong to whoever spawned them and must be dropped before.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    bridge: Bridge,
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Lab {
    /// Builds it.
    ///
    /// # Errors
    /// A tool is missing or refused, or the disk did.
    pub fn build(inside: &Sandbox, config: LabConfig) -> Result<Self, LabError> {
        let io = |what| move |source| LabError::Io { what, source };
        let (dir, temporary) = match config.dir {
            Some(dir) => (dir, None),
            None => {
                let temporary = temporary_dir("lab-").map_err(io("make a directory"))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut bridge = Bridge::new(inside, config.underlay).map_err(LabError::Network)?;
        let mut hosts = Vec::new();
        for namespace in bridge.attach(&config.names).map_err(LabError::Network)? {
            let dir = dir.join(namespace.name());
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(io("make a host's directory"))?;
            let tpm = match config.tpms {
                Tpms::None => None,
                Tpms::Each => Some(Swtpm::start(&dir.join("tpm")).map_err(LabError::Swtpm)?),
            };
            hosts.push(Host { dir, tpm, namespace });
        }
        Ok(Self { hosts, bridge, dir, _temporary: temporary })
    }

    /// All hosts, in the order of their names in the configuration.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The same, to power-cycle their TPMs.
    pub fn hosts_mut(&mut self) -> &mut [Host] {
        &mut self.hosts
    }

    /// The host of this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// What is between them.
    #[must_use]
    pub const fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Cuts these hosts off from all others.
    ///
    /// # Errors
    /// nft refused.
    pub fn isolate(&self, names: &[&str]) -> Result<(), NetworkError> {
        let (these, others): (Vec<_>, Vec<_>) =
            self.hosts.iter().map(Host::namespace).partition(|host| names.contains(&host.name()));
        self.bridge.cut(&these, &others)
    }

    /// Where the hosts' directories are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// One machine that is not there.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
    tpm: Option<Swtpm>,
    namespace: Namespace,
}

impl Host {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its disk: a directory of mode 0700. `tpm` in it is the TPM's.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its address on the bridge.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.namespace.address()
    }

    /// Its IPv6 address on the bridge.
    #[must_use]
    pub const fn address6(&self) -> Option<Ipv6Addr> {
        self.namespace.address6()
    }

    /// Its network.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its TPM.
    #[must_use]
    pub const fn tpm(&self) -> Option<&Swtpm> {
        self.tpm.as_ref()
    }

    /// Its TPM, to cut the power.
    pub const fn tpm_mut(&mut self) -> Option<&mut Swtpm> {
        self.tpm.as_mut()
    }

    /// A program on this host; a daemon's output goes to `NAME.log` in its directory.
    #[must_use]
    pub fn program(&self, program: impl Into<PathBuf>) -> Program {
        let program = program.into();
        let mut log = program.file_name().unwrap_or_default().to_owned();
        log.push(".log");
        self.namespace.program(program).log(self.dir.join(log))
    }
}

/// Why there is no lab.
#[derive(Debug)]
#[non_exhaustive]
pub enum LabError {
    /// The disk refused.
    Io {
        /// What was being done.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The network.
    Network(NetworkError),
    /// A TPM.
    Swtpm(SwtpmError),
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, .. } => write!(f, "lab: cannot {what}"),
            Self::Network(error) => write!(f, "{error}"),
            Self::Swtpm(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for LabError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Network(error) => error.source(),
            Self::Swtpm(error) => error.source(),
        }
    }
}
