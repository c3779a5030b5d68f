//! The encrypted disk.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use lab::vm::Firmware;

use crate::images::{self, BOOT};

#[test]
fn a_marked_disk_is_encrypted_opens_at_the_next_boot_and_by_recovery_when_all_gateways_are_lost()
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

        for (boot, line) in [("first boot", "is encrypted from now on"), ("second boot", "encrypted disk")] {
            let mut running = images::power_on(&org, 1, &vm);
            for line in [line, "takes over", "took over what was handed over"] {
                match running.wait_for(line, BOOT) {
                    Ok(after) => println!("{boot}: {line} after {after:.1?}"),
                    Err(why) => panic!("{boot}: {line}: {why}\n{}", running.console()),
                }
            }
            running.cut_power();
        }

        org.stop_gateway(0).unwrap();
        org.stop_musterd(0).unwrap();
        let disk = vm.persist_disk();
        let recovery = images::image(&org, &["recovery", disk.to_str().unwrap()]);
        let passphrase = recovery["passphrase"].as_str().unwrap();
        assert!(opens(&disk, passphrase), "the passphrase of the org keys");
        let other = passphrase.replacen(|digit: char| digit.is_ascii_hexdigit(), "x", 1);
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
