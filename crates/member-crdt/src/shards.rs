//! An ordered map in 256 parts, each shared until it changes: a snapshot costs 256 reference counts,
//! a change after it costs one part.

use std::{borrow::Borrow, collections::BTreeMap, sync::Arc};

const PARTS: usize = 256;

/// Spreads keys over parts. Only a spread: nothing secret or agreed depends on it.
pub(crate) trait Spread {
    fn spread(&self) -> u8;
}

impl Spread for [u8] {
    fn spread(&self) -> u8 {
        let hash = self.iter().fold(0x811c_9dc5_u32, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let [a, b, c, d] = hash.to_le_bytes();
        a ^ b ^ c ^ d
    }
}

impl Spread for [u8; 32] {
    fn spread(&self) -> u8 {
        self.as_slice().spread()
    }
}

#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    parts: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), len: self.len }
    }
}

impl<K: Ord + Clone, V: Clone> Shards<K, V> {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(BTreeMap::new());
        Self { parts: vec![empty; PARTS], len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The part that holds what spreads like `by`.
    pub(crate) fn part<S: Spread + ?Sized>(&self, by: &S) -> Option<&BTreeMap<K, V>> {
        self.parts.get(usize::from(by.spread())).map(|part| &**part)
    }

    pub(crate) fn get<Q: Ord + Spread + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.part(key)?.get(key)
    }

    pub(crate) fn insert<S: Spread + ?Sized>(&mut self, by: &S, key: K, value: V) {
        let Some(part) = self.parts.get_mut(usize::from(by.spread())) else { return };
        if Arc::make_mut(part).insert(key, value).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn remove<S: Spread + ?Sized, Q: Ord + ?Sized>(&mut self, by: &S, key: &Q)
    where
        K: Borrow<Q>,
    {
        let Some(part) = self.parts.get_mut(usize::from(by.spread())) else { return };
        if part.contains_key(key) && Arc::make_mut(part).remove(key).is_some() {
            self.len -= 1;
        }
    }

    /// What stands in parts that it does not share with the other, changed or not.
    pub(crate) fn apart_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        let both = self.parts.iter().zip(&other.parts);
        both.filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs)).flat_map(|(ours, _)| ours.iter())
    }

    /// Everything, part by part; ascending only within a part.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| part.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_not_changed_by_what_follows() {
        let mut map: Shards<[u8; 32], u8> = Shards::new();
        map.insert(&[1; 32], [1; 32], 1);
        let before = map.clone();
        map.insert(&[1; 32], [1; 32], 2);
        map.insert(&[2; 32], [2; 32], 3);
        map.remove(&[9; 32], &[9; 32]);
        assert_eq!((before.get(&[1; 32]), before.len()), (Some(&1), 1));
        assert_eq!((map.get(&[1; 32]), map.len()), (Some(&2), 2));
        map.remove(&[2; 32], &[2; 32]);
        assert_eq!((map.values().count(), map.len()), (1, 1));
    }
}
