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
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    CapabilityData, Digest, DigestValues, EccParameter, EccPoint, EccSignature, KeyedHashScheme,
    Name as TpmName, Nonce, PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Private, Public,
    PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData, Signature,
    SymmetricDefinition, SymmetricDefinitionObject, VerifiedTicket,
};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

use crate::approvals::{Approval, Approvals, ImageKey};
use crate::blob::{Name, OBJECT_ATTRIBUTES, SealedBlob};
use crate::policy::{ImagePolicy, Obstacle, Policy, Registers, image_digest};

/// Why an operation ended early.
pub(crate) enum Stop {
    CredentialRefused,
    Damaged,
    Obstacle(Obstacle),
    NoEndorsement,
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

/// What a new object is to ask for.
#[derive(Clone, Copy)]
pub(crate) enum Terms {
    Unseal,
    /// An image that this key approves, in this phase, with the firmware set as it is now.
    Image {
        key: Name,
        phase: [u8; 32],
    },
}

pub(crate) fn seal(
    context: &mut Context,
    payload: &[u8],
    terms: Terms,
    pin: Option<&Name>,
) -> Result<SealedBlob, Stop> {
    let policy = match terms {
        Terms::Unseal => Policy::Unseal,
        Terms::Image { key, phase } => {
            Policy::Image(ImagePolicy { key, phase, firmware: register(context, FIRMWARE)? })
        }
    };
    let (storage, parent) = match pin {
        Some(pin) => (storage_key_named(context, pin)?, *pin),
        None => make_storage_key(context)?,
    };
    let session = session(context, storage, SessionType::Hmac)?;
    let public = object_template(&policy)?;
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

pub(crate) fn unseal(
    context: &mut Context,
    blob: &SealedBlob,
    approvals: Option<&Approvals>,
) -> Result<Zeroizing<Vec<u8>>, Stop> {
    // Before anything stays in the TPM, which its driver would take out and put back around each command.
    let approved = match blob.policy() {
        Policy::Unseal => Ok(None),
        Policy::Image(policy) => {
            let now = registers(context)?;
            approved(context, policy, approvals, &now).map(Some)
        }
    };
    // Another TPM is named first: its registers say nothing about this object.
    let storage = storage_key_named(context, blob.parent())?;
    let approved = approved?;
    let object = load_under(context, storage, blob)?;
    let session = session(context, storage, SessionType::Policy)?;
    let policy = session.try_into().map_err(tss("use the policy session"))?;
    match approved {
        None => {
            context.policy_command_code(policy, CommandCode::Unseal).map_err(tss("satisfy the policy"))?
        }
        Some((approval, name, ticket)) => satisfy(context, policy, approval, &name, ticket)?,
    }
    let secret = context
        .execute_with_session(Some(session), |context| context.unseal(object.into()))
        .map_err(tss("unseal"))?;
    Ok(Zeroizing::new(secret.value().to_vec()))
}

/// Whether the TPM takes an object for whole, without opening it.
pub(crate) fn check(context: &mut Context, blob: &SealedBlob) -> Result<(), Stop> {
    let storage = storage_key_named(context, blob.parent())?;
    let object = load_under(context, storage, blob)?;
    if name_of(context, object)? == Name::of_public(&blob.public()) { Ok(()) } else { Err(Stop::Damaged) }
}

/// Whether the image key signed an approval.
pub(crate) fn check_approval(context: &mut Context, key: &ImageKey, approval: &Approval) -> Result<(), Stop> {
    verified(context, key, approval).map(|_| ())
}

/// What opens an object under these registers: its approval, and the TPM's word that the image key signed it.
fn approved<'a>(
    context: &mut Context,
    policy: &ImagePolicy,
    approvals: Option<&'a Approvals>,
    now: &Registers,
) -> Result<(&'a Approval, TpmName, VerifiedTicket), Stop> {
    if let Some(obstacle) = policy.obstacle(approvals, now) {
        return Err(Stop::Obstacle(obstacle));
    }
    let approval = policy.approval(approvals).map_err(Stop::Obstacle)?;
    let key = approvals.map(|approvals| approvals.key).ok_or(Stop::Obstacle(Obstacle::NoApprovals))?;
    let (name, ticket) = verified(context, &key, approval)?;
    Ok((approval, name, ticket))
}

/// Without a salted session, which costs both sides a key exchange: what is loaded is public or encrypted to the
/// storage key, and the session in which it is opened names it to the TPM under a key that nobody on the bus has.
fn load_under(context: &mut Context, storage: KeyHandle, blob: &SealedBlob) -> Result<KeyHandle, Stop> {
    let public = Public::unmarshall(&blob.public()).map_err(|_| Stop::Damaged)?;
    let private = Private::try_from(blob.private()).map_err(|_| Stop::Damaged)?;
    context
        .execute_with_session(Some(AuthSession::Password), |context| context.load(storage, private, public))
        .map_err(|error| if is_damage(error) { Stop::Damaged } else { Stop::Tss { what: "load", error } })
}

/// The image key's Name, and the TPM's word that the key signed the approval.
fn verified(
    context: &mut Context,
    key: &ImageKey,
    approval: &Approval,
) -> Result<(TpmName, VerifiedTicket), Stop> {
    let refused = |_| Stop::Obstacle(Obstacle::Signature);
    let public = Public::unmarshall(&key.public()).map_err(refused)?;
    // A point that is not on the curve.
    let loaded = context.load_external_public(public, Hierarchy::Owner).map_err(|error| {
        let wrong = matches!(error, Error::Tss2Error(Tss2ResponseCode::FormatOne(_)));
        if wrong {
            Stop::Obstacle(Obstacle::Signature)
        } else {
            Stop::Tss { what: "load the image key", error }
        }
    })?;
    let digest =
        Digest::try_from(Sha256::digest(approval.message()).as_slice()).map_err(tss("read the approval"))?;
    let (r, s) = approval.signature.split_at(32);
    let number = |bytes: &[u8]| EccParameter::try_from(bytes).map_err(tss("read the approval"));
    let signature = EccSignature::create(HashingAlgorithm::Sha256, number(r)?, number(s)?)
        .map_err(tss("read the approval"))?;
    let ticket = context.verify_signature(loaded, digest, Signature::EcDsa(signature)).map_err(|error| {
        let wrong =
            matches!(error, Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Signature));
        if wrong {
            Stop::Obstacle(Obstacle::Signature)
        } else {
            Stop::Tss { what: "check the approval", error }
        }
    })?;
    let name = context.tr_get_name(loaded.into()).map_err(tss("name the image key"))?;
    if name.value() != key.name().as_bytes() {
        return Err(Stop::Unexpected("the TPM names the image key otherwise"));
    }
    forget(context, loaded)?;
    Ok((name, ticket))
}

