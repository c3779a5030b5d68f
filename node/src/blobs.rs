//! Files that this machine keeps for members, each under its hash in a directory of its own:
//!
//! | name | what |
//! |---|---|
//! | `data`, `outline` | all of it, and its nodes |
//! | `by-KEY` | who put it, by the first node key of the machine; empty |
//! | `part-KEY` | what came of it so far from that machine |
//!
//! So nothing is read but names, lengths and what its hash checks. A part is as long as the file is to be and
//! counts so; it belongs to whoever sends it, since whoever knows a hash need not have the file.

mod held;
pub(crate) mod session;
mod taking;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use identity::{BlobHash, Code, PublicKey, encode_hex};

use held::{Entry, Part};
pub use taking::Taking;

/// `[blobs]`: how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all.
    pub max: u64,
    /// Bytes for one member.
    pub member: u64,
}

/// Why it is not done.
#[derive(Debug)]
pub struct BlobsError {
    /// The code.
    pub code: Code,
    /// What exactly, for this machine's log.
    pub detail: String,
}

impl fmt::Display for BlobsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.detail)
    }
}

impl core::error::Error for BlobsError {}

/// The directory, and what lies in it.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    room: Room,
    index: Mutex<BTreeMap<BlobHash, Entry>>,
}

/// What a put begins with.
#[derive(Debug)]
pub enum Begun {
    /// It is kept for this member already.
    Kept,
    /// What is missing goes here.
    Taking(Box<Taking>),
}

/// A file that is kept, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBlob {
    /// Its hash.
    pub file: BlobHash,
    /// Its length.
    pub bytes: u64,
    /// Whether all of it is here.
    pub is_whole: bool,
    /// For whom: who put it, or is putting it.
    pub of: Vec<PublicKey>,
}

