//! Word that has to be heard before this machine goes.
//!
//! A machine that a change takes out of the org is served by nobody who knows of it, and serves nobody
//! itself. If it ended its sessions at once, the change might be known here alone, for good. So its
//! sessions of sync stay, and nothing else does, until the member at the other end of each has shown
//! that it has the change, or the time for that is over. Only then is the change acknowledged. A machine
//! that leaves says so first, and takes its own word in once somebody has heard it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use control::local::{Answer, Failed, Left, Submitted, Taken};
use identity::{Code, PublicKey, limits::PARTING_MS};
use org_trust::{Lane, Outcome, Payload, Record, Reply, Statement, UnverifiedStatement};
use tokio::sync::oneshot;

use super::{
    Now, State,
    disk::{Waiting, Withheld, answer},
};
use crate::sessions::{Purpose, Session, SessionKey};

/// Something that was said on sessions of sync, with a round behind it.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Where it was said, and nothing has shown yet that it was taken in.
    open: BTreeSet<SessionKey>,
    heard: BTreeSet<PublicKey>,
}

impl Telling {
    fn is_heard(&self) -> bool {
        !self.heard.is_empty()
    }
}

/// Whether this machine is on its way out of the org.
#[derive(Debug, Default)]
pub(super) enum Parting {
    /// It is a member.
    #[default]
    Not,
    /// It is none any more, and its neighbours are told of the change that says so.
    Telling(Farewell),
    /// It is none, and all is said.
    Over {
        /// How many members have shown that they have the change.
        heard: usize,
    },
}

#[derive(Debug)]
pub(super) struct Farewell {
    telling: Telling,
    until: Instant,
    /// On disk here; answered when this is over.
    answers: Vec<Held>,
}

#[derive(Debug)]
enum Held {
    Program(oneshot::Sender<Answer>, Vec<Taken>, u64),
    Outside(SessionKey, Vec<Outcome>),
}

impl Parting {
    pub(super) const fn is_telling(&self) -> bool {
        matches!(self, Self::Telling(_))
    }

    /// Whether this machine goes on with a session while it tells: its neighbours are to answer, and
    /// whoever handed the change in waits to hear what became of it.
    pub(super) fn keeps(&self, session: &Session) -> bool {
        self.is_telling() && matches!(session.purpose, Purpose::Sync | Purpose::Outside("submit"))
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        match self {
            Self::Telling(farewell) => Some(farewell.until),
            Self::Not | Self::Over { .. } => None,
        }
    }
}

/// This machine has said that it leaves, and waits to be heard.
#[derive(Debug)]
pub(super) struct Leaving {
    record: Record,
    left: Left,
    telling: Telling,
    /// Everybody who asked for it.
    replies: Vec<oneshot::Sender<Answer>>,
    pub(super) until: Instant,
}

impl State {
    /// The list has changed: whether this machine goes, or is back.
    pub(super) fn part_or_stay(&mut self, now: Now) {
        match (&self.parting, self.may_be_member()) {
            (Parting::Not, false) if self.sync.is_empty() => self.parting = Parting::Over { heard: 0 },
            (Parting::Not, false) => {
                let until = now.at + PARTING;
                let farewell = Farewell { telling: Telling::default(), until, answers: Vec::new() };
                self.parting = Parting::Telling(farewell);
            }
            (Parting::Telling(_) | Parting::Over { .. }, true) => {
                let parting = std::mem::take(&mut self.parting);
                if let Parting::Telling(Farewell { answers, .. }) = parting {
                    for held in answers {
                        self.answer_held(held, None);
                    }
                }
            }
            (Parting::Not, true) | (Parting::Telling(_) | Parting::Over { .. }, false) => {}
        }
    }

    /// Says everything that was just taken in, whatever the disk does, and begins a round behind it. What
    /// takes this machine out comes last: whoever has taken that in listens to it no more.
    pub(super) fn say_farewell(&mut self, mut records: Vec<Record>, from: Option<SessionKey>) {
        records.sort_by_key(|record| self.finality(record));
        for record in &records {
            self.flood_to_all(record, from);
        }
        if records.iter().all(|record| matches!(record, Record::Report(_))) {
            return;
        }
        let keys: Vec<SessionKey> = self.sync.keys().copied().collect();
        for key in keys {
            self.begin_round(key);
            if let Parting::Telling(Farewell { telling, .. }) = &mut self.parting {
                telling.open.insert(key);
            }
        }
    }

