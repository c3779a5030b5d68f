//! The rules of docs/spec/roster.md, one by one.

mod kit;

use identity::Code;
use kit::{Machine, Who, World, deliver, key, revocation};
use member_crdt::{Applied, Fault, InviteState, MemberState, Rejected, Replica, Roster, Standing};
use org_trust::{Cut, Lane, Payload, Record};

fn state(roster: &Roster, node: u8) -> Option<&'static str> {
    roster.get(&key(Who::Node(node)).public()).map(|m| m.state.as_str())
}

#[test]
fn an_invite_admits_as_many_machines_as_it_says() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 2);
    for n in 0..3 {
        world.admit(invite, Machine::new(n));
    }
    let roster = world.filled().roster();
    assert_eq!([0, 1, 2].map(|n| state(&roster, n)), [Some("good"), Some("good"), None]);
    let invite = roster.invites()[0].clone();
    assert_eq!((invite.used, invite.state), (2, InviteState::Spent));
}

#[test]
fn a_revocation_frees_no_use_of_an_invite() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 1);
    world.admit(invite, Machine::new(0));
    world.revoke(0, 0);
    world.admit(invite, Machine::new(1));
    let roster = world.filled().roster();
    assert_eq!((state(&roster, 0), state(&roster, 1)), (Some("revoked"), None));
}

#[test]
fn a_revoked_key_stays_revoked_when_it_is_admitted_again() {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.revoke(0, 0);
    world.admit(invite, Machine::new(0));
    world.own_admit(1, Machine::new(0));
    let roster = world.filled().roster();
    assert_eq!(state(&roster, 0), Some("revoked"));
    let member = roster.get(&key(Who::Node(0)).public()).unwrap();
    assert_eq!(member.refusal(), Some(Code::Revoked));
}

#[test]
fn a_revocation_by_the_first_key_reaches_a_machine_whose_later_keys_nobody_knows() {
    for (named, without) in [(0, Some("revoked")), (5, Some("good"))] {
        let mut world = World::new(1, 1, 1);
        let invite = world.invite(0, 0, 9);
        let admit = world.admit(invite, Machine::new(0));
        let rotate = world.rotate(0, admit, Machine::new(5));
        world.revoke(0, named);
        assert_eq!(state(&world.filled().roster(), 0), Some("revoked"), "by {named}");
        let elsewhere = world.clone_without(&[rotate]).filled().roster();
        assert_eq!(state(&elsewhere, 0), without, "by {named}, where the rotation is not known");
    }
}

#[test]
fn a_threshold_wants_distinct_admins() {
    let mut world = World::new(3, 1, 2);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    world.revoke(0, 0);
    assert_eq!(state(&world.filled().roster(), 0), Some("good"));
    let forked = world.sign_at(Who::Admin(0), *world.statements[2].place(), revocation(0));
    assert_eq!(forked.id(), world.statements[2].id(), "the same words are the same statement");
    world.revoke(1, 0);
    let roster = world.filled().roster();
    let member = roster.get(&key(Who::Node(0)).public()).unwrap();
    assert!(matches!(&member.state, MemberState::Revoked { ids, .. } if ids.len() == 2));
}

#[test]
fn one_admin_revokes_a_key_once_in_a_chain() {
    let mut world = World::new(1, 1, 1);
    world.revoke(0, 0);
    let again = world.sign_at(Who::Admin(0), world.place(Who::Admin(0), Lane::Revokes), revocation(0));
    let refused = world.filled().apply(&Record::from(&again)).unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::AlreadyRevoked, Fault::Sender));
}

