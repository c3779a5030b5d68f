//! `tests/vectors/roster-v1.json`: sets of records and the member list that they come to. A second
//! implementation (`tests/vectors/roster.py`) reads the same file.
//!
//! `cargo test -p member-crdt --test vectors -- --ignored` writes the file anew.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod kit;

use std::{fs, path::PathBuf};

use identity::encode_hex;
use kit::{Machine, Who, World, key, steps, told};
use member_crdt::{Member, MemberState, Roster};
use org_trust::{Cancel, Cut, Lane, Payload, Record};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

const ABOUT: &str = "Member lists, docs/spec/roster.md. Each case names charters, oldest first, and \
     statements, in no order, by their place in records; the members and invites are what they come to. \
     Written by crates/member-crdt/tests/vectors.rs; records are lower-case hexadecimal.";

/// Drawn stories beside the ones written down.
const STORIES: usize = 60;

#[test]
fn the_file_is_what_this_implementation_writes() {
    let kept: Value = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let written = generate();
    for (kept, written) in kept["cases"].as_array().unwrap().iter().zip(written["cases"].as_array().unwrap())
    {
        assert_eq!(kept, written, "{}", written["name"]);
    }
    assert!(kept == written, "the file has another form or number of cases");
}

#[test]
fn every_state_occurs_in_the_file() {
    let written = generate();
    for state in ["good", "revoked", "left", "key-conflict", "suspended", "pending", "unsettled"] {
        let has = |case: &Value| case["members"].as_array().unwrap().iter().any(|m| m["state"] == state);
        assert!(written["cases"].as_array().unwrap().iter().filter(|case| has(case)).count() > 3, "{state}");
    }
}

#[test]
#[ignore = "writes tests/vectors/roster-v1.json"]
fn write_the_file() {
    fs::write(path(), format!("{:#}\n", generate())).unwrap();
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/roster-v1.json"))
}

fn generate() -> Value {
    let mut records: Vec<String> = Vec::new();
    let mut cases = Vec::new();
    for (name, world) in worlds() {
        let mut place = |record: Record| {
            let bytes = encode_hex(record.bytes());
            records.iter().position(|known| *known == bytes).unwrap_or_else(|| {
                records.push(bytes);
                records.len() - 1
            })
        };
        let charters: Vec<usize> = world.chain.iter().map(|c| place(Record::from(c))).collect();
        let mut statements: Vec<usize> = world.statements.iter().map(|s| place(Record::from(&**s))).collect();
        statements.sort_unstable();
        statements.dedup();
        let roster = world.resolved();
        cases.push(json!({
            "name": name,
            "charters": charters,
            "statements": statements,
            "members": members(&roster),
            "policy": policy(&roster),
            "invites": roster.invites().iter().map(|i| json!({
                "id": i.id.to_string(), "used": i.used, "state": i.state.as_str(),
            })).collect::<Vec<_>>(),
        }));
    }
    json!({ "about": ABOUT, "records": records, "cases": cases })
}

fn policy(roster: &Roster) -> Value {
    json!({
        "in_force": roster.policy().map(|policy| policy.id.to_string()),
        "open": roster.policies_unsettled().iter().map(|policy| policy.id.to_string()).collect::<Vec<_>>(),
    })
}

/// By first node key.
fn members(roster: &Roster) -> Vec<Value> {
    let mut members = roster.members();
    members.sort_by_key(|m| m.first());
    members.into_iter().map(member).collect()
}

