use std::{sync::Arc, time::Instant};

use conn_auth::{Accept, Action, Binding, Dial, Holder, Reference, Standing, To};
use control::{
    gateway::{Exporter, FromGateway, ToGateway},
    local::{Request as Ask, State as Stage},
    text::Text,
};
use identity::{Heads, SecretKey, StatementId};
use org_trust::{
    Assurance, Cosign, EnrolRequest, Invite, Lane, Payload, Reason, Redemption, Reply, Request, Resume,
    Revoke, Statement, Suspend,
};
use rand::SeedableRng as _;
use tokio::sync::mpsc;

use super::*;
use crate::{
    fixture::{self, Machine, admin, gateway_key, key, name},
    sessions::Purpose,
    writer::Written,
};

#[test]
fn a_machine_with_an_invite_is_admitted_once_it_is_on_disk_and_asks_again_for_free() {
    let mut bench = Bench::new();
    let invite = bench.invite(1, 9);
    let newcomer = Machine::new(50);
    let request = newcomer.request(&bench, &invite, 9);
    let (id, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Enrol(request.clone()));
    assert_eq!(bench.heard(), [], "nothing is said before the disk has it");
    assert_eq!(bench.state.standing_of(&newcomer.node.public()), Standing::Unknown);
    bench.written();
    let replies = bench.replies(id);
    let Some(Reply::Admitted(statement)) = replies.first() else { panic!("{replies:?}") };
    assert!(matches!(replies.last(), Some(Reply::End { .. })));
    assert!(matches!(bench.state.standing_of(&newcomer.node.public()), Standing::Good(_)));

    let (id, _) = bench.open_outside(&newcomer.node, "enrol");
    bench.say(id, &Request::Enrol(request));
    bench.written();
    assert_eq!(bench.replies(id).first(), Some(&Reply::Admitted(statement.clone())), "the same again");

    let other = Machine::new(60);
    let (id, _) = bench.open_outside(&other.node, "enrol");
    bench.say(id, &Request::Enrol(other.request(&bench, &invite, 9)));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::InviteUsedUp)], "the one use is spent");
}

#[test]
fn a_request_with_a_wrong_secret_for_another_gateway_or_by_another_key_is_refused() {
    let mut bench = Bench::new();
    let invite = bench.invite(9, 9);
    let newcomer = Machine::new(50);
    let wrong_secret = newcomer.request(&bench, &invite, 8);
    let unknown_invite = newcomer.request_for(&bench, StatementId([1; 32]), gateway_key().public(), 9);
    let other_gateway = newcomer.request_for(&bench, invite, key(77).public(), 9);
    for (request, by, code) in [
        (wrong_secret, &newcomer.node, Code::EnrolKeyUnproven),
        (unknown_invite, &newcomer.node, Code::InviteUnknown),
        (other_gateway, &newcomer.node, Code::NotTheGateway),
        (newcomer.request(&bench, &invite, 9), &key(78), Code::EnrolKeyUnproven),
    ] {
        let (id, _) = bench.open_outside(by, "enrol");
        bench.say(id, &Request::Enrol(request));
        assert_eq!(bench.replies(id), [Reply::Refused(code)]);
    }
    let boot_key_of_another = Machine { boot: key(12), ..Machine::new(50) };
    let (id, _) = bench.open_outside(&boot_key_of_another.node, "enrol");
    bench.say(id, &Request::Enrol(boot_key_of_another.request(&bench, &invite, 9)));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::EnrolKeyTaken)]);
}

#[test]
fn a_session_at_the_gateway_carries_one_question_of_its_own_action() {
    let mut bench = Bench::new();
    let (id, _) = bench.open_outside(&key(12), "boot");
    bench.say(id, &Request::Fetch(org_trust::Select::Everything));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::ActionNotAllowed)]);
    bench.say(id, &Request::Fetch(org_trust::Select::Everything));
    assert!(matches!(bench.heard().as_slice(), [ToGateway::Cut { .. }]), "it is over");
}

