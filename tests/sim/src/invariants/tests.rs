//! What a whole run can hardly break: each claim, and something of which it is not true. The others are
//! broken in runs (tests/checks.rs).

use std::collections::{BTreeMap, BTreeSet};

use control::local::Failed;
use identity::{Code, StatementId};
use member_crdt::Replica;
use musterd::sessions::Sessions;
use org_trust::{Assurance, EnrolRequest, Invite, Lane, Payload, Record, Redemption, ReportTip};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    machine::{Machine, Memory, Org, key_of},
    oracle::{InviteMade, Oracle},
    plan::{Options, Plan},
    workload::{Admin, found},
    world::SECOND,
};

struct Small {
    org: Org,
    admins: Vec<Admin>,
    machines: Vec<Machine>,
    oracle: Oracle,
    replica: Replica,
}

fn small() -> Small {
    let plan = Plan::new(1, &Options::default());
    let machines: Vec<Machine> = (0..plan.members).map(|n| Machine::new(1, n, n < plan.gateways)).collect();
    let (org, admins) = found(1, &plan, &machines);
    let mut oracle = Oracle::new(&org, &machines, 1);
    let mut replica = Replica::new(org.chain.genesis()).unwrap();
    for signed in admins[0].signed() {
        oracle.signed(signed);
        replica.apply(&Record::from(signed)).unwrap();
    }
    Small { org, admins, machines, oracle, replica }
}

#[test]
fn handshakes_that_the_list_does_not_allow_are_noticed() {
    let (all, mut memory) = (small(), Memory::default());
    let (roster, member) = (all.replica.roster(), all.machines[1].node);
    let stranger = key_of(9, "nobody").public();
    assert!(invariant_a_handshake_follows_the_list(&roster, &memory, &member, "ping", Ok(())).is_ok());
    assert!(invariant_a_handshake_follows_the_list(&roster, &memory, &stranger, "sync", Ok(())).is_err());
    assert!(invariant_members_are_served(&roster, &member, "ping", Err(Code::Revoked)).is_err());
    assert!(invariant_members_are_served(&roster, &stranger, "ping", Ok(())).is_err());
    memory.revoked.insert(member, Vec::new());
    assert!(invariant_a_handshake_follows_the_list(&roster, &memory, &member, "ping", Ok(())).is_err());
    assert!(invariant_no_traffic_of_the_revoked(&memory, &member).is_err());
}

#[test]
fn gates_without_links_and_tunnels_that_stay_are_noticed() {
    let all = small();
    let (roster, tunnel) = (all.replica.roster(), all.machines[1].wireguard);
    assert!(invariant_gates_need_links([tunnel].iter(), &roster, &Sessions::default()).is_err());
    let lost_at = BTreeMap::from([(tunnel, SECOND)]);
    assert!(invariant_tunnels_are_members([tunnel].into_iter(), &lost_at, 3 * SECOND).is_err());
    assert!(invariant_tunnels_are_members([tunnel].into_iter(), &BTreeMap::new(), 3 * SECOND).is_ok());
}

#[test]
fn a_revocation_that_ends_or_did_not_arrive_is_noticed() {
    let mut all = small();
    let node = all.machines[1].node;
    let before = BTreeMap::from([(node, vec![StatementId([1; 32])])]);
    assert!(invariant_a_revocation_is_for_ever(&before, &all.replica, 1).is_err());
    all.oracle.revokes.insert(1, BTreeSet::from([all.admins[0].key.public()]));
    assert!(invariant_a_revocation_reaches_all(&all.replica, &all.oracle).is_err());
}

#[test]
fn what_nobody_signed_is_noticed() {
    let mut all = small();
    assert!(invariant_nothing_else_is_kept(&all.replica, &all.oracle).is_ok());
    all.oracle.statements.clear();
    assert!(invariant_nothing_else_is_kept(&all.replica, &all.oracle).is_err());
    assert!(invariant_only_what_was_signed_counts(&all.replica.roster(), &all.oracle).is_err());
}

