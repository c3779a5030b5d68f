//! The member list on disk: one file that survives a kill at any moment.
//!
//! `members` is a header and frames: first the whole document, then increments, each with its length
//! and a checksum over its place and its bytes. A write is acknowledged after fsync; one is under way
//! at a time. So only the last frame can be torn, and a torn frame was never acknowledged: it is
//! dropped on load. Damage anywhere else is an error and changes nothing. What is known to be
//! acknowledged is noted in `acknowledged` after each fsync, without one of its own: it may lag, but
//! it never says too much, and it tells a torn write from a bad disk.
//!
//! After a failed write the state of the file is unknown (a failed fsync may drop what it was to
//! write), so only a whole new file, written beside and renamed, heals it.

use core::fmt;
use std::io;

use identity::{
    Code, HashContext, OrgId,
    codec::{Reader, Writer},
};

pub use disk::DirectoryDisk;

mod disk;
#[cfg(test)]
mod tests;

/// What the store asks of the operating system, each a point where the machine may stop.
pub trait Disk: fmt::Debug {
    /// The bytes of `members`, if it exists.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// The bytes of `acknowledged`, if it exists.
    fn read_acknowledged(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Writes `bytes` to `members` at `offset`, its end.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts `members` to `length`.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Makes `members` durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Writes a whole new file beside `members`.
    fn write_new(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the new file durable.
    fn sync_new(&mut self) -> io::Result<()>;
    /// Puts the new file in the place of `members`.
    fn rename_new(&mut self) -> io::Result<()>;
    /// Makes the rename durable.
    fn sync_directory(&mut self) -> io::Result<()>;
    /// Overwrites `acknowledged`; never made durable on purpose.
    fn write_acknowledged(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Why the store cannot be opened or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// What was acknowledged does not read back. Nothing was changed.
    Damaged {
        /// Offset of the first bad frame.
        at: u64,
    },
    /// The operating system refused.
    Disk(io::Error),
    /// Another process holds the store.
    InUse,
    /// A newer release wrote it, in a format of this number.
    Newer(u32),
    /// A frame of more than 4 GiB, or a broken file that has to be replaced first.
    Unwritable,
}

impl StoreError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => Code::StoreDamaged,
            Self::Disk(_) | Self::Unwritable => Code::DiskRefused,
            Self::InUse => Code::StoreInUse,
            Self::Newer(_) => Code::StoreNewer,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { at } => write!(f, "the member list on disk is damaged at byte {at}"),
            Self::Disk(_) => f.write_str("the disk refused"),
            Self::InUse => f.write_str("another process holds the state directory"),
            Self::Newer(format) => {
                write!(f, "the member list on disk has format {format}, this release writes {FORMAT}")
            }
            Self::Unwritable => f.write_str("the file has to be written anew first"),
        }
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Disk(source) => Some(source),
            Self::Damaged { .. } | Self::InUse | Self::Newer(_) | Self::Unwritable => None,
        }
    }
}

/// The store, open for writing.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    generation: u64,
    length: u64,
    /// Of it, what stands in whole frames: the header and the first.
    whole: u64,
    broken: bool,
}

/// What was in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The org whose document it is; none in a new store.
    pub org: Option<OrgId>,
    /// The document's pieces, one after the other.
    pub document: Vec<u8>,
    /// Bytes of a write that was never acknowledged and was dropped.
    pub dropped: u64,
}

impl<D: Disk> Store<D> {
    /// Opens the store and drops a torn last write.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when acknowledged bytes do not read back, [`StoreError::Newer`], [`StoreError::Disk`].
    pub fn open(mut disk: D) -> Result<(Self, Contents), StoreError> {
        let Some(bytes) = disk.read().map_err(StoreError::Disk)? else {
            // Nothing was ever acknowledged: the first write is a whole file.
            return Ok((
                Self { disk, generation: 0, length: 0, whole: 0, broken: true },
                Contents::default(),
            ));
        };
        let marker = disk.read_acknowledged().map_err(StoreError::Disk)?;
        if let Some(format) = format(&bytes).filter(|format| *format > FORMAT) {
            return Err(StoreError::Newer(format));
        }
        let scan = Scan::new(&bytes).ok_or(StoreError::Damaged { at: 0 })?;
        let generation = scan.generation;
        let acknowledged = marker.and_then(|bytes| read_marker(&bytes, generation)).unwrap_or_default();
        let (contents, length, whole) = scan.run(acknowledged)?;
        let mut store = Self { disk, generation, length, whole, broken: false };
        if contents.dropped > 0 {
            store.disk.truncate(length).map_err(StoreError::Disk)?;
            store.disk.sync().map_err(StoreError::Disk)?;
        }
        Ok((store, contents))
    }

