//! Disks: which one holds this machine's state, and which one the image came from.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use identity::Code;
use rustix::mount::MountFlags;

use super::{STATE_DISK, kernel::mount_at, modules::Drivers};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// What the first bytes of a disk or partition say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// FAT: perhaps the one that firmware started from.
    Fat,
    /// LUKS2 with the label of what the node OS keeps.
    Persist,
    /// Marked by the operator to become that: ext4 with that label, or one that was not finished.
    PersistMark,
    /// ext4 with the label of a muster machine's state.
    State,
}

/// Mounts the disk with this machine's state. Disks take their time to show after their driver has
/// started, and some show for a driver of their own only then.
pub(crate) fn mount_state(drivers: &mut Drivers, console: &Console) -> Outcome<()> {
    let (since, mut all) = (Instant::now(), false);
    let found = loop {
        let mut found = disks(Kind::State)?;
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => break one,
            (Some(_), false) => {
                let detail = format_args!("several disks are labelled {LABEL}").to_string();
                return Err(Failure::new(Code::NoStateDisk, detail));
            }
            (None, _) if since.elapsed() > DISKS_COME_WITHIN => {
                return Err(Failure::new(Code::NoStateDisk, format_args!("none is labelled {LABEL}")));
            }
            (None, _) => {
                thread::sleep(Duration::from_millis(50));
                drivers.load(console);
                if !all && since.elapsed() > LIKELY_DISKS_COME_WITHIN {
                    all = true;
                    drivers.load_all(console);
                }
            }
        }
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_at(&found.to_string_lossy(), STATE_DISK, "ext4", flags, c"")
}

/// All disks and partitions of a kind.
pub(crate) fn disks(kind: Kind) -> Outcome<Vec<PathBuf>> {
    let class = Path::new("/sys/class/block");
    let listing = fs::read_dir(class).map_err(|e| Failure::file(class, &e))?;
    let mut found: Vec<PathBuf> = listing
        .flatten()
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .filter(|device| kind_of(device) == Some(kind))
        .collect();
    found.sort();
    Ok(found)
}

fn kind_of(device: &Path) -> Option<Kind> {
    let mut head = [0; HEAD_BYTES];
    File::open(device).ok()?.read_exact_at(&mut head, 0).ok()?;
    kind_of_head(&head)
}

fn kind_of_head(head: &[u8; HEAD_BYTES]) -> Option<Kind> {
    let field = |at: usize, bytes: usize| head.get(at..at + bytes);
    if field(0x438, 2) == Some(&EXT_MAGIC) {
        return match label_in(field(0x478, 16)?) {
            label if label == LABEL.as_bytes() => Some(Kind::State),
            label if label == PERSIST_LABEL.as_bytes() => Some(Kind::PersistMark),
            _ => None,
        };
    }
    if field(0, 8) == Some(LUKS2) {
        return match label_in(field(24, 48)?) {
            label if label == PERSIST_LABEL.as_bytes() => Some(Kind::Persist),
            label if label == PERSIST_UNFINISHED.as_bytes() => Some(Kind::PersistMark),
            _ => None,
        };
    }
    let fat = field(0x52, 5) == Some(b"FAT32") || field(0x36, 3) == Some(b"FAT");
    (fat && field(510, 2) == Some(&[0x55, 0xaa])).then_some(Kind::Fat)
}

fn label_in(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The label of the disk for what the node OS keeps.
pub(crate) const PERSIST_LABEL: &str = "muster-persist";
/// The same while it is being made.
pub(crate) const PERSIST_UNFINISHED: &str = "muster-persist-new";
/// Magic and version of a LUKS2 header.
const LUKS2: &[u8] = b"LUKS\xba\xbe\0\x02";
/// The label of the file system with a machine's state.
const LABEL: &str = "muster-state";
const EXT_MAGIC: [u8; 2] = [0x53, 0xef];
const HEAD_BYTES: usize = 2048;
const DISKS_COME_WITHIN: Duration = Duration::from_secs(15);
/// After that, drivers are tried for which no device has asked.
const LIKELY_DISKS_COME_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labelled_file_system_is_this_machines_state() {
        let mut head = [0; HEAD_BYTES];
        assert_eq!(kind_of_head(&head), None);
        head[0x438..0x43a].copy_from_slice(&EXT_MAGIC);
        assert_eq!(kind_of_head(&head), None);
        head[0x478..0x478 + LABEL.len()].copy_from_slice(LABEL.as_bytes());
        assert_eq!(kind_of_head(&head), Some(Kind::State));
        head[0x478 + LABEL.len()] = b'2';
        assert_eq!(kind_of_head(&head), None, "muster-state2 is somebody else's");
    }

    #[test]
    fn a_fat_file_system_is_told_by_its_boot_sector() {
        let mut head = [0; HEAD_BYTES];
        head[0x52..0x57].copy_from_slice(b"FAT32");
        assert_eq!(kind_of_head(&head), None);
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(kind_of_head(&head), Some(Kind::Fat));
    }

    #[test]
    fn only_a_disk_that_was_marked_is_to_be_encrypted_and_one_that_is_done_is_opened() {
        let ext4 = |label: &str| {
            let mut head = [0; HEAD_BYTES];
            head[0x438..0x43a].copy_from_slice(&EXT_MAGIC);
            head[0x478..0x478 + label.len()].copy_from_slice(label.as_bytes());
            kind_of_head(&head)
        };
        let luks = |version: u8, label: &str| {
            let mut head = [0; HEAD_BYTES];
            head[..8].copy_from_slice(LUKS2);
            head[7] = version;
            head[24..24 + label.len()].copy_from_slice(label.as_bytes());
            kind_of_head(&head)
        };
        assert_eq!(ext4(PERSIST_LABEL), Some(Kind::PersistMark));
        assert_eq!(luks(2, PERSIST_UNFINISHED), Some(Kind::PersistMark));
        assert_eq!(luks(2, PERSIST_LABEL), Some(Kind::Persist));
        for other in
            [ext4("muster-persis"), ext4("data"), luks(2, ""), luks(2, "home"), luks(1, PERSIST_LABEL)]
        {
            assert_eq!(other, None, "somebody else's");
        }
    }
}
