//! Each check can fail: something is broken on purpose, and the invariant that is about it notices.
#![cfg(not(feature = "danger-no-enforcement"))]

use std::collections::BTreeSet;

use muster_sim::{Options, Sabotage, run};

/// What is noticed in a few seeds when this is broken.
fn noticed(sabotage: Option<Sabotage>) -> BTreeSet<&'static str> {
    noticed_within(12, sabotage)
}

/// The same in so many seeds: what is broken has to come up in one of them.
fn noticed_within(seeds: u64, sabotage: Option<Sabotage>) -> BTreeSet<&'static str> {
    let options = Options { nodes: 5..=9, seconds: 60, sabotage, ..Options::default() };
    (1..=seeds)
        .filter_map(|seed| run(seed, &options).violation.map(|violation| violation.invariant))
        .collect()
}

/// Whether one of so many seeds, until the first that does, breaks this invariant; no other one is asked.
fn is_noticed_within(seeds: u64, sabotage: Sabotage, only: &'static str) -> bool {
    let options = Options {
        nodes: 5..=9,
        seconds: 60,
        sabotage: Some(sabotage),
        only: Some(only),
        ..Options::default()
    };
    (1..=seeds).any(|seed| run(seed, &options).violation.is_some())
}

#[test]
fn nothing_is_noticed_where_nothing_is_broken() {
    assert_eq!(noticed(None), BTreeSet::new());
}

#[test]
fn a_disk_that_forgets_what_it_said_it_has_is_noticed() {
    let noticed = noticed(Some(Sabotage::DisksForget));
    assert!(noticed.contains("invariant_acknowledged_is_on_disk"), "{noticed:?}");
}

#[test]
fn a_disk_that_rots_is_noticed() {
    let noticed = noticed(Some(Sabotage::DisksRot));
    assert!(noticed.contains("invariant_files_read_back"), "{noticed:?}");
}

#[test]
fn a_write_that_is_acknowledged_too_early_is_noticed() {
    let noticed = noticed(Some(Sabotage::AcknowledgesTooEarly));
    assert!(noticed.contains("invariant_reports_rest_on_disk"), "{noticed:?}");
}

#[test]
fn a_gate_that_stays_open_lets_a_revoked_machine_talk_and_is_noticed() {
    let noticed = noticed(Some(Sabotage::GatesStayOpen));
    assert!(noticed.contains("invariant_no_traffic_of_the_revoked"), "{noticed:?}");
}

#[test]
fn a_stolen_key_that_nobody_knows_of_is_noticed() {
    let noticed = noticed(Some(Sabotage::KeyIsStolen));
    assert!(noticed.contains("invariant_only_what_was_signed_counts"), "{noticed:?}");
}

#[test]
fn revocations_that_do_not_spread_are_noticed() {
    let noticed = noticed(Some(Sabotage::RevocationsAreWithheld));
    assert!(noticed.contains("invariant_views_converge"), "{noticed:?}");
}

#[test]
fn a_threshold_that_is_misread_is_noticed() {
    let noticed = noticed(Some(Sabotage::ThresholdIsMisread));
    assert!(noticed.contains("invariant_enough_admins_revoke"), "{noticed:?}");
}

#[test]
fn what_a_thief_signed_and_nobody_undid_is_noticed() {
    let noticed = noticed(Some(Sabotage::TheftsGoUnnoticed));
    assert!(noticed.contains("invariant_thieves_gain_nothing"), "{noticed:?}");
}

#[test]
fn a_removed_key_that_goes_on_counting_is_noticed() {
    let noticed = noticed_within(60, Some(Sabotage::RemovalsChangeNothing));
    assert!(noticed.contains("invariant_nothing_counts_beyond_a_cut"), "{noticed:?}");
}

#[test]
fn settings_that_nobody_knows_of_are_noticed() {
    let noticed = noticed(Some(Sabotage::SettingsAreForged));
    assert!(noticed.contains("invariant_roles_follow_settings"), "{noticed:?}");
}

#[test]
fn settings_without_a_ca_are_noticed() {
    let noticed = noticed(Some(Sabotage::CaIsRetired));
    assert!(noticed.contains("invariant_there_is_a_ca"), "{noticed:?}");
}

#[test]
fn keys_that_are_nobodys_are_noticed() {
    let noticed = noticed(Some(Sabotage::KeysAreForeign));
    assert!(noticed.contains("invariant_a_lineage_lives_and_dies_as_one"), "{noticed:?}");
}

#[test]
fn assignments_that_are_misread_are_noticed() {
    let noticed = noticed(Some(Sabotage::AssignmentsAreMisread));
    assert!(noticed.contains("invariant_concurrent_changes_take_away"), "{noticed:?}");
}

#[test]
fn an_approval_by_nobody_is_noticed() {
    let noticed = noticed_within(60, Some(Sabotage::ApprovalsAreForged));
    assert!(noticed.contains("invariant_approval_is_an_admins"), "{noticed:?}");
}

#[test]
fn a_suspension_that_ends_without_an_admin_is_noticed() {
    let noticed = noticed(Some(Sabotage::ResumesAreForged));
    assert!(noticed.contains("invariant_what_was_honest_counts"), "{noticed:?}");
}

#[test]
fn copies_that_are_overlooked_are_noticed() {
    let noticed = noticed(Some(Sabotage::CopiesAreOverlooked));
    assert!(noticed.contains("invariant_copies_are_noticed"), "{noticed:?}");
}

#[test]
fn changes_that_count_by_who_came_first_are_noticed() {
    // Only where an author signed twice at one place.
    assert!(is_noticed_within(60, Sabotage::FirstComeCounts, "invariant_order_does_not_matter"));
}

#[test]
fn a_change_that_stands_on_a_disk_in_two_forms_is_noticed() {
    assert!(is_noticed_within(3, Sabotage::SignaturesAreTurned, "invariant_records_have_one_form"));
}
