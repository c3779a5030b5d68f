//! `muster revoke`: shuts a machine out for good, takes the roles it held with it, and shows who has
//! applied it.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use control::local::{Coverage, Member, MemberStatus};
use identity::{Code, OrgId, PublicKey, StatementId};
use member_crdt::{InviteState, MemberState, Revoking};
use org_trust::{Admin, Cancel, Gateway, Lane, Payload, Revoke as RevokePayload};
use serde_json::{Value, json};

use crate::{
    admin,
    args::{Everywhere, Reason, Revoke, RevokeStatus, Wait},
    author::{Author, Carrier},
    consent::{self, Unasked},
    coverage,
    failure::{Failure, Outcome},
    gateway,
    invite::check_note,
    key_file::OrgKeys,
    org_keys,
    output::{self, talk},
    removal::Keep,
    settings::{self, Changed, Held, Settings},
    view::View,
};

/// Between two looks of `revoke status --watch`.
const WATCH: Duration = Duration::from_millis(500);

/// Runs the command; its exit status says whether the coverage asked for was reached.
pub(crate) fn run(everywhere: &Everywhere, args: &Revoke) -> Outcome<u8> {
    if let Some(RevokeStatus::Status { node, watch }) = &args.status {
        return status(everywhere, node.as_deref(), *watch);
    }
    check_note(&args.note)?;
    let mut author = Author::open(everywhere)?;
    author.refresh()?;
    let mut view = View::of(&mut author, everywhere)?;
    let target = view.find(args.node.as_deref().unwrap_or_default())?;
    let revoked = target.revoked.as_ref().filter(|_| target.status == MemberStatus::Revoked);
    let before = match revoked.and_then(|r| r.changes.first()) {
        Some(change) => Some(change.0),
        None => signed_before(&mut author, &target)?,
    };
    let roles = Roles::of(&mut author, &target, args)?;
    guard(everywhere, &mut view, &target, &roles, before.is_some())?;
    // A wrong passphrase is found before anything is done.
    let org_keys = roles.unlock(everywhere, args, &author)?;
    let (change, accepted_at_unix_ns, accepted) = match before {
        Some(change) => {
            talk(&format!("{} was revoked before; nothing is signed for that.", target.name));
            (change, None, None)
        }
        None => {
            let payload = Payload::Revoke(RevokePayload {
                node: target.first.0,
                reason: reason(args.reason),
                note: args.note.clone(),
            });
            let signed = author.sign(&payload)?;
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let at = signed.accepted.at_unix_ns.or_else(|| u64::try_from(now()).ok());
            (signed.change.id(), at, Some(signed.accepted))
        }
    };
    for cancel in &roles.cancels {
        author.sign(&Payload::Cancel(*cancel))?;
    }
    let (org, several) = (author.profile().org(), author.profile().charter().revoke_threshold > 1);
    let (mut carrier, changed): (Box<dyn Carrier>, _) = match org_keys {
        Some((keys, path)) => {
            let mut settings = Settings::with(keys, &path, Box::new(author), org)?;
            let changed = roles.leave_settings(everywhere, &mut settings)?;
            (settings.carrier, Some(changed))
        }
        None => (Box::new(author), None),
    };
    let waited = coverage::wait(everywhere, &mut *carrier, change, &args.waiting);
    let lacking = if several { lacking(&mut *carrier, org, &target)? } else { None };
    let cancelled = || roles.cancels.iter().map(|cancel| cancel.invite);
    let mut fields = vec![
        ("change", Value::from(change.to_string())),
        ("already_revoked", before.is_some().into()),
        ("in_force", lacking.is_none().into()),
        ("accepted_at_unix_ns", accepted_at_unix_ns.into()),
        ("told", accepted.map(|accepted| accepted.told).into()),
        ("others", accepted.map(|accepted| accepted.others).into()),
        ("invites_cancelled", cancelled().map(|id| id.to_string()).collect::<Vec<_>>().into()),
    ];
    fields.extend(changed.iter().flat_map(Changed::fields));
    fields.extend(waited.fields());
    let value = json!({ "member": { "name": target.name, "key": target.node.to_string() } });
    output::print(everywhere.format(), output::with(value, fields), || {
        let key = target.node.0.short();
        let mut out = match &lacking {
            None => format!("revoked {} (key {key})\n", target.name),
            Some(revoking) => format!(
                "not revoked yet: {} of {} admins have signed it; another one: muster pending approve {key}\n",
                revoking.by.len(),
                revoking.wanted
            ),
        };
        // A musterd of this machine is asked for its neighbours; of a gateway nothing else is known.
        let at_gateway = accepted.filter(|accepted| accepted.at_unix_ns.is_none());
        out.extend(at_gateway.map(|a| {
            format!("the gateway passed it on to {} of {} other members at once\n", a.told, a.others)
        }));
        out.extend(cancelled().map(|id| format!("cancelled invite {}\n", id.short())));
        out.extend(changed.iter().map(|changed| format!("org settings, version {}\n", changed.version)));
        out.push_str(&waited.text());
        out
    });
    let status = waited.exit_status();
    Ok(if lacking.is_some() { Code::CoverageIncomplete.exit_status() } else { status })
}

