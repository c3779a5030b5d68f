//! Keys that open to what was booted and to nothing else. The TPM is asked also by an intruder that runs
//! the commands itself and looks at nothing first, so that it is the TPM that refuses.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr};
use lab::Swtpm;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tpm_seal::{
    Approval, Approvals, BootSecrets, Custody, ImageKey, Kind, NextBoot, NodeSecrets, Obstacle, Phase,
    Policy, SealedBlob, Seed, Tpm, TpmError, image_digest,
};
use tss_esapi::Context;
use tss_esapi::constants::SessionType;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{Digest, PcrSlot};

#[expect(dead_code, reason = "other tests use the rest")]
mod intruder;

#[test]
fn keys_of_a_phase_open_in_that_phase_of_an_approved_image_and_in_no_other() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image 1");
    let preboot = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    let node = machine.tpm.seal_for(b"node", &approvals, Phase::Node, None).unwrap();
    assert_eq!(machine.tpm.unseal(&preboot, Some(&approvals)).unwrap().as_slice(), PAYLOAD);
    assert_eq!(machine.closed(&node, &approvals), Kind::Image, "preboot is not over");
    machine.tpm.check(&node).unwrap();
    machine.leave_preboot();
    assert_eq!(machine.tpm.unseal(&node, Some(&approvals)).unwrap().as_slice(), b"node");
    assert_eq!(machine.closed(&preboot, &approvals), Kind::Image, "preboot is over");
    // One phase's approval shown for the other, as it is or as what the registers hold.
    let swapped =
        Approvals { preboot: Approval { phase: approvals.preboot.phase, ..approvals.node }, ..approvals };
    assert_eq!(machine.closed(&preboot, &swapped), Kind::ImageKey, "the key did not sign that");
    assert!(machine.intrude(&preboot, &swapped.preboot, &swapped.key).is_none());
    assert!(machine.intrude(&preboot, &approvals.preboot, &approvals.key).is_none());
    assert!(machine.intrude(&preboot, &approvals.node, &approvals.key).is_none());
    assert!(machine.intrude(&node, &approvals.node, &approvals.key).is_some(), "the intruder can open");
}

#[test]
fn an_image_of_a_later_version_opens_what_an_earlier_one_sealed() {
    let mut machine = Machine::new();
    let one = machine.boot(b"image 1");
    let preboot = machine.tpm.seal_for(PAYLOAD, &one, Phase::Preboot, None).unwrap();
    let node = machine.tpm.seal_for(b"node", &one, Phase::Node, None).unwrap();
    machine.swtpm.power_cycle().unwrap();
    let two = machine.boot(b"image 2");
    assert_ne!(one.preboot.image, two.preboot.image);
    assert_eq!(machine.closed(&preboot, &one), Kind::Image, "approvals of the image before");
    assert_eq!(machine.tpm.unseal(&preboot, Some(&two)).unwrap().as_slice(), PAYLOAD);
    machine.leave_preboot();
    assert_eq!(machine.tpm.unseal(&node, Some(&two)).unwrap().as_slice(), b"node");
}

#[test]
fn a_changed_image_opens_nothing_whatever_it_says() {
    let mut machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    machine.swtpm.power_cycle().unwrap();
    machine.measure(7, FIRMWARE);
    machine.measure(11, b"image, changed");
    assert_eq!(machine.closed(&blob, &approvals), Kind::Image);
    // With its own measurement in the place of the approved one, and with approvals by a key of its own.
    let mut lying = approvals.clone();
    lying.preboot.image = machine.tpm.registers().unwrap().image;
    assert_eq!(machine.closed(&blob, &lying), Kind::ImageKey);
    let own = approve(&key(9), Pcr::from(lying.preboot.image));
    assert_eq!(machine.closed(&blob, &own), Kind::ImageKey);
    for (approval, key) in
        [(&approvals.preboot, approvals.key), (&lying.preboot, approvals.key), (&own.preboot, own.key)]
    {
        assert!(machine.intrude(&blob, approval, &key).is_none());
    }
    let error = machine.tpm.unseal(&blob, None).unwrap_err();
    assert!(matches!(error, TpmError::Closed(Obstacle::NoApprovals)), "{error}");
}

