//! Bringing two replicas to the same set: tips first, whole buckets of ids when tips do not suffice.
//!
//! A session belongs to one connection between two members and never waits: [`Session::handle`] takes a
//! frame and returns what to send. A hostile peer can withhold and nothing else: every record is
//! verified, every frame bounded, and each step of a round is taken once.

use std::collections::{BTreeSet, VecDeque};

use identity::{
    Code, PublicKey, StatementId,
    codec::DecodeError,
    limits::{FORK_BRANCHES_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX, SYNC_FRAME_BYTES_MAX, SYNC_TIPS_MAX},
};
use org_trust::{Lane, Record};

use crate::{
    digest::RecordId,
    frame::{Frame, IDS_PER_FRAME, Summary},
    replica::{Applied, Fault, Rejected, Replica},
};

/// One side of one session of `action=sync`.
#[derive(Debug, Default)]
pub struct Session {
    // Rounds may cross on the wire, so each step is counted, not switched.
    /// Rounds that this side began and whose answer is due.
    asked: u32,
    /// Rounds that the peer began since this side last did.
    begun: u32,
    /// Rounds of the peer that it may close with its digest.
    checks: u32,
    /// Digests that this side told and that may be answered with buckets.
    told: u32,
    /// Frames of ids that the buckets told may be answered with.
    id_frames: u32,
    /// Ids that this side listed and the other may ask for, each once.
    offered: BTreeSet<RecordId>,
    /// What was sent because tips told that it lacks, each once: a peer that repeats its tips does
    /// not get the list again and again.
    sent: BTreeSet<RecordId>,
    orphans: VecDeque<Orphan>,
    orphan_bytes: usize,
}

#[derive(Debug)]
struct Orphan {
    record: Record,
    waits_for: RecordId,
}

/// How often reports of one node are taken. Whoever holds a key can sign without end, and every
/// replica verifies and passes on each.
pub trait ReportPace {
    /// Whether another report of this node may be taken now; otherwise it is dropped unverified.
    fn is_due(&self, node: &PublicKey) -> bool;
    /// A report of this node was verified.
    fn taken(&mut self, node: PublicKey);
}

struct Unlimited;

impl ReportPace for Unlimited {
    fn is_due(&self, _: &PublicKey) -> bool {
        true
    }

    fn taken(&mut self, _: PublicKey) {}
}

/// What a frame led to.
#[derive(Debug, Default)]
pub struct Output {
    /// Frames for the peer, in order.
    pub send: Vec<Vec<u8>>,
    /// Records that are new here: flood them to all other sessions.
    pub new: Vec<Record>,
    /// Records that were not kept though the peer is not to blame.
    pub refused: Vec<Rejected>,
}

/// Why a session is closed. The replica is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncError {
    /// The bytes are no frame.
    Malformed(DecodeError),
    /// A frame that nothing asked for.
    OutOfTurn {
        /// Which.
        frame: &'static str,
    },
    /// A record that an honest replica does not pass on.
    Record {
        /// What is wrong with it.
        why: Rejected,
        /// What the same frame had brought before it, verified and in force: flood it all the same.
        new: Vec<Record>,
    },
}

impl Session {
    /// A session over a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frame that begins a round: at the start of the session on the dialler's side, and on
    /// both sides as often as the overlay says.
    pub fn open(&mut self, replica: &Replica) -> Vec<u8> {
        self.asked = self.asked.saturating_add(1);
        self.begun = 0;
        Frame::Tips(summary(replica)).encode()
    }

    /// The frame that passes one new record on.
    #[must_use]
    pub fn flood(record: &Record) -> Vec<u8> {
        Frame::Records(vec![record.clone()]).encode()
    }

    /// Takes one frame of the peer.
    ///
    /// # Errors
    /// [`SyncError`]: close the session. What was taken in before stays, for it was verified.
    pub fn handle(&mut self, replica: &mut Replica, frame: &[u8]) -> Result<Output, SyncError> {
        self.handle_paced(replica, frame, &mut Unlimited)
    }

