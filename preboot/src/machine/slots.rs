//! The two places for node images on the disk with this machine's state.
//!
//! A slot is a directory that appears whole, by a rename: the image, what the org signed of it, and two
//! small files. `tries` says how often it may still be started; preboot writes it before it hands over.
//! `ready` is written by musterd when the OS was. Nothing here is believed but for that: the image is
//! checked each time it starts, and a file that is missing or torn costs a try at most.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use identity::{
    BlobHash, Code, OrgId, Outline, PublicKey,
    limits::{BLOB_PIECE_BYTES, GENERATION_BYTES_MAX, IMAGE_TRIES_MAX, NODE_IMAGE_BYTES_MAX},
};
use org_trust::{Generation, RunningImage, UnverifiedGeneration};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    console::Console,
    failure::{Failure, Outcome},
    files,
};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    A,
    B,
}

/// A node image that the org signed, in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
    pub(crate) tries: Tries,
}

/// Whether it may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tries {
    /// It was ready once.
    Ready,
    /// So often.
    Left(u8),
}

/// The directory of both.
#[derive(Debug)]
pub(crate) struct Slots {
    dir: PathBuf,
}

/// An image on its way into a slot.
#[derive(Debug)]
pub(crate) struct Receiving {
    dir: PathBuf,
    file: File,
    path: PathBuf,
}

impl Slots {
    pub(crate) fn open(dir: PathBuf) -> Outcome<Self> {
        files::create_directory(&dir)?;
        Ok(Self { dir })
    }

    /// If there are any.
    pub(crate) fn there(dir: PathBuf) -> Option<Self> {
        dir.is_dir().then_some(Self { dir })
    }

    /// What can be started, as far as that is seen without reading the images.
    pub(crate) fn kept(&self, org: &OrgId, release: &PublicKey, console: &Console) -> Vec<Kept> {
        let mut kept = Vec::new();
        for slot in Slot::BOTH {
            match self.look(slot, org, release) {
                Ok(found) => kept.extend(found),
                Err(failure) => console.note(format_args!("slot {}: {failure}", slot.name())),
            }
        }
        kept
    }

    /// What is in one of them.
    pub(crate) fn look(&self, slot: Slot, org: &OrgId, release: &PublicKey) -> Outcome<Option<Kept>> {
        let dir = self.path(slot);
        let Some(signed) = files::read(&dir.join(SIGNED), GENERATION_BYTES_MAX)? else { return Ok(None) };
        let generation = verified(&signed, org, release)?;
        let path = dir.join(IMAGE);
        let length = fs::metadata(&path).map_err(|e| Failure::file(&path, &e))?.len();
        if length != generation.image_bytes {
            let detail = format_args!("{length} bytes of {} are there", generation.image_bytes).to_string();
            return Err(Failure::new(Code::NodeImageInvalid, detail));
        }
        let tries = if dir.join(RunningImage::READY).exists() {
            Tries::Ready
        } else {
            Tries::Left(tries_in(&fs::read(dir.join(TRIES)).unwrap_or_default()))
        };
        Ok(Some(Kept { slot, generation, tries }))
    }

    /// Begins to take in an image, or goes on where that stopped.
    pub(crate) fn receive(&self, signed: &[u8]) -> Outcome<Receiving> {
        let dir = self.dir.join(NEW);
        if files::read(&dir.join(SIGNED), GENERATION_BYTES_MAX)?.as_deref() != Some(signed) {
            let begun = remove(&dir)
                .and_then(|()| DirBuilder::new().mode(0o700).create(&dir))
                .and_then(|()| write(&dir.join(SIGNED), signed));
            begun.map_err(|e| not_kept(&dir, &e))?;
        }
        let path = dir.join(IMAGE);
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        Ok(Receiving { dir, file: file.map_err(|e| not_kept(&path, &e))?, path })
    }

