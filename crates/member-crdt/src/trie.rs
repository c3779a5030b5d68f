//! The Merkle radix trie over the ids of everything held; its root digest is `heads`.
//!
//! Its shape depends on the set alone: below a prefix lies a leaf while at most [`LEAF_IDS_MAX`] ids share
//! the prefix, and a branch of sixteen otherwise. So two sets are equal iff their roots are, and they
//! differ exactly below the prefixes whose digests do.

use std::sync::OnceLock;

use identity::{HashContext, Heads};

/// An id of a charter, statement or report, as the trie knows it.
pub type RecordId = [u8; 32];

/// Half of a digest or id, as frames have them: no second one with the same half can be made.
pub(crate) type Short = [u8; 16];

/// Children of a branch: one for each value of four bits.
pub(crate) const FAN: usize = 16;
/// Ids in one leaf. As many short ids take the bytes of one branch, so a leaf is never dearer to tell.
pub(crate) const LEAF_IDS_MAX: usize = 16;
/// The longest prefix with more than [`LEAF_IDS_MAX`] ids below it.
pub(crate) const BRANCH_NIBBLES_MAX: u8 = 62;

/// The first nibbles of ids; what follows them is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    bits: RecordId,
    nibbles: u8,
}

/// A set of ids with a digest that costs one path to bring up to date.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdTrie {
    root: Node,
    count: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    digest: OnceLock<[u8; 32]>,
    below: Below,
}

#[derive(Clone, Debug)]
enum Below {
    /// Ascending.
    Leaf(Vec<RecordId>),
    Branch(Box<[Node; FAN]>),
}

/// What lies below a prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// These ids, ascending.
    Leaf(&'a [RecordId]),
    /// More than fit into a leaf.
    Branch(&'a [Node; FAN]),
}

impl Prefix {
    /// Of every id.
    pub(crate) const ROOT: Self = Self { bits: [0; 32], nibbles: 0 };

    /// None when the bits beyond the nibbles are not zero, or when it is as long as an id.
    pub(crate) fn new(bits: RecordId, nibbles: u8) -> Option<Self> {
        let prefix = Self { bits, nibbles };
        let cut = cut(&bits, nibbles);
        (nibbles < 64 && cut == bits).then_some(prefix)
    }

    /// Of the ids that begin with these 16 bytes.
    pub(crate) fn of_short(short: &Short) -> Self {
        let mut bits = [0; 32];
        for (out, byte) in bits.iter_mut().zip(short) {
            *out = *byte;
        }
        Self { bits, nibbles: 32 }
    }

    pub(crate) const fn nibbles(&self) -> u8 {
        self.nibbles
    }

    /// The bytes that hold the nibbles.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bits.get(..usize::from(self.nibbles.div_ceil(2))).unwrap_or(&self.bits)
    }

    pub(crate) fn child(&self, nibble: u8) -> Self {
        let mut child = Self { nibbles: self.nibbles.saturating_add(1), ..*self };
        if let Some(byte) = child.bits.get_mut(usize::from(self.nibbles / 2)) {
            *byte |= if self.nibbles.is_multiple_of(2) { nibble << 4 } else { nibble & 0x0f };
        }
        child
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.nibbles <= other.nibbles && cut(&other.bits, self.nibbles) == self.bits
    }

    pub(crate) fn covers_short(&self, short: &Short) -> bool {
        // Beyond sixteen bytes the ids say nothing; what they do say must fit.
        let id = Self::of_short(short);
        let said = Self { bits: cut(&self.bits, self.nibbles.min(32)), nibbles: self.nibbles.min(32) };
        said.covers(&id)
    }

    fn begins(&self, id: &RecordId) -> bool {
        cut(id, self.nibbles) == self.bits
    }
}

impl IdTrie {
    pub(crate) fn insert(&mut self, id: RecordId) {
        self.count += u64::from(self.root.insert(id, 0));
    }

    pub(crate) fn remove(&mut self, id: &RecordId) {
        self.count -= u64::from(self.root.remove(id, 0));
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads(self.root.digest())
    }

