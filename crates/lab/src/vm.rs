//! Whole machines: firmware, TPM, disks, and whatever they boot, in QEMU.
//!
//! Always emulated in full: a `/dev/kvm` that opens says nothing about whether a machine starts in it
//! (design: a hypervisor below may take the request and hang).

use core::fmt;
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Bridge, Daemon, Host, NetworkError, Program, ProgramError, Ready, SwtpmError, network::BRIDGE, swtpm,
};

/// What the machine's firmware insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// It starts anything.
    Open,
    /// Secure Boot, with Debian's test key in its databases ([`SECURE_BOOT_CERTIFICATE`]).
    SecureBoot,
}

/// The certificate of Debian's test key for Secure Boot.
pub const SECURE_BOOT_CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
/// The key, under a passphrase; see [`open_secure_boot_key`].
const SECURE_BOOT_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";

/// Debian's test key for Secure Boot in a file, without its passphrase.
///
/// # Errors
/// openssl is missing or fails.
pub fn open_secure_boot_key(to: &Path) -> Result<(), VmError> {
    run(Program::new("openssl")
        .args(["rsa", "-passin", "pass:snakeoil", "-in", SECURE_BOOT_KEY, "-out"])
        .arg(to))
}

/// A machine that is switched off: its TPM, the firmware's variables and its disks, in a directory.
#[derive(Debug)]
pub struct Vm {
    dir: PathBuf,
    firmware: Firmware,
}

/// A machine that runs. Dropping it cuts its power.
#[derive(Debug)]
pub struct Running {
    // Dropped first: without its TPM the machine would see a failing one.
    qemu: Daemon,
    _tpm: Option<Daemon>,
    keyboard: io::PipeWriter,
    since: Instant,
}

impl Vm {
    /// A new machine: a fresh TPM, an empty disk for its state, nothing to boot.
    ///
    /// # Errors
    /// A program is missing or fails, or the disk does.
    pub fn make(dir: &Path, firmware: Firmware) -> Result<Self, VmError> {
        let tpm = dir.join("tpm");
        DirBuilder::new().recursive(true).mode(0o700).create(&tpm).map_err(file(&tpm))?;
        let dir = fs::canonicalize(dir).map_err(file(dir))?;
        let variables = Path::new(OVMF).join(match firmware {
            Firmware::Open => "OVMF_VARS_4M.fd",
            Firmware::SecureBoot => "OVMF_VARS_4M.snakeoil.fd",
        });
        fs::copy(&variables, dir.join("variables.fd")).map_err(file(&variables))?;
        let vm = Self { dir, firmware };
        vm.replace_tpm()?;
        vm.empty_state()?;
        Ok(vm)
    }

    /// Puts a TPM that nobody has used in the place of its own, which is gone.
    ///
    /// # Errors
    /// swtpm_setup is missing or fails.
    pub fn replace_tpm(&self) -> Result<(), VmError> {
        let state = self.tpm_state().display().to_string();
        // One bank of registers: the firmware hashes everything once for each.
        let setup = ["--tpm2", "--tpmstate", &state, "--pcr-banks", "sha256", "--overwrite"];
        run(Program::new("swtpm_setup").args(setup))
    }

    /// Gives it an empty disk for its state.
    ///
    /// # Errors
    /// The disk cannot be made.
    pub fn empty_state(&self) -> Result<(), VmError> {
        let path = self.state_disk();
        File::create(&path).and_then(|disk| disk.set_len(STATE_BYTES)).map_err(file(&path))?;
        run(Program::new("mkfs.ext4").args(["-q", "-L", "muster-state"]).arg(&path))
    }

    /// Resets the firmware to settings under which it starts anything.
    ///
    /// # Errors
    /// The file with them cannot be written.
    pub fn forget_firmware_settings(&self) -> Result<(), VmError> {
        let variables = Path::new(OVMF).join("OVMF_VARS_4M.fd");
        fs::copy(&variables, self.dir.join("variables.fd")).map(drop).map_err(file(&variables))
    }

    /// Makes its TPM anew as a maker does: with a certificate by the CA in this directory, which is made when
    /// absent. Returns the CA's certificate, PEM.
    ///
    /// # Errors
    /// `swtpm_setup` is missing or fails.
    pub fn manufacture(&self, ca: &Path) -> Result<PathBuf, VmError> {
        let (maker, settings) = swtpm::maker(ca).map_err(VmError::Tpm)?;
        let state = self.dir.join("tpm").display().to_string();
        let setup = Program::new("swtpm_setup").args(["--tpm2", "--tpmstate", &state, "--create-ek-cert"]);
        run(setup.args(["--pcr-banks", "sha256", "--overwrite", "--config", &settings]))?;
        Ok(maker)
    }

