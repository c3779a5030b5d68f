//! Whose sessions and tunnels end, and when.

use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::tunnel::TunnelEvent;

#[test]
fn a_link_opens_the_gate_before_its_verdict_and_a_revocation_closes_it_before_all_else() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let (mut ends, verdict) = bench.open_tunnel(&other, "link", other.wireguard.public().to_wireguard());
    assert!(verdict.starts_with("ok "), "{verdict}");
    let wireguard = other.wireguard.public().to_wireguard();
    assert_eq!(bench.deeds, [Deed::OpenGate(wireguard), Deed::Decide]);
    bench.deeds.clear();
    bench.revoke(20);
    assert_eq!(bench.deeds.first(), Some(&Deed::CloseGate(wireguard)), "{:?}", bench.deeds);
    assert!(!bench.deeds.iter().any(|deed| matches!(deed, Deed::Peers(..))), "its tunnel carries the reason");
    let cut = ends.as_mut().unwrap().cut.try_recv().unwrap();
    assert_eq!(cut.code, Code::Revoked);
    assert!(cut.reason.contains("by ada"), "{}", cut.reason);
    bench.deeds.clear();
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    bench.state.on_ended(key, bench.now);
    bench.perform();
    assert_eq!(bench.deeds.last(), Some(&Deed::Peers(0)), "once told, its tunnel goes");
    let (_, verdict) = bench.open_tunnel(&other, "link", wireguard);
    assert!(verdict.ends_with("code=MU-1403"), "{verdict}");
}

#[test]
fn a_quiet_link_is_closed_in_good_order_and_made_again_when_it_is_wanted() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let wireguard = other.wireguard();
    let (ends, _) = bench.open_tunnel(&other, "link", wireguard);
    let (sync, _) = bench.open_tunnel(&other, "sync", wireguard);
    bench.deeds.clear();
    bench.state.on_tunnel(TunnelEvent::QuietLink(wireguard), bench.now);
    bench.perform();
    assert!(ends.unwrap().cut.try_recv().is_err_and(|gone| gone == TryRecvError::Closed), "without a reason");
    assert!(sync.unwrap().cut.try_recv().is_err_and(|gone| gone == TryRecvError::Empty), "it alone");
    assert_eq!(bench.deeds, [Deed::CloseGate(wireguard)]);
    let (key, _) = bench.state.sessions.iter().find(|(_, s)| s.purpose == Purpose::Link).unwrap();
    bench.state.on_ended(key, bench.now);
    bench.perform();
    bench.deeds.clear();
    bench.state.on_tunnel(TunnelEvent::WantLink(wireguard), bench.now);
    bench.perform();
    assert_eq!(bench.deeds, [Deed::Dial(Purpose::Link)]);
}

#[test]
fn traffic_makes_a_new_dial_a_second_after_one_for_a_link_failed_and_at_once_after_another() {
    let mut bench = Bench::new();
    let wireguard = Machine::new(20).wireguard();
    let wants = |bench: &mut Bench| {
        bench.state.on_tunnel(TunnelEvent::WantLink(wireguard), bench.now);
        bench.perform();
        std::mem::take(&mut bench.deeds)
    };
    bench.fails(20, Purpose::Ping, Code::ActionUnknown);
    assert_eq!(wants(&mut bench), [Deed::Dial(Purpose::Link)]);
    bench.fails(20, Purpose::Link, Code::PeerUnreachable);
    assert_eq!(wants(&mut bench), []);
    bench.now.at += Duration::from_secs(1);
    assert_eq!(wants(&mut bench), [Deed::Dial(Purpose::Link)]);
}

#[test]
fn a_revoked_peer_that_does_not_go_loses_its_tunnel_when_its_time_is_over() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let _open = bench.open_tunnel(&other, "link", other.wireguard.public().to_wireguard());
    bench.revoke(20);
    bench.deeds.clear();
    bench.now.at += Duration::from_millis(identity::limits::CLOSE_FLUSH_MS);
    bench.state.on_timeout(bench.now);
    bench.perform();
    assert!(bench.deeds.contains(&Deed::Peers(0)), "{:?}", bench.deeds);
}

#[test]
fn a_key_in_a_tunnel_of_another_member_is_refused() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let (_, verdict) = bench.open_tunnel(&other, "link", WireGuardKey([7; 32]));
    assert!(verdict.ends_with("code=MU-1409"), "{verdict}");
    let stranger = Machine::new(70);
    let (_, verdict) = bench.open_tunnel(&stranger, "link", WireGuardKey([7; 32]));
    assert!(verdict.ends_with("code=MU-1401"), "{verdict}");
}

