//! Where secrets are kept: one directory, sealed by a TPM or in plain files, never one for the other.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::approvals::{Approvals, ApprovalsError, Phase};
use crate::blob::{BlobError, FILE_BYTES_MAX, SealedBlob};
use crate::file;
use crate::policy::{Obstacle, Policy, Registers};
use crate::secrets::{PayloadError, Secrets};
use crate::tpm::{Kind, PAYLOAD_BYTES_MAX, Tpm, TpmError};

/// How secrets are kept. Chosen by configuration, once; an error of one way never leads to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// In plain files that only this user can read: `node.key`, `boot.key`. Whoever copies the disk has
    /// the keys, and every member is shown that.
    File,
    /// Sealed to this TPM: `node.sealed`, `boot.sealed`. Whatever runs on the machine opens them.
    Tpm(Tpm),
    /// Sealed to this TPM and to what was booted, which brought these approvals.
    Image(Tpm, Box<Approvals>),
}

impl Custody {
    /// Sealed to this TPM, as `dir` says: to what was booted, if an image has left its approvals there.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn sealed(tpm: Tpm, dir: &Path) -> Result<Self, CustodyError> {
        Ok(match Approvals::kept(dir)? {
            Some(approvals) => Self::Image(tpm, Box::new(approvals)),
            None => Self::Tpm(tpm),
        })
    }

    /// Keeps the secrets in `dir`, in place of any there. Returns once they are stable on disk. A sealed
    /// file that is replaced stays under the same storage key.
    ///
    /// # Errors
    /// See [`CustodyError`]; the old file is then still there, whole.
    pub fn store<S: Secrets>(&self, dir: &Path, secrets: &S) -> Result<(), CustodyError> {
        self.store_for(S::PHASE, dir, secrets)
    }

    /// As [`Self::store`], for secrets that are to open in another phase than their own.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn store_for<S: Secrets>(&self, phase: Phase, dir: &Path, secrets: &S) -> Result<(), CustodyError> {
        let path = self.path::<S>(dir);
        self.refuse_other_storage::<S>(dir)?;
        let payload = secrets
            .encode()
            .map_err(|why| CustodyError::Malformed { path: path.clone(), why: Malformed::Payload(why) })?;
        let (tpm, approvals) = match self {
            Self::File => return file::replace(&path, &plain(&payload)),
            Self::Tpm(tpm) => (tpm, None),
            Self::Image(tpm, approvals) => (tpm, Some(approvals)),
        };
        let old = if file::exists(&path)? { read_sealed(&path).ok() } else { None };
        let pin = old.as_ref().map(SealedBlob::parent);
        let blob = match approvals {
            Some(approvals) => tpm.seal_for(&payload, approvals, phase, pin),
            // What was bound to an image does not become unbound by the way.
            None if old.as_ref().is_some_and(|old| *old.policy() != Policy::Unseal) => {
                Err(TpmError::Closed(Obstacle::NoApprovals))
            }
            None => tpm.seal(&payload, pin),
        };
        file::replace(&path, &blob.map_err(CustodyError::Tpm)?.encode())
    }

    /// Opens the secrets kept in `dir`.
    ///
    /// # Errors
    /// See [`CustodyError`]. No error is a reason to make new keys.
    pub fn load<S: Secrets>(&self, dir: &Path) -> Result<S, CustodyError> {
        let path = self.path::<S>(dir);
        if !file::exists(&path)? {
            self.refuse_other_storage::<S>(dir)?;
            return Err(CustodyError::Missing { path });
        }
        let payload = match self {
            Self::File => {
                let bytes = file::read_private(&path, PLAIN_BYTES_MAX)?;
                opened_plain(&bytes).map_err(|why| CustodyError::Malformed { path: path.clone(), why })?
            }
            Self::Tpm(tpm) => tpm.unseal(&read_sealed(&path)?, None).map_err(CustodyError::Tpm)?,
            Self::Image(tpm, approvals) => {
                tpm.unseal(&read_sealed(&path)?, Some(approvals)).map_err(CustodyError::Tpm)?
            }
        };
        S::decode(&payload).map_err(|why| CustodyError::Malformed { path, why: Malformed::Payload(why) })
    }

    /// Whether what is kept in `dir` asks for what [`Self::store_for`] would make it ask for, but for the
    /// firmware's register, which moves with its settings.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn is_bound_to<S: Secrets>(&self, phase: Phase, dir: &Path) -> Result<bool, CustodyError> {
        let approvals = match self {
            Self::File | Self::Tpm(_) => return Ok(true),
            Self::Image(_, approvals) => approvals,
        };
        Ok(match read_sealed(&self.path::<S>(dir))?.policy() {
            Policy::Unseal => false,
            Policy::Image(policy) => {
                (policy.key, policy.phase) == (approvals.key.name(), approvals.of(phase).phase)
            }
        })
    }

    /// Whether what is kept in `dir` will open in a phase that does not run yet, as far as can be seen
    /// before: the TPM takes it for whole, it asks for that phase on this firmware, and the image's approval
    /// of that phase holds.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn will_open<S: Secrets>(&self, phase: Phase, dir: &Path) -> Result<(), CustodyError> {
        let Self::Image(tpm, approvals) = self else { return self.load::<S>(dir).map(|_| ()) };
        let blob = read_sealed(&self.path::<S>(dir))?;
        let now = tpm.registers().map_err(CustodyError::Tpm)?;
        let then = Registers { image: approvals.of(phase).image, ..now };
        let obstacle = match blob.policy() {
            Policy::Unseal => None,
            Policy::Image(policy) => policy.obstacle(Some(approvals), &then),
        };
        if let Some(obstacle) = obstacle {
            return Err(CustodyError::Tpm(TpmError::Closed(obstacle)));
        }
        tpm.check(&blob).and_then(|()| tpm.check_approvals(approvals)).map_err(CustodyError::Tpm)
    }

    /// The sealed object in `dir`, if there is one. It is public.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn sealed_object<S: Secrets>(dir: &Path) -> Result<Option<SealedBlob>, CustodyError> {
        let path = path_of::<S>(dir, SEALED);
        if file::exists(&path)? { read_sealed(&path).map(Some) } else { Ok(None) }
    }

    /// Opens what is kept in `dir` and compares: after storing, before anything depends on it.
    ///
    /// # Errors
    /// See [`CustodyError`]; [`CustodyError::Differs`] when something else opened.
    pub fn test<S: Secrets>(&self, dir: &Path, secrets: &S) -> Result<(), CustodyError> {
        let path = self.path::<S>(dir);
        let kept: S = self.load(dir)?;
        let encode = |secrets: &S| {
            secrets
                .encode()
                .map_err(|why| CustodyError::Malformed { path: path.clone(), why: Malformed::Payload(why) })
        };
        let same: bool = encode(&kept)?.as_slice().ct_eq(encode(secrets)?.as_slice()).into();
        if same { Ok(()) } else { Err(CustodyError::Differs { path }) }
    }

    /// Whether secrets of this kind are kept in `dir`, in either way.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub fn is_kept<S: Secrets>(dir: &Path) -> Result<bool, CustodyError> {
        Ok(file::exists(&path_of::<S>(dir, SEALED))? || file::exists(&path_of::<S>(dir, PLAIN))?)
    }

    /// Forgets secrets of this kind in `dir`, kept in either way. Without a TPM the bytes may outlive
    /// this on the medium.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget<S: Secrets>(dir: &Path) -> Result<(), CustodyError> {
        file::remove(&path_of::<S>(dir, SEALED))?;
        file::remove(&path_of::<S>(dir, PLAIN))
    }

    /// Moves secrets of this kind, kept in either way, from one directory to another on the same file
    /// system, in place of those there, at once.
    ///
    /// # Errors
    /// The disk refuses; those there are then still there.
    pub fn take_over<S: Secrets>(from: &Path, to: &Path) -> Result<(), CustodyError> {
        for ending in [SEALED, PLAIN] {
            let path = path_of::<S>(from, ending);
            if file::exists(&path)? {
                file::rename(&path, &path_of::<S>(to, ending))?;
            }
        }
        Ok(())
    }

    /// The file that secrets of this kind are kept in.
    #[must_use]
    pub fn path<S: Secrets>(&self, dir: &Path) -> PathBuf {
        match self {
            Self::File => path_of::<S>(dir, PLAIN),
            Self::Tpm(_) | Self::Image(..) => path_of::<S>(dir, SEALED),
        }
    }

    fn refuse_other_storage<S: Secrets>(&self, dir: &Path) -> Result<(), CustodyError> {
        let other = match self {
            Self::File => path_of::<S>(dir, SEALED),
            Self::Tpm(_) | Self::Image(..) => path_of::<S>(dir, PLAIN),
        };
        if file::exists(&other)? { Err(CustodyError::OtherStorage { found: other }) } else { Ok(()) }
    }
}

