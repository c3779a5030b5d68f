//! Who answers: SWIM, by foca, among the members that this node keeps in step with.
//!
//! A node probes only those with whom it has a session of `action=sync`, so it makes no tunnel for this,
//! and sends the same whatever the size of the org. What it learns has two uses: to be shown, and to try
//! the next member on a ring before a dead session is noticed. It says nothing about standing.
//!
//! Nobody's word makes a member silent. What foca is given is cut down first to what cannot be used
//! against others: a peer speaks under its own key alone; of others it can say that they are suspected,
//! with the incarnation that they themselves told here last; that somebody is down counts as no more.
//! Whether a member is silent is decided by this node's own probes, and ends with the next word of it.
//!
//! Shaped by polling, like [`crate::Overlay`]: time and randomness come in.

mod wire;

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    fmt,
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{
    Config, Foca, Header, Incarnation, Member, Message, NoCustomBroadcast, Notification, PeriodicParams,
    Runtime, State, Timer,
};
use identity::{
    PublicKey,
    limits::{
        SWIM_ANSWER_MS, SWIM_COPIES, SWIM_DATAGRAM_BYTES_MAX, SWIM_INDIRECT, SWIM_NEWS_MS, SWIM_PROBE_MS,
        SWIM_PROBED_MAX, SWIM_SUSPECT_MS,
    },
};
use rand_core::Rng;

use wire::{Datagram, Node, Wire};

/// Whether a member answers. Never whether it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It answers, as far as is known.
    Alive,
    /// It did not answer this node in time, or another says so.
    Suspect,
    /// It has not answered this node for a while.
    Silent,
}

/// What to do, or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimOutput {
    /// Send this datagram to a member.
    Send(PublicKey, Vec<u8>),
    /// A member answers, or does not answer any more.
    Changed(PublicKey, Liveness),
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwimError {
    /// Its sender is nobody that this node keeps in step with.
    NotProbed,
    /// The bytes are no datagram.
    Malformed,
    /// It speaks for another than its sender, or to another than this node.
    Forged,
}

impl fmt::Display for SwimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProbed => "from nobody that is kept in step with",
            Self::Malformed => "not a datagram of SWIM",
            Self::Forged => "in another's name",
        })
    }
}

impl std::error::Error for SwimError {}

/// One node's part in SWIM.
pub struct Swim<R> {
    me: Node,
    foca: Foca<Node, Wire, R, NoCustomBroadcast>,
    probed: BTreeMap<Node, Probed>,
    /// Until then nobody is denied that this node is suspected.
    refutes_at_ms: u64,
    world: World,
    outputs: VecDeque<SwimOutput>,
}

impl<R> fmt::Debug for Swim<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim").field("probed", &self.probed).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Probed {
    peer: PublicKey,
    liveness: Liveness,
    /// What it said of itself last: what others say of it counts with this only.
    told: Incarnation,
    /// When it was last heard by a datagram of its own.
    heard_ms: Option<u64>,
    /// When it is asked next, while it is suspected.
    ask_ms: u64,
}

impl<R: Rng> Swim<R> {
    /// A node that probes nobody yet, by the key that it was admitted with.
    pub fn new(me: &PublicKey, randomness: R) -> Self {
        let me = Node(*me.as_bytes());
        Self {
            me,
            foca: Foca::new(me, config(), randomness, Wire),
            probed: BTreeMap::new(),
            refutes_at_ms: 0,
            world: World::default(),
            outputs: VecDeque::new(),
        }
    }

    /// These are probed from now on, and nobody else: the members that this node has a session with that
    /// keeps both in step.
    pub fn handle_probed(&mut self, now_ms: u64, peers: impl IntoIterator<Item = PublicKey>) {
        let wanted: BTreeMap<Node, PublicKey> = peers
            .into_iter()
            .map(|peer| (Node(*peer.as_bytes()), peer))
            .filter(|(node, _)| *node != self.me)
            .take(SWIM_PROBED_MAX)
            .collect();
        let gone: Vec<Node> = self.probed.keys().filter(|node| !wanted.contains_key(node)).copied().collect();
        for node in gone {
            self.probed.remove(&node);
            self.forget(now_ms, node);
        }
        for (node, peer) in wanted {
            if let Entry::Vacant(place) = self.probed.entry(node) {
                place.insert(Probed { peer, liveness: Liveness::Alive, told: 0, heard_ms: None, ask_ms: 0 });
                self.learn(now_ms, Member::alive(node));
            }
        }
        self.settle();
    }

