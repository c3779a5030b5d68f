//! What machines say of themselves.

use super::*;

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
