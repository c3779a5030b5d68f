//! New keys for this machine.
//!
//! They are made beside the old ones, the old key signs the change that names them, and nothing is done
//! with them before a gateway has shown that it knows of that change: until then they are nobody's.
//! From then on the daemon runs with them, and the old ones end once a gateway has served the new ones,
//! since by a gateway this machine comes back. What other members say counts where there is no other
//! gateway only: those that know of the new keys may all have been removed without knowing it. Where each
//! step stands is on the disk and in the list, so a start goes on from there.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use control::local::{Answer, Failed, KeySet, Keys as Shown, Rotation as Stage};
use identity::{Code, PublicKey, limits::HEAL_DEADLINE_MS};
use member_crdt::{Applied, Member};
use org_trust::{Lane, Payload, Record, Retire, Rotate, Statement};
use tokio::sync::oneshot;

use super::{Effect, Now, State, disk::Withheld, disk::answer};
use crate::{
    keys::{Beside, KeysDone, KeysOrder, NextKeys},
    sessions::{Purpose, Session, SessionKey},
    standing,
};

#[derive(Debug, Default)]
pub(super) struct Rotation {
    step: Step,
    due: Option<Instant>,
    /// Sessions in which the peer was told of the change, with a round behind it.
    told: BTreeSet<SessionKey>,
    /// Members that have answered such a round.
    heard: BTreeSet<PublicKey>,
    /// So long more than one of them is waited for.
    telling_until: Option<Instant>,
    keep_old: bool,
    /// Who wants new keys.
    reply: Option<oneshot::Sender<Answer>>,
    restart: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    /// The disk or the TPM is at work on an order.
    Ordered(KeysOrder),
    /// The change is taken and not on disk yet.
    Storing,
    /// With the old keys: until a member knows of the new ones.
    Telling,
    /// With the new keys: until a gateway has served them. Since when.
    Proving(Instant),
    /// With the new keys, which lie in the place of the old ones: the old ones are to be ended.
    Ending,
    /// With the new keys; the old ones are kept.
    Kept,
}

impl Rotation {
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    fn at(&mut self, step: Step, due: Option<Instant>) {
        (self.step, self.due) = (step, due);
    }

    const fn stage(&self) -> Stage {
        match self.step {
            Step::Idle => Stage::None,
            Step::Ordered(KeysOrder::Make { .. }) | Step::Storing => Stage::Making,
            Step::Telling | Step::Ordered(KeysOrder::UseNext | KeysOrder::UseOld) => Stage::Telling,
            Step::Proving(_) | Step::Ordered(KeysOrder::Promote) => Stage::Proving,
            Step::Ending => Stage::Ending,
            Step::Kept => Stage::Kept,
        }
    }
}

impl State {
    /// Whether the daemon is to begin anew, with the keys that it then finds.
    #[must_use]
    pub const fn wants_restart(&self) -> bool {
        self.rotation.restart
    }

    /// Where an earlier start left a rotation.
    pub(super) fn resume_rotation(&mut self, beside: Beside, now: Now) {
        self.rotation.keep_old = beside.keep_old;
        let Some(me) = self.roster.get(&self.me) else { return };
        let newest = me.node == self.me;
        let step = match (newest, me.in_use().count() > 1, beside.next) {
            (false, _, true) => Step::Telling,
            (true, true, true) => Step::Proving(now.at),
            (true, true, false) => Step::Ending,
            // Keys that no change names yet, or an old copy of this machine.
            (true, false, _) | (false, _, false) => Step::Idle,
        };
        if step != Step::Idle {
            self.rotation.at(step, Some(now.at));
        }
    }

    /// A program wants new keys for this machine.
    pub(super) fn rotate(&mut self, keep_old: bool, reply: oneshot::Sender<Answer>) {
        let me = self.roster.get(&self.me);
        let refused = match me {
            None => Some(Code::NotEnrolled),
            Some(me) => standing::refusal(&me.state).or_else(|| {
                let under_way = !self.rotation.is_idle() || self.role_key_ordered || me.in_use().count() > 1;
                (under_way || self.leaving.is_some()).then_some(Code::RotationUnderWay)
            }),
        };
        if let Some(code) = refused {
            return answer(reply, Answer::Failed(Failed { code: code.into(), detail: String::new() }));
        }
        self.rotation.keep_old = keep_old;
        self.rotation.reply = Some(reply);
        self.order_keys(KeysOrder::Make { keep_old });
    }

    /// A program ends the keys that were kept.
    pub(super) fn end_kept_keys(&mut self, now: Now) -> Result<Answer, Failed> {
        if self.rotation.step != Step::Kept {
            let detail = "no old keys are kept".to_owned();
            return Err(Failed { code: Code::RotationUnderWay.into(), detail });
        }
        self.rotation.keep_old = false;
        self.rotation.at(Step::Proving(now.at), Some(now.at));
        Ok(Answer::Keys(self.keys_shown()))
    }

