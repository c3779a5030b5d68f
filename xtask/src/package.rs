//! `cargo xtask package`: the Debian package and the tarball, from one tree.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;
use lab::packages::Purpose;

use crate::{
    demo,
    machine::{self, Failure},
};

mod trial;

#[derive(Args)]
pub(crate) struct Options {
    /// Where package and tarball are put
    #[arg(long, value_name = "DIR", default_value = "target/package")]
    out: PathBuf,
    /// The four programs, built elsewhere; without it release builds
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Then install, upgrade, remove and purge it in a Debian made for that (as root; debootstrap)
    #[arg(long)]
    try_out: bool,
}

const PROGRAMS: [&str; 4] = ["muster", "musterd", "muster-gateway", "muster-preboot"];
/// Each shell's word for itself, and where Debian looks for completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/muster"),
    ("fish", "usr/share/fish/vendor_completions.d/muster.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_muster"),
];
/// Others go where their users are told to look.
const OTHER_SHELLS: [(&str, &str); 2] = [
    ("elvish", "usr/share/doc/muster/completions/muster.elv"),
    ("powershell", "usr/share/doc/muster/completions/muster.ps1"),
];
/// Files of packaging/ and where they go.
const FILES: [(&str, &str); 9] = [
    ("systemd/musterd.service", "lib/systemd/system/musterd.service"),
    ("systemd/muster-gateway.service", "lib/systemd/system/muster-gateway.service"),
    ("systemd/muster-gateway.socket", "lib/systemd/system/muster-gateway.socket"),
    ("systemd/muster-diagnose.socket", "lib/systemd/system/muster-diagnose.socket"),
    ("systemd/muster-diagnose@.service", "lib/systemd/system/muster-diagnose@.service"),
    ("sysusers.conf", "usr/lib/sysusers.d/muster.conf"),
    ("tmpfiles.conf", "usr/lib/tmpfiles.d/muster.conf"),
    ("prometheus/alerts.yml", "usr/share/doc/muster/alerts.yml"),
    ("muster.toml", "usr/share/doc/muster/muster.toml"),
];
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];
/// What the programs load. libc is of the Debian this is built on.
const DEPENDS: &str = "libc6, libtss2-esys-3.0.2-0, libtss2-tctildr0, libtss2-tcti-device0";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let purposes = [Purpose::Build, Purpose::Package, Purpose::Debian];
    demo::install(if options.try_out { &purposes } else { &purposes[..2] })?;
    let out = machine::root().join(&options.out);
    let version = env!("CARGO_PKG_VERSION");
    let built = match &options.programs {
        Some(directory) => directory.clone(),
        None => release()?,
    };
    let package = make(&out, version, &built)?;
    println!("{}", package.display());
    if options.try_out {
        // What an upgrade is from: the same programs under the version before.
        let older = make(&out.join("older"), "0.0.9", &built)?;
        trial::run(&package, &older)?;
    }
    Ok(())
}

