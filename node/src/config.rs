//! What an operator sets: one TOML file, drop-ins beside it, the environment; later ones win.
//!
//! `muster.toml`, then `muster.toml.d/*.toml` in the order of their names, then `MUSTER_STATE_DIR`
//! and `MUSTER_<SECTION>_<KEY>` (lists separated by commas). A key that this release does not know
//! is an error that names the nearest one it does: a setting that is silently ignored is worse than
//! a daemon that does not start.

use core::fmt;
use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use conn_auth::ServiceName;
use identity::{Code, limits};
use org_trust::TrustBundle;
use toml::{Table, Value};

use crate::{
    attestation::Attestation,
    services::{Offer, Offers},
    state::{OnClone, OnStale, Policy},
    tunnel::Allow,
};

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
            health: None,
            names: None,
        }
    }
}

/// Why the configuration is not usable.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value of the wrong type or out of range.
    BadValue {
        /// File or environment variable.
        place: String,
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The file is missing, too large, not TOML, or others may write it.
    Unreadable {
        /// The file.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key that this release does not know.
    UnknownKey {
        /// File or environment variable.
        place: String,
        /// The key as written.
        key: String,
        /// The known key that is closest in spelling.
        nearest: &'static str,
    },
}

impl ConfigError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BadValue { .. } => Code::ConfigBadValue,
            Self::Unreadable { .. } => Code::ConfigUnreadable,
            Self::UnknownKey { .. } => Code::ConfigUnknownKey,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { place, key, expected } => write!(f, "{place}: {key} takes {expected}"),
            Self::Unreadable { place, why } => write!(f, "{place}: {why}"),
            Self::UnknownKey { place, key, nearest } => {
                write!(f, "{place}: unknown setting {key}, the nearest is {nearest}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Reads file, drop-ins and environment. Without `path` the default file may be missing.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong; nothing is half applied.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let main = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        if path.is_some() || main.exists() {
            config.apply_file(main)?;
        }
        for file in drop_ins(main)? {
            config.apply_file(&file)?;
        }
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort();
        for (name, value) in &environment {
            config.apply_variable(name, value)?;
        }
        config.keep_apart()?;
        config.read_makers()?;
        Ok(config)
    }

    fn read_makers(&mut self) -> Result<(), ConfigError> {
        let Some(path) = &self.makers else { return Ok(()) };
        let unreadable = |why: String| ConfigError::Unreadable { place: path.display().to_string(), why };
        let text = read(path).map_err(unreadable)?;
        let makers = TrustBundle::read(text.as_bytes()).map_err(|why| unreadable(why.to_string()))?;
        self.attestation.makers = Some(makers);
        Ok(())
    }

    /// What one file's text makes of the defaults; `place` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn of_text(place: &str, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_text(place, text)?;
        config.keep_apart()?;
        Ok(config)
    }

    /// A socket belongs to the group of its directory. If both had one directory, whoever takes over the
    /// gateway's front could ask what operators ask, to leave the org among it.
    fn keep_apart(&self) -> Result<(), ConfigError> {
        let shared = |gateway: &PathBuf| gateway.parent() == self.control_socket.parent();
        if !self.gateway_socket.as_ref().is_some_and(shared) {
            return Ok(());
        }
        Err(ConfigError::BadValue {
            place: "settings".to_owned(),
            key: "gateway.socket",
            expected: "a directory of its own, apart from the control socket's",
        })
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let place = path.display().to_string();
        let text = read(path).map_err(|why| ConfigError::Unreadable { place: place.clone(), why })?;
        self.apply_text(&place, &text)
    }

    fn apply_text(&mut self, place: &str, text: &str) -> Result<(), ConfigError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Unreadable {
            place: place.to_owned(),
            why: error.message().to_owned(),
        })?;
        for (key, value) in &table {
            match value {
                Value::Table(section) if key == "expose" => {
                    for (action, offer) in section {
                        self.apply_exposed(place, action, offer)?;
                    }
                }
                Value::Table(section) => {
                    for (inner, value) in section {
                        self.apply(place, &format!("{key}.{inner}"), Given::Toml(value))?;
                    }
                }
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => self.apply(place, key, Given::Toml(value))?,
            }
        }
        Ok(())
    }

    fn apply_exposed(&mut self, place: &str, action: &str, value: &Value) -> Result<(), ConfigError> {
        let bad = |key, expected| ConfigError::BadValue { place: place.to_owned(), key, expected };
        let name = ServiceName::parse(action).ok_or_else(|| bad("expose", SERVICE_NAME))?;
        let table = value.as_table().ok_or_else(|| bad("expose", EXPOSED))?;
        let (mut to, mut proxy_protocol) = (None, false);
        for (key, value) in table {
            match key.as_str() {
                "to" => to = value.as_str().and_then(|text| text.parse().ok()),
                "proxy_protocol" => {
                    proxy_protocol = value.as_bool().ok_or_else(|| bad("expose", EXPOSED))?;
                }
                other => {
                    let nearest = ["expose.ACTION.to", "expose.ACTION.proxy_protocol"];
                    let nearest = nearest.into_iter().min_by_key(|known| edits(other, &known[14..]));
                    let key = format!("expose.{action}.{other}");
                    let nearest = nearest.unwrap_or_default();
                    return Err(ConfigError::UnknownKey { place: place.to_owned(), key, nearest });
                }
            }
        }
        let to = to.ok_or_else(|| bad("expose", EXPOSED))?;
        self.exposed.insert(name, Offer { to, proxy_protocol });
        if self.exposed.len() > limits::SERVICES_MAX {
            Err(bad("expose", "at most 64 services"))
        } else {
            Ok(())
        }
    }

    fn apply_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix("MUSTER_") else { return Ok(()) };
        let lower = rest.to_ascii_lowercase();
        let sectioned =
            SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).find_map(|(section, _)| {
                let inner = lower.strip_prefix(section)?.strip_prefix('_')?;
                Some(format!("{section}.{inner}"))
            });
        match sectioned {
            Some(key) => self.apply(name, &key, Given::Text(value)),
            None if lower == "state_dir" => self.apply(name, &lower, Given::Text(value)),
            // Passphrases and the like belong to other programs.
            None => Ok(()),
        }
    }

    fn apply(&mut self, place: &str, key: &str, given: Given<'_>) -> Result<(), ConfigError> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            return Err(ConfigError::UnknownKey {
                place: place.to_owned(),
                key: key.to_owned(),
                nearest: nearest(key),
            });
        };
        (setting.set)(self, given).ok_or_else(|| ConfigError::BadValue {
            place: place.to_owned(),
            key: setting.key,
            expected: setting.expected,
        })
    }
}

