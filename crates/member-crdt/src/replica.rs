//! One node's copy of everything the org signed: verified, kept, resolved.

use std::{collections::BTreeSet, sync::Arc};

use identity::{
    CharterId, Code, Heads, OrgId, PublicKey, RosterDigest, StatementId, codec::DecodeError, encode_hex,
};
use org_trust::{
    CharterChain, CharterError, Lane, Payload, Place, Record, Report, ReportClaim, ReportError, ReportTip,
    Statement, StatementError, UnverifiedCharter, UnverifiedReport, UnverifiedStatement, VerifiedCharter,
};

use crate::{
    document::{Document, DocumentError},
    held::{Fit, Fork, Held, Tip},
    load::{self, Checked, Outcome, Unchecked},
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

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Verified, kept and in force. Pass it on.
    New {
        /// Its id.
        id: RecordId,
        /// The author signed another statement at the same place; [`Replica::forks`] has both.
        fork: bool,
    },
    /// Held already, or older than what is held of its kind.
    Known,
    /// Not kept: the record with this id must come first.
    Waiting {
        /// That record.
        prev: RecordId,
    },
}

/// Why a record is not kept. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// This author revoked this key before in the same chain.
    AlreadyRevoked {
        /// The key.
        node: [u8; 32],
    },
    /// It does not continue its author's chain.
    Broken(Broken),
    /// A charter that does not hold.
    Charter(CharterError),
    /// The bytes are no record.
    Malformed(DecodeError),
    /// The author does not have the role that the statement needs.
    NotAuthorised {
        /// The author.
        author: [u8; 32],
    },
    /// A report that does not hold.
    Report(ReportError),
    /// A report by a node that no Admit held names.
    ReportOfStranger {
        /// The node.
        node: [u8; 32],
    },
    /// A statement whose signatures do not hold.
    Statement(StatementError),
    /// As much of its kind is kept as counts or proves anything.
    Surplus,
    /// The author revoked too many keys that nobody admitted.
    TooManyEarlyRevokes {
        /// The author.
        author: [u8; 32],
    },
}

/// How a statement fails to continue a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// It rotates to a key that the machine has had.
    KeyAgain,
    /// The kind does not belong into the lane.
    Lane,
    /// It cites an older charter than the statement before it.
    OlderCharter,
    /// The statement it names as previous is another author's, another lane's or not the one before.
    Previous,
    /// Its machine has had as many keys as it may.
    Rotations,
    /// The first of a lane does not name the charter that first named its author.
    Start,
}

/// Who is to blame for a record that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent it: an honest replica neither keeps nor passes on such a record.
    Sender,
    /// Its author; an honest replica may hold what this one does not.
    Author,
    /// Nobody: another order of arrival may change the answer.
    Nobody,
}

/// Why a file does not become a replica.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It is not a document of this org.
    Document(DocumentError),
    /// It holds no charter that begins the org.
    NoGenesis,
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

    /// Opens what [`Self::save`] and [`Self::save_incremental`] wrote, one after the other in one
    /// file. Every record is verified again; the file is trusted with nothing.
    ///
    /// # Errors
    /// [`LoadError`] when the file is damaged beyond its end, or another org's.
    pub fn load(bytes: &[u8], org: &OrgId) -> Result<Loaded, LoadError> {
        Self::load_with(bytes, org, |pieces| pieces.into_iter().map(Unchecked::check).collect())
    }

    /// The same; `verify` checks the pieces it is given, on as many cores as there are. It is called
    /// twice, because whether an invite's key signed is asked once the invites are known.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        bytes: &[u8],
        org: &OrgId,
        verify: impl Fn(Vec<Unchecked>) -> Vec<Checked>,
    ) -> Result<Loaded, LoadError> {
        let opened = Document::open(bytes, org).map_err(LoadError::Document)?;
        let mut records = opened.records.into_iter();
        // The first alone: of a later one that does not hold the others are kept.
        let first = records.next().filter(|record| matches!(record, Record::Charter(_)));
        let chain = first.and_then(|first| CharterChain::read([first.bytes()]).ok());
        let chain = chain.filter(|chain| chain.org() == *org).ok_or(LoadError::NoGenesis)?;
        let mut replica = Self::over(chain, opened.document);
        let refused = replica.fill(records, verify);
        for node in opened.clones {
            replica.reports.note_clash(node);
        }
        Ok(Loaded { replica, torn: opened.torn, refused })
    }

    /// The records of a file as they stand there, none of them judged: for whoever checks files.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read_records(bytes: &[u8], org: &OrgId) -> Result<Vec<Record>, LoadError> {
        Document::open(bytes, org).map(|opened| opened.records).map_err(LoadError::Document)
    }

    fn over(chain: CharterChain, document: Document) -> Self {
        let mut held = Held::default();
        held.name_roles(chain.head().charter());
        let mut ids = IdTrie::default();
        ids.insert(chain.genesis().id().0);
        let roster = Arc::new(Rules { chain: &chain, held: &held }.whole());
        Self { chain, held, reports: Reports::default(), ids, roster, document, own: None }
    }

    /// Takes the records of a file: all of them, then one resolution of the whole.
    fn fill(
        &mut self,
        records: impl Iterator<Item = Record>,
        verify: impl Fn(Vec<Unchecked>) -> Vec<Checked>,
    ) -> Vec<Rejected> {
        let (org, mut refused, mut pieces) = (self.org(), Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Charter(bytes) => {
                    if let Err(why) = self.take_charter(&bytes) {
                        refused.push(why);
                    }
                }
                Record::Statement(bytes) => pieces.push(Unchecked::statement(org, bytes)),
                Record::Report(bytes) => pieces.push(Unchecked::report(org, bytes)),
            }
        }
        let mut statements = Vec::new();
        let mut reports = Vec::new();
        for checked in verify(pieces) {
            match checked.0 {
                Outcome::Statement(statement) => statements.push(statement),
                Outcome::Report(report) => reports.push(report),
                Outcome::Refused(why) => refused.push(why),
                Outcome::Redemption(..) => {}
            }
        }
        let invited = verify(load::redemptions(org, &statements));
        // By place, so that a predecessor comes first; what machines say after the Admits it follows.
        statements.sort_by_key(|s| (s.payload().is_by_node(), s.seq()));
        loop {
            let before = statements.len();
            statements.retain(|statement| match self.held.fit(&self.chain, statement) {
                Ok(Fit::Here(spot)) => {
                    self.ids.insert(statement.id().0);
                    let kept = self.held.keep(Arc::clone(statement), spot);
                    for old in &kept.dropped {
                        self.ids.remove(&old.id().0);
                    }
                    false
                }
                // What was dropped for another still stands in the file.
                Ok(Fit::Known) | Err(Rejected::Surplus) => false,
                Ok(Fit::Waiting(_)) => true,
                Err(why) => {
                    refused.push(why);
                    false
                }
            });
            if statements.len() == before || statements.is_empty() {
                break;
            }
        }
        // What stood behind a statement that was dropped is still in the file.
        let stray = statements.iter().filter(|s| !s.payload().is_by_node());
        refused.extend(stray.map(|_| Rejected::Broken(Broken::Previous)));
        for checked in invited {
            if let Outcome::Redemption(admit, holds) = checked.0
                && let Some(entry) = self.held.get(&admit)
            {
                entry.invited.get_or_init(|| holds);
            }
        }
        for report in reports {
            if !self.held.is_named(report.node().as_bytes()) {
                refused.push(Rejected::ReportOfStranger { node: *report.node().as_bytes() });
            } else {
                self.keep_report(report);
            }
        }
        self.document.forget_pending();
        self.roster = Arc::new(self.rules().whole());
        refused
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

