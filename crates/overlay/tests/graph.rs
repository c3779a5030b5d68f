//! Many nodes, one clock: whether the graph of sessions connects who is up.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use identity::{
    HashContext, PublicKey, SecretKey,
    limits::{FLOOD_DIAL_MAX, FLOOD_RING_FROM, SYNC_DIAL_MAX, SYNC_SESSIONS_MAX, TIPS_INTERVAL_MS},
};
use overlay::{Direction, Liveness, Output, Overlay};
use proptest::prelude::*;

/// What happens later: a dial arrives, or its failure is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { from: usize, to: usize },
    Fails { from: usize, to: usize },
}

struct Net {
    keys: Vec<PublicKey>,
    numbers: BTreeMap<PublicKey, usize>,
    nodes: Vec<Overlay>,
    up: BTreeSet<usize>,
    /// Established: (dialler, listener).
    links: BTreeSet<(usize, usize)>,
    events: BTreeMap<u64, Vec<Event>>,
    /// When each node's timer is due, by time: asking every node at every step is slow.
    timers: BTreeSet<(u64, usize)>,
    timer_of: BTreeMap<usize, u64>,
    now_ms: u64,
    exchanged: usize,
    refusals: usize,
}

fn node_key(n: usize) -> PublicKey {
    SecretKey::from_seed(&HashContext::SYNC_RING.hash(&[&n.to_le_bytes()])).public()
}

impl Net {
    fn new(nodes: usize, down: &BTreeSet<usize>) -> Self {
        let keys: Vec<PublicKey> = (0..nodes).map(node_key).collect();
        let overlays = keys.iter().zip(0..).map(|(key, n)| Overlay::new(*key, n)).collect();
        let mut net = Self {
            numbers: keys.iter().copied().zip(0..).collect(),
            nodes: overlays,
            up: (0..nodes).filter(|n| !down.contains(n)).collect(),
            keys,
            links: BTreeSet::new(),
            events: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            now_ms: 0,
            exchanged: 0,
            refusals: 0,
        };
        net.tell_members(|_| true);
        net
    }

    fn tell_members(&mut self, is_member: impl Fn(usize) -> bool) {
        let members: Vec<PublicKey> = (0..self.keys.len())
            .filter(|n| is_member(*n))
            .filter_map(|n| self.keys.get(n).copied())
            .collect();
        for n in self.up.clone() {
            self.nodes[n].handle_members(self.now_ms, members.iter().copied());
            self.drain(n);
        }
    }

    fn number(&self, key: &PublicKey) -> usize {
        self.numbers[key]
    }

    /// Called after everything that a node was told.
    fn drain(&mut self, n: usize) {
        self.act(n);
        if let Some(at) = self.timer_of.remove(&n) {
            self.timers.remove(&(at, n));
        }
        if let Some(at) = self.nodes[n].poll_timeout().filter(|_| self.up.contains(&n)) {
            self.timer_of.insert(n, at);
            self.timers.insert((at, n));
        }
    }

