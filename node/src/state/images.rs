//! Who asks for an image here: one question at a time, answered when the disk has been read, and not at all
//! once the session has lost its standing. Whoever asks nothing, or takes an answer too slowly, loses its
//! place.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use control::{
    local::{Answer, Failed},
    text::Bytes,
};
use identity::{
    Code, PublicKey,
    limits::{
        BLOB_ASKED_MAX, BLOB_PUTS_MAX, BLOB_PUTS_PER_MEMBER_MAX, BLOB_QUIET_MS, BLOB_SESSIONS_MAX,
        BLOB_SESSIONS_PER_MEMBER_MAX,
    },
};
use org_trust::{BlobReply, BlobRequest};

use super::{Effect, Now, State};
use crate::{
    blobs::{Asker, Blobs, KeptBlob},
    images::ImagesOrder,
    sessions::{Cut, Purpose, SessionKey},
    standing,
};

/// Sessions in which machines fetch images, and whose turn it is in each.
#[derive(Debug, Default)]
pub(super) struct Transfers(BTreeMap<SessionKey, Turn>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The disk's, or the answer waits for its way out.
    Here,
    /// The answer has left. From the next look at the clock on it is the machine's.
    Answered,
    /// The machine's, until then.
    Its { until: Instant },
}

impl Transfers {
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.0.remove(&key);
    }

    /// The answer has left.
    pub(super) fn answered(&mut self, key: SessionKey) {
        if let Some(turn) = self.0.get_mut(&key) {
            *turn = Turn::Answered;
        }
    }

    /// When something is to be done about one of them; `at_once` is past.
    pub(super) fn due(&self, at_once: Instant) -> Option<Instant> {
        let due = |turn: &Turn| match turn {
            Turn::Here => None,
            Turn::Answered => Some(at_once),
            Turn::Its { until } => Some(*until),
        };
        self.0.values().filter_map(due).min()
    }

    fn ask(&mut self, key: SessionKey) -> bool {
        let before = self.0.insert(key, Turn::Here);
        matches!(before, Some(Turn::Answered | Turn::Its { .. }))
    }

    fn silent(&mut self, now: Instant) -> Vec<SessionKey> {
        let mut silent = Vec::new();
        for (key, turn) in &mut self.0 {
            match turn {
                Turn::Answered => *turn = Turn::Its { until: now + QUIET },
                Turn::Its { until } if *until <= now => silent.push(*key),
                Turn::Its { .. } | Turn::Here => {}
            }
        }
        for key in &silent {
            self.0.remove(key);
        }
        silent
    }
}

impl State {
    /// What a program wants to ask which member.
    pub(super) fn asked_for(
        &self,
        node: &str,
        questions: &[Bytes],
    ) -> Result<(PublicKey, Vec<BlobRequest>), Failed> {
        let malformed = |detail: String| Failed { code: Code::RequestMalformed.into(), detail };
        if questions.len() > BLOB_ASKED_MAX {
            return Err(malformed(format!("{} questions", questions.len())));
        }
        let questions = questions.iter().map(|frame| BlobRequest::decode(&frame.0));
        let questions = questions.collect::<Result<_, _>>().map_err(|why| malformed(why.to_string()))?;
        Ok((self.find(node)?.node, questions))
    }

    /// Whether this machine has room for one more that fetches.
    pub(super) fn may_fetch(&self, member: &PublicKey) -> bool {
        let sessions = || self.images.0.keys().filter_map(|key| self.sessions.get(*key));
        let of_it = sessions().filter(|session| session.member == *member).count();
        sessions().count() < BLOB_SESSIONS_MAX && of_it < BLOB_SESSIONS_PER_MEMBER_MAX
    }

    /// Files of members are kept here.
    pub fn on_blobs(&mut self, blobs: Option<Arc<Blobs>>) {
        self.blobs = blobs;
    }

