//! What a machine answers that was off, asleep or cut off.

use control::local::FreshnessState;
use member_crdt::{Replica, Session as Side};
use overlay::Direction;

use super::*;
use crate::sessions::Ends;

const FIRST: &str = " code=MU-1414";
const STALE: &str = " code=MU-1416";

#[test]
fn a_machine_that_starts_serves_nobody_but_sync_until_it_has_heard_another_member() {
    let mut bench = Bench::started();
    assert!(bench.link(20).ends_with(FIRST));
    let mut two = bench.sync(20);
    bench.converse(20, &mut two, &mut other(&[]));
    assert!(bench.link(20).ends_with(FIRST), "nobody vouches for himself");
    assert!(bench.link(30).starts_with("ok "), "one member let others in");
    let mut three = bench.sync(30);
    bench.converse(30, &mut three, &mut other(&[]));
    assert!(bench.link(20).starts_with("ok "));
    assert_eq!(bench.freshness(), FreshnessState::InStep);
}

#[test]
fn a_revoked_peer_that_repeats_our_heads_is_refused_after_one_exchange_with_an_honest_member() {
    let mut bench = Bench::started();
    let revoke = bench.signed_revoke(20);
    // It has not got its own revocation, or will not say so: its heads are ours.
    let mut liar = bench.sync(20);
    bench.converse(20, &mut liar, &mut other(&[]));
    assert!(bench.link(20).ends_with(FIRST));
    let mut honest = bench.sync(30);
    bench.converse(30, &mut honest, &mut other(&[Record::from(&revoke)]));
    assert!(bench.link(20).ends_with(" code=MU-1403"));
    assert_eq!(liar.cut.try_recv().unwrap().code, Code::Revoked);
    assert!(bench.link(30).starts_with("ok "));
}

#[test]
fn who_has_heard_nobody_in_time_does_what_the_settings_say() {
    for (on_stale, new, open_ends) in
        [(OnStale::Serve, "ok ", false), (OnStale::DenyNew, STALE, false), (OnStale::DenyAll, STALE, true)]
    {
        let mut bench = Bench::compared();
        let (ends, _) = bench.open_tunnel(&Machine::new(30), "link", Machine::new(30).wireguard());
        let mut link = ends.unwrap();
        bench.state.on_policy(Policy { on_stale, ..Policy::default() }, bench.now);
        bench.state.on_resumed(bench.now);
        bench.perform();
        assert!(bench.link(20).ends_with(FIRST));
        assert!(link.cut.try_recv().is_err(), "what is open goes on meanwhile");
        bench.later(Duration::from_millis(identity::limits::HEAL_DEADLINE_MS));
        let verdict = bench.link(20);
        assert!(verdict.starts_with(new) || verdict.ends_with(new), "{on_stale:?}: {verdict}");
        assert_eq!(link.cut.try_recv().is_ok_and(|cut| cut.code == Code::ListStale), open_ends);
        let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
        assert_eq!(status.problems[0].code.0, Code::ListStale, "health never lies");
        // Heard late is heard.
        let mut two = bench.sync(20);
        bench.converse(20, &mut two, &mut other(&[]));
        assert!(bench.link(20).starts_with("ok "), "{on_stale:?}");
    }
}

#[test]
fn a_list_that_nobody_confirms_becomes_stale_with_the_time() {
    let mut bench = Bench::started();
    let stale_after = Duration::from_secs(60);
    bench.state.on_policy(Policy { on_stale: OnStale::DenyNew, stale_after, ..Policy::default() }, bench.now);
    let mut syncs = [20, 30].map(|node| bench.sync(node));
    for (node, sync) in [20, 30].into_iter().zip(&mut syncs) {
        bench.converse(node, sync, &mut other(&[]));
    }
    assert!(bench.link(20).starts_with("ok "));
    bench.later(stale_after - Duration::from_millis(1));
    assert!(bench.link(20).starts_with("ok "));
    bench.later(Duration::from_millis(1));
    assert!(bench.link(20).ends_with(STALE), "members that do not answer do not confirm it");
    assert_eq!(bench.freshness(), FreshnessState::Stale);
    assert!(bench.state.timeout().is_none_or(|at| at > bench.now.at), "no timer is always due");
}

