//! The org that is measured: one gateway, every member admitted under one invite, each key known by its number.

use identity::{HashContext, Name, OrgId, PublicKey, SecretKey, StatementId};
use org_trust::{
    Admin, Assurance, Charter, EnrolRequest, Gateway, Invite, NodeKeys, Payload, Place, Reason, Redemption,
    Revoke, Statement, UnverifiedCharter, VerifiedCharter,
};

use crate::Failure;

/// Admins of the org, each a key by its number.
const ADMINS: u32 = 2;

pub(crate) fn genesis() -> Result<VerifiedCharter, Failure> {
    let root = key("root", 0);
    let mut charter = Charter::genesis(Name::parse("bench")?, 1, vec![root.public()], [0; 16]);
    for n in 0..ADMINS {
        charter
            .admins
            .push(Admin { key: key("admin", n).public(), name: Name::parse(&format!("admin-{n}"))? });
    }
    charter.admins.sort_unstable_by_key(|admin| *admin.key.as_bytes());
    charter.gateways.push(Gateway { key: key("gateway", 0).public(), node: node(0) });
    Ok(UnverifiedCharter::sign(charter, &[&root])?.verify_genesis()?)
}

pub(crate) fn admits(
    org: &OrgId,
    invite: &StatementId,
    mut place: Place,
    count: u32,
) -> Result<Vec<Statement>, Failure> {
    let (gateway, secret) = (key("gateway", 0), key("invite", 0));
    let redemption = Redemption { invite: *invite, key: &secret, redeemer: gateway.public() };
    let mut admits = Vec::new();
    for n in 0..count {
        let keys = ["node", "wireguard", "boot"].map(|what| key(what, n));
        let [node, wireguard, boot] = &keys;
        let name = Name::parse(&format!("machine-{n}"))?;
        let keys = NodeKeys { node, wireguard, boot };
        let request = EnrolRequest::sign(org, keys, redemption, name, Assurance::File, [0; 32]);
        let admit = Statement::sign(org, &gateway, place, &Payload::from(request.claimed().clone()))?;
        place = admit.next_place(place.charter);
        admits.push(admit);
    }
    Ok(admits)
}

/// The invite of everybody.
pub(crate) fn invite(org: &OrgId, place: Place, uses: u32) -> Result<Statement, Failure> {
    let invite = Invite {
        key: key("invite", 0).public(),
        uses,
        redeemer: key("gateway", 0).public(),
        labels: Vec::new(),
        expires_unix_s: 0,
        note: String::new(),
        approval: false,
        attestation: false,
        tpms: Vec::new(),
    };
    Ok(Statement::sign(org, &key("admin", 0), place, &Payload::from(invite))?)
}

/// An admin revokes the nodes with these numbers.
pub(crate) fn revokes(
    org: &OrgId,
    admin: u32,
    mut place: Place,
    nodes: impl IntoIterator<Item = u32>,
) -> Result<Vec<Statement>, Failure> {
    let mut revokes = Vec::new();
    for n in nodes {
        let payload = Payload::Revoke(Revoke { node: node(n), reason: Reason::Lost, note: String::new() });
        let revoke = Statement::sign(org, &key("admin", admin), place, &payload)?;
        place = revoke.next_place(place.charter);
        revokes.push(revoke);
    }
    Ok(revokes)
}

pub(crate) fn node(n: u32) -> PublicKey {
    key("node", n).public()
}

pub(crate) fn key(what: &str, n: u32) -> SecretKey {
    SecretKey::from_seed(&HashContext::STATEMENT_ID.hash(&[what.as_bytes(), &n.to_le_bytes()]))
}
