//! Files that this machine keeps for members.

use serde::{Deserialize, Serialize};

/// All of them, and how much room there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    /// Bytes that may be kept; 0 when nothing is.
    pub max: u64,
    /// Bytes that may be kept for one member.
    pub member: u64,
    /// Bytes that are taken, also by what is on its way.
    pub used: u64,
    /// By hash.
    pub files: Vec<KeptBlob>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptBlob {
    /// Its BLAKE3 hash.
    pub hash: String,
    /// Its length.
    pub bytes: u64,
    /// Whether all of it has come.
    pub whole: bool,
    /// The members that put it.
    pub by: Vec<String>,
}