#[test]
fn a_revoked_boot_key_is_told_so_at_the_gateway_and_the_reference_says_by_whom() {
    let mut bench = Bench::new();
    let (id, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Boot { charter: bench.state.replica.chain().head().id(), floor: 0 });
    bench.written();
    assert!(matches!(bench.replies(id).last(), Some(Reply::End { .. })));
    bench.revoke(20);
    let (_, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.ends_with(" code=MU-1403"), "{verdict}");
    let reference = verdict.split(['=', ' ']).nth(2).unwrap().to_owned();
    let Answer::Why(why) = bench.ask(Ask::Why { reference }) else { panic!("nothing remembered") };
    assert_eq!(why.code.0, Code::Revoked);
    assert!(why.detail.contains("by ada") && why.detail.contains("stolen"), "{}", why.detail);
    assert!(why.detail.contains("known here since 1970-01-01T"), "{}", why.detail);
}

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
fn a_report_that_is_due_while_the_disk_refuses_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    // The first change makes a report due after the interval; the disk fills up before that.
    drop(bench.submit(&bench.signed_revoke(30)));
    bench.written();
    drop(bench.submit(&bench.signed_revoke(20)));
    bench.refuse_write();
    assert!(bench.state.report.due().is_some());
    bench.now.at += Duration::from_millis(identity::limits::REPORT_INTERVAL_MS + 1);
    bench.state.on_timeout(bench.now);
    let next = bench.state.timeout().unwrap();
    assert!(next > bench.now.at, "a timer that is always due lets no other input in");
    // With the disk back the report is made.
    let seq = |bench: &Bench| bench.state.replica.report_of(&key(10).public()).unwrap().body().seq;
    let before = seq(&bench);
    bench.now.at += Duration::from_secs(2);
    bench.state.on_timeout(bench.now);
    bench.perform();
    bench.written();
    bench.state.on_timeout(bench.now);
    assert!(seq(&bench) > before);
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
fn a_machine_that_leaves_tells_the_others_first() {
    let mut bench = Bench::new();
    let (ends, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let mut sync = ends.unwrap();
    bench.written();
    while sync.frames.try_recv().is_ok() {}
    let (reply, mut answered) = oneshot::channel();
    bench.state.on_request(Ask::Leave {}, reply, bench.now);
    bench.perform();
    assert!(sync.frames.try_recv().is_ok() && bench.state.is_member());
    bench.now.at += LEAVE_FLUSH;
    bench.state.on_timeout(bench.now);
    bench.perform();
    bench.written();
    assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.state, Stage::NotMember);
    assert_eq!(sync.cut.try_recv().unwrap().code, Code::Left);
}

#[test]
fn a_machine_that_has_left_lets_nobody_in() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let (reply, _answered) = oneshot::channel();
    bench.state.on_request(Ask::Leave {}, reply, bench.now);
    bench.now.at += LEAVE_FLUSH;
    bench.state.on_timeout(bench.now);
    bench.perform();
    bench.written();
    let (_, verdict) = bench.open_tunnel(&Machine::new(30), "sync", Machine::new(30).wireguard());
    assert!(verdict.ends_with(" code=MU-6008"), "{verdict}");
}

#[test]
fn the_word_of_a_machine_that_is_no_member_any_more_is_not_shown() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    // It leaves, and closes its sessions with that word before its change is heard.
    bench.state.on_told(key, Code::Left);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems.len(), 1);
    bench.revoke(20);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems, []);
}

#[test]
fn the_word_that_this_machine_is_revoked_is_not_shown_after_new_settings() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    // A thief's revocation was heard there and not here; the settings that end it come from others.
    bench.state.on_told(key, Code::Revoked);
    let problems = |bench: &mut Bench| {
        let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
        status.problems.len()
    };
    assert_eq!(problems(&mut bench), 1);
    let mut next = bench.state.replica.chain().head().charter().successor();
    next.gateways.clear();
    bench.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], bench.now);
    assert_eq!(problems(&mut bench), 0);
}

#[test]
fn a_machine_that_nobody_would_hear_does_not_leave() {
    let mut bench = Bench::new();
    let Answer::Failed(failed) = bench.ask(Ask::Leave {}) else { panic!("it left") };
    assert_eq!(failed.code.0, Code::PeerUnreachable);
    assert!(bench.state.is_member() && bench.state.leaving.is_none());
}