    /// Adds one frame; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Disk`]; then, and until [`Store::replace`] succeeds, [`StoreError::Unwritable`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Unwritable);
        }
        let frame = frame(self.generation, self.length, bytes).ok_or(StoreError::Unwritable)?;
        // Until it is known to be durable the file counts as unknown.
        self.broken = true;
        self.disk.write_at(self.length, &frame).map_err(StoreError::Disk)?;
        self.disk.sync().map_err(StoreError::Disk)?;
        self.broken = false;
        let written = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(written);
        self.acknowledge();
        Ok(())
    }

    /// Writes the whole document anew in place of everything before; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Disk`]; the old file is then still in place or already replaced, both whole.
    pub fn replace(&mut self, org: &OrgId, document: &[u8]) -> Result<(), StoreError> {
        let generation = self.generation.saturating_add(1);
        let mut file = header(generation, org);
        let at = u64::try_from(file.len()).unwrap_or(u64::MAX);
        file.extend(frame(generation, at, document).ok_or(StoreError::Unwritable)?);
        self.broken = true;
        self.disk.write_new(&file).map_err(StoreError::Disk)?;
        self.disk.sync_new().map_err(StoreError::Disk)?;
        self.disk.rename_new().map_err(StoreError::Disk)?;
        self.disk.sync_directory().map_err(StoreError::Disk)?;
        self.broken = false;
        self.generation = generation;
        self.length = u64::try_from(file.len()).unwrap_or(u64::MAX);
        self.whole = self.length;
        self.acknowledge();
        Ok(())
    }

    /// Whether increments have grown so far that the next write should be [`Store::replace`], or a
    /// failed write left no other way.
    #[must_use]
    pub fn wants_replacing(&self) -> bool {
        self.broken || self.increments() > self.whole.max(INCREMENT_BYTES_MIN)
    }

    /// The same of a store that was just opened, when a document that was put together from many pieces
    /// takes several times the memory of one in one piece.
    #[must_use]
    pub fn wants_replacing_at_start(&self) -> bool {
        self.wants_replacing() || self.increments() > INCREMENT_BYTES_MIN / 8
    }

    const fn increments(&self) -> u64 {
        self.length.saturating_sub(self.whole)
    }

    fn acknowledge(&mut self) {
        let body = marker_body(self.generation, self.length);
        let mut marker = body.to_vec();
        marker.extend(HashContext::STORE_FRAME.hash(&[&body]));
        // Only sharpens a diagnosis: a marker that lags costs nothing.
        if let Err(error) = self.disk.write_acknowledged(&marker) {
            tracing::debug!(%error, "note of what is acknowledged not written");
        }
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    generation: u64,
    org: OrgId,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let magic = reader.bytes("magic", MAGIC.len()).ok()?;
        let generation = reader.u64("generation").ok()?;
        let org = OrgId(reader.array("org").ok()?);
        let checksum: [u8; CHECKSUM_BYTES] = reader.array("checksum").ok()?;
        let whole = checksum == self::checksum(generation, 0, org.as_bytes());
        (magic == MAGIC && whole).then_some(Self { bytes, generation, org })
    }

    /// What is there, where it ends, and where its first frame does.
    fn run(&self, acknowledged: u64) -> Result<(Contents, u64, u64), StoreError> {
        let mut whole = 0;
        let mut contents = Contents { org: Some(self.org), ..Contents::default() };
        let mut at = HEADER_BYTES;
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let offset = u64::try_from(at).unwrap_or(u64::MAX);
            match self.frame(offset, rest) {
                Ok(body) => {
                    contents.document.extend_from_slice(body);
                    let first = at == HEADER_BYTES;
                    at = at.saturating_add(FRAME_HEAD_BYTES).saturating_add(body.len());
                    if first {
                        whole = u64::try_from(at).unwrap_or(u64::MAX);
                    }
                }
                // The file appears by a rename after fsync, so its first frame was acknowledged; and
                // what is followed by another write was too.
                Err(Torn { followed }) if at == HEADER_BYTES || followed || offset < acknowledged => {
                    return Err(StoreError::Damaged { at: offset });
                }
                Err(Torn { .. }) => {
                    contents.dropped = u64::try_from(rest.len()).unwrap_or(u64::MAX);
                    return Ok((contents, offset, whole));
                }
            }
        }
        let length = u64::try_from(at).unwrap_or(u64::MAX);
        if length < acknowledged || at == HEADER_BYTES {
            return Err(StoreError::Damaged { at: length });
        }
        Ok((contents, length, whole))
    }

    fn frame(&self, offset: u64, rest: &'a [u8]) -> Result<&'a [u8], Torn> {
        let Some((body, sound, after)) = self.split(offset, rest) else {
            return Err(Torn { followed: false });
        };
        if sound {
            return Ok(body);
        }
        let next = u64::try_from(rest.len().saturating_sub(after.len())).unwrap_or(u64::MAX);
        let following = self.split(offset.saturating_add(next), after);
        Err(Torn { followed: following.is_some_and(|(_, sound, _)| sound) })
    }

    /// The body of a frame as its head has it, whether its checksum holds, and what follows.
    fn split(&self, offset: u64, rest: &'a [u8]) -> Option<(&'a [u8], bool, &'a [u8])> {
        let mut reader = Reader::new(rest);
        let length = usize::try_from(reader.u32("length").ok()?).ok()?;
        let checksum: [u8; CHECKSUM_BYTES] = reader.array("checksum").ok()?;
        let body = reader.bytes("body", length).ok()?;
        Some((body, checksum == self::checksum(self.generation, offset, body), reader.rest()))
    }
}

