//! Each check can fail: something is broken on purpose, and the invariant that is about it notices.
#![cfg(not(feature = "danger-no-enforcement"))]

use std::collections::BTreeSet;

use muster_sim::{Options, Sabotage, run};

/// What is noticed in a few seeds when this is broken.
fn noticed(sabotage: Option<Sabotage>) -> BTreeSet<&'static str> {
    let options = Options { nodes: 5..=9, seconds: 60, sabotage, ..Options::default() };
    (1..=12).filter_map(|seed| run(seed, &options).violation.map(|violation| violation.invariant)).collect()
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