#[test]
fn who_asks_to_leave_a_second_time_gets_the_same_answer() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let mut answers = [1, 2].map(|_| {
        let (reply, answered) = oneshot::channel();
        bench.state.on_request(Ask::Leave {}, reply, bench.now);
        answered
    });
    bench.now.at += LEAVE_FLUSH;
    bench.state.on_timeout(bench.now);
    bench.perform();
    bench.written();
    for answered in &mut answers {
        assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
    }
}

#[test]
fn a_member_that_reports_without_end_is_taken_and_passed_on_at_a_bounded_rate() {
    let mut bench = Bench::new();
    let (from, _) = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    let (to, _) = bench.open_tunnel(&Machine::new(30), "sync", Machine::new(30).wireguard());
    bench.written();
    let (_from, mut to) = (from.unwrap(), to.unwrap());
    while to.frames.try_recv().is_ok() {}
    for seq in 0..100 {
        bench.hear_report(20, seq, 0);
    }
    let seq = |bench: &Bench| bench.state.replica.report_of(&key(20).public()).unwrap().body().seq;
    assert_eq!(seq(&bench), 7, "a few at once, the rest is dropped");
    assert_eq!(std::iter::from_fn(|| to.frames.try_recv().ok()).count(), 8);
    bench.hear_report(30, 0, 0);
    assert!(bench.state.replica.report_of(&key(30).public()).is_some(), "others are not held up");
    bench.now.at += Duration::from_millis(identity::limits::REPORT_INTERVAL_MS);
    for seq in 100..110 {
        bench.hear_report(20, seq, 0);
    }
    assert_eq!(seq(&bench), 101, "two for each interval");
}

#[test]
fn a_report_that_others_pass_on_is_no_contact_with_its_node() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.hear_report(30, 0, 0);
    let heard = |node| bench.state.members.last_heard(&key(node).public());
    assert!(heard(30).is_none() && heard(20).is_some());
}

#[test]
fn a_member_whose_key_signs_on_two_machines_is_named_in_status() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.hear_report(30, 5, 0);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems, []);
    bench.hear_report(30, 5, 1);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    let [problem] = status.problems.as_slice() else { panic!("{:?}", status.problems) };
    assert_eq!(problem.code.0, Code::CloneSuspected);
    assert!(problem.detail.starts_with("three ("), "{}", problem.detail);
    bench.revoke(30);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems, [], "that is the remedy");
}

#[test]
fn a_machine_that_wants_approval_is_told_to_wait_and_then_gets_the_same_admission() {
    let mut bench = Bench::new();
    let invite = bench.invite_with(1, 9, true);
    let newcomer = Machine::new(50);
    let node = newcomer.node.public();
    let request = newcomer.request(&bench, &invite, 9);
    let (id, _) = bench.open_outside(&newcomer.node, "enrol");
    bench.say(id, &Request::Enrol(request.clone()));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::ApprovalPending)]);
    bench.written();
    let admit = bench.state.roster.pending().admits[0].admit;
    let (_, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.ends_with("code=MU-1402"), "still waiting: {verdict}");
    assert_eq!(bench.state.standing_of(&node), Standing::Barred(Code::ApprovalPending));
    drop(bench.heard());

    let approval = bench.signed(Lane::Main, &Payload::Cosign(Cosign { target: admit }));
    drop(bench.submit(&approval));
    bench.written();
    let (id, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Enrol(request));
    bench.written();
    let held = bench.state.replica.statement(&admit).unwrap().bytes().to_vec();
    assert_eq!(bench.replies(id).first(), Some(&Reply::Admitted(held)), "no second use is spent");
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
fn a_key_that_was_revoked_before_it_asks_is_refused_for_good_and_spends_nothing() {
    let mut bench = Bench::new();
    let invite = bench.invite(1, 9);
    bench.revoke(50);
    bench.written();
    for (seed, admitted) in [(50, false), (60, true)] {
        let newcomer = Machine::new(seed);
        let (id, _) = bench.open_outside(&newcomer.node, "enrol");
        bench.say(id, &Request::Enrol(newcomer.request(&bench, &invite, 9)));
        bench.written();
        match bench.replies(id).first() {
            Some(Reply::Admitted(_)) => assert!(admitted),
            reply => assert_eq!((reply, admitted), (Some(&Reply::Refused(Code::Revoked)), false)),
        }
    }
}

