//! A disk in memory under the real store: what was not synced may be torn when the machine stops.

use std::{cell::RefCell, io, rc::Rc};

use musterd::store::Disk;
use rand::{RngExt as _, rngs::StdRng};

/// How a disk treats its machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    /// Nothing more fits.
    pub(crate) is_full: bool,
    /// It fails, reading and writing: EIO.
    pub(crate) fails: bool,
    /// It says that bytes are durable and they are not.
    pub(crate) forgets_syncs: bool,
    /// The machine stops after this many more operations.
    pub(crate) operations_left: Option<u32>,
}

#[derive(Debug, Default)]
struct Files {
    members: Option<Vec<u8>>,
    durable: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
    is_renamed: bool,
    /// A sync failed: what was to be written then is lost, and no later sync of the file knows of it.
    is_dropped: bool,
    acknowledged: Option<Vec<u8>>,
    mood: Mood,
    /// A sync was lied about since the last time the machine stopped.
    has_lied: bool,
}

/// A machine's disk; clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Rc<RefCell<Files>>);

impl SimDisk {
    pub(crate) fn mood<T>(&self, change: impl FnOnce(&mut Mood) -> T) -> T {
        change(&mut self.0.borrow_mut().mood)
    }

    /// Whether a sync was lied about since the machine last stopped.
    pub(crate) fn has_lied(&self) -> bool {
        self.0.borrow().has_lied
    }

    /// What would be read after a power cut now, with nothing of the unsynced kept.
    pub(crate) fn durable(&self) -> Self {
        let files = self.0.borrow();
        Self(Rc::new(RefCell::new(Files {
            members: files.durable.clone(),
            durable: files.durable.clone(),
            ..Files::default()
        })))
    }

    /// Nothing is on it.
    pub(crate) fn wipe(&self) {
        *self.0.borrow_mut() = Files::default();
    }

    /// A copy of what is durable, and putting one back: a backup.
    pub(crate) fn backup(&self) -> Option<Vec<u8>> {
        self.0.borrow().durable.clone()
    }

    pub(crate) fn restore(&self, backup: Option<Vec<u8>>) {
        *self.0.borrow_mut() = Files { members: backup.clone(), durable: backup, ..Files::default() };
    }

    /// Bits of what is durable turn.
    pub(crate) fn rot(&self, rng: &mut StdRng) {
        let mut files = self.0.borrow_mut();
        if let Some(bytes) = files.durable.as_mut().filter(|bytes| !bytes.is_empty()) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        files.members = files.durable.clone();
    }

    /// The machine stops: of what was not synced some survives, whole, in part, as zeros or not; a
    /// rename that was not synced may or may not have happened.
    pub(crate) fn stop(&self, rng: &mut StdRng) {
        let mut files = self.0.borrow_mut();
        let keeps_rename = rng.random_bool(0.5);
        let survives = rng.random_range(0..5);
        let old = files.durable.clone();
        let mut members = if files.is_renamed && !keeps_rename { old.clone() } else { files.members.clone() };
        let length = old.as_ref().map_or(0, Vec::len);
        let forgets = files.has_lied && rng.random_bool(0.7);
        if forgets || files.is_dropped && !files.is_renamed {
            members = old;
        } else if let Some(bytes) = members.as_mut().filter(|bytes| !files.is_renamed && bytes.len() > length)
        {
            let torn = length + rng.random_range(0..=bytes.len() - length);
            match survives {
                0 => {}
                1 => bytes.truncate(torn),
                2 => bytes[length..].fill(0),
                3 => bytes[torn..].fill(0xa5),
                _ => bytes.truncate(length),
            }
        }
        *files = Files {
            durable: members.clone(),
            members,
            // Never synced: it may lag behind, but it was written after what it speaks of.
            acknowledged: files.acknowledged.take(),
            ..Files::default()
        };
    }

    fn step<T>(&self, writes: bool, act: impl FnOnce(&mut Files) -> T) -> io::Result<T> {
        let mut files = self.0.borrow_mut();
        match &mut files.mood.operations_left {
            Some(0) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        if files.mood.fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if writes && files.mood.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(act(&mut files))
    }
}

impl Disk for SimDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.0.borrow().mood.fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(self.0.borrow().members.clone())
    }

    fn read_acknowledged(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().acknowledged.clone())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(true, |files| {
            let file = files.members.get_or_insert_default();
            file.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
            file.extend_from_slice(bytes);
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.step(false, |files| {
            files.members.get_or_insert_default().truncate(usize::try_from(length).unwrap_or(usize::MAX));
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.0.borrow().mood.fails {
            // As Linux does: what could not be written counts as written from then on.
            self.0.borrow_mut().is_dropped = true;
        }
        self.step(false, |files| {
            if files.is_dropped {
                // It says so and they are not.
            } else if files.mood.forgets_syncs {
                files.has_lied = true;
            } else {
                files.durable = files.members.clone();
            }
        })
    }

    fn write_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(true, |files| files.new = Some(bytes.to_vec()))
    }

    fn sync_new(&mut self) -> io::Result<()> {
        self.step(true, |_| ())
    }

    fn rename_new(&mut self) -> io::Result<()> {
        self.step(false, |files| {
            files.members = files.new.take();
            files.is_renamed = true;
            files.is_dropped = false;
        })
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.step(false, |files| {
            if files.mood.forgets_syncs {
                files.has_lied = true;
            } else {
                files.durable = files.members.clone();
                files.is_renamed = false;
            }
        })
    }

    fn write_acknowledged(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(true, |files| files.acknowledged = Some(bytes.to_vec()))
    }
}

/// The number of "input/output error" on Linux.
const EIO: i32 = 5;
