//! What an engine asks its caller to do, and what it counted.

use std::{
    collections::VecDeque,
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use identity::WireGuardKey;

use super::{filter::Gate, peer::Peer};

/// What whoever runs the tunnels learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEvent {
    /// Something here wants to talk to a member whose gate is closed.
    WantLink(WireGuardKey),
    /// Nothing has passed the member's open gate for LINK_QUIET_MS.
    QuietLink(WireGuardKey),
    /// A WireGuard session with the member was made or renewed.
    Handshake {
        /// The member.
        wireguard: WireGuardKey,
        /// Where it was heard.
        endpoint: SocketAddr,
    },
}

/// What the caller of an engine must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a UDP datagram.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// Give a packet to the network stack.
    Packet(Vec<u8>),
    /// Tell whoever asked.
    Event(TunnelEvent),
}

/// Packets that went nowhere, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Datagrams that are not WireGuard, or come from inside the overlay.
    pub malformed: u64,
    /// Initiations of a key that is no peer.
    pub unknown_key: u64,
    /// Datagrams for a tunnel that is not there.
    pub unknown_index: u64,
    /// Handshake messages that did not verify, or replays.
    pub handshake: u64,
    /// Handshake messages answered with a cookie.
    pub rate_limited: u64,
    /// Data that did not decrypt, or replays.
    pub undecryptable: u64,
    /// Inner packets from an address other than the peer's, or to one other than ours.
    pub foreign_address: u64,
    /// Inner packets received that are not plain IPv6 with TCP, UDP or ICMPv6.
    pub unreadable_in: u64,
    /// The same, sent from here.
    pub unreadable_out: u64,
    /// Received before a link session.
    pub gate_in: u64,
    /// Sent before a link session, and not kept until there was one.
    pub gate_out: u64,
    /// Received for a port that is not open.
    pub filter_in: u64,
    /// Sent, of a kind that is not open.
    pub filter_out: u64,
    /// Sent, one flow too many.
    pub flows_full: u64,
    /// Sent to an address of the overlay that no member has.
    pub no_such_member: u64,
    /// Sent to a member that nobody knows a place of.
    pub no_endpoint: u64,
    /// Sent while a tunnel was being made, more than are kept.
    pub queue_full: u64,
}

/// One peer, as it may be shown to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// Its key.
    pub wireguard: WireGuardKey,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Where it was last proved to be.
    pub endpoint: Option<SocketAddr>,
    /// Whether a link session opened its gate.
    pub gate_open: bool,
    /// Whether a WireGuard session exists.
    pub session: bool,
    /// Age of the last handshake.
    pub last_handshake: Option<Duration>,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
}

impl PeerStats {
    pub(super) fn of(wireguard: WireGuardKey, peer: &Peer, now: Instant) -> Self {
        Self {
            wireguard,
            address: peer.address,
            endpoint: peer.endpoint,
            gate_open: peer.gate == Gate::Open,
            session: peer.tunnel.as_ref().is_some_and(|tunnel| tunnel.has_session()),
            last_handshake: peer.established.map(|at| now.saturating_duration_since(at)),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        }
    }
}

/// Everything, as it may be shown to a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The peers, by address.
    pub peers: Vec<PeerStats>,
    /// Tunnels held.
    pub tunnels: usize,
    /// Flows held.
    pub flows: usize,
    /// Packets that went nowhere.
    pub drops: Drops,
}

/// Where the engine and its peers put what is to be done.
#[derive(Default)]
pub(super) struct Out {
    pub(super) queue: VecDeque<Output>,
    pub(super) drops: Drops,
}

impl Out {
    pub(super) fn datagram(&mut self, to: Option<SocketAddr>, bytes: &[u8]) {
        match to {
            Some(to) => self.queue.push_back(Output::Datagram { to, bytes: bytes.to_vec() }),
            None => self.drops.no_endpoint += 1,
        }
    }

    pub(super) fn event(&mut self, event: TunnelEvent) {
        self.queue.push_back(Output::Event(event));
    }
}
