//! What a machine does that was off or cut off while something changed, and whose key was copied.

use std::{fs, path::Path, time::Duration};

use lab::org::{Org, wait_until};
use serde_json::Value;

use crate::harness::{self, member, within};

/// Dead connections are noticed and tips are exchanged within this.
const ANTI_ENTROPY: Duration = Duration::from_secs(40);

#[test]
fn a_machine_that_was_off_during_the_revoke_hears_others_first_and_refuses() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 4);
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[3]));
        org.stop_musterd(2).unwrap();
        let thief = org.probe(2, &id, &targets).unwrap();
        harness::wait_until_served(&org, 2, &[3]);
        org.stop_musterd(3).unwrap();
        org.muster(0, &["revoke", "n3", "--wait", "2", "--yes"]).unwrap().ok().unwrap();
        let before = harness::knocks(&org, 2).len();
        // It knows nothing of it when it starts, and is knocked at a hundred times a second.
        org.start_musterd(3).unwrap();
        within(ANTI_ENTROPY, "the revocation arrives", || member(&org, 3, "n3", "revoked"));
        harness::wait_until_refused(&org, 2, &[3]);
        let knocks = harness::knocks(&org, 2);
        let served = knocks.iter().skip(before).filter(|knock| knock.outcome == "ok").count();
        assert_eq!(served, 0, "not once since it was started again");
        drop(thief);
        within(ANTI_ENTROPY, "it is in step", || (list(&org, 3)["state"] == "in-step").then_some(()));
        assert!(org.muster(1, &["ping", "n4", "--count", "1"]).unwrap().status.success());
    })
}

#[test]
fn a_revoked_peer_alone_does_not_vouch_for_itself_and_is_refused_after_healing()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 4);
        // On one side the admin; on the other the machine that is revoked, and one that starts again.
        org.stop_musterd(3).unwrap();
        let sides = [[0, 1], [2, 3]].map(|side| side.map(|node| org.host(node).unwrap().namespace()));
        org.lab().bridge().cut(&sides[0], &sides[1]).unwrap();
        org.muster(0, &["revoke", "n3", "--wait", "2", "--yes"]).unwrap().ok().unwrap();
        org.start_musterd(3).unwrap();
        // What n3 holds is what n4 holds: its digests repeat those of n4. It is not enough to be served.
        within(Duration::from_secs(5), "n3 was heard, and others are waited for", || {
            let asked = list(&org, 3);
            (asked["state"] == "comparing" && !asked["compared_ms_ago"].is_null()).then_some(())
        });
        assert!(!linked(&org, 3, "n3"));
        org.lab().bridge().heal().unwrap();
        within(ANTI_ENTROPY, "the revocation arrives", || member(&org, 3, "n3", "revoked"));
        let refused = org.muster(2, &["ping", "n4", "--count", "1"]).unwrap();
        assert!(!refused.status.success());
        within(ANTI_ENTROPY, "it is in step", || (list(&org, 3)["state"] == "in-step").then_some(()));
    })
}

#[test]
fn a_machine_that_hears_nobody_denies_where_its_settings_say_so() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let settings = [("MUSTER_MEMBERS_ON_STALE", "deny-all"), ("MUSTER_MEMBERS_STALE_AFTER", "10s")];
        let mut org = harness::org_with(sandbox, 3, 3, &settings);
        let invite = org.invite(0, 1).unwrap();
        for node in [1, 2] {
            org.stop_musterd(node).unwrap();
        }
        within(ANTI_ENTROPY, "its list is stale", || (list(&org, 0)["state"] == "stale").then_some(()));
        let status = org.ask(0, &["status"]).unwrap();
        assert_eq!(status["health"], "degraded");
        assert_eq!(status["problems"][0]["code"], "MU-1416");
        let refused = org.enrol(1, &invite).unwrap();
        assert!(!refused.status.success(), "the gateway serves nobody");
        // All of them were off, and come back.
        org.stop_musterd(0).unwrap();
        for node in 0..3 {
            org.start_musterd(node).unwrap();
        }
        for node in 0..3 {
            within(ANTI_ENTROPY, "they bring each other in step", || {
                (list(&org, node)["state"] == "in-step").then_some(())
            });
        }
        assert!(org.muster(1, &["ping", "n3", "--count", "1"]).unwrap().status.success());
    })
}

#[test]
fn a_cloned_vm_raises_the_alarm_and_only_its_key_is_suspended() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::machines_with(sandbox, 4, &[("MUSTER_MEMBERS_ON_CLONE", "suspend")]);
        org.found().unwrap();
        org.join(1).unwrap();
        org.set_key_storage(2, "file").unwrap();
        org.join(2).unwrap();
        harness::know_each_other(&org, 3);
        assert_eq!(member(&org, 0, "n3", "good").unwrap()["cloned"], false);
        // A snapshot of the machine is started beside it.
        org.stop_musterd(2).unwrap();
        copy(&org.state(2).unwrap(), &org.state(3).unwrap());
        org.set_key_storage(3, "file").unwrap();
        org.start_musterd(2).unwrap();
        org.start_musterd(3).unwrap();
        let alarm = |node: usize| {
            wait_until("the copy is noticed", || {
                let seen =
                    member(&org, node, "n3", "suspended").is_some_and(|member| member["cloned"] == true);
                Ok(seen.then_some(()))
            })
            .unwrap();
            let status = org.ask(node, &["status"]).unwrap();
            let problems = status["problems"].as_array().unwrap();
            assert!(problems.iter().any(|problem| problem["code"] == "MU-2013"), "{status}");
        };
        alarm(0);
        alarm(1);
        let refused = org.muster(2, &["ping", "n2", "--count", "1"]).unwrap();
        assert!(!refused.status.success(), "that key is refused");
        assert!(org.muster(0, &["ping", "n2", "--count", "1"]).unwrap().status.success(), "no other is");
        // A restart forgets nothing; an admin's word ends it, once the copy is gone.
        org.stop_musterd(3).unwrap();
        org.stop_musterd(1).unwrap();
        org.start_musterd(1).unwrap();
        harness::wait_for_state(&org, 1, "n3", "suspended");
        org.muster(0, &["resume", "n3", "--wait", "2"]).unwrap().ok().unwrap();
        for node in [0, 1] {
            assert_eq!(harness::wait_for_state(&org, node, "n3", "good")["cloned"], false);
        }
    })
}

/// How good a machine says its list is.
fn list(org: &Org, node: usize) -> Value {
    org.ask(node, &["status"]).unwrap()["list"].clone()
}

fn linked(org: &Org, node: usize, with: &str) -> bool {
    let list = org.ask(node, &["session", "list"]).unwrap();
    list["sessions"].as_array().unwrap().iter().any(|s| s["action"] == "link" && s["name"] == with)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}
