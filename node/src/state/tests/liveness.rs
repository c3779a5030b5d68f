//! What is said about who answers, and what does not follow from it.

use std::net::Ipv6Addr;

use control::local::{Liveness, Member as Shown, MemberStatus};

use super::*;

/// A datagram that carries news alone: node, incarnation, state (0 alive, 1 suspect, 2 down).
fn gossip(from: &PublicKey, to: &PublicKey, news: &[(PublicKey, u16, u8)]) -> Vec<u8> {
    let mut bytes = vec![7, 0, 0, 0];
    bytes.extend(from.as_bytes());
    bytes.extend(to.as_bytes());
    bytes.extend(u16::try_from(news.len()).unwrap().to_be_bytes());
    for (node, incarnation, state) in news {
        bytes.extend(node.as_bytes());
        bytes.extend(incarnation.to_le_bytes());
        bytes.push(*state);
    }
    bytes
}

struct Three {
    bench: Bench,
    me: PublicKey,
    nodes: [PublicKey; 2],
    addresses: [Ipv6Addr; 2],
}

impl Three {
    /// In step with both others.
    fn new() -> Self {
        let mut bench = Bench::new();
        for number in [20, 30] {
            let machine = Machine::new(number);
            let (_, verdict) = bench.open_tunnel(&machine, "sync", machine.wireguard());
            assert!(verdict.starts_with("ok "), "{verdict}");
        }
        let me = key(10).public();
        let nodes = [key(20).public(), key(30).public()];
        let addresses = nodes.map(|node| bench.state.roster.member_of(&node).unwrap().address);
        Self { bench, me, nodes, addresses }
    }

    /// Whose probes pass, as the tunnels were told last.
    fn probed(&self) -> Vec<Ipv6Addr> {
        let told = self.bench.probing.iter().rev();
        told.filter_map(|effect| if let Effect::Probe(who) = effect { Some(who.clone()) } else { None })
            .next()
            .unwrap()
    }

    fn says(&mut self, which: usize, news: &[(PublicKey, u16, u8)]) {
        let bytes = gossip(&self.nodes[which], &self.me, news);
        self.bench.state.on_datagram(self.addresses[which], &bytes, self.bench.now);
        self.bench.perform();
    }

    fn shown(&mut self) -> Vec<Shown> {
        let Answer::Members(members) = self.bench.ask(Ask::Members {}) else { panic!() };
        members
    }

    fn coverage(&mut self, change: StatementId) -> Answer {
        self.bench.ask(Ask::Coverage { change: Text(change) })
    }
}

#[test]
fn whoever_this_machine_keeps_in_step_with_is_probed_and_nobody_else() {
    let mut three = Three::new();
    let mut both = three.addresses.to_vec();
    both.sort_unstable();
    assert_eq!(three.probed(), both);
    three.bench.probing.clear();
    for _ in 0..20 {
        three.bench.now.at += Duration::from_millis(100);
        three.bench.state.on_timeout(three.bench.now);
        three.bench.perform();
    }
    let sent = |effect: &Effect| matches!(effect, Effect::Datagram(to, _) if three.addresses.contains(to));
    assert!(three.bench.probing.iter().filter(|effect| sent(effect)).count() >= 3);
    let (_, verdict) = three.bench.open_tunnel(&Machine::new(20), "link", Machine::new(20).wireguard());
    assert!(verdict.starts_with("ok "));
    let told = |effect: &Effect| matches!(effect, Effect::Probe(_));
    assert!(!three.bench.probing.iter().any(told), "a link is no reason");
}

#[test]
fn a_liar_about_who_answers_changes_neither_standing_nor_coverage_nor_who_is_dialled() {
    let mut three = Three::new();
    let change = three.bench.invite(1, 1);
    three.bench.written();
    let (before, covered) = (three.shown(), three.coverage(change));
    three.bench.deeds.clear();
    let [liar, other] = three.nodes;
    for turn in 0..200_u16 {
        let me = three.me;
        three.says(0, &[(other, 0, 2), (other, turn, 2), (other, u16::MAX, 2), (me, 0, 2), (me, turn, 1)]);
        three.says(0, &[(liar, turn, 0), (key(99).public(), turn, 0)]);
    }
    assert!(!three.bench.deeds.iter().any(|deed| matches!(deed, Deed::Dial(_))), "{:?}", three.bench.deeds);
    assert_eq!(three.coverage(change), covered);
    assert_eq!(three.bench.state.sessions.len(), 2, "nobody is cut");
    for (before, after) in before.iter().zip(three.shown()) {
        assert_eq!((before.status, before.revoked.is_some()), (after.status, after.revoked.is_some()));
        assert_ne!(after.liveness, Some(Liveness::Silent), "{}", after.name);
    }
}

#[test]
fn who_is_said_to_be_alive_stays_revoked_and_is_not_heard_himself() {
    let mut three = Three::new();
    three.bench.revoke(30);
    assert_eq!(three.probed(), [three.addresses[0]]);
    three.bench.deeds.clear();
    three.bench.probing.clear();
    let revoked = three.nodes[1];
    let heard = three.bench.state.members.last_heard(&revoked);
    three.bench.now.at += Duration::from_secs(1);
    for turn in 0..100 {
        three.says(0, &[(revoked, turn, 0), (revoked, u16::MAX, 0)]);
        three.says(1, &[(revoked, turn, 0)]);
    }
    let to_it = |effect: &Effect| matches!(effect, Effect::Datagram(to, _) if *to == three.addresses[1]);
    assert!(!three.bench.probing.iter().any(to_it), "it is not answered");
    assert!(three.bench.deeds.is_empty(), "{:?}", three.bench.deeds);
    assert_eq!(three.bench.state.members.last_heard(&revoked), heard);
    let shown = three.shown();
    let it = shown.iter().find(|member| member.node.0 == revoked).unwrap();
    assert_eq!((it.status, it.liveness), (MemberStatus::Revoked, None));
}

#[test]
fn a_neighbour_that_answers_no_probe_is_shown_silent_and_stays_a_member_with_its_session() {
    let mut three = Three::new();
    for _ in 0..100 {
        three.bench.now.at += Duration::from_millis(100);
        // The other goes on talking.
        three.says(0, &[]);
        three.bench.state.on_timeout(three.bench.now);
        three.bench.perform();
    }
    let shown = three.shown();
    let of = |node: PublicKey| shown.iter().find(|member| member.node.0 == node).unwrap();
    assert_eq!(of(three.nodes[1]).liveness, Some(Liveness::Silent));
    assert_eq!(of(three.nodes[1]).status, MemberStatus::Good);
    assert_ne!(of(three.nodes[0]).liveness, Some(Liveness::Silent), "who talks is not silent");
    assert_eq!(three.bench.state.sessions.len(), 2);
}
