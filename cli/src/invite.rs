//! `muster invite`: lines that let machines join.

use std::{
    io::{IsTerminal as _, Read as _},
    path::Path,
};

use control::local::{self as wire, InviteStatus};
use identity::{
    Code, PublicKey, StatementId,
    limits::{INVITE_TPMS_MAX, LABELS_MAX, MANIFEST_BYTES_MAX, NOTE_BYTES_MAX},
};
use member_crdt::MemberState;
use org_trust::{
    Cancel, CheckedInvite, Gateway, Invite, InviteManifest, Lane, ManifestError, Payload, TrustBundle,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    args::{Everywhere, InviteCreate},
    author::Author,
    consent::{self, Unasked},
    duration,
    failure::{Failure, Outcome},
    files, gateway, output,
    output::talk,
    random,
    settings::Held,
    view::{self, View},
};

/// A line with the largest invite in it, wrapped by a mail.
const LINE_BYTES_MAX: usize = 4 * MANIFEST_BYTES_MAX;

/// `invite create`.
pub(crate) fn create(everywhere: &Everywhere, args: &InviteCreate) -> Outcome<()> {
    check_note(&args.note)?;
    let mut labels = args.label.clone();
    labels.sort();
    labels.dedup();
    if labels.len() > LABELS_MAX {
        return Err(Failure::usage(format_args!(
            "{} labels; at most {LABELS_MAX} are allowed",
            labels.len()
        )));
    }
    if let Some(path) = args.out.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format_args!("{} exists", path.display())).remedy("Name a new file."));
    }
    let mut tpms = args.ek.clone();
    tpms.sort();
    tpms.dedup();
    if tpms.len() > INVITE_TPMS_MAX {
        let given = tpms.len();
        return Err(Failure::usage(format_args!("{given} TPMs; at most {INVITE_TPMS_MAX} are allowed")));
    }
    let mut author = Author::open(everywhere)?;
    author.refresh()?;
    let redeemer = redeemer(&mut author, args.gateway.as_deref())?;
    let secret = random::key()?;
    let expires_unix_s = args.expires.map_or(0, |span| view::now_unix_s().saturating_add(span.as_secs()));
    let invite = Invite {
        key: secret.public(),
        uses: args.uses,
        redeemer,
        labels,
        expires_unix_s,
        note: args.note.clone(),
        approval: args.approval,
        attestation: args.attest || !tpms.is_empty(),
        tpms,
    };
    let signed = author.sign(&Payload::from(invite))?;
    let profile = author.profile();
    let bundle = |e: org_trust::BundleError| Failure::new(e.code(), e);
    let given = TrustBundle::read(profile.bundle.as_bytes()).map_err(bundle)?;
    let trusted = TrustBundle::accepted(Some(&given), profile.charter()).map_err(bundle)?;
    let gateways = profile.gateways.clone();
    let manifest = InviteManifest::new(&profile.chain, &trusted, gateways, &signed.change, &secret)
        .map_err(|e| broken(&e))?;
    let line = manifest.to_line();
    if let Some(path) = &args.out {
        let content = Zeroizing::new(format!("{}\n", *line));
        files::create(path, files::SECRET, content.as_bytes())?;
    }
    let checked = manifest.check().map_err(|e| broken(&e))?;
    let mut value = describe(&checked);
    if let Value::Object(fields) = &mut value {
        let (shown, file) = match &args.out {
            None => (Value::from(line.as_str()), Value::Null),
            Some(path) => (Value::Null, json!(path)),
        };
        fields.insert("invite".to_owned(), shown);
        fields.insert("file".to_owned(), file);
    }
    output::print(everywhere.format(), value, || match &args.out {
        None => format!("{}\n", *line),
        Some(path) => format!("{}\n", path.display()),
    });
    let id = checked.id().short();
    talk(&format!(
        "Whoever has this line can join: {}{}. Give it over a channel you trust.\n\
         On the machine: muster join INVITE. To withdraw it: muster invite cancel {id}",
        machines(args.uses),
        until(expires_unix_s),
    ));
    Ok(())
}

/// `invite inspect`.
pub(crate) fn inspect(everywhere: &Everywhere, given: &str) -> Outcome<()> {
    let checked = check(&read(given)?)?;
    output::print(everywhere.format(), describe(&checked), || {
        let invite = checked.invite();
        let charter = checked.chain().head().charter();
        output::columns(
            ["ORG", charter.name.as_str()],
            &[
                ["org id".into(), checked.org().to_string()],
                ["invite".into(), checked.id().to_string()],
                ["made by".into(), admin_name(&checked)],
                ["for".into(), machines(invite.uses)],
                ["until".into(), expires(invite.expires_unix_s)],
                ["TPM".into(), tpm_words(invite)],
                ["labels".into(), joined(invite.labels.iter().map(ToString::to_string))],
                ["note".into(), or_dash(&invite.note)],
                ["gateways".into(), joined(checked.gateways().iter().cloned())],
                ["settings".into(), format!("version {}", charter.version)],
            ],
        )
    });
    Ok(())
}

