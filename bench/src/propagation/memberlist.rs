//! HashiCorp's memberlist with the settings of its `DefaultLANConfig`, as far as they bear on one user
//! broadcast among nodes that are all alive and know one another. Read from its source (state.go, net.go,
//! queue.go, util.go): only the behaviour is modelled, nothing is copied.

use super::{
    Failure, Spread,
    network::{Agenda, Draw, Network},
};

const GOSSIP_INTERVAL_MS: f64 = 200.0;
const GOSSIP_NODES: usize = 3;
const RETRANSMIT_MULT: u32 = 4;
const PROBE_INTERVAL_MS: f64 = 1_000.0;
const PUSH_PULL_INTERVAL_MS: f64 = 30_000.0;
const WORK_MS: f64 = 0.1;
/// Far beyond any run seen.
const GIVE_UP_MS: f64 = 120_000.0;

enum Event {
    /// A packet with the broadcast arrives.
    Arrives(usize),
    Gossip(usize),
    /// A node probes another: both packets carry broadcasts.
    Probe(usize),
    /// A probe reaches a node, which answers the prober.
    Probed {
        node: usize,
        by: usize,
        carries: bool,
    },
    PushPull(usize),
    /// A node's state, complete with what it has, reaches another, which answers with its own if asked to.
    Merge {
        from: usize,
        to: usize,
        answers: bool,
        carries: bool,
    },
}

struct Cluster<'a> {
    network: &'a Network,
    draw: Draw,
    agenda: Agenda<Event>,
    /// When each node had it.
    had_ms: Vec<Option<f64>>,
    /// How often each node sent it.
    sent: Vec<u32>,
    limit: u32,
    messages: u64,
}

/// From the first node's queue to every node.
pub(super) fn spread(nodes: usize, network: &Network, seed: u64) -> Result<Spread, Failure> {
    let digits = u32::try_from(nodes.to_string().len())?;
    // ceil(log10(n + 1)) is the number of digits of n.
    let mut cluster = Cluster {
        network,
        draw: Draw::new(seed ^ 0x6d65_6d62),
        agenda: Agenda::new(),
        had_ms: vec![None; nodes],
        sent: vec![0; nodes],
        limit: RETRANSMIT_MULT * digits,
        messages: 0,
    };
    let push_pull = push_pull_interval(nodes);
    for node in 0..nodes {
        // Tickers run since each node's start, whenever that was.
        let phase = cluster.draw.uniform();
        cluster.agenda.add(phase * PROBE_INTERVAL_MS, Event::Probe(node));
        let phase = cluster.draw.uniform();
        cluster.agenda.add(phase * push_pull, Event::PushPull(node));
    }
    cluster.agenda.add(0.0, Event::Arrives(0));
    let mut missing = nodes;
    while let Some((now, event)) = cluster.agenda.next(GIVE_UP_MS) {
        missing -= usize::from(cluster.happen(now, event, push_pull));
        if missing == 0 {
            let arrivals_ms = cluster.had_ms.into_iter().flatten().collect();
            return Ok(Spread { arrivals_ms, messages: cluster.messages });
        }
    }
    Err(format!("memberlist: {missing} of {nodes} nodes did not get it in {GIVE_UP_MS} ms").into())
}

/// Stretched so that a large cluster does not exchange all the time.
fn push_pull_interval(nodes: usize) -> f64 {
    let doublings = (super::count(nodes).log2() - 5.0).ceil();
    if nodes <= 32 { PUSH_PULL_INTERVAL_MS } else { PUSH_PULL_INTERVAL_MS * (doublings + 1.0) }
}