#[test]
fn long_answers_are_said_as_the_front_reads_and_leave_room_for_others() {
    let mut bench = Bench::new();
    let keys: Vec<_> = (0..4).map(|_| bench.open_outside(&key(22), "boot").0).collect();
    let sessions: Vec<SessionKey> = bench.state.sessions.iter().map(|(key, _)| key).collect();
    for key in sessions {
        bench.state.answer_outside(key, vec![vec![0]; 100]);
    }
    let (_, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.starts_with("ok "), "another machine is let in meanwhile: {verdict}");
    let (mut frames, mut ended) = (0, Vec::new());
    loop {
        let heard = bench.heard();
        if heard.is_empty() {
            break;
        }
        assert!(heard.len() < 128, "{} at once", heard.len());
        for message in heard {
            match message {
                ToGateway::Data { .. } => frames += 1,
                ToGateway::Cut { id, code: None, .. } => ended.push(id),
                message @ (ToGateway::Challenge { .. }
                | ToGateway::Verdict { .. }
                | ToGateway::Cut { .. }
                | ToGateway::Charters { .. }) => panic!("{message:?}"),
            }
        }
        bench.state.on_outside(Outside::Drained(1), bench.now);
    }
    assert_eq!((frames, ended), (400, keys));
}

#[tokio::test]
async fn a_front_that_loses_a_message_is_closed() {
    let mut bench = Bench::new();
    for id in 1000..1256 {
        bench.front(FromGateway::Finish { id, proof: Vec::new().into() });
    }
    let closed = tokio::time::timeout(Duration::ZERO, bench.broken.notified()).await;
    assert!(closed.is_err(), "all fit");
    bench.front(FromGateway::Finish { id: 2000, proof: Vec::new().into() });
    bench.broken.notified().await;
}

#[test]
fn a_report_rests_on_what_is_on_disk() {
    let mut bench = Bench::new();
    bench.written();
    let first = bench.state.replica.report_of(&key(10).public()).unwrap().body().clone();
    let revoke = bench.signed_revoke(30);
    drop(bench.submit(&revoke));
    bench.now.at += Duration::from_secs(1);
    bench.state.on_timeout(bench.now);
    bench.perform();
    let body = |bench: &Bench| bench.state.replica.report_of(&key(10).public()).unwrap().body().clone();
    assert_eq!(body(&bench).tips, first.tips, "the revocation is not on disk");
    bench.written();
    bench.now.at += Duration::from_secs(1);
    bench.state.on_timeout(bench.now);
    bench.perform();
    assert_ne!(body(&bench).tips, first.tips);
    bench.written();
    let Answer::Coverage(covered) = bench.ask(Ask::Coverage { change: Text(revoke.id()) }) else { panic!() };
    assert_eq!((covered.applied, covered.of), (1, 2));
    assert_eq!(covered.missing.len(), 1);
}

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

/// What was done, in a form that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Append,
    CloseGate(WireGuardKey),
    Decide,
    Dial(Purpose),
    Keys(KeysOrder),
    MakeRoleKey,
    OpenGate(WireGuardKey),
    Peers(usize),
    Replace,
}

/// A gateway's musterd (keys 10, 11, 12) in an org with members 20 and 30, and what it does.
mod healing;
mod liveness;

struct Bench {
    state: State,
    now: Now,
    deeds: Vec<Deed>,
    /// What it does for SWIM.
    probing: Vec<Effect>,
    socket: Socket,
    gateway: mpsc::Receiver<ToGateway>,
    broken: Arc<tokio::sync::Notify>,
    next: u64,
    kept: Vec<ToGateway>,
}

impl Bench {
    /// The others have never run.
    fn new() -> Self {
        Self::with(fixture::org(0).0)
    }

    fn with(mut replica: Replica) -> Self {
        replica.save().unwrap();
        let keys = Keys { node: key(10), wireguard: key(11), gateway: Some(gateway_key()) };
        let now = Now { at: Instant::now(), unix_ns: 1_000_000_000 };
        let (boot_nonce, endpoints) = (BootNonce([0; 16]), Vec::new());
        let randomness = StdRng::seed_from_u64(0);
        let beginning = Beginning {
            keys: Arc::new(keys),
            replica,
            boot_nonce,
            randomness,
            endpoints,
            replace: false,
            beside: Beside::default(),
        };
        let (socket, gateway, broken) = Socket::new(1, 256);
        let state = State::new(beginning, now);
        let mut bench = Self {
            state,
            now,
            deeds: Vec::new(),
            probing: Vec::new(),
            socket,
            gateway,
            broken,
            next: 0,
            kept: Vec::new(),
        };
        bench.perform();
        bench.written();
        bench.deeds.clear();
        bench
    }

