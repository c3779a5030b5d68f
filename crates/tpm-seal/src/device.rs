//! Which device is a TPM, and having it to oneself for one operation.

use core::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// A path that can only be a TPM: a kernel resource manager, or a pseudo-terminal with a software TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device(PathBuf);

/// Held during an operation. Locks out other programs of ours; dropping it gives the device back.
pub(crate) struct Held {
    _locked: OwnedFd,
}

impl Device {
    /// Accepts `/dev/tpmrmN` and `/dev/pts/N`. `/dev/tpmN` has no resource manager and one user only, and
    /// everything else that the TPM library understands could lead to a TPM on the network.
    pub(crate) fn new(path: &Path) -> Result<Self, DeviceError> {
        let text = path.to_str().unwrap_or_default();
        let number = text.strip_prefix("/dev/tpmrm").or_else(|| text.strip_prefix("/dev/pts/"));
        let plain = |n: &str| matches!(n.len(), 1..=5) && n.bytes().all(|b| b.is_ascii_digit());
        match number {
            Some(number) if plain(number) => Ok(Self(path.to_owned())),
            Some(_) | None => Err(DeviceError { path: path.to_owned() }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A pseudo-terminal never has hardware behind it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.0.starts_with("/dev/pts")
    }

    /// Opens the device and locks it, waiting a bounded time for another program of ours.
    pub(crate) fn hold(&self) -> Result<Held, HoldError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut waits = waits();
        let device = loop {
            match rustix::fs::open(&self.0, flags, Mode::empty()) {
                Ok(device) => break device,
                Err(Errno::BUSY) => waits.next().map(thread::sleep).ok_or(HoldError::Busy)?,
                Err(error) => return Err(HoldError::Unusable(error.into())),
            }
        };
        let kind = rustix::fs::fstat(&device).map_err(|error| HoldError::Unusable(error.into()))?;
        if FileType::from_raw_mode(kind.st_mode) != FileType::CharacterDevice {
            return Err(HoldError::Unusable(io::Error::other("not a character device")));
        }
        loop {
            match rustix::fs::flock(&device, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => waits.next().map(thread::sleep).ok_or(HoldError::Busy)?,
                Err(error) => return Err(HoldError::Unusable(error.into())),
            }
        }
        if self.is_terminal() {
            // An answer to a program that ended before it came must not be taken for ours.
            rustix::termios::tcflush(&device, rustix::termios::QueueSelector::IFlush)
                .map_err(|error| HoldError::Unusable(error.into()))?;
        }
        Ok(Held { _locked: device })
    }
}

pub(crate) enum HoldError {
    Busy,
    Unusable(io::Error),
}

/// Pauses between tries: about three seconds in all, long enough for a TPM's self-test and for another
/// of our programs to finish.
pub(crate) fn waits() -> impl Iterator<Item = Duration> {
    (0..16_u64).map(|turn| Duration::from_millis((10 << turn.min(8)).min(250)))
}

/// The path does not name a TPM device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// The path given.
    pub path: PathBuf,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not /dev/tpmrmN or /dev/pts/N", self.path.display())
    }
}

impl core::error::Error for DeviceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resource_manager_or_a_pseudo_terminal_is_a_device() {
        for good in ["/dev/tpmrm0", "/dev/tpmrm12", "/dev/pts/0", "/dev/pts/4095"] {
            assert!(Device::new(Path::new(good)).is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "/dev/tpm0",
            "/dev/tpmrm",
            "/dev/tpmrm0x",
            "/dev/pts/",
            "/dev/pts/../tpm0",
            "/dev/pts/-1",
            "/dev/pts/123456",
            "dev/tpmrm0",
            "device:/dev/tpmrm0",
            "swtpm:host=127.0.0.1,port=2321",
            "mssim",
            "/dev/tpmrm0\0",
            "/dev/tpmrm０",
        ] {
            assert!(Device::new(Path::new(bad)).is_err(), "{bad} was accepted");
        }
    }
}
