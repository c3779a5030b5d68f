//! The commands of one operation, in order, on a context that is thrown away afterwards.
//!
//! The context flushes every session and transient object when it is dropped, on error paths too.

use sha2::{Digest as _, Sha256};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind};
use tss_esapi::constants::{CapabilityType, CommandCode, PropertyTag, SessionType};
use tss_esapi::handles::{KeyHandle, PcrHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CapabilityData, Digest, DigestValues, EccPoint, KeyedHashScheme, PcrSelectionListBuilder, PcrSlot,
    Private, Public, PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData,
    SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

use crate::blob::{Name, OBJECT_ATTRIBUTES, Policy, SealedBlob};

/// Why an operation ended early.
pub(crate) enum Stop {
    Damaged,
    Replaced,
    Tss { what: &'static str, error: Error },
    Unexpected(&'static str),
}

/// The answers that mean: not now.
pub(crate) fn wants_another_try(error: Error) -> bool {
    use Tss2ResponseCodeKind as K;
    let Error::Tss2Error(code) = error else { return false };
    matches!(
        code.kind(),
        Some(
            K::ObjectMemory
                | K::SessionMemory
                | K::Memory
                | K::SessionHandles
                | K::ObjectHandles
                | K::Yielded
                | K::Testing
                | K::NvRate
                | K::NvUnavailable
                | K::Retry
        )
    )
}

pub(crate) fn seal(
    context: &mut Context,
    payload: &[u8],
    policy: Policy,
    pin: Option<&Name>,
) -> Result<SealedBlob, Stop> {
    let (storage, parent) = match pin {
        Some(pin) => (storage_key_named(context, pin)?, *pin),
        None => make_storage_key(context)?,
    };
    let session = session(context, storage, SessionType::Hmac)?;
    let public = object_template(policy)?;
    let secret = SensitiveData::try_from(payload.to_vec()).map_err(tss("frame the payload"))?;
    let made = context
        .execute_with_session(Some(session), |context| {
            context.create(storage, public, None, Some(secret), None, None)
        })
        .map_err(tss("seal"))?;
    let public = made.out_public.marshall().map_err(tss("read the sealed object"))?;
    SealedBlob::new(policy, parent, &public, made.out_private.value())
        .ok_or(Stop::Unexpected("the TPM sealed another kind of object than was asked for"))
}

pub(crate) fn unseal(context: &mut Context, blob: &SealedBlob) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let storage = storage_key_named(context, blob.parent())?;
    let public = Public::unmarshall(&blob.public()).map_err(|_| Stop::Damaged)?;
    let private = Private::try_from(blob.private()).map_err(|_| Stop::Damaged)?;
    let hmac = session(context, storage, SessionType::Hmac)?;
    let object =
        context.execute_with_session(Some(hmac), |context| context.load(storage, private, public)).map_err(
            |error| if is_damage(error) { Stop::Damaged } else { Stop::Tss { what: "load", error } },
        )?;
    let session = session(context, storage, SessionType::Policy)?;
    let policy_session = session.try_into().map_err(tss("use the policy session"))?;
    match blob.policy() {
        Policy::Unseal => context
            .policy_command_code(policy_session, CommandCode::Unseal)
            .map_err(tss("satisfy the policy"))?,
    }
    let secret = context
        .execute_with_session(Some(session), |context| context.unseal(object.into()))
        .map_err(tss("unseal"))?;
    Ok(Zeroizing::new(secret.value().to_vec()))
}

/// Adds the hash of these bytes to a register.
pub(crate) fn extend(context: &mut Context, register: u8, event: &[u8]) -> Result<(), Stop> {
    let wrong = "name the register";
    let handle = PcrHandle::try_from(u32::from(register)).map_err(tss(wrong))?;
    let digest = Digest::try_from(Sha256::digest(event).as_slice()).map_err(tss(wrong))?;
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, digest);
    context
        .execute_with_session(Some(AuthSession::Password), |context| context.pcr_extend(handle, values))
        .map_err(tss("extend the register"))
}

/// What a register holds.
pub(crate) fn register(context: &mut Context, register: u8) -> Result<[u8; 32], Stop> {
    let slot = PcrSlot::try_from(1_u32 << register.min(31)).map_err(tss("name the register"))?;
    let selection = PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &[slot])
        .build()
        .map_err(tss("name the register"))?;
    let (_, _, values) = context.pcr_read(selection).map_err(tss("read the register"))?;
    let value = values.value().first().and_then(|digest| digest.value().try_into().ok());
    value.ok_or(Stop::Unexpected("the TPM has no SHA-256 bank"))
}

