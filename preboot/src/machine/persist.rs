//! The encrypted disk for what the node OS keeps: LUKS2, by Debian's cryptsetup, mounted at /persist.
//!
//! Only a disk that the operator marked is ever overwritten: one with an ext4 file system of the label
//! `muster-persist`. From then on the label is that of the LUKS header, and the disk is opened or left as
//! it is. While it is being made it carries another label, so that a power cut begins that anew.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use boot_image::DiskToken;
use identity::{Code, DiskKeys, DiskShare};
use rustix::{
    mount::MountFlags,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use zeroize::Zeroizing;

use super::{
    PERSIST, disk,
    kernel::mount_at,
    share::{Epochs, Shares},
};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// What is on the disk that is to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing was marked.
    None,
    /// To be made.
    Marked(PathBuf),
    /// To be opened.
    Made(PathBuf, Option<Box<DiskToken>>),
}

impl Found {
    /// Looks at all disks.
    pub(crate) fn look() -> Outcome<Self> {
        let mut made = disk::disks(disk::Kind::Persist)?;
        let mut marked = disk::disks(disk::Kind::PersistMark)?;
        match (made.pop(), marked.pop()) {
            (None, None) => Ok(Self::None),
            (Some(device), None) if made.is_empty() => {
                let token = token(&device)?;
                Ok(Self::Made(device, token))
            }
            (None, Some(device)) if marked.is_empty() => Ok(Self::Marked(device)),
            (Some(_) | None, _) => {
                let detail = format_args!("several disks are labelled {}", disk::PERSIST_LABEL).to_string();
                Err(Failure::new(Code::PersistDisk, detail))
            }
        }
    }

    /// Of which epochs it wants shares, when the image names one for new disks.
    pub(crate) fn epochs(&self, pinned: Option<u32>) -> Epochs {
        match self {
            Self::None => Epochs { opens: None, next: None },
            Self::Marked(_) => Epochs { opens: pinned, next: pinned },
            // It never goes back, and never to none: an image of yesterday must not undo it.
            Self::Made(_, token) => {
                let opens = token.as_ref().and_then(|token| token.share);
                Epochs { opens, next: opens.max(pinned) }
            }
        }
    }
}

/// Opens or makes it, if this machine has such a disk. `keys` are those with a share or none.
///
/// Whether there is one.
pub(crate) fn mount(
    found: Found,
    shares: Shares,
    keys: impl Fn(Option<DiskShare>) -> DiskKeys,
    typed: &mpsc::Receiver<String>,
    console: &mut Console,
) -> Outcome<bool> {
    match found {
        Found::None => {
            console.note(format_args!(
                "no disk is labelled {}: what the node OS keeps is not kept",
                disk::PERSIST_LABEL
            ));
            return Ok(false);
        }
        Found::Marked(device) => {
            let epoch = shares.epochs.opens;
            make(&device, &keys(shares.opens?), epoch)?;
            console.checkpoint(format_args!("{} is encrypted from now on", device.display()));
        }
        Found::Made(device, token) => {
            unlock(
                &Volume { device: &device, token: token.as_deref().copied() },
                shares,
                keys,
                typed,
                console,
            )?;
            console.checkpoint(format_args!("encrypted disk {} open", device.display()));
        }
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_at(MAPPED, PERSIST, "ext4", flags, c"")?;
    Ok(true)
}

fn token(device: &Path) -> Outcome<Option<Box<DiskToken>>> {
    let mut head = Vec::new();
    let read =
        File::open(device).and_then(|disk| disk.take(DiskToken::HEAD_BYTES as u64).read_to_end(&mut head));
    read.map_err(|e| Failure::file(device, &e))?;
    Ok(DiskToken::find(&head).map(Box::new))
}

fn make(device: &Path, keys: &DiskKeys, share: Option<u32>) -> Outcome<()> {
    let name = device.display().to_string();
    let keyed = keys.disk();
    // Named for what it is only once there is a file system in it.
    let format = ["luksFormat", "--batch-mode", "--type", "luks2", "--key-slot", "0", "--key-file=-"];
    cryptsetup(&[&format[..], &["--label", disk::PERSIST_UNFINISHED], PBKDF, &[&name]].concat(), &*keyed)?;
    let secret = Secret::put(keys.recovery().as_bytes())?;
    let path = secret.path.display().to_string();
    let add = ["luksAddKey", "--batch-mode", "--key-slot", "1", "--key-file=-", "--keyfile-size=32"];
    cryptsetup(&[&add[..], PBKDF, &[&name, &path]].concat(), &*keyed)?;
    drop(secret);
    // By it the holder of the org keys finds the passphrase, with the disk alone.
    let token = DiskToken { machine: keys.machine(), share, slot: 0 };
    let import = ["token", "import", "--token-id", TOKEN, "--json-file", "-", &name];
    cryptsetup(&import, token.to_json().as_bytes())?;
    open(&name, &*keyed, 0)?;
    tool(MKFS, &["-q", "-t", "ext4", "-L", "muster-data", MAPPED], &[])?;
    cryptsetup(&["config", "--label", disk::PERSIST_LABEL, &name], &[])
}

/// A disk that was made.
struct Volume<'a> {
    device: &'a Path,
    token: Option<DiskToken>,
}

