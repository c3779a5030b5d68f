//! Sealing and opening against a software TPM that is driven like a real one.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::Swtpm;
use rustix::pty::OpenptFlags;
use tempfile::TempDir;
use tpm_seal::{BootSecrets, Custody, CustodyError, Kind, NodeSecrets, SealedBlob, Seed, Tpm, TpmError};
use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::{CapabilityType, CommandCode, SessionType};
use tss_esapi::handles::{AuthHandle, KeyHandle, PersistentTpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, CapabilityData, EccParameter, EccPoint, PublicBuilder, PublicEccParametersBuilder,
    SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;

#[test]
fn what_was_sealed_opens_again_also_after_a_power_cut() {
    let mut machine = Machine::new();
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap();
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
    machine.swtpm.power_cycle().unwrap();
    let blob = SealedBlob::decode(&blob.encode()).unwrap();
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
    assert!(machine.tpm.is_software());
}

#[test]
fn every_length_up_to_128_bytes_is_sealed_and_no_other() {
    let machine = Machine::new();
    for length in [1, 64, 127, 128] {
        let blob = machine.tpm.seal(&vec![9; length], None).unwrap();
        assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), vec![9; length]);
    }
    for length in [0, 129] {
        let error = machine.tpm.seal(&vec![9; length], None).unwrap_err();
        assert!(matches!(error, TpmError::PayloadSize { bytes } if bytes == length), "{error}");
    }
}

#[test]
fn a_register_is_extended_by_a_hash_and_only_a_power_cycle_empties_it() {
    use sha2::Digest as _;
    let mut machine = Machine::new();
    assert_eq!(machine.tpm.register(11).unwrap(), [0; 32]);
    machine.tpm.extend(11, b"event").unwrap();
    let mut hash = sha2::Sha256::new();
    hash.update([0; 32]);
    hash.update(sha2::Sha256::digest(b"event"));
    let expected: [u8; 32] = hash.finalize().into();
    assert_eq!(machine.tpm.register(11).unwrap(), expected);
    assert_eq!(machine.tpm.register(12).unwrap(), [0; 32]);
    machine.swtpm.power_cycle().unwrap();
    assert_eq!(machine.tpm.register(11).unwrap(), [0; 32]);
}

#[test]
fn another_tpm_is_told_as_replaced() {
    let (one, other) = (Machine::new(), Machine::new());
    let blob = one.tpm.seal(PAYLOAD, None).unwrap();
    assert_eq!(other.tpm.unseal(&blob, None).unwrap_err().kind(), Kind::Replaced);
    assert_eq!(other.tpm.seal(PAYLOAD, Some(blob.parent())).unwrap_err().kind(), Kind::Replaced);
    assert_eq!(one.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
}

#[test]
fn a_cleared_tpm_is_told_as_replaced() {
    let machine = Machine::new();
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap();
    machine
        .context()
        .execute_with_session(Some(AuthSession::Password), |context| context.clear(AuthHandle::Lockout))
        .unwrap();
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap_err().kind(), Kind::Replaced);
}

#[test]
fn a_damaged_object_in_front_of_the_right_tpm_is_told_as_damaged() {
    use sha2::Digest as _;
    let machine = Machine::new();
    let good = machine.tpm.seal(PAYLOAD, None).unwrap().encode();
    let private = 8 + 3 + 34 + 78 + 2;
    let (mut damaged, mut tried) = (0, 0);
    // With a checksum made right again, so that it is the TPM that must notice.
    for offset in (private..good.len() - 32).step_by(23).chain([private - 2 - 32, private - 3]) {
        let mut bytes = good.clone();
        bytes[offset] ^= 0x10;
        let body = bytes.len() - 32;
        let checksum: [u8; 32] = sha2::Sha256::digest(&bytes[..body]).into();
        bytes[body..].copy_from_slice(&checksum);
        let blob = SealedBlob::decode(&bytes).unwrap();
        tried += 1;
        match machine.tpm.unseal(&blob, None) {
            Err(TpmError::Damaged) => damaged += 1,
            other => panic!("offset {offset}: {:?}", other.map(|_| "opened")),
        }
    }
    assert!(tried >= 8 && damaged == tried);
}

#[test]
fn no_device_is_told_as_absent_and_a_held_one_as_busy() {
    let machine = Machine::new();
    let device = machine.swtpm.device().to_owned();
    let held = File::options().read(true).write(true).open(&device).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(machine.tpm.is_locked_out().unwrap_err().kind(), Kind::Busy);
    drop(held);
    let tpm = machine.tpm.clone();
    drop(machine);
    assert_eq!(tpm.is_locked_out().unwrap_err().kind(), Kind::Absent);
    assert_eq!(Tpm::open(Path::new("/dev/tpmrm99999")).unwrap_err().kind(), Kind::Absent);
    assert_eq!(Tpm::open(Path::new("/dev/null")).unwrap_err().kind(), Kind::NotADevice);
}