#[test]
fn another_system_that_replays_the_registers_opens_nothing_where_firmware_lets_only_the_orgs_start() {
    let mut machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    machine.swtpm.power_cycle().unwrap();
    // To start something else, Secure Boot is switched off, or another key let in: that is measured first.
    machine.measure(7, b"Secure Boot is off");
    machine.measure(11, b"image");
    assert_eq!(machine.tpm.registers().unwrap().image, approvals.preboot.image, "replayed");
    assert_eq!(machine.closed(&blob, &approvals), Kind::Firmware);
    assert!(machine.intrude(&blob, &approvals.preboot, &approvals.key).is_none());
    // And this is why firmware that starts anything protects nothing.
    machine.swtpm.power_cycle().unwrap();
    machine.measure(7, FIRMWARE);
    machine.measure(11, b"image");
    assert!(machine.intrude(&blob, &approvals.preboot, &approvals.key).is_some());
}

#[test]
fn what_is_added_beside_the_image_keeps_keys_closed() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    machine.measure(12, b"init=/bin/sh");
    assert_eq!(machine.closed(&blob, &approvals), Kind::Beside);
    assert!(machine.intrude(&blob, &approvals.preboot, &approvals.key).is_none());
}

#[test]
fn a_forged_file_or_approval_is_refused_by_its_kind() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    for byte in [0, 31, 32, 63] {
        let mut forged = approvals.clone();
        forged.preboot.signature[byte] ^= 1;
        assert_eq!(machine.closed(&blob, &forged), Kind::ImageKey);
        assert!(machine.tpm.check_approvals(&forged).is_err());
    }
    machine.tpm.check_approvals(&approvals).unwrap();
    let off_the_curve = Approvals { key: ImageKey([1; 64]), ..approvals };
    assert_eq!(machine.tpm.check_approvals(&off_the_curve).unwrap_err().kind(), Kind::ImageKey);
    // The file says another register 7, with a public part that follows from it and a right checksum.
    let bytes = blob.encode();
    let Policy::Image(policy) = *blob.policy() else { panic!("another policy") };
    let other = Policy::Image(tpm_seal::ImagePolicy { firmware: [1; 32], ..policy });
    let mut forged = bytes.clone();
    forged[11 + 34 + 32..][..32].copy_from_slice(&[1; 32]);
    let digest = bytes.windows(32).position(|window| window == blob.policy().digest()).unwrap();
    forged[digest..digest + 32].copy_from_slice(&other.digest());
    let body = forged.len() - 32;
    let checksum: [u8; 32] = Sha256::digest(&forged[..body]).into();
    forged[body..].copy_from_slice(&checksum);
    let forged = SealedBlob::decode(&forged).unwrap();
    assert_eq!(machine.tpm.check(&forged).unwrap_err().kind(), Kind::Damaged);
    let another = Machine::new();
    another.boot(b"image");
    assert_eq!(another.closed(&blob, &approvals), Kind::Replaced);
    assert_eq!(another.tpm.check(&blob).unwrap_err().kind(), Kind::Replaced);
}

#[test]
fn the_policy_digest_of_an_image_is_the_tpms_own() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    let mut context = machine.context();
    let key = intruder::load_key(&mut context, &approvals.key);
    let name = context.tr_get_name(key.into()).unwrap();
    assert_eq!(name.value(), approvals.key.name().as_bytes());
    context.flush_context(key.into()).unwrap();
    let session = intruder::start(&mut context, SessionType::Policy);
    let policy: PolicySession = session.try_into().unwrap();
    context
        .policy_pcr(policy, Digest::default(), intruder::selection(&[PcrSlot::Slot11, PcrSlot::Slot12]))
        .unwrap();
    assert_eq!(context.policy_get_digest(policy).unwrap().value(), image_digest(&approvals.preboot.image));
    intruder::satisfy(&mut context, policy, &approvals.preboot, &approvals.key).unwrap();
    assert_eq!(context.policy_get_digest(policy).unwrap().value(), blob.policy().digest());
}

