//! Where things lie on this machine: flags win over muster.toml and its drop-ins, those over what is
//! built in.

use std::path::{Path, PathBuf};

use identity::{Code, limits::CONFIG_BYTES_MAX};
use serde::Deserialize;

use crate::{
    args::{Everywhere, KeyStorage},
    failure::{Failure, Outcome},
    files,
};

/// File with the settings of musterd.
pub(crate) const CONFIG: &str = "muster.toml";
/// Where the gateway's front and musterd meet.
pub(crate) const GATEWAY_SOCKET: &str = "/run/muster-gateway/gateway.sock";

/// There while systemd runs the machine.
pub(crate) const SYSTEMD: &str = "/run/systemd/system";

const STATE: &str = "/var/lib/muster";
const SOCKET: &str = "/run/muster/musterd.sock";
const TPM: &str = "/dev/tpmrm0";

/// What is set for this machine.
#[derive(Debug)]
pub(crate) struct Places {
    /// State directory.
    pub(crate) state: PathBuf,
    /// Control socket of musterd.
    pub(crate) socket: PathBuf,
    /// What muster.toml says of key storage.
    pub(crate) storage: Option<KeyStorage>,
    /// TPM device.
    pub(crate) tpm: PathBuf,
    /// Socket between gateway and musterd, if muster.toml has one.
    pub(crate) gateway_socket: Option<PathBuf>,
    /// Whether there is a muster.toml.
    pub(crate) configured: bool,
}

/// The settings that this program needs; musterd checks all of them.
#[derive(Debug, Default, Deserialize)]
struct Config {
    state_dir: Option<PathBuf>,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    control: Socket,
    #[serde(default)]
    gateway: Socket,
}

#[derive(Debug, Default, Deserialize)]
struct Keys {
    storage: Option<KeyStorage>,
    tpm: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct Socket {
    socket: Option<PathBuf>,
}

impl Places {
    pub(crate) fn find(everywhere: &Everywhere) -> Outcome<Self> {
        let main = everywhere.config_dir.join(CONFIG);
        let configured = main.exists();
        let mut config = if configured { read(&main)? } else { Config::default() };
        for path in drop_ins(&main) {
            config.overlay(read(&path)?);
        }
        let or = |set: Option<PathBuf>, built_in: &str| set.unwrap_or_else(|| PathBuf::from(built_in));
        Ok(Self {
            state: or(everywhere.state.clone().or(config.state_dir), STATE),
            socket: or(everywhere.socket.clone().or(config.control.socket), SOCKET),
            storage: config.keys.storage,
            tpm: or(config.keys.tpm, TPM),
            gateway_socket: config.gateway.socket,
            configured,
        })
    }
}

impl Config {
    fn overlay(&mut self, later: Self) {
        let Self { state_dir, keys, control, gateway } = later;
        self.state_dir = state_dir.or_else(|| self.state_dir.take());
        self.keys.storage = keys.storage.or(self.keys.storage);
        self.keys.tpm = keys.tpm.or_else(|| self.keys.tpm.take());
        self.control.socket = control.socket.or_else(|| self.control.socket.take());
        self.gateway.socket = gateway.socket.or_else(|| self.gateway.socket.take());
    }
}

fn read(path: &Path) -> Outcome<Config> {
    let text = files::read_text(path, CONFIG_BYTES_MAX)?;
    toml::from_str(&text)
        .map_err(|error| Failure::new(Code::ConfigUnreadable, format_args!("{}: {error}", path.display())))
}

fn drop_ins(main: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(files::with_suffix(main, ".d")) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    paths.sort();
    paths
}

/// `$XDG_CONFIG_HOME/muster`, where admins keep their keys.
pub(crate) fn admin_root() -> Outcome<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .map(|root| root.join("muster"))
        .ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set").remedy("Give --admin FILE."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_wins_over_the_file() {
        let mut config: Config =
            toml::from_str("state_dir = '/a'\n[keys]\nstorage = 'file'\n[network]\nport = 1\n").unwrap();
        config.overlay(toml::from_str("state_dir = '/b'\n[gateway]\nsocket = '/g'\n").unwrap());
        assert_eq!(config.state_dir, Some(PathBuf::from("/b")));
        assert_eq!(config.keys.storage, Some(KeyStorage::File));
        assert_eq!(config.gateway.socket, Some(PathBuf::from("/g")));
    }
}
