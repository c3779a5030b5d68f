//! The rules of docs/spec/roster.md for one machine: its keys, its attributes, its state.

use std::collections::{BTreeMap, BTreeSet};

use identity::{PublicKey, StatementId, Tag, overlay_address};
use org_trust::{Admit, Assign, Lane, Payload, Reason, Statement};

use crate::{
    held::{Entry, KeyBytes},
    lineage::Lineage,
    resolve::{Admission, Rules, Weight},
    roster::{EarlierKeys, Member, MemberState, Revoking},
};

impl Rules<'_> {
    /// A machine by its first node key, if any Admit of it counts, may count, or waits for approval.
    pub(crate) fn member(&self, root: &KeyBytes) -> Option<Member> {
        let held: Vec<_> = self.held.admits_of(root).iter().filter_map(|id| self.admission(id)).collect();
        let best = held.iter().map(|(.., admission)| *admission).max()?;
        let best_ones = held.into_iter().filter(|(.., admission)| *admission == best);
        let mut admits: Vec<(&Entry, &Admit)> = best_ones.map(|(entry, admit, _)| (entry, admit)).collect();
        admits.sort_unstable_by_key(|(entry, _)| entry.statement.id());
        let (entry, admit) = *admits.first()?;
        let lineage = self.held.lineages().walk(root);
        let nodes = node_keys(root, &lineage);
        let admits: Vec<&Statement> = admits.into_iter().map(|(entry, _)| &*entry.statement).collect();
        let (state, revoking) = self.state(&nodes, &admits, &lineage, best);
        let id = entry.statement.id();
        let mut keys = EarlierKeys {
            node: admit.node,
            wireguard: admit.wireguard,
            boot: admit.boot,
            by: id,
            retired: false,
        };
        let mut earlier = Vec::with_capacity(lineage.later.len());
        for (at, (by, rotate)) in lineage.later.iter().enumerate() {
            keys.retired = at < lineage.retired;
            earlier.push(keys);
            keys = EarlierKeys {
                node: rotate.node,
                wireguard: rotate.wireguard,
                boot: rotate.boot,
                by: by.id(),
                retired: false,
            };
        }
        let invited =
            admit.invite.and_then(|id| self.invite(&id)).map(|(_, invite, _)| invite.labels.clone());
        let assigned = self.assigned(
            &nodes,
            Assigned {
                name: admit.name.clone(),
                roles: Vec::new(),
                labels: invited.unwrap_or_default(),
                ids: Vec::new(),
            },
        );
        let Assigned { name, roles, labels, ids: assigns } = assigned;
        Some(Member {
            node: keys.node,
            wireguard: keys.wireguard,
            boot: keys.boot,
            since: keys.by,
            earlier,
            name,
            roles,
            labels,
            assigns,
            assurance: admit.assurance,
            tpm: admit.tpm(),
            address: overlay_address(&self.chain.org(), &admit.node),
            admit: id,
            admitted_by: *entry.statement.author(),
            invite: admit.invite,
            revoking,
            state,
        })
    }

    /// Rule 16: the first that applies.
    fn state(
        &self,
        nodes: &[KeyBytes],
        admits: &[&Statement],
        lineage: &Lineage<'_>,
        admission: Admission,
    ) -> (MemberState, Option<Revoking>) {
        let (revoked, revoking) = self.revoked(nodes);
        if let Some(revoked) = revoked {
            return (revoked, None);
        }
        let root = nodes.first().copied().unwrap_or_default();
        let state = if lineage.left {
            MemberState::Left
        } else if lineage.forked || self.conflicts(&root, admits, lineage) {
            MemberState::KeyConflict
        } else if let Some(suspended) = self.suspended(nodes) {
            suspended
        } else {
            match admission {
                Admission::Open => MemberState::Unsettled,
                Admission::Waits => MemberState::Pending,
                Admission::Counts => MemberState::Good,
            }
        };
        (state, revoking)
    }

    /// Whether enough admins revoked a node key, admitted or not.
    pub(crate) fn is_revoked(&self, node: &KeyBytes) -> bool {
        self.revoked(&[*node]).0.is_some()
    }

    /// Rules 6 and 7: enough distinct admins revoked one of a machine's keys each; or some did, and
    /// fewer than it takes.
    fn revoked(&self, nodes: &[KeyBytes]) -> (Option<MemberState>, Option<Revoking>) {
        let mut threshold = u8::MAX;
        let mut counting: BTreeMap<StatementId, (&Statement, Reason, &String)> = BTreeMap::new();
        let ids = nodes.iter().flat_map(|node| self.held.revokes_of(node));
        for entry in ids.filter_map(|id| self.held.get(id)) {
            let Payload::Revoke(revoke) = entry.statement.payload() else { continue };
            let Some(cited) = self.chain.get(&entry.statement.charter()) else { continue };
            if self.takes(entry) {
                threshold = threshold.min(cited.charter().revoke_threshold);
                counting.insert(entry.statement.id(), (&entry.statement, revoke.reason, &revoke.note));
            }
        }
        let Some((first, reason, note)) = counting.values().next() else { return (None, None) };
        let admins: BTreeSet<PublicKey> = counting.values().map(|(s, ..)| *s.author()).collect();
        if admins.len() < usize::from(threshold) {
            return (None, Some(Revoking { by: admins.into_iter().collect(), wanted: threshold }));
        }
        let state = MemberState::Revoked {
            by: *first.author(),
            reason: *reason,
            note: (*note).clone(),
            ids: counting.keys().copied().collect(),
        };
        (Some(state), None)
    }

    /// Rule 13: a Suspend of one of a machine's keys that no Resume ends.
    fn suspended(&self, nodes: &[KeyBytes]) -> Option<MemberState> {
        let mut counting: BTreeMap<StatementId, (&Statement, Reason, &String)> = BTreeMap::new();
        for entry in nodes.iter().flat_map(|n| self.held.suspends_of(n)).filter_map(|id| self.held.get(id)) {
            let Payload::Suspend(suspend) = entry.statement.payload() else { continue };
            if self.takes(entry) && !self.held.is_burned(entry.statement.author(), Lane::Revokes) {
                counting.insert(entry.statement.id(), (&entry.statement, suspend.reason, &suspend.note));
            }
        }
        if !counting.is_empty() {
            for entry in nodes.iter().flat_map(|n| self.held.resumes_of(n)).filter_map(|id| self.held.get(id))
            {
                let Payload::Resume(resume) = entry.statement.payload() else { continue };
                if self.gives(entry) == Weight::Counts {
                    counting.retain(|id, _| !resume.suspends.contains(id));
                }
            }
        }
        let (first, reason, note) = counting.values().next()?;
        Some(MemberState::Suspended {
            by: *first.author(),
            reason: *reason,
            note: (*note).clone(),
            ids: counting.keys().copied().collect(),
        })
    }

    /// Rule 14: what the Assigns in force say together, or else `unassigned`. One that may be void takes
    /// away and gives nothing.
    fn assigned(&self, nodes: &[KeyBytes], unassigned: Assigned) -> Assigned {
        let mut held: BTreeMap<StatementId, (&Assign, Weight)> = BTreeMap::new();
        for entry in nodes.iter().flat_map(|n| self.held.assigns_of(n)).filter_map(|id| self.held.get(id)) {
            if let Payload::Assign(assign) = entry.statement.payload() {
                held.insert(entry.statement.id(), (&**assign, self.gives(entry)));
            }
        }
        let of = |wanted: Weight| held.iter().filter(move |(_, (_, weight))| *weight == wanted);
        let mut replaced = BTreeSet::new();
        let mut next: Vec<StatementId> =
            of(Weight::Counts).flat_map(|(_, (assign, _))| assign.replaces.clone()).collect();
        while let Some(id) = next.pop() {
            if let Some((assign, _)) = held.get(&id)
                && replaced.insert(id)
            {
                next.extend(&assign.replaces);
            }
        }
        let left = |wanted| of(wanted).filter(|(id, _)| !replaced.contains(*id));
        let mut assigned = match left(Weight::Counts).next() {
            None => unassigned,
            Some((_, (first, _))) => Assigned {
                name: first.name.clone(),
                roles: first.roles.clone(),
                labels: first.labels.clone(),
                ids: left(Weight::Counts).map(|(id, _)| *id).collect(),
            },
        };
        for (_, (assign, _)) in left(Weight::Counts).chain(left(Weight::Open)) {
            assigned.roles.retain(|role| assign.roles.contains(role));
            assigned.labels.retain(|label| assign.labels.contains(label));
        }
        assigned
    }
}

struct Assigned {
    name: identity::Name,
    roles: Vec<Tag>,
    labels: Vec<Tag>,
    ids: Vec<StatementId>,
}

fn node_keys(root: &KeyBytes, lineage: &Lineage<'_>) -> Vec<KeyBytes> {
    core::iter::once(*root).chain(lineage.later.iter().map(|(_, rotate)| *rotate.node.as_bytes())).collect()
}