#[test]
fn an_invite_that_is_spent_too_often_is_noticed() {
    let mut all = small();
    let (secret, newcomer) = (key_of(1, "invite 0"), Machine::new(1, 90, false));
    let gateway = all.machines[0].role_key().unwrap();
    let redeemer = gateway.public();
    let invite = Invite {
        key: secret.public(),
        uses: 1,
        redeemer,
        labels: Vec::new(),
        expires_unix_s: 0,
        approval: false,
        attestation: false,
        tpms: Vec::new(),
        note: String::new(),
    };
    let invite = all.admins[0].sign(&all.org, &Payload::from(invite));
    all.replica.apply(&Record::from(&invite)).unwrap();
    let redemption = Redemption { invite: invite.id(), key: &secret, redeemer };
    let (keys, name) = (newcomer.keys.all(), newcomer.name.clone());
    let request = EnrolRequest::sign(&all.org.id, keys, redemption, name, Assurance::File, [0; 32]);
    let admit = request.verify(&all.org.id, &secret.public()).unwrap().into_admit();
    let named = all.org.chain.genesis().id();
    let mut front = Admin::of_gateway(gateway, named, None, &all.org);
    let admit = front.sign(&all.org, &Payload::from(admit));
    all.replica.apply(&Record::from(&admit)).unwrap();
    all.oracle.invites.insert(invite.id(), InviteMade { number: 0, uses: 1, redeemer });
    assert!(invariant_invites_are_not_overspent(&all.replica, &all.oracle).is_ok());
    all.oracle.invites.insert(invite.id(), InviteMade { number: 0, uses: 0, redeemer });
    assert!(invariant_invites_are_not_overspent(&all.replica, &all.oracle).is_err());
}

#[test]
fn records_that_are_lost_or_cannot_be_had_in_another_order_are_noticed() {
    let (all, rng) = (small(), &mut StdRng::seed_from_u64(1));
    let records: Vec<Record> = all.replica.records().collect();
    let mut ask =
        |records: &[Record]| invariant_order_does_not_matter(&all.replica, records, Arrival::AnyOrder, rng);
    assert_eq!(ask(&records), Ok(()));
    assert!(ask(&records[..records.len() - 1]).is_err(), "the last of them");
    let gap: Vec<Record> = [&records[..1], &records[2..]].concat();
    assert!(ask(&gap).is_err(), "what others follow");
    let other = Replica::new(all.org.chain.genesis()).unwrap();
    let held = invariant_order_does_not_matter(&other, &records, Arrival::AnyOrder, rng);
    assert!(held.is_err(), "more than the machine holds");
}

#[test]
fn records_in_another_form_are_noticed() {
    let all = small();
    let records: Vec<Record> = all.replica.records().collect();
    assert_eq!(invariant_records_have_one_form(&records), Ok(()));
    for (at, record) in records.iter().enumerate() {
        let mut doctored = records.clone();
        let longer = [record.bytes(), &[0]].concat();
        doctored[at] = match record {
            Record::Charter(_) => Record::Charter(longer),
            Record::Statement(_) => Record::Statement(longer),
            Record::Report(_) => Record::Report(longer),
        };
        assert!(invariant_records_have_one_form(&doctored).is_err(), "a byte more behind record {at}");
        if let Record::Statement(bytes) = record {
            let doctored = [&records[..], &[Record::Statement(turned(bytes))]].concat();
            assert!(invariant_records_have_one_form(&doctored).is_err(), "record {at} under two signatures");
        }
    }
}

#[test]
fn disks_that_lack_what_was_said_are_noticed() {
    let mut all = small();
    let (node, mut memory) = (all.machines[1].node, Memory::default());
    let tip = ReportTip::new(&node, Lane::Main, 0, &StatementId([1; 32]));
    assert!(invariant_reports_rest_on_disk(&memory, &[tip]).is_err());
    assert!(invariant_coverage_is_true(&memory, &node, &[tip]).is_err());
    memory.acknowledged.insert(StatementId([1; 32]));
    assert!(invariant_acknowledged_is_on_disk(&memory, &all.replica).is_err());
    memory.settings_on_disk = 2;
    assert!(invariant_settings_never_go_back(&memory, &all.replica).is_err());
    assert!(invariant_files_read_back(false, Some("damaged"), 0).is_err());
    let saved = Replica::new(all.org.chain.genesis()).unwrap().save().unwrap();
    assert!(invariant_a_file_gives_the_same(&saved, &all.replica).is_err());
    let saved = all.replica.save().unwrap();
    assert!(invariant_a_file_gives_the_same(&saved, &all.replica).is_ok());
}

#[test]
fn a_status_that_lies_and_a_clock_that_stands_still_are_noticed() {
    let shut_out = Failed { code: Code::Revoked.into(), detail: String::new() };
    assert!(invariant_status_is_true(&[shut_out]).is_err());
    assert!(invariant_time_moves_on(1_000).is_err());
    assert!(invariant_views_converge(&["machine 1".to_owned()], 1).is_err());
    assert!(invariant_a_list_given_is_whole("half of it").is_err());
}