fn member(m: &Member) -> Value {
    let texts = |items: &[identity::StatementId]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tags = |items: &[identity::Tag]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "nodes": m.nodes().map(|node| node.to_string()).collect::<Vec<_>>(),
        "ended": m.earlier.iter().filter(|keys| keys.retired).count(),
        "wireguard": m.wireguard.to_string(),
        "boot": m.boot.to_string(),
        "name": m.name.as_str(),
        "roles": tags(&m.roles),
        "labels": tags(&m.labels),
        "assigns": texts(&m.assigns),
        "assurance": m.assurance.as_str(),
        "admit": m.admit.to_string(),
        "admitted_by": m.admitted_by.to_string(),
        "invite": m.invite.map(|id| id.to_string()),
        "state": m.state.as_str(),
        "because": match &m.state {
            MemberState::Revoked { ids, .. } | MemberState::Suspended { ids, .. } => texts(ids),
            MemberState::Good
            | MemberState::Left
            | MemberState::KeyConflict
            | MemberState::Pending
            | MemberState::Unsettled => vec![],
        },
        "revoked_by_too_few": m.revoking.iter().flat_map(|r| &r.by).map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn worlds() -> Vec<(String, World)> {
    let mut worlds: Vec<(String, World)> = vec![
        ("an invite, its third use of two, a revocation".into(), invites()),
        ("two of three admins revoke".into(), thresholds()),
        ("an admin is removed with a cut".into(), removal(true)),
        ("an admin is removed without one".into(), removal(false)),
        ("a cancel with a tip".into(), cancel()),
        ("suspended by two, resumed by one".into(), suspension()),
        ("a chain of rotations, a retire, a suspension of an ended key".into(), rotation(false)),
        ("two rotations of one key".into(), rotation(true)),
        ("approval".into(), approval()),
        ("concurrent assigns, then one that knows both".into(), assign()),
        ("an admin is removed, and the end of a cut is missing".into(), open_cut(1)),
        ("an admin is removed, and both ends of its cut are missing".into(), open_cut(2)),
        ("a cancel whose tip is missing".into(), open_cancel()),
        ("an approval beyond the end of a cut that is missing".into(), open_approval()),
        ("policies, two under one number".into(), policies()),
        (
            "the newest policies are of a removed admin, and the end of the cut is missing".into(),
            open_policies(),
        ),
    ];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let stories = steps(26);
    for n in 0..STORIES {
        let story = stories.new_tree(&mut runner).unwrap().current();
        worlds.push((format!("story {n}"), told(u8::from(n % 2 == 1) + 1, &story)));
    }
    worlds
}

fn invites() -> World {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 2);
    for n in 0..3 {
        world.admit(invite, Machine::new(n));
    }
    world.revoke(0, 0);
    world
}

fn thresholds() -> World {
    let mut world = World::new(3, 1, 2);
    let invite = world.invite(0, 0, 9);
    for n in 0..3 {
        world.admit(invite, Machine::new(n));
    }
    for (admin, node) in [(0, 0), (1, 0), (0, 1)] {
        world.revoke(admin, node);
    }
    world.govern(|next| next.revoke_threshold = 3);
    world.revoke(2, 2);
    world
}

fn removal(with_cut: bool) -> World {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(1, 0, 9);
    world.admit(invite, Machine::new(0));
    world.own_admit(0, Machine::new(5));
    let first = world.revoke(1, 4);
    world.revoke(1, 5);
    let removed = key(Who::Admin(1)).public();
    let tips = [(Lane::Main, world.invites[0].0), (Lane::Revokes, first)];
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = tips
            .map(|(lane, tip)| Cut { key: removed, lane, tip })
            .into_iter()
            .filter(|_| with_cut)
            .collect();
    });
    world
}

fn cancel() -> World {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    let first = world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    let (id, _) = world.invites[invite];
    world.say(Who::Admin(0), Payload::Cancel(Cancel { invite: id, tip: Some(first) }));
    world
}

fn suspension() -> World {
    let mut world = World::new(2, 1, 1);
    for n in 0..2 {
        world.own_admit(0, Machine::new(n));
    }
    let first = world.suspend(0, 0);
    world.suspend(1, 0);
    let other = world.suspend(1, 1);
    world.resume(0, 0, &[first]);
    world.resume(0, 1, &[other]);
    world
}