/// The approved registers, then that they are approved, then the firmware's register.
fn satisfy(
    context: &mut Context,
    session: PolicySession,
    approval: &Approval,
    key: &TpmName,
    ticket: VerifiedTicket,
) -> Result<(), Stop> {
    let wrong = "satisfy the policy";
    let now = Digest::default();
    let approved = Digest::try_from(image_digest(&approval.image).as_slice()).map_err(tss(wrong))?;
    let phase = Nonce::try_from(approval.phase.as_slice()).map_err(tss(wrong))?;
    context.policy_pcr(session, now.clone(), selection(&[IMAGE, BESIDE])?).map_err(tss(wrong))?;
    context.policy_authorize(session, approved, phase, key, ticket).map_err(tss(wrong))?;
    context.policy_pcr(session, now, selection(&[FIRMWARE])?).map_err(tss(wrong))
}

/// What the policies look at.
pub(crate) fn registers(context: &mut Context) -> Result<Registers, Stop> {
    let selected = selection(&[FIRMWARE, IMAGE, BESIDE])?;
    let (_, _, values) = context.pcr_read(selected).map_err(tss("read the registers"))?;
    let [firmware, image, beside] = values.value() else { return Err(NO_BANK) };
    let of = |digest: &Digest| digest.value().try_into().map_err(|_| NO_BANK);
    Ok(Registers { firmware: of(firmware)?, image: of(image)?, beside: of(beside)? })
}

/// Whether too many wrong guesses have locked it. Our objects count none and open even so.
pub(crate) fn is_locked_out(context: &mut Context) -> Result<bool, Stop> {
    let wrong = "ask whether it is locked";
    let permanent = context.get_tpm_property(PropertyTag::Permanent).map_err(tss(wrong))?;
    Ok(permanent.unwrap_or_default() & IN_LOCKOUT != 0)
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
    let (_, _, values) = context.pcr_read(selection(&[register])?).map_err(tss("read the register"))?;
    let value = values.value().first().and_then(|digest| digest.value().try_into().ok());
    value.ok_or(NO_BANK)
}

fn selection(registers: &[u8]) -> Result<PcrSelectionList, Stop> {
    let wrong = "name the register";
    let slots = registers.iter().map(|register| PcrSlot::try_from(1_u32 << (*register).min(31)));
    let slots: Vec<PcrSlot> = slots.collect::<Result<_, _>>().map_err(tss(wrong))?;
    let builder = PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, &slots);
    builder.build().map_err(tss(wrong))
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

fn forget(context: &mut Context, key: KeyHandle) -> Result<(), Stop> {
    context.flush_context(key.into()).map_err(tss("forget a key"))
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

fn object_template(policy: &Policy) -> Result<Public, Stop> {
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

pub(crate) fn tss(what: &'static str) -> impl Fn(Error) -> Stop {
    move |error| Stop::Tss { what, error }
}

const NO_BANK: Stop = Stop::Unexpected("the TPM has no SHA-256 bank");
const STORAGE_KEY_HANDLE: u32 = 0x8100_0001;
/// Secure Boot and its keys.
const FIRMWARE: u8 = 7;
/// The image and its phase.
const IMAGE: u8 = 11;
/// What came beside the image.
const BESIDE: u8 = 12;
/// TPMA_PERMANENT.
const IN_LOCKOUT: u32 = 1 << 9;
