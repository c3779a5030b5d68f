//! Real overlays dial one another; then one change is flooded over their sessions.

use std::collections::{HashMap, VecDeque};

use identity::{HashContext, PublicKey, SecretKey, limits::TIPS_INTERVAL_MS};
use overlay::{Direction, Output, Overlay, Rings};

use super::{
    Failure, Spread, count,
    network::{Agenda, Draw, Network},
};

/// By then everybody has dialled, been refused and dialled again.
const SETTLED_MS: f64 = 60_000.0;
/// TCP, then conn_auth as far as VERDICT.
const DIAL_TRIPS: f64 = 4.0;
const WORK_MS: f64 = 0.1;
const GIVE_UP_MS: f64 = 60_000.0;
const TIPS_INTERVAL: f64 = TIPS_INTERVAL_MS as f64;

/// On a session.
enum Passing {
    Record {
        to: usize,
        from: Option<usize>,
    },
    /// It is time to compare what two nodes hold.
    Compare {
        node: usize,
        peer: usize,
    },
    Tips {
        by: usize,
        to: usize,
        shown: bool,
    },
}

enum Event {
    Dialled { from: usize, to: usize },
    Ended { node: usize, peer: usize, direction: Direction },
    Timer(usize),
}

/// Whom every node keeps sessions with.
pub(super) struct Graph {
    nodes: Vec<Overlay>,
    keys: Vec<PublicKey>,
    numbers: HashMap<PublicKey, usize>,
    seed: u64,
}

struct Forming {
    graph: Graph,
    network: Network,
    agenda: Agenda<Event>,
}

impl Graph {
    /// All start at once and know one another.
    pub(super) fn form(nodes: usize, seed: u64) -> Result<Self, Failure> {
        let key = |n: usize| {
            let seed = HashContext::STATEMENT_ID.hash(&[&seed.to_le_bytes(), &n.to_le_bytes()]);
            SecretKey::from_seed(&seed).public()
        };
        let keys: Vec<PublicKey> = (0..nodes).map(key).collect();
        let overlays = keys.iter().zip(seed << 32..).map(|(key, seed)| Overlay::new(*key, seed)).collect();
        let numbers = keys.iter().copied().zip(0..).collect();
        let graph = Self { nodes: overlays, keys, numbers, seed };
        let mut forming = Forming { graph, network: Network::new(seed, 0), agenda: Agenda::new() };
        let rings = Rings::new(forming.graph.keys.iter().copied());
        for node in 0..nodes {
            forming.tell(0.0, node, |overlay, now| overlay.handle_rings(now, rings.clone()));
        }
        while let Some((now, event)) = forming.agenda.next(SETTLED_MS) {
            forming.happen(now, event);
        }
        match forming.graph.reached().iter().all(Option::is_some) {
            true => Ok(forming.graph),
            false => Err("the sessions do not connect all nodes".into()),
        }
    }

    /// Until every node has what the first one signed.
    pub(super) fn flood(&self, network: &Network) -> Result<Spread, Failure> {
        let mut draw = Draw::new(self.seed ^ 0x666c_6f6f);
        let mut agenda = Agenda::new();
        let mut arrivals: Vec<Option<f64>> = vec![None; self.nodes.len()];
        let (mut messages, mut missing) = (0, self.nodes.len());
        agenda.add(0.0, Passing::Record { to: 0, from: None });
        for node in 0..self.nodes.len() {
            for peer in self.targets(node, None).filter(|peer| self.compares(node, *peer)) {
                agenda.add(draw.uniform() * TIPS_INTERVAL, Passing::Compare { node, peer });
            }
        }
        while missing > 0 {
            let Some((now, passing)) = agenda.next(GIVE_UP_MS) else {
                return Err("the flood did not reach all nodes".into());
            };
            let has = |node: usize| arrivals.get(node).is_some_and(Option::is_some);
            match passing {
                Passing::Record { to, from } => {
                    let Some(arrival @ None) = arrivals.get_mut(to) else { continue };
                    *arrival = Some(now);
                    missing -= 1;
                    for peer in self.targets(to, from) {
                        messages += 1;
                        let at = now + WORK_MS + network.segment_ms(to, peer, &mut draw);
                        agenda.add(at, Passing::Record { to: peer, from: Some(to) });
                    }
                }
                Passing::Compare { node, peer } => {
                    let at = now + network.segment_ms(node, peer, &mut draw);
                    agenda.add(at, Passing::Tips { by: node, to: peer, shown: has(node) });
                    agenda.add(now + TIPS_INTERVAL, Passing::Compare { node, peer });
                }
                // Who lacks it asks and is sent it, or is sent it with the answer.
                Passing::Tips { by, to, shown } if shown != has(to) => {
                    messages += 1;
                    let way = network.segment_ms(to, by, &mut draw);
                    let back = if shown { network.segment_ms(by, to, &mut draw) } else { 0.0 };
                    let (from, to) = if shown { (by, to) } else { (to, by) };
                    agenda.add(now + way + back, Passing::Record { to, from: Some(from) });
                }
                Passing::Tips { .. } => {}
            }
        }
        Ok(Spread { arrivals_ms: arrivals.into_iter().flatten().collect(), messages })
    }

