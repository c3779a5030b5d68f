//! Who may wait for a verdict when many ask: a table of connections that have proved nothing yet.
//!
//! Pure: the caller brings addresses, and ends the connections that it is told to end. Half of the
//! places are kept for sources that proved a key before, so that a flood of strangers never locks
//! out members. When a stranger finds the strangers' places taken, the network that holds the most pays,
//! in it the address that holds the most, and of that the oldest connection: the flood, not the one
//! machine that comes next, even from the network of the flood.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

/// One connection in the table; ascends with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A place was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The new connection's.
    pub ticket: Ticket,
    /// The connection to end at once for it.
    pub evicted: Option<Ticket>,
}

/// The sources that share places, in one form for both families: an IPv4 /24 or an IPv6 /48, or one
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network([u8; 16]);

/// Octets of an address, out of 16, that make a network.
#[derive(Clone, Copy, Debug)]
struct Kept {
    v4: usize,
    v6: usize,
}

/// What one machine has: its address, or the /64 of which it may take any.
const MACHINE: Kept = Kept { v4: 16, v6: 8 };

#[derive(Clone, Copy, Debug)]
struct Waiting {
    network: Network,
    /// Within the network: what one machine has, an IPv4 address or an IPv6 /64.
    machine: Network,
    /// Whether it counts against the strangers' half.
    stranger: bool,
}

/// The table.
#[derive(Debug)]
pub struct Unproven {
    places: usize,
    remembered: usize,
    kept: Kept,
    next: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    proven: BTreeSet<Network>,
    proven_order: VecDeque<Network>,
}

impl Unproven {
    /// A table of `places` that remembers `remembered` networks of proven peers.
    #[must_use]
    pub const fn new(places: usize, remembered: usize) -> Self {
        Self::keeping(places, remembered, Kept { v4: 15, v6: 6 })
    }

    /// The same where nobody can take an address that is not his, as in a tunnel: each address stands
    /// for itself, so one member cannot push out another.
    #[must_use]
    pub const fn by_address(places: usize, remembered: usize) -> Self {
        Self::keeping(places, remembered, Kept { v4: 16, v6: 16 })
    }

    const fn keeping(places: usize, remembered: usize, kept: Kept) -> Self {
        Self {
            places,
            remembered,
            kept,
            next: 0,
            waiting: BTreeMap::new(),
            proven: BTreeSet::new(),
            proven_order: VecDeque::new(),
        }
    }

