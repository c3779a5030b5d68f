//! The gateway's share in the key of an encrypted disk.

use std::{fs, path::Path};

use lab::{
    org::Org,
    vm::{Firmware, SECURE_BOOT_CERTIFICATE},
};

use crate::{
    disk::opens,
    images::{self, shown},
    secure_boot::open_key,
};

#[test]
fn a_share_is_withheld_from_a_revoked_machine_and_its_disk_stays_shut() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (uki, nodes, line) = (dir.join("preboot.efi"), dir.join("node"), dir.join("invite"));
        fs::create_dir(&nodes).unwrap();
        let invite = org.muster(0, &["invite", "create", "--attest"]).unwrap().ok().unwrap();
        fs::write(&line, invite.stdout.trim()).unwrap();
        let key = open_key(&dir);
        let image = images::image(
            &org,
            &[
                &["preboot", "--persist", "--share", "1", "--invite", line.to_str().unwrap()][..],
                &["--secure-boot-key", key.to_str().unwrap(), "--secure-boot-cert", SECURE_BOOT_CERTIFICATE],
                &["--out", uki.to_str().unwrap()],
            ]
            .concat(),
        );
        let measured = image["pcr11"]["preboot"].as_str().unwrap();
        images::node(&org, &nodes, 1);
        let vm = images::machine(&org, "vm", &uki, &nodes, Firmware::SecureBoot);
        let maker = vm.manufacture(&dir.join("maker")).unwrap();
        vm.mark_persist().unwrap();
        assert_eq!(org.ask(0, &["gateway", "share", "--epoch", "1"]).unwrap()["epochs"][0], 1);

        // What firmware measures of its own settings is known once a machine has started on it.
        accept(&mut org, &maker, measured, &"0".repeat(64));
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "firmware not accepted yet", &["MU-3021"]);
        boot.cut_power();
        let log = org.log(0, "musterd").unwrap();
        let held = log.rsplit_once("register 7 holds ").unwrap().1.to_owned();
        accept(&mut org, &maker, measured, &held[..64]);

        let mut boot = images::power_on(&org, 1, &vm);
        let gave = "gave its share of the disk's key, epoch 1";
        shown(&mut boot, "first boot", &["admitted by", gave, "is encrypted from now on", "takes over"]);
        shown(&mut boot, "first boot", &["took over what was handed over"]);
        boot.cut_power();
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "second boot", &[gave, "encrypted disk", "takes over"]);
        boot.cut_power();

        // The next epoch: an image that wants it, a gateway that gives both.
        let newer = dir.join("newer.efi");
        let image = images::image(
            &org,
            &[
                &["preboot", "--persist", "--share", "2"][..],
                &["--secure-boot-key", key.to_str().unwrap(), "--secure-boot-cert", SECURE_BOOT_CERTIFICATE],
                &["--out", newer.to_str().unwrap()],
            ]
            .concat(),
        );
        accept(&mut org, &maker, image["pcr11"]["preboot"].as_str().unwrap(), &held[..64]);
        images::insert(&vm, &newer, &nodes);
        org.ask(0, &["gateway", "share", "--epoch", "2"]).unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        let changed = "the disk's key was changed: with a share, epoch 2";
        shown(&mut boot, "another epoch", &[gave, changed, "encrypted disk", "takes over"]);
        boot.cut_power();
        let mut boot = images::power_on(&org, 1, &vm);
        let gave = "gave its share of the disk's key, epoch 2";
        shown(&mut boot, "with it", &[gave, "encrypted disk", "takes over"]);
        assert!(!boot.console().contains("epoch 1"), "{}", boot.console());
        boot.cut_power();

        // Its sealed keys open, and are not enough.
        org.ask(0, &["gateway", "share", "--off"]).unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "no share", &["keys open", "MU-8032", "recovery passphrase"]);
        assert!(!boot.console().contains("encrypted disk"), "it opened: {}", boot.console());
        boot.cut_power();

        org.ask(0, &["gateway", "share", "--epoch", "2"]).unwrap();
        let member = images::booted(&org).pop().unwrap();
        assert_eq!(member["key_storage"], "tpm-attested");
        org.ask(0, &["revoke", member["key"].as_str().unwrap(), "--wait", "1", "--yes"]).unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "revoked", &["keys open", "MU-1403"]);
        let console = boot.console();
        assert!(!console.contains("gave its share") && !console.contains("encrypted disk"), "{console}");
        boot.cut_power();

        let recovery = images::image(&org, &["recovery", vm.persist_disk().to_str().unwrap()]);
        assert_eq!(recovery["share"], 2);
        assert!(opens(&vm.persist_disk(), recovery["passphrase"].as_str().unwrap()));
    })
}

/// The gateway accepts TPMs of this maker in machines that have booted this image on such firmware.
fn accept(org: &mut Org, maker: &Path, image: &str, secure_boot: &str) {
    let drop_ins = org.host(0).unwrap().dir().join("etc/muster.toml.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let settings = format!(
        "[attestation]\nroots = \"{}\"\nsecure_boot = [\"{secure_boot}\"]\nimages = [\"{image}\"]\n",
        maker.display()
    );
    fs::write(drop_ins.join("attestation.toml"), settings).unwrap();
    org.stop_musterd(0).unwrap();
    org.start_musterd(0).unwrap();
}