/// Why secrets were not kept or not opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum CustodyError {
    /// The file beside the sealed objects is no image's approvals.
    Approvals {
        /// The file.
        path: PathBuf,
        /// Why.
        why: ApprovalsError,
    },
    /// What opened is not what was stored.
    Differs {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    Disk {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The file, or what it opened to, is not what this crate writes.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Malformed,
    },
    /// Nothing is kept there.
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// The secrets are kept the other way.
    OtherStorage {
        /// The file that is there.
        found: PathBuf,
    },
    /// More than its owner may read or write the file.
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The TPM did not do it.
    Tpm(TpmError),
    /// The file belongs to another user.
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
}

/// What is wrong with a file of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// The sealed object.
    Blob(BlobError),
    /// The secrets inside.
    Payload(PayloadError),
    /// The plain file around them: its first bytes, its length or its checksum.
    Plain,
}

impl CustodyError {
    /// Which of the cases a person can act on.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Differs { .. } => Kind::Damaged,
            Self::Disk { .. } => Kind::Disk,
            Self::Approvals { .. } => Kind::ImageKey,
            Self::Malformed { .. } => Kind::Malformed,
            Self::Missing { .. } => Kind::Missing,
            Self::OtherStorage { .. } => Kind::OtherStorage,
            Self::TooOpen { .. } | Self::WrongOwner { .. } => Kind::TooOpen,
            Self::Tpm(error) => error.kind(),
        }
    }
}

