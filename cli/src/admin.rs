//! `muster admin`: who may decide over members. One key belongs to one device, which makes it itself;
//! the holder of the org's keys adds the public half.

use identity::{Code, Name, PublicKey, StatementId};
use org_trust::{Admin, Charter, CharterChain, Payload, Statement};
use serde_json::{Value, json};

use crate::{
    args::{AdminAdd, AdminInit, AdminRemove, Everywhere, Waiting},
    coverage,
    failure::{Failure, Outcome},
    files,
    key_file::AdminKey,
    output::{self, talk},
    passphrase::Source,
    place,
    profile::{self, ADMIN_KEY_FILE, PROFILE_FILE, Profile},
    random,
    removal::{self, Keep},
    settings::{self, Changed, Held, Settings},
};

/// `admin init`.
pub(crate) fn init(everywhere: &Everywhere, args: &AdminInit) -> Outcome<()> {
    let mut profile = Profile::read(&args.org)?;
    let org_name = profile.charter().name.clone();
    let directory = match &args.admin_dir {
        Some(directory) => directory.clone(),
        None => place::admin_root()?.join(org_name.as_str()),
    };
    for file in [ADMIN_KEY_FILE, PROFILE_FILE] {
        let path = directory.join(file);
        if path.symlink_metadata().is_ok() {
            return Err(Failure::new(Code::OrgExists, format_args!("{} exists", path.display())));
        }
    }
    let source = Source::new(everywhere.passphrase_file.as_deref(), everywhere.no_input);
    let passphrase = source.new_one(&format!("the admin key {}", args.name))?;
    let key = AdminKey { org: profile.org(), name: args.name.clone(), key: random::key()? };
    let public = key.key.public();
    profile.admin_name = args.name.clone();
    profile.admin_key = public;
    files::create_directory(&directory, files::SECRET_DIRECTORY)?;
    let path = directory.join(ADMIN_KEY_FILE);
    files::create(&path, files::SECRET, key.encrypt(passphrase)?.as_bytes())?;
    files::create(&directory.join(PROFILE_FILE), files::PUBLIC, &profile.encode()?)?;
    let value = json!({
        "org": { "id": profile.org().to_string(), "name": org_name.as_str() },
        "admin": { "name": args.name.as_str(), "key": public.to_string(), "key_file": path },
    });
    output::print(everywhere.format(), value, || format!("{public}\n"));
    talk(&format!(
        "The key does not count yet. Whoever holds the org keys adds it:\n  muster admin add {} --key {public}",
        args.name
    ));
    Ok(())
}

/// `admin add`.
pub(crate) fn add(everywhere: &Everywhere, args: &AdminAdd) -> Outcome<u8> {
    let mut settings = Settings::open(everywhere, &args.org_keys)?;
    let mut next = settings.charter().successor();
    if next.admin(&args.key).is_some_and(|admin| admin.name == args.name) && args.to_revoke.is_none() {
        return Err(Failure::usage(format_args!("{} is an admin of the org with this key", args.name))
            .remedy("Nothing to do."));
    }
    next.admins.push(Admin { key: args.key, name: args.name.clone() });
    next.revoke_threshold = args.to_revoke.unwrap_or(next.revoke_threshold);
    let question = format!(
        "Make {} (key {}) an admin? Whoever has the key can invite machines and revoke members.",
        args.name,
        args.key.short()
    );
    let changed = settings.change(everywhere, next, Some(&question))?;
    let line = format!("{} is an admin", args.name);
    Ok(report(everywhere, &mut settings, &changed, &args.name, &args.key, &line, &args.waiting))
}

