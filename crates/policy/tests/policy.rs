//! The language: what a file may say, what it means, and its one encoding.
#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use identity::{
    Code, Name, Tag,
    codec::Fault,
    limits::{POLICY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_RULES_MAX, POLICY_TESTS_MAX},
};
use policy::{BUILT_IN, Decision, Policy, PolicyFile, Subject, Unmatched};
use proptest::prelude::*;

const FILE: &str = r#"
# Web servers reach the database, and who repairs things reaches everything by ssh.
[[rule]]
from = ["role:web"]
to = ["role:db"]
action = ["postgres"]

[[rule]]
from = ["label:ops", "member:bastion"]
to = "any"
action = ["ssh", "metrics"]

[[test]]
from = ["role:web", "label:eu"]
to = "role:db"
action = "postgres"
expect = "allow"

[[test]]
from = "role:web"
to = "role:web"
action = "ssh"
expect = "deny"
"#;

fn parse(text: &str) -> Policy {
    PolicyFile::parse(text).unwrap().policy
}

fn rule(from: &str, to: &str, action: &str) -> String {
    format!("[[rule]]\nfrom = {from}\nto = {to}\naction = {action}\n")
}

fn tags(words: &[&str]) -> Vec<Tag> {
    words.iter().map(|word| Tag::parse(word).unwrap()).collect()
}

/// Whether a member with these roles and labels may, on one with those.
fn may(policy: &Policy, from: [&[&str]; 2], to: [&[&str]; 2], action: &str) -> bool {
    let [from, to] = [from, to].map(|[roles, labels]| (tags(roles), tags(labels)));
    let from = Subject { name: None, roles: &from.0, labels: &from.1 };
    let to = Subject { name: None, roles: &to.0, labels: &to.1 };
    policy.permits(&from, &to, action).is_allowed()
}

const NOBODY: [&[&str]; 2] = [&[], &[]];
const WEB: [&[&str]; 2] = [&["web"], &[]];
const DB: [&[&str]; 2] = [&["db"], &[]];

#[test]
fn a_rule_permits_what_it_names_and_nothing_more() {
    let policy = parse(FILE);
    assert!(may(&policy, WEB, DB, "postgres"));
    assert!(may(&policy, [&["web", "x"], &["y"]], DB, "postgres"));
    assert!(!may(&policy, DB, WEB, "postgres"), "it has a direction");
    assert!(!may(&policy, WEB, DB, "ssh"));
    assert!(!may(&policy, [&[], &["web"]], DB, "postgres"), "a label is no role");
    assert!(may(&policy, [&[], &["ops"]], NOBODY, "ssh"));
    assert!(!may(&policy, NOBODY, NOBODY, "ssh"));
    let bastion = Name::parse("bastion").unwrap();
    let named = Subject { name: Some(&bastion), ..Subject::default() };
    assert!(policy.permits(&named, &Subject::default(), "metrics").is_allowed());
}

#[test]
fn an_empty_policy_refuses_everything() {
    for policy in [Policy::default(), parse(""), parse("# nothing\n")] {
        assert!(policy.is_empty());
        for action in ["ssh", "any", "", "postgres"] {
            let decision = policy.permits(&Subject::default(), &Subject::default(), action);
            assert_eq!(decision, Decision::Deny(Unmatched::Empty));
        }
    }
    assert_eq!(Policy::default().encode(), [0]);
}

#[test]
fn any_is_every_member_and_every_action() {
    let policy = parse(&rule("'any'", "['any']", "'any'"));
    assert!(may(&policy, NOBODY, WEB, "whatever"));
}

#[test]
fn a_decision_says_which_rule_allows_or_how_far_they_go() {
    let policy = parse(FILE);
    let (web, db) = (tags(&["web"]), tags(&["db"]));
    let (web, db) =
        (Subject { roles: &web, ..Subject::default() }, Subject { roles: &db, ..Subject::default() });
    let Decision::Allow { rule, number } = policy.permits(&web, &db, "postgres") else { panic!() };
    assert_eq!(rule.to_string(), "role:web may postgres to role:db");
    assert_eq!(policy.rules()[number - 1], *rule);
    assert_eq!(policy.permits(&web, &db, "irc"), Decision::Deny(Unmatched::Action));
    assert_eq!(policy.permits(&db, &db, "postgres"), Decision::Deny(Unmatched::From));
    assert_eq!(policy.permits(&web, &web, "postgres"), Decision::Deny(Unmatched::To));
}

