//! This machine's keys: opened once at the start, by the one custody that is configured.
//!
//! A key that does not open, or opens to something that the member list does not know as this
//! machine, leads to a code and to a daemon that still answers what is wrong; never to a new key.

use core::fmt;
use std::path::{Path, PathBuf};

use identity::{Code, Label, SecretKey};
use org_trust::Admit;
use tpm_seal::{Custody, CustodyError, Kind, NodeSecrets, Seed, Tpm, TpmError};

use crate::config::{Config, Storage};

/// The keys of the node phase. Cannot be cloned or printed.
pub struct Keys {
    /// Who this machine is.
    pub node: SecretKey,
    /// Its WireGuard key.
    pub wireguard: SecretKey,
    /// The gateway role key, on a gateway.
    pub gateway: Option<SecretKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, gateway: {})", self.node.public().short(), self.gateway.is_some())
    }
}

/// Why there are no keys to work with.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeysError {
    /// They do not open.
    Custody(CustodyError),
    /// A signature made with an opened key does not verify: memory or processor is faulty.
    Faulty,
    /// They are not the keys under which this machine was admitted.
    Foreign,
    /// The configured TPM cannot be used.
    Tpm(TpmError),
}

impl KeysError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        let kind = match self {
            Self::Custody(error) => error.kind(),
            Self::Tpm(error) => error.kind(),
            Self::Faulty | Self::Foreign => Kind::Damaged,
        };
        match kind {
            Kind::Absent | Kind::NotADevice => Code::TpmAbsent,
            Kind::Busy => Code::TpmBusy,
            Kind::Damaged | Kind::Malformed => Code::SealedKeyDamaged,
            Kind::Disk => Code::FileProblem,
            Kind::Failure => Code::TpmFailure,
            Kind::Missing => Code::KeysMissing,
            Kind::OtherStorage => Code::KeyFileNotAllowed,
            Kind::Replaced => Code::TpmReplaced,
            Kind::TooOpen => Code::FileModeTooOpen,
            // A kind that a later release of the crate tells apart.
            _ => Code::TpmFailure,
        }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Custody(error) => error.fmt(f),
            Self::Faulty => f.write_str("an opened key signs wrongly; memory or processor is faulty"),
            Self::Foreign => f.write_str("the opened keys are not the ones this machine was admitted with"),
            Self::Tpm(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Shown in full by our own text.
            Self::Custody(error) => error.source(),
            Self::Tpm(error) => error.source(),
            Self::Faulty | Self::Foreign => None,
        }
    }
}

impl Keys {
    /// Opens them as configured. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`]; in no case was anything made or changed.
    pub fn load(config: &Config) -> Result<Self, KeysError> {
        Self::open(&custody(config)?, &directory(config))
    }

    /// Makes a key for the gateway role and keeps it with this machine's other keys, in place of one that
    /// was there. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`]; the keys that were kept are still there.
    pub fn make_gateway(config: &Config) -> Result<SecretKey, KeysError> {
        let (custody, directory) = (custody(config)?, directory(config));
        let mut secrets: NodeSecrets = custody.load(&directory).map_err(KeysError::Custody)?;
        let seed = Seed::new(&rand::random());
        let key = seed.expose(SecretKey::from_seed);
        secrets.gateway = Some(seed);
        custody.store(&directory, &secrets).map_err(KeysError::Custody)?;
        custody.test(&directory, &secrets).map_err(KeysError::Custody)?;
        Ok(key)
    }

    /// Opens them from `directory`.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(custody: &Custody, directory: &Path) -> Result<Self, KeysError> {
        let secrets: NodeSecrets = custody.load(directory).map_err(KeysError::Custody)?;
        let key = |seed: &Seed| seed.expose(SecretKey::from_seed);
        let keys = Self {
            node: key(&secrets.identity),
            wireguard: key(&secrets.wireguard),
            gateway: secrets.gateway.as_ref().map(key),
        };
        keys.test()
    }

    /// Takes the keys if they are the ones that `admit` names.
    ///
    /// # Errors
    /// [`KeysError::Foreign`].
    pub fn fit(&self, admit: &Admit) -> Result<(), KeysError> {
        if admit.node == self.node.public() && admit.wireguard == self.wireguard.public() {
            Ok(())
        } else {
            Err(KeysError::Foreign)
        }
    }

    fn test(self) -> Result<Self, KeysError> {
        for key in [Some(&self.node), Some(&self.wireguard), self.gateway.as_ref()].into_iter().flatten() {
            let signature = key.sign(Label::SELF_TEST, b"opened");
            key.public().verify(Label::SELF_TEST, b"opened", &signature).map_err(|_| KeysError::Faulty)?;
        }
        Ok(self)
    }
}

fn custody(config: &Config) -> Result<Custody, KeysError> {
    Ok(match config.storage {
        Storage::File => Custody::File,
        Storage::Tpm => Custody::Tpm(Tpm::open(&config.tpm).map_err(KeysError::Tpm)?),
    })
}

fn directory(config: &Config) -> PathBuf {
    config.state_dir.join("keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_file_open_and_keys_that_are_missing_have_a_code() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        assert_eq!(Keys::open(&Custody::File, &keys).unwrap_err().code(), Code::KeysMissing);
        let secrets = NodeSecrets {
            identity: Seed::new(&[1; 32]),
            wireguard: Seed::new(&[2; 32]),
            gateway: Some(Seed::new(&[3; 32])),
        };
        Custody::File.store(&keys, &secrets).unwrap();
        let opened = Keys::open(&Custody::File, &keys).unwrap();
        assert_eq!(opened.node.public(), SecretKey::from_seed(&[1; 32]).public());
        assert_eq!(opened.gateway.map(|k| k.public()), Some(SecretKey::from_seed(&[3; 32]).public()));
    }

    #[test]
    fn a_daemon_configured_for_a_tpm_that_is_not_there_says_so() {
        let config = Config { tpm: "/dev/no-such-tpm".into(), ..Config::default() };
        assert_eq!(Keys::load(&config).unwrap_err().code(), Code::TpmAbsent);
    }
}
