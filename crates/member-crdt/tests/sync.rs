//! Two replicas and the frames between them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::collections::VecDeque;

use identity::{Code, PublicKey, limits::SYNC_FRAME_BYTES_MAX};
use kit::{Who, deliver, key, of_size, revocation, steps, told};
use member_crdt::{Replica, ReportPace, Session, SyncError};
use org_trust::{Lane, Record};
use proptest::prelude::*;

/// Bytes on the wire, both ways, and frames.
#[derive(Debug, Default)]
struct Traffic {
    bytes: usize,
    frames: usize,
}

/// One round, begun by `a`, until nobody has anything to say.
fn round(a: &mut Replica, b: &mut Replica) -> Traffic {
    let (mut at_a, mut at_b) = (Session::new(), Session::new());
    let mut traffic = Traffic::default();
    let mut wire = VecDeque::from([(true, at_a.open(a))]);
    while let Some((to_b, frame)) = wire.pop_front() {
        assert!(frame.len() <= SYNC_FRAME_BYTES_MAX);
        traffic.bytes += frame.len();
        traffic.frames += 1;
        let out = if to_b { at_b.handle(b, &frame) } else { at_a.handle(a, &frame) };
        wire.extend(out.unwrap().send.into_iter().map(|frame| (!to_b, frame)));
    }
    traffic
}

#[test]
fn equal_sets_cost_one_small_round() {
    let world = of_size(20);
    let (mut a, mut b) = (world.filled(), world.filled());
    let traffic = round(&mut a, &mut b);
    assert_eq!(traffic.frames, 2);
    assert!(traffic.bytes < 1024, "{traffic:?}");
}

#[test]
fn one_missing_statement_among_a_thousand_members_costs_2_kib_and_one_report_4() {
    let mut world = of_size(1000);
    let mut behind = world.filled();
    world.revoke(0, 3);
    let mut ahead = world.filled();
    let mut other = world.replica();
    deliver(&mut other, &behind.records().collect::<Vec<_>>());
    let pulled = round(&mut behind, &mut ahead);
    let pushed = round(&mut ahead, &mut other);
    assert_eq!((behind.heads(), other.heads()), (ahead.heads(), ahead.heads()));
    assert!(pulled.bytes < 2048 && pushed.bytes < 2048, "{pulled:?} {pushed:?}");

    // A record that no tip tells of: a report. The trie finds it.
    let report = world.report(1, 1, &ahead);
    deliver(&mut ahead, &[Record::from(&report)]);
    for (asks, knows) in [(true, false), (false, true)] {
        let mut a = if asks { behind.copied() } else { ahead.copied() };
        let mut b = if knows { behind.copied() } else { ahead.copied() };
        let traffic = round(&mut a, &mut b);
        assert_eq!(a.heads(), b.heads());
        assert!(traffic.bytes < 4 * 1024, "{traffic:?}");
    }
}

trait Copied {
    fn copied(&self) -> Replica;
}

impl Copied for Replica {
    fn copied(&self) -> Replica {
        let mut copy = Self::new(self.chain().genesis()).unwrap();
        deliver(&mut copy, &self.records().collect::<Vec<_>>());
        copy
    }
}

#[test]
fn an_empty_replica_gets_everything_in_one_round() {
    let mut world = of_size(300);
    world.govern(|next| next.revoke_threshold = 1);
    world.revoke(0, 5);
    let mut full = world.filled();
    for n in 0..100 {
        let report = world.report(n, 1, &full);
        deliver(&mut full, &[Record::from(&report)]);
    }
    let mut empty = world.replica();
    round(&mut empty, &mut full);
    assert_eq!(empty.heads(), full.heads());
    let mut empty = world.replica();
    round(&mut full, &mut empty);
    assert_eq!(empty.heads(), full.heads());
    assert_eq!(*empty.roster(), *full.roster());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Whatever two honest replicas hold, one round gives both the union.
    #[test]
    fn one_round_makes_two_replicas_equal(story in steps(24), mask in any::<u64>()) {
        let world = told(1, &story);
        let (mut a, mut b) = (world.replica(), world.replica());
        for (i, record) in world.records().iter().enumerate() {
            // Each hears of some, and of what those build on as far as it heard of it.
            let side = mask >> (i % 32 * 2) & 3;
            if side != 0 {
                deliver(&mut a, std::slice::from_ref(record));
            }
            if side != 1 {
                deliver(&mut b, std::slice::from_ref(record));
            }
        }
        let mut union = world.replica();
        for _ in 0..3 {
            deliver(&mut union, &a.records().chain(b.records()).collect::<Vec<_>>());
        }
        round(&mut a, &mut b);
        prop_assert_eq!(a.heads(), b.heads());
        prop_assert_eq!(a.heads(), union.heads());
        prop_assert_eq!(&*a.roster(), &*b.roster());
    }

    /// Rounds of both sides, several at once, their frames arriving whenever they do.
    #[test]
    fn rounds_that_cross_do_not_disturb_each_other(
        story in steps(16),
        mask in any::<u32>(),
        arrivals in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        let world = told(1, &story);
        let (mut a, mut b) = (world.replica(), world.replica());
        for (i, record) in world.records().iter().enumerate() {
            deliver(if mask >> (i % 32) & 1 == 0 { &mut a } else { &mut b }, std::slice::from_ref(record));
        }
        let (mut at_a, mut at_b) = (Session::new(), Session::new());
        let mut to_b = VecDeque::from([at_a.open(&a), at_a.open(&a)]);
        let mut to_a = VecDeque::from([at_b.open(&b)]);
        let mut opens = 3;
        for first in arrivals.into_iter().chain([true, false].into_iter().cycle().take(400)) {
            if first && let Some(frame) = to_b.pop_front() {
                to_a.extend(at_b.handle(&mut b, &frame).unwrap().send);
            } else if let Some(frame) = to_a.pop_front() {
                to_b.extend(at_a.handle(&mut a, &frame).unwrap().send);
            }
            if opens > 0 {
                opens -= 1;
                to_b.push_back(at_a.open(&a));
            }
        }
        prop_assert!(to_a.is_empty() && to_b.is_empty());
        prop_assert_eq!(a.heads(), b.heads());
    }
}

