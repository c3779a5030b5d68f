//! What firmware that insists on signatures starts.

use std::path::Path;

use lab::vm::{Firmware, SECURE_BOOT_CERTIFICATE};

use crate::images::{self, BOOT};

#[test]
fn firmware_starts_a_signed_image_and_refuses_one_that_is_not() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (signed, unsigned, nodes) = (dir.join("signed.efi"), dir.join("unsigned.efi"), dir.join("node"));
        std::fs::create_dir(&nodes).unwrap();
        let key = open_key(&dir);
        let options =
            ["--secure-boot-key", key.to_str().unwrap(), "--secure-boot-cert", SECURE_BOOT_CERTIFICATE];
        let image = images::preboot(&org, &signed, &options);
        assert_eq!(image["secure_boot"], true);
        images::preboot(&org, &unsigned, &[]);
        images::node(&org, &nodes, 1);
        let vm = images::machine(&org, "vm", &unsigned, &nodes, Firmware::SecureBoot);

        let mut refused = images::power_on(&org, 1, &vm);
        println!("unsigned: refused after {:.1?}", refused.wait_for("Access Denied", BOOT).unwrap());
        assert!(!refused.console().contains("muster-preboot"), "it started");
        refused.cut_power();

        images::insert(&vm, &signed, &nodes);
        let mut started = images::power_on(&org, 1, &vm);
        println!("signed: takes over after {:.1?}", started.wait_for("takes over", BOOT).unwrap());
        let predicted = image["pcr11"]["preboot"].as_str().unwrap();
        assert!(started.console().contains(predicted), "a signature changes no measurement");
    })
}

/// Debian's test key, without its passphrase.
pub(crate) fn open_key(dir: &Path) -> std::path::PathBuf {
    let key = dir.join("secure-boot.key");
    lab::vm::open_secure_boot_key(&key).unwrap();
    key
}