    /// A place for a connection just accepted, and who must make room for it.
    pub fn admit(&mut self, source: IpAddr) -> Admission {
        let network = Network::of(source, self.kept);
        let stranger = !self.proven.contains(&network);
        let strangers = self.waiting.values().filter(|w| w.stranger).count();
        let evicted = if stranger && strangers >= self.places.div_ceil(2) {
            self.oldest_of_fullest(true)
        } else if self.waiting.len() >= self.places {
            // Everybody beyond the strangers' half is known: the fullest of all makes room.
            self.oldest_of_fullest(false)
        } else {
            None
        };
        if let Some(ticket) = evicted {
            self.waiting.remove(&ticket);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let machine = Network::of(source, MACHINE);
        self.waiting.insert(ticket, Waiting { network, machine, stranger });
        Admission { ticket, evicted }
    }

    /// The connection ended or was refused. Unknown tickets, evicted ones too, are fine.
    pub fn ended(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The connection was accepted: it leaves the table and its network is known from now on.
    pub fn proven(&mut self, ticket: Ticket) {
        let Some(Waiting { network, .. }) = self.waiting.remove(&ticket) else { return };
        if self.remembered == 0 || !self.proven.insert(network) {
            return;
        }
        self.proven_order.push_back(network);
        if self.proven_order.len() > self.remembered
            && let Some(oldest) = self.proven_order.pop_front()
        {
            self.proven.remove(&oldest);
        }
    }

    /// Connections that hold a place.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn oldest_of_fullest(&self, strangers_only: bool) -> Option<Ticket> {
        let asked = || self.waiting.iter().filter(|(_, w)| w.stranger || !strangers_only);
        let network = fullest(asked().map(|(&ticket, w)| (ticket, w.network)))?.0;
        let in_it = asked().filter(|(_, w)| w.network == network);
        fullest(in_it.map(|(&ticket, w)| (ticket, w.machine))).map(|(_, oldest)| oldest)
    }
}

/// Who holds the most, and the oldest of what he holds. Of two equally full ones who waits longest.
fn fullest(held: impl Iterator<Item = (Ticket, Network)>) -> Option<(Network, Ticket)> {
    let mut counts: BTreeMap<Network, (usize, Ticket)> = BTreeMap::new();
    for (ticket, holder) in held {
        counts.entry(holder).or_insert((0, ticket)).0 += 1;
    }
    let most = counts.into_iter().max_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    most.map(|(holder, (_, oldest))| (holder, oldest))
}

impl Network {
    fn of(source: IpAddr, kept: Kept) -> Self {
        let (octets, kept) = match source.to_canonical() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), kept.v4),
            IpAddr::V6(v6) => (v6.octets(), kept.v6),
        };
        let mut network = [0; 16];
        for (out, byte) in network.iter_mut().zip(octets.into_iter().take(kept)) {
            *out = byte;
        }
        Self(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_flood_from_one_network_evicts_only_itself() {
        let mut table = Unproven::new(8, 8);
        let honest = table.admit(ip("198.51.100.7")).ticket;
        let flood: Vec<_> = (0..20).map(|i| table.admit(ip(&format!("192.0.2.{i}")))).collect();
        assert!(flood.iter().all(|a| a.evicted != Some(honest)));
        assert_eq!(flood[3].evicted, Some(flood[0].ticket), "the strangers' half is four places");
        assert_eq!(table.len(), 4);
        let late = table.admit(ip("203.0.113.1"));
        assert!(late.evicted.is_some_and(|t| t != honest));
    }

    #[test]
    fn a_flood_pays_before_its_neighbour_in_the_same_network() {
        for (flood, neighbour) in [("192.0.2.66", "192.0.2.7"), ("2001:db8:1:66::", "2001:db8:1:7::1")] {
            let mut table = Unproven::new(8, 8);
            table.admit(ip(flood));
            let honest = table.admit(ip(neighbour)).ticket;
            for i in 0..20u16 {
                // Whoever has a /64 has all of its addresses.
                let source = match ip(flood) {
                    IpAddr::V6(v6) => std::net::Ipv6Addr::from(v6.to_bits() | u128::from(i)).into(),
                    v4 @ IpAddr::V4(_) => v4,
                };
                assert_ne!(table.admit(source).evicted, Some(honest));
            }
        }
    }

    #[test]
    fn half_of_the_places_wait_for_networks_that_proved_a_key() {
        let mut table = Unproven::new(8, 8);
        let member = table.admit(ip("2001:db8:1::1")).ticket;
        table.proven(member);
        for i in 0..100 {
            table.admit(ip(&format!("2001:db8:{:x}::1", 100 + i)));
        }
        assert_eq!(table.len(), 4);
        for _ in 0..4 {
            assert_eq!(table.admit(ip("2001:db8:1:ffff::2")).evicted, None);
        }
        assert_eq!(table.len(), 8);
        let more = table.admit(ip("2001:db8:1::3"));
        assert!(more.evicted.is_some_and(|t| t.0 > 100), "the fullest network is the member's own");
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let network = |text| Network::of(ip(text), Kept { v4: 15, v6: 6 });
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.200"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
    }

    #[test]
    fn a_member_that_floods_the_overlay_evicts_only_itself() {
        let mut table = Unproven::by_address(8, 8);
        let hostile = table.admit(ip("fd00:1:2::bad")).ticket;
        table.proven(hostile);
        let honest = table.admit(ip("fd00:1:2::1")).ticket;
        let flood: Vec<_> = (0..50).map(|_| table.admit(ip("fd00:1:2::bad"))).collect();
        assert!(flood.iter().all(|admission| admission.evicted != Some(honest)));
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn the_memory_of_proven_networks_is_bounded_and_forgets_the_oldest() {
        let mut table = Unproven::new(4, 2);
        for third in 1..=3 {
            let ticket = table.admit(ip(&format!("192.0.{third}.1"))).ticket;
            table.proven(ticket);
        }
        assert_eq!(table.proven.len(), 2);
        assert!(!table.proven.contains(&Network::of(ip("192.0.1.1"), table.kept)));
    }

    #[test]
    fn no_order_of_calls_passes_the_bound() {
        let mut table = Unproven::new(6, 4);
        let mut seed = 7u64;
        let mut tickets = Vec::new();
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let byte = u8::try_from(seed >> 56).unwrap();
            match byte % 4 {
                0 | 1 => tickets.push(table.admit(ip(&format!("192.0.{}.1", byte % 13))).ticket),
                2 => tickets.pop().map_or((), |t| table.ended(t)),
                _ => tickets.pop().map_or((), |t| table.proven(t)),
            }
            assert!(table.len() <= 6 && table.proven.len() <= 4);
            assert!(table.waiting.values().filter(|w| w.stranger).count() <= 3);
        }
    }
}