/// This admin's own revocation of the machine, when several admins must sign one and they have not yet.
/// A second one would be refused.
fn signed_before(author: &mut Author, target: &Member) -> Outcome<Option<StatementId>> {
    if author.profile().charter().revoke_threshold < 2 {
        return Ok(None);
    }
    let (org, own) = (author.profile().org(), author.public_key());
    let held = Held::read(author, org)?;
    let changes = held.signed_by(&own)?;
    let roster = held.replica.roster();
    let is_it =
        |node: &PublicKey| roster.member_of(node).is_some_and(|member| member.first() == target.first.0);
    let revokes = |payload: &Payload| matches!(payload, Payload::Revoke(revoke) if is_it(&revoke.node));
    Ok(changes.iter().find(|change| revokes(change.payload())).map(|change| change.id()))
}

/// What the revocation still lacks, where several admins must sign it.
fn lacking(carrier: &mut dyn Carrier, org: OrgId, target: &Member) -> Outcome<Option<Revoking>> {
    let held = Held::read(carrier, org)?;
    let roster = held.replica.roster();
    Ok(roster.member_of(&target.node.0).and_then(|member| member.revoking.clone()))
}

/// What a machine that is revoked is in the org beside a member, and what ends with it.
#[derive(Default)]
struct Roles {
    gateways: Vec<Gateway>,
    admin: Option<Admin>,
    /// Of the invites by which its gateway lets machines in.
    cancels: Vec<Cancel>,
    /// What the gateway signed that counts after that.
    keep: Option<Keep>,
}

impl Roles {
    fn of(author: &mut Author, target: &Member, args: &Revoke) -> Outcome<Self> {
        if args.keep_roles {
            return Ok(Self::default());
        }
        let charter = author.profile().charter().clone();
        let mut roles = Self {
            admin: args.with_admin.as_ref().map(|name| admin::find(&charter, name)).transpose()?,
            ..Self::default()
        };
        if !target.gateway {
            return match args.void_from {
                None => Ok(roles),
                Some(_) => Err(Failure::usage(format_args!("{} is no gateway", target.name))
                    .remedy("--void-from is about the machines that a gateway let in.")),
            };
        }
        let org = author.profile().org();
        let held = Held::read(author, org)?;
        let roster = held.replica.roster();
        // Settings name the key that the machine had when it got the role.
        let runs = |g: &&Gateway| roster.member_of(&g.node).is_some_and(|m| m.node == target.node.0);
        roles.gateways = charter.gateways.iter().filter(runs).cloned().collect();
        for gateway in &roles.gateways {
            let tip = match &args.void_from {
                None => {
                    let place = author.place(&gateway.key, Lane::Main)?;
                    (place.seq > 0).then_some(StatementId(place.prev))
                }
                Some(node) => {
                    roles.keep = Some(Keep::Before(vec![gateway::admission(&held, node, &gateway.key)?]));
                    gateway::before_admission(&held, node, &gateway.key)?
                }
            };
            for invite in roster.invites().into_iter().filter(|i| i.redeemer == gateway.key) {
                // Of an invite that is used up, the machines that used it may be meant.
                if invite.state == InviteState::Open
                    || args.void_from.is_some() && invite.state == InviteState::Spent
                {
                    roles.cancels.push(Cancel { invite: invite.id, tip });
                }
            }
        }
        Ok(roles)
    }