    pub(crate) fn view(&self, prefix: &Prefix) -> View<'_> {
        let mut node = &self.root;
        for depth in 0..prefix.nibbles {
            match &node.below {
                Below::Branch(children) => match children.get(nibble(&prefix.bits, depth)) {
                    Some(child) => node = child,
                    None => return View::Leaf(&[]),
                },
                Below::Leaf(ids) => {
                    let from = ids.partition_point(|id| *id < prefix.bits);
                    let ids = ids.get(from..).unwrap_or_default();
                    let until = ids.partition_point(|id| prefix.begins(id));
                    return View::Leaf(ids.get(..until).unwrap_or_default());
                }
            }
        }
        node.view()
    }

    /// The ids that begin so, ascending.
    pub(crate) fn ids_under(&self, prefix: &Prefix) -> impl Iterator<Item = &RecordId> {
        let mut open = vec![self.view(prefix)];
        let mut leaf = [].iter();
        core::iter::from_fn(move || {
            loop {
                if let Some(id) = leaf.next() {
                    return Some(id);
                }
                match open.pop()? {
                    View::Leaf(ids) => leaf = ids.iter(),
                    View::Branch(children) => open.extend(children.iter().rev().map(Node::view)),
                }
            }
        })
    }
}

impl Node {
    fn insert(&mut self, id: RecordId, depth: u8) -> bool {
        match &mut self.below {
            Below::Leaf(ids) => {
                let Err(at) = ids.binary_search(&id) else { return false };
                ids.insert(at, id);
                if ids.len() > LEAF_IDS_MAX {
                    let mut children = Box::new(core::array::from_fn(|_| Self::default()));
                    for id in core::mem::take(ids) {
                        insert_below(&mut children, id, depth);
                    }
                    self.below = Below::Branch(children);
                }
            }
            Below::Branch(children) => {
                if !insert_below(children, id, depth) {
                    return false;
                }
            }
        }
        self.digest = OnceLock::new();
        true
    }

    fn remove(&mut self, id: &RecordId, depth: u8) -> bool {
        match &mut self.below {
            Below::Leaf(ids) => {
                let Ok(at) = ids.binary_search(id) else { return false };
                ids.remove(at);
            }
            Below::Branch(children) => {
                let child = children.get_mut(nibble(id, depth));
                if !child.is_some_and(|child| child.remove(id, depth.saturating_add(1))) {
                    return false;
                }
                if let Some(ids) = few(children) {
                    self.below = Below::Leaf(ids);
                }
            }
        }
        self.digest = OnceLock::new();
        true
    }

    /// Zero of an empty leaf.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| match &self.below {
            Below::Leaf(ids) if ids.is_empty() => [0; 32],
            Below::Leaf(ids) => {
                let parts: Vec<&[u8]> = ids.iter().map(<[u8; 32]>::as_slice).collect();
                HashContext::HEADS_LEAF.hash(&parts)
            }
            Below::Branch(children) => {
                let digests: [[u8; 32]; FAN] =
                    core::array::from_fn(|n| children.get(n).map_or([0; 32], Self::digest));
                HashContext::HEADS_BRANCH.hash(&[digests.as_flattened()])
            }
        })
    }

    fn view(&self) -> View<'_> {
        match &self.below {
            Below::Leaf(ids) => View::Leaf(ids),
            Below::Branch(children) => View::Branch(children),
        }
    }
}

