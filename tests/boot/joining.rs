//! First boots, returning boots, and boots of machines that are members no longer.

use std::time::Duration;

use lab::{org::wait_for, vm::Firmware};

use crate::images::{self, BOOT};

#[test]
fn a_machine_enrols_at_its_first_boot_returns_at_the_next_and_once_revoked_is_refused()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (uki, nodes) = (dir.join("preboot.efi"), dir.join("node"));
        std::fs::create_dir(&nodes).unwrap();
        let image = images::preboot(&org, &uki, &[]);
        let predicted = image["pcr11"]["preboot"].as_str().unwrap();
        images::node(&org, &nodes, 1);
        let vm = images::machine(&org, "vm", &uki, &nodes, Firmware::Open);

        let mut first = images::power_on(&org, 1, &vm);
        for line in [
            "muster-preboot  1",
            "Secure Boot is off",
            "admitted by",
            "takes over",
            "took over what was handed over",
            // The node OS has asked the same server again, so the lease does not run out.
            "network: eth0 keeps 10.0.2.15/24",
        ] {
            println!("first boot: {line} after {:.1?}", first.wait_for(line, BOOT).unwrap());
        }
        let measured = format!("the TPM measured this image as {predicted}");
        assert!(first.console().contains(&measured), "not as predicted: {}", first.console());
        let member = images::booted(&org).pop().unwrap();
        let key = member["key"].as_str().unwrap().to_owned();
        let linked = || {
            let reached = org.muster(0, &["ping", &key, "--count", "1"])?;
            Ok(reached.status.success().then_some(()))
        };
        wait_for(Duration::from_secs(60), "the gateway reaches the machine that booted", linked).unwrap();
        first.cut_power();

        let mut second = images::power_on(&org, 1, &vm);
        for line in ["knows this machine", "takes over", "took over what was handed over"] {
            println!("returning boot: {line} after {:.1?}", second.wait_for(line, BOOT).unwrap());
        }
        assert!(!second.console().contains("admitted by"), "it was one already");
        wait_for(Duration::from_secs(60), "the gateway reaches it again", linked).unwrap();
        assert_eq!(images::booted(&org).len(), 1, "the same machine");
        second.cut_power();

        // Where firmware starts anything, it also hands on any command line. Keys do not open to one.
        let mut other =
            vm.power_on_from(org.host(1).unwrap(), &uki, "console=ttyS0 panic=30 init=/bin/sh").unwrap();
        println!("another command line: refused after {:.1?}", other.wait_for("MU-4014", BOOT).unwrap());
        assert!(!other.console().contains("takes over"), "it got a node OS");
        other.cut_power();

        org.ask(0, &["revoke", &key, "--wait", "1", "--yes"]).unwrap();
        let mut third = images::power_on(&org, 1, &vm);
        println!("revoked: refused after {:.1?}", third.wait_for("MU-1403", BOOT).unwrap());
        assert!(!third.console().contains("takes over"), "a revoked machine got a node OS");
    })
}
