//! `muster backup` and `muster restore`: this machine's place in its org, for the day when its disk is gone. Keys
//! that a TPM seals open on that TPM and on no other: what is kept serves the same machine with a new disk, and
//! another machine joins anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use identity::{
    Code,
    limits::{ARCHIVE_BYTES_MAX, CONFIG_BYTES_MAX},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    archive::{self, Entry, Recipients},
    args::{Backup, Everywhere, Restore},
    consent::{self, Unasked},
    failure::{Failure, Outcome},
    files, handover,
    local::Daemon,
    org_create::{GATEWAY_CERTIFICATE, GATEWAY_CONFIG, GATEWAY_KEY},
    output::{self, talk},
    place::{CONFIG, Places},
    tpm::{self, Finding},
};

/// Of the state directory; the keys last, so that a restore that is interrupted can be run again.
const STATE: [&str; 6] = [handover::DIRECTORY, "preboot", "store", "bundle.pem", "services.json", "keys"];

/// Where a restore puts everything before it is looked at.
const STAGING: &str = "restoring";

/// `backup`.
pub(crate) fn backup(everywhere: &Everywhere, args: &Backup) -> Outcome<()> {
    let to = Recipients::parse(&args.to)?;
    let places = Places::find(everywhere)?;
    let mut entries = Vec::new();
    for name in STATE {
        collect(&places.state.join(name), &format!("state/{name}"), &mut entries)?;
    }
    if !entries.iter().any(|entry| entry.name.starts_with("state/keys/")) {
        return Err(Failure::new(Code::NotEnrolled, format_args!("no keys in {}", places.state.display())));
    }
    for name in [CONFIG, "muster.toml.d", GATEWAY_CONFIG, GATEWAY_CERTIFICATE, GATEWAY_KEY] {
        collect(&everywhere.config_dir.join(name), &format!("etc/{name}"), &mut entries)?;
    }
    let open: Vec<&str> = entries.iter().map(|entry| &*entry.name).filter(|name| is_open_key(name)).collect();
    if !open.is_empty() && to.is_empty() {
        let question = format!(
            "{} would lie in it for anybody who reads it. Encrypt it: --to age1.., a key that `age-keygen` makes.",
            open.join(", ")
        );
        consent::ask(everywhere, &question, Unasked::Refuse)?;
    }
    archive::write(&args.out, &entries, &to)?;
    let names: Vec<&str> = entries.iter().map(|entry| &*entry.name).collect();
    let value = json!({ "file": args.out, "encrypted": !to.is_empty(), "files": names, "open_keys": open });
    output::print(everywhere.format(), value, || format!("{}: {} files\n", args.out.display(), names.len()));
    talk(if is_sealed(&entries) {
        "Its keys are sealed: they open on the TPM of this machine and on no other. For this machine with a new disk."
    } else {
        "Its keys are not sealed: whoever has this file can be this machine. Never run two with one key."
    });
    Ok(())
}

