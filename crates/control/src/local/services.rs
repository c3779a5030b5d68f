//! Programs that know nothing of muster.

use core::{fmt, str::FromStr};
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use identity::{PublicKey, Tag};
use serde::{Deserialize, Serialize};

use super::MemberStatus;
use crate::text::{ReadText, Text};

/// A session with a member's service is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connected {
    /// The member's name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// The member's name for the handshake.
    pub reference: String,
}

/// A program that this machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The name under which members ask for it.
    pub action: String,
    /// Where the program is.
    pub to: Text<LocalAddress>,
    /// Whether it is told who the peer is.
    pub proxy_protocol: bool,
    /// Whether the settings say so, and not a command.
    pub declared: bool,
    /// Its sessions at the moment.
    pub sessions: u64,
}

/// Who is behind an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whois {
    /// The member's name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Whether it is a member.
    pub status: MemberStatus,
    /// Its roles.
    pub roles: Vec<Text<Tag>>,
    /// Its labels.
    pub labels: Vec<Text<Tag>>,
    /// The service, if a connection was asked about.
    pub action: Option<String>,
    /// The session's name in both logs, if a connection was asked about.
    pub reference: Option<String>,
}

/// A place on this machine where a program listens: a port of its loopback, or a socket in its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// A port of the loopback.
    Tcp(SocketAddr),
    /// A socket, by its absolute path.
    Unix(PathBuf),
}

/// A text is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddressError;

impl FromStr for LocalAddress {
    type Err = LocalAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            // What the kernel takes, its last zero left out.
            let fits = path.as_os_str().len() < UNIX_PATH_BYTES_MAX;
            return if path.is_absolute() && fits { Ok(Self::Unix(path)) } else { Err(LocalAddressError) };
        }
        let address: SocketAddr = text.parse().map_err(|_| LocalAddressError)?;
        if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(LocalAddressError) }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for LocalAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LocalAddress::EXPECTED)
    }
}

impl core::error::Error for LocalAddressError {}

impl ReadText for LocalAddress {
    const EXPECTED: &'static str =
        "a port of the loopback, such as 127.0.0.1:22, or unix: and the absolute path of a socket";

    fn read_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

const UNIX_PATH_BYTES_MAX: usize = 108;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_address_is_on_the_loopback_or_a_socket_and_nothing_else() {
        for text in ["127.0.0.1:22", "127.0.0.53:53", "[::1]:5432", "unix:/run/postgresql/.s.PGSQL.5432"] {
            assert_eq!(text.parse::<LocalAddress>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        for text in ["10.0.0.1:22", "0.0.0.0:22", "localhost:22", "127.0.0.1", "unix:run/x", "/run/x", &long]
        {
            assert_eq!(text.parse::<LocalAddress>(), Err(LocalAddressError), "{text}");
        }
    }
}
