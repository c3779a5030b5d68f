//! What holds of every story: the invariants of docs/spec/roster.md.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod kit;
mod model;

use std::{collections::BTreeSet, sync::Arc};

use identity::{PublicKey, SecretKey};
use kit::{Machine, Step, Who, World, deliver, key, revocation, steps, told};
use member_crdt::{Applied, MemberState, Replica, Roster, Unchecked, resolve};
use org_trust::{Lane, Payload, Place, Record, Statement};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Any order, duplication and batching leads to one set, one roster, one digest.
    #[test]
    fn convergence(story in steps(24), threshold in 1..3u8, order in any::<u64>()) {
        let world = told(threshold, &story);
        let records = world.records();
        let (mut a, mut b) = (world.replica(), world.replica());
        deliver(&mut a, &records);
        let mut shuffled = shuffle(&records, order);
        let again: Vec<Record> = shuffled.iter().take(5).cloned().collect();
        shuffled.extend(again);
        for batch in shuffled.chunks(3) {
            deliver(&mut b, batch);
        }
        deliver(&mut b, &shuffled);
        invariant_same(&a, &b);
    }

    /// Applying one by one gives at every step what resolving the whole at once gives.
    #[test]
    fn incremental_equals_batch(story in steps(24), threshold in 1..3u8, order in any::<u64>()) {
        let world = told(threshold, &story);
        let mut replica = world.replica();
        let mut held: Vec<Arc<Statement>> = Vec::new();
        for record in shuffle(&world.records(), order) {
            if let (Ok(Applied::New { .. }), Record::Statement(bytes)) = (replica.apply(&record), &record) {
                held.push(Arc::new(verified(&world, bytes)));
                let whole = resolve(replica.chain(), &held);
                prop_assert_eq!(&*replica.roster(), &whole);
                prop_assert_eq!(replica.roster_digest(), whole.digest());
            }
        }
    }

    /// The same for statements that arrive before the charter that they do not cite.
    #[test]
    fn charters_may_come_between(story in steps(16), order in any::<u64>()) {
        let world = told(1, &story);
        let mut replica = world.replica();
        let (charters, statements): (Vec<Record>, Vec<Record>) =
            world.records().into_iter().partition(|r| matches!(r, Record::Charter(_)));
        deliver(&mut replica, &shuffle(&statements, order));
        deliver(&mut replica, &charters);
        deliver(&mut replica, &statements);
        prop_assert_eq!(&*replica.roster(), &world.resolved());
    }

    /// A statement that revokes never adds a member, and no statement brings a revoked key back.
    #[test]
    fn revoke_dominance(story in steps(24), threshold in 1..3u8, order in any::<u64>()) {
        let world = told(threshold, &story);
        let mut replica = world.replica();
        let (charters, statements): (Vec<Record>, Vec<Record>) =
            world.records().into_iter().partition(|r| matches!(r, Record::Charter(_)));
        deliver(&mut replica, &charters);
        for record in shuffle(&statements, order) {
            let before = replica.roster();
            if !matches!(replica.apply(&record), Ok(Applied::New { .. })) {
                continue;
            }
            invariant_revoked_stays(&before, &replica.roster(), cut_tips(&world).contains(&record.id()));
            let Record::Statement(bytes) = &record else { continue };
            let takes = |p: &Payload| {
                matches!(p, Payload::Revoke(_) | Payload::Suspend(_) | Payload::Leave | Payload::Retire(_))
            };
            if takes(verified(&world, bytes).payload()) {
                prop_assert!(
                    good(&replica.roster()).is_subset(&good(&before))
                        || cut_tips(&world).contains(&record.id())
                );
            }
        }
    }

    /// The rules as the implementation has them are the rules as they are written.
    #[test]
    fn the_model_agrees(story in steps(28), threshold in 1..3u8) {
        let world = told(threshold, &story);
        let resolved = world.resolved();
        prop_assert_eq!(model::rows_of(&resolved), model::model(&world.chain, &world.statements));
        prop_assert_eq!(model::deciding_of(&resolved), model::deciding(&world.chain, &world.statements));
    }

    /// A key has at most one live successor, and whoever has enough admins against one key of a machine
    /// has none left in use.
    #[test]
    fn a_lineage_lives_and_dies_as_one(
        turns in prop::collection::vec((any::<u8>(), 0..8u8), 1..12),
        revoked in any::<u8>(),
        order in any::<u64>(),
    ) {
        let mut world = World::new(1, 1, 1);
        let invite = world.invite(0, 0, 9);
        world.admit(invite, Machine::new(0));
        world.admit(invite, Machine::new(1));
        for (made, to) in turns {
            world.step(Step::Rotate { made, machine: Machine::new(to) });
        }
        let before = world.filled();
        let mut owner = std::collections::BTreeMap::new();
        for member in before.roster().good() {
            for node in member.nodes() {
                prop_assert_eq!(owner.insert(node, member.first()), None, "in two good machines");
            }
        }
        let successors = |key: PublicKey| {
            let held = world.statements.iter().filter(|s| before.statement(&s.id()).is_some());
            held.filter_map(|s| match s.payload() {
                Payload::Rotate(r) if r.old == key => Some(r.node),
                _ => None,
            })
            .collect::<BTreeSet<_>>()
        };
        for member in before.roster().good() {
            let nodes: Vec<PublicKey> = member.nodes().collect();
            for (at, node) in nodes.iter().enumerate() {
                let next: BTreeSet<PublicKey> = nodes.get(at + 1).copied().into_iter().collect();
                prop_assert_eq!(successors(*node), next);
            }
        }
        let nodes: Vec<u8> = (0..8).collect();
        world.revoke(0, nodes[usize::from(revoked) % nodes.len()]);
        let hit = key(Who::Node(nodes[usize::from(revoked) % nodes.len()])).public();
        let mut after = world.replica();
        deliver(&mut after, &shuffle(&world.records(), order));
        let roster = after.roster();
        prop_assert!(roster.good().all(|member| member.nodes().all(|node| node != hit)));
        if let Some(first) = owner.get(&hit) {
            for (node, _) in owner.iter().filter(|(_, of)| *of == first) {
                let state = roster.get(node).map(|m| m.state.as_str());
                prop_assert_eq!(state, Some("revoked"));
            }
        }
    }

    /// What is not signed by a role of this org changes nothing at all.
    #[test]
    fn authority(story in steps(12), stranger in any::<u8>(), flip in any::<(u16, u8)>(), pick in any::<u16>()) {
        let world = told(1, &story);
        let mut replica = world.filled();
        let (roster, heads, count) = (replica.roster_digest(), replica.heads(), replica.count());
        let charter = world.chain.head().id();
        let prev = world.chain.genesis().id().0;
        let place = |lane| Place { charter, lane, seq: 0, prev };
        let who = Who::Stranger(stranger);
        let admit = Machine::new(200).with_keys(|keys| {
            let name = identity::Name::parse("x").unwrap();
            let by = key(who).public();
            org_trust::Admit::by_admin(&world.org, keys, by, name, org_trust::Assurance::File)
        });
        let mut foreign = vec![
            world.sign_at(who, place(Lane::Revokes), revocation(0)),
            world.sign_at(who, place(Lane::Main), admit),
            world.sign_at(Who::Gateway(0), place(Lane::Revokes), revocation(0)),
        ];
        // The same people, the same words, another org.
        let mut elsewhere = World::named("elsewhere", 3, 2, 1);
        elsewhere.invite(0, 0, 9);
        elsewhere.admit(0, Machine::new(100));
        elsewhere.revoke(0, 0);
        foreign.extend(elsewhere.statements.iter().map(|s| (**s).clone()));
        for statement in &foreign {
            let applied = replica.apply(&Record::from(statement));
            prop_assert!(!matches!(applied, Ok(Applied::New { .. })), "{applied:?}");
        }
        // Any bit of any record.
        let records: Vec<Record> = replica.records().collect();
        let record = &records[usize::from(pick) % records.len()];
        let mut bytes = record.bytes().to_vec();
        let at = usize::from(flip.0) % bytes.len();
        bytes[at] ^= 1 << (flip.1 % 8);
        let damaged = match record {
            Record::Charter(_) => Record::Charter(bytes),
            Record::Statement(_) => Record::Statement(bytes),
            Record::Report(_) => Record::Report(bytes),
        };
        let applied = replica.apply(&damaged);
        prop_assert!(!matches!(applied, Ok(Applied::New { .. })), "{applied:?}");
        prop_assert_eq!((roster, heads, count), (replica.roster_digest(), replica.heads(), replica.count()));
    }

    /// Any stream from somebody without a role: not one byte more.
    #[test]
    fn a_stranger_grows_nothing(
        blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        names in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let mut world = World::new(1, 1, 1);
        let invite = world.invite(0, 0, 3);
        world.admit(invite, Machine::new(0));
        let mut replica = world.filled();
        replica.save_incremental().unwrap();
        let before = (replica.count(), replica.heads(), replica.save().unwrap().len());
        let place = world.place(Who::Admin(0), Lane::Revokes);
        for blob in blobs {
            for record in [Record::Charter(blob.clone()), Record::Statement(blob.clone()), Record::Report(blob)] {
                prop_assert!(replica.apply(&record).is_err());
            }
        }
        for name in names {
            let said = world.sign_at(Who::Stranger(name), place, revocation(name));
            let report = world.report(100 + name % 100, 1, &replica);
            prop_assert!(replica.apply(&Record::from(&said)).is_err());
            prop_assert!(replica.apply(&Record::from(&report)).is_err());
        }
        prop_assert!(!replica.is_unsaved());
        prop_assert_eq!(before, (replica.count(), replica.heads(), replica.save().unwrap().len()));
    }

    /// Heads are equal iff the sets are.
    #[test]
    fn heads_tell_sets_apart(story in steps(16), lost in any::<u16>()) {
        let world = told(1, &story);
        let whole = world.filled();
        let records = world.records();
        let mut part = world.replica();
        let lost = usize::from(lost) % records.len();
        let rest: Vec<Record> =
            records.iter().enumerate().filter(|(i, _)| *i != lost).map(|(_, r)| r.clone()).collect();
        deliver(&mut part, &rest);
        let ids = |r: &Replica| r.records().map(|record| record.id()).collect::<BTreeSet<_>>();
        prop_assert_eq!(whole.heads() == part.heads(), ids(&whole) == ids(&part));
        deliver(&mut part, &records);
        invariant_same(&whole, &part);
    }

    /// Membership says nothing about charters and roles (invariant 5).
    #[test]
    fn governance_does_not_depend_on_members(story in steps(16)) {
        let world = told(1, &story);
        let full = world.filled();
        let mut bare = world.replica();
        let charters: Vec<Record> = world.chain.iter().map(Record::from).collect();
        deliver(&mut bare, &charters);
        let (full, bare) = (full.roster(), bare.roster());
        prop_assert_eq!(full.admins(), bare.admins());
        prop_assert_eq!(full.gateways(), bare.gateways());
        prop_assert_eq!(full.anchor(), bare.anchor());
    }

    /// A file holds what the replica held, whichever way it was written.
    #[test]
    fn a_file_gives_the_replica_back(story in steps(16), every in 1..5usize) {
        let world = told(1, &story);
        let mut replica = world.replica();
        let mut file = replica.save_incremental().unwrap();
        for (i, record) in world.records().iter().enumerate() {
            deliver(&mut replica, std::slice::from_ref(record));
            if i % every == 0 {
                file.extend(replica.save_incremental().unwrap());
            }
        }
        file.extend(replica.save_incremental().unwrap());
        let appended = Replica::load(&file, &world.org).unwrap();
        let mut once = Replica::load(&replica.save().unwrap(), &world.org).unwrap();
        prop_assert!(!appended.torn && appended.refused.is_empty(), "{:?}", appended.refused);
        invariant_same(&replica, &appended.replica);
        invariant_same(&replica, &once.replica);
        let spread = |pieces: Vec<Unchecked>| pieces.into_iter().rev().map(Unchecked::check).collect();
        let spread = Replica::load_with(&file, &world.org, spread).unwrap();
        prop_assert!(spread.refused.is_empty(), "{:?}", spread.refused);
        invariant_same(&replica, &spread.replica);
        prop_assert!(once.replica.save_incremental().unwrap().is_empty(), "nothing is written twice");
    }
}

