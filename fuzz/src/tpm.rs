//! What a TPM's structures become: strict readers, whose every byte counts.

use attest::{AttestationKey, Endorsement, Registers, certificate_in, tpm_of};

use crate::fixture::TPM;

/// The certificate of an endorsement key, against the vectors' CA.
pub fn tpm_certificate(data: &[u8]) {
    if let Ok(certificate) = certificate_in(data) {
        assert!(data.starts_with(certificate));
        if let Ok(tpm) = tpm_of(certificate) {
            assert_eq!(tpm_of(certificate), Ok(tpm));
        }
    }
    for vector in TPM.iter() {
        if let Ok(endorsement) = Endorsement::of_certificate(data, [vector.ca.as_slice()]) {
            assert_eq!(Ok(endorsement.tpm()), tpm_of(data));
            assert_eq!(tpm_of(data), tpm_of(&vector.certificate));
        }
    }
}

/// An attestation key: one encoding, and its name is that of its bytes.
pub fn tpm_key(data: &[u8]) {
    let Ok(key) = AttestationKey::decode(data) else { return };
    for vector in TPM.iter() {
        let known = AttestationKey::decode(&vector.key).unwrap();
        assert_eq!(key.name() == known.name(), data == vector.key);
    }
}

/// A quote and its signature, each as long as its first byte says: only what the vectors' TPM signed holds.
pub fn tpm_quote(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (quote, signature) = rest.split_at(usize::from(*length).min(rest.len()));
    for vector in TPM.iter() {
        let key = AttestationKey::decode(&vector.key).unwrap();
        let [secure_boot, image, command_line] = vector.registers;
        let registers = Registers { secure_boot, image, command_line };
        if key.verify_quote(quote, signature, &vector.question, &registers).is_ok() {
            assert_eq!(quote, vector.quote);
        }
    }
}
