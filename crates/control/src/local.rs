//! What `muster` asks of musterd on the control socket, and what musterd answers.
//!
//! One connection carries requests one after the other, each answered by one [`Answer`]. A request
//! never carries a private key: changes come signed, and musterd verifies them like any peer's.

use std::net::{Ipv6Addr, SocketAddr};

use identity::{CharterId, Code, Heads, Name, OrgId, PublicKey, RosterDigest, StatementId, Tag, TpmId};
use serde::{Deserialize, Serialize};

use crate::text::{Bytes, Text};

/// A question, or something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How this machine is. Answered by [`Answer::Status`], also while there is no identity.
    Status {},
    /// Every member, by name. [`Answer::Members`].
    Members {},
    /// One member by name or by the first digits of its key. [`Answer::Members`] with one entry.
    Member {
        /// Name or key prefix.
        node: String,
    },
    /// The sessions of this machine. [`Answer::Sessions`].
    Sessions {},
    /// Reaches a member and measures. [`Answer::Ping`].
    Ping {
        /// Name or key prefix.
        node: String,
        /// Echoes to send, 1 to 64.
        count: u32,
    },
    /// Makes sure that a link to a member is up. [`Answer::Linked`].
    Link {
        /// Name or key prefix.
        node: String,
    },
    /// Takes signed changes and org settings, in the encoding of `org_trust::Record` one each.
    /// Answered by [`Answer::Submitted`] once they are on disk.
    Submit {
        /// Records, in an order in which each can be applied.
        records: Vec<Bytes>,
    },
    /// Where an author's next change stands. [`Answer::Place`].
    Place {
        /// The author's key.
        author: Text<PublicKey>,
        /// 0 for the main lane, 1 for revocations.
        lane: u8,
    },
    /// Who has applied a change, as they say themselves. [`Answer::Coverage`].
    Coverage {
        /// The id of the change, or of org settings.
        change: Text<StatementId>,
    },
    /// Why this machine refused or closed something. [`Answer::Why`].
    Why {
        /// The reference the refused side was told: 16 hexadecimal digits.
        reference: String,
    },
    /// Everything held, in pages: org settings first, then changes, then reports. [`Answer::Export`].
    Export {
        /// 0 at first, then what the last page's `next` says.
        from: u64,
    },
    /// All invites and who used them. [`Answer::Invites`].
    Invites {},
    /// This machine leaves the org for good. [`Answer::Left`].
    Leave {},
    /// Makes the key of the gateway role, if this machine has none that can be used, and signs a
    /// request to be a gateway. [`Answer::GatewayRequest`].
    PrepareGateway {
        /// 32 bytes: the raw Ed25519 public key that the TLS certificate is for.
        tls_key: Bytes,
        /// `HOST:PORT` where machines will dial it.
        address: String,
    },
    /// Keeps a key for shares of disk keys beside this gateway's other keys. [`Answer::ShareKeys`].
    KeepShareKey {
        /// Its epoch.
        epoch: u32,
        /// 32 bytes.
        key: Bytes,
    },
    /// Forgets all of them. [`Answer::ShareKeys`].
    ForgetShareKeys {},
    /// This machine's keys, and how far a rotation is. [`Answer::Keys`].
    Keys {},
    /// Makes new keys beside the old ones and tells the other members. Answered by [`Answer::Keys`] once the
    /// change is on disk; what follows, [`Request::Keys`] shows.
    RotateKeys {
        /// Whether the old keys stay valid until [`Request::EndKeys`].
        keep_old: bool,
    },
    /// Ends the old keys that a rotation kept. [`Answer::Keys`].
    EndKeys {},
    /// How far the image of a signed release has come here; once it is whole, machines that boot are to
    /// run it. [`Answer::ImageUpload`].
    OfferImage {
        /// The signed release.
        release: Bytes,
    },
    /// A part of that image. [`Answer::ImageUpload`].
    UploadImage {
        /// The signed release.
        release: Bytes,
        /// Where in the image the part begins.
        at: u64,
        /// At most 1 MiB.
        part: Bytes,
    },
    /// The image that this machine runs, and the one it passes on. [`Answer::Images`].
    Images {},
    /// Asks a member for a file that it passes on. [`Answer::Blob`].
    AskForBlob {
        /// Name or key prefix.
        node: String,
        /// At most 8 frames, each a question of `blob-get`.
        questions: Vec<Bytes>,
    },
}

