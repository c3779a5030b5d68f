//! What was refused or closed here and why, for `muster debug why REF`. In memory only.

use std::collections::{BTreeMap, VecDeque};

use conn_auth::Reference;
use identity::{Code, PublicKey, limits::REFUSALS_KEPT_MAX};

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// In full, for people.
    pub detail: String,
    /// The key, if one was proved.
    pub key: Option<PublicKey>,
    /// What was asked for; empty if it came to no proof.
    pub action: String,
    /// From where.
    pub source: String,
    /// Milliseconds since 1970 by this machine's clock.
    pub at_unix_ms: u64,
}

/// The newest refusals, by reference.
#[derive(Debug, Default)]
pub struct Refusals {
    kept: BTreeMap<Reference, Refused>,
    order: VecDeque<Reference>,
    total: u64,
    shown_unix_ms: Option<u64>,
    hidden: u64,
}

impl Refusals {
    /// Remembers one, and whether it was `shown` in the log; the oldest goes.
    pub fn remember(&mut self, reference: Reference, refused: Refused, shown: bool) {
        if shown {
            (self.shown_unix_ms, self.hidden) = (Some(refused.at_unix_ms), 0);
        } else {
            self.hidden = self.hidden.saturating_add(1);
        }
        self.total = self.total.saturating_add(1);
        if self.kept.insert(reference, refused).is_none() {
            self.order.push_back(reference);
        }
        if self.order.len() > REFUSALS_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
    }

    /// What is remembered of one.
    #[must_use]
    pub fn get(&self, reference: &Reference) -> Option<&Refused> {
        self.kept.get(reference)
    }

    /// When one was last shown in the log.
    #[must_use]
    pub const fn shown_unix_ms(&self) -> Option<u64> {
        self.shown_unix_ms
    }

    /// How many were not shown since then.
    #[must_use]
    pub const fn hidden(&self) -> u64 {
        self.hidden
    }

    /// How many there were since start.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_keeps_the_newest_within_the_bound() {
        let mut refusals = Refusals::default();
        let reference = |n: usize| Reference(u64::try_from(n).unwrap().to_le_bytes());
        for n in 0..REFUSALS_KEPT_MAX + 10 {
            let refused = Refused {
                code: Code::UnknownKey,
                detail: String::new(),
                key: None,
                action: String::new(),
                source: String::new(),
                at_unix_ms: 0,
            };
            refusals.remember(reference(n), refused, false);
        }
        assert!(refusals.get(&reference(9)).is_none() && refusals.get(&reference(10)).is_some());
        assert_eq!(refusals.kept.len(), REFUSALS_KEPT_MAX);
        assert_eq!(refusals.total(), REFUSALS_KEPT_MAX as u64 + 10);
        assert_eq!(refusals.hidden(), REFUSALS_KEPT_MAX as u64 + 10);
    }
}
