//! Joining on the word of a TPM: real processes, software TPMs with makers of their own.

use std::{fs, path::Path};

use lab::{Sandbox, org::Org};
use serde_json::Value;

use crate::harness::{self, code, member};

#[test]
fn a_machine_joins_on_its_tpms_word_and_every_member_sees_which_tpm_that_was() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let (mut org, _) = attesting(sandbox, 3);
        org.found().unwrap();
        org.join(2).unwrap();
        let invite = invite(&org, &["--attest"]);
        org.enrol(1, &invite).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        let seen = [0, 2].map(|node| harness::wait_for_state(&org, node, "n2", "good"));
        for shown in &seen {
            assert_eq!(shown["key_storage"], "tpm-attested");
            assert_eq!(shown["tpm"], seen[0]["tpm"]);
        }
        let tpm = seen[0]["tpm"].as_str().unwrap().to_owned();
        let said = org.log(0, "musterd").unwrap();
        assert!(said.contains(&tpm) && said.contains("swtpm-localca"), "who vouched for it is in the log");
        let shown = org.muster(2, &["member", "show", "n2"]).unwrap().stdout;
        assert!(shown.contains("its TPM spoke to gateway") && shown.contains(&tpm), "{shown}");
        // Without one the machine's own word stays its own.
        let plain = member(&org, 0, "n3", "good").unwrap();
        assert_eq!((plain["key_storage"].as_str(), plain["tpm"].is_null()), (Some("tpm-software"), true));

        // As if the answer had been lost on its way: the same admission, and nothing is spent.
        fs::remove_file(org.state(1).unwrap().join("preboot/admit")).unwrap();
        let preboot = org.preboot(1).unwrap().args(["--invite", "-", "--name", "n2"]).input(invite);
        org.stop_musterd(1).unwrap();
        preboot.run(std::time::Duration::from_secs(30)).unwrap().ok().unwrap();
        assert_eq!(harness::invites(&org, 0).iter().filter(|i| i["used"] == 1).count(), 2);
    })
}

#[test]
fn an_invite_for_one_tpm_admits_that_one_alone() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let (mut org, _) = attesting(sandbox, 3);
        org.found().unwrap();
        let other = invite(&org, &["--ek", &"0".repeat(64)]);
        let refused = org.enrol(1, &other).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-3016"));
        let text = format!("{}{}", refused.stdout, refused.stderr);
        let tpm = text.split_whitespace().find(|word| word.len() == 64).unwrap().to_owned();
        let ours = invite(&org, &["--ek", &tpm]);
        let third = org.enrol(2, &ours).unwrap();
        assert_eq!(code(&third), "MU-3014", "a TPM without a maker has no certificate to show");
        org.enrol(1, &ours).unwrap().ok().unwrap();
        assert_eq!(member(&org, 0, "n2", "good").unwrap()["tpm"], Value::from(tpm));
    })
}

#[test]
fn no_tpm_another_maker_and_another_boot_are_each_named() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let (mut org, maker) = attesting(sandbox, 3);
        org.found().unwrap();
        let invite = invite(&org, &["--attest", "--uses", "9"]);
        let other = maker.with_file_name("another maker");
        org.lab_mut().hosts_mut()[2].tpm_mut().unwrap().manufacture(&other).unwrap();
        let refused = org.enrol(2, &invite).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-3015"));
        assert!(org.log(0, "musterd").unwrap().contains("is not signed by it"), "the log names the issuer");

        let tpm = tpm_seal::Tpm::open(org.host(1).unwrap().tpm().unwrap().device()).unwrap();
        tpm.extend(11, b"another image").unwrap();
        let refused = org.enrol(1, &invite).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-3021"));
        assert!(org.log(0, "musterd").unwrap().contains("register 11 holds"));

        org.set_key_storage(1, "file").unwrap();
        fs::remove_dir_all(org.state(1).unwrap()).unwrap();
        let refused = org.enrol(1, &invite).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-3012"));
        assert_eq!(harness::invites(&org, 0)[0]["used"], 0, "nothing is spent by a refusal");
    })
}

#[test]
fn a_gateway_that_knows_no_maker_says_so() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::machines(sandbox, 2);
        let maker = org.host(0).unwrap().dir().join("maker");
        org.lab_mut().hosts_mut()[1].tpm_mut().unwrap().manufacture(&maker).unwrap();
        org.found().unwrap();
        let refused = org.enrol(1, &invite(&org, &["--attest"])).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(78), "MU-3013"));
    })
}

/// Machines of which the second has a TPM with a maker, and the first, once it is a gateway, knows that
/// maker and accepts machines that have measured nothing. With the maker's certificate.
fn attesting(sandbox: &Sandbox, nodes: usize) -> (Org, std::path::PathBuf) {
    let mut org = harness::machines(sandbox, nodes);
    let dir = org.host(0).unwrap().dir().to_owned();
    let maker = dir.join("maker");
    let ca = org.lab_mut().hosts_mut()[1].tpm_mut().unwrap().manufacture(&maker).unwrap();
    accept(&dir.join("etc"), &ca);
    (org, maker)
}

fn accept(etc: &Path, ca: &Path) {
    let drop_ins = etc.join("muster.toml.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let nothing = "0".repeat(64);
    let settings = format!(
        "[attestation]\nroots = \"{}\"\nsecure_boot = [\"{nothing}\"]\nimages = [\"{nothing}\"]\n",
        ca.display()
    );
    fs::write(drop_ins.join("attestation.toml"), settings).unwrap();
}

fn invite(org: &Org, options: &[&str]) -> String {
    let made = org.muster(0, &[&["invite", "create"], options].concat()).unwrap();
    made.ok().unwrap().stdout.trim().to_owned()
}
