//! The body of a charter: who holds which role, from which version on.

use identity::{
    CharterId, HashContext, Name, OrgId, PublicKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    encode_hex,
    limits::{ADMIN_KEYS_MAX, CA_CERTIFICATE_BYTES_MAX, CUTS_MAX, GATEWAYS_MAX, ROOT_KEYS_MAX, TLS_CAS_MAX},
};

use crate::payload::Lane;

/// What one version of the org's settings says. Lists are sorted when it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charter {
    /// 1 for the genesis charter, then one more each time.
    pub version: u32,
    /// The charter before it; none for genesis.
    pub parent: Option<CharterId>,
    /// The org's name, for people.
    pub name: Name,
    /// How many root keys must sign; more than half of them.
    pub root_threshold: u8,
    /// The keys that decide over charters.
    pub root_keys: Vec<PublicKey>,
    /// The keys that decide over membership: one a device of an administrator.
    pub admins: Vec<Admin>,
    /// How many admins must revoke a key before it is revoked.
    pub revoke_threshold: u8,
    /// The gateways, which admit machines that hold an invite.
    pub gateways: Vec<Gateway>,
    /// The CAs of the gateways' TLS certificates.
    pub tls_cas: Vec<TlsCa>,
    /// What still counts of the role keys that this charter removes.
    pub cuts: Vec<Cut>,
    /// Makes two orgs of the same keys and name different.
    pub salt: [u8; 16],
}

/// An admin key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admin {
    /// The key.
    pub key: PublicKey,
    /// The person and device, for people.
    pub name: Name,
}

/// A gateway: its role key and the member that runs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// The role key; signs Admits and the server's proofs on the gateway.
    pub key: PublicKey,
    /// The node key of the member.
    pub node: PublicKey,
}

/// A TLS CA of the org.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsCa {
    /// Where it stands in its life.
    pub state: CaState,
    /// The certificate (DER). Charters are judged without looking into it, so that two releases with
    /// different X.509 parsers hold the same charters valid; [`crate::TrustBundle`] looks.
    pub certificate: Vec<u8>,
}

/// Where a CA stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaState {
    /// Handed out, signs nothing yet.
    Next,
    /// Signs the gateways' certificates.
    Active,
    /// Still accepted, signs nothing more.
    Retiring,
    /// Refused wherever it stands in a chain.
    Retired,
}

/// What still counts of one lane of a removed role key: everything up to `tip`. Of a lane that no
/// cut names nothing counts any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// The removed role key.
    pub key: PublicKey,
    /// Its lane.
    pub lane: Lane,
    /// The last statement that counts. Several tips of one lane are the branches of a fork.
    pub tip: StatementId,
}

impl Charter {
    /// The first charter of an org whose settings are `roots` (threshold and keys) and nothing else
    /// yet; add admins, gateways and CAs to the fields.
    #[must_use]
    pub const fn genesis(name: Name, root_threshold: u8, root_keys: Vec<PublicKey>, salt: [u8; 16]) -> Self {
        Self {
            version: 1,
            parent: None,
            name,
            root_threshold,
            root_keys,
            admins: Vec::new(),
            revoke_threshold: 1,
            gateways: Vec::new(),
            tls_cas: Vec::new(),
            cuts: Vec::new(),
            salt,
        }
    }

