//! What is true in the simulated org, whoever has heard of it.

use std::collections::{BTreeMap, BTreeSet};

use identity::{CharterId, PublicKey, StatementId};
use org_trust::{Payload, Statement};

use crate::{
    machine::{Machine, Org},
    network::Party,
};

#[derive(Debug)]
pub(crate) struct Oracle {
    /// What admins signed.
    pub(crate) statements: BTreeSet<StatementId>,
    /// What thieves signed with keys that were an admin's or a gateway's, and that they had all it takes for.
    pub(crate) stolen: BTreeSet<StatementId>,
    /// The settings that the holder of the org's keys signed.
    pub(crate) settings: BTreeSet<CharterId>,
    /// Which admins revoked a machine.
    pub(crate) revokes: BTreeMap<Party, BTreeSet<PublicKey>>,
    /// Suspensions by admins, and those that admins ended.
    pub(crate) suspends: BTreeMap<Party, BTreeSet<StatementId>>,
    pub(crate) resumed: BTreeSet<StatementId>,
    /// The changes that ended them.
    pub(crate) resumes: BTreeMap<Party, BTreeSet<StatementId>>,
    /// Invites, their uses and redeemers.
    pub(crate) invites: BTreeMap<StatementId, InviteMade>,
    pub(crate) cancelled: BTreeSet<StatementId>,
    /// Newcomers that were given an invite.
    pub(crate) invited: BTreeSet<Party>,
    /// Machines that were told to leave.
    pub(crate) leaving: BTreeSet<Party>,
    /// Where a change was taken, unless it took that very machine out of the org.
    pub(crate) taken_by: BTreeMap<StatementId, Party>,
    pub(crate) threshold: usize,
    /// Every key that a machine has or had.
    pub(crate) nodes: BTreeMap<PublicKey, Party>,
    /// Every key that was a gateway's.
    pub(crate) gateways: BTreeSet<PublicKey>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InviteMade {
    pub(crate) number: usize,
    pub(crate) uses: u32,
    pub(crate) redeemer: PublicKey,
}

impl Oracle {
    pub(crate) fn new(org: &Org, machines: &[Machine], threshold: u8) -> Self {
        Self {
            statements: BTreeSet::new(),
            stolen: BTreeSet::new(),
            settings: BTreeSet::from([org.chain.genesis().id()]),
            revokes: BTreeMap::new(),
            suspends: BTreeMap::new(),
            resumed: BTreeSet::new(),
            resumes: BTreeMap::new(),
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

    /// An admin signed it.
    pub(crate) fn signed(&mut self, statement: &Statement) {
        let id = statement.id();
        self.statements.insert(id);
        match statement.payload() {
            Payload::Revoke(revoke) => {
                if let Some(number) = self.nodes.get(&revoke.node) {
                    self.revokes.entry(*number).or_default().insert(*statement.author());
                }
            }
            Payload::Suspend(suspend) => {
                if let Some(number) = self.nodes.get(&suspend.node) {
                    self.suspends.entry(*number).or_default().insert(id);
                }
            }
            Payload::Resume(resume) => {
                self.resumed.extend(&resume.suspends);
                if let Some(number) = self.nodes.get(&resume.node) {
                    self.resumes.entry(*number).or_default().insert(id);
                }
            }
            Payload::Cancel(cancel) => {
                self.cancelled.insert(cancel.invite);
            }
            Payload::Admit(_)
            | Payload::Invite(_)
            | Payload::Leave
            | Payload::Assign(_)
            | Payload::Rotate(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => {}
        }
    }

    /// Whether enough admins revoked it.
    pub(crate) fn is_revoked(&self, number: Party) -> bool {
        self.revokes.get(&number).is_some_and(|admins| admins.len() >= self.threshold)
    }

    /// Whether it was revoked by any admin, or told to leave.
    pub(crate) fn has_gone(&self, number: Party) -> bool {
        self.revokes.contains_key(&number) || self.leaving.contains(&number)
    }

    /// Whether an admin suspended it and none ended that.
    pub(crate) fn is_suspended(&self, number: Party) -> bool {
        self.suspends.get(&number).is_some_and(|ids| !ids.is_subset(&self.resumed))
    }
}
