//! What may pass between us and one member: before a link session, only conn_auth; after it, what the
//! configuration opens and the answers to what we asked.
//!
//! Pure: a parsed packet in, a verdict out. Addresses are checked by the engine before it asks here.

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv6Addr,
    str::FromStr,
    time::{Duration, Instant},
};

use identity::limits::{PENDING_FLOWS_MAX, SWIM_BURST, SWIM_DATAGRAMS_PER_S, TUNNEL_FLOWS_MAX};

use super::{
    flow::{Flow, FlowTable, Protocol},
    packet::{Packet, Payload},
};

/// One inbound opening from the configuration: `tcp/22`, `udp/53` or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// A TCP port.
    Tcp(u16),
    /// A UDP port.
    Udp(u16),
    /// Every TCP and UDP port and all of ICMPv6.
    All,
}

/// The text is none of `tcp/PORT`, `udp/PORT`, `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowError;

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected tcp/PORT, udp/PORT or all")
    }
}

impl std::error::Error for AllowError {}

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let (protocol, port) = text.split_once('/').ok_or(AllowError)?;
        // `parse` would also take "+22".
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AllowError);
        }
        let port = port.parse().ok().filter(|&port: &u16| port != 0).ok_or(AllowError)?;
        match protocol {
            "tcp" => Ok(Self::Tcp(port)),
            "udp" => Ok(Self::Udp(port)),
            _ => Err(AllowError),
        }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// Whether a link session with the member was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Only conn_auth passes.
    Closed,
    /// The filter decides.
    Open,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// Dropped: no link session yet, and it is not conn_auth.
    GateClosed,
    /// Dropped: nothing opens this port and we did not ask for it.
    NotAllowed,
    /// Dropped: it would begin one flow too many.
    FlowsFull,
}

/// The rules and the flows they depend on, for all members together.
#[derive(Debug)]
pub struct Filter {
    auth_port: u16,
    allow: Vec<Allow>,
    /// Towards members' conn_auth ports while their gate is closed.
    pending: FlowTable,
    flows: FlowTable,
    /// Members whose probes pass, and when those that came would have come at the greatest lasting rate.
    probed: BTreeMap<Ipv6Addr, Option<Instant>>,
}

impl Filter {
    /// Opens conn_auth's port, ICMPv6 echo and what `allow` lists.
    #[must_use]
    pub fn new(auth_port: u16, allow: Vec<Allow>) -> Self {
        let (pending, flows) = (FlowTable::new(PENDING_FLOWS_MAX), FlowTable::new(TUNNEL_FLOWS_MAX));
        Self { auth_port, allow, pending, flows, probed: BTreeMap::new() }
    }

    /// Judges a packet that came out of a member's tunnel.
    pub fn inbound(&mut self, gate: Gate, packet: &Packet, now: Instant) -> Verdict {
        if self.is_probe(packet) {
            return pass_if(self.takes_probe(packet.source, now), Verdict::NotAllowed);
        }
        match gate {
            Gate::Closed => self.inbound_closed(packet, now),
            Gate::Open => self.inbound_open(packet, now),
        }
    }

    /// Judges a packet of ours on its way to a member.
    pub fn outbound(&mut self, gate: Gate, packet: &Packet, now: Instant) -> Verdict {
        if self.is_probe(packet) {
            return pass_if(self.probed.contains_key(&packet.destination), Verdict::NotAllowed);
        }
        match gate {
            Gate::Closed => self.outbound_closed(packet, now),
            Gate::Open => self.outbound_open(packet, now),
        }
    }

    /// Probes pass to and from these members, whatever their gates, and nobody else.
    pub fn set_probed(&mut self, members: &[Ipv6Addr]) {
        let before = std::mem::take(&mut self.probed);
        let even = |member: &Ipv6Addr| before.get(member).copied().flatten();
        self.probed = members.iter().map(|member| (*member, even(member))).collect();
    }

    /// A member's gate was opened: its conn_auth flows no longer count as pending.
    pub fn opened(&mut self, peer: Ipv6Addr) {
        self.pending.hand_over(|flow| flow.peer == peer, &mut self.flows);
    }

    /// A member's gate was closed: of its flows those to its conn_auth port go on. The others stay known, since
    /// a conversation outlives the link that was closed because nobody said anything.
    pub fn closed(&mut self, peer: Ipv6Addr) {
        let conn_auth = (Protocol::Tcp, self.auth_port);
        let goes_on = |flow: &Flow| flow.peer == peer && (flow.protocol, flow.theirs) == conn_auth;
        self.flows.hand_over(goes_on, &mut self.pending);
    }

    /// Whether a packet makes use of a link: conn_auth and probes pass without one.
    #[must_use]
    pub fn uses_link(&self, packet: &Packet) -> bool {
        let conn_auth = matches!(packet.payload, Payload::Tcp { source, destination, .. }
            if source == self.auth_port || destination == self.auth_port);
        !conn_auth && !self.is_probe(packet)
    }

    /// A member was removed: nothing of it stays.
    pub fn forget(&mut self, peer: Ipv6Addr) {
        self.pending.forget(peer);
        self.flows.forget(peer);
        self.probed.remove(&peer);
    }