impl fmt::Display for CustodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approvals { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Differs { path } => write!(f, "{} opens to something else", path.display()),
            Self::Disk { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
            Self::Malformed { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Missing { path } => write!(f, "{} is not there", path.display()),
            Self::OtherStorage { found } => {
                write!(f, "{} is there, which is not the storage asked for", found.display())
            }
            Self::TooOpen { path, mode } => write!(f, "{} has mode {mode:04o}, not 0600", path.display()),
            Self::Tpm(error) => write!(f, "{error}"),
            Self::WrongOwner { path, uid } => write!(f, "{} belongs to user {uid}", path.display()),
        }
    }
}

impl core::error::Error for CustodyError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Disk { source, .. } => Some(source),
            // Shown in full by our own text.
            Self::Tpm(error) => error.source(),
            Self::Approvals { .. }
            | Self::Differs { .. }
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::OtherStorage { .. }
            | Self::TooOpen { .. }
            | Self::WrongOwner { .. } => None,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(error) => write!(f, "{error}"),
            Self::Payload(error) => write!(f, "{error}"),
            Self::Plain => f.write_str("not a key file, or damaged"),
        }
    }
}

fn read_sealed(path: &Path) -> Result<SealedBlob, CustodyError> {
    let bytes = file::read_private(path, FILE_BYTES_MAX)?;
    SealedBlob::decode(&bytes)
        .map_err(|why| CustodyError::Malformed { path: path.to_owned(), why: Malformed::Blob(why) })
}

/// Magic, version, payload, SHA-256 of all before.
fn plain(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PLAIN_BYTES_MAX));
    bytes.extend_from_slice(PLAIN_HEAD);
    bytes.extend_from_slice(payload);
    let checksum: [u8; 32] = Sha256::digest(&*bytes).into();
    bytes.extend_from_slice(&checksum);
    bytes
}

fn opened_plain(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(Malformed::Plain)?;
    let payload = body.strip_prefix(PLAIN_HEAD).ok_or(Malformed::Plain)?;
    if bytes.len() > PLAIN_BYTES_MAX || Sha256::digest(body).as_slice() != checksum {
        return Err(Malformed::Plain);
    }
    Ok(Zeroizing::new(payload.to_vec()))
}

fn path_of<S: Secrets>(dir: &Path, ending: &str) -> PathBuf {
    dir.join(format!("{}.{ending}", S::NAME))
}

const SEALED: &str = "sealed";
const PLAIN: &str = "key";
const PLAIN_HEAD: &[u8] = b"MUSTFILE\x01";
const PLAIN_BYTES_MAX: usize = PLAIN_HEAD.len() + PAYLOAD_BYTES_MAX + 32;
