//! What a machine cannot start from: each is named on its console and changes nothing that it has.

use std::{fs, os::unix::fs::FileExt as _, path::Path, process::Command};

use boot_image::{Archive, ImageSecretKey, LEAVE_PREBOOT, Pcr, Pins, Uki};
use lab::{
    org::Org,
    vm::{Firmware, Running, Vm},
};
use tpm_seal::{Approval, Approvals, ImageKey};

use crate::{
    images::{self, BOOT, UKI, shown},
    state,
};

#[test]
fn what_a_machine_cannot_start_from_is_named_and_changes_nothing_that_it_has() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let mut org = images::org(sandbox, 3);
        let machine = Enrolled::new(&org);
        let Enrolled { vm, uki, dir, .. } = &machine;

        machine.refused(&org, "no cable", "MU-8004", |_, vm| vm.power_on_unplugged().unwrap());

        org.found_on(2, "other").unwrap();
        let other = dir.join("other.efi");
        let program = org.program(2, "muster").unwrap();
        let program = program.args(["--no-input", "image", "preboot", "--out", other.to_str().unwrap()]);
        program.run(BOOT).unwrap().ok().unwrap();
        vm.insert(&[(&other, UKI)]).unwrap();
        machine.refused(&org, "an image of another org", "MU-8002", boot);

        let lacking = dir.join("lacking.efi");
        remake(uki, &lacking, |_, archive| archive.file("muster/gateways", Vec::new(), false));
        vm.insert(&[(&lacking, UKI)]).unwrap();
        machine.refused(&org, "an image without gateways", "MU-8001", boot);

        vm.insert(&[(uki, UKI)]).unwrap();
        vm.mark_persist().unwrap();
        label(&vm.persist_disk(), "muster-state");
        machine.refused(&org, "two disks of that label", "MU-8003", boot);

        // In place of the state: a disk that carries the label and is no file system that the kernel takes.
        fs::remove_file(vm.persist_disk()).unwrap();
        let good = state::copy(vm, "good.img");
        // Features that nobody knows.
        let disk = fs::OpenOptions::new().write(true).open(vm.state_disk()).unwrap();
        disk.write_all_at(&[0xff; 4], 0x460).unwrap();
        let bad = state::copy(vm, "bad.img");
        let mut refused = boot(&org, vm);
        shown(&mut refused, "a damaged disk", &["MU-8008"]);
        refused.cut_power();
        let same = Command::new("cmp").arg(&bad).arg(vm.state_disk()).status().unwrap();
        assert!(same.success(), "it was changed");
        state::restore(vm, &good);

        let nodes = dir.join("node");
        fs::create_dir(&nodes).unwrap();
        images::node(&org, &nodes, 1);
        let image = nodes.join("node.squashfs");
        let whole = fs::read(&image).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&image, flipped).unwrap();
        images::insert(vm, uki, &nodes);
        machine.refused(&org, "a node image with one bit changed", "MU-8006", boot);

        fs::write(&image, whole).unwrap();
        images::insert(vm, uki, &nodes);
        vm.mark_persist().unwrap();
        let marked = fs::read(vm.persist_disk()).unwrap();
        machine.refused(&org, "a marked disk and no cryptsetup in the image", "MU-8030", boot);
        assert!(fs::read(vm.persist_disk()).unwrap() == marked, "it was changed");

        fs::remove_file(vm.persist_disk()).unwrap();
        let mut well = boot(&org, vm);
        shown(&mut well, "with all of it in order", &["knows this machine", "takes over"]);
        well.cut_power();
        machine.is_the_one(&org);
    })
}

#[test]
fn trouble_with_keys_and_tpm_is_named_and_never_ends_in_a_new_identity() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let machine = Enrolled::new(&org);
        let vm = &machine.vm;
        let (tpm, own) = (vm.tpm_state(), vm.dir().join("tpm.own"));

        fs::rename(&tpm, &own).unwrap();
        fs::create_dir(&tpm).unwrap();
        vm.replace_tpm().unwrap();
        machine.refused(&org, "another TPM", "MU-4003", boot);
        fs::remove_dir_all(&tpm).unwrap();
        fs::rename(&own, &tpm).unwrap();

        machine.refused(&org, "no TPM", "MU-4001", |org, vm| {
            vm.power_on_without_tpm(org.host(1).unwrap()).unwrap()
        });

        let disk = state::copy(vm, "whole.img");
        for (what, path, change, code) in [
            ("a flipped bit", "muster/keys/boot.sealed", flip as fn(&[u8]) -> Vec<u8>, "MU-4004"),
            ("pinned settings cut short", "muster/preboot/charters", cut, "MU-6010"),
            ("a pinned bundle that is none", "muster/preboot/bundle.pem", cut, "MU-7035"),
        ] {
            state::write(vm, path, &change(&state::read(vm, path).unwrap()));
            machine.refused(&org, what, code, boot);
            state::restore(vm, &disk);
        }
        state::remove(vm, "muster/keys/boot.sealed");
        machine.refused(&org, "no boot key", "MU-4008", boot);
        state::restore(vm, &disk);

        let swtpm = lab::Swtpm::start(&tpm).unwrap();
        crate::intruder::tpm::lock(swtpm.device());
        assert!(tpm_seal::Tpm::open(swtpm.device()).unwrap().is_locked_out().unwrap());
        drop(swtpm);
        let mut locked = boot(&org, vm);
        let lines = ["MU-4017", "keys open", "knows this machine", "MU-8005"];
        shown(&mut locked, "a TPM locked by guesses", &lines);
        locked.cut_power();
        machine.is_the_one(&org);
    })
}