    fn in_settings(&self) -> bool {
        !self.gateways.is_empty() || self.admin.is_some()
    }

    /// The org keys, if they are needed and here. A revocation does not wait for keys that lie elsewhere.
    fn unlock(
        &self,
        everywhere: &Everywhere,
        args: &Revoke,
        author: &Author,
    ) -> Outcome<Option<(OrgKeys, std::path::PathBuf)>> {
        if !self.in_settings() {
            return Ok(None);
        }
        let path = org_keys::path(everywhere, &args.org_keys)?;
        if args.org_keys.org_keys.is_none() && !path.exists() {
            talk("The org keys are not here, so the org's settings stay as they are. Where they are, run:");
            for gateway in &self.gateways {
                talk(&format!("  muster gateway remove {}", gateway.key.short()));
            }
            if let Some(admin) = &self.admin {
                talk(&format!("  muster admin remove {}", admin.name));
            }
            return Ok(None);
        }
        let keys = org_keys::unlock(everywhere, &args.org_keys, &path, author.profile().org())?;
        Ok(Some((keys, path)))
    }

    fn leave_settings(&self, everywhere: &Everywhere, settings: &mut Settings) -> Outcome<Changed> {
        let mut next = settings.charter().successor();
        let keep = self.keep.clone().unwrap_or(Keep::Held);
        let mut said = Vec::new();
        if !self.gateways.is_empty() {
            said.push(format!(
                "gateway: {}",
                gateway::without(&settings.held, &mut next, &self.gateways, &keep)?
            ));
        }
        if let Some(admin) = &self.admin {
            let changes = settings.held.signed_by(&admin.key)?;
            let what = admin::without(&mut next, admin, &changes, &Keep::Held, None)?;
            said.push(format!("admin {}: {what}", admin.name));
        }
        said.iter().for_each(|line| talk(line));
        settings.change(everywhere, next, None)
    }

    /// What is about to happen beside the revocation, for people.
    fn words(&self, name: &str) -> String {
        let mut words = String::new();
        if !self.gateways.is_empty() {
            let cancelled: Vec<_> = self.cancels.iter().map(|cancel| cancel.invite.short()).collect();
            let invites = match cancelled.as_slice() {
                [] => "no open invite names it".to_owned(),
                ids => format!("invites that name it are cancelled ({})", ids.join(", ")),
            };
            words.push_str(&format!(
                "{name} runs a gateway of the org: {invites}, and new org settings take the role away.\n"
            ));
            if self.keep.is_none() {
                words.push_str(
                    "Machines that it let in stay. If somebody else used its keys, give --void-from with the \
                     first machine that was let in wrongly.\n",
                );
            }
        }
        if let Some(admin) = &self.admin {
            words.push_str(&format!(
                "Admin {} is taken out of the org settings; what it signed up to here still counts, for good. If \
                 somebody else used the key, look at `muster admin log {}` and use `muster admin remove`.\n",
                admin.name, admin.name
            ));
        }
        words
    }
}

/// What must not happen by accident.
fn guard(
    everywhere: &Everywhere,
    view: &mut View,
    target: &Member,
    roles: &Roles,
    already: bool,
) -> Outcome<()> {
    let name = &target.name;
    if already && !roles.in_settings() {
        return Ok(());
    }
    let words = roles.words(name);
    if target.gateway {
        let good = |m: &Member| m.gateway && m.status == MemberStatus::Good && m.node != target.node;
        if !view.members()?.iter().any(good) {
            let question = format!(
                "{words}{name} is the last gateway: without it nobody can join, and no machine can start over the network."
            );
            return consent::ask(everywhere, &question, Unasked::Refuse);
        }
    }
    if target.this {
        return consent::ask(everywhere, &format!("{words}{name} is this machine."), Unasked::Refuse);
    }
    let key = target.node.0.short();
    let question = format!("{words}Revoke {name} (key {key})? It never comes back with this key.");
    consent::ask(everywhere, &question, Unasked::GoOn)
}

