//! Walking two tries at once: each side tells nodes of its own, the other answers with its nodes below
//! them where the digests differ, until a leaf shows what is missing on either side.
//!
//! The answer depends on what was told and what is held, and on nothing remembered.

use std::collections::BTreeSet;

use crate::trie::{FAN, IdTrie, Prefix, RecordId, Short, View, shortened};

/// One node of somebody's trie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) prefix: Prefix,
    pub(crate) below: Below,
}

/// What lies below it, as frames have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Every id.
    Leaf(Vec<Short>),
    /// The digest of each child.
    Branch(Box<[Short; FAN]>),
}

/// What to say to a node that was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Nodes of ours.
    pub(crate) nodes: Vec<Told>,
    /// Ids that are held here alone.
    pub(crate) lacks: Vec<RecordId>,
    /// Ids that are held there alone.
    pub(crate) wants: Vec<Short>,
}

/// Our node at a prefix.
pub(crate) fn tell(trie: &IdTrie, prefix: Prefix) -> Told {
    let below = match trie.view(&prefix) {
        View::Leaf(ids) => {
            let mut ids: Vec<Short> = ids.iter().map(shortened).collect();
            // Somebody may go to the length of making two ids with one half.
            ids.dedup();
            Below::Leaf(ids)
        }
        View::Branch(children) => {
            let digest = |n: usize| children.get(n).map_or([0; 16], |child| shortened(&child.digest()));
            Below::Branch(Box::new(core::array::from_fn(digest)))
        }
    };
    Told { prefix, below }
}

/// Compares a node of the peer with ours; at most `most` ids are named as lacking there.
pub(crate) fn answer(trie: &IdTrie, told: &Told, most: usize) -> Answer {
    let mut answer = Answer::default();
    match (&told.below, trie.view(&told.prefix)) {
        (Below::Leaf(theirs), _) => {
            let theirs: BTreeSet<Short> = theirs.iter().copied().collect();
            let ours = trie.ids_under(&told.prefix);
            answer.lacks = ours.filter(|id| !theirs.contains(&shortened(id))).take(most).copied().collect();
            let is_here = |id: &Short| trie.ids_under(&Prefix::of_short(id)).next().is_some();
            answer.wants = theirs.into_iter().filter(|id| !is_here(id)).collect();
        }
        (Below::Branch(_), View::Leaf(_)) => answer.nodes.push(tell(trie, told.prefix)),
        (Below::Branch(theirs), View::Branch(ours)) => {
            for (nibble, (ours, theirs)) in (0..).zip(ours.iter().zip(theirs.iter())) {
                if shortened(&ours.digest()) != *theirs {
                    answer.nodes.push(tell(trie, told.prefix.child(nibble)));
                }
            }
        }
    }
    answer
}

impl Told {
    /// Bytes in a frame.
    pub(crate) fn encoded_len(&self) -> usize {
        let ids = match &self.below {
            Below::Leaf(ids) => ids.len(),
            Below::Branch(_) => FAN,
        };
        2 + self.prefix.bytes().len() + 16 * ids
    }
}

#[cfg(test)]
mod tests {
    use identity::HashContext;

    use super::*;
    use crate::frame::Frame;

    /// What a walk from one side's root comes to: bytes of NODES and WANT, one-way trips, ids found.
    #[derive(Debug, Default)]
    struct Walk {
        bytes: usize,
        trips: usize,
        lacking: [Vec<RecordId>; 2],
        wanted: usize,
    }

    fn walk(a: &IdTrie, b: &IdTrie) -> Walk {
        let mut walk = Walk::default();
        let mut told = vec![tell(a, Prefix::ROOT)];
        while !told.is_empty() {
            let listens = [b, a][walk.trips % 2];
            walk.bytes += Frame::Nodes(told.clone()).encode().len();
            walk.trips += 1;
            let mut nodes = Vec::new();
            for node in &told {
                let said = answer(listens, node, usize::MAX);
                nodes.extend(said.nodes);
                walk.lacking[walk.trips % 2].extend(said.lacks);
                walk.wanted += said.wants.len();
            }
            told = nodes;
        }
        walk.bytes += 16 * walk.wanted;
        walk
    }

    fn id(n: u32) -> RecordId {
        HashContext::STATEMENT_ID.hash(&[&n.to_le_bytes()])
    }

    /// Two sets with so many ids in common and so many more on each side.
    fn sets(common: u32, more: [u32; 2]) -> [IdTrie; 2] {
        let mut all = IdTrie::default();
        (0..common).for_each(|n| all.insert(id(n)));
        let mut sets = [all.clone(), all];
        (common..common + more[0]).for_each(|n| sets[0].insert(id(n)));
        (common + more[0]..common + more[0] + more[1]).for_each(|n| sets[1].insert(id(n)));
        sets
    }

    #[test]
    fn one_missing_id_is_found_within_two_kib_at_any_size() {
        for common in [1, 10, 1_000, 10_000, 100_000] {
            for more in [[1, 0], [0, 1]] {
                let [a, b] = sets(common, more);
                let walk = walk(&a, &b);
                println!("{common} ids, one missing: {} bytes, {} trips", walk.bytes, walk.trips);
                assert_eq!(walk.lacking.concat().len() + walk.wanted, 1);
                assert!(walk.bytes < 2048 && walk.trips <= 6, "{common}: {walk:?}");
            }
        }
    }

    #[test]
    fn a_thousand_missing_on_each_side_cost_a_few_hundred_bytes_each() {
        for (common, each) in [(10_000, 96), (100_000, 300)] {
            let [a, b] = sets(common, [1000, 1000]);
            let walk = walk(&a, &b);
            println!("{common} ids, 1000 and 1000 missing: {} bytes, {} trips", walk.bytes, walk.trips);
            assert_eq!(walk.lacking.concat().len() + walk.wanted, 2000);
            assert!(walk.bytes < 2000 * each && walk.trips <= 6, "{} {}", walk.bytes, walk.trips);
        }
    }

    #[test]
    fn an_empty_side_says_so_in_one_node() {
        let [full, _] = sets(1000, [0, 0]);
        let walk = walk(&IdTrie::default(), &full);
        assert_eq!((walk.trips, walk.lacking.concat().len(), walk.wanted), (1, 1000, 0));
    }
}