/// A machine that is a member, and has no node image: its boots end there if nothing is wrong.
struct Enrolled {
    vm: Vm,
    uki: std::path::PathBuf,
    dir: std::path::PathBuf,
    member: serde_json::Value,
}

impl Enrolled {
    fn new(org: &Org) -> Self {
        let dir = images::dir(org);
        let uki = dir.join("preboot.efi");
        images::preboot(org, &uki, &[]);
        let vm = Vm::make(&org.lab().dir().join("vm"), Firmware::Open).unwrap();
        vm.insert(&[(&uki, UKI)]).unwrap();
        let mut first = boot(org, &vm);
        shown(&mut first, "first boot", &["admitted by", "knows this machine", "MU-8005"]);
        first.cut_power();
        let member = images::booted(org).pop().unwrap();
        Self { vm, uki, dir, member }
    }

    /// A boot that ends with this code, asks for nothing and leaves what the machine keeps as it was.
    fn refused(&self, org: &Org, what: &str, code: &str, power_on: impl FnOnce(&Org, &Vm) -> Running) {
        let before = state::kept(&self.vm);
        let mut refused = power_on(org, &self.vm);
        shown(&mut refused, what, &["stopped after checkpoint", code]);
        let console = refused.console();
        assert!(!console.contains("admitted by") && !console.contains("takes over"), "{console}");
        refused.cut_power();
        assert!(state::kept(&self.vm) == before, "{what}: the disk was changed");
        assert_eq!(images::booted(org).len(), 1, "{what}");
    }

    fn is_the_one(&self, org: &Org) {
        let now = images::booted(org);
        assert_eq!((now.len(), &now[0]["key"]), (1, &self.member["key"]));
        assert_eq!(images::used(org), 1, "an invite was spent");
    }
}

fn boot(org: &Org, vm: &Vm) -> Running {
    images::power_on(org, 1, vm)
}

fn flip(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[200] ^= 1;
    bytes
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

fn label(disk: &Path, label: &str) {
    assert!(Command::new("e2label").arg(disk).arg(label).status().unwrap().success());
}

/// The image with other pins, and with approvals by a key of this test: to a machine that has no keys yet it
/// is as good as any.
pub(crate) fn remake(image: &Path, to: &Path, change: impl FnOnce(&mut Pins, &mut Archive)) {
    let read = Uki::read(&fs::read(image).unwrap()).unwrap();
    let key = ImageSecretKey::from_bytes(&[6; 32]).unwrap();
    let mut archive = Archive::unpack(read.part(".initrd").unwrap()).unwrap();
    let mut pins = Pins::of(&archive).unwrap();
    pins.image_key = key.public();
    pins.put(&mut archive);
    change(&mut pins, &mut archive);
    let mut remade = Uki::new(&fs::read("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").unwrap()).unwrap();
    for (name, content) in read.parts().filter(|(name, _)| *name != ".pcrsig") {
        let content = if name == ".initrd" { archive.pack().unwrap() } else { content.to_vec() };
        remade.add(name, content).unwrap();
    }
    let own = Approvals::decode(read.part(".pcrsig").unwrap()).unwrap();
    let measured = Pcr::of_image(&remade);
    let approval = |phase, image: Pcr| {
        let unsigned = Approval { phase, image: *image.as_bytes(), signature: [0; 64] };
        Approval { signature: key.sign(&unsigned.message()), ..unsigned }
    };
    let approvals = Approvals {
        key: ImageKey(key.public()),
        preboot: approval(own.preboot.phase, measured),
        node: approval(own.node.phase, measured.extended(LEAVE_PREBOOT)),
    };
    remade.add(".pcrsig", approvals.encode()).unwrap();
    fs::write(to, remade.assemble().unwrap()).unwrap();
}
