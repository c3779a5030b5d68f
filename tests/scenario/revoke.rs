//! A revocation reaches whom it must, without the gateway and without being sent twice.

use std::{fs, time::Duration};

use lab::org::Org;

use crate::harness::{self, member, within};

/// Dead connections are noticed and tips are exchanged within this.
const ANTI_ENTROPY: Duration = Duration::from_secs(40);

#[test]
fn a_revoke_arrives_by_anti_entropy_alone() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 4);
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[3]));
        org.stop_musterd(2).unwrap();
        // The one that is cut off hears only the machine that is about to be revoked.
        let namespace = |node: usize| org.host(node).unwrap().namespace();
        org.lab().bridge().cut(&[namespace(3)], &[namespace(0), namespace(1)]).unwrap();
        let thief = org.probe(2, &id, &targets).unwrap();
        harness::wait_until_served(&org, 2, &[3]);
        let revoked = org.muster(0, &["revoke", "n3", "--wait", "2", "--yes"]).unwrap();
        revoked.ok().unwrap();
        let signed = || fs::read_dir(operator(&org, 0).join("admin.age.signed")).unwrap().count();
        let (written, list) = (signed(), list_version(&org, 1));
        let before = harness::knocks(&org, 2).len();
        harness::wait_until_served(&org, 2, &[3]);
        within(Duration::from_secs(10), "the thief is still served where it was not heard", || {
            let knocks = harness::knocks(&org, 2);
            knocks.iter().skip(before).any(|knock| knock.outcome == "ok").then_some(())
        });
        assert!(member(&org, 3, "n3", "good").is_some());

        org.lab().bridge().heal().unwrap();
        within(ANTI_ENTROPY, "the revocation arrives", || member(&org, 3, "n3", "revoked"));
        harness::wait_until_refused(&org, 2, &[3]);
        assert_eq!(harness::session_ended_with(&org, 2, 3).as_deref(), Some("MU-1403"));
        drop(thief);
        assert_eq!((signed(), list_version(&org, 3)), (written, list), "nothing new was written for it");
    })
}

#[test]
fn the_gateway_is_not_needed_for_a_revoke_and_live_sessions_end() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 4);
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[1, 2]));
        org.move_admin(0, 1).unwrap();
        org.stop_gateway(0).unwrap();
        org.stop_musterd(0).unwrap();
        org.stop_musterd(3).unwrap();
        let thief = org.probe(3, &id, &targets).unwrap();
        harness::wait_until_served(&org, 3, &[1, 2]);
        let revoked = org.muster(1, &["revoke", "n4", "--wait", "2", "--reason", "stolen", "--yes"]).unwrap();
        revoked.ok().unwrap();
        harness::wait_until_refused(&org, 3, &[1, 2]);
        for target in [1, 2] {
            assert_eq!(harness::session_ended_with(&org, 3, target).as_deref(), Some("MU-1403"));
        }
        drop(thief);
        let shown = member(&org, 2, "n4", "revoked").unwrap();
        assert_eq!(shown["revoked"]["reason"], "stolen");
    })
}

#[test]
fn a_revoke_of_the_machine_that_it_is_handed_in_at_reaches_the_others() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 4, 4);
        org.move_admin(0, 3).unwrap();
        let said = org.ask(3, &["revoke", "n4", "--yes"]).unwrap();
        assert_eq!((&said["coverage"]["applied"], &said["coverage"]["of"]), (&3.into(), &3.into()), "{said}");
        for node in 0..3 {
            assert!(member(&org, node, "n4", "revoked").is_some(), "as its coverage said");
        }
        assert_eq!(org.ask(3, &["session", "list"]).unwrap()["sessions"], serde_json::json!([]));
    })
}

#[test]
fn a_revoke_that_nobody_else_can_hear_is_not_a_success() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 3);
        org.move_admin(0, 2).unwrap();
        let namespace = |node: usize| org.host(node).unwrap().namespace();
        org.lab().bridge().cut(&[namespace(2)], &[namespace(0), namespace(1)]).unwrap();
        within(ANTI_ENTROPY, "it has noticed that it is alone", || {
            let sessions = org.ask(2, &["session", "list"]).unwrap();
            sessions["sessions"].as_array().unwrap().is_empty().then_some(())
        });
        // Another machine: it is stored here, and the person is told that nobody has heard of it.
        let other = org.muster(2, &["revoke", "n2", "--timeout", "1s", "--yes"]).unwrap();
        assert_eq!(other.status.code(), Some(75));
        assert!(other.stderr.contains("MU-2014"), "{}", other.stderr);
        assert!(other.stdout.contains("applied 1/2"), "{}", other.stdout);
        // This machine itself: nobody ever hears of it from here.
        let itself = org.muster(2, &["revoke", "n3", "--timeout", "1s", "--yes"]).unwrap();
        assert_eq!(itself.status.code(), Some(75));
        assert!(itself.stderr.contains("MU-2014"), "{}", itself.stderr);
        // So it is handed in at another member, and nothing is signed twice.
        org.lab().bridge().heal().unwrap();
        let again = org.muster(2, &["revoke", "n3", "--yes"]).unwrap().ok().unwrap();
        assert!(again.stderr.contains("sending again"), "{}", again.stderr);
        for name in ["n2", "n3"] {
            assert!(member(&org, 0, name, "revoked").is_some());
        }
    })
}

fn operator(org: &Org, node: usize) -> std::path::PathBuf {
    org.host(node).unwrap().dir().join("operator/muster/demo")
}

fn list_version(org: &Org, node: usize) -> String {
    org.ask(node, &["status"]).unwrap()["org"]["list_version"].as_str().unwrap().to_owned()
}
