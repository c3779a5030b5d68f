//! The bytes of a datagram of SWIM.
//!
//! ```text
//! kind u8, number u8, incarnation u16, by 32, to 32, [about 32,] news u16, news x (node 32, incarnation u16, state u8)
//! ```
//!
//! Little-endian but for the number of news, which foca writes. Everything else is malformed.

use std::fmt;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Incarnation, Member, Message, State};
use identity::limits::SWIM_DATAGRAM_BYTES_MAX;

/// A member, by the node key that it was admitted with; the bytes alone, since only those are looked at
/// that are known anyway. What it said before a restart does not matter: a session that ended takes
/// everything with it that was known under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) [u8; KEY_BYTES]);

impl Identity for Node {
    type Addr = [u8; KEY_BYTES];

    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> [u8; KEY_BYTES] {
        self.0
    }

    fn win_addr_conflict(&self, _adversary: &Self) -> bool {
        // Two that have one address are equal, so nobody asks.
        true
    }
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) header: Header<Node>,
    pub(super) news: Vec<Member<Node>>,
}

/// The bytes are no datagram, or one that nobody sends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a datagram of SWIM")
    }
}

impl std::error::Error for Malformed {}

impl Datagram {
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > SWIM_DATAGRAM_BYTES_MAX {
            return Err(Malformed);
        }
        let header = read_header(&mut bytes)?;
        let count = bytes.try_get_u16().map_err(|_| Malformed)?;
        let mut news = Vec::new();
        for _ in 0..count {
            // Ends with the bytes, however many were announced.
            news.push(read_member(&mut bytes)?);
        }
        if bytes.is_empty() { Ok(Self { header, news }) } else { Err(Malformed) }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::with_capacity(SWIM_DATAGRAM_BYTES_MAX);
        write_header(&self.header, &mut bytes)?;
        bytes.put_u16(u16::try_from(self.news.len()).map_err(|_| Malformed)?);
        for member in &self.news {
            write_member(member, &mut bytes);
        }
        Ok(bytes)
    }
}

/// The same for foca.
pub(super) struct Wire;

impl Codec<Node> for Wire {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Node>, buf: impl BufMut) -> Result<(), Malformed> {
        write_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Node>, Malformed> {
        read_header(buf)
    }

    fn encode_member(&mut self, member: &Member<Node>, buf: impl BufMut) -> Result<(), Malformed> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(Malformed);
        }
        write_member(member, buf);
        Ok(())
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Node>, Malformed> {
        read_member(buf)
    }
}

const KEY_BYTES: usize = 32;
const MEMBER_BYTES: usize = KEY_BYTES + 3;

const PING: u8 = 1;
const ACK: u8 = 2;
const PING_REQ: u8 = 3;
const INDIRECT_PING: u8 = 4;
const INDIRECT_ACK: u8 = 5;
const FORWARDED_ACK: u8 = 6;
const GOSSIP: u8 = 7;

fn write_header(header: &Header<Node>, mut buf: impl BufMut) -> Result<(), Malformed> {
    let (kind, number, about) = match &header.message {
        Message::Ping(number) => (PING, *number, None),
        Message::Ack(number) => (ACK, *number, None),
        Message::PingReq { target, probe_number } => (PING_REQ, *probe_number, Some(target)),
        Message::IndirectPing { origin, probe_number } => (INDIRECT_PING, *probe_number, Some(origin)),
        Message::IndirectAck { target, probe_number } => (INDIRECT_ACK, *probe_number, Some(target)),
        Message::ForwardedAck { origin, probe_number } => (FORWARDED_ACK, *probe_number, Some(origin)),
        Message::Gossip => (GOSSIP, 0, None),
        // Who is a member is not asked of anybody, and nobody is told that he is dead.
        Message::Announce | Message::Feed | Message::Broadcast | Message::TurnUndead => {
            return Err(Malformed);
        }
    };
    buf.put_u8(kind);
    buf.put_u8(number);
    buf.put_u16_le(header.src_incarnation);
    for node in [&header.src, &header.dst].into_iter().chain(about) {
        buf.put_slice(&node.0);
    }
    Ok(())
}

fn read_header(mut buf: impl Buf) -> Result<Header<Node>, Malformed> {
    let kind = buf.try_get_u8().map_err(|_| Malformed)?;
    let probe_number = buf.try_get_u8().map_err(|_| Malformed)?;
    let src_incarnation = read_incarnation(&mut buf)?;
    let (src, dst) = (read_node(&mut buf)?, read_node(&mut buf)?);
    let message = match kind {
        PING => Message::Ping(probe_number),
        ACK => Message::Ack(probe_number),
        PING_REQ => Message::PingReq { target: read_node(&mut buf)?, probe_number },
        INDIRECT_PING => Message::IndirectPing { origin: read_node(&mut buf)?, probe_number },
        INDIRECT_ACK => Message::IndirectAck { target: read_node(&mut buf)?, probe_number },
        FORWARDED_ACK => Message::ForwardedAck { origin: read_node(&mut buf)?, probe_number },
        GOSSIP if probe_number == 0 => Message::Gossip,
        _ => return Err(Malformed),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

fn write_member(member: &Member<Node>, mut buf: impl BufMut) {
    buf.put_slice(&member.id().0);
    buf.put_u16_le(member.incarnation());
    buf.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

fn read_member(mut buf: impl Buf) -> Result<Member<Node>, Malformed> {
    let node = read_node(&mut buf)?;
    let incarnation = read_incarnation(&mut buf)?;
    let state = match buf.try_get_u8() {
        Ok(0) => State::Alive,
        Ok(1) => State::Suspect,
        Ok(2) => State::Down,
        _ => return Err(Malformed),
    };
    Ok(Member::new(node, incarnation, state))
}

fn read_incarnation(buf: &mut impl Buf) -> Result<Incarnation, Malformed> {
    buf.try_get_u16_le().map_err(|_| Malformed)
}

fn read_node(buf: &mut impl Buf) -> Result<Node, Malformed> {
    let mut bytes = [0; KEY_BYTES];
    buf.try_copy_to_slice(&mut bytes).map_err(|_| Malformed)?;
    Ok(Node(bytes))
}
