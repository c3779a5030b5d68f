//! Images of an org, made by its own commands on its first machine, and machines that have them on a disk.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    org::{Org, OrgError},
    vm::{Firmware, Vm, VmError},
};

/// Power-on to anything, on a machine that is busy: about 15 s on a quiet one, 60 at a load of ten.
pub const BOOT: Duration = Duration::from_secs(240);

/// A directory for images, beside the machines'.
///
/// # Errors
/// The disk refuses.
pub fn dir(org: &Org) -> Result<PathBuf, OrgError> {
    let dir = org.lab().dir().join("images");
    fs::create_dir_all(&dir).map_err(|source| OrgError::File { path: dir.clone(), source })?;
    Ok(dir)
}

/// A preboot image with an invite for one machine; what the command said of it.
///
/// # Errors
/// The command fails.
pub fn preboot(org: &Org, out: &Path, more: &[&str]) -> Result<Value, OrgError> {
    let invite = out.with_extension("invite");
    let line = org.invite(0, 1)?;
    fs::write(&invite, line).map_err(|source| OrgError::File { path: invite.clone(), source })?;
    let (invite, out) = (invite.display().to_string(), out.display().to_string());
    image(org, &[&["preboot", "--invite", &invite, "--out", &out], more].concat())
}

/// A node image of this number, in an empty directory; what the command said of it.
///
/// # Errors
/// The command fails.
pub fn node(org: &Org, dir: &Path, release: u32) -> Result<Value, OrgError> {
    image(org, &["node", "--release", &release.to_string(), "--out", &dir.display().to_string()])
}

/// `muster image`: seconds of compressing, more on a busy machine.
///
/// # Errors
/// The command fails, or prints no object.
pub fn image(org: &Org, arguments: &[&str]) -> Result<Value, OrgError> {
    let program = org.program(0, "muster")?.args(["--json", "--no-input", "image"]);
    let ended = program.args(arguments).run(BOOT).and_then(crate::Ended::ok).map_err(OrgError::Program)?;
    serde_json::from_str(&ended.stdout).map_err(|source| OrgError::Json { text: ended.stdout, source })
}

/// A new machine with these images on its disk.
///
/// # Errors
/// See [`Vm::make`].
pub fn machine(org: &Org, name: &str, uki: &Path, node: &Path, firmware: Firmware) -> Result<Vm, VmError> {
    let vm = Vm::make(&org.lab().dir().join(name), firmware)?;
    insert(&vm, uki, node)?;
    Ok(vm)
}

/// Puts other images on a machine's disk.
///
/// # Errors
/// See [`Vm::insert`].
pub fn insert(vm: &Vm, uki: &Path, node: &Path) -> Result<(), VmError> {
    let (image, signed) = (node.join("node.squashfs"), node.join("node.release"));
    vm.insert(&[
        (uki, "EFI/BOOT/BOOTX64.EFI"),
        (&image, "muster/node.squashfs"),
        (&signed, "muster/node.release"),
    ])
}
