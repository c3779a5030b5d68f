//! The sessions of one node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use identity::{
    PublicKey,
    limits::{DIAL_DEADLINE_MS, TIPS_INTERVAL_MS},
};

use crate::{
    Liveness,
    backoff::{Backoff, spread},
    ring::{Ring, Rings},
};

/// Who dialled a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Close this session: its peer is no longer a member.
    Cut(PublicKey, Direction),
    /// Dial this member; answer with [`Overlay::handle_session_up`] or
    /// [`Overlay::handle_dial_failed`].
    Dial(PublicKey),
    /// Close this session: a nearer member is reached, or both sides dialled each other.
    Drop(PublicKey, Direction),
    /// Send tips on this session.
    ExchangeTips(PublicKey, Direction),
    /// Close this session as busy: there are enough.
    Refuse(PublicKey),
}

/// Which sessions one node keeps.
#[derive(Debug)]
pub struct Overlay {
    me: PublicKey,
    seed: u64,
    rings: Rings,
    sessions: BTreeMap<(PublicKey, Direction), Session>,
    /// Dials under way, and when they are given up.
    dials: BTreeMap<PublicKey, u64>,
    backoffs: BTreeMap<PublicKey, Backoff>,
    /// Peers with a session that do not answer: the next on the ring is dialled beside them.
    silent: BTreeSet<PublicKey>,
    outputs: VecDeque<Output>,
    /// The latest time heard of.
    now_ms: u64,
}

#[derive(Debug)]
struct Session {
    tips_at_ms: u64,
    /// Whether the peer began a round since this side was last told to.
    asked: bool,
}

impl Overlay {
    /// A node without sessions. The seed spreads its timers; two nodes should not share one.
    #[must_use]
    pub fn new(me: PublicKey, seed: u64) -> Self {
        Self {
            me,
            seed,
            rings: Rings::new([me]),
            sessions: BTreeMap::new(),
            dials: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            silent: BTreeSet::new(),
            outputs: VecDeque::new(),
            now_ms: 0,
        }
    }

    /// Members in good standing, this node among them or not. Sessions with others are cut at once.
    pub fn handle_members(&mut self, now_ms: u64, members: impl IntoIterator<Item = PublicKey>) {
        self.handle_rings(now_ms, Rings::new(members.into_iter().chain([self.me])));
    }

    /// The same for many nodes of one program, each among the members: they share one list.
    pub fn handle_rings(&mut self, now_ms: u64, rings: Rings) {
        self.rings = rings;
        let ring = &self.rings;
        let strangers: Vec<(PublicKey, Direction)> =
            self.sessions.keys().filter(|(peer, _)| !ring.contains(peer)).copied().collect();
        self.dials.retain(|peer, _| ring.contains(peer));
        self.backoffs.retain(|peer, _| ring.contains(peer));
        for (peer, direction) in strangers {
            self.sessions.remove(&(peer, direction));
            self.outputs.push_back(Output::Cut(peer, direction));
        }
        self.choose(now_ms);
    }

    /// A session was accepted on both sides.
    pub fn handle_session_up(&mut self, now_ms: u64, peer: PublicKey, direction: Direction) {
        if direction == Direction::Outbound {
            self.dials.remove(&peer);
        }
        if peer == self.me || !self.is_member(&peer) {
            self.outputs.push_back(Output::Cut(peer, direction));
            return;
        }
        if direction == Direction::Inbound && !self.has_session(&peer) && !self.make_room(&peer) {
            self.outputs.push_back(Output::Refuse(peer));
            return;
        }
        // Both dialled each other: the session of the lower key stays, and both sides agree on it.
        let keep = if self.me < peer { Direction::Outbound } else { Direction::Inbound };
        let other = direction.other();
        if self.sessions.contains_key(&(peer, other)) {
            if direction != keep {
                self.outputs.push_back(Output::Drop(peer, direction));
                return;
            }
            self.sessions.remove(&(peer, other));
            self.outputs.push_back(Output::Drop(peer, other));
        }
        // The dialler begins with tips; the other side joins in at an interval of its own.
        let first = match direction {
            Direction::Outbound => {
                self.outputs.push_back(Output::ExchangeTips(peer, direction));
                now_ms.saturating_add(TIPS_INTERVAL_MS)
            }
            Direction::Inbound => now_ms.saturating_add(self.interval(&peer)),
        };
        self.sessions.insert((peer, direction), Session { tips_at_ms: first, asked: false });
        self.choose(now_ms);
    }