impl Default for Below {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

fn insert_below(children: &mut [Node; FAN], id: RecordId, depth: u8) -> bool {
    let child = children.get_mut(nibble(&id, depth));
    child.is_some_and(|child| child.insert(id, depth.saturating_add(1)))
}

/// Everything below a branch, once it fits into a leaf again.
fn few(children: &[Node; FAN]) -> Option<Vec<RecordId>> {
    let mut all = Vec::new();
    for child in children {
        let Below::Leaf(ids) = &child.below else { return None };
        if all.len() + ids.len() > LEAF_IDS_MAX {
            return None;
        }
        all.extend(ids);
    }
    Some(all)
}

/// The value of the nibble behind so many others.
fn nibble(id: &RecordId, depth: u8) -> usize {
    let byte = id.get(usize::from(depth / 2)).copied().unwrap_or(0);
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

/// The first nibbles, zeros behind them.
fn cut(id: &RecordId, nibbles: u8) -> RecordId {
    let (whole, half) = (usize::from(nibbles / 2), nibbles % 2 == 1);
    core::array::from_fn(|at| match id.get(at) {
        Some(byte) if at < whole => *byte,
        Some(byte) if at == whole && half => byte & 0xf0,
        Some(_) | None => 0,
    })
}

/// The first half.
pub(crate) fn shortened(whole: &[u8; 32]) -> Short {
    let mut half = [0; 16];
    for (out, byte) in half.iter_mut().zip(whole) {
        *out = *byte;
    }
    half
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ids(n: u16) -> Vec<RecordId> {
        (0..n).map(|i| HashContext::STATEMENT_ID.hash(&[&i.to_le_bytes()])).collect()
    }

    fn of<'a>(ids: impl IntoIterator<Item = &'a RecordId>) -> IdTrie {
        let mut trie = IdTrie::default();
        ids.into_iter().for_each(|id| trie.insert(*id));
        trie
    }

    #[test]
    fn the_digest_depends_on_the_set_alone() {
        let ids = ids(500);
        assert_eq!(of([]).heads(), Heads([0; 32]));
        let (a, mut b) = (of(&ids), of(ids.iter().rev().chain(&ids)));
        assert_eq!((a.heads(), a.count()), (b.heads(), 500));
        b.remove(&ids[7]);
        assert_ne!(a.heads(), b.heads());
        b.insert(ids[7]);
        assert_eq!(a.heads(), b.heads());
    }

    #[test]
    fn ids_made_to_share_a_long_prefix_are_a_deep_path_and_no_more() {
        // Seventeen ids that differ in their last byte alone: more than any hash function allows.
        let alike = (0..17u8).map(|n| {
            let mut id = [7; 32];
            id[31] = n;
            id
        });
        let alike: Vec<RecordId> = alike.collect();
        let mut trie = of(&alike);
        let mut deep = Prefix::ROOT;
        for depth in 0..BRANCH_NIBBLES_MAX {
            assert!(matches!(trie.view(&deep), View::Branch(_)), "{depth}");
            deep = deep.child(if depth % 2 == 0 { 0 } else { 7 });
        }
        assert!(matches!(trie.view(&deep), View::Branch(_)));
        assert!(matches!(trie.view(&deep.child(0)), View::Leaf(ids) if ids.len() == 16));
        assert!(matches!(trie.view(&deep.child(1)), View::Leaf(ids) if ids.len() == 1));
        trie.remove(&alike[0]);
        assert!(matches!(trie.view(&Prefix::ROOT), View::Leaf(ids) if ids.len() == 16));
        assert_eq!(trie.heads(), of(&alike[1..]).heads());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is put in and taken out, the trie is the one of the set that is left, and every
        /// prefix shows exactly the ids that begin with it.
        #[test]
        fn a_trie_is_its_set(
            steps in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..=255), 0..200),
            at in (0u8..4, 0u8..=255, 0u8..8),
        ) {
            let mut set = BTreeSet::new();
            let mut trie = IdTrie::default();
            for (put, first, second) in steps {
                let mut id = [0; 32];
                (id[0], id[1], id[20]) = (first << 6, second & 0x33, second);
                if put { trie.insert(id); set.insert(id); } else { trie.remove(&id); set.remove(&id); }
            }
            prop_assert_eq!((trie.heads(), trie.count()), (of(&set).heads(), set.len() as u64));
            let mut bits = [0; 32];
            (bits[0], bits[1]) = (at.0 << 6, at.1);
            let prefix = Prefix::new(cut(&bits, at.2), at.2).unwrap();
            let under: Vec<RecordId> = trie.ids_under(&prefix).copied().collect();
            let expected: Vec<RecordId> = set.iter().filter(|id| cut(id, at.2) == cut(&bits, at.2)).copied().collect();
            prop_assert_eq!(matches!(trie.view(&prefix), View::Leaf(_)), expected.len() <= LEAF_IDS_MAX);
            prop_assert_eq!(under, expected);
        }
    }
}
