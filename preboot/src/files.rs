//! Directories that appear at once and whole, for their user alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::failure::{Failure, Outcome};

/// Makes a directory and its parents, mode 0700.
pub(crate) fn create_directory(path: &Path) -> Outcome<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Failure::file(path, &e))
}

/// Puts a directory of these files in the place of whatever is there. After a power cut there is the
/// old directory or the new one, never a mixture and never none.
pub(crate) fn replace_directory(place: &Path, files: &[(&str, &[u8])]) -> Outcome<()> {
    let new = beside(place);
    let written = || -> io::Result<()> {
        remove(&new)?;
        DirBuilder::new().mode(0o700).create(&new)?;
        for (name, content) in files {
            write_new(&new.join(name), content)?;
        }
        File::open(&new)?.sync_all()?;
        if place.try_exists()? {
            renameat_with(CWD, &new, CWD, place, RenameFlags::EXCHANGE)?;
        } else {
            fs::rename(&new, place)?;
        }
        sync_parent(place)?;
        remove(&new)
    };
    written().map_err(|e| Failure::file(place, &e))
}

/// A file's bytes, or nothing when it is not there.
pub(crate) fn read(path: &Path, max: usize) -> Outcome<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::file(path, &e)),
    };
    read_all(file, max).map(Some).map_err(|e| Failure::file(path, &e))
}

/// All bytes of an open file or stream.
pub(crate) fn read_all(from: impl io::Read, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(io::Error::other("too large")) } else { Ok(bytes) }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn beside(place: &Path) -> PathBuf {
    place.with_extension("new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("handover");
        replace_directory(&place, &[("a", b"1"), ("b", b"2")]).unwrap();
        // What a power cut left.
        fs::create_dir(dir.path().join("handover.new")).unwrap();
        replace_directory(&place, &[("a", b"3")]).unwrap();
        assert_eq!(read(&place.join("a"), 9).unwrap().unwrap(), b"3");
        assert_eq!(read(&place.join("b"), 9).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_beyond_its_bound_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "123").unwrap();
        assert!(read(&dir.path().join("f"), 2).is_err());
        assert_eq!(read(&dir.path().join("f"), 3).unwrap().unwrap(), b"123");
    }
}
