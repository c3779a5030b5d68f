//! The node image that starts: the one that the gateway wants, or else the one on the boot disk, kept in a
//! slot; and when that one never becomes ready, the last that did. Whichever it is, it is copied into
//! memory and used only as the bytes that the org's release key signed.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use identity::{
    BlobHash, Code, OrgId, PublicKey,
    limits::{GENERATION_BYTES_MAX, IMAGE_TRIES_MAX},
};
use org_trust::{Generation, RunningImage};
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::{
    STATE_DISK, choice,
    copy::Copy,
    disk,
    kernel::mount_at,
    slots::{self, Kept, Slots, Tries},
    watchdog,
};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
    files,
    gateway::Images,
    start::Started,
};

/// An image in memory that is what was signed.
#[derive(Debug)]
pub(crate) struct NodeImage {
    pub(crate) generation: Generation,
    pub(crate) path: PathBuf,
    /// What musterd is told of it.
    pub(crate) running: RunningImage,
}

/// Finds it, fetches it if need be, and counts the start. A gateway that has none or cannot be asked, and a
/// disk that takes nothing, are no reason to stop while there is an image.
pub(super) async fn get(
    started: &mut Started,
    release: &PublicKey,
    copy: &mut Copy,
    console: &mut Console,
) -> Outcome<NodeImage> {
    let org = started.member.org();
    let slots = Slots::open(place())?;
    let mut kept = slots.kept(&org, release, console);
    raise_floor(started, &kept, console)?;
    let floor = started.boot.floor();
    kept.retain(|kept| is_allowed(&kept.generation, floor, console));
    let wanted = wanted(started, &org, release, console).await;
    let wanted = wanted.filter(|wanted| is_allowed(&wanted.generation, floor, console));
    if let Some(wanted) = &wanted
        && !kept.iter().any(|kept| kept.generation == wanted.generation)
    {
        match keep(started, wanted, &slots, &kept, console).await {
            Ok(()) => {
                kept = slots.kept(&org, release, console);
                kept.retain(|kept| kept.generation.number >= floor);
            }
            Err(failure) => console.note(format_args!("release {}: {failure}", wanted.generation.number)),
        }
    }
    let generation = wanted.as_ref().map(|wanted| &wanted.generation);
    for next in choice::order(kept.clone(), generation) {
        match copy.of(&slots.image(next.slot), &next.generation) {
            Ok(path) => return Ok(count(&slots, &kept, &next, generation, (path, floor), console)),
            Err(failure) => console.note(format_args!("slot {}: {failure}", next.slot.name())),
        }
    }
    // Nothing in the slots; the boot disk may have one that could not be kept, or that nobody asked for.
    let Some((signed, device)) = on_disk(console) else {
        let detail = "no gateway passes one on, and none is on the boot disk or in a slot";
        return Err(Failure::new(Code::NodeImageMissing, detail));
    };
    let generation = slots::verified(&signed, &org, release)?;
    let release = generation.number;
    if release < floor {
        let detail = format_args!("release {release}, and none before {floor} starts here").to_string();
        return Err(Failure::new(Code::GenerationTooOld, detail));
    }
    let path = on(&device, |disk| copy.of(&disk.join(IMAGE), &generation))?;
    let running = RunningImage { release, floor, slot: None, tries_left: None, given_up: None };
    Ok(NodeImage { generation, path, running })
}

/// The newest release that was ready here, by what the slots say; it is not checked yet.
pub(crate) fn good(org: &OrgId, release: &PublicKey, console: &Console) -> Option<u32> {
    let slots = Slots::open(place()).ok()?;
    choice::good(slots.kept(org, release, console)).first().map(|kept| kept.generation.number)
}

/// That one, without having asked a gateway; not below the floor, and checked like any other.
pub(super) fn get_good(
    started: &mut Started,
    release: &PublicKey,
    copy: &mut Copy,
    console: &mut Console,
) -> Outcome<NodeImage> {
    let slots = Slots::open(place())?;
    let mut kept = slots.kept(&started.member.org(), release, console);
    raise_floor(started, &kept, console)?;
    let floor = started.boot.floor();
    kept.retain(|kept| is_allowed(&kept.generation, floor, console));
    for next in choice::good(kept.clone()) {
        match copy.of(&slots.image(next.slot), &next.generation) {
            Ok(path) => return Ok(count(&slots, &kept, &next, None, (path, floor), console)),
            Err(failure) => console.note(format_args!("slot {}: {failure}", next.slot.name())),
        }
    }
    Err(Failure::new(Code::NodeImageMissing, "no gateway was asked, and no release that was ready is kept"))
}

