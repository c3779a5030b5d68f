//! What `muster` asks of musterd on the control socket, and what musterd answers.
//!
//! One connection carries requests one after the other, each answered by one [`Answer`]. A request
//! never carries a private key: changes come signed, and musterd verifies them like any peer's.

mod blobs;
mod changes;
mod events;
mod images;
mod members;
mod services;
mod status;

use identity::{Code, PublicKey, StatementId};
use serde::{Deserialize, Serialize};

use crate::text::{Bytes, Text};

pub use blobs::{Blobs, KeptBlob};
pub use changes::{Coverage, Export, Left, Missing, Place, Submitted, Taken};
pub use events::{Event, EventKind, Events};
pub use images::{HeldImage, ImageUpload, Images, RunningImage, Slot};
pub use members::{
    GatewayRequest, Invite, InviteStatus, InviteUse, KeySet, Keys, Member, MemberStatus, Revoked, Rotation,
};
pub use services::{Connected, LocalAddress, LocalAddressError, Service, Whois};
pub use status::{
    Freshness, FreshnessState, LinkStatus, Linked, Liveness, Neighbour, Opened, OrgStatus, Ping, Session,
    State, Status, Why,
};

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
    /// What happened lately. [`Answer::Events`].
    Events {
        /// After the event with this number; 0 for all that are kept.
        after: u64,
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
        /// `HOST:PORT` or `wss://HOST:PORT` where machines will dial it.
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
    /// The files that this machine keeps for members. [`Answer::Blobs`].
    Blobs {},
    /// Keeps one of them no longer, whoever put it. [`Answer::BlobDropped`].
    DropBlob {
        /// Its hash.
        hash: String,
    },
    /// Reaches a member's service. Once it is answered by [`Answer::Connected`], the connection carries that
    /// session's bytes and nothing else: [`crate::stream`].
    Connect {
        /// Name or key prefix.
        node: String,
        /// The service; or `blob-put`, whose frames are then the connection's pieces, one each.
        action: String,
    },
    /// Offers a program of this machine to the members that a policy lets use it, from now on and after each
    /// start. [`Answer::Services`].
    Expose {
        /// The name of the service.
        action: String,
        /// Where the program is.
        to: Text<LocalAddress>,
        /// Whether it is told who the peer is, by a header of the PROXY protocol, version 2.
        proxy_protocol: bool,
    },
    /// Offers it no longer, and ends its sessions. [`Answer::Services`].
    Unexpose {
        /// The name of the service.
        action: String,
    },
    /// What this machine offers. [`Answer::Services`].
    Services {},
    /// Whose an overlay address is, or a connection of a service by its local port. [`Answer::Whois`].
    Whois {
        /// An address of the overlay, or `ADDRESS:PORT` as the program sees its peer.
        address: String,
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
    /// To [`Request::Events`].
    Events(Events),
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
    /// To [`Request::Blobs`].
    Blobs(Box<Blobs>),
    /// To [`Request::DropBlob`].
    BlobDropped {},
    /// To [`Request::Connect`].
    Connected(Connected),
    /// To [`Request::Expose`], [`Request::Unexpose`] and [`Request::Services`].
    Services(Vec<Service>),
    /// To [`Request::Whois`].
    Whois(Box<Whois>),
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

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// The code.
    pub code: Text<Code>,
    /// What exactly, in lower case without a period; may be empty.
    pub detail: String,
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
