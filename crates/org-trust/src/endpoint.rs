//! Addresses: where a node listens, and where a gateway is dialled.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use identity::{
    Code,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::ADDRESS_BYTES_MAX,
};

/// A family byte, the address, the port. What an endpoint cannot be is left out here and refused by
/// [`read_endpoint`].
pub(crate) fn write_endpoint(out: &mut Writer, endpoint: SocketAddr) {
    match endpoint.ip() {
        IpAddr::V4(ip) => out.u8(V4).bytes(&ip.octets()),
        IpAddr::V6(ip) => out.u8(V6).bytes(&ip.octets()),
    };
    out.u16(endpoint.port());
}

pub(crate) fn read_endpoint(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    let field = "endpoint";
    let ip = match r.u8(field)? {
        V4 => IpAddr::V4(Ipv4Addr::from(r.array::<4>(field)?)),
        V6 => IpAddr::V6(Ipv6Addr::from(r.array::<16>(field)?)),
        got => return Err(DecodeError { field, fault: Fault::Unknown { got: got.into() } }),
    };
    let port = r.u16(field)?;
    // A mapped IPv4 address is a second spelling, a link-local one means nothing without its interface.
    let usable = match ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => {
            let second_spelling = ip.to_ipv4_mapped().is_some();
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || second_spelling)
        }
    };
    if port == 0 || !usable {
        return Err(DecodeError { field, fault: Fault::OutOfRange { got: port.into() } });
    }
    Ok(SocketAddr::new(ip, port))
}

/// The text is neither `HOST:PORT` nor `wss://HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedAddress;

impl MalformedAddress {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::Usage
    }
}

impl fmt::Display for MalformedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an address: give HOST:PORT or [IPV6]:PORT, with wss:// before it for an edge that opens TLS",
        )
    }
}

impl core::error::Error for MalformedAddress {}

/// Splits `HOST:PORT` as it stands in an invite: a DNS name of lower-case labels, an IPv4 address, or
/// an IPv6 address in brackets (returned without them), and a port. `wss://` may stand before it: then
/// TLS to the gateway runs inside a WebSocket, through an edge that opens TLS.
///
/// # Errors
/// [`MalformedAddress`] for anything else; nothing is folded, trimmed or defaulted.
pub fn check_address(text: &str) -> Result<(&str, u16), MalformedAddress> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(MalformedAddress);
    }
    let text = text.strip_prefix("wss://").unwrap_or(text);
    let (host, digits) = text.rsplit_once(':').ok_or(MalformedAddress)?;
    let port = digits.parse::<u16>().ok().filter(|port| *port != 0 && port.to_string() == digits);
    let port = port.ok_or(MalformedAddress)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    let good = match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_dns_name(host),
    };
    if good { Ok((host, port)) } else { Err(MalformedAddress) }
}

fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
        let ends = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !ends && label.bytes().all(allowed)
    };
    // A last label of digits alone makes resolvers read the whole as an IPv4 address.
    let numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|c| c.is_ascii_digit()));
    host.len() <= 253 && !numeric && host.split('.').all(label)
}

const V4: u8 = 4;
const V6: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_spelling() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:1", "10.0.0.1:65535", "127.0.0.1:51820"] {
            let endpoint: SocketAddr = text.parse().unwrap();
            let mut out = Writer::new();
            write_endpoint(&mut out, endpoint);
            let bytes = out.into_bytes();
            let mut r = Reader::new(&bytes);
            assert_eq!(read_endpoint(&mut r), Ok(endpoint));
            r.finish("end").unwrap();
        }
        for text in [
            "0.0.0.0:1",
            "192.0.2.1:0",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:192.0.2.1]:1",
        ] {
            let mut out = Writer::new();
            write_endpoint(&mut out, text.parse().unwrap());
            assert_eq!(read_endpoint(&mut Reader::new(&out.into_bytes())).unwrap_err().field, "endpoint");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(check_address("gw.example:4713"), Ok(("gw.example", 4713)));
        assert_eq!(check_address("192.0.2.1:443"), Ok(("192.0.2.1", 443)));
        assert_eq!(check_address("[2001:db8::1]:443"), Ok(("2001:db8::1", 443)));
        assert_eq!(check_address("localhost:1"), Ok(("localhost", 1)));
        assert_eq!(check_address("wss://gw.example:443"), Ok(("gw.example", 443)));
        assert_eq!(check_address("wss://[2001:db8::1]:443"), Ok(("2001:db8::1", 443)));
        for wrong in [
            "",
            ":1",
            "gw.example",
            "gw.example:",
            "gw.example:0",
            "gw.example:01",
            "gw.example:+1",
            "gw.example:65536",
            "GW.example:1",
            "gw..example:1",
            "-gw.example:1",
            "gw.example.:1",
            "2001:db8::1:443",
            "[192.0.2.1]:443",
            "[gw]:1",
            "192.0.2:1",
            "999.0.2.1:1",
            "gw example:1",
            "http://gw:1",
            "ws://gw:1",
            "Wss://gw:1",
            "wss://wss://gw:1",
            "wss://gw:1/",
            "wss://gw",
        ] {
            assert_eq!(check_address(wrong), Err(MalformedAddress), "{wrong}");
        }
        assert!(check_address(&format!("{}:1", "a.".repeat(130))).is_err());
    }
}
