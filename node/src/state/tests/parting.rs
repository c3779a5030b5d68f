//! A machine that goes: by its own wish, or by a change that is handed in at it.

use identity::limits::PARTING_MS;

use super::{healing::other, *};
use crate::sessions::Ends;

const LATEST: Duration = Duration::from_millis(PARTING_MS);

#[test]
fn a_change_that_removes_the_machine_it_is_handed_to_is_heard_before_its_sessions_end() {
    for (change, code) in removals() {
        let mut bench = Bench::compared();
        let (mut two, mut three) = (bench.sync(20), bench.sync(30));
        let link = bench.open_tunnel(&Machine::new(20), "link", Machine::new(20).wireguard()).0;
        let record = change(&bench);
        drain(&mut two);
        let mut answered = bench.hand_in(&record);
        assert!(!bench.state.is_member(), "in force");
        assert!(
            drain(&mut two).contains(&member_crdt::Session::flood(&record)),
            "told before the disk has it"
        );
        let stays = code == Code::Suspended;
        assert_eq!(link.unwrap().cut.try_recv().is_err(), stays, "nothing but the list is spoken of");
        bench.written();
        assert!(answered.try_recv().is_err(), "nobody has said that it has it");
        // One neighbour answers the round behind it, the other shuts this machine out for it.
        bench.converse(30, &mut three, &mut other(&[]));
        assert!(answered.try_recv().is_err() && three.cut.try_recv().is_err(), "the other may yet answer");
        bench.closes(20, code);
        let Ok(Answer::Submitted(done)) = answered.try_recv() else { panic!("{code}: not acknowledged") };
        assert_eq!((done.told, done.others, done.removed), (2, 2, true));
        assert_eq!(three.cut.try_recv().is_err(), stays, "{code}: now it goes");
    }
}

#[test]
fn a_change_that_removes_a_machine_and_is_heard_by_nobody_is_not_acknowledged() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    let revoke = bench.signed_revoke(10);
    let mut answered = bench.submit(&revoke);
    bench.written();
    bench.later(LATEST - Duration::from_millis(1));
    assert!(answered.try_recv().is_err() && two.cut.try_recv().is_err());
    bench.later(Duration::from_millis(1));
    assert_unheard(&mut answered);
    assert_eq!(two.cut.try_recv().unwrap().code, Code::Revoked, "its time is over");
    // Nor later, when it is handed in again.
    let mut answered = bench.submit(&revoke);
    bench.written();
    assert_unheard(&mut answered);
}

#[test]
fn a_machine_without_a_session_says_that_it_cannot_pass_on_what_removes_it() {
    let mut bench = Bench::compared();
    let mut answered = bench.submit(&bench.signed_revoke(10));
    bench.written();
    assert_unheard(&mut answered);
}

#[test]
fn a_session_that_ends_for_another_reason_does_not_show_that_the_change_was_heard() {
    for told in [None, Some(Code::ShuttingDown), Some(Code::UnknownKey)] {
        let mut bench = Bench::compared();
        let _two = bench.sync(20);
        let mut answered = bench.submit(&bench.signed_revoke(10));
        bench.written();
        match told {
            Some(code) => bench.closes(20, code),
            None => bench.state.on_ended(bench.session_with(20), bench.now),
        }
        assert_unheard(&mut answered);
    }
}

#[test]
fn a_change_that_removes_a_machine_whose_disk_refuses_is_told_and_not_acknowledged() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    drain(&mut two);
    let revoke = bench.signed_revoke(10);
    let mut answered = bench.submit(&revoke);
    bench.refuse_write();
    let Ok(Answer::Failed(failed)) = answered.try_recv() else { panic!("acknowledged") };
    assert_eq!(failed.code.0, Code::DiskRefused);
    assert!(drain(&mut two).contains(&member_crdt::Session::flood(&Record::from(&revoke))));
}

#[test]
fn a_machine_that_hears_of_its_own_removal_passes_it_on_before_it_goes() {
    let mut bench = Bench::compared();
    let (_two, mut three) = (bench.sync(20), bench.sync(30));
    drain(&mut three);
    let flood = member_crdt::Session::flood(&Record::from(&bench.signed_revoke(10)));
    bench.state.on_frame(bench.session_with(20), &flood, bench.now);
    bench.perform();
    assert!(drain(&mut three).contains(&flood) && three.cut.try_recv().is_err());
    bench.closes(20, Code::Revoked);
    bench.closes(30, Code::Revoked);
    assert!(bench.state.sessions.is_empty());
}

#[test]
fn an_admin_who_removes_the_gateway_at_the_gateway_hears_whether_others_have_it() {
    for heard in [true, false] {
        let mut bench = Bench::compared();
        let _two = bench.sync(20);
        let (id, _) = bench.open_outside(&admin(), "submit");
        bench.say(id, &Request::Submit(vec![Record::from(&bench.signed_revoke(10))]));
        bench.written();
        assert_eq!(bench.heard(), [], "nobody has said that it has it");
        if heard {
            bench.closes(20, Code::Revoked);
            let outcomes = vec![org_trust::Outcome::Applied];
            let submitted = org_trust::Submitted { outcomes, told: 1, others: 2 };
            assert_eq!(bench.replies(id), [Reply::Submitted(submitted)]);
        } else {
            bench.later(LATEST);
            assert_eq!(bench.replies(id), [Reply::Refused(Code::ChangeUnheard)]);
        }
    }
}