#[test]
fn an_answer_to_what_was_asked_before_the_sleep_says_nothing_about_now() {
    let mut bench = Bench::started();
    let mut syncs = [20, 30].map(|node| bench.sync(node));
    let asked: Vec<Vec<u8>> = syncs.iter_mut().map(|sync| sync.frames.try_recv().unwrap()).collect();
    bench.state.on_resumed(bench.now);
    bench.perform();
    let mut sides = [Side::new(), Side::new()];
    for ((node, frame), side) in [20, 30].into_iter().zip(&asked).zip(&mut sides) {
        bench.answer(node, frame, &mut other(&[]), side);
    }
    assert!(bench.link(20).ends_with(FIRST));
    for ((node, sync), side) in [20, 30].into_iter().zip(&mut syncs).zip(&mut sides) {
        bench.converse_as(node, sync, &mut other(&[]), side);
    }
    assert!(bench.link(20).starts_with("ok "));
}

#[test]
fn who_comes_after_the_last_contact_was_lost_waits_until_others_were_heard() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    bench.converse(20, &mut two, &mut other(&[]));
    assert!(bench.link(30).starts_with("ok "));
    bench.end_sync(20);
    assert_eq!(bench.freshness(), FreshnessState::Apart);
    assert!(bench.state.sessions.is_linked(key(30).public()), "what is open goes on");
    assert!(bench.link(20).ends_with(FIRST));
    let mut three = bench.sync(30);
    bench.converse(30, &mut three, &mut other(&[]));
    assert!(bench.link(20).starts_with("ok "));
}

#[test]
fn a_gateway_that_compares_boots_and_admits_nobody_and_takes_what_admins_bring() {
    let mut bench = Bench::started();
    for (by, action) in [(&key(22), "boot"), (&key(50), "enrol")] {
        assert!(bench.open_outside(by, action).1.ends_with(FIRST), "{action}");
    }
    let (id, verdict) = bench.open_outside(&admin(), "submit");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Submit(vec![Record::from(&bench.signed_revoke(20))]));
    assert!(!bench.state.roster.get(&key(20).public()).unwrap().is_good());
    let mut three = bench.sync(30);
    bench.converse(30, &mut three, &mut other(&[]));
    assert!(bench.open_outside(&key(22), "boot").1.ends_with(" code=MU-1403"));
}

#[test]
fn the_only_member_of_an_org_serves_at_once() {
    let mut bench = Bench::started();
    bench.revoke(20);
    bench.revoke(30);
    bench.written();
    assert_eq!(bench.freshness(), FreshnessState::InStep);
    let invite = bench.invite(1, 9);
    let newcomer = Machine::new(50);
    let (id, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Enrol(newcomer.request(&bench, &invite, 9)));
}

#[test]
fn a_session_beyond_those_kept_ends_after_both_sides_have_heard_the_other() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    bench.state.part_with(key(20).public(), Direction::Inbound, bench.now);
    assert!(two.cut.try_recv().is_err());
    bench.converse(20, &mut two, &mut other(&[Record::from(&bench.signed_revoke(30))]));
    assert!(!bench.state.roster.get(&key(30).public()).unwrap().is_good(), "heard");
    bench.later(Duration::from_millis(identity::limits::SYNC_GUEST_MS));
    assert_eq!(two.cut.try_recv().unwrap().code, Code::Busy);
}

#[test]
fn a_cloned_vm_is_suspended_here_where_the_settings_say_so_and_only_its_key() {
    for (on_clone, refused) in [(OnClone::Alarm, false), (OnClone::Suspend, true)] {
        let mut bench = Bench::compared();
        let _sync = bench.sync(20);
        bench.state.on_policy(Policy { on_clone, ..Policy::default() }, bench.now);
        let (ends, _) = bench.open_tunnel(&Machine::new(30), "link", Machine::new(30).wireguard());
        // One machine starts, then another from a copy of its disk, and the first goes on.
        bench.hear_report(30, 1, 1);
        bench.hear_report(30, 2, 2);
        assert!(!bench.state.members.is_cloned(&key(30).public()), "a machine may start again");
        bench.hear_report(30, 3, 1);
        assert!(bench.state.members.is_cloned(&key(30).public()));
        let cut = ends.unwrap().cut.try_recv();
        assert_eq!(cut.is_ok_and(|cut| cut.code == Code::CloneSuspected), refused);
        assert_eq!(bench.link(30).ends_with(" code=MU-2013"), refused);
        assert!(bench.link(20).starts_with("ok "), "only that key");
        assert!(bench.state.roster.get(&key(30).public()).unwrap().is_good(), "an admin decides for all");
    }
}

