//! The encrypted disk for what the node OS keeps: LUKS2, by Debian's cryptsetup, mounted at /persist.
//!
//! Only a disk that the operator marked is ever overwritten: one with an ext4 file system of the label
//! `muster-persist`. From then on the label is that of the LUKS header, and the disk is opened or left as
//! it is. While it is being made it carries another label, so that a power cut begins that anew.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use identity::{Code, DiskKeys};
use rustix::mount::MountFlags;
use zeroize::Zeroizing;

use super::{PERSIST, disk, kernel::mount_at};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// What is on the disk that is to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing was marked.
    None,
    /// To be made.
    Marked(PathBuf),
    /// To be opened.
    Made(PathBuf),
}

/// Opens or makes it, if this machine has such a disk.
///
/// Whether there is one.
pub(crate) fn mount(keys: &DiskKeys, typed: &mpsc::Receiver<String>, console: &mut Console) -> Outcome<bool> {
    match found()? {
        Found::None => {
            console.note(format_args!(
                "no disk is labelled {}: what the node OS keeps is not kept",
                disk::PERSIST_LABEL
            ));
            return Ok(false);
        }
        Found::Marked(device) => {
            make(&device, keys)?;
            console.checkpoint(format_args!("{} is encrypted from now on", device.display()));
        }
        Found::Made(device) => {
            unlock(&device, keys, typed, console)?;
            console.checkpoint(format_args!("encrypted disk {} open", device.display()));
        }
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_at(MAPPED, PERSIST, "ext4", flags, c"")?;
    Ok(true)
}

fn found() -> Outcome<Found> {
    let mut made = disk::disks(disk::Kind::Persist)?;
    let mut marked = disk::disks(disk::Kind::PersistMark)?;
    match (made.pop(), marked.pop()) {
        (None, None) => Ok(Found::None),
        (Some(device), None) if made.is_empty() => Ok(Found::Made(device)),
        (None, Some(device)) if marked.is_empty() => Ok(Found::Marked(device)),
        (Some(_) | None, _) => {
            let detail = format_args!("several disks are labelled {}", disk::PERSIST_LABEL).to_string();
            Err(Failure::new(Code::PersistDisk, detail))
        }
    }
}

fn make(device: &Path, keys: &DiskKeys) -> Outcome<()> {
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
    let token = format!(r#"{{"type":"muster","keyslots":["1"],"machine":"{}"}}"#, keys.machine());
    cryptsetup(&["token", "import", "--json-file", "-", &name], token.as_bytes())?;
    open(&name, &*keyed, true)?;
    tool(MKFS, &["-q", "-t", "ext4", "-L", "muster-data", MAPPED], &[])?;
    cryptsetup(&["config", "--label", disk::PERSIST_LABEL, &name], &[])
}

/// With this machine's key, or else with what the holder of the org keys reads out.
fn unlock(device: &Path, keys: &DiskKeys, typed: &mpsc::Receiver<String>, console: &Console) -> Outcome<()> {
    let name = device.display().to_string();
    let keyed = keys.disk();
    let Err(failure) = open(&name, &*keyed, true) else { return Ok(()) };
    console.note(format_args!("{}: {failure}", Code::PersistLocked));
    console.note("type the disk's recovery passphrase, or Enter to stop");
    let line = Zeroizing::new(typed.recv_timeout(TYPED_WITHIN).unwrap_or_default());
    let typed = line.trim();
    let locked = || Failure::new(Code::PersistLocked, device.display());
    if typed.is_empty() || open(&name, typed.as_bytes(), false).is_err() {
        return Err(locked());
    }
    console.note("open by the recovery passphrase; this machine's key is put in place of the old one");
    let secret = Secret::put(&*keyed)?;
    let path = secret.path.display().to_string();
    // Killed first: the slot is taken. The recovery passphrase stays what it was.
    cryptsetup(&["luksKillSlot", "--batch-mode", "--key-file=-", &name, "0"], typed.as_bytes())?;
    let add = ["luksAddKey", "--batch-mode", "--key-slot", "0", "--key-file=-", "--new-keyfile-size=32"];
    cryptsetup(&[&add[..], PBKDF, &[&name, &path]].concat(), typed.as_bytes())
}

fn open(device: &str, key: &[u8], is_ours: bool) -> Outcome<()> {
    let slot = if is_ours { "0" } else { "1" };
    cryptsetup(&["open", "--type", "luks2", "--key-slot", slot, "--key-file=-", device, NAME], key)
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
/// Both keys have 128 bits or more of their own: there is nothing to guess that work would make slower, and
/// a machine that boots would wait for it.
const PBKDF: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
const TYPED_WITHIN: Duration = Duration::from_secs(300);
