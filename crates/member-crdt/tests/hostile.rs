//! What a hostile member can do in a session of sync: nothing to the member list, and little to the machine.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kit;

use identity::{
    Code,
    limits::{
        FORK_BRANCHES_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX, SYNC_ANSWER_BYTES_MAX, SYNC_FRAME_BYTES_MAX,
        SYNC_TIPS_MAX,
    },
};
use kit::{Who, World, key, of_size, revocation};
use member_crdt::{Output, Replica, Session, SyncError};
use org_trust::{Lane, Place, Record};
use proptest::prelude::*;

const TIPS: u8 = 1;
const TIPS_REPLY: u8 = 2;
const NODES: u8 = 4;
const WANT: u8 = 5;

/// A node of a trie, as a frame has it.
fn node(prefix: &[u8], nibbles: u8, below: &[u8]) -> Vec<u8> {
    [&[nibbles], prefix, below].concat()
}

/// A branch whose digests are nobody's.
fn wrong_branch(prefix: &[u8], nibbles: u8) -> Vec<u8> {
    node(prefix, nibbles, &[&[255][..], &[0xee; 256]].concat())
}

fn nodes(nodes: &[Vec<u8>]) -> Vec<u8> {
    [&[NODES], nodes.concat().as_slice()].concat()
}

fn bytes(out: &Output) -> usize {
    out.send.iter().map(Vec::len).sum()
}

/// A session in which the peer has begun a round, and may tell nodes.
fn asked(replica: &mut Replica) -> Session {
    let mut session = Session::new();
    let equal = Session::new().open(replica);
    session.handle(replica, &equal).unwrap();
    session
}

#[test]
fn a_peer_that_repeats_its_tips_gets_the_list_once() {
    let world = of_size(50);
    let (mut full, empty) = (world.filled(), world.replica());
    let tips = Session::new().open(&empty);
    let mut session = Session::new();
    assert!(bytes(&session.handle(&mut full, &tips).unwrap()) > 20_000);
    assert!(bytes(&session.handle(&mut full, &tips).unwrap()) < 1024);
    assert!(session.held_bytes() <= 8 * usize::try_from(full.count()).unwrap());
}

#[test]
fn a_peer_that_begins_round_after_round_is_cut() {
    let world = of_size(3);
    let mut replica = world.filled();
    let tips = Session::new().open(&world.replica());
    let mut session = Session::new();
    let taken = (0..100).take_while(|_| session.handle(&mut replica, &tips).is_ok()).count();
    assert!((8..50).contains(&taken), "{taken}");
    // One that keeps our pace may go on for ever.
    let mut session = Session::new();
    for _ in 0..100 {
        session.open(&replica);
        session.handle(&mut replica, &tips).unwrap();
        session.handle(&mut replica, &tips).unwrap();
    }
}

#[test]
fn whatever_a_peer_says_it_gets_one_allowance_between_two_rounds_of_ours() {
    let world = of_size(200);
    let mut replica = world.filled();
    let list: usize = replica.records().map(|record| record.encoded_len()).sum();
    let mut session = asked(&mut replica);
    let (wrong, nothing) = (nodes(&[wrong_branch(&[], 0)]), nodes(&[node(&[], 0, &[0])]));
    let (mut told, mut got) = (0, 0);
    for _ in 0..SYNC_ANSWER_BYTES_MAX / list {
        // The first keeps the turns coming, the second asks for everything in three bytes.
        for frame in [&wrong, &nothing] {
            told += frame.len();
            got += bytes(&session.handle(&mut replica, frame).unwrap());
        }
    }
    let framing = SYNC_ANSWER_BYTES_MAX / 1000;
    println!("{told} bytes in, {got} bytes out, {} bytes held", session.held_bytes());
    assert!(got > SYNC_ANSWER_BYTES_MAX / 10 * 9 && got < SYNC_ANSWER_BYTES_MAX + framing, "{got}");
    assert_eq!(bytes(&session.handle(&mut replica, &nothing).unwrap()), 0);
    assert_eq!(session.held_bytes(), 0, "and nothing is remembered of it");
    // Tips are answered all the same, in short, and our own next round gives an honest peer its turn.
    let empty = Session::new().open(&world.replica());
    assert!(bytes(&session.handle(&mut replica, &empty).unwrap()) < 1024);
    session.open(&replica);
    assert!(bytes(&session.handle(&mut replica, &empty).unwrap()) > list / 2);
}

