//! What machines say of themselves: their Rotates, Retires and Leaves, and the chains of keys that
//! follow from them.
//!
//! Such a statement stands behind what made its author's key a machine's. Two Rotates at one place end
//! the chain there, whatever else is said: they are kept as proof, and what stood behind them goes,
//! because it can never count again. So every replica keeps the same, in whatever order it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::{PublicKey, StatementId, limits::ROTATIONS_MAX};
use org_trust::{Payload, Rotate, Statement, StatementClaim};

use crate::{
    held::KeyBytes,
    outcome::{Broken, Rejected},
};

/// What made a node key a machine's: Admits of it, or one Rotate to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Admitted(KeyBytes),
    Rotated(StatementId),
}

/// What the holder of one key says of its machine.
#[derive(Debug, Default)]
struct Own {
    rotates: BTreeSet<StatementId>,
    retire: Option<StatementId>,
    leave: Option<StatementId>,
}

#[derive(Debug)]
pub(crate) struct Rotation {
    /// The first key of the chain.
    pub(crate) root: KeyBytes,
    /// How many rotations lead here, itself included.
    depth: u32,
    from: Origin,
    statement: Arc<Statement>,
}

/// The chains of all machines.
#[derive(Debug, Default)]
pub(crate) struct Lineages {
    own: BTreeMap<Origin, Own>,
    rotations: BTreeMap<StatementId, Rotation>,
    by_node: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
    by_root: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
}

/// One machine's chain from its first key on, as far as it holds.
#[derive(Debug)]
pub(crate) struct Lineage<'a> {
    /// The keys after the first, oldest first.
    pub(crate) later: Vec<(&'a Statement, &'a Rotate)>,
    /// How many keys from the first on a Retire ended.
    pub(crate) retired: usize,
    /// Its newest key signed two Rotates.
    pub(crate) forked: bool,
    /// A key of it signed a Leave.
    pub(crate) left: bool,
}

impl Origin {
    /// The node key that a statement makes a machine's.
    pub(crate) fn of(statement: &Statement) -> Option<(PublicKey, Self)> {
        if let Payload::Rotate(rotate) = statement.payload() {
            return Some((rotate.node, Self::Rotated(statement.id())));
        }
        let admit = statement.payload().admit()?;
        Some((admit.node, Self::Admitted(*admit.node.as_bytes())))
    }
}

impl Rotation {
    pub(crate) fn rotate(&self) -> Option<&Rotate> {
        if let Payload::Rotate(rotate) = self.statement.payload() { Some(rotate) } else { None }
    }
}

impl Lineages {
    /// Whether a machine's own statement is kept behind `before`, from which its key stems. That no
    /// key of a Rotate was the machine's before is for the caller, who knows the Admit.
    pub(crate) fn fit(
        &self,
        s: &StatementClaim,
        origin: Origin,
        before: &StatementClaim,
    ) -> Result<(), Rejected> {
        // Behind a place of two Rotates nothing is kept.
        if let Origin::Rotated(id) = origin
            && !self.is_single(&id)
        {
            return Err(Rejected::Surplus);
        }
        let own = self.own.get(&origin);
        let passed = |held: Option<StatementId>| held.is_some_and(|held| held < s.id());
        match s.payload() {
            Payload::Rotate(_) => {
                if self.depth(origin) >= ROTATIONS_MAX {
                    return Err(Rejected::Broken(Broken::Rotations));
                }
                let full = own.filter(|own| own.rotates.len() >= CONFLICT);
                match full.and_then(|own| own.rotates.last()) {
                    Some(last) if *last < s.id() => Err(Rejected::Surplus),
                    Some(_) | None => Ok(()),
                }
            }
            Payload::Retire(retire) if *before.author() != retire.old || origin.is_admitted() => {
                Err(Rejected::NotAuthorised { author: *s.author().as_bytes() })
            }
            Payload::Retire(_) if passed(own.and_then(|own| own.retire)) => Err(Rejected::Surplus),
            Payload::Leave if passed(own.and_then(|own| own.leave)) => Err(Rejected::Surplus),
            Payload::Retire(_)
            | Payload::Leave
            | Payload::Admit(_)
            | Payload::Revoke(_)
            | Payload::Invite(_)
            | Payload::Cancel(_)
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => Ok(()),
        }
    }

