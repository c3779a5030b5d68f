//! What the kernel is asked for first: its file systems and its modules.

use std::{fs, path::Path};

use identity::Code;
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use super::watchdog;
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

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

/// Loads the image's modules in the order that the image gives.
pub(crate) fn load_modules(console: &Console) -> Outcome<usize> {
    let order = Path::new("/lib/modules/order");
    let list = fs::read_to_string(order).map_err(|e| Failure::file(order, &e))?;
    let (mut loaded, mut absent) = (0, false);
    for name in list.lines() {
        let path = Path::new("/lib/modules").join(name);
        let file = fs::File::open(&path).map_err(|e| Failure::file(&path, &e))?;
        let parameters = if name == watchdog::MODULE { watchdog::PARAMETERS } else { c"" };
        match rustix::system::finit_module(&file, parameters, 0) {
            Ok(()) | Err(Errno::EXIST) => loaded += 1,
            // Not a machine with that bus; then its drivers lack what they build on.
            Err(Errno::NODEV) => absent = true,
            Err(Errno::NOENT) if absent => {}
            // What is missing shows where it is needed.
            Err(why) => console.note(format_args!("module {name} not loaded: {why}")),
        }
    }
    Ok(loaded)
}

/// The kernel's release.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(crate) fn refused(what: impl core::fmt::Display) -> Failure {
    Failure::new(Code::KernelRefused, what)
}
