//! New keys for a machine.

use super::*;

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
