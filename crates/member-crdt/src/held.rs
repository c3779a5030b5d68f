//! The statements held: lanes, forks, and the indexes that the rules ask.
//!
//! What is kept depends only on a statement's own chain prefix and on the charters, never on who else
//! said what, and nothing kept here ever evicts another. The exception is what machines say of
//! themselves (`lineage.rs`), where a rule that reads no order says what goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use identity::{
    KeyUpToSign, PublicKey, StatementId,
    limits::{EARLY_REVOKES_MAX, FORK_BRANCHES_MAX},
};
use org_trust::{Charter, CharterChain, Lane, Payload, Statement, StatementClaim};

use crate::{
    lineage::{Lineages, Origin},
    outcome::{Broken, Rejected},
};

/// The 32 bytes of a key; a quarter of the size of a parsed one.
pub(crate) type KeyBytes = [u8; 32];

/// Which of a machine's keys a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Node,
    WireGuard,
    Boot,
}

/// The word of an Admit or a Rotate that a key is in a slot of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) by: StatementId,
    /// The machine's first node key.
    pub(crate) node: KeyBytes,
    pub(crate) slot: Slot,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) statement: Arc<Statement>,
    /// Version of the charter it cites.
    pub(crate) version: u32,
    /// Which of its lane's branches it stands on.
    branch: usize,
    /// Of an Admit: how many Admits under the same invite stand before it.
    pub(crate) nth: u32,
    /// Of an Admit: whether the invite's key signed it; asked once, when both are held.
    pub(crate) invited: OnceLock<bool>,
}

/// Two or more statements of one author at one place, as proof.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// The author's key.
    pub author: PublicKey,
    /// Its lane.
    pub lane: Lane,
    /// The place.
    pub seq: u64,
    /// The statements there, ascending.
    pub ids: Vec<StatementId>,
}

/// The end of one branch of one author's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tip {
    /// The author's key.
    pub author: PublicKey,
    /// Its lane.
    pub lane: Lane,
    /// The place of the last statement.
    pub seq: u64,
    /// The last statement.
    pub id: StatementId,
}

#[derive(Debug, Default)]
struct Chain {
    /// Where each branch leaves another; the first one leaves none.
    branches: Vec<Option<StatementId>>,
    places: BTreeMap<u64, BTreeSet<StatementId>>,
    tips: BTreeSet<(u64, StatementId)>,
    burned: bool,
    /// What a few tips have behind them, newest last; rebuilt by a walk when a tip is not among them.
    behind: Vec<(StatementId, Prefix)>,
}

/// What the rules ask of a chain prefix.
#[derive(Clone, Debug, Default)]
struct Prefix {
    admits_under: BTreeMap<StatementId, u32>,
    revoked: BTreeSet<KeyBytes>,
}

/// Every statement held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    entries: BTreeMap<StatementId, Entry>,
    lanes: BTreeMap<(KeyBytes, Lane), Chain>,
    admits_of: BTreeMap<KeyBytes, Vec<StatementId>>,
    admits_under: BTreeMap<StatementId, Vec<KeyBytes>>,
    claims: BTreeMap<KeyUpToSign, Vec<Claim>>,
    invites: BTreeSet<StatementId>,
    /// By invite: the most Admits under it that one chain holds.
    spent: BTreeMap<StatementId, u32>,
    cancels_of: BTreeMap<StatementId, Vec<StatementId>>,
    cancel_tips: BTreeMap<StatementId, Vec<StatementId>>,
    revokes_of: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
    /// By author: the keys it revoked or suspended that no Admit or Rotate held names.
    early: BTreeMap<KeyBytes, BTreeSet<KeyBytes>>,
    revoked_by: BTreeSet<(KeyBytes, KeyBytes)>,
    suspends_of: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
    resumes_of: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
    assigns_of: BTreeMap<KeyBytes, BTreeSet<StatementId>>,
    cosigns_of: BTreeMap<StatementId, BTreeSet<StatementId>>,
    /// By number.
    policies: BTreeMap<u32, BTreeSet<StatementId>>,
    lineages: Lineages,
    role_keys: BTreeSet<KeyUpToSign>,
}

/// Where a statement fits, or why it does not.
pub(crate) enum Fit {
    Known,
    /// The record with this id must come first.
    Waiting([u8; 32]),
    Here(Spot),
}

/// A checked place for one statement.
pub(crate) struct Spot {
    version: u32,
    branch: Branch,
    nth: u32,
}