/// A frame that does not read back, and whether a sound one follows it.
#[derive(Clone, Copy)]
struct Torn {
    followed: bool,
}

fn header(generation: u64, org: &OrgId) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(MAGIC).u64(generation).bytes(org.as_bytes());
    writer.bytes(&checksum(generation, 0, org.as_bytes()));
    writer.into_bytes()
}

/// The number in the first line, which every release's file begins with.
fn format(bytes: &[u8]) -> Option<u32> {
    let number = bytes.strip_prefix(b"muster members ")?;
    let end = number.iter().take(FORMAT_DIGITS_MAX + 1).position(|byte| *byte == b'\n')?;
    core::str::from_utf8(number.get(..end)?).ok()?.parse().ok()
}

fn frame(generation: u64, offset: u64, bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(bytes.len()).ok()?;
    let mut writer = Writer::new();
    writer.u32(length).bytes(&checksum(generation, offset, bytes)).bytes(bytes);
    Some(writer.into_bytes())
}

fn checksum(generation: u64, offset: u64, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let place = marker_body(generation, offset);
    let hash = HashContext::STORE_FRAME.hash(&[&place, bytes]);
    let mut checksum = [0; CHECKSUM_BYTES];
    for (out, byte) in checksum.iter_mut().zip(hash) {
        *out = byte;
    }
    checksum
}

fn marker_body(generation: u64, length: u64) -> [u8; 16] {
    let mut body = [0; 16];
    for (out, byte) in body.iter_mut().zip(generation.to_le_bytes().into_iter().chain(length.to_le_bytes())) {
        *out = byte;
    }
    body
}

fn read_marker(bytes: &[u8], generation: u64) -> Option<u64> {
    let mut reader = Reader::new(bytes);
    let body: [u8; 16] = reader.array("marker").ok()?;
    if reader.rest() != HashContext::STORE_FRAME.hash(&[&body]) {
        return None;
    }
    let mut body = Reader::new(&body);
    let noted = body.u64("generation").ok()?;
    let length = body.u64("length").ok()?;
    (noted == generation).then_some(length)
}

const MAGIC: &[u8] = b"muster members 1\n";
const FORMAT: u32 = 1;
const FORMAT_DIGITS_MAX: usize = 9;
const HEADER_BYTES: usize = MAGIC.len() + 8 + 32 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 4 + CHECKSUM_BYTES;
/// Increments as long as the whole before them, but at least so long, are folded into a new whole: loading
/// replays every one of them, and the document in memory keeps what they replaced. So a byte is written
/// twice more at most, and memory holds at most as much history as list.
const INCREMENT_BYTES_MIN: u64 = 256 * 1024;