#[test]
fn tests_in_the_file_are_held_against_its_rules() {
    let file = PolicyFile::parse(FILE).unwrap();
    assert_eq!((file.tests.len(), file.failures().count()), (2, 0));
    let wrong =
        FILE.replace("\"deny\"", "\"allow\"").replace("expect = \"allow\"\n\n", "expect = \"deny\"\n\n");
    let file = PolicyFile::parse(&wrong).unwrap();
    let failures: Vec<String> = file.failures().map(|failure| failure.to_string()).collect();
    assert_eq!(
        failures,
        [
            "line 13: role:web label:eu may not postgres to role:db, but this rule allows it: role:web may \
             postgres to role:db",
            "line 19: role:web may ssh to role:web, but no rule about this action is about who asks",
        ]
    );
}

#[test]
fn a_member_in_a_test_has_what_is_said_and_nothing_else() {
    let test = |from: &str, expect: &str| {
        let test = format!("[[test]]\nfrom = {from}\nto = 'any'\naction = 'a'\nexpect = '{expect}'\n");
        PolicyFile::parse(&(rule("['role:x']", "'any'", "'a'") + &test)).unwrap().failures().count()
    };
    assert_eq!(test("'any'", "deny"), 0, "`any` is a member with nothing of its own");
    assert_eq!(test("['role:x', 'member:m']", "allow"), 0);
    assert_eq!(test("'member:x'", "allow"), 1);
}

#[test]
fn an_unknown_key_names_the_nearest_and_its_line() {
    for (text, seen) in [
        ("\n[[rules]]\n", "line 2: unknown setting rules, the nearest is rule"),
        ("[[rule]]\nfrm = 'any'\n", "line 2: unknown setting frm, the nearest is from"),
        ("[[rule]]\nfrom = 'any'\nactions = 'a'\n", "line 3: unknown setting actions, the nearest is action"),
        ("[[test]]\nexpects = 'deny'\n", "line 2: unknown setting expects, the nearest is expect"),
        ("tset = 1\n", "line 1: unknown setting tset, the nearest is test"),
    ] {
        let error = PolicyFile::parse(text).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (Code::PolicyUnknownKey, seen));
    }
}

#[test]
fn what_is_the_protocols_own_is_no_matter_of_a_policy() {
    for action in BUILT_IN {
        let text = rule("'any'", "'any'", &format!("['ssh', '{action}']"));
        let error = PolicyFile::parse(&text).unwrap_err();
        assert_eq!(error.code(), Code::PolicyBuiltIn, "{action}");
        assert!(error.to_string().starts_with(&format!("line 4: \"{action}\": {action} is muster's own")));
    }
    assert!(BUILT_IN.is_sorted());
}

