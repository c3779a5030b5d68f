//! How this machine's own keys are kept, by the TPM or in a file, and what went wrong with that.

use std::path::Path;

use identity::Code;
use org_trust::Assurance;
use tpm_seal::{Custody, CustodyError, Kind, Tpm, TpmError};

use crate::{
    args::KeyStorage,
    failure::{Failure, Outcome},
};

/// The way keys are kept, and what the other members will read about it.
pub(crate) fn custody(storage: KeyStorage, device: &Path) -> Outcome<(Custody, Assurance)> {
    match storage {
        KeyStorage::File => Ok((Custody::File, Assurance::File)),
        KeyStorage::Tpm => {
            let tpm = Tpm::open(device).map_err(tpm_failed)?;
            let software = tpm.is_software();
            Ok((Custody::Tpm(tpm), if software { Assurance::TpmSoftware } else { Assurance::TpmUnbound }))
        }
    }
}

/// What a failure of key storage is to an operator.
pub(crate) fn failed(error: CustodyError) -> Failure {
    let detail = chain(&error);
    Failure::new(code(error.kind()), detail)
}

/// The same of a TPM.
pub(crate) fn tpm_failed(error: TpmError) -> Failure {
    let failure = Failure::new(code(error.kind()), chain(&error));
    if error.kind() == Kind::Absent {
        failure.remedy(format_args!(
            "{} Without a TPM, `--key-storage file` keeps the keys in a file, for every member to see.",
            Code::TpmAbsent.remedy()
        ))
    } else {
        failure
    }
}

fn code(kind: Kind) -> Code {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum may grow; the TPM's words are printed")]
    match kind {
        Kind::Absent | Kind::NotADevice => Code::TpmAbsent,
        Kind::Beside => Code::AddedToImage,
        Kind::Busy => Code::TpmBusy,
        Kind::Damaged => Code::SealedKeyDamaged,
        Kind::Disk => Code::FileProblem,
        Kind::Firmware => Code::FirmwareChanged,
        Kind::Image => Code::ImageNotApproved,
        Kind::ImageKey => Code::OtherImageKey,
        Kind::Malformed => Code::KeyFileMalformed,
        Kind::Missing => Code::KeysMissing,
        Kind::OtherStorage => Code::KeyFileNotAllowed,
        Kind::Replaced => Code::TpmReplaced,
        Kind::TooOpen => Code::FileModeTooOpen,
        _ => Code::TpmFailure,
    }
}

fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
