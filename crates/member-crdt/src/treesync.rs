//! Bringing two replicas to the same set: tips first, a walk down the tries when tips do not suffice.
//!
//! A session belongs to one connection between two members and never waits: [`Session::handle`] takes a
//! frame and returns what to send. A hostile peer can withhold and nothing else: every record is
//! verified, every frame is bounded and has its turn, and all answers come out of one allowance.

use std::collections::{BTreeSet, VecDeque};

use identity::{
    Code, PublicKey, StatementId,
    codec::DecodeError,
    limits::{
        FORK_BRANCHES_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX, SYNC_ANSWER_BYTES_MAX, SYNC_FRAME_BYTES_MAX,
        SYNC_TIPS_MAX,
    },
};
use org_trust::{Lane, Record};

use crate::{
    descent::{self, Told},
    frame::{Frame, Summary},
    outcome::{Applied, Fault, Rejected},
    replica::Replica,
    trie::{IdTrie, Prefix, RecordId, Short},
};

/// One side of one session of `action=sync`.
#[derive(Debug)]
pub struct Session {
    // Rounds may cross on the wire, so each step is counted, not switched.
    /// Rounds that this side began and whose answer is due.
    asked: u32,
    /// Rounds that the peer began since this side last did.
    begun: u32,
    /// Frames of nodes that the peer may send.
    nodes_due: u32,
    /// Frames of wanted ids that the peer may send.
    wants_due: u32,
    /// Bytes that may still be answered before this side begins its next round.
    allowance: usize,
    /// What was sent because tips told that it lacks, by the first bytes of its id, each once: a peer
    /// that repeats its tips does not get the list again and again. The trie brings what they hide.
    sent: BTreeSet<u64>,
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
    /// The peer told its tips in answer to ours. What they showed to be lacking here came before.
    pub compared: bool,
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
    pub const fn new() -> Self {
        Self {
            asked: 0,
            begun: 0,
            nodes_due: 0,
            wants_due: 0,
            allowance: SYNC_ANSWER_BYTES_MAX,
            sent: BTreeSet::new(),
            orphans: VecDeque::new(),
            orphan_bytes: 0,
        }
    }

    /// The frame that begins a round: at the start of the session on the dialler's side, and on
    /// both sides as often as the overlay says.
    pub fn open(&mut self, replica: &Replica) -> Vec<u8> {
        self.asked = self.asked.saturating_add(1);
        self.begun = 0;
        self.allowance = SYNC_ANSWER_BYTES_MAX;
        Frame::Tips(summary(replica)).encode()
    }

