//! Persist, then speak: what may be said only once the disk has what it rests on.
//!
//! One write is under way at a time; what is taken in meanwhile goes with the next one, so a burst of
//! changes costs one fsync. What waits for a write is released when it is acknowledged.

use std::time::{Duration, Instant};

use control::local::{Answer, Failed, Taken};
use identity::{Code, PublicKey};
use org_trust::{Outcome, Record};
use tokio::sync::oneshot;

use super::{Effect, Now, State, reports::Facts};
use crate::{
    sessions::SessionKey,
    writer::{Write, Written},
};

/// Something that waits for the disk.
#[derive(Debug)]
pub(super) enum Withheld {
    /// A member that counts from then on.
    Admitted(PublicKey),
    /// Answers a program.
    Answer(oneshot::Sender<Answer>, Waiting),
    /// The change that names this machine's new keys is there; so this is answered.
    Rotated(oneshot::Sender<Answer>),
    /// Passes a record on, not to the session it came from.
    Flood(Record, Option<SessionKey>),
    /// A frame of a sync session.
    Frame(SessionKey, Vec<u8>),
    /// Frames that answer a machine at the gateway and end its session; or the refusal instead.
    Outside(SessionKey, Vec<Vec<u8>>),
    /// Tells an admin at the gateway what became of records; or the refusal instead. Whether they take
    /// this machine out of the org.
    Submitted(SessionKey, Vec<Outcome>, bool),
}

/// An answer that lacks the time at which the disk had it.
#[derive(Debug)]
pub(super) enum Waiting {
    /// This machine has left.
    Left(control::local::Left),
    /// Changes were taken.
    Submitted {
        /// What became of each.
        taken: Vec<Taken>,
        /// Whether they take this machine out of the org.
        parts: bool,
    },
}

#[derive(Debug)]
pub(super) struct Disk {
    unwritten: Vec<u8>,
    current: Vec<Withheld>,
    next: Vec<Withheld>,
    in_flight: bool,
    /// A statement or report of our own is among what is being, or is to be, written.
    own: (bool, bool),
    replace: bool,
    retry_at: Option<Instant>,
    refused: Option<String>,
    writing: Option<Facts>,
}

impl Disk {
    pub(super) const fn new(replace: bool) -> Self {
        Self {
            unwritten: Vec::new(),
            current: Vec::new(),
            next: Vec::new(),
            in_flight: false,
            own: (false, false),
            replace,
            retry_at: None,
            refused: None,
            writing: None,
        }
    }

    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.in_flight
    }

    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

impl State {
    /// Lets `what` happen once everything taken in so far is on disk.
    pub(super) fn after_disk(&mut self, what: Withheld) {
        self.disk.next.push(what);
    }

    /// Sends a frame of a sync session: at once, unless a statement of our own is not on disk yet. It
    /// must not be heard of before: after a crash its place would be signed twice.
    pub(super) fn send_sync(&mut self, key: SessionKey, frame: Vec<u8>) {
        if self.disk.own != (false, false) {
            self.disk.next.push(Withheld::Frame(key, frame));
        } else {
            self.sessions.send(key, frame);
        }
    }

    /// What was just taken in is signed with a key of ours.
    pub(super) const fn is_own(&mut self) {
        self.disk.own.1 = true;
    }

    /// Writes what was taken in, as soon as the last write is done.
    pub(super) fn persist(&mut self, now: Now) {
        match self.replica.save_incremental() {
            Ok(bytes) => self.disk.unwritten.extend(bytes),
            Err(error) => {
                tracing::error!(%error, "the member list does not take a change");
                self.disk.replace = true;
            }
        }
        self.write_on(now);
    }

