//! The org's settings change while machines run: roles come and go, everywhere and at once.

use lab::{
    Sandbox,
    org::{Org, wait_until},
};
use serde_json::Value;

use crate::{
    harness::{self, wait_for_state},
    thief::Thief,
};

/// Three machines of which two are members, and both gateways.
fn with_a_second_gateway(sandbox: &Sandbox) -> Org {
    let mut org = harness::machines(sandbox, 3);
    org.found().unwrap();
    harness::configure_gateway(&org, 1);
    let dir = org.host(1).unwrap().dir().to_owned();
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
    org
}

#[test]
fn a_member_becomes_a_gateway_and_lets_machines_in_when_the_first_one_is_gone()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = with_a_second_gateway(sandbox);
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

#[test]
fn an_admin_without_the_org_keys_undoes_a_stolen_gateway_and_what_it_let_in() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let mut org = with_a_second_gateway(sandbox);
        let invite = org.ask(0, &["invite", "create", "--gateway", "n2", "--uses", "2"]).unwrap();
        let invite = invite["invite"].as_str().unwrap();
        org.enrol(2, invite).unwrap().ok().unwrap();
        org.start_musterd(2).unwrap();
        harness::know_each_other(&org, 3);
        let operator = org.host(0).unwrap().dir().join("operator");
        let (profile, anna) = (operator.join("muster/demo/org.json"), operator.join("anna"));
        let (profile, anna) = (profile.to_str().unwrap(), anna.to_str().unwrap());
        let made = org.ask(0, &["admin", "init", "anna", "--org", profile, "--admin-dir", anna]).unwrap();
        let added = org.ask(0, &["admin", "add", "anna", "--key", made["admin"]["key"].as_str().unwrap()]);
        assert_eq!(added.unwrap()["complete"], true);

        org.stop_gateway(1).unwrap();
        org.stop_musterd(1).unwrap();
        let thief = Thief::lets_in(&org, 1, invite, "ghost", 0);
        thief.is_served(&org);
        let by_anna = ["--admin", anna, "revoke", "n2", "--void-from", "ghost", "--wait", "all", "--yes"];
        let revoked = org.muster(0, &by_anna).unwrap().ok().unwrap();
        assert!(revoked.stdout.contains("applied 2/2"), "{}", revoked.stdout);
        let command = revoked.stderr.lines().find(|line| line.contains("muster gateway remove")).unwrap();
        thief.is_refused(&org);
        let stays_as_it_is = |org: &Org| {
            for node in [0, 2] {
                assert!(harness::member(org, node, "ghost", "good").is_none());
                assert!(
                    harness::member(org, node, "n3", "good").is_some(),
                    "let in by the same gateway before"
                );
                assert!(harness::member(org, node, "n2", "revoked").is_some());
            }
        };
        stays_as_it_is(&org);
        // Later, where the org keys are, what the command said; and nothing comes back with it.
        let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--wait", "all"]).collect();
        let removed = org.ask(0, &words).unwrap();
        assert_eq!((&removed["settings"], &removed["complete"]), (&4.into(), &true.into()), "{removed}");
        let gateways = org.ask(2, &["org", "show"]).unwrap()["gateways"].as_array().map(Vec::len);
        assert_eq!(gateways, Some(1));
        stays_as_it_is(&org);
        // And what an admin did in good order stays when the admin goes.
        let removed = org.ask(0, &["admin", "remove", "anna", "--wait", "all"]).unwrap();
        assert_eq!((&removed["settings"], &removed["complete"]), (&5.into(), &true.into()), "{removed}");
        assert_eq!(org.ask(2, &["admin", "list"]).unwrap()["admins"].as_array().map(Vec::len), Some(1));
        stays_as_it_is(&org);
        thief.is_refused(&org);
        org.muster(0, &["ping", "n3", "--count", "1"]).unwrap().ok().unwrap();
    })
}

fn settings(org: &Org, node: usize) -> u64 {
    let version = |status: Value| status["org"]["settings"].as_u64();
    wait_until("the settings are known", || Ok(version(org.ask(node, &["status"])?))).unwrap()
}