    /// Whether the peer has answered every round that this side began, and so has taken in, or refused,
    /// all that was sent before them.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.asked == 0
    }

    /// Whether the peer began a round since this side last did.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        self.begun > 0
    }

    /// Bytes that the session holds because of its peer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.orphan_bytes + self.orphans.len() * size_of::<Orphan>() + self.sent.len() * size_of::<u64>()
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
                self.nodes_due = self.nodes_due.saturating_add(1);
            }
            Frame::TipsReply(theirs) => {
                take_turn(&mut self.asked, "tips reply")?;
                out.compared = true;
                if theirs.heads != replica.heads() {
                    self.push_lacking(replica, &theirs, &mut out);
                    self.push_nodes(vec![descent::tell(replica.ids(), Prefix::ROOT)], &mut out);
                }
            }
            Frame::Records(records) => self.take(replica, records, pace, &mut out)?,
            Frame::Nodes(nodes) => {
                take_turn(&mut self.nodes_due, "nodes")?;
                self.descend(replica, &nodes, &mut out);
            }
            Frame::Want(ids) => {
                take_turn(&mut self.wants_due, "want")?;
                let held = ids.iter().filter_map(|id| id_of(replica.ids(), id));
                let records = replica.records_of(&held.collect());
                self.push_records(records, &mut out);
            }
        }
        Ok(out)
    }

    fn push_lacking(&mut self, replica: &Replica, theirs: &Summary, out: &mut Output) {
        if self.allowance == 0 {
            return;
        }
        let mut fresh = Vec::new();
        for record in lacking(replica, theirs) {
            // What was sent before is charged all the same: it took the same walk to find.
            let Some(left) = self.allowance.checked_sub(record.encoded_len()) else {
                self.allowance = 0;
                break;
            };
            self.allowance = left;
            if self.sent.insert(first_bytes(&record.id())) {
                fresh.push(record);
            }
        }
        out.push_records(fresh);
    }

    /// Answers with our nodes below those told, with the records that a leaf lacks, and with what we do.
    fn descend(&mut self, replica: &Replica, told: &[Told], out: &mut Output) {
        let (mut nodes, mut lacks, mut wants) = (Vec::new(), BTreeSet::new(), Vec::new());
        for node in told {
            let most = (self.allowance / RECORD_BYTES_MIN).saturating_sub(lacks.len());
            if most == 0 {
                break;
            }
            let answer = descent::answer(replica.ids(), node, most);
            nodes.extend(answer.nodes);
            lacks.extend(answer.lacks);
            wants.extend(answer.wants);
        }
        self.push_nodes(nodes, out);
        self.push_records(replica.records_of(&lacks), out);
        if !wants.is_empty() {
            wants.sort_unstable();
            out.send.push(Frame::Want(wants).encode());
        }
    }

    fn push_nodes(&mut self, nodes: Vec<Told>, out: &mut Output) {
        let mut batch: Vec<Told> = Vec::new();
        let mut bytes = 1;
        for node in nodes {
            let len = node.encoded_len();
            let Some(left) = self.allowance.checked_sub(len) else {
                self.allowance = 0;
                break;
            };
            self.allowance = left;
            if bytes + len > SYNC_FRAME_BYTES_MAX {
                self.send_nodes(core::mem::take(&mut batch), out);
                bytes = 1;
            }
            bytes += len;
            batch.push(node);
        }
        if !batch.is_empty() {
            self.send_nodes(batch, out);
        }
    }

    fn send_nodes(&mut self, batch: Vec<Told>, out: &mut Output) {
        out.send.push(Frame::Nodes(batch).encode());
        self.nodes_due = self.nodes_due.saturating_add(NODES_ANSWERS_MAX);
        self.wants_due = self.wants_due.saturating_add(1);
    }

    /// Sends as many as may be; what is left out is found again in a later round.
    fn push_records(&mut self, mut records: Vec<Record>, out: &mut Output) {
        let mut left = Some(self.allowance);
        let fit = records.iter().take_while(|record| {
            left = left.and_then(|left| left.checked_sub(record.encoded_len()));
            left.is_some()
        });
        let fit = fit.count();
        records.truncate(fit);
        self.allowance = left.unwrap_or(0);
        out.push_records(records);
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

impl Default for Session {
    fn default() -> Self {
        Self::new()
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
        // Of more tips than a frame has the first are told; nothing is known of lanes behind the last.
        let told_all = theirs.tips.len() < SYNC_TIPS_MAX;
        let is_told =
            told_all || theirs.tips.last().is_some_and(|last| (last.author, last.lane) > (author, lane));
        let says_nothing = said.peek().is_none() && is_told;
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

fn take_turn(turns: &mut u32, frame: &'static str) -> Result<(), SyncError> {
    *turns = turns.checked_sub(1).ok_or(SyncError::OutOfTurn { frame })?;
    Ok(())
}

/// The id that begins so.
fn id_of(trie: &IdTrie, short: &Short) -> Option<RecordId> {
    trie.ids_under(&Prefix::of_short(short)).next().copied()
}

fn first_bytes(id: &RecordId) -> u64 {
    let mut first = [0; 8];
    for (out, byte) in first.iter_mut().zip(id) {
        *out = *byte;
    }
    u64::from_le_bytes(first)
}

/// Rounds that a peer may begin while this side begins none. Both begin one every five seconds, so
/// an honest peer comes to two; the rest is for a side that was held up for a minute. An answer takes a
/// walk over all that is held, which nobody may ask for at will.
const ROUNDS_BEGUN_MAX: u32 = 16;
/// Ends of one lane that an honest peer has: one more than the branches that are kept of a fork.
const TIPS_COMPARED_MAX: usize = FORK_BRANCHES_MAX + 1;
/// Frames that may answer one frame of nodes: sixteen nodes for each, with a deeper prefix.
const NODES_ANSWERS_MAX: u32 = 20;
/// No record is smaller.
const RECORD_BYTES_MIN: usize = 128;

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