    /// A session ended, for whatever reason. One that ended by our own word needs no such call.
    pub fn handle_session_down(&mut self, now_ms: u64, peer: PublicKey, direction: Direction) {
        if self.sessions.remove(&(peer, direction)).is_some() && !self.has_session(&peer) {
            // A peer that ends a session of its own need not be out of reach: only a dial can tell.
            if direction == Direction::Outbound {
                self.back_off(now_ms, peer);
            }
            self.choose(now_ms);
        }
    }

    /// A dial failed, or the peer was busy.
    pub fn handle_dial_failed(&mut self, now_ms: u64, peer: PublicKey) {
        if self.dials.remove(&peer).is_some() {
            self.back_off(now_ms, peer);
            self.choose(now_ms);
        }
    }

    /// The peer was heard on another path, so it is worth trying now.
    pub fn handle_reachable(&mut self, now_ms: u64, peer: &PublicKey) {
        if self.backoffs.remove(peer).is_some() {
            self.choose(now_ms);
        }
    }

    /// A peer answers, or does not answer any more. Its session stays; while it is silent, whoever comes
    /// behind it is dialled, too. Who has no session is dialled as ever, whatever is said of him.
    pub fn handle_liveness(&mut self, now_ms: u64, peer: &PublicKey, liveness: Liveness) {
        let changed = if liveness == Liveness::Silent {
            // When all fall silent, it is this node's own way that is gone.
            let few = self.silent.len() < self.rings.len();
            few && self.has_session(peer) && self.silent.insert(*peer)
        } else {
            self.silent.remove(peer)
        };
        if changed {
            self.choose(now_ms);
        }
    }