#[test]
fn a_gateway_admits_nobody_without_an_invite_of_its_own() {
    let mut world = World::new(1, 2, 1);
    let invite = world.invite(0, 0, 9);
    // By the wrong gateway: the three keys and the invite never signed for it.
    let mut admit = world.enrol(invite, Machine::new(0));
    admit.redeemer = key(Who::Gateway(1)).public();
    let place = world.place(Who::Gateway(1), Lane::Main);
    assert!(
        org_trust::Statement::sign(&world.org, &key(Who::Gateway(1)), place, &admit.into()).is_err(),
        "the machine's keys signed for another redeemer"
    );
    // Under an invite that names another gateway, everything else in order.
    world.invites.push((world.invites[0].0, 1));
    world.admit(1, Machine::new(1));
    // Without any invite.
    let machine = Machine::new(2);
    let admit = machine.with_keys(|keys| {
        org_trust::Admit::by_admin(
            &world.org,
            keys,
            key(Who::Gateway(0)).public(),
            identity::Name::parse("x").unwrap(),
            org_trust::Assurance::File,
        )
    });
    let alone = world.sign_at(Who::Gateway(0), world.place(Who::Gateway(0), Lane::Main), admit);
    let mut replica = world.filled();
    assert!(matches!(replica.apply(&Record::from(&alone)), Err(Rejected::NotAuthorised { .. })));
    assert!(replica.roster().is_empty());
}

#[test]
fn a_cancelled_invite_keeps_those_up_to_the_tip_and_no_later_one() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    let first = world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    world.cancel(0, invite, Some(first));
    world.admit(invite, Machine::new(2));
    let roster = world.filled().roster();
    assert_eq!([0, 1, 2].map(|n| state(&roster, n)), [Some("good"), None, None]);
    assert_eq!(roster.invites()[0].state, InviteState::Cancelled);
    world.cancel(0, invite, None);
    assert_eq!(world.filled().roster().len(), 0);
}

#[test]
fn a_node_that_left_never_comes_back() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    let admit = world.admit(invite, Machine::new(0));
    let again = world.admit(invite, Machine::new(0));
    world.leave(0, admit);
    world.leave(0, again);
    let replica = world.filled();
    assert_eq!(state(&replica.roster(), 0), Some("left"));
    let leaves = replica.records().filter(|r| matches!(r, Record::Statement(b) if b[1] == 5));
    assert_eq!(leaves.count(), 1, "one of them is kept");
    // Nobody leaves for another.
    let mut replica = world.filled();
    let place = org_trust::Place { prev: admit.0, ..*world.statements.last().unwrap().place() };
    let foreign = world.sign_at(Who::Node(1), place, Payload::Leave);
    assert!(matches!(replica.apply(&Record::from(&foreign)), Err(Rejected::NotAuthorised { .. })));
}

#[test]
fn a_key_in_two_places_makes_a_member_of_nobody() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    world.admit(invite, Machine { node: 1, wireguard: 0, boot: 1 });
    world.admit(invite, Machine::new(2));
    let roster = world.filled().roster();
    assert_eq!(
        [0, 1, 2].map(|n| state(&roster, n)),
        [Some("key-conflict"), Some("key-conflict"), Some("good")]
    );
    // Revoking one of the two does not make the other a member.
    world.revoke(0, 1);
    let roster = world.filled().roster();
    assert_eq!([0, 1].map(|n| state(&roster, n)), [Some("key-conflict"), Some("revoked")]);
}

#[test]
fn a_key_of_a_role_is_no_machines() {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    assert_eq!(state(&world.filled().roster(), 1), Some("good"));
    let node = key(Who::Node(1)).public();
    world.govern(|next| {
        next.admins.push(org_trust::Admin { key: node, name: identity::Name::parse("late").unwrap() });
    });
    let roster = world.filled().roster();
    assert_eq!([0, 1].map(|n| state(&roster, n)), [Some("good"), Some("key-conflict")]);
    assert!(matches!(roster.standing(&node), Standing::Admin(_)));
}