#[test]
fn fifty_rounds_leave_nothing_in_the_tpm() {
    let machine = Machine::new();
    let other = Machine::new().tpm.seal(PAYLOAD, None);
    for round in 0..50_u8 {
        let blob = machine.tpm.seal(&[round; 40], None).unwrap();
        assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), [round; 40]);
        // A failing one as well.
        assert_eq!(machine.tpm.unseal(other.as_ref().unwrap(), None).unwrap_err().kind(), Kind::Replaced);
    }
    let mut context = machine.context();
    for first in [0x8000_0000, 0x0200_0000, 0x0300_0000] {
        let (found, _) = context.get_capability(CapabilityType::Handles, first, 8).unwrap();
        let CapabilityData::Handles(handles) = found else { panic!("other data") };
        assert!(handles.into_inner().is_empty(), "handles from {first:#x} are left");
    }
}

#[test]
fn a_tpm_filled_up_by_another_program_is_told_as_busy() {
    let mut machine = Machine::new();
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap();
    // Without a resource manager, what a killed program leaves in the TPM stays there.
    let mut killed = machine.context();
    for _ in 0..3 {
        storage_key(&mut killed, EccPoint::default());
    }
    std::mem::forget(killed);
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap_err().kind(), Kind::Busy);
    machine.swtpm.power_cycle().unwrap();
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
}

#[test]
fn the_persistent_storage_key_is_used_when_it_is_the_right_one() {
    let machine = Machine::new();
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap();
    let mut context = machine.context();
    let key = storage_key(&mut context, EccPoint::default());
    make_persistent(&mut context, key);
    // With an owner password nothing can be recreated, so only the persistent key is left.
    set_owner_password(&mut context);
    drop(context);
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
    let resealed = machine.tpm.seal(b"floor 2", Some(blob.parent())).unwrap();
    assert_eq!(machine.tpm.unseal(&resealed, None).unwrap().as_slice(), b"floor 2");
    let error = machine.tpm.seal(PAYLOAD, None).unwrap_err();
    assert!(error.kind() == Kind::Failure && error.to_string().contains("owner password"), "{error}");
}

#[test]
fn a_foreign_persistent_key_is_left_alone() {
    let machine = Machine::new();
    let mut context = machine.context();
    // The form with 32 zeros, which other programs put there.
    let zeros = EccParameter::try_from([0; 32].as_slice()).unwrap();
    let key = storage_key(&mut context, EccPoint::new(zeros.clone(), zeros));
    make_persistent(&mut context, key);
    drop(context);
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap();
    assert_eq!(machine.tpm.unseal(&blob, None).unwrap().as_slice(), PAYLOAD);
    let (found, _) = machine.context().get_capability(CapabilityType::Handles, 0x8100_0000, 8).unwrap();
    let CapabilityData::Handles(handles) = found else { panic!("other data") };
    assert_eq!(handles.into_inner().len(), 1);
}

#[test]
fn threads_share_one_tpm() {
    let machine = Machine::new();
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let tpm = &machine.tpm;
            scope.spawn(move || {
                for _ in 0..5 {
                    let blob = tpm.seal(&[thread; 64], None).unwrap();
                    assert_eq!(tpm.unseal(&blob, None).unwrap().as_slice(), [thread; 64]);
                }
            });
        }
    });
}

#[test]
fn the_policy_digest_is_the_tpms_own() {
    let machine = Machine::new();
    let blob = machine.tpm.seal(PAYLOAD, None).unwrap().encode();
    let mut context = machine.context();
    let session = context
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Trial,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .unwrap()
        .unwrap();
    let session = session.try_into().unwrap();
    context.policy_command_code(session, CommandCode::Unseal).unwrap();
    let digest = context.policy_get_digest(session).unwrap();
    assert!(blob.windows(32).any(|window| window == digest.value()));
}

#[test]
fn the_payload_is_not_on_the_bus() {
    let machine = Machine::new();
    let bus = Bus::between(machine.swtpm.device());
    let tpm = Tpm::open(&bus.device).unwrap();
    let payload: Vec<u8> = (0..128_u8).map(|n| n.wrapping_mul(37) ^ 0x5a).collect();
    let blob = tpm.seal(&payload, None).unwrap();
    assert_eq!(tpm.unseal(&blob, None).unwrap().as_slice(), payload);
    let seen = bus.seen.lock().unwrap();
    assert!(seen.len() > 1000, "only {} bytes passed", seen.len());
    assert!(seen.windows(32).any(|window| window == &blob.encode()[8 + 3 + 2..][..32]), "not this traffic");
    assert!(!payload.chunks(16).any(|part| seen.windows(16).any(|window| window == part)));
}