    /// An order about keys was carried out, or could not be.
    pub fn on_keys(&mut self, done: Result<KeysDone, Failed>, now: Now) {
        match done {
            Ok(KeysDone::Made(next)) => self.keys_made(&next, now),
            Ok(KeysDone::Done(KeysOrder::UseNext | KeysOrder::UseOld)) => self.rotation.restart = true,
            Ok(KeysDone::Done(_)) => {
                self.rotation.at(Step::Ending, Some(now.at));
                self.rotate_on(now);
            }
            Err(failed) => {
                tracing::warn!(MUSTER_CODE = %failed.code, "keys: {}", failed.detail);
                let step = match self.rotation.step {
                    Step::Ordered(KeysOrder::UseNext) => Step::Telling,
                    Step::Ordered(KeysOrder::UseOld | KeysOrder::Promote) => Step::Proving(now.at),
                    Step::Ordered(KeysOrder::Make { .. })
                    | Step::Idle
                    | Step::Storing
                    | Step::Telling
                    | Step::Proving(_)
                    | Step::Ending
                    | Step::Kept => Step::Idle,
                };
                self.rotation.at(step, (step != Step::Idle).then_some(now.at + RETRY));
                if let Some(reply) = self.rotation.reply.take() {
                    answer(reply, Answer::Failed(failed));
                }
            }
        }
    }

    /// The new keys lie on the disk: the old one names them.
    fn keys_made(&mut self, next: &NextKeys, now: Now) {
        let rotate = Rotate::new(&self.org, self.me, next.keys());
        match self.say_of_keys(&Payload::from(rotate), now) {
            Ok(()) => {
                self.rotation.at(Step::Storing, None);
                if let Some(reply) = self.rotation.reply.take() {
                    self.after_disk(Withheld::Rotated(reply));
                }
                self.write_on(now);
            }
            Err(failed) => {
                self.rotation.at(Step::Idle, None);
                if let Some(reply) = self.rotation.reply.take() {
                    answer(reply, Answer::Failed(failed));
                }
            }
        }
    }

    /// The change that names the new keys is on disk.
    pub(super) fn rotated(&mut self, reply: oneshot::Sender<Answer>, now: Now) {
        tracing::info!("new keys; the other members are told");
        self.rotation.at(Step::Telling, Some(now.at));
        answer(reply, Answer::Keys(self.keys_shown()));
    }

    fn say_of_keys(&mut self, payload: &Payload, now: Now) -> Result<(), Failed> {
        let place = self.replica.next_place(&self.me, Lane::Main);
        let place = place.ok_or_else(|| Failed { code: Code::NotEnrolled.into(), detail: String::new() })?;
        let statement = Statement::sign(&self.org, &self.keys.node, place, payload)
            .map_err(|why| Failed { code: why.code().into(), detail: why.to_string() })?;
        self.is_own();
        for outcome in self.take(&[Record::from(&statement)], now) {
            match outcome {
                Ok(Applied::New { .. } | Applied::Known) => {}
                Ok(Applied::Waiting { .. }) => {
                    return Err(Failed { code: Code::ChangeBroken.into(), detail: String::new() });
                }
                Err(why) => return Err(Failed { code: why.code().into(), detail: why.to_string() }),
            }
        }
        Ok(())
    }

    /// Takes the next step, if its time has come.
    pub(super) fn rotate_on(&mut self, now: Now) {
        if self.rotation.due.is_none_or(|due| due > now.at) {
            return;
        }
        self.rotation.due = Some(now.at + RETRY);
        match self.rotation.step {
            Step::Idle | Step::Storing | Step::Ordered(_) | Step::Kept => self.rotation.due = None,
            Step::Telling if self.count_others() == 0 => self.order_keys(KeysOrder::UseNext),
            Step::Telling => self.tell_new_keys(now),
            Step::Proving(since) => self.prove_new_keys(since, now),
            Step::Ending => self.end_old_keys(now),
        }
    }

    /// Says the change again on every session of sync, and begins a round behind it: its answer proves
    /// that the change was taken in. Also to the gateways and the nearest members without a session: one
    /// that heard it and does not pass it on would leave this machine alone.
    fn tell_new_keys(&mut self, now: Now) {
        let Some(change) = self.roster.member_of(&self.me).map(|me| me.since) else { return };
        let Some(record) = self.replica.statement(&change).map(Record::from) else { return };
        if self.rotation.telling_until.is_none() {
            self.rotation.telling_until = Some(now.at + TELLING);
            for node in self.overlay.nearest(NEW_KEYS_HEARD_BY) {
                self.dial(node, Purpose::Sync, None);
            }
        }
        for gateway in self.other_gateways() {
            if !self.sessions.live_of(gateway).any(|(_, session)| session.purpose == Purpose::Sync) {
                self.dial(gateway, Purpose::Sync, None);
            }
        }
        let keys: Vec<SessionKey> = self.sync.keys().copied().collect();
        for key in keys {
            if self.rotation.told.insert(key) {
                self.sessions.send(key, member_crdt::Session::flood(&record));
                self.begin_round(key);
            }
        }
        self.use_new_keys_if_heard(now);
    }

