//! The file of a sealed object: what the TPM gave back, and enough to tell what is wrong when it does
//! not open.
//!
//! ```text
//! magic      8   "MUSTSEAL"
//! version    1   1
//! template   1   1 = ECC P-256 storage key of the owner hierarchy, empty unique field
//! policy     1   1 = PolicyCommandCode(Unseal), 2 = an approved image
//! terms     98   of policy 2 only: Name of the image key 34, phase 32, register 7 32
//! parent    34   Name of the storage key: 000b, SHA-256
//! public    78   TPMT_PUBLIC; all but the last 32 bytes follow from the policy
//! private    2+n TPM2B_PRIVATE, little-endian length here, n from 1 to 512
//! checksum  32   SHA-256 of everything before
//! ```
//!
//! The checksum keeps a bad disk from being reported as another TPM. It protects against no one who can
//! write the file; the TPM's own integrity value does.

use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::policy::{ImagePolicy, Policy};

/// The Name of a TPM object: the algorithm and the hash of its public area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// From what the TPM says. `None` for anything but a SHA-256 Name.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; NAME_BYTES] = bytes.try_into().ok()?;
        bytes.starts_with(&TPM_ALG_SHA256).then_some(Self(bytes))
    }

    /// Of an object with this TPMT_PUBLIC.
    pub(crate) fn of_public(public: &[u8]) -> Self {
        let mut name = [0; NAME_BYTES];
        let (algorithm, hash) = name.split_at_mut(TPM_ALG_SHA256.len());
        algorithm.copy_from_slice(&TPM_ALG_SHA256);
        hash.copy_from_slice(&Sha256::digest(public));
        Self(name)
    }

    /// No object's Name: equal to none that [`Self::new`] makes.
    pub(crate) const NONE: Self = Self([0; NAME_BYTES]);

    /// As the TPM writes it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; NAME_BYTES] {
        &self.0
    }
}

impl Policy {
    const fn id(&self) -> u8 {
        match self {
            Self::Unseal => 1,
            Self::Image(_) => 2,
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.id());
        if let Self::Image(policy) = self {
            bytes.extend_from_slice(&policy.key.0);
            bytes.extend_from_slice(&policy.phase);
            bytes.extend_from_slice(&policy.firmware);
        }
    }

    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), BlobError> {
        match take::<1>(bytes)? {
            ([1], rest) => Ok((Self::Unseal, rest)),
            ([2], rest) => {
                let (key, rest) = take::<NAME_BYTES>(rest)?;
                let key = Name::new(&key).ok_or(BlobError::ImageKey)?;
                let (phase, rest) = take::<32>(rest)?;
                let (firmware, rest) = take::<32>(rest)?;
                Ok((Self::Image(ImagePolicy { key, phase, firmware }), rest))
            }
            ([id], _) => Err(BlobError::UnknownPolicy(id)),
        }
    }
}

/// A sealed object as it lies on disk. It holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBlob {
    policy: Policy,
    parent: Name,
    unique: [u8; 32],
    private: Vec<u8>,
}

impl SealedBlob {
    /// From the TPM's answer to Create. `None` when the TPM made something other than was asked for.
    pub(crate) fn new(policy: Policy, parent: Name, public: &[u8], private: &[u8]) -> Option<Self> {
        let unique = unique_of(&policy, public)?;
        let sized = (1..=PRIVATE_BYTES_MAX).contains(&private.len());
        sized.then(|| Self { policy, parent, unique, private: private.to_vec() })
    }

    /// The Name of the storage key it is sealed under.
    #[must_use]
    pub const fn parent(&self) -> &Name {
        &self.parent
    }

    /// What it asks of whoever wants to open it.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// TPMT_PUBLIC, rebuilt: no attribute or policy in it comes from the file.
    pub(crate) fn public(&self) -> Vec<u8> {
        let mut public = public_before_unique(&self.policy);
        public.extend_from_slice(&self.unique);
        public
    }

