//! The header of the PROXY protocol, version 2, as musterd writes it: the addresses, and who the peer is in
//! fields of the range that the protocol leaves to applications.

use core::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who is at the other end, as musterd proved it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The member's name.
    pub name: String,
    /// Its node key, 64 hexadecimal digits. Names may pass to other machines; keys never do.
    pub key: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// The service it asked for.
    pub action: String,
    /// The session's name in musterd's log.
    pub reference: String,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The peer's overlay address.
    pub source: SocketAddr,
    /// This machine's.
    pub destination: SocketAddr,
    /// Who it is; none in a header that was not written by musterd.
    pub peer: Option<Peer>,
}

/// The bytes are no header of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// A field ends behind the header, or is no text.
    Field,
    /// Another family than TCP over IPv4 or IPv6.
    Family,
    /// Not this protocol, or not this version, or too long.
    NotOne,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Field => "a field of the PROXY header is broken",
            Self::Family => "the PROXY header is not of a TCP connection",
            Self::NotOne => "no PROXY header, version 2",
        })
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// The bytes in front of the stream.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let family = match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
                rest.extend(from.octets());
                rest.extend(to.octets());
                TCP4
            }
            (from, to) => {
                rest.extend(six(from).octets());
                rest.extend(six(to).octets());
                TCP6
            }
        };
        rest.extend(self.source.port().to_be_bytes());
        rest.extend(self.destination.port().to_be_bytes());
        if let Some(peer) = &self.peer {
            let (roles, labels) = (peer.roles.join(","), peer.labels.join(","));
            let fields = [&peer.name, &peer.key, &roles, &labels, &peer.action, &peer.reference];
            for (kind, text) in FIELDS.into_iter().zip(fields) {
                // Every text is far shorter, by the bounds on names.
                let text = text.as_bytes().get(..TEXT_BYTES_MAX).unwrap_or(text.as_bytes());
                rest.push(kind);
                rest.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
                rest.extend(text);
            }
        }
        let length = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&SIGNATURE[..], &[VERSION_2_PROXY, family], &length, &rest].concat()
    }

    /// Reads exactly one header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (head, body) = bytes.split_at_checked(FIXED_BYTES).ok_or(HeaderError::NotOne)?;
        if rest(head) != Some(body.len()) || head.get(12) != Some(&VERSION_2_PROXY) {
            return Err(HeaderError::NotOne);
        }
        let mut input = Input(body);
        let (source, destination) = match head.get(13) {
            Some(&TCP4) => {
                let (from, to) = (input.array::<4>()?, input.array::<4>()?);
                (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into())
            }
            Some(&TCP6) => {
                let (from, to) = (input.array::<16>()?, input.array::<16>()?);
                (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into())
            }
            Some(_) | None => return Err(HeaderError::Family),
        };
        let source = SocketAddr::new(source, u16::from_be_bytes(input.array()?));
        let destination = SocketAddr::new(destination, u16::from_be_bytes(input.array()?));
        let (mut peer, mut is_ours) = (Peer::default(), false);
        while !input.0.is_empty() {
            let [kind] = input.array()?;
            let length = usize::from(u16::from_be_bytes(input.array()?));
            let text = str::from_utf8(input.take(length)?).ok().filter(|_| FIELDS.contains(&kind));
            // Others put fields of theirs here.
            let Some(text) = text else { continue };
            let list = || text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            is_ours |= kind == KEY;
            match kind {
                NAME => text.clone_into(&mut peer.name),
                KEY => text.clone_into(&mut peer.key),
                ROLES => peer.roles = list(),
                LABELS => peer.labels = list(),
                ACTION => text.clone_into(&mut peer.action),
                REFERENCE => text.clone_into(&mut peer.reference),
                _ => {}
            }
        }
        Ok(Self { source, destination, peer: is_ours.then_some(peer) })
    }
}

