//! What an org begins with: its keys, its first settings, and its first member, signed.

use identity::{Code, Name, SecretKey};
use org_trust::{
    Admin, Admit, Assurance, CaState, Charter, Gateway, NodeKeys, Payload, Place, Statement, TlsCa,
    UnverifiedCharter, VerifiedCharter,
};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Outcome},
    key_file::{AdminKey, OrgKeys},
    random, tls_keys,
};

/// The names that the founder chose.
pub(crate) struct Names {
    pub(crate) org: Name,
    pub(crate) admin: Name,
    pub(crate) node: Name,
}

/// Everything made for a new org, before any of it is on disk.
pub(crate) struct Founding {
    pub(crate) org_keys: OrgKeys,
    pub(crate) admin: AdminKey,
    pub(crate) ca: tls_keys::TlsCa,
    pub(crate) genesis: VerifiedCharter,
    pub(crate) node: SecretKey,
    pub(crate) wireguard: SecretKey,
    pub(crate) boot: SecretKey,
    pub(crate) gateway: SecretKey,
    pub(crate) preboot_secret: Zeroizing<[u8; 32]>,
    /// The change by which the admin admits this machine.
    pub(crate) admit: Statement,
}

impl Founding {
    pub(crate) fn new(names: Names, assurance: Assurance) -> Outcome<Self> {
        let (root, admin) = (random::key()?, random::key()?);
        let (node, wireguard, boot, gateway) =
            (random::key()?, random::key()?, random::key()?, random::key()?);
        let ca = tls_keys::TlsCa::generate(&names.org)?;

        let mut charter = Charter::genesis(names.org.clone(), 1, vec![root.public()], *random::bytes()?);
        charter.admins.push(Admin { key: admin.public(), name: names.admin.clone() });
        charter.gateways.push(Gateway { key: gateway.public(), node: node.public() });
        charter.tls_cas.push(TlsCa { state: CaState::Active, certificate: ca.certificate_der().to_vec() });
        let genesis = UnverifiedCharter::sign(charter, &[&root])
            .and_then(UnverifiedCharter::verify_genesis)
            .map_err(|e| Failure::new(e.code(), e))?;

        let org = genesis.org();
        let keys = NodeKeys { node: &node, wireguard: &wireguard, boot: &boot };
        let admit = Admit::by_admin(&org, keys, admin.public(), names.node, assurance);
        let payload = Payload::from(admit);
        let place =
            Place { charter: genesis.id(), lane: payload.lane(), seq: 0, prev: *genesis.id().as_bytes() };
        let admit = Statement::sign(&org, &admin, place, &payload)
            .map_err(|e| Failure::new(Code::ChangeMalformed, e))?;

        Ok(Self {
            org_keys: OrgKeys {
                org,
                name: names.org,
                root,
                tls_ca: ca.key(),
                release: random::key()?,
                image: Some(random::image_key()?),
            },
            admin: AdminKey { org, name: names.admin, key: admin },
            ca,
            genesis,
            node,
            wireguard,
            boot,
            gateway,
            preboot_secret: random::bytes()?,
            admit,
        })
    }
}