impl Volume<'_> {
    fn slot(&self) -> u8 {
        self.token.map_or(0, |token| token.slot)
    }
}

/// With this machine's key, or else with what the holder of the org keys reads out.
fn unlock(
    volume: &Volume<'_>,
    shares: Shares,
    keys: impl Fn(Option<DiskShare>) -> DiskKeys,
    typed: &mpsc::Receiver<String>,
    console: &Console,
) -> Outcome<()> {
    let Shares { epochs, opens, next } = shares;
    let name = volume.device.display().to_string();
    let mut newer = next.map(|share| (keys(Some(share)), epochs.next));
    // By the disk's own word about its share; nothing else is tried, so none is ever left out.
    let failure = match opens {
        Ok(share) => {
            let ours = keys(share);
            let keyed = ours.disk();
            match open(&name, &*keyed, volume.slot()) {
                Ok(()) => {
                    if let Some((newer, epoch)) = newer {
                        change_key(volume, &*keyed, &newer, epoch, console);
                    }
                    return Ok(());
                }
                Err(failure) => {
                    newer = newer.or(Some((ours, epochs.opens)));
                    console.note(Failure::new(Code::PersistLocked, &failure.detail));
                    Failure::new(Code::PersistLocked, volume.device.display())
                }
            }
        }
        Err(failure) => {
            console.note(&failure);
            failure
        }
    };
    let _unseen = Unseen::begin();
    for _ in 0..PASSPHRASE_TRIES {
        console.note("type the disk's recovery passphrase, which is not shown, or Enter to stop");
        let line = Zeroizing::new(typed.recv_timeout(TYPED_WITHIN).unwrap_or_default());
        let typed = line.trim();
        if typed.is_empty() {
            break;
        }
        if open(&name, typed.as_bytes(), RECOVERY_SLOT).is_err() {
            console.note("that passphrase does not open it");
            continue;
        }
        console.note("open by the recovery passphrase");
        // Without the share that the disk wants, its key stays the one that it is.
        if let Some((newer, epoch)) = newer {
            change_key(volume, typed.as_bytes(), &newer, epoch, console);
        }
        return Ok(());
    }
    Err(failure)
}

/// Puts another key of this machine in the place of the old one: first the new one, then the word which it
/// is, then the old one is gone. A power cut between leaves a disk that opens. The recovery passphrase stays
/// what it was; a disk whose key cannot be changed is open all the same.
fn change_key(volume: &Volume<'_>, opens: &[u8], keys: &DiskKeys, share: Option<u32>, console: &Console) {
    let Some(old) = volume.token else { return };
    let changed = || -> Outcome<()> {
        let name = volume.device.display().to_string();
        let new = old.with_key_of(share);
        let [old_slot, new_slot] = [old.slot, new.slot].map(|slot| slot.to_string());
        let kill = |slot: &str, key: &[u8]| {
            cryptsetup(&["luksKillSlot", "--batch-mode", "--key-file=-", &name, slot], key)
        };
        let keyed = keys.disk();
        let secret = Secret::put(&*keyed)?;
        let path = secret.path.display().to_string();
        // What a power cut left there.
        drop(kill(&new_slot, opens));
        let add =
            ["luksAddKey", "--batch-mode", "--key-slot", &new_slot, "--key-file=-", "--new-keyfile-size=32"];
        cryptsetup(&[&add[..], PBKDF, &[&name, &path]].concat(), opens)?;
        let import = ["token", "import", "--token-id", TOKEN, "--token-replace", "--json-file", "-", &name];
        cryptsetup(&import, new.to_json().as_bytes())?;
        kill(&old_slot, &*keyed)
    };
    match changed() {
        Ok(()) => match share {
            Some(epoch) => {
                console.note(format_args!("the disk's key was changed: with a share, epoch {epoch}"))
            }
            None => console.note("the disk's key was changed"),
        },
        Err(failure) => console.note(format_args!("the disk's key was not changed: {failure}")),
    }
}

