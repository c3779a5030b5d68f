//! Machines that know of revocations and do not enforce them: the checks must notice. Built with the
//! feature only; `cargo xtask test --only sim` does.
#![cfg(feature = "danger-no-enforcement")]

use muster_sim::{Options, run};

#[test]
fn machines_that_do_not_enforce_are_noticed_by_the_sessions_they_keep() {
    let options = Options { nodes: 5..=9, seconds: 60, ..Options::default() };
    let noticed: Vec<_> = (1..=8).filter_map(|seed| run(seed, &options).violation).collect();
    let names: Vec<_> = noticed.iter().map(|violation| violation.invariant).collect();
    assert!(names.contains(&"invariant_a_session_is_with_a_member"), "{names:?}");
}

#[test]
fn a_former_member_that_serves_on_is_noticed() {
    let only = Some("invariant_a_former_member_serves_nobody");
    let options = Options { nodes: 5..=9, seconds: 60, only, ..Options::default() };
    let noticed = (1..=8).filter_map(|seed| run(seed, &options).violation).next();
    assert_eq!(noticed.map(|violation| violation.invariant), only);
}
