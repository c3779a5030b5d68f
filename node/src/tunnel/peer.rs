//! One member as the engine knows it: where it lives, its gate, and its tunnel if there is one.

use std::{
    collections::VecDeque,
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError};
use identity::limits::{LINK_QUIET_MS, TUNNEL_QUEUE_PACKETS_MAX};

use super::{filter::Gate, output::Out};

/// `Tunn` alone repeats an initiation every 5 s; the first ones go out at this pace, to the next
/// endpoint each time.
const EAGER_RETRY: Duration = Duration::from_secs(1);
/// How often, at least; every endpoint gets its turn.
const EAGER_RETRIES: usize = 4;
/// Packets that nobody answers for this long: the peer may have started anew and lost the session.
/// `Tunn` alone would wait 15 s.
const UNHEARD: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_millis(LINK_QUIET_MS);
const TYPE_INITIATION: u8 = 1;

/// The 24 bits that name a tunnel in the packets we receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Index(u32);

impl Index {
    pub(super) fn from_draw(random: u32) -> Self {
        Self(random >> 8)
    }

    /// Receiver indices carry the number of the session in their low eight bits.
    pub(super) fn of_receiver(receiver: u32) -> Self {
        Self(receiver >> 8)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// A WireGuard tunnel: kept from the first packet or handshake until its member is removed or it is
/// the idlest of too many. `Tunn`'s "connection expired" is only a pause in it.
pub(super) struct Tunnel {
    pub(super) tunn: Tunn,
    pub(super) index: Index,
    /// When it last carried or wanted to carry a packet.
    pub(super) used: Instant,
    /// Packets that wait for a session, instead of `Tunn`'s own queue of 256.
    queue: VecDeque<Vec<u8>>,
    /// When the last initiation left that nobody has answered.
    initiated: Option<Instant>,
    /// When the first packet left since the peer was last heard.
    unheard: Option<Instant>,
    /// Initiations since the last answer; picks the endpoint.
    attempts: usize,
    /// The session that we answered for and whose initiator has not yet shown its keys.
    unconfirmed: Option<u32>,
}

impl Tunnel {
    pub(super) fn new(tunn: Tunn, index: Index, now: Instant) -> Box<Self> {
        Box::new(Self {
            tunn,
            index,
            used: now,
            queue: VecDeque::new(),
            initiated: None,
            unheard: None,
            attempts: 0,
            unconfirmed: None,
        })
    }

    pub(super) fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// We sent `response`; its sender index names the session.
    pub(super) fn answered(&mut self, response: &[u8], now: Instant) {
        self.unconfirmed = response.get(4..8).and_then(|index| index.try_into().ok()).map(u32::from_le_bytes);
        self.initiated = None;
        self.used = now;
    }

    /// The peer proved to hold the session's keys.
    pub(super) fn heard(&mut self) {
        self.unheard = None;
    }

    /// Whether another initiation is due before `Tunn` thinks so.
    fn presses(&self, retries: usize, now: Instant) -> bool {
        let since = |at: Instant, wait| now.saturating_duration_since(at) >= wait;
        let lost = self.unheard.is_some_and(|at| since(at, UNHEARD));
        match self.initiated {
            Some(at) => since(at, EAGER_RETRY) && self.attempts < retries && (lost || !self.has_session()),
            None => lost,
        }
    }

    /// Whether data under this receiver index is the first of a session that we answered for.
    pub(super) fn confirms(&mut self, receiver: u32) -> bool {
        self.unconfirmed.take_if(|unconfirmed| *unconfirmed == receiver).is_some()
    }
}

pub(super) struct Peer {
    pub(super) address: Ipv6Addr,
    pub(super) gate: Gate,
    /// Where it was last proved to be.
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) tunnel: Option<Box<Tunnel>>,
    pub(super) established: Option<Instant>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    /// Where it said it is.
    reported: Vec<SocketAddr>,
    want_link: Option<Instant>,
    /// When a packet last passed the open gate that needs it to be open, or it was opened.
    linked: Option<Instant>,
}

impl Peer {
    pub(super) fn new(address: Ipv6Addr, reported: Vec<SocketAddr>) -> Self {
        Self {
            address,
            gate: Gate::Closed,
            endpoint: None,
            tunnel: None,
            established: None,
            rx_bytes: 0,
            tx_bytes: 0,
            reported,
            want_link: None,
            linked: None,
        }
    }

    pub(super) fn report_endpoints(&mut self, reported: Vec<SocketAddr>) {
        self.reported = reported;
    }

    pub(super) fn can_be_called(&self) -> bool {
        self.endpoint.is_some() || !self.reported.is_empty()
    }

