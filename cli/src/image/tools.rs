//! Programs of this machine that images are made with.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use super::unusable;
use crate::{
    failure::{Failure, Outcome},
    passphrase,
};

/// A directory that goes with the value.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one beside a file that is to be written, so that a large one fits.
    pub(super) fn beside(out: &Path) -> Outcome<Self> {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.work", std::process::id()));
        let path = out.with_file_name(name);
        std::fs::create_dir(&path).map_err(|e| Failure::file(&path, &e))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is found by its name.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Runs a program to its end; what it wrote to standard output.
pub(super) fn run(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Outcome<String> {
    let mut command = Command::new(program);
    command.args(arguments).env_remove(passphrase::ENVIRONMENT).env_remove(passphrase::ORG_ENVIRONMENT);
    let output = command.output().map_err(|e| {
        unusable(format_args!("{program}: {e}")).remedy(format_args!("Install the Debian package {package}."))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(unusable(format_args!("{program}: {}: {}", output.status, said.trim())))
}