    /// A datagram came out of this member's tunnel.
    ///
    /// # Errors
    /// [`SwimError`]: nothing in it counts.
    pub fn handle_datagram(&mut self, now_ms: u64, from: &PublicKey, bytes: &[u8]) -> Result<(), SwimError> {
        let from = Node(*from.as_bytes());
        let Some(before) = self.probed.get(&from).copied() else { return Err(SwimError::NotProbed) };
        let mut datagram = Datagram::decode(bytes).map_err(|_| SwimError::Malformed)?;
        if datagram.header.src != from || datagram.header.dst != self.me {
            return Err(SwimError::Forged);
        }
        let told = datagram.header.src_incarnation;
        if before.liveness == Liveness::Silent || told < before.told {
            // It is back, or has started anew.
            self.forget(now_ms, from);
        }
        if let Some(probed) = self.probed.get_mut(&from) {
            probed.told = told;
            probed.heard_ms = Some(now_ms);
        }
        datagram.news.retain_mut(|news| match self.credible(now_ms, from, news) {
            Some(credible) => {
                *news = credible;
                true
            }
            None => false,
        });
        let bytes = datagram.encode().map_err(|_| SwimError::Malformed)?;
        self.world.now_ms = now_ms;
        let taken = self.foca.handle_data(&bytes, &mut self.world);
        self.settle();
        taken.map_err(|_| SwimError::Malformed)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.world.now_ms = now_ms;
        while let Some(entry) = self.world.timers.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let timer = entry.remove();
            if let Timer::ChangeSuspectToDown { member_id, .. } = &timer
                && let Some(heard_ms) = self.probed.get(member_id).and_then(|probed| probed.heard_ms)
                && heard_ms.saturating_add(SWIM_SUSPECT_MS) > now_ms
            {
                // Who was heard meanwhile is not silent, though he has not denied it yet.
                self.world.submit_after(timer, Duration::from_millis(SWIM_SUSPECT_MS));
                continue;
            }
            // It complains of timers that came too late to mean anything, and goes on.
            let _unhurt = self.foca.handle_timer(timer, &mut self.world);
        }
        self.settle();
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let suspects = self.probed.values().filter(|probed| probed.liveness == Liveness::Suspect);
        let timer = self.world.timers.keys().next().map(|(at, _)| *at);
        suspects.map(|probed| probed.ask_ms).chain(timer).min()
    }

    /// The next thing to do or to know, if any.
    pub fn poll_output(&mut self) -> Option<SwimOutput> {
        self.outputs.pop_front()
    }

    /// What is known of a member; nothing of most.
    #[must_use]
    pub fn liveness(&self, peer: &PublicKey) -> Option<Liveness> {
        self.probed.get(&Node(*peer.as_bytes())).map(|probed| probed.liveness)
    }

    /// What of a peer's news is given to foca.
    fn credible(&mut self, now_ms: u64, from: Node, news: &Member<Node>) -> Option<Member<Node>> {
        let node = *news.id();
        if node == from || news.state() == State::Alive {
            // Of itself a peer speaks in the header. That somebody is alive only he can say.
            return None;
        }
        let told = match self.probed.get(&node) {
            Some(probed) => probed.told,
            None if node == self.me && self.refutes_at_ms <= now_ms => self.world.told,
            None => return None,
        };
        if news.incarnation() != told {
            return None;
        }
        if node == self.me {
            // Each time it is denied to several: not as often as somebody likes.
            self.refutes_at_ms = now_ms.saturating_add(SWIM_PROBE_MS);
        }
        Some(Member::new(node, told, State::Suspect))
    }

    /// Asks whoever is suspected here, and says so: if that arrives, the answer denies it.
    fn ask_suspects(&mut self, now_ms: u64) {
        for (node, probed) in &mut self.probed {
            if probed.liveness != Liveness::Suspect || probed.ask_ms > now_ms {
                continue;
            }
            probed.ask_ms = now_ms.saturating_add(SWIM_NEWS_MS);
            let header = Header {
                src: self.me,
                src_incarnation: self.world.told,
                dst: *node,
                message: Message::Ping(0),
            };
            let news = vec![Member::new(*node, probed.told, State::Suspect)];
            if let Ok(bytes) = (Datagram { header, news }).encode() {
                self.outputs.push_back(SwimOutput::Send(probed.peer, bytes));
            }
        }
    }

    fn learn(&mut self, now_ms: u64, member: Member<Node>) {
        self.world.now_ms = now_ms;
        // It fails only when a member cannot be encoded, which takes 35 bytes.
        let _unhurt = self.foca.apply_many(std::iter::once(member), false, &mut self.world);
    }

    /// Nothing that was known of this member holds any more.
    fn forget(&mut self, now_ms: u64, node: Node) {
        self.learn(now_ms, Member::down(node));
        let _unhurt = self.foca.handle_timer(Timer::RemoveDown(node), &mut self.world);
    }

    /// Takes over what foca says by now.
    fn settle(&mut self) {
        if std::mem::take(&mut self.world.defunct) {
            // Suspected so often that there is no higher incarnation: it begins anew, and others notice.
            let _unhurt = self.foca.reuse_down_identity();
            self.world.told = 0;
            let _unhurt = self.foca.apply_many(std::iter::empty(), false, &mut self.world);
        }
        let states: BTreeMap<Node, State> =
            self.foca.iter_membership_state().map(|member| (*member.id(), member.state())).collect();
        for (node, probed) in &mut self.probed {
            let liveness = match states.get(node) {
                Some(State::Alive) => Liveness::Alive,
                Some(State::Suspect) => Liveness::Suspect,
                Some(State::Down) | None => Liveness::Silent,
            };
            if liveness != probed.liveness {
                probed.liveness = liveness;
                self.outputs.push_back(SwimOutput::Changed(probed.peer, liveness));
            }
        }
        while let Some((to, bytes)) = self.world.sent.pop_front() {
            if let Ok(datagram) = Datagram::decode(&bytes) {
                self.world.told = datagram.header.src_incarnation;
            }
            // Whoever was asked to try somebody that is not probed here has nothing to try by.
            if let Some(probed) = self.probed.get(&to) {
                self.outputs.push_back(SwimOutput::Send(probed.peer, bytes));
            }
        }
        self.ask_suspects(self.world.now_ms);
    }
}

