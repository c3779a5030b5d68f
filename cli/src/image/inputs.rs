//! What goes into an image from this machine: programs with the libraries they need, and modules of the
//! kernel with those they need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use boot_image::Archive;

use super::{
    tools::{self, Scratch},
    unusable,
};
use crate::failure::{Failure, Outcome};

/// Puts a program at a path, without what only debuggers read, and every library it needs.
pub(super) fn program(archive: &mut Archive, path: &str, from: &Path, scratch: &Scratch) -> Outcome<()> {
    let stripped = scratch.path().join(from.file_name().unwrap_or_default());
    tools::run("strip", "binutils", [Path::new("-o"), &stripped, from])?;
    archive.file(path, read(&stripped)?, true);
    for library in libraries(from)? {
        put_library(archive, &library)?;
    }
    Ok(())
}

/// As the loader finds them, and the one that libtss2 opens by its name.
fn libraries(program: &Path) -> Outcome<Vec<PathBuf>> {
    let listing = tools::run("ldd", "libc-bin", [program])?;
    let mut found = Vec::new();
    for line in listing.lines() {
        // "name => path (address)", or "path (address)" for the loader itself.
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        if path.ends_with("not found") {
            return Err(unusable(format_args!("{}: {}", program.display(), line.trim())));
        }
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    let tss = found.iter().find(|path| path.file_name().is_some_and(|name| name == "libtss2-esys.so.0"));
    let device = tss.map(|path| path.with_file_name("libtss2-tcti-device.so.0"));
    found.extend(device);
    Ok(found)
}

fn put_library(archive: &mut Archive, path: &Path) -> Outcome<()> {
    let name = path.to_string_lossy();
    archive.file(name.trim_start_matches('/'), read(path)?, true);
    Ok(())
}

/// A kernel and where its modules are.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) release: String,
    modules: PathBuf,
}

impl Kernel {
    /// The one given, or the newest of this machine.
    pub(super) fn find(image: Option<&Path>, modules: Option<&Path>) -> Outcome<Self> {
        let image = match image {
            Some(image) => image.to_owned(),
            None => newest()?,
        };
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let release = name.split_once('-').map_or(name.as_str(), |(_, release)| release).to_owned();
        let modules = modules.map_or_else(|| Path::new("/lib/modules").join(&release), Path::to_owned);
        Ok(Self { image, release, modules })
    }

    /// Puts the modules that preboot and the node image use, in the order in which they load.
    pub(super) fn put_modules(&self, archive: &mut Archive, more: &[String]) -> Outcome<usize> {
        let list = self.modules.join("modules.dep");
        let text = fs::read_to_string(&list).map_err(|e| Failure::file(&list, &e))?;
        let built_in = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        let built_in: Vec<String> = built_in.lines().map(module_name).collect();
        let needs = needs(&text);
        let mut order: Vec<&str> = Vec::new();
        for (name, is_needed) in NEEDED
            .iter()
            .map(|n| (*n, true))
            .chain(more.iter().map(|n| (n.as_str(), true)))
            .chain(DRIVERS.iter().map(|n| (*n, false)))
        {
            let name = name.replace('-', "_");
            let Some((path, before)) = needs.get(&name) else {
                if is_needed && !built_in.contains(&name) {
                    return Err(unusable(format_args!("{} has no module {name}", self.modules.display())));
                }
                continue;
            };
            for path in before.iter().rev().chain([path]) {
                if !order.contains(path) {
                    order.push(path);
                }
            }
        }
        let mut names = String::new();
        for path in &order {
            let name = path.rsplit('/').next().unwrap_or(path);
            if !name.ends_with(".ko") {
                return Err(unusable(format_args!("{path} is compressed; only plain modules are loaded")));
            }
            archive.file(&format!("lib/modules/{name}"), read(&self.modules.join(path))?, false);
            names.push_str(name);
            names.push('\n');
        }
        archive.file("lib/modules/order", names.into_bytes(), false);
        Ok(order.len())
    }
}

/// By name: a module's file, and those it needs, the last of which loads first.
fn needs(modules_dep: &str) -> BTreeMap<String, (&str, Vec<&str>)> {
    let lines = modules_dep.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, before)| (module_name(path), (path, before.split_whitespace().collect()))).collect()
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn newest() -> Outcome<PathBuf> {
    let mut kernels: Vec<PathBuf> = fs::read_dir("/boot")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .collect();
    kernels.sort_by_key(|path| version(&path.to_string_lossy()));
    kernels.pop().ok_or_else(|| {
        unusable("no kernel in /boot")
            .remedy("Install linux-image-cloud-amd64 or linux-image-amd64, or give --kernel FILE.")
    })
}

/// The numbers in a name, so that 6.1.0-56 comes after 6.1.0-9.
fn version(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

pub(super) fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|e| Failure::file(path, &e))
}

/// What preboot and the node image cannot do without.
const NEEDED: &[&str] = &["loop", "squashfs", "overlay", "vfat", "nls_cp437", "nls_ascii", "tun", "efivarfs"];
/// What may be between the kernel and its disk and network; those that this kernel has.
const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_rng",
    "softdog",
    "sd_mod",
    "ahci",
    "nvme",
    "xhci_pci",
    "ehci_pci",
    "usb_storage",
    "uas",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "r8169",
    "tg3",
    "bnxt_en",
    "mlx5_core",
    "vmxnet3",
    "vmw_pvscsi",
    "hv_netvsc",
    "hv_storvsc",
    "ena",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_the_kernels_own_list() {
        let list =
            "kernel/net/virtio_net.ko: kernel/net/failover.ko kernel/virtio/virtio-ring.ko\nkernel/a-b.ko:\n";
        let needs = needs(list);
        assert_eq!(needs["virtio_net"].1, ["kernel/net/failover.ko", "kernel/virtio/virtio-ring.ko"]);
        assert_eq!(needs["a_b"], ("kernel/a-b.ko", Vec::new()));
    }

    #[test]
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        assert!(version("vmlinuz-6.1.0-56-cloud-amd64") > version("vmlinuz-6.1.0-9-cloud-amd64"));
    }
}