/// `admin remove`.
pub(crate) fn remove(everywhere: &Everywhere, args: &AdminRemove) -> Outcome<u8> {
    let mut settings = Settings::open(everywhere, &args.org_keys)?;
    let admin = find(settings.charter(), &args.who)?;
    let own = profile::Admin::find(everywhere).is_ok_and(|own| own.profile.admin_key == admin.key);
    if own && !args.this_device {
        let seen =
            format!("{} is the admin key of this device: afterwards it can change nothing here", admin.name);
        return Err(Failure::new(Code::NeedsYes, seen).remedy("If that is what you want, add --this-device."));
    }
    let changes = settings.held.signed_by(&admin.key)?;
    let keep = match (args.void_all, args.void_from.as_slice()) {
        (true, _) => Keep::Nothing,
        (false, []) => Keep::Held,
        (false, from) => Keep::Before(from.iter().map(|id| change(&changes, id)).collect::<Outcome<_>>()?),
    };
    let mut next = settings.charter().successor();
    let what = without(&mut next, &admin, &changes, &keep, args.to_revoke)?;
    let question = format!("Remove admin {} (key {})? For good, {what}.", admin.name, admin.key.short());
    let changed = settings.change(everywhere, next, Some(&question))?;
    let line = format!("{} is no admin any longer; {what}", admin.name);
    Ok(report(everywhere, &mut settings, &changed, &admin.name, &admin.key, &line, &args.waiting))
}

/// Takes an admin out of the next settings; in words what still counts of it.
pub(crate) fn without(
    next: &mut Charter,
    admin: &Admin,
    changes: &[Statement],
    keep: &Keep,
    to_revoke: Option<u8>,
) -> Outcome<String> {
    if next.admins.len() <= 1 {
        return Err(Failure::usage(format_args!(
            "{} is the last admin: nobody could invite a machine or revoke one any longer",
            admin.name
        ))
        .remedy("Add another first: `muster admin init` on its device, then `muster admin add`."));
    }
    next.admins.retain(|other| other.key != admin.key);
    next.revoke_threshold = to_revoke.unwrap_or(next.revoke_threshold);
    if usize::from(next.revoke_threshold) > next.admins.len() {
        return Err(Failure::usage(format_args!(
            "{} admins must revoke a machine, and {} would be left",
            next.revoke_threshold,
            next.admins.len()
        ))
        .remedy("Say how many must from now on: --to-revoke N. Or add another admin first."));
    }
    let kept = removal::kept(&admin.key, changes, keep);
    let what = counts(kept.counting, kept.void, keep);
    next.cuts.extend(kept.cuts);
    Ok(what)
}

/// In words what still counts of a removed key.
pub(crate) fn counts(counting: usize, void: usize, keep: &Keep) -> String {
    match keep {
        Keep::Held => format!(
            "what it signed up to here still counts ({}), and nothing that this machine has not heard of",
            changes_in_words(counting)
        ),
        Keep::Nothing => format!("nothing that it ever signed counts ({})", changes_in_words(void)),
        Keep::Before(_) => {
            format!("{} of it still count, {} do not", changes_in_words(counting), changes_in_words(void))
        }
    }
}

/// `admin list`.
pub(crate) fn list(everywhere: &Everywhere) -> Outcome<()> {
    let held = Held::look(everywhere)?;
    let own = profile::Admin::find(everywhere).ok().map(|own| own.profile.admin_key);
    let charter = held.chain().head().charter();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for admin in &charter.admins {
        let signed = held.signed_by(&admin.key)?.len();
        let since = held.chain().named(&admin.key).map_or(0, |named| named.charter().version);
        let this = own == Some(admin.key);
        values.push(json!({
            "name": admin.name.as_str(),
            "key": admin.key.to_string(),
            "since_settings": since,
            "changes": signed,
            "this_device": this,
        }));
        rows.push([
            admin.name.to_string(),
            admin.key.to_string(),
            format!("version {since}"),
            signed.to_string(),
            if this { "this device" } else { "-" }.to_owned(),
        ]);
    }
    let value = json!({ "admins": values, "admins_needed_to_revoke": charter.revoke_threshold });
    output::print(everywhere.format(), value, || {
        output::columns(["NAME", "KEY", "SINCE SETTINGS", "CHANGES", "HERE"], &rows)
    });
    Ok(())
}

