//! Who would have the keys of preboot: a node image of the org that turns on its machine, and another system
//! that shows the TPM what the org's image would have shown it.

#[path = "../../crates/tpm-seal/tests/intruder/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
pub(crate) mod tpm;

use std::{fs, path::PathBuf};

use boot_image::Uki;
use lab::{
    Swtpm,
    vm::{Firmware, SECURE_BOOT_CERTIFICATE},
};
use tpm_seal::{Approvals, Kind, Phase, SealedBlob, Tpm};

use crate::{
    images::{self, shown},
    secure_boot::open_key,
    state,
};

#[test]
fn neither_a_node_image_nor_a_system_that_replays_the_registers_opens_the_keys_of_preboot()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (programs, nodes) = (dir.join("programs"), dir.join("node"));
        for dir in [&programs, &nodes] {
            fs::create_dir(dir).unwrap();
        }
        let built = PathBuf::from(env!("CARGO_BIN_EXE_muster-intruder"));
        fs::copy(&built, programs.join("musterd")).unwrap();
        fs::copy(built.with_file_name("muster"), programs.join("muster")).unwrap();
        let (programs, out) = (programs.to_str().unwrap(), nodes.to_str().unwrap());
        images::image(&org, &["node", "--release", "1", "--out", out, "--programs", programs]);
        let key = open_key(&dir);
        let options =
            ["--secure-boot-key", key.to_str().unwrap(), "--secure-boot-cert", SECURE_BOOT_CERTIFICATE];
        let [first, second] = ["first.efi", "second.efi"].map(|name| dir.join(name));
        images::preboot(&org, &first, &options);
        images::image(&org, &[&["preboot", "--out", second.to_str().unwrap()], &options[..]].concat());
        let vm = images::machine(&org, "vm", &first, &nodes, Firmware::SecureBoot);

        for (what, uki) in [("first image", &first), ("after an update", &second)] {
            images::insert(&vm, uki, &nodes);
            let mut boot = images::power_on(&org, 1, &vm);
            shown(&mut boot, what, &["takes over", "intruder: done"]);
            let console = boot.console();
            boot.cut_power();
            for line in console.lines().filter_map(|line| line.strip_prefix("status: ")) {
                println!("{what}: {}", line.trim_end());
            }
            for (asked, answer) in [
                ("preboot's keys, as preboot would", "refused"),
                ("preboot's keys, by preboot's approval", "refused"),
                ("preboot's keys, by the node's approval", "refused"),
                ("register 11 set back", "refused"),
                // So the intruder knows how.
                ("the node's keys, by the node's approval", "OPENED"),
            ] {
                assert!(console.contains(&format!("intruder: {asked}: {answer}")), "{asked}: {console}");
            }
            let status = ["the image, in its node phase", "as sealed", "zero, as it must be"];
            for line in status {
                assert!(console.contains(line), "{line}: {console}");
            }
        }

        // Another system on the same machine: to start it Secure Boot is switched off, which is measured.
        let swtpm = Swtpm::start(&vm.tpm_state()).unwrap();
        let device = Tpm::open(swtpm.device()).unwrap();
        let uki = Uki::read(&fs::read(&second).unwrap()).unwrap();
        let approvals = Approvals::decode(uki.part(".pcrsig").unwrap()).unwrap();
        device.extend(7, b"Secure Boot is off").unwrap();
        for (name, content) in [".linux", ".osrel", ".cmdline", ".initrd"].map(|n| (n, uki.part(n).unwrap()))
        {
            device.extend(11, &[name.as_bytes(), b"\0"].concat()).unwrap();
            device.extend(11, content).unwrap();
        }
        assert_eq!(device.registers().unwrap().image, approvals.preboot.image, "it was not replayed");
        let blob = SealedBlob::decode(&state::read(&vm, "muster/keys/boot.sealed").unwrap()).unwrap();
        assert_eq!(device.unseal(&blob, Some(&approvals)).unwrap_err().kind(), Kind::Firmware);
        let intrude = |blob: &SealedBlob| tpm::open(swtpm.device(), blob, &approvals.preboot, &approvals.key);
        assert!(intrude(&blob).is_none(), "another system has the keys");
        // All but register 7 is as it was: what is sealed to this one opens.
        let sealed_now = device.seal_for(b"of this system", &approvals, Phase::Preboot, None).unwrap();
        assert_eq!(intrude(&sealed_now).unwrap(), b"of this system");
    })
}
