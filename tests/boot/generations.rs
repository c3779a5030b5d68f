//! Releases of the node image: fetched, tried, given up, and which are too old.

use std::{fs, path::Path};

use lab::{
    org::Org,
    vm::{Firmware, Vm},
};

use crate::{
    images::{self, shown},
    state,
};

#[test]
fn a_machine_fetches_what_is_wanted_falls_back_from_what_is_not_ready_and_starts_nothing_below_its_floor()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let uki = dir.join("preboot.efi");
        images::preboot(&org, &uki, &[]);
        // A musterd that ends at once, over and over.
        let broken = dir.join("broken");
        fs::create_dir(&broken).unwrap();
        for program in ["musterd", "muster"] {
            fs::copy("/bin/false", broken.join(program)).unwrap();
        }
        let first = release(&org, &dir, 1, &[]);
        release(&org, &dir, 2, &["--programs", broken.to_str().unwrap()]);
        release(&org, &dir, 3, &["--minimum", "3"]);
        // Nothing but the preboot image is on its disk.
        let vm = Vm::make(&org.lab().dir().join("vm"), Firmware::Open).unwrap();
        vm.insert(&[(&uki, "EFI/BOOT/BOOTX64.EFI")]).unwrap();

        publish(&org, &dir, 1);
        let mut boot = images::power_on(&org, 1, &vm);
        let lines = ["admitted by", "release 1 is wanted by the gateway", "is in slot a"];
        shown(&mut boot, "first boot", &lines);
        shown(&mut boot, "first boot", &["release 1 is on trial", "takes over", "this image is good"]);
        assert!(boot.console().contains(&format!("release 1, {} bytes, is in slot", first["bytes"])));
        boot.cut_power();

        publish(&org, &dir, 2);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(
            &mut boot,
            "broken release",
            &["is in slot b", "release 2 is on trial: 2 starts left", "takes over"],
        );
        boot.cut_power();
        // The other two starts are no different.
        state::write(&vm, "slots/b/tries", b"0\n");
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "fall-back", &["MU-8023", "release 1, takes over", "this image is good"]);
        assert!(!boot.console().contains("is in slot"), "it was fetched again");
        boot.cut_power();

        publish(&org, &dir, 3);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "new release", &["is in slot b", "release 3, takes over", "this image is good"]);
        boot.cut_power();

        publish(&org, &dir, 1);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "too old", &["no release before 3 starts here", "MU-8007", "release 3, takes over"]);
    })
}

fn release(org: &Org, dir: &Path, number: u32, more: &[&str]) -> serde_json::Value {
    let out = dir.join(number.to_string());
    fs::create_dir(&out).unwrap();
    let (number, out) = (number.to_string(), out.display().to_string());
    images::image(org, &[&["node", "--release", &number, "--out", &out], more].concat())
}

fn publish(org: &Org, dir: &Path, number: u32) {
    let published = images::image(org, &["publish", dir.join(number.to_string()).to_str().unwrap()]);
    assert_eq!(published["release"], number);
    assert_eq!(images::image(org, &["status"])["wanted"]["release"], number);
}
