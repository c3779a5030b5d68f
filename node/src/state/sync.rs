//! Keeping the member list in step: sessions of `action=sync`, led by the overlay.

use identity::{
    Code, PublicKey,
    limits::{SYNC_GUEST_MS, SYNC_GUESTS_MAX},
};
use member_crdt::SyncError;
use org_trust::Record;
use overlay::{Direction, Output};

use std::time::{Duration, Instant};

use super::{Now, State, admission::direction};
use crate::sessions::{Cut, Purpose, SessionKey};

/// One session of `action=sync`.
#[derive(Debug, Default)]
pub(super) struct Peer {
    session: member_crdt::Session,
    /// Rounds begun here whose answer is due, and how many of them say nothing about now.
    due: u32,
    old: u32,
    compared: bool,
    /// It is not one of those that this machine keeps in step with: it is brought up to date, and ends
    /// then.
    guest_until: Option<Instant>,
}

impl Peer {
    /// Whether the peer has answered every round that was begun here.
    pub(super) const fn is_answered(&self) -> bool {
        self.session.is_answered()
    }

    pub(super) const fn guest_until(&self) -> Option<Instant> {
        self.guest_until
    }

    /// The peer answered a round; whether one that was begun late enough.
    const fn answered(&mut self) -> bool {
        self.due = self.due.saturating_sub(1);
        if self.old > 0 {
            self.old -= 1;
            return false;
        }
        self.compared = true;
        true
    }
}

impl State {
    /// A frame of a session.
    pub fn on_frame(&mut self, key: SessionKey, frame: &[u8], now: Now) {
        let Some(session) = self.sessions.get(key).filter(|session| !session.is_cut()) else { return };
        let (peer, way) = (session.member, direction(&session.proof));
        let session_purpose = session.purpose;
        self.members.heard(peer, now.at);
        if session_purpose == Purpose::Blob {
            return self.member_asks_for_image(key, frame);
        }
        let Some(sync) = self.sync.get_mut(&key) else { return };
        match sync.session.handle_paced(&mut self.replica, frame, &mut self.paces.at(now.at)) {
            Ok(output) => {
                let compared = output.compared && sync.answered();
                if sync.session.is_asked() {
                    self.overlay.handle_asked(&peer, way);
                }
                for why in output.refused {
                    tracing::debug!(MUSTER_PEER = peer.short(), "a record was not kept: {why}");
                }
                // Enforced first, then told.
                self.took(output.new, Some(key), now);
                for frame in output.send {
                    self.send_sync(key, frame);
                }
                if compared {
                    self.compared_with(peer, now);
                }
                self.round_answered(key, now);
            }
            Err(why) => {
                let (code, reason) = (why.code(), why.to_string());
                tracing::warn!(MUSTER_PEER = peer.short(), MUSTER_CODE = %code, "sync: {reason}");
                let guest = self.sync.remove(&key).is_none_or(|sync| sync.guest_until.is_some());
                self.sessions.cut(key, Cut { code, reason });
                if let SyncError::Record { new, .. } = why {
                    self.took(new, Some(key), now);
                }
                if !guest {
                    self.overlay.handle_session_down(self.ms(now), peer, way);
                }
                self.follow_overlay(now);
            }
        }
    }

    /// Does what the overlay wants done.
    pub(super) fn follow_overlay(&mut self, now: Now) {
        while let Some(output) = self.overlay.poll_output() {
            match output {
                Output::Dial(node) => self.dial(node, Purpose::Sync, None),
                Output::ExchangeTips(node, direction) => {
                    if let Some(key) = self.sync_with(node, direction) {
                        self.begin_round(key);
                    }
                }
                // A member that lost its standing was cut with its code already.
                Output::Cut(node, direction) => self.end_sync(node, direction, Code::SessionReplaced),
                Output::Drop(node, direction) => self.part_with(node, direction, now),
                Output::Refuse(node) => self.part_with(node, Direction::Inbound, now),
            }
        }
        self.dial_first(now);
        self.probe_neighbours(now);
    }

    pub(super) fn sync_began(&mut self, key: SessionKey, peer: PublicKey, way: Direction, now: Now) {
        if let Some(old) = self.sync_with(peer, way) {
            self.sync.remove(&old);
            let reason = Code::SessionReplaced.title().to_owned();
            self.sessions.cut(old, Cut { code: Code::SessionReplaced, reason });
        }
        self.sync.insert(key, Peer::default());
        self.tell_what_it_said(key, &peer);
        self.overlay.handle_session_up(self.ms(now), peer, way);
        self.follow_overlay(now);
        self.say_leaving(key);
        self.heal_with_contact(now);
        // Otherwise the dialler begins, and the other side in its own time.
        if self.wants_comparing() && self.sync.get(&key).is_some_and(|sync| sync.due == 0) {
            self.begin_round(key);
        }
    }

