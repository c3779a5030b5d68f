//! Files an operator keeps: written whole or not at all, synced, secret ones for their user alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use identity::Code;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Mode of a file with secrets in it.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of a file anybody may read.
pub(crate) const PUBLIC: u32 = 0o644;
/// Mode of a directory with secrets in it.
pub(crate) const SECRET_DIRECTORY: u32 = 0o700;

/// Reads at most `max` bytes of a file that holds a secret, after checking that nobody else can.
pub(crate) fn read_secret(path: &Path, max: usize) -> Outcome<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(|e| Failure::file(path, &e))?;
    let metadata = file.metadata().map_err(|e| Failure::file(path, &e))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            Code::FileModeTooOpen,
            format_args!("{} has mode {mode:04o}", path.display()),
        ));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && me != 0 {
        let owner = metadata.uid();
        return Err(Failure::new(
            Code::FileModeTooOpen,
            format_args!("{} belongs to user {owner}, not to user {me}", path.display()),
        ));
    }
    read_open(path, file, max).map(Zeroizing::new)
}

/// Reads at most `max` bytes of a file.
pub(crate) fn read(path: &Path, max: usize) -> Outcome<Vec<u8>> {
    let file = File::open(path).map_err(|e| Failure::file(path, &e))?;
    read_open(path, file, max)
}

/// Reads at most `max` bytes of text.
pub(crate) fn read_text(path: &Path, max: usize) -> Outcome<String> {
    String::from_utf8(read(path, max)?)
        .map_err(|_| Failure::new(Code::FileProblem, format_args!("{}: not text", path.display())))
}

/// Writes a new file through a temporary one beside it, synced with its directory. An existing file
/// is replaced at once or not at all.
pub(crate) fn replace(path: &Path, mode: u32, content: &[u8]) -> Outcome<()> {
    let temporary = with_suffix(path, ".new");
    remove_if_there(&temporary)?;
    let written = write_new(&temporary, mode, content)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_parent(path));
    written.map_err(|e| Failure::file(path, &e))
}

/// Like [`replace`], but an existing file stays and is an error.
pub(crate) fn replace_absent(path: &Path, mode: u32, content: &[u8]) -> Outcome<()> {
    let temporary = with_suffix(path, ".new");
    remove_if_there(&temporary)?;
    let written = write_new(&temporary, mode, content)
        .and_then(|()| fs::hard_link(&temporary, path))
        .and_then(|()| fs::remove_file(&temporary))
        .and_then(|()| sync_parent(path));
    written.map_err(|e| Failure::file(path, &e))
}

/// Writes a file that must not be there yet.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8]) -> Outcome<()> {
    write_new(path, mode, content).and_then(|()| sync_parent(path)).map_err(|e| {
        if e.kind() == io::ErrorKind::AlreadyExists {
            Failure::new(Code::OrgExists, format_args!("{} exists", path.display()))
        } else {
            Failure::file(path, &e)
        }
    })
}

/// Makes a directory and its parents. Only those made here get `mode`.
pub(crate) fn create_directory(path: &Path, mode: u32) -> Outcome<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
    builder.recursive(true).create(path).map_err(|e| Failure::file(path, &e))
}

/// Refuses a directory for secrets that others can look into; one that is not there yet is well.
pub(crate) fn refuse_open_directory(path: &Path) -> Outcome<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::new(Code::FileModeTooOpen, format_args!("{} has mode {mode:04o}", path.display())))
}

/// Removes a file; that it is not there is well.
pub(crate) fn remove_if_there(path: &Path) -> Outcome<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::file(path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory with all that is in it; that it is not there is well.
pub(crate) fn remove_directory(path: &Path) -> Outcome<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::file(path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Syncs the directory that holds `path`, so that a new name survives a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(parent)?.sync_all()
}

/// `path` with something after its last character.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn read_open(path: &Path, file: File, max: usize) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut content).map_err(|e| Failure::file(path, &e))?;
    if content.len() > max {
        return Err(Failure::new(
            Code::FileProblem,
            format_args!("{}: more than {max} bytes", path.display()),
        ));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, 0o644, b"secret").unwrap();
        assert_eq!(read_secret(&path, 64).unwrap_err().code(), Code::FileModeTooOpen);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path, 64).unwrap().as_slice(), b"secret");
        assert_eq!(read_secret(&path, 5).unwrap_err().code(), Code::FileProblem);
    }

    #[test]
    fn a_file_that_is_there_is_never_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, SECRET, b"first").unwrap();
        assert_eq!(create(&path, SECRET, b"second").unwrap_err().code(), Code::OrgExists);
        assert_eq!(read(&path, 64).unwrap(), b"first");
    }
}
