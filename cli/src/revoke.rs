//! `muster revoke`: shuts a machine out for good, and shows who has applied it.

use core::time::Duration;
use std::{
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use control::{
    local::{Answer, Coverage, Member, MemberStatus, Missing, Request},
    text::Text,
};
use identity::{Code, StatementId};
use org_trust::{Payload, Revoke as RevokePayload};
use serde_json::json;

use crate::{
    args::{Everywhere, Reason, Revoke, Wait},
    author::{Author, Way},
    consent::{self, Unasked},
    failure::{Failure, Outcome},
    invite::check_note,
    local, member,
    output::{self, talk},
    view::{self, View},
};

/// Between two looks at who has applied it: musterd is asked, or a gateway over the network.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_REMOTE: Duration = Duration::from_secs(1);

/// Runs the command; its exit status says whether the coverage asked for was reached.
pub(crate) fn run(everywhere: &Everywhere, args: &Revoke) -> Outcome<u8> {
    check_note(&args.note)?;
    let mut author = Author::open(everywhere)?;
    let mut view = View::of(&mut author, everywhere)?;
    let target = view.find(&args.node)?;
    let before = target.revoked.as_ref().and_then(|r| r.changes.first()).map(|change| change.0);
    let (change, accepted_at_unix_ns) = match before {
        Some(change) => {
            talk(&format!("{} was revoked before; nothing is signed.", target.name));
            (change, None)
        }
        None => {
            guard(everywhere, &author, &mut view, &target)?;
            let payload = Payload::Revoke(RevokePayload {
                node: target.node.0,
                reason: reason(args.reason),
                note: args.note.clone(),
            });
            let signed = author.sign(&payload)?;
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let at = signed.accepted_at_unix_ns.or_else(|| u64::try_from(now()).ok());
            (signed.change.id(), at)
        }
    };
    let started = Instant::now();
    let covered = wait(&mut author, change, args, started);
    Ok(report(everywhere, args, &target, change, accepted_at_unix_ns, before.is_some(), covered, started))
}

/// What must not happen by accident.
fn guard(everywhere: &Everywhere, author: &Author, view: &mut View, target: &Member) -> Outcome<()> {
    let name = &target.name;
    if target.gateway {
        talk(&format!(
            "{name} runs a gateway of the org. Revoking shuts the machine out; the org's settings go on naming \
             its gateway key, and invites that name it can no longer be used. No invite is cancelled by this."
        ));
        let gateways = &author.profile().charter().gateways;
        let others = view.members()?.into_iter().filter(|m| {
            m.status == MemberStatus::Good
                && m.node != target.node
                && gateways.iter().any(|g| g.node == m.node.0)
        });
        if others.count() == 0 {
            let question = format!(
                "{name} is the last gateway: without it nobody can join, and no machine can start over the network."
            );
            return consent::ask(everywhere, &question, Unasked::Refuse);
        }
    }
    if target.this {
        let question = format!("{name} is this machine.");
        return consent::ask(everywhere, &question, Unasked::Refuse);
    }
    let question =
        format!("Revoke {name} (key {})? It never comes back with this key.", target.node.0.short());
    consent::ask(everywhere, &question, Unasked::GoOn)
}

/// Looks until enough members have applied it, or time is up. The last look counts.
fn wait(author: &mut Author, change: StatementId, args: &Revoke, started: Instant) -> Outcome<Coverage> {
    let pause = match author.way {
        Way::Daemon(_) => LOOK,
        Way::Gateway(_) => LOOK_REMOTE,
    };
    loop {
        let coverage = coverage(author, change)?;
        if reached(args.wait, &coverage) || started.elapsed() + pause > args.timeout {
            return Ok(coverage);
        }
        thread::sleep(pause);
    }
}

fn coverage(author: &mut Author, change: StatementId) -> Outcome<Coverage> {
    if let Way::Daemon(daemon) = &mut author.way {
        let answer = daemon.ask(&Request::Coverage { change: Text(change) })?;
        let Answer::Coverage(coverage) = answer else { return Err(local::unexpected()) };
        return Ok(coverage);
    }
    let records = author.everything()?;
    let replica = view::replica(author.profile().chain.genesis(), &records)?;
    let roster = replica.roster();
    let found = replica
        .coverage(&change)
        .ok_or_else(|| Failure::new(Code::ChangeBroken, "the gateway does not show the change yet"))?;
    let missing = found.missing.iter().filter_map(|key| roster.get(key));
    Ok(Coverage {
        change: Text(change),
        of: u64::try_from(found.of).unwrap_or(u64::MAX),
        applied: u64::try_from(found.applied).unwrap_or(u64::MAX),
        missing: missing
            .map(|m| Missing { name: m.name.to_string(), node: Text(m.node), heard_ms_ago: None })
            .collect(),
    })
}

fn reached(wait: Wait, coverage: &Coverage) -> bool {
    match wait {
        Wait::All => coverage.applied >= coverage.of,
        Wait::Members(wanted) => coverage.applied >= wanted.min(coverage.of),
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, each a different fact of the report")]
fn report(
    everywhere: &Everywhere,
    args: &Revoke,
    target: &Member,
    change: StatementId,
    accepted_at_unix_ns: Option<u64>,
    already: bool,
    covered: Outcome<Coverage>,
    started: Instant,
) -> u8 {
    let complete = covered.as_ref().is_ok_and(|c| reached(args.wait, c));
    let value = json!({
        "member": { "name": target.name, "key": target.node.to_string() },
        "change": change.to_string(),
        "already_revoked": already,
        "accepted_at_unix_ns": accepted_at_unix_ns,
        "complete": complete,
        "waited_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "coverage": covered.as_ref().ok().map(|c| json!({
            "applied": c.applied,
            "of": c.of,
            "missing": c.missing.iter().map(|m| json!({
                "name": m.name,
                "key": m.node.to_string(),
                "last_contact_ms_ago": m.heard_ms_ago,
            })).collect::<Vec<_>>(),
        })),
    });
    output::print(everywhere.format(), value, || {
        let mut out = format!("revoked {} (key {})\n", target.name, target.node.0.short());
        if let Ok(c) = &covered {
            out.push_str(&format!("applied {}/{}\n", c.applied, c.of));
            for m in &c.missing {
                let contact = match m.heard_ms_ago {
                    None => "not heard since musterd started".to_owned(),
                    heard => format!("last contact {}", member::contact(heard)),
                };
                out.push_str(&format!("missing {}  {contact}\n", m.name));
            }
        }
        out
    });
    match covered {
        Ok(_) if complete => 0,
        Ok(c) => {
            let seen = format!("applied {}/{} within {} ms", c.applied, c.of, started.elapsed().as_millis());
            talk(Failure::new(Code::CoverageIncomplete, seen).text().trim_end());
            Code::CoverageIncomplete.exit_status()
        }
        Err(failure) => {
            talk("The revocation is accepted; who has applied it could not be learnt:");
            talk(failure.text().trim_end());
            Code::CoverageIncomplete.exit_status()
        }
    }
}

const fn reason(reason: Reason) -> org_trust::Reason {
    match reason {
        Reason::Unspecified => org_trust::Reason::Unspecified,
        Reason::Lost => org_trust::Reason::Lost,
        Reason::Stolen => org_trust::Reason::Stolen,
        Reason::Compromised => org_trust::Reason::Compromised,
        Reason::Retired => org_trust::Reason::Retired,
    }
}