/// What swtpm and the reference implementation under it call themselves.
pub(crate) fn says_software(context: &mut Context) -> Result<bool, Stop> {
    let mut said = Vec::new();
    for tag in [PropertyTag::Manufacturer, PropertyTag::VendorString1] {
        let word = context.get_tpm_property(tag).map_err(tss("ask for the vendor"))?.unwrap_or_default();
        said.push(word.to_be_bytes());
    }
    Ok(said.iter().any(|word| word == b"IBM\0" || word == b"IBM " || word.starts_with(b"SW")))
}

/// The storage key that has this Name: the persistent one of the machine, or the one recreated from the
/// template. Checked before anything is salted to it.
fn storage_key_named(context: &mut Context, name: &Name) -> Result<KeyHandle, Stop> {
    if let Some(persistent) = persistent_storage_key(context)?
        && name_of(context, persistent)? == *name
    {
        return Ok(persistent);
    }
    let (storage, made) = make_storage_key(context)?;
    if made == *name { Ok(storage) } else { Err(Stop::Replaced) }
}

fn make_storage_key(context: &mut Context) -> Result<(KeyHandle, Name), Stop> {
    let template = storage_key_template()?;
    let made = context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Owner, template, None, None, None, None)
        })
        .map_err(tss("make the storage key (is an owner password set?)"))?;
    let name = name_of(context, made.key_handle)?;
    Ok((made.key_handle, name))
}

/// Asked for by its number first: opening an absent one makes the library complain on standard error.
fn persistent_storage_key(context: &mut Context) -> Result<Option<KeyHandle>, Stop> {
    let handle = PersistentTpmHandle::new(STORAGE_KEY_HANDLE).map_err(tss("name the storage key"))?;
    let wanted = TpmHandle::Persistent(handle);
    let (found, _more) = context
        .get_capability(CapabilityType::Handles, STORAGE_KEY_HANDLE, 1)
        .map_err(tss("list the persistent keys"))?;
    let CapabilityData::Handles(handles) = found else {
        return Err(Stop::Unexpected("the TPM answered another question than was asked"));
    };
    if handles.into_inner().first() != Some(&wanted) {
        return Ok(None);
    }
    let object = context.tr_from_tpm_public(wanted).map_err(tss("open the storage key"))?;
    Ok(Some(object.into()))
}

fn name_of(context: &mut Context, key: KeyHandle) -> Result<Name, Stop> {
    let name = context.tr_get_name(key.into()).map_err(tss("name the storage key"))?;
    // A foreign persistent key may be named by another hash; it is not ours, then.
    Ok(Name::new(name.value()).unwrap_or(Name::NONE))
}

/// A session salted to the storage key, so that what it encrypts cannot be read on the bus.
fn session(context: &mut Context, storage: KeyHandle, kind: SessionType) -> Result<AuthSession, Stop> {
    let session = context
        .start_auth_session(
            Some(storage),
            None,
            None,
            kind,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .map_err(tss("start a session"))?
        .ok_or(Stop::Unexpected("the TPM started no session"))?;
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_continue_session(true)
        .with_decrypt(kind == SessionType::Hmac)
        .with_encrypt(true)
        .build();
    context.tr_sess_set_attributes(session, attributes, mask).map_err(tss("set up the session"))?;
    Ok(session)
}

/// The template every other user of the EMPTY form makes too (systemd, tpm2-tools).
fn storage_key_template() -> Result<Public, Stop> {
    let wrong = "describe the storage key";
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .map_err(tss(wrong))?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    )
    .build()
    .map_err(tss(wrong))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(tss(wrong))
}

fn object_template(policy: Policy) -> Result<Public, Stop> {
    let wrong = "describe the sealed object";
    let digest = Digest::try_from(policy.digest().as_slice()).map_err(tss(wrong))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ObjectAttributes::from(OBJECT_ATTRIBUTES))
        .with_auth_policy(digest)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .map_err(tss(wrong))
}

/// Load under the right storage key says in several ways that the object is not whole.
fn is_damage(error: Error) -> bool {
    use Tss2ResponseCodeKind as K;
    let Error::Tss2Error(code @ Tss2ResponseCode::FormatOne(_)) = error else { return false };
    matches!(
        code.kind(),
        Some(
            K::Integrity
                | K::Size
                | K::Value
                | K::Insufficient
                | K::Binding
                | K::Attributes
                | K::Type
                | K::KeySize
                | K::Hash
                | K::Scheme
        )
    )
}

fn tss(what: &'static str) -> impl Fn(Error) -> Stop {
    move |error| Stop::Tss { what, error }
}

const STORAGE_KEY_HANDLE: u32 = 0x8100_0001;