/// A value as TOML or as the text of a variable.
#[derive(Clone, Copy)]
enum Given<'a> {
    Toml(&'a Value),
    Text(&'a str),
}

impl<'a> Given<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
        .filter(|text| !text.is_empty())
    }

    fn path(self) -> Option<PathBuf> {
        self.text().map(PathBuf::from).filter(|path| path.is_absolute())
    }

    fn port(self) -> Option<u16> {
        match self {
            Self::Toml(value) => value.as_integer().and_then(|port| u16::try_from(port).ok()),
            Self::Text(text) => text.parse().ok(),
        }
        .filter(|&port| port != 0)
    }

    fn span(self) -> Option<Duration> {
        let text = self.text()?;
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        // More than some centuries overflow the clock.
        let span = number.parse::<u32>().ok().and_then(|number| seconds.checked_mul(number.into()))?;
        Some(Duration::from_secs(span))
    }

    fn registers(self) -> Option<Vec<[u8; 32]>> {
        let values = self.list(|item| identity::decode_hex(item.as_bytes()).ok())?;
        (values.len() <= limits::ACCEPTED_REGISTERS_MAX).then_some(values)
    }

    fn list<T>(self, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        match self {
            Self::Toml(value) => value.as_array()?.iter().map(|item| one(item.as_str()?)).collect(),
            Self::Text(text) => {
                text.split(',').filter(|item| !item.is_empty()).map(|item| one(item.trim())).collect()
            }
        }
    }
}

