//! A few nodes that all keep in step with one another, one clock, and a liar among them.

use std::convert::Infallible;

use identity::SecretKey;
use proptest::prelude::*;
use rand_core::TryRng;

use super::*;

/// SplitMix64.
struct Draw(u64);

impl TryRng for Draw {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|n| u32::try_from(n >> 32).unwrap_or_default())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for byte in dst {
            *byte = self.try_next_u64()?.to_le_bytes()[0];
        }
        Ok(())
    }
}

const DELAY_MS: u64 = 30;

struct Net {
    keys: Vec<PublicKey>,
    nodes: Vec<Swim<Draw>>,
    down: Vec<usize>,
    /// Datagrams per mille that are lost.
    loss: u64,
    draw: Draw,
    on_the_way: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    bytes: usize,
    now_ms: u64,
    /// What each node said of another: at what time, who, of whom, what.
    said: Vec<(u64, usize, usize, Liveness)>,
}

fn key(n: usize) -> PublicKey {
    SecretKey::from_seed(&[u8::try_from(n + 1).unwrap(); 32]).public()
}

fn node(key: &PublicKey) -> Node {
    Node(*key.as_bytes())
}

impl Net {
    fn new(nodes: usize) -> Self {
        let keys: Vec<PublicKey> = (0..nodes).map(key).collect();
        let swims = keys.iter().zip(0..).map(|(key, seed)| Swim::new(key, Draw(seed))).collect();
        let mut net = Self {
            nodes: swims,
            keys,
            down: Vec::new(),
            loss: 0,
            draw: Draw(99),
            on_the_way: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            now_ms: 0,
            said: Vec::new(),
        };
        let keys = net.keys.clone();
        for n in 0..nodes {
            net.nodes[n].handle_probed(0, keys.iter().copied());
            net.drain(n);
        }
        net
    }