    /// Gives it one more disk, marked to become the encrypted one.
    ///
    /// # Errors
    /// The disk cannot be made.
    pub fn mark_persist(&self) -> Result<(), VmError> {
        let path = self.persist_disk();
        File::create(&path).and_then(|disk| disk.set_len(PERSIST_BYTES)).map_err(file(&path))?;
        run(Program::new("mkfs.ext4").args(["-q", "-L", "muster-persist"]).arg(&path))
    }

    /// Puts these files on the disk that it boots from, in place of any there.
    ///
    /// # Errors
    /// A file is missing, or the disk cannot be made.
    pub fn insert(&self, files: &[(&Path, &str)]) -> Result<(), VmError> {
        let disk = self.boot_disk();
        File::create(&disk).and_then(|disk| disk.set_len(BOOT_BYTES)).map_err(file(&disk))?;
        run(Program::new("mkfs.vfat").args(["-F", "32", "-n", "MUSTER"]).arg(&disk))?;
        for dir in ["::/EFI", "::/EFI/BOOT", "::/muster"] {
            run(Program::new("mmd").arg("-i").arg(&disk).arg(dir))?;
        }
        for (from, to) in files {
            run(Program::new("mcopy").arg("-i").arg(&disk).arg(from).arg(format!("::/{to}")))?;
        }
        Ok(())
    }

    /// Where its disks, its TPM and what it wrote to its console are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its TPM remembers, for a [`crate::Swtpm`] while the machine is off.
    #[must_use]
    pub fn tpm_state(&self) -> PathBuf {
        self.dir.join("tpm")
    }

    /// The disk with its state.
    #[must_use]
    pub fn state_disk(&self) -> PathBuf {
        self.dir.join("state.img")
    }

    /// The disk that becomes the encrypted one.
    #[must_use]
    pub fn persist_disk(&self) -> PathBuf {
        self.dir.join("persist.img")
    }

    fn boot_disk(&self) -> PathBuf {
        self.dir.join("boot.img")
    }

    /// Switches it on behind a host, which it shares the address of: its port 51820 is the host's.
    ///
    /// # Errors
    /// QEMU or the TPM does not start.
    pub fn power_on(&self, host: &Host) -> Result<Running, VmError> {
        self.start(host.namespace().program("qemu-system-x86_64"), Some(OWN_NETWORK), 1)
    }

    /// Switches it on without a network card.
    ///
    /// # Errors
    /// As [`Self::power_on`].
    pub fn power_on_unplugged(&self) -> Result<Running, VmError> {
        self.start(Program::new("qemu-system-x86_64"), None, 1)
    }

    /// Switches it on with a first network card whose cable leads nowhere; the second is as ever.
    ///
    /// # Errors
    /// As [`Self::power_on`].
    pub fn power_on_beside_a_dead_card(&self, host: &Host) -> Result<Running, VmError> {
        let card = "virtio-net-pci,netdev=dead,romfile=,mac=52:54:00:00:01:01";
        let qemu = host.namespace().program("qemu-system-x86_64");
        let qemu = qemu.args(["-netdev", "hubport,id=dead,hubid=1", "-device", card]);
        self.start(qemu, Some(OWN_NETWORK), 1)
    }

    /// Switches it on without a TPM.
    ///
    /// # Errors
    /// As [`Self::power_on`].
    pub fn power_on_without_tpm(&self, host: &Host) -> Result<Running, VmError> {
        let qemu = host.namespace().program("qemu-system-x86_64");
        self.run(qemu, Some(OWN_NETWORK), 1, None)
    }

    /// As [`Self::power_on`], and lets the firmware start this file instead of the disk's, with a command line.
    ///
    /// # Errors
    /// As [`Self::power_on`].
    pub fn power_on_from(&self, host: &Host, image: &Path, command_line: &str) -> Result<Running, VmError> {
        let qemu = host.namespace().program("qemu-system-x86_64").arg("-kernel").arg(image);
        self.start(qemu.args(["-append", command_line]), Some(OWN_NETWORK), 1)
    }

    /// Switches it on with a cable to the bridge, as its machine `number`; see [`serve_addresses`].
    ///
    /// # Errors
    /// The bridge, QEMU or the TPM does not start.
    pub fn power_on_at(&self, bridge: &Bridge, number: u8) -> Result<Running, VmError> {
        let tap = bridge.tap(number).map_err(VmError::Network)?;
        let network = format!("tap,id=net,ifname={tap},script=no,downscript=no");
        self.start(Program::new("qemu-system-x86_64"), Some(&network), number)
    }

