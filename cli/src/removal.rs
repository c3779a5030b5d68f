//! What still counts of a role key that is taken out of the org's settings: computed from the changes
//! it signed, as they are held here. Pure.

use std::collections::BTreeSet;

use identity::{PublicKey, StatementId};
use org_trust::{Cut, Lane, Statement};

/// What the operator wants to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Every change that is held here.
    Held,
    /// None at all.
    Nothing,
    /// Every change but these and what the key signed after each of them.
    Before(Vec<StatementId>),
}

/// What a removal keeps and what it takes away.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) cuts: Vec<Cut>,
    pub(crate) counting: usize,
    pub(crate) void: usize,
}

/// The ends of what still counts, of the changes that `key` signed.
pub(crate) fn kept(key: &PublicKey, changes: &[Statement], keep: &Keep) -> Kept {
    let mut kept = Kept::default();
    let first_void: &[StatementId] = match keep {
        Keep::Nothing => return Kept { void: changes.len(), ..kept },
        Keep::Held => &[],
        Keep::Before(ids) => ids,
    };
    for lane in [Lane::Main, Lane::Revokes] {
        let mut lane_changes: Vec<&Statement> = changes.iter().filter(|s| s.lane() == lane).collect();
        lane_changes.sort_by_key(|s| (s.seq(), s.id()));
        // Whatever follows a void one is void: in the order of numbers, one pass sees it.
        let mut void: BTreeSet<[u8; 32]> = BTreeSet::new();
        let mut ends: BTreeSet<[u8; 32]> = BTreeSet::new();
        for change in lane_changes {
            let id = change.id();
            if first_void.contains(&id) || void.contains(&change.prev()) {
                void.insert(id.0);
            } else {
                ends.remove(&change.prev());
                ends.insert(id.0);
                kept.counting += 1;
            }
        }
        kept.void += void.len();
        kept.cuts.extend(ends.into_iter().map(|id| Cut { key: *key, lane, tip: StatementId(id) }));
    }
    kept
}

#[cfg(test)]
mod tests {
    use identity::{CharterId, OrgId, SecretKey};
    use org_trust::{Payload, Place, Reason, Revoke};

    use super::*;

    const ORG: OrgId = OrgId([5; 32]);

    #[test]
    fn by_default_everything_held_counts() {
        let lane = revokes(3);
        let kept = kept(&author(), &lane, &Keep::Held);
        assert_eq!((kept.counting, kept.void), (3, 0));
        assert_eq!(tips(&kept), [lane[2].id()]);
    }

    #[test]
    fn from_a_change_on_nothing_counts_and_what_came_before_does() {
        let lane = revokes(4);
        let some = kept(&author(), &lane, &Keep::Before(vec![lane[2].id()]));
        assert_eq!((some.counting, some.void, tips(&some)), (2, 2, vec![lane[1].id()]));
        let none = kept(&author(), &lane, &Keep::Before(vec![lane[0].id()]));
        assert_eq!((none.counting, none.void, tips(&none)), (0, 4, vec![]));
        let nothing = kept(&author(), &lane, &Keep::Nothing);
        assert_eq!((nothing.counting, nothing.void, tips(&nothing)), (0, 4, vec![]));
    }

    #[test]
    fn of_a_fork_each_branch_has_its_end_and_one_can_be_taken_away() {
        let mut lane = revokes(2);
        let place = lane[0].next_place(CharterId([1; 32]));
        lane.push(revoke(place, 99));
        let both = kept(&author(), &lane, &Keep::Held);
        let mut ends = [lane[1].id(), lane[2].id()];
        ends.sort();
        assert_eq!(tips(&both), ends);
        let one = kept(&author(), &lane, &Keep::Before(vec![lane[2].id()]));
        assert_eq!(tips(&one), [lane[1].id()], "the common beginning is before the other end");
    }

    fn tips(kept: &Kept) -> Vec<StatementId> {
        kept.cuts.iter().map(|cut| cut.tip).collect()
    }

    fn revokes(count: u8) -> Vec<Statement> {
        let charter = CharterId([1; 32]);
        let mut place = Place { charter, lane: Lane::Revokes, seq: 0, prev: charter.0 };
        let mut lane = Vec::new();
        for n in 1..=count {
            let change = revoke(place, n);
            place = change.next_place(charter);
            lane.push(change);
        }
        lane
    }

    fn revoke(place: Place, node: u8) -> Statement {
        let node = SecretKey::from_seed(&[node; 32]).public();
        let payload = Payload::Revoke(Revoke { node, reason: Reason::Unspecified, note: String::new() });
        Statement::sign(&ORG, &SecretKey::from_seed(&[200; 32]), place, &payload).unwrap()
    }

    fn author() -> PublicKey {
        SecretKey::from_seed(&[200; 32]).public()
    }
}
