//! `muster pending`: what waits for more admins, and their yes or no.

use identity::{Code, PublicKey};
use member_crdt::{Member, MemberState, Roster};
use org_trust::{Cosign, Payload, Reason, Revoke};
use serde_json::json;

use crate::{
    args::{Everywhere, Waiting},
    author::Author,
    consent::{self, Unasked},
    failure::{Failure, Outcome},
    invite::check_note,
    member_change::{read, report},
    output::{self, talk},
    settings::Held,
};

/// `pending list`.
pub(crate) fn list(everywhere: &Everywhere) -> Outcome<()> {
    let held = Held::look(everywhere)?;
    let roster = held.replica.roster();
    let pending = roster.pending();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for member in pending.admits {
        let by = member.invite.map(|id| id.to_string());
        let short = member.invite.map(|id| id.short()).unwrap_or_default();
        values.push(json!({
            "kind": "joining",
            "member": { "name": member.name.as_str(), "key": member.node.to_string() },
            "invite": by,
        }));
        let waits = format!("joined with invite {short}, waits for an admin's approval");
        rows.push(["joining".to_owned(), member.name.to_string(), member.node.short(), waits]);
    }
    for (member, revoking) in pending.revokes.into_iter().filter_map(|m| Some((m, m.revoking.as_ref()?))) {
        let by: Vec<_> = revoking.by.iter().map(|key| admin_name(&roster, key)).collect();
        values.push(json!({
            "kind": "revoking",
            "member": { "name": member.name.as_str(), "key": member.node.to_string() },
            "by": by,
            "admins_needed": revoking.wanted,
        }));
        let waits = format!("{} of {} admins: {}", by.len(), revoking.wanted, by.join(", "));
        rows.push(["revoking".to_owned(), member.name.to_string(), member.node.short(), waits]);
    }
    output::print(everywhere.format(), json!({ "pending": values }), || {
        output::columns(["KIND", "MEMBER", "KEY", "WAITS"], &rows)
    });
    Ok(())
}

/// `pending approve`.
pub(crate) fn approve(everywhere: &Everywhere, node: &str, waiting: &Waiting) -> Outcome<u8> {
    let mut author = Author::open(everywhere)?;
    let (_, member) = read(&mut author, node)?;
    let (name, key) = (&member.name, member.node.short());
    if let Some(revoking) = &member.revoking {
        if revoking.by.contains(&author.public_key()) {
            return Err(Failure::new(Code::AlreadyRevoked, format_args!("{name}, by this admin key"))
                .remedy("Another admin has to agree."));
        }
        let question = format!("Revoke {name} (key {key}) as well? It never comes back with this key.");
        consent::ask(everywhere, &question, Unasked::GoOn)?;
        talk("This signs a revocation of your own.");
        let signed = author.sign(&Payload::Revoke(revocation(&member, String::new())))?;
        return Ok(report(everywhere, &mut author, &member, &signed, "revoked", waiting));
    }
    if member.state != MemberState::Pending {
        return Err(not_pending(&member));
    }
    consent::ask(everywhere, &format!("Let {name} (key {key}) in?"), Unasked::GoOn)?;
    let signed = author.sign(&Payload::Cosign(Cosign { target: member.admit }))?;
    Ok(report(everywhere, &mut author, &member, &signed, "approved", waiting))
}

/// `pending reject`.
pub(crate) fn reject(everywhere: &Everywhere, node: &str, note: &str, waiting: &Waiting) -> Outcome<u8> {
    check_note(note)?;
    let mut author = Author::open(everywhere)?;
    let (_, member) = read(&mut author, node)?;
    if member.revoking.is_some() {
        return Err(Failure::usage("a revocation that an admin has signed cannot be taken back")
            .remedy("Without enough admins it has no effect: there is nothing to do."));
    }
    if member.state != MemberState::Pending {
        return Err(not_pending(&member));
    }
    let question = format!(
        "Refuse {} (key {})? Its key is revoked: the machine needs new keys and another invite to join.",
        member.name,
        member.node.short()
    );
    consent::ask(everywhere, &question, Unasked::GoOn)?;
    talk("This revokes its key.");
    let signed = author.sign(&Payload::Revoke(revocation(&member, note.to_owned())))?;
    Ok(report(everywhere, &mut author, &member, &signed, "refused", waiting))
}

fn revocation(member: &Member, note: String) -> Revoke {
    Revoke { node: member.first(), reason: Reason::Unspecified, note }
}

fn not_pending(member: &Member) -> Failure {
    Failure::usage(format_args!("{} waits for nothing: it is {}", member.name, member.state.as_str()))
        .remedy("`muster pending list` shows what waits.")
}

fn admin_name(roster: &Roster, key: &PublicKey) -> String {
    let named = roster.admins().iter().find(|admin| admin.key == *key);
    named.map_or_else(|| key.short(), |admin| admin.name.to_string())
}