    fn start(&self, qemu: Program, network: Option<&str>, number: u8) -> Result<Running, VmError> {
        let socket = self.dir.join("tpm.sock");
        let _was_there = fs::remove_file(&socket);
        let (state, control) = (self.tpm_state(), socket.display().to_string());
        let tpm = Program::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--tpmstate", &format!("dir={}", state.display())])
            .args(["--ctrl", &format!("type=unixio,path={control}")])
            .log(self.dir.join("tpm.log"))
            .spawn(&Ready::AtOnce, START)
            .map_err(VmError::Program)?;
        let until = Instant::now() + START;
        while !socket.exists() {
            if Instant::now() > until {
                return Err(VmError::File { path: socket, source: io::ErrorKind::NotFound.into() });
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.run(qemu, network, number, Some((tpm, &control)))
    }

    fn run(
        &self,
        qemu: Program,
        network: Option<&str>,
        number: u8,
        tpm: Option<(Daemon, &str)>,
    ) -> Result<Running, VmError> {
        let (typed, keyboard) = io::pipe().map_err(file(&self.dir))?;
        let since = Instant::now();
        let card = format!("virtio-net-pci,netdev=net,romfile=,mac=52:54:00:00:00:{number:02x}");
        let (tpm, control) = tpm.unzip();
        let qemu = qemu.args(self.arguments(control)).keyboard(typed);
        let qemu = match network {
            Some(network) => qemu.args(["-netdev", network, "-device", &card]),
            None => qemu.args(["-nic", "none"]),
        };
        let qemu = qemu.log(self.dir.join("console.log")).spawn(&Ready::AtOnce, START);
        Ok(Running { qemu: qemu.map_err(VmError::Program)?, _tpm: tpm, keyboard, since })
    }

    fn arguments(&self, tpm: Option<&str>) -> Vec<String> {
        let (code, machine) = match self.firmware {
            Firmware::Open => ("OVMF_CODE_4M.fd", "q35"),
            Firmware::SecureBoot => ("OVMF_CODE_4M.secboot.fd", "q35,smm=on"),
        };
        let disk = |path: &Path, id: &str| format!("if=none,id={id},format=raw,file={}", path.display());
        let mut words = vec!["-machine", machine, "-accel", "tcg", "-cpu", CPU, "-smp", "1", "-m", "1024"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let mut more = |line: &str, value: String| words.extend([line.to_owned(), value]);
        if self.firmware == Firmware::SecureBoot {
            more("-global", "driver=cfi.pflash01,property=secure,value=on".to_owned());
            more("-global", "ICH9-LPC.disable_s3=1".to_owned());
        }
        more("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/{code}"));
        let variables = self.dir.join("variables.fd");
        more("-drive", format!("if=pflash,unit=1,format=raw,file={}", variables.display()));
        more("-drive", disk(&self.boot_disk(), "boot"));
        more("-device", "virtio-blk-pci,drive=boot,bootindex=1".to_owned());
        more("-drive", disk(&self.state_disk(), "state"));
        more("-device", "virtio-blk-pci,drive=state".to_owned());
        if self.persist_disk().exists() {
            more("-drive", disk(&self.persist_disk(), "persist"));
            more("-device", "virtio-blk-pci,drive=persist".to_owned());
        }
        if let Some(socket) = tpm {
            more("-chardev", format!("socket,id=tpm,path={socket}"));
            more("-tpmdev", "emulator,id=tpm0,chardev=tpm".to_owned());
            more("-device", "tpm-crb,tpmdev=tpm0".to_owned());
        }
        more("-display", "none".to_owned());
        more("-monitor", "none".to_owned());
        more("-serial", "stdio".to_owned());
        words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
        words
    }
}

impl Running {
    /// Waits for a line on its console; how long after switching on it came.
    ///
    /// # Errors
    /// The machine switched itself off, or the time since switching on has passed.
    pub fn wait_for(&mut self, text: &str, since_power_on: Duration) -> Result<Duration, ProgramError> {
        let left = (self.since + since_power_on).saturating_duration_since(Instant::now());
        self.qemu.wait_for_line(text, left)?;
        Ok(self.since.elapsed())
    }

    /// Types a line at its console.
    ///
    /// # Errors
    /// It is off.
    pub fn type_line(&mut self, line: &str) -> io::Result<()> {
        self.keyboard.write_all(format!("{line}\n").as_bytes())
    }

    /// What its console showed.
    #[must_use]
    pub fn console(&self) -> String {
        self.qemu.output()
    }

    /// How long it has been on.
    #[must_use]
    pub fn on_for(&self) -> Duration {
        self.since.elapsed()
    }

    /// Time of processors that it has taken, by the kernel's word.
    #[must_use]
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.qemu.pid())).ok()?;
        // Behind the name, which may hold anything: the state, ten more, and two times in ticks.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()? + ticks()?;
        Some(Duration::from_millis(ticks * TICK_MS))
    }

    /// Cuts the power.
    pub fn cut_power(self) {
        self.qemu.kill();
    }
}