    /// Its disk may be an old copy. It goes on from its newest report, so it hears of that before the
    /// answer to its tips lets it report.
    fn tell_what_it_said(&mut self, key: SessionKey, peer: &PublicKey) {
        let said = self.replica.report_of(peer).map(Record::from);
        if let Some(said) = said {
            self.send_record(&said, vec![key]);
        }
    }

    pub(super) fn sync_ended(&mut self, key: SessionKey, peer: PublicKey, way: Direction, now: Now) {
        // One that was replaced or dropped by our own word is not there any more.
        if self.sync.remove(&key).is_some_and(|sync| sync.guest_until.is_none()) {
            self.overlay.handle_session_down(self.ms(now), peer, way);
        }
        self.follow_overlay(now);
        self.heal_on(now);
    }

    /// Passes a record on at once.
    pub(super) fn flood(&mut self, record: &Record, except: Option<SessionKey>) {
        let kept = self.sync.iter().filter(|(_, sync)| sync.guest_until.is_none());
        let keys: Vec<SessionKey> = kept.map(|(key, _)| *key).filter(|key| Some(*key) != except).collect();
        self.send_record(record, keys);
    }

    /// The same, to those also whose session is about to end.
    pub(super) fn flood_to_all(&mut self, record: &Record, except: Option<SessionKey>) {
        let keys: Vec<SessionKey> = self.sync.keys().copied().filter(|key| Some(*key) != except).collect();
        self.send_record(record, keys);
    }

    fn send_record(&mut self, record: &Record, keys: Vec<SessionKey>) {
        let frame = member_crdt::Session::flood(record);
        for key in keys {
            self.sessions.send(key, frame.clone());
        }
    }

    pub(super) fn begin_round(&mut self, key: SessionKey) {
        if let Some(sync) = self.sync.get_mut(&key) {
            sync.due = sync.due.saturating_add(1);
            let frame = sync.session.open(&self.replica);
            self.send_sync(key, frame);
        }
    }

    /// Begins a round; what is still under way was asked before, and does not say how things are now.
    pub(super) fn compare_anew(&mut self, key: SessionKey) {
        if let Some(sync) = self.sync.get_mut(&key) {
            sync.old = sync.due;
            self.begin_round(key);
        }
    }

    /// A session that is one too many. Before it ends, both sides hear what the other has: for one of
    /// them nobody else may be there.
    pub(super) fn part_with(&mut self, node: PublicKey, way: Direction, now: Now) {
        let Some(key) = self.sync_with(node, way) else { return };
        let guests = self.sync.values().filter(|sync| sync.guest_until.is_some()).count();
        let other = self.sync_with(node, way.other()).is_some();
        match self.sync.get_mut(&key) {
            Some(sync) if !sync.compared && !other && guests < SYNC_GUESTS_MAX => {
                sync.guest_until = Some(now.at + Duration::from_millis(SYNC_GUEST_MS));
                if sync.due == 0 {
                    self.begin_round(key);
                }
            }
            _ => self.end_sync(node, way, if other { Code::SessionReplaced } else { Code::Busy }),
        }
    }

    pub(super) fn end_guests(&mut self, now: Now) {
        let over = |sync: &Peer| sync.guest_until.is_some_and(|until| until <= now.at);
        let over: Vec<SessionKey> =
            self.sync.iter().filter(|(_, sync)| over(sync)).map(|(key, _)| *key).collect();
        for key in over {
            self.sync.remove(&key);
            self.sessions.cut(key, Cut { code: Code::Busy, reason: Code::Busy.title().to_owned() });
        }
    }

    fn end_sync(&mut self, node: PublicKey, way: Direction, code: Code) {
        if let Some(key) = self.sync_with(node, way) {
            self.sync.remove(&key);
            self.sessions.cut(key, Cut { code, reason: code.title().to_owned() });
        }
    }

    /// Ends a session whose peer has a newer one.
    pub(super) fn replace_session(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(key) else { return };
        let (member, way) = (session.member, direction(&session.proof));
        let gate = self.wireguard_with(&session.peer()).filter(|_| session.purpose == Purpose::Link);
        let reason = Code::SessionReplaced.title().to_owned();
        self.sessions.cut(key, Cut { code: Code::SessionReplaced, reason });
        // The last word passes; everything else stops now.
        self.effects.extend(gate.map(super::Effect::CloseGate));
        if self.sync.remove(&key).is_some() {
            self.overlay.handle_session_down(self.ms(now), member, way);
        }
    }

    fn sync_with(&self, node: PublicKey, way: Direction) -> Option<SessionKey> {
        let mut keys = self.sync.keys().rev().copied();
        keys.find(|key| {
            self.sessions.get(*key).is_some_and(|s| s.member == node && direction(&s.proof) == way)
        })
    }
}
