//! The machine itself, when this program is the first process of an image: from the kernel to the node
//! image, with nothing but what the image pins.
//!
//! The kernel's command line is not read: who can change it changes nothing here. There is no shell and
//! no way to one.

mod begin;
mod choice;
mod clock;
mod copy;
mod disk;
mod kernel;
mod lease;
mod modules;
mod network;
mod node_image;
mod persist;
mod recovery;
mod root;
mod secure_boot;
mod share;
mod slots;
mod watchdog;

use std::{
    io::BufRead as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
};

use boot_image::{LEAVE_PREBOOT, PINS_DIRECTORY, Pcr, Pins};
use identity::{Code, HashContext, OrgId, limits::INITRAMFS_BYTES_MAX};
use org_trust::CharterChain;
use rustix::system::RebootCommand;
use tpm_seal::{Approvals, Tpm};

use self::{
    begin::{Policy, Stopped, begin},
    copy::Copy,
    recovery::AGAIN_AFTER,
};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
    files,
    keys::Binding,
    settings::Arguments,
    start::Image,
};

/// Whether this process is the first one, and so has the machine to itself.
pub(crate) fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Boots. Returns only when it does not get as far as the node image.
pub(crate) fn run() -> ExitCode {
    let mut console = Console::default();
    let typed = lines();
    let stopped = match boot(&typed, &mut console) {
        Ok(never) => match never {},
        Err(stopped) => stopped,
    };
    if let Stopped::Failed(failure) = &stopped {
        console.failure(failure);
    }
    if let Err(why) = leave_phase() {
        console.note(format_args!("the TPM's register could not be extended: {why}"));
    }
    let command = match stopped {
        Stopped::Chosen(command) => command,
        Stopped::Failed(failure) => next(&typed, &console, failure.passes()),
    };
    rustix::fs::sync();
    match rustix::system::reboot(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.note(format_args!("the kernel does not start anew: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What is typed at the console, line by line.
fn lines() -> mpsc::Receiver<String> {
    let (sender, typed) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    typed
}

fn boot(typed: &mpsc::Receiver<String>, console: &mut Console) -> Result<core::convert::Infallible, Stopped> {
    kernel::mount_own()?;
    console.open_all();
    console.checkpoint(format_args!("muster-preboot {} on {}", env!("CARGO_PKG_VERSION"), kernel::release()));
    let (always, mut drivers) = modules::brought()?;
    let loaded = drivers.load(console);
    console.checkpoint(format_args!("{loaded} kernel modules loaded for the devices of this machine"));
    modules::load("efivarfs.ko", console);
    // Nothing needs the rest before the node image does, and the TPM leaves time for it.
    let rest = modules::load_beside(always);

    let tpm = Tpm::open(Path::new(TPM))?;
    let measured = Pcr::from(tpm.register(PHASE_REGISTER)?);
    console.checkpoint(format_args!("the TPM measured this image as {measured}"));
    if matches!(tpm.is_locked_out(), Ok(true)) {
        console.note(Failure::new(Code::TpmLocked, "keys of this machine open even so"));
    }

    let pins = Pins::read(pin).map_err(|why| Failure::new(Code::ImageIncomplete, why))?;
    let wrong = "the org's settings in the image do not hold";
    let chain = CharterChain::read_file(&pins.settings)
        .map_err(|why| Failure::new(Code::ImageIncomplete, format_args!("{wrong}: {why}")))?;
    let org = chain.head().charter().name.clone();
    console.checkpoint(format_args!("image of org {org}, id {}", chain.org().short()));
    if let Some(moved) = clock::not_before(pins.built_unix_s)? {
        console.note(format_args!(
            "the clock was {} days behind the image and was set",
            moved.as_secs() / 86_400
        ));
    }

    let approvals = approvals(&pins, &chain.org(), measured)?;
    let weakness = secure_boot::weakness(pins.secure_boot.as_ref());
    match weakness {
        None => console.checkpoint("Secure Boot starts nothing here but what the org signed"),
        // Keys of such a machine are sealed to registers that any other system can show as well.
        Some(why) => console.checkpoint(format_args!("{why}: keys are not bound to what is booted")),
    }
    let binding = Binding { approvals, secure_boot: weakness.is_none() };

    disk::mount_state(&mut drivers, console)?;
    console.checkpoint("disk of this machine's state mounted");
    let mut copy = Copy::begin(PathBuf::from(IMAGE), node_image::place(), &chain.org(), &pins.release);
    network::await_card(&mut drivers, console);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::file(Path::new("/"), &e))?;
    let state = PathBuf::from(STATE);
    let (release, recovery) = (pins.release, pins.recovery);
    let (started, image, disk, shares) = runtime.block_on(async {
        let arguments = Arguments {
            state: Some(state.clone()),
            invite: pins.invite.is_some().then(|| pin_path("invite")),
            bundle: Some(pin_path("bundle.pem")),
            config: None,
            name: None,
            tpm: Some(PathBuf::from(TPM)),
            key_storage: None,
            attempts: ATTEMPTS,
            manual: false,
        };
        let image = Image { chain, gateways: pins.gateways, binding };
        let policy = Policy { release, share: pins.share, without_gateway: pins.without_gateway };
        let (mut started, known) = Box::pin(begin(&arguments, &image, policy, typed, console)).await?;
        rest.finish(console);
        let image = match known {
            true => Box::pin(node_image::get(&mut started, &release, &mut copy, console)).await?,
            false => node_image::get_good(&mut started, &release, &mut copy, console)?,
        };
        let disk = persist::Found::look()?;
        let epochs = disk.epochs(pins.share);
        let shares = match known {
            true => Box::pin(share::get(&started, epochs, console)).await,
            false => share::unasked(epochs),
        };
        Ok::<_, Stopped>((started, image, disk, shares))
    })?;
    drop(runtime);
    console.checkpoint(format_args!(
        "node image, release {}, {} bytes, is the one that was signed",
        image.generation.number, image.generation.image_bytes
    ));
    let keys = |share| started.boot.disk_keys(share, started.member.org(), recovery);
    let persists = persist::mount(disk, shares, keys, typed, console)?;
    drop(started);
    // From here on nothing that is sealed to this phase opens until the machine starts anew.
    leave_phase()?;
    Ok(root::switch(&image, persists, console)?)
}

/// Says to the TPM that preboot is over.
fn leave_phase() -> Outcome<()> {
    Ok(Tpm::open(Path::new(TPM))?.extend(PHASE_REGISTER, LEAVE_PREBOOT)?)
}

/// What the image brings for the TPM. They stand outside the measurement, which they are about; the TPM
/// holds them to the key, and this to the org.
fn approvals(pins: &Pins, org: &OrgId, measured: Pcr) -> Outcome<Approvals> {
    let incomplete = |why: &str| Failure::new(Code::ImageIncomplete, format_args!("its approvals {why}"));
    let bytes =
        files::read(Path::new(APPROVALS), Approvals::BYTES)?.ok_or_else(|| incomplete("are missing"))?;
    let approvals = Approvals::decode(&bytes).map_err(|_| incomplete("are damaged"))?;
    let phases = [&approvals.preboot, &approvals.node].map(|approval| approval.phase);
    let wanted = [HashContext::IMAGE_PREBOOT_PHASE, HashContext::IMAGE_NODE_PHASE];
    if approvals.key.0 != pins.image_key || phases != wanted.map(|context| context.hash(&[org.as_bytes()])) {
        return Err(incomplete("are another key's or another org's"));
    }
    let images = [&approvals.preboot, &approvals.node].map(|approval| approval.image);
    if images != [measured, measured.extended(LEAVE_PREBOOT)].map(|pcr| *pcr.as_bytes()) {
        let detail = "the TPM measured something else than the approvals in the image are for";
        return Err(Failure::new(Code::ImageNotApproved, detail));
    }
    Ok(approvals)
}

fn pin(name: &'static str) -> Option<Vec<u8>> {
    files::read(&pin_path(name), INITRAMFS_BYTES_MAX).ok().flatten()
}

fn pin_path(name: &str) -> PathBuf {
    Path::new("/").join(PINS_DIRECTORY).join(name)
}

/// What is left to do after a failure: try again, by itself where that may help, or switch off. The
/// machine starts anew for it, so that the TPM's registers do.
fn next(typed: &mpsc::Receiver<String>, console: &Console, passes: bool) -> RebootCommand {
    console.note("Enter tries again, o and Enter switches off");
    if passes {
        console.note(format_args!("by itself it tries again in {} s", AGAIN_AFTER.as_secs()));
    }
    let line = match passes {
        true => typed.recv_timeout(AGAIN_AFTER).unwrap_or_default(),
        // Without anybody at the console, and nothing that time would mend, it stays as it is.
        false => typed.recv().unwrap_or_else(|_| {
            loop {
                std::thread::park();
            }
        }),
    };
    if line.trim() == "o" { RebootCommand::PowerOff } else { RebootCommand::Restart }
}

/// Where the disk with this machine's state is, before and after the change of the root.
const STATE_DISK: &str = "/state";
const STATE: &str = "/state/muster";
/// The node image in memory.
const IMAGE: &str = "/run/node.squashfs";
/// Where what the node OS keeps is, encrypted.
const PERSIST: &str = "/persist";
const TPM: &str = "/dev/tpmrm0";
/// The register of what is booted.
const PHASE_REGISTER: u8 = 11;
/// Where systemd's stub lays the section `.pcrsig`.
const APPROVALS: &str = "/.extra/tpm2-pcr-signature.json";
const ATTEMPTS: u32 = 5;