#[test]
fn secrets_move_from_a_machine_without_an_image_to_its_phases() {
    let (machine, dir) = (Machine::new(), TempDir::new().unwrap());
    let unbound = Custody::Tpm(machine.tpm.clone());
    unbound.store(dir.path(), &node()).unwrap();
    unbound.store(dir.path(), &boot(1)).unwrap();
    let approvals = machine.boot(b"image");
    approvals.keep(dir.path()).unwrap();
    let bound = Custody::sealed(machine.tpm.clone(), dir.path()).unwrap();
    assert!(!bound.is_bound_to::<NodeSecrets>(Phase::Node, dir.path()).unwrap());
    let opened: NodeSecrets = bound.load(dir.path()).unwrap();
    bound.store(dir.path(), &opened).unwrap();
    assert!(bound.is_bound_to::<NodeSecrets>(Phase::Node, dir.path()).unwrap());
    bound.will_open::<NodeSecrets>(Phase::Node, dir.path()).unwrap();
    assert_eq!(bound.will_open::<NodeSecrets>(Phase::Preboot, dir.path()).unwrap_err().kind(), Kind::Image);
    assert_eq!(bound.load::<NodeSecrets>(dir.path()).unwrap_err().kind(), Kind::Image);
    bound.store(dir.path(), &boot(2)).unwrap();
    bound.test(dir.path(), &boot(2)).unwrap();
    // Never the other way.
    assert_eq!(unbound.store(dir.path(), &boot(3)).unwrap_err().kind(), Kind::ImageKey);
    assert_eq!(unbound.load::<BootSecrets>(dir.path()).unwrap_err().kind(), Kind::ImageKey);
    machine.leave_preboot();
    assert!(bound.load::<NodeSecrets>(dir.path()).unwrap() == node());
    assert_eq!(bound.load::<BootSecrets>(dir.path()).unwrap_err().kind(), Kind::Image);
    // What the node phase seals for the preboot phase, without opening anything of it.
    let next = NextBoot { boot: Seed::new(&[4; 32]) };
    bound.store(dir.path(), &next).unwrap();
    bound.will_open::<NextBoot>(Phase::Preboot, dir.path()).unwrap();
    assert_eq!(bound.load::<NextBoot>(dir.path()).unwrap_err().kind(), Kind::Image);
}

#[test]
fn a_tpm_locked_by_wrong_guesses_says_so_and_opens_our_keys() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    assert!(!machine.tpm.is_locked_out().unwrap());
    intruder::lock(machine.swtpm.device());
    assert!(machine.tpm.is_locked_out().unwrap());
    assert_eq!(machine.tpm.unseal(&blob, Some(&approvals)).unwrap().as_slice(), PAYLOAD);
    machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Node, None).unwrap();
}

#[test]
fn opening_by_an_approval_leaves_nothing_in_the_tpm() {
    let machine = Machine::new();
    let approvals = machine.boot(b"image");
    let blob = machine.tpm.seal_for(PAYLOAD, &approvals, Phase::Preboot, None).unwrap();
    for _ in 0..20 {
        machine.tpm.unseal(&blob, Some(&approvals)).unwrap();
        machine.tpm.check(&blob).unwrap();
        machine.tpm.check_approvals(&approvals).unwrap();
    }
}

const PAYLOAD: &[u8] = b"what nobody but the preboot phase of the org's images should read";
const FIRMWARE: &[u8] = b"Secure Boot is on, with the org's certificate";

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

    /// What firmware and stub do; the approvals of that image by the org's key.
    fn boot(&self, image: &[u8]) -> Approvals {
        self.measure(7, FIRMWARE);
        self.measure(11, image);
        approve(&key(7), Pcr::ZERO.extended(image))
    }

    fn leave_preboot(&self) {
        self.measure(11, LEAVE_PREBOOT);
    }

    fn measure(&self, register: u8, event: &[u8]) {
        self.tpm.extend(register, event).unwrap();
    }

    fn closed(&self, blob: &SealedBlob, approvals: &Approvals) -> Kind {
        match self.tpm.unseal(blob, Some(approvals)) {
            Ok(_) => panic!("it opened"),
            Err(error) => error.kind(),
        }
    }

    fn context(&self) -> Context {
        intruder::context(self.swtpm.device())
    }

    fn intrude(&self, blob: &SealedBlob, approval: &Approval, key: &ImageKey) -> Option<Vec<u8>> {
        intruder::open(self.swtpm.device(), blob, approval, key)
    }
}

fn key(byte: u8) -> ImageSecretKey {
    ImageSecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn approve(key: &ImageSecretKey, image: Pcr) -> Approvals {
    let approval = |phase, image: Pcr| {
        let unsigned = Approval { phase: [phase; 32], image: *image.as_bytes(), signature: [0; 64] };
        Approval { signature: key.sign(&unsigned.message()), ..unsigned }
    };
    Approvals {
        key: ImageKey(key.public()),
        preboot: approval(1, image),
        node: approval(2, image.extended(LEAVE_PREBOOT)),
    }
}

fn node() -> NodeSecrets {
    NodeSecrets { identity: Seed::new(&[1; 32]), wireguard: Seed::new(&[2; 32]), gateway: None }
}

fn boot(floor: u32) -> BootSecrets {
    BootSecrets { preboot_secret: Seed::new(&[7; 32]), boot: Seed::new(&[8; 32]), anchor: [9; 32], floor }
}