    /// Keeps one that fits; the statements that are held no longer for it.
    pub(crate) fn keep(&mut self, s: &Arc<Statement>, origin: Origin) -> Vec<StatementId> {
        let id = s.id();
        let mut dropped = Vec::new();
        let own = self.own.entry(origin).or_default();
        match s.payload() {
            Payload::Leave => dropped.extend(own.leave.replace(id)),
            Payload::Retire(_) => dropped.extend(own.retire.replace(id)),
            Payload::Rotate(rotate) => {
                own.rotates.insert(id);
                if own.rotates.len() > CONFLICT {
                    dropped.extend(own.rotates.pop_last());
                }
                let conflicting =
                    if own.rotates.len() == CONFLICT { own.rotates.clone() } else { BTreeSet::new() };
                let root = match origin {
                    Origin::Admitted(node) => node,
                    Origin::Rotated(before) => self.rotations.get(&before).map_or([0; 32], |r| r.root),
                };
                let depth = self.depth(origin) + 1;
                let rotation = Rotation { root, depth, from: origin, statement: Arc::clone(s) };
                self.rotations.insert(id, rotation);
                self.by_node.entry(*rotate.node.as_bytes()).or_default().insert(id);
                self.by_root.entry(root).or_default().insert(id);
                dropped.extend(self.behind(conflicting));
            }
            Payload::Admit(_)
            | Payload::Revoke(_)
            | Payload::Invite(_)
            | Payload::Cancel(_)
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => {}
        }
        for id in &dropped {
            self.forget(id);
        }
        dropped
    }

    /// Takes away everything that stands behind these Rotates.
    fn behind(&mut self, rotates: BTreeSet<StatementId>) -> Vec<StatementId> {
        let mut behind = Vec::new();
        let mut next: Vec<StatementId> = rotates.into_iter().collect();
        while let Some(id) = next.pop() {
            let Some(own) = self.own.remove(&Origin::Rotated(id)) else { continue };
            behind.extend(own.leave);
            behind.extend(own.retire);
            behind.extend(own.rotates.iter().copied());
            next.extend(own.rotates);
        }
        behind
    }

    fn forget(&mut self, id: &StatementId) {
        let Some(rotation) = self.rotations.remove(id) else { return };
        let Some(node) = rotation.rotate().map(|rotate| *rotate.node.as_bytes()) else { return };
        for (index, key) in [(&mut self.by_node, node), (&mut self.by_root, rotation.root)] {
            if let Some(ids) = index.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    index.remove(&key);
                }
            }
        }
    }

    fn depth(&self, origin: Origin) -> u32 {
        match origin {
            Origin::Admitted(_) => 0,
            Origin::Rotated(id) => self.rotations.get(&id).map_or(0, |rotation| rotation.depth),
        }
    }

    /// Whether a Rotate is held and stands alone at its place. What is held stands behind such ones.
    pub(crate) fn is_single(&self, id: &StatementId) -> bool {
        let own = self.rotations.get(id).and_then(|rotation| self.own.get(&rotation.from));
        own.is_some_and(|own| own.rotates.len() < CONFLICT)
    }

    pub(crate) fn get(&self, id: &StatementId) -> Option<&Rotation> {
        self.rotations.get(id)
    }

    /// The Rotates to a node key.
    pub(crate) fn to(&self, node: &KeyBytes) -> impl Iterator<Item = &Rotation> {
        self.by_node.get(node).into_iter().flatten().filter_map(|id| self.rotations.get(id))
    }

    /// The Rotates of a machine, whether or not they count.
    pub(crate) fn of(&self, root: &KeyBytes) -> impl Iterator<Item = &Statement> {
        let ids = self.by_root.get(root).into_iter().flatten();
        ids.filter_map(|id| Some(&*self.rotations.get(id)?.statement))
    }

    /// The chain from a first key on.
    pub(crate) fn walk(&self, root: &KeyBytes) -> Lineage<'_> {
        let mut lineage = Lineage { later: Vec::new(), retired: 0, forked: false, left: false };
        let mut at = Origin::Admitted(*root);
        while let Some(own) = self.own.get(&at) {
            lineage.left |= own.leave.is_some();
            if own.retire.is_some() {
                lineage.retired = lineage.later.len();
            }
            lineage.forked = own.rotates.len() >= CONFLICT;
            let next = own.rotates.first().filter(|_| !lineage.forked);
            let Some(rotation) = next.and_then(|id| self.rotations.get(id)) else { break };
            let Some(rotate) = rotation.rotate() else { break };
            lineage.later.push((&*rotation.statement, rotate));
            at = Origin::Rotated(rotation.statement.id());
        }
        lineage
    }

    /// Every statement, each after what it builds on.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = StatementId> {
        let mut rotations: Vec<(u32, StatementId)> =
            self.rotations.iter().map(|(id, rotation)| (rotation.depth, *id)).collect();
        rotations.sort_unstable();
        let others = self.own.values().flat_map(|own| own.retire.into_iter().chain(own.leave));
        rotations.into_iter().map(|(_, id)| id).chain(others)
    }

    /// Places of two Rotates, as proof.
    pub(crate) fn forks(&self) -> impl Iterator<Item = &BTreeSet<StatementId>> {
        self.own.values().map(|own| &own.rotates).filter(|rotates| rotates.len() >= CONFLICT)
    }
}

impl Origin {
    const fn is_admitted(self) -> bool {
        matches!(self, Self::Admitted(_))
    }
}

/// So many Rotates at one place are a conflict, and proof enough.
const CONFLICT: usize = 2;
