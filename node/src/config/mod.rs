//! What an operator sets: one TOML file, drop-ins beside it, the environment; later ones win.
//!
//! `muster.toml`, then `muster.toml.d/*.toml` in the order of their names, then `MUSTER_STATE_DIR`
//! and `MUSTER_<SECTION>_<KEY>` (lists separated by commas). A key that this release does not know
//! is an error that names the nearest one it does: a setting that is silently ignored is worse than
//! a daemon that does not start.

mod error;
mod file;
mod given;
mod reading;
mod setting;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use error::ConfigError;
pub use reading::Reading;

use crate::{attestation::Attestation, blobs::Room, services::Offers, state::Policy, tunnel::Allow};

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/muster/muster.toml";

/// How this machine's keys are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a file; shown to all members.
    File,
    /// Sealed by the TPM.
    Tpm,
}

/// `[blobs]`, as it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobRoom {
    /// `max`: bytes in all.
    pub max: Option<u64>,
    /// `member`: bytes for one member; half of it all unless set.
    pub member: Option<u64>,
}

impl BlobRoom {
    /// What follows, if anything is kept.
    #[must_use]
    pub fn room(self) -> Option<Room> {
        self.max.map(|max| Room { max, member: self.member.unwrap_or(max / 2).min(max) })
    }
}

/// The settings of musterd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Keys, store, hand-over.
    pub state_dir: PathBuf,
    /// `[keys] storage`.
    pub storage: Storage,
    /// `[keys] tpm`.
    pub tpm: PathBuf,
    /// `[network] interface`.
    pub interface: String,
    /// `[network] port`: UDP, of the tunnels.
    pub port: u16,
    /// `[network] auth_port`: TCP, on the overlay address.
    pub auth_port: u16,
    /// `[network] endpoints`: where other members reach this one; from the interfaces if empty.
    pub endpoints: Vec<SocketAddr>,
    /// `[network] allow`: what members may reach besides conn_auth and ICMP.
    pub allow: Vec<Allow>,
    /// `[members]`: what is done when the list cannot be compared, or a key was copied.
    pub policy: Policy,
    /// `[attestation] roots`: certificates of the CAs that vouch for TPMs, PEM.
    pub makers: Option<PathBuf>,
    /// What a newcomer's TPM is believed by, as a gateway.
    pub attestation: Attestation,
    /// `[control] socket`.
    pub control_socket: PathBuf,
    /// `[gateway] socket`; only a gateway has one.
    pub gateway_socket: Option<PathBuf>,
    /// `[expose.ACTION]`: programs of this machine that members may reach.
    pub exposed: Offers,
    /// `[blobs]`: how much is kept for members; nothing unless set.
    pub blobs: BlobRoom,
    /// `[health] listen`: health and metrics over HTTP, on the loopback; none unless set.
    pub health: Option<SocketAddr>,
    /// `[names] listen`: DNS for NAME.ORG.internal, on the loopback; none unless set.
    pub names: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/muster"),
            storage: Storage::Tpm,
            tpm: PathBuf::from("/dev/tpmrm0"),
            interface: "muster0".to_owned(),
            port: 51820,
            auth_port: 4714,
            endpoints: Vec::new(),
            allow: Vec::new(),
            policy: Policy::default(),
            makers: None,
            attestation: Attestation::default(),
            control_socket: PathBuf::from("/run/muster/musterd.sock"),
            gateway_socket: None,
            exposed: Offers::new(),
            blobs: BlobRoom::default(),
            health: None,
            names: None,
        }
    }
}

impl Config {
    /// Reads file, drop-ins and environment. Without `path` the default file may be missing.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong; nothing is half applied.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Reading::of(path, environment).into_config()
    }

    /// What one file's text makes of the defaults; `place` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn of_text(place: &str, text: &str) -> Result<Self, ConfigError> {
        Reading::of_text(place, text).into_config()
    }
}
