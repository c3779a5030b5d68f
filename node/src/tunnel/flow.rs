//! Which conversations we began, so that their answers may come back. Bounded, and forgets.

use std::{
    collections::HashMap,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

/// One conversation, named from our end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The other end's overlay address.
    pub peer: Ipv6Addr,
    /// Our port, or the echo identifier.
    pub ours: u16,
    /// Their port, or the echo identifier.
    pub theirs: u16,
}

impl Flow {
    /// The same conversation with the ports seen from the other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { ours: self.theirs, theirs: self.ours, ..self }
    }
}

/// The protocols that have flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMPv6 echo.
    Echo,
}

/// No answer yet, or the TCP connection is over.
const SHORT: Duration = Duration::from_secs(30);
/// RFC 4787 asks for at least two minutes.
const UDP_IDLE: Duration = Duration::from_secs(180);
/// RFC 5382 asks for two hours and four minutes.
const TCP_IDLE: Duration = Duration::from_secs(7_440);

#[derive(Clone, Copy, Debug)]
struct Entry {
    seen: Instant,
    answered: bool,
    closing: bool,
}

impl Entry {
    fn lifetime(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Tcp if self.answered && !self.closing => TCP_IDLE,
            Protocol::Udp if self.answered => UDP_IDLE,
            Protocol::Tcp | Protocol::Udp | Protocol::Echo => SHORT,
        }
    }

    fn alive(&self, protocol: Protocol, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < self.lifetime(protocol)
    }
}

/// The flows we began, at most as many as the table was made for.
#[derive(Debug)]
pub struct FlowTable {
    entries: HashMap<Flow, Entry>,
    capacity: usize,
}

impl FlowTable {
    /// An empty table for `capacity` flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    /// Notes a packet that we sent. Says whether the flow has a place in the table.
    pub fn sent(&mut self, flow: Flow, closes: bool, now: Instant) -> bool {
        if let Some(entry) = self.entries.get_mut(&flow) {
            if !entry.alive(flow.protocol, now) {
                *entry = Entry { seen: now, answered: false, closing: closes };
            }
            entry.seen = now;
            entry.closing |= closes;
            return true;
        }
        if self.entries.len() >= self.capacity {
            return false;
        }
        self.entries.insert(flow, Entry { seen: now, answered: false, closing: closes });
        true
    }

    /// Notes a packet that came back. Says whether it belongs to a flow of ours.
    pub fn answered(&mut self, flow: Flow, closes: bool, now: Instant) -> bool {
        match self.entries.get_mut(&flow) {
            Some(entry) if entry.alive(flow.protocol, now) => {
                entry.seen = now;
                entry.answered = true;
                entry.closing |= closes;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Begins a flow anew: its ports are used again for another connection.
    pub fn opened(&mut self, flow: Flow, now: Instant) -> bool {
        self.entries.remove(&flow);
        self.sent(flow, false, now)
    }

    /// Whether the table knows the flow.
    #[must_use]
    pub fn contains(&self, flow: &Flow, now: Instant) -> bool {
        self.entries.get(flow).is_some_and(|entry| entry.alive(flow.protocol, now))
    }

    /// Forgets everything with one peer.
    pub fn forget(&mut self, peer: Ipv6Addr) {
        self.entries.retain(|flow, _| flow.peer != peer);
    }

    /// Moves the flows that `which` picks into another table, as far as that has room.
    pub fn hand_over(&mut self, which: impl Fn(&Flow) -> bool, to: &mut Self) {
        for (flow, entry) in self.entries.extract_if(|flow, _| which(flow)) {
            if to.entries.len() < to.capacity {
                to.entries.insert(flow, entry);
            }
        }
    }

    /// Drops what has been silent for too long.
    pub fn purge(&mut self, now: Instant) {
        self.entries.retain(|flow, entry| entry.alive(flow.protocol, now));
    }

    /// How many flows are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

    fn flow(protocol: Protocol, peer: Ipv6Addr, ours: u16) -> Flow {
        Flow { protocol, peer, ours, theirs: 443 }
    }

    #[test]
    fn only_a_flow_that_we_began_is_answered() {
        let (mut table, now) = (FlowTable::new(4), Instant::now());
        let ours = flow(Protocol::Tcp, PEER, 5);
        assert!(!table.answered(ours, false, now));
        assert!(table.sent(ours, false, now));
        assert!(table.answered(ours, false, now));
        assert!(!table.answered(ours.reversed(), false, now));
        assert!(!table.answered(flow(Protocol::Udp, PEER, 5), false, now));
        assert!(!table.answered(flow(Protocol::Tcp, OTHER, 5), false, now));
    }

    #[test]
    fn a_full_table_takes_no_more_but_keeps_what_it_has() {
        let (mut table, now) = (FlowTable::new(2), Instant::now());
        assert!(table.sent(flow(Protocol::Udp, PEER, 1), false, now));
        assert!(table.sent(flow(Protocol::Udp, PEER, 2), false, now));
        assert!(!table.sent(flow(Protocol::Udp, PEER, 3), false, now));
        assert!(table.sent(flow(Protocol::Udp, PEER, 1), false, now));
        assert_eq!(table.len(), 2);
        table.purge(now + SHORT);
        assert!(table.is_empty());
    }

    #[test]
    fn an_unanswered_flow_ends_soon_and_an_answered_one_stays() {
        let (mut table, now) = (FlowTable::new(4), Instant::now());
        let (silent, lively) = (flow(Protocol::Tcp, PEER, 1), flow(Protocol::Tcp, PEER, 2));
        table.sent(silent, false, now);
        table.sent(lively, false, now);
        table.answered(lively, false, now);
        assert!(!table.contains(&silent, now + SHORT));
        assert!(table.contains(&lively, now + SHORT));
        assert!(!table.contains(&lively, now + TCP_IDLE));
    }

    #[test]
    fn a_closed_connection_ends_soon_unless_its_ports_are_used_again() {
        let (mut table, now) = (FlowTable::new(4), Instant::now());
        let ours = flow(Protocol::Tcp, PEER, 1);
        table.sent(ours, false, now);
        table.answered(ours, true, now);
        assert!(!table.contains(&ours, now + SHORT));
        table.opened(ours, now);
        table.answered(ours, false, now);
        assert!(table.contains(&ours, now + SHORT));
    }

    #[test]
    fn a_forgotten_peer_leaves_nothing_and_others_stay() {
        let (mut table, now) = (FlowTable::new(4), Instant::now());
        table.sent(flow(Protocol::Tcp, PEER, 1), false, now);
        table.sent(flow(Protocol::Tcp, OTHER, 1), false, now);
        table.forget(PEER);
        assert_eq!(table.len(), 1);
        assert!(table.contains(&flow(Protocol::Tcp, OTHER, 1), now));
    }

    #[test]
    fn picked_flows_move_to_another_table() {
        let (mut from, mut to, now) = (FlowTable::new(4), FlowTable::new(4), Instant::now());
        from.sent(flow(Protocol::Tcp, PEER, 1), false, now);
        from.sent(flow(Protocol::Tcp, OTHER, 1), false, now);
        from.hand_over(|flow| flow.peer == PEER, &mut to);
        assert_eq!((from.len(), to.len()), (1, 1));
        assert!(to.contains(&flow(Protocol::Tcp, PEER, 1), now));
    }
}