    /// The same, with a bound on how often a node's reports are verified and taken.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn handle_paced(
        &mut self,
        replica: &mut Replica,
        frame: &[u8],
        pace: &mut impl ReportPace,
    ) -> Result<Output, SyncError> {
        let mut out = Output::default();
        match Frame::decode(frame).map_err(SyncError::Malformed)? {
            Frame::Tips(theirs) => {
                self.begun = self.begun.saturating_add(1);
                if self.begun > ROUNDS_BEGUN_MAX {
                    return Err(SyncError::OutOfTurn { frame: "tips" });
                }
                if theirs.heads != replica.heads() {
                    self.push_lacking(replica, &theirs, &mut out);
                }
                out.send.push(Frame::TipsReply(summary(replica)).encode());
                self.checks = self.checks.saturating_add(1);
            }
            Frame::TipsReply(theirs) => {
                take_turn(&mut self.asked, "tips reply")?;
                if theirs.heads != replica.heads() {
                    self.push_lacking(replica, &theirs, &mut out);
                    out.send.push(Frame::Check(replica.heads()).encode());
                    self.told = self.told.saturating_add(1);
                }
            }
            Frame::Records(records) => self.take(replica, records, pace, &mut out)?,
            Frame::Check(heads) => {
                take_turn(&mut self.checks, "check")?;
                if heads != replica.heads() {
                    let digests = replica.ids().digests().map(|digest| shortened(&digest)).collect();
                    out.send.push(Frame::Buckets(digests).encode());
                    self.id_frames = self.id_frames.saturating_add(ID_FRAMES_MAX);
                }
            }
            Frame::Buckets(theirs) => {
                take_turn(&mut self.told, "buckets")?;
                self.list_differing(replica, &theirs, &mut out);
            }
            Frame::Ids(buckets) => {
                take_turn(&mut self.id_frames, "ids")?;
                compare(replica, &buckets, &mut out);
            }
            Frame::Want(ids) => {
                let offered = ids.into_iter().filter(|id| self.offered.remove(id)).collect();
                out.push_records(records_of(replica, offered));
            }
        }
        Ok(out)
    }

    fn push_lacking(&mut self, replica: &Replica, theirs: &Summary, out: &mut Output) {
        let lacking = lacking(replica, theirs).into_iter();
        out.push_records(lacking.filter(|record| self.sent.insert(record.id())).collect());
    }

    fn list_differing(&mut self, replica: &Replica, theirs: &[[u8; 16]], out: &mut Output) {
        self.offered.clear();
        let mut frame: Vec<(u8, Vec<RecordId>)> = Vec::new();
        let mut room = IDS_PER_FRAME;
        for (number, (ours, theirs)) in (0..=u8::MAX).zip(replica.ids().digests().zip(theirs)) {
            if shortened(&ours) == *theirs {
                continue;
            }
            // More ids in one bucket than a frame holds are half a million records in all; what lies
            // beyond waits until the others are in step.
            let ids: Vec<RecordId> = replica.ids().bucket(number).take(IDS_PER_FRAME - 1).copied().collect();
            if ids.len() + 1 > room {
                out.send.push(Frame::Ids(core::mem::take(&mut frame)).encode());
                room = IDS_PER_FRAME;
            }
            room -= ids.len() + 1;
            self.offered.extend(&ids);
            frame.push((number, ids));
        }
        if !frame.is_empty() {
            out.send.push(Frame::Ids(frame).encode());
        }
    }

    fn take(
        &mut self,
        replica: &mut Replica,
        records: Vec<Record>,
        pace: &mut impl ReportPace,
        out: &mut Output,
    ) -> Result<(), SyncError> {
        let mut queue: VecDeque<Record> = records.into();
        while let Some(record) = queue.pop_front() {
            let reporter = replica.would_verify_report_of(&record);
            if reporter.is_some_and(|node| !pace.is_due(&node)) {
                // A later round brings the newest one.
                continue;
            }
            let applied = replica.apply(&record);
            // A report whose signature does not hold says nothing about the node it names.
            if let (Some(node), Ok(_)) = (reporter, &applied) {
                pace.taken(node);
            }
            match applied {
                Ok(Applied::New { id, .. }) => {
                    out.new.push(record);
                    self.release(&id, &mut queue);
                }
                Ok(Applied::Known) => {}
                Ok(Applied::Waiting { prev }) => self.keep_orphan(record, prev),
                Err(why) => match why.fault() {
                    Fault::Sender => {
                        return Err(SyncError::Record { why, new: core::mem::take(&mut out.new) });
                    }
                    Fault::Author | Fault::Nobody => out.refused.push(why),
                },
            }
        }
        Ok(())
    }

    fn release(&mut self, id: &RecordId, queue: &mut VecDeque<Record>) {
        let (free, waiting): (VecDeque<Orphan>, VecDeque<Orphan>) =
            core::mem::take(&mut self.orphans).into_iter().partition(|orphan| orphan.waits_for == *id);
        self.orphans = waiting;
        for orphan in free {
            self.orphan_bytes = self.orphan_bytes.saturating_sub(orphan.record.encoded_len());
            queue.push_back(orphan.record);
        }
    }

    /// The oldest orphan goes when there are too many: a round brings it again in its turn.
    fn keep_orphan(&mut self, record: Record, waits_for: RecordId) {
        if self.orphans.iter().any(|orphan| orphan.record == record) {
            return;
        }
        self.orphan_bytes += record.encoded_len();
        self.orphans.push_back(Orphan { record, waits_for });
        while self.orphans.len() > ORPHANS_MAX || self.orphan_bytes > ORPHAN_BYTES_MAX {
            let Some(oldest) = self.orphans.pop_front() else { break };
            self.orphan_bytes = self.orphan_bytes.saturating_sub(oldest.record.encoded_len());
        }
    }
}

