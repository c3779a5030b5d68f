//! When to try again who could not be reached.

use identity::{HashContext, PublicKey};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    pub(crate) until_ms: u64,
}

impl Backoff {
    /// After the first failure, or one more than `before`. The wait doubles from [`FIRST_MS`] to
    /// [`LONGEST_MS`], and half of it is spread by the seed, so that a thousand nodes that lost one
    /// member do not come back to it at one time.
    pub(crate) fn after(before: Option<Self>, now_ms: u64, seed: u64, peer: &PublicKey) -> Self {
        let failures = before.map_or(0, |b| b.failures).saturating_add(1);
        let full = FIRST_MS.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_MS);
        let jitter = spread(seed, peer, failures) % (full / 2 + 1);
        Self { failures, until_ms: now_ms.saturating_add(full / 2 + jitter) }
    }
}

impl Backoff {
    /// Whether it is over for so short a time that the next failure counts on top of it.
    pub(crate) const fn is_young(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.saturating_add(LONGEST_MS)
    }
}

/// A number below 2^64 that follows from a seed, a peer and a count.
pub(crate) fn spread(seed: u64, peer: &PublicKey, count: u32) -> u64 {
    let hash = HashContext::SYNC_RING.hash(&[&seed.to_le_bytes(), &count.to_le_bytes(), peer.as_bytes()]);
    hash.iter().take(8).fold(0, |n, &byte| n << 8 | u64::from(byte))
}

pub(crate) const FIRST_MS: u64 = 1_000;
pub(crate) const LONGEST_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_a_bound() {
        let peer = identity::SecretKey::from_seed(&[1; 32]).public();
        let mut backoff = None;
        for failures in 1..40u32 {
            let next = Backoff::after(backoff, 100, 7, &peer);
            let full = (FIRST_MS << (failures - 1).min(16)).min(LONGEST_MS);
            assert!((full / 2..=full).contains(&(next.until_ms - 100)), "{failures}: {next:?}");
            backoff = Some(next);
        }
    }
}
