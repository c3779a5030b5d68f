//! What `musterd --survey` says of the settings that it would run with, and `muster config` shows.
//!
//! No setting holds a secret: keys lie in the state directory, and settings say where.

use identity::Code;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::Text;

/// All that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Files, in the order in which they are read.
    pub files: Vec<String>,
    /// Every setting.
    pub settings: Vec<Set>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Section and name.
    pub key: String,
    /// As a file would have it; null where nothing is set.
    pub value: Value,
    /// File or environment variable; none of a default.
    pub from: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// What it is called.
    pub code: Text<Code>,
    /// File or environment variable.
    pub place: String,
    /// What exactly, with the place.
    pub detail: String,
}