#[test]
fn a_revocation_is_enforced_and_told_although_the_disk_refuses_and_not_acknowledged() {
    let mut bench = Bench::new();
    let (ends, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let mut sync = ends.unwrap();
    let revoke = bench.signed_revoke(30);
    let mut answered = bench.submit(&revoke);
    assert!(!bench.state.roster.get(&key(30).public()).unwrap().is_good(), "in force");
    assert!(std::iter::from_fn(|| sync.frames.try_recv().ok()).count() > 0, "told");
    assert!(answered.try_recv().is_err(), "not acknowledged");
    bench.refuse_write();
    let Ok(Answer::Failed(failed)) = answered.try_recv() else { panic!("acknowledged") };
    assert_eq!(failed.code.0, Code::DiskRefused);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems[0].code.0, Code::DiskRefused);
    // The disk is back: the whole file is written, and the same change is acknowledged.
    bench.now.at += Duration::from_secs(2);
    bench.state.on_timeout(bench.now);
    bench.perform();
    assert!(matches!(bench.deeds.last(), Some(Deed::Replace)), "{:?}", bench.deeds);
    bench.written();
    let mut answered = bench.submit(&revoke);
    assert!(matches!(answered.try_recv(), Ok(Answer::Submitted(done)) if !done.records[0].new));
}

#[test]
fn an_admission_that_is_not_on_disk_is_not_told() {
    let mut bench = Bench::new();
    let (ends, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let mut sync = ends.unwrap();
    bench.written();
    while sync.frames.try_recv().is_ok() {}
    let invite = bench.invite(1, 9);
    while sync.frames.try_recv().is_ok() {}
    let newcomer = Machine::new(50);
    let (id, _) = bench.open_outside(&newcomer.node, "enrol");
    bench.say(id, &Request::Enrol(newcomer.request(&bench, &invite, 9)));
    assert!(sync.frames.try_recv().is_err(), "not flooded");
    bench.written();
    assert!(sync.frames.try_recv().is_ok(), "flooded");
}

#[test]
fn a_suspended_peer_is_cut_like_a_revoked_one_and_comes_back_once_it_is_resumed() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let wireguard = other.wireguard.public().to_wireguard();
    let (mut ends, verdict) = bench.open_tunnel(&other, "link", wireguard);
    assert!(verdict.starts_with("ok "), "{verdict}");
    let suspend = bench.signed_suspend(20);
    drop(bench.submit(&suspend));
    assert!(bench.deeds.contains(&Deed::CloseGate(wireguard)), "{:?}", bench.deeds);
    let cut = ends.as_mut().unwrap().cut.try_recv().unwrap();
    assert_eq!(cut.code, Code::Suspended);
    assert!(cut.reason.starts_with("suspended by ada: lost"), "{}", cut.reason);
    let (key_of, _) = bench.state.sessions.iter().next().unwrap();
    bench.state.on_ended(key_of, bench.now);
    bench.perform();
    assert_eq!(bench.deeds.last(), Some(&Deed::Peers(0)), "its tunnel goes");
    let (_, verdict) = bench.open_tunnel(&other, "link", wireguard);
    assert!(verdict.ends_with("code=MU-1404"), "{verdict}");

    let resume = Resume { node: key(20).public(), suspends: vec![suspend.id()] };
    let resume = bench.signed(Lane::Main, &Payload::Resume(resume));
    drop(bench.submit(&resume));
    bench.written();
    assert_eq!(bench.deeds.iter().rev().find(|deed| matches!(deed, Deed::Peers(_))), Some(&Deed::Peers(1)));
    let (_, verdict) = bench.open_tunnel(&other, "link", wireguard);
    assert!(verdict.starts_with("ok "), "{verdict}");
}

#[test]
fn a_suspended_machine_itself_keeps_knocking_and_a_revoked_one_does_not() {
    for (suspended, peers) in [(true, 2), (false, 0)] {
        let mut bench = Bench::new();
        let me = if suspended { bench.signed_suspend(10) } else { bench.signed_revoke(10) };
        drop(bench.submit(&me));
        assert!(!bench.state.is_member() && !bench.state.is_gateway(), "it admits nobody meanwhile");
        assert_eq!((bench.state.takes_part(), bench.state.members_with_tunnel()), (suspended, peers));
    }
}

