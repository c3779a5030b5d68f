//! What ends a start, as the person in front of the console sees it.

use core::fmt;
use std::{io, path::Path};

use identity::Code;
use tpm_seal::{CustodyError, Kind, TpmError};
use transport::client::DialError;

/// A code with what exactly happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: String,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string() }
    }

    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::new(Code::FileProblem, format_args!("{}: {error}", path.display()))
    }

    /// Whether the same may go well in a moment: the fault is in the way there or in the load.
    pub(crate) fn passes(&self) -> bool {
        // A gateway that restarts refuses connections, and a network that comes up has no names yet.
        let comes_up = matches!(self.code, Code::GatewayRefused | Code::NameNotResolved);
        comes_up || self.code.exit_status() == EX_TEMPFAIL
    }
}

impl From<CustodyError> for Failure {
    fn from(error: CustodyError) -> Self {
        Self::new(code_of(error.kind()), &error)
    }
}

impl From<TpmError> for Failure {
    fn from(error: TpmError) -> Self {
        Self::new(code_of(error.kind()), &error)
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        Self::new(error.code(), &error)
    }
}

const fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::Absent | Kind::NotADevice => Code::TpmAbsent,
        Kind::Beside => Code::AddedToImage,
        Kind::Busy => Code::TpmBusy,
        Kind::CredentialRefused => Code::CredentialRefused,
        Kind::Damaged | Kind::Malformed => Code::SealedKeyDamaged,
        Kind::Disk => Code::FileProblem,
        Kind::Failure => Code::TpmFailure,
        Kind::Firmware => Code::FirmwareChanged,
        Kind::Image => Code::ImageNotApproved,
        Kind::ImageKey => Code::OtherImageKey,
        Kind::Missing => Code::KeysMissing,
        Kind::NoEndorsement => Code::EkCertificateMissing,
        Kind::OtherStorage => Code::KeyFileNotAllowed,
        Kind::Replaced => Code::TpmReplaced,
        Kind::TooOpen => Code::FileModeTooOpen,
        // tpm-seal may learn to tell more apart.
        _ => Code::TpmFailure,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, self.code.title(), self.detail)
    }
}

const EX_TEMPFAIL: u8 = 75;
