//! Changes: handed in, their place, who has them.

use identity::{CharterId, OrgId, PublicKey, StatementId};
use serde::{Deserialize, Serialize};

use crate::text::{Bytes, Text};

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

/// A page of everything held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Records in the encoding of `org_trust::Record`, each applicable after those before it.
    pub records: Vec<Bytes>,
    /// Where the next page begins; none after the last one.
    pub next: Option<u64>,
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