#[test]
fn a_cloned_vm_is_still_suspended_after_a_restart_and_until_an_admin_resumes_it() {
    let policy = Policy { on_clone: OnClone::Suspend, ..Policy::default() };
    let mut bench = Bench::compared();
    let _sync = bench.sync(20);
    for (seq, boot) in [(1, 1), (2, 2), (3, 1)] {
        bench.hear_report(30, seq, boot);
    }
    bench.written();
    let saved = bench.state.replica.save().unwrap();
    let mut bench = Bench::with(Replica::load(&saved, &bench.state.org).unwrap().replica);
    bench.state.on_policy(policy, bench.now);
    for node in [20, 30] {
        bench.state.compared_with(key(node).public(), bench.now);
    }
    assert!(bench.link(30).ends_with(" code=MU-2013"));
    let Answer::Members(shown) = bench.ask(Ask::Member { node: "three".to_owned() }) else { panic!() };
    assert_eq!(shown[0].status, control::local::MemberStatus::Suspended);
    // The admin's word ends it here and everywhere, and it takes new proof to begin again.
    let suspend = bench.signed_suspend(30);
    drop(bench.submit(&suspend));
    let resume = Resume { node: key(30).public(), suspends: vec![suspend.id()] };
    drop(bench.submit(&bench.signed(Lane::Main, &Payload::Resume(resume))));
    bench.written();
    assert!(bench.link(30).starts_with("ok "));
    let saved = bench.state.replica.save().unwrap();
    let again = Replica::load(&saved, &bench.state.org).unwrap().replica;
    assert_eq!(again.report_clashes(), [], "also after a restart");
    let _sync = bench.sync(20);
    bench.hear_report(30, 4, 2);
    assert!(bench.link(30).starts_with("ok "), "it was started again");
    bench.hear_report(30, 5, 1);
    assert!(bench.link(30).ends_with(" code=MU-2013"), "two machines go on");
}

#[test]
fn a_machine_that_is_refused_where_it_dials_knows_that_it_is_shut_out() {
    let mut bench = Bench::compared();
    let (reply, _decided) = oneshot::channel();
    let failure = Failure { code: Code::Revoked, detail: String::new() };
    let node = key(20).public();
    let dialled = Dialled { node, purpose: Purpose::Link, result: Err(failure), reply };
    bench.state.on_dialled(dialled, bench.now);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!(status.problems[0].code.0, Code::Revoked);
}

#[test]
fn a_machine_that_hears_of_itself_from_elsewhere_says_that_it_is_here() {
    let mut bench = Bench::compared();
    let _sync = bench.sync(20);
    bench.written();
    let own = |bench: &Bench| bench.state.replica.report_of(&key(10).public()).unwrap().body().clone();
    let before = own(&bench);
    bench.hear_report(10, before.seq + 1, 7);
    bench.later(Duration::from_millis(identity::limits::REPORT_INTERVAL_MS));
    bench.written();
    assert_eq!((own(&bench).seq, own(&bench).boot_nonce), (before.seq + 2, before.boot_nonce));
    for _ in 0..10 {
        let seq = own(&bench).seq;
        bench.hear_report(10, seq + 1, 7);
        bench.later(Duration::from_millis(identity::limits::REPORT_INTERVAL_MS));
        bench.written();
    }
    assert!(bench.state.members.is_cloned(&key(10).public()));
    assert_eq!(own(&bench).boot_nonce, BootNonce([7; 16]), "two copies do not go on at each other for ever");
}

#[test]
fn a_machine_that_is_restored_from_an_old_copy_says_nothing_until_it_has_heard_what_it_said_last() {
    for (kept, last) in [(3, 4), (3, 9)] {
        let (mut copy, _) = fixture::org(0);
        for (node, seq) in [(10, kept), (20, 0), (30, 0)] {
            copy.apply(&Record::from(&signed_report(&copy, node, seq, 7))).unwrap();
        }
        let said_last = signed_report(&copy, 10, last, 7);
        let mut bench = Bench::with(copy);
        let own = |bench: &Bench| bench.state.replica.report_of(&key(10).public()).unwrap().body().clone();
        let mut two = bench.sync(20);
        bench.later(Duration::from_millis(2 * identity::limits::REPORT_INTERVAL_MS));
        bench.written();
        assert_eq!(own(&bench).seq, kept, "others may hold another report of the next number");
        bench.hear_report(10, last, 7);
        let mut theirs = other(&[Record::from(&said_last)]);
        bench.converse(20, &mut two, &mut theirs);
        assert_eq!((own(&bench).seq, own(&bench).boot_nonce), (last + 1, BootNonce([0; 16])));
        assert_eq!(bench.state.replica.report_clashes(), [], "it is one machine");
        assert_eq!(theirs.report_clashes(), []);
    }
}

