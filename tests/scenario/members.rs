//! What admins change about members, as all machines see it.

use std::{thread, time::Duration};

use lab::org::{Org, wait_for, wait_until};
use serde_json::{Value, json};

use crate::harness::{self, code, member, wait_for_state};

/// Two machines that lost sight of each other have a link again within this.
const TOGETHER_AGAIN: Duration = Duration::from_secs(60);

#[test]
fn a_suspended_machine_is_out_until_it_is_resumed_and_comes_back_by_itself() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[0, 1]));
        // What sessions end with is seen best by a program that does not try to help.
        org.stop_musterd(2).unwrap();
        let dials = org.probe(2, &id, &targets).unwrap();
        harness::wait_until_served(&org, 2, &[0, 1]);
        let suspended =
            org.ask(0, &["suspend", "n3", "--reason", "lost", "--note", "in a taxi", "--wait", "1"]).unwrap();
        assert_eq!(suspended["complete"], true, "{suspended}");
        harness::wait_until_refused(&org, 2, &[0, 1]);
        for target in [0, 1] {
            assert_eq!(harness::session_ended_with(&org, 2, target).as_deref(), Some("MU-1404"));
            let shown = wait_for_state(&org, target, "n3", "suspended");
            assert_eq!(
                (&shown["suspended"]["reason"], &shown["suspended"]["note"]),
                (&json!("lost"), &json!("in a taxi"))
            );
        }
        drop(dials);
        let start = org.boot(2).unwrap();
        assert_eq!((start.status.code(), code(&start).as_str()), (Some(77), "MU-1404"));

        // Its own musterd, that finds itself alone and is not told why, since nobody has a tunnel for it.
        org.start_musterd(2).unwrap();
        let well = |org: &Org| org.muster(2, &["status", "--check"]).unwrap().status.success();
        assert!(!well(&org));
        resume(&org);
        // And one that is suspended while it is at work.
        org.ask(0, &["suspend", "n3", "--wait", "1"]).unwrap();
        wait_until("the machine says what it was told", || {
            Ok(org.muster(2, &["status"])?.stdout.contains("MU-1404").then_some(()))
        })
        .unwrap();
        assert!(!well(&org) && !org.muster(2, &["ping", "n2", "--count", "1"]).unwrap().status.success());
        resume(&org);
        wait_until("nothing of it is left", || Ok(well(&org).then_some(()))).unwrap();
        org.boot(2).unwrap().ok().unwrap();
    })
}

/// Resumes the third of three machines, and waits until all of them reach each other.
fn resume(org: &Org) {
    let resumed = org.ask(0, &["resume", "n3", "--wait", "1"]).unwrap();
    assert_eq!(resumed["complete"], true, "{resumed}");
    for node in [0, 1] {
        wait_for_state(org, node, "n3", "good");
    }
    wait_for(TOGETHER_AGAIN, "the machine is back by itself", || {
        let pings = [(2, "n1"), (2, "n2"), (1, "n3")];
        let pings = pings.map(|(from, to)| org.muster(from, &["ping", to, "--count", "1"]));
        Ok(pings.into_iter().all(|ping| ping.is_ok_and(|ping| ping.status.success())).then_some(()))
    })
    .unwrap();
}

#[test]
fn who_joins_with_approval_waits_and_is_let_in_or_refused_by_an_admin() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 2);
        let made = org.ask(0, &["invite", "create", "--approval", "--uses", "2"]).unwrap();
        let invite = made["invite"].as_str().unwrap();
        let names = |waiting: &Value| -> Vec<String> {
            let waiting = waiting["pending"].as_array().unwrap().iter();
            waiting.map(|w| w["member"]["name"].as_str().unwrap().to_owned()).collect()
        };
        let waits = |org: &Org, expected: &[&str]| {
            wait_until("the machine is shown as waiting", || {
                Ok((names(&org.ask(1, &["pending", "list"])?) == expected).then_some(()))
            })
            .unwrap();
        };
        assert_eq!(names(&org.ask(1, &["pending", "list"]).unwrap()), [""; 0]);
        let let_in = thread::scope(|scope| {
            let joining = scope.spawn(|| org.enrol(2, invite).unwrap());
            waits(&org, &["n3"]);
            // Nobody serves it, and no command takes it for a member.
            assert!(member(&org, 1, "n3", "good").is_none());
            let table = org.muster(0, &["pending", "list"]).unwrap().ok().unwrap().stdout;
            assert!(table.contains("waits for an admin's approval"), "{table}");
            org.ask(0, &["pending", "approve", "n3", "--wait", "1"]).unwrap();
            joining.join().unwrap()
        });
        assert_eq!(let_in.status.code(), Some(0), "{}", let_in.stderr);
        let key = member(&org, 1, "n3", "good").unwrap()["key"].as_str().unwrap()[..8].to_owned();
        let told = format!("MU-1402: waiting for an admin's approval: muster pending approve {key}");
        assert!(let_in.stderr.contains(&told) && !let_in.stderr.contains("refused"), "{}", let_in.stderr);
        org.start_musterd(2).unwrap();
        harness::know_each_other(&org, 3);

        let refused = thread::scope(|scope| {
            let joining = scope.spawn(|| org.enrol(3, invite).unwrap());
            waits(&org, &["n4"]);
            org.ask(0, &["pending", "reject", "n4", "--note", "nobody's", "--wait", "1"]).unwrap();
            joining.join().unwrap()
        });
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-1403"));
        waits(&org, &[]);
        assert!(member(&org, 1, "n4", "good").is_none());
    })
}

#[test]
fn a_new_name_roles_and_labels_are_seen_everywhere_and_change_nothing_else() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 3);
        let before = member(&org, 0, "n3", "good").unwrap();
        let all = |change: &[&str]| {
            let done = org.ask(0, &[change, &["--wait", "all"]].concat()).unwrap();
            assert_eq!(done["complete"], true, "{done}");
        };
        all(&["member", "rename", "n3", "db-1"]);
        all(&["member", "role", "db-1", "add", "storage"]);
        all(&["member", "label", "db-1", "add", "rack-7"]);
        all(&["member", "label", "db-1", "remove", "demo"]);
        for node in 0..3 {
            let now = member(&org, node, "db-1", "good").unwrap();
            assert_eq!((&now["roles"], &now["labels"]), (&json!(["storage"]), &json!(["rack-7"])), "{node}");
            for same in ["key", "wireguard_key", "boot_key", "address", "admitted_in"] {
                assert_eq!(now[same], before[same], "{same}");
            }
            assert!(member(&org, node, "n3", "good").is_none());
        }
        let taken = org.muster(0, &["member", "rename", "n2", "db-1"]).unwrap();
        assert!(taken.status.code() == Some(2) && taken.stderr.contains("has this name"), "{}", taken.stderr);
        org.muster(1, &["ping", "db-1", "--count", "1"]).unwrap().ok().unwrap();
        // By a machine that is no admin's nothing is changed.
        let other = org.muster(1, &["member", "rename", "n2", "mine"]).unwrap();
        assert!(!other.status.success() && member(&org, 0, "n2", "good").is_some());
    })
}
