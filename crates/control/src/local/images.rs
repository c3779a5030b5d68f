//! Node images.

use serde::{Deserialize, Serialize};

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