#[test]
fn node_and_boot_secrets_are_kept_and_tested() {
    let machine = Machine::new();
    let dir = TempDir::new().unwrap();
    let custody = Custody::Tpm(machine.tpm);
    assert!(!Custody::is_kept::<NodeSecrets>(dir.path()).unwrap());
    assert_eq!(custody.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Missing);
    custody.store(dir.path(), &node(1)).unwrap();
    custody.store(dir.path(), &boot(1)).unwrap();
    custody.test(dir.path(), &node(1)).unwrap();
    assert!(matches!(custody.test(dir.path(), &node(2)), Err(CustodyError::Differs { .. })));
    // The floor advances; the file is replaced under the same storage key.
    custody.store(dir.path(), &boot(2)).unwrap();
    assert!(custody.load::<BootSecrets>(dir.path()).unwrap() == boot(2));
    assert_eq!(names(dir.path()), ["boot.sealed", "node.sealed"]);
    let mode = fs::metadata(dir.path().join("node.sealed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Under each other's name they are not taken for each other.
    fs::copy(dir.path().join("boot.sealed"), dir.path().join("node.sealed")).unwrap();
    assert_eq!(custody.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Malformed);
    Custody::forget::<NodeSecrets>(dir.path()).unwrap();
    Custody::forget::<BootSecrets>(dir.path()).unwrap();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_stolen_directory_does_not_open_elsewhere_and_is_not_overwritten_there() {
    let (mine, theirs) = (Machine::new(), Machine::new());
    let dir = TempDir::new().unwrap();
    Custody::Tpm(mine.tpm).store(dir.path(), &node(1)).unwrap();
    let before = fs::read(dir.path().join("node.sealed")).unwrap();
    let elsewhere = Custody::Tpm(theirs.tpm);
    assert_eq!(elsewhere.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Replaced);
    assert_eq!(elsewhere.store(dir.path(), &node(2)).unwrap_err().kind(), Kind::Replaced);
    assert_eq!(fs::read(dir.path().join("node.sealed")).unwrap(), before);
}

#[test]
fn one_storage_is_never_taken_for_the_other() {
    let machine = Machine::new();
    let sealed = Custody::Tpm(machine.tpm);
    let dir = TempDir::new().unwrap();
    Custody::File.store(dir.path(), &node(1)).unwrap();
    assert!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap() == node(1));
    assert_eq!(sealed.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::OtherStorage);
    assert_eq!(sealed.store(dir.path(), &node(1)).unwrap_err().kind(), Kind::OtherStorage);
    Custody::forget::<NodeSecrets>(dir.path()).unwrap();
    sealed.store(dir.path(), &node(1)).unwrap();
    assert_eq!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::OtherStorage);
}

#[test]
fn a_failing_tpm_never_leads_to_a_key_in_a_file() {
    let machine = Machine::new();
    let custody = Custody::Tpm(machine.tpm.clone());
    let dir = TempDir::new().unwrap();
    drop(machine);
    assert_eq!(custody.store(dir.path(), &node(1)).unwrap_err().kind(), Kind::Absent);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let dir = TempDir::new().unwrap();
    Custody::File.store(dir.path(), &node(1)).unwrap();
    let path = dir.path().join("node.key");
    for mode in [0o640, 0o604, 0o620, 0o700, 0o4600] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err();
        assert!(matches!(error, CustodyError::TooOpen { mode: found, .. } if found == mode), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap() == node(1));
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert_eq!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Disk);
}

#[test]
fn a_secret_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let dir = TempDir::new().unwrap();
    Custody::File.store(dir.path(), &node(1)).unwrap();
    std::os::unix::fs::chown(dir.path().join("node.key"), Some(65534), None).unwrap();
    let error = Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err();
    assert!(matches!(error, CustodyError::WrongOwner { uid: 65534, .. }), "{error}");
}

#[test]
fn a_plain_file_cut_or_flipped_anywhere_is_malformed() {
    let dir = TempDir::new().unwrap();
    Custody::File.store(dir.path(), &node(1)).unwrap();
    let path = dir.path().join("node.key");
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert_eq!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Malformed);
    }
    for offset in 0..good.len() {
        let mut bytes = good.clone();
        bytes[offset] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Malformed);
    }
    fs::write(&path, [good.as_slice(), &[0; 4096]].concat()).unwrap();
    assert_eq!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Malformed);
}