#[test]
fn each_wrong_file_has_its_code() {
    let test = |line: &str| format!("[[test]]\nfrom = 'any'\nto = 'any'\n{line}\n");
    let words: Vec<String> = (0..17).map(|n| format!("'role:r{n}'")).collect();
    let many = |count: usize| -> String {
        (0..count).map(|n| rule(&format!("'role:r{n}'"), "'any'", "'a'")).collect()
    };
    let name = "n".repeat(63);
    let wide = |rules: usize| -> String {
        let one =
            |at: usize| (0..16).map(|n| format!("'member:{:x<60}{n:02}'", at)).collect::<Vec<_>>().join(",");
        (0..rules).map(|at| rule(&format!("[{}]", one(at)), &format!("'member:{name}'"), "'a'")).collect()
    };
    let cases: Vec<(String, Code)> = vec![
        ("[[rule]\n".to_owned(), Code::PolicyUnreadable),
        ("rule = 1\n".to_owned(), Code::PolicyBadValue),
        ("[rule]\nfrom = 'any'\n".to_owned(), Code::PolicyBadValue),
        ("[[rule]]\nfrom = 'any'\nto = 'any'\n".to_owned(), Code::PolicyBadValue),
        (rule("[]", "'any'", "'a'"), Code::PolicyBadValue),
        (rule("1", "'any'", "'a'"), Code::PolicyBadValue),
        (rule("['any', 'role:x']", "'any'", "'a'"), Code::PolicyBadValue),
        (rule("['role:x', 'role:x']", "'any'", "'a'"), Code::PolicyBadValue),
        (rule("'any'", "'any'", "['any', 'a']"), Code::PolicyBadValue),
        (rule("'any'", "'any'", "'a'").repeat(2), Code::PolicyBadValue),
        (rule("'rol:x'", "'any'", "'a'"), Code::PolicyBadSelector),
        (rule("'role:X'", "'any'", "'a'"), Code::PolicyBadSelector),
        (rule("'role:'", "'any'", "'a'"), Code::PolicyBadSelector),
        (rule("'member:web.1'", "'any'", "'a'"), Code::PolicyBadSelector),
        (rule("'any'", "'any'", "'A'"), Code::PolicyBadSelector),
        (rule(&format!("[{}]", words.join(",")), "'any'", "'a'"), Code::PolicyTooLarge),
        (many(POLICY_RULES_MAX + 1), Code::PolicyTooLarge),
        (wide(8), Code::PolicyTooLarge),
        (" ".repeat(POLICY_FILE_BYTES_MAX + 1), Code::PolicyTooLarge),
        ("[[test]]\n".repeat(POLICY_TESTS_MAX + 1), Code::PolicyTooLarge),
        (test("action = 'a'"), Code::PolicyBadValue),
        (test("action = 'a'\nexpect = 'maybe'"), Code::PolicyBadValue),
        (test("action = ['a']\nexpect = 'deny'"), Code::PolicyBadValue),
        (test("action = 'any'\nexpect = 'deny'"), Code::PolicyBadValue),
        (test("action = 'sync'\nexpect = 'deny'"), Code::PolicyBuiltIn),
        (test("expect = 'deny'"), Code::PolicyBadValue),
        ("[[test]]\nfrom = ['member:a', 'member:b']\n".to_owned(), Code::PolicyBadValue),
    ];
    for (text, code) in cases {
        let error = PolicyFile::parse(&text).unwrap_err();
        assert_eq!(error.code(), code, "{error}: {}", text.chars().take(80).collect::<String>());
    }
    assert_eq!(parse(&many(POLICY_RULES_MAX)).rules().len(), POLICY_RULES_MAX);
    assert!(parse(&wide(7)).encode().len() <= POLICY_BYTES_MAX);
}

#[test]
fn what_was_meant_by_a_wrong_selector_is_named() {
    let seen = |text: &str| PolicyFile::parse(&rule(text, "'any'", "'a'")).unwrap_err().to_string();
    assert!(seen("'rolle:web'").ends_with("the nearest is role:NAME"), "{}", seen("'rolle:web'"));
    assert!(seen("'web'").contains("role:NAME, label:NAME, member:NAME or any is wanted"));
    assert!(seen("'all'").ends_with("the nearest is any"), "{}", seen("'all'"));
}

#[test]
fn order_is_no_matter_to_a_policy() {
    let (a, b) = (rule("['role:b', 'role:a']", "'any'", "['y', 'x']"), rule("'any'", "'label:l'", "'x'"));
    let one = parse(&(a.clone() + &b));
    let other = parse(&(b + &a.replace("'role:b', 'role:a'", "'role:a', 'role:b'")));
    assert_eq!(one, other);
    assert_eq!(one.encode(), other.encode());
    assert!(one.difference(&other).is_none());
    let next = parse(&rule("'any'", "'label:l'", "'x'"));
    let difference = one.difference(&next);
    assert_eq!((difference.added.len(), difference.removed.len()), (0, 1));
}

