//! New keys for a machine.

use super::{healing::other, *};

#[test]
fn a_member_with_new_keys_is_the_same_member_and_its_old_key_serves_until_it_ends() {
    let mut bench = Bench::new();
    let (old, new) = (Machine::new(20), Machine::new(120));
    let _old_link = bench.open_tunnel(&old, "link", old.wireguard());
    let rotate = bench.rotation(&old, &new);
    drop(bench.submit(&rotate));
    bench.written();
    assert!(bench.state.sessions.is_linked(old.node.public()), "its link goes on");
    assert_eq!(bench.state.members_with_tunnel(), 2);
    let (_, verdict) = bench.open_tunnel(&new, "link", old.wireguard());
    assert!(verdict.ends_with("code=MU-1409"), "each key in its own tunnel: {verdict}");
    let (_, verdict) = bench.open_tunnel(&old, "ping", old.wireguard());
    assert!(verdict.starts_with("ok "), "{verdict}");
    let (_, verdict) = bench.open_tunnel(&new, "link", new.wireguard());
    assert!(verdict.starts_with("ok "), "{verdict}");
    let under = |bench: &Bench, machine: &Machine| {
        bench.state.sessions.iter().filter(|(_, s)| s.peer() == machine.node.public() && !s.is_cut()).count()
    };
    assert_eq!((under(&bench, &old), under(&bench, &new)), (2, 1));
    let endpoint = "192.0.2.1:1".parse().unwrap();
    let handshake = crate::tunnel::TunnelEvent::Handshake { wireguard: new.wireguard(), endpoint };
    bench.state.on_tunnel(handshake, bench.now);
    assert_eq!((under(&bench, &old), under(&bench, &new)), (0, 1), "the newer tunnel replaces the older");
    bench.perform();
    assert!(
        bench.deeds.contains(&Deed::CloseGate(old.wireguard())),
        "its gate goes at once: {:?}",
        bench.deeds
    );
    let retire = Payload::Retire(org_trust::Retire { old: old.node.public() });
    let retire = bench.by_node(&new.node, &retire);
    drop(bench.submit(&retire));
    bench.written();
    let (_, verdict) = bench.open_tunnel(&old, "link", old.wireguard());
    assert!(verdict.ends_with("code=MU-1415"), "{verdict}");
    bench.revoke(20);
    assert_eq!(under(&bench, &new), 0, "the old key names the machine");
}

