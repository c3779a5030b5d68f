//! What a software TPM says, checked; and what others would like it to say.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use attest::{
    AttestationKey, Credential, Endorsement, EndorsementError, QuoteError, Registers, certificate_in, tpm_of,
};
use lab::Swtpm;
use org_trust::TrustBundle;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SignatureAlgorithm,
};
use sha2::Digest as _;
use tempfile::TempDir;
use tpm_seal::{Tpm, TpmError};
use tss_esapi::{
    Context,
    abstraction::{AsymmetricAlgorithmSelection, ek::create_ek_object_2, nv::NvOpenOptions},
    attributes::NvIndexAttributesBuilder,
    handles::NvIndexTpmHandle,
    interface_types::{
        algorithm::HashingAlgorithm, ecc::EccCurve, resource_handles::NvAuth, session_handles::AuthSession,
    },
    structures::{NvPublicBuilder, Public},
    tcti_ldr::TctiNameConf,
};
use zeroize::Zeroizing;

#[test]
fn a_tpm_with_an_rsa_key_proves_itself_and_says_what_was_booted() {
    let machine = Machine::made();
    assert!(machine.proves_itself());
}

#[test]
fn a_tpm_with_a_p256_key_proves_itself_as_well_and_is_preferred() {
    let machine = Machine::made().with_p256();
    assert!(machine.proves_itself());
    let der = machine.certificate();
    let (rest, read) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(rest.is_empty() && read.public_key().raw.len() < 100, "an elliptic-curve key");
}

#[test]
fn a_credential_for_another_tpm_or_another_key_is_not_opened() {
    let (ours, other) = (Machine::made(), Machine::made());
    for (endorsement, key) in [(&ours, &other), (&other, &ours), (&other, &other)] {
        let made = endorsement.endorsement().make_credential(&key.key(), &SECRET, &DRAWN).unwrap();
        assert!(ours.refuses(&made));
    }
    let made = ours.endorsement().make_credential(&ours.key(), &SECRET, &DRAWN).unwrap();
    for at in 0..made.blob.len() {
        let mut changed = made.clone();
        changed.blob[at] ^= 1;
        assert!(ours.refuses(&changed), "byte {at}");
    }
    for seed in [vec![], vec![1], vec![7; 256], vec![7; 600]] {
        let changed = Credential { seed, ..made.clone() };
        assert!(ours.refuses(&changed));
    }
    assert_eq!(ours.open(&made).unwrap().as_slice(), SECRET, "and the TPM goes on");
}

#[test]
fn a_quote_of_another_tpm_is_not_this_keys() {
    let (ours, other) = (Machine::made(), Machine::made());
    let quote = other.tpm.quote(&QUESTION).unwrap();
    let held = registers(quote.registers);
    let said = ours.key().verify_quote(&quote.attest, &quote.signature, &QUESTION, &held);
    assert_eq!(said.unwrap_err(), QuoteError::Unsigned);
    assert!(other.key().verify_quote(&quote.attest, &quote.signature, &QUESTION, &held).is_ok());
}

#[test]
fn a_software_tpm_has_no_place_under_the_root_of_another_maker() {
    let machine = Machine::made();
    let vendor = ca("swtpm-localca");
    let other = ca("a maker of TPMs");
    let check = |der: &[u8]| Endorsement::of_certificate(&machine.certificate(), [der]).unwrap_err();
    assert!(matches!(check(&other.0), EndorsementError::Untrusted { .. }));
    let same_name = check(&vendor.0);
    assert!(
        matches!(same_name, EndorsementError::BadSignature { .. }),
        "a name is no signature: {same_name}"
    );
}

#[test]
fn a_tpm_without_a_certificate_says_so() {
    let home = TempDir::new().unwrap();
    let swtpm = Swtpm::start(&home.path().join("tpm")).unwrap();
    let tpm = Tpm::open(swtpm.device()).unwrap();
    assert!(matches!(tpm.endorsement_certificate(), Err(TpmError::NoEndorsement)));
    assert!(matches!(tpm.open_credential(&[0, 1], &[0, 1]), Err(TpmError::NoEndorsement)));
}