    /// Puts an image that is all there in the place of what is in a slot.
    pub(crate) fn install(&self, received: Receiving, slot: Slot) -> Outcome<()> {
        let Receiving { dir, file, path } = received;
        let place = self.path(slot);
        let placed = || -> io::Result<()> {
            file.sync_all()?;
            File::open(&dir)?.sync_all()?;
            if place.try_exists()? {
                renameat_with(CWD, &dir, CWD, &place, RenameFlags::EXCHANGE)?;
            } else {
                fs::rename(&dir, &place)?;
            }
            File::open(&self.dir)?.sync_all()?;
            remove(&dir)
        };
        placed().map_err(|e| not_kept(&path, &e))
    }

    /// Counts a start, so that it counts whatever becomes of it.
    pub(crate) fn count_down(&self, slot: Slot, left: u8) -> Outcome<()> {
        let path = self.path(slot).join(TRIES);
        let new = path.with_extension("new");
        let written = write(&new, format!("{left}\n").as_bytes())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(self.path(slot))?.sync_all());
        written.map_err(|e| not_kept(&path, &e))
    }

    pub(crate) fn image(&self, slot: Slot) -> PathBuf {
        self.path(slot).join(IMAGE)
    }

    pub(crate) fn path(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.name())
    }
}

impl Receiving {
    /// Keeps the pieces that are there and right; the number of the first that is missing.
    pub(crate) fn go_on(&mut self, outline: &Outline) -> Outcome<u32> {
        let mut piece = Vec::new();
        let mut go_on = || -> io::Result<u32> {
            self.file.seek(SeekFrom::Start(0))?;
            let mut whole = 0;
            while whole < outline.pieces() {
                piece.clear();
                (&self.file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece)?;
                if outline.check(whole, &piece).is_err() {
                    break;
                }
                whole += 1;
            }
            let end = (u64::from(whole) * BLOB_PIECE_BYTES as u64).min(outline.bytes());
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            Ok(whole)
        };
        go_on().map_err(|e| not_kept(&self.path, &e))
    }

    /// The next bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.file.write_all(bytes).map_err(|e| not_kept(&self.path, &e))
    }

    /// All bytes from somewhere else, which have to be the image.
    pub(crate) fn copy(&mut self, from: impl io::Read, generation: &Generation) -> Outcome<()> {
        let rewound = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        rewound.map_err(|e| not_kept(&self.path, &e))?;
        let hash = copy(from, &mut self.file, generation.image_bytes);
        match hash.map_err(|e| not_kept(&self.path, &e))? {
            Some(hash) if hash == BlobHash(generation.image) => Ok(()),
            Some(_) | None => Err(not_signed()),
        }
    }
}