#[test]
fn new_keys_are_used_only_once_a_member_has_answered_a_round_behind_them() {
    let mut bench = Bench::new();
    // Nobody else may be there.
    bench.revoke(30);
    bench.written();
    let (ends, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let mut sync = ends.unwrap();
    let (reply, mut answered) = oneshot::channel();
    bench.state.on_request(Ask::RotateKeys { keep_old: false }, reply, bench.now);
    bench.perform();
    assert_eq!(bench.deeds.last(), Some(&Deed::Keys(KeysOrder::Make { keep_old: false })));
    let Answer::Failed(failed) = bench.ask(Ask::RotateKeys { keep_old: false }) else { panic!("twice") };
    assert_eq!(failed.code.0, Code::RotationUnderWay);
    let made = crate::keys::KeysDone::Made(Box::new(crate::keys::NextKeys::of(key(110), key(111), key(112))));
    bench.state.on_keys(Ok(made), bench.now);
    bench.perform();
    assert!(answered.try_recv().is_err(), "not on disk");
    bench.written();
    assert!(matches!(answered.try_recv(), Ok(Answer::Keys(keys)) if keys.keys.len() == 2));
    bench.deeds.clear();
    while sync.frames.try_recv().is_ok() {}
    bench.state.on_timeout(bench.now);
    bench.perform();
    bench.written();
    let told = std::iter::from_fn(|| sync.frames.try_recv().ok()).count();
    assert!(told >= 2, "the change, and a round behind it");
    assert!(!bench.deeds.contains(&Deed::Keys(KeysOrder::UseNext)), "nobody has answered");
    // The peer answers each round that was begun, with what it holds.
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    let peer = &mut fixture::org(0).0;
    for _ in 0..8 {
        let frame = member_crdt::Session::new().open(peer);
        let mut theirs = member_crdt::Session::new();
        for answer in theirs.handle(peer, &frame).unwrap().send {
            bench.state.on_frame(key, &answer, bench.now);
        }
        bench.perform();
        if bench.deeds.contains(&Deed::Keys(KeysOrder::UseNext)) {
            break;
        }
    }
    assert!(bench.deeds.contains(&Deed::Keys(KeysOrder::UseNext)), "{:?}", bench.deeds);
    bench.state.on_keys(Ok(crate::keys::KeysDone::Done(KeysOrder::UseNext)), bench.now);
    assert!(bench.state.wants_restart());
}

#[test]
fn new_keys_wait_for_the_nearest_members_to_know_of_them_and_for_one_no_longer_than_five_seconds() {
    for both in [true, false] {
        let mut bench = Bench::compared();
        bench.fails(30, Purpose::Sync, Code::PeerUnreachable);
        let mut two = bench.sync(20);
        bench.tells_new_keys();
        assert!(
            bench.deeds.contains(&Deed::Dial(Purpose::Sync)),
            "the other is told, too: {:?}",
            bench.deeds
        );
        // This one may be hostile, and keep it to itself.
        bench.converse(20, &mut two, &mut other(&[]));
        assert!(!bench.uses_new_keys());
        if both {
            let mut three = bench.sync(30);
            bench.later(Duration::from_secs(1));
            bench.converse(30, &mut three, &mut other(&[]));
            let change = bench.state.roster.member_of(&key(10).public()).unwrap().since;
            assert!(bench.state.replica.statement(&change).is_some());
        } else {
            bench.later(Duration::from_millis(identity::limits::HEAL_DEADLINE_MS));
        }
        assert!(bench.uses_new_keys(), "{both}: {:?}", bench.deeds);
    }
}

#[test]
fn new_keys_that_nobody_accepts_for_a_minute_give_way_to_the_old_ones_and_are_told_again() {
    let mut bench = Bench::rotated();
    // Who comes to the gateway from outside says nothing about its node keys.
    let (_, verdict) = bench.open_outside(&admin(), "fetch");
    assert!(verdict.starts_with("ok "), "{verdict}");
    let back = Deed::Keys(KeysOrder::UseOld);
    for second in 0..60 {
        assert!(!bench.deeds.contains(&back), "after {second} s");
        bench.state.on_timeout(bench.now);
        bench.perform();
        bench.now.at += Duration::from_secs(1);
    }
    bench.state.on_timeout(bench.now);
    bench.perform();
    assert!(bench.deeds.contains(&back), "{:?}", bench.deeds);
    bench.state.on_keys(Ok(crate::keys::KeysDone::Done(KeysOrder::UseOld)), bench.now);
    assert!(bench.state.wants_restart());

    let mut bench = Bench::with_keys(bench.state.replica, 10, true);
    let change = bench.state.roster.member_of(&key(10).public()).unwrap().since;
    let (ends, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let mut sync = ends.unwrap();
    bench.now.at += Duration::from_secs(1);
    bench.state.on_timeout(bench.now);
    let record = Record::from(bench.state.replica.statement(&change).unwrap());
    let told = std::iter::from_fn(|| sync.frames.try_recv().ok());
    assert!({ told }.any(|frame| frame == member_crdt::Session::flood(&record)), "told again");
}

#[test]
fn the_gate_of_a_key_closes_with_the_last_link_by_that_key() {
    let mut bench = Bench::new();
    let (old, new) = (Machine::new(20), Machine::new(120));
    let _old_link = bench.open_tunnel(&old, "link", old.wireguard());
    drop(bench.submit(&bench.rotation(&old, &new)));
    bench.written();
    let _new_link = bench.open_tunnel(&new, "link", new.wireguard());
    let (key, _) = bench.state.sessions.iter().find(|(_, s)| s.peer() == new.node.public()).unwrap();
    bench.deeds.clear();
    bench.state.on_ended(key, bench.now);
    bench.perform();
    assert!(bench.deeds.contains(&Deed::CloseGate(new.wireguard())), "{:?}", bench.deeds);
    assert!(!bench.deeds.contains(&Deed::CloseGate(old.wireguard())), "its link goes on");
}

#[test]
fn new_keys_are_used_only_once_a_gateway_knows_of_them_whoever_else_does() {
    let mut bench = Bench::compared();
    bench.makes_a_gateway_of(20);
    bench.fails(20, Purpose::Sync, Code::PeerUnreachable);
    let mut three = bench.sync(30);
    bench.tells_new_keys();
    // It may be removed, as everybody else may be that it tells.
    bench.converse(30, &mut three, &mut other(&[]));
    bench.uses_no_new_keys_for_a_minute();
    bench.fails(20, Purpose::Sync, Code::PeerUnreachable);
    bench.later(Duration::from_secs(1));
    assert!(bench.deeds.contains(&Deed::Dial(Purpose::Sync)), "it is tried again: {:?}", bench.deeds);
    let mut two = bench.sync(20);
    bench.later(Duration::from_secs(1));
    bench.converse(20, &mut two, &mut other(&[]));
    assert!(bench.uses_new_keys(), "{:?}", bench.deeds);
}

#[test]
fn new_keys_wait_where_the_gateways_are_revoked_for_a_thief_may_have_done_that() {
    let mut bench = Bench::compared();
    bench.makes_a_gateway_of(20);
    bench.revoke(20);
    bench.written();
    let mut three = bench.sync(30);
    bench.tells_new_keys();
    bench.converse(30, &mut three, &mut other(&[]));
    bench.uses_no_new_keys_for_a_minute();
}

#[test]
fn new_keys_that_no_gateway_accepts_for_a_minute_give_way_whoever_else_does() {
    let mut bench = Bench::rotated();
    bench.makes_a_gateway_of(20);
    let _three = bench.sync(30);
    for second in 0..60 {
        assert!(!bench.deeds.iter().any(|deed| matches!(deed, Deed::Keys(_))), "after {second} s");
        bench.later(Duration::from_secs(1));
    }
    assert!(bench.deeds.contains(&Deed::Keys(KeysOrder::UseOld)), "{:?}", bench.deeds);
}

#[test]
fn new_keys_that_a_member_accepts_are_kept_however_long_the_old_ones_take_to_end() {
    let mut bench = Bench::rotated();
    let _link = bench.open_tunnel(&Machine::new(20), "link", Machine::new(20).wireguard());
    bench.now.at += Duration::from_secs(120);
    bench.state.on_timeout(bench.now);
    bench.perform();
    assert!(bench.deeds.contains(&Deed::Keys(KeysOrder::Promote)), "{:?}", bench.deeds);
}

#[test]
fn of_what_a_machine_says_of_itself_no_number_is_shown_that_nobody_knows() {
    let bench = Bench::rotated();
    let change = bench.state.roster.member_of(&key(10).public()).unwrap().since;
    assert_eq!(bench.state.replica.coverage(&change), None);
}

impl Bench {
    /// New settings make this member a gateway.
    fn makes_a_gateway_of(&mut self, node: u8) {
        let mut next = self.state.replica.chain().head().charter().successor();
        next.gateways.push(org_trust::Gateway { key: key(77).public(), node: key(node).public() });
        self.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], self.now);
        self.written();
    }

    /// It has made new keys, and they are on its disk.
    fn tells_new_keys(&mut self) {
        let (reply, _answered) = oneshot::channel();
        self.state.on_request(Ask::RotateKeys { keep_old: false }, reply, self.now);
        let next = crate::keys::NextKeys::of(key(110), key(111), key(112));
        self.state.on_keys(Ok(crate::keys::KeysDone::Made(Box::new(next))), self.now);
        self.perform();
        self.written();
        self.deeds.clear();
        self.state.on_timeout(self.now);
        self.perform();
        self.written();
    }

    fn uses_new_keys(&self) -> bool {
        self.deeds.contains(&Deed::Keys(KeysOrder::UseNext))
    }

    fn uses_no_new_keys_for_a_minute(&mut self) {
        for second in 0..60 {
            assert!(!self.uses_new_keys(), "after {second} s");
            self.later(Duration::from_secs(1));
        }
    }

    /// The machine runs with keys that it has rotated to.
    fn rotated() -> Self {
        let bench = Self::new();
        let rotate = bench.rotation(&Machine::new(10), &Machine::new(110));
        let mut replica = bench.state.replica;
        replica.apply(&Record::from(&rotate)).unwrap();
        Self::with_keys(replica, 110, true)
    }
}
