//! `HOST:PORT` and `wss://HOST:PORT`, as invites and configurations write them.

use core::fmt;

use identity::limits::ADDRESS_BYTES_MAX;

/// A host name or IP address with a port, and the way there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
    through_edge: bool,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// The host is empty or holds a character that no host has: a scheme, path, user or zone.
    Host,
    /// Longer than [`ADDRESS_BYTES_MAX`].
    Length,
    /// The port is missing, zero, or no number.
    Port,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "HOST:PORT or wss://HOST:PORT wanted, and the host is no name or address",
            Self::Length => "HOST:PORT or wss://HOST:PORT wanted, and this is too long",
            Self::Port => {
                "HOST:PORT or wss://HOST:PORT wanted, and the port is missing or no number from 1 to 65535"
            }
        })
    }
}

impl core::error::Error for AddressError {}

impl Address {
    /// Reads `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`, each also behind `wss://`; nothing is
    /// assumed.
    ///
    /// # Errors
    /// [`AddressError`] naming the part at fault.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::Length);
        }
        let (through_edge, text) = match text.strip_prefix(THROUGH_EDGE) {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Port)?;
        let digits = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| digits).ok_or(AddressError::Port)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?.to_string(),
            None if host.contains(':') => return Err(AddressError::Host),
            None => host.to_owned(),
        };
        if rustls_pki_types::ServerName::try_from(host.as_str()).is_err() {
            return Err(AddressError::Host);
        }
        Ok(Self { host, port, through_edge })
    }

    /// The host, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether an edge stands there that opens TLS, so that TLS to the gateway runs inside a WebSocket.
    #[must_use]
    pub const fn through_edge(&self) -> bool {
        self.through_edge
    }

    /// Host and port alone, as the header Host has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, through_edge: _ } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.through_edge { THROUGH_EDGE } else { "" };
        write!(f, "{way}{}", self.authority())
    }
}

const THROUGH_EDGE: &str = "wss://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back() {
        for text in ["gw.example:443", "192.0.2.1:8443", "[2001:db8::1]:443", "gw:1"] {
            let bare = Address::parse(text).unwrap();
            assert_eq!((bare.to_string().as_str(), bare.through_edge()), (text, false));
            let edge = Address::parse(&format!("wss://{text}")).unwrap();
            assert_eq!((edge.to_string(), edge.authority()), (format!("wss://{text}"), text.to_owned()));
            assert!(edge.through_edge() && edge != bare);
        }
        assert_eq!(Address::parse("[2001:db8::1]:443").unwrap().host(), "2001:db8::1");
    }

    #[test]
    fn what_is_more_than_a_host_and_a_port_is_refused() {
        for (text, why) in [
            ("gw.example", AddressError::Port),
            ("gw.example:", AddressError::Port),
            ("gw.example:0", AddressError::Port),
            ("gw.example:65536", AddressError::Port),
            ("gw.example:+1", AddressError::Port),
            (":443", AddressError::Host),
            ("https://gw.example:443", AddressError::Host),
            ("ws://gw.example:443", AddressError::Host),
            ("WSS://gw.example:443", AddressError::Host),
            ("wss://wss://gw.example:443", AddressError::Host),
            ("wss://gw.example", AddressError::Port),
            ("wss://gw.example:443/v1/tls", AddressError::Port),
            ("wss://user@gw.example:443", AddressError::Host),
            ("user@gw.example:443", AddressError::Host),
            ("gw.example/:443", AddressError::Host),
            ("2001:db8::1:443", AddressError::Host),
            ("[fe80::1%eth0]:443", AddressError::Host),
            ("gw example:443", AddressError::Host),
        ] {
            assert_eq!(Address::parse(text), Err(why), "{text}");
        }
        assert_eq!(Address::parse(&format!("{}:1", "a".repeat(300))), Err(AddressError::Length));
    }
}
