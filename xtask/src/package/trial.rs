//! The package in a Debian of its own: installed, upgraded, removed, purged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::machine::Failure;

pub(super) fn run(package: &Path, older: &Path) -> Result<(), Failure> {
    let scratch = tempfile::tempdir().map_err(|e| super::found(&e))?;
    let debian = Debian::make(scratch.path())?;
    for (file, name) in [(older, "older.deb"), (package, "muster.deb")] {
        fs::copy(file, debian.root.join(name)).map_err(|e| super::found(&e))?;
    }
    let key = debian.root.join("var/lib/muster/a-key");

    debian.says("dpkg --install /older.deb", "")?;
    println!("ok  installs, with its user and group");
    debian.says("getent passwd muster-gateway", "/usr/sbin/nologin")?;
    debian.says("getent group muster", "muster:")?;
    for program in super::PROGRAMS {
        debian.says(&format!("{program} --version"), env!("CARGO_PKG_VERSION"))?;
    }
    println!("ok  every program starts there: nothing that it loads is missing");
    debian.says("musterd --check", "")?;
    debian.says("test -f /usr/share/man/man1/muster-revoke.1.gz", "")?;
    debian.says("journalctl --list-catalog", "revoked")?;
    println!("ok  the manual, and the remedies for journalctl -x");
    fs::create_dir_all(debian.root.join("var/lib/muster")).map_err(|e| super::found(&e))?;
    fs::write(&key, "kept").map_err(|e| super::found(&e))?;

    debian.says("dpkg --install /muster.deb", "")?;
    check(key.exists(), "an upgrade keeps the keys")?;
    debian.refuses("dpkg --install /older.deb", "may not read what it wrote")?;
    debian.says("dpkg-query --show --showformat ${Version} muster", env!("CARGO_PKG_VERSION"))?;
    println!("ok  a downgrade is refused, and says why");
    debian.says("dpkg --remove muster", "stay in /var/lib/muster")?;
    check(key.exists(), "a removal keeps the keys, and says so")?;
    debian.says("dpkg --install /muster.deb", "")?;
    debian.says("dpkg --purge muster", "destroying this machine's keys")?;
    check(!key.exists(), "a purge destroys them, and says so")
}

fn check(holds: bool, claim: &str) -> Result<(), Failure> {
    if !holds {
        return Err(Failure::Found(format!("not so: {claim}")));
    }
    println!("ok  {claim}");
    Ok(())
}

struct Debian {
    root: PathBuf,
}

impl Debian {
    /// The smallest there is, with what the package depends on.
    fn make(directory: &Path) -> Result<Self, Failure> {
        let root = directory.join("debian");
        let with = format!("--include=systemd,{}", super::DEPENDS.replace(", ", ","));
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", with.as_str(), "bookworm"]).arg(&root);
        make.args(mirror());
        let log = make.stderr(std::process::Stdio::inherit()).output().map_err(|e| super::found(&e))?;
        if !log.status.success() {
            return Err(Failure::Status("debootstrap".to_owned(), log.status));
        }
        Ok(Self { root })
    }

    fn run(&self, line: &str) -> Result<(bool, String), Failure> {
        let done = Command::new("chroot")
            .arg(&self.root)
            .args(line.split(' '))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .map_err(|e| super::found(&e))?;
        let said = [done.stdout, done.stderr].concat();
        Ok((done.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn says(&self, line: &str, words: &str) -> Result<(), Failure> {
        match self.run(line)? {
            (true, said) if said.contains(words) => Ok(()),
            (_, said) => Err(Failure::Found(format!("{line}: {words:?} is not in\n{said}"))),
        }
    }

    fn refuses(&self, line: &str, words: &str) -> Result<(), Failure> {
        match self.run(line)? {
            (false, said) if said.contains(words) => Ok(()),
            (_, said) => Err(Failure::Found(format!("{line}: not refused with {words:?}:\n{said}"))),
        }
    }
}

/// Where this machine gets its packages from.
fn mirror() -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let words: Vec<String> =
        texts.flat_map(|t| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    words.into_iter().find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("debian"))
}