    pub(crate) fn private(&self) -> &[u8] {
        &self.private
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_BYTES_MAX);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, TEMPLATE]);
        self.policy.write(&mut bytes);
        bytes.extend_from_slice(&self.parent.0);
        bytes.extend_from_slice(&self.public());
        // Bounded by `new` and `decode`; a longer one would not decode.
        bytes.extend_from_slice(&u16::try_from(self.private.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.private);
        let checksum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads a file nobody vouches for. Accepts exactly what [`Self::encode`] writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlobError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(BlobError::NotSealed)?;
        let (&version, _) = rest.split_first().ok_or(BlobError::Truncated)?;
        if version != VERSION {
            return Err(BlobError::UnknownVersion(version));
        }
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(BlobError::Truncated)?;
        let (body, checksum) = bytes.split_at_checked(body).ok_or(BlobError::Truncated)?;
        if Sha256::digest(body).as_slice() != checksum {
            return Err(BlobError::Checksum);
        }

        let rest = body.get(MAGIC.len() + 1..).ok_or(BlobError::Truncated)?;
        let ([template], rest) = take::<1>(rest)?;
        if template != TEMPLATE {
            return Err(BlobError::UnknownTemplate(template));
        }
        let (policy, rest) = Policy::read(rest)?;
        let (parent, rest) = take::<NAME_BYTES>(rest)?;
        let parent = Name::new(&parent).ok_or(BlobError::Parent)?;
        let (public, rest) = take::<PUBLIC_BYTES>(rest)?;
        let unique = unique_of(&policy, &public).ok_or(BlobError::Public)?;
        let (length, private) = take::<2>(rest)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length == 0 || length > PRIVATE_BYTES_MAX || length != private.len() {
            return Err(BlobError::Private { announced: length, present: private.len() });
        }
        Ok(Self { policy, parent, unique, private: private.to_vec() })
    }
}

/// Why bytes are no sealed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobError {
    /// The contents are not those that were written.
    Checksum,
    /// The Name of the image key is not a SHA-256 Name.
    ImageKey,
    /// It does not begin like a sealed object.
    NotSealed,
    /// The Name of the storage key is not a SHA-256 Name.
    Parent,
    /// The private part has another length than announced, or one that cannot be.
    Private {
        /// The length written in front of it.
        announced: usize,
        /// The bytes there.
        present: usize,
    },
    /// The public part is not that of an object this policy makes.
    Public,
    /// It ends too early.
    Truncated,
    /// A policy this release does not know.
    UnknownPolicy(u8),
    /// A storage key this release does not know how to make.
    UnknownTemplate(u8),
    /// A version this release does not know.
    UnknownVersion(u8),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("the contents do not match the checksum"),
            Self::ImageKey => f.write_str("the image key's name is malformed"),
            Self::NotSealed => f.write_str("not a sealed object"),
            Self::Parent => f.write_str("the storage key's name is malformed"),
            Self::Private { announced, present } => {
                write!(f, "the private part announces {announced} bytes, {present} are there")
            }
            Self::Public => f.write_str("the public part does not follow from the policy"),
            Self::Truncated => f.write_str("ends too early"),
            Self::UnknownPolicy(id) => write!(f, "policy {id} is not known to this release"),
            Self::UnknownTemplate(id) => write!(f, "storage key template {id} is not known to this release"),
            Self::UnknownVersion(id) => write!(f, "version {id} is not known to this release"),
        }
    }
}

impl core::error::Error for BlobError {}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), BlobError> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(BlobError::Truncated)
}

fn unique_of(policy: &Policy, public: &[u8]) -> Option<[u8; 32]> {
    public.strip_prefix(public_before_unique(policy).as_slice())?.try_into().ok()
}

/// TPMT_PUBLIC of a sealed data object up to the 32 bytes of `unique`.
fn public_before_unique(policy: &Policy) -> Vec<u8> {
    let mut public = Vec::with_capacity(PUBLIC_BYTES);
    public.extend_from_slice(&TPM_ALG_KEYEDHASH);
    public.extend_from_slice(&TPM_ALG_SHA256);
    public.extend_from_slice(&OBJECT_ATTRIBUTES.to_be_bytes());
    public.extend_from_slice(&[0, 32]);
    public.extend_from_slice(&policy.digest());
    public.extend_from_slice(&TPM_ALG_NULL);
    public.extend_from_slice(&[0, 32]);
    public
}

/// fixedTPM, fixedParent, noDA. userWithAuth is clear, so that only the policy opens it; noDA, so that
/// power cuts never lock it out.
pub(crate) const OBJECT_ATTRIBUTES: u32 = 0x0000_0412;

