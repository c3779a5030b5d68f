//! Charters with their signatures, before and after these were checked.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use identity::{
    CharterId, Code, HashContext, Label, OrgId, PublicKey, SecretKey, Signature,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{CHARTER_BYTES_MAX, ROOT_KEYS_MAX},
};

use crate::charter::{Charter, id_of_body, list, short};

/// A charter with signatures that nobody has checked, and perhaps not all it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedCharter {
    charter: Charter,
    body: Vec<u8>,
    signatures: BTreeMap<PublicKey, Signature>,
}

/// A charter that is signed as the one before it and it itself ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCharter {
    charter: Charter,
    id: CharterId,
    org: OrgId,
    bytes: Vec<u8>,
}

/// Why a charter does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CharterError {
    /// This root key's signature is wrong.
    BadSignature {
        /// The key it names.
        signer: [u8; 32],
    },
    /// A cut names a key that this charter does not remove from a role.
    CutOfHeldKey {
        /// The key.
        key: [u8; 32],
    },
    /// Another charter of this version is held: root keys signed both.
    Fork {
        /// The version of both.
        version: u32,
        /// The one held.
        held: CharterId,
        /// The one refused.
        given: CharterId,
    },
    /// A role key that was removed, or held another role before.
    KeyReturns {
        /// The key.
        key: [u8; 32],
    },
    /// One key in two roles.
    KeyTwice {
        /// The key.
        key: [u8; 32],
    },
    /// The bytes are no charter.
    Malformed(DecodeError),
    /// Two admins of one name.
    NameTwice,
    /// Among the charters stands another record.
    NotACharter,
    /// There is no admin, or the threshold for revocations is not between 1 and their number.
    NoQuorum {
        /// The threshold.
        threshold: u8,
        /// The admins.
        admins: usize,
    },
    /// A first charter has version 1 and no parent; any other has a parent.
    NotGenesis,
    /// It does not continue the newest charter held.
    NotNext {
        /// The version that would.
        wanted: u32,
        /// Its version.
        got: u32,
    },
    /// Not more than half of the root keys are needed.
    RootThreshold {
        /// The threshold.
        threshold: u8,
        /// The root keys.
        keys: usize,
    },
    /// Signed by a key that is no root key of this charter or its parent.
    SignedByOther {
        /// The key.
        signer: [u8; 32],
    },
    /// Too few of its own root keys signed.
    TooFewOwn {
        /// The threshold.
        wanted: u8,
        /// The signatures.
        got: usize,
    },
    /// Too few root keys of its parent signed.
    TooFewParents {
        /// The threshold.
        wanted: u8,
        /// The signatures.
        got: usize,
    },
    /// The chain has as many charters as it may.
    TooMany {
        /// The most.
        max: usize,
    },
    /// A key with a component of small order, which has relatives that verify alike.
    TorsionKey {
        /// The key.
        key: [u8; 32],
    },
}

impl UnverifiedCharter {
    /// Signs a charter with some of the keys it needs; see [`Self::add_signature`] for the others.
    ///
    /// # Errors
    /// [`CharterError`] when the charter breaks a rule that needs no other charter to see.
    pub fn sign(charter: Charter, keys: &[&SecretKey]) -> Result<Self, CharterError> {
        let charter = charter.sorted();
        let body = charter.encode();
        let mut signed = Self { charter, body, signatures: BTreeMap::new() };
        for key in keys {
            signed.add_signature(key);
        }
        // What is signed is what will be read: a value that does not survive its encoding is refused here.
        let signed = Self::decode(&signed.to_bytes()).map_err(CharterError::Malformed)?;
        signed.charter.check_rules()?;
        signed.charter.check_torsion()?;
        Ok(signed)
    }

    /// Adds the signature of one more root key.
    pub fn add_signature(&mut self, key: &SecretKey) {
        self.signatures.insert(key.public(), key.sign(Label::CHARTER, &self.body));
    }