    fn targets(&self, node: usize, source: Option<usize>) -> impl Iterator<Item = usize> {
        let source = source.and_then(|source| self.keys.get(source));
        let targets = self.nodes.get(node).into_iter().flat_map(move |n| n.flood_targets(source));
        targets.filter_map(|(peer, _)| self.numbers.get(&peer).copied())
    }

    pub(super) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    pub(super) const fn numbers(&self) -> &HashMap<PublicKey, usize> {
        &self.numbers
    }

    /// Whom a node has sessions with.
    pub(super) fn peers(&self, node: usize) -> impl Iterator<Item = PublicKey> {
        self.nodes.get(node).into_iter().flat_map(|node| node.sessions().map(|(peer, _)| peer))
    }

    fn compares(&self, node: usize, peer: usize) -> bool {
        let peer = self.keys.get(peer);
        self.nodes.get(node).zip(peer).is_some_and(|(node, peer)| node.compares(peer))
    }

    /// The most sessions of a node that compare ends again and again.
    pub(super) fn compared_most(&self) -> usize {
        let compared = |node: &Overlay| node.sessions().filter(|(peer, _)| node.compares(peer)).count();
        self.nodes.iter().map(compared).max().unwrap_or(0)
    }

    pub(super) fn sessions_most(&self) -> usize {
        self.nodes.iter().map(|node| node.sessions().count()).max().unwrap_or(0)
    }

    pub(super) fn sessions_mean(&self) -> f64 {
        let all: usize = self.nodes.iter().map(|node| node.sessions().count()).sum();
        count(all) / count(self.nodes.len())
    }

    /// The most sessions between the first node and any other.
    pub(super) fn steps(&self) -> usize {
        self.reached().into_iter().flatten().max().unwrap_or(0)
    }

    fn reached(&self) -> Vec<Option<usize>> {
        let mut steps = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([(0, 0)]);
        while let Some((node, step)) = queue.pop_front() {
            if let Some(reached @ None) = steps.get_mut(node) {
                *reached = Some(step);
                queue.extend(self.targets(node, None).map(|peer| (peer, step + 1)));
            }
        }
        steps
    }
}

impl Forming {
    fn happen(&mut self, now: f64, event: Event) {
        match event {
            Event::Dialled { from, to } => {
                let (Some(&dialler), Some(&acceptor)) = (self.key(from), self.key(to)) else { return };
                self.tell(now, from, |o, now| o.handle_session_up(now, acceptor, Direction::Outbound));
                self.tell(now, to, |o, now| o.handle_session_up(now, dialler, Direction::Inbound));
            }
            Event::Ended { node, peer, direction } => {
                let Some(&peer) = self.key(peer) else { return };
                self.tell(now, node, |o, now| o.handle_session_down(now, peer, direction));
            }
            Event::Timer(node) => self.tell(now, node, |o, now| {
                // A timer that was told before a nearer one may have nothing to do.
                if o.poll_timeout().is_some_and(|at| at <= now) {
                    o.handle_timeout(now);
                }
            }),
        }
    }

    fn key(&self, node: usize) -> Option<&PublicKey> {
        self.graph.keys.get(node)
    }

    fn tell(&mut self, now: f64, node: usize, what: impl FnOnce(&mut Overlay, u64)) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of a minute"
        )]
        let now_ms = now as u64;
        let Some(overlay) = self.graph.nodes.get_mut(node) else { return };
        let before = overlay.poll_timeout();
        what(overlay, now_ms);
        while let Some(output) = overlay.poll_output() {
            let ended = |peer: PublicKey, direction| (peer, Some(direction));
            let (peer, end) = match output {
                Output::Dial(peer) => (peer, None),
                Output::Cut(peer, direction) | Output::Drop(peer, direction) => ended(peer, direction),
                Output::Refuse(peer) => ended(peer, Direction::Inbound),
                Output::ExchangeTips(..) => continue,
            };
            let Some(&peer) = self.graph.numbers.get(&peer) else { continue };
            let delay = self.network.delay_ms(node, peer);
            match end {
                None => self.agenda.add(now + DIAL_TRIPS * delay, Event::Dialled { from: node, to: peer }),
                Some(direction) => {
                    let direction = match direction {
                        Direction::Inbound => Direction::Outbound,
                        Direction::Outbound => Direction::Inbound,
                    };
                    self.agenda.add(now + delay, Event::Ended { node: peer, peer: node, direction });
                }
            }
        }
        let after = overlay.poll_timeout();
        if let Some(at) = after.filter(|_| after != before || before.is_some_and(|at| at <= now_ms)) {
            self.agenda.add((count(at)).max(now + 1.0), Event::Timer(node));
        }
    }
}
