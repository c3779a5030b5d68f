//! What must hold of sessions, tunnels and handshakes.

use std::collections::BTreeMap;

use identity::{
    Code, PublicKey, WireGuardKey,
    limits::{CLOSE_FLUSH_MS, PARTING_MS},
};
use member_crdt::{Member, MemberState, Roster, Standing};
use musterd::sessions::{Purpose, Session, Sessions};

use super::{Held, ensure};
use crate::{machine::Memory, world::MS};

/// I1: every session that is not being cut is with a key that the machine's own list lets in.
pub(crate) fn invariant_a_session_is_with_a_member(roster: &Roster, sessions: &Sessions) -> Held {
    for (_, session) in sessions.iter().filter(|(_, session)| !session.is_cut()) {
        let (peer, action) = (session.peer(), session.purpose.action());
        let lets_in = match (session.purpose, roster.standing(&peer)) {
            // It is told that it waits.
            (Purpose::Outside("enrol"), Standing::Member(member)) if member.state == MemberState::Pending => {
                true
            }
            // Both hear what is missing to say who is a member.
            (Purpose::Sync, Standing::Member(member)) => member.is_good() || member.is_unsettled(),
            (_, Standing::Member(member)) => member.is_good(),
            (Purpose::Outside(_), Standing::Boot(member)) => member.is_good(),
            (Purpose::Outside(_), Standing::Admin(_)) => true,
            (Purpose::Outside("enrol"), Standing::Unknown) => true,
            (_, Standing::Boot(_) | Standing::Retired(_) | Standing::Admin(_) | Standing::Unknown) => false,
        };
        ensure(lets_in, || {
            format!("a session for {action} with {}: {:?}", peer.short(), roster.standing(&peer))
        })?;
    }
    Ok(())
}

/// Whether the list says that a key may do this; of an unsettled one that it may keep the list in step.
fn may_enter(roster: &Roster, key: &PublicKey, action: &str) -> bool {
    let allows = |member: &Member| member.is_good() || (member.is_unsettled() && action == "sync");
    roster.get(key).is_some_and(allows)
}

/// I1, I2: a handshake is accepted only of a member in good standing, and never of a key of which this
/// machine knew before that it is revoked.
pub(crate) fn invariant_a_handshake_follows_the_list(
    roster: &Roster,
    memory: &Memory,
    key: &PublicKey,
    action: &str,
    outcome: Result<(), Code>,
) -> Held {
    match outcome {
        Ok(()) if memory.revoked.contains_key(key) => {
            Err(format!("{} is revoked and was let in", key.short()))
        }
        Ok(()) => ensure(may_enter(roster, key, action), || {
            format!("{} is no member and was let in for {action}", key.short())
        }),
        Err(_) => Ok(()),
    }
}

/// After all is well members let each other in, and nobody else.
pub(crate) fn invariant_members_are_served(
    roster: &Roster,
    key: &PublicKey,
    action: &str,
    outcome: Result<(), Code>,
) -> Held {
    let is_good = may_enter(roster, key, action);
    ensure(is_good == outcome.is_ok(), || {
        format!(
            "{} is {}a member, and the answer is {outcome:?}",
            key.short(),
            if is_good { "" } else { "not " }
        )
    })
}

/// Who is no member any more keeps no session, but for passing on the change that says so; who cannot
/// tell keeps those that may bring what is missing.
pub(crate) fn invariant_a_former_member_serves_nobody(
    roster: &Roster,
    me: &PublicKey,
    sessions: &Sessions,
    lost_at: Option<u64>,
    now: u64,
) -> Held {
    // One that is suspended keeps asking those that shut it out.
    let may_return = |member: &Member| matches!(member.state, MemberState::Suspended { .. });
    let is_member = roster.get(me).is_some_and(|member| member.is_good() || may_return(member));
    let is_unsettled = roster.get(me).is_some_and(Member::is_unsettled);
    let settles = |session: &Session| {
        is_unsettled && matches!(session.purpose, Purpose::Sync | Purpose::Outside("submit" | "fetch"))
    };
    let tells = lost_at.is_some_and(|at| now - at <= (PARTING_MS + 50) * MS);
    let passes_on =
        |session: &Session| tells && matches!(session.purpose, Purpose::Sync | Purpose::Outside("submit"));
    let goes_on = |session: &Session| session.is_cut() || passes_on(session) || settles(session);
    let live = sessions.iter().filter(|(_, session)| !goes_on(session)).count();
    ensure(is_member || live == 0, || format!("{live} sessions of a machine that is no member"))
}

/// A gate is open only as long as a link over it is.
pub(crate) fn invariant_gates_need_links<'a>(
    gates: impl Iterator<Item = &'a WireGuardKey>,
    roster: &Roster,
    sessions: &Sessions,
) -> Held {
    for gate in gates {
        let member = roster.by_wireguard(gate).ok_or("an open gate for a key of nobody")?;
        ensure(sessions.is_linked(member.first()), || {
            format!("the gate of {} is open without a link", member.name)
        })?;
    }
    Ok(())
}

/// Who is no member has no tunnel, once it has had the time to hear why.
pub(crate) fn invariant_tunnels_are_members(
    peers: impl Iterator<Item = WireGuardKey>,
    lost_at: &BTreeMap<WireGuardKey, u64>,
    now: u64,
) -> Held {
    for peer in peers {
        let since = lost_at.get(&peer).map(|at| now - at);
        ensure(since.is_none_or(|since| since <= (CLOSE_FLUSH_MS + 50) * MS), || {
            format!("a tunnel {} ms after its member lost its standing", since.unwrap_or_default() / MS)
        })?;
    }
    Ok(())
}

/// No packet of an application passes from a key that the receiver knows to be revoked.
pub(crate) fn invariant_no_traffic_of_the_revoked(memory: &Memory, from: &PublicKey) -> Held {
    ensure(!memory.revoked.contains_key(from), || format!("a packet of {}, which is revoked", from.short()))
}

/// Health never lies: after all is well a member does not say that it is shut out.
pub(crate) fn invariant_status_is_true(problems: &[control::local::Failed]) -> Held {
    let shut_out = |failed: &&control::local::Failed| {
        matches!(failed.code.0, Code::Revoked | Code::Left | Code::UnknownKey | Code::DiskRefused)
    };
    match problems.iter().find(shut_out) {
        Some(failed) => Err(format!("status says {} {}", failed.code, failed.detail)),
        None => Ok(()),
    }
}

/// A machine has something to do at one moment only so often.
pub(crate) fn invariant_time_moves_on(wakes: u32) -> Held {
    ensure(wakes < 100, || format!("woken {wakes} times at one moment"))
}
