//! How a machine is, and what it is connected with.

use std::net::Ipv6Addr;

use identity::{CharterId, Code, Heads, Name, OrgId, PublicKey, RosterDigest};
use serde::{Deserialize, Serialize};

use super::{Failed, Member};
use crate::text::Text;

/// How far musterd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Keys unsealed, member list held, at least one member authenticated or alone by design.
    Ready,
    /// Keys unsealed, member list held, no member authenticated yet; or it takes a change that is not here
    /// to say whether this machine is a member.
    Alone,
    /// This machine's own keys do not open or do not fit; `problems` says why.
    IdentityUnavailable,
    /// Not part of an org.
    NotEnrolled,
    /// This machine was revoked, or it left.
    NotMember,
}

/// How this machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Release of musterd.
    pub version: String,
    /// How far it is.
    pub state: State,
    /// What is wrong, the worst first.
    pub problems: Vec<Failed>,
    /// The org, when there is one.
    pub org: Option<OrgStatus>,
    /// This machine as the member list has it.
    pub node: Option<Member>,
    /// Whether this musterd holds a gateway's key.
    pub gateway: bool,
    /// Milliseconds since musterd started.
    pub up_ms: u64,
    /// Tunnels, sessions and what passes them.
    pub links: LinkStatus,
    /// How good the member list is; none without an org.
    pub freshness: Option<Freshness>,
    /// Members that it keeps in step with, and whether they answer.
    pub neighbours: Vec<Neighbour>,
}

/// Whether what this machine holds was compared with what other members hold, first-hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// How it stands.
    pub state: FreshnessState,
    /// Milliseconds since a member last answered; none if not since start or sleep.
    pub compared_ms_ago: Option<u64>,
}

/// How the comparison with other members stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreshnessState {
    /// Compared, and in contact; or there is no other member.
    InStep,
    /// Other members are being heard; nothing else is answered.
    Comparing,
    /// Compared, but nobody is in contact.
    Apart,
    /// Not compared for too long.
    Stale,
}

/// The org and the member list as held here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgStatus {
    /// Id.
    pub id: Text<OrgId>,
    /// Name.
    pub name: Text<Name>,
    /// Number of the settings in force.
    pub settings: u32,
    /// Id of the settings in force.
    pub settings_id: Text<CharterId>,
    /// Digest of the resolved member list: equal on two machines that agree.
    pub list: Text<RosterDigest>,
    /// Digest of everything held.
    pub heads: Text<Heads>,
    /// Records held.
    pub records: u64,
    /// Members in good standing.
    pub members: u64,
    /// Members revoked, left, or in conflict.
    pub former: u64,
    /// Authors with two different changes at one place.
    pub forks: u64,
}

/// Sessions and tunnels in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkStatus {
    /// Members with a link up.
    pub linked: u64,
    /// Sessions of every action.
    pub sessions: u64,
    /// Refusals since start.
    pub refused: u64,
    /// Bytes received in tunnels.
    pub received: u64,
    /// Bytes sent in tunnels.
    pub sent: u64,
}

/// Whether a member answers this machine. It says nothing about standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer in time, or another says so.
    Suspect,
    /// It has not answered for a while.
    Silent,
}

/// A member that this machine keeps in step with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// As people see it.
    pub name: String,
    /// Whether it answers.
    pub liveness: Liveness,
    /// As in [`Member::heard_ms_ago`].
    pub heard_ms_ago: Option<u64>,
}

/// Who opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opened {
    /// The other side.
    There,
    /// This machine.
    Here,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The member's name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// Its action: `link`, `sync`, `ping`.
    pub action: String,
    /// Who opened it.
    pub opened: Opened,
    /// How long it has been up.
    pub up_ms: u64,
    /// Its reference, the same in both machines' logs.
    pub reference: String,
}

/// A measured way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// Its name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Microseconds until TCP through the tunnel stood, a new tunnel's handshake included.
    pub connect_us: u64,
    /// Microseconds of the four messages.
    pub auth_us: u64,
    /// Microseconds of each echo.
    pub echo_us: Vec<u64>,
}

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linked {
    /// Its name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Whether it was up before it was asked for.
    pub already: bool,
}

/// A refusal, or a session that was closed, as the machine that did it remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reference.
    pub reference: String,
    /// The code.
    pub code: Text<Code>,
    /// In full.
    pub detail: String,
    /// The key, if one was proved.
    pub key: Option<Text<PublicKey>>,
    /// The member's name, if the key is or was one's.
    pub name: Option<String>,
    /// What was asked for; empty if it came to no proof.
    pub action: String,
    /// From where.
    pub source: String,
    /// Milliseconds of CLOCK_REALTIME since 1970.
    pub at_unix_ms: u64,
}
