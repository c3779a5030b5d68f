//! Which policy is in force, and what it says of two keys (rules 18 and 19 of docs/spec/roster.md).
#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod kit;

use identity::{Code, PublicKey};
use kit::{Machine, Who, World, deliver, key};
use member_crdt::{Applied, End, NotPermitted, Rejected, Roster};
use org_trust::{Cut, Lane, Payload, PolicyChange, Record};
use policy::{PolicyFile, Unmatched};

fn node(n: u8) -> PublicKey {
    key(Who::Node(n)).public()
}

fn may(roster: &Roster, action: &str) -> bool {
    roster.permits(&node(0), &node(1), action).is_ok()
}

/// Two admins, two machines.
fn world() -> World {
    let mut world = World::new(2, 1, 1);
    world.own_admit(0, Machine::new(0));
    world.own_admit(0, Machine::new(1));
    world
}

fn rules(text: &str) -> Payload {
    PolicyChange { number: 1, policy: PolicyFile::parse(text).unwrap().policy }.into()
}

#[test]
fn without_a_policy_nothing_is_permitted() {
    let roster = world().resolved();
    assert_eq!(roster.permits(&node(0), &node(1), "ssh"), Err(NotPermitted::NoPolicy));
    assert_eq!(NotPermitted::NoPolicy.code(), Code::PolicyAbsent);
    let mut world = world();
    world.policy(0, 1, "");
    let why = world.resolved().permits(&node(0), &node(1), "a").map(|_| ()).unwrap_err();
    assert_eq!(why, NotPermitted::Denied { policy: 1, why: Unmatched::Empty });
    assert_eq!(why.code(), Code::PolicyDenies);
}

#[test]
fn the_policy_with_the_highest_number_is_in_force_in_whatever_order_they_come() {
    let mut world = world();
    world.policy(0, 1, "ab");
    world.policy(1, 2, "b");
    let last = world.policy(0, 3, "c");
    let mut records = world.records();
    for _ in 0..records.len() {
        records.rotate_left(1);
        let mut replica = world.replica();
        deliver(&mut replica, &records);
        let roster = replica.roster();
        assert_eq!(["a", "b", "c"].map(|action| may(&roster, action)), [false, false, true]);
        let in_force = roster.policy().unwrap();
        assert_eq!((in_force.number, in_force.id), (3, last));
        assert_eq!((roster.next_policy_number(), replica.roster_digest()), (4, world.resolved().digest()));
    }
}

#[test]
fn of_two_policies_with_one_number_every_replica_takes_the_same_and_names_the_other() {
    let mut world = world();
    let (one, other) = (world.policy(0, 1, "a"), world.policy(1, 1, "b"));
    let roster = world.resolved();
    assert_eq!(roster.policy().unwrap().id, one.min(other));
    assert_eq!(roster.policies_passed_over(), [one.max(other)]);
    world.policy(1, 2, "ab");
    let roster = world.resolved();
    assert!(may(&roster, "a") && may(&roster, "b") && roster.policies_passed_over().is_empty());
}

#[test]
fn a_policy_is_an_admins_word_and_of_nobody_else() {
    let mut world = world();
    let invite = world.invite(0, 0, 2);
    world.admit(invite, Machine::new(2));
    let mut replica = world.filled();
    for who in [Who::Gateway(0), Who::Node(0), Who::Stranger(0)] {
        let policy = world.sign_at(who, world.place(who, Lane::Main), kit::policy(1, "a"));
        let refused = replica.apply(&Record::from(&policy)).unwrap_err();
        assert!(matches!(refused, Rejected::NotAuthorised { .. }), "{who:?}: {refused}");
    }
    assert!(replica.roster().policy().is_none());
    let policy = world.sign_at(Who::Admin(1), world.place(Who::Admin(1), Lane::Main), kit::policy(1, "a"));
    assert!(matches!(replica.apply(&Record::from(&policy)), Ok(Applied::New { .. })));
    assert!(may(&replica.roster(), "a"));
}

#[test]
fn of_a_removed_admin_a_policy_counts_as_far_as_a_cut_says() {
    let removed = key(Who::Admin(1)).public();
    let removal = |with: usize| {
        let mut world = world();
        world.policy(0, 1, "ab");
        let policies = [world.policy(1, 2, "bc"), world.policy(1, 3, "abc")];
        world.govern(|next| {
            next.admins.retain(|admin| admin.key != removed);
            let tip = with.checked_sub(1).map(|at| policies[at]);
            next.cuts = tip.into_iter().map(|tip| Cut { key: removed, lane: Lane::Main, tip }).collect();
        });
        (world, policies)
    };
    for (with, number) in [(0, 1), (1, 2), (2, 3)] {
        let (world, _) = removal(with);
        assert_eq!(world.resolved().policy().unwrap().number, number);
    }
    // Until the end of the cut is there, what either would not allow is not permitted.
    let (mut world, policies) = removal(2);
    world.statements.retain(|s| s.id() != policies[1]);
    let roster = world.resolved();
    assert_eq!(roster.policy().unwrap().number, 1);
    assert_eq!(roster.policies_unsettled().iter().map(|policy| policy.id).collect::<Vec<_>>(), [policies[0]]);
    assert_eq!(["a", "b", "c"].map(|action| may(&roster, action)), [false, true, false]);
    assert_eq!(roster.next_policy_number(), 3);
}

