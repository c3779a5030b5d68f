//! Somebody at a TPM who runs its commands and looks at nothing first, so that whatever is refused, the TPM
//! refuses. Also what runs in the place of musterd in a node image that turns on its machine.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use tpm_seal::{Approval, ImageKey, SealedBlob, image_digest};
use tss_esapi::{
    Context,
    attributes::{ObjectAttributesBuilder, SessionAttributesBuilder},
    constants::SessionType,
    handles::{KeyHandle, ObjectHandle, PcrHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        Auth, Digest, EccParameter, EccPoint, EccScheme, EccSignature, HashScheme, KeyedHashScheme, Nonce,
        PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Private, Public, PublicBuilder,
        PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData, Signature, SymmetricDefinition,
        SymmetricDefinitionObject,
    },
    tcti_ldr::TctiNameConf,
    traits::UnMarshall as _,
};

/// What is in a bound object, if the TPM gives it: every command up to Unseal, whatever the ones before it
/// answered.
pub(crate) fn open(device: &Path, blob: &SealedBlob, approval: &Approval, key: &ImageKey) -> Option<Vec<u8>> {
    let mut context = context(device);
    let session = start(&mut context, SessionType::Policy);
    let policy: PolicySession = session.try_into().unwrap();
    let registers = selection(&[PcrSlot::Slot11, PcrSlot::Slot12]);
    context.policy_pcr(policy, Digest::default(), registers).unwrap();
    // What is refused here leaves the session as it was.
    let _refused = satisfy(&mut context, policy, approval, key);
    let storage = storage_key(&mut context);
    let (public, private) = parts(blob);
    let object = context
        .execute_with_session(Some(AuthSession::Password), |c| c.load(storage, private, public))
        .ok()?;
    let opened = context.execute_with_session(Some(session), |c| c.unseal(object.into()));
    opened.ok().map(|secret| secret.value().to_vec())
}

/// Guesses the password of another program's object until the TPM takes no more guesses.
pub(crate) fn lock(device: &Path) {
    let mut context = context(device);
    let storage = storage_key(&mut context);
    let object = guarded(&mut context, storage);
    context.tr_set_auth(object, Auth::try_from(b"wrong".as_slice()).unwrap()).unwrap();
    for _ in 0..8 {
        let guessed = context.execute_with_session(Some(AuthSession::Password), |c| c.unseal(object));
        assert!(guessed.is_err());
    }
}

/// Whether the TPM takes register 11 back to what it was at power-on.
pub(crate) fn set_back(device: &Path) -> bool {
    let mut context = context(device);
    let reset = context.execute_with_session(Some(AuthSession::Password), |c| c.pcr_reset(PcrHandle::Pcr11));
    reset.is_ok()
}

pub(crate) fn context(device: &Path) -> Context {
    Context::new(TctiNameConf::Device(device.to_str().unwrap().parse().unwrap())).unwrap()
}

pub(crate) fn satisfy(
    context: &mut Context,
    policy: PolicySession,
    approval: &Approval,
    key: &ImageKey,
) -> tss_esapi::Result<()> {
    let loaded = load_key(context, key);
    let name = context.tr_get_name(loaded.into())?;
    let digest = Digest::try_from(Sha256::digest(approval.message()).as_slice())?;
    let [r, s] =
        [&approval.signature[..32], &approval.signature[32..]].map(|n| EccParameter::try_from(n).unwrap());
    let signature = Signature::EcDsa(EccSignature::create(HashingAlgorithm::Sha256, r, s)?);
    let verified = context.verify_signature(loaded, digest, signature);
    context.flush_context(loaded.into())?;
    let approved = Digest::try_from(image_digest(&approval.image).as_slice())?;
    context.policy_authorize(
        policy,
        approved,
        Nonce::try_from(approval.phase.as_slice())?,
        &name,
        verified?,
    )?;
    context.policy_pcr(policy, Digest::default(), selection(&[PcrSlot::Slot7]))
}

pub(crate) fn load_key(context: &mut Context, key: &ImageKey) -> KeyHandle {
    let attributes =
        ObjectAttributesBuilder::new().with_user_with_auth(true).with_sign_encrypt(true).build().unwrap();
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters = PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256);
    let [x, y] = [&key.0[..32], &key.0[32..]].map(|n| EccParameter::try_from(n).unwrap());
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build().unwrap())
        .with_ecc_unique_identifier(EccPoint::new(x, y))
        .build()
        .unwrap();
    context.load_external_public(public, Hierarchy::Owner).unwrap()
}

pub(crate) fn start(context: &mut Context, kind: SessionType) -> AuthSession {
    let symmetric = SymmetricDefinition::AES_128_CFB;
    let session = context.start_auth_session(None, None, None, kind, symmetric, HashingAlgorithm::Sha256);
    let session = session.unwrap().unwrap();
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).unwrap();
    session
}

pub(crate) fn selection(slots: &[PcrSlot]) -> PcrSelectionList {
    PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, slots).build().unwrap()
}

/// The public and private parts in the file of a bound object.
fn parts(blob: &SealedBlob) -> (Public, Private) {
    let bytes = blob.encode();
    let public = 8 + 3 + 98 + 34;
    let private = &bytes[public + 78 + 2..bytes.len() - 32];
    (Public::unmarshall(&bytes[public..public + 78]).unwrap(), Private::try_from(private).unwrap())
}

fn storage_key(context: &mut Context) -> KeyHandle {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .unwrap();
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build().unwrap())
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .unwrap();
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(Hierarchy::Owner, public, None, None, None, None)
        })
        .unwrap()
        .key_handle
}

/// An object of another program, behind a password that a TPM counts wrong guesses of.
fn guarded(context: &mut Context, storage: KeyHandle) -> ObjectHandle {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .build()
        .unwrap();
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .unwrap();
    let password = Auth::try_from(b"right".as_slice()).unwrap();
    let secret = SensitiveData::try_from(b"else's".to_vec()).unwrap();
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            let made = c.create(storage, public, Some(password), Some(secret), None, None)?;
            c.load(storage, made.out_private, made.out_public)
        })
        .unwrap()
        .into()
}
