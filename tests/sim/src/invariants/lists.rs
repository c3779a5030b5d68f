//! What must hold of the member list.

use std::collections::{BTreeMap, BTreeSet};

use identity::{PublicKey, StatementId};
use member_crdt::{Member, MemberState, Replica, Roster};
use org_trust::{Payload, Record, Records, UnverifiedCharter, UnverifiedReport, UnverifiedStatement};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    Held, ensure,
    removals::{statements, takes_away},
};
use crate::oracle::Oracle;

/// I4, membership 2: every admission and every revocation that counts was signed by whoever may.
pub(crate) fn invariant_only_what_was_signed_counts(roster: &Roster, oracle: &Oracle) -> Held {
    for member in roster.members() {
        let signed = |id: &StatementId| oracle.statements.contains(id) || oracle.stolen.contains(id);
        let by_admin = member.invite.is_none() && signed(&member.admit);
        let was_invited = |number| oracle.invited.contains(number) || oracle.stolen.contains(&member.admit);
        let by_gateway = oracle.gateways.contains(&member.admitted_by)
            && oracle.nodes.get(&member.node).is_some_and(was_invited)
            && member.invite.is_some_and(|invite| oracle.invites.contains_key(&invite));
        ensure(by_admin || by_gateway, || format!("{} counts, and nobody admitted it", member.node.short()))?;
        if let MemberState::Revoked { ids, .. } = &member.state {
            for id in ids {
                ensure(signed(id), || format!("no admin signed {}", id.short()))?;
            }
        }
        if member.state == MemberState::Left {
            let number = oracle.nodes.get(&member.node);
            ensure(number.is_some_and(|number| oracle.leaving.contains(number)), || {
                format!("{} did not leave", member.node.short())
            })?;
        }
    }
    Ok(())
}

/// I5: under an invite no more machines count than it has uses, unless its gateway signed in two places
/// at once, and then both are shown.
pub(crate) fn invariant_invites_are_not_overspent(replica: &Replica, oracle: &Oracle) -> Held {
    let roster = replica.roster();
    let mut spent: BTreeMap<StatementId, u32> = BTreeMap::new();
    for invite in roster.members().iter().filter_map(|member| member.invite) {
        *spent.entry(invite).or_default() += 1;
    }
    for (invite, times) in spent {
        let made = oracle.invites.get(&invite).ok_or("an invite that nobody made")?;
        let shown = || replica.forks().iter().any(|fork| fork.author == made.redeemer);
        ensure(times <= made.uses || shown(), || {
            format!("{times} machines by {} of {} uses", invite.short(), made.uses)
        })?;
    }
    Ok(())
}

/// I6, membership 6: a key is revoked if and only if as many different admins revoked it as it takes.
pub(crate) fn invariant_enough_admins_revoke(replica: &Replica, threshold: usize) -> Held {
    let mut revokes: BTreeMap<PublicKey, BTreeSet<PublicKey>> = BTreeMap::new();
    let roster = replica.roster();
    for statement in statements(replica).filter(|statement| takes_away(replica, statement)) {
        if let Payload::Revoke(revoke) = statement.payload() {
            let machine = roster.member_of(&revoke.node).map_or(revoke.node, Member::first);
            revokes.entry(machine).or_default().insert(*statement.author());
        }
    }
    for member in roster.members() {
        let admins = revokes.get(&member.first()).map_or(0, BTreeSet::len);
        let is_revoked = matches!(member.state, MemberState::Revoked { .. });
        ensure(is_revoked == (admins >= threshold), || {
            format!("{} is {:?} after {admins} of {threshold}", member.node.short(), member.state)
        })?;
    }
    Ok(())
}

/// I3, membership 1: once things go wrong no more, everybody soon holds the same and sees the same.
pub(crate) fn invariant_views_converge(apart: &[String], seconds: u64) -> Held {
    ensure(apart.is_empty(), || format!("after {seconds} s these differ: {}", apart.join(", ")))
}

