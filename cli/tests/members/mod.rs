//! One member changed: suspended, renamed, labelled, approved, and revoked by more than one admin.

use serde_json::{Value, json};

use crate::{
    bench::{Bench, Musterd},
    roles::{add_admin_who, as_admin, state},
};

#[test]
fn a_suspended_member_is_out_until_it_is_resumed() {
    let (bench, _musterd) = with_members(&["web-1", "web-2"]);
    let suspended = bench.json(&["suspend", "web-1", "--reason", "lost", "--wait", "0"]);
    assert_eq!((&suspended["member"]["name"], &suspended["complete"]), (&json!("web-1"), &json!(true)));
    assert_eq!((state(&bench, "web-1"), state(&bench, "web-2")), ("suspended".into(), "good".into()));
    bench.json(&["suspend", "web-1", "--wait", "0"]);
    bench.json(&["resume", "web-1", "--wait", "0"]);
    assert_eq!(state(&bench, "web-1"), "good", "both suspensions ended");
    bench.run(&["resume", "web-1"]).failed_with("MU-7004", 2);
    bench.run(&["suspend", "n1", "--wait", "0"]).failed_with("MU-7008", 2);
    bench.run(&["revoke", "web-2", "--wait", "0"]).succeeded();
    bench.run(&["resume", "web-2"]).failed_with("MU-1403", 77);
}

#[test]
fn a_member_is_renamed_and_given_roles_and_labels_and_keeps_the_others() {
    let (bench, _musterd) = with_members(&["web-1", "web-2"]);
    bench.run(&["member", "role", "web-1", "add", "builder", "--wait", "0"]).succeeded();
    bench.run(&["member", "label", "web-1", "add", "blue", "--wait", "0"]).succeeded();
    bench.run(&["member", "label", "web-1", "add", "eu", "--wait", "0"]).succeeded();
    bench.run(&["member", "rename", "web-1", "db-1", "--wait", "0"]).succeeded();
    bench.run(&["member", "label", "db-1", "remove", "blue", "--wait", "0"]).succeeded();
    let shown = bench.json(&["member", "show", "db-1"]);
    assert_eq!((&shown["roles"], &shown["labels"]), (&json!(["builder"]), &json!(["eu"])));
    bench.run(&["member", "role", "db-1", "add", "builder"]).failed_with("MU-7004", 2);
    bench.run(&["member", "label", "db-1", "remove", "blue"]).failed_with("MU-7004", 2);
    bench.run(&["member", "rename", "db-1", "web-2"]).failed_with("MU-7004", 2);
    bench.run(&["member", "role", "db-1", "remove", "builder", "--wait", "0"]).succeeded();
    let shown = bench.json(&["member", "show", "db-1"]);
    assert_eq!((&shown["roles"], &shown["labels"]), (&json!([]), &json!(["eu"])), "the rest stays");
}

#[test]
fn a_machine_that_joined_with_approval_waits_for_an_admins_yes_or_no() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let invite = bench.run(&["invite", "create", "--uses", "2", "--approval"]);
    for (name, seed) in [("web-1", 40), ("web-2", 50)] {
        bench.admit_with(&musterd, &invite.stdout, name, seed);
    }
    assert_eq!((state(&bench, "web-1"), state(&bench, "web-2")), ("pending".into(), "pending".into()));
    assert_eq!(waiting(&bench), [("joining".into(), "web-1".into()), ("joining".into(), "web-2".into())]);
    bench.run(&["pending", "approve", "web-1", "--wait", "0"]).succeeded();
    let rejected = bench.run(&["pending", "reject", "web-2", "--wait", "0"]);
    rejected.succeeded();
    assert!(rejected.stderr.contains("revokes its key"), "{}", rejected.stderr);
    assert_eq!((state(&bench, "web-1"), state(&bench, "web-2")), ("good".into(), "revoked".into()));
    assert_eq!(waiting(&bench), []);
    bench.run(&["pending", "approve", "web-1"]).failed_with("MU-7004", 2);
}

#[test]
fn a_revocation_that_two_admins_must_sign_waits_for_the_second() {
    let (bench, _musterd) = with_members(&["web-1"]);
    add_admin_who(&bench, "anna", &["--to-revoke", "2"]);
    let first = bench.run(&["revoke", "web-1", "--wait", "0", "--json"]);
    assert_eq!((first.status, &first.json["in_force"]), (75, &json!(false)), "{}", first.stderr);
    assert_eq!(state(&bench, "web-1"), "good");
    let again = bench.run(&["revoke", "web-1", "--wait", "0", "--json"]);
    assert_eq!(again.json["change"], first.json["change"], "nothing is signed twice");
    assert_eq!(waiting(&bench), [("revoking".into(), "web-1".into())]);
    bench.run(&["pending", "approve", "web-1"]).failed_with("MU-2005", 1);
    bench.run(&["pending", "reject", "web-1"]).failed_with("MU-7004", 2);
    as_admin(&bench, "anna", &["pending", "approve", "web-1", "--wait", "0"]).succeeded();
    assert_eq!(state(&bench, "web-1"), "revoked");
    assert_eq!(waiting(&bench), []);
}

fn waiting(bench: &Bench) -> Vec<(String, String)> {
    let listed = bench.json(&["pending", "list"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pending = listed["pending"].as_array().unwrap().iter();
    let mut all: Vec<_> = pending.map(|p| (text(&p["kind"]), text(&p["member"]["name"]))).collect();
    all.sort();
    all
}

pub(crate) fn with_members(names: &[&str]) -> (Bench, Musterd) {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    for (name, seed) in names.iter().zip([40, 50, 60]) {
        bench.admit(&musterd, name, seed);
    }
    (bench, musterd)
}