enum Branch {
    /// A machine's own statement has no lane.
    Own(Origin),
    New,
    /// Behind this statement.
    After(StatementId),
    /// A Revoke of a burned author, kept wherever it stands.
    Loose,
}

/// What changed by keeping a statement.
pub(crate) struct Kept {
    /// What a machine's own statement took the place of, or voided for good.
    pub(crate) dropped: Vec<Arc<Statement>>,
    /// The author has just been found to have signed too many branches.
    pub(crate) burned: bool,
    /// The place now has two or more statements.
    pub(crate) fork: bool,
}

impl Held {
    pub(crate) fn get(&self, id: &StatementId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Decides whether and where a verified statement is kept.
    pub(crate) fn fit(&self, chain: &CharterChain, s: &StatementClaim) -> Result<Fit, Rejected> {
        if self.entries.contains_key(&s.id()) {
            return Ok(Fit::Known);
        }
        let Some(charter) = chain.get(&s.charter()) else {
            return Ok(Fit::Waiting(*s.charter().as_bytes()));
        };
        let charter = charter.charter();
        let author = *s.author();
        let is_admin = charter.admin(&author).is_some();
        let (allowed, lane) = match s.payload() {
            Payload::Leave | Payload::Rotate(_) | Payload::Retire(_) => {
                return self.fit_own(charter.version, s);
            }
            Payload::Admit(a) => {
                let gateway = charter.gateway(&author).is_some() && a.invite.is_some();
                (gateway || (is_admin && a.invite.is_none()), Lane::Main)
            }
            Payload::Invite(_)
            | Payload::Cancel(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => (is_admin, Lane::Main),
            Payload::Revoke(_) | Payload::Suspend(_) => (is_admin, Lane::Revokes),
        };
        if !allowed {
            return Err(Rejected::NotAuthorised { author: *author.as_bytes() });
        }
        if s.lane() != lane {
            return Err(Rejected::Broken(Broken::Lane));
        }
        self.fit_lane(chain, charter.version, s)
    }

    fn fit_own(&self, version: u32, s: &StatementClaim) -> Result<Fit, Rejected> {
        if s.lane() != Lane::Main || s.seq() != 0 {
            return Err(Rejected::Broken(Broken::Lane));
        }
        let Some(before) = self.entries.get(&StatementId(s.prev())) else {
            return Ok(Fit::Waiting(s.prev()));
        };
        let origin = Origin::of(&before.statement).filter(|(node, _)| node == s.author());
        let Some((_, origin)) = origin else {
            return Err(Rejected::NotAuthorised { author: *s.author().as_bytes() });
        };
        self.lineages.fit(s, origin, &before.statement)?;
        if let Payload::Rotate(rotate) = s.payload() {
            let had = self.keys_before(before);
            let mut keys = [rotate.node, rotate.wireguard, rotate.boot].into_iter();
            if keys.any(|key| had.contains(&key.up_to_sign())) {
                return Err(Rejected::Broken(Broken::KeyAgain));
            }
        }
        Ok(Fit::Here(Spot { version, branch: Branch::Own(origin), nth: 0 }))
    }

    /// The keys that the chain up to and including this Admit or Rotate names.
    fn keys_before(&self, entry: &Entry) -> BTreeSet<KeyUpToSign> {
        let mut keys = BTreeSet::new();
        let mut at = Some(entry);
        while let Some(entry) = at {
            keys.extend(slots(&entry.statement).map(|(_, key)| key));
            let earlier = matches!(entry.statement.payload(), Payload::Rotate(_));
            at = earlier.then(|| self.entries.get(&StatementId(entry.statement.prev()))).flatten();
        }
        keys
    }

    fn fit_lane(&self, chain: &CharterChain, version: u32, s: &StatementClaim) -> Result<Fit, Rejected> {
        let author = *s.author();
        let lane = self.lanes.get(&(*author.as_bytes(), s.lane()));
        let burned = lane.is_some_and(|lane| lane.burned);
        let revokes = matches!(s.payload(), Payload::Revoke(_));
        let empty = Prefix::default();
        let mut walked = None;
        let (branch, prefix) = if s.seq() == 0 {
            let first = chain.named(&author).map(|c| *c.id().as_bytes());
            if first != Some(s.prev()) {
                return Err(Rejected::Broken(Broken::Start));
            }
            (Branch::New, &empty)
        } else {
            let prev = StatementId(s.prev());
            match self.entries.get(&prev) {
                Some(before) => {
                    let b = &before.statement;
                    let follows = *b.author() == author && b.lane() == s.lane();
                    if !follows || b.seq().checked_add(1) != Some(s.seq()) {
                        return Err(Rejected::Broken(Broken::Previous));
                    }
                    if before.version > version {
                        return Err(Rejected::Broken(Broken::OlderCharter));
                    }
                    let cached = lane.and_then(|lane| lane.behind.iter().find(|(tip, _)| *tip == prev));
                    let prefix = match cached {
                        Some((_, prefix)) => prefix,
                        None => walked.insert(self.walk(prev)),
                    };
                    (Branch::After(prev), prefix)
                }
                None if burned && revokes => (Branch::Loose, &empty),
                None => return Ok(Fit::Waiting(s.prev())),
            }
        };
        self.fit_revoke(s, prefix, burned)?;
        let crowded = lane.and_then(|lane| lane.places.get(&s.seq()));
        let crowded = crowded.is_some_and(|place| place.len() > FORK_BRANCHES_MAX);
        let branch = match (crowded, revokes) {
            (true, false) => return Err(Rejected::Surplus),
            // A burned author's Revokes stay: each target once, wherever the statement stands.
            (true, true) => Branch::Loose,
            (false, _) => branch,
        };
        if let (Branch::Loose, Payload::Revoke(r)) = (&branch, s.payload())
            && self.revoked_by.contains(&(*author.as_bytes(), *r.node.as_bytes()))
        {
            return Err(Rejected::Surplus);
        }
        let invite = s.payload().admit().and_then(|a| a.invite);
        let nth = invite.and_then(|invite| prefix.admits_under.get(&invite).copied()).unwrap_or(0);
        Ok(Fit::Here(Spot { version, branch, nth }))
    }

    fn fit_revoke(&self, s: &StatementClaim, prefix: &Prefix, burned: bool) -> Result<(), Rejected> {
        let (target, again) = match s.payload() {
            Payload::Revoke(r) => (r.node.as_bytes(), prefix.revoked.contains(r.node.as_bytes())),
            Payload::Suspend(s) => (s.node.as_bytes(), false),
            Payload::Admit(_)
            | Payload::Invite(_)
            | Payload::Cancel(_)
            | Payload::Leave
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Rotate(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => return Ok(()),
        };
        if again {
            // A burned author's loose Revoke may become the predecessor of its own copy.
            let why = if burned { Rejected::Surplus } else { Rejected::AlreadyRevoked { node: *target } };
            return Err(why);
        }
        let early = self.early.get(s.author().as_bytes());
        let full = early.is_some_and(|keys| keys.len() >= EARLY_REVOKES_MAX && !keys.contains(target));
        if full && !self.is_named(target) {
            return Err(Rejected::TooManyEarlyRevokes { author: *s.author().as_bytes() });
        }
        Ok(())
    }

    /// What stands behind and including `tip`, by walking its chain.
    fn walk(&self, tip: StatementId) -> Prefix {
        let mut prefix = Prefix::default();
        let mut at = Some(tip);
        while let Some(entry) = at.and_then(|id| self.entries.get(&id)) {
            prefix.note(&entry.statement);
            at = (entry.statement.seq() > 0).then(|| StatementId(entry.statement.prev()));
        }
        prefix
    }

    /// Keeps a statement at its spot.
    pub(crate) fn keep(&mut self, s: Arc<Statement>, spot: Spot) -> Kept {
        let id = s.id();
        let mut kept = Kept { dropped: Vec::new(), burned: false, fork: false };
        let mut branch = 0;
        match spot.branch {
            Branch::Own(origin) => {
                let dropped = self.lineages.keep(&s, origin);
                kept.dropped = dropped.iter().filter_map(|id| self.forget(id)).collect();
                kept.fork = self.lineages.get(&id).is_some() && !self.lineages.is_single(&id);
            }
            Branch::New | Branch::After(_) | Branch::Loose => {
                let before = match spot.branch {
                    Branch::After(prev) => Some(prev),
                    Branch::New | Branch::Own(_) | Branch::Loose => None,
                };
                branch = self.grow(&s, before, &mut kept);
            }
        }
        self.index(&s, spot.nth);
        let entry =
            Entry { statement: s, version: spot.version, branch, nth: spot.nth, invited: OnceLock::new() };
        self.entries.insert(id, entry);
        kept
    }

    /// Forgets a machine's own statement, which has no lane.
    fn forget(&mut self, id: &StatementId) -> Option<Arc<Statement>> {
        let entry = self.entries.remove(id)?;
        for (_, key) in slots(&entry.statement) {
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|claim| claim.by != *id);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
        }
        Some(entry.statement)
    }

    fn grow(&mut self, s: &Statement, before: Option<StatementId>, kept: &mut Kept) -> usize {
        let id = s.id();
        let before_branch = before.and_then(|prev| self.entries.get(&prev)).map(|e| e.branch);
        let cached = |chain: &Chain| chain.behind.iter().position(|(tip, _)| Some(*tip) == before);
        let key = (*s.author().as_bytes(), s.lane());
        let walked = match (before, self.lanes.get(&key).and_then(cached)) {
            (Some(prev), None) => self.walk(prev),
            (Some(_) | None, _) => Prefix::default(),
        };
        let chain = self.lanes.entry(key).or_default();
        let tip = before.map(|prev| (s.seq().saturating_sub(1), prev));
        let continues = tip.is_some_and(|tip| chain.tips.remove(&tip));
        let branch = match before_branch {
            Some(branch) if continues => branch,
            Some(_) | None => {
                chain.branches.push(before);
                chain.branches.len() - 1
            }
        };
        let at = chain.behind.iter().position(|(tip, _)| Some(*tip) == before);
        let mut prefix = match at {
            Some(at) if continues => chain.behind.remove(at).1,
            Some(at) => chain.behind.get(at).map(|(_, p)| p.clone()).unwrap_or_default(),
            None => walked,
        };
        prefix.note(s);
        if chain.behind.len() >= FORK_BRANCHES_MAX {
            chain.behind.remove(0);
        }
        chain.behind.push((id, prefix));
        chain.tips.insert((s.seq(), id));
        let place = chain.places.entry(s.seq()).or_default();
        place.insert(id);
        kept.fork = place.len() > 1;
        if place.len() > FORK_BRANCHES_MAX && !chain.burned {
            chain.burned = true;
            kept.burned = true;
        }
        branch
    }

    fn index(&mut self, s: &Statement, nth: u32) {
        let id = s.id();
        match s.payload() {
            Payload::Admit(a) => {
                let node = *a.node.as_bytes();
                self.admits_of.entry(node).or_default().push(id);
                self.claim(s, node, node);
                if let Some(invite) = a.invite {
                    self.admits_under.entry(invite).or_default().push(node);
                    let spent = self.spent.entry(invite).or_default();
                    *spent = (*spent).max(nth.saturating_add(1));
                }
            }
            Payload::Rotate(r) => {
                if let Some(root) = self.lineages.get(&id).map(|rotation| rotation.root) {
                    self.claim(s, *r.node.as_bytes(), root);
                }
            }
            Payload::Revoke(r) => {
                let (author, node) = (*s.author().as_bytes(), *r.node.as_bytes());
                self.revokes_of.entry(node).or_default().insert(id);
                self.revoked_by.insert((author, node));
                self.note_early(author, node);
            }
            Payload::Suspend(suspend) => {
                let node = *suspend.node.as_bytes();
                self.suspends_of.entry(node).or_default().insert(id);
                self.note_early(*s.author().as_bytes(), node);
            }
            Payload::Resume(r) => {
                self.resumes_of.entry(*r.node.as_bytes()).or_default().insert(id);
            }
            Payload::Assign(a) => {
                self.assigns_of.entry(*a.node.as_bytes()).or_default().insert(id);
            }
            Payload::Cosign(c) => {
                self.cosigns_of.entry(c.target).or_default().insert(id);
            }
            Payload::Policy(change) => {
                self.policies.entry(change.number).or_default().insert(id);
            }
            Payload::Invite(_) => {
                self.invites.insert(id);
            }
            Payload::Cancel(c) => {
                self.cancels_of.entry(c.invite).or_default().push(id);
                if let Some(tip) = c.tip {
                    self.cancel_tips.entry(tip).or_default().push(c.invite);
                }
            }
            Payload::Leave | Payload::Retire(_) => {}
        }
    }

    /// Remembers whose the keys of an Admit or Rotate are said to be.
    fn claim(&mut self, s: &Statement, node: KeyBytes, root: KeyBytes) {
        for (slot, key) in slots(s) {
            self.claims.entry(key).or_default().push(Claim { by: s.id(), node: root, slot });
        }
        for keys in self.early.values_mut() {
            keys.remove(&node);
        }
    }

    fn note_early(&mut self, author: KeyBytes, node: KeyBytes) {
        if !self.is_named(&node) {
            self.early.entry(author).or_default().insert(node);
        }
    }

    /// Whether an Admit or a Rotate names this node key.
    pub(crate) fn is_named(&self, node: &KeyBytes) -> bool {
        self.admits_of.contains_key(node) || self.lineages.to(node).next().is_some()
    }

    /// Whether `id` is `tip` or stands before it in the same chain; none when the tip is not held. What a
    /// machine says of itself stands in no chain and is no tip.
    pub(crate) fn stands_before(&self, id: &StatementId, tip: &StatementId) -> Option<bool> {
        let mut tip = self.entries.get(tip).filter(|tip| !tip.statement.payload().is_by_node())?;
        let entry = self.entries.get(id)?;
        let (s, t) = (&entry.statement, &tip.statement);
        let Some(chain) = self.lanes.get(&(*t.author().as_bytes(), t.lane())) else { return Some(false) };
        if s.author() != t.author() || s.lane() != t.lane() {
            return Some(false);
        }
        loop {
            if tip.branch == entry.branch {
                return Some(s.seq() <= tip.statement.seq());
            }
            let origin = chain.branches.get(tip.branch).copied().flatten();
            match origin.and_then(|id| self.entries.get(&id)) {
                Some(before) => tip = before,
                None => return Some(false),
            }
        }
    }

    pub(crate) fn is_burned(&self, author: &PublicKey, lane: Lane) -> bool {
        self.lanes.get(&(*author.as_bytes(), lane)).is_some_and(|lane| lane.burned)
    }

    pub(crate) fn admits_of(&self, node: &KeyBytes) -> &[StatementId] {
        self.admits_of.get(node).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn admits_under(&self, invite: &StatementId) -> &[KeyBytes] {
        self.admits_under.get(invite).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn claims_on(&self, key: &KeyUpToSign) -> &[Claim] {
        self.claims.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn cancels_of(&self, invite: &StatementId) -> &[StatementId] {
        self.cancels_of.get(invite).map_or(&[], Vec::as_slice)
    }

    /// The invites of Cancels that name this statement as a tip.
    pub(crate) fn cancelled_at(&self, tip: &StatementId) -> &[StatementId] {
        self.cancel_tips.get(tip).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn revokes_of(&self, node: &KeyBytes) -> impl Iterator<Item = &StatementId> {
        self.revokes_of.get(node).into_iter().flatten()
    }

    pub(crate) fn suspends_of(&self, node: &KeyBytes) -> impl Iterator<Item = &StatementId> {
        self.suspends_of.get(node).into_iter().flatten()
    }

    pub(crate) fn resumes_of(&self, node: &KeyBytes) -> impl Iterator<Item = &StatementId> {
        self.resumes_of.get(node).into_iter().flatten()
    }

    pub(crate) fn assigns_of(&self, node: &KeyBytes) -> impl Iterator<Item = &StatementId> {
        self.assigns_of.get(node).into_iter().flatten()
    }

    pub(crate) fn cosigns_of(&self, target: &StatementId) -> impl Iterator<Item = &StatementId> {
        self.cosigns_of.get(target).into_iter().flatten()
    }

    /// The policies by their number, the highest first.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (u32, &BTreeSet<StatementId>)> {
        self.policies.iter().rev().map(|(number, ids)| (*number, ids))
    }

    pub(crate) const fn lineages(&self) -> &Lineages {
        &self.lineages
    }

    /// How many uses of an invite are spent.
    pub(crate) fn spent(&self, invite: &StatementId) -> u32 {
        self.spent.get(invite).copied().unwrap_or(0)
    }

    /// Remembers that a charter gives these keys to roles.
    pub(crate) fn name_roles(&mut self, charter: &Charter) {
        let roles = charter.admins.iter().map(|a| a.key).chain(charter.gateways.iter().map(|g| g.key));
        self.role_keys.extend(roles.chain(charter.root_keys.iter().copied()).map(|k| k.up_to_sign()));
    }

    /// Whether any charter gave this key to a role.
    pub(crate) fn is_role_key(&self, key: &KeyUpToSign) -> bool {
        self.role_keys.contains(key)
    }

    /// Every node key that an Admit names.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &KeyBytes> {
        self.admits_of.keys()
    }

    pub(crate) fn invites(&self) -> impl Iterator<Item = &StatementId> {
        self.invites.iter()
    }

    /// The ends of all lanes of role keys.
    pub(crate) fn tips(&self) -> impl Iterator<Item = Tip> {
        self.lanes.values().flat_map(|chain| &chain.tips).filter_map(|(seq, id)| {
            let s = &self.entries.get(id)?.statement;
            Some(Tip { author: *s.author(), lane: s.lane(), seq: *seq, id: *id })
        })
    }

    /// Where an author's next statement of a lane goes, but for the charter: its seq and prev.
    pub(crate) fn next(&self, author: &PublicKey, lane: Lane) -> Option<(u64, StatementId)> {
        let (seq, _) = *self.lanes.get(&(*author.as_bytes(), lane))?.tips.last()?;
        let chain = self.lanes.get(&(*author.as_bytes(), lane))?;
        let lowest = chain.tips.range((seq, StatementId([0; 32]))..).next()?;
        Some((seq.checked_add(1)?, lowest.1))
    }

    /// Statements of a lane from this place on.
    pub(crate) fn at_or_behind(
        &self,
        author: &PublicKey,
        lane: Lane,
        seq: u64,
    ) -> impl Iterator<Item = (u64, &StatementId)> {
        let chain = self.lanes.get(&(*author.as_bytes(), lane));
        let places = chain.into_iter().flat_map(move |chain| chain.places.range(seq..));
        places.flat_map(|(seq, ids)| ids.iter().map(|id| (*seq, id)))
    }

    pub(crate) fn forks(&self) -> Vec<Fork> {
        let mut forks = Vec::new();
        for chain in self.lanes.values() {
            for (seq, ids) in chain.places.iter().filter(|(_, ids)| ids.len() > 1) {
                let first = ids.first().and_then(|id| self.entries.get(id));
                if let Some(s) = first.map(|e| &e.statement) {
                    let ids = ids.iter().copied().collect();
                    forks.push(Fork { author: *s.author(), lane: s.lane(), seq: *seq, ids });
                }
            }
        }
        for ids in self.lineages.forks() {
            let first = ids.first().and_then(|id| self.entries.get(id));
            if let Some(s) = first.map(|e| &e.statement) {
                let ids = ids.iter().copied().collect();
                forks.push(Fork { author: *s.author(), lane: s.lane(), seq: s.seq(), ids });
            }
        }
        forks
    }

    /// Statements of a lane that are neither one of `known` nor before one, in order of their places.
    pub(crate) fn beyond(&self, author: &PublicKey, lane: Lane, known: &[StatementId]) -> Vec<StatementId> {
        let Some(chain) = self.lanes.get(&(*author.as_bytes(), lane)) else { return Vec::new() };
        let mut missing = BTreeSet::new();
        for (seq, tip) in &chain.tips {
            let mut at = (*seq, *tip);
            while !known.iter().any(|k| self.stands_before(&at.1, k) == Some(true)) && missing.insert(at) {
                let Some(e) = self.entries.get(&at.1).filter(|_| at.0 > 0) else { break };
                at = (at.0 - 1, StatementId(e.statement.prev()));
            }
        }
        missing.into_iter().map(|(_, id)| id).filter(|id| self.entries.contains_key(id)).collect()
    }

    /// Everything, each after what it builds on.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Arc<Statement>> {
        let lanes = self.lanes.values().flat_map(|chain| chain.places.values().flatten().copied());
        lanes.chain(self.lineages.in_order()).filter_map(|id| Some(&self.entries.get(&id)?.statement))
    }
}

impl Prefix {
    fn note(&mut self, s: &Statement) {
        match s.payload() {
            Payload::Admit(a) => {
                if let Some(invite) = a.invite {
                    let spent = self.admits_under.entry(invite).or_default();
                    *spent = spent.saturating_add(1);
                }
            }
            Payload::Revoke(r) => {
                self.revoked.insert(*r.node.as_bytes());
            }
            Payload::Invite(_)
            | Payload::Cancel(_)
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
}

/// The keys that an Admit or a Rotate names, by slot.
pub(crate) fn slots(s: &Statement) -> impl Iterator<Item = (Slot, KeyUpToSign)> + use<> {
    let keys = s.machine_keys().map(|[node, wireguard, boot]| {
        [(Slot::Node, node), (Slot::WireGuard, wireguard), (Slot::Boot, boot)]
    });
    keys.into_iter().flatten()
}