/// I2: a revocation that was acknowledged has reached everybody by then.
pub(crate) fn invariant_a_revocation_reaches_all(replica: &Replica, oracle: &Oracle) -> Held {
    for (node, _) in oracle.nodes.iter().filter(|(_, number)| oracle.is_revoked(**number)) {
        let roster = replica.roster();
        let refuses = match roster.member_of(node) {
            Some(member) => matches!(member.state, MemberState::Revoked { .. }),
            None => !roster.good().any(|member| member.uses(node)),
        };
        ensure(refuses, || {
            let state = roster.member_of(node).map(|member| &member.state);
            format!("{} is revoked, and here it is {state:?}", node.short())
        })?;
    }
    Ok(())
}

/// Membership 1, 11: the same records give the same list in any order, one by one.
pub(crate) fn invariant_order_does_not_matter(replica: &Replica, rng: &mut StdRng) -> Held {
    let genesis = replica.chain().genesis();
    let mut waiting: Vec<Record> = replica.records().collect();
    let mut other = Replica::new(genesis).map_err(|why| format!("{why:?}"))?;
    for at in (1..waiting.len()).rev() {
        waiting.swap(at, rng.random_range(0..=at));
    }
    // What comes before its predecessor is offered again, and so is what came already.
    for _ in 0..=waiting.len() {
        let before = other.count();
        for record in &waiting {
            drop(other.apply(record));
        }
        if other.count() == before {
            break;
        }
    }
    let same = (other.heads(), other.roster_digest()) == (replica.heads(), replica.roster_digest());
    ensure(same, || format!("{} records in another order give another list", replica.count()))
}

/// Membership 10: what is kept has one form.
pub(crate) fn invariant_records_have_one_form(replica: &Replica) -> Held {
    for record in replica.records() {
        let one = Records::encode(std::slice::from_ref(&record)).map_err(|why| why.to_string())?;
        let read = Records::decode(&one).map_err(|why| why.to_string())?;
        ensure(read == [record], || "a record is read back as another".to_owned())?;
    }
    Ok(())
}

/// Membership 9: whatever the hostile send, nothing is kept that no member and no admin signed.
pub(crate) fn invariant_nothing_else_is_kept(replica: &Replica, oracle: &Oracle) -> Held {
    for record in replica.records() {
        let is_ours = match &record {
            Record::Charter(bytes) => {
                UnverifiedCharter::decode(bytes).is_ok_and(|charter| oracle.settings.contains(&charter.id()))
            }
            Record::Report(bytes) => UnverifiedReport::decode(bytes)
                .is_ok_and(|report| oracle.nodes.contains_key(report.claimed().node())),
            Record::Statement(bytes) => {
                let statement = UnverifiedStatement::decode(bytes).map_err(|why| why.to_string())?;
                let (author, payload) = (statement.claimed().author(), statement.claimed().payload());
                let id = StatementId(record.id());
                let number = oracle.nodes.get(author);
                oracle.statements.contains(&id)
                    || oracle.stolen.contains(&id)
                    || match payload {
                        Payload::Admit(admit) => {
                            oracle.gateways.contains(author) && oracle.nodes.contains_key(&admit.node)
                        }
                        Payload::Leave => number.is_some_and(|number| oracle.leaving.contains(number)),
                        Payload::Rotate(rotate) => {
                            number.is_some() && oracle.nodes.get(&rotate.node) == number
                        }
                        Payload::Retire(_) => number.is_some(),
                        Payload::Revoke(_)
                        | Payload::Invite(_)
                        | Payload::Cancel(_)
                        | Payload::Suspend(_)
                        | Payload::Resume(_)
                        | Payload::Assign(_)
                        | Payload::Cosign(_) => false,
                    }
            }
        };
        ensure(is_ours, || format!("a record that nobody signed is kept: {record:?}"))?;
    }
    Ok(())
}

/// I11: the same run with clocks that jump and with clocks that do not.
pub fn invariant_clocks_decide_nothing(with: &str, without: &str) -> Result<(), String> {
    ensure(with == without, || "the run is another one when clocks jump".to_owned())
}
