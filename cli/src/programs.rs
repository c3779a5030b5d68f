//! Where the other programs of muster are.

use std::path::{Path, PathBuf};

use identity::Code;

use crate::failure::{Failure, Outcome};

/// As said, or beside this one.
pub(crate) fn beside(given: Option<&Path>) -> Outcome<PathBuf> {
    let directory = match given {
        Some(directory) => directory.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(|e| Failure::new(Code::FileProblem, e))?;
            own.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
        }
    };
    std::path::absolute(&directory).map_err(|e| Failure::file(&directory, &e))
}