#[test]
fn registers_are_quoted_as_they_are_and_the_attestation_key_stays_the_same() {
    let mut machine = Machine::made();
    let key = machine.key();
    machine.tpm.extend(11, b"an image").unwrap();
    let quote = machine.tpm.quote(&QUESTION).unwrap();
    assert_ne!(quote.registers[1], [0; 32]);
    let before = Registers { image: [0; 32], ..registers(quote.registers) };
    let lied = key.verify_quote(&quote.attest, &quote.signature, &QUESTION, &before);
    assert_eq!(lied.unwrap_err(), QuoteError::OtherRegisters);
    machine.swtpm.power_cycle().unwrap();
    assert_eq!(machine.key().name(), key.name());
    for _ in 0..8 {
        machine.tpm.quote(&QUESTION).unwrap();
        machine.proves_itself();
    }
}

/// `tests/vectors/attestation-v1.json`, which `tests/vectors.rs` reads without a TPM.
#[test]
#[ignore = "writes tests/vectors/attestation-v1.json"]
fn write_the_vectors() {
    let vectors = [("rsa", Machine::made()), ("p256", Machine::made().with_p256())].map(|(name, machine)| {
        machine.tpm.extend(7, b"Secure Boot").unwrap();
        machine.tpm.extend(11, b"an image").unwrap();
        let key = machine.key();
        let made = machine.endorsement().make_credential(&key, &SECRET, &DRAWN).unwrap();
        assert_eq!(machine.open(&made).unwrap().as_slice(), SECRET);
        let quote = machine.tpm.quote(&QUESTION).unwrap();
        let hex = |bytes: &[u8]| identity::encode_hex(bytes);
        serde_json::json!({
            "name": name,
            "ca": hex(&machine.ca),
            "certificate": hex(&machine.certificate()),
            "tpm": tpm_of(&machine.certificate()).unwrap().to_string(),
            "key": hex(&machine.tpm.attestation_key().unwrap()),
            "key_name": hex(key.name()),
            "secret": hex(&SECRET),
            "randomness": hex(DRAWN.as_slice()),
            "credential": hex(&made.blob),
            "seed": hex(&made.seed),
            "question": hex(&QUESTION),
            "registers": quote.registers.map(|register| hex(&register)),
            "quote": hex(&quote.attest),
            "signature": hex(&quote.signature),
        })
    });
    let about = "Attestation, docs/spec/attestation.md: what two software TPMs said, and what they opened. Written by \
                 crates/attest/tests/swtpm.rs; bytes are lower-case hexadecimal.";
    let text = serde_json::json!({ "about": about, "vectors": vectors });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/attestation-v1.json");
    std::fs::write(path, serde_json::to_string_pretty(&text).unwrap() + "\n").unwrap();
}

struct Machine {
    swtpm: Swtpm,
    tpm: Tpm,
    ca: Vec<u8>,
    _home: TempDir,
}

impl Machine {
    /// As it leaves a maker's hands.
    fn made() -> Self {
        let home = TempDir::new().unwrap();
        let mut swtpm = Swtpm::start(&home.path().join("tpm")).unwrap();
        let ca = swtpm.manufacture(&home.path().join("maker")).unwrap();
        let ca = TrustBundle::read(&std::fs::read(ca).unwrap()).unwrap().certificates()[0].der().to_vec();
        let tpm = Tpm::open(swtpm.device()).unwrap();
        Self { swtpm, tpm, ca, _home: home }
    }

