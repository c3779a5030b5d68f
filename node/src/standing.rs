//! What the member list says of a key, in the words of the handshake. The one place where the state
//! of a member becomes a yes or a no.

use conn_auth::{Holder, Standing};
use identity::{Code, PublicKey, StatementId};
use member_crdt::{Member, MemberState, Roster};
use org_trust::Reason;

#[cfg(all(feature = "danger-no-enforcement", not(debug_assertions)))]
compile_error!("danger-no-enforcement is the tests' negative control and does not exist in a release");

/// The code for which a member in this state is refused; none if it is served.
#[must_use]
pub fn refusal(state: &MemberState) -> Option<Code> {
    if cfg!(feature = "danger-no-enforcement") && matches!(state, MemberState::Revoked { .. }) {
        return None;
    }
    state.refusal()
}

/// Whether a member is served.
#[must_use]
pub fn is_served(member: &Member) -> bool {
    refusal(&member.state).is_none()
}

/// Whether a member is served, or would be if what is missing here says so.
#[must_use]
pub fn may_be_served(member: &Member) -> bool {
    is_served(member) || member.is_unsettled()
}

/// Whether a member is not served and yet may be again, with the same keys.
#[must_use]
pub fn may_return(member: &Member) -> bool {
    matches!(member.state, MemberState::Suspended { .. })
}

/// What the list says of a proved key.
#[must_use]
pub fn of_key(roster: &Roster, key: &PublicKey) -> Standing {
    let judged =
        |member: &Member, holder| refusal(&member.state).map_or(Standing::Good(holder), Standing::Barred);
    match roster.standing(key) {
        member_crdt::Standing::Member(member) => judged(member, Holder::Member),
        member_crdt::Standing::Boot(member) => judged(member, Holder::BootKey),
        // What else there is to say of the machine comes first.
        member_crdt::Standing::Retired(member) => {
            Standing::Barred(refusal(&member.state).unwrap_or(Code::KeyRetired))
        }
        member_crdt::Standing::Admin(_) => Standing::Good(Holder::Admin),
        member_crdt::Standing::Unknown => Standing::Unknown,
    }
}

/// Whether the org's policy lets `from` do this action to `to`.
#[must_use]
pub fn permits(roster: &Roster, from: &PublicKey, to: &PublicKey, action: &str) -> bool {
    roster.permits(from, to, action).is_ok()
}

/// The sentence for a log or a person about why `key` is refused with `code`: for a revoked machine
/// by whom and why.
#[must_use]
pub fn reason(roster: &Roster, key: &PublicKey, code: Code) -> String {
    let member = match roster.standing(key) {
        member_crdt::Standing::Member(member)
        | member_crdt::Standing::Boot(member)
        | member_crdt::Standing::Retired(member) => member,
        member_crdt::Standing::Admin(_) | member_crdt::Standing::Unknown => return code.title().to_owned(),
    };
    match &member.state {
        MemberState::Revoked { by, reason, note, ids } if code == Code::Revoked => {
            taken(roster, code, by, *reason, note, ids)
        }
        MemberState::Suspended { by, reason, note, ids } if code == Code::Suspended => {
            taken(roster, code, by, *reason, note, ids)
        }
        MemberState::Revoked { .. }
        | MemberState::Suspended { .. }
        | MemberState::Good
        | MemberState::Left
        | MemberState::KeyConflict
        | MemberState::Pending
        | MemberState::Unsettled => code.title().to_owned(),
    }
}

fn taken(
    roster: &Roster,
    code: Code,
    by: &PublicKey,
    reason: Reason,
    note: &str,
    ids: &[StatementId],
) -> String {
    let change = ids.first().map(|id| id.short()).unwrap_or_default();
    let who = admin_name(roster, by);
    let note = if note.is_empty() { String::new() } else { format!(", {note}") };
    format!("{} by {who}: {}{note} (change {change})", code.title(), reason.as_str())
}

/// The name of an admin, or the beginning of a key that is no admin's any more.
#[must_use]
pub fn admin_name(roster: &Roster, key: &PublicKey) -> String {
    let named = roster.admins().iter().find(|admin| admin.key == *key);
    named.map_or_else(|| key.short(), |admin| admin.name.to_string())
}
