//! A machine that is no member yet: what is wrong with its image is named before anything is made, and the
//! power may go at any moment.

use boot_image::Pins;
use lab::{
    org::{Org, wait_for},
    vm::{Firmware, Vm},
};

use crate::{
    images::{self, BOOT, UKI, shown},
    refused::remake,
    state,
};

#[test]
fn bad_pins_are_named_before_a_key_is_made_and_power_cuts_while_enrolling_spend_nothing()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let uki = dir.join("preboot.efi");
        images::preboot(&org, &uki, &[]);
        let vm = Vm::make(&org.lab().dir().join("vm"), Firmware::Open).unwrap();
        let invite = |pins: &Pins| pins.invite.clone().unwrap();

        let bad = dir.join("bad.efi");
        remake(&uki, &bad, |pins, archive| {
            let mut line = invite(pins);
            line.truncate(line.len() - 9);
            pins.invite = Some(line);
            pins.put(archive);
        });
        refused(&org, &vm, &bad, "an invite cut short", "MU-3001");
        remake(&uki, &bad, |pins, archive| {
            pins.bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
            pins.put(archive);
        });
        refused(&org, &vm, &bad, "a bundle that is none", "MU-5009");

        // The keys are on disk, and nobody has been asked.
        vm.insert(&[(&uki, UKI)]).unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "first boot", &["keys of node "]);
        let key = own_key(&boot.console());
        boot.cut_power();
        let made = state::kept(&vm);
        assert!(made.contains_key("keys/boot.sealed") && made.contains_key("keys/node.sealed"));

        // The gateway has admitted it, and it may not know.
        let boot = images::power_on(&org, 1, &vm);
        let admitted = wait_for(BOOT, "the gateway admits it", || Ok(images::booted(&org).pop())).unwrap();
        let knew = boot.console().contains("admitted by");
        boot.cut_power();
        println!("second boot: power cut as it was admitted; it knew: {knew}");
        assert!(admitted["key"].as_str().unwrap().starts_with(&key), "other keys than at the first boot");
        assert_eq!(images::used(&org), 1);

        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "third boot", &["knows this machine", "MU-8005"]);
        boot.cut_power();
        let now = images::booted(&org);
        assert_eq!((now.len(), &now[0]["key"], &now[0]["name"]), (1, &admitted["key"], &admitted["name"]));
        assert_eq!(images::used(&org), 1, "the invite was spent twice");
        assert_eq!(state::read(&vm, "muster/keys/boot.sealed"), made.get("keys/boot.sealed").cloned());
    })
}

/// Ends with this code, and no key is made.
fn refused(org: &Org, vm: &Vm, uki: &std::path::Path, what: &str, code: &str) {
    vm.insert(&[(uki, UKI)]).unwrap();
    let mut boot = images::power_on(org, 1, vm);
    shown(&mut boot, what, &["stopped after checkpoint", code]);
    boot.cut_power();
    let kept = state::kept(vm);
    assert!(!kept.keys().any(|name| name.starts_with("keys/")), "{what}: {:?}", kept.keys());
    assert!(images::booted(org).is_empty() && images::used(org) == 0);
}

/// The short key that the console named as the machine's own.
fn own_key(console: &str) -> String {
    let rest = console.split("keys of node ").nth(1).unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}
