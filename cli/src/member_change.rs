//! Changes to one member: suspended and resumed, renamed, given and taken roles and labels.

use identity::{Code, Tag, limits::SUSPENDS_RESUMED_MAX};
use member_crdt::{Member, MemberState};
use org_trust::{Assign, Payload, Resume as ResumePayload, Suspend as SuspendPayload};
use serde_json::json;

use crate::{
    args::{Edit, Everywhere, Resume, Suspend, TagChange, Waiting},
    author::{Author, Signed},
    consent::{self, Unasked},
    coverage,
    failure::{Failure, Outcome},
    invite::check_note,
    output,
    revoke::reason,
    settings::Held,
    view::View,
};

/// `suspend`.
pub(crate) fn suspend(everywhere: &Everywhere, args: &Suspend) -> Outcome<u8> {
    check_note(&args.note)?;
    let mut author = Author::open(everywhere)?;
    let target = View::of(&mut author, everywhere)?.find(&args.node)?;
    let name = &target.name;
    let (question, unasked) = if target.this {
        (format!("{name} is this machine: it talks to nobody until it is resumed."), Unasked::Refuse)
    } else if target.gateway {
        let question = format!("{name} runs a gateway: until it is resumed nobody joins or starts by it.");
        (question, Unasked::Refuse)
    } else {
        (format!("Suspend {name}? It is out until `muster resume {name}`."), Unasked::GoOn)
    };
    consent::ask(everywhere, &question, unasked)?;
    let (_, member) = read(&mut author, &target.node.to_string())?;
    let payload =
        SuspendPayload { node: member.first(), reason: reason(args.reason), note: args.note.clone() };
    let signed = author.sign(&Payload::Suspend(payload))?;
    Ok(report(everywhere, &mut author, &member, &signed, "suspended", &args.waiting))
}

/// `resume`.
pub(crate) fn resume(everywhere: &Everywhere, args: &Resume) -> Outcome<u8> {
    let mut author = Author::open(everywhere)?;
    let (_, member) = read(&mut author, &args.node)?;
    let by_settings = View::of(&mut author, everywhere)?.find(&args.node)?.cloned;
    let suspends = match &member.state {
        MemberState::Suspended { ids, .. } => ids.clone(),
        // Machines' own settings did it. A suspension by an admin, and its end, tell all of them.
        MemberState::Good if by_settings => {
            let note = Code::CloneSuspected.title().to_owned();
            let suspend =
                SuspendPayload { node: member.first(), reason: org_trust::Reason::Unspecified, note };
            vec![author.sign(&Payload::Suspend(suspend))?.change.id()]
        }
        MemberState::Revoked { .. } => {
            let seen = format!("{} was revoked, and nothing ends that", member.name);
            return Err(Failure::new(Code::Revoked, seen));
        }
        MemberState::Good
        | MemberState::Left
        | MemberState::KeyConflict
        | MemberState::Pending
        | MemberState::Unsettled => {
            return Err(
                Failure::usage(format_args!("{} is not suspended", member.name)).remedy("Nothing to do.")
            );
        }
    };
    let mut last = None;
    for suspends in suspends.chunks(SUSPENDS_RESUMED_MAX) {
        let payload = ResumePayload { node: member.first(), suspends: suspends.to_vec() };
        last = Some(author.sign(&Payload::Resume(payload))?);
    }
    let signed = last.ok_or_else(|| Failure::usage("it is suspended by nothing"))?;
    Ok(report(everywhere, &mut author, &member, &signed, "resumed", &args.waiting))
}

/// `member rename`.
pub(crate) fn rename(
    everywhere: &Everywhere,
    node: &str,
    name: &identity::Name,
    waiting: &Waiting,
) -> Outcome<u8> {
    let mut author = Author::open(everywhere)?;
    let (held, member) = read(&mut author, node)?;
    if let Some(other) = held.replica.roster().named(name).first() {
        let seen = format!("{} has this name", other.node.short());
        return Err(Failure::usage(seen).remedy("Give a name that no member has."));
    }
    let assign = Assign { name: name.clone(), ..as_it_is(&member) };
    assigned(everywhere, &mut author, &member, assign, &format!("is now called {name}:"), waiting)
}

/// `member role`.
pub(crate) fn role(everywhere: &Everywhere, args: &TagChange) -> Outcome<u8> {
    let mut author = Author::open(everywhere)?;
    let (_, member) = read(&mut author, &args.node)?;
    let mut assign = as_it_is(&member);
    let words = edit(&mut assign.roles, args, "role")?;
    assigned(everywhere, &mut author, &member, assign, &words, &args.waiting)
}

/// `member label`.
pub(crate) fn label(everywhere: &Everywhere, args: &TagChange) -> Outcome<u8> {
    let mut author = Author::open(everywhere)?;
    let (_, member) = read(&mut author, &args.node)?;
    let mut assign = as_it_is(&member);
    let words = edit(&mut assign.labels, args, "label")?;
    assigned(everywhere, &mut author, &member, assign, &words, &args.waiting)
}

/// The member list with the one member that is meant.
pub(crate) fn read(author: &mut Author, node: &str) -> Outcome<(Held, Member)> {
    let org = author.profile().org();
    let held = Held::read(author, org)?;
    let roster = held.replica.roster();
    let found = roster.find(node).map_err(|why| Failure::new(why.code(), format_args!("{node}: {why}")))?;
    let member = found.clone();
    Ok((held, member))
}

/// Says what was done and who has applied it.
pub(crate) fn report(
    everywhere: &Everywhere,
    author: &mut Author,
    member: &Member,
    signed: &Signed,
    what: &str,
    waiting: &Waiting,
) -> u8 {
    let change = signed.change.id();
    let waited = coverage::wait(everywhere, author, change, waiting);
    let value = json!({
        "member": { "name": member.name.as_str(), "key": member.node.to_string() },
        "change": change.to_string(),
    });
    output::print(everywhere.format(), output::with(value, waited.fields()), || {
        format!("{what} {} (key {})\n{}", member.name, member.node.short(), waited.text())
    });
    waited.exit_status()
}

/// What changes nothing, to be changed.
fn as_it_is(member: &Member) -> Assign {
    Assign {
        node: member.first(),
        name: member.name.clone(),
        roles: member.roles.clone(),
        labels: member.labels.clone(),
        replaces: member.assigns.clone(),
    }
}

fn edit(tags: &mut Vec<Tag>, args: &TagChange, word: &str) -> Outcome<String> {
    let there = tags.contains(&args.tag);
    match args.edit {
        Edit::Add if there => {
            Err(Failure::usage(format_args!("it has the {word} {}", args.tag)).remedy("Nothing to do."))
        }
        Edit::Remove if !there => {
            Err(Failure::usage(format_args!("it has no {word} {}", args.tag)).remedy("Nothing to do."))
        }
        Edit::Add => {
            tags.push(args.tag.clone());
            tags.sort();
            Ok(format!("{word} {} added to", args.tag))
        }
        Edit::Remove => {
            tags.retain(|tag| *tag != args.tag);
            Ok(format!("{word} {} taken from", args.tag))
        }
    }
}

fn assigned(
    everywhere: &Everywhere,
    author: &mut Author,
    member: &Member,
    assign: Assign,
    words: &str,
    waiting: &Waiting,
) -> Outcome<u8> {
    let signed = author.sign(&Payload::Assign(Box::new(assign)))?;
    Ok(report(everywhere, author, member, &signed, words, waiting))
}