    fn drain(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].poll_output() {
            match output {
                SwimOutput::Send(to, bytes) => {
                    assert!(bytes.len() <= SWIM_DATAGRAM_BYTES_MAX);
                    self.bytes += bytes.len();
                    let to = self.keys.iter().position(|key| *key == to).unwrap();
                    self.send(n, to, bytes);
                }
                SwimOutput::Changed(of, liveness) => {
                    let of = self.keys.iter().position(|key| *key == of).unwrap();
                    self.said.push((self.now_ms, n, of, liveness));
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.sent += 1;
        if self.draw.try_next_u64().unwrap() % 1000 >= self.loss {
            self.on_the_way.insert((self.now_ms + DELAY_MS, self.sent), (from, to, bytes));
        }
    }

    /// As time passes, `meanwhile` is asked each ten milliseconds what a liar sends.
    fn run(&mut self, for_ms: u64, mut meanwhile: impl FnMut(&mut Self)) {
        let end = self.now_ms + for_ms;
        while self.now_ms < end {
            self.now_ms += 10;
            meanwhile(self);
            while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now_ms)
            {
                let (from, to, bytes) = entry.remove();
                if !self.down.contains(&to) && !self.down.contains(&from) {
                    let from = self.keys[from];
                    // A liar's may be refused.
                    let _refused = self.nodes[to].handle_datagram(self.now_ms, &from, &bytes);
                    self.drain(to);
                }
            }
            for n in 0..self.nodes.len() {
                if !self.down.contains(&n) && self.nodes[n].poll_timeout().is_some_and(|at| at <= self.now_ms)
                {
                    self.nodes[n].handle_timeout(self.now_ms);
                    self.drain(n);
                    assert!(self.nodes[n].poll_timeout().is_none_or(|at| at > self.now_ms));
                }
            }
        }
    }

    fn sees(&self, n: usize, of: usize) -> Liveness {
        self.nodes[n].liveness(&self.keys[of]).unwrap()
    }

    /// What honest nodes said of honest nodes that are up.
    fn said_of_honest(&self, liar: usize) -> Vec<Liveness> {
        let honest = |n: &usize| *n != liar && !self.down.contains(n);
        self.said.iter().filter(|(_, n, of, _)| honest(n) && honest(of)).map(|said| said.3).collect()
    }

    fn gossip(&self, liar: usize, to: usize, news: Vec<Member<Node>>) -> Vec<u8> {
        let header = Header {
            src: node(&self.keys[liar]),
            src_incarnation: 0,
            dst: node(&self.keys[to]),
            message: Message::Gossip,
        };
        Datagram { header, news }.encode().unwrap()
    }
}

#[test]
fn a_member_that_stops_answering_is_suspected_then_silent_and_alive_when_it_is_heard_again() {
    let mut net = Net::new(5);
    net.run(10_000, |_| ());
    assert!(net.said.is_empty(), "nothing changes while all answer: {:?}", net.said);
    net.down = vec![3];
    let died = net.now_ms;
    net.run(10_000, |_| ());
    for n in [0, 1, 2, 4] {
        let of_it: Vec<(u64, Liveness)> =
            net.said.iter().filter(|said| said.1 == n && said.2 == 3).map(|said| (said.0, said.3)).collect();
        assert_eq!(
            of_it.iter().map(|said| said.1).collect::<Vec<_>>(),
            [Liveness::Suspect, Liveness::Silent]
        );
        assert!(of_it[0].0 - died <= 2 * SWIM_PROBE_MS + 1_500, "suspected in time: {of_it:?}");
        assert!(of_it[1].0 - died <= 8_000, "silent in time: {of_it:?}");
    }
    net.down.clear();
    net.run(10_000, |_| ());
    assert!((0..5).all(|n| (0..5).filter(|of| *of != n).all(|of| net.sees(n, of) == Liveness::Alive)));
}

#[test]
fn who_loses_one_datagram_of_ten_is_not_silent() {
    let mut net = Net::new(5);
    net.loss = 100;
    net.run(120_000, |_| ());
    let silent = net.said.iter().filter(|said| said.3 == Liveness::Silent).count();
    assert_eq!(silent, 0);
    net.loss = 0;
    net.run(10_000, |_| ());
    assert!((0..5).all(|n| (0..5).filter(|of| *of != n).all(|of| net.sees(n, of) == Liveness::Alive)));
}

#[test]
fn a_liar_who_says_that_all_others_are_dead_silences_nobody() {
    let mut net = Net::new(5);
    net.run(3_000, |_| ());
    let mut turn = 0_u16;
    net.run(60_000, |net| {
        turn += 1;
        for to in 1..5 {
            let others = (1..5).map(|of| node(&net.keys[of]));
            // With the right incarnation, the next, the last there is, and any.
            let news = others
                .flat_map(|of| {
                    [net.nodes[to].world.told, turn, turn % 7, Incarnation::MAX].map(|incarnation| {
                        Member::new(of, incarnation, [State::Down, State::Suspect][usize::from(turn % 2)])
                    })
                })
                .take(11)
                .collect();
            let bytes = net.gossip(0, to, news);
            net.send(0, to, bytes);
        }
    });
    let said = net.said_of_honest(0);
    assert!(said.contains(&Liveness::Suspect), "the lies did arrive");
    assert!(!said.contains(&Liveness::Silent));
    net.run(5_000, |_| ());
    assert!((1..5).all(|n| (0..5).filter(|of| *of != n).all(|of| net.sees(n, of) == Liveness::Alive)));
}

#[test]
fn a_liar_keeps_no_dead_member_alive() {
    let mut net = Net::new(5);
    net.run(3_000, |_| ());
    net.down = vec![4];
    let mut turn = 0_u16;
    net.run(10_000, |net| {
        turn += 1;
        for to in 1..4 {
            let news = [turn, Incarnation::MAX, 0].map(|i| Member::new(node(&net.keys[4]), i, State::Alive));
            let bytes = net.gossip(0, to, news.to_vec());
            net.send(0, to, bytes);
            // And as a probe that another is to have answered.
            let header = Header {
                src: node(&net.keys[0]),
                src_incarnation: 0,
                dst: node(&net.keys[to]),
                message: Message::Ack(u8::try_from(turn % 256).unwrap()),
            };
            let bytes = Datagram { header, news: Vec::new() }.encode().unwrap();
            net.send(0, to, bytes);
        }
    });
    for n in 1..4 {
        assert_eq!(net.sees(n, 4), Liveness::Silent);
    }
}

#[test]
fn a_helper_that_vouches_for_a_dead_member_is_believed() {
    // Who is asked to try another may say that it answered. It takes the helper that was asked, and the
    // number of the probe, each time; and no session lives longer for it.
    let mut net = Net::new(3);
    net.run(3_000, |_| ());
    net.down = vec![2];
    net.run(60_000, |net| {
        let asked: Vec<(u64, u64)> = net
            .on_the_way
            .iter()
            .filter(|(_, (_, to, bytes))| *to == 0 && bytes.first() == Some(&3))
            .map(|(at, _)| *at)
            .collect();
        for at in asked {
            let Some((from, _, bytes)) = net.on_the_way.remove(&at) else { continue };
            let number = bytes[1];
            let header = Header {
                src: node(&net.keys[0]),
                src_incarnation: 0,
                dst: node(&net.keys[from]),
                message: Message::ForwardedAck { origin: node(&net.keys[2]), probe_number: number },
            };
            let bytes = Datagram { header, news: Vec::new() }.encode().unwrap();
            net.send(0, from, bytes);
        }
    });
    assert_ne!(net.sees(1, 2), Liveness::Silent);
    assert_eq!(net.sees(0, 2), Liveness::Silent);
}

#[test]
fn datagrams_in_anothers_name_or_from_strangers_are_dropped() {
    let mut net = Net::new(4);
    let now = net.now_ms;
    let news = vec![Member::new(node(&net.keys[2]), 0, State::Suspect)];
    let in_its_name = net.gossip(2, 1, news.clone());
    assert_eq!(net.nodes[1].handle_datagram(now, &net.keys[0], &in_its_name), Err(SwimError::Forged));
    let to_another = net.gossip(0, 3, news.clone());
    assert_eq!(net.nodes[1].handle_datagram(now, &net.keys[0], &to_another), Err(SwimError::Forged));
    let good = net.gossip(0, 1, news);
    assert_eq!(net.nodes[1].handle_datagram(now, &key(9), &good), Err(SwimError::NotProbed));
    let rest: Vec<PublicKey> = net.keys[1..].to_vec();
    net.nodes[1].handle_probed(now, rest);
    assert_eq!(net.nodes[1].handle_datagram(now, &net.keys[0], &good), Err(SwimError::NotProbed));
    assert_eq!(net.nodes[1].liveness(&net.keys[0]), None);
    assert_eq!(net.nodes[1].liveness(&net.keys[2]), Some(Liveness::Alive));
}

#[test]
fn who_talks_of_a_million_unknown_members_fills_no_memory() {
    let mut net = Net::new(3);
    for n in 0..100_000_u32 {
        let news = (0..11_u32).map(|i| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&(11 * n + i).to_le_bytes());
            Member::new(Node(id), 0, [State::Alive, State::Suspect, State::Down][(n % 3) as usize])
        });
        let bytes = net.gossip(0, 1, news.collect());
        assert_eq!(net.nodes[1].handle_datagram(5, &net.keys[0], &bytes), Ok(()));
    }
    let swim = &net.nodes[1];
    assert_eq!(swim.foca.iter_membership_state().len(), 2);
    assert!(swim.foca.updates_backlog() <= 2 && swim.world.timers.len() <= 4 && swim.outputs.is_empty());
}

