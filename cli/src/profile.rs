//! What an admin's machine knows of its org: the public file `org.json` beside the key files. It holds
//! no secret, and it is checked when it is read: the settings carry their own signatures.

use std::path::{Path, PathBuf};

use control::text::{Bytes, Text};
use identity::{Code, Name, OrgId, PublicKey, limits::CONTROL_MESSAGE_BYTES_MAX};
use org_trust::{Charter, CharterChain};
use serde::{Deserialize, Serialize};

use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    files, key_file,
    output::SCHEMA_VERSION,
    passphrase::Source,
    place,
};

/// Name of the admin key file in an org's directory.
pub(crate) const ADMIN_KEY_FILE: &str = "admin.age";
/// Name of the file with the org's own keys.
pub(crate) const ORG_KEYS_FILE: &str = "org-keys.age";
/// Name of the public file.
pub(crate) const PROFILE_FILE: &str = "org.json";

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema_version: u32,
    org: Text<OrgId>,
    name: Text<Name>,
    /// Where the gateways are.
    gateways: Vec<String>,
    /// Every version of the settings, oldest first.
    settings: Vec<Bytes>,
    /// The CA certificates that gateways are checked against, PEM.
    bundle: String,
    admin: WrittenAdmin,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAdmin {
    name: Text<Name>,
    key: Text<PublicKey>,
}

/// A profile whose settings were verified.
pub(crate) struct Profile {
    pub(crate) chain: CharterChain,
    pub(crate) gateways: Vec<String>,
    pub(crate) bundle: String,
    pub(crate) admin_name: Name,
    pub(crate) admin_key: PublicKey,
}

/// The admin key file that was chosen, with the profile beside it.
pub(crate) struct Admin {
    pub(crate) key_file: PathBuf,
    pub(crate) profile: Profile,
}

impl Profile {
    pub(crate) fn org(&self) -> OrgId {
        self.chain.org()
    }

    pub(crate) fn charter(&self) -> &Charter {
        self.chain.head().charter()
    }

    pub(crate) fn encode(&self) -> Outcome<Vec<u8>> {
        let written = Written {
            schema_version: SCHEMA_VERSION,
            org: Text(self.org()),
            name: Text(self.charter().name.clone()),
            gateways: self.gateways.clone(),
            settings: self.chain.iter().map(|c| Bytes(c.bytes().to_vec())).collect(),
            bundle: self.bundle.clone(),
            admin: WrittenAdmin { name: Text(self.admin_name.clone()), key: Text(self.admin_key) },
        };
        serde_json::to_vec_pretty(&written).map_err(|e| Failure::new(Code::FileProblem, e))
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let bytes = files::read(path, CONTROL_MESSAGE_BYTES_MAX)?;
        let wrong = |code, why: &dyn core::fmt::Display| {
            Failure::new(code, format_args!("{}: {why}", path.display()))
                .remedy("Take org.json from the backup of the admin directory.")
        };
        let written: Written =
            serde_json::from_slice(&bytes).map_err(|e| wrong(Code::ConfigUnreadable, &e))?;
        let settings = |why: &dyn core::fmt::Display| wrong(Code::ChartersInvalid, why);
        let chain = CharterChain::read(written.settings.iter().map(|bytes| bytes.0.as_slice()));
        let chain = chain.map_err(|e| settings(&e))?;
        if chain.org() != written.org.0 {
            return Err(settings(&"the settings belong to another org than the file says"));
        }
        Ok(Self {
            chain,
            gateways: written.gateways,
            bundle: written.bundle,
            admin_name: written.admin.name.0,
            admin_key: written.admin.key.0,
        })
    }
}

impl Admin {
    /// The admin that the command line, the environment or the only directory there is names.
    pub(crate) fn find(everywhere: &Everywhere) -> Outcome<Self> {
        let key_file = match &everywhere.admin {
            Some(path) if path.is_dir() => path.join(ADMIN_KEY_FILE),
            Some(path) => path.clone(),
            None => only_one()?,
        };
        let directory = key_file.parent().unwrap_or_else(|| Path::new("."));
        let profile = Profile::read(&directory.join(PROFILE_FILE))?;
        Ok(Self { key_file, profile })
    }

    /// Asks for the passphrase and opens the key.
    pub(crate) fn unlock(&self, everywhere: &Everywhere) -> Outcome<key_file::AdminKey> {
        let file = key_file::read(&self.key_file)?;
        let source = Source::new(everywhere.passphrase_file.as_deref(), everywhere.no_input);
        let passphrase = source.existing(&self.key_file.display().to_string())?;
        let key = key_file::AdminKey::open(&self.key_file, &file, passphrase)?;
        if key.org != self.profile.org() {
            return Err(Failure::new(
                Code::AdminKeyUnknown,
                format_args!("{} is a key of another org than org.json beside it", self.key_file.display()),
            ));
        }
        // Whether the org names the key, only the newest settings tell; the other side has them.
        Ok(key)
    }

    /// Keeps newer settings that a gateway gave.
    pub(crate) fn save(&self) -> Outcome<()> {
        let directory = self.key_file.parent().unwrap_or_else(|| Path::new("."));
        files::replace(&directory.join(PROFILE_FILE), files::PUBLIC, &self.profile.encode()?)
    }
}

fn only_one() -> Outcome<PathBuf> {
    let root = place::admin_root()?;
    let mut found = Vec::new();
    if let Ok(entries) = std::fs::read_dir(&root) {
        found.extend(entries.flatten().map(|e| e.path().join(ADMIN_KEY_FILE)).filter(|p| p.exists()));
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage(format_args!("no admin key below {}", root.display()))
            .remedy("Run this where the admin key is, or give --admin FILE.")),
        several => {
            let names: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
            Err(Failure::usage(format_args!("several admin keys:\n{}", names.join("\n")))
                .remedy("Choose one: --admin FILE or MUSTER_ADMIN."))
        }
    }
}
