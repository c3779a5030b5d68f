//! Every case of a small scope: a few authors, every subset of what they might say, under every history
//! of charters, in every order that matters; against the model.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod kit;
mod model;

use std::sync::Arc;

use identity::StatementId;
use kit::{Machine, Who, World, deliver, key, revocation};
use member_crdt::{Replica, resolve};
use org_trust::{Cancel, Cut, Lane, Payload, Record, Statement};

/// A pool of statements, and histories under which all its subsets are looked at.
struct Scope {
    name: &'static str,
    worlds: Vec<World>,
    pool: Vec<Arc<Statement>>,
}

#[derive(Default)]
struct Count {
    subsets: u64,
    orders: u64,
}

/// Subsets of so many statements are applied in every order, larger ones one by one each way: under the
/// first charter, and under those that follow it.
const ORDERED_MAX: (usize, usize) = (3, 2);

#[test]
fn every_case_of_a_small_scope_is_as_the_model_says() {
    let scopes = [
        revocation_scope(1),
        revocation_scope(2),
        suspension_scope(),
        rotation_scope(),
        approval_scope(),
        assign_scope(),
        policy_scope(),
    ];
    let mut total = Count::default();
    for scope in scopes {
        let count = scope.run();
        println!(
            "{}: {} statements, {} histories, {} cases, {} orders of delivery",
            scope.name,
            scope.pool.len(),
            scope.worlds.len(),
            count.subsets,
            count.orders
        );
        total.subsets += count.subsets;
        total.orders += count.orders;
    }
    println!("{} cases, {} orders of delivery", total.subsets, total.orders);
    assert!(total.subsets > 20_000 && total.orders > 8_000, "the scope has shrunk");
}

impl Scope {
    fn run(&self) -> Count {
        let mut count = Count::default();
        for (at, world) in self.worlds.iter().enumerate() {
            let ordered = if at == 0 { ORDERED_MAX.0 } else { ORDERED_MAX.1 };
            let charters: Vec<Record> = world.chain.iter().skip(1).map(Record::from).collect();
            for subset in 0..1_u32 << self.pool.len() {
                let chosen: Vec<Arc<Statement>> = (0..self.pool.len())
                    .filter(|n| subset & (1 << n) != 0)
                    .map(|n| Arc::clone(&self.pool[n]))
                    .collect();
                let resolved = resolve(&world.chain, &chosen);
                let wanted = model::model(&world.chain, &chosen);
                assert_eq!(model::rows_of(&resolved), wanted, "{}: {}", self.name, told(&chosen));
                let wanted = model::deciding(&world.chain, &chosen);
                assert_eq!(model::deciding_of(&resolved), wanted, "{}: {}", self.name, told(&chosen));
                count.subsets += 1;
                let mut records: Vec<Record> = chosen.iter().map(|s| Record::from(&**s)).collect();
                let mut check = |records: &[Record], late: bool| {
                    let mut replica = world.replica();
                    let (first, last) =
                        if late { (records, &charters[..]) } else { (&charters[..], records) };
                    deliver(&mut replica, first);
                    deliver(&mut replica, last);
                    deliver(&mut replica, records);
                    self.same(&replica, &resolved, &chosen);
                    count.orders += 1;
                };
                if records.len() <= ordered {
                    permutations(&mut records, 0, &mut |order| check(order, false));
                } else if subset % 16 == 0 {
                    check(&records, false);
                    records.reverse();
                    check(&records, true);
                }
            }
        }
        count
    }

    fn same(&self, replica: &Replica, resolved: &member_crdt::Roster, chosen: &[Arc<Statement>]) {
        assert!(*replica.roster() == *resolved, "{}: {}", self.name, told(chosen));
        assert_eq!(replica.roster_digest(), resolved.digest());
    }
}