    fn finality(&self, record: &Record) -> u8 {
        let Record::Statement(bytes) = record else { return 1 };
        let Ok(statement) = UnverifiedStatement::decode(bytes) else { return 0 };
        let payload = statement.claimed().payload();
        if let Payload::Revoke(revoke) = payload
            && self.is_mine(&revoke.node)
        {
            3
        } else if let Payload::Suspend(suspend) = payload
            && self.is_mine(&suspend.node)
        {
            2
        } else {
            u8::from(matches!(payload, Payload::Cancel(_)))
        }
    }

    /// Whether somebody else has signed a record: it may be told before it is on disk here.
    pub(super) fn is_foreign(&self, record: &Record) -> bool {
        let Record::Statement(bytes) = record else { return matches!(record, Record::Charter(_)) };
        let own = |author: &PublicKey| {
            self.is_mine(author) || self.role_key().is_some_and(|key| key.public() == *author)
        };
        UnverifiedStatement::decode(bytes).is_ok_and(|statement| !own(statement.claimed().author()))
    }

    /// Something was said on a session of sync, with a round behind it, and the peer has answered that.
    pub(super) fn round_answered(&mut self, key: SessionKey, now: Now) {
        if self.sync.get(&key).is_some_and(|peer| peer.is_answered()) {
            self.was_heard(key, now);
            self.new_keys_heard(key, now);
        }
    }

    /// A peer closes a session because this machine is none of its members: it has the change that says
    /// so, if that is what the list here says, too.
    pub(super) fn closed_for(&mut self, key: SessionKey, code: Code, now: Now) {
        let expected = if self.leaving.is_some() { Some(Code::Left) } else { self.own_refusal() };
        if expected == Some(code) {
            self.was_heard(key, now);
        }
    }

    fn was_heard(&mut self, key: SessionKey, now: Now) {
        let Some(member) = self.sessions.get(key).map(|session| session.member) else { return };
        for telling in self.tellings() {
            if telling.open.remove(&key) {
                telling.heard.insert(member);
            }
        }
        self.part_on(now);
    }

    /// A session has ended: nobody will answer on it.
    pub(super) fn nobody_answers(&mut self, key: SessionKey, now: Now) {
        for telling in self.tellings() {
            telling.open.remove(&key);
        }
        self.part_on(now);
    }

    fn tellings(&mut self) -> impl Iterator<Item = &mut Telling> {
        let leaving = self.leaving.as_mut().map(|leaving| &mut leaving.telling);
        let parting = match &mut self.parting {
            Parting::Telling(farewell) => Some(&mut farewell.telling),
            Parting::Not | Parting::Over { .. } => None,
        };
        leaving.into_iter().chain(parting)
    }

    /// Goes, once everybody has heard that can, or the time for that is over.
    pub(super) fn part_on(&mut self, now: Now) {
        self.leave_on(now);
        let Parting::Telling(Farewell { telling, until, .. }) = &self.parting else { return };
        // A program that handed the change in is answered from the disk.
        if !telling.open.is_empty() && *until > now.at {
            return;
        }
        let heard = telling.heard.len();
        tracing::info!(heard, "no member any more");
        let parting = std::mem::replace(&mut self.parting, Parting::Over { heard });
        if let Parting::Telling(Farewell { answers, .. }) = parting {
            for held in answers {
                self.answer_held(held, Some(heard));
            }
        }
        self.members_changed(now);
    }

    /// Records that were handed in are on disk: this is answered, now or when the others have heard.
    pub(super) fn answer_submitted(
        &mut self,
        reply: oneshot::Sender<Answer>,
        taken: Vec<Taken>,
        parts: bool,
        unix_ns: u64,
    ) {
        self.hold(Held::Program(reply, taken, unix_ns), parts);
    }

    /// The same for an admin at the gateway.
    pub(super) fn answer_submitted_outside(&mut self, key: SessionKey, outcomes: Vec<Outcome>, parts: bool) {
        self.hold(Held::Outside(key, outcomes), parts);
    }

    fn hold(&mut self, held: Held, parts: bool) {
        match &mut self.parting {
            Parting::Telling(farewell) => farewell.answers.push(held),
            Parting::Over { heard } => {
                let heard = if parts { *heard } else { 0 };
                self.answer_held(held, Some(heard));
            }
            Parting::Not => self.answer_held(held, None),
        }
    }