impl Cluster<'_> {
    /// Whether a node got it that did not have it.
    fn happen(&mut self, now: f64, event: Event, push_pull: f64) -> bool {
        match event {
            Event::Arrives(node) => return self.take(now, node),
            Event::Gossip(node) => {
                let mut chosen = Vec::new();
                while chosen.len() < GOSSIP_NODES {
                    let other = self.other(node);
                    if !chosen.contains(&other) {
                        chosen.push(other);
                    }
                }
                for to in chosen {
                    if self.queued(node) {
                        self.send(now, node, to);
                    }
                }
                if self.may_send(node) {
                    self.agenda.add(now + GOSSIP_INTERVAL_MS, Event::Gossip(node));
                }
            }
            Event::Probe(node) => {
                self.agenda.add(now + PROBE_INTERVAL_MS, Event::Probe(node));
                let to = self.other(node);
                let carries = self.queued(node);
                self.messages += u64::from(carries);
                if !self.network.loses(&mut self.draw) {
                    let at = now + self.network.delay_ms(node, to);
                    self.agenda.add(at, Event::Probed { node: to, by: node, carries });
                }
            }
            Event::Probed { node, by, carries } => {
                let is_new = carries && self.take(now, node);
                if self.queued(node) {
                    self.send(now, node, by);
                }
                return is_new;
            }
            Event::PushPull(node) => {
                self.agenda.add(now + push_pull, Event::PushPull(node));
                let to = self.other(node);
                // SYN, SYN and ACK, then the state.
                let at = now + 2.0 * self.network.delay_ms(node, to) + self.segment(node, to);
                self.merge(now, at, node, to, true);
            }
            Event::Merge { from, to, answers, carries } => {
                if answers {
                    let at = now + self.segment(to, from);
                    self.merge(now, at, to, from, false);
                }
                return carries && self.take(now, to);
            }
        }
        false
    }

    fn merge(&mut self, now: f64, at: f64, from: usize, to: usize, answers: bool) {
        let carries = self.had_ms.get(from).copied().flatten().is_some_and(|had| had <= now);
        self.agenda.add(at, Event::Merge { from, to, answers, carries });
    }

    fn segment(&mut self, from: usize, to: usize) -> f64 {
        self.network.segment_ms(from, to, &mut self.draw)
    }

    fn take(&mut self, now: f64, node: usize) -> bool {
        let Some(had @ None) = self.had_ms.get_mut(node) else { return false };
        *had = Some(now);
        let phase = self.draw.uniform();
        self.agenda.add(now + WORK_MS + phase * GOSSIP_INTERVAL_MS, Event::Gossip(node));
        true
    }

    fn may_send(&self, node: usize) -> bool {
        self.sent.get(node).is_some_and(|sent| *sent < self.limit)
    }

    /// Takes the broadcast out of a node's queue for one packet, if it is there.
    fn queued(&mut self, node: usize) -> bool {
        let has = self.had_ms.get(node).is_some_and(Option::is_some) && self.may_send(node);
        if let Some(sent) = self.sent.get_mut(node).filter(|_| has) {
            *sent += 1;
        }
        has
    }

    fn send(&mut self, now: f64, from: usize, to: usize) {
        self.messages += 1;
        if !self.network.loses(&mut self.draw) {
            self.agenda.add(now + self.network.delay_ms(from, to), Event::Arrives(to));
        }
    }

    fn other(&mut self, node: usize) -> usize {
        loop {
            let other = self.draw.below(self.had_ms.len());
            if other != node {
                return other;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_limits_are_memberlists() {
        assert!((push_pull_interval(32) - 30_000.0).abs() < 1.0);
        assert!((push_pull_interval(33) - 60_000.0).abs() < 1.0);
        assert!((push_pull_interval(1_000) - 180_000.0).abs() < 1.0);
        assert!((push_pull_interval(10_000) - 300_000.0).abs() < 1.0);
    }

    #[test]
    fn a_thousand_nodes_take_as_long_as_was_measured_with_another_simulator() {
        let last = |seed| {
            let spread = spread(1_000, &Network::new(seed, 0), seed).unwrap();
            spread.arrivals_ms.iter().copied().fold(0.0, f64::max)
        };
        let mean = (0..5).map(last).sum::<f64>() / 5.0;
        assert!((1_000.0..1_500.0).contains(&mean), "{mean} ms");
    }
}