    /// Reads a charter with its signatures.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > CHARTER_BYTES_MAX {
            let fault = Fault::TooLong { max: CHARTER_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "charter", fault });
        }
        let mut r = Reader::new(bytes);
        let body = r.long_bytes("charter body", CHARTER_BYTES_MAX)?;
        let signatures = list(&mut r, "root signatures", 2 * ROOT_KEYS_MAX, |r| {
            Ok((r.key("signer")?, r.signature("root signature")?))
        })?;
        r.finish("end of signatures")?;
        ascending("root signatures", &signatures.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
        let charter = Charter::decode(body)?;
        Ok(Self { charter, body: body.to_vec(), signatures: signatures.into_iter().collect() })
    }

    /// The one encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.long_bytes(&self.body).count(self.signatures.len());
        for (signer, signature) in &self.signatures {
            out.bytes(signer.as_bytes()).bytes(&signature.0);
        }
        out.into_bytes()
    }

    /// What it says, unverified.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// Hash of its body.
    #[must_use]
    pub fn id(&self) -> CharterId {
        id_of_body(&self.body)
    }

    /// The keys that are said to have signed it.
    pub fn signers(&self) -> impl Iterator<Item = &PublicKey> {
        self.signatures.keys()
    }

    /// Checks it as the first charter of an org. Which org that is, [`VerifiedCharter::org`] tells.
    ///
    /// # Errors
    /// [`CharterError`].
    pub fn verify_genesis(self) -> Result<VerifiedCharter, CharterError> {
        if self.charter.version != 1 || self.charter.parent.is_some() {
            return Err(CharterError::NotGenesis);
        }
        if let Some(cut) = self.charter.cuts.first() {
            return Err(CharterError::CutOfHeldKey { key: *cut.key.as_bytes() });
        }
        let org = OrgId(HashContext::ORG_ID.hash(&[&self.body]));
        self.verify(org, None)
    }

    /// Checks it as the charter that follows `parent`. That no key of its returns from before
    /// `parent`, only [`crate::CharterChain::extend`] can see.
    pub(crate) fn verify_after(self, parent: &VerifiedCharter) -> Result<VerifiedCharter, CharterError> {
        let wanted = parent.charter.version.saturating_add(1);
        if self.charter.version != wanted || self.charter.parent != Some(parent.id) {
            return Err(CharterError::NotNext { wanted, got: self.charter.version });
        }
        let (before, after) = (parent.charter.roles(), self.charter.roles());
        for key in self.charter.cuts.iter().map(|cut| cut.key) {
            let removed = before.get(&key).is_some_and(|role| role.has_lane()) && !after.contains_key(&key);
            if !removed {
                return Err(CharterError::CutOfHeldKey { key: *key.as_bytes() });
            }
        }
        self.verify(parent.org, Some(&parent.charter))
    }

    fn verify(self, org: OrgId, parent: Option<&Charter>) -> Result<VerifiedCharter, CharterError> {
        self.charter.check_rules()?;
        let own: BTreeSet<_> = self.charter.root_keys.iter().collect();
        let parents: BTreeSet<_> = parent.iter().flat_map(|p| &p.root_keys).collect();
        for (signer, signature) in &self.signatures {
            if !own.contains(signer) && !parents.contains(signer) {
                return Err(CharterError::SignedByOther { signer: *signer.as_bytes() });
            }
            let wrong = |_| CharterError::BadSignature { signer: *signer.as_bytes() };
            signer.verify(Label::CHARTER, &self.body, signature).map_err(wrong)?;
        }
        let by = |keys: &BTreeSet<&PublicKey>| self.signers().filter(|s| keys.contains(s)).count();
        let (wanted, got) = (self.charter.root_threshold, by(&own));
        if got < usize::from(wanted) {
            return Err(CharterError::TooFewOwn { wanted, got });
        }
        if let Some(parent) = parent {
            let (wanted, got) = (parent.root_threshold, by(&parents));
            if got < usize::from(wanted) {
                return Err(CharterError::TooFewParents { wanted, got });
            }
        }
        self.charter.check_torsion()?;
        let (id, bytes) = (self.id(), self.to_bytes());
        Ok(VerifiedCharter { charter: self.charter, id, org, bytes })
    }
}

impl VerifiedCharter {
    /// What it says.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// Hash of its body.
    #[must_use]
    pub const fn id(&self) -> CharterId {
        self.id
    }

    /// The org it belongs to.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// Its encoding, signatures included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a key stands for in a charter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Root,
    Admin,
    /// Bound to the member that runs it.
    Gateway(PublicKey),
    /// A member that runs a gateway. No role: it may go and come again, but never hold one.
    Node,
}

impl Role {
    const fn has_lane(self) -> bool {
        match self {
            Self::Admin | Self::Gateway(_) => true,
            Self::Root | Self::Node => false,
        }
    }
}

impl Charter {
    /// Every key it names, with what it stands for; of a key named twice, one of the two.
    pub(crate) fn roles(&self) -> BTreeMap<PublicKey, Role> {
        self.keys().collect()
    }

