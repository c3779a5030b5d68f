//! One node's copy of everything the org signed: verified, kept, resolved.

mod opening;

use std::{collections::BTreeSet, sync::Arc};

use identity::{CharterId, Heads, OrgId, PublicKey, RosterDigest, StatementId};
use org_trust::{
    CharterChain, Lane, Payload, Place, Record, Report, ReportClaim, ReportTip, Statement, UnverifiedCharter,
    UnverifiedReport, UnverifiedStatement, VerifiedCharter,
};

use crate::{
    document::{Document, DocumentError},
    held::{Fit, Fork, Held, Tip},
    outcome::{Applied, LoadError, Rejected},
    reports::{Coverage, Reports, Taken},
    resolve::Rules,
    roster::Roster,
    trie::{IdTrie, RecordId},
};

/// Everything held, its roster, and the document that goes to disk.
#[derive(Debug)]
pub struct Replica {
    chain: CharterChain,
    held: Held,
    reports: Reports,
    ids: IdTrie,
    roster: Arc<Roster>,
    document: Document,
    own: Option<PublicKey>,
}

/// A replica read from a file.
#[derive(Debug)]
pub struct Loaded {
    /// The replica.
    pub replica: Replica,
    /// The end of the file was unreadable and is lost, as after a write that was cut off: write the
    /// file anew before appending to it.
    pub torn: bool,
    /// Records of the file that did not hold; they are not in the replica.
    pub refused: Vec<Rejected>,
}

impl Replica {
    /// A replica that holds an org's first charter and nothing else.
    ///
    /// # Errors
    /// [`LoadError::NoGenesis`] when the charter is a later one.
    pub fn new(genesis: &VerifiedCharter) -> Result<Self, LoadError> {
        let document = Document::new(genesis.org()).map_err(LoadError::Document)?;
        let chain = CharterChain::start(genesis.clone()).map_err(|_| LoadError::NoGenesis)?;
        let mut replica = Self::over(chain, document);
        replica.document.put_charter(genesis.charter().version, genesis.bytes());
        Ok(replica)
    }

    fn over(chain: CharterChain, document: Document) -> Self {
        let mut held = Held::default();
        held.name_roles(chain.head().charter());
        let mut ids = IdTrie::default();
        ids.insert(chain.genesis().id().0);
        let roster = Arc::new(Rules { chain: &chain, held: &held }.whole());
        Self { chain, held, reports: Reports::default(), ids, roster, document, own: None }
    }

    /// Names the node that this replica belongs to: its own reports always go to disk, because their
    /// numbers must grow over restarts; of other nodes' reports only what a restart needs.
    pub const fn belongs_to(&mut self, node: PublicKey) {
        self.own = Some(node);
    }

    /// Verifies a record and takes it in. What is new is in force when this returns; it is on disk
    /// when what [`Self::save_incremental`] returns is.
    ///
    /// # Errors
    /// [`Rejected`]; nothing changed.
    pub fn apply(&mut self, record: &Record) -> Result<Applied, Rejected> {
        match record {
            Record::Charter(bytes) => self.apply_charter(bytes),
            Record::Statement(bytes) => self.apply_statement(bytes),
            Record::Report(bytes) => self.take_report(bytes),
        }
    }

    fn apply_charter(&mut self, bytes: &[u8]) -> Result<Applied, Rejected> {
        let applied = self.take_charter(bytes)?;
        if matches!(applied, Applied::New { .. }) {
            self.roster = Arc::new(self.rules().whole());
        }
        Ok(applied)
    }

    fn take_charter(&mut self, bytes: &[u8]) -> Result<Applied, Rejected> {
        let charter = UnverifiedCharter::decode(bytes).map_err(Rejected::Malformed)?;
        let id = charter.id();
        if self.chain.get(&id).is_some() {
            return Ok(Applied::Known);
        }
        let newest = self.chain.head().charter().version;
        match charter.charter().parent {
            Some(parent) if self.chain.get(&parent).is_none() && charter.charter().version > newest => {
                return Ok(Applied::Waiting { prev: parent.0 });
            }
            Some(_) | None => {}
        }
        self.chain.extend(charter).map_err(Rejected::Charter)?;
        let head = self.chain.head();
        self.held.name_roles(head.charter());
        self.document.put_charter(head.charter().version, head.bytes());
        self.ids.insert(id.0);
        Ok(Applied::New { id: id.0, fork: false })
    }

