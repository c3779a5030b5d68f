//! Reports: of each node the newest. They never affect anybody's standing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use identity::{BootNonce, CharterId, PublicKey, StatementId};
use org_trust::{CharterChain, Report, ReportTip};

use crate::{
    held::{Held, KeyBytes},
    roster::{Member, Roster},
    trie::RecordId,
};

#[derive(Debug, Default)]
pub(crate) struct Reports {
    newest: BTreeMap<KeyBytes, Arc<Report>>,
    by_id: BTreeMap<RecordId, KeyBytes>,
    /// The starts that each node has gone on from. Nobody comes back to one.
    ended: BTreeMap<KeyBytes, VecDeque<BootNonce>>,
    /// Nodes that signed two reports of one number, or that went on from a start that had ended: two
    /// machines hold one key, or one was restored from a copy.
    clashes: BTreeSet<KeyBytes>,
}

/// Who has confirmed a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Members in good standing whose report covers it.
    pub applied: usize,
    /// Members in good standing.
    pub of: usize,
    /// The node keys of the others, ascending.
    pub missing: Vec<PublicKey>,
}

pub(crate) enum Taken {
    /// The newest of its node; the one it replaces.
    New(Option<Arc<Report>>),
    Older,
}

/// Starts of a node that are remembered: of copies, as many may take turns.
const STARTS_KEPT: usize = 4;

impl Reports {
    pub(crate) fn take(&mut self, report: Arc<Report>) -> Taken {
        let node = *report.node().as_bytes();
        if let Some(held) = self.newest.get(&node) {
            if held.body().seq == report.body().seq && held.id() != report.id() {
                self.clashes.insert(node);
            }
            if !report.supersedes(held) {
                return Taken::Older;
            }
            let (before, now) = (held.body().boot_nonce, report.body().boot_nonce);
            if before != now {
                let ended = self.ended.entry(node).or_default();
                if ended.contains(&now) {
                    self.clashes.insert(node);
                } else {
                    ended.push_back(before);
                    if ended.len() > STARTS_KEPT {
                        ended.pop_front();
                    }
                }
            }
        }
        self.by_id.insert(report.id(), node);
        let replaced = self.newest.insert(node, report);
        if let Some(old) = &replaced {
            self.by_id.remove(&old.id());
        }
        Taken::New(replaced)
    }

    pub(crate) fn of(&self, node: &PublicKey) -> Option<&Arc<Report>> {
        self.newest.get(node.as_bytes())
    }

    pub(crate) fn with_id(&self, id: &RecordId) -> Option<&Arc<Report>> {
        self.newest.get(self.by_id.get(id)?)
    }

    /// That of the newest key of a machine that has sent one.
    pub(crate) fn of_member(&self, member: &Member) -> Option<&Arc<Report>> {
        member.in_use().find_map(|keys| self.of(&keys.node))
    }

    pub(crate) fn forget(&mut self, node: &PublicKey) -> Option<Arc<Report>> {
        self.clashes.remove(node.as_bytes());
        let report = self.newest.remove(node.as_bytes())?;
        self.by_id.remove(&report.id());
        Some(report)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Report>> {
        self.newest.values()
    }

    /// Two machines were seen to use this key before.
    pub(crate) fn note_clash(&mut self, node: KeyBytes) {
        self.clashes.insert(node);
    }

    pub(crate) fn is_clash(&self, node: &KeyBytes) -> bool {
        self.clashes.contains(node)
    }

    /// Whatever was seen of this key counts no more: it takes two machines that go on after this.
    pub(crate) fn forgive(&mut self, node: &KeyBytes) -> bool {
        self.ended.remove(node);
        self.clashes.remove(node)
    }

    pub(crate) fn clashes(&self) -> impl Iterator<Item = &KeyBytes> {
        self.clashes.iter()
    }

    /// A member covers a statement when a tip that it reports is the statement or stands after it in
    /// the chain as held here. A tip that is not held here proves nothing yet.
    pub(crate) fn coverage(&self, roster: &Roster, held: &Held, id: &StatementId) -> Option<Coverage> {
        let statement = &held.get(id)?.statement;
        if statement.payload().is_by_node() {
            // Reports tell how far the lanes of admins and gateways are held, and no others.
            return None;
        }
        let (author, lane, seq) = (statement.author(), statement.lane(), statement.seq());
        let after: BTreeSet<ReportTip> = held
            .at_or_behind(author, lane, seq)
            .filter(|(_, tip)| held.stands_before(id, tip) == Some(true))
            .map(|(seq, tip)| ReportTip::new(author, lane, seq, tip))
            .collect();
        let has = |report: &Report| report.body().tips.iter().any(|tip| after.contains(tip));
        Some(self.covered(roster, has))
    }

    /// A member covers a charter when its report names it or one that follows it.
    pub(crate) fn coverage_of_charter(
        &self,
        roster: &Roster,
        chain: &CharterChain,
        id: &CharterId,
    ) -> Option<Coverage> {
        chain.get(id)?;
        let mut from: BTreeSet<CharterId> = chain.after(id).map(|charter| charter.id()).collect();
        from.insert(*id);
        Some(self.covered(roster, |report| from.contains(&report.body().charter)))
    }

    fn covered(&self, roster: &Roster, has: impl Fn(&Report) -> bool) -> Coverage {
        let mut coverage = Coverage { applied: 0, of: 0, missing: Vec::new() };
        for member in roster.good_or_unsettled() {
            coverage.of += 1;
            if self.of_member(member).is_some_and(|report| has(report)) {
                coverage.applied += 1;
            } else {
                coverage.missing.push(member.node);
            }
        }
        coverage.missing.sort_unstable();
        coverage
    }
}
