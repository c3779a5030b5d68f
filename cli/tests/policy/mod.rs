//! A policy from its file to what is allowed by it.

use std::fs;

use serde_json::json;

use crate::{
    bench::{Bench, Ran},
    members::with_members,
    roles::{add_admin_who, as_admin},
};

const WEB_TO_DB: &str = "\
[[rule]]
from = 'role:web'
to = 'label:db'
action = 'postgres'

[[test]]
from = 'role:web'
to = 'label:db'
action = 'postgres'
expect = 'allow'

[[test]]
from = 'any'
to = 'label:db'
action = 'postgres'
expect = 'deny'
";

fn file(bench: &Bench, text: &str) -> String {
    let path = bench.path("policy.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Words of the code that an operator has no use for.
#[track_caller]
fn speaks_to_an_operator(ran: &Ran) {
    let inner = ["charter", "cut", "statement", "cosign", "tip", "standing", "resolve", "roster", "digest"];
    for text in [&ran.stdout, &ran.stderr] {
        for word in text.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_ascii_lowercase) {
            assert!(!inner.contains(&word.strip_suffix('s').unwrap_or(&word)), "{word:?}: {text}");
        }
    }
}

/// Two members, of which one is for the web and one has the database.
fn web_and_db(bench: &Bench) {
    bench.run(&["member", "role", "web-1", "add", "web", "--wait", "0"]).succeeded();
    bench.run(&["member", "label", "db-1", "add", "db", "--wait", "0"]).succeeded();
}

#[test]
fn a_policy_that_is_applied_allows_what_its_rules_say_and_nothing_else() {
    let (bench, _musterd) = with_members(&["web-1", "db-1"]);
    web_and_db(&bench);
    let none = bench.run(&["trace", "web-1", "db-1", "postgres"]);
    none.failed_with("MU-9027", 77);
    assert!(bench.run(&["policy", "show"]).stdout.contains("acme has no policy"));
    assert_eq!(bench.json(&["policy", "show"])["policy"], json!(null));

    let path = file(&bench, WEB_TO_DB);
    let applied = bench.run(&["policy", "apply", &path, "--wait", "0", "--json"]);
    applied.succeeded();
    assert_eq!(applied.json["policy"], json!({ "number": 1, "rules": 1 }));
    assert!(applied.stderr.contains("+ role:web may postgres to label:db"), "{}", applied.stderr);
    let allowed = bench.run(&["trace", "web-1", "db-1", "postgres"]);
    allowed.succeeded();
    assert!(
        allowed.stdout.contains("policy 1, rule 1 of 1: role:web may postgres to label:db"),
        "{}",
        allowed.stdout
    );
    let refused = bench.run(&["trace", "db-1", "web-1", "postgres"]);
    refused.failed_with("MU-9028", 77);
    assert!(refused.stdout.contains("1 of its 1 rules are about postgres"), "{}", refused.stdout);
    let other = bench.run(&["trace", "web-1", "db-1", "ssh", "--json"]);
    assert_eq!(
        (other.status, &other.json["allowed"], &other.json["code"]),
        (77, &json!(false), &json!("MU-9028"))
    );

    // A right goes with the role, and with the member.
    bench.run(&["member", "role", "web-1", "remove", "web", "--wait", "0"]).succeeded();
    bench.run(&["trace", "web-1", "db-1", "postgres"]).failed_with("MU-9028", 77);
    bench.run(&["member", "role", "web-1", "add", "web", "--wait", "0"]).succeeded();
    bench.run(&["suspend", "db-1", "--wait", "0"]).succeeded();
    let suspended = bench.run(&["trace", "web-1", "db-1", "postgres"]);
    suspended.failed_with("MU-1404", 77);
    assert!(suspended.stdout.contains("not asked, because of to"), "{}", suspended.stdout);
    for ran in [none, applied, allowed, refused, other, suspended] {
        speaks_to_an_operator(&ran);
    }
    bench.run(&["trace", "web-9", "db-1", "postgres"]).failed_with("MU-2006", 65);
    bench.run(&["trace", "web-1", "db-1", "any"]).failed_with("MU-7004", 2);
    bench.run(&["trace", "web-1", "db-1", "sync"]).failed_with("MU-9024", 65);
}

#[test]
fn what_is_shown_is_a_file_that_changes_nothing() {
    let (bench, _musterd) = with_members(&["web-1", "db-1"]);
    let path = file(&bench, WEB_TO_DB);
    bench.run(&["policy", "apply", &path, "--wait", "0"]).succeeded();
    let shown = bench.run(&["policy", "show"]);
    assert!(shown.stdout.starts_with("# policy 1 of acme, applied by admin: 1 rule\n"), "{}", shown.stdout);
    let again = bench.run_with(&["policy", "diff", "-"], &shown.stdout);
    again.succeeded();
    assert!(again.stdout.is_empty() && again.stderr.contains("The same as policy 1"), "{}", again.stdout);
    let same = bench.run_with(&["policy", "apply", "-", "--wait", "0", "--json"], &shown.stdout);
    assert_eq!((same.status, &same.json["applied"]), (0, &json!(false)));

    let more = shown.stdout + "\n[[rule]]\nfrom = 'any'\nto = 'member:db-1'\naction = 'ssh'\n";
    let more = file(&bench, &more.replace("postgres", "mysql"));
    let diff = bench.run(&["policy", "diff", &more]);
    let lines = "- role:web may postgres to label:db\n+ any may ssh to member:db-1\n+ role:web may mysql to label:db\n";
    assert_eq!(diff.stdout, lines);
    let diff = bench.json(&["policy", "diff", &more]);
    assert_eq!(
        diff["removed"],
        json!([{ "from": ["role:web"], "to": ["label:db"], "action": ["postgres"] }])
    );
    bench.run(&["policy", "apply", &more, "--wait", "0"]).succeeded();
    assert_eq!(bench.json(&["policy", "show"])["policy"]["number"], 2);

    // An empty one ends everything.
    let empty = bench.run_with(&["policy", "apply", "-", "--wait", "0"], "");
    empty.succeeded();
    assert!(bench.run(&["policy", "show"]).stdout.contains("It permits nothing"));
    bench.run(&["trace", "web-1", "db-1", "ssh"]).failed_with("MU-9028", 77);
}

#[test]
fn a_policy_whose_tests_fail_is_not_applied() {
    let (bench, _musterd) = with_members(&["web-1", "db-1"]);
    let wrong = file(
        &bench,
        &WEB_TO_DB
            .replace(
                "to = 'label:db'\naction = 'postgres'\n\n[[test]]",
                "to = 'any'\naction = 'postgres'\n\n[[test]]",
            )
            .replace("'deny'", "'allow'"),
    );
    for command in [&["policy", "check"][..], &["policy", "test"], &["policy", "apply"]] {
        let refused = bench.run(&[command, &[wrong.as_str()]].concat());
        refused.failed_with("MU-9026", 65);
        assert!(
            refused.stderr.contains("seen: line 12: any may postgres to label:db, but no rule"),
            "{}",
            refused.stderr
        );
        speaks_to_an_operator(&refused);
    }
    let tests = bench.run(&["policy", "test", &wrong, "--json"]);
    assert_eq!((tests.status, &tests.json["failed"]), (65, &json!(1)));
    assert_eq!(tests.json["tests"][1]["passed"], json!(false));
    assert_eq!(bench.json(&["policy", "show"])["policy"], json!(null));
    let right = file(&bench, WEB_TO_DB);
    assert_eq!(bench.run(&["policy", "test", &right]).stdout.matches("ok    ").count(), 2);
    assert_eq!(bench.run(&["policy", "check", &right]).stdout, "1 rule, 2 tests pass\n");
}

#[test]
fn each_wrong_policy_file_is_refused_with_its_code_and_line() {
    let bench = Bench::new();
    let rule = |from: &str, action: &str| format!("[[rule]]\nfrom = {from}\nto = 'any'\naction = {action}\n");
    for (text, code, seen) in [
        ("[[rule]\n".to_owned(), "MU-9020", "line 1: "),
        (
            rule("'any'", "'a'") + "form = 'any'\n",
            "MU-9021",
            "line 5: unknown setting form, the nearest is from",
        ),
        (rule("1", "'a'"), "MU-9022", "line 2: from takes "),
        (rule("'group:web'", "'a'"), "MU-9023", "line 2: \"group:web\": "),
        (rule("'any'", "['ssh', 'sync']"), "MU-9024", "line 4: \"sync\": sync is muster's own"),
        (
            rule("'any'", &format!("[{}]", "'a', ".repeat(17))),
            "MU-9025",
            "at most 16 words in one list allowed, 17 given",
        ),
    ] {
        let refused = bench.run_with(&["policy", "check", "-"], &text);
        refused.failed_with(code, 65);
        assert!(refused.stderr.contains(seen), "{code}: {}", refused.stderr);
        speaks_to_an_operator(&refused);
    }
    bench.run(&["policy", "check", &bench.path("none").display().to_string()]).failed_with("MU-9020", 65);
    bench.run_with(&["policy", "check", "-"], "").succeeded();
}

#[test]
fn a_name_that_a_machine_chose_itself_opens_nothing_and_trace_says_so() {
    let (bench, _musterd) = with_members(&["web-1", "db-1"]);
    let path = file(&bench, "[[rule]]\nfrom = 'member:web-1'\nto = 'any'\naction = 'ssh'\n");
    bench.run(&["policy", "apply", &path, "--wait", "0"]).succeeded();
    let refused = bench.run(&["trace", "web-1", "db-1", "ssh"]);
    refused.failed_with("MU-9028", 77);
    assert!(refused.stdout.contains("web-1 chose its name itself"), "{}", refused.stdout);
    bench.run(&["member", "label", "web-1", "add", "eu", "--wait", "0"]).succeeded();
    bench.run(&["trace", "web-1", "db-1", "ssh"]).succeeded();
}

#[test]
fn who_is_no_admin_any_more_applies_no_policy() {
    let (bench, _musterd) = with_members(&["web-1"]);
    add_admin_who(&bench, "anna", &[]);
    let path = file(&bench, WEB_TO_DB);
    as_admin(&bench, "anna", &["policy", "apply", &path, "--wait", "0"]).succeeded();
    let by = bench.json(&["policy", "show"])["policy"]["by"].clone();
    assert_eq!(by, "anna");
    // What she applied counts as far as it was here when she went.
    bench.run(&["admin", "remove", "anna", "--wait", "0"]).succeeded();
    assert_eq!(bench.json(&["policy", "show"])["policy"]["number"], 1);
    let late = file(&bench, "[[rule]]\nfrom = 'any'\nto = 'any'\naction = 'any'\n");
    let late = as_admin(&bench, "anna", &["policy", "apply", &late, "--wait", "0"]);
    assert_ne!(late.status, 0, "{}{}", late.stdout, late.stderr);
    let kept = bench.json(&["policy", "show"]);
    assert_eq!(
        (&kept["policy"]["number"], &kept["policy"]["rules"][0]["from"]),
        (&json!(1), &json!(["role:web"]))
    );
}

#[test]
fn what_no_policy_decides_is_what_the_handshake_knows() {
    for rule in conn_auth::ACTIONS {
        // Of these it decides: who may put, and who may get what others have put.
        let decided = matches!(rule.name, "blob-get" | "blob-put");
        assert_ne!(
            policy::BUILT_IN.contains(&rule.name),
            decided,
            "{} is an action of muster's own",
            rule.name
        );
    }
}
