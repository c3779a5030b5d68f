//! Hearing another member first-hand before anything is answered.
//!
//! A machine that was off, asleep or cut off does not know whom an admin has revoked meanwhile. So
//! after a start, after sleep and when the way to the others comes back it compares its list with
//! members before it serves anybody, and answers only `action=sync` until then. Nobody vouches for
//! himself: what one member told lets all others in, but not that one. If nobody answers in time,
//! settings decide what a list is worth whose age is known to be too great, or not known at all.

use std::time::{Duration, Instant};

use control::local::{Freshness, FreshnessState};
use identity::{
    Code, PublicKey,
    limits::{HEAL_DEADLINE_MS, HEAL_DIALS_MAX},
};

use super::{Now, State};
use crate::sessions::{Cut, Purpose, SessionKey};

/// What a machine does that cannot compare its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStale {
    /// Goes on as it was.
    Serve,
    /// Accepts nobody who is not connected already.
    DenyNew,
    /// Ends what is open, too.
    DenyAll,
}

/// What is done about a key that two machines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClone {
    /// People are told.
    Alarm,
    /// This machine serves that key no more, until an admin has decided.
    Suspend,
}

/// What an operator decides about members and their list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `[members] on_stale`.
    pub on_stale: OnStale,
    /// `[members] stale_after`: how long after it was last compared a list is not good any more.
    pub stale_after: Duration,
    /// `[members] on_clone`.
    pub on_clone: OnClone,
}

impl Default for Policy {
    fn default() -> Self {
        Self { on_stale: OnStale::Serve, stale_after: Duration::from_secs(10 * 60), on_clone: OnClone::Alarm }
    }
}

#[derive(Debug)]
pub(super) struct Healing {
    pub(super) policy: Policy,
    stage: Stage,
    /// The one member that was heard while comparing.
    with: Option<PublicKey>,
    /// When a member last told its tips in answer to ours. By the monotonic clock; forgotten when the
    /// machine slept, since that clock stood still.
    compared: Option<Instant>,
    /// What follows from the list being stale was done for this `compared`.
    ended_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Compared, and in contact since.
    InStep,
    /// Compared, but nobody is in contact. What comes now may come from where the news is.
    Apart,
    /// Only `action=sync` is answered.
    Comparing { until: Instant },
    /// Nobody answered in time.
    Unheard,
}

impl Healing {
    pub(super) fn new() -> Self {
        Self { policy: Policy::default(), stage: Stage::InStep, with: None, compared: None, ended_at: None }
    }

    /// When a stage or the list's time runs out.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Comparing { until } => Some(until),
            Stage::InStep | Stage::Apart | Stage::Unheard => {
                self.stale_at().filter(|_| self.compared != self.ended_at)
            }
        }
    }

    fn stale_at(&self) -> Option<Instant> {
        self.compared.and_then(|at| at.checked_add(self.policy.stale_after))
    }

    fn is_stale(&self, now: Instant) -> bool {
        // In step without a comparison is who had nobody to compare with until now.
        self.stale_at().map_or(self.stage != Stage::InStep, |at| at <= now)
    }
}

