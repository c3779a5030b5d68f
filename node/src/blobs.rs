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

pub(crate) mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use identity::{
    BlobHash, Code, Outline, PublicKey, encode_hex,
    limits::{BLOB_PART_KEPT_MS, BLOB_PIECE_BYTES, BLOBS_KEPT_MAX, BLOBS_PER_MEMBER_MAX},
};

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

#[derive(Debug, Default)]
struct Entry {
    /// How long it is; none while only parts are there.
    bytes: Option<u64>,
    owners: BTreeSet<PublicKey>,
    parts: BTreeMap<PublicKey, Part>,
}

#[derive(Debug)]
struct Part {
    bytes: u64,
    touched: SystemTime,
    is_live: bool,
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

    /// Parts that nobody sends go when they are old, or when what is put now needs their room.
    fn make_room(
        &self,
        index: &mut BTreeMap<BlobHash, Entry>,
        (file, by): (BlobHash, PublicKey),
        bytes: u64,
    ) -> Result<(), BlobsError> {
        let old = SystemTime::now().checked_sub(Duration::from_millis(BLOB_PART_KEPT_MS));
        let mut idle: Vec<(SystemTime, BlobHash, PublicKey)> = Vec::new();
        for (hash, entry) in index.iter() {
            let parts = entry.parts.iter().filter(|(of, part)| !part.is_live && (*hash, **of) != (file, by));
            idle.extend(parts.map(|(of, part)| (part.touched, *hash, *of)));
        }
        idle.sort();
        let full = || BlobsError { code: Code::BlobsFull, detail: format!("{file} of {bytes} bytes") };
        if bytes > self.room.member.min(self.room.max) {
            return Err(full());
        }
        for (touched, hash, of) in &idle {
            let is_old = old.is_some_and(|old| *touched < old);
            let lacks_own = !self.has_room_of(index, (file, by), bytes);
            if is_old || (lacks_own && *of == by) {
                self.end_part(index, hash, of)?;
            }
        }
        if !self.has_room_of(index, (file, by), bytes) {
            return Err(full());
        }
        for (_, hash, of) in &idle {
            if self.has_room(index, (file, by), bytes) {
                break;
            }
            self.end_part(index, hash, of)?;
        }
        if self.has_room(index, (file, by), bytes) { Ok(()) } else { Err(full()) }
    }

    fn has_room_of(
        &self,
        index: &BTreeMap<BlobHash, Entry>,
        (file, by): (BlobHash, PublicKey),
        bytes: u64,
    ) -> bool {
        let others = || index.iter().map(|(hash, entry)| entry.of(&by, *hash == file));
        let (count, used) = others().fold((0, 0), |(count, used), (n, bytes)| (count + n, used + bytes));
        count < BLOBS_PER_MEMBER_MAX && self.room.member.saturating_sub(used) >= bytes
    }

    fn has_room(
        &self,
        index: &BTreeMap<BlobHash, Entry>,
        (file, by): (BlobHash, PublicKey),
        bytes: u64,
    ) -> bool {
        let before = index.get(&file).and_then(|entry| entry.parts.get(&by)).map_or(0, |part| part.bytes);
        let used: u64 = index.values().map(Entry::bytes).sum();
        let count: usize = index.values().map(|entry| 1 + entry.parts.len()).sum();
        count < BLOBS_KEPT_MAX && self.room.max.saturating_sub(used - before) >= bytes
    }

    fn end_part(
        &self,
        index: &mut BTreeMap<BlobHash, Entry>,
        file: &BlobHash,
        of: &PublicKey,
    ) -> Result<(), BlobsError> {
        let path = self.path(file).join(part_of(of));
        remove_if_there(&path).map_err(|error| problem(&path, &error))?;
        let Some(entry) = index.get_mut(file) else { return Ok(()) };
        entry.parts.remove(of);
        if entry.parts.is_empty() && entry.bytes.is_none() { self.forget(index, file) } else { Ok(()) }
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

impl Entry {
    fn read(dir: &Path) -> io::Result<Self> {
        let mut entry = Self::default();
        for found in fs::read_dir(dir)? {
            let found = found?;
            let (name, metadata) = (found.file_name(), found.metadata()?);
            let name = name.to_string_lossy();
            if name == DATA {
                entry.bytes = Some(metadata.len());
            } else if let Some(key) = name.strip_prefix(OWNER) {
                entry.owners.extend(PublicKey::from_hex(key).ok());
            } else if let Some(Ok(key)) = name.strip_prefix(PART).map(PublicKey::from_hex) {
                let touched = metadata.modified()?;
                entry.parts.insert(key, Part { bytes: metadata.len(), touched, is_live: false });
            }
        }
        Ok(entry)
    }

    /// On disk, or soon to be.
    fn bytes(&self) -> u64 {
        self.bytes.unwrap_or(0) + self.parts.values().map(|part| part.bytes).sum::<u64>()
    }

    /// How many of them are a member's, and their bytes; of `this` one not the part.
    fn of(&self, member: &PublicKey, this: bool) -> (usize, u64) {
        let whole = self.bytes.filter(|_| self.owners.contains(member));
        let part = self.parts.get(member).filter(|_| !this).map(|part| part.bytes);
        let each = || whole.into_iter().chain(part);
        (each().count(), each().sum())
    }
}

/// A file on its way in.
#[derive(Debug)]
pub struct Taking {
    blobs: Arc<Blobs>,
    hash: BlobHash,
    by: PublicKey,
    file: File,
    path: PathBuf,
    dir: PathBuf,
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
    /// [`Code::BlobNotKept`].
    pub fn write(&self, index: u32, piece: &[u8]) -> Result<(), BlobsError> {
        let at = u64::from(index) * BLOB_PIECE_BYTES as u64;
        self.file.write_all_at(piece, at).map_err(|error| not_kept(&self.path, &error))
    }

    /// All of it is there. When this returns it stays, whatever happens to the machine.
    ///
    /// # Errors
    /// [`Code::BlobNotKept`].
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

/// A directory that stays.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => File::open(dir.parent().unwrap_or(dir))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()
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
