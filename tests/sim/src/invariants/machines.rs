//! What must hold of one machine in the list: its keys, its name and roles, its copies.

use std::collections::{BTreeMap, BTreeSet};

use identity::{BootNonce, PublicKey, StatementId, Tag};
use member_crdt::{Member, MemberState, Replica, Roster};
use org_trust::{Assign, Payload};

use super::{
    Held, ensure,
    removals::{counts, statements},
};
use crate::oracle::Oracle;

/// Membership 7: a machine has at most one newest key, which nobody else has; whatever its state, it is
/// that of all its keys; and who was revoked by any of its keys is revoked.
pub(crate) fn invariant_a_lineage_lives_and_dies_as_one(roster: &Roster, oracle: &Oracle) -> Held {
    let mut owners: BTreeMap<PublicKey, PublicKey> = BTreeMap::new();
    for member in roster.members() {
        for node in member.nodes() {
            let other = owners.insert(node, member.first());
            ensure(other.is_none() || member.state == MemberState::KeyConflict, || {
                format!("{} is a key of two machines", node.short())
            })?;
            let listed = roster.member_of(&node);
            ensure(listed.is_some_and(|listed| listed.state == member.state), || {
                format!("{} is not what its machine is", node.short())
            })?;
        }
        ensure(member.nodes().all(|node| oracle.nodes.contains_key(&node)), || {
            format!("{} has a key that no machine made", member.node.short())
        })?;
        let machines: BTreeSet<_> = member.nodes().filter_map(|node| oracle.nodes.get(&node)).collect();
        ensure(machines.len() <= 1, || format!("{} has keys of several machines", member.node.short()))?;
    }
    Ok(())
}

/// I6: who is revoked is revoked, whatever else was said of it at the same time; and roles and labels
/// are those that all assignments have that no other one replaces.
pub(crate) fn invariant_concurrent_changes_take_away(replica: &Replica, replaces: bool) -> Held {
    let roster = replica.roster();
    let mut assigns: BTreeMap<PublicKey, Vec<(StatementId, &Assign, bool)>> = BTreeMap::new();
    for statement in statements(replica) {
        if let Payload::Assign(assign) = statement.payload()
            && let Some(member) = roster.member_of(&assign.node)
        {
            assigns.entry(member.first()).or_default().push((
                statement.id(),
                &**assign,
                counts(replica, statement),
            ));
        }
    }
    for member in roster.members() {
        let all = assigns.remove(&member.first()).unwrap_or_default();
        let mut replaced: BTreeSet<StatementId> = BTreeSet::new();
        let counting = all.iter().filter(|(_, _, counts)| *counts);
        let mut next: Vec<StatementId> = counting.clone().flat_map(|(_, a, _)| a.replaces.clone()).collect();
        while let Some(id) = next.pop() {
            if replaced.insert(id) {
                let named = all.iter().filter(|(other, ..)| *other == id);
                next.extend(named.flat_map(|(_, assign, _)| assign.replaces.clone()));
            }
        }
        let ids: BTreeSet<StatementId> =
            counting.map(|(id, ..)| *id).filter(|id| !replaces || !replaced.contains(id)).collect();
        ensure(member.assigns.iter().copied().collect::<BTreeSet<_>>() == ids, || {
            format!("of {} other assignments are in force than {ids:?}", member.name)
        })?;
        let in_force: Vec<&Assign> =
            all.iter().filter(|(id, ..)| ids.contains(id)).map(|(_, assign, _)| *assign).collect();
        let in_all = |of: fn(&Assign) -> &Vec<Tag>, tag: &Tag| in_force.iter().all(|a| of(a).contains(tag));
        let roles = member.roles.iter().all(|role| !in_force.is_empty() && in_all(|a| &a.roles, role));
        ensure(roles, || format!("{} has a role that somebody took away", member.name))?;
        if !in_force.is_empty() {
            let labels = member.labels.iter().all(|label| in_all(|a| &a.labels, label));
            ensure(labels, || format!("{} has a label that somebody took away", member.name))?;
        }
    }
    Ok(())
}

/// An approval is an admin's: no machine counts under an invite with approval without one.
pub(crate) fn invariant_approval_is_an_admins(replica: &Replica, oracle: &Oracle) -> Held {
    let roster = replica.roster();
    let mut approved: BTreeSet<StatementId> = BTreeSet::new();
    for statement in statements(replica) {
        if let Payload::Cosign(cosign) = statement.payload()
            && oracle.statements.contains(&statement.id())
        {
            approved.insert(cosign.target);
        }
    }
    let waits = |member: &&Member| {
        let invite = member.invite.and_then(|id| replica.statement(&id));
        invite.is_some_and(|invite| matches!(invite.payload(), Payload::Invite(invite) if invite.approval))
    };
    for member in roster.members().into_iter().filter(waits).filter(|member| member.is_good()) {
        ensure(approved.contains(&member.admit), || {
            format!("{} counts, and no admin approved it", member.name)
        })?;
    }
    Ok(())
}

/// Two machines that use one key are noticed as soon as a start of one was seen behind a start of the
/// other, and one of those again.
pub(crate) fn invariant_copies_are_noticed(starts: &[BootNonce], is_noticed: bool) -> Held {
    let returns = (0..starts.len()).any(|at| starts[..at].contains(&starts[at]));
    ensure(is_noticed || !returns, || format!("{} starts took turns, and nobody noticed", starts.len()))
}
