//! Ready means: keys open, member list held and no older than it may be, a member still, at least one
//! other member has proved itself (or there is none), and the disk takes what is written.

use control::local::{FreshnessState, State, Status};
use identity::Code;
use serde_json::{Value, json};

/// What can be asked for by itself.
pub(super) const NAMES: [&str; 5] = ["keys", "list", "membership", "contact", "disk"];

/// Everything.
pub(super) fn all(status: &Status) -> (bool, String) {
    let verdicts: Vec<_> = NAMES.iter().map(|name| (name, why_not(name, status))).collect();
    let ready = verdicts.iter().all(|(_, why)| why.is_none());
    let components: serde_json::Map<String, Value> =
        verdicts.into_iter().map(|(name, why)| ((*name).to_owned(), shown(why.as_deref()))).collect();
    let body = json!({ "schema_version": 1, "ready": ready, "components": components });
    (ready, format!("{body}\n"))
}

/// One of [`NAMES`].
pub(super) fn one(name: &str, status: &Status) -> Option<(bool, String)> {
    let name = NAMES.iter().find(|known| **known == name)?;
    let why = why_not(name, status);
    Some((why.is_none(), format!("{}\n", shown(why.as_deref()))))
}

fn shown(why: Option<&str>) -> Value {
    match why {
        None => json!({ "ready": true }),
        Some(why) => json!({ "ready": false, "why": why }),
    }
}

fn why_not(name: &str, status: &Status) -> Option<String> {
    let no_org = matches!(status.state, State::NotEnrolled);
    let no_keys = matches!(status.state, State::IdentityUnavailable);
    let worst =
        || status.problems.first().map_or_else(String::new, |problem| format!(": {}", problem.code.0));
    let disk = status.problems.iter().find(|problem| problem.code.0 == Code::DiskRefused);
    match name {
        "keys" if no_org => Some("not part of an org".to_owned()),
        "keys" => no_keys.then(|| format!("the keys do not open{}", worst())),
        "list" if status.org.is_none() => Some("no member list".to_owned()),
        "list" => match status.freshness.map(|freshness| freshness.state) {
            Some(FreshnessState::Comparing) => Some("being compared with other members".to_owned()),
            Some(FreshnessState::Stale) => Some("not compared for too long".to_owned()),
            Some(FreshnessState::InStep | FreshnessState::Apart) | None => None,
        },
        "membership" if no_org => Some("not part of an org".to_owned()),
        "membership" => {
            matches!(status.state, State::NotMember).then(|| format!("not a member any more{}", worst()))
        }
        "contact" => match status.state {
            State::Ready => None,
            State::Alone | State::IdentityUnavailable | State::NotEnrolled | State::NotMember => {
                Some("no other member has proved itself yet".to_owned())
            }
        },
        _ => disk.map(|problem| problem.detail.clone()),
    }
}