fn rotation(twice: bool) -> World {
    let mut world = World::new(1, 1, 1);
    let admit = world.own_admit(0, Machine::new(0));
    let first = world.rotate(0, admit, Machine::new(1));
    if twice {
        world.rotate(0, admit, Machine::new(9));
    }
    let second = world.rotate(1, first, Machine::new(2));
    world.retire(2, second, 1);
    world.rotate(2, second, Machine::new(3));
    world.suspend(0, 1);
    world
}

fn approval() -> World {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite_with(0, 0, 5, true);
    let first = world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    world.admit(invite, Machine::new(2));
    world.cosign(1, first);
    world.revoke(0, 2);
    world
}

fn assign() -> World {
    let mut world = World::new(2, 1, 1);
    world.own_admit(0, Machine::new(0));
    world.own_admit(0, Machine::new(1));
    let a = world.assign(0, 0, "left", "abc", &[]);
    let b = world.assign(1, 0, "right", "bcd", &[]);
    world.assign(0, 1, "one", "ab", &[]);
    world.assign(1, 1, "two", "bc", &[]);
    world.assign(0, 0, "both", "d", &[a, b]);
    world
}

/// What an admin signed who is removed, but for the last `missing` of it, which its cut names.
fn open_cut(missing: usize) -> World {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(1, 0, 9);
    world.admit(invite, Machine::new(0));
    world.own_admit(1, Machine::new(1));
    world.own_admit(0, Machine::new(2));
    world.own_admit(1, Machine { node: 3, wireguard: 2, boot: 3 });
    world.own_admit(0, Machine::new(4));
    world.own_admit(0, Machine::new(6));
    let all = world.assign(0, 4, "all", "abc", &[]);
    let few = world.assign(1, 4, "few", "ab", &[all]);
    world.assign(0, 6, "six", "abc", &[]);
    world.assign(1, 6, "six", "bcd", &[]);
    world.revoke(1, 1);
    let suspend = world.suspend(0, 6);
    world.resume(1, 6, &[suspend]);
    world.assign(0, 4, "one", "a", &[few]);
    let last = world.revoke(1, 5);
    let tip = world.own_admit(1, Machine::new(5));
    let removed = key(Who::Admin(1)).public();
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = [(Lane::Main, tip), (Lane::Revokes, last)]
            .map(|(lane, tip)| Cut { key: removed, lane, tip })
            .into();
    });
    world.statements.retain(|s| s.id() != tip && (missing < 2 || s.id() != last));
    world
}

fn open_cancel() -> World {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let first = world.admit(invite, Machine::new(1));
    let other = world.invite(0, 0, 9);
    world.cancel(0, invite, Some(first));
    world.cancel(0, other, None);
    world.revoke(0, 0);
    world.own_admit(0, Machine { node: 2, wireguard: 0, boot: 2 });
    world.statements.retain(|s| s.id() != first);
    world
}

fn policies() -> World {
    let mut world = World::new(2, 1, 1);
    world.own_admit(0, Machine::new(0));
    world.policy(0, 1, "abc");
    world.policy(1, 2, "a");
    world.policy(0, 2, "b");
    world
}

fn open_policies() -> World {
    let mut world = World::new(2, 1, 1);
    world.policy(0, 1, "abc");
    world.policy(1, 2, "ab");
    world.policy(1, 1, "a");
    world.policy(1, 3, "bc");
    let tip = world.own_admit(1, Machine::new(2));
    let removed = key(Who::Admin(1)).public();
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = vec![Cut { key: removed, lane: Lane::Main, tip }];
    });
    world.statements.retain(|s| s.id() != tip);
    world
}

fn open_approval() -> World {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite_with(0, 0, 5, true);
    let first = world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    world.cosign(1, first);
    let tip = world.own_admit(1, Machine::new(2));
    let removed = key(Who::Admin(1)).public();
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = vec![Cut { key: removed, lane: Lane::Main, tip }];
    });
    world.statements.retain(|s| s.id() != tip);
    world
}