fn release() -> Result<PathBuf, Failure> {
    let mut build = machine::cargo();
    build.args(["build", "--quiet", "--release"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    machine::run(&mut build)?;
    Ok(machine::target_dir().join("release"))
}

/// The package; the tarball lies beside it.
fn make(out: &Path, version: &str, built: &Path) -> Result<PathBuf, Failure> {
    let scratch = tempfile::tempdir().map_err(|e| found(&e))?;
    let tree = scratch.path().join("tree");
    for program in PROGRAMS {
        let to = tree.join("usr/bin").join(program);
        put(&to, &fs::read(built.join(program)).map_err(|e| found(&e))?, 0o755)?;
        machine::run(Command::new("strip").arg(&to))?;
    }
    let packaging = machine::root().join("packaging");
    for (from, to) in FILES {
        put(&tree.join(to), &fs::read(packaging.join(from)).map_err(|e| found(&e))?, 0o644)?;
    }
    put(&tree.join("usr/lib/systemd/catalog/muster.catalog"), journal::catalog().as_bytes(), 0o644)?;
    manual(built, &tree)?;
    for (shell, to) in SHELLS.iter().chain(&OTHER_SHELLS) {
        let said = output(Command::new(built.join("muster")).args(["completion", shell]))?;
        put(&tree.join(to), &said, 0o644)?;
    }
    copy_licenses(&tree)?;
    let installed_kib = installed_kib(&tree).map_err(|e| found(&e))?;

    fs::create_dir_all(out).map_err(|e| found(&e))?;
    let name = format!("muster_{version}_amd64");
    // One tree, one hash: names in order, no owner, no time.
    let tarball = out.join(format!("{name}.tar.gz"));
    let sorted = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--format=gnu"];
    let mut tar = Command::new("tar");
    machine::run(
        tar.args(sorted).args(["-I", "gzip -n", "-cf"]).arg(&tarball).arg("-C").arg(&tree).arg("."),
    )?;

    for script in SCRIPTS {
        let text = fs::read_to_string(packaging.join("debian").join(script)).map_err(|e| found(&e))?;
        put(&tree.join("DEBIAN").join(script), text.replace("@VERSION@", version).as_bytes(), 0o755)?;
    }
    put(&tree.join("DEBIAN/control"), control(version, installed_kib).as_bytes(), 0o644)?;
    let package = out.join(format!("{name}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&package).env("SOURCE_DATE_EPOCH", "0");
    machine::run(build.stdout(Stdio::null()))?;
    Ok(package)
}

fn manual(built: &Path, tree: &Path) -> Result<(), Failure> {
    let pages = tempfile::tempdir().map_err(|e| found(&e))?;
    machine::run(Command::new(built.join("muster")).arg("manual").arg(pages.path()))?;
    for daemon in ["musterd", "muster-gateway", "muster-preboot"] {
        let page = output(Command::new(built.join(daemon)).arg("--manual"))?;
        fs::write(pages.path().join(format!("{daemon}.8")), page).map_err(|e| found(&e))?;
    }
    for page in fs::read_dir(pages.path()).map_err(|e| found(&e))?.flatten() {
        let path = page.path();
        let section = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let name = page.file_name().to_string_lossy().into_owned();
        let to = tree.join(format!("usr/share/man/man{section}/{name}"));
        put(&to, &fs::read(&path).map_err(|e| found(&e))?, 0o644)?;
        machine::run(Command::new("gzip").args(["-9n"]).arg(&to))?;
    }
    Ok(())
}

fn copy_licenses(tree: &Path) -> Result<(), Failure> {
    let mut text = String::from("muster is under either of these licenses, at your choice.\n");
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        text.push('\n');
        text.push_str(&fs::read_to_string(machine::root().join(name)).map_err(|e| found(&e))?);
    }
    put(&tree.join("usr/share/doc/muster/copyright"), text.as_bytes(), 0o644)
}

/// What dpkg is told that the tree takes (Debian Policy 5.6.20), counted as dpkg-gencontrol counts it: each file in
/// KiB, rounded up, and 1 KiB for each directory and link.
fn installed_kib(tree: &Path) -> io::Result<u64> {
    let mut kib = 1;
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        // Of a link itself, not of what it names.
        let metadata = entry.metadata()?;
        kib += if metadata.is_dir() {
            installed_kib(&entry.path())?
        } else if metadata.is_file() {
            metadata.len().div_ceil(1024)
        } else {
            1
        };
    }
    Ok(kib)
}

fn control(version: &str, installed_kib: u64) -> String {
    format!(
        "Package: muster\nVersion: {version}\nArchitecture: amd64\nMaintainer: muster developers <muster@localhost>\n\
         Installed-Size: {installed_kib}\nSection: net\nPriority: optional\nDepends: {DEPENDS}\nRecommends: systemd\n\
         Description: node identity without a CA between machines\n \
         Every machine proves an Ed25519 key of its own, sealed by its TPM, on every connection, and the org's\n \
         member list, which spreads by itself over WireGuard, says whether that key is still one of the org's.\n"
    )
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| found(&e))?;
    }
    fs::write(path, bytes).map_err(|e| found(&e))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| found(&e))
}

fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let done = command.stderr(Stdio::inherit()).output().map_err(|e| found(&e))?;
    if done.status.success() {
        Ok(done.stdout)
    } else {
        Err(Failure::Status(command.get_program().to_string_lossy().into_owned(), done.status))
    }
}

fn found(why: &io::Error) -> Failure {
    Failure::Machine(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_size_is_that_of_files_in_whole_kib_and_one_for_each_directory_and_link() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("usr")).unwrap();
        for (name, bytes, kib) in [("empty", 0, 2), ("one", 1, 3), ("full", 1024, 4), ("more", 1025, 6)] {
            fs::write(tree.path().join("usr").join(name), vec![0; bytes]).unwrap();
            assert_eq!(installed_kib(tree.path()).unwrap(), kib, "with {name}");
        }
        std::os::unix::fs::symlink("more", tree.path().join("usr/link")).unwrap();
        std::os::unix::fs::symlink("usr", tree.path().join("directory")).unwrap();
        assert_eq!(installed_kib(tree.path()).unwrap(), 8);
        assert!(control("1.2.3", 8).contains("\nInstalled-Size: 8\n"));
    }
}
