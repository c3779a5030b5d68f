//! The other programs of the release, and what they say.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use identity::Code;

use crate::{
    failure::{Failure, Outcome},
    passphrase,
};

/// Beside this one, or in PATH.
pub(crate) fn find(name: &str) -> Outcome<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name));
    beside.into_iter().chain(found).find(|candidate| candidate.is_file()).ok_or_else(|| {
        Failure::new(Code::FileProblem, format_args!("{name} is neither beside muster nor in PATH"))
            .remedy("Install the package of the daemons.")
    })
}

/// Where all of them are: as said, or beside this one.
pub(crate) fn directory(given: Option<&Path>) -> Outcome<PathBuf> {
    let directory = match given {
        Some(directory) => directory.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(|e| Failure::new(Code::FileProblem, e))?;
            own.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
        }
    };
    std::path::absolute(&directory).map_err(|e| Failure::file(&directory, &e))
}

/// What it wrote to its standard output, however it ended, or its words on the other if that is empty.
pub(crate) fn said(mut command: Command) -> Outcome<Vec<u8>> {
    command.env_remove(passphrase::ENVIRONMENT).env_remove(passphrase::ORG_ENVIRONMENT);
    command.stdin(std::process::Stdio::null());
    let program = PathBuf::from(command.get_program());
    let output = command.output().map_err(|error| Failure::file(&program, &error))?;
    Ok(if output.stdout.is_empty() { output.stderr } else { output.stdout })
}
