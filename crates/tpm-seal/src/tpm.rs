//! Sealing to one TPM and opening again.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tss_esapi::Context;
use tss_esapi::tcti_ldr::{DeviceConfig, TctiNameConf};
use zeroize::Zeroizing;

use crate::approvals::{Approvals, Phase};
use crate::blob::{Name, SealedBlob};
use crate::device::{Device, DeviceError, HoldError, waits};
use crate::operation::{self, Stop, Terms};
use crate::policy::{Obstacle, Registers};

/// Most bytes that one object takes: what every TPM must accept.
pub const PAYLOAD_BYTES_MAX: usize = 128;

/// One TPM. Opening it keeps nothing open: each operation has the device for itself and gives it back.
///
/// All calls block, for up to some seconds on old hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    device: Device,
    is_software: bool,
}

impl Tpm {
    /// `/dev/tpmrm0`, or `/dev/pts/N` for a software TPM, after a first word with it.
    ///
    /// # Errors
    /// The path names no TPM device, or nothing usable answers there.
    pub fn open(path: &Path) -> Result<Self, TpmError> {
        let device = Device::new(path).map_err(TpmError::NotADevice)?;
        let mut tpm = Self { is_software: device.is_terminal(), device };
        tpm.is_software |= tpm.with_context(operation::says_software)?;
        Ok(tpm)
    }

    /// The path of the device.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// Whether it said of itself that it is a program. A program could also lie; only attestation tells.
    #[must_use]
    pub const fn is_software(&self) -> bool {
        self.is_software
    }

    /// Seals up to [`PAYLOAD_BYTES_MAX`] bytes under this TPM's storage key. With `pin`, only under the
    /// key of that Name: whatever sits on the bus cannot put its own in the way. The first sealing of a
    /// machine has no pin.
    ///
    /// # Errors
    /// See [`TpmError`]; [`TpmError::Replaced`] when the storage key is not the pinned one.
    pub fn seal(&self, payload: &[u8], pin: Option<&Name>) -> Result<SealedBlob, TpmError> {
        self.seal_on(payload, Terms::Unseal, pin)
    }

    /// As [`Self::seal`], for a phase of the images that a key approves, on this machine's firmware as it
    /// is set now. Which phase runs at the moment does not matter.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_for(
        &self,
        payload: &[u8],
        approvals: &Approvals,
        phase: Phase,
        pin: Option<&Name>,
    ) -> Result<SealedBlob, TpmError> {
        let terms = Terms::Image { key: approvals.key.name(), phase: approvals.of(phase).phase };
        self.seal_on(payload, terms, pin)
    }

    fn seal_on(&self, payload: &[u8], terms: Terms, pin: Option<&Name>) -> Result<SealedBlob, TpmError> {
        if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TpmError::PayloadSize { bytes: payload.len() });
        }
        self.with_context(|context| operation::seal(context, payload, terms, pin))
    }

    /// Opens what was sealed here; what [`Self::seal_for`] made needs the approvals of what was booted.
    ///
    /// # Errors
    /// See [`TpmError`]; [`TpmError::Closed`] says what keeps a whole object closed.
    pub fn unseal(
        &self,
        blob: &SealedBlob,
        approvals: Option<&Approvals>,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.with_context(|context| operation::unseal(context, blob, approvals))
    }

    /// Whether an object is whole and this TPM's, without opening it.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn check(&self, blob: &SealedBlob) -> Result<(), TpmError> {
        self.with_context(|context| operation::check(context, blob))
    }

    /// Whether approvals are signed by their key, as this TPM sees it.
    ///
    /// # Errors
    /// [`TpmError::Closed`], and see [`TpmError`].
    pub fn check_approvals(&self, approvals: &Approvals) -> Result<(), TpmError> {
        [&approvals.preboot, &approvals.node].into_iter().try_for_each(|approval| {
            self.with_context(|context| operation::check_approval(context, &approvals.key, approval))
        })
    }

    /// What the policies look at.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn registers(&self) -> Result<Registers, TpmError> {
        self.with_context(operation::registers)
    }

    /// Whether it is locked after wrong guesses of some program. Nothing of ours guesses, and what is
    /// sealed here opens even so.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn is_locked_out(&self) -> Result<bool, TpmError> {
        self.with_context(operation::is_locked_out)
    }

    /// Adds the hash of these bytes to a register of the SHA-256 bank. What is sealed to its value before
    /// does not open again until the machine starts anew.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn extend(&self, register: u8, event: &[u8]) -> Result<(), TpmError> {
        self.with_context(|context| operation::extend(context, register, event))
    }

    /// The value of a register of the SHA-256 bank.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn register(&self, register: u8) -> Result<[u8; 32], TpmError> {
        self.with_context(|context| operation::register(context, register))
    }

    /// One operation: the process-wide lock, the device, a fresh context whose end flushes everything
    /// made in it, and a bounded number of tries where the TPM asks for that.
    pub(crate) fn with_context<T>(
        &self,
        mut operation: impl FnMut(&mut Context) -> Result<T, Stop>,
    ) -> Result<T, TpmError> {
        // Nothing is guarded but the TPM itself, so a panic elsewhere spoils nothing.
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = || self.device.path().to_owned();
        let _held = self.device.hold().map_err(|error| match error {
            HoldError::Busy => TpmError::Busy { device: path() },
            HoldError::Unusable(source) => TpmError::Absent { device: path(), source },
        })?;
        let mut waits = waits();
        loop {
            let stop = match self.context().and_then(|mut context| operation(&mut context)) {
                Ok(value) => return Ok(value),
                Err(stop) => stop,
            };
            match stop {
                Stop::CredentialRefused => return Err(TpmError::CredentialRefused),
                Stop::Damaged => return Err(TpmError::Damaged),
                Stop::Obstacle(obstacle) => return Err(TpmError::Closed(obstacle)),
                Stop::NoEndorsement => return Err(TpmError::NoEndorsement),
                Stop::Replaced => return Err(TpmError::Replaced),
                Stop::Unexpected(what) => return Err(TpmError::Failure { text: what.to_owned() }),
                Stop::Tss { error, .. } if operation::wants_another_try(error) => match waits.next() {
                    Some(pause) => thread::sleep(pause),
                    None => return Err(TpmError::Busy { device: path() }),
                },
                Stop::Tss { what, error } => {
                    return Err(TpmError::Failure { text: format!("{what}: {error}") });
                }
            }
        }
    }

    fn context(&self) -> Result<Context, Stop> {
        let wrong = |error| Stop::Tss { what: "speak to the device (libtss2-tcti-device0 is needed)", error };
        // Never the library's own parser: it takes what it does not understand for a TPM on localhost.
        let path = self.device.path().to_str().unwrap_or_default();
        let device: DeviceConfig = path.parse().map_err(wrong)?;
        Context::new(TctiNameConf::Device(device)).map_err(wrong)
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What stands between a secret and its use, in the words an operator needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No TPM, or it may not be opened.
    Absent,
    /// Something was added beside the image.
    Beside,
    /// The TPM is in use or still testing itself.
    Busy,
    /// A credential for another TPM or another key.
    CredentialRefused,
    /// The right TPM, and a sealed object that it does not open.
    Damaged,
    /// The disk refused.
    Disk,
    /// The TPM refused for another reason.
    Failure,
    /// The firmware's Secure Boot settings are not those of the sealing.
    Firmware,
    /// Another system was booted, or another phase runs, than the one it opens in.
    Image,
    /// What was booted is approved by another key, or by none.
    ImageKey,
    /// The file is not what this crate writes.
    Malformed,
    /// There is no file.
    Missing,
    /// No certificate of the TPM's maker.
    NoEndorsement,
    /// The path in the configuration is no TPM device.
    NotADevice,
    /// The secrets are stored the other way than asked for.
    OtherStorage,
    /// Another TPM, or a cleared one.
    Replaced,
    /// Others can read the file, or it belongs to someone else.
    TooOpen,
}