#[test]
fn of_a_removed_admin_counts_what_a_cut_names() {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(1, 0, 9);
    world.admit(invite, Machine::new(0));
    world.own_admit(0, Machine::new(5));
    let first = world.revoke(1, 4);
    world.revoke(1, 5);
    let removed = key(Who::Admin(1)).public();
    let tips = [(Lane::Main, world.invites[0].0), (Lane::Revokes, first)];
    assert_eq!(state(&world.filled().roster(), 5), Some("revoked"));
    let mut without = World::new(2, 1, 1);
    without.statements = world.statements.clone();
    without.govern(|next| next.admins.retain(|a| a.key != removed));
    let roster = without.filled().roster();
    assert_eq!([0, 5].map(|n| state(&roster, n)), [None, Some("good")], "nothing of it counts");
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = tips.map(|(lane, tip)| Cut { key: removed, lane, tip }).into();
    });
    let replica = world.filled();
    let roster = replica.roster();
    assert_eq!([0, 5].map(|n| state(&roster, n)), [Some("good"), Some("good")]);
    // What it signs later under the old charter is kept as proof and changes nothing.
    let place =
        org_trust::Place { charter: world.chain.genesis().id(), ..world.place(Who::Admin(1), Lane::Revokes) };
    let late = world.sign_at(Who::Admin(1), place, revocation(0));
    let mut replica = world.filled();
    assert!(matches!(replica.apply(&Record::from(&late)), Ok(Applied::New { .. })));
    assert_eq!(state(&replica.roster(), 0), Some("good"));
}

/// The replica has the settings that remove an admin, and all that it signed but for the end of the cut.
#[test]
fn settings_that_arrive_before_the_end_of_their_cut_empty_no_list() {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(1, 0, 9);
    world.admit(invite, Machine::new(0));
    world.own_admit(1, Machine::new(1));
    world.own_admit(0, Machine::new(2));
    world.revoke(1, 2);
    world.own_admit(1, Machine::new(3));
    world.revoke(0, 3);
    // A thief's machine with the key of one that was admitted honestly.
    world.own_admit(0, Machine::new(4));
    world.own_admit(1, Machine { node: 5, wireguard: 4, boot: 5 });
    let end = world.own_admit(1, Machine::new(6));
    let late = world.own_admit(1, Machine::new(7));
    let removed = key(Who::Admin(1)).public();
    let before = world.clone_without(&[end, late]).filled();
    world.govern(|next| {
        next.admins.retain(|a| a.key != removed);
        next.cuts = vec![Cut { key: removed, lane: Lane::Main, tip: end }];
    });
    let mut replica = before;
    let states = |replica: &Replica| [0, 1, 2, 3, 4, 5].map(|n| state(&replica.roster(), n));
    let good = Some("good");
    let (revoked, conflict) = (Some("revoked"), Some("key-conflict"));
    assert_eq!(states(&replica), [good, good, revoked, revoked, conflict, conflict]);
    for record in world.records() {
        let last = record.id() == end.0 || record.id() == late.0;
        if !last {
            assert!(replica.apply(&record).is_ok());
        }
    }
    // What admits is open, and lets nobody in; nobody comes back, and what takes away holds.
    let open = Some("unsettled");
    assert_eq!(states(&replica), [open, open, good, revoked, conflict, conflict]);
    let member = replica.roster();
    let member = member.get(&key(Who::Node(1)).public()).unwrap();
    assert_eq!(member.refusal(), Some(Code::Unsettled));
    assert_eq!(replica.coverage_of_charter(&world.chain.head().id()).unwrap().of, 3, "they may be members");
    // The end of the cut settles it, also for what comes behind it.
    deliver(&mut replica, &world.records());
    assert_eq!(states(&replica), [good, good, good, revoked, conflict, conflict]);
    assert_eq!([6, 7].map(|n| state(&replica.roster(), n)), [good, None]);
}

