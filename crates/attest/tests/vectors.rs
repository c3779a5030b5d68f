//! `tests/vectors/attestation-v1.json`: what a TPM said, byte for byte, and the credential it opened.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use attest::{
    Accepted, AttestationKey, Credential, Endorsement, QuoteError, Registers, certificate_in, tpm_of,
};
use identity::decode_hex;
use serde_json::Value;
use zeroize::Zeroizing;

#[test]
fn what_a_tpm_said_holds_and_the_credential_it_opened_is_made_again() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 2, "an RSA and an elliptic-curve endorsement key");
    for vector in &vectors {
        let endorsement = endorsement(vector);
        assert_eq!(endorsement.tpm().to_string(), vector["tpm"]);
        let key = AttestationKey::decode(&bytes(vector, "key")).unwrap();
        assert_eq!(key.name().as_slice(), bytes(vector, "key_name"));
        let randomness = Zeroizing::new(bytes(vector, "randomness").try_into().unwrap());
        let made = endorsement.make_credential(&key, &array(vector, "secret"), &randomness).unwrap();
        let opened = Credential { blob: bytes(vector, "credential"), seed: bytes(vector, "seed") };
        assert_eq!(made, opened, "{}", vector["name"]);
        let (quote, signature) = (bytes(vector, "quote"), bytes(vector, "signature"));
        let question = array(vector, "question");
        let quoted = key.verify_quote(&quote, &signature, &question, &registers(vector)).unwrap();
        let Registers { secure_boot, image, .. } = registers(vector);
        let accepted = Accepted { secure_boot: vec![secure_boot], images: vec![image] };
        assert_eq!(quoted.check(&accepted), Ok(()));
    }
    let [first, second] = vectors.as_slice() else { unreachable!() };
    let key = AttestationKey::decode(&bytes(first, "key")).unwrap();
    let (quote, signature) = (bytes(second, "quote"), bytes(second, "signature"));
    let other = key.verify_quote(&quote, &signature, &array(second, "question"), &registers(second));
    assert_eq!(other.unwrap_err(), QuoteError::Unsigned);
}

#[test]
fn no_byte_that_a_maker_signed_can_be_changed_and_none_may_follow() {
    for vector in &vectors() {
        let (certificate, ca) = (bytes(vector, "certificate"), bytes(vector, "ca"));
        let (_, read) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let signed = 4 + read.tbs_certificate.as_ref().len();
        // Behind that stand the way of signing once more, which has to be the same, and the signature.
        for at in (0..signed).chain(certificate.len() - 32..certificate.len()) {
            let mut changed = certificate.clone();
            changed.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            assert!(Endorsement::of_certificate(&changed, [ca.as_slice()]).is_err(), "byte {at}");
        }
        let longer = [certificate.as_slice(), &[0]].concat();
        assert!(Endorsement::of_certificate(&longer, [ca.as_slice()]).is_err());
        assert!(tpm_of(&longer).is_err());
        assert_eq!(certificate_in(&longer).unwrap(), certificate, "as some TPMs keep it");
        assert!(Endorsement::of_certificate(&ca, [ca.as_slice()]).is_err(), "a CA is no TPM");
        assert!(Endorsement::of_certificate(&certificate, []).is_err());
    }
}

fn vectors() -> Vec<Value> {
    let text = include_str!("../../../tests/vectors/attestation-v1.json");
    let file: Value = serde_json::from_str(text).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn endorsement(vector: &Value) -> Endorsement {
    let ca = bytes(vector, "ca");
    Endorsement::of_certificate(&bytes(vector, "certificate"), [ca.as_slice()]).unwrap()
}

fn registers(vector: &Value) -> Registers {
    let of = |at: usize| decode_hex(vector["registers"][at].as_str().unwrap().as_bytes()).unwrap();
    Registers { secure_boot: of(0), image: of(1), command_line: of(2) }
}

fn array(vector: &Value, field: &str) -> [u8; 32] {
    bytes(vector, field).try_into().unwrap()
}

fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    let text = vector[field].as_str().unwrap().as_bytes();
    text.chunks(2).map(|pair| decode_hex::<1>(pair).unwrap()[0]).collect()
}