impl State {
    /// Whether this machine has compared its list and is in contact, or has nobody to compare with.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.healing.stage == Stage::InStep || self.is_alone()
    }

    /// These settings hold from now on.
    pub fn on_policy(&mut self, policy: Policy, now: Now) {
        self.healing.policy = policy;
        self.members_changed(now);
        self.heal_on(now);
    }

    /// The machine slept, for how long nobody knows by the clock that counts.
    pub fn on_resumed(&mut self, now: Now) {
        tracing::info!("this machine slept");
        self.healing.compared = None;
        self.heal(now);
    }

    /// Compares with others before anything else is answered.
    pub(super) fn heal(&mut self, now: Now) {
        if self.is_alone() {
            self.healing.stage = Stage::InStep;
            return;
        }
        tracing::info!("comparing the member list with other members first");
        let until = now.at + Duration::from_millis(HEAL_DEADLINE_MS);
        self.healing.stage = Stage::Comparing { until };
        self.healing.with = None;
        let open: Vec<SessionKey> = self.sync.keys().copied().collect();
        for key in open {
            self.compare_anew(key);
        }
        // The nearest may be down, and its dial would take longer than there is time.
        for node in self.overlay.nearest(HEAL_DIALS_MAX) {
            self.dial(node, Purpose::Sync, None);
        }
    }

    /// A member told its tips in answer to ours, and what they showed to be lacking here.
    pub(super) fn compared_with(&mut self, peer: PublicKey, now: Now) {
        if self.roster.member_of(&peer).is_some_and(member_crdt::Member::is_unsettled) {
            // It may be a thief's: it has told what it has, and vouches for nothing.
            return;
        }
        self.healing.compared = Some(now.at);
        let vouches = match self.healing.with {
            None => !self.seen().any(|node| node != peer),
            Some(before) => before != peer,
        };
        match self.healing.stage {
            Stage::InStep => {}
            Stage::Comparing { .. } if !vouches => self.healing.with = Some(peer),
            Stage::Comparing { .. } | Stage::Apart | Stage::Unheard => {
                tracing::info!("the member list is compared");
                self.healing.stage = Stage::InStep;
            }
        }
        self.report_soon(now);
    }

    /// Somebody wants to be served: what stands against it, besides its standing.
    pub(super) fn stale_for(&mut self, peer: &PublicKey, now: Now) -> Option<Code> {
        if self.is_alone() {
            return None;
        }
        if self.healing.stage == Stage::Apart {
            // That it came here shows that a way is back.
            self.heal(now);
        }
        match self.healing.stage {
            Stage::Comparing { .. } => {
                let itself = self.node_of(peer);
                let heard = self.healing.with;
                heard.is_none_or(|heard| Some(heard) == itself).then_some(Code::HealFirst)
            }
            Stage::InStep | Stage::Apart | Stage::Unheard => {
                let denies = self.healing.policy.on_stale != OnStale::Serve;
                (denies && self.healing.is_stale(now.at)).then_some(Code::ListStale)
            }
        }
    }

    /// Moves on with the time, and with who is in contact.
    pub(super) fn heal_on(&mut self, now: Now) {
        if self.is_alone() {
            self.healing.stage = Stage::InStep;
            return;
        }
        match self.healing.stage {
            Stage::Comparing { until } if until <= now.at => {
                let heard = self.healing.with.is_some();
                self.healing.stage = if heard { Stage::InStep } else { Stage::Unheard };
                if !heard {
                    let policy = self.healing.policy.on_stale;
                    tracing::warn!(MUSTER_CODE = %Code::ListStale, ?policy, "no member answered in time");
                }
            }
            Stage::InStep if self.sync.is_empty() => self.healing.stage = Stage::Apart,
            Stage::InStep | Stage::Apart | Stage::Comparing { .. } | Stage::Unheard => {}
        }
        if !self.is_stale(now) {
            return;
        }
        self.healing.ended_at = self.healing.compared;
        if self.healing.policy.on_stale == OnStale::DenyAll {
            let open = self.sessions.iter().filter(|(_, s)| s.purpose != Purpose::Sync && !s.is_cut());
            let open: Vec<SessionKey> = open.map(|(key, _)| key).collect();
            for key in open {
                let reason = Code::ListStale.title().to_owned();
                self.outside.forget(key);
                self.sessions.cut(key, Cut { code: Code::ListStale, reason });
            }
        }
    }

    /// Contact is back.
    pub(super) fn heal_with_contact(&mut self, now: Now) {
        if self.healing.stage == Stage::Apart {
            self.heal(now);
        }
    }

    /// Whether the next answer of a member matters more than usual.
    pub(super) fn wants_comparing(&self) -> bool {
        self.healing.stage != Stage::InStep
    }

    /// Whether the list may be out of date and nothing is under way.
    pub(super) fn is_stale(&self, now: Now) -> bool {
        let comparing = matches!(self.healing.stage, Stage::Comparing { .. });
        !self.is_alone() && !comparing && self.healing.is_stale(now.at)
    }

    /// Whether there are others, and none has told yet what he has.
    pub(super) fn has_heard_nobody(&self) -> bool {
        self.healing.compared.is_none() && !self.is_alone()
    }

    /// For status.
    pub(super) fn freshness(&self, now: Now) -> Freshness {
        let state = match self.healing.stage {
            _ if self.is_alone() => FreshnessState::InStep,
            Stage::Comparing { .. } => FreshnessState::Comparing,
            _ if self.healing.is_stale(now.at) => FreshnessState::Stale,
            Stage::InStep => FreshnessState::InStep,
            Stage::Apart | Stage::Unheard => FreshnessState::Apart,
        };
        let compared = self.healing.compared.map(|at| now.at.saturating_duration_since(at));
        Freshness {
            state,
            compared_ms_ago: compared.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whether there is nobody to compare with: who has never run knows nothing that is not known here,
    /// since it has its list from here or is not admitted yet.
    fn is_alone(&self) -> bool {
        self.seen().next().is_none()
    }

    /// The other members that have run.
    fn seen(&self) -> impl Iterator<Item = PublicKey> {
        let others = self.roster.good_or_unsettled().filter(|member| !member.uses(&self.me));
        others.filter(|m| self.replica.report_of(&m.node).is_some()).map(member_crdt::Member::first)
    }

    fn node_of(&self, key: &PublicKey) -> Option<PublicKey> {
        match self.roster.standing(key) {
            member_crdt::Standing::Boot(member)
            | member_crdt::Standing::Member(member)
            | member_crdt::Standing::Retired(member) => Some(member.first()),
            member_crdt::Standing::Admin(_) | member_crdt::Standing::Unknown => None,
        }
    }
}