    /// What a machine says of itself, behind what made the key its own.
    fn by_node(&self, key: &SecretKey, payload: &Payload) -> Statement {
        let place = self.state.replica.next_place(&key.public(), Lane::Main).unwrap();
        Statement::sign(&self.state.org, key, place, payload).unwrap()
    }

    fn rotation(&self, old: &Machine, new: &Machine) -> Statement {
        let rotate = org_trust::Rotate::new(&self.state.org, old.node.public(), new.keys());
        self.by_node(&old.node, &Payload::from(rotate))
    }

    fn perform(&mut self) {
        let effects: Vec<Effect> = self.state.effects().collect();
        for effect in effects {
            if matches!(effect, Effect::Probe(_) | Effect::Datagram(..)) {
                self.probing.push(effect);
                continue;
            }
            self.deeds.push(match effect {
                Effect::CloseGate(member) => Deed::CloseGate(member),
                Effect::Decide(reply, decision) => {
                    assert!(reply.send(*decision).is_ok());
                    Deed::Decide
                }
                Effect::Dial(order) => Deed::Dial(order.purpose),
                Effect::MakeRoleKey(_) => Deed::MakeRoleKey,
                Effect::Keys(order) => Deed::Keys(order),
                Effect::OpenGate(member) => Deed::OpenGate(member),
                Effect::Peers(peers) => {
                    let revoked = |peer: &&TunnelPeer| peer.wireguard == Machine::new(20).wireguard();
                    Deed::Peers(peers.iter().filter(revoked).count())
                }
                Effect::Probe(_) | Effect::Datagram(..) => unreachable!(),
                Effect::Write(Write::Append(_)) => Deed::Append,
                Effect::Write(Write::Replace(..)) => Deed::Replace,
            });
        }
    }

    /// Every write is acknowledged, also those that follow from it.
    fn written(&mut self) {
        while self.state.disk.is_writing() {
            let written = Written { result: Ok(()), unix_ns: 5, wants_replacing: false };
            self.state.on_written(written, self.now);
            self.perform();
        }
    }

    fn refuse_write(&mut self) {
        let written = Written { result: Err("full".to_owned()), unix_ns: 5, wants_replacing: true };
        self.state.on_written(written, self.now);
        self.perform();
    }

    fn ask(&mut self, request: Ask) -> Answer {
        let (reply, mut answered) = oneshot::channel();
        self.state.on_request(request, reply, self.now);
        self.perform();
        answered.try_recv().unwrap()
    }

    fn submit(&mut self, statement: &Statement) -> oneshot::Receiver<Answer> {
        let records = vec![org_trust::Records::encode(&[Record::from(statement)]).unwrap().into()];
        let (reply, answered) = oneshot::channel();
        self.state.on_request(Ask::Submit { records }, reply, self.now);
        self.perform();
        answered
    }

    fn signed(&self, lane: Lane, payload: &Payload) -> Statement {
        let place = self.state.replica.next_place(&admin().public(), lane).unwrap();
        Statement::sign(&self.state.org, &admin(), place, payload).unwrap()
    }

    fn signed_revoke(&self, node: u8) -> Statement {
        let node = key(node).public();
        self.signed(
            Lane::Revokes,
            &Payload::Revoke(Revoke { node, reason: Reason::Stolen, note: String::new() }),
        )
    }

    fn signed_suspend(&self, node: u8) -> Statement {
        let node = key(node).public();
        let suspend = Suspend { node, reason: Reason::Lost, note: String::new() };
        self.signed(Lane::Revokes, &Payload::Suspend(suspend))
    }

    fn revoke(&mut self, node: u8) {
        let revoke = self.signed_revoke(node);
        drop(self.submit(&revoke));
    }

    fn invite(&mut self, uses: u32, secret: u8) -> StatementId {
        self.invite_with(uses, secret, false)
    }

