//! Where a passphrase comes from: a file, MUSTER_PASSPHRASE, or a prompt. Never an argument, which
//! every user of the machine can read.

use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret as _, SecretString};
use identity::Code;
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// Read when no file is named.
pub(crate) const ENVIRONMENT: &str = "MUSTER_PASSPHRASE";

/// Read instead of it for the org keys, if they have a passphrase of their own.
pub(crate) const ORG_ENVIRONMENT: &str = "MUSTER_ORG_PASSPHRASE";
const BYTES_MAX: usize = 1024;
/// A new passphrase guards every key of the org behind one second of scrypt.
const NEW_CHARACTERS_MIN: usize = 8;

/// How this run may learn a passphrase.
#[derive(Debug)]
pub(crate) struct Source {
    file: Option<PathBuf>,
    environment: Option<&'static str>,
    prompt: bool,
}

impl Source {
    pub(crate) fn new(file: Option<&Path>, no_input: bool) -> Self {
        Self { file: file.map(Path::to_owned), environment: Some(ENVIRONMENT), prompt: !no_input }
    }

    /// For the org keys: a passphrase of their own, or the one given for everything.
    pub(crate) fn org_keys(file: Option<&Path>, no_input: bool) -> Self {
        match std::env::var_os(ORG_ENVIRONMENT) {
            Some(set) if !set.is_empty() => {
                Self { file: None, environment: Some(ORG_ENVIRONMENT), prompt: !no_input }
            }
            Some(_) | None => Self::new(file, no_input),
        }
    }

    /// A second passphrase: from this file only.
    pub(crate) fn file_only(file: &Path) -> Self {
        Self { file: Some(file.to_owned()), environment: None, prompt: false }
    }

    /// A passphrase that exists. `purpose` ends "passphrase of ..." in the prompt.
    pub(crate) fn existing(&self, purpose: &str) -> Outcome<SecretString> {
        match self.given()? {
            Some(given) => Ok(given),
            None => self.ask(&format!("passphrase of {purpose}: ")),
        }
    }

    /// A passphrase that is made now: asked for twice at a prompt.
    pub(crate) fn new_one(&self, purpose: &str) -> Outcome<SecretString> {
        if let Some(given) = self.given()? {
            return long_enough(given);
        }
        let first = long_enough(self.ask(&format!("new passphrase for {purpose}: "))?)?;
        let second = self.ask("the same again: ")?;
        if first.expose_secret() == second.expose_secret() {
            Ok(first)
        } else {
            Err(Failure::usage("the two passphrases differ").remedy("Run the command again."))
        }
    }

    fn given(&self) -> Outcome<Option<SecretString>> {
        if let Some(path) = &self.file {
            let bytes = files::read_secret(path, BYTES_MAX)?;
            let text = core::str::from_utf8(&bytes)
                .map_err(|_| Failure::usage(format_args!("{}: not text", path.display())))?;
            let line = text.lines().next().unwrap_or_default();
            return Ok(Some(SecretString::from(line.to_owned())));
        }
        let Some(name) = self.environment else { return Ok(None) };
        match std::env::var(name).map(Zeroizing::new) {
            Ok(text) if !text.is_empty() => Ok(Some(SecretString::from(text.as_str().to_owned()))),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    fn ask(&self, prompt: &str) -> Outcome<SecretString> {
        let unavailable = |why: &str| {
            Failure::usage(format_args!("a passphrase is needed, and {why}"))
                .remedy(format_args!("Set {ENVIRONMENT} or give --passphrase-file FILE."))
        };
        if !self.prompt {
            return Err(unavailable("--no-input forbids to ask for it"));
        }
        rpassword::prompt_password(prompt)
            .map(SecretString::from)
            .map_err(|error| unavailable(&format!("there is no terminal to ask at ({error})")))
    }
}

fn long_enough(passphrase: SecretString) -> Outcome<SecretString> {
    let got = passphrase.expose_secret().chars().count();
    if got >= NEW_CHARACTERS_MIN {
        return Ok(passphrase);
    }
    Err(Failure::new(
        Code::Usage,
        format_args!("the new passphrase has {got} characters; at least {NEW_CHARACTERS_MIN} are wanted"),
    )
    .remedy("Take several words at random."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_file_gives_its_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        files::create(&path, files::SECRET, b"correct horse\nsecond line\n").unwrap();
        let source = Source::new(Some(&path), true);
        assert_eq!(source.existing("the key").unwrap().expose_secret(), "correct horse");
        assert_eq!(source.new_one("the key").unwrap().expose_secret(), "correct horse");
    }

    #[test]
    fn a_short_new_passphrase_and_a_forbidden_prompt_are_usage_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        files::create(&path, files::SECRET, b"short\n").unwrap();
        assert_eq!(Source::file_only(&path).new_one("the key").unwrap_err().code(), Code::Usage);
        let silent = Source { file: None, environment: None, prompt: false };
        assert_eq!(silent.existing("the key").unwrap_err().code(), Code::Usage);
    }
}
