//! What this machine says of itself: what it has on disk, where it listens.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use identity::{BootNonce, CharterId, Heads, PublicKey, limits::REPORT_INTERVAL_MS};
use member_crdt::ReportPace;
use org_trust::{Record, Report, ReportBody, ReportTip};

use super::{Now, State};

/// What a report rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    heads: Heads,
    count: u64,
    charter: CharterId,
    tips: Vec<ReportTip>,
}

#[derive(Debug)]
pub(super) struct Own {
    boot_nonce: BootNonce,
    /// On disk.
    stored: Option<Facts>,
    told: Option<(CharterId, Vec<ReportTip>, Vec<SocketAddr>)>,
    last: Option<Instant>,
    due: Option<Instant>,
    /// Another machine, or another start of this one, has reported under our key; and how often that was
    /// answered.
    namesake: bool,
    answered: u8,
}

impl Own {
    pub(super) const fn new(boot_nonce: BootNonce) -> Self {
        Self { boot_nonce, stored: None, told: None, last: None, due: None, namesake: false, answered: 0 }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn stored(&mut self, facts: Facts) {
        self.stored = Some(facts);
    }
}

/// When the reports taken of each member would have come at the greatest lasting rate; only members
/// are in it.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<PublicKey, Instant>);

/// The paces at a moment.
pub(super) struct PacesAt<'a>(&'a mut Paces, Instant);

impl Paces {
    pub(super) const fn at(&mut self, now: Instant) -> PacesAt<'_> {
        PacesAt(self, now)
    }
}

impl ReportPace for PacesAt<'_> {
    fn is_due(&self, node: &PublicKey) -> bool {
        let Self(Paces(paces), now) = self;
        paces.get(node).is_none_or(|even| *even < *now + PACE * BURST)
    }

    fn taken(&mut self, node: PublicKey) {
        let Self(Paces(paces), now) = self;
        let even = paces.entry(node).or_insert(*now);
        *even = (*even).max(*now) + PACE;
    }
}

/// Twice as often as an honest node reports: reports bunch up on their way.
const PACE: Duration = Duration::from_millis(REPORT_INTERVAL_MS / 2);
/// Answers to reports that another start makes with our key.
const NAMESAKE_ANSWERS_MAX: u8 = 4;
/// Reports of one node taken at once.
const BURST: u32 = 8;

impl State {
    pub(super) fn facts(&self) -> Facts {
        Facts {
            heads: self.replica.heads(),
            count: self.replica.count(),
            charter: self.replica.chain().head().id(),
            tips: self.replica.report_tips(),
        }
    }

    /// Reports within the interval, if there is something new to say.
    pub(super) fn report_soon(&mut self, now: Now) {
        if self.report.stored.is_none() && self.disk.refused().is_none() && !self.replica.is_unsaved() {
            // What was loaded is on disk.
            self.report.stored = Some(self.facts());
        }
        let Some(facts) = &self.report.stored else { return };
        let said = self.report.told.as_ref().is_some_and(|(charter, tips, endpoints)| {
            (charter, tips, endpoints) == (&facts.charter, &facts.tips, &self.endpoints)
        });
        if said || self.report.due.is_some() || self.may_have_said_more() {
            return;
        }
        let interval = Duration::from_millis(REPORT_INTERVAL_MS);
        let free = self.report.last.map_or(now.at, |last| last + interval);
        self.report.due = Some(free.max(now.at));
        self.report_if_due(now);
    }

    /// Whether this machine may have reported more than it knows of: the disk may be an old copy. Until
    /// somebody has told what he has, a number taken from it may be one that others hold already, and the
    /// machine would pass for two.
    fn may_have_said_more(&self) -> bool {
        self.report.last.is_none() && self.has_heard_nobody()
    }

    /// A report of our key was heard; whether another start of musterd made it.
    pub(super) fn notice_namesake(&mut self, boot_nonce: &BootNonce) {
        self.report.namesake |= *boot_nonce != self.report.boot_nonce;
    }

    /// Says that we are here, too: it is by two starts that go on after each other that everybody sees
    /// that two machines have this key. A few times, since they would go on for ever.
    pub(super) fn report_against_namesake(&mut self, now: Now) {
        if std::mem::take(&mut self.report.namesake) && self.report.answered < NAMESAKE_ANSWERS_MAX {
            self.report.answered += 1;
            self.report.told = None;
            self.report_soon(now);
        }
    }

    pub(super) fn report_if_due(&mut self, now: Now) {
        if self.report.due.is_none_or(|due| due > now.at) || self.disk.refused().is_some() {
            return;
        }
        self.report.due = None;
        let Some(facts) = self.report.stored.clone().filter(|_| self.may_be_member()) else { return };
        let seq = self.replica.report_of(&self.me).map_or(0, |report| report.body().seq.saturating_add(1));
        let body = ReportBody {
            boot_nonce: self.report.boot_nonce,
            seq,
            heads: facts.heads,
            count: facts.count,
            charter: facts.charter,
            tips: facts.tips.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoints: self.endpoints.clone(),
        };
        match Report::sign(&self.org, &self.keys.node, body) {
            Ok(report) => {
                self.report.last = Some(now.at);
                self.report.told = Some((facts.charter, facts.tips, self.endpoints.clone()));
                self.is_own();
                for outcome in self.take(&[Record::from(&report)], now) {
                    if let Err(why) = outcome {
                        tracing::error!("our own report is not taken: {why}");
                    }
                }
            }
            Err(why) => tracing::error!("our own report cannot be made: {why}"),
        }
    }
}
