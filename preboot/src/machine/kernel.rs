//! What the kernel is asked for first: its file systems.

use std::{fs, path::Path};

use identity::Code;
use rustix::mount::{MountFlags, mount};

use crate::failure::{Failure, Outcome};

/// Mounts the file systems that come from the kernel.
pub(crate) fn mount_own() -> Outcome<()> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (kind, place, flags, data) in [
        ("proc", "/proc", safe, c""),
        ("sysfs", "/sys", safe, c""),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0755"),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755"),
        ("tmpfs", "/tmp", safe, c"mode=1777"),
    ] {
        mount_at(kind, place, kind, flags, data)?;
    }
    Ok(())
}

/// Mounts, and makes the place for it.
pub(crate) fn mount_at(
    source: &str,
    place: &str,
    kind: &str,
    flags: MountFlags,
    data: &core::ffi::CStr,
) -> Outcome<()> {
    fs::create_dir_all(place).map_err(|e| Failure::file(Path::new(place), &e))?;
    mount(source, place, kind, flags, data)
        .map_err(|why| refused(format_args!("mount {source} at {place}: {why}")))
}

/// The kernel's release.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(crate) fn refused(what: impl core::fmt::Display) -> Failure {
    Failure::new(Code::KernelRefused, what)
}