    fn keys(&self) -> impl Iterator<Item = (PublicKey, Role)> {
        let roots = self.root_keys.iter().map(|key| (*key, Role::Root));
        let admins = self.admins.iter().map(|admin| (admin.key, Role::Admin));
        let gateways = self.gateways.iter();
        let gateways = gateways.flat_map(|g| [(g.key, Role::Gateway(g.node)), (g.node, Role::Node)]);
        roots.chain(admins).chain(gateways)
    }

    /// The rules that need no other charter and no arithmetic to see.
    fn check_rules(&self) -> Result<(), CharterError> {
        let keys = self.root_keys.len();
        let threshold = usize::from(self.root_threshold);
        if threshold > keys || 2 * threshold <= keys {
            return Err(CharterError::RootThreshold { threshold: self.root_threshold, keys });
        }
        let admins = self.admins.len();
        if self.revoke_threshold == 0 || usize::from(self.revoke_threshold) > admins {
            return Err(CharterError::NoQuorum { threshold: self.revoke_threshold, admins });
        }
        let names: BTreeSet<_> = self.admins.iter().map(|admin| &admin.name).collect();
        if names.len() != admins {
            return Err(CharterError::NameTwice);
        }
        let mut seen = BTreeSet::new();
        for (key, _) in self.keys() {
            if !seen.insert(key) {
                return Err(CharterError::KeyTwice { key: *key.as_bytes() });
            }
        }
        Ok(())
    }

    fn check_torsion(&self) -> Result<(), CharterError> {
        match self.keys().find(|(key, _)| !key.is_torsion_free()) {
            Some((key, _)) => Err(CharterError::TorsionKey { key: *key.as_bytes() }),
            None => Ok(()),
        }
    }
}

impl CharterError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Fork { .. } => Code::ForkDetected,
            Self::BadSignature { .. }
            | Self::CutOfHeldKey { .. }
            | Self::KeyReturns { .. }
            | Self::KeyTwice { .. }
            | Self::Malformed(_)
            | Self::NameTwice
            | Self::NotACharter
            | Self::NoQuorum { .. }
            | Self::NotGenesis
            | Self::NotNext { .. }
            | Self::RootThreshold { .. }
            | Self::SignedByOther { .. }
            | Self::TooFewOwn { .. }
            | Self::TooFewParents { .. }
            | Self::TooMany { .. }
            | Self::TorsionKey { .. } => Code::ChartersInvalid,
        }
    }
}

impl fmt::Display for CharterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature { signer } => {
                write!(f, "the signature of root key {} is wrong", short(signer))
            }
            Self::CutOfHeldKey { key } => {
                write!(f, "a limit is set for key {}, which is not removed from a role", short(key))
            }
            Self::Fork { version, held, given } => write!(
                f,
                "root keys signed two settings of version {version}: {} is held, {} is refused",
                held.short(),
                given.short()
            ),
            Self::KeyReturns { key } => {
                write!(f, "key {} held another role or was removed before", short(key))
            }
            Self::KeyTwice { key } => write!(f, "key {} stands in two places", short(key)),
            Self::Malformed(why) => write!(f, "{why}"),
            Self::NameTwice => f.write_str("two admins have one name"),
            Self::NotACharter => f.write_str("among the settings stands something else"),
            Self::NoQuorum { threshold, admins } => {
                write!(f, "{threshold} of {admins} admins cannot revoke: 1 to {admins} must be able to")
            }
            Self::NotGenesis => f.write_str("not the first settings of an org"),
            Self::NotNext { wanted, got } => {
                write!(f, "version {got} does not continue what is held; version {wanted} would")
            }
            Self::RootThreshold { threshold, keys } => {
                write!(f, "{threshold} of {keys} root keys is not more than half of them")
            }
            Self::SignedByOther { signer } => write!(f, "signed by {}, which is no root key", short(signer)),
            Self::TooFewOwn { wanted, got } => {
                write!(f, "{wanted} of the root keys it names must sign, {got} did")
            }
            Self::TooFewParents { wanted, got } => {
                write!(f, "{wanted} of the root keys before it must sign, {got} did")
            }
            Self::TooMany { max } => write!(f, "more than {max} versions"),
            Self::TorsionKey { key } => write!(f, "key {} is not torsion-free", short(key)),
        }
    }
}

impl core::error::Error for CharterError {}