    /// `heard`: by how many, where this machine goes.
    fn answer_held(&mut self, held: Held, heard: Option<usize>) {
        let others = self.roster.good_or_unsettled().filter(|member| !member.uses(&self.me)).count();
        let unheard = heard == Some(0) && others > 0;
        match held {
            Held::Program(reply, _, _) if unheard => {
                let detail = "stored on this machine, which is no member any more: it can tell nobody";
                let failed = Failed { code: Code::ChangeUnheard.into(), detail: detail.to_owned() };
                answer(reply, Answer::Failed(failed));
            }
            Held::Program(reply, records, fsync_unix_ns) => {
                let told = heard.unwrap_or_else(|| self.told_now());
                let (told, others) = (count(told), count(others));
                let removed = heard.is_some();
                answer(reply, Answer::Submitted(Submitted { records, fsync_unix_ns, told, others, removed }));
            }
            Held::Outside(key, _) if unheard => self.refuse_outside(key, Code::ChangeUnheard),
            Held::Outside(key, outcomes) => {
                let told = heard.unwrap_or_else(|| self.told_now());
                let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
                let (told, others) = (number(told), number(others));
                let reply = Reply::Submitted(org_trust::Submitted { outcomes, told, others });
                self.answer_outside(key, vec![reply.encode()]);
            }
        }
    }

    /// Members that what is taken in here is passed on to at once.
    fn told_now(&self) -> usize {
        let open = |key: &&SessionKey| self.sessions.get(**key).is_some_and(|session| !session.is_cut());
        let members = self.sync.keys().filter(open).filter_map(|key| self.sessions.get(*key));
        members.map(|session| session.member).collect::<BTreeSet<_>>().len()
    }

    /// This machine leaves. The others are told first: once it has left they listen to it no more. The
    /// Leave of a key is always the same bytes, so it may be heard of before it is on disk.
    pub(super) fn leave(&mut self, reply: oneshot::Sender<Answer>, now: Now) {
        if let Some(leaving) = &mut self.leaving {
            return leaving.replies.push(reply);
        }
        let place = self.replica.next_place(&self.me, Lane::Main).filter(|_| self.may_be_member());
        let signed = place.map(|place| Statement::sign(&self.org, &self.keys.node, place, &Payload::Leave));
        let statement = match signed {
            Some(Ok(statement)) => statement,
            Some(Err(why)) => {
                let failed = Failed { code: why.code().into(), detail: why.to_string() };
                return answer(reply, Answer::Failed(failed));
            }
            None => {
                let failed = Failed { code: Code::NotEnrolled.into(), detail: String::new() };
                return answer(reply, Answer::Failed(failed));
            }
        };
        // Whoever says that this machine has left has heard it in an earlier try.
        let says_so = self.hearsay.words().filter(|(_, code)| *code == Code::Left);
        let telling = Telling { open: BTreeSet::new(), heard: says_so.map(|(peer, _)| *peer).collect() };
        let left = Left { change: statement.id().into(), told: 0 };
        let (record, until) = (Record::from(&statement), now.at + PARTING);
        self.leaving = Some(Leaving { record, left, telling, replies: vec![reply], until });
        let keys: Vec<SessionKey> = self.sync.keys().copied().collect();
        for key in keys {
            self.say_leaving(key);
        }
        self.leave_on(now);
    }

    /// Says on a session of sync that this machine leaves, if it does.
    pub(super) fn say_leaving(&mut self, key: SessionKey) {
        let Some(leaving) = &mut self.leaving else { return };
        leaving.telling.open.insert(key);
        self.sessions.send(key, member_crdt::Session::flood(&leaving.record));
        self.begin_round(key);
    }

    fn leave_on(&mut self, now: Now) {
        let alone = self.roster.good_or_unsettled().all(|member| member.uses(&self.me));
        let over = |leaving: &mut Leaving| {
            let all_heard = leaving.telling.open.is_empty() && leaving.telling.is_heard();
            all_heard || alone || leaving.until <= now.at
        };
        let Some(leaving) = self.leaving.take_if(over) else { return };
        let fail = |replies: Vec<oneshot::Sender<Answer>>, code: Code, detail: String| {
            for reply in replies {
                answer(reply, Answer::Failed(Failed { code: code.into(), detail: detail.clone() }));
            }
        };
        if !leaving.telling.is_heard() && !alone {
            // Taken in now, it would never be heard: nobody listens to a machine that has left.
            return fail(leaving.replies, Code::LeaveUnheard, String::new());
        }
        for outcome in self.take(&[leaving.record], now) {
            if let Err(why) = outcome {
                return fail(leaving.replies, why.code(), why.to_string());
            }
        }
        let left = Left { told: count(leaving.telling.heard.len()), ..leaving.left };
        for reply in leaving.replies {
            self.after_disk(Withheld::Answer(reply, Waiting::Left(left.clone())));
        }
        self.write_on(now);
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// So long this machine waits to be heard.
const PARTING: Duration = Duration::from_millis(PARTING_MS);
