//! The org's own keys at work: where their file is, and how it opens.

use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use boot_image::ImageSecretKey;
use identity::{Code, OrgId};

use crate::{
    args::{Everywhere, OrgKeysAt},
    failure::{Failure, Outcome},
    files,
    key_file::{self, OrgKeys},
    output::talk,
    passphrase::Source,
    profile::{Admin, ORG_KEYS_FILE},
    random,
};

/// Where the file should be: as the command line says, or beside the admin key.
pub(crate) fn path(everywhere: &Everywhere, at: &OrgKeysAt) -> Outcome<PathBuf> {
    if let Some(path) = &at.org_keys {
        return Ok(path.clone());
    }
    let admin = Admin::find(everywhere).map_err(|failure| failure.remedy(BRING))?;
    let directory = admin.key_file.parent().unwrap_or_else(|| Path::new("."));
    Ok(directory.join(ORG_KEYS_FILE))
}

/// Opens the file.
pub(crate) fn unlock(everywhere: &Everywhere, at: &OrgKeysAt, path: &Path, org: OrgId) -> Outcome<OrgKeys> {
    open(everywhere, at, path, org).map(|(keys, _)| keys)
}

/// Opens the file and takes its image key; makes one where an earlier build founded the org.
pub(crate) fn unlock_image_key(
    everywhere: &Everywhere,
    at: &OrgKeysAt,
    path: &Path,
    org: OrgId,
) -> Outcome<(OrgKeys, ImageSecretKey)> {
    let (mut keys, passphrase) = open(everywhere, at, path, org)?;
    if keys.image.is_none() {
        keys.image = Some(random::image_key()?);
        files::replace(path, files::SECRET, keys.encrypt(passphrase)?.as_bytes())?;
        talk(&format!(
            "{} has an image key from now on. Copies of the file and the recovery sheet lack it: machines \
             that boot this org's images open their keys to images that it approved and to no others. Copy \
             and print the file anew.",
            path.display()
        ));
    }
    let image = keys.image.take().ok_or_else(|| Failure::new(Code::KeyFileMalformed, path.display()))?;
    Ok((keys, image))
}

fn open(
    everywhere: &Everywhere,
    at: &OrgKeysAt,
    path: &Path,
    org: OrgId,
) -> Outcome<(OrgKeys, SecretString)> {
    if !path.exists() {
        return Err(
            Failure::new(Code::FileProblem, format_args!("{} is not there", path.display())).remedy(BRING)
        );
    }
    let file = key_file::read(path)?;
    let source = match &at.org_passphrase_file {
        Some(file) => Source::file_only(file),
        None => Source::org_keys(everywhere.passphrase_file.as_deref(), everywhere.no_input),
    };
    let passphrase = source.existing(&path.display().to_string())?;
    let opened = OrgKeys::open(path, &file, passphrase.clone());
    let keys = opened.map_err(|failure| {
        if failure.code() == Code::WrongPassphrase { failure.remedy(OWN_PASSPHRASE) } else { failure }
    })?;
    if keys.org == org {
        Ok((keys, passphrase))
    } else {
        Err(Failure::new(
            Code::KeyFileMalformed,
            format_args!("{} holds the keys of another org", path.display()),
        )
        .remedy("Give the file of this org: --org-keys FILE."))
    }
}

const BRING: &str = "The org's settings are changed with the org's own keys: bring org-keys.age from where it \
                     is kept, or type it in from the recovery sheet, and give --org-keys FILE.";
const OWN_PASSPHRASE: &str =
    "If the org keys have a passphrase of their own: --org-passphrase-file or MUSTER_ORG_PASSPHRASE.";
