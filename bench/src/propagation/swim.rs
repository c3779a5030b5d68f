//! What SWIM costs each node of an org, and how soon the neighbours of a node that died know of it: real
//! `overlay::Swim`s among the sessions that real `overlay::Overlay`s made.

use std::{collections::HashMap, convert::Infallible};

use identity::PublicKey;
use overlay::{Liveness, Swim, SwimOutput};
use rand_core::TryRng;

use super::{
    Failure, count,
    flood::Graph,
    network::{Agenda, Draw, Network},
};

/// Everybody is up for so long, then some die and are looked for.
const UP_MS: f64 = 30_000.0;
const END_MS: f64 = 45_000.0;
/// Every so manieth node dies.
const DIES: usize = 100;
/// What UDP, IPv6, WireGuard and UDP over IPv4 put around a datagram.
const AROUND_BYTES: u64 = 8 + 40 + 32 + 28;

impl TryRng for Draw {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        dst.fill_with(|| self.next().to_le_bytes()[0]);
        Ok(())
    }
}

/// What one org's SWIM came to.
pub(super) struct Probing {
    pub(super) datagrams_each_s: f64,
    /// On the wire, with everything around them.
    pub(super) bytes_each_s: f64,
    /// Of the node that sends most.
    pub(super) bytes_each_s_most: f64,
    /// Times that a node took another for silent which was up.
    pub(super) mistakes: u64,
    /// From each death to each neighbour's knowing of it, in milliseconds.
    pub(super) noticed_ms: Vec<f64>,
    /// Neighbours that did not know in time.
    pub(super) unnoticed: u64,
}

enum Event {
    Arrives { from: usize, to: usize, bytes: Vec<u8> },
    Timer(usize),
}

struct Org<'a> {
    nodes: Vec<Swim<Draw>>,
    keys: &'a [PublicKey],
    numbers: &'a HashMap<PublicKey, usize>,
    network: &'a Network,
    agenda: Agenda<Event>,
    draw: Draw,
    sent: Vec<(u64, u64)>,
    probing: Probing,
}

pub(super) fn probe(graph: &Graph, network: &Network, seed: u64) -> Result<Probing, Failure> {
    let nodes = graph.keys().iter().zip(seed << 32..).map(|(key, n)| Swim::new(key, Draw::new(n))).collect();
    let probing = Probing {
        datagrams_each_s: 0.0,
        bytes_each_s: 0.0,
        bytes_each_s_most: 0.0,
        mistakes: 0,
        noticed_ms: Vec::new(),
        unnoticed: 0,
    };
    let mut org = Org {
        nodes,
        keys: graph.keys(),
        numbers: graph.numbers(),
        network,
        agenda: Agenda::new(),
        draw: Draw::new(seed ^ 0x7377_696d),
        sent: vec![(0, 0); graph.keys().len()],
        probing,
    };
    for node in 0..graph.keys().len() {
        let peers: Vec<PublicKey> = graph.peers(node).collect();
        // They did not start at one moment.
        let start = org.draw.uniform() * 500.0;
        org.tell(start, node, |swim, now| swim.handle_probed(now, peers));
    }
    org.run(UP_MS, false);
    let seconds = UP_MS / 1_000.0;
    let all = count(graph.keys().len()) * seconds;
    org.probing.datagrams_each_s = org.sent.iter().map(|(n, _)| count(*n)).sum::<f64>() / all;
    org.probing.bytes_each_s = org.sent.iter().map(|(_, bytes)| count(*bytes)).sum::<f64>() / all;
    let most = org.sent.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    org.probing.bytes_each_s_most = count(most) / seconds;
    org.run(END_MS, true);
    let neighbours = |node: usize| graph.peers(node).filter(|peer| !dies(org.numbers, peer)).count();
    let dead = (0..graph.keys().len()).filter(|node| node.is_multiple_of(DIES));
    let expected: usize = dead.map(neighbours).sum();
    org.probing.unnoticed = u64::try_from(expected.saturating_sub(org.probing.noticed_ms.len()))?;
    Ok(org.probing)
}

fn dies(numbers: &HashMap<PublicKey, usize>, key: &PublicKey) -> bool {
    numbers.get(key).is_some_and(|node| node.is_multiple_of(DIES))
}

impl Org<'_> {
    fn run(&mut self, until: f64, some_are_dead: bool) {
        let is_dead = |node: usize| some_are_dead && node.is_multiple_of(DIES);
        while let Some((now, event)) = self.agenda.next(until) {
            match event {
                Event::Arrives { from, to, bytes } if !is_dead(to) => {
                    let Some(&sender) = self.keys.get(from) else { continue };
                    self.tell(now, to, |swim, now| {
                        // Nobody lies here.
                        let _taken = swim.handle_datagram(now, &sender, &bytes);
                    });
                }
                Event::Timer(node) if !is_dead(node) => self.tell(now, node, |swim, now| {
                    if swim.poll_timeout().is_some_and(|at| at <= now) {
                        swim.handle_timeout(now);
                    }
                }),
                Event::Arrives { .. } | Event::Timer(_) => {}
            }
        }
    }

    fn tell(&mut self, now: f64, node: usize, what: impl FnOnce(&mut Swim<Draw>, u64)) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of a minute"
        )]
        let now_ms = now as u64;
        let Some(swim) = self.nodes.get_mut(node) else { return };
        let before = swim.poll_timeout();
        what(swim, now_ms);
        while let Some(output) = swim.poll_output() {
            match output {
                SwimOutput::Send(to, bytes) => {
                    let Some(&to) = self.numbers.get(&to) else { continue };
                    if let Some((datagrams, sum)) = self.sent.get_mut(node) {
                        *datagrams += 1;
                        *sum += bytes.len() as u64 + AROUND_BYTES;
                    }
                    if !self.network.loses(&mut self.draw) {
                        let at = now + self.network.delay_ms(node, to);
                        self.agenda.add(at, Event::Arrives { from: node, to, bytes });
                    }
                }
                SwimOutput::Changed(of, Liveness::Silent) => {
                    if now > UP_MS && dies(self.numbers, &of) {
                        self.probing.noticed_ms.push(now - UP_MS);
                    } else {
                        self.probing.mistakes += 1;
                    }
                }
                SwimOutput::Changed(..) => {}
            }
        }
        let after = swim.poll_timeout();
        if let Some(at) = after.filter(|_| after != before || before.is_some_and(|at| at <= now_ms)) {
            self.agenda.add(count(at).max(now + 1.0), Event::Timer(node));
        }
    }
}
