//! Whom to probe.

use std::{
    fmt, fs, io,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
};

use identity::{KeyError, PublicKey, WireGuardKey};
use serde::Deserialize;

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) node: PublicKey,
    pub(crate) wireguard: WireGuardKey,
    pub(crate) address: Ipv6Addr,
    pub(crate) endpoint: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    node: String,
    wireguard: String,
    address: Ipv6Addr,
    endpoint: SocketAddr,
}

/// Why there is no list.
#[derive(Debug)]
pub(crate) enum TargetsError {
    File(io::Error),
    Json(serde_json::Error),
    Node(String, KeyError),
    WireGuard(String, KeyError),
}

impl fmt::Display for TargetsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(why) => why.fmt(f),
            Self::Json(why) => why.fmt(f),
            Self::Node(name, why) => write!(f, "node key of {name}: {why}"),
            Self::WireGuard(name, why) => write!(f, "WireGuard key of {name}: {why}"),
        }
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<Target>, TargetsError> {
    parse(&fs::read(path).map_err(TargetsError::File)?)
}

fn parse(json: &[u8]) -> Result<Vec<Target>, TargetsError> {
    let entries: Vec<Entry> = serde_json::from_slice(json).map_err(TargetsError::Json)?;
    entries.into_iter().map(Entry::check).collect()
}

impl Entry {
    fn check(self) -> Result<Target, TargetsError> {
        let Self { name, node, wireguard, address, endpoint } = self;
        let node = PublicKey::from_hex(&node).map_err(|why| TargetsError::Node(name.clone(), why))?;
        // As the member list has it, and so `muster member list`.
        let wireguard = PublicKey::from_hex(&wireguard)
            .map(|key| key.to_wireguard())
            .map_err(|why| TargetsError::WireGuard(name.clone(), why))?;
        Ok(Target { name, node, wireguard, address, endpoint })
    }
}

#[cfg(test)]
mod tests {
    use identity::SecretKey;

    use super::*;

    #[test]
    fn a_list_of_targets_is_read() {
        let key = SecretKey::from_seed(&[1; 32]).public();
        let entry = |extra: &str| {
            format!(
                r#"[{{"name":"n1","node":"{key}","wireguard":"{key}","address":"fd00::1","endpoint":"[::1]:51820"{extra}}}]"#,
            )
        };
        let targets = parse(entry("").as_bytes()).unwrap();
        assert_eq!((targets[0].node, targets[0].wireguard), (key, key.to_wireguard()));
        assert!(matches!(parse(entry(r#","more":1"#).as_bytes()), Err(TargetsError::Json(_))));
    }
}