    fn invite_with(&mut self, uses: u32, secret: u8, approval: bool) -> StatementId {
        let invite = Invite {
            key: key(secret).public(),
            uses,
            redeemer: gateway_key().public(),
            labels: Vec::new(),
            expires_unix_s: 0,
            note: String::new(),
            approval,
        };
        let statement = self.signed(Lane::Main, &Payload::from(invite));
        drop(self.submit(&statement));
        self.written();
        statement.id()
    }

    /// The four messages over the gateway's socket.
    fn open_outside(&mut self, by: &SecretKey, action: &str) -> (u64, String) {
        let exporter = [9; 32];
        let action = Action::new(action, &[]).unwrap();
        let gateways = [gateway_key().public()];
        let org = self.state.org;
        let dial = Dial { org, key: by, to: To::AnyOf(&gateways), binding: Binding::Tls(exporter), action };
        let dial = dial.start([3; 32]).unwrap();
        self.next += 1;
        let id = self.next;
        let hello = dial.hello().as_bytes().to_vec().into();
        let source = "192.0.2.1:5".parse().unwrap();
        self.front(FromGateway::Begin { id, exporter: Text(Exporter(exporter)), hello, source });
        let Some(ToGateway::Challenge { line, .. }) = self.heard_last() else { panic!("no challenge") };
        let wait = dial.on_challenge(line.as_bytes()).unwrap().prove(Heads([0; 32]), 0);
        self.front(FromGateway::Finish { id, proof: wait.proof().as_bytes().to_vec().into() });
        let Some(ToGateway::Verdict { line, .. }) = self.heard_last() else { panic!("no verdict") };
        (id, line)
    }

    fn say(&mut self, id: u64, request: &Request) {
        self.front(FromGateway::Data { id, frame: request.encode().into() });
    }

    fn front(&mut self, message: FromGateway) {
        self.state.on_outside(Outside::Said(self.socket.clone(), message), self.now);
        self.perform();
    }

    fn heard(&mut self) -> Vec<ToGateway> {
        let mut heard = std::mem::take(&mut self.kept);
        heard.extend(std::iter::from_fn(|| self.gateway.try_recv().ok()));
        heard
    }

    /// The newest message; those before it are kept.
    fn heard_last(&mut self) -> Option<ToGateway> {
        let mut heard = self.heard();
        let last = heard.pop();
        self.kept = heard;
        last
    }

    /// A report reaches us over the first sync session.
    fn hear_report(&mut self, node: u8, seq: u64, boot: u8) {
        let report = signed_report(&self.state.replica, node, seq, boot);
        let session = *self.state.sync.keys().next().unwrap();
        let frame = member_crdt::Session::flood(&Record::from(&report));
        self.state.on_frame(session, &frame, self.now);
        self.perform();
    }

    /// The answer to one connection, which is over after it.
    fn replies(&mut self, id: u64) -> Vec<Reply> {
        let mut heard = self.heard();
        assert!(matches!(heard.pop(), Some(ToGateway::Cut { code: None, .. })), "ends in good order");
        let frames = heard.into_iter().map(|message| {
            let ToGateway::Data { id: of, frame } = message else { panic!("{message:?}") };
            assert_eq!(of, id);
            Reply::decode(&frame.0).unwrap()
        });
        frames.collect()
    }

    /// This machine has dialled another one, which lets it in.
    fn dialled(&mut self, other: &Machine, purpose: Purpose) -> Decision {
        let (org, client) = (self.state.org, key(10));
        let binding =
            Binding::WireGuard { client: key(11).public().to_wireguard(), server: other.wireguard() };
        let action = Action::new(purpose.action(), &[]).unwrap();
        let node = other.node.public();
        let dial = Dial { org, key: &client, to: To::Key(node), binding, action }.start([5; 32]).unwrap();
        let accept = Accept { org, key: &other.node, binding };
        let accept = accept.on_hello(dial.hello().as_bytes(), [6; 32]).unwrap();
        let proven = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
        let wait = proven.prove(Heads([0; 32]), 0);
        let admitted = accept.on_proof(wait.proof().as_bytes()).unwrap();
        let admitted = admitted.admit(Standing::Good(Holder::Member)).unwrap();
        let line = admitted.verdict_ok(Reference([7; 8]), Heads([0; 32]), 0);
        let result = wait.on_verdict(line.as_bytes()).map_err(|_| panic!("a verdict"));
        let (reply, mut decided) = oneshot::channel();
        self.state.on_dialled(Dialled { node, purpose, result, reply }, self.now);
        self.perform();
        decided.try_recv().unwrap()
    }

