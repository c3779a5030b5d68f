//! What members may do to each other, as an admin says it and all machines hold it.

use lab::org::{Org, wait_until};
use serde_json::{Value, json};

use crate::harness::{self, code};

/// Whether a machine's musterd would let one member use the other's database.
fn trace(org: &Org, node: usize, from: &str, to: &str) -> Value {
    let ended = org.muster(node, &["trace", from, to, "postgres", "--json"]).unwrap();
    let traced: Value = serde_json::from_str(&ended.stdout).unwrap();
    let allowed = traced["allowed"] == true;
    assert_eq!(ended.status.code(), Some(if allowed { 0 } else { 77 }), "{traced}");
    traced
}

fn apply(org: &Org, more: &[&str], rules: &str) -> lab::Ended {
    let path = org.host(0).unwrap().dir().join("policy.toml");
    std::fs::write(&path, rules).unwrap();
    let path = path.to_str().unwrap();
    org.muster(0, &[more, &["policy", "apply", path, "--wait", "all", "--json"]].concat()).unwrap()
}

const WEB_TO_DB: &str = "\
[[rule]]
from = 'role:web'
to = 'role:db'
action = 'postgres'

[[test]]
from = 'role:web'
to = 'role:db'
action = 'postgres'
expect = 'allow'
";

#[test]
fn a_policy_is_in_force_on_every_member_and_only_admins_change_it() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let role = |node: &str, role: &str| {
            org.ask(0, &["member", "role", node, "add", role, "--wait", "all"]).unwrap();
        };
        role("n2", "web");
        role("n3", "db");
        for node in 0..3 {
            assert_eq!(
                trace(&org, node, "n2", "n3")["code"],
                "MU-9027",
                "nothing is allowed without a policy"
            );
        }
        let wrong = apply(&org, &[], &WEB_TO_DB.replace("'allow'", "'deny'"));
        assert_eq!((wrong.status.code(), code(&wrong).as_str()), (Some(65), "MU-9026"));

        let applied = apply(&org, &[], WEB_TO_DB).ok().unwrap().stdout;
        let applied: Value = serde_json::from_str(&applied).unwrap();
        assert_eq!((&applied["complete"], &applied["coverage"]["applied"]), (&json!(true), &json!(3)));
        println!("applied by 3 of 3 within {} ms", applied["waited_ms"]);
        for node in 0..3 {
            let rule = json!({ "from": ["role:web"], "to": ["role:db"], "action": ["postgres"] });
            assert_eq!(trace(&org, node, "n2", "n3")["rule"]["rule"], rule, "{node}");
            assert_eq!(trace(&org, node, "n3", "n2")["code"], "MU-9028", "{node}");
        }

        // A key that no settings name, and one that they name no longer.
        let operator = org.host(0).unwrap().dir().join("operator");
        let (profile, anna) = (operator.join("muster/demo/org.json"), operator.join("anna"));
        let (profile, anna) = (profile.to_str().unwrap(), anna.to_str().unwrap());
        let made = org.ask(0, &["admin", "init", "anna", "--org", profile, "--admin-dir", anna]).unwrap();
        let all = "[[rule]]\nfrom = 'any'\nto = 'any'\naction = 'any'\n";
        let refused = |org: &Org, when: &str| {
            let tried = apply(org, &["--admin", anna], all);
            assert!(!tried.status.success(), "{when}: {}", tried.stdout);
            println!("{when}: {}", tried.stderr);
            for node in 0..3 {
                assert_eq!(org.ask(node, &["policy", "show"]).unwrap()["policy"]["number"], 1, "{when}");
                assert_eq!(trace(org, node, "n3", "n2")["allowed"], false, "{when}");
            }
        };
        refused(&org, "never an admin");
        let key = made["admin"]["key"].as_str().unwrap();
        org.ask(0, &["admin", "add", "anna", "--key", key, "--wait", "all"]).unwrap();
        org.ask(0, &["admin", "remove", "anna", "--wait", "all"]).unwrap();
        refused(&org, "an admin no longer");

        // A machine that was off has it once it has heard the others.
        org.stop_musterd(2).unwrap();
        let path = org.host(0).unwrap().dir().join("policy.toml");
        std::fs::write(&path, WEB_TO_DB.replace("role:db", "role:web")).unwrap();
        let without_tests = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, without_tests.split("[[test]]").next().unwrap()).unwrap();
        org.ask(0, &["policy", "apply", path.to_str().unwrap(), "--wait", "2"]).unwrap();
        for node in 0..2 {
            assert_eq!(trace(&org, node, "n2", "n3")["code"], "MU-9028", "{node}: the right is taken away");
        }
        org.start_musterd(2).unwrap();
        wait_until("the machine that was off has the policy", || {
            let shown = org.ask(2, &["policy", "show"])?;
            Ok((shown["policy"]["number"] == 2).then_some(()))
        })
        .unwrap();
        assert_eq!(trace(&org, 2, "n2", "n3")["code"], "MU-9028");
    })
}
