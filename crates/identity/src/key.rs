//! Ed25519 keys and signatures, with one way to verify.

use core::{cmp, fmt, hash};

use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::{
    hex::{HexError, decode_hex, encode_hex},
    label::Label,
};

/// An Ed25519 public key that decompresses, is encoded canonically, and has large order. 32 bytes.
///
/// Kept parsed: decompression costs a tenth of a verification.
#[derive(Clone, Copy)]
pub struct PublicKey(VerifyingKey);

/// Why 32 bytes are not a usable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the text form of 32 bytes.
    Hex(HexError),
    /// A second encoding of a point that has a canonical one.
    NotCanonical,
    /// No point of the curve has this encoding.
    NotOnCurve,
    /// The point has small order: signatures under it prove nothing.
    Weak,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex(_) => f.write_str("not the text form of a key"),
            Self::NotCanonical => f.write_str("not the canonical encoding of a key"),
            Self::NotOnCurve => f.write_str("not a point of the curve"),
            Self::Weak => f.write_str("a weak key of small order"),
        }
    }
}

impl core::error::Error for KeyError {}

/// The signature does not belong to this key and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not belong to this key and message")
    }
}

impl core::error::Error for BadSignature {}

impl PublicKey {
    /// Size in bytes.
    pub const BYTES: usize = 32;

    /// Decompresses and checks a key.
    ///
    /// # Errors
    /// [`KeyError`] when the bytes are no point, not canonical, or a point of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_reduced(bytes) {
            return Err(KeyError::NotCanonical);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotOnCurve)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`] for any other text and for bytes that are no usable key.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode_hex(text.as_bytes()).map_err(KeyError::Hex)?)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether the point lies in the prime-order subgroup. Costs a scalar multiplication; asked once
    /// of every key that is admitted or named by the org.
    #[must_use]
    pub fn is_torsion_free(&self) -> bool {
        // The order l is 0 as a scalar, but (l - 1)P = -P says the same as lP = 0. The library's own test takes
        // constant time; a public key needs none, and without it the sparse digits of l - 1 save most additions.
        let point = self.0.to_edwards();
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, &point, &Scalar::ZERO) == -point
    }

    /// The WireGuard form of a key that was made for WireGuard: its Montgomery u-coordinate.
    #[must_use]
    pub fn to_wireguard(&self) -> WireGuardKey {
        WireGuardKey(self.0.to_montgomery().to_bytes())
    }

    /// What this key and its negative have in common, and no other: the encoding without its sign.
    #[must_use]
    pub fn up_to_sign(&self) -> KeyUpToSign {
        let mut y = *self.as_bytes();
        y[31] &= 0x7f;
        KeyUpToSign(y)
    }

    /// Verifies `signature` over `label` followed by `message`, strictly (RFC 8032 with small-order
    /// keys and points refused). Batch verification is never used: it answers differently for crafted
    /// signatures, and replicas must agree.
    ///
    /// # Errors
    /// [`BadSignature`], without a reason: there is none a verifier may act on.
    pub fn verify(&self, label: Label, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(&labelled(label, message), &signature).map_err(|_| BadSignature)
    }

    /// The first eight digits, for people; never compared by code.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl hash::Hash for PublicKey {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.short())
    }
}

/// A key or its negative: the y-coordinate of both, 32 bytes, little-endian. Whoever holds one can sign with the
/// other, and in a tunnel they are one (their Montgomery u follows from y), so keys are compared in this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyUpToSign([u8; 32]);

/// A WireGuard (X25519) public key as it stands in packets. 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireGuardKey(pub [u8; 32]);

impl fmt::Display for WireGuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for WireGuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireGuardKey({})", encode_hex(&self.0).chars().take(8).collect::<String>())
    }
}

/// An Ed25519 private key. Cannot be cloned or printed; wiped when dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key behind a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `label` followed by `message`.
    #[must_use]
    pub fn sign(&self, label: Label, message: &[u8]) -> Signature {
        Signature(self.0.sign(&labelled(label, message)).to_bytes())
    }

    /// The X25519 scalar of a key that was made for WireGuard, unclamped as X25519 takes it; its
    /// public key is [`PublicKey::to_wireguard`].
    #[must_use]
    pub fn wireguard_scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// X25519 between two keys that were made for it and sign nothing else.
    #[must_use]
    pub fn agree(&self, other: &PublicKey) -> Zeroizing<[u8; 32]> {
        let scalar = Zeroizing::new(self.0.to_scalar_bytes());
        Zeroizing::new(other.0.to_montgomery().mul_clamped(*scalar).to_bytes())
    }

    /// Lends the seed to `with`, for sealing; it is never returned.
    pub fn expose_seed<T>(&self, with: impl FnOnce(&[u8; 32]) -> T) -> T {
        with(self.0.as_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// An Ed25519 signature, not yet verified. 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// Whether the y-coordinate is below p = 2^255 - 19 (RFC 8032, section 5.1.3). The other second encoding, a sign
/// on x = 0, belongs to points of small order, which are refused as such.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *low < 0xed || middle.iter().any(|b| *b != 0xff) || high & 0x7f != 0x7f
}

fn labelled(label: Label, message: &[u8]) -> Vec<u8> {
    [label.as_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL_IDENTITY: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    };

    #[test]
    fn a_signature_holds_for_its_label_only() {
        let key = SecretKey::from_seed(&[7; 32]);
        let signature = key.sign(Label::CHARTER, b"body");
        assert_eq!(key.public().verify(Label::CHARTER, b"body", &signature), Ok(()));
        for &other in Label::ALL.iter().filter(|&&l| l != Label::CHARTER) {
            assert_eq!(key.public().verify(other, b"body", &signature), Err(BadSignature));
        }
    }

    #[test]
    fn weak_and_second_encodings_are_refused() {
        assert_eq!(PublicKey::from_bytes(&CANONICAL_IDENTITY), Err(KeyError::Weak));
        let mut p_plus_one = [0xff; 32];
        p_plus_one[0] = 0xee;
        p_plus_one[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&p_plus_one), Err(KeyError::NotCanonical));
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(PublicKey::from_bytes(&off_curve), Err(KeyError::NotOnCurve));
    }

    #[test]
    fn a_sign_on_x_zero_is_refused() {
        let mut minus_zero = CANONICAL_IDENTITY;
        minus_zero[31] |= 0x80;
        assert!(PublicKey::from_bytes(&minus_zero).is_err());
    }

    #[test]
    fn the_canonical_check_agrees_with_decoding_and_encoding_again() {
        for low in 0xe0..=0xff {
            for sign in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                (bytes[0], bytes[31]) = (low, sign);
                let Ok(key) = VerifyingKey::from_bytes(&bytes) else { continue };
                let same = key.to_edwards().compress().as_bytes() == &bytes;
                assert!(is_reduced(&bytes) == same || key.is_weak(), "{low:x} {sign:x}");
            }
        }
    }

    #[test]
    fn a_secret_key_prints_nothing() {
        assert_eq!(format!("{:?}", SecretKey::from_seed(&[9; 32])), "SecretKey(..)");
    }
}