impl Slot {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A release that the org signed and that a machine can take.
pub(crate) fn verified(signed: &[u8], org: &OrgId, release: &PublicKey) -> Outcome<Generation> {
    let invalid = |why: &dyn core::fmt::Display| Failure::new(Code::NodeImageInvalid, why);
    let generation = UnverifiedGeneration::decode(signed).map_err(|e| invalid(&e))?;
    let generation = generation.verify(org, release).map_err(|e| invalid(&e))?;
    if generation.image_bytes > NODE_IMAGE_BYTES_MAX {
        let detail = format_args!("{} bytes", generation.image_bytes).to_string();
        return Err(Failure::new(Code::NodeImageTooLarge, detail));
    }
    Ok(generation)
}

/// Copies exactly so many bytes; their hash, or nothing when there are not so many.
pub(crate) fn copy(from: impl io::Read, mut to: impl io::Write, bytes: u64) -> io::Result<Option<BlobHash>> {
    let mut from = from.take(bytes.saturating_add(1));
    let mut hash = blake3::Hasher::new();
    let (mut buffer, mut copied) = (vec![0; 64 * 1024], 0);
    loop {
        let length = from.read(&mut buffer)?;
        let chunk = buffer.get(..length).unwrap_or_default();
        if chunk.is_empty() {
            return Ok((copied == bytes).then(|| BlobHash(*hash.finalize().as_bytes())));
        }
        hash.update(chunk);
        to.write_all(chunk)?;
        copied += chunk.len() as u64;
    }
}

pub(crate) fn not_signed() -> Failure {
    Failure::new(Code::NodeImageInvalid, "the image is not the one that was signed")
}

/// Whatever is not a number that was written here may start as often as a new one.
fn tries_in(file: &[u8]) -> u8 {
    match file {
        [digit @ b'0'..=b'9', b'\n'] => (digit - b'0').min(IMAGE_TRIES_MAX),
        _ => IMAGE_TRIES_MAX,
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn not_kept(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::NodeImageNotKept, format_args!("{}: {error}", path.display()))
}

pub(crate) const SIGNED: &str = "node.release";
pub(crate) const IMAGE: &str = "node.squashfs";
const TRIES: &str = "tries";
const NEW: &str = "new";

#[cfg(test)]
pub(crate) mod tests {
    use identity::{Outliner, SecretKey};

    use super::*;

    pub(crate) const ORG: OrgId = OrgId([7; 32]);

    pub(crate) fn release_key() -> SecretKey {
        SecretKey::from_seed(&[3; 32])
    }

    pub(crate) fn image(fill: u8) -> Vec<u8> {
        (0..2 * BLOB_PIECE_BYTES + 99).map(|at| fill ^ u8::try_from(at % 251).unwrap()).collect()
    }

    pub(crate) fn generation(number: u32, image: &[u8]) -> Generation {
        let image_bytes = image.len() as u64;
        Generation { number, image: *blake3::hash(image).as_bytes(), image_bytes, minimum: 0 }
    }

    fn outline(image: &[u8]) -> Outline {
        let mut outliner = Outliner::default();
        image.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
        outliner.finish().unwrap()
    }

    /// Puts an image into a slot.
    pub(crate) fn put(slots: &Slots, slot: Slot, number: u32, image: &[u8]) {
        let generation = generation(number, image);
        let mut receiving = slots.receive(&generation.sign(&ORG, &release_key())).unwrap();
        receiving.copy(image, &generation).unwrap();
        slots.install(receiving, slot).unwrap();
    }

    fn kept(slots: &Slots) -> Vec<(Slot, u32, Tries)> {
        let kept = slots.kept(&ORG, &release_key().public(), &Console::default());
        kept.into_iter().map(|kept| (kept.slot, kept.generation.number, kept.tries)).collect()
    }

    #[test]
    fn an_image_appears_in_its_slot_whole_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path().join("slots")).unwrap();
        assert_eq!(kept(&slots), []);
        put(&slots, Slot::A, 4, &image(4));
        slots.count_down(Slot::A, 1).unwrap();
        put(&slots, Slot::B, 5, &image(5));
        let fresh = Tries::Left(IMAGE_TRIES_MAX);
        assert_eq!(kept(&slots), [(Slot::A, 4, Tries::Left(1)), (Slot::B, 5, fresh)]);
        put(&slots, Slot::A, 6, &image(6));
        assert_eq!(kept(&slots), [(Slot::A, 6, fresh), (Slot::B, 5, fresh)], "the count is the image's own");
        assert_eq!(fs::read_dir(dir.path().join("slots")).unwrap().count(), 2);
    }

