//! Every setting once: its name, what it takes, how it is set and what it is.

use std::{net::SocketAddr, time::Duration};

use super::{
    Config, Storage,
    given::{Given, UNITS},
};
use crate::state::{OnClone, OnStale};
use identity::{encode_hex, limits};
use serde_json::{Value as Shown, json};

pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) expected: &'static str,
    pub(super) set: fn(&mut Config, Given<'_>) -> Option<()>,
    /// As a file would have it; null where nothing is set.
    pub(super) get: fn(&Config) -> Shown,
}

/// Members that are in contact compare their lists every five seconds.
const STALE_AFTER_MIN: Duration = Duration::from_secs(10);
const PATH: &str = "an absolute path";
const REGISTERS: &str = "a list of values of a register, 64 hexadecimal digits each";
pub(super) const SERVICE_NAME: &str =
    "tables named for services: a-z, 0-9 and hyphens, and none of muster's own actions";
pub(super) const EXPOSED: &str =
    "`to`, a port of the loopback or unix: and a path, and perhaps proxy_protocol, true or false";
const LENGTH: &str = "a length in KiB, MiB, GiB or TiB, such as \"10 GiB\"";
const PORT: &str = "a port, 1 to 65535";

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "state_dir",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.state_dir = path),
        get: |c| json!(c.state_dir),
    },
    Setting {
        key: "keys.storage",
        expected: "\"tpm\" or \"file\"",
        set: |c, v| {
            c.storage = match v.text()? {
                "tpm" => Storage::Tpm,
                "file" => Storage::File,
                _ => return None,
            };
            Some(())
        },
        get: |c| {
            match c.storage {
                Storage::Tpm => "tpm",
                Storage::File => "file",
            }
            .into()
        },
    },
    Setting {
        key: "keys.tpm",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.tpm = path),
        get: |c| json!(c.tpm),
    },
    Setting {
        key: "network.interface",
        expected: "the name of a network interface, at most 15 characters",
        set: |c, v| {
            let name =
                v.text().filter(|n| n.len() <= 15 && n.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))?;
            name.clone_into(&mut c.interface);
            Some(())
        },
        get: |c| json!(c.interface),
    },
    Setting {
        key: "network.port",
        expected: PORT,
        set: |c, v| v.port().map(|port| c.port = port),
        get: |c| json!(c.port),
    },
    Setting {
        key: "network.auth_port",
        expected: PORT,
        set: |c, v| v.port().map(|port| c.auth_port = port),
        get: |c| json!(c.auth_port),
    },
    Setting {
        key: "network.endpoints",
        expected: "a list of at most 8 ADDRESS:PORT",
        set: |c, v| {
            let endpoints = v.list(|item| item.parse().ok())?;
            (endpoints.len() <= limits::ENDPOINTS_MAX).then(|| c.endpoints = endpoints)
        },
        get: |c| texts(&c.endpoints),
    },
    Setting {
        key: "network.allow",
        expected: "a list of \"tcp/PORT\", \"udp/PORT\" or \"all\"",
        set: |c, v| v.list(|item| item.parse().ok()).map(|allow| c.allow = allow),
        get: |c| texts(&c.allow),
    },
    Setting {
        key: "members.on_stale",
        expected: "\"serve\", \"deny-new\" or \"deny-all\"",
        set: |c, v| {
            c.policy.on_stale = match v.text()? {
                "serve" => OnStale::Serve,
                "deny-new" => OnStale::DenyNew,
                "deny-all" => OnStale::DenyAll,
                _ => return None,
            };
            Some(())
        },
        get: |c| {
            match c.policy.on_stale {
                OnStale::Serve => "serve",
                OnStale::DenyNew => "deny-new",
                OnStale::DenyAll => "deny-all",
            }
            .into()
        },
    },
    Setting {
        key: "members.stale_after",
        expected: "a time of at least 10s, such as \"90s\", \"10m\" or \"24h\"",
        set: |c, v| {
            c.policy.stale_after = v.span().filter(|span| *span >= STALE_AFTER_MIN)?;
            Some(())
        },
        get: |c| span(c.policy.stale_after).into(),
    },
    Setting {
        key: "members.on_clone",
        expected: "\"alarm\" or \"suspend\"",
        set: |c, v| {
            c.policy.on_clone = match v.text()? {
                "alarm" => OnClone::Alarm,
                "suspend" => OnClone::Suspend,
                _ => return None,
            };
            Some(())
        },
        get: |c| {
            match c.policy.on_clone {
                OnClone::Alarm => "alarm",
                OnClone::Suspend => "suspend",
            }
            .into()
        },
    },
    Setting {
        key: "attestation.roots",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.makers = Some(path)),
        get: |c| json!(c.makers),
    },
    Setting {
        key: "attestation.secure_boot",
        expected: REGISTERS,
        set: |c, v| v.registers().map(|values| c.attestation.accepted.secure_boot = values),
        get: |c| registers(&c.attestation.accepted.secure_boot),
    },
    Setting {
        key: "attestation.images",
        expected: REGISTERS,
        set: |c, v| v.registers().map(|values| c.attestation.accepted.images = values),
        get: |c| registers(&c.attestation.accepted.images),
    },
    Setting {
        key: "control.socket",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.control_socket = path),
        get: |c| json!(c.control_socket),
    },
    Setting {
        key: "gateway.socket",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.gateway_socket = Some(path)),
        get: |c| json!(c.gateway_socket),
    },
    Setting {
        key: "blobs.max",
        expected: LENGTH,
        set: |c, v| v.bytes().map(|bytes| c.blobs.max = Some(bytes)),
        get: |c| length(c.blobs.max),
    },
    Setting {
        key: "blobs.member",
        expected: LENGTH,
        set: |c, v| v.bytes().map(|bytes| c.blobs.member = Some(bytes)),
        get: |c| length(c.blobs.member),
    },
    Setting {
        key: "health.listen",
        expected: "an address and port of the loopback, such as 127.0.0.1:9464",
        set: |c, v| {
            let at: SocketAddr = v.text()?.parse().ok()?;
            at.ip().is_loopback().then(|| c.health = Some(at))
        },
        get: |c| json!(c.health),
    },
    Setting {
        key: "names.listen",
        expected: "an address and port of the loopback, such as 127.0.0.1:5355",
        set: |c, v| {
            let at: SocketAddr = v.text()?.parse().ok()?;
            at.ip().is_loopback().then(|| c.names = Some(at))
        },
        get: |c| json!(c.names),
    },
];

fn texts<T: ToString>(items: &[T]) -> Shown {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().into()
}

fn registers(values: &[[u8; 32]]) -> Shown {
    values.iter().map(|value| encode_hex(value)).collect::<Vec<_>>().into()
}

/// In the largest unit that leaves no rest.
fn length(bytes: Option<u64>) -> Shown {
    let Some(bytes) = bytes else { return Shown::Null };
    let unit = UNITS.iter().find(|(_, power)| bytes.is_multiple_of(1 << power));
    unit.map_or_else(|| json!(bytes), |(name, power)| json!(format!("{} {name}", bytes >> power)))
}

/// In the largest unit that leaves no rest.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let fitting = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{seconds}s"), |(unit, word)| format!("{}{word}", seconds / unit))
}