#[test]
fn a_cancel_that_arrives_before_its_tip_leaves_it_open_who_is_a_member() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let tip = world.admit(invite, Machine::new(1));
    world.admit(invite, Machine::new(2));
    world.cancel(0, invite, Some(tip));
    let records = world.records();
    let (late, early): (Vec<Record>, Vec<Record>) = records.into_iter().partition(|r| r.id() == tip.0);
    let mut replica = world.replica();
    deliver(&mut replica, &early);
    assert_eq!([0, 1, 2].map(|n| state(&replica.roster(), n)), [Some("unsettled"), None, None]);
    assert_eq!(replica.roster().invites()[0].state, InviteState::Cancelled);
    deliver(&mut replica, &late);
    deliver(&mut replica, &early);
    assert_eq!([0, 1, 2].map(|n| state(&replica.roster(), n)), [Some("good"), Some("good"), None]);
}

#[test]
fn a_raised_threshold_does_not_bring_a_revoked_key_back() {
    let mut world = World::new(3, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    world.admit(invite, Machine::new(1));
    world.revoke(0, 0);
    world.govern(|next| next.revoke_threshold = 2);
    world.revoke(0, 1);
    let roster = world.filled().roster();
    assert_eq!([0, 1].map(|n| state(&roster, n)), [Some("revoked"), Some("good")]);
}

#[test]
fn both_branches_of_a_fork_count_and_are_proof() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let place = world.place(Who::Gateway(0), Lane::Main);
    let other = world.sign_at(Who::Gateway(0), place, world.enrol(invite, Machine::new(1)));
    world.admit(invite, Machine::new(2));
    let mut replica = world.filled();
    assert!(matches!(replica.apply(&Record::from(&other)), Ok(Applied::New { fork: true, .. })));
    assert_eq!(replica.roster().good().count(), 3);
    assert_eq!(replica.forks().len(), 1);
    assert_eq!(replica.forks()[0].ids.len(), 2);
}