    /// A peer has answered every round that was begun on a session of sync.
    pub(super) fn new_keys_heard(&mut self, key: SessionKey, now: Now) {
        if self.rotation.step == Step::Telling && self.rotation.told.contains(&key) {
            self.rotation.heard.extend(self.sessions.get(key).map(|session| session.member));
            self.use_new_keys_if_heard(now);
        }
    }

    fn use_new_keys_if_heard(&mut self, now: Now) {
        let heard = &self.rotation.heard;
        let gateways = self.other_gateways();
        let by_gateway =
            !self.has_other_gateway() || heard.iter().any(|peer| gateways.contains(&self.first_of(peer)));
        let is_over = self.rotation.telling_until.is_some_and(|until| until <= now.at);
        let is_enough = heard.len() >= self.count_others().min(NEW_KEYS_HEARD_BY);
        if by_gateway && (is_enough || !heard.is_empty() && is_over) {
            self.order_keys(KeysOrder::UseNext);
        }
    }

    /// Waits until a gateway has accepted the new key, or any member where there is no other gateway.
    fn prove_new_keys(&mut self, since: Instant, now: Now) {
        let (gateways, is_alone) = (self.other_gateways(), !self.has_other_gateway());
        let accepted = |session: &Session| {
            let member = self.roster.member_of(&session.member);
            let wanted = member.is_some_and(|m| is_alone || gateways.contains(&m.first()));
            wanted && !session.is_cut() && matches!(session.purpose, Purpose::Link | Purpose::Sync)
        };
        let served = self.sessions.iter().any(|(_, session)| accepted(session));
        if served || self.count_others() == 0 {
            if self.rotation.keep_old {
                self.rotation.at(Step::Kept, None);
            } else {
                self.order_keys(KeysOrder::Promote);
            }
        } else if now.at >= since + GIVE_UP {
            // Whoever knew of them has lost them, with its disk, or is hostile and keeps them to itself.
            tracing::warn!("no gateway accepts the new keys; the old ones are used, and it is told again");
            self.order_keys(KeysOrder::UseOld);
        } else {
            for gateway in gateways {
                self.dial(gateway, Purpose::Link, None);
            }
        }
    }

    /// The new keys lie alone on the disk: nobody accepts the old ones from now on.
    fn end_old_keys(&mut self, now: Now) {
        let Some(me) = self.roster.get(&self.me) else { return };
        let old = me.in_use().nth(1).map(|keys| keys.node);
        let Some(old) = old else { return self.rotation.at(Step::Idle, None) };
        match self.say_of_keys(&Payload::Retire(Retire { old }), now) {
            Ok(()) => {
                tracing::info!(MUSTER_PEER = old.short(), "the old keys have ended");
                self.rotation.at(Step::Idle, None);
                self.write_on(now);
            }
            Err(failed) => {
                tracing::warn!(MUSTER_CODE = %failed.code, "the old keys are not ended: {}", failed.detail);
            }
        }
    }

    fn order_keys(&mut self, order: KeysOrder) {
        self.rotation.at(Step::Ordered(order), None);
        self.rotation.told.clear();
        self.rotation.heard.clear();
        self.rotation.telling_until = None;
        self.effects.push_back(Effect::Keys(order));
    }

    /// The other members.
    fn count_others(&self) -> usize {
        self.roster.good_or_unsettled().filter(|member| !member.uses(&self.me)).count()
    }

    /// Whether the settings name another gateway, if only one that was revoked: by a thief, it may be.
    fn has_other_gateway(&self) -> bool {
        self.roster.gateways().iter().any(|gateway| !self.is_mine(&gateway.node))
    }

    /// Gateways that are members and not this machine, by first node key.
    fn other_gateways(&self) -> BTreeSet<PublicKey> {
        let members = self.roster.gateways().iter().filter_map(|g| self.roster.member_of(&g.node));
        members.filter(|m| standing::is_served(m) && !m.uses(&self.me)).map(Member::first).collect()
    }

    pub(super) fn keys_shown(&self) -> Shown {
        let Some(me) = self.roster.member_of(&self.me) else {
            return Shown { rotation: Stage::None, keys: Vec::new() };
        };
        let shown = |node, wireguard, boot, change, valid| KeySet {
            node: Into::into(node),
            wireguard: Into::into(wireguard),
            boot: Into::into(boot),
            change: Into::into(change),
            valid,
            used: node == self.me,
        };
        let valid = standing::is_served(me);
        let mut keys = vec![shown(me.node, me.wireguard, me.boot, me.since, valid)];
        let earlier = me.earlier.iter().rev();
        keys.extend(earlier.map(|k| shown(k.node, k.wireguard, k.boot, k.by, valid && !k.retired)));
        Shown { rotation: self.rotation.stage(), keys }
    }
}

/// Between two tries of a step.
const RETRY: Duration = Duration::from_secs(1);
/// So many members are to know of new keys before they are used, as many as a member has neighbours;
const NEW_KEYS_HEARD_BY: usize = 4;
/// one is enough after this time.
const TELLING: Duration = Duration::from_millis(HEAL_DEADLINE_MS);
/// After so long without a gateway that accepts the new keys the old ones are used again.
const GIVE_UP: Duration = Duration::from_secs(60);