/// Why a TPM did not do it. In no case was anything in it changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TpmError {
    /// The device cannot be opened.
    Absent {
        /// Its path.
        device: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Held by another program, or busy with itself, through every try.
    Busy {
        /// Its path.
        device: PathBuf,
    },
    /// It is whole and this TPM's, and what was booted does not open it.
    Closed(Obstacle),
    /// A credential was made for another endorsement key, for another attestation key, or changed.
    CredentialRefused,
    /// The storage key is the right one and the object still does not load.
    Damaged,
    /// The TPM's own words for something without a better name.
    Failure {
        /// What was being done, and the answer.
        text: String,
    },
    /// It keeps no certificate of an endorsement key, or one of a key that it does not make.
    NoEndorsement,
    /// The path names no TPM device.
    NotADevice(DeviceError),
    /// Empty, or more than every TPM takes.
    PayloadSize {
        /// The bytes given.
        bytes: usize,
    },
    /// The storage key is not the one the object was sealed under: another TPM, or a cleared one.
    Replaced,
}

impl TpmError {
    /// Which of the cases a person can act on.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Absent { .. } => Kind::Absent,
            Self::Busy { .. } => Kind::Busy,
            Self::Closed(Obstacle::Beside { .. }) => Kind::Beside,
            Self::Closed(Obstacle::Firmware { .. }) => Kind::Firmware,
            Self::Closed(Obstacle::Image { .. }) => Kind::Image,
            Self::Closed(Obstacle::NoApprovals | Obstacle::OtherKey | Obstacle::Signature) => Kind::ImageKey,
            Self::CredentialRefused => Kind::CredentialRefused,
            Self::Damaged => Kind::Damaged,
            Self::Failure { .. } | Self::PayloadSize { .. } => Kind::Failure,
            Self::NoEndorsement => Kind::NoEndorsement,
            Self::NotADevice(_) => Kind::NotADevice,
            Self::Replaced => Kind::Replaced,
        }
    }
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { device, .. } => write!(f, "no TPM at {}", device.display()),
            Self::Busy { device } => write!(f, "the TPM at {} is busy", device.display()),
            Self::Closed(obstacle) => write!(f, "{obstacle}"),
            Self::CredentialRefused => f.write_str("the credential is for another TPM or another key"),
            Self::Damaged => f.write_str("the sealed object is damaged"),
            Self::Failure { text } => write!(f, "the TPM refused: {text}"),
            Self::NoEndorsement => f.write_str("the TPM keeps no certificate for its endorsement key"),
            Self::NotADevice(error) => write!(f, "{error}"),
            Self::PayloadSize { bytes } => {
                write!(f, "{bytes} bytes cannot be sealed: 1 to {PAYLOAD_BYTES_MAX} can")
            }
            Self::Replaced => {
                f.write_str("another TPM, or a cleared one: its storage key is not the one on file")
            }
        }
    }
}

impl core::error::Error for TpmError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Absent { source, .. } => Some(source),
            Self::Busy { .. }
            | Self::Closed(_)
            | Self::CredentialRefused
            | Self::Damaged
            | Self::Failure { .. }
            | Self::NoEndorsement
            | Self::NotADevice(_)
            | Self::PayloadSize { .. }
            | Self::Replaced => None,
        }
    }
}