/// Gives addresses by DHCP to machines on the bridge, until it is dropped. Its files lie in `dir`.
///
/// # Errors
/// busybox is missing, or refused.
pub fn serve_addresses(_on: &Bridge, dir: &Path) -> Result<Daemon, VmError> {
    let settings = format!(
        "interface {BRIDGE}\nstart 10.77.0.251\nend 10.77.0.253\nlease_file {}\npidfile {}\n\
         option subnet 255.255.255.0\noption lease 86400\n",
        dir.join("leases").display(),
        dir.join("udhcpd.pid").display(),
    );
    let path = dir.join("udhcpd.conf");
    fs::write(&path, settings).map_err(file(&path))?;
    // Nobody else has these addresses, so nobody is asked for long.
    let program = Program::new("busybox").args(["udhcpd", "-f", "-a", "1"]).arg(&path);
    program.log(dir.join("udhcpd.log")).spawn(&Ready::AtOnce, START).map_err(VmError::Program)
}

/// A line of muster-preboot's on a machine's console.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Seconds since the kernel started, by its own clock.
    pub up_s: f64,
    /// Its number, or `.` for a note between two.
    pub number: String,
    /// What it says.
    pub text: String,
}

impl Checkpoint {
    /// The line, if it is one.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let (up, rest) = line.trim_start().split_once(' ')?;
        let (number, text) = rest.strip_prefix("muster-preboot ")?.trim_start().split_once(' ')?;
        Some(Self { up_s: up.parse().ok()?, number: number.to_owned(), text: text.trim().to_owned() })
    }
}

fn run(program: Program) -> Result<(), VmError> {
    program.run(TOOLS).and_then(crate::Ended::ok).map(|_| ()).map_err(VmError::Program)
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> VmError {
    let path = path.to_owned();
    move |source| VmError::File { path, source }
}

/// Why there is no machine, or it does not start.
#[non_exhaustive]
pub enum VmError {
    /// The operating system refused.
    File {
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The bridge has no port for it.
    Network(NetworkError),
    /// A program failed.
    Program(ProgramError),
    /// The TPM has no maker.
    Tpm(SwtpmError),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Network(error) => write!(f, "{error}"),
            Self::Program(error) => write!(f, "{error}"),
            Self::Tpm(error) => write!(f, "{error}"),
        }
    }
}

/// As [`fmt::Display`]: an `unwrap` in a test shows what was said.
impl fmt::Debug for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for VmError {}

/// Of a machine that is alone: QEMU's, with the tunnels' port passed on.
const OWN_NETWORK: &str = "user,id=net,hostfwd=udp::51820-:51820";
const OVMF: &str = "/usr/share/OVMF";
/// Three node images and what musterd keeps.
const STATE_BYTES: u64 = 256 * 1024 * 1024;
const PERSIST_BYTES: u64 = 64 * 1024 * 1024;
const BOOT_BYTES: u64 = 160 * 1024 * 1024;
/// For programs that end by themselves.
const TOOLS: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(10);
/// In which Linux tells programs of processors' time.
/// Everything that QEMU emulates but "fast string copies": it makes them byte by byte, eight times slower than
/// what the kernel takes without them.
const CPU: &str = "max,-erms,-fsrm";
const TICK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_from_a_console_and_nothing_else_is() {
        let read = |line| Checkpoint::read(line).map(|c| (c.up_s, c.number, c.text));
        let line = "   3.21 muster-preboot  4  invite of org 75cbe54e holds\r";
        assert_eq!(read(line), Some((3.21, "4".to_owned(), "invite of org 75cbe54e holds".to_owned())));
        let note = "  61.00 muster-preboot  .  trying again in 1 s (1 of 5)";
        assert_eq!(read(note).unwrap().1, ".");
        for other in
            ["", "[    0.1] Linux version 6.1", "3.21 muster-preboot: stopped after checkpoint 4", "x y"]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
