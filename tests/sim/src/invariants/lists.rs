//! What must hold of the member list.

use std::collections::{BTreeMap, BTreeSet};

use identity::{PublicKey, StatementId};
use member_crdt::{Applied, Member, MemberState, Replica, Roster};
use org_trust::{Lane, Payload, Record, UnverifiedCharter, UnverifiedReport, UnverifiedStatement};
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

/// How records reach a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Again and again, until everything that can be taken is.
    AnyOrder,
    /// So, but who comes second to a place of a lane is not listened to: broken on purpose.
    FirstComeCounts,
}

/// Membership 1, 11: what a machine holds is taken by another one in any order, one by one, through stops
/// and starts on the way; nothing of it is refused; and the list, what is told of it and what shows forks
/// are the same.
pub(crate) fn invariant_order_does_not_matter(
    held: &Replica,
    records: &[Record],
    arrival: Arrival,
    rng: &mut StdRng,
) -> Held {
    for _ in 0..ORDERS {
        let mut order: Vec<&Record> = records.iter().collect();
        // Some come twice.
        for _ in 0..records.len() / 4 {
            order.push(&records[rng.random_range(0..records.len())]);
        }
        for at in (1..order.len()).rev() {
            order.swap(at, rng.random_range(0..=at));
        }
        let other = delivered(held, &order, arrival, rng)?;
        ensure(other.count() == held.count() && other.heads() == held.heads(), || {
            format!("of {} records another order keeps {}", held.count(), other.count())
        })?;
        ensure(other.roster().members() == held.roster().members(), || {
            format!("{} records in another order give other members", held.count())
        })?;
        ensure(other.roster_digest() == held.roster_digest(), || "another digest".to_owned())?;
        ensure(other.forks() == held.forks(), || "other forks are shown".to_owned())?;
        let ends = |replica: &Replica| replica.tips().into_iter().collect::<BTreeSet<_>>();
        ensure(ends(&other) == ends(held), || "lanes end elsewhere".to_owned())?;
        ensure(other.chain().head().id() == held.chain().head().id(), || "other settings".to_owned())?;
        for member in held.roster().members() {
            let report = |replica: &Replica| replica.report_of(&member.node).map(|report| report.id());
            ensure(report(&other) == report(held), || {
                format!("another report of {} is the newest", member.node.short())
            })?;
        }
    }
    Ok(())
}

/// A machine of the same org after these have reached it.
fn delivered(
    held: &Replica,
    order: &[&Record],
    arrival: Arrival,
    rng: &mut StdRng,
) -> Result<Replica, String> {
    let wrong = |why: &dyn core::fmt::Debug| format!("{why:?}");
    let mut other = Replica::new(held.chain().genesis()).map_err(|why| wrong(&why))?;
    let mut file = other.save().map_err(|why| wrong(&why))?;
    let mut places = BTreeMap::new();
    let mut stops = STOPS_MAX;
    let mut open: Vec<&Record> = order.to_vec();
    loop {
        let (mut again, mut last, mut has_moved) = (Vec::new(), None, false);
        for record in open {
            if arrival == Arrival::FirstComeCounts && !is_first(record, &mut places) {
                continue;
            }
            // What comes before its predecessor, or before what names its author, is offered again.
            match other.apply(record) {
                Ok(Applied::New { .. }) => has_moved = true,
                Ok(Applied::Known) => {}
                Ok(Applied::Waiting { .. }) => again.push(record),
                Err(why) => {
                    last = Some(why);
                    again.push(record);
                }
            }
            if stops > 0 && rng.random_range(0..STOPS) == 0 {
                stops -= 1;
                file.extend(other.save_incremental().map_err(|why| wrong(&why))?);
                let loaded = Replica::load(&file, &held.org()).map_err(|why| wrong(&why))?;
                ensure(loaded.refused.is_empty(), || format!("a file refuses {:?}", loaded.refused))?;
                // Of other machines' reports a file keeps what a start needs; they are told anew.
                again.extend(order.iter().filter(|record| matches!(record, Record::Report(_))));
                (other, has_moved) = (loaded.replica, true);
            }
        }
        if again.is_empty() {
            return Ok(other);
        }
        if !has_moved {
            return Err(match last {
                Some(why) => format!("in another order a record is refused: {why}"),
                None => format!("{} records wait for ever", again.len()),
            });
        }
        open = again;
    }
}

fn is_first(record: &Record, places: &mut BTreeMap<(PublicKey, Lane, u64), StatementId>) -> bool {
    let Record::Statement(bytes) = record else { return true };
    let Ok(read) = UnverifiedStatement::decode(bytes) else { return true };
    let claim = read.claimed();
    let first = places.entry((*claim.author(), claim.lane(), claim.seq())).or_insert_with(|| claim.id());
    *first == claim.id()
}

/// Membership 10: what stands on a disk is written in the one form that there is: read into its fields and
/// written anew it is the same bytes, and nothing stands there a second time under another signature.
pub(crate) fn invariant_records_have_one_form(on_disk: &[Record]) -> Held {
    let mut said: BTreeSet<Vec<u8>> = BTreeSet::new();
    for record in on_disk {
        let malformed = |why| format!("a record on the disk does not read: {why}");
        let (again, body) = match record {
            Record::Charter(bytes) => {
                let read = UnverifiedCharter::decode(bytes).map_err(malformed)?;
                // The id of what was read is worked out from its fields, that of the record from its bytes.
                ensure(read.charter().id().0 == record.id(), || "settings have two forms".to_owned())?;
                (read.to_bytes(), read.id().0.to_vec())
            }
            Record::Statement(bytes) => {
                let read = UnverifiedStatement::decode(bytes).map_err(malformed)?;
                (read.claimed().reencoded(), unsigned(bytes))
            }
            Record::Report(bytes) => {
                let read = UnverifiedReport::decode(bytes).map_err(malformed)?;
                (read.claimed().reencoded(), unsigned(bytes))
            }
        };
        ensure(again == record.bytes(), || format!("{record:?} is written {again:?} now"))?;
        ensure(said.insert(body), || format!("{record:?} stands there twice"))?;
    }
    Ok(())
}

fn unsigned(bytes: &[u8]) -> Vec<u8> {
    bytes.split_last_chunk::<64>().map_or_else(Vec::new, |(body, _signature)| body.to_vec())
}

/// Orders in which one machine's records are delivered.
const ORDERS: usize = 2;
/// Records between two stops of the machine that takes them, on average.
const STOPS: u32 = 40;
/// At most so many in one order: each start verifies everything anew.
const STOPS_MAX: u32 = 3;

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
                        | Payload::Cosign(_)
                        | Payload::Policy(_) => false,
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