    fn apply_statement(&mut self, bytes: &[u8]) -> Result<Applied, Rejected> {
        let unverified = UnverifiedStatement::decode(bytes).map_err(Rejected::Malformed)?;
        // The cheap checks on what it claims come before the signatures.
        match self.held.fit(&self.chain, unverified.claimed())? {
            Fit::Known => Ok(Applied::Known),
            Fit::Waiting(prev) => Ok(Applied::Waiting { prev }),
            Fit::Here(spot) => {
                let statement = unverified.verify(&self.org()).map_err(Rejected::Statement)?;
                let (statement, id) = (Arc::new(statement.clone()), statement.id());
                let kept = self.held.keep(Arc::clone(&statement), spot);
                for old in &kept.dropped {
                    self.ids.remove(&old.id().0);
                    self.document.forget_statement(&old.id().0);
                    self.forget_reports(old);
                }
                self.ids.insert(id.0);
                self.document.put_statement(&id.0, statement.bytes());
                let rules = Rules { chain: &self.chain, held: &self.held };
                if kept.burned || rules.is_cut_tip(&id) {
                    self.roster = Arc::new(rules.whole());
                } else {
                    rules.update(
                        Arc::make_mut(&mut self.roster),
                        &rules.touched_by(&statement, &kept.dropped),
                    );
                }
                Ok(Applied::New { id: id.0, fork: kept.fork })
            }
        }
    }

    fn take_report(&mut self, bytes: &[u8]) -> Result<Applied, Rejected> {
        let unverified = UnverifiedReport::decode(bytes).map_err(Rejected::Malformed)?;
        let node = *unverified.claimed().node();
        if !self.held.is_named(node.as_bytes()) {
            return Err(Rejected::ReportOfStranger { node: *node.as_bytes() });
        }
        if self.is_passed(unverified.claimed()) {
            return Ok(Applied::Known);
        }
        let report = Arc::new(unverified.verify(&self.org()).map_err(Rejected::Report)?);
        Ok(self.keep_report(report))
    }

    fn keep_report(&mut self, report: Arc<Report>) -> Applied {
        let node = *report.node();
        let was_clash = self.reports.is_clash(node.as_bytes());
        let taken = self.reports.take(Arc::clone(&report));
        if !was_clash && self.reports.is_clash(node.as_bytes()) {
            self.document.put_clone(node.as_bytes(), true);
        }
        match taken {
            Taken::Older => Applied::Known,
            Taken::New(old) => {
                if self.own == Some(node) || old.as_deref().is_none_or(|old| lasts_longer(&report, old)) {
                    self.document.put_report(node.as_bytes(), report.bytes());
                }
                if let Some(old) = old {
                    self.ids.remove(&old.id());
                }
                self.ids.insert(report.id());
                Applied::New { id: report.id(), fork: false }
            }
        }
    }

    /// The reports of a key go with the Rotate that alone named it.
    fn forget_reports(&mut self, dropped: &Statement) {
        let Payload::Rotate(rotate) = dropped.payload() else { return };
        if !self.held.is_named(rotate.node.as_bytes())
            && let Some(report) = self.reports.forget(&rotate.node)
        {
            self.ids.remove(&report.id());
        }
    }

    /// Whether a report is held already, or a newer one of its node.
    fn is_passed(&self, report: &ReportClaim) -> bool {
        let held = self.reports.of(report.node());
        held.is_some_and(|held| held.id() == report.id() || held.body().seq > report.body().seq)
    }

    /// The node that a record claims to be a report of, if applying it comes to verifying it.
    pub(crate) fn would_verify_report_of(&self, record: &Record) -> Option<PublicKey> {
        let Record::Report(bytes) = record else { return None };
        let unverified = UnverifiedReport::decode(bytes).ok()?;
        let node = *unverified.claimed().node();
        let known = self.held.is_named(node.as_bytes());
        (known && !self.is_passed(unverified.claimed())).then_some(node)
    }

    /// Whether an Admit of this node key would be void because admins revoked the key before.
    #[must_use]
    pub fn is_revoked_early(&self, node: &PublicKey) -> bool {
        Rules { chain: &self.chain, held: &self.held }.is_revoked(node.as_bytes())
    }