#[test]
fn new_settings_are_in_force_and_told_at_once_and_reported_once_on_disk() {
    let mut bench = Bench::new();
    let other = Machine::new(20);
    let (mut ends, _) = bench.open_tunnel(&other, "sync", other.wireguard.public().to_wireguard());
    let sent = &mut ends.as_mut().unwrap().frames;
    while sent.try_recv().is_ok() {}
    let mut next = bench.state.replica.chain().head().charter().successor();
    next.gateways.clear();
    let next = fixture::settings(next);
    let record = Record::Charter(next.to_bytes());
    let frame = member_crdt::Session::flood(&record);
    let records = vec![org_trust::Records::encode(&[record]).unwrap().into()];
    let (reply, mut answered) = oneshot::channel();
    bench.state.on_request(Ask::Submit { records }, reply, bench.now);
    bench.perform();
    assert!(!bench.state.is_gateway(), "in force before the disk has them");
    let told = std::iter::from_fn(|| sent.try_recv().ok()).any(|said| said == frame);
    assert!(told, "told before the disk has them");
    assert!(answered.try_recv().is_err(), "not acknowledged before the disk has them");
    bench.written();
    assert!(matches!(answered.try_recv(), Ok(Answer::Submitted(_))));
}

#[test]
fn a_suspended_machine_listens_to_members_that_it_dialled_and_a_revoked_one_does_not() {
    for suspended in [true, false] {
        let mut bench = Bench::new();
        let me = if suspended { bench.signed_suspend(10) } else { bench.signed_revoke(10) };
        drop(bench.submit(&me));
        // It knows, and the others have heard that it no longer is.
        assert_eq!(
            matches!(bench.dialled(&Machine::new(20), Purpose::Sync), Decision::Open { .. }),
            suspended
        );
        assert!(matches!(bench.dialled(&Machine::new(20), Purpose::Link), Decision::Refuse { .. }));
    }
}

#[test]
fn the_word_that_this_machine_is_revoked_is_not_shown_after_new_settings() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    // A thief's revocation was heard there and not here; the settings that end it come from others.
    bench.state.on_told(key, Code::Revoked, bench.now);
    let problems = |bench: &mut Bench| {
        let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
        status.problems.len()
    };
    assert_eq!(problems(&mut bench), 1);
    let mut next = bench.state.replica.chain().head().charter().successor();
    next.gateways.clear();
    bench.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], bench.now);
    assert_eq!(problems(&mut bench), 0);
    // Nor after the one who said so has reported again: it may not have had the settings then.
    bench.state.on_told(key, Code::Revoked, bench.now);
    assert_eq!(problems(&mut bench), 1);
    let report = signed_report(&bench.state.replica, 20, 1, 1);
    bench.state.take(&[Record::from(&report)], bench.now);
    assert_eq!(problems(&mut bench), 0);
}

#[test]
fn a_word_that_may_not_be_so_any_more_is_asked_for_again() {
    let mut bench = Bench::compared();
    let problems = |bench: &mut Bench| {
        let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
        status.problems.iter().map(|problem| problem.code.0).collect::<Vec<_>>()
    };
    // It has not heard of new keys, or of settings. It will, and then nothing says so.
    bench.fails(20, Purpose::Sync, Code::UnknownKey);
    assert_eq!(problems(&mut bench), [Code::UnknownKey]);
    let mut waited = 0;
    while !bench.deeds.contains(&Deed::Dial(Purpose::Sync)) {
        waited += 1;
        assert!(waited <= 15, "asked again");
        bench.later(Duration::from_secs(1));
        assert_eq!(problems(&mut bench), [Code::UnknownKey], "it has not said otherwise");
    }
    bench.fails(20, Purpose::Sync, Code::Revoked);
    assert_eq!(problems(&mut bench), [Code::Revoked], "what it says last");
    bench.later(Duration::from_secs(15));
    assert!(matches!(bench.dialled(&Machine::new(20), Purpose::Sync), Decision::Open { .. }));
    assert_eq!(problems(&mut bench), []);
    assert!(bench.state.hearsay.due().is_none(), "no timer is always due");
}

#[test]
fn a_word_that_is_doubted_is_shown_again_if_it_is_said_again() {
    let mut bench = Bench::compared();
    bench.fails(20, Purpose::Sync, Code::PeerUnreachable);
    let _sync = bench.sync(20);
    let key_of = bench.session_with(20);
    bench.state.on_told(key_of, Code::Revoked, bench.now);
    let problems = |bench: &mut Bench| {
        let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
        status.problems.len()
    };
    bench.hear_report(20, 1, 0);
    assert_eq!(problems(&mut bench), 0, "it has taken something in");
    bench.state.on_ended(key_of, bench.now);
    bench.perform();
    bench.deeds.clear();
    bench.later(Duration::from_secs(1));
    assert!(bench.deeds.contains(&Deed::Dial(Purpose::Sync)), "{:?}", bench.deeds);
    bench.fails(20, Purpose::Sync, Code::Revoked);
    assert_eq!(problems(&mut bench), 1, "it still says so");
}
