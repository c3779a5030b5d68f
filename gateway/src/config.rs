//! What an operator sets for the gateway's front: one TOML file of four keys.

use core::fmt;
use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use identity::{
    Code,
    limits::{BUNDLE_BYTES_MAX, CONFIG_BYTES_MAX},
};
use toml::{Table, Value};
use transport::{CertificateFault, ServerTls};

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where TLS is listened for.
    pub(crate) listen: Vec<SocketAddr>,
    /// The certificate chain, leaf first, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// musterd's socket for its gateway.
    pub(crate) musterd: PathBuf,
}

/// Why the front does not start, or keeps the certificate it has.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// A value of the wrong type or out of range, or a key that is missing.
    BadValue { key: &'static str, expected: &'static str },
    /// Certificate and key cannot be served.
    Certificate { file: PathBuf, why: CertificateFault },
    /// The key's file is open to others.
    ModeTooOpen { file: PathBuf, mode: u32 },
    /// A file is missing, too large, or not what it should be.
    Unreadable { file: PathBuf, why: String },
    /// A key that this release does not know.
    UnknownKey { key: String, nearest: &'static str },
}

impl Config {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::of_text(path, &text(path)?)
    }

    /// The text of the file at `path`.
    pub(crate) fn of_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::of(&table(path, text)?).map_err(|mut wrong| wrong.swap_remove(0))
    }

    /// All that is wrong, if anything is.
    pub(crate) fn of(table: &Table) -> Result<Self, Vec<ConfigError>> {
        let unknown = table.keys().filter(|key| !KEYS.contains(&key.as_str()));
        let unknown = unknown.map(|key| ConfigError::UnknownKey { key: key.clone(), nearest: nearest(key) });
        let mut wrong: Vec<ConfigError> = unknown.collect();
        let mut path = |key: &'static str, default: Option<&str>| {
            let text = match table.get(key) {
                Some(value) => value.as_str(),
                None => default,
            };
            let path = text.map(PathBuf::from).filter(|path| path.is_absolute());
            if path.is_none() {
                wrong.push(ConfigError::BadValue { key, expected: "an absolute path" });
            }
            path.unwrap_or_default()
        };
        let (certificate, key) = (path("certificate", None), path("key", None));
        let musterd = path("musterd", Some(MUSTERD));
        let listen = match table.get("listen") {
            None => Some(vec![SocketAddr::from(([0u16; 8], DEFAULT_PORT))]),
            Some(Value::Array(items)) => items.iter().map(socket_address).collect(),
            Some(value) => socket_address(value).map(|one| vec![one]),
        };
        match listen.filter(|l| !l.is_empty() && l.len() <= LISTENERS_MAX) {
            Some(listen) if wrong.is_empty() => return Ok(Self { listen, certificate, key, musterd }),
            Some(_) => {}
            None => wrong.push(ConfigError::BadValue {
                key: "listen",
                expected: "ADDRESS:PORT, or a list of up to 16 of them",
            }),
        }
        Err(wrong)
    }

    /// Reads certificate and key; called again on SIGHUP. `credentials` is where systemd puts what the
    /// unit loads: a file there goes before the one of the same name that belongs to another user.
    pub(crate) fn server_tls(&self, credentials: Option<&Path>) -> Result<ServerTls, ConfigError> {
        let loaded = credentials.zip(self.key.file_name()).map(|(directory, name)| directory.join(name));
        let key_file = loaded.filter(|file| file.exists()).unwrap_or_else(|| self.key.clone());
        let mode = fs::metadata(&key_file).map_err(|e| unreadable(&key_file, &e.to_string()))?;
        let mode = mode.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::ModeTooOpen { file: key_file, mode });
        }
        let chain = read(&self.certificate, BUNDLE_BYTES_MAX)?;
        let key = read(&key_file, BUNDLE_BYTES_MAX)?;
        ServerTls::from_pem(&chain, &key).map_err(|why| {
            let file = if why == CertificateFault::Key { key_file } else { self.certificate.clone() };
            ConfigError::Certificate { file, why }
        })
    }
}

pub(crate) fn text(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read(path, CONFIG_BYTES_MAX)?).map_err(|_| unreadable(path, "not UTF-8"))
}

pub(crate) fn table(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| unreadable(path, error.message()))
}

