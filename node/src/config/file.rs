//! The files, as they lie there.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use identity::limits;

use super::ConfigError;

/// The files beside `main` that are read after it.
pub(super) fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut directory = main.as_os_str().to_owned();
    directory.push(".d");
    let unreadable = |why: std::io::Error| ConfigError::Unreadable {
        place: PathBuf::from(&directory).display().to_string(),
        why: why.to_string(),
    };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file that nobody else may write.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(format!("others than user {} may write it", metadata.uid()));
    }
    let max = u64::try_from(limits::CONFIG_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > limits::CONFIG_BYTES_MAX { Err("too large".to_owned()) } else { Ok(text) }
}
