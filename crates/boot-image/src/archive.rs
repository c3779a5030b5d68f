//! An initramfs: cpio in the kernel's `newc` form, compressed by gzip. No times, users or inode numbers
//! of the machine that made it are in it.

use core::fmt;
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use identity::limits::INITRAMFS_BYTES_MAX;

/// A tree of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive(BTreeMap<String, Entry>);

/// One name in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file; executable or not.
    File {
        /// Its contents.
        content: Vec<u8>,
        /// Whether it is a program or library.
        executable: bool,
    },
    /// A symbolic link to this path.
    Link(String),
}

impl Archive {
    /// Puts a file at a path without a leading slash, and the directories above it.
    pub fn file(&mut self, path: &str, content: Vec<u8>, executable: bool) {
        self.put(path, Entry::File { content, executable });
    }

    /// Puts a directory, and those above it.
    pub fn directory(&mut self, path: &str) {
        self.put(path, Entry::Directory);
    }

    /// Puts a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    /// The file at a path.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(path)? {
            Entry::File { content, .. } => Some(content),
            Entry::Directory | Entry::Link(_) => None,
        }
    }

    /// Everything in it, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let slashes = path.match_indices('/').map(|(at, _)| at);
        for above in slashes.filter_map(|at| path.get(..at)) {
            self.0.entry(above.to_owned()).or_insert(Entry::Directory);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The compressed archive.
    ///
    /// # Errors
    /// It is larger than a reader takes.
    pub fn pack(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut cpio = Vec::new();
        for (number, (path, entry)) in (1_u32..).zip(&self.0) {
            let (mode, content): (u32, &[u8]) = match entry {
                Entry::Directory => (DIRECTORY, &[]),
                Entry::File { content, executable: true } => (PROGRAM, content),
                Entry::File { content, executable: false } => (FILE, content),
                Entry::Link(target) => (LINK, target.as_bytes()),
            };
            append(&mut cpio, number, mode, path, content)?;
        }
        append(&mut cpio, 0, 0, TRAILER, &[])?;
        if cpio.len() > INITRAMFS_BYTES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        // Without a name and a time in its head, the same archive gives the same bytes.
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::new(LEVEL));
        let done = packed.write_all(&cpio).and_then(|()| packed.finish());
        done.map_err(|_| ArchiveError::Compression)
    }

    /// Reads what [`Self::pack`] made. The kernel unpacks what follows an archive, too, and lets a later
    /// file replace an earlier one; so an archive of another form than ours, which may be another tree to
    /// the kernel than to us, is none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn unpack(packed: &[u8]) -> Result<Self, ArchiveError> {
        let mut cpio = Vec::new();
        let bound = u64::try_from(INITRAMFS_BYTES_MAX).unwrap_or(u64::MAX);
        let mut decoder = GzDecoder::new(packed).take(bound.saturating_add(1));
        decoder.read_to_end(&mut cpio).map_err(|_| ArchiveError::Compression)?;
        if cpio.len() > INITRAMFS_BYTES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        if !decoder.into_inner().into_inner().is_empty() {
            return Err(ArchiveError::Malformed);
        }
        Self::read(&cpio)
    }

    fn read(cpio: &[u8]) -> Result<Self, ArchiveError> {
        let mut archive = Self::default();
        let mut rest = Rest { all: cpio, at: 0 };
        for number in 1_u32.. {
            let start = rest.at;
            let head = Head::read(rest.take(HEAD_BYTES)?)?;
            let name = rest.take(head.name_bytes)?;
            rest.align()?;
            let content = rest.take(head.content_bytes)?;
            rest.align()?;
            let name = name.split_last().filter(|(last, _)| **last == 0).map(|(_, name)| name);
            let path =
                name.and_then(|name| core::str::from_utf8(name).ok()).ok_or(ArchiveError::Malformed)?;
            let is_end = path == TRAILER;
            let as_we_write = |number, mode| {
                let mut again = Vec::with_capacity(rest.at - start);
                append(&mut again, number, mode, path, content)?;
                let is_same = cpio.get(start..rest.at) == Some(again.as_slice());
                if is_same { Ok(()) } else { Err(ArchiveError::Malformed) }
            };
            if is_end {
                as_we_write(0, 0)?;
                return if rest.at == cpio.len() { Ok(archive) } else { Err(ArchiveError::Malformed) };
            }
            as_we_write(number, head.mode)?;
            let entry = match head.mode {
                DIRECTORY if content.is_empty() => Entry::Directory,
                LINK => {
                    Entry::Link(String::from_utf8(content.to_vec()).map_err(|_| ArchiveError::Malformed)?)
                }
                PROGRAM => Entry::File { content: content.to_vec(), executable: true },
                FILE => Entry::File { content: content.to_vec(), executable: false },
                _ => return Err(ArchiveError::Malformed),
            };
            if archive.0.last_key_value().is_some_and(|(before, _)| before.as_str() >= path) {
                return Err(ArchiveError::Malformed);
            }
            archive.0.insert(path.to_owned(), entry);
        }
        Err(ArchiveError::Malformed)
    }
}