#[test]
fn records_that_no_honest_replica_passes_on_end_the_session() {
    let world = of_size(3);
    let mut replica = world.filled();
    let place = world.place(Who::Admin(0), Lane::Revokes);
    let good = world.sign_at(Who::Admin(0), place, revocation(1));
    let bad = world.sign_at(Who::Stranger(0), place, revocation(2));
    let mut frame = Session::flood(&Record::from(&good));
    frame.extend(&Session::flood(&Record::from(&bad))[1..]);
    let error = Session::new().handle(&mut replica, &frame).unwrap_err();
    assert_eq!(error.code(), Code::ChangeNotAuthorised);
    let SyncError::Record { new, .. } = error else { panic!("{error:?}") };
    assert_eq!(new, [Record::from(&good)], "what was in order before it is passed on");
    assert_eq!(replica.roster().good().count(), 2);
}

/// Takes one report of each node and notes whose it verified.
#[derive(Default)]
struct One(Vec<PublicKey>);

impl ReportPace for One {
    fn is_due(&self, node: &PublicKey) -> bool {
        !self.0.contains(node)
    }

    fn taken(&mut self, node: PublicKey) {
        self.0.push(node);
    }
}

#[test]
fn reports_count_once_they_are_verified_and_are_dropped_beyond_the_pace() {
    let world = of_size(3);
    let mut replica = world.filled();
    let reports = [1, 2, 3].map(|seq| Record::from(&world.report(0, seq, &replica)));
    let Record::Report(mut bytes) = reports[0].clone() else { unreachable!() };
    *bytes.last_mut().unwrap() ^= 1;
    let (mut pace, node) = (One::default(), key(Who::Node(0)).public());
    let forged = Session::flood(&Record::Report(bytes));
    Session::new().handle_paced(&mut replica, &forged, &mut pace).unwrap_err();
    assert_eq!(pace.0, [], "whoever forges holds nobody up");
    for report in &reports {
        let out = Session::new().handle_paced(&mut replica, &Session::flood(report), &mut pace).unwrap();
        assert_eq!(out.new.len(), usize::from(*report == reports[0]));
    }
    assert_eq!(pace.0, [node]);
    assert_eq!(replica.report_of(&node).unwrap().body().seq, 1);
}

#[test]
fn frames_out_of_turn_end_the_session() {
    let world = of_size(3);
    let mut replica = world.filled();
    let root = [&[4, 0, 255][..], &[0; 256]].concat();
    let want = [&[5][..], &replica.records().next().unwrap().id()[..16]].concat();
    let mut reply = Session::new().open(&replica);
    reply[0] = 2;
    for frame in [&root, &want, &reply] {
        let refused = Session::new().handle(&mut replica, frame).unwrap_err();
        assert!(matches!(refused, SyncError::OutOfTurn { .. }), "{refused:?}");
        assert_eq!(refused.code(), Code::ChangeMalformed);
    }
    // One turn for each reply that was sent.
    let mut session = Session::new();
    session.handle(&mut replica, &Session::new().open(&world.replica())).unwrap();
    let out = session.handle(&mut replica, &root).unwrap();
    assert!(matches!(out.send.as_slice(), [told] if told[0] == 4), "{out:?}");
    session.handle(&mut replica, &want).unwrap();
    assert!(matches!(session.handle(&mut replica, &want), Err(SyncError::OutOfTurn { frame: "want" })));
}

#[test]
fn records_out_of_order_wait_in_the_session() {
    let mut world = of_size(3);
    let count = world.filled().count();
    for n in 100..120 {
        world.revoke(0, n);
    }
    let mut replica = of_size(3).filled();
    assert_eq!(replica.count(), count);
    let mut session = Session::new();
    for statement in world.statements.iter().rev() {
        session.handle(&mut replica, &Session::flood(&Record::from(&**statement))).unwrap();
    }
    assert_eq!(replica.heads(), world.filled().heads(), "the last one freed them all");
}

#[test]
fn charters_travel_before_what_cites_them() {
    let mut world = of_size(3);
    let mut behind = world.filled();
    world.govern(|next| next.name = identity::Name::parse("renamed").unwrap());
    world.revoke(0, 1);
    let mut ahead = world.filled();
    round(&mut behind, &mut ahead);
    assert_eq!(behind.chain().head().id(), ahead.chain().head().id());
    assert_eq!(behind.heads(), ahead.heads());
    assert!(key(Who::Admin(0)).public().is_torsion_free());
}