#[test]
fn bytes_that_are_no_encoding_are_refused_by_the_field() {
    let good = parse(&rule("['role:a', 'label:a']", "'any'", "'x'")).encode();
    assert_eq!(good, [&[1, 2, 2, 1, b'a', 3, 1, b'a', 1, 1, 1, 2, 1][..], b"x"].concat());
    let cases: &[(&str, Vec<u8>)] = &[
        ("rules", vec![]),
        ("rules", vec![129]),
        ("rule from", vec![1, 0]),
        ("rule from", vec![1, 17]),
        ("rule from", vec![1, 1, 5]),
        ("rule from", vec![1, 2, 1, 2, 1, b'a']),
        ("rule from", [&[1, 2, 3, 1, b'a', 2, 1], &b"a"[..]].concat()),
        ("rule from", [&[1, 2, 2, 1, b'a', 2, 1], &b"a"[..]].concat()),
        ("rule from", vec![1, 1, 2, 1, b'A']),
        ("rule to", vec![1, 1, 1, 0]),
        ("rule actions", vec![1, 1, 1, 1, 1, 1, 3]),
        ("rule actions", vec![1, 1, 1, 1, 1, 2, 1, 2, 1, b'a']),
        ("rules", [&[2], &good[1..], &good[1..]].concat()),
        ("end of policy", [&good[..], &[0]].concat()),
        ("policy", vec![0; POLICY_BYTES_MAX + 1]),
    ];
    for (field, bytes) in cases {
        assert_eq!(Policy::decode(bytes).map_err(|why| why.field), Err(*field), "{bytes:?}");
    }
    // What a later release may count among the protocol's own stays readable.
    let sync = [&[1, 1, 1, 1, 1, 1, 2, 4][..], b"sync"].concat();
    assert!(Policy::decode(&sync).is_ok());
    assert_eq!(
        Policy::decode(&good[..good.len() - 1]).unwrap_err().fault,
        Fault::Truncated { wanted: 1, left: 0 }
    );
}

#[test]
fn the_example_in_the_documentation_is_right() {
    let page = include_str!("../../../docs/policy.md");
    let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = PolicyFile::parse(text).unwrap();
    assert_eq!((file.policy.rules().len(), file.tests.len(), file.failures().count()), (2, 2, 0));
}

fn selectors() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof!["role:[a-c]", "label:[a-c]", "member:[a-c]"];
    prop_oneof![
        1 => Just(vec!["any".to_owned()]),
        4 => proptest::collection::btree_set(word, 1..4).prop_map(|words| words.into_iter().collect()),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let actions = prop_oneof![
        1 => Just(vec!["any".to_owned()]),
        4 => proptest::collection::btree_set("[x-z]", 1..3).prop_map(|words| words.into_iter().collect()),
    ];
    let rules = proptest::collection::btree_set((selectors(), selectors(), actions), 0..6);
    rules.prop_map(|rules| {
        let list = |words: &Vec<String>| format!("{words:?}");
        let text: String = rules.iter().map(|(f, t, a)| rule(&list(f), &list(t), &list(a))).collect();
        parse(&text)
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(policy in policies()) {
        prop_assert_eq!(&Policy::decode(&policy.encode()).unwrap(), &policy);
        prop_assert_eq!(&parse(&policy.to_string()), &policy);
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0..5u8, 0..24)) {
        if let Ok(policy) = Policy::decode(&bytes) {
            prop_assert_eq!(policy.encode(), bytes);
        }
    }

    /// There is no rule that forbids.
    #[test]
    fn a_rule_more_takes_nothing_away(one in policies(), other in policies(), roles in 0..8usize) {
        let both = parse(&(one.to_string() + &rules_not_in(&other, &one)));
        let all = tags(&["a", "b", "c"]);
        let mine: Vec<Tag> = all.iter().enumerate().filter(|(n, _)| roles & (1 << n) != 0).map(|(_, t)| t.clone()).collect();
        let subject = Subject { name: None, roles: &mine, labels: &all };
        for action in ["x", "y", "z", "w"] {
            let either = one.permits(&subject, &subject, action).is_allowed()
                || other.permits(&subject, &subject, action).is_allowed();
            prop_assert_eq!(both.permits(&subject, &subject, action).is_allowed(), either);
        }
    }
}

fn rules_not_in(policy: &Policy, other: &Policy) -> String {
    let list = |words: Vec<String>| format!("{words:?}");
    let new = other.difference(policy).added;
    new.iter()
        .map(|r| {
            let words = |items: &[policy::Selector]| items.iter().map(ToString::to_string).collect();
            let actions = r.actions().iter().map(ToString::to_string).collect();
            rule(&list(words(r.from())), &list(words(r.to())), &list(actions))
        })
        .collect()
}