/// Two admins, a gateway, an overspent invite, a fork, a Cancel with a tip, a Leave: every order.
#[test]
fn every_order_of_a_small_case_gives_one_roster() {
    let mut world = World::new(2, 1, 2);
    let invite = world.invite(0, 0, 1);
    let first = world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    world.revoke(0, 0);
    world.revoke(1, 0);
    world.cancel(1, invite, Some(first));
    world.leave(0, first);
    let mut records = world.records();
    let expected = world.resolved();
    let mut orders = 0;
    permutations(&mut records, 0, &mut |order| {
        let mut replica = world.replica();
        deliver(&mut replica, order);
        assert_eq!(*replica.roster(), expected);
        orders += 1;
    });
    assert_eq!(orders, 5040);
}

#[test]
fn a_story_without_end_ends_where_its_parts_meet() {
    let story = [
        Step::Invite { admin: 1, gateway: 1, uses: 2, approval: false },
        Step::Admit { invite: 1, machine: Machine::new(3) },
        Step::ForkedAdmit { invite: 1, machine: Machine::new(4), back: 0 },
        Step::Revoke { admin: 2, node: 3 },
        Step::RemoveAdmin { cut: 1 },
    ];
    let world = told(1, &story);
    assert_eq!(*world.filled().roster(), world.resolved());
}