struct Setting {
    key: &'static str,
    expected: &'static str,
    set: fn(&mut Config, Given<'_>) -> Option<()>,
}

/// Members that are in contact compare their lists every five seconds.
const STALE_AFTER_MIN: Duration = Duration::from_secs(10);
const PATH: &str = "an absolute path";
const REGISTERS: &str = "a list of values of a register, 64 hexadecimal digits each";
const SERVICE_NAME: &str =
    "tables named for services: a-z, 0-9 and hyphens, and none of muster's own actions";
const EXPOSED: &str =
    "`to`, a port of the loopback or unix: and a path, and perhaps proxy_protocol, true or false";
const PORT: &str = "a port, 1 to 65535";

const SETTINGS: &[Setting] = &[
    Setting { key: "state_dir", expected: PATH, set: |c, v| v.path().map(|path| c.state_dir = path) },
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
    },
    Setting { key: "keys.tpm", expected: PATH, set: |c, v| v.path().map(|path| c.tpm = path) },
    Setting {
        key: "network.interface",
        expected: "the name of a network interface, at most 15 characters",
        set: |c, v| {
            let name =
                v.text().filter(|n| n.len() <= 15 && n.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))?;
            name.clone_into(&mut c.interface);
            Some(())
        },
    },
    Setting { key: "network.port", expected: PORT, set: |c, v| v.port().map(|port| c.port = port) },
    Setting { key: "network.auth_port", expected: PORT, set: |c, v| v.port().map(|port| c.auth_port = port) },
    Setting {
        key: "network.endpoints",
        expected: "a list of at most 8 ADDRESS:PORT",
        set: |c, v| {
            let endpoints = v.list(|item| item.parse().ok())?;
            (endpoints.len() <= limits::ENDPOINTS_MAX).then(|| c.endpoints = endpoints)
        },
    },
    Setting {
        key: "network.allow",
        expected: "a list of \"tcp/PORT\", \"udp/PORT\" or \"all\"",
        set: |c, v| v.list(|item| item.parse().ok()).map(|allow| c.allow = allow),
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
    },
    Setting {
        key: "members.stale_after",
        expected: "a time of at least 10s, such as \"90s\", \"10m\" or \"24h\"",
        set: |c, v| {
            c.policy.stale_after = v.span().filter(|span| *span >= STALE_AFTER_MIN)?;
            Some(())
        },
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
    },
    Setting {
        key: "attestation.roots",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.makers = Some(path)),
    },
    Setting {
        key: "attestation.secure_boot",
        expected: REGISTERS,
        set: |c, v| v.registers().map(|values| c.attestation.accepted.secure_boot = values),
    },
    Setting {
        key: "attestation.images",
        expected: REGISTERS,
        set: |c, v| v.registers().map(|values| c.attestation.accepted.images = values),
    },
    Setting {
        key: "control.socket",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.control_socket = path),
    },
    Setting {
        key: "gateway.socket",
        expected: PATH,
        set: |c, v| v.path().map(|path| c.gateway_socket = Some(path)),
    },
    Setting {
        key: "health.listen",
        expected: "an address and port of the loopback, such as 127.0.0.1:9464",
        set: |c, v| {
            let at: SocketAddr = v.text()?.parse().ok()?;
            at.ip().is_loopback().then(|| c.health = Some(at))
        },
    },
    Setting {
        key: "names.listen",
        expected: "an address and port of the loopback, such as 127.0.0.1:5355",
        set: |c, v| {
            let at: SocketAddr = v.text()?.parse().ok()?;
            at.ip().is_loopback().then(|| c.names = Some(at))
        },
    },
];

