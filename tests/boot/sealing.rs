//! What machines open their keys to. That the TPM refuses whatever is tried is shown without a machine
//! around it (`crates/tpm-seal/tests/images.rs`); here firmware and stub measure.

use std::{fs, path::Path, process::Command, time::Duration};

use boot_image::{Archive, Uki};
use lab::{
    org::wait_for,
    vm::{Firmware, SECURE_BOOT_CERTIFICATE},
};
use serde_json::Value;
use tpm_seal::{Approvals, BootSecrets, Custody, NodeSecrets, Seed, Tpm};

use crate::{
    images::{self, BOOT},
    secure_boot::open_key,
};

#[test]
fn an_update_keeps_the_keys_and_a_changed_image_or_other_firmware_settings_do_not_open_them()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let nodes = dir.join("node");
        fs::create_dir(&nodes).unwrap();
        images::node(&org, &nodes, 1);
        let key = open_key(&dir);
        let options =
            ["--secure-boot-key", key.to_str().unwrap(), "--secure-boot-cert", SECURE_BOOT_CERTIFICATE];
        let [first, second, changed] = ["first.efi", "second.efi", "changed.efi"].map(|name| dir.join(name));
        let one = images::preboot(&org, &first, &options);
        // Made later, so measured otherwise.
        let two = images::image(
            &org,
            &[&["preboot", "--out", second.to_str().unwrap()], options.as_slice()].concat(),
        );
        assert_ne!(one["pcr11"], two["pcr11"]);
        assert_eq!(one["image_key"], two["image_key"]);
        change(&first, &changed, &key);
        let vm = images::machine(&org, "vm", &first, &nodes, Firmware::SecureBoot);

        let mut boot = images::power_on(&org, 1, &vm);
        for line in [
            "Secure Boot starts nothing here but",
            "admitted by",
            "takes over",
            "took over what was handed over",
        ] {
            println!("first image: {line} after {:.1?}", boot.wait_for(line, BOOT).unwrap());
        }
        let member = images::booted(&org).pop().unwrap();
        let name = member["key"].as_str().unwrap().to_owned();
        assert_eq!(member["key_storage"], "tpm-software", "this TPM is a program, whatever firmware does");
        boot.cut_power();

        images::insert(&vm, &second, &nodes);
        let mut boot = images::power_on(&org, 1, &vm);
        for line in ["keys open", "takes over"] {
            println!("second image: {line} after {:.1?}", boot.wait_for(line, BOOT).unwrap());
        }
        assert!(!boot.console().contains("admitted by"), "it was one already");
        let linked = || {
            let reached = org.muster(0, &["ping", &name, "--count", "1"])?;
            Ok(reached.status.success().then_some(()))
        };
        wait_for(Duration::from_secs(60), "musterd opened its keys behind preboot", linked).unwrap();
        boot.cut_power();

        images::insert(&vm, &changed, &nodes);
        let mut boot = images::power_on(&org, 1, &vm);
        println!("changed: refused after {:.1?}", boot.wait_for("MU-4013", BOOT).unwrap());
        boot.cut_power();

        images::insert(&vm, &second, &nodes);
        vm.forget_firmware_settings().unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        println!("Secure Boot off: refused after {:.1?}", boot.wait_for("MU-4012", BOOT).unwrap());
        assert!(boot.console().contains("Secure Boot is off"));
        assert!(!boot.console().contains("admitted by") && !boot.console().contains("keys open"));
    })
}

#[test]
fn whether_keys_open_under_an_image_is_known_before_it_boots() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 1);
        let dir = images::dir(&org);
        let [first, second, changed] = ["first.efi", "second.efi", "changed.efi"].map(|name| dir.join(name));
        images::preboot(&org, &first, &[]);
        images::image(&org, &["preboot", "--out", second.to_str().unwrap()]);
        change(&first, &changed, &open_key(&dir));
        let state = dir.join("state");
        let asked = |words: &[&str]| {
            let program =
                org.program(0, "muster").unwrap().args(["--json", "--no-input", "--state"]).arg(&state);
            // No musterd runs on this state.
            let program = program.arg("--socket").arg(state.join("none"));
            let ended = program.args(words).run(BOOT).unwrap();
            let value: Value = serde_json::from_str(&ended.stdout).unwrap();
            (value, ended.stderr)
        };
        let plan = |image: &Path| asked(&["tpm", "plan", "--uki", image.to_str().unwrap()]);

        // As the first image leaves it, on the TPM of the org's first machine.
        let keys = state.join("keys");
        fs::create_dir_all(&keys).unwrap();
        let uki = Uki::read(&fs::read(&first).unwrap()).unwrap();
        let approvals = Approvals::decode(uki.part(".pcrsig").unwrap()).unwrap();
        approvals.keep(&keys).unwrap();
        let tpm = Tpm::open(org.host(0).unwrap().tpm().unwrap().device()).unwrap();
        let custody = Custody::sealed(tpm, &keys).unwrap();
        let seed = |byte| Seed::new(&[byte; 32]);
        let node = NodeSecrets { identity: seed(1), wireguard: seed(2), gateway: None };
        let boot = BootSecrets { preboot_secret: seed(3), boot: seed(4), anchor: [5; 32], floor: 0 };
        custody.store(&keys, &node).unwrap();
        custody.store(&keys, &boot).unwrap();

        for image in [&first, &second] {
            let (planned, _) = plan(image);
            assert_eq!(
                (&planned["opens"], &planned["secure_boot"]),
                (&true.into(), &false.into()),
                "{planned}"
            );
            assert_eq!(planned["objects"].as_array().unwrap().len(), 2);
        }
        let (refused, _) = plan(&changed);
        assert_eq!(refused["error"]["code"], "MU-8001", "{refused}");
        // Nothing of it runs here.
        let (status, said) = asked(&["tpm", "status"]);
        assert_eq!(status["objects"][0]["state"], "closed", "{status}");
        assert!(said.contains("MU-4013") && said.contains("PCR 11"), "{said}");
        let (kept, _) = asked(&["key", "recover", "--yes"]);
        assert_eq!(kept["error"]["code"], "MU-4013", "another start mends it: {kept}");
        assert!(keys.join("node.sealed").exists());

        // An image by another key, and then the way on.
        let mut other = approvals;
        other.key.0[5] ^= 1;
        other.keep(&keys).unwrap();
        let (gone, _) = asked(&["key", "recover", "--yes"]);
        assert_eq!(gone["cause"], "MU-4015", "{gone}");
        assert!(!keys.exists() && state.join("lost-1/keys/node.sealed").exists());
    })
}

/// The image with one more file in its initramfs, signed for Secure Boot by somebody who has that key and
/// not the image key.
fn change(image: &Path, to: &Path, key: &Path) {
    let read = Uki::read(&fs::read(image).unwrap()).unwrap();
    let mut changed = Uki::new(&fs::read("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").unwrap()).unwrap();
    for (name, content) in read.parts() {
        let mut content = content.to_vec();
        if name == ".initrd" {
            let mut archive = Archive::unpack(&content).unwrap();
            archive.file("muster/one-more", b"line".to_vec(), false);
            content = archive.pack().unwrap();
        }
        changed.add(name, content).unwrap();
    }
    let unsigned = to.with_extension("unsigned");
    fs::write(&unsigned, changed.assemble().unwrap()).unwrap();
    let mut sbsign = Command::new("sbsign");
    sbsign.arg("--key").arg(key).args(["--cert", SECURE_BOOT_CERTIFICATE, "--output"]).arg(to).arg(&unsigned);
    assert!(sbsign.output().unwrap().status.success());
}