    /// Leaves it with a certificate of its P-256 endorsement key, by another CA.
    fn with_p256(mut self) -> Self {
        let device = self.swtpm.device().display().to_string();
        let mut context = Context::new(TctiNameConf::Device(device.parse().unwrap())).unwrap();
        let kind = AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256);
        let key = create_ek_object_2(&mut context, kind, None).unwrap();
        let Public::Ecc { unique, .. } = context.read_public(key).unwrap().0 else { unreachable!() };
        let point = p256::EncodedPoint::from_affine_coordinates(
            unique.x().value().into(),
            unique.y().value().into(),
            false,
        );
        let point = p256::PublicKey::from_sec1_bytes(point.as_bytes()).unwrap();
        let (ca, der) = issue(&point);
        let index = NvIndexTpmHandle::new(0x01C0_000A).unwrap();
        let attributes = NvIndexAttributesBuilder::new()
            .with_owner_read(true)
            .with_owner_write(true)
            .with_auth_read(true)
            .with_auth_write(true)
            .build()
            .unwrap();
        // Longer than the certificate: some makers leave room.
        let public = NvPublicBuilder::new()
            .with_nv_index(index)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(der.len() + 20)
            .build()
            .unwrap();
        context.set_sessions((Some(AuthSession::Password), None, None));
        let options = NvOpenOptions::NewIndex { nv_public: public, auth_handle: NvAuth::Owner };
        let mut place = options.open(&mut context).unwrap();
        let padded = [der.as_slice(), &[0xFF; 20]].concat();
        std::io::Write::write_all(&mut place, &padded).unwrap();
        drop(place);
        drop(context);
        self.ca = ca;
        self
    }

    fn certificate(&self) -> Vec<u8> {
        let kept = self.tpm.endorsement_certificate().unwrap();
        certificate_in(&kept).unwrap().to_vec()
    }

    fn endorsement(&self) -> Endorsement {
        let certificate = self.certificate();
        let endorsement = Endorsement::of_certificate(&certificate, [self.ca.as_slice()]).unwrap();
        assert_eq!(endorsement.tpm(), tpm_of(&certificate).unwrap());
        endorsement
    }

    fn key(&self) -> AttestationKey {
        AttestationKey::decode(&self.tpm.attestation_key().unwrap()).unwrap()
    }

    fn open(&self, made: &Credential) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.tpm.open_credential(&made.blob, &made.seed)
    }

    fn refuses(&self, made: &Credential) -> bool {
        match self.open(made) {
            Err(TpmError::CredentialRefused) => true,
            other => panic!("{other:?}"),
        }
    }

    fn proves_itself(&self) -> bool {
        let key = self.key();
        let made = self.endorsement().make_credential(&key, &SECRET, &DRAWN).unwrap();
        assert_eq!(self.open(&made).unwrap().as_slice(), SECRET);
        let quote = self.tpm.quote(&QUESTION).unwrap();
        let held = registers(quote.registers);
        key.verify_quote(&quote.attest, &quote.signature, &QUESTION, &held).is_ok()
    }
}

struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A CA and its certificate for an endorsement key.
fn issue(key: &p256::PublicKey) -> (Vec<u8>, Vec<u8>) {
    let (ca, signer, params) = ca("a maker of TPMs");
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    let point = Point(p256::EncodedPoint::from(key).as_bytes().to_vec());
    let leaf = leaf.signed_by(&point, &Issuer::new(params, signer)).unwrap();
    let named = <[u8; 32]>::from(sha2::Sha256::digest(point.subject_public_key_info()));
    assert_eq!(tpm_of(leaf.der()).unwrap().0, named);
    (ca, leaf.der().to_vec())
}

fn ca(name: &str) -> (Vec<u8>, KeyPair, CertificateParams) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, rcgen::DnValue::PrintableString(name.try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (der, key, params)
}

const fn registers([secure_boot, image, command_line]: [[u8; 32]; 3]) -> Registers {
    Registers { secure_boot, image, command_line }
}

const SECRET: [u8; 32] = [3; 32];
const QUESTION: [u8; 32] = [5; 32];
static DRAWN: std::sync::LazyLock<Zeroizing<[u8; 64]>> = std::sync::LazyLock::new(|| Zeroizing::new([9; 64]));