impl Rejected {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::AlreadyRevoked { .. } => Code::AlreadyRevoked,
            Self::Broken(_) => Code::ChangeBroken,
            Self::Charter(why) => why.code(),
            Self::Malformed(_) => Code::ChangeMalformed,
            Self::NotAuthorised { .. } | Self::TooManyEarlyRevokes { .. } => Code::ChangeNotAuthorised,
            Self::Report(why) => why.code(),
            Self::ReportOfStranger { .. } => Code::UnknownKey,
            Self::Statement(why) => why.code(),
            Self::Surplus => Code::ForkDetected,
        }
    }

    /// Who is to blame, which decides whether a session that brought it is closed.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::AlreadyRevoked { .. }
            | Self::Broken(_)
            | Self::Malformed(_)
            | Self::NotAuthorised { .. }
            | Self::Report(_)
            | Self::Statement(_) => Fault::Sender,
            Self::Charter(CharterError::Fork { .. } | CharterError::TooMany { .. }) => Fault::Author,
            Self::Charter(CharterError::NotNext { .. }) => Fault::Nobody,
            Self::Charter(_) => Fault::Sender,
            Self::Surplus | Self::TooManyEarlyRevokes { .. } => Fault::Author,
            Self::ReportOfStranger { .. } => Fault::Nobody,
        }
    }
}

impl core::fmt::Display for Rejected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AlreadyRevoked { node } => write!(f, "this author revoked {} before", short(node)),
            Self::Broken(why) => write!(f, "{why}"),
            Self::Charter(why) => write!(f, "{why}"),
            Self::Malformed(why) => write!(f, "{why}"),
            Self::NotAuthorised { author } => write!(f, "key {} may not say this", short(author)),
            Self::Report(why) => write!(f, "{why}"),
            Self::ReportOfStranger { node } => write!(f, "nobody admitted {}", short(node)),
            Self::Statement(why) => write!(f, "{why}"),
            Self::Surplus => f.write_str("as much of this is held as proves it"),
            Self::TooManyEarlyRevokes { author } => {
                write!(f, "key {} revoked too many keys that nobody admitted", short(author))
            }
        }
    }
}

impl core::error::Error for Rejected {}

fn short(key: &[u8; 32]) -> String {
    encode_hex(key).chars().take(8).collect()
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::KeyAgain => "it rotates to a key that the machine has had",
            Self::Lane => "this kind does not stand in this lane",
            Self::OlderCharter => "it cites an older charter than the statement before it",
            Self::Previous => "it does not continue its author's chain",
            Self::Rotations => "the machine has had as many keys as it may",
            Self::Start => "its author's chain does not begin so",
        })
    }
}

impl LoadError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Document(_) | Self::NoGenesis => Code::StoreDamaged,
        }
    }
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Document(why) => write!(f, "{why}"),
            Self::NoGenesis => f.write_str("the file does not begin with the org's first charter"),
        }
    }
}

impl core::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Document(why) => Some(why),
            Self::NoGenesis => None,
        }
    }
}
