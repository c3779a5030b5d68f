//! Who asks for an image here: one question at a time, answered when the disk has been read, and not at all
//! once the session has lost its standing.

use std::collections::BTreeSet;

use identity::Code;
use org_trust::{BlobReply, BlobRequest};

use super::{Effect, State};
use crate::{
    images::ImagesOrder,
    sessions::{Cut, SessionKey},
};

/// Sessions whose question is with the disk.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeSet<SessionKey>);

impl Questions {
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.0.remove(&key);
    }
}

impl State {
    /// A session asks for an image; false when it has not heard the last answer yet.
    pub(super) fn ask_for_image(&mut self, key: SessionKey, frame: &[u8]) -> bool {
        match BlobRequest::decode(frame) {
            Ok(request) => {
                let is_new = self.images.0.insert(key);
                if is_new {
                    self.effects.push_back(Effect::Images(ImagesOrder::Ask(key, request)));
                }
                is_new
            }
            Err(why) => {
                tracing::debug!(action = BlobRequest::ACTION, "a malformed request: {why}");
                let frames = vec![BlobReply::Refused(Code::RequestMalformed).encode()];
                self.answer_image(key, frames);
                true
            }
        }
    }

    pub(super) fn member_asks_for_image(&mut self, key: SessionKey, frame: &[u8]) {
        if !self.ask_for_image(key, frame) {
            let reason = "it did not wait for the answer".to_owned();
            self.sessions.cut(key, Cut { code: Code::RequestMalformed, reason });
        }
    }

    /// The disk was read for a session, or the thread has too much to do.
    pub fn on_image_read(&mut self, key: SessionKey, frames: Option<Vec<Vec<u8>>>) {
        if self.images.0.remove(&key) {
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
            }
        }
    }
}