#[test]
fn a_machine_hears_what_it_said_last_before_the_answer_that_lets_it_report() {
    let mut bench = Bench::compared();
    let mut two = bench.sync(20);
    let said = Record::from(bench.state.replica.report_of(&key(20).public()).unwrap());
    assert_eq!(two.frames.try_recv().unwrap(), Side::flood(&said));
}

#[test]
fn a_machine_that_was_admitted_and_has_never_run_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    let stale_after = Duration::from_secs(60);
    bench.state.on_policy(Policy { on_stale: OnStale::DenyAll, stale_after, ..Policy::default() }, bench.now);
    assert!(bench.open_outside(&key(22), "boot").1.starts_with("ok "));
    bench.later(stale_after);
    assert!(bench.open_outside(&key(32), "boot").1.starts_with("ok "));
    assert_eq!(bench.freshness(), FreshnessState::InStep);
}

/// What another member holds.
pub(super) fn other(more: &[Record]) -> Replica {
    let (mut replica, _) = fixture::org(0);
    for record in more {
        replica.apply(record).unwrap();
    }
    replica
}

impl Bench {
    /// The others have run before.
    fn started() -> Self {
        let (mut replica, _) = fixture::org(0);
        for node in [20, 30] {
            let report = signed_report(&replica, node, 0, 0);
            replica.apply(&Record::from(&report)).unwrap();
        }
        Self::with(replica)
    }

    pub(super) fn compared() -> Self {
        let mut bench = Self::started();
        for node in [20, 30] {
            bench.state.compared_with(key(node).public(), bench.now);
        }
        bench
    }

    pub(super) fn link(&mut self, node: u8) -> String {
        let machine = Machine::new(node);
        self.open_tunnel(&machine, "link", machine.wireguard()).1
    }

    pub(super) fn sync(&mut self, node: u8) -> Ends {
        let machine = Machine::new(node);
        let (ends, verdict) = self.open_tunnel(&machine, "sync", machine.wireguard());
        assert!(verdict.starts_with("ok "), "{verdict}");
        self.written();
        ends.unwrap()
    }

    pub(super) fn session_with(&self, node: u8) -> SessionKey {
        let of_it =
            |key: &&SessionKey| self.state.sessions.get(**key).unwrap().peer() == fixture::key(node).public();
        *self.state.sync.keys().find(of_it).unwrap()
    }

    /// The other side of a session answers all that it is sent.
    pub(super) fn converse(&mut self, node: u8, ends: &mut Ends, replica: &mut Replica) {
        self.converse_as(node, ends, replica, &mut Side::new());
    }

    fn converse_as(&mut self, node: u8, ends: &mut Ends, replica: &mut Replica, side: &mut Side) {
        let session = self.session_with(node);
        for _ in 0..8 {
            while let Ok(frame) = ends.frames.try_recv() {
                for frame in side.handle(replica, &frame).unwrap().send {
                    self.state.on_frame(session, &frame, self.now);
                }
            }
            self.perform();
            self.written();
        }
    }

    fn answer(&mut self, node: u8, frame: &[u8], replica: &mut Replica, side: &mut Side) {
        let key = self.session_with(node);
        for frame in side.handle(replica, frame).unwrap().send {
            self.state.on_frame(key, &frame, self.now);
        }
        self.perform();
    }

    fn end_sync(&mut self, node: u8) {
        let key = self.session_with(node);
        self.state.on_ended(key, self.now);
        self.perform();
    }

    pub(super) fn later(&mut self, span: Duration) {
        self.now.at += span;
        self.state.on_timeout(self.now);
        self.perform();
    }

    fn freshness(&mut self) -> FreshnessState {
        let Answer::Status(status) = self.ask(Ask::Status {}) else { panic!("no status") };
        status.freshness.unwrap().state
    }
}
