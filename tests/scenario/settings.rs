//! The org's settings change while machines run: roles come and go, everywhere and at once.

use std::fs;

use lab::org::{Org, wait_until};
use serde_json::Value;

use crate::harness::{self, wait_for_state};

#[test]
fn a_member_becomes_a_gateway_and_lets_machines_in_when_the_first_one_is_gone()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::machines(sandbox, 3);
        org.found().unwrap();
        // As an administrator prepares a machine that is to be a gateway.
        let dir = org.host(1).unwrap().dir().to_owned();
        let drop_ins = dir.join("etc/muster.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        let socket = format!("[gateway]\nsocket = \"{}/run-gateway/gateway.sock\"\n", dir.display());
        fs::write(drop_ins.join("gateway.toml"), socket).unwrap();
        org.join(1).unwrap();
        harness::know_each_other(&org, 2);

        let address = format!("{}:{}", org.host(1).unwrap().address(), lab::org::GATEWAY_PORT);
        let asked = org.ask(1, &["gateway", "init", "--address", &address]).unwrap();
        let again = org.ask(1, &["gateway", "init", "--address", &address]).unwrap();
        assert_eq!((&asked["new_key"], &again["new_key"]), (&true.into(), &false.into()));
        assert_eq!(asked["gateway"]["key"], again["gateway"]["key"], "one key is made, and kept");
        let certificate = dir.join("etc/gateway.crt").display().to_string();
        let line = asked["request"].as_str().unwrap();
        let added = org.ask(0, &["gateway", "add", line, "--out", &certificate]).unwrap();
        assert_eq!((&added["settings"], &added["complete"]), (&2.into(), &true.into()), "{added}");
        org.start_gateway(1).unwrap();

        let invite = org.ask(0, &["invite", "create", "--gateway", "n2"]).unwrap();
        org.stop_gateway(0).unwrap();
        org.enrol(2, invite["invite"].as_str().unwrap()).unwrap().ok().unwrap();
        org.start_musterd(2).unwrap();
        harness::know_each_other(&org, 3);
        // The first one goes; a machine that was off meanwhile walks to the settings in force.
        org.stop_musterd(2).unwrap();
        let removed = org.ask(0, &["gateway", "remove", "n1", "--wait", "2"]).unwrap();
        assert_eq!((&removed["settings"], &removed["complete"]), (&3.into(), &true.into()), "{removed}");
        let boot = org.boot(2).unwrap();
        boot.ok().unwrap();
        org.start_musterd(2).unwrap();
        assert_eq!(settings(&org, 2), 3);
        harness::know_each_other(&org, 3);
        let listed = org.ask(2, &["org", "show"]).unwrap();
        assert_eq!(listed["gateways"].as_array().map(Vec::len), Some(1), "{listed}");
    })
}

#[test]
fn a_stolen_admin_key_goes_with_its_mass_revocation() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let operator = org.host(0).unwrap().dir().join("operator");
        let (own, stolen) = (operator.join("muster/demo"), operator.join("stolen"));
        let (own, stolen) = (own.to_str().unwrap(), stolen.to_str().unwrap());
        let profile = format!("{own}/org.json");
        let made = org.ask(0, &["admin", "init", "anna", "--org", &profile, "--admin-dir", stolen]).unwrap();
        let key = made["admin"]["key"].as_str().unwrap();
        let added = org.ask(0, &["admin", "add", "anna", "--key", key]).unwrap();
        assert_eq!(added["complete"], true, "{added}");
        for victim in ["n2", "n3"] {
            let args = ["--admin", stolen, "revoke", victim, "--wait", "0", "--yes"];
            org.muster(0, &args).unwrap().ok().unwrap();
        }
        wait_for_state(&org, 0, "n2", "revoked");
        wait_for_state(&org, 0, "n3", "revoked");

        let log = org.ask(0, &["admin", "log", "anna"]).unwrap();
        let changes = log["changes"].as_array().unwrap();
        let first = changes.iter().find(|change| change["kind"] == "revoke").unwrap();
        let first = first["change"].as_str().unwrap();
        let removed = org.ask(0, &["admin", "remove", "anna", "--void-from", first, "--wait", "1"]).unwrap();
        assert_eq!(removed["effect"]["members_back"], serde_json::json!(["n2", "n3"]));
        for node in [1, 2] {
            // Whoever was revoked talks to nobody: the next start through a gateway tells it.
            org.stop_musterd(node).unwrap();
            org.boot(node).unwrap().ok().unwrap();
            org.start_musterd(node).unwrap();
        }
        harness::know_each_other(&org, 3);
        assert!((0..3).all(|node| settings(&org, node) == 3));
        let late = org.muster(0, &["--admin", stolen, "revoke", "n2", "--wait", "0", "--yes"]).unwrap();
        assert!(late.ok().is_err(), "the key changes nothing any more");
        assert!(harness::member(&org, 1, "n2", "good").is_some());
    })
}

fn settings(org: &Org, node: usize) -> u64 {
    let version = |status: Value| status["org"]["settings"].as_u64();
    wait_until("the settings are known", || Ok(version(org.ask(node, &["status"])?))).unwrap()
}
