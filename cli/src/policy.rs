//! `muster policy`: a file with rules and tests becomes what members of the org may do to each other.

use std::{io::Read as _, path::Path};

use identity::{Code, PublicKey, limits::POLICY_FILE_BYTES_MAX};
use member_crdt::{PolicyStanding, Roster};
use org_trust::PolicyChange;
use policy::{Difference, Policy, PolicyFile, Rule};
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, PolicyFileAt, Waiting},
    author::Author,
    consent::{self, Unasked},
    coverage,
    failure::{Failure, Outcome},
    files, output,
    output::talk,
    settings::Held,
};

/// `policy check`.
pub(crate) fn check(everywhere: &Everywhere, at: &PolicyFileAt) -> Outcome<()> {
    let file = read(&at.path)?;
    tested(&file)?;
    let (rules, tests) = (file.policy.rules().len(), file.tests.len());
    let value = json!({ "rules": rules, "tests": tests, "signed_bytes": file.policy.encode().len() });
    output::print(everywhere.format(), value, || format!("{}\n", counts(rules, tests)));
    if file.policy.is_empty() {
        talk("It permits nothing.");
    }
    Ok(())
}

/// `policy test`: each test with how it went.
pub(crate) fn test(everywhere: &Everywhere, at: &PolicyFileAt) -> Outcome<u8> {
    let file = read(&at.path)?;
    let failures: Vec<_> = file.failures().collect();
    let failed = |line: usize| failures.iter().find(|failure| failure.test.line == line);
    let tests = file.tests.iter().map(|test| {
        json!({
            "line": test.line,
            "test": test.to_string(),
            "passed": failed(test.line).is_none(),
        })
    });
    let value = json!({ "tests": tests.collect::<Vec<_>>(), "failed": failures.len() });
    output::print(everywhere.format(), value, || {
        let lines = file.tests.iter().map(|test| {
            let went = if failed(test.line).is_none() { "ok    " } else { "failed" };
            format!("{went}  line {}: {test}\n", test.line)
        });
        lines.collect()
    });
    match tested(&file) {
        Ok(()) => Ok(0),
        // What is on stdout says it to a program.
        Err(failure) => {
            talk(failure.text().trim_end());
            Ok(failure.code().exit_status())
        }
    }
}

/// `policy diff`.
pub(crate) fn diff(everywhere: &Everywhere, at: &PolicyFileAt) -> Outcome<()> {
    let file = read(&at.path)?;
    let held = Held::look(everywhere)?;
    let roster = held.replica.roster();
    let none = Policy::default();
    let (number, old) = roster.policy().map_or((0, &none), |held| (held.number, &held.policy));
    let difference = old.difference(&file.policy);
    let rules = |rules: &[&Rule]| rules.iter().map(|rule| rule_value(rule)).collect::<Vec<_>>();
    let value = json!({
        "policy": number,
        "same": difference.is_none() && number > 0,
        "added": rules(&difference.added),
        "removed": rules(&difference.removed),
    });
    output::print(everywhere.format(), value, || lines(&difference));
    if number == 0 {
        talk("The org has no policy yet.");
    } else if difference.is_none() {
        talk(&format!("The same as policy {number}, which is in force."));
    }
    Ok(())
}

/// `policy apply`.
pub(crate) fn apply(everywhere: &Everywhere, at: &PolicyFileAt, waiting: &Waiting) -> Outcome<u8> {
    let file = read(&at.path)?;
    tested(&file)?;
    let mut author = Author::open(everywhere)?;
    let org = author.profile().org();
    let roster = Held::read(&mut author, org)?.replica.roster();
    let none = Policy::default();
    let (number, old) = roster.policy().map_or((0, &none), |held| (held.number, &held.policy));
    let difference = old.difference(&file.policy);
    if difference.is_none() && number > 0 && roster.policies_passed_over().is_empty() {
        talk(&format!("The same as policy {number}, which is in force: nothing to do."));
        let value = json!({ "policy": { "number": number, "rules": old.rules().len() }, "applied": false });
        output::print(everywhere.format(), value, String::new);
        return Ok(0);
    }
    talk(lines(&difference).trim_end());
    let question = match (file.policy.is_empty(), number) {
        (true, _) => "It permits nothing: what is open by a rule of before is cut.".to_owned(),
        (false, 0) => "Apply the org's first policy?".to_owned(),
        (false, _) => format!("Apply it in place of policy {number}? What no rule allows any more is cut."),
    };
    consent::ask(everywhere, &question, Unasked::GoOn)?;
    let change = PolicyChange { number: roster.next_policy_number(), policy: file.policy };
    let (number, rules) = (change.number, change.policy.rules().len());
    let signed = author.sign(&change.into())?;
    let waited = coverage::wait(everywhere, &mut author, signed.change.id(), waiting);
    let value = json!({
        "policy": { "number": number, "rules": rules },
        "applied": true,
        "change": signed.change.id().to_string(),
    });
    output::print(everywhere.format(), output::with(value, waited.fields()), || {
        format!("policy {number} applied: {}\n{}", counts(rules, file.tests.len()), waited.text())
    });
    Ok(waited.exit_status())
}

