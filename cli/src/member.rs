//! `muster member`: who is in the org.

use core::time::Duration;

use control::local::{Liveness, Member, MemberStatus};
use serde_json::{Value, json};

use crate::{
    args::Everywhere,
    duration,
    failure::Outcome,
    output,
    view::{View, status_word},
};

/// `member list`.
pub(crate) fn list(everywhere: &Everywhere, all: bool) -> Outcome<()> {
    let mut members = View::open(everywhere)?.members()?;
    let shown = |status| match status {
        MemberStatus::Good | MemberStatus::Suspended | MemberStatus::Pending | MemberStatus::Unsettled => {
            true
        }
        MemberStatus::Revoked | MemberStatus::Left | MemberStatus::KeyConflict => false,
    };
    members.retain(|m| all || shown(m.status));
    let values: Vec<_> = members.iter().map(value).collect();
    output::print(everywhere.format(), json!({ "members": values }), || {
        let rows: Vec<_> = members
            .iter()
            .map(|m| {
                [
                    m.name.clone(),
                    status_word(m.status).to_owned(),
                    m.address.to_string(),
                    m.node.0.short(),
                    m.assurance.clone(),
                    if m.this { "this machine".to_owned() } else { linked(m).to_owned() },
                    answers(m.liveness).to_owned(),
                    contact(m.heard_ms_ago),
                    joined(m.labels.iter().map(ToString::to_string)),
                ]
            })
            .collect();
        output::columns(
            ["NAME", "STATE", "ADDRESS", "KEY", "KEY STORAGE", "LINK", "ANSWERS", "CONTACT", "LABELS"],
            &rows,
        )
    });
    Ok(())
}

/// `member show`.
pub(crate) fn show(everywhere: &Everywhere, node: &str) -> Outcome<()> {
    let m = View::open(everywhere)?.find(node)?;
    output::print(everywhere.format(), value(&m), || {
        let mut rows = vec![
            ["state".to_owned(), status_word(m.status).to_owned()],
            ["key".into(), m.node.to_string()],
            ["address".into(), m.address.to_string()],
            ["key storage".into(), key_storage(&m)],
            ["roles".into(), joined(m.roles.iter().map(ToString::to_string))],
            ["labels".into(), joined(m.labels.iter().map(ToString::to_string))],
            ["gateway".into(), if m.gateway { "yes" } else { "no" }.into()],
            ["link".into(), if m.this { "this machine" } else { linked(&m) }.into()],
            ["answers".into(), answers(m.liveness).into()],
            ["last contact".into(), contact(m.heard_ms_ago)],
            ["endpoints".into(), joined(m.endpoints.iter().map(ToString::to_string))],
            ["release".into(), if m.version.is_empty() { "-".into() } else { m.version.clone() }],
            [
                "joined by".into(),
                m.invite.map_or_else(|| "an admin".into(), |i| format!("invite {}", i.0.short())),
            ],
            ["admitted in".into(), m.admit.to_string()],
        ];
        if let Some(tpm) = &m.tpm {
            rows.insert(4, ["TPM".into(), tpm.to_string()]);
        }
        if m.cloned {
            rows.push(["attention".into(), "two machines use its key (MU-2013)".into()]);
        }
        if let Some(revoked) = &m.revoked {
            rows.push([format!("{} by", status_word(m.status)), revoked.by.join(", ")]);
            rows.push(["reason".into(), revoked.reason.clone()]);
            rows.push([
                "note".into(),
                if revoked.note.is_empty() { "-".into() } else { revoked.note.clone() },
            ]);
        }
        output::columns(["MEMBER", &m.name], &rows)
    });
    Ok(())
}

/// A member as programs read it.
pub(crate) fn value(m: &Member) -> Value {
    json!({
        "name": m.name,
        "key": m.node.to_string(),
        "wireguard_key": m.wireguard.to_string(),
        "boot_key": m.boot.to_string(),
        "address": m.address.to_string(),
        "state": status_word(m.status),
        "key_storage": m.assurance,
        "tpm": m.tpm.as_ref().map(ToString::to_string),
        "roles": m.roles.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": m.labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "gateway": m.gateway,
        "this_machine": m.this,
        "linked": m.linked,
        "liveness": m.liveness.map(answers_word),
        "last_contact_ms_ago": m.heard_ms_ago,
        "cloned": m.cloned,
        "endpoints": m.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "release": m.version,
        "admitted_in": m.admit.to_string(),
        "admitted_by": m.admitted_by.to_string(),
        "invite": m.invite.map(|i| i.to_string()),
        "revoked": taken(m, MemberStatus::Revoked),
        "suspended": taken(m, MemberStatus::Suspended),
    })
}

fn taken(m: &Member, status: MemberStatus) -> Option<Value> {
    m.revoked.as_ref().filter(|_| m.status == status).map(|r| {
        json!({
            "by": r.by,
            "reason": r.reason,
            "note": r.note,
            "changes": r.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    })
}

/// Whether a member answers, as far as this machine probes it.
fn answers(liveness: Option<Liveness>) -> &'static str {
    liveness.map_or("-", answers_word)
}

/// The same in a word.
pub(crate) const fn answers_word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Silent => "silent",
    }
}

/// When a member was last heard, for people.
pub(crate) fn contact(heard_ms_ago: Option<u64>) -> String {
    match heard_ms_ago {
        None => "-".to_owned(),
        Some(ms) => format!("{} ago", duration::short(Duration::from_millis(ms))),
    }
}

/// Who says how its keys are kept: a TPM that a gateway heard, or the machine itself.
fn key_storage(m: &Member) -> String {
    match &m.tpm {
        Some(_) => format!("{}, its TPM spoke to gateway {}", m.assurance, m.admitted_by.0.short()),
        None => format!("{}, as it says itself", m.assurance),
    }
}

fn linked(m: &Member) -> &'static str {
    if m.linked { "up" } else { "-" }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".to_owned() } else { text }
}