impl Blobs {
    /// What lies below a state directory.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(state_dir: &Path, room: Room) -> io::Result<Self> {
        let dir = state_dir.join(DIRECTORY);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut index = BTreeMap::new();
        for found in fs::read_dir(&dir)? {
            let found = found?;
            let Ok(file) = BlobHash::from_hex(&found.file_name().to_string_lossy()) else { continue };
            let mut entry = Entry::read(&found.path())?;
            if entry.owners.is_empty() && entry.bytes.take().is_some() {
                remove_if_there(&found.path().join(DATA))?;
            }
            if entry.bytes.is_some() || !entry.parts.is_empty() {
                index.insert(file, entry);
            } else {
                // A put or a removal that a power cut has interrupted.
                fs::remove_dir_all(found.path())?;
            }
        }
        Ok(Self { dir, room, index: Mutex::new(index) })
    }

    /// A member wants a file to be kept.
    ///
    /// # Errors
    /// [`Code::BlobsFull`], [`Code::Busy`] while it is putting the same, or the disk's.
    pub fn begin(self: &Arc<Self>, file: BlobHash, bytes: u64, by: PublicKey) -> Result<Begun, BlobsError> {
        let mut index = self.index();
        if index.get(&file).is_some_and(|entry| entry.bytes.is_some() && entry.owners.contains(&by)) {
            return Ok(Begun::Kept);
        }
        if index.get(&file).and_then(|entry| entry.parts.get(&by)).is_some_and(|part| part.is_live) {
            return Err(BlobsError { code: Code::Busy, detail: format!("{file} is being put already") });
        }
        self.make_room(&mut index, (file, by), bytes)?;
        let dir = self.path(&file);
        let path = dir.join(part_of(&by));
        let made = make_dir(&dir).and_then(|()| {
            let mut options = OpenOptions::new();
            let opened =
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            opened.set_len(bytes)?;
            Ok(opened)
        });
        let opened = made.map_err(|error| not_kept(&path, &error))?;
        let part = Part { bytes, touched: SystemTime::now(), is_live: true };
        index.entry(file).or_default().parts.insert(by, part);
        drop(index);
        let taking = Taking { blobs: Arc::clone(self), hash: file, by, file: opened, path, dir };
        Ok(Begun::Taking(Box::new(taking)))
    }

    /// Bytes of a file, or of its nodes, for a member that put it or may get what others have put.
    ///
    /// # Errors
    /// [`Code::BlobNotHeld`] whether it is not here or not for this member; or the disk's.
    pub fn read(
        &self,
        file: &BlobHash,
        who: Asker,
        what: What,
        range: (u64, u64),
    ) -> Result<Vec<u8>, BlobsError> {
        let is_for =
            |entry: &Entry| entry.bytes.is_some() && (who.permitted || entry.owners.contains(&who.member));
        if !self.index().get(file).is_some_and(is_for) {
            return Err(not_held(file));
        }
        let path = self.path(file).join(what.name());
        let (start, max) = range;
        let read = File::open(&path).and_then(|mut opened| {
            let mut bytes = Vec::new();
            opened.seek(SeekFrom::Start(start))?;
            opened.take(max).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) if bytes.is_empty() => Err(not_held(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_held(file)),
            read => read.map_err(|error| problem(&path, &error)),
        }
    }

    /// A member no longer wants it to be kept.
    ///
    /// # Errors
    /// [`Code::BlobNotHeld`] if it did not put it, [`Code::Busy`] while it does; or the disk's.
    pub fn remove(&self, file: &BlobHash, by: PublicKey) -> Result<(), BlobsError> {
        let mut index = self.index();
        let entry = index.get_mut(file).ok_or_else(|| not_held(file))?;
        if entry.parts.get(&by).is_some_and(|part| part.is_live) {
            return Err(BlobsError { code: Code::Busy, detail: format!("{file} is being put") });
        }
        if !entry.parts.contains_key(&by) && !entry.owners.contains(&by) {
            return Err(not_held(file));
        }
        let dir = self.path(file);
        let gone = || {
            remove_if_there(&dir.join(part_of(&by)))?;
            remove_if_there(&dir.join(owner(&by)))?;
            File::open(&dir)?.sync_all()
        };
        gone().map_err(|error| problem(&dir, &error))?;
        entry.parts.remove(&by);
        entry.owners.remove(&by);
        if entry.owners.is_empty() {
            self.forget(&mut index, file)?;
        }
        Ok(())
    }

    /// The operator no longer wants it to be kept, whoever put it.
    ///
    /// # Errors
    /// [`Code::BlobNotHeld`], [`Code::Busy`] while it is being put, or the disk's.
    pub fn drop_all(&self, file: &BlobHash) -> Result<(), BlobsError> {
        let mut index = self.index();
        let entry = index.get_mut(file).ok_or_else(|| not_held(file))?;
        if entry.parts.values().any(|part| part.is_live) {
            return Err(BlobsError { code: Code::Busy, detail: format!("{file} is being put") });
        }
        entry.parts.clear();
        self.forget(&mut index, file)
    }

    /// What is kept.
    #[must_use]
    pub fn list(&self) -> Vec<KeptBlob> {
        let kept = |(file, entry): (&BlobHash, &Entry)| KeptBlob {
            file: *file,
            bytes: entry.bytes.or_else(|| entry.parts.values().map(|part| part.bytes).max()).unwrap_or(0),
            is_whole: entry.bytes.is_some(),
            of: entry
                .owners
                .iter()
                .chain(entry.parts.keys())
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        };
        self.index().iter().map(kept).collect()
    }

    /// How many bytes there may be, and are.
    #[must_use]
    pub fn room(&self) -> (Room, u64) {
        (self.room, self.index().values().map(Entry::bytes).sum())
    }

    /// The file goes, and its directory unless something is on its way.
    fn forget(&self, index: &mut BTreeMap<BlobHash, Entry>, file: &BlobHash) -> Result<(), BlobsError> {
        let dir = self.path(file);
        let is_over = index.get(file).is_none_or(|entry| entry.parts.is_empty());
        let gone = || {
            remove_if_there(&dir.join(DATA))?;
            remove_if_there(&dir.join(OUTLINE))?;
            if is_over {
                fs::remove_dir_all(&dir)?;
            }
            File::open(if is_over { &self.dir } else { &dir })?.sync_all()
        };
        gone().map_err(|error| problem(&dir, &error))?;
        match index.get_mut(file) {
            Some(entry) if !is_over => entry.bytes = None,
            Some(_) | None => drop(index.remove(file)),
        }
        Ok(())
    }

    fn path(&self, file: &BlobHash) -> PathBuf {
        self.dir.join(encode_hex(file.as_bytes()))
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<BlobHash, Entry>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks for a file, and whether the org's policy gives it what others have put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The first node key of the machine.
    pub member: PublicKey,
    /// Whether `blob-get` is permitted.
    pub permitted: bool,
}

/// What of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its bytes.
    Data,
    /// Its nodes.
    Outline,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => DATA,
            Self::Outline => OUTLINE,
        }
    }
}

/// A directory that stays.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => File::open(dir.parent().unwrap_or(dir))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn owner(member: &PublicKey) -> String {
    format!("{OWNER}{member}")
}

fn part_of(member: &PublicKey) -> String {
    format!("{PART}{member}")
}

fn not_held(file: &BlobHash) -> BlobsError {
    BlobsError { code: Code::BlobNotHeld, detail: file.to_string() }
}

fn problem(path: &Path, error: &io::Error) -> BlobsError {
    BlobsError { code: Code::FileProblem, detail: format!("{}: {error}", path.display()) }
}

fn not_kept(path: &Path, error: &io::Error) -> BlobsError {
    BlobsError { code: Code::BlobNotKept, detail: format!("{}: {error}", path.display()) }
}

/// Below the state directory.
const DIRECTORY: &str = "blobs";
const DATA: &str = "data";
const OUTLINE: &str = "outline";
const OWNER: &str = "by-";
const PART: &str = "part-";
