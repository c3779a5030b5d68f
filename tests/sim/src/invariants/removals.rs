//! What must hold of keys that lost their role, and of what was signed with them.

use std::collections::{BTreeMap, BTreeSet};

use identity::{PublicKey, StatementId};
use member_crdt::{InviteState, MemberState, Replica, Roster};
use org_trust::{Payload, Statement};

use super::{Held, ensure};
use crate::{machine::Revoked, network::Party, oracle::Oracle};

/// What a statement of a key without a role still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The key has its role.
    InOffice,
    /// A cut has it.
    Kept,
    /// No cut has it.
    Void,
    /// A cut names what is not held yet.
    Open,
}

/// Written down a second time, from the settings and the chain of statements alone.
fn left_of(replica: &Replica, statement: &Statement) -> Left {
    let (author, lane) = (statement.author(), statement.lane());
    let mut was_named = false;
    let mut removal = None;
    for charter in replica.chain().iter() {
        let charter = charter.charter();
        let names = charter.admin(author).is_some() || charter.gateway(author).is_some();
        if was_named && !names && removal.is_none() {
            removal = Some(charter);
        }
        was_named |= names;
    }
    let Some(charter) = removal else { return Left::InOffice };
    let mut open = false;
    for cut in charter.cuts.iter().filter(|cut| cut.key == *author && cut.lane == lane) {
        let mut next = Some(cut.tip);
        open |= replica.statement(&cut.tip).is_none();
        while let Some(held) = next.and_then(|id| replica.statement(&id)) {
            if held.id() == statement.id() {
                return Left::Kept;
            }
            next = (held.seq() > 0).then(|| StatementId(held.prev()));
        }
    }
    if open { Left::Open } else { Left::Void }
}

/// Whether its author may still say what it says.
pub(crate) fn counts(replica: &Replica, statement: &Statement) -> bool {
    matches!(left_of(replica, statement), Left::InOffice | Left::Kept)
}

/// The same of what takes away.
pub(crate) fn takes_away(replica: &Replica, statement: &Statement) -> bool {
    left_of(replica, statement) != Left::Void
}

/// Membership 4: of what a removed key signed nothing counts that its cut does not have, whatever its
/// place; until all ends of a cut are held, what takes away counts and what gives does not.
pub(crate) fn invariant_nothing_counts_beyond_a_cut(replica: &Replica, roster: &Roster) -> Held {
    let check = |id: &StatementId, takes_away: bool, what: &str| {
        let Some(statement) = replica.statement(id) else {
            return Err(format!("{what} {} counts and is not held", id.short()));
        };
        match left_of(replica, statement) {
            Left::InOffice | Left::Kept => Ok(()),
            Left::Open if takes_away => Ok(()),
            Left::Open | Left::Void => {
                Err(format!("{what} {} counts, of a key that has lost its role", id.short()))
            }
        }
    };
    for member in roster.members() {
        // Who is let in by nothing may wait for the end of a cut; what is void lists nobody even so.
        let is_in = matches!(member.state, MemberState::Good | MemberState::Pending);
        check(&member.admit, !is_in, "the admission")?;
        match &member.state {
            MemberState::Revoked { ids, .. } => {
                ids.iter().try_for_each(|id| check(id, true, "the revocation"))?
            }
            MemberState::Suspended { ids, .. } => {
                ids.iter().try_for_each(|id| check(id, true, "the suspension"))?;
            }
            MemberState::Good
            | MemberState::Left
            | MemberState::KeyConflict
            | MemberState::Pending
            | MemberState::Unsettled => {}
        }
        member.assigns.iter().try_for_each(|id| check(id, false, "the assignment"))?;
    }
    for invite in roster.invites().into_iter().filter(|invite| invite.state == InviteState::Open) {
        check(&invite.id, false, "the invite")?;
    }
    Ok(())
}

/// Whether a revocation by these is none any more, since settings took enough of their authors away.
pub(crate) fn is_undone(replica: &Replica, ids: &[StatementId], threshold: usize) -> bool {
    let held: Vec<&Statement> = ids.iter().filter_map(|id| replica.statement(id)).collect();
    let counting = held.iter().filter(|statement| takes_away(replica, statement));
    let authors: BTreeSet<&PublicKey> = counting.map(|statement| statement.author()).collect();
    held.len() == ids.len() && authors.len() < threshold
}

/// I2, membership 3: who was revoked stays revoked, also over a restart if it was on disk. Only settings
/// that take away an admin's key end what was signed with it.
pub(crate) fn invariant_a_revocation_is_for_ever(
    before: &Revoked,
    replica: &Replica,
    threshold: usize,
) -> Held {
    for (key, ids) in before {
        let still = match replica.roster().member_of(key) {
            Some(member) => matches!(member.state, MemberState::Revoked { .. }),
            // Its invite was cancelled too, or its admission waits for the end of a cut: it is nobody.
            None => true,
        };
        ensure(still || is_undone(replica, ids, threshold), || {
            format!("{} was revoked and is not any more", key.short())
        })?;
    }
    Ok(())
}