/// `restore`.
pub(crate) fn restore(everywhere: &Everywhere, args: &Restore) -> Outcome<()> {
    let mut places = Places::find(everywhere)?;
    // It puts the keys in their place last: without them, only a restore that was interrupted leaves this behind.
    let interrupted = places.state.join(STAGING).exists() && !places.state.join("keys").exists();
    let there = STATE.iter().map(|name| places.state.join(name)).find(|path| path.exists());
    if let Some(there) = there.filter(|_| !interrupted) {
        return Err(Failure::new(Code::AlreadyEnrolled, there.display()));
    }
    files::refuse_open_directory(&places.state)?;
    if Daemon::connect(&places.socket).is_ok() {
        return Err(Failure::new(Code::StoreInUse, "musterd runs").remedy("Stop it, then run this again."));
    }
    let entries = archive::read(&args.file, args.identity.as_deref())?;
    if !entries.iter().any(|entry| entry.name.starts_with("state/keys/")) {
        return Err(Failure::new(
            Code::ArchiveUnreadable,
            format_args!("{}: no keys in it", args.file.display()),
        ));
    }
    if !is_sealed(&entries) {
        let question = "The keys of this backup open anywhere. If the machine that it was made on still runs, two \
                        machines use one key: the org notices that and says MU-2013.";
        consent::ask(everywhere, question, Unasked::Refuse)?;
    }
    files::create_directory(&places.state, files::SECRET_DIRECTORY)?;
    let state = std::mem::take(&mut places.state);
    let staging = state.join(STAGING);
    files::remove_directory(&staging)?;
    let kept = settle(everywhere, &entries, &staging)?;
    places.state = staging.clone();
    if is_sealed(&entries)
        && let Err(failure) = opens(&places)
    {
        files::remove_directory(&staging)?;
        return Err(failure);
    }
    for name in STATE {
        let place = state.join(name);
        if interrupted && place.is_dir() {
            files::remove_directory(&place)?;
        }
        match fs::rename(staging.join(name), &place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::file(&place, &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    files::remove_directory(&staging)?;
    files::sync_parent(&state.join("keys")).map_err(|error| Failure::file(&state, &error))?;
    let value = json!({ "state": state, "files": entries.len(), "kept": kept });
    output::print(everywhere.format(), value, || format!("restored to {}\n", state.display()));
    for path in &kept {
        talk(&format!("{} was there and stays as it is.", path.display()));
    }
    talk(
        "Start musterd. The member list is as old as the backup: it is compared with other members before anybody \
         is served. If this machine was revoked meanwhile, it stays revoked.",
    );
    Ok(())
}

/// A file, or what is below a directory; that it is not there is well.
fn collect(path: &Path, name: &str, entries: &mut Vec<Entry>) -> Outcome<()> {
    let failed = |error: &io::Error| Failure::file(path, error);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    if metadata.is_dir() {
        let mut below: Vec<_> = fs::read_dir(path)
            .map_err(|error| failed(&error))?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        // What is acknowledged is read before the list: it may lag behind, and is never ahead.
        below.sort();
        for inner in below {
            collect(&path.join(&inner), &format!("{name}/{}", inner.to_string_lossy()), entries)?;
        }
    } else if metadata.is_file() {
        let content = Zeroizing::new(files::read(path, ARCHIVE_BYTES_MAX)?);
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        entries.push(Entry { name: name.to_owned(), mode, content });
    }
    Ok(())
}

/// Puts the state into `staging`, and settings where there are none. Which of these were there.
fn settle(everywhere: &Everywhere, entries: &[Entry], staging: &Path) -> Outcome<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in entries {
        let (path, is_setting) = match entry.name.split_once('/') {
            Some(("state", rest)) if STATE.contains(&rest.split('/').next().unwrap_or_default()) => {
                (staging.join(rest), false)
            }
            Some(("etc", rest)) if entry.content.len() <= CONFIG_BYTES_MAX => {
                (everywhere.config_dir.join(rest), true)
            }
            Some(_) | None => {
                return Err(Failure::new(
                    Code::ArchiveUnreadable,
                    format_args!("{:?} has no place here", entry.name),
                ));
            }
        };
        if is_setting && path.exists() {
            kept.push(path);
            continue;
        }
        if let Some(parent) = path.parent() {
            files::create_directory(parent, if is_setting { 0o755 } else { files::SECRET_DIRECTORY })?;
        }
        files::create(&path, entry.mode, &entry.content)?;
    }
    Ok(kept)
}

/// Whether the TPM of this machine takes the keys for its own. That another image has to run is no reason against it.
fn opens(places: &Places) -> Outcome<()> {
    for object in tpm::look(places)?.objects {
        if let Finding::Closed(failure) = object.finding
            && matches!(failure.code(), Code::TpmReplaced | Code::SealedKeyDamaged | Code::KeyFileMalformed)
        {
            return Err(Failure::new(failure.code(), failure.seen()).remedy(
                "The backup serves the machine that it was made on and no other. This one joins anew: `muster join \
                 INVITE`; if the other is gone for good, an admin revokes it. Nothing was restored.",
            ));
        }
    }
    Ok(())
}

fn is_open_key(name: &str) -> bool {
    name.strip_prefix("state/keys/").is_some_and(|rest| rest.ends_with(".key")) || name == "etc/gateway.key"
}

fn is_sealed(entries: &[Entry]) -> bool {
    !entries.iter().any(|entry| entry.name.starts_with("state/") && is_open_key(&entry.name))
}
