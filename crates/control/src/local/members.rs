//! Who is a member, who may become one, and with which keys.

use std::net::{Ipv6Addr, SocketAddr};

use identity::{PublicKey, StatementId, Tag, TpmId};
use serde::{Deserialize, Serialize};

use super::Liveness;
use crate::text::Text;

/// What the member list says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberStatus {
    /// In good standing.
    Good,
    /// Revoked for good.
    Revoked,
    /// Left by itself.
    Left,
    /// Shares a key with another member; neither counts.
    KeyConflict,
    /// Shut out until an admin resumes it.
    Suspended,
    /// Joined, and waits for an admin's approval.
    Pending,
    /// It takes a change that is not here to say whether it is a member.
    Unsettled,
}

/// One member, with what this machine knows of it first-hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Name as people see it: with a piece of the key when two members share one.
    pub name: String,
    /// Node key.
    pub node: Text<PublicKey>,
    /// The node key that it joined with, by which changes name it: whoever knows the machine knows this one,
    /// whatever keys it has made since.
    pub first: Text<PublicKey>,
    /// WireGuard key, in the Ed25519 form of the member list.
    pub wireguard: Text<PublicKey>,
    /// Boot key.
    pub boot: Text<PublicKey>,
    /// Overlay address.
    pub address: Ipv6Addr,
    /// How its keys are stored.
    pub assurance: String,
    /// The TPM that spoke for it when it joined, to the gateway that admitted it.
    pub tpm: Option<Text<TpmId>>,
    /// What it may do beyond what every member may.
    pub roles: Vec<Text<Tag>>,
    /// Labels from an admin, or else from its invite.
    pub labels: Vec<Text<Tag>>,
    /// The changes that gave it name, roles and labels, if any did: the next such change replaces them.
    pub assigns: Vec<Text<StatementId>>,
    /// What the list says of it.
    pub status: MemberStatus,
    /// By whom, why and with which changes, if it was revoked or suspended.
    pub revoked: Option<Revoked>,
    /// Id of the change that admitted it.
    pub admit: Text<StatementId>,
    /// The key that admitted it.
    pub admitted_by: Text<PublicKey>,
    /// The invite it used; none for the org's first member.
    pub invite: Option<Text<StatementId>>,
    /// Whether this is the machine that answers.
    pub this: bool,
    /// Whether it is one of the org's gateways.
    pub gateway: bool,
    /// Whether a link to it is up.
    pub linked: bool,
    /// Where it says it can be reached.
    pub endpoints: Vec<SocketAddr>,
    /// Release it says it runs; empty when unknown.
    pub version: String,
    /// Whether two machines use its key, as its reports show.
    pub cloned: bool,
    /// Whether it answers, if this machine keeps in step with it.
    pub liveness: Option<Liveness>,
    /// Milliseconds since it was last heard first-hand, by a handshake of its tunnel, a session, a frame
    /// or a probe of it; none if not since musterd started. What others pass on of it does not count.
    pub heard_ms_ago: Option<u64>,
}

/// A revocation or suspension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Names of the admins.
    pub by: Vec<String>,
    /// One of `unspecified`, `lost`, `stolen`, `compromised`, `retired`.
    pub reason: String,
    /// What the admin wrote.
    pub note: String,
    /// The changes.
    pub changes: Vec<Text<StatementId>>,
}

/// Whether an invite can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InviteStatus {
    /// Yes.
    Open,
    /// All its uses are spent.
    UsedUp,
    /// An admin cancelled it.
    Cancelled,
    /// Its date has passed by this machine's clock.
    Expired,
}

/// One invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Id.
    pub id: Text<StatementId>,
    /// Whether it can be used.
    pub status: InviteStatus,
    /// Machines it admits.
    pub uses: u32,
    /// Those that used it, in the order they came.
    pub used_by: Vec<InviteUse>,
    /// Key of the gateway that redeems it.
    pub redeemer: Text<PublicKey>,
    /// Labels it gives.
    pub labels: Vec<Text<Tag>>,
    /// Last moment, in seconds since 1970; 0 for none.
    pub expires_unix_s: u64,
    /// What the admin wrote.
    pub note: String,
    /// Name of the admin, or the key when it has no name.
    pub by: String,
}

/// A machine that used an invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteUse {
    /// Its name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
}

/// How far a rotation of this machine's keys is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// None is under way.
    None,
    /// The new keys are being made, or the change that names them is being stored.
    Making,
    /// The old keys are used until a member knows of the new ones.
    Telling,
    /// The new keys are used and the old ones valid, until a gateway has served the new ones.
    Proving,
    /// The new keys are used, and the old ones stay valid until they are ended by a command.
    Kept,
    /// The old keys are being ended.
    Ending,
}

/// This machine's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How far a rotation is.
    pub rotation: Rotation,
    /// All it has had, newest first.
    pub keys: Vec<KeySet>,
}

/// Three keys that a machine has or had at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// Node key.
    pub node: Text<PublicKey>,
    /// WireGuard key, in the Ed25519 form of the member list.
    pub wireguard: Text<PublicKey>,
    /// Boot key.
    pub boot: Text<PublicKey>,
    /// The change that made them this machine's.
    pub change: Text<StatementId>,
    /// Whether members still accept them.
    pub valid: bool,
    /// Whether musterd uses them.
    pub used: bool,
}

/// A request to be a gateway, for the holder of the org's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRequest {
    /// The line, as `org_trust::GatewayRequest` writes it.
    pub line: String,
    /// The role key in it.
    pub key: Text<PublicKey>,
    /// Whether the key was made just now.
    pub new: bool,
}
