//! Looking after a machine: what its settings are, and what is wrong with it.

use std::fs;

use lab::org::{Org, wait_until};
use serde_json::Value;

use crate::harness;

fn doctor(org: &Org, node: usize) -> (Option<i32>, Value) {
    let ended = org.muster(node, &["doctor", "--json"]).unwrap();
    (ended.status.code(), serde_json::from_str(&ended.stdout).unwrap())
}

fn check<'a>(said: &'a Value, name: &str) -> &'a Value {
    let checks = said["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap()
}

/// Waits until doctor finds nothing amiss; if that does not come, with what it found.
fn well_again(org: &Org, node: usize) {
    let mut said = Value::Null;
    let well = wait_until("a member again", || {
        let (status, found) = doctor(org, node);
        said = found;
        Ok((status == Some(0)).then_some(()))
    });
    well.unwrap_or_else(|error| panic!("{error}: {said:#}"));
}

#[test]
fn doctor_says_what_is_in_order_and_names_what_is_not() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 2);
        for node in [0, 1] {
            wait_until("healthy", || Ok((doctor(&org, node).0 == Some(0)).then_some(()))).unwrap();
        }
        let (_, well) = doctor(&org, 1);
        for part in
            ["configuration", "files", "keys", "clock", "disk", "musterd", "membership", "interface", "port"]
        {
            assert_eq!(check(&well, part)["status"], "ok", "{part}: {well:#}");
        }
        for part in ["member list", "links", "gateway"] {
            assert_eq!(check(&well, part)["status"], "ok", "{part}: {well:#}");
        }
        let (status, fresh) = doctor(&org, 2);
        assert_eq!(
            (status, check(&fresh, "musterd")["code"].as_str()),
            (Some(3), Some("MU-6008")),
            "{fresh:#}"
        );

        // Who may read the keys, and nobody to be in step with, are told beside each other.
        let key = org.state(1).unwrap().join("keys/node.sealed");
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        org.stop_gateway(0).unwrap();
        org.stop_musterd(0).unwrap();
        let unwell = wait_until("degraded", || {
            let (status, said) = doctor(&org, 1);
            Ok((status == Some(1) && check(&said, "links")["status"] != "ok").then_some(said))
        })
        .unwrap();
        assert_eq!(check(&unwell, "files")["code"], "MU-4006", "{unwell:#}");
        assert_eq!(check(&unwell, "links")["code"], "MU-7072", "{unwell:#}");
        assert_eq!(check(&unwell, "gateway")["status"], "fail", "{unwell:#}");
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        org.stop_musterd(1).unwrap();
        let (status, down) = doctor(&org, 1);
        assert_eq!(
            (status, check(&down, "musterd")["code"].as_str()),
            (Some(2), Some("MU-6001")),
            "{down:#}"
        );
        assert_eq!(check(&down, "keys")["status"], "ok", "looked at without musterd: {down:#}");
    })
}

#[test]
fn settings_are_shown_with_where_they_are_from_and_every_mistake_is_named() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::machines(sandbox, 1);
        let dir = org.host(0).unwrap().dir().join("operator");
        let file = dir.join("muster.toml");
        let name = file.display().to_string();
        fs::create_dir_all(dir.join("muster.toml.d")).unwrap();
        fs::write(&file, "[network]\nport = 1\n").unwrap();
        fs::write(dir.join("muster.toml.d/10.toml"), "[network]\nport = 2\n").unwrap();
        let shown = org.ask(0, &["config", "show", "--effective", "--config", &name]).unwrap();
        let port =
            shown["settings"].as_array().unwrap().iter().find(|set| set["key"] == "network.port").unwrap();
        assert_eq!(port["value"], 2, "{port}");
        assert!(port["from"].as_str().unwrap().ends_with("muster.toml.d/10.toml"), "{port}");
        assert_eq!(org.ask(0, &["config", "check", "--config", &name]).unwrap()["ok"], true);

        fs::write(&file, "[network]\nprot = 1\n[members]\non_stale = 'never'\n").unwrap();
        let wrong = org.muster(0, &["config", "check", "--json", "--config", &name]).unwrap();
        assert_eq!(wrong.status.code(), Some(78));
        let said: Value = serde_json::from_str(&wrong.stdout).unwrap();
        let codes: Vec<_> =
            said["problems"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["MU-7002", "MU-7001"], "{said:#}");
        assert!(said["problems"][1]["detail"].as_str().unwrap().ends_with("the nearest is network.port"));
    })
}

#[test]
fn a_machine_with_a_new_disk_is_restored_and_hears_of_the_revocations_meanwhile()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 4, 3);
        let out = org.host(1).unwrap().dir().join("n2.backup").display().to_string();
        let open = org.muster(0, &["backup", "--out", &out]).unwrap();
        assert_eq!(harness::code(&open), "MU-7008", "a gateway's TLS key lies open");
        let made = org.ask(1, &["backup", "--out", &out]).unwrap();
        assert_eq!(made["open_keys"].as_array().unwrap().len(), 0, "{made:#}");
        let running = org.muster(1, &["restore", &out]).unwrap();
        assert_eq!(harness::code(&running), "MU-3010", "nothing is put over what is there: {running:?}");
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[1]));
        org.stop_musterd(1).unwrap();
        org.stop_musterd(2).unwrap();
        let thief = org.probe(2, &id, &targets).unwrap();
        org.muster(0, &["revoke", "n3", "--wait", "1", "--yes"]).unwrap().ok().unwrap();
        let state = org.state(1).unwrap();
        for entry in fs::read_dir(&state).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        assert_eq!(doctor(&org, 1).0, Some(3), "nothing is left");

        // Another machine's TPM does not open it, and nothing is left behind.
        let elsewhere = org.muster(3, &["restore", &out]).unwrap();
        assert_eq!(harness::code(&elsewhere), identity::Code::TpmReplaced.to_string(), "{elsewhere:?}");
        assert!(!org.state(3).unwrap().join("keys").exists());

        // As a power cut leaves it in the middle of a restore.
        for left in ["restoring/keys", "store/part"] {
            fs::create_dir_all(state.join(left)).unwrap();
        }
        org.ask(1, &["restore", &out]).unwrap();
        assert!(!state.join("store/part").exists() && !state.join("restoring").exists());
        org.start_musterd(1).unwrap();
        harness::wait_for_state(&org, 1, "n3", "revoked");
        harness::wait_until_refused(&org, 2, &[1]);
        assert!(harness::knocks(&org, 2).iter().all(|knock| knock.outcome != "ok"), "not once served");
        drop(thief);
        well_again(&org, 1);
        assert!(org.muster(0, &["ping", "n2", "--count", "1"]).unwrap().status.success());
        assert_eq!(org.ask(0, &["status"]).unwrap()["org"]["forks"], 0);
        assert_eq!(harness::member(&org, 0, "n2", "good").unwrap()["cloned"], false);
    })
}
