//! A file on its way in: the pieces of a put, and the moment from which it stays.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use identity::{BlobHash, Outline, PublicKey, limits::BLOB_PIECE_BYTES};

use super::{Blobs, BlobsError, DATA, OUTLINE, not_kept, owner, problem};

/// A file on its way in.
#[derive(Debug)]
pub struct Taking {
    pub(super) blobs: Arc<Blobs>,
    pub(super) hash: BlobHash,
    pub(super) by: PublicKey,
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) dir: PathBuf,
}

impl Taking {
    /// How many pieces from the first on an earlier try has left, each checked.
    ///
    /// # Errors
    /// The disk's.
    pub fn resume(&self, outline: &Outline) -> Result<u32, BlobsError> {
        let mut piece = Vec::with_capacity(BLOB_PIECE_BYTES);
        for index in 0..outline.pieces() {
            piece.clear();
            let read = (&self.file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece);
            read.map_err(|error| problem(&self.path, &error))?;
            if outline.check(index, &piece).is_err() {
                return Ok(index);
            }
        }
        Ok(outline.pieces())
    }

    /// One piece, which was checked.
    ///
    /// # Errors
    /// [`identity::Code::BlobNotKept`].
    pub fn write(&self, index: u32, piece: &[u8]) -> Result<(), BlobsError> {
        let at = u64::from(index) * BLOB_PIECE_BYTES as u64;
        self.file.write_all_at(piece, at).map_err(|error| not_kept(&self.path, &error))
    }

    /// All of it is there. When this returns it stays, whatever happens to the machine.
    ///
    /// # Errors
    /// [`identity::Code::BlobNotKept`].
    pub fn finish(self, outline: &Outline) -> Result<(), BlobsError> {
        let failed = |error: io::Error| not_kept(&self.path, &error);
        self.file.sync_all().map_err(failed)?;
        let mut index = self.blobs.index();
        let entry = index.entry(self.hash).or_default();
        let is_here = entry.bytes.is_some();
        let named = || {
            if !is_here {
                write_synced(&self.dir.join(OUTLINE), &outline.encode())?;
            }
            write_synced(&self.dir.join(owner(&self.by)), &[])?;
            // Who put it stands there before it does: nothing is kept for nobody.
            File::open(&self.dir)?.sync_all()?;
            if is_here {
                fs::remove_file(&self.path)?
            } else {
                fs::rename(&self.path, self.dir.join(DATA))?
            }
            File::open(&self.dir)?.sync_all()
        };
        named().map_err(failed)?;
        entry.parts.remove(&self.by);
        entry.bytes = Some(outline.bytes());
        entry.owners.insert(self.by);
        Ok(())
    }
}

/// What came of it waits for the rest, if it is not whole.
impl Drop for Taking {
    fn drop(&mut self) {
        let mut index = self.blobs.index();
        if let Some(part) = index.get_mut(&self.hash).and_then(|entry| entry.parts.get_mut(&self.by)) {
            part.is_live = false;
            part.touched = SystemTime::now();
        }
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()
}