    pub(super) fn write_on(&mut self, now: Now) {
        if self.disk.in_flight || self.disk.retry_at.is_some_and(|at| at > now.at) {
            return;
        }
        self.disk.retry_at = None;
        let write = if self.disk.replace {
            match self.replica.save() {
                Ok(document) => Write::Replace(self.org, document),
                Err(error) => {
                    tracing::error!(%error, "the member list cannot be written");
                    return self.disk_refuses(now, &error.to_string());
                }
            }
        } else if self.disk.unwritten.is_empty() {
            if !self.disk.next.is_empty() {
                let ready = std::mem::take(&mut self.disk.next);
                self.disk.own.1 = false;
                self.release(ready, now.unix_ns, now);
            }
            return;
        } else {
            Write::Append(std::mem::take(&mut self.disk.unwritten))
        };
        self.disk.unwritten.clear();
        self.disk.current = std::mem::take(&mut self.disk.next);
        self.disk.own = (self.disk.own.1, false);
        self.disk.in_flight = true;
        self.disk.writing = Some(self.facts());
        self.effects.push_back(Effect::Write(write));
    }

    /// A write is done, or was refused.
    pub fn on_written(&mut self, written: Written, now: Now) {
        self.disk.in_flight = false;
        self.disk.replace = written.wants_replacing;
        match written.result {
            Ok(()) => {
                if self.disk.refused.take().is_some() {
                    tracing::info!("the disk takes writes again");
                }
                self.disk.own.0 = false;
                if let Some(facts) = self.disk.writing.take() {
                    self.report.stored(facts);
                }
                let ready = std::mem::take(&mut self.disk.current);
                self.release(ready, written.unix_ns, now);
                self.report_soon(now);
                self.write_on(now);
            }
            Err(error) => {
                self.disk.replace = true;
                self.disk_refuses(now, &error);
            }
        }
    }

    fn disk_refuses(&mut self, now: Now, why: &str) {
        if self.disk.refused.is_none() {
            tracing::warn!(MUSTER_CODE = %Code::DiskRefused, why, "the disk refuses; what is not on it is not acknowledged");
        }
        self.disk.refused = Some(why.to_owned());
        self.disk.retry_at = Some(now.at + RETRY);
        self.disk.writing = None;
        self.disk.own = (false, self.disk.own.0 || self.disk.own.1);
        let waiting = std::mem::take(&mut self.disk.current).into_iter();
        let waiting: Vec<Withheld> = waiting.chain(std::mem::take(&mut self.disk.next)).collect();
        for what in waiting {
            match what {
                Withheld::Answer(reply, _) => {
                    let failed = Failed { code: Code::DiskRefused.into(), detail: why.to_owned() };
                    answer(reply, Answer::Failed(failed));
                }
                Withheld::Outside(key, _) | Withheld::Submitted(key, ..) => {
                    self.refuse_outside(key, Code::DiskRefused)
                }
                // It is told when the disk takes it.
                Withheld::Rotated(_) => self.disk.next.push(what),
                // A peer that gets no answer begins a new round when the session is made anew.
                Withheld::Frame(..) => {}
                Withheld::Admitted(_) | Withheld::Flood(..) => self.disk.next.push(what),
            }
        }
    }

    fn release(&mut self, ready: Vec<Withheld>, unix_ns: u64, now: Now) {
        let mut counted = Vec::new();
        for what in ready {
            match what {
                Withheld::Admitted(node) => counted.push(node),
                Withheld::Answer(reply, Waiting::Left(left)) => answer(reply, Answer::Left(left)),
                Withheld::Answer(reply, Waiting::Submitted { taken, parts }) => {
                    self.answer_submitted(reply, taken, parts, unix_ns);
                }
                Withheld::Submitted(key, outcomes, parts) => {
                    self.answer_submitted_outside(key, outcomes, parts);
                }
                Withheld::Flood(record, except) => self.flood(&record, except),
                Withheld::Frame(key, frame) => self.sessions.send(key, frame),
                Withheld::Outside(key, frames) => self.answer_outside(key, frames),
                Withheld::Rotated(reply) => self.rotated(reply, now),
            }
        }
        if !counted.is_empty() {
            self.members.stored(&counted);
            self.members_changed(now);
        }
    }
}

/// Answers a program that may be gone.
pub(super) fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    if reply.send(answer).is_err() {
        tracing::debug!("nobody waited for the answer");
    }
}

/// Between two tries when the disk refuses.
const RETRY: Duration = Duration::from_secs(1);
