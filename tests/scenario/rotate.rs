//! Machines that get new keys.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lab::{
    Ready,
    org::{Org, wait_until},
};
use serde_json::Value;
use tpm_seal::{Custody, NodeSecrets, Tpm};

use crate::harness::{self, code, member};

const PATIENCE: Duration = Duration::from_secs(20);

fn rotate(org: &Org, node: usize) -> Value {
    let rotated = org.ask(node, &["key", "rotate", "--timeout", "15s"]).unwrap();
    assert_eq!(rotated["rotation"], "none", "{rotated}");
    rotated
}

/// The key that a machine's TPM opens.
fn sealed_key(org: &Org, node: usize) -> String {
    let tpm = Tpm::open(org.host(node).unwrap().tpm().unwrap().device()).unwrap();
    let keys = org.state(node).unwrap().join("keys");
    let secrets: NodeSecrets = Custody::Tpm(tpm).load(&keys).unwrap();
    secrets.identity.expose(|seed| identity::SecretKey::from_seed(seed).public().to_string())
}

fn wait_for_key(org: &Org, node: usize, name: &str, key: &Value) -> Value {
    wait_until("a member has the new key", || {
        Ok(member(org, node, name, "good").filter(|member| member["key"] == *key))
    })
    .unwrap()
}

fn wait_for_ping(org: &Org, from: usize, to: &str) {
    wait_until("a ping arrives", || Ok(org.muster(from, &["ping", to])?.status.success().then_some(())))
        .unwrap();
}

#[test]
fn a_machine_gets_new_keys_keeps_its_address_and_disturbs_nobody() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let before = member(&org, 0, "n3", "good").unwrap();
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[0, 1]));
        let keys = org.state(2).unwrap().join("keys");
        let copy = org.host(2).unwrap().dir().join("copy-of-keys");
        fs::create_dir(&copy).unwrap();
        for name in ["node.sealed", "boot.sealed"] {
            fs::copy(keys.join(name), copy.join(name)).unwrap();
        }
        let (done, org_seen) = (AtomicBool::new(false), &org);
        let rotated = thread::scope(|scope| {
            let others = scope.spawn(|| {
                let mut pings = 0;
                while !done.load(Ordering::SeqCst) {
                    let ping = org_seen.muster(0, &["ping", "n2", "--count", "2"]).unwrap();
                    assert!(ping.status.success(), "others are disturbed: {}", ping.stderr);
                    pings += 1;
                }
                pings
            });
            let rotated = rotate(org_seen, 2);
            for node in [0, 1] {
                wait_for_key(org_seen, node, "n3", &rotated["keys"][0]["key"]);
                wait_for_ping(org_seen, node, "n3");
            }
            done.store(true, Ordering::SeqCst);
            assert!(others.join().unwrap() > 0);
            rotated
        });
        let states: Vec<_> = rotated["keys"].as_array().unwrap().iter().map(|k| k["state"].clone()).collect();
        assert_eq!(states, ["used", "ended"]);
        assert_eq!(rotated["keys"][1]["key"], before["key"]);
        let after = wait_for_key(&org, 1, "n3", &rotated["keys"][0]["key"]);
        assert_eq!(after["address"], before["address"]);
        for key in ["key", "wireguard_key", "boot_key"] {
            assert_ne!(after[key], before[key], "{key}");
        }
        assert_eq!(sealed_key(&org, 2), rotated["keys"][0]["key"]);
        assert!(!keys.join("next").exists());

        // It comes back by its new boot key.
        org.stop_musterd(2).unwrap();
        org.boot(2).unwrap().ok().unwrap();
        org.start_musterd(2).unwrap();
        wait_for_ping(&org, 2, "n2");
        org.stop_musterd(2).unwrap();

        // The copy of its old keys is good for nothing.
        fs::rename(&keys, keys.with_extension("new")).unwrap();
        fs::rename(&copy, &keys).unwrap();
        let booted = org.boot(2).unwrap();
        assert_eq!((booted.status.code(), code(&booted).as_str()), (Some(77), "MU-1415"));
        let thief = org.probe(2, &id, &targets).unwrap();
        wait_until("the thief has tried", || Ok((harness::knocks(&org, 2).len() > 100).then_some(())))
            .unwrap();
        assert!(harness::knocks(&org, 2).iter().all(|knock| knock.outcome != "ok"));
        drop(thief);
        fs::rename(&keys, keys.with_extension("old")).unwrap();
        fs::rename(keys.with_extension("new"), &keys).unwrap();
        org.start_musterd(2).unwrap();
        wait_for_ping(&org, 2, "n1");

        // Who knows it by its old key revokes the machine.
        let old = before["key"].as_str().unwrap();
        org.muster(0, &["revoke", &old[..12], "--yes"]).unwrap().ok().unwrap();
        let revoked = harness::wait_for_state(&org, 1, "n3", "revoked");
        assert_eq!(revoked["key"], rotated["keys"][0]["key"]);
        wait_until("it is refused", || Ok((!org.muster(2, &["ping", "n2"])?.status.success()).then_some(())))
            .unwrap();
    })
}

