//! The store's files in a directory, under one lock.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{Disk, StoreError};

/// The directory `store` below the state directory. Locked as long as this lives.
#[derive(Debug)]
pub struct DirectoryDisk {
    directory: PathBuf,
    members: Option<File>,
    acknowledged: Option<File>,
    new: Option<File>,
    _lock: File,
}

impl DirectoryDisk {
    /// Makes the directory if need be and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it, [`StoreError::Disk`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(StoreError::Disk)?;
        let lock = options().open(directory.join("lock")).map_err(StoreError::Disk)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => StoreError::InUse,
            other => StoreError::Disk(other.into()),
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            members: None,
            acknowledged: None,
            new: None,
            _lock: lock,
        })
    }

    fn members(&mut self) -> io::Result<&File> {
        match &mut self.members {
            Some(file) => Ok(file),
            none @ None => {
                Ok(none.insert(OpenOptions::new().write(true).open(self.directory.join(MEMBERS))?))
            }
        }
    }
}

impl Disk for DirectoryDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        read(&self.directory.join(MEMBERS))
    }

    fn read_acknowledged(&mut self) -> io::Result<Option<Vec<u8>>> {
        read(&self.directory.join(ACKNOWLEDGED))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.members()?.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.members()?.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.members()?.sync_data()
    }

    fn write_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = options().truncate(true).open(self.directory.join(NEW))?;
        file.write_all(bytes)?;
        self.new = Some(file);
        Ok(())
    }

    fn sync_new(&mut self) -> io::Result<()> {
        self.new.as_ref().map_or_else(|| Err(io::ErrorKind::NotFound.into()), File::sync_all)
    }

    fn rename_new(&mut self) -> io::Result<()> {
        fs::rename(self.directory.join(NEW), self.directory.join(MEMBERS))?;
        self.members = self.new.take();
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn write_acknowledged(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.acknowledged {
            Some(file) => file,
            none @ None => none.insert(options().open(self.directory.join(ACKNOWLEDGED))?),
        };
        file.write_all_at(bytes, 0)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

const MEMBERS: &str = "members";
const NEW: &str = "members.new";
const ACKNOWLEDGED: &str = "acknowledged";