/// Where the slots are.
pub(super) fn place() -> PathBuf {
    Path::new(STATE_DISK).join("slots")
}

/// What is to start, and where it is to be had.
struct Wanted {
    generation: Generation,
    signed: Vec<u8>,
    source: Source,
}

enum Source {
    Gateway,
    Disk(PathBuf),
}

/// The floor moves at the start after the one in which an image was ready: one that nobody can use must
/// not shut out the one that works.
fn raise_floor(started: &mut Started, kept: &[Kept], console: &mut Console) -> Outcome<()> {
    let floor = choice::floor(kept);
    if floor > started.boot.floor() {
        started.store.raise_floor(&mut started.boot, floor)?;
        console.checkpoint(format_args!("no release before {floor} starts here from now on"));
    }
    Ok(())
}

async fn wanted(
    started: &mut Started,
    org: &OrgId,
    release: &PublicKey,
    console: &mut Console,
) -> Option<Wanted> {
    let (signed, source) = match asked(started).await {
        Ok(Some(signed)) => (signed, Source::Gateway),
        Ok(None) => from_disk(console)?,
        Err(failure) => {
            console.note(format_args!("which release is wanted is not known: {failure}"));
            from_disk(console)?
        }
    };
    match slots::verified(&signed, org, release) {
        Ok(generation) => {
            let from = match &source {
                Source::Gateway => "by the gateway".to_owned(),
                Source::Disk(device) => format!("by {}", device.display()),
            };
            console.checkpoint(format_args!("release {} is wanted {from}", generation.number));
            Some(Wanted { generation, signed, source })
        }
        Err(failure) => {
            console.note(format_args!("the release that is wanted: {failure}"));
            None
        }
    }
}

fn from_disk(console: &Console) -> Option<(Vec<u8>, Source)> {
    on_disk(console).map(|(signed, device)| (signed, Source::Disk(device)))
}

/// The gateway that has just answered is first.
async fn asked(started: &Started) -> Outcome<Option<Vec<u8>>> {
    let Some(gateway) = started.member.gateways.first() else { return Ok(None) };
    let mut chain = started.member.chain.clone();
    let mut images = Images::open(gateway, &started.member, &mut chain, &started.boot).await?;
    let wanted = images.wanted().await?;
    images.close().await;
    Ok(wanted)
}

/// The first release on a FAT file system; the one that firmware started from is one.
fn on_disk(console: &Console) -> Option<(Vec<u8>, PathBuf)> {
    let devices = disk::disks(disk::Kind::Fat).unwrap_or_default();
    devices.into_iter().find_map(|device| {
        match on(&device, |disk| files::read(&disk.join(GENERATION), GENERATION_BYTES_MAX)) {
            Ok(signed) => signed.map(|signed| (signed, device)),
            Err(failure) => {
                console.note(format_args!("{}: {failure}", device.display()));
                None
            }
        }
    })
}

/// Gets an image into the slot that is of the least use.
async fn keep(
    started: &Started,
    wanted: &Wanted,
    slots: &Slots,
    kept: &[Kept],
    console: &mut Console,
) -> Outcome<()> {
    let slot = choice::spare(kept);
    let Wanted { generation, signed, source } = wanted;
    match source {
        Source::Disk(device) => on(device, |disk| {
            let path = disk.join(IMAGE);
            let from = File::open(&path).map_err(|e| Failure::file(&path, &e))?;
            let mut receiving = slots.receive(signed)?;
            receiving.copy(from, generation)?;
            slots.install(receiving, slot)
        })?,
        Source::Gateway => {
            let mut receiving = slots.receive(signed)?;
            fetch(started, generation, &mut receiving, console).await?;
            slots.install(receiving, slot)?;
        }
    }
    let (number, bytes) = (generation.number, generation.image_bytes);
    console.checkpoint(format_args!("release {number}, {bytes} bytes, is in slot {}", slot.name()));
    Ok(())
}