    /// Whether there is room for one more that puts, or that is put from here.
    pub(super) fn may_put(&self, member: &PublicKey) -> bool {
        let puts = || self.sessions.iter().filter(|(_, session)| session.purpose == Purpose::Put);
        let of_it = puts().filter(|(_, session)| session.member == *member).count();
        puts().count() < BLOB_PUTS_MAX && of_it < BLOB_PUTS_PER_MEMBER_MAX
    }

    /// Who asks in a session, if it is a member: a machine that boots gets images only.
    fn asker(&self, key: SessionKey) -> Option<Asker> {
        let session = self.sessions.get(key).filter(|session| session.purpose == Purpose::Blob)?;
        let permitted = standing::permits(&self.roster, &session.peer(), &self.me, BlobRequest::ACTION);
        Some(Asker { member: session.member, permitted })
    }

    /// What is kept here, and for whom.
    pub(super) fn blobs_kept(&self) -> Answer {
        let Some(blobs) = &self.blobs else { return Answer::Blobs(Box::default()) };
        let (room, used) = blobs.room();
        let kept = |blob: KeptBlob| control::local::KeptBlob {
            hash: blob.file.to_string(),
            bytes: blob.bytes,
            whole: blob.is_whole,
            by: blob.of.iter().map(|key| self.name_of(key)).collect(),
        };
        let files = blobs.list().into_iter().map(kept).collect();
        Answer::Blobs(Box::new(control::local::Blobs { max: room.max, member: room.member, used, files }))
    }

    /// A session of `blob-get` was opened by its dialler, who asks.
    pub(super) fn transfer_began(&mut self, key: SessionKey, now: Now) {
        self.images.0.insert(key, Turn::Its { until: now.at + QUIET });
    }

    /// A session asks for an image; false when it has not heard the last answer yet.
    pub(super) fn ask_for_image(&mut self, key: SessionKey, frame: &[u8]) -> bool {
        if !self.images.ask(key) {
            return false;
        }
        match BlobRequest::decode(frame) {
            Ok(request) => {
                self.effects.push_back(Effect::Images(ImagesOrder::Ask(key, request, self.asker(key))))
            }
            Err(why) => {
                tracing::debug!(action = BlobRequest::ACTION, "a malformed request: {why}");
                self.answer_image(key, vec![BlobReply::Refused(Code::RequestMalformed).encode()]);
            }
        }
        true
    }

    pub(super) fn member_asks_for_image(&mut self, key: SessionKey, frame: &[u8]) {
        if !self.ask_for_image(key, frame) {
            let reason = "it did not wait for the answer".to_owned();
            self.sessions.cut(key, Cut { code: Code::RequestMalformed, reason });
        }
    }

    /// The disk was read for a session, or the thread has too much to do.
    pub fn on_image_read(&mut self, key: SessionKey, frames: Option<Vec<Vec<u8>>>) {
        if self.images.0.get(&key) == Some(&Turn::Here) {
            let frames = frames.unwrap_or_else(|| vec![BlobReply::Refused(Code::Busy).encode()]);
            self.answer_image(key, frames);
        }
    }

    fn answer_image(&mut self, key: SessionKey, frames: Vec<Vec<u8>>) {
        match self.sessions.get(key).map(|session| session.gateway().is_some()) {
            // It was cut meanwhile: not a byte more.
            None => {}
            Some(true) => self.answer_paced(key, frames, false),
            Some(false) => {
                for frame in frames {
                    self.sessions.send(key, frame);
                }
                self.images.answered(key);
            }
        }
    }

    /// Ends the sessions whose machine has had its time.
    pub(super) fn end_silent_transfers(&mut self, now: Now) {
        self.images.0.retain(|key, _| self.sessions.get(*key).is_some());
        for key in self.images.silent(now.at) {
            let reason = "it asked for nothing more in time".to_owned();
            self.outside.forget(key);
            self.sessions.cut(key, Cut { code: Code::TransferSilent, reason });
        }
    }
}

const QUIET: Duration = Duration::from_millis(BLOB_QUIET_MS);