#[test]
fn nodes_that_are_nobodys_are_answered_with_sixteen_times_their_bytes_at_most() {
    let world = of_size(300);
    let mut replica = world.filled();
    // Every node of two nibbles, and one frame as full as may be.
    let two: Vec<Vec<u8>> = (0..=255).map(|byte| wrong_branch(&[byte], 2)).collect();
    let full: Vec<Vec<u8>> = (0..250u8).map(|byte| wrong_branch(&[byte, 0], 3)).collect();
    let root = vec![wrong_branch(&[], 0)];
    for told in [root, two[..250].to_vec(), full] {
        let told = nodes(&told);
        assert!(told.len() <= SYNC_FRAME_BYTES_MAX);
        let out = asked(&mut replica).handle(&mut replica, &told).unwrap();
        println!("{} bytes in, {} bytes out in {} frames", told.len(), bytes(&out), out.send.len());
        assert!(bytes(&out) <= 17 * told.len(), "{} for {}", bytes(&out), told.len());
        assert!(out.send.iter().all(|frame| frame.len() <= SYNC_FRAME_BYTES_MAX));
    }
}

#[test]
fn a_prefix_told_twice_or_inside_another_is_malformed() {
    let world = of_size(3);
    let mut replica = world.filled();
    let empty = |prefix: &[u8], nibbles| node(prefix, nibbles, &[0]);
    for told in [
        vec![empty(&[], 0), empty(&[], 0)],
        vec![empty(&[], 0), empty(&[0x10], 1)],
        vec![empty(&[0x10], 1), empty(&[0x12], 2)],
        vec![empty(&[0x20], 1), empty(&[0x10], 1)],
    ] {
        let refused = asked(&mut replica).handle(&mut replica, &nodes(&told)).unwrap_err();
        assert!(matches!(refused, SyncError::Malformed(_)), "{refused:?}");
        assert_eq!(refused.code(), Code::ChangeMalformed);
    }
}

#[test]
fn wanted_ids_that_nobody_holds_cost_nothing_and_those_that_are_held_come_once_a_turn() {
    let world = of_size(50);
    let mut replica = world.filled();
    let mut session = asked(&mut replica);
    session.handle(&mut replica, &nodes(&[wrong_branch(&[], 0)])).unwrap();
    let unknown: Vec<[u8; 16]> = (0..4095u16).map(|n| (u128::from(n) + 1).to_be_bytes()).collect();
    let want = [&[WANT][..], unknown.as_flattened()].concat();
    assert_eq!(bytes(&session.handle(&mut replica, &want).unwrap()), 0);
    let refused = session.handle(&mut replica, &want).unwrap_err();
    assert!(matches!(refused, SyncError::OutOfTurn { frame: "want" }), "{refused:?}");
}

#[test]
fn tips_of_nobody_and_hundreds_of_one_lane_are_answered_with_our_own_alone() {
    let mut world = of_size(50);
    world.revoke(0, 3);
    let mut replica = world.filled();
    let mut ours = Session::new().open(&replica);
    ours[1] ^= 1;
    let (summary, author) = (&ours[..73], key(Who::Admin(0)).public());
    for lane in [0u8, 1] {
        let tip = |n: u64| [author.as_bytes(), &[lane][..], &n.to_le_bytes(), &[9; 32]].concat();
        let tips: Vec<u8> = (0..SYNC_TIPS_MAX as u64).flat_map(tip).collect();
        let frame = [summary, &512u16.to_le_bytes(), &tips].concat();
        let out = Session::new().handle(&mut replica, &frame).unwrap();
        // 512 tips are as many as fit: nothing is said of later lanes, and of this one the peer is ahead.
        let Some((reply, records)) = out.send.split_last() else { panic!("no answer") };
        assert_eq!((reply[0], records.len()), (TIPS_REPLY, usize::from(lane)), "{out:?}");
        assert!(bytes(&out) < 1024);
    }
}

