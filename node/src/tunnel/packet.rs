//! What the gate and the filter may know of an inner packet: addresses, ports, and whether it opens.
//!
//! Anything that would make two readers disagree about a packet is refused here: extension headers,
//! fragments, lengths that do not add up, and every protocol besides TCP, UDP and ICMPv6.

use std::net::Ipv6Addr;

use super::flow::{Flow, Protocol};

const HEADER_BYTES: usize = 40;
const TCP_BYTES_MIN: usize = 20;
const UDP_BYTES_MIN: usize = 8;
const ICMP_BYTES_MIN: usize = 8;

const NEXT_TCP: u8 = 6;
const NEXT_UDP: u8 = 17;
const NEXT_ICMP: u8 = 58;
const NEXT_FRAGMENT: u8 = 44;
/// Hop-by-hop, routing, ESP, AH, no-next-header, destination options, mobility, HIP, shim6.
const NEXT_EXTENSIONS: [u8; 9] = [0, 43, 50, 51, 59, 60, 135, 139, 140];

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

const ICMP_ERRORS: std::ops::RangeInclusive<u8> = 1..=4;
const ICMP_ECHO_REQUEST: u8 = 128;
const ICMP_ECHO_REPLY: u8 = 129;

/// An inner packet that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its source address.
    pub source: Ipv6Addr,
    /// Its destination address.
    pub destination: Ipv6Addr,
    /// What it carries.
    pub payload: Payload,
}

/// The part of a payload that decides whether the packet may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// SYN without ACK: asks for a new connection.
        opens: bool,
        /// FIN or RST.
        closes: bool,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// An ICMPv6 echo request with its identifier.
    EchoRequest(u16),
    /// An ICMPv6 echo reply with its identifier.
    EchoReply(u16),
    /// An ICMPv6 error (types 1 to 4) about a packet of this flow, as its sender saw it.
    Error {
        /// Source of the packet that is complained about.
        source: Ipv6Addr,
        /// Its flow, seen from that source.
        flow: Flow,
    },
    /// Any other ICMPv6.
    OtherIcmp,
}

/// Why bytes are not a packet that may be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than the headers it begins.
    Truncated,
    /// Not IPv6.
    NotIpv6,
    /// The length field and the length differ.
    Length,
    /// Carries an extension header.
    Extension,
    /// A fragment.
    Fragment,
    /// Neither TCP, UDP nor ICMPv6.
    Protocol,
}

impl Packet {
    /// Reads the headers of one inner packet.
    ///
    /// # Errors
    /// [`Malformed`]: the packet is dropped, whoever sent it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let version = bytes.first().ok_or(Malformed::Truncated)? >> 4;
        if version != 6 {
            return Err(Malformed::NotIpv6);
        }
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed::Truncated)?;
        let [_, _, _, _, length_high, length_low, next, _, addresses @ ..] = *header;
        if usize::from(u16::from_be_bytes([length_high, length_low])) != body.len() {
            return Err(Malformed::Length);
        }
        let (source, destination) = read_addresses(&addresses).ok_or(Malformed::Truncated)?;
        let payload = match next {
            NEXT_TCP => parse_tcp(body)?,
            NEXT_UDP => parse_udp(body)?,
            NEXT_ICMP => parse_icmp(body)?,
            NEXT_FRAGMENT => return Err(Malformed::Fragment),
            next if NEXT_EXTENSIONS.contains(&next) => return Err(Malformed::Extension),
            _ => return Err(Malformed::Protocol),
        };
        Ok(Self { source, destination, payload })
    }

    /// The flow of a packet that we send.
    #[must_use]
    pub fn flow_out(&self) -> Option<Flow> {
        self.payload.flow(self.destination)
    }

    /// The flow of a packet that we receive, named as our own packets of it would be.
    #[must_use]
    pub fn flow_in(&self) -> Option<Flow> {
        self.payload.flow(self.source).map(Flow::reversed)
    }
}

impl Payload {
    fn flow(&self, peer: Ipv6Addr) -> Option<Flow> {
        let (protocol, ours, theirs) = match *self {
            Self::Tcp { source, destination, .. } => (Protocol::Tcp, source, destination),
            Self::Udp { source, destination } => (Protocol::Udp, source, destination),
            Self::EchoRequest(id) | Self::EchoReply(id) => (Protocol::Echo, id, id),
            Self::Error { .. } | Self::OtherIcmp => return None,
        };
        Some(Flow { protocol, peer, ours, theirs })
    }
}