    /// A copy that continues this one: the next version, this as its parent, and no cuts yet.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut next = self.clone();
        next.version = self.version.saturating_add(1);
        next.parent = Some(self.id());
        next.cuts.clear();
        next
    }

    /// Hash of the body as it will be signed.
    #[must_use]
    pub fn id(&self) -> CharterId {
        id_of_body(&self.encode())
    }

    /// Hash of the body under which the org is known if this is its genesis charter.
    #[must_use]
    pub fn org_id(&self) -> OrgId {
        OrgId(HashContext::ORG_ID.hash(&[&self.encode()]))
    }

    /// The admin with this key.
    #[must_use]
    pub fn admin(&self, key: &PublicKey) -> Option<&Admin> {
        self.admins.iter().find(|a| a.key == *key)
    }

    /// The gateway with this role key.
    #[must_use]
    pub fn gateway(&self, key: &PublicKey) -> Option<&Gateway> {
        self.gateways.iter().find(|g| g.key == *key)
    }

    /// With every list in the order of the encoding.
    pub(crate) fn sorted(mut self) -> Self {
        self.root_keys.sort();
        self.admins.sort();
        self.gateways.sort();
        self.tls_cas.sort_by(|a, b| a.certificate.cmp(&b.certificate));
        self.cuts.sort();
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.clone().sorted().encode_sorted()
    }

    fn encode_sorted(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT).u32(self.version);
        out.bytes(self.parent.unwrap_or(CharterId([0; 32])).as_bytes());
        out.short_bytes(self.name.as_str().as_bytes());
        out.u8(self.root_threshold).count(self.root_keys.len());
        for key in &self.root_keys {
            out.bytes(key.as_bytes());
        }
        out.u8(self.revoke_threshold).count(self.admins.len());
        for admin in &self.admins {
            out.bytes(admin.key.as_bytes()).short_bytes(admin.name.as_str().as_bytes());
        }
        out.count(self.gateways.len());
        for gateway in &self.gateways {
            out.bytes(gateway.key.as_bytes()).bytes(gateway.node.as_bytes());
        }
        out.count(self.tls_cas.len());
        for ca in &self.tls_cas {
            out.u8(ca.state.number()).long_bytes(&ca.certificate);
        }
        out.count(self.cuts.len());
        for cut in &self.cuts {
            out.bytes(cut.key.as_bytes()).u8(cut.lane.number()).bytes(cut.tip.as_bytes());
        }
        out.u8(RESERVED).bytes(&self.salt);
        out.into_bytes()
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        r.exactly("charter format", FORMAT)?;
        let version = r.u32("charter version")?;
        let parent = Some(CharterId(r.array("parent")?)).filter(|id| id.0 != [0; 32]);
        let name = r.name("org name")?;
        let root_threshold = r.u8("root threshold")?;
        let root_keys = list(&mut r, "root keys", ROOT_KEYS_MAX, |r| r.key("root key"))?;
        ascending("root keys", &root_keys)?;
        let revoke_threshold = r.u8("revoke threshold")?;
        let admins = list(&mut r, "admins", ADMIN_KEYS_MAX, |r| {
            Ok(Admin { key: r.key("admin key")?, name: r.name("admin name")? })
        })?;
        ascending("admins", &keys(&admins, |a| a.key))?;
        let gateways = list(&mut r, "gateways", GATEWAYS_MAX, |r| {
            Ok(Gateway { key: r.key("gateway key")?, node: r.key("gateway node")? })
        })?;
        ascending("gateways", &keys(&gateways, |g| g.key))?;
        let tls_cas = list(&mut r, "tls cas", TLS_CAS_MAX, TlsCa::read)?;
        ascending("tls cas", &tls_cas.iter().map(|ca| ca.certificate.as_slice()).collect::<Vec<_>>())?;
        let cuts = list(&mut r, "cuts", CUTS_MAX, |r| {
            let key = r.key("cut key")?;
            Ok(Cut { key, lane: Lane::read(r, "cut lane")?, tip: StatementId(r.array("cut tip")?) })
        })?;
        ascending("cuts", &cuts)?;
        r.exactly("release keys", RESERVED)?;
        let salt = r.array("salt")?;
        r.finish("end of charter")?;
        Ok(Self {
            version,
            parent,
            name,
            root_threshold,
            root_keys,
            admins,
            revoke_threshold,
            gateways,
            tls_cas,
            cuts,
            salt,
        })
    }
}

impl TlsCa {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let got = r.u8("ca state")?;
        let fault = Fault::Unknown { got: got.into() };
        let state = CaState::from_number(got).ok_or(DecodeError { field: "ca state", fault })?;
        let certificate = r.long_bytes("ca certificate", CA_CERTIFICATE_BYTES_MAX)?.to_vec();
        if certificate.is_empty() {
            return Err(DecodeError { field: "ca certificate", fault: Fault::OutOfRange { got: 0 } });
        }
        Ok(Self { state, certificate })
    }
}

impl CaState {
    /// Every state in the order of a CA's life.
    pub const ALL: &[Self] = &[Self::Next, Self::Active, Self::Retiring, Self::Retired];

    /// The word shown to people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Next => 1,
            Self::Active => 2,
            Self::Retiring => 3,
            Self::Retired => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.number() == number)
    }
}

pub(crate) fn id_of_body(body: &[u8]) -> CharterId {
    CharterId(HashContext::CHARTER_ID.hash(&[body]))
}

/// Items behind a `u8` count.
pub(crate) fn list<T>(
    r: &mut Reader<'_>,
    field: &'static str,
    max: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = r.count(field, max)?;
    (0..count).map(|_| read(r)).collect()
}

/// The first eight digits of a key, for people.
pub(crate) fn short(key: &[u8; 32]) -> String {
    encode_hex(key).chars().take(8).collect()
}

fn keys<T>(items: &[T], key: impl Fn(&T) -> PublicKey) -> Vec<PublicKey> {
    items.iter().map(key).collect()
}

const FORMAT: u8 = 1;
/// The count of release keys; no release of format 1 writes any.
const RESERVED: u8 = 0;