    pub(super) fn want_link_due(&mut self, now: Instant, interval: Duration) -> bool {
        let due = self.want_link.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            self.want_link = Some(now);
        }
        due
    }

    /// A link was accepted.
    pub(super) fn open(&mut self, now: Instant) {
        self.gate = Gate::Open;
        self.linked = Some(now);
    }

    /// A packet passed that needs an open gate.
    pub(super) fn uses_link(&mut self, now: Instant) {
        self.linked = Some(now);
    }

    pub(super) fn has_quiet_link(&self, now: Instant) -> bool {
        self.gate == Gate::Open && self.linked.is_some_and(|at| now.saturating_duration_since(at) >= QUIET)
    }

    /// A handshake was completed from `endpoint`.
    pub(super) fn established(&mut self, endpoint: SocketAddr, now: Instant) {
        self.endpoint = Some(endpoint);
        self.established = Some(now);
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.initiated = None;
            tunnel.unheard = None;
            tunnel.attempts = 0;
        }
    }

    /// Sends a packet through the session, or keeps it and asks for one.
    pub(super) fn send(&mut self, packet: &[u8], scratch: &mut [u8], now: Instant, out: &mut Out) {
        let Some(tunnel) = &mut self.tunnel else {
            out.drops.no_endpoint += 1;
            return;
        };
        tunnel.used = now;
        if tunnel.has_session() {
            if let TunnResult::WriteToNetwork(datagram) = tunnel.tunn.encapsulate(packet, scratch) {
                self.tx_bytes += packet.len() as u64;
                tunnel.unheard.get_or_insert(now);
                out.datagram(self.endpoint, datagram);
            }
            return;
        }
        if tunnel.queue.len() < TUNNEL_QUEUE_PACKETS_MAX {
            tunnel.queue.push_back(packet.to_vec());
        } else {
            out.drops.queue_full += 1;
        }
        self.initiate(false, scratch, now, out);
    }

    /// Sends what waited for a session.
    pub(super) fn flush(&mut self, scratch: &mut [u8], out: &mut Out) {
        let Some(tunnel) = &mut self.tunnel else { return };
        while !tunnel.queue.is_empty() && tunnel.has_session() {
            let Some(packet) = tunnel.queue.pop_front() else { return };
            if let TunnResult::WriteToNetwork(datagram) = tunnel.tunn.encapsulate(&packet, scratch) {
                self.tx_bytes += packet.len() as u64;
                out.datagram(self.endpoint, datagram);
            }
        }
    }

    /// Lets `Tunn` do what is due: repeat a handshake, renew a session, keep one alive.
    pub(super) fn tick(&mut self, scratch: &mut [u8], now: Instant, out: &mut Out) {
        let eager_retries = EAGER_RETRIES.max(self.reported.len());
        let Some(tunnel) = &mut self.tunnel else { return };
        match tunnel.tunn.update_timers(scratch) {
            TunnResult::WriteToNetwork(datagram) if datagram.first() == Some(&TYPE_INITIATION) => {
                tunnel.initiated = Some(now);
                let to = next_endpoint(self.endpoint, &self.reported, &mut tunnel.attempts);
                out.datagram(to, datagram);
            }
            TunnResult::WriteToNetwork(keepalive) => out.datagram(self.endpoint, keepalive),
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                tunnel.queue.clear();
                tunnel.initiated = None;
                tunnel.unheard = None;
                tunnel.attempts = 0;
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {
                if tunnel.presses(eager_retries, now) {
                    self.initiate(true, scratch, now, out);
                }
            }
        }
    }

    pub(super) fn initiate(&mut self, again: bool, scratch: &mut [u8], now: Instant, out: &mut Out) {
        let Some(tunnel) = &mut self.tunnel else { return };
        if let TunnResult::WriteToNetwork(datagram) = tunnel.tunn.format_handshake_initiation(scratch, again)
        {
            tunnel.initiated = Some(now);
            let to = next_endpoint(self.endpoint, &self.reported, &mut tunnel.attempts);
            out.datagram(to, datagram);
        }
    }
}

/// Where the next initiation goes: first where the peer was heard, then through what it reported.
fn next_endpoint(
    heard: Option<SocketAddr>,
    reported: &[SocketAddr],
    attempts: &mut usize,
) -> Option<SocketAddr> {
    let candidates =
        || heard.into_iter().chain(reported.iter().copied().filter(|endpoint| heard != Some(*endpoint)));
    let turn = attempts.checked_rem(candidates().count())?;
    *attempts = attempts.wrapping_add(1);
    candidates().nth(turn)
}