/// What foca wants done.
#[derive(Default)]
struct World {
    now_ms: u64,
    timers: BTreeMap<(u64, u64), Timer<Node>>,
    set: u64,
    sent: VecDeque<(Node, Vec<u8>)>,
    /// This node's incarnation, as it told it last.
    told: Incarnation,
    defunct: bool,
}

impl Runtime<Node> for World {
    fn notify(&mut self, notification: Notification<'_, Node>) {
        self.defunct |= notification == Notification::Defunct;
    }

    fn send_to(&mut self, to: Node, data: &[u8]) {
        self.sent.push_back((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Node>, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.set = self.set.saturating_add(1);
        self.timers.insert((self.now_ms.saturating_add(after), self.set), event);
    }
}

fn config() -> Config {
    let at_least_one = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    Config {
        probe_period: Duration::from_millis(SWIM_PROBE_MS),
        probe_rtt: Duration::from_millis(SWIM_ANSWER_MS),
        num_indirect_probes: at_least_one(SWIM_INDIRECT),
        max_transmissions: NonZeroU8::new(SWIM_COPIES).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_millis(SWIM_SUSPECT_MS),
        // Who is silent stays so until he is heard or no longer probed.
        remove_down_after: None,
        max_packet_size: at_least_one(SWIM_DATAGRAM_BYTES_MAX),
        notify_down_members: false,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(SWIM_NEWS_MS),
            num_members: at_least_one(SWIM_INDIRECT),
        }),
    }
}

#[cfg(test)]
mod tests;