#[test]
fn orphans_push_out_each_other_and_not_the_replica() {
    let world = of_size(3);
    let mut replica = world.filled();
    let before = (replica.heads(), replica.count());
    let mut session = Session::new();
    let place = world.place(Who::Admin(0), Lane::Revokes);
    for n in 0..1000u64 {
        let lost = Place { prev: [9; 32], seq: place.seq + n + 1, ..place };
        let orphan = world.sign_at(Who::Admin(0), lost, revocation(1));
        let out = session.handle(&mut replica, &Session::flood(&Record::from(&orphan))).unwrap();
        assert_eq!((bytes(&out), out.new.len()), (0, 0));
        assert!(session.held_bytes() <= ORPHAN_BYTES_MAX + ORPHANS_MAX * 96, "{}", session.held_bytes());
    }
    assert!(session.held_bytes() > 200 * ORPHANS_MAX, "some are held: {}", session.held_bytes());
    assert_eq!(before, (replica.heads(), replica.count()));
}

#[test]
fn an_author_that_forks_without_end_fills_nothing_and_closes_nobodys_session() {
    let mut world = World::new(2, 1, 1);
    world.revoke(0, 1);
    let mut replica = world.filled();
    let (before, mut session) = (replica.count(), Session::new());
    let place = world.place(Who::Admin(1), Lane::Main);
    for n in 0..100u8 {
        let invite = kit::an_invite(n);
        let fork = world.sign_at(Who::Admin(1), place, invite);
        session.handle(&mut replica, &Session::flood(&Record::from(&fork))).unwrap();
    }
    let kept = usize::try_from(replica.count() - before).unwrap();
    assert_eq!(kept, FORK_BRANCHES_MAX + 1, "as many as prove it");
    assert_eq!(session.held_bytes(), 0);
}

#[test]
fn frames_too_long_too_short_and_of_no_kind_end_the_session() {
    let world = of_size(3);
    let mut replica = world.filled();
    let before = (replica.heads(), replica.count());
    for kind in 0..=9u8 {
        let mut frames = vec![vec![kind; SYNC_FRAME_BYTES_MAX + 1], vec![kind, 1]];
        if !(3..=5).contains(&kind) {
            frames.push(vec![kind]);
        }
        for frame in frames {
            let refused = asked(&mut replica).handle(&mut replica, &frame).unwrap_err();
            assert!(matches!(refused, SyncError::Malformed(_)), "{kind}: {refused:?}");
        }
    }
    assert!(Session::new().handle(&mut replica, &[]).is_err());
    assert_eq!(before, (replica.heads(), replica.count()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// A hostile peer says anything: the replica holds nothing of it, and no answer is out of proportion.
    #[test]
    fn a_hostile_peer_can_only_withhold(
        frames in prop::collection::vec(
            (0u8..7, prop::collection::vec(any::<u8>(), 0..400), prop::collection::btree_set(any::<[u8; 2]>(), 0..60)),
            1..40,
        ),
    ) {
        let world = of_size(3);
        let mut replica = world.filled();
        let before = (replica.heads(), replica.count());
        let list: usize = replica.records().map(|record| record.encoded_len()).sum();
        let mut session = asked(&mut replica);
        session.open(&replica);
        for (kind, random, prefixes) in frames {
            let mut frame = [&[kind][..], &random].concat();
            if kind == NODES {
                let told = prefixes.iter().map(|bytes| match bytes[0] % 3 {
                    0 => wrong_branch(bytes, 4),
                    1 => node(bytes, 4, &[0]),
                    _ => node(bytes, 4, &[&[1], &bytes[..], &[0; 14]].concat()),
                });
                frame = nodes(&told.collect::<Vec<_>>());
            }
            match session.handle(&mut replica, &frame) {
                Ok(out) => prop_assert!(bytes(&out) <= 17 * frame.len() + list + 1024),
                Err(_) => session = asked(&mut replica),
            }
            prop_assert!(session.held_bytes() <= ORPHAN_BYTES_MAX + ORPHANS_MAX * 96 + list);
        }
        prop_assert_eq!(before, (replica.heads(), replica.count()));
    }
}

#[test]
fn the_kinds_of_frames_are_those_of_the_wire() {
    let world = of_size(1);
    let mut replica = world.filled();
    let tips = Session::new().open(&replica);
    let out = Session::new().handle(&mut replica, &tips).unwrap();
    assert_eq!((tips[0], out.send[0][0]), (TIPS, TIPS_REPLY));
}
