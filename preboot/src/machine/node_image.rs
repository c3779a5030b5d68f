//! The node image: found beside the image that booted, copied into memory, and used only as the bytes
//! that the org's release key signed.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use identity::{
    Code, OrgId, PublicKey,
    limits::{GENERATION_BYTES_MAX, NODE_IMAGE_BYTES_MAX},
};
use org_trust::UnverifiedGeneration;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::{disk, kernel::mount_at};
use crate::{
    failure::{Failure, Outcome},
    files,
};

/// An image in memory that is what was signed.
#[derive(Debug)]
pub(crate) struct NodeImage {
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
}

/// Looks on every FAT file system; the one that firmware started from is one.
pub(crate) fn find(org: &OrgId, release: &PublicKey, floor: u32) -> Outcome<NodeImage> {
    let mut last = Failure::new(Code::NodeImageMissing, "no disk has a muster/node.release");
    for device in disk::disks(disk::Kind::Fat)? {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_at(&device.to_string_lossy(), PLACE, "vfat", flags, c"")?;
        let taken = take(Path::new(PLACE), org, release, floor);
        // A copy is all that is used from here on.
        unmount(PLACE, UnmountFlags::DETACH)
            .map_err(|why| Failure::new(Code::KernelRefused, format_args!("unmount {PLACE}: {why}")))?;
        match taken {
            Ok(Some(image)) => return Ok(image),
            Ok(None) => {}
            Err(failure) => {
                last = Failure::new(failure.code, format_args!("{}: {}", device.display(), failure.detail));
            }
        }
    }
    Err(last)
}

fn take(disk: &Path, org: &OrgId, release: &PublicKey, floor: u32) -> Outcome<Option<NodeImage>> {
    let Some(signed) = files::read(&disk.join(GENERATION), GENERATION_BYTES_MAX)? else { return Ok(None) };
    let invalid = |why: &dyn core::fmt::Display| Failure::new(Code::NodeImageInvalid, why);
    let generation = UnverifiedGeneration::decode(&signed).map_err(|e| invalid(&e))?;
    let generation = generation.verify(org, release).map_err(|e| invalid(&e))?;
    if generation.number < floor {
        let detail =
            format_args!("release {}, and this machine starts none below {floor}", generation.number)
                .to_string();
        return Err(Failure::new(Code::GenerationTooOld, detail));
    }
    if generation.image_bytes > NODE_IMAGE_BYTES_MAX {
        return Err(invalid(&format_args!("{} bytes are too many", generation.image_bytes)));
    }
    let path = disk.join(IMAGE);
    let from = File::open(&path).map_err(|e| Failure::file(&path, &e))?;
    let to = PathBuf::from(COPY);
    let hash = copy(from, &to, generation.image_bytes).map_err(|e| Failure::file(&path, &e))?;
    if hash != Some(generation.image) {
        drop(fs::remove_file(&to));
        return Err(invalid(&"the image is not the one that was signed"));
    }
    Ok(Some(NodeImage { number: generation.number, bytes: generation.image_bytes, path: to }))
}

/// Copies exactly so many bytes; their hash, or nothing when there are not so many.
fn copy(from: impl Read, to: &Path, bytes: u64) -> io::Result<Option<[u8; 32]>> {
    let mut from = from.take(bytes.saturating_add(1));
    let mut file = File::create(to)?;
    let mut hash = blake3::Hasher::new();
    let (mut buffer, mut copied) = (vec![0; 64 * 1024], 0);
    loop {
        let length = from.read(&mut buffer)?;
        let chunk = buffer.get(..length).unwrap_or_default();
        if chunk.is_empty() {
            return Ok((copied == bytes).then(|| *hash.finalize().as_bytes()));
        }
        hash.update(chunk);
        file.write_all(chunk)?;
        copied += chunk.len() as u64;
    }
}

const PLACE: &str = "/run/boot-disk";
const COPY: &str = "/run/node.squashfs";
const GENERATION: &str = "muster/node.release";
const IMAGE: &str = "muster/node.squashfs";

#[cfg(test)]
mod tests {
    use identity::SecretKey;
    use org_trust::Generation;

    use super::*;

    const ORG: OrgId = OrgId([7; 32]);

    fn disk(number: u32, image: &[u8]) -> (tempfile::TempDir, SecretKey) {
        let (dir, key) = (tempfile::tempdir().unwrap(), SecretKey::from_seed(&[3; 32]));
        let image_bytes = image.len() as u64;
        let generation = Generation { number, image: *blake3::hash(image).as_bytes(), image_bytes };
        fs::create_dir(dir.path().join("muster")).unwrap();
        fs::write(dir.path().join(GENERATION), generation.sign(&ORG, &key)).unwrap();
        fs::write(dir.path().join(IMAGE), image).unwrap();
        (dir, key)
    }

    #[test]
    fn an_image_that_was_not_signed_is_refused_with_its_code() {
        let (dir, key) = disk(4, b"an image");
        let code = |floor, key: &SecretKey| take(dir.path(), &ORG, &key.public(), floor).unwrap_err().code;
        assert_eq!(code(5, &key), Code::GenerationTooOld);
        assert_eq!(code(0, &SecretKey::from_seed(&[4; 32])), Code::NodeImageInvalid);
        fs::write(dir.path().join(GENERATION), b"junk").unwrap();
        assert_eq!(code(0, &key), Code::NodeImageInvalid);
        fs::remove_file(dir.path().join(GENERATION)).unwrap();
        assert!(take(dir.path(), &ORG, &key.public(), 0).unwrap().is_none());
    }

    #[test]
    fn a_copy_is_exactly_what_was_announced() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("copy");
        let hash = *blake3::hash(b"an image").as_bytes();
        assert_eq!(copy(&b"an image"[..], &to, 8).unwrap(), Some(hash));
        assert_eq!(fs::read(&to).unwrap(), b"an image");
        assert_eq!(copy(&b"an image"[..], &to, 9).unwrap(), None, "too short");
        assert_eq!(copy(&b"an image and more"[..], &to, 8).unwrap(), None, "too long");
    }
}
