//! The approvals of one image: for each of its phases what register 11 holds then, signed by the org's
//! image key. They travel with the image and are public; the TPM checks the signatures.
//!
//! ```text
//! magic      8   "MUSTAPPR"
//! version    1   1
//! key       64   P-256 point of the image key, x and y
//! preboot  128   phase 32, register 11 32, ECDSA-SHA256 r and s 64
//! node     128   the same for the node phase
//! checksum  32   SHA-256 of everything before
//! ```

use core::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::blob::Name;
use crate::custody::CustodyError;
use crate::{file, policy};

/// When in a boot something opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the first instruction of the image until preboot says that it is over.
    Preboot,
    /// From then on.
    Node,
}

/// The public half of an image key: the coordinates of a point of P-256, 32 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageKey(pub [u8; 64]);

/// That a key approves one phase of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Which phase of which org's images; the policyRef.
    pub phase: [u8; 32],
    /// Register 11 in that phase.
    pub image: [u8; 32],
    /// ECDSA over [`Self::message`], r and s.
    pub signature: [u8; 64],
}

/// All that an image brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// The key that signed both.
    pub key: ImageKey,
    /// Of the preboot phase.
    pub preboot: Approval,
    /// Of the node phase.
    pub node: Approval,
}

impl ImageKey {
    /// The Name that a TPM gives to this key.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of_public(&self.public())
    }

    /// TPMT_PUBLIC of a key that only verifies.
    pub(crate) fn public(&self) -> Vec<u8> {
        let (x, y) = self.coordinates();
        let mut public = PUBLIC_BEFORE_POINT.to_vec();
        for coordinate in [x, y] {
            public.extend_from_slice(&[0, 32]);
            public.extend_from_slice(coordinate);
        }
        public
    }

    fn coordinates(&self) -> (&[u8], &[u8]) {
        self.0.split_at(32)
    }
}

impl Approval {
    /// What the image key signs, hashed once with SHA-256: the digest of the registers, and the phase.
    #[must_use]
    pub fn message(&self) -> [u8; 64] {
        let mut message = [0; 64];
        let (digest, phase) = message.split_at_mut(32);
        digest.copy_from_slice(&policy::image_digest(&self.image));
        phase.copy_from_slice(&self.phase);
        message
    }
}

impl Approvals {
    /// Of the encoded form.
    pub const BYTES: usize = MAGIC.len() + 1 + 64 + 2 * 128 + 32;

    /// The one of a phase.
    #[must_use]
    pub const fn of(&self, phase: Phase) -> &Approval {
        match phase {
            Phase::Preboot => &self.preboot,
            Phase::Node => &self.node,
        }
    }

    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key.0);
        for approval in [&self.preboot, &self.node] {
            bytes.extend_from_slice(&approval.phase);
            bytes.extend_from_slice(&approval.image);
            bytes.extend_from_slice(&approval.signature);
        }
        let checksum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads exactly what [`Self::encode`] writes. Says nothing about the signatures.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ApprovalsError> {
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(ApprovalsError)?;
        let body = body.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[VERSION]));
        let body = body.ok_or(ApprovalsError)?;
        let (key, rest) = body.split_first_chunk::<64>().ok_or(ApprovalsError)?;
        let (preboot, rest) = Approval::read(rest)?;
        let (node, rest) = Approval::read(rest)?;
        let whole =
            bytes.get(..Self::BYTES - 32).is_some_and(|all| Sha256::digest(all).as_slice() == checksum);
        let read = Self { key: ImageKey(*key), preboot, node };
        (rest.is_empty() && whole).then_some(read).ok_or(ApprovalsError)
    }

    /// Those kept beside sealed objects, if an image ever booted here.
    ///
    /// # Errors
    /// The file is not what [`Self::keep`] writes, or the disk refuses.
    pub fn kept(dir: &Path) -> Result<Option<Self>, CustodyError> {
        let path = dir.join(FILE);
        if !file::exists(&path)? {
            return Ok(None);
        }
        let bytes = file::read_private(&path, Self::BYTES)?;
        Self::decode(&bytes).map(Some).map_err(|why| CustodyError::Approvals { path, why })
    }

    /// Keeps them beside sealed objects, for the node phase of the image that runs.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep(&self, dir: &Path) -> Result<(), CustodyError> {
        let path = dir.join(FILE);
        // Written only when they change: most boots are of the same image.
        if matches!(Self::kept(dir), Ok(Some(kept)) if kept == *self) {
            return Ok(());
        }
        file::replace(&path, &self.encode())
    }
}

impl Approval {
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), ApprovalsError> {
        let (phase, rest) = bytes.split_first_chunk::<32>().ok_or(ApprovalsError)?;
        let (image, rest) = rest.split_first_chunk::<32>().ok_or(ApprovalsError)?;
        let (signature, rest) = rest.split_first_chunk::<64>().ok_or(ApprovalsError)?;
        Ok((Self { phase: *phase, image: *image, signature: *signature }, rest))
    }
}

/// Bytes that are no approvals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApprovalsError;

impl fmt::Display for ApprovalsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the approvals of an image, or damaged")
    }
}

impl core::error::Error for ApprovalsError {}

const FILE: &str = "approvals";
const MAGIC: &[u8] = b"MUSTAPPR";
const VERSION: u8 = 1;
/// ECC, SHA-256; userWithAuth and sign; no policy; no symmetric cipher; ECDSA with SHA-256; P-256; no KDF.
const PUBLIC_BEFORE_POINT: &[u8] = &[
    0x00, 0x23, 0x00, 0x0b, 0x00, 0x04, 0x00, 0x40, 0x00, 0x00, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00,
    0x03, 0x00, 0x10,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Approvals {
        let approval = |n| Approval { phase: [n; 32], image: [n + 1; 32], signature: [n + 2; 64] };
        Approvals { key: ImageKey([9; 64]), preboot: approval(1), node: approval(4) }
    }

    #[test]
    fn approvals_read_back_and_nothing_else_does() {
        let bytes = example().encode();
        assert_eq!(bytes.len(), Approvals::BYTES);
        assert_eq!(Approvals::decode(&bytes), Ok(example()));
        for length in 0..bytes.len() {
            assert!(Approvals::decode(&bytes[..length]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(Approvals::decode(&wrong).is_err(), "bit {bit}");
        }
        assert!(Approvals::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn kept_approvals_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Approvals::kept(dir.path()).unwrap(), None);
        example().keep(dir.path()).unwrap();
        let other = Approvals { key: ImageKey([8; 64]), ..example() };
        other.keep(dir.path()).unwrap();
        assert_eq!(Approvals::kept(dir.path()).unwrap(), Some(other));
        std::fs::write(dir.path().join(FILE), "junk").unwrap();
        assert!(matches!(Approvals::kept(dir.path()), Err(CustodyError::Approvals { .. })));
        example().keep(dir.path()).unwrap();
        assert_eq!(Approvals::kept(dir.path()).unwrap(), Some(example()));
    }
}
