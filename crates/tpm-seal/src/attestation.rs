//! What the TPM says of itself: the certificate of its endorsement key, an attestation key, a credential
//! opened, and a quote. Who believes it is decided elsewhere.
//!
//! The attestation key is a primary key of the endorsement hierarchy, made from a fixed template: the same
//! TPM makes the same key each time, so nothing is kept and nothing is evicted.

use tss_esapi::abstraction::ek::create_ek_public_from_default_template_2;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, nv};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{AuthHandle, KeyHandle, NvIndexTpmHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    CapabilityData, Data, Digest, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject,
    KeyDerivationFunctionScheme, Nonce, PcrSelectionListBuilder, PcrSlot, Public, PublicBuilder,
    PublicEccParametersBuilder, SignatureScheme, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall as _;
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

use crate::operation::{Stop, register, tss};
use crate::tpm::{Tpm, TpmError};

/// What a TPM says about registers 7, 11 and 12 of its SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What they hold, in this order.
    pub registers: [[u8; 32]; 3],
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE by the attestation key.
    pub signature: Vec<u8>,
}

impl Tpm {
    /// The certificate of its endorsement key, as its maker left it there, and whatever follows it.
    ///
    /// # Errors
    /// [`TpmError::NoEndorsement`] if there is none; see [`TpmError`].
    pub fn endorsement_certificate(&self) -> Result<Vec<u8>, TpmError> {
        self.with_context(|context| Ok(certificate(context)?.1))
    }

    /// The public part of its attestation key, a TPMT_PUBLIC.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn attestation_key(&self) -> Result<Vec<u8>, TpmError> {
        self.with_context(|context| {
            let key = make_attestation_key(context)?;
            read_public(context, key)?.marshall().map_err(tss("read the attestation key"))
        })
    }

    /// Opens a credential that was made for the attestation key and the endorsement key of the certificate.
    ///
    /// # Errors
    /// [`TpmError::CredentialRefused`] when it was made for others; see [`TpmError`].
    pub fn open_credential(&self, credential: &[u8], seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.with_context(|context| {
            let (kind, certificate) = certificate(context)?;
            let endorsement = endorsement_key_in(context, kind, &certificate)?;
            open(context, endorsement, credential, seed)
        })
    }

    /// Its word about the registers, in answer to `question`.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn quote(&self, question: &[u8; 32]) -> Result<Quote, TpmError> {
        self.with_context(|context| {
            let registers = [register(context, 7)?, register(context, 11)?, register(context, 12)?];
            let key = make_attestation_key(context)?;
            let wrong = "quote the registers";
            let question = Data::try_from(question.as_slice()).map_err(tss(wrong))?;
            let selection = PcrSelectionListBuilder::new()
                .with_selection(HashingAlgorithm::Sha256, &[PcrSlot::Slot7, PcrSlot::Slot11, PcrSlot::Slot12])
                .build()
                .map_err(tss(wrong))?;
            let (attest, signature) = context
                .execute_with_session(Some(AuthSession::Password), |context| {
                    context.quote(key, question.clone(), SignatureScheme::Null, selection.clone())
                })
                .map_err(tss(wrong))?;
            Ok(Quote {
                registers,
                attest: attest.marshall().map_err(tss(wrong))?,
                signature: signature.marshall().map_err(tss(wrong))?,
            })
        })
    }
}

/// The kinds of endorsement key with a low-range template of the TCG's profile: the place of the
/// certificate, and where a maker or a system may have left the key itself.
#[derive(Clone, Copy)]
struct EndorsementKind {
    algorithm: AsymmetricAlgorithmSelection,
    certificate: u32,
    key: u32,
}

const ECC: EndorsementKind = EndorsementKind {
    algorithm: AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
    certificate: 0x01C0_000A,
    key: 0x8101_000A,
};
const RSA: EndorsementKind = EndorsementKind {
    algorithm: AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
    certificate: 0x01C0_0002,
    key: 0x8101_0001,
};

/// Asked for by its number first: opening an absent one makes the library complain on standard error.
fn is_there(context: &mut Context, number: u32) -> Result<bool, Stop> {
    let (found, _more) =
        context.get_capability(CapabilityType::Handles, number, 1).map_err(tss("list what the TPM keeps"))?;
    let CapabilityData::Handles(handles) = found else {
        return Err(Stop::Unexpected("the TPM answered another question than was asked"));
    };
    Ok(handles.into_inner().first().is_some_and(|handle| u32::from(*handle) == number))
}

