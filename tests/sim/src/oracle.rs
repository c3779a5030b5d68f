//! What is true in the simulated org, whoever has heard of it.

use std::collections::{BTreeMap, BTreeSet};

use identity::{PublicKey, StatementId};
use org_trust::Statement;

use crate::{
    machine::{Machine, Org},
    network::Party,
};

#[derive(Debug)]
pub(crate) struct Oracle {
    /// What admins signed.
    pub(crate) statements: BTreeSet<StatementId>,
    /// Which admins revoked a key.
    pub(crate) revokes: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    /// Invites, their uses and redeemers.
    pub(crate) invites: BTreeMap<StatementId, (u32, PublicKey)>,
    pub(crate) cancelled: BTreeSet<StatementId>,
    /// Newcomers that were given an invite.
    pub(crate) invited: BTreeSet<Party>,
    /// Machines that were told to leave.
    pub(crate) leaving: BTreeSet<PublicKey>,
    /// Where a change was taken, unless it took that very machine out of the org.
    pub(crate) taken_by: BTreeMap<StatementId, Party>,
    pub(crate) threshold: usize,
    pub(crate) nodes: BTreeMap<PublicKey, Party>,
    pub(crate) gateways: BTreeSet<PublicKey>,
}

impl Oracle {
    pub(crate) fn new(org: &Org, machines: &[Machine], threshold: u8) -> Self {
        Self {
            statements: BTreeSet::new(),
            revokes: BTreeMap::new(),
            invites: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            invited: BTreeSet::new(),
            leaving: BTreeSet::new(),
            taken_by: BTreeMap::new(),
            threshold: threshold.into(),
            nodes: machines.iter().enumerate().map(|(number, machine)| (machine.node, number)).collect(),
            gateways: org.gateways.iter().copied().collect(),
        }
    }

    pub(crate) fn signed(&mut self, statement: &Statement) {
        self.statements.insert(statement.id());
    }

    /// Whether enough admins revoked it.
    pub(crate) fn is_revoked(&self, node: &PublicKey) -> bool {
        self.revokes.get(node).is_some_and(|admins| admins.len() >= self.threshold)
    }

    /// Whether it was revoked by anybody, or told to leave.
    pub(crate) fn has_gone(&self, node: &PublicKey) -> bool {
        self.revokes.contains_key(node) || self.leaving.contains(node)
    }
}