/// Two admins who revoke, fork and are removed with and without cuts, and a threshold that changes.
fn revocation_scope(threshold: u8) -> Scope {
    let mut world = World::new(3, 1, threshold);
    world.own_admit(0, Machine::new(0));
    world.own_admit(0, Machine::new(1));
    let first = world.revoke(1, 0);
    let forked_at = *world.statements[2].place();
    world.revoke(1, 1);
    let fork = world.sign_at(Who::Admin(1), forked_at, revocation(1));
    let after_fork = world.sign_at(Who::Admin(1), fork.next_place(forked_at.charter), revocation(0));
    let fork_id = fork.id();
    world.statements.extend([fork, after_fork].map(Arc::new));
    world.revoke(2, 0);
    world.suspend(2, 1);
    world.own_admit(1, Machine { node: 2, wireguard: 1, boot: 2 });
    let invite = world.own_admit(1, Machine::new(3));
    let pool = world.statements.clone();
    let removed = |cuts: &[(Lane, StatementId)], admins: u8| {
        let mut next = World::new(3, 1, threshold);
        next.govern(|c| {
            c.admins.retain(|a| a.key != key(Who::Admin(admins)).public());
            c.cuts = cuts
                .iter()
                .map(|(lane, tip)| Cut { key: key(Who::Admin(admins)).public(), lane: *lane, tip: *tip })
                .collect();
            c.cuts.sort_unstable_by_key(|cut| (cut.lane, cut.tip));
        });
        next
    };
    let mut raised = World::new(3, 1, threshold);
    raised.govern(|c| c.revoke_threshold = 3 - threshold);
    let worlds = vec![
        World::new(3, 1, threshold),
        raised,
        removed(&[], 1),
        removed(&[(Lane::Revokes, first)], 1),
        removed(&[(Lane::Revokes, first), (Lane::Revokes, fork_id)], 1),
        removed(&[(Lane::Main, invite)], 1),
        removed(&[], 2),
    ];
    Scope {
        name: if threshold == 1 { "revocation, one admin" } else { "revocation, two admins" },
        worlds,
        pool,
    }
}

/// Two admins who suspend and resume, who see of each other what they happen to see.
fn suspension_scope() -> Scope {
    let mut world = World::new(2, 1, 1);
    let admit = world.own_admit(0, Machine::new(0));
    let s1 = world.suspend(0, 0);
    let s2 = world.suspend(1, 0);
    let s3 = world.suspend(0, 0);
    world.resume(0, 0, &[s1]);
    world.resume(1, 0, &[s1, s2]);
    let resumed = world.resume(1, 0, &[s3]);
    world.rotate(0, admit, Machine::new(1));
    world.suspend(1, 1);
    world.revoke(1, 1);
    let pool = world.statements.clone();
    let without = |cuts: Vec<Cut>| {
        let mut next = World::new(2, 1, 1);
        next.govern(|c| {
            c.admins.retain(|a| a.key != key(Who::Admin(1)).public());
            c.cuts = cuts;
        });
        next
    };
    let cut = |lane, tip| Cut { key: key(Who::Admin(1)).public(), lane, tip };
    let worlds = vec![
        World::new(2, 1, 1),
        without(vec![]),
        without(vec![cut(Lane::Revokes, s2)]),
        without(vec![cut(Lane::Main, resumed), cut(Lane::Revokes, s2)]),
    ];
    Scope { name: "suspension", worlds, pool }
}

/// A machine that rotates, a thief who rotates as well, a second machine that is involved.
fn rotation_scope() -> Scope {
    let mut world = World::new(1, 1, 1);
    let a = world.own_admit(0, Machine::new(0));
    let b = world.own_admit(0, Machine::new(3));
    let r1 = world.rotate(0, a, Machine::new(1));
    world.rotate(0, a, Machine::new(2));
    let r3 = world.rotate(1, r1, Machine::new(4));
    // To the other machine's keys, back to the first key, and to a key of its own in another slot.
    world.rotate(1, r1, Machine::new(3));
    world.rotate(4, r3, Machine::new(0));
    world.rotate(3, b, Machine { node: 5, wireguard: 4, boot: 5 });
    world.retire(1, r1, 0);
    world.retire(4, r3, 1);
    world.leave(1, r1);
    world.revoke(0, 1);
    world.revoke(0, 2);
    Scope { name: "rotation", worlds: vec![World::new(1, 1, 1)], pool: world.statements.clone() }
}