/// Why there is no archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The compressed bytes are none.
    Compression,
    /// The bytes are no archive of ours.
    Malformed,
    /// Larger than [`INITRAMFS_BYTES_MAX`].
    TooLarge,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compression => f.write_str("the initramfs does not unpack"),
            Self::Malformed => f.write_str("the initramfs is not an archive that muster makes"),
            Self::TooLarge => write!(f, "the initramfs is larger than {INITRAMFS_BYTES_MAX} bytes"),
        }
    }
}

impl core::error::Error for ArchiveError {}

fn append(
    cpio: &mut Vec<u8>,
    number: u32,
    mode: u32,
    path: &str,
    content: &[u8],
) -> Result<(), ArchiveError> {
    let size = u32::try_from(content.len()).map_err(|_| ArchiveError::TooLarge)?;
    let name = u32::try_from(path.len() + 1).map_err(|_| ArchiveError::TooLarge)?;
    let links = 1;
    let fields = [number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
    cpio.extend_from_slice(MAGIC);
    for field in fields {
        cpio.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    cpio.extend_from_slice(path.as_bytes());
    cpio.push(0);
    cpio.resize(cpio.len().next_multiple_of(4), 0);
    cpio.extend_from_slice(content);
    cpio.resize(cpio.len().next_multiple_of(4), 0);
    Ok(())
}

struct Head {
    mode: u32,
    content_bytes: usize,
    name_bytes: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let fields = bytes.strip_prefix(MAGIC).ok_or(ArchiveError::Malformed)?;
        let field = |number: usize| {
            let digits = fields.get(number * 8..number * 8 + 8)?;
            u32::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
        };
        let size =
            |number| field(number).and_then(|n| usize::try_from(n).ok()).ok_or(ArchiveError::Malformed);
        Ok(Self {
            mode: field(1).ok_or(ArchiveError::Malformed)?,
            content_bytes: size(6)?,
            name_bytes: size(11)?,
        })
    }
}

struct Rest<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ArchiveError> {
        let end = self.at.checked_add(bytes).ok_or(ArchiveError::Malformed)?;
        let taken = self.all.get(self.at..end).ok_or(ArchiveError::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self) -> Result<(), ArchiveError> {
        let bytes = self.at.next_multiple_of(4) - self.at;
        self.take(bytes).map(|_| ())
    }
}

const MAGIC: &[u8] = b"070701";
const HEAD_BYTES: usize = 110;
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const PROGRAM: u32 = 0o100_755;
const LEVEL: u32 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Archive {
        let mut archive = Archive::default();
        archive.file("usr/bin/init", vec![1, 2, 3], true);
        archive.file("muster/bundle.pem", b"pem".to_vec(), false);
        archive.link("init", "usr/bin/init");
        archive.directory("proc");
        archive
    }

    #[test]
    fn an_archive_reads_back_and_is_the_same_bytes_each_time() {
        let packed = example().pack().unwrap();
        assert_eq!(Archive::unpack(&packed), Ok(example()));
        let mut other = Archive::default();
        for (path, entry) in example().iter().collect::<Vec<_>>().into_iter().rev() {
            other.put(path, entry.clone());
        }
        assert_eq!(other.pack().unwrap(), packed, "the order of adding does not show");
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let names: Vec<_> = example().iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(names, ["init", "muster", "muster/bundle.pem", "proc", "usr", "usr/bin", "usr/bin/init"]);
    }

    #[test]
    fn what_the_kernel_would_read_otherwise_is_no_archive() {
        let packed = example().pack().unwrap();
        let mut hidden = Archive::default();
        hidden.file("muster/bundle.pem", b"another".to_vec(), false);
        let second = [packed.as_slice(), &hidden.pack().unwrap()].concat();
        assert_eq!(Archive::unpack(&second), Err(ArchiveError::Malformed), "an archive behind it");
        let unpacked = |packed: &[u8]| {
            let mut cpio = Vec::new();
            GzDecoder::new(packed).read_to_end(&mut cpio).unwrap();
            cpio
        };
        let (first, second) = (unpacked(&packed), unpacked(&hidden.pack().unwrap()));
        assert_eq!(Archive::read(&first), Ok(example()));
        let behind = [first.as_slice(), &second].concat();
        assert_eq!(Archive::read(&behind), Err(ArchiveError::Malformed), "behind it, in one stream");
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 0x20;
            assert_ne!(Archive::read(&changed), Ok(example()), "byte {at}");
        }
        let mut twice = Vec::new();
        for number in [1, 2] {
            append(&mut twice, number, FILE, "a", &[u8::try_from(number).unwrap()]).unwrap();
        }
        append(&mut twice, 0, 0, TRAILER, &[]).unwrap();
        assert_eq!(Archive::read(&twice), Err(ArchiveError::Malformed), "one name twice");
    }

    #[test]
    fn an_archive_cut_short_is_an_error() {
        let packed = example().pack().unwrap();
        for length in 0..packed.len() - 8 {
            assert!(Archive::unpack(&packed[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut packed = GzBuilder::new().write(Vec::new(), Compression::fast());
            packed.write_all(MAGIC).unwrap();
            packed.write_all(&bytes).unwrap();
            prop_assert!(Archive::unpack(&packed.finish().unwrap()).is_err());
            prop_assert!(Archive::unpack(&bytes).is_err());
        }
    }
}