#[test]
fn a_machine_in_contact_with_nobody_says_how_many_it_told() {
    let mut bench = Bench::compared();
    let mut answered = bench.submit(&bench.signed_revoke(30));
    bench.written();
    let Ok(Answer::Submitted(done)) = answered.try_recv() else { panic!("not acknowledged") };
    assert_eq!((done.told, done.others, done.removed), (0, 1, false));
    let _two = bench.sync(20);
    let mut answered = bench.submit(&bench.signed_revoke(50));
    bench.written();
    let Ok(Answer::Submitted(done)) = answered.try_recv() else { panic!("not acknowledged") };
    assert_eq!((done.told, done.others), (1, 1));
}

#[test]
fn a_machine_that_leaves_has_left_once_a_member_has_heard_it() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    drain(&mut two);
    let mut answered = bench.leave();
    assert!(!drain(&mut two).is_empty() && bench.state.is_member(), "the others are told first");
    bench.closes(20, Code::Left);
    assert!(!bench.state.is_member() && answered.try_recv().is_err(), "not on disk");
    bench.written();
    assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.state, Stage::NotMember);
    let (_, verdict) = bench.open_tunnel(&Machine::new(30), "sync", Machine::new(30).wireguard());
    assert!(verdict.ends_with(" code=MU-6008"), "it lets nobody in: {verdict}");
}

#[test]
fn a_machine_that_nobody_hears_does_not_leave_and_may_try_again() {
    let mut bench = Bench::compared();
    let _two = bench.sync(20);
    let mut answered = bench.leave();
    bench.later(LATEST);
    let Ok(Answer::Failed(failed)) = answered.try_recv() else { panic!("it left") };
    assert_eq!(failed.code.0, Code::LeaveUnheard);
    assert!(bench.state.is_member() && bench.state.leaving.is_none());
    // It was heard after all, and nobody listens to this machine any more.
    bench.closes(20, Code::Left);
    let mut answered = bench.leave();
    bench.written();
    assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
}

#[test]
fn a_machine_that_leaves_tells_a_member_that_comes_while_it_waits() {
    let mut bench = Bench::compared();
    let mut answered = bench.leave();
    let mut two = bench.sync(20);
    assert!(answered.try_recv().is_err());
    bench.converse(20, &mut two, &mut other(&[]));
    assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
}

#[test]
fn who_asks_to_leave_a_second_time_gets_the_same_answer() {
    let mut bench = Bench::compared();
    let _two = bench.sync(20);
    let answers = [bench.leave(), bench.leave()];
    bench.closes(20, Code::Left);
    bench.written();
    for mut answered in answers {
        assert!(matches!(answered.try_recv(), Ok(Answer::Left(left)) if left.told == 1));
    }
}

#[test]
fn the_word_of_a_machine_that_is_no_member_any_more_is_not_shown() {
    let mut bench = Bench::new();
    let _sync = bench.open_tunnel(&Machine::new(20), "sync", Machine::new(20).wireguard());
    bench.written();
    let (key, _) = bench.state.sessions.iter().next().unwrap();
    // It leaves, and closes its sessions with that word before its change is heard.
    bench.state.on_told(key, Code::Left, bench.now);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems.len(), 1);
    bench.revoke(20);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems, []);
}

type Change = fn(&Bench) -> Record;

/// Changes that take machine 10 out of the org, and what the others then say to it.
fn removals() -> [(Change, Code); 3] {
    // Two machines claim one boot key, so neither counts.
    let claim = |bench: &Bench| {
        let other = Machine { boot: key(12), ..Machine::new(50) };
        let by = admin().public();
        let admit =
            org_trust::Admit::by_admin(&bench.state.org, other.keys(), by, name("four"), Assurance::File);
        Record::from(&bench.signed(Lane::Main, &Payload::from(admit)))
    };
    [
        (|bench| Record::from(&bench.signed_revoke(10)), Code::Revoked),
        (|bench| Record::from(&bench.signed_suspend(10)), Code::Suspended),
        (claim, Code::KeyConflict),
    ]
}

fn drain(ends: &mut Ends) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| ends.frames.try_recv().ok()).collect()
}

fn assert_unheard(answered: &mut oneshot::Receiver<Answer>) {
    let answer = answered.try_recv();
    assert!(matches!(&answer, Ok(Answer::Failed(f)) if f.code.0 == Code::ChangeUnheard), "{answer:?}");
}

impl Bench {
    fn leave(&mut self) -> oneshot::Receiver<Answer> {
        let (reply, answered) = oneshot::channel();
        self.state.on_request(Ask::Leave {}, reply, self.now);
        self.perform();
        answered
    }

    /// A member closes its session of sync.
    fn closes(&mut self, node: u8, code: Code) {
        let key = self.session_with(node);
        self.state.on_told(key, code, self.now);
        self.state.on_ended(key, self.now);
        self.perform();
    }
}