fn certificate(context: &mut Context) -> Result<(EndorsementKind, Vec<u8>), Stop> {
    for kind in [ECC, RSA] {
        if is_there(context, kind.certificate)? {
            let wrong = "read the endorsement certificate";
            let index = NvIndexTpmHandle::new(kind.certificate).map_err(tss(wrong))?;
            let handle = context.tr_from_tpm_public(TpmHandle::NvIndex(index)).map_err(tss(wrong))?;
            let read = context
                .execute_with_session(Some(AuthSession::Password), |context| {
                    nv::read_full(context, NvAuth::NvIndex(handle.into()), index)
                })
                .map_err(tss(wrong))?;
            return Ok((kind, read));
        }
    }
    Err(Stop::NoEndorsement)
}

/// The key that the certificate is of: one that was left in the TPM, since an RSA key takes long to make, or
/// the one that the template makes.
fn endorsement_key_in(
    context: &mut Context,
    kind: EndorsementKind,
    certificate: &[u8],
) -> Result<KeyHandle, Stop> {
    if is_there(context, kind.key)? {
        let wrong = "open the endorsement key";
        let handle = PersistentTpmHandle::new(kind.key).map_err(tss(wrong))?;
        let key: KeyHandle =
            context.tr_from_tpm_public(TpmHandle::Persistent(handle)).map_err(tss(wrong))?.into();
        if is_of(&read_public(context, key)?, certificate) {
            return Ok(key);
        }
    }
    let key = make_endorsement_key(context, kind)?;
    if is_of(&read_public(context, key)?, certificate) { Ok(key) } else { Err(Stop::NoEndorsement) }
}

/// The verifier looks at the certificate; here it is enough that the key's bytes stand in it.
fn is_of(public: &Public, certificate: &[u8]) -> bool {
    let number = match public {
        Public::Rsa { unique, .. } => unique.value(),
        Public::Ecc { unique, .. } => unique.x().value(),
        Public::KeyedHash { .. } | Public::SymCipher { .. } => return false,
    };
    number.len() >= 16 && certificate.windows(number.len()).any(|window| window == number)
}

fn make_endorsement_key(context: &mut Context, kind: EndorsementKind) -> Result<KeyHandle, Stop> {
    let wrong = "make the endorsement key (is an endorsement password set?)";
    let template = create_ek_public_from_default_template_2(kind.algorithm, None).map_err(tss(wrong))?;
    make_primary(context, template, wrong)
}

fn make_attestation_key(context: &mut Context) -> Result<KeyHandle, Stop> {
    let wrong = "make the attestation key (is an endorsement password set?)";
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()
        .map_err(tss(wrong))?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_is_decryption_key(false)
        .with_restricted(true)
        .build()
        .map_err(tss(wrong))?;
    let template = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(tss(wrong))?;
    make_primary(context, template, wrong)
}

fn make_primary(context: &mut Context, template: Public, wrong: &'static str) -> Result<KeyHandle, Stop> {
    let made = context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })
        .map_err(tss(wrong))?;
    Ok(made.key_handle)
}

fn read_public(context: &mut Context, key: KeyHandle) -> Result<Public, Stop> {
    context.read_public(key).map(|(public, _, _)| public).map_err(tss("read a key"))
}

/// The endorsement key's template wants the endorsement hierarchy's authorisation, by a policy.
fn open(
    context: &mut Context,
    endorsement: KeyHandle,
    credential: &[u8],
    seed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let wrong = "open the credential";
    let attestation = make_attestation_key(context)?;
    let credential = IdObject::try_from(credential).map_err(|_| Stop::CredentialRefused)?;
    let seed = EncryptedSecret::try_from(seed).map_err(|_| Stop::CredentialRefused)?;
    let session = context
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .map_err(tss(wrong))?
        .ok_or(Stop::Unexpected("the TPM started no session"))?;
    let policy = PolicySession::try_from(session).map_err(tss(wrong))?;
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            let (nonce, reference) = (Nonce::default(), Nonce::default());
            context.policy_secret(policy, AuthHandle::Endorsement, nonce, Digest::default(), reference, None)
        })
        .map_err(tss(wrong))?;
    let sessions = (Some(AuthSession::Password), Some(session), None);
    let opened = context.execute_with_sessions(sessions, |context| {
        context.activate_credential(attestation, endorsement, credential, seed)
    });
    match opened {
        Ok(opened) => Ok(Zeroizing::new(opened.value().to_vec())),
        Err(error) if is_refusal(error) => Err(Stop::CredentialRefused),
        Err(error) => Err(Stop::Tss { what: wrong, error }),
    }
}

/// What a TPM says of a credential that is not for these keys, by what of it comes out wrong first. Where an
/// RSA ciphertext is not for its key, libtpms says "failure" and goes on; one that failed says so before.
fn is_refusal(error: Error) -> bool {
    use Tss2ResponseCodeKind as K;
    let Error::Tss2Error(code) = error else { return false };
    matches!(
        code.kind(),
        Some(K::Integrity | K::Value | K::Size | K::Insufficient | K::EccPoint | K::Hash | K::Failure)
    )
}