    /// The member list as it stands. Costs a reference count; the snapshot never changes.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// The org.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.chain.org()
    }

    /// The charters.
    #[must_use]
    pub const fn chain(&self) -> &CharterChain {
        &self.chain
    }

    /// The digest of everything held: two replicas' are equal iff they hold the same.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.ids.heads()
    }

    /// How many records are held.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.ids.count()
    }

    /// The digest of the roster.
    #[must_use]
    pub fn roster_digest(&self) -> RosterDigest {
        self.roster.digest()
    }

    /// The ends of the lanes of all role keys, by author and lane.
    #[must_use]
    pub fn tips(&self) -> Vec<Tip> {
        self.held.tips().collect()
    }

    /// The tips as a report carries them: as many as fit, those of Revokes first, because an admin
    /// waits for them, then those with the highest numbers.
    #[must_use]
    pub fn report_tips(&self) -> Vec<ReportTip> {
        let mut tips = self.tips();
        tips.sort_by_key(|tip| (tip.lane != Lane::Revokes, core::cmp::Reverse(tip.seq)));
        tips.truncate(identity::limits::REPORT_TIPS_MAX);
        let mut tips: Vec<ReportTip> =
            tips.iter().map(|tip| ReportTip::new(&tip.author, tip.lane, tip.seq, &tip.id)).collect();
        tips.sort_unstable();
        tips
    }

    /// Where the next statement of an author goes: behind its last one; the first of a role key
    /// behind the charter that first named it, what a machine says of itself behind what made the key
    /// its own. None when the key is neither.
    #[must_use]
    pub fn next_place(&self, author: &PublicKey, lane: Lane) -> Option<Place> {
        let charter = self.chain.head().id();
        if let Some((seq, prev)) = self.held.next(author, lane) {
            return Some(Place { charter, lane, seq, prev: prev.0 });
        }
        let first = match self.chain.named(author) {
            Some(named) => named.id().0,
            None => self.roster.get(author)?.in_use().find(|keys| keys.node == *author)?.by.0,
        };
        Some(Place { charter, lane, seq: 0, prev: first })
    }

    /// The statement with this id.
    #[must_use]
    pub fn statement(&self, id: &StatementId) -> Option<&Statement> {
        self.held.get(id).map(|entry| &*entry.statement)
    }

    /// The newest report of a node key. Where it has none and is the newest of a machine that has not
    /// begun to use it, that of the key before it.
    #[must_use]
    pub fn report_of(&self, node: &PublicKey) -> Option<&Report> {
        let member = || self.roster.get(node).filter(|member| member.node == *node);
        let report = self.reports.of(node).or_else(|| self.reports.of_member(member()?));
        report.map(|report| &**report)
    }

    /// What was seen of a key that two machines use counts no more. Whether there was anything.
    pub fn forgive_clash(&mut self, node: &PublicKey) -> bool {
        let forgiven = self.reports.forgive(node.as_bytes());
        if forgiven {
            self.document.put_clone(node.as_bytes(), false);
        }
        forgiven
    }

    /// Node keys that two machines use, by what was seen of their reports, also before the last start.
    #[must_use]
    pub fn report_clashes(&self) -> Vec<PublicKey> {
        let clashes = self.reports.clashes();
        clashes.filter_map(|node| PublicKey::from_bytes(node).ok()).collect()
    }

    /// Which members have reported a statement as applied; none when it is not held, or is what a machine
    /// says of itself, which reports do not tell.
    #[must_use]
    pub fn coverage(&self, id: &StatementId) -> Option<Coverage> {
        self.reports.coverage(&self.roster, &self.held, id)
    }

    /// Which members have reported these org settings, or later ones, as applied; none when they are not
    /// held.
    #[must_use]
    pub fn coverage_of_charter(&self, id: &CharterId) -> Option<Coverage> {
        self.reports.coverage_of_charter(&self.roster, &self.chain, id)
    }

    /// Places where one author signed several statements.
    #[must_use]
    pub fn forks(&self) -> Vec<Fork> {
        self.held.forks()
    }

    /// Every record, each after what it builds on: charters, statements, reports.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let charters = self.chain.iter().map(Record::from);
        let statements = self.held.in_order().map(|s| Record::from(&**s));
        charters.chain(statements).chain(self.reports.iter().map(|r| Record::from(&**r)))
    }

    /// Those of them with these ids, each after what it builds on.
    pub(crate) fn records_of(&self, ids: &BTreeSet<RecordId>) -> Vec<Record> {
        let mut charters: Vec<&VerifiedCharter> =
            ids.iter().filter_map(|id| self.chain.get(&CharterId(*id))).collect();
        charters.sort_by_key(|charter| charter.charter().version);
        let mut records: Vec<Record> = charters.into_iter().map(Record::from).collect();
        let mut placed = BTreeSet::new();
        for id in ids {
            // Back to the first one that is not placed yet, then forward.
            let (mut path, mut at) = (Vec::new(), *id);
            while let Some(s) = self.statement(&StatementId(at)).filter(|_| ids.contains(&at)) {
                if !placed.insert(at) {
                    break;
                }
                path.push(s);
                at = s.prev();
            }
            records.extend(path.into_iter().rev().map(Record::from));
        }
        records.extend(ids.iter().filter_map(|id| self.reports.with_id(id)).map(|r| Record::from(&**r)));
        records
    }

    /// Whether something was taken in that neither save has returned yet.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.document.is_pending()
    }

    /// What to append to the file for everything taken in since the last save; empty when that is
    /// nothing.
    ///
    /// # Errors
    /// [`DocumentError`] when the document does not take a record, which is a defect of ours.
    pub fn save_incremental(&mut self) -> Result<Vec<u8>, DocumentError> {
        self.document.save_incremental()
    }

    /// The whole file anew.
    ///
    /// # Errors
    /// As [`Self::save_incremental`].
    pub fn save(&mut self) -> Result<Vec<u8>, DocumentError> {
        self.document.save()
    }

    pub(crate) const fn ids(&self) -> &IdTrie {
        &self.ids
    }

    pub(crate) const fn held(&self) -> &Held {
        &self.held
    }

    fn rules(&self) -> Rules<'_> {
        Rules { chain: &self.chain, held: &self.held }
    }
}

/// Whether a report tells what a restart needs and the older one did not. Tips and heads are heard
/// again at once, so they are not worth a write for every member at every change.
fn lasts_longer(new: &Report, old: &Report) -> bool {
    let (new, old) = (new.body(), old.body());
    (&new.endpoints, &new.version, new.boot_nonce) != (&old.endpoints, &old.version, old.boot_nonce)
}