    /// Drops what has been silent for too long.
    pub fn purge(&mut self, now: Instant) {
        self.pending.purge(now);
        self.flows.purge(now);
    }

    /// Flows held, both kinds.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.pending.len() + self.flows.len()
    }

    /// A datagram between the ports that only SWIM has.
    fn is_probe(&self, packet: &Packet) -> bool {
        matches!(packet.payload, Payload::Udp { source, destination }
            if source == self.auth_port && destination == self.auth_port)
    }

    fn takes_probe(&mut self, from: Ipv6Addr, now: Instant) -> bool {
        let Some(even) = self.probed.get_mut(&from) else { return false };
        let at = even.map_or(now, |at| at.max(now));
        let is_due = at < now + PROBE_PACE * SWIM_BURST;
        if is_due {
            *even = Some(at + PROBE_PACE);
        }
        is_due
    }

    fn inbound_closed(&mut self, packet: &Packet, now: Instant) -> Verdict {
        let (Payload::Tcp { source, destination, opens, closes }, Some(flow)) =
            (packet.payload, packet.flow_in())
        else {
            return Verdict::GateClosed;
        };
        let asked = source == self.auth_port && !opens && self.pending.answered(flow, closes, now);
        pass_if(destination == self.auth_port || asked, Verdict::GateClosed)
    }

    fn outbound_closed(&mut self, packet: &Packet, now: Instant) -> Verdict {
        let (Payload::Tcp { source, destination, opens, closes }, Some(flow)) =
            (packet.payload, packet.flow_out())
        else {
            return Verdict::GateClosed;
        };
        if destination == self.auth_port && opens {
            return pass_if(self.pending.opened(flow, now), Verdict::FlowsFull);
        }
        let going_on = destination == self.auth_port
            && self.pending.contains(&flow, now)
            && self.pending.sent(flow, closes, now);
        // Our listener's side: it answers and never opens.
        let answers = source == self.auth_port && !opens;
        pass_if(going_on || answers, Verdict::GateClosed)
    }

    fn inbound_open(&mut self, packet: &Packet, now: Instant) -> Verdict {
        if self.allows(packet) {
            return Verdict::Pass;
        }
        let asked = match packet.payload {
            Payload::Tcp { opens: true, .. } | Payload::OtherIcmp | Payload::EchoRequest(_) => false,
            Payload::Error { source, flow } => {
                source == packet.destination && flow.peer == packet.source && self.flows.contains(&flow, now)
            }
            Payload::Tcp { closes, .. } => {
                packet.flow_in().is_some_and(|flow| self.flows.answered(flow, closes, now))
            }
            Payload::Udp { .. } | Payload::EchoReply(_) => {
                packet.flow_in().is_some_and(|flow| self.flows.answered(flow, false, now))
            }
        };
        pass_if(asked, Verdict::NotAllowed)
    }

    /// Everything of ours may leave. What it begins is noted, unless the way back is open anyway.
    fn outbound_open(&mut self, packet: &Packet, now: Instant) -> Verdict {
        let (opens, closes) = match packet.payload {
            Payload::Tcp { opens, closes, .. } => (opens, closes),
            Payload::Udp { .. } | Payload::EchoRequest(_) => (false, false),
            Payload::EchoReply(_) | Payload::Error { .. } => return Verdict::Pass,
            Payload::OtherIcmp => return pass_if(self.allow.contains(&Allow::All), Verdict::NotAllowed),
        };
        let Some(flow) = packet.flow_out() else { return Verdict::NotAllowed };
        if flow.protocol != Protocol::Echo && self.port_open(flow.protocol, flow.ours) {
            return Verdict::Pass;
        }
        let noted = if opens { self.flows.opened(flow, now) } else { self.flows.sent(flow, closes, now) };
        pass_if(noted, Verdict::FlowsFull)
    }

    fn allows(&self, packet: &Packet) -> bool {
        match packet.payload {
            Payload::Tcp { destination, .. } => self.port_open(Protocol::Tcp, destination),
            Payload::Udp { destination, .. } => self.port_open(Protocol::Udp, destination),
            Payload::EchoRequest(_) => true,
            Payload::EchoReply(_) | Payload::Error { .. } | Payload::OtherIcmp => {
                self.allow.contains(&Allow::All)
            }
        }
    }

    fn port_open(&self, protocol: Protocol, port: u16) -> bool {
        let conn_auth = protocol == Protocol::Tcp && port == self.auth_port;
        conn_auth
            || self.allow.iter().any(|allow| match *allow {
                Allow::Tcp(open) => protocol == Protocol::Tcp && open == port,
                Allow::Udp(open) => protocol == Protocol::Udp && open == port,
                Allow::All => true,
            })
    }
}

/// Between two probes of one member at the greatest lasting rate.
const PROBE_PACE: Duration = Duration::from_millis(1_000 / SWIM_DATAGRAMS_PER_S as u64);

fn pass_if(passes: bool, otherwise: Verdict) -> Verdict {
    if passes { Verdict::Pass } else { otherwise }
}

#[cfg(test)]
mod tests;