/// `invite list`.
pub(crate) fn list(everywhere: &Everywhere) -> Outcome<()> {
    let invites = View::open(everywhere)?.invites()?;
    let values: Vec<_> = invites.iter().map(value).collect();
    output::print(everywhere.format(), json!({ "invites": values }), || {
        let rows: Vec<_> = invites
            .iter()
            .map(|i| {
                [
                    i.id.0.short(),
                    status(i.status).to_owned(),
                    format!("{}/{}", i.used_by.len(), i.uses),
                    expires(i.expires_unix_s),
                    i.by.clone(),
                    joined(i.used_by.iter().map(|u| u.name.clone())),
                    or_dash(&i.note),
                ]
            })
            .collect();
        output::columns(["INVITE", "STATUS", "USED", "UNTIL", "BY", "MEMBERS", "NOTE"], &rows)
    });
    Ok(())
}

/// `invite cancel`.
pub(crate) fn cancel(
    everywhere: &Everywhere,
    id: &str,
    void_from: Option<&str>,
    void_all: bool,
) -> Outcome<()> {
    let mut author = Author::open(everywhere)?;
    let invites = View::of(&mut author, everywhere)?.invites()?;
    let found: Vec<_> = invites.iter().filter(|i| i.id.to_string().starts_with(id)).collect();
    let invite = match found.as_slice() {
        [one] if !id.is_empty() => *one,
        [] => return Err(Failure::new(Code::NoSuchInvite, id)),
        several => {
            let ids: Vec<_> = several.iter().map(|i| i.id.to_string()).collect();
            return Err(Failure::usage(format_args!("{id:?} means any of\n{}", ids.join("\n")))
                .remedy("Give more digits."));
        }
    };
    let redeemer = invite.redeemer.0;
    let tip = match void_from {
        _ if void_all => None,
        Some(node) => {
            let org = author.profile().org();
            gateway::before_admission(&Held::read(&mut author, org)?, node, &redeemer)?
        }
        // Machines that joined so far stay: their admissions count up to the gateway's last change.
        None => {
            let place = author.place(&redeemer, Lane::Main)?;
            (place.seq > 0).then_some(StatementId(place.prev))
        }
    };
    let voids = void_all || void_from.is_some();
    if invite.status == InviteStatus::Cancelled && !voids {
        talk("It was cancelled before; nothing to do.");
    } else {
        if voids {
            let question = format!(
                "Cancel invite {}? Machines that joined with it lose their membership.",
                invite.id.0.short()
            );
            consent::ask(everywhere, &question, Unasked::Refuse)?;
        }
        author.sign(&Payload::Cancel(Cancel { invite: invite.id.0, tip }))?;
    }
    let id = invite.id.0;
    let after = View::of(&mut author, everywhere)?.invites()?.into_iter().find(|i| i.id.0 == id);
    let stays = after.as_ref().map_or_else(Vec::new, used_by);
    let lost = invite.used_by.len().saturating_sub(stays.len());
    let value = json!({
        "id": id.to_string(),
        "status": "cancelled",
        "members": stays,
        "members_lost": lost,
    });
    output::print(everywhere.format(), value, || {
        let stay = match stays.len() {
            0 if lost == 0 => "nobody joined with it".to_owned(),
            0 => "no machine that joined with it stays".to_owned(),
            1 => "1 machine that joined with it stays".to_owned(),
            several => format!("{several} machines that joined with it stay"),
        };
        let out = if lost == 0 { String::new() } else { format!(", {lost} are out") };
        format!("cancelled {}; {stay}{out}\n", id.short())
    });
    Ok(())
}

/// The text of an invite: the line itself, a file, or `-`.
pub(crate) fn read(given: &str) -> Outcome<Zeroizing<String>> {
    if given.trim_start().starts_with("muster-invite-") {
        return Ok(Zeroizing::new(given.to_owned()));
    }
    if given == "-" {
        if std::io::stdin().is_terminal() {
            talk("Paste the invite, then end with Ctrl-D:");
        }
        let mut text = Zeroizing::new(String::new());
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        std::io::stdin()
            .take(limit)
            .read_to_string(&mut text)
            .map_err(|e| Failure::new(Code::InviteMalformed, format_args!("stdin: {e}")))?;
        return Ok(text);
    }
    let path = Path::new(given);
    if !path.exists() {
        return Err(Failure::new(
            Code::InviteMalformed,
            format_args!("neither an invite nor a file: {} characters", given.chars().count()),
        ));
    }
    files::read_text(path, LINE_BYTES_MAX).map(Zeroizing::new)
}