#[test]
fn a_flood_gets_no_more_datagrams_out_of_a_node_than_it_brings() {
    let mut net = Net::new(6);
    net.run(1_000, |_| ());
    let before = net.sent;
    let (mut brought, honest) = (0, 10 * 10 * 6);
    net.run(10_000, |net| {
        // All that can make a node speak: asked for itself, for another, suspected, and suspecting.
        let about = node(&net.keys[2]);
        for message in [
            Message::Ping(1),
            Message::PingReq { target: about, probe_number: 1 },
            Message::IndirectPing { origin: about, probe_number: 1 },
            Message::IndirectAck { target: about, probe_number: 1 },
        ] {
            let header =
                Header { src: node(&net.keys[0]), src_incarnation: 0, dst: node(&net.keys[1]), message };
            let told = net.nodes[1].world.told;
            let news =
                [(1, told), (2, 0), (3, 0)].map(|(of, i)| Member::new(node(&net.keys[of]), i, State::Down));
            let bytes = Datagram { header, news: news.to_vec() }.encode().unwrap();
            net.send(0, 1, bytes);
            brought += 1;
        }
    });
    let sent = net.sent - before - brought;
    assert!(sent <= brought * 2 + honest, "{sent} for {brought}");
    assert!(!net.said_of_honest(0).contains(&Liveness::Silent));
}

#[test]
fn who_is_suspected_more_often_than_can_be_counted_begins_anew() {
    let mut net = Net::new(3);
    net.run(2_000, |_| ());
    let mut now = net.now_ms;
    for _ in 0..=u32::from(Incarnation::MAX) {
        now += SWIM_PROBE_MS;
        let news = vec![Member::new(node(&net.keys[1]), net.nodes[1].world.told, State::Suspect)];
        let bytes = net.gossip(0, 1, news);
        net.nodes[1].handle_datagram(now, &net.keys[0], &bytes).unwrap();
        while net.nodes[1].poll_output().is_some() {}
    }
    assert!(net.nodes[1].world.told < 10);
    net.now_ms = now;
    net.run(10_000, |_| ());
    assert!((0..3).all(|n| (0..3).filter(|of| *of != n).all(|of| net.sees(n, of) == Liveness::Alive)));
}

#[test]
fn what_a_node_sends_does_not_grow_with_the_members_it_probes() {
    let each_second = |nodes: usize| {
        let mut net = Net::new(nodes);
        net.run(60_000, |_| ());
        (net.sent / nodes as u64 / 60, net.bytes / nodes / 60)
    };
    assert_eq!(each_second(4), each_second(7));
    let (datagrams, bytes) = each_second(7);
    assert!(datagrams <= 5 && bytes <= 400, "{datagrams} datagrams, {bytes} B/s");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn junk_changes_nothing(mut bytes in prop::collection::vec(any::<u8>(), 0..600), with_header: bool, kind in 0..9_u8) {
        let mut net = Net::new(3);
        if with_header {
            let mut header = vec![kind, 0, 0, 0];
            header.extend(net.keys[0].as_bytes());
            header.extend(net.keys[1].as_bytes());
            header.append(&mut bytes);
            bytes = header;
        }
        let from = net.keys[0];
        if let Ok(datagram) = Datagram::decode(&bytes) {
            prop_assert_eq!(datagram.encode().unwrap(), bytes.clone(), "one encoding");
        }
        let _refused = net.nodes[1].handle_datagram(5, &from, &bytes);
        prop_assert_eq!(net.sees(1, 2), Liveness::Alive);
        prop_assert_eq!(net.nodes[1].foca.iter_membership_state().len(), 2);
    }
}