#[test]
fn a_ninth_branch_voids_an_authors_admits_and_keeps_its_revocations() {
    let mut world = World::new(2, 1, 1);
    let invite = world.invite(0, 0, 99);
    world.own_admit(1, Machine::new(50));
    world.own_admit(1, Machine::new(51));
    let place = world.place(Who::Gateway(0), Lane::Main);
    let branches: Vec<Record> = (0..12)
        .map(|n| Record::from(&world.sign_at(Who::Gateway(0), place, world.enrol(invite, Machine::new(n)))))
        .collect();
    let (mut a, mut b) = (world.filled(), world.filled());
    deliver(&mut a, &branches);
    deliver(&mut b, &branches.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(a.roster().good().count(), 2);
    assert_eq!(a.roster_digest(), b.roster_digest(), "whichever branches each of them keeps");
    assert_eq!(a.count(), b.count());
    // An admin that burns its lane of Revokes loses none of them.
    let place = world.place(Who::Admin(0), Lane::Revokes);
    let mut branches = Vec::new();
    for n in 40..60 {
        let first = world.sign_at(Who::Admin(0), place, revocation(n));
        let next = first.next_place(place.charter);
        branches.push(Record::from(&first));
        branches.push(Record::from(&world.sign_at(Who::Admin(0), next, revocation(n + 60))));
    }
    deliver(&mut a, &branches);
    deliver(&mut b, &branches.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(a.roster().good().count(), 0);
    assert_eq!(a.roster_digest(), b.roster_digest());
}

#[test]
fn a_chain_begins_continues_and_cites_as_it_must() {
    let mut world = World::new(2, 1, 1);
    let mut replica = world.filled();
    let right = world.place(Who::Admin(0), Lane::Revokes);
    let wrong_start = org_trust::Place { prev: [1; 32], ..right };
    let refused = replica.apply(&Record::from(&world.sign_at(Who::Admin(0), wrong_start, revocation(1))));
    assert_eq!(refused.unwrap_err().code(), Code::ChangeBroken);
    world.revoke(0, 1);
    let mut replica = world.filled();
    let next = world.place(Who::Admin(0), Lane::Revokes);
    for wrong in
        [org_trust::Place { seq: next.seq + 1, ..next }, org_trust::Place { seq: next.seq + 7, ..next }]
    {
        let refused = replica.apply(&Record::from(&world.sign_at(Who::Admin(0), wrong, revocation(2))));
        assert_eq!(refused.unwrap_err().fault(), Fault::Sender);
    }
    // Another author's statement is nobody's predecessor.
    let stolen = org_trust::Place { ..next };
    let refused = replica.apply(&Record::from(&world.sign_at(Who::Admin(1), stolen, revocation(2))));
    assert_eq!(refused.unwrap_err().code(), Code::ChangeBroken);
    // A gap waits, and is not kept.
    let count = replica.count();
    let gap = org_trust::Place { prev: [9; 32], ..next };
    let waits = replica.apply(&Record::from(&world.sign_at(Who::Admin(0), gap, revocation(2)))).unwrap();
    assert_eq!((waits, replica.count()), (Applied::Waiting { prev: [9; 32] }, count));
    // Citing an older charter than before is refused.
    world.govern(|next| next.revoke_threshold = 2);
    world.revoke(0, 2);
    let older =
        org_trust::Place { charter: world.chain.genesis().id(), ..world.place(Who::Admin(0), Lane::Revokes) };
    let refused = world.filled().apply(&Record::from(&world.sign_at(Who::Admin(0), older, revocation(3))));
    assert_eq!(refused.unwrap_err().code(), Code::ChangeBroken);
}

#[test]
fn a_report_is_kept_of_the_admitted_only_and_the_newest_wins() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let mut replica = world.filled();
    let (older, newer) = (world.report(0, 1, &replica), world.report(0, 2, &replica));
    let stranger = world.report(9, 1, &replica);
    assert!(matches!(replica.apply(&Record::from(&stranger)), Err(Rejected::ReportOfStranger { .. })));
    let digest = replica.roster_digest();
    assert!(matches!(replica.apply(&Record::from(&newer)), Ok(Applied::New { .. })));
    assert_eq!(replica.apply(&Record::from(&older)), Ok(Applied::Known));
    let node = key(Who::Node(0)).public();
    assert_eq!(replica.report_of(&node).unwrap().body().seq, 2);
    assert_eq!(replica.roster_digest(), digest, "a report changes nobody's standing");
    assert!(replica.report_clashes().is_empty());
    world.revoke(0, 7);
    let other = world.report(0, 2, &world.filled());
    deliver(&mut replica, &[Record::from(&other)]);
    assert_eq!(replica.report_clashes(), [node], "two reports of one number");
}

#[test]
fn a_start_that_goes_on_after_another_one_shows_two_machines_with_one_key() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let mut replica = world.filled();
    let node = key(Who::Node(0)).public();
    // Starts one after the other are what every machine has, also those in which it hardly spoke.
    for (seq, start) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)] {
        let report = world.report_since(0, seq, start, &replica);
        deliver(&mut replica, &[Record::from(&report)]);
        assert!(replica.report_clashes().is_empty(), "{seq}");
    }
    let report = world.report_since(0, 6, 2, &replica);
    deliver(&mut replica, &[Record::from(&report)]);
    assert_eq!(replica.report_clashes(), [node]);
}

#[test]
fn coverage_counts_members_whose_report_stands_at_or_behind_the_change() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    for n in 0..3 {
        world.admit(invite, Machine::new(n));
    }
    let before = world.filled();
    let revoke = world.revoke(0, 2);
    let at = world.filled();
    world.revoke(0, 8);
    let after = world.filled();
    let mut replica = world.filled();
    for report in [world.report(0, 1, &before), world.report(1, 1, &after), world.report(2, 1, &after)] {
        deliver(&mut replica, &[Record::from(&report)]);
    }
    let coverage = replica.coverage(&revoke).unwrap();
    assert_eq!((coverage.applied, coverage.of), (1, 2), "the revoked one is not asked");
    assert_eq!(coverage.missing, [key(Who::Node(0)).public()]);
    deliver(&mut replica, &[Record::from(&world.report(0, 2, &at))]);
    assert!(replica.coverage(&revoke).unwrap().missing.is_empty());
    assert_eq!(replica.coverage(&identity::StatementId([0; 32])), None);
}