/// Reads and checks an invite, offline.
pub(crate) fn check(text: &str) -> Outcome<CheckedInvite> {
    InviteManifest::parse(text).and_then(InviteManifest::check).map_err(|e| broken(&e))
}

/// Refuses a note that the org would not take, before anything is signed.
pub(crate) fn check_note(note: &str) -> Outcome<()> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(Failure::usage(format_args!("the note has {} bytes; 96 are allowed", note.len())));
    }
    if note.chars().any(char::is_control) {
        return Err(Failure::usage("the note has control characters in it"));
    }
    Ok(())
}

/// The gateway that will let the machines in: the one that was named, or the first of a member in good
/// order.
fn redeemer(author: &mut Author, named: Option<&str>) -> Outcome<PublicKey> {
    let none = || Failure::new(Code::GatewayNotNamed, "the org's settings name no gateway");
    let gateways = author.profile().charter().gateways.clone();
    if let (None, [only]) = (named, gateways.as_slice()) {
        return Ok(only.key);
    }
    let org = author.profile().org();
    let held = Held::read(author, org)?;
    let roster = held.replica.roster();
    // Settings name the key that the machine had when it got the role.
    let in_order = |g: &&Gateway| roster.member_of(&g.node).is_some_and(|m| m.state == MemberState::Good);
    let mut good = gateways.iter().filter(in_order);
    let Some(node) = named else { return good.next().map(|g| g.key).ok_or_else(none) };
    let member = roster.find(node).map_err(|why| Failure::new(why.code(), format_args!("{node}: {why}")))?;
    let of = |g: &&Gateway| roster.member_of(&g.node).is_some_and(|m| m.node == member.node);
    good.find(of).map(|g| g.key).ok_or_else(|| {
        Failure::new(Code::NoSuchRole, format_args!("{} is no gateway in good order", member.name))
    })
}

fn tpm_words(invite: &Invite) -> String {
    match (invite.attestation, invite.tpms.as_slice()) {
        (false, _) => "not asked".to_owned(),
        (true, []) => "must speak".to_owned(),
        (true, tpms) => joined(tpms.iter().map(ToString::to_string)),
    }
}

fn broken(error: &ManifestError) -> Failure {
    Failure::new(error.code(), error)
}

fn describe(checked: &CheckedInvite) -> Value {
    let invite = checked.invite();
    let charter = checked.chain().head().charter();
    json!({
        "org": {
            "id": checked.org().to_string(),
            "name": charter.name.as_str(),
            "settings": charter.version,
        },
        "id": checked.id().to_string(),
        "by": admin_name(checked),
        "uses": invite.uses,
        "expires": moment(invite.expires_unix_s),
        "attestation": invite.attestation,
        "tpms": invite.tpms.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": invite.labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "note": invite.note,
        "gateways": checked.gateways(),
    })
}

fn value(invite: &wire::Invite) -> Value {
    json!({
        "id": invite.id.to_string(),
        "status": status(invite.status),
        "uses": invite.uses,
        "used": invite.used_by.len(),
        "members": used_by(invite),
        "by": invite.by,
        "expires": moment(invite.expires_unix_s),
        "labels": invite.labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "note": invite.note,
        "gateway_key": invite.redeemer.to_string(),
    })
}

fn used_by(invite: &wire::Invite) -> Vec<Value> {
    let uses = invite.used_by.iter();
    uses.map(|u| json!({ "name": u.name, "key": u.node.to_string() })).collect()
}

fn admin_name(checked: &CheckedInvite) -> String {
    let author = checked.statement().author();
    let admin = checked.chain().head().charter().admin(author);
    admin.map_or_else(|| author.short(), |admin| admin.name.to_string())
}

const fn status(status: InviteStatus) -> &'static str {
    match status {
        InviteStatus::Open => "open",
        InviteStatus::UsedUp => "used-up",
        InviteStatus::Cancelled => "cancelled",
        InviteStatus::Expired => "expired",
    }
}

fn moment(unix_s: u64) -> Value {
    if unix_s == 0 { Value::Null } else { Value::from(duration::rfc3339(unix_s)) }
}

fn expires(unix_s: u64) -> String {
    if unix_s == 0 { "-".to_owned() } else { duration::rfc3339(unix_s) }
}

fn until(unix_s: u64) -> String {
    if unix_s == 0 { String::new() } else { format!(", until {}", duration::rfc3339(unix_s)) }
}

fn machines(uses: u32) -> String {
    if uses == 1 { "1 machine".to_owned() } else { format!("{uses} machines") }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    or_dash(&items.collect::<Vec<_>>().join(", "))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
