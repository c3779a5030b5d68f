//! Keys that a TPM keeps.

use std::fs;

use identity::Code;
use org_trust::Payload;
use tpm_seal::{BootSecrets, Custody, Kind, NextBoot, NodeSecrets, Phase, Seed, Tpm};

use super::bench::*;

#[tokio::test]
async fn keys_sealed_by_a_tpm_open_at_the_next_start_and_not_in_another_tpm() {
    let dir = tempfile::tempdir().unwrap();
    let first = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    let second = lab::Swtpm::start(&dir.path().join("two")).unwrap();
    let [tpm, other] = [&first, &second].map(|tpm| text(tpm.device()));
    local(async |bench| {
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.run_with(&["--tpm", tpm], &["--invite", &invite]).await.unwrap();
        let admit = bench.held.borrow().admits.values().next().unwrap().clone();
        let Payload::Admit(admit) = admit.payload() else { panic!("another statement") };
        assert_eq!(admit.assurance, org_trust::Assurance::TpmSoftware);
        bench.run_with(&["--tpm", tpm], &[]).await.unwrap();
        let failure = bench.run_with(&["--tpm", other], &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::TpmReplaced);
        let failure = bench.run_with(&["--key-storage", "file"], &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::KeyFileNotAllowed);
    })
    .await;
}

#[tokio::test]
async fn keys_open_to_preboot_until_the_machine_is_a_member_and_to_the_node_phase_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    let mut other = lab::Swtpm::start(&dir.path().join("other")).unwrap();
    local(async |bench| {
        let (keys, device) = (bench.keys_directory(), Tpm::open(tpm.device()).unwrap());
        let invite = bench.invite.to_str().unwrap().to_owned();
        let kept = || Custody::sealed(device.clone(), &keys).unwrap();
        let bound = |phase| kept().is_bound_to::<NodeSecrets>(phase, &keys).unwrap();
        // The power goes before the admission is here.
        bench.held.borrow_mut().silent = true;
        bench.boot(&tpm, b"image 1", &["--invite", &invite]).await.unwrap_err();
        assert!(bound(Phase::Preboot), "it has to ask again with these");
        let error = kept().load::<NodeSecrets>(&keys).unwrap_err();
        assert_eq!(error.kind(), Kind::Image, "preboot is over, and nothing behind it needs them");
        let node = bench.file("keys/node.sealed");
        tpm.power_cycle().unwrap();
        bench.held.borrow_mut().silent = false;
        bench.boot(&tpm, b"image 1", &["--invite", &invite]).await.unwrap();
        assert_eq!(bench.held.borrow().admits.len(), 1);
        assert!(bound(Phase::Node) && bench.file("keys/node.sealed") != node);
        kept().load::<NodeSecrets>(&keys).unwrap();
        assert_eq!(kept().load::<BootSecrets>(&keys).unwrap_err().kind(), Kind::Image, "not the node's");
        // A later image of the org opens them; the settings went on in between.
        tpm.power_cycle().unwrap();
        bench.held.borrow_mut().extend();
        bench.boot(&tpm, b"image 2", &[]).await.unwrap();
        kept().load::<NodeSecrets>(&keys).unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
        // One that nobody approved, and none.
        tpm.power_cycle().unwrap();
        device.extend(12, b"init=/bin/sh").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::AddedToImage);
        tpm.power_cycle().unwrap();
        device.extend(7, b"Secure Boot is off").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::FirmwareChanged);
        tpm.power_cycle().unwrap();
        device.extend(11, b"something before the image").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::ImageNotApproved);
        let plain = bench.run_with(&["--tpm", text(tpm.device())], &[]).await.unwrap_err();
        assert_eq!(plain.code, Code::OtherImageKey);
        // A bad disk, another TPM, and back.
        let good = bench.file("keys/boot.sealed");
        let mut flipped = good.clone();
        flipped[200] ^= 1;
        for (tpm, bytes, code) in
            [(&mut tpm, &flipped, Code::SealedKeyDamaged), (&mut other, &good, Code::TpmReplaced)]
        {
            fs::write(keys.join("boot.sealed"), bytes).unwrap();
            tpm.power_cycle().unwrap();
            assert_eq!(bench.boot(tpm, b"image 2", &[]).await.unwrap_err().code, code);
        }
        tpm.power_cycle().unwrap();
        bench.boot(&tpm, b"image 2", &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keys_sealed_without_an_image_are_bound_to_the_first_that_boots_and_a_renewed_boot_key_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(dir.path()).unwrap();
    local(async |bench| {
        let (keys, device) = (bench.keys_directory(), Tpm::open(tpm.device()).unwrap());
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.run_with(&["--tpm", text(tpm.device())], &["--invite", &invite]).await.unwrap();
        let before: NodeSecrets = Custody::Tpm(device.clone()).load(&keys).unwrap();
        bench.boot(&tpm, b"image 1", &[]).await.unwrap();
        let kept = Custody::sealed(device.clone(), &keys).unwrap();
        assert!(kept.is_bound_to::<BootSecrets>(Phase::Preboot, &keys).unwrap());
        assert!(kept.load::<NodeSecrets>(&keys).unwrap() == before, "the same machine");
        assert_eq!(bench.held.borrow().asked, 1);
        // musterd, which cannot open the boot half, lays a new key beside it.
        let seed = || Seed::new(&[77; 32]);
        kept.store(&keys, &NextBoot { boot: seed() }).unwrap();
        tpm.power_cycle().unwrap();
        let refused = bench.boot(&tpm, b"image 1", &[]).await.unwrap_err();
        assert_eq!(refused.code, Code::HandoverRejected, "no change of the org names that key");
        assert!(!Custody::is_kept::<NextBoot>(&keys).unwrap());
        tpm.power_cycle().unwrap();
        device.extend(11, b"image 1").unwrap();
        let boot: BootSecrets = kept.load(&keys).unwrap();
        assert!(boot.boot == seed());
    })
    .await;
}
