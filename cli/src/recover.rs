//! `muster key recover`: the way on for a machine whose keys will not open again. What it was is put
//! aside and nothing of it is deleted; what it becomes is a new member, by a new invite.

use std::{fs, io, path::Path};

use identity::{Code, limits::STATEMENT_BYTES_MAX};
use org_trust::UnverifiedStatement;
use serde_json::json;

use crate::{
    args::{Everywhere, Join},
    consent::{self, Unasked},
    failure::{Failure, Outcome},
    files, handover, join,
    local::Daemon,
    output::{self, talk},
    place::Places,
    tpm::{self, Finding},
};

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere, invite: Option<&str>) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    let keys = places.state.join("keys");
    if !keys.exists() {
        return Err(Failure::new(Code::NotEnrolled, format_args!("nothing in {}", keys.display())));
    }
    let why = lost(&places)?;
    let old = own_key(&places.state);
    let shown = old.as_deref().unwrap_or("this machine's old key");
    let question = format!(
        "{} {}: {}\nThis machine's keys do not open any more. They are put aside, and it is no member of \
         its org until it joins again, as another one. An admin has to revoke {shown}.",
        why.code(),
        why.code().title(),
        why.seen()
    );
    consent::ask(everywhere, &question, Unasked::Refuse)?;
    join::stop_service()?;
    if Daemon::connect(&places.socket).is_ok() {
        return Err(Failure::new(Code::StoreInUse, "musterd runs").remedy("Stop it, then run this again."));
    }
    let aside = put_aside(&places.state)?;
    talk(&format!(
        "What was here is in {}. On an admin's device: `muster revoke {shown}`. It stays valid until then, \
         for whoever may open it.",
        aside.display()
    ));
    let value = json!({
        "cause": why.code().to_string(),
        "old_key": old,
        "put_aside": aside,
        "joins": invite.is_some(),
    });
    output::print(everywhere.format(), value, || format!("put aside in {}\n", aside.display()));
    match invite {
        Some(invite) => {
            let invite = invite.to_owned();
            join::join(
                everywhere,
                &Join { invite, name: None, key_storage: None, tpm: None, no_start: false },
            )
        }
        None => {
            talk("Then, here: `muster join INVITE` with a new invite, or a start of an image that has one.");
            Ok(())
        }
    }
}

/// Why the keys are lost. What may pass, and what another start mends, is no loss.
pub(crate) fn lost(places: &Places) -> Outcome<Failure> {
    let seen = tpm::look(places)?;
    let mut missing = None;
    for object in seen.objects {
        match object.finding {
            Finding::Closed(failure) if is_lasting(failure.code()) => return Ok(failure),
            Finding::Closed(failure) => return Err(failure),
            Finding::Missing => missing = Some(object.name),
            Finding::Opens | Finding::InItsPhase => {}
        }
    }
    match missing {
        Some(name) => Ok(Failure::new(Code::KeysMissing, format_args!("the {name} keys are not there"))),
        None => Err(Failure::new(Code::KeysInOrder, "they are whole, and nothing differs")),
    }
}

/// Firmware can be set back, but whoever says that it stays as it is says so by this command.
const fn is_lasting(code: Code) -> bool {
    matches!(
        code,
        Code::TpmReplaced
            | Code::SealedKeyDamaged
            | Code::KeyFileMalformed
            | Code::FirmwareChanged
            | Code::OtherImageKey
    )
}

/// The key under which this machine was admitted, for the admin who has to revoke it.
fn own_key(state: &Path) -> Option<String> {
    let bytes = files::read(&state.join("preboot/admit"), STATEMENT_BYTES_MAX).ok()?;
    let statement = UnverifiedStatement::decode(&bytes).ok()?;
    statement.claimed().payload().admit().map(|admit| admit.node.to_string())
}

/// Everything of the org goes into a directory of its own, that nothing reads.
fn put_aside(state: &Path) -> Outcome<std::path::PathBuf> {
    let mut number = 1;
    let aside = loop {
        let aside = state.join(format!("lost-{number}"));
        if !aside.exists() {
            break aside;
        }
        number += 1;
    };
    files::create_directory(&aside, files::SECRET_DIRECTORY)?;
    // The keys last: until they are gone, this can be run again and goes on.
    for name in [handover::DIRECTORY, "store", "preboot", "bundle.pem", "keys"] {
        match fs::rename(state.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::file(&state.join(name), &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    files::sync_parent(&aside).map_err(|error| Failure::file(&aside, &error))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_put_aside_and_nothing_of_it_is_deleted() {
        let state = tempfile::tempdir().unwrap();
        for (number, content) in [(1, "a"), (2, "b")] {
            for name in ["keys", "preboot", "store"] {
                fs::create_dir(state.path().join(name)).unwrap();
            }
            fs::write(state.path().join("keys/node.sealed"), content).unwrap();
            let aside = put_aside(state.path()).unwrap();
            assert!(aside.ends_with(format!("lost-{number}")));
            assert_eq!(fs::read_to_string(aside.join("keys/node.sealed")).unwrap(), content);
            assert!(!["keys", "preboot", "store"].iter().any(|name| state.path().join(name).exists()));
        }
    }
}