#[test]
fn a_gateway_that_gets_new_keys_goes_on_to_admit_and_keeps_its_role() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 2);
        let rotated = rotate(&org, 0);
        wait_for_key(&org, 1, "n1", &rotated["keys"][0]["key"]);
        let status = org.ask(0, &["member", "show", "n1"]).unwrap();
        assert!(status.to_string().contains("\"gateway\":true"), "{status}");
        org.join(2).unwrap();
        harness::wait_for_state(&org, 1, "n3", "good");
        org.stop_musterd(1).unwrap();
        org.boot(1).unwrap().ok().unwrap();
    })
}

#[test]
fn old_keys_that_are_kept_stay_valid_until_they_are_ended() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let kept = org.ask(1, &["key", "rotate", "--keep-old", "--timeout", "15s"]).unwrap();
        assert_eq!(
            (&kept["rotation"], &kept["keys"][1]["state"]),
            (&"kept".into(), &"valid".into()),
            "{kept}"
        );
        let again = org.muster(1, &["key", "rotate"]).unwrap();
        assert_eq!((again.status.code(), code(&again).as_str()), (Some(75), "MU-4011"));
        // A start changes nothing of it.
        org.stop_musterd(1).unwrap();
        org.boot(1).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        wait_until("the old keys are kept", || {
            Ok((org.ask(1, &["key", "show"])?["rotation"] == "kept").then_some(()))
        })
        .unwrap();
        wait_for_key(&org, 0, "n2", &kept["keys"][0]["key"]);
        let ended = org.ask(1, &["key", "retire", "--timeout", "15s"]).unwrap();
        assert_eq!((&ended["rotation"], &ended["keys"][1]["state"]), (&"none".into(), &"ended".into()));
        wait_for_ping(&org, 0, "n2");
    })
}

#[test]
fn a_machine_killed_anywhere_in_a_rotation_comes_up_as_itself() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let mut stages = Vec::new();
        for round in 0..10 {
            let daemon = org.take_musterd(1).unwrap();
            let muster = org.program(1, "muster").unwrap().args(["key", "rotate"]);
            let muster = muster.spawn(&Ready::AtOnce, PATIENCE).unwrap();
            // Every round at another moment of the same work.
            thread::sleep(Duration::from_millis(20 + 90 * round));
            daemon.kill();
            drop(muster);
            org.lab_mut().hosts_mut()[1].tpm_mut().unwrap().power_cycle().unwrap();
            org.start_musterd(1).unwrap();
            stages.push(org.ask(1, &["key", "show"]).unwrap()["rotation"].as_str().unwrap().to_owned());
            // It goes on by itself to the end, whatever the end is.
            let shown = wait_until("the rotation comes to its end", || {
                let shown = org.ask(1, &["key", "show"]).or_else(|_| org.ask(1, &["key", "show"]))?;
                Ok((shown["rotation"] == "none").then_some(shown))
            })
            .unwrap();
            assert_eq!(shown["keys"][0]["state"], "used", "round {round}: {shown}");
            assert_eq!(sealed_key(&org, 1), shown["keys"][0]["key"], "round {round}");
            wait_for_key(&org, 0, "n2", &shown["keys"][0]["key"]);
            wait_for_ping(&org, 0, "n2");
        }
        assert!(stages.iter().any(|stage| stage != "none"), "it was never cut in the middle: {stages:?}");
    })
}