/// What musterd answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Members`] and [`Request::Member`].
    Members(Vec<Member>),
    /// To [`Request::Sessions`].
    Sessions(Vec<Session>),
    /// To [`Request::Ping`].
    Ping(Ping),
    /// To [`Request::Link`].
    Linked(Linked),
    /// To [`Request::Submit`].
    Submitted(Submitted),
    /// To [`Request::Place`].
    Place(Place),
    /// To [`Request::Coverage`].
    Coverage(Coverage),
    /// To [`Request::Why`].
    Why(Why),
    /// To [`Request::Export`].
    Export(Export),
    /// To [`Request::Invites`].
    Invites(Vec<Invite>),
    /// To [`Request::Leave`].
    Left(Left),
    /// To [`Request::PrepareGateway`].
    GatewayRequest(GatewayRequest),
    /// To [`Request::KeepShareKey`] and [`Request::ForgetShareKeys`].
    ShareKeys(ShareKeys),
    /// To [`Request::Keys`], [`Request::RotateKeys`] and [`Request::EndKeys`].
    Keys(Keys),
    /// To [`Request::OfferImage`] and [`Request::UploadImage`].
    ImageUpload(ImageUpload),
    /// To [`Request::Images`].
    Images(Box<Images>),
    /// To [`Request::AskForBlob`]: the member's frames, as they came.
    Blob(Vec<Bytes>),
    /// To anything that cannot be done.
    Failed(Failed),
}

/// Shares of which epochs this gateway gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareKeys {
    /// In ascending order.
    pub epochs: Vec<u32>,
    /// Whether their keys lie in a plain file.
    pub plain: bool,
}

/// How far an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageUpload {
    /// Its number.
    pub release: u32,
    /// Bytes that are there.
    pub at: u64,
    /// All of it.
    pub bytes: u64,
}

/// Node images, as this machine knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The one that runs here; none on a machine that was not booted by an image.
    pub running: Option<RunningImage>,
    /// Those that this machine can start.
    pub slots: Vec<Slot>,
    /// The one that machines which boot are told to run, if this machine passes one on.
    pub wanted: Option<HeldImage>,
}

/// The image that runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningImage {
    /// Its number.
    pub release: u32,
    /// The lowest that this machine starts.
    pub floor: u32,
    /// Whether it was ready, in this start or an earlier one.
    pub ready: bool,
    /// How often it may be started again without; none if it was ready when it started.
    pub tries_left: Option<u8>,
    /// A release that was given up for it.
    pub given_up: Option<u32>,
    /// Where it lies; none when it could not be kept.
    pub slot: Option<String>,
}

/// A place for a node image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// `a` or `b`.
    pub name: String,
    /// The number of the image in it.
    pub release: u32,
    /// Whether it was ready once.
    pub ready: bool,
}

/// An image that is passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldImage {
    /// Its number.
    pub release: u32,
    /// The lowest number that machines start once it was ready.
    pub minimum: u32,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 hash.
    pub hash: String,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// The code.
    pub code: Text<Code>,
    /// What exactly, in lower case without a period; may be empty.
    pub detail: String,
}

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

/// Changes that are on this machine's disk and on their way to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// What became of each record, in order.
    pub records: Vec<Taken>,
    /// When the last of them was on disk: nanoseconds of CLOCK_REALTIME since 1970.
    pub fsync_unix_ns: u64,
    /// Members that they were passed on to at once, who pass them on.
    pub told: u64,
    /// Other members that there are.
    pub others: u64,
    /// Whether this machine is no member any more, by these changes. Those told have then shown that they
    /// have them.
    pub removed: bool,
}

/// One record that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// 64 hexadecimal digits: the record's id.
    pub id: String,
    /// Whether it was news here.
    pub new: bool,
}

/// Where an author's next change stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The org.
    pub org: Text<OrgId>,
    /// The settings in force.
    pub charter: Text<CharterId>,
    /// Its number in the lane.
    pub seq: u64,
    /// 32 bytes: what it follows.
    pub prev: Bytes,
}

/// Who has applied a change and stored it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// The change.
    pub change: Text<StatementId>,
    /// Members in good standing that it is about to reach, this machine included.
    pub of: u64,
    /// How many have it.
    pub applied: u64,
    /// Those that have not said so.
    pub missing: Vec<Missing>,
}

/// A member that has not confirmed a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Its node key.
    pub node: Text<PublicKey>,
    /// As in [`Member::heard_ms_ago`].
    pub heard_ms_ago: Option<u64>,
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

/// A page of everything held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Records in the encoding of `org_trust::Record`, each applicable after those before it.
    pub records: Vec<Bytes>,
    /// Where the next page begins; none after the last one.
    pub next: Option<u64>,
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

/// This machine has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The change that says so.
    pub change: Text<StatementId>,
    /// Members that have shown that they have it; the others hear it from them.
    pub told: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_unknown_field_is_refused() {
        let request = serde_json::to_string(&Request::Status {}).unwrap();
        assert_eq!(request, r#"{"status":{}}"#);
        assert_eq!(serde_json::from_str::<Request>(&request).unwrap(), Request::Status {});
        for wrong in
            [r#"{"status":{"all":true}}"#, r#"{"statuses":{}}"#, r#"{"ping":{"node":"a"}}"#, r#"{"link":{}}"#]
        {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_reads_back() {
        let answer = Answer::Failed(Failed { code: Text(Code::NoSuchMember), detail: "web-9".to_owned() });
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"failed":{"code":"MU-2006","detail":"web-9"}}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }
}
