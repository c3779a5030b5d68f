//! Starts without a gateway.

use std::fs;

use lab::vm::Firmware;

use crate::images::{self, shown};

#[test]
fn without_a_gateway_the_last_good_release_starts_where_the_image_lets_it_and_never_elsewhere()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = images::org(sandbox, 2);
        let dir = images::dir(&org);
        let (lets, strict, nodes) = (dir.join("lets.efi"), dir.join("strict.efi"), dir.join("node"));
        fs::create_dir(&nodes).unwrap();
        images::preboot(&org, &lets, &["--without-gateway"]);
        images::image(&org, &["preboot", "--out", strict.to_str().unwrap()]);
        images::node(&org, &nodes, 1);
        let vm = images::machine(&org, "vm", &lets, &nodes, Firmware::Open);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "first boot", &["admitted by", "release 1, takes over", "this image is good"]);
        boot.cut_power();

        org.stop_gateway(0).unwrap();
        let mut boot = images::power_on(&org, 1, &vm);
        shown(&mut boot, "no gateway", &["MU-5002", "c starts release 1", "by itself it starts the release"]);
        shown(&mut boot, "no gateway", &["no gateway says whether this machine", "release 1, takes over"]);
        boot.cut_power();

        images::insert(&vm, &strict, &nodes);
        let mut boot = images::power_on(&org, 1, &vm);
        shown(
            &mut boot,
            "strict image",
            &["MU-5002", "stopped after checkpoint", "by itself it tries again"],
        );
        let console = boot.console();
        assert!(!console.contains("c starts") && !console.contains("takes over"), "{console}");
    })
}
