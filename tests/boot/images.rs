//! An org with a gateway, images made for it, and machines that boot them.

use std::path::{Path, PathBuf};

pub(crate) use lab::images::BOOT;
use lab::{
    Sandbox, images,
    org::{Org, Programs},
    vm::{Firmware, Running, Vm},
};
use serde_json::Value;

/// Where firmware looks for what it starts.
pub(crate) const UKI: &str = "EFI/BOOT/BOOTX64.EFI";

/// An org whose first machine is its gateway; the others are places for machines that boot.
pub(crate) fn org(sandbox: &Sandbox, machines: usize) -> Org {
    let own = std::env::current_exe().unwrap();
    let mut programs = Programs::in_dir(own.ancestors().nth(2).unwrap()).unwrap();
    programs.env = vec![("MUSTER_TEST_WORK_FACTOR".to_owned(), "2".to_owned())];
    let mut org = Org::build(sandbox, machines, programs, None).unwrap();
    org.found().unwrap();
    org
}

/// A directory for images, beside the machines'.
pub(crate) fn dir(org: &Org) -> PathBuf {
    images::dir(org).unwrap()
}

/// A preboot image with an invite for one machine; what the command said of it.
pub(crate) fn preboot(org: &Org, out: &Path, more: &[&str]) -> Value {
    images::preboot(org, out, more).unwrap()
}

/// A node image of this number; what the command said of it.
pub(crate) fn node(org: &Org, dir: &Path, release: u32) -> Value {
    images::node(org, dir, release).unwrap()
}

/// `muster image`.
pub(crate) fn image(org: &Org, arguments: &[&str]) -> Value {
    images::image(org, arguments).unwrap()
}

/// A new machine with these images on its disk.
pub(crate) fn machine(org: &Org, name: &str, uki: &Path, node: &Path, firmware: Firmware) -> Vm {
    images::machine(org, name, uki, node, firmware).unwrap()
}

/// Puts other images on a machine's disk.
pub(crate) fn insert(vm: &Vm, uki: &Path, node: &Path) {
    images::insert(vm, uki, node).unwrap();
}

/// Boots a machine in the network of one of the org's.
pub(crate) fn power_on(org: &Org, place: usize, vm: &Vm) -> Running {
    vm.power_on(org.host(place).unwrap()).unwrap()
}

/// Waits for these on a machine's console, in any order.
pub(crate) fn shown(boot: &mut Running, what: &str, lines: &[&str]) {
    for line in lines {
        match boot.wait_for(line, BOOT) {
            Ok(after) => println!("{what}: {line} after {after:.1?}"),
            Err(why) => panic!("{what}: {line}: {why}\n{}", boot.console()),
        }
    }
}

/// Members in good standing but the gateway, as the gateway lists them.
pub(crate) fn booted(org: &Org) -> Vec<Value> {
    let list = org.ask(0, &["member", "list"]).unwrap();
    list["members"].as_array().unwrap().iter().filter(|m| m["name"] != "n1").cloned().collect()
}

/// How many times invites of this org have been used, as the gateway counts.
pub(crate) fn used(org: &Org) -> u64 {
    let list = org.ask(0, &["invite", "list"]).unwrap();
    list["invites"].as_array().unwrap().iter().map(|invite| invite["used"].as_u64().unwrap()).sum()
}
