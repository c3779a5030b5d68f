//! An org with a gateway, images made for it, and machines that boot them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    Sandbox,
    org::{Org, Programs},
    vm::{Firmware, Running, Vm},
};
use serde_json::Value;

/// Power-on to anything, on a machine that is busy: about 15 s on a quiet one.
pub(crate) const BOOT: Duration = Duration::from_secs(150);

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
    let dir = org.lab().dir().join("images");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A preboot image with an invite for one machine; what the command said of it.
pub(crate) fn preboot(org: &Org, out: &Path, more: &[&str]) -> Value {
    let invite = out.with_extension("invite");
    fs::write(&invite, org.invite(0, 1).unwrap()).unwrap();
    let (invite, out) = (invite.to_str().unwrap(), out.to_str().unwrap());
    image(org, &[&["preboot", "--invite", invite, "--out", out], more].concat())
}

/// A node image of this number; what the command said of it.
pub(crate) fn node(org: &Org, dir: &Path, release: u32) -> Value {
    let release = release.to_string();
    image(org, &["node", "--release", &release, "--out", dir.to_str().unwrap()])
}

/// `muster image`: seconds of compressing, more on a busy machine.
pub(crate) fn image(org: &Org, arguments: &[&str]) -> Value {
    let program = org.program(0, "muster").unwrap().args(["--json", "--no-input", "image"]);
    let ended = program.args(arguments).run(BOOT).unwrap().ok().unwrap();
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A new machine with these images on its disk.
pub(crate) fn machine(org: &Org, name: &str, uki: &Path, node: &Path, firmware: Firmware) -> Vm {
    let vm = Vm::make(&org.lab().dir().join(name), firmware).unwrap();
    insert(&vm, uki, node);
    vm
}

/// Puts other images on a machine's disk.
pub(crate) fn insert(vm: &Vm, uki: &Path, node: &Path) {
    let files = [
        (uki.to_owned(), "EFI/BOOT/BOOTX64.EFI"),
        (node.join("node.squashfs"), "muster/node.squashfs"),
        (node.join("node.release"), "muster/node.release"),
    ];
    let files: Vec<_> = files.iter().map(|(from, to)| (from.as_path(), *to)).collect();
    vm.insert(&files).unwrap();
}

/// Boots a machine in the network of one of the org's.
pub(crate) fn power_on(org: &Org, place: usize, vm: &Vm) -> Running {
    vm.power_on(org.host(place).unwrap()).unwrap()
}

/// Members in good standing but the gateway, as the gateway lists them.
pub(crate) fn booted(org: &Org) -> Vec<Value> {
    let list = org.ask(0, &["member", "list"]).unwrap();
    list["members"].as_array().unwrap().iter().filter(|m| m["name"] != "n1").cloned().collect()
}