/// How many bytes follow the first [`FIXED_BYTES`]; none if these begin no header.
pub(crate) fn rest(head: &[u8]) -> Option<usize> {
    let length = head.strip_prefix(&SIGNATURE)?.get(2..4)?;
    Some(usize::from(u16::from_be_bytes(length.try_into().ok()?)))
}

const fn six(address: std::net::IpAddr) -> Ipv6Addr {
    match address {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HeaderError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(HeaderError::Field)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        self.take(N)?.try_into().map_err(|_| HeaderError::Field)
    }
}

/// Signature, version and command, family, length.
pub(crate) const FIXED_BYTES: usize = 16;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TEXT_BYTES_MAX: usize = 300;
/// From the range for applications, 0xE0 to 0xEF.
const NAME: u8 = 0xe0;
const KEY: u8 = 0xe1;
const ROLES: u8 = 0xe2;
const LABELS: u8 = 0xe3;
const ACTION: u8 = 0xe4;
const REFERENCE: u8 = 0xe5;
const FIELDS: [u8; 6] = [NAME, KEY, ROLES, LABELS, ACTION, REFERENCE];

#[cfg(test)]
mod tests {
    use identity::limits::{LABELS_MAX, PROXY_HEADER_BYTES_MAX, ROLES_MAX};

    use super::*;

    fn header() -> Header {
        Header {
            source: "[fd00::1]:40000".parse().unwrap(),
            destination: "[fd00::2]:4714".parse().unwrap(),
            peer: Some(Peer {
                name: "web-1".to_owned(),
                key: "ab".repeat(32),
                roles: vec!["db-client".to_owned(), "web".to_owned()],
                labels: Vec::new(),
                action: "postgres".to_owned(),
                reference: "00".repeat(8),
            }),
        }
    }

    #[test]
    fn a_header_reads_back_and_begins_as_the_protocol_says() {
        let bytes = header().encode();
        assert_eq!(&bytes[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x21");
        assert_eq!(Header::decode(&bytes), Ok(header()));
        // By hand: addresses, ports, and the first field.
        assert_eq!(&bytes[48..52], &[0x9c, 0x40, 0x12, 0x6a]);
        assert_eq!(&bytes[52..60], b"\xe0\x00\x05web-1");
    }

    #[test]
    fn another_programs_header_names_nobody() {
        let mut foreign = Header { peer: None, ..header() };
        foreign.source = "10.0.0.1:1".parse().unwrap();
        foreign.destination = "10.0.0.2:2".parse().unwrap();
        let mut bytes = foreign.encode();
        assert_eq!((bytes.len(), bytes[13]), (28, TCP4));
        // A checksum, as HAProxy sends it.
        bytes.extend([0x03, 0, 4, 1, 2, 3, 4]);
        bytes[15] += 7;
        assert_eq!(Header::decode(&bytes), Ok(foreign));
    }

    #[test]
    fn what_is_cut_short_or_is_no_header_is_refused() {
        let bytes = header().encode();
        for length in 0..bytes.len() {
            assert!(Header::decode(&bytes[..length]).is_err(), "{length}");
            let mut short = bytes[..length].to_vec();
            if length >= FIXED_BYTES {
                short[14..16].copy_from_slice(&u16::try_from(length - FIXED_BYTES).unwrap().to_be_bytes());
                let cut_between_fields = Header::decode(&short).is_ok();
                assert!(!cut_between_fields || length >= 52, "{length}");
            }
        }
        assert_eq!(Header::decode(b"GET / HTTP/1.1\r\n"), Err(HeaderError::NotOne));
    }

    #[test]
    fn the_longest_header_is_within_its_bound() {
        let most = "x".repeat(32);
        let peer = Peer {
            name: "n".repeat(63 + 17),
            key: "ab".repeat(32),
            roles: vec![most.clone(); ROLES_MAX],
            labels: vec![most.clone(); LABELS_MAX],
            action: most,
            reference: "00".repeat(8),
        };
        let longest = Header { peer: Some(peer), ..header() };
        let bytes = longest.encode();
        assert!(bytes.len() <= PROXY_HEADER_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Header::decode(&bytes), Ok(longest));
    }
}
