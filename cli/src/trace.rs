//! `muster trace`: whether one member may do something to another, step by step.

use identity::Code;
use member_crdt::{End, Member, NotPermitted, Permitted, Roster};
use policy::{BUILT_IN, Doing, Rule};
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, Trace},
    failure::{Failure, Outcome},
    output::{self, talk},
    policy::rule_value,
    settings::Held,
};

/// Runs the command. The exit status says whether it is allowed.
pub(crate) fn run(everywhere: &Everywhere, args: &Trace) -> Outcome<u8> {
    let action = match args.action.parse::<Doing>() {
        Ok(Doing::Action(name)) => name,
        Ok(Doing::Any) => return Err(Failure::usage("`any` is no action: name one")),
        Err(_) if BUILT_IN.contains(&args.action.as_str()) => {
            return Err(Failure::new(Code::PolicyBuiltIn, &args.action));
        }
        Err(why) => return Err(Failure::usage(format_args!("{}: {why}", args.action))),
    };
    let held = Held::look(everywhere)?;
    let roster = held.replica.roster();
    let find =
        |text: &str| roster.find(text).map_err(|why| Failure::new(why.code(), format_args!("{text}: {why}")));
    let (from, to) = (find(&args.from)?, find(&args.to)?);
    let verdict = roster.permits(&from.node, &to.node, action.as_str());
    let value = json!({
        "from": member(from),
        "to": member(to),
        "action": action.as_str(),
        "policy": roster.policy().map(|policy| policy.number),
        "allowed": verdict.is_ok(),
        "rule": verdict.as_ref().ok().map(|permitted| json!({
            "number": permitted.number, "rule": rule_value(permitted.rule),
        })),
        "code": verdict.as_ref().err().map(|why| why.code().to_string()),
        "why": verdict.as_ref().err().map(ToString::to_string),
    });
    output::print(everywhere.format(), value, || {
        let ends = [step("from", from), step("to", to)];
        ends.concat() + &rules(&roster, action.as_str(), &verdict)
    });
    match verdict {
        Ok(_) => Ok(0),
        Err(why) => {
            talk(Failure::new(why.code(), why).text().trim_end());
            Ok(Code::PolicyDenies.exit_status())
        }
    }
}

fn member(member: &Member) -> Value {
    let subject = member.subject();
    json!({
        "name": member.name.as_str(),
        "key": member.node.to_string(),
        "status": member.state.as_str(),
        "roles": member.roles.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": member.labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "name_by_admin": subject.name.is_some(),
    })
}

/// One line for a member: what a policy sees of it.
fn step(end: &str, member: &Member) -> String {
    let mut words: Vec<String> = member.roles.iter().map(|role| format!("role:{role}")).collect();
    words.extend(member.labels.iter().map(|label| format!("label:{label}")));
    let note = if member.subject().name.is_some() {
        words.insert(0, format!("member:{}", member.name));
        String::new()
    } else {
        let name = &member.name;
        format!(
            "      {name} chose its name itself, so member:{name} is not about it until an admin gives it a name\n"
        )
    };
    let seen = if words.is_empty() { "no role or label".to_owned() } else { words.join(" ") };
    let mark = mark(member.is_good());
    format!(
        "{mark}  {end}: {} (key {}), {}: {seen}\n{note}",
        member.name,
        member.node.short(),
        member.state.as_str()
    )
}

/// The policy, and the rules that are about the action.
fn rules(roster: &Roster, action: &str, verdict: &Result<Permitted<'_>, NotPermitted>) -> String {
    let Some(held) = roster.policy() else { return format!("{}  policy: none\n", mark(false)) };
    let number = held.number;
    let about = |rule: &&Rule| {
        rule.actions().iter().any(|doing| match doing {
            Doing::Any => true,
            Doing::Action(name) => name.as_str() == action,
        })
    };
    let near: Vec<&Rule> = held.policy.rules().iter().filter(about).collect();
    let total = held.policy.rules().len();
    let mut out = match verdict {
        Ok(permitted) => {
            let Permitted { number: at, rule, .. } = permitted;
            return format!("{}  policy {number}, rule {at} of {total}: {rule}\n", mark(true));
        }
        Err(NotPermitted::NotGood { end, .. } | NotPermitted::Unknown { end }) => {
            let which = if *end == End::From { "from" } else { "to" };
            return format!("-   policy {number}: not asked, because of {which}\n");
        }
        Err(_) => format!(
            "{}  policy {number}: {} of its {total} rules are about {action}\n",
            mark(false),
            near.len()
        ),
    };
    for rule in near {
        out.push_str(&format!("      {rule}\n"));
    }
    out
}

const fn mark(well: bool) -> &'static str {
    if well { "ok" } else { "no" }
}