#[test]
fn both_ends_must_be_members_in_good_standing() {
    let mut world = world();
    world.policy(0, 1, "a");
    assert!(may(&world.resolved(), "a"));
    let strange = key(Who::Stranger(0)).public();
    let unknown = |end| NotPermitted::Unknown { end };
    let roster = world.resolved();
    assert_eq!(roster.permits(&strange, &node(1), "a"), Err(unknown(End::From)));
    assert_eq!(roster.permits(&node(0), &strange, "a"), Err(unknown(End::To)));
    assert_eq!(unknown(End::To).code(), Code::UnknownKey);
    let suspend = world.suspend(0, 1);
    let why = world.resolved().permits(&node(0), &node(1), "a").map(|_| ()).unwrap_err();
    assert!(matches!(why, NotPermitted::NotGood { end: End::To, state: "suspended", .. }));
    assert_eq!(why.code(), Code::Suspended);
    world.resume(0, 1, &[suspend]);
    assert!(may(&world.resolved(), "a"));
    world.revoke(1, 0);
    let why = world.resolved().permits(&node(0), &node(1), "a").map(|_| ()).unwrap_err();
    assert_eq!(why.code(), Code::Revoked);
}

#[test]
fn a_right_goes_with_the_role_that_gave_it() {
    let mut world = world();
    world.say(Who::Admin(0), rules("[[rule]]\nfrom = 'role:w'\nto = 'label:d'\naction = 'a'\n"));
    let (web, db) = (world.assign(0, 0, "web", "w", &[]), world.assign(0, 1, "db", "d", &[]));
    assert!(may(&world.resolved(), "a"));
    let taken = world.assign(1, 0, "web", "", &[web]);
    assert!(!may(&world.resolved(), "a"));
    world.assign(0, 0, "web", "w", &[taken]);
    assert!(may(&world.resolved(), "a"));
    world.assign(1, 1, "db", "", &[db]);
    assert!(!may(&world.resolved(), "a"));
}

#[test]
fn a_right_follows_a_machine_to_its_new_keys() {
    let mut world = World::new(1, 1, 1);
    let admit = world.own_admit(0, Machine::new(0));
    world.own_admit(0, Machine::new(1));
    world.say(Who::Admin(0), rules("[[rule]]\nfrom = 'member:m0'\nto = 'member:m1'\naction = 'a'\n"));
    let rotate = world.rotate(0, admit, Machine::new(5));
    let roster = world.resolved();
    assert!(may(&roster, "a") && roster.permits(&node(5), &node(1), "a").is_ok());
    world.retire(5, rotate, 0);
    let roster = world.resolved();
    assert!(!may(&roster, "a") && roster.permits(&node(5), &node(1), "a").is_ok());
}

#[test]
fn a_name_that_a_machine_gave_itself_opens_nothing() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    // It calls itself m0, as the policy calls somebody.
    world.admit(invite, Machine::new(0));
    world.own_admit(0, Machine::new(1));
    world.say(Who::Admin(0), rules("[[rule]]\nfrom = 'member:m0'\nto = 'member:m1'\naction = 'a'\n"));
    let why = world.resolved().permits(&node(0), &node(1), "a").map(|_| ()).unwrap_err();
    assert_eq!(why, NotPermitted::Denied { policy: 1, why: Unmatched::From });
    world.assign(0, 0, "m0", "", &[]);
    assert!(may(&world.resolved(), "a"), "an admin said that it is called so");
}

#[test]
fn a_policy_of_an_author_who_forked_to_excess_does_not_count() {
    let mut world = world();
    world.policy(0, 1, "a");
    let place = world.place(Who::Admin(1), Lane::Main);
    for n in 2..11 {
        let fork = world.sign_at(Who::Admin(1), place, kit::policy(n, "ab"));
        world.statements.push(std::sync::Arc::new(fork));
    }
    let mut replica = world.filled();
    deliver(&mut replica, &world.records());
    let roster = replica.roster();
    assert_eq!(roster.policy().unwrap().number, 1);
    assert!(!may(&roster, "b"));
}
