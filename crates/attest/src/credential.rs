//! TPM2_MakeCredential, without a TPM: what only the TPM opens that holds both keys.

use aes::Aes128;
use cfb_mode::cipher::{AsyncStreamCipher as _, KeyInit, KeyIvInit as _};
use hmac::{Hmac, Mac as _};
use p256::{
    NonZeroScalar, PublicKey,
    ecdh::diffie_hellman,
    elliptic_curve::{ops::Reduce as _, sec1::ToEncodedPoint as _},
};
use rsa::{
    Oaep, RsaPublicKey,
    rand_core::{CryptoRng, Error, RngCore},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    endorsement::{Endorsement, EndorsementKey},
    key::AttestationKey,
};

/// A secret of 32 bytes, as TPM2_ActivateCredential takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPMS_ID_OBJECT: integrity and the encrypted secret.
    pub blob: Vec<u8>,
    /// What the TPM gets the keys for that from: a ciphertext, or a point.
    pub seed: Vec<u8>,
}

impl Endorsement {
    /// Wraps `secret` so that it can be opened only by the TPM with this endorsement key, and only if it
    /// also holds `key`. `randomness` is fresh.
    ///
    /// None if the endorsement key cannot encrypt, which none that passed [`Self::of_certificate`] does.
    #[must_use]
    pub fn make_credential(
        &self,
        key: &AttestationKey,
        secret: &[u8; 32],
        randomness: &Zeroizing<[u8; 64]>,
    ) -> Option<Credential> {
        let (seed, wrapped) = match &self.key {
            EndorsementKey::Ecc(to) => agree(to, randomness),
            EndorsementKey::Rsa(to) => encrypt(to, randomness)?,
        };
        let name = key.name();
        let wrapping = kdf_a(&seed, "STORAGE", name);
        let mut identity = Zeroizing::new([0; 34]);
        for (out, byte) in identity.iter_mut().zip([0, 32].iter().chain(secret)) {
            *out = *byte;
        }
        let (short, _) = wrapping.split_at(16);
        cfb_mode::Encryptor::<Aes128>::new(short.into(), &[0; 16].into()).encrypt(identity.as_mut_slice());
        let integrity = kdf_a(&seed, "INTEGRITY", &[]);
        let integrity = mac(integrity.as_slice(), &[identity.as_slice(), name]);
        Some(Credential {
            blob: [&[0, 32], integrity.as_slice(), identity.as_slice()].concat(),
            seed: wrapped,
        })
    }
}

/// A seed from an ephemeral key and the endorsement key, and that key's point.
fn agree(to: &PublicKey, randomness: &[u8; 64]) -> (Zeroizing<[u8; 32]>, Vec<u8>) {
    let (ours, _) = randomness.split_at(32);
    let secret = NonZeroScalar::reduce_bytes(ours.into());
    let point = PublicKey::from_secret_scalar(&secret).to_encoded_point(false);
    let their = to.to_encoded_point(false);
    let shared = diffie_hellman(secret, to.as_affine());
    let coordinate = |point: Option<&p256::FieldBytes>| point.copied().unwrap_or_default();
    // KDFe: one block is enough for SHA-256.
    let seed = Sha256::new()
        .chain_update(1_u32.to_be_bytes())
        .chain_update(shared.raw_secret_bytes())
        .chain_update(b"IDENTITY\0")
        .chain_update(coordinate(point.x()))
        .chain_update(coordinate(their.x()))
        .finalize();
    let mut wrapped = Vec::new();
    for part in [point.x(), point.y()] {
        wrapped.extend([0, 32]);
        wrapped.extend(coordinate(part));
    }
    (Zeroizing::new(seed.into()), wrapped)
}

/// A seed, and it encrypted to the endorsement key.
fn encrypt(to: &RsaPublicKey, randomness: &[u8; 64]) -> Option<(Zeroizing<[u8; 32]>, Vec<u8>)> {
    let (seed, salt) = randomness.split_at(32);
    let padding = Oaep::new_with_label::<Sha256, _>("IDENTITY\0");
    let wrapped = to.encrypt(&mut Given(salt), padding, seed).ok()?;
    Some((Zeroizing::new(seed.try_into().ok()?), wrapped))
}

/// KDFa for one block of SHA-256; a shorter key is its beginning, with its own length in the block.
fn kdf_a(key: &[u8; 32], label: &str, context: &[u8]) -> Zeroizing<[u8; 32]> {
    let bits: u32 = if context.is_empty() { 256 } else { 128 };
    let counter = 1_u32.to_be_bytes();
    Zeroizing::new(mac(key, &[&counter, label.as_bytes(), &[0], context, &bits.to_be_bytes()]))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A shorter key is filled with zeros by definition.
    let mut block = Zeroizing::new([0; 64]);
    for (out, byte) in block.iter_mut().zip(key) {
        *out = *byte;
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The padding's salt, drawn by the caller.
struct Given<'a>(&'a [u8]);

impl RngCore for Given<'_> {
    fn next_u32(&mut self) -> u32 {
        rsa::rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rsa::rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        let (now, later) = self.0.split_at(out.len().min(self.0.len()));
        for (out, byte) in out.iter_mut().zip(now) {
            *out = *byte;
        }
        self.0 = later;
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if out.len() > self.0.len() {
            return Err(Error::from(core::num::NonZeroU32::MIN));
        }
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Given<'_> {}
