//! The rings: orders of keys that nobody chooses.

use std::{collections::BTreeSet, sync::Arc};

use identity::{
    HashContext, PublicKey,
    limits::{FLOOD_DIAL_MAX, FLOOD_RING_FROM, SYNC_DIAL_MAX},
};

/// A place on the ring.
pub(crate) type Point = [u8; 32];

/// The rings of the members: two whose sessions compare tips, and in a large org a third. Copies share
/// them.
#[derive(Clone, Debug)]
pub struct Rings {
    compared: Arc<[Ring; SYNC_DIAL_MAX]>,
    flooded: Option<Arc<[Ring; FLOOD_DIAL_MAX]>>,
}

impl Rings {
    /// Of the members in good standing.
    pub fn new(members: impl IntoIterator<Item = PublicKey>) -> Self {
        let members: BTreeSet<PublicKey> = members.into_iter().collect();
        let ring = |place: fn(&PublicKey) -> Point| Ring::new(place, members.iter().copied());
        let is_large = members.len() >= FLOOD_RING_FROM;
        Self {
            compared: Arc::new([first as fn(&PublicKey) -> Point, second].map(ring)),
            flooded: is_large.then(|| Arc::new([ring(third)])),
        }
    }

    pub(crate) fn contains(&self, key: &PublicKey) -> bool {
        self.compared().any(|ring| ring.contains(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ring> {
        self.compared().chain(self.flooded.iter().flat_map(|rings| rings.iter()))
    }

    /// Those whose sessions compare tips.
    pub(crate) fn compared(&self) -> impl Iterator<Item = &Ring> {
        self.compared.iter()
    }
}

/// Members in the order of their places.
#[derive(Debug)]
pub(crate) struct Ring {
    place: fn(&PublicKey) -> Point,
    places: Vec<(Point, PublicKey)>,
}

impl Ring {
    pub(crate) fn new(place: fn(&PublicKey) -> Point, members: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut places: Vec<(Point, PublicKey)> = members.into_iter().map(|key| (place(&key), key)).collect();
        places.sort_unstable();
        places.dedup();
        Self { place, places }
    }

    pub(crate) fn contains(&self, key: &PublicKey) -> bool {
        self.places.binary_search(&((self.place)(key), *key)).is_ok()
    }

    /// Everyone, once, from behind a member on, around the ring.
    pub(crate) fn behind(&self, key: &PublicKey) -> impl Iterator<Item = &PublicKey> {
        let point = (self.place)(key);
        let start = self.places.partition_point(|(place, _)| *place <= point);
        let (before, after) = self.places.split_at(start.min(self.places.len()));
        after.iter().chain(before).map(|(_, key)| key)
    }

    /// Which of these members is the last before another on the ring.
    pub(crate) fn last_before<'a>(
        &self,
        key: &PublicKey,
        of: impl Iterator<Item = &'a PublicKey>,
    ) -> Option<&'a PublicKey> {
        let point = (self.place)(key);
        of.max_by_key(|other| {
            let place = (self.place)(other);
            (place < point, place)
        })
    }

    /// Which of these members is the first behind another on the ring.
    pub(crate) fn first_behind<'a>(
        &self,
        key: &PublicKey,
        of: impl Iterator<Item = &'a PublicKey>,
    ) -> Option<&'a PublicKey> {
        let point = (self.place)(key);
        of.min_by_key(|other| {
            let place = (self.place)(other);
            (place < point, place)
        })
    }
}

/// A member's place on the first ring.
pub(crate) fn first(key: &PublicKey) -> Point {
    HashContext::SYNC_RING.hash(&[key.as_bytes()])
}

/// A member's place on the second: as good as drawn anew, so that each ring crosses the other at random
/// and any two members are a few steps apart.
pub(crate) fn second(key: &PublicKey) -> Point {
    HashContext::SYNC_RING.hash(&[&first(key)])
}

/// A member's place on the third.
pub(crate) fn third(key: &PublicKey) -> Point {
    HashContext::SYNC_RING.hash(&[&second(key)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_walked_once_from_any_point() {
        let keys: Vec<PublicKey> =
            (1..6u8).map(|i| identity::SecretKey::from_seed(&[i; 32]).public()).collect();
        for place in [first, second, third] {
            let ring = Ring::new(place, keys.iter().copied().chain(keys.iter().copied()));
            for key in &keys {
                let walk: Vec<&PublicKey> = ring.behind(key).collect();
                assert_eq!(walk.len(), 5);
                assert_eq!(walk.last(), Some(&key), "oneself comes last");
                let others = walk.iter().copied().filter(|other| *other != key);
                assert_eq!(ring.last_before(key, others.clone()), walk.get(3).copied());
                assert_eq!(ring.first_behind(key, others), walk.first().copied());
                assert!(ring.contains(key));
            }
        }
        let nobody = Ring::new(first, []);
        let somebody = keys.first().copied().unwrap();
        assert!(nobody.behind(&somebody).next().is_none());
    }
}
