//! The org's own keys at work: where their file is, and how it opens.

use std::path::{Path, PathBuf};

use identity::{Code, OrgId};

use crate::{
    args::{Everywhere, OrgKeysAt},
    failure::{Failure, Outcome},
    key_file::{self, OrgKeys},
    passphrase::Source,
    profile::{Admin, ORG_KEYS_FILE},
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
    let opened = OrgKeys::open(path, &file, source.existing(&path.display().to_string())?);
    let keys = opened.map_err(|failure| {
        if failure.code() == Code::WrongPassphrase { failure.remedy(OWN_PASSPHRASE) } else { failure }
    })?;
    if keys.org == org {
        Ok(keys)
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