/// From any gateway, and after a break from where it came to.
async fn fetch(
    started: &Started,
    generation: &Generation,
    receiving: &mut slots::Receiving,
    console: &Console,
) -> Outcome<()> {
    let mut last = Failure::new(Code::NodeImageMissing, "no gateway is named");
    for gateway in started.member.gateways.iter().cycle().take(FETCH_TRIES * started.member.gateways.len()) {
        let mut chain = started.member.chain.clone();
        let fetched = async {
            let mut images = Images::open(gateway, &started.member, &mut chain, &started.boot).await?;
            let outline = images.outline(BlobHash(generation.image), generation.image_bytes).await?;
            let first = receiving.go_on(&outline)?;
            if first > 0 {
                console.note(format_args!("going on at piece {first} of {}", outline.pieces()));
            }
            images.pieces(&outline, first, |piece| receiving.append(piece)).await?;
            images.close().await;
            Ok::<(), Failure>(())
        };
        match Box::pin(fetched).await {
            Ok(()) => return Ok(()),
            Err(failure) if failure.code == Code::NodeImageNotKept => return Err(failure),
            Err(failure) => {
                console.note(format_args!("{gateway}: {failure}"));
                last = failure;
            }
        }
    }
    Err(last)
}

/// The start counts before anything of the image has run.
fn count(
    slots: &Slots,
    kept: &[Kept],
    starts: &Kept,
    wanted: Option<&Generation>,
    (path, floor): (PathBuf, u32),
    console: &Console,
) -> NodeImage {
    let generation = starts.generation.clone();
    let given_up = choice::given_up(kept, &generation, wanted);
    if let Some(release) = given_up {
        let (code, release_now) = (Code::NodeImageGivenUp, generation.number);
        let detail = format_args!("release {release} was not ready in {IMAGE_TRIES_MAX} starts");
        console.note(format_args!("{code}: {}: {detail}, release {release_now} starts", code.title()));
    }
    let tries_left = match starts.tries {
        Tries::Ready => None,
        Tries::Left(left) => {
            let left = left.saturating_sub(1);
            if let Err(failure) = slots.count_down(starts.slot, left) {
                console.note(failure);
            }
            // If it hangs, the machine starts anew by itself.
            watchdog::start(console);
            console.note(format_args!("release {} is on trial: {left} starts left", generation.number));
            Some(left)
        }
    };
    let slot = Some(slots.path(starts.slot).display().to_string());
    let running = RunningImage { release: generation.number, floor, slot, tries_left, given_up };
    NodeImage { generation, path, running }
}

fn is_allowed(generation: &Generation, floor: u32, console: &Console) -> bool {
    let allowed = generation.number >= floor;
    if !allowed {
        let detail = format_args!("release {}, and none before {floor} starts here", generation.number);
        console.note(Failure::new(Code::GenerationTooOld, detail));
    }
    allowed
}

/// With a boot disk mounted.
fn on<T>(device: &Path, with: impl FnOnce(&Path) -> Outcome<T>) -> Outcome<T> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_at(&device.to_string_lossy(), PLACE, "vfat", flags, c"")?;
    let done = with(Path::new(PLACE));
    unmount(PLACE, UnmountFlags::DETACH)
        .map_err(|why| Failure::new(Code::KernelRefused, format_args!("unmount {PLACE}: {why}")))?;
    done
}

const PLACE: &str = "/run/boot-disk";
const GENERATION: &str = "muster/node.release";
const IMAGE: &str = "muster/node.squashfs";
/// Through all gateways.
const FETCH_TRIES: usize = 3;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        slots::tests::{ORG, generation, image, put, release_key},
        *,
    };
    use crate::machine::slots::Slot;

    #[test]
    fn an_image_counts_its_starts_until_it_was_ready_and_is_given_up_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path().to_owned()).unwrap();
        put(&slots, Slot::A, 4, &image(4));
        fs::write(slots.path(Slot::A).join(RunningImage::READY), b"1\n").unwrap();
        put(&slots, Slot::B, 5, &image(5));
        let wanted = generation(5, &image(5));
        let mut ran = Vec::new();
        for _ in 0..5 {
            let kept = slots.kept(&ORG, &release_key().public(), &Console::default());
            let next = choice::order(kept.clone(), Some(&wanted)).remove(0);
            let to = (PathBuf::new(), 2);
            let started = count(&slots, &kept, &next, Some(&wanted), to, &Console::default());
            ran.push((started.running.release, started.running.tries_left, started.running.given_up));
        }
        let trial = |left| (5, Some(left), None);
        assert_eq!(ran, [trial(2), trial(1), trial(0), (4, None, Some(5)), (4, None, Some(5))]);
    }

    #[test]
    fn a_release_below_the_floor_is_not_started() {
        let console = Console::default();
        assert!(is_allowed(&generation(5, b"x"), 5, &console));
        assert!(!is_allowed(&generation(4, b"x"), 5, &console));
    }
}