fn socket_address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, ConfigError> {
    let file = fs::File::open(path).map_err(|e| unreadable(path, &e.to_string()))?;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e.to_string()))?;
    if bytes.len() > max { Err(unreadable(path, "too large")) } else { Ok(bytes) }
}

fn unreadable(file: &Path, why: &str) -> ConfigError {
    ConfigError::Unreadable { file: file.to_owned(), why: why.to_owned() }
}

/// The known key that takes the fewest single-letter changes.
fn nearest(key: &str) -> &'static str {
    KEYS.iter().copied().min_by_key(|known| strsim::levenshtein(known, key)).unwrap_or("listen")
}

impl ConfigError {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::BadValue { .. } | Self::Certificate { .. } => Code::ConfigBadValue,
            Self::ModeTooOpen { .. } => Code::FileModeTooOpen,
            Self::Unreadable { .. } => Code::ConfigUnreadable,
            Self::UnknownKey { .. } => Code::ConfigUnknownKey,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { key, expected } => write!(f, "{key} takes {expected}"),
            Self::Certificate { file, why } => write!(f, "{}: {why}", file.display()),
            Self::ModeTooOpen { file, mode } => {
                write!(f, "{} has mode {mode:04o}, 0600 or less wanted", file.display())
            }
            Self::Unreadable { file, why } => write!(f, "{}: {why}", file.display()),
            Self::UnknownKey { key, nearest } => {
                write!(f, "unknown setting {key}, the nearest is {nearest}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

pub(crate) const KEYS: &[&str] = &["listen", "certificate", "key", "musterd"];
pub(crate) const MUSTERD: &str = "/run/muster-gateway/gateway.sock";
const DEFAULT_PORT: u16 = 443;
const LISTENERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Config, ConfigError> {
        Config::of_text(Path::new("/x"), text)
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let text = "certificate = \"/c\"\nkey = \"/k\"\ncertficate = \"/x\"";
        assert!(matches!(of(text), Err(ConfigError::UnknownKey { nearest: "certificate", .. })));
        assert!(matches!(of("muster = 1"), Err(ConfigError::UnknownKey { nearest: "musterd", .. })));
    }

    #[test]
    fn values_of_the_wrong_kind_are_named() {
        assert!(matches!(of("key = \"/k\""), Err(ConfigError::BadValue { key: "certificate", .. })));
        for listen in ["\"nonsense\"", "443", "[]", "[\"127.0.0.1:70000\"]"] {
            let text = format!("certificate = \"/c\"\nkey = \"/k\"\nlisten = {listen}");
            assert!(matches!(of(&text), Err(ConfigError::BadValue { key: "listen", .. })), "{listen}");
        }
        assert!(matches!(of("certificate = \"c\""), Err(ConfigError::BadValue { key: "certificate", .. })));
    }

    #[test]
    fn one_address_or_several_and_port_443_of_all_by_default() {
        let base = "certificate = \"/c\"\nkey = \"/k\"\n";
        assert_eq!(of(base).unwrap().listen, ["[::]:443".parse().unwrap()]);
        assert_eq!(of(&format!("{base}listen = \"127.0.0.1:1\"")).unwrap().listen.len(), 1);
        let two = of(&format!("{base}listen = [\"127.0.0.1:1\", \"[::1]:1\"]")).unwrap();
        assert_eq!(two.listen.len(), 2);
        assert_eq!(two.musterd, Path::new("/run/muster-gateway/gateway.sock"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        fs::write(&key, "x").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let config = Config { key, ..of("certificate = \"/c\"\nkey = \"/k\"").unwrap() };
        assert!(matches!(config.server_tls(None), Err(ConfigError::ModeTooOpen { mode: 0o640, .. })));
    }
    #[test]
    fn what_systemd_loads_goes_before_the_file_of_another_user() {
        let (dir, loaded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("gateway.crt"), dir.path().join("gateway.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, "another user's").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let own = loaded.path().join("gateway.key");
        fs::write(&own, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o400)).unwrap();
        let config = Config { certificate, key, ..of("certificate = \"/c\"\nkey = \"/k\"").unwrap() };
        assert!(config.server_tls(None).is_err());
        assert!(config.server_tls(Some(loaded.path())).is_ok());
        assert!(config.server_tls(Some(Path::new("/nowhere"))).is_err());
    }
}