impl Output {
    fn push_records(&mut self, records: Vec<Record>) {
        let mut batch: Vec<Record> = Vec::new();
        let mut bytes = 1;
        for record in records {
            if bytes + record.encoded_len() > SYNC_FRAME_BYTES_MAX {
                self.send.push(Frame::Records(core::mem::take(&mut batch)).encode());
                bytes = 1;
            }
            bytes += record.encoded_len();
            batch.push(record);
        }
        if !batch.is_empty() {
            self.send.push(Frame::Records(batch).encode());
        }
    }
}

fn summary(replica: &Replica) -> Summary {
    let mut tips = replica.tips();
    tips.sort_unstable();
    tips.truncate(SYNC_TIPS_MAX);
    let charter = replica.chain().head().id();
    Summary { heads: replica.heads(), count: replica.count(), charter, tips }
}

/// What the peer lacks as far as its tips tell: charters behind its newest, and of every lane what
/// stands behind the tips of theirs that are held here. A tip not held here says that the peer is
/// ahead in that lane, so nothing is sent of it.
fn lacking(replica: &Replica, theirs: &Summary) -> Vec<Record> {
    let mut records = Vec::new();
    if replica.chain().get(&theirs.charter).is_some() {
        records.extend(replica.chain().after(&theirs.charter).map(Record::from));
    }
    let mut lanes: BTreeSet<(PublicKey, Lane)> = BTreeSet::new();
    for tip in replica.tips() {
        lanes.insert((tip.author, tip.lane));
    }
    for (author, lane) in lanes {
        let mut said = theirs.tips.iter().filter(|tip| tip.author == author && tip.lane == lane).peekable();
        let says_nothing = said.peek().is_none();
        let held = said.map(|tip| tip.id).filter(|id| replica.held().get(id).is_some());
        // Every tip is compared with everything behind ours, so a peer that names hundreds for one lane
        // would keep us busy for seconds. One left out costs records that the peer has already.
        let known: Vec<StatementId> = held.take(TIPS_COMPARED_MAX).collect();
        if known.is_empty() && !says_nothing {
            continue;
        }
        let beyond = replica.held().beyond(&author, lane, &known);
        records.extend(beyond.iter().filter_map(|id| replica.statement(id)).map(Record::from));
    }
    records
}

/// Sends what a listed bucket lacks and asks for what is lacking here.
fn compare(replica: &Replica, buckets: &[(u8, Vec<RecordId>)], out: &mut Output) {
    let mut lacks = BTreeSet::new();
    let mut want = Vec::new();
    for (number, theirs) in buckets {
        let ours: BTreeSet<RecordId> = replica.ids().bucket(*number).copied().collect();
        let theirs: BTreeSet<RecordId> = theirs.iter().copied().collect();
        lacks.extend(ours.difference(&theirs).copied());
        want.extend(theirs.difference(&ours).copied());
    }
    out.push_records(records_of(replica, lacks));
    if !want.is_empty() {
        out.send.push(Frame::Want(want).encode());
    }
}

/// The records with these ids, each after what it builds on.
fn records_of(replica: &Replica, ids: BTreeSet<RecordId>) -> Vec<Record> {
    if ids.is_empty() {
        return Vec::new();
    }
    replica.records_where(|id| ids.contains(id)).collect()
}

fn take_turn(turns: &mut u32, frame: &'static str) -> Result<(), SyncError> {
    *turns = turns.checked_sub(1).ok_or(SyncError::OutOfTurn { frame })?;
    Ok(())
}

/// Half of a digest: no second set of ids with the same half can be made.
fn shortened(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    for (out, byte) in half.iter_mut().zip(digest) {
        *out = *byte;
    }
    half
}

/// Rounds that a peer may begin while this side begins none. Both begin one every five seconds, so
/// an honest peer comes to two; the rest is for a side that was held up for a minute. An answer takes a
/// walk over all that is held, which nobody may ask for at will.
const ROUNDS_BEGUN_MAX: u32 = 16;
/// Ends of one lane that an honest peer has: one more than the branches that are kept of a fork.
const TIPS_COMPARED_MAX: usize = FORK_BRANCHES_MAX + 1;
/// Frames of ids that one round may have: one for each bucket.
const ID_FRAMES_MAX: u32 = 256;

impl SyncError {
    /// The code that the session is closed with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Malformed(_) | Self::OutOfTurn { .. } => Code::ChangeMalformed,
            Self::Record { why, .. } => why.code(),
        }
    }
}

impl core::fmt::Display for SyncError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "{why}"),
            Self::OutOfTurn { frame } => write!(f, "a frame {frame} that nothing asked for"),
            Self::Record { why, .. } => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for SyncError {}