#[test]
fn a_file_left_unfinished_beside_the_old_one_changes_nothing() {
    let dir = TempDir::new().unwrap();
    Custody::File.store(dir.path(), &node(1)).unwrap();
    fs::write(dir.path().join("node.key.new"), b"half of a ").unwrap();
    assert!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap() == node(1));
    Custody::File.store(dir.path(), &node(2)).unwrap();
    assert!(Custody::File.load::<NodeSecrets>(dir.path()).unwrap() == node(2));
    assert_eq!(names(dir.path()), ["node.key"]);
}

#[test]
fn a_process_killed_while_storing_leaves_a_whole_file() {
    if let Some(dir) = std::env::var_os(STORE_FOREVER) {
        // This is the process to kill.
        let mut said = false;
        for turn in (0..=u8::MAX).cycle() {
            Custody::File.store(Path::new(&dir), &node(turn)).unwrap();
            if !said {
                println!("storing");
                said = true;
            }
        }
    }
    let dir = TempDir::new().unwrap();
    let mut turns = std::collections::BTreeSet::new();
    for round in 0..25_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_killed_while_storing_leaves_a_whole_file", "--nocapture"])
            .env(STORE_FOREVER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("storing")));
        // Not a wait for anything: spreads the kills over the steps of a store.
        for _ in 0..round * 2000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let kept: NodeSecrets = Custody::File.load(dir.path()).unwrap();
        turns.insert(kept.identity.expose(|seed| seed[0]));
        assert!(kept == node(kept.identity.expose(|seed| seed[0])));
    }
}

const PAYLOAD: &[u8] = b"sixty-four bytes of something that nobody else should ever read.";
const STORE_FOREVER: &str = "TPM_SEAL_TEST_STORE_FOREVER";

/// A machine with a TPM of its own.
struct Machine {
    tpm: Tpm,
    swtpm: Swtpm,
    _state: TempDir,
}

impl Machine {
    fn new() -> Self {
        let state = TempDir::new().unwrap();
        // Absent: fails with the line to type.
        let swtpm = Swtpm::start(state.path()).unwrap_or_else(|error| panic!("{error}"));
        let tpm = Tpm::open(swtpm.device()).unwrap();
        Self { tpm, swtpm, _state: state }
    }

    fn context(&self) -> Context {
        let device = self.swtpm.device().to_str().unwrap();
        Context::new(TctiNameConf::Device(device.parse().unwrap())).unwrap()
    }
}

fn storage_key(context: &mut Context, unique: EccPoint) -> KeyHandle {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .unwrap();
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build().unwrap())
        .with_ecc_unique_identifier(unique)
        .build()
        .unwrap();
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Owner, public, None, None, None, None)
        })
        .unwrap()
        .key_handle
}

fn make_persistent(context: &mut Context, key: KeyHandle) {
    let handle = Persistent::Persistent(PersistentTpmHandle::new(0x8100_0001).unwrap());
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.evict_control(Provision::Owner, key.into(), handle)
        })
        .unwrap();
}

fn set_owner_password(context: &mut Context) {
    let password = Auth::try_from(b"someone".as_slice()).unwrap();
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.hierarchy_change_auth(AuthHandle::Owner, password)
        })
        .unwrap();
}

/// A wire with a recorder on it.
struct Bus {
    device: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
    _end: std::os::fd::OwnedFd,
}

impl Bus {
    fn between(tpm: &Path) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_bytes();
        let end = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut mode = rustix::termios::tcgetattr(&end).unwrap();
        mode.make_raw();
        rustix::termios::tcsetattr(&end, rustix::termios::OptionalActions::Now, &mode).unwrap();
        let master = File::from(master);
        let tpm = File::options().read(true).write(true).open(tpm).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (mut from, mut to) in [(master.try_clone().unwrap(), tpm.try_clone().unwrap()), (tpm, master)] {
            let seen = Arc::clone(&seen);
            // Ends with the process: both ends stay open while the test runs.
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    seen.lock().unwrap().extend_from_slice(&buffer[..length]);
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
        Self { device: PathBuf::from(std::ffi::OsString::from_vec(name)), seen, _end: end }
    }
}

fn node(byte: u8) -> NodeSecrets {
    NodeSecrets {
        identity: Seed::new(&[byte; 32]),
        wireguard: Seed::new(&[byte ^ 1; 32]),
        gateway: byte.is_multiple_of(2).then(|| Seed::new(&[byte ^ 2; 32])),
    }
}

fn boot(floor: u32) -> BootSecrets {
    BootSecrets { preboot_secret: Seed::new(&[7; 32]), boot: Seed::new(&[8; 32]), anchor: [9; 32], floor }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
