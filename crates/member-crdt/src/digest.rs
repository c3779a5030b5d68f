//! The digest over everything held: 256 buckets by the first byte of an id, and a root over them.

use std::{collections::BTreeSet, sync::OnceLock};

use identity::{HashContext, Heads};

/// An id of a charter, statement or report, as the digest knows it.
pub type RecordId = [u8; 32];

/// Number of buckets.
pub(crate) const BUCKETS: usize = 256;

/// A set of ids with a digest that costs one bucket to bring up to date.
#[derive(Clone, Debug)]
pub(crate) struct IdTree {
    buckets: Vec<Bucket>,
    root: OnceLock<Heads>,
    count: u64,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    ids: BTreeSet<RecordId>,
    digest: OnceLock<[u8; 32]>,
}

impl IdTree {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS], root: OnceLock::new(), count: 0 }
    }

    pub(crate) fn insert(&mut self, id: RecordId) {
        let Some(bucket) = self.buckets.get_mut(usize::from(id[0])) else { return };
        if bucket.ids.insert(id) {
            bucket.digest = OnceLock::new();
            self.root = OnceLock::new();
            self.count += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: &RecordId) {
        let Some(bucket) = self.buckets.get_mut(usize::from(id[0])) else { return };
        if bucket.ids.remove(id) {
            bucket.digest = OnceLock::new();
            self.root = OnceLock::new();
            self.count -= 1;
        }
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The ids of one bucket, ascending.
    pub(crate) fn bucket(&self, number: u8) -> impl Iterator<Item = &RecordId> {
        self.buckets.get(usize::from(number)).into_iter().flat_map(|bucket| &bucket.ids)
    }

    /// One digest for each bucket; an empty bucket's is zero.
    pub(crate) fn digests(&self) -> impl Iterator<Item = [u8; 32]> {
        self.buckets.iter().map(Bucket::digest)
    }

    pub(crate) fn heads(&self) -> Heads {
        *self.root.get_or_init(|| {
            let all: Vec<u8> = self.digests().flatten().collect();
            Heads(HashContext::HEADS_ROOT.hash(&[&all]))
        })
    }
}

impl Bucket {
    fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            if self.ids.is_empty() {
                return [0; 32];
            }
            let parts: Vec<&[u8]> = self.ids.iter().map(<[u8; 32]>::as_slice).collect();
            HashContext::HEADS_BUCKET.hash(&parts)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_the_set_alone() {
        let ids: Vec<RecordId> = (0..50u8).map(|i| HashContext::STATEMENT_ID.hash(&[&[i]])).collect();
        let (mut a, mut b) = (IdTree::new(), IdTree::new());
        assert_eq!(a.heads(), b.heads());
        for id in &ids {
            a.insert(*id);
        }
        for id in ids.iter().rev().chain(&ids) {
            b.insert(*id);
        }
        assert_eq!((a.heads(), a.count()), (b.heads(), 50));
        b.remove(&ids[7]);
        assert_ne!(a.heads(), b.heads());
        b.insert(ids[7]);
        assert_eq!(a.heads(), b.heads());
    }
}
