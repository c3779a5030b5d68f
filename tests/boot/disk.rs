//! The encrypted disk.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use lab::vm::Firmware;

use crate::images::{self, shown};

#[test]
fn a_marked_disk_is_encrypted_and_opens_by_recovery_to_a_machine_with_other_keys_and_without_gateways()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (uki, nodes) = (dir.join("preboot.efi"), dir.join("node"));
        fs::create_dir(&nodes).unwrap();
        images::preboot(&org, &uki, &["--persist"]);
        images::node(&org, &nodes, 1);
        let vm = images::machine(&org, "vm", &uki, &nodes, Firmware::Open);
        vm.mark_persist().unwrap();

        // The power is cut before there is any key.
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "before any key", &["network: eth0 has"]);
        assert!(!boot.console().contains("keys of node"), "{}", boot.console());
        boot.cut_power();

        let started = ["takes over", "took over what was handed over"];
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "first boot", &["is encrypted from now on", started[0], started[1]]);
        boot.cut_power();
        let disk = vm.persist_disk();
        let recovery = images::image(&org, &["recovery", disk.to_str().unwrap()]);
        let passphrase = recovery["passphrase"].as_str().unwrap();
        let other = passphrase.replacen(|digit: char| digit.is_ascii_hexdigit(), "x", 1);

        // The machine lost its keys, and joins anew.
        vm.empty_state().unwrap();
        images::preboot(&org, &uki, &["--persist"]);
        images::insert(&vm, &uki, &nodes);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "other keys", &["admitted by", "MU-8031", "recovery passphrase, which"]);
        boot.type_line(&other).unwrap();
        shown(&mut boot, "a wrong passphrase", &["that passphrase does not open it"]);
        assert!(!boot.console().contains("encrypted disk /dev"), "{}", boot.console());
        boot.type_line(passphrase).unwrap();
        let opened = ["open by the recovery passphrase", "the disk's key was changed", "encrypted disk"];
        shown(&mut boot, "the right one", &[&opened[..], &started].concat());
        let console = boot.console();
        assert!(!console.contains(passphrase) && !console.contains(&other), "it was shown: {console}");
        boot.cut_power();

        let mut boot = vm.power_on_beside_a_dead_card(org.host(1).unwrap()).unwrap();
        shown(&mut boot, "next boot", &["network: eth1 has", "encrypted disk", started[0]]);
        assert!(!boot.console().contains("recovery passphrase"), "{}", boot.console());
        boot.cut_power();

        org.stop_gateway(0).unwrap();
        org.stop_musterd(0).unwrap();
        let recovery = images::image(&org, &["recovery", disk.to_str().unwrap()]);
        assert_eq!(recovery["passphrase"], passphrase, "the disk's passphrase stays what it was");
        assert!(opens(&disk, passphrase), "the passphrase of the org keys");
        assert!(!opens(&disk, &other));
    })
}

/// Whether plain cryptsetup takes a passphrase for a disk.
pub(crate) fn opens(disk: &Path, passphrase: &str) -> bool {
    let mut cryptsetup = Command::new("cryptsetup");
    cryptsetup.args(["open", "--test-passphrase", "--type", "luks2", "--key-file=-"]).arg(disk);
    let mut child = cryptsetup.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(passphrase.as_bytes()).unwrap();
    child.wait().unwrap().success()
}