fn parse_tcp(body: &[u8]) -> Result<Payload, Malformed> {
    let header = body.first_chunk::<TCP_BYTES_MIN>().ok_or(Malformed::Truncated)?;
    let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, offset, flags, ..] = *header;
    let header_bytes = usize::from(offset >> 4) * 4;
    if header_bytes < TCP_BYTES_MIN || header_bytes > body.len() {
        return Err(Malformed::Length);
    }
    Ok(Payload::Tcp {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        opens: flags & TCP_SYN != 0 && flags & TCP_ACK == 0,
        closes: flags & (TCP_FIN | TCP_RST) != 0,
    })
}

fn parse_udp(body: &[u8]) -> Result<Payload, Malformed> {
    let [s0, s1, d0, d1, l0, l1, ..] = *body.first_chunk::<UDP_BYTES_MIN>().ok_or(Malformed::Truncated)?;
    if usize::from(u16::from_be_bytes([l0, l1])) != body.len() {
        return Err(Malformed::Length);
    }
    Ok(Payload::Udp { source: u16::from_be_bytes([s0, s1]), destination: u16::from_be_bytes([d0, d1]) })
}

fn parse_icmp(body: &[u8]) -> Result<Payload, Malformed> {
    let (header, quoted) = body.split_first_chunk::<ICMP_BYTES_MIN>().ok_or(Malformed::Truncated)?;
    let [kind, _, _, _, id_high, id_low, ..] = *header;
    let id = u16::from_be_bytes([id_high, id_low]);
    Ok(match kind {
        ICMP_ECHO_REQUEST => Payload::EchoRequest(id),
        ICMP_ECHO_REPLY => Payload::EchoReply(id),
        kind if ICMP_ERRORS.contains(&kind) => parse_quoted(quoted).unwrap_or(Payload::OtherIcmp),
        _ => Payload::OtherIcmp,
    })
}

/// The packet inside an ICMPv6 error is cut off, so only its addresses and ports are read.
fn parse_quoted(bytes: &[u8]) -> Option<Payload> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [first, _, _, _, _, _, next, _, addresses @ ..] = *header;
    if first >> 4 != 6 {
        return None;
    }
    let (source, destination) = read_addresses(&addresses)?;
    let [a, b, c, d, e, f, ..] = *body.first_chunk::<8>()?;
    let (protocol, ours, theirs) = match next {
        NEXT_TCP => (Protocol::Tcp, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        NEXT_UDP => (Protocol::Udp, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        NEXT_ICMP if a == ICMP_ECHO_REQUEST => {
            let id = u16::from_be_bytes([e, f]);
            (Protocol::Echo, id, id)
        }
        _ => return None,
    };
    Some(Payload::Error { source, flow: Flow { protocol, peer: destination, ours, theirs } })
}

fn read_addresses(bytes: &[u8; 32]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let (source, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*source), Ipv6Addr::from(*rest.first_chunk::<16>()?)))
}

#[cfg(test)]
pub(super) mod build {
    //! Inner packets for tests.

    use super::*;

    pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(body);
        packet
    }

    pub(crate) fn tcp_body(source: u16, destination: u16, flags: u8) -> Vec<u8> {
        let mut body = vec![0; TCP_BYTES_MIN];
        body[..2].copy_from_slice(&source.to_be_bytes());
        body[2..4].copy_from_slice(&destination.to_be_bytes());
        body[12] = 5 << 4;
        body[13] = flags;
        body
    }

    pub(crate) fn tcp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags: u8) -> Vec<u8> {
        ipv6(from.0, to.0, NEXT_TCP, &tcp_body(from.1, to.1, flags))
    }

    pub(crate) fn syn(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Vec<u8> {
        tcp(from, to, TCP_SYN)
    }

    pub(crate) fn syn_ack(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Vec<u8> {
        tcp(from, to, TCP_SYN | TCP_ACK)
    }

    pub(crate) fn ack(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Vec<u8> {
        tcp(from, to, TCP_ACK)
    }

    pub(crate) fn udp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Vec<u8> {
        let mut body = Vec::new();
        for field in [from.1, to.1, 8, 0] {
            body.extend(field.to_be_bytes());
        }
        ipv6(from.0, to.0, NEXT_UDP, &body)
    }

    pub(crate) fn echo(source: Ipv6Addr, destination: Ipv6Addr, reply: bool, id: u16) -> Vec<u8> {
        let kind = if reply { ICMP_ECHO_REPLY } else { ICMP_ECHO_REQUEST };
        let [high, low] = id.to_be_bytes();
        ipv6(source, destination, NEXT_ICMP, &[kind, 0, 0, 0, high, low, 0, 1])
    }

    pub(crate) fn unreachable(source: Ipv6Addr, destination: Ipv6Addr, about: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 4, 0, 0, 0, 0, 0, 0];
        body.extend(about);
        ipv6(source, destination, NEXT_ICMP, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    #[test]
    fn a_tcp_segment_names_its_flow_from_either_end() {
        let packet = Packet::parse(&build::syn((A, 40_000), (B, 4714))).unwrap();
        assert_eq!(
            packet.payload,
            Payload::Tcp { source: 40_000, destination: 4714, opens: true, closes: false }
        );
        let back = Packet::parse(&build::syn_ack((B, 4714), (A, 40_000))).unwrap();
        assert_eq!(packet.flow_out(), back.flow_in());
    }

    #[test]
    fn every_truncation_is_refused() {
        for whole in [build::syn((A, 1), (B, 2)), build::udp((A, 1), (B, 2)), build::echo(A, B, false, 7)] {
            for cut in 0..whole.len() {
                assert!(Packet::parse(&whole[..cut]).is_err(), "{cut} of {}", whole.len());
                let mut relabelled = whole[..cut].to_vec();
                if cut >= HEADER_BYTES {
                    relabelled[4..6]
                        .copy_from_slice(&u16::try_from(cut - HEADER_BYTES).unwrap().to_be_bytes());
                    assert!(
                        Packet::parse(&relabelled).is_err(),
                        "{cut} of {} with its length set",
                        whole.len()
                    );
                }
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut packet = build::syn((A, 1), (B, 2));
        packet.push(0);
        assert_eq!(Packet::parse(&packet), Err(Malformed::Length));
    }

    #[test]
    fn ipv4_is_refused() {
        let mut packet = vec![0x45; 40];
        packet[9] = 6;
        assert_eq!(Packet::parse(&packet), Err(Malformed::NotIpv6));
    }

    #[test]
    fn extension_headers_fragments_and_other_protocols_are_refused() {
        let body = build::tcp_body(1, 4714, TCP_SYN);
        for next in NEXT_EXTENSIONS {
            assert_eq!(Packet::parse(&build::ipv6(A, B, next, &body)), Err(Malformed::Extension));
        }
        assert_eq!(Packet::parse(&build::ipv6(A, B, NEXT_FRAGMENT, &body)), Err(Malformed::Fragment));
        assert_eq!(Packet::parse(&build::ipv6(A, B, 132, &body)), Err(Malformed::Protocol));
        assert_eq!(Packet::parse(&build::ipv6(A, B, 4, &body)), Err(Malformed::Protocol));
    }

    #[test]
    fn a_tcp_header_length_outside_the_segment_is_refused() {
        for words in [0_u8, 4, 6, 15] {
            let mut packet = build::syn((A, 1), (B, 2));
            packet[HEADER_BYTES + 12] = words << 4;
            assert_eq!(Packet::parse(&packet), Err(Malformed::Length));
        }
    }

    #[test]
    fn an_icmp_error_names_the_flow_it_is_about() {
        let ours = Packet::parse(&build::udp((A, 53), (B, 9))).unwrap();
        let error = Packet::parse(&build::unreachable(B, A, &build::udp((A, 53), (B, 9)))).unwrap();
        assert_eq!(error.payload, Payload::Error { source: A, flow: ours.flow_out().unwrap() });
        let cut = Packet::parse(&build::unreachable(B, A, &build::udp((A, 53), (B, 9))[..44])).unwrap();
        assert_eq!(cut.payload, Payload::OtherIcmp);
    }
}