fn open(device: &str, key: &[u8], slot: u8) -> Outcome<()> {
    let slot = slot.to_string();
    cryptsetup(&["open", "--type", "luks2", "--key-slot", &slot, "--key-file=-", device, NAME], key)
}

fn cryptsetup(arguments: &[&str], key: &[u8]) -> Outcome<()> {
    tool(CRYPTSETUP, arguments, key)
}

/// Runs a program of the image to its end, with a key on its standard input.
fn tool(program: &str, arguments: &[&str], input: &[u8]) -> Outcome<()> {
    let ran = || -> io::Result<std::process::Output> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("DM_DISABLE_UDEV", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input)?;
        }
        child.wait_with_output()
    };
    let verb = arguments.first().copied().unwrap_or_default();
    let failed = |why: &dyn core::fmt::Display| {
        Failure::new(Code::PersistDisk, format_args!("{program} {verb}: {why}"))
    };
    let output = ran().map_err(|e| failed(&e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(&format_args!("{}: {}", output.status, said.trim())))
}

/// While it lives, the console does not show what is typed; a serial line is often logged somewhere.
struct Unseen {
    before: Option<Termios>,
}

impl Unseen {
    /// On a console that cannot do it, what is typed is shown.
    fn begin() -> Self {
        let Ok(before) = tcgetattr(rustix::stdio::stdin()) else { return Self { before: None } };
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        let is_set = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &unseen).is_ok();
        Self { before: Some(before).filter(|_| is_set) }
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _restored = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before).is_ok();
        }
    }
}

/// A secret in a file in memory, for a program that takes two; gone with the value.
struct Secret {
    path: PathBuf,
}

impl Secret {
    fn put(bytes: &[u8]) -> Outcome<Self> {
        let path = PathBuf::from(SECRET);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(|e| Failure::file(&path, &e))?;
        Ok(Self { path })
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // In memory, and unreachable for anybody once the node OS runs.
        drop(fs::remove_file(&self.path));
    }
}

const CRYPTSETUP: &str = "/sbin/cryptsetup";
const MKFS: &str = "/sbin/mke2fs";
const NAME: &str = "muster-persist";
const MAPPED: &str = "/dev/mapper/muster-persist";
const SECRET: &str = "/run/disk-secret";
const RECOVERY_SLOT: u8 = 1;
/// Where in the header the token is; the only one there.
const TOKEN: &str = "0";
/// Both keys have 128 bits or more of their own: there is nothing to guess that work would make slower, and
/// a machine that boots would wait for it.
const PBKDF: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
/// It is long, and typed by hand; there is nothing to guess.
const PASSPHRASE_TRIES: u32 = 3;
const TYPED_WITHIN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use identity::SecretKey;

    use super::*;

    #[test]
    fn a_disk_wants_the_share_it_was_made_with_and_never_goes_back_to_less() {
        let made = |share| {
            let machine = SecretKey::from_seed(&[1; 32]).public();
            Found::Made(PathBuf::new(), Some(Box::new(DiskToken { machine, share, slot: 0 })))
        };
        for (disk, pinned, opens, next) in [
            (Found::None, Some(1), None, None),
            (Found::Marked(PathBuf::new()), None, None, None),
            (Found::Marked(PathBuf::new()), Some(1), Some(1), Some(1)),
            (Found::Made(PathBuf::new(), None), None, None, None),
            (made(None), None, None, None),
            (made(None), Some(1), None, Some(1)),
            (made(Some(1)), Some(1), Some(1), Some(1)),
            (made(Some(1)), Some(2), Some(1), Some(2)),
            (made(Some(2)), Some(1), Some(2), Some(2)),
            (made(Some(2)), None, Some(2), Some(2)),
        ] {
            assert_eq!(disk.epochs(pinned), Epochs { opens, next }, "{disk:?} {pinned:?}");
        }
    }
}
