//! The ring: an order of keys that nobody chooses.

use identity::{HashContext, PublicKey};

/// A place on the ring.
pub(crate) type Point = [u8; 32];

/// Members in the order of their places.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    places: Vec<(Point, PublicKey)>,
}

impl Ring {
    pub(crate) fn new(members: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut places: Vec<(Point, PublicKey)> = members.into_iter().map(|key| (point(&key), key)).collect();
        places.sort_unstable();
        places.dedup();
        Self { places }
    }

    pub(crate) fn contains(&self, key: &PublicKey) -> bool {
        self.places.binary_search(&(point(key), *key)).is_ok()
    }

    /// Everyone, once, from behind a point on, around the ring.
    pub(crate) fn behind(&self, point: &Point) -> impl Iterator<Item = &PublicKey> {
        let start = self.places.partition_point(|(place, _)| place <= point);
        let (before, after) = self.places.split_at(start.min(self.places.len()));
        after.iter().chain(before).map(|(_, key)| key)
    }
}

/// A member's place.
pub(crate) fn point(key: &PublicKey) -> Point {
    HashContext::SYNC_RING.hash(&[key.as_bytes()])
}

/// Where a member's second session goes: a point that no other member shares, so that these sessions
/// cross the ring at random and any two members are a few steps apart.
pub(crate) fn chord(key: &PublicKey) -> Point {
    HashContext::SYNC_RING.hash(&[&point(key)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_walked_once_from_any_point() {
        let keys: Vec<PublicKey> =
            (1..6u8).map(|i| identity::SecretKey::from_seed(&[i; 32]).public()).collect();
        let ring = Ring::new(keys.iter().copied().chain(keys.iter().copied()));
        for key in &keys {
            let walk: Vec<&PublicKey> = ring.behind(&point(key)).collect();
            assert_eq!(walk.len(), 5);
            assert_eq!(walk.last(), Some(&key), "oneself comes last");
            assert!(ring.contains(key));
        }
        assert!(Ring::default().behind(&[0; 32]).next().is_none());
    }
}
