//! What is held of each file, and whether there is room for one more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use identity::{
    BlobHash, Code, PublicKey,
    limits::{BLOB_PART_KEPT_MS, BLOBS_KEPT_MAX, BLOBS_PER_MEMBER_MAX},
};

use super::{Blobs, BlobsError, DATA, OWNER, PART, part_of, problem, remove_if_there};

/// A file, by whoever put it or is putting it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// How long it is; none while only parts are there.
    pub(super) bytes: Option<u64>,
    pub(super) owners: BTreeSet<PublicKey>,
    pub(super) parts: BTreeMap<PublicKey, Part>,
}

/// What came of it from one machine.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: u64,
    pub(super) touched: SystemTime,
    pub(super) is_live: bool,
}

impl Entry {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
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
    pub(super) fn bytes(&self) -> u64 {
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

impl Blobs {
    /// Parts that nobody sends go when they are old, or when what is put now needs their room.
    pub(super) fn make_room(
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
}