    /// The four messages in a tunnel.
    fn open_tunnel(
        &mut self,
        by: &Machine,
        action: &str,
        channel: WireGuardKey,
    ) -> (Option<crate::sessions::Ends>, String) {
        let org = self.state.org;
        let binding = Binding::WireGuard { client: channel, server: key(11).public().to_wireguard() };
        let action = Action::new(action, &[]).unwrap();
        let dial = Dial { org, key: &by.node, to: To::Key(key(10).public()), binding, action };
        let dial = dial.start([3; 32]).unwrap();
        let server = key(10);
        let accept =
            Accept { org, key: &server, binding }.on_hello(dial.hello().as_bytes(), [4; 32]).unwrap();
        let proven = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
        let wait = proven.prove(Heads([0; 32]), 0);
        let proven = accept.on_proof(wait.proof().as_bytes()).unwrap();
        let (reply, mut decided) = oneshot::channel();
        let source = Ipv6Addr::LOCALHOST;
        self.state.on_proven(Proven { proven, source, reply }, self.now);
        self.perform();
        match decided.try_recv().unwrap() {
            Decision::Open { verdict, ends, .. } => (Some(ends), verdict.unwrap()),
            Decision::Refuse { verdict, .. } => (None, verdict.unwrap()),
        }
    }
}

impl Machine {
    fn request(&self, bench: &Bench, invite: &StatementId, secret: u8) -> Vec<u8> {
        self.request_for(bench, *invite, gateway_key().public(), secret)
    }

    fn request_for(&self, bench: &Bench, invite: StatementId, redeemer: PublicKey, secret: u8) -> Vec<u8> {
        let secret = key(secret);
        let redemption = Redemption { invite, key: &secret, redeemer };
        EnrolRequest::sign(&bench.state.org, self.keys(), redemption, name("new"), Assurance::File, [0; 32])
            .encode()
    }
}

#[test]
fn a_reference_is_read_back_as_it_was_told() {
    let reference = Bench::new().state.new_reference();
    assert_eq!(Reference::from_hex(&reference.to_string()), Ok(reference));
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
fn a_member_makes_a_key_for_the_gateway_role_and_asks_for_it_with_its_node_key() {
    let mut bench = Bench::new();
    let ask = || Ask::PrepareGateway { tls_key: vec![7; 32].into(), address: "gw.example:8443".to_owned() };
    let Answer::GatewayRequest(first) = bench.ask(ask()) else { panic!("no request") };
    assert_eq!((first.key.0, first.new), (gateway_key().public(), false), "it has the role and its key");

    let mut next = bench.state.replica.chain().head().charter().successor();
    next.gateways.clear();
    bench.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], bench.now);
    let (reply, mut answered) = oneshot::channel();
    bench.state.on_request(ask(), reply, bench.now);
    let order = bench
        .state
        .effects()
        .find_map(|effect| if let Effect::MakeRoleKey(order) = effect { Some(*order) } else { None });
    assert!(matches!(bench.ask(ask()), Answer::Failed(failed) if failed.code.0 == Code::Busy));
    bench.state.on_role_key(Ok(key(99)), order.unwrap(), bench.now);
    let Ok(Answer::GatewayRequest(made)) = answered.try_recv() else { panic!("no request") };
    assert_eq!(
        (made.key.0, made.new),
        (key(99).public(), true),
        "a key that lost the role is not used again"
    );
    let request = org_trust::GatewayRequest::parse(&made.line).unwrap().verify(&bench.state.org).unwrap();
    assert_eq!((request.node(), request.gateway()), (key(10).public(), key(99).public()));
}

fn signed_report(replica: &Replica, node: u8, seq: u64, boot: u8) -> org_trust::Report {
    let body = org_trust::ReportBody {
        boot_nonce: BootNonce([boot; 16]),
        seq,
        heads: replica.heads(),
        count: replica.count(),
        charter: replica.chain().head().id(),
        tips: Vec::new(),
        version: String::new(),
        endpoints: Vec::new(),
    };
    org_trust::Report::sign(&replica.org(), &key(node), body).unwrap()
}
