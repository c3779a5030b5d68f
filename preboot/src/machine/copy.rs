//! The node image in memory: what is checked is what starts, whatever becomes of the disk.
//!
//! The copy of the image that starts unless the gateway wants another is begun early, while the TPM and the
//! network leave time for it. Nothing is decided by that: which one starts is said later, and any other is
//! then copied as if nothing had been begun.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use identity::{BlobHash, OrgId, PublicKey};
use org_trust::Generation;

use super::{
    choice,
    slots::{Slot, Slots, copy, not_signed},
};
use crate::failure::{Failure, Outcome};

/// The one place in memory for an image.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    image: PathBuf,
    generation: Generation,
    copying: JoinHandle<Outcome<()>>,
}

impl Copy {
    /// Begins with what the slots in `dir` would start with. What is wrong with them is said when it matters.
    pub(super) fn begin(path: PathBuf, dir: PathBuf, org: &OrgId, release: &PublicKey) -> Self {
        let begun = Slots::there(dir).and_then(|slots| {
            let sound = |slot| slots.look(slot, org, release).ok().flatten();
            let order = choice::order(Slot::BOTH.into_iter().filter_map(sound).collect(), None);
            let first = order.into_iter().next()?;
            let (image, generation) = (slots.image(first.slot), first.generation);
            let (from, signed, to) = (image.clone(), generation.clone(), path.clone());
            let copying = thread::spawn(move || checked(&from, &signed, &to));
            Some(Begun { image, generation, copying })
        });
        Self { path, begun }
    }

    /// The copy of that image, which is what was signed.
    pub(super) fn of(&mut self, image: &Path, generation: &Generation) -> Outcome<PathBuf> {
        // Whatever was begun has to end first: it writes to the same place.
        if let Some(begun) = self.begun.take()
            && let Ok(done) = begun.copying.join()
            && (&*begun.image, &begun.generation) == (image, generation)
        {
            return done.map(|()| self.path.clone());
        }
        checked(image, generation, &self.path).map(|()| self.path.clone())
    }
}

fn checked(image: &Path, generation: &Generation, to: &Path) -> Outcome<()> {
    let copied = || -> io::Result<_> { copy(File::open(image)?, File::create(to)?, generation.image_bytes) };
    let hash = copied().map_err(|e| Failure::file(image, &e))?;
    if hash == Some(BlobHash(generation.image)) {
        return Ok(());
    }
    // So much memory is not left lying about.
    drop(fs::remove_file(to));
    Err(not_signed())
}

#[cfg(test)]
mod tests {
    use identity::Code;
    use org_trust::RunningImage;

    use super::{
        super::slots::tests::{ORG, generation, image, put, release_key},
        *,
    };

    /// Releases 4 and 5 were ready, and the copy of 5 is begun.
    fn begun(dir: &Path, change: impl FnOnce(&Slots)) -> (Slots, Copy) {
        let slots = Slots::open(dir.join("slots")).unwrap();
        for (slot, number) in [(Slot::A, 4), (Slot::B, 5)] {
            put(&slots, slot, number, &image(u8::try_from(number).unwrap()));
            fs::write(slots.path(slot).join(RunningImage::READY), b"1\n").unwrap();
        }
        change(&slots);
        let copy = Copy::begin(dir.join("copy"), dir.join("slots"), &ORG, &release_key().public());
        assert_eq!(copy.begun.as_ref().unwrap().generation.number, 5);
        (slots, copy)
    }

    #[test]
    fn what_starts_is_a_copy_of_what_was_signed_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, to) = (dir.path().join("image"), dir.path().join("copy"));
        fs::write(&path, image(1)).unwrap();
        checked(&path, &generation(1, &image(1)), &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), image(1));
        let refused = checked(&path, &generation(1, &image(2)), &to).unwrap_err();
        assert_eq!(refused.code, Code::NodeImageInvalid);
        assert!(!to.exists());
    }

    #[test]
    fn a_copy_that_was_begun_is_used_for_that_image_only() {
        let dir = tempfile::tempdir().unwrap();
        let (slots, mut copy) = begun(dir.path(), |_| {});
        let path = copy.of(&slots.image(Slot::B), &generation(5, &image(5))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), image(5));

        let (slots, mut copy) = begun(dir.path(), |_| {});
        let path = copy.of(&slots.image(Slot::A), &generation(4, &image(4))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), image(4), "the other one is wanted");

        // The slot has another release by now: what was read before is not taken for it.
        let (slots, mut copy) = begun(dir.path(), |_| {});
        put(&slots, Slot::B, 6, &image(6));
        let path = copy.of(&slots.image(Slot::B), &generation(6, &image(6))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), image(6));
    }

    #[test]
    fn a_copy_that_was_begun_of_a_changed_image_is_refused_and_another_still_starts() {
        let dir = tempfile::tempdir().unwrap();
        let damage = |slots: &Slots| {
            let mut bytes = image(5);
            bytes[40_000] ^= 1;
            fs::write(slots.image(Slot::B), bytes).unwrap();
        };
        let (slots, mut copy) = begun(dir.path(), damage);
        let refused = copy.of(&slots.image(Slot::B), &generation(5, &image(5))).unwrap_err();
        assert_eq!(refused.code, Code::NodeImageInvalid);
        assert!(!dir.path().join("copy").exists());
        let path = copy.of(&slots.image(Slot::A), &generation(4, &image(4))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), image(4));
    }

    #[test]
    fn without_slots_nothing_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let copy =
            Copy::begin(dir.path().join("copy"), dir.path().join("none"), &ORG, &release_key().public());
        assert!(copy.begun.is_none());
        assert!(!dir.path().join("none").exists());
    }
}
