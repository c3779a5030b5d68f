//! Joining and leaving: what an invite buys, and what it does not.

use std::fs;

use lab::org::{Org, wait_until};

use crate::harness::{self, code, invites, member};

#[test]
fn repeating_enrol_spends_nothing() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 4, 1);
        let invite = org.invite(0, 2).unwrap();
        let preboot = |node| {
            let program = org.preboot(node).unwrap().args(["--invite", "-", "--name", &Org::name(node)]);
            program.input(invite.clone()).run(std::time::Duration::from_secs(20)).unwrap()
        };
        preboot(1).ok().unwrap();
        let key = member(&org, 0, "n2", "good").unwrap()["key"].clone();
        for _ in 0..3 {
            // As if the answer had been lost on its way here.
            fs::remove_file(org.state(1).unwrap().join("preboot/admit")).unwrap();
            preboot(1).ok().unwrap();
        }
        assert_eq!(invites(&org, 0)[0]["used"], 1);
        assert_eq!(member(&org, 0, "n2", "good").unwrap()["key"], key);
        preboot(2).ok().unwrap();
        assert_eq!(invites(&org, 0)[0]["used"], 2);
        let third = preboot(3);
        assert_eq!((third.status.code(), code(&third).as_str()), (Some(77), "MU-3004"));
    })
}

#[test]
fn a_used_up_invite_is_refused_with_its_code() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 1);
        let invite = org.invite(0, 1).unwrap();
        org.enrol(1, &invite).unwrap().ok().unwrap();
        let second = org.enrol(2, &invite).unwrap();
        assert_eq!((second.status.code(), code(&second).as_str()), (Some(77), "MU-3004"));
        assert_eq!(invites(&org, 0)[0]["status"], "used-up");
        assert!(member(&org, 0, "n3", "good").is_none());
    })
}

#[test]
fn a_cancelled_invite_is_refused() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 1);
        let invite = org.invite(0, 5).unwrap();
        org.enrol(1, &invite).unwrap().ok().unwrap();
        let id = invites(&org, 0)[0]["id"].as_str().unwrap().to_owned();
        org.ask(0, &["invite", "cancel", &id]).unwrap();
        let late = org.enrol(2, &invite).unwrap();
        assert_eq!((late.status.code(), code(&late).as_str()), (Some(77), "MU-3005"));
        assert!(member(&org, 0, "n2", "good").is_some(), "who joined before stays");
    })
}

#[test]
fn an_invite_of_another_org_is_refused() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 1);
        org.found_on(2, "other").unwrap();
        let ours = org.invite(0, 1).unwrap();
        let theirs = org.invite(2, 1).unwrap();
        org.enrol(1, &ours).unwrap().ok().unwrap();
        let preboot = org.preboot(1).unwrap().args(["--invite", "-"]).input(theirs.clone());
        let refused = preboot.run(std::time::Duration::from_secs(20)).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(65), "MU-3002"));
        let again = org.enrol(1, &theirs).unwrap();
        assert_eq!((again.status.code(), code(&again).as_str()), (Some(65), "MU-3010"));
        assert_eq!(invites(&org, 2)[0]["used"], 0);
    })
}

#[test]
fn a_machine_that_leaves_is_refused_everywhere_and_can_join_anew() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let old = member(&org, 0, "n3", "good").unwrap();
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[0, 1]));
        let left = org.ask(2, &["leave", "--yes"]).unwrap();
        assert!(left["members_told"].as_u64().unwrap() > 0, "{left}");
        for node in [0, 1] {
            harness::wait_for_state(&org, node, "n3", "left");
        }
        org.stop_musterd(2).unwrap();
        let booted = org.boot(2).unwrap();
        assert_eq!((booted.status.code(), code(&booted).as_str()), (Some(77), "MU-1405"));
        let probe = org.probe(2, &id, &targets).unwrap();
        wait_until("the probe has tried", || Ok((harness::knocks(&org, 2).len() > 100).then_some(())))
            .unwrap();
        assert!(harness::knocks(&org, 2).iter().all(|knock| knock.outcome != "ok"));
        drop(probe);

        let deleted = org.ask(2, &["leave", "--yes"]).unwrap();
        assert_eq!(deleted["keys_deleted"], true);
        org.join(2).unwrap();
        let new = harness::wait_for_state(&org, 1, "n3", "good");
        for key in ["key", "wireguard_key", "boot_key", "address"] {
            assert_ne!(new[key], old[key]);
        }
        let name = new["key"].as_str().unwrap();
        wait_until("a link to the machine that came back", || {
            Ok(org.muster(1, &["link", name])?.status.success().then_some(()))
        })
        .unwrap();
    })
}

#[test]
fn keys_in_a_file_are_refused_unless_configured_and_shown_as_such() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 1);
        let invite = org.invite(0, 2).unwrap();
        // A machine whose TPM is not there does not fall back.
        let settings = org.host(2).unwrap().dir().join("etc/muster.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.replace("/dev/pts/", "/dev/pts/9")).unwrap();
        let refused = org.enrol(2, &invite).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(69), "MU-4001"));
        assert!(!org.state(2).unwrap().join("keys/node.key").exists());

        org.set_key_storage(1, "file").unwrap();
        org.enrol(1, &invite).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        let shown = harness::wait_for_state(&org, 0, "n2", "good");
        assert_eq!(shown["key_storage"], "file");
        assert!(org.muster(0, &["member", "list"]).unwrap().stdout.contains("file"));

        org.stop_musterd(1).unwrap();
        org.set_key_storage(1, "tpm").unwrap();
        org.start_musterd(1).unwrap();
        let status = org.muster(1, &["status", "--check", "--json"]).unwrap();
        assert_eq!(status.status.code(), Some(2), "{}", status.stdout);
        assert!(status.stdout.contains("MU-4005"), "{}", status.stdout);
        org.stop_musterd(1).unwrap();
        let booted = org.boot(1).unwrap();
        assert_eq!((booted.status.code(), code(&booted).as_str()), (Some(78), "MU-4005"));
    })
}