/// Membership 5: who has which role is what the settings say, and the settings are those that the
/// holder of the org's keys signed, whatever the list holds.
pub(crate) fn invariant_roles_follow_settings(replica: &Replica, roster: &Roster, oracle: &Oracle) -> Held {
    let head = replica.chain().head().charter();
    for charter in replica.chain().iter() {
        ensure(oracle.settings.contains(&charter.id()), || "settings that nobody signed".to_owned())?;
    }
    ensure(roster.admins() == head.admins, || "other admins than the settings name".to_owned())?;
    ensure(roster.gateways() == head.gateways, || "other gateways than the settings name".to_owned())?;
    ensure(roster.revoke_threshold() == head.revoke_threshold, || "another threshold".to_owned())
}

/// I7: the settings that a machine goes by always have a CA that signs.
pub(crate) fn invariant_there_is_a_ca(replica: &Replica) -> Held {
    let cas = &replica.chain().head().charter().tls_cas;
    ensure(cas.iter().any(|ca| ca.state == org_trust::CaState::Active), || "no active CA".to_owned())
}

/// What thieves signed is undone: it shuts out nobody, lets in nobody and names nobody, and no machine of
/// theirs is a member.
pub(crate) fn invariant_thieves_gain_nothing(
    replica: &Replica,
    oracle: &Oracle,
    rogues: &BTreeSet<Party>,
) -> Held {
    let roster = replica.roster();
    let stolen = |id: &StatementId| oracle.stolen.contains(id);
    for member in roster.members() {
        let is_rogue = oracle.nodes.get(&member.node).is_some_and(|number| rogues.contains(number));
        ensure(!is_rogue, || format!("{} is a thief's and is listed", member.node.short()))?;
        let ids = match &member.state {
            MemberState::Revoked { ids, .. } | MemberState::Suspended { ids, .. } => ids.as_slice(),
            MemberState::Good
            | MemberState::Left
            | MemberState::KeyConflict
            | MemberState::Pending
            | MemberState::Unsettled => &[],
        };
        let counts = ids.iter().chain(&member.assigns).chain([&member.admit]).find(|id| stolen(id));
        ensure(counts.is_none(), || {
            format!("of {} counts what a thief signed: {counts:?}", member.node.short())
        })?;
    }
    Ok(())
}

/// What was not undone goes on: every admission counts that an admin signed, or a gateway within its cut
/// under an invite that admits, and every suspension that no admin ended.
pub(crate) fn invariant_what_was_honest_counts(replica: &Replica, oracle: &Oracle) -> Held {
    let roster = replica.roster();
    let mut cancels: BTreeMap<StatementId, Vec<Option<StatementId>>> = BTreeMap::new();
    let mut admits = Vec::new();
    for statement in statements(replica) {
        match statement.payload() {
            Payload::Cancel(cancel) if left_of(replica, statement) != Left::Void => {
                cancels.entry(cancel.invite).or_default().push(cancel.tip);
            }
            Payload::Admit(admit) => admits.push((statement, admit)),
            Payload::Cancel(_)
            | Payload::Revoke(_)
            | Payload::Invite(_)
            | Payload::Leave
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Rotate(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => {}
        }
    }
    for (statement, admit) in admits {
        if oracle.stolen.contains(&statement.id()) || left_of(replica, statement) == Left::Void {
            continue;
        }
        if let Some(invite) = admit.invite {
            let prefix: Vec<&Statement> = before(replica, statement).collect();
            let spent =
                prefix.iter().filter(|s| s.payload().admit().is_some_and(|a| a.invite == Some(invite)));
            let uses = oracle.invites.get(&invite).map_or(0, |made| made.uses as usize);
            let tips = cancels.get(&invite).cloned().unwrap_or_default();
            let is_kept = tips.iter().all(|tip| {
                tip.and_then(|tip| replica.statement(&tip)).is_some_and(|tip| {
                    tip.id() == statement.id() || before(replica, tip).any(|s| s.id() == statement.id())
                })
            });
            let made = replica.statement(&invite).is_some_and(|made| left_of(replica, made) != Left::Void);
            if spent.count() >= uses || !is_kept || !made {
                continue;
            }
        }
        ensure(roster.member_of(&admit.node).is_some_and(|member| !member.is_unsettled()), || {
            format!("{} was admitted by {} and is not listed", admit.node.short(), statement.id().short())
        })?;
    }
    for (node, number) in &oracle.nodes {
        let Some(member) = roster.member_of(node) else { continue };
        let is_suspended = match member.state {
            MemberState::Suspended { .. } => true,
            MemberState::Good | MemberState::Pending => false,
            MemberState::Revoked { .. }
            | MemberState::Left
            | MemberState::KeyConflict
            | MemberState::Unsettled => continue,
        };
        ensure(is_suspended == oracle.is_suspended(*number), || {
            format!("{} is {:?}, and that is not what admins said last", node.short(), member.state)
        })?;
    }
    Ok(())
}

/// The statements before one in its lane.
fn before<'a>(replica: &'a Replica, statement: &'a Statement) -> impl Iterator<Item = &'a Statement> {
    let previous = |statement: &Statement| {
        (statement.seq() > 0).then(|| StatementId(statement.prev())).and_then(|id| replica.statement(&id))
    };
    std::iter::successors(previous(statement), move |statement| previous(statement))
}

/// Every statement held.
pub(crate) fn statements(replica: &Replica) -> impl Iterator<Item = &Statement> {
    let ids = replica.records().filter_map(|record| match &record {
        org_trust::Record::Statement(_) => Some(StatementId(record.id())),
        org_trust::Record::Charter(_) | org_trust::Record::Report(_) => None,
    });
    ids.filter_map(|id| replica.statement(&id))
}