/// `admin log`.
pub(crate) fn log(everywhere: &Everywhere, admin: &str) -> Outcome<()> {
    let held = Held::look(everywhere)?;
    let admin = find_ever(held.chain(), admin)?;
    let changes = held.signed_by(&admin.key)?;
    let roster = held.replica.roster();
    let name_of =
        |node: &PublicKey| roster.member_of(node).map_or_else(|| node.short(), |m| m.name.to_string());
    let version = |change: &Statement| held.chain().get(&change.charter()).map(|c| c.charter().version);
    let rows: Vec<_> = changes
        .iter()
        .map(|change| {
            let settings = version(change).map_or_else(String::new, |v| v.to_string());
            [change.id().short(), settings, change.payload().kind().to_owned(), about(change, &name_of)]
        })
        .collect();
    let values: Vec<Value> = changes
        .iter()
        .map(|change| {
            json!({
                "change": change.id().to_string(),
                "number": change.seq(),
                "settings": version(change),
                "kind": change.payload().kind(),
                "about": about(change, &name_of),
            })
        })
        .collect();
    let value = json!({
        "admin": { "name": admin.name.as_str(), "key": admin.key.to_string() },
        "changes": values,
    });
    output::print(everywhere.format(), value, || {
        output::columns(["CHANGE", "SETTINGS", "KIND", "ABOUT"], &rows)
    });
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kind stands beside it; a new one says no more at first"
)]
fn about(change: &Statement, name_of: &dyn Fn(&PublicKey) -> String) -> String {
    match change.payload() {
        Payload::Admit(admit) => admit.name.to_string(),
        Payload::Revoke(revoke) => format!("{}, {}", name_of(&revoke.node), revoke.reason.as_str()),
        Payload::Invite(invite) => format!("for {}", invite.uses),
        Payload::Cancel(cancel) => format!("invite {}", cancel.invite.short()),
        _ => String::new(),
    }
}

/// The admin that a name or the first digits of a key mean.
pub(crate) fn find(charter: &Charter, text: &str) -> Outcome<Admin> {
    one(&charter.admins, text)
}

/// The same among all that ever were.
fn find_ever(chain: &CharterChain, text: &str) -> Outcome<Admin> {
    let mut all: Vec<Admin> = chain.iter().flat_map(|c| c.charter().admins.iter().cloned()).collect();
    all.sort();
    all.dedup();
    one(&all, text)
}

fn one(admins: &[Admin], text: &str) -> Outcome<Admin> {
    let named = |admin: &&Admin| Name::parse(text).is_ok_and(|name| name == admin.name);
    let by_key = |admin: &&Admin| !text.is_empty() && admin.key.to_string().starts_with(text);
    let mut found: Vec<&Admin> = admins.iter().filter(named).collect();
    if found.is_empty() {
        found = admins.iter().filter(by_key).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::new(Code::NoSuchRole, format_args!("no admin {text:?}"))),
        several => {
            let lines: Vec<_> = several.iter().map(|a| format!("{}  {}", a.key, a.name)).collect();
            Err(Failure::usage(format_args!("{text:?} means any of\n{}", lines.join("\n")))
                .remedy("Give the first digits of the key."))
        }
    }
}

/// The change that the first digits of an id mean.
fn change(changes: &[Statement], id: &str) -> Outcome<StatementId> {
    let found: Vec<_> =
        changes.iter().map(|change| change.id()).filter(|held| held.to_string().starts_with(id)).collect();
    match found.as_slice() {
        [one] if !id.is_empty() => Ok(*one),
        [] => Err(Failure::new(Code::NoSuchChange, format_args!("this key signed no change {id:?}"))
            .remedy("`muster admin log` shows what it signed.")),
        _ => {
            Err(Failure::usage(format_args!("{id:?} means {} changes", found.len()))
                .remedy("Give more digits."))
        }
    }
}

fn changes_in_words(count: usize) -> String {
    if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }
}

fn report(
    everywhere: &Everywhere,
    settings: &mut Settings,
    changed: &Changed,
    name: &Name,
    key: &PublicKey,
    line: &str,
    waiting: &Waiting,
) -> u8 {
    let waited = coverage::wait(everywhere, &mut *settings.carrier, changed.id, waiting);
    let value = json!({ "admin": { "name": name.as_str(), "key": key.to_string() } });
    settings::report(everywhere, changed, value, line, waited)
}
