//! What goes into an image from this machine: programs with the libraries they need, and modules of the
//! kernel with those they need.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use boot_image::{Archive, Driver, Modules};

use super::{
    modules::{KernelLists, file_name},
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

    /// Puts the modules that preboot and the node image use, these as well, and drivers, beside them those
    /// that were asked for.
    pub(super) fn put_modules(
        &self,
        archive: &mut Archive,
        as_well: &[&str],
        asked_for: &[String],
    ) -> Outcome<()> {
        let lists = KernelLists::read(&self.modules)?;
        let missing = |name: &str| unusable(format_args!("{} has no module {name}", self.modules.display()));
        let mut modules = Modules::default();
        for name in NEEDED.iter().chain(as_well) {
            match lists.module(name) {
                Some(module) => add(&mut modules.always, module.all()),
                None if lists.has_built_in(name) => {}
                None => return Err(missing(name)),
            }
        }
        let unknown = asked_for.iter().find(|name| lists.module(name).is_none() && !lists.has_built_in(name));
        if let Some(name) = unknown {
            return Err(missing(name));
        }
        let drivers = asked_for.iter().map(String::as_str).chain(DRIVERS.iter().copied());
        for module in drivers.filter_map(|name| lists.module(name)) {
            let aliases = lists.aliases(module.path);
            if aliases.is_empty() {
                // Nothing says for which machines it is.
                add(&mut modules.always, module.all());
                continue;
            }
            let (file, mut needs) = (file_name(module.path).to_owned(), Vec::new());
            add(&mut needs, module.needs());
            modules.drivers.push(Driver { file, needs, aliases });
        }
        let paths = lists.paths();
        let drivers = modules.drivers.iter().flat_map(|driver| driver.needs.iter().chain([&driver.file]));
        let files: BTreeSet<&String> = modules.always.iter().chain(drivers).collect();
        for name in files {
            if !name.ends_with(".ko") {
                return Err(unusable(format_args!("{name} is compressed; only plain modules are loaded")));
            }
            let Some(path) = paths.get(name.as_str()) else { continue };
            archive.file(&format!("lib/modules/{name}"), read(&self.modules.join(path))?, false);
        }
        archive.file(Modules::FILE, modules.encode().into_bytes(), false);
        Ok(())
    }
}

fn add<'a>(list: &mut Vec<String>, paths: impl Iterator<Item = &'a str>) {
    for name in paths.map(file_name) {
        if !list.iter().any(|there| there == name) {
            list.push(name.to_owned());
        }
    }
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

/// What preboot and the node image cannot do without, in the order in which it is wanted.
const NEEDED: &[&str] = &["efivarfs", "loop", "squashfs", "overlay", "tun", "vfat", "nls_cp437", "nls_ascii"];
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
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        assert!(version("vmlinuz-6.1.0-56-cloud-amd64") > version("vmlinuz-6.1.0-9-cloud-amd64"));
    }
}