/// The longest file: what a reader needs to look at.
pub(crate) const FILE_BYTES_MAX: usize =
    MAGIC.len() + 3 + TERMS_BYTES + NAME_BYTES + PUBLIC_BYTES + 2 + PRIVATE_BYTES_MAX + CHECKSUM_BYTES;

const MAGIC: &[u8] = b"MUSTSEAL";
const VERSION: u8 = 1;
const TEMPLATE: u8 = 1;
const NAME_BYTES: usize = 34;
const TERMS_BYTES: usize = NAME_BYTES + 2 * 32;
const PUBLIC_BYTES: usize = 78;
/// 128 bytes of payload make 254 on every TPM that follows the specification's outer wrap.
const PRIVATE_BYTES_MAX: usize = 512;
const CHECKSUM_BYTES: usize = 32;

const TPM_ALG_KEYEDHASH: [u8; 2] = [0x00, 0x08];
const TPM_ALG_SHA256: [u8; 2] = [0x00, 0x0b];
const TPM_ALG_NULL: [u8; 2] = [0x00, 0x10];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_cut_short_anywhere_is_malformed() {
        for blob in [example(), bound()] {
            let bytes = blob.encode();
            for length in 0..bytes.len() {
                assert!(SealedBlob::decode(&bytes[..length]).is_err(), "{length} bytes were accepted");
            }
            assert_eq!(SealedBlob::decode(&bytes), Ok(blob));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_malformed() {
        for good in [example().encode(), bound().encode()] {
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(SealedBlob::decode(&bytes).is_err(), "bit {bit} was accepted");
            }
        }
    }

    #[test]
    fn terms_that_the_public_part_does_not_follow_from_are_refused_even_with_a_right_checksum() {
        for offset in [11, 11 + NAME_BYTES, 11 + NAME_BYTES + 32, 11 + TERMS_BYTES - 1] {
            let mut bytes = bound().encode();
            bytes[offset] ^= 1;
            let error = SealedBlob::decode(&with_checksum(bytes)).unwrap_err();
            let expected = if offset == 11 { BlobError::ImageKey } else { BlobError::Public };
            assert_eq!(error, expected, "offset {offset}");
        }
    }

    #[test]
    fn a_public_part_with_other_attributes_is_malformed_even_with_a_right_checksum() {
        let mut bytes = example().encode();
        // userWithAuth: would open to an empty password.
        bytes[MAGIC.len() + 3 + NAME_BYTES + 7] |= 0x40;
        assert_eq!(SealedBlob::decode(&with_checksum(bytes)), Err(BlobError::Public));
    }

    #[test]
    fn what_this_release_does_not_know_is_named() {
        for (offset, error) in [
            (8, BlobError::UnknownVersion(9)),
            (9, BlobError::UnknownTemplate(9)),
            (10, BlobError::UnknownPolicy(9)),
        ] {
            let mut bytes = example().encode();
            bytes[offset] = 9;
            assert_eq!(SealedBlob::decode(&with_checksum(bytes)), Err(error));
        }
    }

    #[test]
    fn bytes_after_the_private_part_are_malformed() {
        let mut bytes = example().encode();
        bytes.insert(bytes.len() - CHECKSUM_BYTES, 0);
        assert_eq!(
            SealedBlob::decode(&with_checksum(bytes)),
            Err(BlobError::Private { announced: 190, present: 191 })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_decode_only_to_themselves(policy in 1u8..3, bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            prop_assert!(SealedBlob::decode(&bytes).is_err());
            let mut framed = MAGIC.to_vec();
            framed.extend_from_slice(&[VERSION, TEMPLATE, policy]);
            framed.extend_from_slice(&bytes);
            framed.extend_from_slice(&[0; CHECKSUM_BYTES]);
            let framed = with_checksum(framed);
            if let Ok(blob) = SealedBlob::decode(&framed) {
                prop_assert_eq!(blob.encode(), framed);
            }
        }
    }

    fn example() -> SealedBlob {
        let mut name = [7; NAME_BYTES];
        name[..2].copy_from_slice(&TPM_ALG_SHA256);
        SealedBlob { policy: Policy::Unseal, parent: Name(name), unique: [3; 32], private: vec![5; 190] }
    }

    fn bound() -> SealedBlob {
        let key = Name::of_public(b"key");
        let policy = Policy::Image(ImagePolicy { key, phase: [1; 32], firmware: [2; 32] });
        SealedBlob { policy, ..example() }
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        let checksum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&checksum);
        bytes
    }
}