/// An invite with approval, two machines under it, two admins, a Cancel, an overspend.
fn approval_scope() -> Scope {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite_with(0, 0, 2, true);
    let first = world.admit(invite, Machine::new(0));
    let second = world.admit(invite, Machine::new(1));
    world.admit(invite, Machine::new(2));
    world.cosign(0, first);
    world.cosign(1, second);
    let end = world.cosign(1, first);
    world.say(Who::Admin(1), Payload::Cancel(Cancel { invite: world.invites[invite].0, tip: Some(first) }));
    world.rotate(0, first, Machine::new(1));
    world.revoke(1, 1);
    world.suspend(0, 0);
    let pool = world.statements.clone();
    let worlds = vec![World::new(2, 1, 1), without_the_other(None), without_the_other(Some(end))];
    Scope { name: "approval", worlds, pool }
}

/// Two admins who assign, knowing of each other's Assigns or not.
fn assign_scope() -> Scope {
    let mut world = World::new(2, 1, 1);
    let admit = world.own_admit(0, Machine::new(0));
    let a1 = world.assign(0, 0, "a1", "xyz", &[]);
    let b1 = world.assign(1, 0, "b1", "xy", &[]);
    let a2 = world.assign(0, 0, "a2", "xz", &[a1]);
    let b2 = world.assign(1, 0, "b2", "yz", &[a1, b1]);
    world.assign(0, 0, "a3", "", &[a2]);
    let end = world.assign(1, 0, "b3", "xyz", &[a2, b2]);
    world.rotate(0, admit, Machine::new(1));
    world.assign(0, 1, "a4", "x", &[b2]);
    let pool = world.statements.clone();
    let worlds = vec![World::new(2, 1, 1), without_the_other(None), without_the_other(Some(end))];
    Scope { name: "assignment", worlds, pool }
}

/// Two admins who each write policies, some under one number.
fn policy_scope() -> Scope {
    let mut world = World::new(2, 1, 1);
    world.policy(0, 1, "a");
    world.policy(1, 1, "ab");
    world.policy(0, 2, "abc");
    let end = world.policy(1, 3, "b");
    world.policy(0, 3, "bc");
    let last = world.policy(1, 3, "c");
    world.policy(0, 4, "");
    world.policy(1, 2, "a");
    let pool = world.statements.clone();
    let worlds = vec![
        World::new(2, 1, 1),
        without_the_other(None),
        without_the_other(Some(end)),
        without_the_other(Some(last)),
    ];
    Scope { name: "policy", worlds, pool }
}

/// Two admins, of whom the other is removed: with nothing, or what it signed up to this.
fn without_the_other(end: Option<StatementId>) -> World {
    let removed = key(Who::Admin(1)).public();
    let mut world = World::new(2, 1, 1);
    world.govern(|c| {
        c.admins.retain(|a| a.key != removed);
        c.cuts.extend(end.map(|tip| Cut { key: removed, lane: Lane::Main, tip }));
    });
    world
}

fn told(chosen: &[Arc<Statement>]) -> String {
    let said = chosen
        .iter()
        .map(|s| format!("{} {}/{:?} {}", s.author().short(), s.seq(), s.lane(), s.payload().kind()));
    said.collect::<Vec<_>>().join("; ")
}

fn permutations(items: &mut Vec<Record>, from: usize, visit: &mut impl FnMut(&[Record])) {
    if from >= items.len() {
        return visit(items);
    }
    for i in from..items.len() {
        items.swap(from, i);
        permutations(items, from + 1, visit);
        items.swap(from, i);
    }
}
