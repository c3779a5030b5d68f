//! Keeping the member list in step: sessions of `action=sync`, led by the overlay.

use identity::{Code, PublicKey};
use member_crdt::SyncError;
use org_trust::Record;
use overlay::{Direction, Output};

use super::{Now, State, admission::direction};
use crate::sessions::{Cut, Purpose, SessionKey};

impl State {
    /// A frame of a session.
    pub fn on_frame(&mut self, key: SessionKey, frame: &[u8], now: Now) {
        let Some(session) = self.sessions.get(key).filter(|session| !session.is_cut()) else { return };
        let (peer, way) = (session.peer(), direction(&session.proof));
        self.members.heard(peer, now.at);
        let Some(sync) = self.sync.get_mut(&key) else { return };
        match sync.handle_paced(&mut self.replica, frame, &mut self.paces.at(now.at)) {
            Ok(output) => {
                for why in output.refused {
                    tracing::debug!(MUSTER_PEER = peer.short(), "a record was not kept: {why}");
                }
                // Enforced first, then told.
                self.took(output.new, Some(key), now);
                for frame in output.send {
                    self.send_sync(key, frame);
                }
            }
            Err(why) => {
                let (code, reason) = (why.code(), why.to_string());
                tracing::warn!(MUSTER_PEER = peer.short(), MUSTER_CODE = %code, "sync: {reason}");
                self.sync.remove(&key);
                self.sessions.cut(key, Cut { code, reason });
                if let SyncError::Record { new, .. } = why {
                    self.took(new, Some(key), now);
                }
                self.overlay.handle_session_down(self.ms(now), peer, way);
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
                Output::Cut(node, direction) | Output::Drop(node, direction) => {
                    self.end_sync(node, direction, Code::SessionReplaced);
                }
                Output::Refuse(node) => self.end_sync(node, Direction::Inbound, Code::Busy),
            }
        }
        self.dial_first(now);
    }

    pub(super) fn sync_began(&mut self, key: SessionKey, peer: PublicKey, way: Direction, now: Now) {
        if let Some(old) = self.sync_with(peer, way) {
            self.sync.remove(&old);
            let reason = Code::SessionReplaced.title().to_owned();
            self.sessions.cut(old, Cut { code: Code::SessionReplaced, reason });
        }
        self.sync.insert(key, member_crdt::Session::new());
        self.overlay.handle_session_up(self.ms(now), peer, way);
        self.follow_overlay(now);
    }

    pub(super) fn sync_ended(&mut self, key: SessionKey, peer: PublicKey, way: Direction, now: Now) {
        // One that was replaced or dropped by our own word is not there any more.
        if self.sync.remove(&key).is_some() {
            self.overlay.handle_session_down(self.ms(now), peer, way);
        }
        self.follow_overlay(now);
    }

    /// Passes a record on at once.
    pub(super) fn flood(&mut self, record: &Record, except: Option<SessionKey>) {
        let frame = member_crdt::Session::flood(record);
        let keys: Vec<SessionKey> = self.sync.keys().filter(|key| Some(**key) != except).copied().collect();
        for key in keys {
            self.sessions.send(key, frame.clone());
        }
    }

    fn begin_round(&mut self, key: SessionKey) {
        if let Some(sync) = self.sync.get_mut(&key) {
            let frame = sync.open(&self.replica);
            self.send_sync(key, frame);
        }
    }

    fn end_sync(&mut self, node: PublicKey, way: Direction, code: Code) {
        if let Some(key) = self.sync_with(node, way) {
            self.sync.remove(&key);
            self.sessions.cut(key, Cut { code, reason: code.title().to_owned() });
        }
    }

    fn sync_with(&self, node: PublicKey, way: Direction) -> Option<SessionKey> {
        let mut keys = self.sync.keys().rev().copied();
        keys.find(|key| {
            self.sessions.get(*key).is_some_and(|s| s.peer() == node && direction(&s.proof) == way)
        })
    }
}
