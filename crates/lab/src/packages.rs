//! Which Debian packages this machine lacks, found out by looking for what they contain.

use core::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{self, CommandError};

/// What packages are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling the workspace.
    Build,
    /// Namespaces.
    Lab,
    /// Software TPMs.
    Tpm,
    /// Running what was built.
    Run,
    /// Programs of others that tests put in front of ours or behind it.
    Edge,
    /// OpenSSH, to be measured beside.
    Ssh,
    /// Making images and booting them in emulated machines.
    Boot,
    /// Making the Debian package.
    Package,
    /// Installing it in a Debian made for that.
    Debian,
}

/// Packages that are not there, each once.
#[must_use]
pub fn missing(purposes: &[Purpose]) -> Vec<&'static str> {
    let mut missing: Vec<_> = PACKAGES
        .iter()
        .filter(|package| purposes.contains(&package.purpose) && !package.sign.is_there())
        .map(|package| package.name)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// The line to type for them.
#[must_use]
pub fn install_line(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Installs them when root.
///
/// # Errors
/// Not root, not Debian, or apt-get failed; each tells the line to type.
pub fn install(packages: &[&str]) -> Result<(), InstallError> {
    if packages.is_empty() {
        return Ok(());
    }
    let line = install_line(packages);
    if command::find("apt-get").is_none() {
        return Err(InstallError::NoApt { packages: packages.join(" ") });
    }
    if !rustix::process::geteuid().is_root() {
        return Err(InstallError::NotRoot { line });
    }
    apt(&["update", "-q"]).map_err(|source| InstallError::Apt { line: line.clone(), source })?;
    let words: Vec<_> =
        ["install", "-y", "-q", "--no-install-recommends"].iter().chain(packages).copied().collect();
    apt(&words).map_err(|source| InstallError::Apt { line, source })
}

/// Why packages were not installed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InstallError {
    /// apt-get failed.
    Apt {
        /// The line to type.
        line: String,
        /// How.
        source: CommandError,
    },
    /// There is no apt-get here.
    NoApt {
        /// The packages, by their Debian names.
        packages: String,
    },
    /// An ordinary user installs nothing.
    NotRoot {
        /// The line to type as root.
        line: String,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apt { line, source } => write!(f, "{source}; try as root: {line}"),
            Self::NoApt { packages } => write!(f, "no apt-get here; install what Debian calls {packages}"),
            Self::NotRoot { line } => write!(f, "packages are missing; as root: {line}"),
        }
    }
}

impl core::error::Error for InstallError {}

/// How to tell that a package is there.
enum Sign {
    /// A file.
    File(&'static str),
    /// A file in a directory of libraries, whatever the architecture is called.
    Library(&'static str),
    /// A program in the search path.
    Program(&'static str),
}

impl Sign {
    fn is_there(&self) -> bool {
        match self {
            Self::File(path) => Path::new(path).exists(),
            Self::Library(name) => {
                let below = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
                below.map(|entry| entry.path()).chain(["/usr/lib".into()]).any(|dir| dir.join(name).exists())
            }
            Self::Program(name) => command::find(name).is_some(),
        }
    }
}

struct Package {
    name: &'static str,
    purpose: Purpose,
    sign: Sign,
}

const fn package(purpose: Purpose, name: &'static str, sign: Sign) -> Package {
    Package { name, purpose, sign }
}

const PACKAGES: &[Package] = &[
    package(Purpose::Boot, "binutils", Sign::Program("strip")),
    package(Purpose::Boot, "busybox-static", Sign::File("/usr/share/doc/busybox-static")),
    package(Purpose::Boot, "cryptsetup-bin", Sign::Program("cryptsetup")),
    package(Purpose::Boot, "dosfstools", Sign::Program("mkfs.vfat")),
    package(Purpose::Boot, "e2fsprogs", Sign::Program("mkfs.ext4")),
    package(Purpose::Boot, "linux-image-cloud-amd64", Sign::File("/usr/share/doc/linux-image-cloud-amd64")),
    package(Purpose::Boot, "mtools", Sign::Program("mcopy")),
    package(Purpose::Boot, "openssl", Sign::Program("openssl")),
    package(Purpose::Boot, "ovmf", Sign::File("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")),
    package(Purpose::Boot, "qemu-system-x86", Sign::Program("qemu-system-x86_64")),
    package(Purpose::Boot, "sbsigntool", Sign::Program("sbsign")),
    package(Purpose::Boot, "squashfs-tools", Sign::Program("mksquashfs")),
    package(Purpose::Boot, "systemd-boot-efi", Sign::File("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")),
    package(Purpose::Build, "gcc", Sign::Program("cc")),
    package(Purpose::Build, "libtss2-dev", Sign::File("/usr/include/tss2/tss2_esys.h")),
    package(Purpose::Build, "pkg-config", Sign::Program("pkg-config")),
    package(Purpose::Debian, "debootstrap", Sign::Program("debootstrap")),
    package(Purpose::Edge, "libnginx-mod-stream", Sign::File("/usr/lib/nginx/modules/ngx_stream_module.so")),
    package(Purpose::Edge, "nginx-light", Sign::Program("nginx")),
    package(Purpose::Edge, "systemd", Sign::Program("systemd-socket-activate")),
    package(Purpose::Edge, "postgresql", Sign::File("/usr/lib/postgresql")),
    package(Purpose::Lab, "iproute2", Sign::Program("ip")),
    package(Purpose::Lab, "nftables", Sign::Program("nft")),
    package(Purpose::Lab, "util-linux", Sign::Program("unshare")),
    package(Purpose::Package, "binutils", Sign::Program("strip")),
    package(Purpose::Package, "dpkg", Sign::Program("dpkg-deb")),
    package(Purpose::Package, "gzip", Sign::Program("gzip")),
    package(Purpose::Package, "tar", Sign::Program("tar")),
    package(Purpose::Run, "libtss2-esys-3.0.2-0", Sign::Library("libtss2-esys.so.0")),
    package(Purpose::Run, "libtss2-tcti-device0", Sign::Library("libtss2-tcti-device.so.0")),
    package(Purpose::Run, "libtss2-tctildr0", Sign::Library("libtss2-tctildr.so.0")),
    package(Purpose::Ssh, "openssh-client", Sign::Program("ssh")),
    package(Purpose::Ssh, "openssh-server", Sign::Program("sshd")),
    package(Purpose::Tpm, "libtss2-tcti-device0", Sign::Library("libtss2-tcti-device.so.0")),
    package(Purpose::Tpm, "swtpm", Sign::Program("swtpm")),
    package(Purpose::Tpm, "swtpm-tools", Sign::Program("swtpm_setup")),
];

/// What apt-get writes goes to standard error, so that it is seen and in nobody's output.
fn apt(args: &[&str]) -> Result<(), CommandError> {
    let mut command: Command = command::command("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(CommandError::Failed { line: command::line(&command), status, stderr: String::new() })
        }
        Err(source) => Err(command::not_run(&command, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_run_with_is_not_missing() {
        let missing = missing(&[Purpose::Build, Purpose::Lab, Purpose::Tpm, Purpose::Run]);
        assert!(missing.is_empty(), "{}", install_line(&missing));
    }

    #[test]
    fn the_line_to_type_names_every_package() {
        assert_eq!(
            install_line(&["swtpm", "nftables"]),
            "apt-get update && apt-get install -y --no-install-recommends swtpm nftables"
        );
    }
}
