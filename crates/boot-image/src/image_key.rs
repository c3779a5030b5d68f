//! The org's image key: what a TPM asks for before it opens keys to a booted image. It is of P-256, since
//! no TPM verifies the Ed25519 that everything else here is signed with.

use core::fmt;

use p256::ecdsa::{
    Signature, SigningKey, VerifyingKey,
    signature::{Signer as _, Verifier as _},
};

/// The secret half. Wiped when it goes.
pub struct ImageSecretKey(SigningKey);

impl ImageSecretKey {
    /// From its 32 bytes, a number below the curve's order and not zero: all but one in 2^32 draws are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        SigningKey::from_bytes(bytes.into()).ok().map(Self)
    }

    /// Lends those bytes.
    pub fn expose<T>(&self, with: impl FnOnce(&[u8; 32]) -> T) -> T {
        let bytes = zeroize::Zeroizing::new(<[u8; 32]>::from(self.0.to_bytes()));
        with(&bytes)
    }

    /// The point: x and y.
    #[must_use]
    pub fn public(&self) -> [u8; 64] {
        let point = self.0.verifying_key().to_encoded_point(false);
        // An uncompressed point is a tag and 64 bytes.
        point.as_bytes().split_first().and_then(|(_, point)| point.try_into().ok()).unwrap_or([0; 64])
    }

    /// ECDSA over SHA-256, r and s; the same bytes give the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes().into()
    }
}

impl fmt::Debug for ImageSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageSecretKey(..)")
    }
}

/// Whether the key with this point made the signature.
#[must_use]
pub fn image_signature_holds(public: &[u8; 64], message: &[u8], signature: &[u8; 64]) -> bool {
    let mut point = [4; 65];
    point.iter_mut().skip(1).zip(public).for_each(|(to, from)| *to = *from);
    let key = VerifyingKey::from_sec1_bytes(&point);
    let signature = Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_own_signature_of_exactly_these_bytes_holds() {
        let key = ImageSecretKey::from_bytes(&[7; 32]).unwrap();
        let (public, signature) = (key.public(), key.sign(b"message"));
        assert_eq!(key.sign(b"message"), signature, "an image is the same each time");
        assert!(image_signature_holds(&public, b"message", &signature));
        assert!(!image_signature_holds(&public, b"massage", &signature));
        let other = ImageSecretKey::from_bytes(&[8; 32]).unwrap();
        assert!(!image_signature_holds(&other.public(), b"message", &signature));
        assert!(!image_signature_holds(&[0; 64], b"message", &signature), "no point of the curve");
        for byte in 0..64 {
            let mut wrong = signature;
            wrong[byte] ^= 1;
            assert!(!image_signature_holds(&public, b"message", &wrong));
        }
    }

    #[test]
    fn zero_and_what_is_beyond_the_order_are_no_keys() {
        assert!(ImageSecretKey::from_bytes(&[0; 32]).is_none());
        assert!(ImageSecretKey::from_bytes(&[255; 32]).is_none());
        let key = ImageSecretKey::from_bytes(&[9; 32]).unwrap();
        assert_eq!(key.expose(|bytes| *bytes), [9; 32]);
        assert!(!format!("{key:?}").contains('9'));
    }
}