fn nearest(key: &str) -> &'static str {
    SETTINGS.iter().map(|setting| setting.key).min_by_key(|known| edits(key, known)).unwrap_or_default()
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            *cell = left;
            diagonal = above;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut directory = main.as_os_str().to_owned();
    directory.push(".d");
    let unreadable = |why: std::io::Error| ConfigError::Unreadable {
        place: PathBuf::from(&directory).display().to_string(),
        why: why.to_string(),
    };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(format!("others than user {} may write it", metadata.uid()));
    }
    let max = u64::try_from(limits::CONFIG_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > limits::CONFIG_BYTES_MAX { Err("too large".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use attest::Accepted;

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.apply_text("muster.toml", text).map(|()| config)
    }

    #[test]
    fn every_setting_can_be_set() {
        let config = parse(
            "state_dir = '/s'\n[keys]\nstorage = 'file'\ntpm = '/t'\n[network]\ninterface = 'm1'\nport = 1\n\
             auth_port = 2\nendpoints = ['127.0.0.1:3']\nallow = ['tcp/22', 'udp/53']\n[members]\n\
             on_stale = 'deny-new'\nstale_after = '2h'\non_clone = 'suspend'\n[control]\n\
             socket = '/c'\n[gateway]\nsocket = '/g'\n[health]\nlisten = '[::1]:9'\n[names]\nlisten = '127.0.0.1:5355'\n[attestation]\n\
             roots = '/r'\nimages = []\nsecure_boot = ['\
             0707070707070707070707070707070707070707070707070707070707070707']\n",
        )
        .unwrap();
        assert_eq!(
            config,
            Config {
                state_dir: PathBuf::from("/s"),
                storage: Storage::File,
                tpm: PathBuf::from("/t"),
                interface: "m1".to_owned(),
                port: 1,
                auth_port: 2,
                endpoints: vec!["127.0.0.1:3".parse().unwrap()],
                allow: vec![Allow::Tcp(22), Allow::Udp(53)],
                policy: Policy {
                    on_stale: OnStale::DenyNew,
                    stale_after: Duration::from_secs(7_200),
                    on_clone: OnClone::Suspend,
                },
                makers: Some(PathBuf::from("/r")),
                attestation: Attestation {
                    makers: None,
                    accepted: Accepted { secure_boot: vec![[7; 32]], images: Vec::new() },
                },
                control_socket: PathBuf::from("/c"),
                gateway_socket: Some(PathBuf::from("/g")),
                exposed: Offers::new(),
                health: Some("[::1]:9".parse().unwrap()),
                names: Some("127.0.0.1:5355".parse().unwrap()),
            }
        );
        let everywhere = Config::of_text("test", "[names]\nlisten = '0.0.0.0:53'\n");
        assert!(matches!(everywhere, Err(ConfigError::BadValue { key: "names.listen", .. })));
        let everywhere = Config::of_text("test", "[health]\nlisten = '0.0.0.0:9464'\n");
        assert!(matches!(everywhere, Err(ConfigError::BadValue { key: "health.listen", .. })));
    }

    #[test]
    fn a_service_is_declared_with_its_place_and_anything_else_is_refused() {
        let text = "[expose.ssh]\nto = '127.0.0.1:22'\n[expose.pg]\nto = 'unix:/s'\nproxy_protocol = true\n";
        let offers: Vec<_> = parse(text).unwrap().exposed.into_iter().collect();
        let shown =
            offers.iter().map(|(name, offer)| format!("{name} {} {}", offer.to, offer.proxy_protocol));
        assert_eq!(shown.collect::<Vec<_>>(), ["pg unix:/s true", "ssh 127.0.0.1:22 false"]);
        for bad in [
            "[expose.sync]\nto = '127.0.0.1:22'",
            "[expose.ssh]\nto = '10.0.0.1:22'",
            "[expose.ssh]\nproxy_protocol = true",
            "[expose.ssh]\nto = '127.0.0.1:22'\nproxy_protocol = 'yes'",
            "[expose]\nssh = '127.0.0.1:22'",
        ] {
            assert!(matches!(parse(bad), Err(ConfigError::BadValue { key: "expose", .. })), "{bad}");
        }
        let Err(ConfigError::UnknownKey { key, nearest, .. }) =
            parse("[expose.ssh]\nto = '127.0.0.1:22'\nproxy-protocol = true")
        else {
            panic!("a key that is not there");
        };
        assert_eq!((key.as_str(), nearest), ("expose.ssh.proxy-protocol", "expose.ACTION.proxy_protocol"));
    }

    #[test]
    fn the_fronts_socket_and_the_operators_have_no_directory_in_common() {
        let load = |gateway: &str| {
            let socket = ("MUSTER_GATEWAY_SOCKET".to_owned(), gateway.to_owned());
            let control = ("MUSTER_CONTROL_SOCKET".to_owned(), "/run/muster/musterd.sock".to_owned());
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("muster.toml");
            fs::write(&file, "").unwrap();
            Config::load(Some(&file), [socket, control])
        };
        assert!(load("/run/muster-gateway/gateway.sock").is_ok());
        assert_eq!(load("/run/muster/gateway.sock").unwrap_err().code(), Code::ConfigBadValue);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (text, wrong, right) in [
            ("[network]\nprot = 1", "network.prot", "network.port"),
            ("[keys]\nstorrage = 'tpm'", "keys.storrage", "keys.storage"),
            ("statedir = '/s'", "statedir", "state_dir"),
            ("[gatway]\nsocket = '/s'", "gatway.socket", "gateway.socket"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), Code::ConfigUnknownKey);
            let ConfigError::UnknownKey { key, nearest, .. } = error else { panic!("{error}") };
            assert_eq!((key.as_str(), nearest), (wrong, right));
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_takes() {
        for text in [
            "state_dir = 's'",
            "state_dir = 1",
            "network = 1",
            "[keys]\nstorage = 'disk'",
            "[network]\nport = 0",
            "[network]\nport = 65536",
            "[network]\nport = '1'",
            "[network]\nallow = ['icmp']",
            "[network]\nendpoints = ['host:1']",
            "[network]\ninterface = 'sixteen-letters-'",
            "[members]\non_stale = 'never'",
            "[members]\nstale_after = '9s'",
            "[members]\nstale_after = '10'",
            "[members]\non_clone = 'refuse'",
        ] {
            let code = parse(text).unwrap_err().code();
            assert!(matches!(code, Code::ConfigBadValue | Code::ConfigUnknownKey), "{text}");
        }
    }

    #[test]
    fn the_environment_wins_over_drop_ins_and_these_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("muster.toml");
        write(&main, "[network]\nport = 1\nauth_port = 1\ninterface = 'a'\n");
        fs::create_dir(dir.path().join("muster.toml.d")).unwrap();
        write(&dir.path().join("muster.toml.d/20.toml"), "[network]\nauth_port = 3\n");
        write(&dir.path().join("muster.toml.d/10.toml"), "[network]\nauth_port = 2\ninterface = 'b'\n");
        let environment = [
            ("MUSTER_NETWORK_INTERFACE", "c"),
            ("MUSTER_PASSPHRASE", "x"),
            ("MUSTER_NETWORK_ALLOW", "tcp/1, udp/2"),
        ];
        let config =
            Config::load(Some(&main), environment.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        assert_eq!((config.port, config.auth_port, config.interface.as_str()), (1, 3, "c"));
        assert_eq!(config.allow, [Allow::Tcp(1), Allow::Udp(2)]);
        let wrong = [("MUSTER_NETWORK_PROT".to_owned(), "1".to_owned())];
        assert_eq!(Config::load(Some(&main), wrong).unwrap_err().code(), Code::ConfigUnknownKey);
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("muster.toml");
        write(&main, "");
        fs::set_permissions(&main, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(Config::load(Some(&main), []).unwrap_err().code(), Code::ConfigUnreadable);
        fs::remove_file(&main).unwrap();
        assert_eq!(Config::load(Some(&main), []).unwrap_err().code(), Code::ConfigUnreadable);
    }

    #[test]
    fn the_settings_that_are_shipped_are_all_there_are_with_their_defaults() {
        let shipped = include_str!("../../packaging/muster.toml");
        let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let set: Vec<&str> = shipped
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line))
            .collect();
        let table: Table = set.join("\n").parse().unwrap();
        let mut named = Vec::new();
        for (section, value) in &table {
            match value.as_table() {
                Some(keys) => named.extend(keys.keys().map(|key| format!("{section}.{key}"))),
                None => named.push(section.clone()),
            }
        }
        let mut known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
        // What has no default is shown by an example.
        let config = parse(&set.join("\n")).unwrap();
        let cleared = Config {
            endpoints: Vec::new(),
            allow: Vec::new(),
            makers: None,
            gateway_socket: None,
            health: None,
            names: None,
            ..config
        };
        assert_eq!(cleared, Config::default());
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}