#[test]
fn people_find_members_by_name_or_the_beginning_of_a_key() {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    for n in 0..3 {
        world.admit(invite, Machine::new(n));
    }
    let roster = world.filled().roster();
    let node = key(Who::Node(1)).public();
    let member = roster.find("m1").unwrap();
    assert_eq!(member.node, node);
    assert_eq!(roster.find(&node.short()).unwrap().node, node);
    assert_eq!(roster.find("m9").unwrap_err().code(), Code::NoSuchMember);
    assert_eq!(roster.by_wireguard(&member.wireguard.to_wireguard()).unwrap().node, node);
    assert_eq!(roster.by_boot(&member.boot).unwrap().node, node);
    assert_eq!(roster.by_address(member.address).unwrap().node, node);
    assert!(matches!(roster.standing(&member.boot), Standing::Boot(_)));
    assert!(matches!(roster.standing(&key(Who::Stranger(0)).public()), Standing::Unknown));
}

#[test]
fn a_whole_file_keeps_what_counts_and_none_of_what_was_replaced() {
    use member_crdt::Replica;
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let mut replica = world.filled();
    replica.belongs_to(key(Who::Node(0)).public());
    let report_once = |replica: &mut Replica, seq| {
        let report = world.report(0, seq, replica);
        replica.apply(&Record::from(&report)).unwrap();
        replica.save_incremental().unwrap()
    };
    report_once(&mut replica, 1);
    let short = replica.save().unwrap().len();
    for seq in 2..200 {
        report_once(&mut replica, seq);
    }
    let mut file = replica.save().unwrap();
    assert!(file.len() < short + 100, "{} bytes, and {short} with one report", file.len());
    // What is appended to it reads back with it.
    file.extend(report_once(&mut replica, 200));
    let loaded = Replica::load(&file, &world.org).unwrap();
    assert!(!loaded.torn);
    assert_eq!(loaded.replica.heads(), replica.heads());
    let newest = |replica: &Replica| replica.report_of(&key(Who::Node(0)).public()).unwrap().body().seq;
    assert_eq!(newest(&loaded.replica), 200);
}

#[test]
fn a_damaged_file_is_told_from_a_torn_and_a_foreign_one() {
    use member_crdt::{LoadError, Replica};
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 9);
    world.admit(invite, Machine::new(0));
    let mut replica = world.replica();
    let mut file = replica.save().unwrap();
    let whole = file.len();
    deliver(&mut replica, &world.records());
    file.extend(replica.save_incremental().unwrap());
    assert!(!replica.is_unsaved());

    let torn = Replica::load(&file[..file.len() - 9], &world.org).unwrap();
    assert!(torn.torn && torn.replica.roster().is_empty());
    let elsewhere = World::named("elsewhere", 1, 1, 1);
    let foreign = Replica::load(&file, &elsewhere.org).unwrap_err();
    assert!(
        matches!(foreign, LoadError::Document(member_crdt::DocumentError::OtherOrg { org }) if org == world.org)
    );
    for at in 0..whole {
        let mut damaged = file[..whole].to_vec();
        damaged[at] ^= 0x10;
        match Replica::load(&damaged, &world.org) {
            Err(why) => assert_eq!(why.code(), Code::StoreDamaged),
            Ok(loaded) => assert!(loaded.replica.roster().is_empty()),
        }
    }
    assert_eq!(Replica::load(b"", &world.org).unwrap_err().code(), Code::StoreDamaged);
}