/// `policy show`: what it prints is a file that can be applied.
pub(crate) fn show(everywhere: &Everywhere) -> Outcome<()> {
    let held = Held::look(everywhere)?;
    let roster = held.replica.roster();
    let org = &held.chain().head().charter().name;
    let passed_over = roster.policies_passed_over();
    let value = json!({
        "policy": roster.policy().map(|held| json!({
            "number": held.number,
            "by": admin_name(&roster, &held.by),
            "change": held.id.to_string(),
            "rules": held.policy.rules().iter().map(rule_value).collect::<Vec<_>>(),
        })),
        "passed_over": passed_over.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    output::print(everywhere.format(), value, || match roster.policy() {
        None => {
            format!("# {org} has no policy: members may do nothing to each other but what muster does.\n")
        }
        Some(held) => shown(org.as_str(), held, &roster),
    });
    if !passed_over.is_empty() {
        talk(
            "Another admin applied a policy at the same time, which has no effect: apply what is meant again.",
        );
    }
    Ok(())
}

/// A rule for a program.
pub(crate) fn rule_value(rule: &Rule) -> Value {
    fn words<T: ToString>(items: &[T]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }
    json!({ "from": words(rule.from()), "to": words(rule.to()), "action": words(rule.actions()) })
}

fn shown(org: &str, held: &PolicyStanding, roster: &Roster) -> String {
    let by = admin_name(roster, &held.by);
    let rules = held.policy.rules().len();
    let nothing = if held.policy.is_empty() { "# It permits nothing.\n" } else { "\n" };
    format!(
        "# policy {} of {org}, applied by {by}: {}\n{nothing}{}",
        held.number,
        counts(rules, 0),
        held.policy
    )
}

fn read(path: &Path) -> Outcome<PolicyFile> {
    let unreadable = |seen: &dyn core::fmt::Display| {
        Failure::new(Code::PolicyUnreadable, format_args!("{}: {seen}", path.display()))
    };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        // One byte more than it may have, so that a longer one is found to be one.
        let most = u64::try_from(POLICY_FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        std::io::stdin().lock().take(most).read_to_string(&mut text).map_err(|why| unreadable(&why))?;
        text
    } else {
        files::read_text(path, POLICY_FILE_BYTES_MAX)
            .map_err(|why| Failure::new(Code::PolicyUnreadable, why.seen()))?
    };
    PolicyFile::parse(&text)
        .map_err(|why| Failure::new(why.code(), format_args!("{}: {why}", path.display())))
}

/// Refuses a file whose rules do not keep its tests.
fn tested(file: &PolicyFile) -> Outcome<()> {
    let failures: Vec<String> = file.failures().map(|failure| failure.to_string()).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(Code::PolicyTestFailed, failures.join("\n"))) }
}

fn lines(difference: &Difference<'_>) -> String {
    let removed = difference.removed.iter().map(|rule| format!("- {rule}\n"));
    removed.chain(difference.added.iter().map(|rule| format!("+ {rule}\n"))).collect()
}

fn counts(rules: usize, tests: usize) -> String {
    let many = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    if tests == 0 {
        many(rules, "rule")
    } else {
        format!("{}, {} pass", many(rules, "rule"), many(tests, "test"))
    }
}

fn admin_name(roster: &Roster, key: &PublicKey) -> String {
    let named = roster.admins().iter().find(|admin| admin.key == *key);
    named.map_or_else(|| key.short(), |admin| admin.name.to_string())
}