    /// The peer began a round of tips on this session.
    pub fn handle_asked(&mut self, peer: &PublicKey, direction: Direction) {
        if let Some(session) = self.sessions.get_mut(&(*peer, direction)) {
            session.asked = true;
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        let late: Vec<PublicKey> =
            self.dials.iter().filter(|&(_, &until)| until <= now_ms).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.dials.remove(&peer);
            self.back_off(now_ms, peer);
        }
        let due: Vec<(PublicKey, Direction)> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.tips_at_ms <= now_ms)
            .map(|(key, _)| *key)
            .collect();
        for (peer, direction) in due {
            let next = now_ms.saturating_add(self.interval(&peer));
            let compares = self.compares(&peer);
            let Some(session) = self.sessions.get_mut(&(peer, direction)) else { continue };
            session.tips_at_ms = next;
            // Who asks for rounds is asked in return: otherwise what it may be answered runs out.
            if std::mem::take(&mut session.asked) || compares {
                self.outputs.push_back(Output::ExchangeTips(peer, direction));
            }
        }
        self.choose(now_ms);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let tips = self.sessions.values().map(|session| session.tips_at_ms);
        let dials = self.dials.values().copied();
        let waits = self.backoffs.values().map(|b| b.until_ms).filter(|until| *until > self.now_ms);
        tips.chain(dials).chain(waits).min()
    }

    /// Whom to pass a new record on to: every session but the one it came by.
    pub fn flood_targets(&self, source: Option<&PublicKey>) -> impl Iterator<Item = (PublicKey, Direction)> {
        let source = source.copied();
        self.sessions.keys().filter(move |(peer, _)| Some(*peer) != source).copied()
    }

    /// Whether tips are compared with this peer again and again: of those that this node has sessions
    /// with it is the first behind it, or the last before it, on one of the first two rings. Other
    /// sessions are there to flood.
    #[must_use]
    pub fn compares(&self, peer: &PublicKey) -> bool {
        self.rings.compared().any(|ring| {
            let others = || self.sessions.keys().map(|(peer, _)| peer);
            ring.last_before(&self.me, others()) == Some(peer)
                || ring.first_behind(&self.me, others()) == Some(peer)
        })
    }

    /// The nearest behind this one on the rings in turn, without a session or a dial under way.
    #[must_use]
    pub fn nearest(&self, most: usize) -> Vec<PublicKey> {
        let mut found: Vec<PublicKey> = Vec::new();
        let mut walks: Vec<_> = self.rings.iter().map(|ring| ring.behind(&self.me)).collect();
        while found.len() < most {
            let step: Vec<&PublicKey> = walks.iter_mut().filter_map(Iterator::next).collect();
            if step.is_empty() {
                break;
            }
            for peer in step {
                let busy = *peer == self.me || self.has_session(peer) || self.dials.contains_key(peer);
                if found.len() < most && !busy && !found.contains(peer) {
                    found.push(*peer);
                }
            }
        }
        found
    }

    /// The sessions there are.
    pub fn sessions(&self) -> impl Iterator<Item = (PublicKey, Direction)> {
        self.sessions.keys().copied()
    }

    /// Dials whoever should be dialled and is not, and drops what a nearer member makes idle.
    fn choose(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.backoffs.retain(|_, backoff| backoff.is_young(now_ms));
        let sessions = &self.sessions;
        self.silent.retain(|peer| has_session(sessions, peer));
        let wanted: BTreeSet<PublicKey> =
            self.rings.iter().filter_map(|ring| self.reach(now_ms, ring)).collect();
        let missing: Vec<PublicKey> = wanted.iter().filter(|peer| !self.has_session(peer)).copied().collect();
        for peer in &missing {
            if !self.dials.contains_key(peer) {
                self.dials.insert(*peer, now_ms.saturating_add(DIAL_DEADLINE_MS));
                self.outputs.push_back(Output::Dial(*peer));
            }
        }
        // What was dialled instead of somebody unreachable goes when that one is reached again.
        let dialled: Vec<PublicKey> = self.peers(Direction::Outbound).copied().collect();
        let idle = dialled.iter().filter(|peer| !wanted.contains(peer) && !self.silent.contains(peer));
        let idle: Vec<PublicKey> = idle.copied().collect();
        let surplus = dialled.len().saturating_sub(self.rings.len());
        for peer in idle.into_iter().take(if missing.is_empty() { usize::MAX } else { surplus }) {
            self.end(peer, Direction::Outbound);
        }
    }

    /// Whether one more member that dials is taken. If there are enough, those stay that are the last
    /// before this one on a ring: who else came has somebody nearer to dial. So the rings close among
    /// those who are up, however many others come.
    fn make_room(&mut self, peer: &PublicKey) -> bool {
        let dialling: BTreeSet<PublicKey> = self.peers(Direction::Inbound).chain([peer]).copied().collect();
        if dialling.len() <= self.rings.len() {
            return true;
        }
        let needed: Vec<&PublicKey> =
            self.rings.iter().filter_map(|ring| ring.last_before(&self.me, dialling.iter())).collect();
        let Some(other) = dialling.iter().find(|other| *other != peer && !needed.contains(other)) else {
            return false;
        };
        if !needed.contains(&peer) {
            return false;
        }
        let other = *other;
        self.end(other, Direction::Inbound);
        true
    }

    fn end(&mut self, peer: PublicKey, direction: Direction) {
        self.sessions.remove(&(peer, direction));
        self.outputs.push_back(Output::Drop(peer, direction));
    }

    fn peers(&self, of: Direction) -> impl Iterator<Item = &PublicKey> {
        self.sessions.keys().filter(move |(_, direction)| *direction == of).map(|(peer, _)| peer)
    }

    /// The first member behind this one on a ring that is not known to be out of reach.
    fn reach(&self, now_ms: u64, ring: &Ring) -> Option<PublicKey> {
        let waits = |peer: &PublicKey| self.backoffs.get(peer).is_some_and(|b| b.until_ms > now_ms);
        let mut others = ring.behind(&self.me).filter(|peer| **peer != self.me);
        others
            .find(|peer| if self.has_session(peer) { !self.silent.contains(peer) } else { !waits(peer) })
            .copied()
    }

    fn is_member(&self, key: &PublicKey) -> bool {
        self.rings.contains(key)
    }

    fn has_session(&self, peer: &PublicKey) -> bool {
        has_session(&self.sessions, peer)
    }

    fn back_off(&mut self, now_ms: u64, peer: PublicKey) {
        if self.is_member(&peer) {
            let before = self.backoffs.get(&peer).copied();
            self.backoffs.insert(peer, Backoff::after(before, now_ms, self.seed, &peer));
        }
    }

    /// Between three and five quarters of the interval, so that sessions do not fall into step.
    fn interval(&self, peer: &PublicKey) -> u64 {
        TIPS_INTERVAL_MS * 3 / 4 + spread(self.seed, peer, 0) % (TIPS_INTERVAL_MS / 2)
    }
}

fn has_session(sessions: &BTreeMap<(PublicKey, Direction), Session>, peer: &PublicKey) -> bool {
    [Direction::Inbound, Direction::Outbound].iter().any(|d| sessions.contains_key(&(*peer, *d)))
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}