    #[test]
    fn a_transfer_goes_on_at_the_first_piece_that_is_missing_or_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path().join("slots")).unwrap();
        let image = image(4);
        let (signed, outline) = (generation(4, &image).sign(&ORG, &release_key()), outline(&image));
        let mut receiving = slots.receive(&signed).unwrap();
        assert_eq!(receiving.go_on(&outline).unwrap(), 0);
        // The power went in the second piece.
        receiving.append(&image[..BLOB_PIECE_BYTES + 5]).unwrap();
        drop(receiving);
        let mut receiving = slots.receive(&signed).unwrap();
        assert_eq!(receiving.go_on(&outline).unwrap(), 1);
        receiving.append(&image[BLOB_PIECE_BYTES..]).unwrap();
        assert_eq!(receiving.go_on(&outline).unwrap(), 3);
        // A bad disk.
        let path = dir.path().join("slots/new").join(IMAGE);
        let mut changed = fs::read(&path).unwrap();
        changed[0] ^= 1;
        fs::write(&path, changed).unwrap();
        drop(receiving);
        let mut receiving = slots.receive(&signed).unwrap();
        assert_eq!(receiving.go_on(&outline).unwrap(), 0);
        receiving.append(&image).unwrap();
        slots.install(receiving, Slot::B).unwrap();
        assert_eq!(kept(&slots).len(), 1);
        // Another release begins anew.
        slots.receive(&signed).unwrap().append(b"x").unwrap();
        let other = generation(9, &image).sign(&ORG, &release_key());
        assert_eq!(slots.receive(&other).unwrap().file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn what_was_not_signed_or_is_cut_short_is_none_and_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path().join("slots")).unwrap();
        put(&slots, Slot::A, 4, &image(4));
        let code =
            |slots: &Slots, key: &SecretKey| slots.look(Slot::A, &ORG, &key.public()).unwrap_err().code;
        assert_eq!(code(&slots, &SecretKey::from_seed(&[4; 32])), Code::NodeImageInvalid);
        let path = slots.image(Slot::A);
        fs::write(&path, &image(4)[1..]).unwrap();
        assert_eq!(code(&slots, &release_key()), Code::NodeImageInvalid);
        let bytes = NODE_IMAGE_BYTES_MAX + 1;
        let huge = Generation { number: 4, image: [1; 32], image_bytes: bytes, minimum: 0 };
        let huge = huge.sign(&ORG, &release_key());
        assert_eq!(verified(&huge, &ORG, &release_key().public()).unwrap_err().code, Code::NodeImageTooLarge);
        let other = generation(5, &image(5));
        let mut receiving = slots.receive(&other.sign(&ORG, &release_key())).unwrap();
        assert_eq!(receiving.copy(&image(6)[..], &other).unwrap_err().code, Code::NodeImageInvalid);
        assert_eq!(fs::read(&path).unwrap(), &image(4)[1..], "nothing was replaced");
    }

    #[test]
    fn a_disk_that_is_full_is_named_and_the_slots_stay_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path().to_owned()).unwrap();
        put(&slots, Slot::A, 4, &image(4));
        let signed = generation(5, &image(5)).sign(&ORG, &release_key());
        drop(slots.receive(&signed).unwrap());
        let place = dir.path().join(NEW).join(IMAGE);
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("/dev/full", &place).unwrap();
        let full = slots.receive(&signed).unwrap().append(&image(5)).unwrap_err();
        assert_eq!(full.code, Code::NodeImageNotKept);
        assert!(full.detail.contains("No space left"), "{full}");
        assert_eq!(kept(&slots), [(Slot::A, 4, Tries::Left(IMAGE_TRIES_MAX))]);
    }

    #[test]
    fn a_count_that_is_torn_or_missing_costs_no_more_than_starts() {
        assert_eq!(tries_in(b"0\n"), 0);
        assert_eq!(tries_in(b"2\n"), 2);
        for odd in [&b""[..], b"2", b"9\n", b"\0\0", b"-1\n", b"10\n"] {
            assert_eq!(tries_in(odd), IMAGE_TRIES_MAX, "{odd:?}");
        }
    }

    #[test]
    fn a_copy_is_exactly_what_was_announced() {
        let hash = BlobHash(*blake3::hash(b"an image").as_bytes());
        let mut to = Vec::new();
        assert_eq!(copy(&b"an image"[..], &mut to, 8).unwrap(), Some(hash));
        assert_eq!(to, b"an image");
        assert_eq!(copy(&b"an image"[..], io::sink(), 9).unwrap(), None, "too short");
        assert_eq!(copy(&b"an image and more"[..], io::sink(), 8).unwrap(), None, "too long");
    }
}
