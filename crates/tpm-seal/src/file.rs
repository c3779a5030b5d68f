//! Files that hold keys: replaced whole or not at all, and read only when nobody else could.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::custody::CustodyError;

/// Writes beside the file, makes it stable, and puts it in its place. Until the last step the old file
/// is untouched; after it the new one is there for good.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CustodyError> {
    let (temporary, dir) = beside(path)?;
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(disk("remove an unfinished file", &temporary, source)),
    }
    write_stable(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(|source| disk("put the new file in its place", path, source))?;
    sync_directory(&dir)
}

/// The first half of [`replace`], up to where a killed process leaves a file beside the old one.
pub(crate) fn write_stable(temporary: &Path, bytes: &[u8]) -> Result<(), CustodyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(|source| disk("make a file", temporary, source))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .map_err(|source| disk("write", temporary, source))
}

/// Reads a whole file of at most `max` bytes that belongs to this user alone.
pub(crate) fn read_private(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|source| disk("open", path, source))?;
    let about = file.metadata().map_err(|source| disk("look at", path, source))?;
    if !about.is_file() {
        return Err(disk("read", path, io::Error::other("not a regular file")));
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(CustodyError::WrongOwner { path: path.to_owned(), uid: about.uid() });
    }
    let mode = about.mode() & 0o7777;
    if mode & !0o600 != 0 {
        return Err(CustodyError::TooOpen { path: path.to_owned(), mode });
    }
    // Room for one byte more than allowed, taken once: no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    let limit = u64::try_from(max + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|source| disk("read", path, source))?;
    Ok(bytes)
}

/// Puts a file in the place of another. After a power cut there is the old one or the new one.
pub(crate) fn rename(path: &Path, to: &Path) -> Result<(), CustodyError> {
    let (_, from_dir) = beside(path)?;
    let (_, to_dir) = beside(to)?;
    fs::rename(path, to).map_err(|source| disk("put the new file in its place", to, source))?;
    sync_directory(&to_dir)?;
    sync_directory(&from_dir)
}

pub(crate) fn remove(path: &Path) -> Result<(), CustodyError> {
    let (temporary, dir) = beside(path)?;
    for path in [temporary.as_path(), path] {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(disk("remove", path, source)),
        }
    }
    sync_directory(&dir)
}

pub(crate) fn exists(path: &Path) -> Result<bool, CustodyError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(disk("look at", path, source)),
    }
}

/// Where a file is written before it takes its place, and the directory of both.
pub(crate) fn beside(path: &Path) -> Result<(PathBuf, PathBuf), CustodyError> {
    let wrong = || disk("write", path, io::Error::from(io::ErrorKind::InvalidInput));
    let mut name = path.file_name().ok_or_else(wrong)?.to_owned();
    name.push(".new");
    let dir = path.parent().ok_or_else(wrong)?;
    Ok((dir.join(name), dir.to_owned()))
}

fn sync_directory(dir: &Path) -> Result<(), CustodyError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| disk("make the directory stable", dir, source))
}

fn disk(what: &'static str, path: &Path, source: io::Error) -> CustodyError {
    CustodyError::Disk { what, path: path.to_owned(), source }
}
