//! Joining on the word of a TPM that firmware and stub have measured into.

use std::{fs, path::Path};

use lab::{
    Swtpm,
    org::Org,
    vm::{Firmware, Vm},
};

use crate::images::{self, UKI, shown};

#[test]
fn a_machine_joins_on_its_tpms_word_for_an_image_that_the_gateway_accepts_and_for_no_other()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let line = org.muster(0, &["invite", "create", "--attest"]).unwrap().ok().unwrap().stdout;
        let invite = dir.join("attested.invite");
        fs::write(&invite, line).unwrap();
        let image = |name: &str| {
            let uki = dir.join(name);
            let (invite, out) = (invite.to_str().unwrap(), uki.to_str().unwrap());
            let made = images::image(&org, &["preboot", "--invite", invite, "--out", out]);
            (uki, made["pcr11"]["preboot"].as_str().unwrap().to_owned())
        };
        let ((other, _), (accepted, pcr11)) = (image("other.efi"), image("accepted.efi"));
        let vm = Vm::make(&org.lab().dir().join("vm"), Firmware::Open).unwrap();
        let mut tpm = Swtpm::start(&vm.tpm_state()).unwrap();
        let maker = tpm.manufacture(&dir.join("maker")).unwrap();
        drop(tpm);

        // Which register 7 such a machine has nobody has seen yet.
        accept(&mut org, &maker, &"0".repeat(64), &pcr11);
        let first = refused(&org, &vm, &other, "an image that is not among those accepted");
        assert!(first.contains("register 11 holds"), "{first}");
        let second = refused(&org, &vm, &accepted, "firmware that is not among those accepted");
        let (_, pcr7) = second.rsplit_once("register 7 holds ").unwrap();
        assert_eq!(images::used(&org), 0, "a refusal spends nothing");

        accept(&mut org, &maker, &pcr7[..64], &pcr11);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "accepted", &["will speak for this machine", "admitted by", "MU-8005"]);
        let console = boot.console();
        boot.cut_power();
        let member = images::booted(&org).pop().unwrap();
        assert_eq!(member["key_storage"], "tpm-attested");
        assert!(console.contains(member["tpm"].as_str().unwrap()), "of another TPM: {member}");
        assert_eq!(images::used(&org), 1);
        let shown = org.muster(0, &["member", "show", member["name"].as_str().unwrap()]).unwrap().stdout;
        assert!(shown.contains("its TPM spoke to gateway"), "{shown}");
    })
}

/// What the gateway said of this boot.
fn refused(org: &Org, vm: &Vm, uki: &Path, what: &str) -> String {
    let before = org.log(0, "musterd").unwrap().len();
    vm.insert(&[(uki, UKI)]).unwrap();
    let mut boot = images::power_on(org, 1, vm);
    shown(&mut boot, what, &["MU-3021", "stopped after checkpoint"]);
    assert!(!boot.console().contains("admitted by"));
    boot.cut_power();
    assert!(images::booted(org).is_empty());
    org.log(0, "musterd").unwrap()[before..].to_owned()
}

/// What the gateway accepts, from now on.
fn accept(org: &mut Org, maker: &Path, secure_boot: &str, image: &str) {
    let settings = org.host(0).unwrap().dir().join("etc/muster.toml.d");
    fs::create_dir_all(&settings).unwrap();
    let text = format!(
        "[attestation]\nroots = \"{}\"\nsecure_boot = [\"{secure_boot}\"]\nimages = [\"{}\"]\n",
        maker.display(),
        image.to_lowercase()
    );
    fs::write(settings.join("attestation.toml"), text).unwrap();
    org.stop_musterd(0).unwrap();
    org.start_musterd(0).unwrap();
}