/// One revocation and who has applied it.
struct Shown {
    name: String,
    key: String,
    change: StatementId,
    coverage: Coverage,
}

impl Shown {
    fn complete(&self) -> bool {
        coverage::reached(Wait::All, &self.coverage)
    }
}

/// `revoke status`.
fn status(everywhere: &Everywhere, node: Option<&str>, watch: bool) -> Outcome<u8> {
    let (mut carrier, org) = settings::carrier(everywhere)?;
    let held = Held::read(&mut *carrier, org)?;
    let roster = held.replica.roster();
    let only = match node {
        None => None,
        Some(node) => {
            let found = roster.find(node);
            Some(found.map_err(|why| Failure::new(why.code(), format_args!("{node}: {why}")))?.node)
        }
    };
    let mut revoked = Vec::new();
    for member in roster.members().into_iter().filter(|m| only.is_none_or(|only| m.node == only)) {
        if let MemberState::Revoked { ids, .. } = &member.state {
            revoked.push((member.name.to_string(), member.node, ids.clone()));
        }
    }
    if revoked.is_empty() && node.is_some() {
        return Err(Failure::usage("it is not revoked").remedy("`muster member list --all` shows who is."));
    }
    let mut last = String::new();
    loop {
        let mut shown = Vec::new();
        for (name, node, ids) in &revoked {
            // Where several admins had to agree, the last of their changes to arrive decides.
            let mut worst: Option<(StatementId, Coverage)> = None;
            for id in ids {
                let coverage = carrier.coverage(*id)?;
                if worst.as_ref().is_none_or(|(_, before)| coverage.applied < before.applied) {
                    worst = Some((*id, coverage));
                }
            }
            let Some((change, coverage)) = worst else { continue };
            let one = Shown { name: name.clone(), key: node.to_string(), change, coverage };
            // Of all of them, those that are not everywhere yet are of interest.
            if only.is_some() || !one.complete() {
                shown.push(one);
            }
        }
        let complete = shown.iter().all(Shown::complete);
        let now = signature(&shown);
        if now != last {
            print_status(everywhere, &shown, complete, revoked.len());
            last = now;
        }
        if complete || !watch {
            return Ok(if complete { 0 } else { Code::CoverageIncomplete.exit_status() });
        }
        thread::sleep(WATCH);
    }
}

/// What has to differ for a new line: not how long ago somebody was heard.
fn signature(shown: &[Shown]) -> String {
    let one = |s: &Shown| {
        let missing: Vec<_> = s.coverage.missing.iter().map(|m| m.node.to_string()).collect();
        format!("{} {}/{} {}", s.change, s.coverage.applied, s.coverage.of, missing.join(" "))
    };
    format!("={}", shown.iter().map(one).collect::<Vec<_>>().join("\n"))
}

fn print_status(everywhere: &Everywhere, shown: &[Shown], complete: bool, of: usize) {
    let values: Vec<_> = shown
        .iter()
        .map(|s| {
            json!({
                "member": { "name": s.name, "key": s.key },
                "change": s.change.to_string(),
                "complete": s.complete(),
                "coverage": coverage::value(&s.coverage),
            })
        })
        .collect();
    let value = json!({ "complete": complete, "revoked": of, "revocations": values });
    output::print(everywhere.format(), value, || {
        if shown.is_empty() {
            return format!("{of} revoked; every member has applied all of it\n");
        }
        shown.iter().map(|s| format!("revoked {}\n{}", s.name, coverage::lines(&s.coverage))).collect()
    });
}

pub(crate) const fn reason(reason: Reason) -> org_trust::Reason {
    match reason {
        Reason::Unspecified => org_trust::Reason::Unspecified,
        Reason::Lost => org_trust::Reason::Lost,
        Reason::Stolen => org_trust::Reason::Stolen,
        Reason::Compromised => org_trust::Reason::Compromised,
        Reason::Retired => org_trust::Reason::Retired,
    }
}