    fn act(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].poll_output() {
            match output {
                Output::Dial(peer) => {
                    let to = self.number(&peer);
                    let (after, event) = if self.up.contains(&to) {
                        (40, Event::Arrives { from: n, to })
                    } else {
                        (500, Event::Fails { from: n, to })
                    };
                    self.events.entry(self.now_ms + after).or_default().push(event);
                }
                Output::ExchangeTips(..) => self.exchanged += 1,
                Output::Refuse(peer) => {
                    let from = self.number(&peer);
                    self.refusals += 1;
                    self.nodes[from].handle_session_down(self.now_ms, self.keys[n], Direction::Outbound);
                    self.links.remove(&(from, n));
                    self.drain(from);
                }
                Output::Drop(peer, direction) | Output::Cut(peer, direction) => {
                    let peer = self.number(&peer);
                    let (link, other) = match direction {
                        Direction::Outbound => ((n, peer), Direction::Inbound),
                        Direction::Inbound => ((peer, n), Direction::Outbound),
                    };
                    if self.links.remove(&link) {
                        self.nodes[peer].handle_session_down(self.now_ms, self.keys[n], other);
                        self.drain(peer);
                    }
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { from, to } if self.up.contains(&to) && self.up.contains(&from) => {
                self.links.insert((from, to));
                let (from_key, to_key) = (self.keys[from], self.keys[to]);
                self.nodes[from].handle_session_up(self.now_ms, to_key, Direction::Outbound);
                self.nodes[to].handle_session_up(self.now_ms, from_key, Direction::Inbound);
                self.drain(to);
                self.drain(from);
            }
            Event::Arrives { from, to } | Event::Fails { from, to } => {
                if self.up.contains(&from) {
                    self.nodes[from].handle_dial_failed(self.now_ms, self.keys[to]);
                    self.drain(from);
                }
            }
        }
    }

    fn run(&mut self, for_ms: u64) {
        let end = self.now_ms + for_ms;
        loop {
            let timer = self.timers.first().map(|(at, _)| *at);
            let event = self.events.keys().next().copied();
            let Some(next) = [timer, event].into_iter().flatten().min().filter(|t| *t <= end) else { break };
            assert!(next >= self.now_ms, "time does not stand still: {next} at {}", self.now_ms);
            self.now_ms = next.max(self.now_ms);
            for event in self.events.remove(&self.now_ms).unwrap_or_default() {
                self.happen(event);
            }
            while let Some((_, n)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now_ms) {
                self.nodes[n].handle_timeout(self.now_ms);
                self.drain(n);
                assert!(self.nodes[n].poll_timeout().is_none_or(|t| t > self.now_ms));
            }
        }
        self.now_ms = end;
    }

    fn kill(&mut self, n: usize) {
        self.up.remove(&n);
        self.drain(n);
        for (from, to) in self.links.clone() {
            if from == n || to == n {
                self.links.remove(&(from, to));
                let (left, direction) =
                    if from == n { (to, Direction::Inbound) } else { (from, Direction::Outbound) };
                self.nodes[left].handle_session_down(self.now_ms, self.keys[n], direction);
                self.drain(left);
            }
        }
    }

    /// It starts anew.
    fn revive(&mut self, n: usize, members: &[PublicKey]) {
        self.nodes[n] = Overlay::new(self.keys[n], 1000 + u64::try_from(n).unwrap());
        self.up.insert(n);
        self.nodes[n].handle_members(self.now_ms, members.iter().copied());
        self.drain(n);
    }

    /// The most steps a flood takes from any of some starts.
    fn most_steps(&self) -> usize {
        self.up.iter().step_by(20).map(|n| self.eccentricity(*n).unwrap()).max().unwrap()
    }

    /// The most steps a flood from `start` takes; none if it does not reach everyone.
    fn eccentricity(&self, start: usize) -> Option<usize> {
        let mut seen = BTreeMap::from([(start, 0)]);
        let mut queue = VecDeque::from([start]);
        while let Some(n) = queue.pop_front() {
            let steps = seen.get(&n).copied().unwrap_or(0);
            for (peer, _) in self.nodes[n].flood_targets(None) {
                let peer = self.number(&peer);
                if self.up.contains(&peer) && !seen.contains_key(&peer) {
                    seen.insert(peer, steps + 1);
                    queue.push_back(peer);
                }
            }
        }
        (seen.len() == self.up.len()).then(|| seen.values().copied().max().unwrap_or(0))
    }

    fn invariant_connected(&self) {
        for n in self.up.iter().take(3) {
            assert!(self.eccentricity(*n).is_some(), "node {n} does not reach everyone");
        }
    }

    fn invariant_bounded(&self) {
        for n in &self.up {
            assert!(self.nodes[*n].sessions().count() <= SYNC_SESSIONS_MAX);
        }
    }

    /// Both ends know of the same sessions.
    fn invariant_symmetric(&self) {
        for n in &self.up {
            for (peer, direction) in self.nodes[*n].sessions() {
                let peer = self.number(&peer);
                let link = if direction == Direction::Outbound { (*n, peer) } else { (peer, *n) };
                assert!(self.links.contains(&link), "{link:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Whoever is up is connected, whoever is not.
    #[test]
    fn who_is_up_becomes_connected(
        nodes in 2..40usize,
        down in prop::collection::btree_set(0..40usize, 0..12),
        later in prop::collection::vec(0..40usize, 0..4),
    ) {
        let down: BTreeSet<usize> = down.into_iter().filter(|n| *n + 2 < nodes).collect();
        let mut net = Net::new(nodes, &down);
        net.run(30_000);
        net.invariant_connected();
        net.invariant_bounded();
        net.invariant_symmetric();
        for n in later.into_iter().filter(|n| *n + 2 < nodes) {
            if net.up.contains(&n) {
                net.kill(n);
            }
        }
        net.run(60_000);
        net.invariant_connected();
        net.invariant_symmetric();
    }
}

#[test]
fn a_flood_crosses_three_hundred_nodes_in_eight_steps() {
    let mut net = Net::new(300, &BTreeSet::new());
    net.run(10_000);
    net.invariant_connected();
    net.invariant_bounded();
    assert!(net.most_steps() <= 8, "{} steps", net.most_steps());
    assert_eq!(net.refusals, 0, "everybody dials where there is a place");
}

#[test]
fn among_those_who_are_up_there_are_four_sessions_each_and_few_steps_whoever_is_down() {
    for every in [2, 3] {
        let down = (0..300).step_by(every).collect();
        let mut net = Net::new(300, &down);
        net.run(60_000);
        net.invariant_connected();
        net.invariant_bounded();
        net.invariant_symmetric();
        assert!(net.most_steps() <= 8, "{} steps", net.most_steps());
        let sessions: usize = net.up.iter().map(|n| net.nodes[*n].sessions().count()).sum();
        assert!(10 * sessions >= 38 * net.up.len(), "{sessions} of {}", net.up.len());
    }
}

#[test]
fn while_nodes_come_and_go_the_rest_stays_connected() {
    let mut net = Net::new(300, &BTreeSet::new());
    net.run(10_000);
    let members = net.keys.clone();
    for round in 0..5 {
        let gone: Vec<usize> = (0..300).filter(|n| (n * 7 + round * 11) % 30 == 0).collect();
        for n in &gone {
            net.kill(*n);
        }
        net.run(2_000);
        net.invariant_connected();
        for n in gone {
            net.revive(n, &members);
        }
        net.run(2_000);
        net.invariant_connected();
        net.invariant_bounded();
    }
    net.run(60_000);
    let refusals = net.refusals;
    net.run(10_000);
    net.invariant_symmetric();
    assert!(net.most_steps() <= 8, "{} steps", net.most_steps());
    assert_eq!(net.refusals, refusals, "once nobody comes or goes everybody has a place");
}

#[test]
fn who_comes_back_is_dialled_again_and_the_stand_in_is_dropped() {
    let mut net = Net::new(12, &BTreeSet::from([4]));
    net.run(30_000);
    let members = net.keys.clone();
    net.revive(4, &members);
    net.run(200_000);
    net.invariant_connected();
    net.invariant_symmetric();
    let outbound = |n: &Overlay| n.sessions().filter(|(_, d)| *d == Direction::Outbound).count();
    assert!(net.nodes.iter().all(|n| outbound(n) <= SYNC_DIAL_MAX));
}

#[test]
fn sessions_of_the_revoked_are_cut_at_once() {
    let mut net = Net::new(8, &BTreeSet::new());
    net.run(5_000);
    let revoked = net.keys[3];
    let held_by: Vec<usize> =
        (0..8).filter(|n| *n != 3 && net.nodes[*n].sessions().any(|(peer, _)| peer == revoked)).collect();
    assert!(!held_by.is_empty());
    net.up.remove(&3);
    let rest: Vec<PublicKey> = net.keys.iter().copied().filter(|key| *key != revoked).collect();
    for n in held_by {
        net.nodes[n].handle_members(net.now_ms, rest.clone());
        assert!(net.nodes[n].sessions().all(|(peer, _)| peer != revoked));
        let first = net.nodes[n].poll_output().unwrap();
        assert!(matches!(first, Output::Cut(peer, _) if peer == revoked), "before anything else: {first:?}");
    }
}

#[test]
fn a_revoked_dialler_gets_no_session() {
    let (me, peer) = (node_key(0), node_key(1));
    let mut overlay = Overlay::new(me, 1);
    overlay.handle_members(0, [me]);
    overlay.handle_session_up(0, peer, Direction::Inbound);
    assert_eq!(overlay.poll_output(), Some(Output::Cut(peer, Direction::Inbound)));
    assert_eq!(overlay.sessions().count(), 0);
}

#[test]
fn of_those_who_dial_a_node_keeps_the_last_before_it_on_each_ring() {
    let keys: Vec<PublicKey> = (0..30).map(node_key).collect();
    let mut kept = BTreeSet::new();
    for order in 0..30 {
        let mut overlay = Overlay::new(keys[0], 1);
        overlay.handle_members(0, keys.iter().copied());
        let (mut refused, mut dropped) = (0, 0);
        for n in (0..30).map(|n| (n + order) % 30).filter(|n| *n != 0) {
            overlay.handle_session_up(0, keys[n], Direction::Inbound);
            while let Some(output) = overlay.poll_output() {
                refused += usize::from(output == Output::Refuse(keys[n]));
                dropped += usize::from(matches!(output, Output::Drop(_, Direction::Inbound)));
            }
        }
        assert_eq!(overlay.sessions().count(), SYNC_SESSIONS_MAX - SYNC_DIAL_MAX);
        assert_eq!(refused + dropped, 29 - overlay.sessions().count());
        kept.extend(overlay.sessions());
    }
    assert_eq!(kept.len(), 2, "in whatever order they come");
}

#[test]
fn tips_are_exchanged_on_every_session_again_and_again() {
    let mut net = Net::new(2, &BTreeSet::new());
    net.run(10 * TIPS_INTERVAL_MS);
    assert_eq!(net.links.len(), 1, "one session between two, whoever dialled first");
    assert!((10..=30).contains(&net.exchanged), "{}", net.exchanged);
}

#[test]
fn a_record_is_not_sent_back_to_where_it_came_from() {
    let mut net = Net::new(3, &BTreeSet::new());
    net.run(5_000);
    let node = &net.nodes[0];
    let all: Vec<PublicKey> = node.flood_targets(None).map(|(peer, _)| peer).collect();
    let source = all[0];
    assert!(node.flood_targets(Some(&source)).all(|(peer, _)| peer != source));
    assert_eq!(node.flood_targets(Some(&source)).count(), all.len() - 1);
}

#[test]
fn in_a_large_org_a_third_ring_floods_and_compares_nothing() {
    let nodes = FLOOD_RING_FROM + 20;
    let down = (0..nodes).step_by(7).collect();
    let mut net = Net::new(nodes, &down);
    net.run(60_000);
    net.invariant_connected();
    net.invariant_symmetric();
    let places = SYNC_SESSIONS_MAX + 2 * FLOOD_DIAL_MAX;
    let sessions = |n: &usize| net.nodes[*n].sessions().count();
    assert!(net.up.iter().all(|n| sessions(n) <= places));
    let all: usize = net.up.iter().map(sessions).sum();
    assert!(10 * all >= 57 * net.up.len(), "{all} sessions of {}", net.up.len());
    assert!(net.most_steps() <= 6, "{} steps", net.most_steps());
    for n in &net.up {
        let node = &net.nodes[*n];
        let compared = node.sessions().filter(|(peer, _)| node.compares(peer)).count();
        assert!((2..=SYNC_SESSIONS_MAX).contains(&compared), "{n}: {compared}");
        for (peer, _) in node.sessions() {
            let other = &net.nodes[net.number(&peer)];
            assert_eq!(node.compares(&peer), other.compares(&net.keys[*n]), "both ends agree");
        }
    }
}

#[test]
fn who_is_asked_on_a_session_that_only_floods_asks_in_return() {
    let keys: Vec<PublicKey> = (0..FLOOD_RING_FROM).map(node_key).collect();
    let (me, mut now) = (keys[0], 0);
    let mut overlay = Overlay::new(me, 1);
    overlay.handle_members(now, keys.iter().copied());
    let mut dialled = Vec::new();
    while let Some(output) = overlay.poll_output() {
        if let Output::Dial(peer) = output {
            dialled.push(peer);
        }
    }
    assert_eq!(dialled.len(), SYNC_DIAL_MAX + FLOOD_DIAL_MAX);
    for peer in &dialled {
        overlay.handle_session_up(now, *peer, Direction::Outbound);
    }
    // Those before it on the first two rings come, too: they are compared with.
    for key in keys.iter().filter(|key| !dialled.contains(key) && **key != me) {
        overlay.handle_session_up(now, *key, Direction::Inbound);
    }
    let flooded = *dialled.iter().find(|peer| !overlay.compares(peer)).unwrap();
    let mut rounds = |asked: bool| {
        while overlay.poll_output().is_some() {}
        if asked {
            overlay.handle_asked(&flooded, Direction::Outbound);
        }
        now += 2 * TIPS_INTERVAL_MS;
        overlay.handle_timeout(now);
        let mut told = Vec::new();
        while let Some(output) = overlay.poll_output() {
            if let Output::ExchangeTips(peer, _) = output {
                told.push(peer);
            }
        }
        (told.contains(&flooded), told.len())
    };
    assert_eq!(rounds(false), (false, SYNC_SESSIONS_MAX));
    assert_eq!(rounds(true), (true, SYNC_SESSIONS_MAX + 1));
    assert_eq!(rounds(false), (false, SYNC_SESSIONS_MAX), "and not for ever");
}

/// A node of thirty with a session to whom it dials first.
fn dialler() -> (Overlay, Vec<PublicKey>) {
    let keys: Vec<PublicKey> = (0..30).map(node_key).collect();
    let mut overlay = Overlay::new(keys[0], 1);
    overlay.handle_members(0, keys.iter().copied());
    let dialled = dials(&mut overlay);
    for peer in &dialled {
        overlay.handle_session_up(0, *peer, Direction::Outbound);
    }
    assert_eq!(dials(&mut overlay).len(), 0);
    (overlay, dialled)
}

fn dials(overlay: &mut Overlay) -> Vec<PublicKey> {
    let outputs = std::iter::from_fn(|| overlay.poll_output());
    outputs.filter_map(|output| if let Output::Dial(peer) = output { Some(peer) } else { None }).collect()
}

#[test]
fn who_falls_silent_keeps_its_session_and_the_next_is_dialled_beside_it() {
    let (mut overlay, neighbours) = dialler();
    overlay.handle_liveness(10, &neighbours[0], Liveness::Suspect);
    assert_eq!(dials(&mut overlay), [], "a suspicion is nothing yet");
    overlay.handle_liveness(10, &neighbours[0], Liveness::Silent);
    let stand_ins = dials(&mut overlay);
    assert_eq!(stand_ins.len(), 1);
    let stand_in = stand_ins[0];
    assert!(!neighbours.contains(&stand_in));
    overlay.handle_session_up(20, stand_in, Direction::Outbound);
    assert!(overlay.sessions().any(|(peer, _)| peer == neighbours[0]), "nobody is cut for being silent");
    while overlay.poll_output().is_some() {}
    overlay.handle_liveness(30, &neighbours[0], Liveness::Alive);
    assert_eq!(overlay.poll_output(), Some(Output::Drop(stand_in, Direction::Outbound)));
}

#[test]
fn all_that_is_said_of_liveness_keeps_nobody_from_being_dialled() {
    let (mut overlay, neighbours) = dialler();
    let everybody: Vec<PublicKey> = (1..30).map(node_key).collect();
    // Whoever has no session cannot be silenced at all.
    for peer in everybody.iter().filter(|peer| !neighbours.contains(peer)) {
        overlay.handle_liveness(10, peer, Liveness::Silent);
    }
    assert_eq!(overlay.poll_output(), None);
    let mut now = 10;
    let mut dialled = BTreeSet::new();
    for peer in &neighbours {
        overlay.handle_liveness(now, peer, Liveness::Silent);
    }
    assert!(overlay.sessions().count() <= SYNC_SESSIONS_MAX);
    // The sessions end, and everybody but the neighbours refuses: those are dialled again in time.
    for peer in &neighbours {
        overlay.handle_session_down(now, *peer, Direction::Outbound);
    }
    for _ in 0..200 {
        for peer in dials(&mut overlay) {
            dialled.insert(peer);
            overlay.handle_dial_failed(now, peer);
        }
        for peer in &everybody {
            overlay.handle_liveness(now, peer, Liveness::Silent);
        }
        now += 100;
        overlay.handle_timeout(now);
    }
    assert!(neighbours.iter().all(|peer| dialled.contains(peer)), "within 20 s");
}
