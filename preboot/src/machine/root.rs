//! The last step: the node image becomes the root, and its first process takes this one's place.

use std::{
    convert::Infallible,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{fs::MetadataExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use org_trust::RunningImage;
use rustix::{
    fs::{Mode, OFlags},
    ioctl,
    mount::{MountFlags, mount_move},
    process::{chdir, chroot},
};

use super::{
    PERSIST, STATE_DISK,
    kernel::{mount_at, refused},
    node_image::NodeImage,
};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// Never returns when it goes well.
pub(crate) fn switch(image: &NodeImage, persists: bool, console: &mut Console) -> Outcome<Infallible> {
    attach(&image.path)?;
    let read_only = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount_at(LOOP, LOWER, "squashfs", read_only, c"")?;
    // What the node OS writes elsewhere than to the state's disk is gone at the next start.
    mount_at("tmpfs", UPPER, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, c"mode=0755")?;
    for dir in ["/overlay/upper", "/overlay/work"] {
        make(dir, 0o755)?;
    }
    let layers = c"lowerdir=/image,upperdir=/overlay/upper,workdir=/overlay/work";
    mount_at("overlay", ROOT, "overlay", MountFlags::NODEV | MountFlags::NOSUID, layers)?;
    let resolver = format!("{ROOT}/etc/resolv.conf");
    // None was written on a network without DHCP.
    drop(fs::copy("/etc/resolv.conf", resolver));
    make(RUN, 0o750)?;
    let told = Path::new(RUN).join(RunningImage::FILE);
    fs::write(&told, image.running.encode()).map_err(|e| Failure::file(&told, &e))?;
    // Without a disk for it, what is written there goes with the rest.
    let persist = persists.then_some(PERSIST);
    for place in ["/dev", "/proc", "/sys", "/run", STATE_DISK].into_iter().chain(persist) {
        let new = format!("{ROOT}{place}");
        make(&new, 0o755)?;
        mount_move(place, &new).map_err(|why| refused(format_args!("move {place}: {why}")))?;
    }
    console.checkpoint(format_args!("node image, release {}, takes over", image.generation.number));
    let old = File::open("/").map_err(|e| Failure::file(Path::new("/"), &e))?;
    let change = |why: rustix::io::Errno| refused(format_args!("change the root: {why}"));
    chdir(ROOT).map_err(change)?;
    // The old root's files would stay in memory, an invite among them.
    remove_own(Path::new("/"), old.metadata().map_err(|e| Failure::file(Path::new("/"), &e))?.dev());
    mount_move(".", "/").map_err(change)?;
    chroot(".").map_err(change)?;
    chdir("/").map_err(change)?;
    let why = Command::new(INIT).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").exec();
    Err(refused(format_args!("start {INIT}: {why}")))
}

fn make(dir: &str, mode: u32) -> Outcome<()> {
    let made = fs::create_dir_all(dir).and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode)));
    made.map_err(|e| Failure::file(Path::new(dir), &e))
}

/// Puts a file behind the first loop device. Nobody else is there to use it.
fn attach(image: &Path) -> Outcome<()> {
    let file = File::open(image).map_err(|e| Failure::file(image, &e))?;
    let device = rustix::fs::open(LOOP, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Failure::file(Path::new(LOOP), &e.into()))?;
    set_backing_file(&device, &file).map_err(|why| refused(format_args!("attach {}: {why}", image.display())))
}

#[expect(unsafe_code, reason = "no library names this request of the loop driver")]
fn set_backing_file(device: impl std::os::fd::AsFd, file: &File) -> rustix::io::Result<()> {
    let number = usize::try_from(file.as_fd().as_raw_fd()).map_err(|_| rustix::io::Errno::BADF)?;
    // SAFETY: LOOP_SET_FD (linux/loop.h) takes the number of an open file as its argument and touches
    // no memory of this process; both files are open until it returns.
    unsafe { ioctl::ioctl(device, ioctl::IntegerSetter::<LOOP_SET_FD>::new_usize(number)) }
}

/// Removes what lies on one file system, and leaves what is mounted in it.
fn remove_own(dir: &Path, device: u64) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        let removed: io::Result<()> = if metadata.is_dir() {
            remove_own(&path, device);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        // Something is mounted in it.
        drop(removed);
    }
}

/// Where musterd has its control socket, and looks for what preboot says of the image.
const RUN: &str = "/run/muster";
const LOOP: &str = "/dev/loop0";
const LOOP_SET_FD: ioctl::Opcode = 0x4c00;
const LOWER: &str = "/image";
const UPPER: &str = "/overlay";
const ROOT: &str = "/new-root";
const INIT: &str = "/sbin/init";
