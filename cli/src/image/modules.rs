//! What a kernel's own lists say of its modules: where each is, what it needs, and which devices it is for.

use std::{collections::BTreeMap, fs, path::Path};

use crate::failure::{Failure, Outcome};

/// The lists, as depmod writes them beside the modules.
pub(super) struct KernelLists {
    dependencies: String,
    built_in: Vec<String>,
    aliases: String,
}

/// A module, as the kernel lists it.
pub(super) struct Module<'a> {
    pub(super) path: &'a str,
    /// The last of them loads first.
    before: &'a str,
}

impl KernelLists {
    pub(super) fn read(modules: &Path) -> Outcome<Self> {
        let list = |name: &str| {
            let path = modules.join(name);
            fs::read_to_string(&path).map_err(|e| Failure::file(&path, &e))
        };
        let built_in = list("modules.builtin").unwrap_or_default();
        Ok(Self {
            dependencies: list("modules.dep")?,
            built_in: built_in.lines().map(module_name).collect(),
            aliases: list("modules.alias")?,
        })
    }

    /// The module of a name, if it is one.
    pub(super) fn module(&self, name: &str) -> Option<Module<'_>> {
        let name = module_name(name);
        let lines = self.dependencies.lines().filter_map(|line| line.split_once(':'));
        let mut modules = lines.map(|(path, before)| Module { path, before });
        modules.find(|module| module_name(module.path) == name)
    }

    pub(super) fn has_built_in(&self, name: &str) -> bool {
        self.built_in.contains(&module_name(name))
    }

    /// The patterns of the devices that a module is for.
    pub(super) fn aliases(&self, path: &str) -> Vec<String> {
        let name = module_name(path);
        let lines = self.aliases.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
        lines.filter(|(_, module)| module_name(module) == name).map(|(alias, _)| alias.to_owned()).collect()
    }

    /// Where each file is.
    pub(super) fn paths(&self) -> BTreeMap<&str, &str> {
        let paths = self.dependencies.lines().filter_map(|line| line.split_once(':'));
        paths.map(|(path, _)| (file_name(path), path)).collect()
    }
}

impl<'a> Module<'a> {
    /// Those that it needs, in the order in which they load.
    pub(super) fn needs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.before.split_whitespace().rev()
    }

    /// The same, and the module itself.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.needs().chain([self.path])
    }
}

pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn module_name(path: &str) -> String {
    let file = file_name(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_and_is_for_is_read_from_the_kernels_own_lists() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/net/virtio_net.ko: kernel/net/failover.ko kernel/virtio/virtio-ring.ko\nkernel/a-b.ko:\n",
        );
        write("modules.alias", "# Aliases\nalias virtio:d1v* virtio_net\nalias pci:v1* a_b\nalias x a-b\n");
        write("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        let lists = KernelLists::read(dir.path()).unwrap();
        let net = lists.module("virtio-net").unwrap();
        let all: Vec<_> = net.all().map(file_name).collect();
        assert_eq!(all, ["virtio-ring.ko", "failover.ko", "virtio_net.ko"]);
        assert_eq!(lists.aliases(net.path), ["virtio:d1v*"]);
        assert_eq!(lists.aliases("kernel/a-b.ko"), ["pci:v1*", "x"]);
        assert_eq!(lists.paths()["a-b.ko"], "kernel/a-b.ko");
        assert!(lists.has_built_in("ext4") && !lists.has_built_in("a_b") && lists.module("ext4").is_none());
    }
}
