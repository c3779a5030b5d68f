//! The attestation key, as the machine describes it.

use core::fmt;

use p256::{EncodedPoint, ecdsa::VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::reader::{ECDSA, Malformed, Reader, SHA256};

/// An ECDSA P-256 key that can sign nothing but what its TPM says itself, as far as its description goes.
/// Whether a TPM holds it, only an opened credential shows.
#[derive(Clone, Debug)]
pub struct AttestationKey {
    pub(crate) key: VerifyingKey,
    name: [u8; 34],
}

/// Why a key cannot attest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes describe no key.
    Malformed(Malformed),
    /// It could sign what its TPM did not say, or leave it.
    Unfit {
        /// What it lacks or has.
        what: &'static str,
    },
}

impl AttestationKey {
    /// Reads a TPMT_PUBLIC.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (attributes, point) = read(bytes).map_err(KeyError::Malformed)?;
        for (bit, what) in REQUIRED {
            if attributes & bit == 0 {
                return Err(KeyError::Unfit { what });
            }
        }
        for (bit, what) in FORBIDDEN {
            if attributes & bit != 0 {
                return Err(KeyError::Unfit { what });
            }
        }
        let key = VerifyingKey::from_encoded_point(&point);
        let key = key.map_err(|_| KeyError::Malformed(Malformed { field: "point" }))?;
        let mut name = [0; 34];
        let digest = Sha256::digest(bytes);
        for (out, byte) in name.iter_mut().zip(SHA256.to_be_bytes().into_iter().chain(digest)) {
            *out = byte;
        }
        Ok(Self { key, name })
    }

    /// Its Name: what a TPM calls it, and what a credential is bound to.
    #[must_use]
    pub const fn name(&self) -> &[u8; 34] {
        &self.name
    }
}

fn read(bytes: &[u8]) -> Result<(u32, EncodedPoint), Malformed> {
    let mut r = Reader::new(bytes);
    let constant = |r: &mut Reader<'_>, field, wanted: u16| {
        if r.u16(field)? == wanted { Ok(()) } else { Err(Malformed { field }) }
    };
    constant(&mut r, "type", ECC)?;
    constant(&mut r, "name algorithm", SHA256)?;
    let attributes = r.u32("attributes")?;
    r.sized("policy", 64)?;
    constant(&mut r, "symmetric", NULL)?;
    constant(&mut r, "scheme", ECDSA)?;
    constant(&mut r, "scheme's hash", SHA256)?;
    constant(&mut r, "curve", P256)?;
    constant(&mut r, "key derivation", NULL)?;
    let (x, y) = (r.scalar("x")?, r.scalar("y")?);
    r.finish("end of key")?;
    Ok((attributes, EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false)))
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the attestation key is {why}"),
            Self::Unfit { what } => write!(f, "the attestation key {what}"),
        }
    }
}

impl core::error::Error for KeyError {}

const ECC: u16 = 0x0023;
const NULL: u16 = 0x0010;
const P256: u16 = 0x0003;

/// TPMA_OBJECT.
const REQUIRED: [(u32, &str); 5] = [
    (1 << 1, "may leave its TPM"),
    (1 << 4, "may move to another parent"),
    (1 << 5, "was not made by its TPM"),
    (1 << 16, "signs whatever it is given"),
    (1 << 18, "does not sign"),
];
const FORBIDDEN: [(u32, &str); 2] = [(1 << 17, "decrypts as well"), (1 << 19, "signs certificates")];

#[cfg(test)]
pub(crate) mod tests {
    use p256::ecdsa::SigningKey;

    use super::*;

    pub(crate) const ATTRIBUTES: u32 = 0x0005_0472;

    pub(crate) fn described(attributes: u32, key: &SigningKey) -> Vec<u8> {
        let point = key.verifying_key().to_encoded_point(false);
        let mut bytes = [ECC.to_be_bytes(), SHA256.to_be_bytes()].concat();
        bytes.extend(attributes.to_be_bytes());
        bytes.extend([0, 0]);
        for word in [NULL, ECDSA, SHA256, P256, NULL] {
            bytes.extend(word.to_be_bytes());
        }
        for coordinate in [point.x().unwrap(), point.y().unwrap()] {
            bytes.extend([0, 32]);
            bytes.extend(coordinate);
        }
        bytes
    }

    pub(crate) fn signer(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    #[test]
    fn only_a_key_that_signs_what_its_tpm_says_and_cannot_leave_attests() {
        assert!(AttestationKey::decode(&described(ATTRIBUTES, &signer(1))).is_ok());
        for (bit, what) in REQUIRED {
            let wrong = AttestationKey::decode(&described(ATTRIBUTES & !bit, &signer(1)));
            assert_eq!(wrong.unwrap_err(), KeyError::Unfit { what });
        }
        for (bit, what) in FORBIDDEN {
            let wrong = AttestationKey::decode(&described(ATTRIBUTES | bit, &signer(1)));
            assert_eq!(wrong.unwrap_err(), KeyError::Unfit { what });
        }
    }

    #[test]
    fn a_key_is_read_whole_and_named_by_its_bytes() {
        let bytes = described(ATTRIBUTES, &signer(1));
        let key = AttestationKey::decode(&bytes).unwrap();
        assert_eq!(&key.name()[..2], [0, 0x0B]);
        assert_eq!(&key.name()[2..], Sha256::digest(&bytes).as_slice());
        for at in 0..bytes.len() {
            assert!(AttestationKey::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        let end = KeyError::Malformed(Malformed { field: "end of key" });
        assert_eq!(AttestationKey::decode(&longer).unwrap_err(), end);
        let mut off_curve = bytes.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        let point = KeyError::Malformed(Malformed { field: "point" });
        assert_eq!(AttestationKey::decode(&off_curve).unwrap_err(), point);
        for (at, field) in [(1, "type"), (3, "name algorithm"), (13, "scheme"), (17, "curve")] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let wrong = KeyError::Malformed(Malformed { field });
            assert_eq!(AttestationKey::decode(&other).unwrap_err(), wrong);
        }
    }
}