fn invariant_same(a: &Replica, b: &Replica) {
    assert_eq!(*a.roster(), *b.roster());
    assert_eq!(a.roster_digest(), b.roster_digest());
    assert_eq!((a.heads(), a.count()), (b.heads(), b.count()));
}

/// Only a charter, or the tip that completes its cut, takes a revocation back.
fn invariant_revoked_stays(before: &Roster, after: &Roster, completes_cut: bool) {
    for member in before.members() {
        let revoked = matches!(member.state, MemberState::Revoked { .. });
        let state = after.member_of(&member.first()).map(|m| &m.state);
        assert!(!revoked || completes_cut || state != Some(&MemberState::Good), "{member:?}");
    }
}

fn good(roster: &Roster) -> BTreeSet<PublicKey> {
    roster.good().map(|member| member.first()).collect()
}

fn cut_tips(world: &World) -> BTreeSet<[u8; 32]> {
    world.chain.iter().flat_map(|c| c.charter().cuts.iter().map(|cut| cut.tip.0)).collect()
}

fn verified(world: &World, bytes: &[u8]) -> Statement {
    org_trust::UnverifiedStatement::decode(bytes).unwrap().verify(&world.org).unwrap()
}

fn shuffle(records: &[Record], seed: u64) -> Vec<Record> {
    let mut keyed: Vec<([u8; 32], &Record)> = records
        .iter()
        .map(|r| (identity::HashContext::SYNC_RING.hash(&[&seed.to_le_bytes(), &r.id()]), r))
        .collect();
    keyed.sort();
    keyed.into_iter().map(|(_, r)| r.clone()).collect()
}

fn permutations(items: &mut Vec<Record>, from: usize, visit: &mut impl FnMut(&[Record])) {
    if from == items.len() {
        return visit(items);
    }
    for i in from..items.len() {
        items.swap(from, i);
        permutations(items, from + 1, visit);
        items.swap(from, i);
    }
}

#[test]
fn a_secret_key_of_the_kit_is_one_of_each() {
    let all: BTreeSet<[u8; 32]> = [Who::Admin(0), Who::Gateway(0), Who::Node(0), Who::Stranger(0)]
        .map(|who| *key(who).public().as_bytes())
        .into();
    assert_eq!(all.len(), 4);
    let _: SecretKey = kit::root();
}
