//! What happened lately, as musterd of this machine saw it.

use identity::{Code, PublicKey};
use serde::{Deserialize, Serialize};

use crate::text::Text;

/// What is kept of the events after a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The oldest first.
    pub events: Vec<Event>,
    /// The number of the newest event that there was; 0 before the first. One below the number that was asked
    /// for says that musterd was started again.
    pub last: u64,
    /// How many of those after the number are kept no more.
    pub lost: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// From 1 on since musterd started.
    pub number: u64,
    /// Milliseconds of CLOCK_REALTIME since 1970.
    pub at_unix_ms: u64,
    /// What kind.
    pub kind: EventKind,
    /// The machine that it is about; none if no key was proved, or if it is about all.
    pub node: Option<Text<PublicKey>>,
    /// Its name, if it is or was a member.
    pub name: Option<String>,
    /// The code, where one belongs to it.
    pub code: Option<Text<Code>>,
    /// In full; may be empty.
    pub detail: String,
    /// For `muster debug why`, where there is more to say.
    pub reference: Option<String>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Two machines use one key.
    CloneSuspected,
    /// A session of `link` with a member ended, and there is no other one.
    LinkDown,
    /// A member is linked.
    LinkUp,
    /// A member has another name, another role or label, or other keys.
    MemberChanged,
    /// One of a member's keys is also claimed elsewhere.
    MemberInConflict,
    /// A machine joined.
    MemberJoined,
    /// A member left by itself.
    MemberLeft,
    /// A suspended member is let in again.
    MemberResumed,
    /// Admins revoked a member.
    MemberRevoked,
    /// Admins suspended a member.
    MemberSuspended,
    /// A machine wants to join and waits for an admin.
    MemberWaits,
    /// The org's policy is another one.
    PolicyChanged,
    /// Somebody was refused, or a session was cut. Of many within a second one is told.
    Refused,
    /// The org's settings changed: admins, gateways, TLS CAs.
    SettingsChanged,
}

impl EventKind {
    /// Its name, as it is encoded.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloneSuspected => "clone-suspected",
            Self::LinkDown => "link-down",
            Self::LinkUp => "link-up",
            Self::MemberChanged => "member-changed",
            Self::MemberInConflict => "member-in-conflict",
            Self::MemberJoined => "member-joined",
            Self::MemberLeft => "member-left",
            Self::MemberResumed => "member-resumed",
            Self::MemberRevoked => "member-revoked",
            Self::MemberSuspended => "member-suspended",
            Self::MemberWaits => "member-waits",
            Self::PolicyChanged => "policy-changed",
            Self::Refused => "refused",
            Self::SettingsChanged => "settings-changed",
        }
    }
}
