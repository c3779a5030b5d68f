//! What others say of this machine when they refuse it.
//!
//! It is only their word, and decides nothing; but who is revoked may never get the change itself, so
//! people are told. A word is of the moment in which it was said: the peer may since have taken in what
//! this machine has, and then nothing tells that it would answer otherwise now. So it is asked again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use identity::{Code, PublicKey};

use super::{Now, State};
use crate::{sessions::Purpose, standing};

#[derive(Debug, Default)]
pub(super) struct Hearsay {
    said: BTreeMap<PublicKey, Word>,
    /// When the next of them may be asked.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Word {
    code: Code,
    ask_at: Instant,
    /// Something has happened since that it may rest on the lack of.
    doubted: bool,
}

impl Hearsay {
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.said.values().map(|word| word.ask_at).min()?;
        Some(self.next.map_or(first, |next| first.max(next)))
    }

    /// The peer has let this machine in.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.said.remove(peer);
    }

    /// Everybody may see it otherwise from now on.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.said.values_mut().for_each(|word| word.doubt(now));
    }

    /// The peer has taken something in; perhaps what it lacked.
    pub(super) fn doubt_of(&mut self, peer: &PublicKey, now: Instant) {
        if let Some(word) = self.said.get_mut(peer) {
            word.doubt(now);
        }
    }

    /// Who said what, as far as there is no reason to doubt it.
    pub(super) fn words(&self) -> impl Iterator<Item = (&PublicKey, Code)> {
        let shown = self.said.iter().filter(|(_, word)| !word.doubted);
        shown.map(|(peer, word)| (peer, word.code))
    }
}

impl Word {
    fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        self.ask_at = self.ask_at.min(now + SOON);
    }
}

impl State {
    /// A peer refuses this machine, or closes a session with it.
    pub(super) fn shut_out(&mut self, peer: PublicKey, code: Code, now: Now) {
        if shuts_out(code) {
            tracing::warn!(MUSTER_PEER = peer.short(), MUSTER_CODE = %code, "shut out, it says: {}", code.title());
            let word = Word { code, ask_at: now.at + AGAIN, doubted: false };
            self.hearsay.said.insert(peer, word);
        }
    }

    /// Asks one of them again.
    pub(super) fn ask_again(&mut self, now: Now) {
        if self.hearsay.due().is_none_or(|due| due > now.at) {
            return;
        }
        self.hearsay.next = Some(now.at + SOON);
        // Whoever this machine does not serve itself shuts everybody out; and what a machine is told that
        // knows that it is none of the members is no news.
        let (roster, is_member) = (&self.roster, self.is_member());
        let served = |peer: &PublicKey| roster.member_of(peer).is_some_and(standing::is_served);
        self.hearsay.said.retain(|peer, _| is_member && served(peer));
        let first = self.hearsay.said.iter_mut().min_by_key(|(_, word)| word.ask_at);
        let Some((peer, word)) = first else { return };
        let peer = *peer;
        word.ask_at = now.at + AGAIN;
        if self.sessions.live_of(peer).any(|(_, session)| session.purpose == Purpose::Sync) {
            self.hearsay.forget(&peer);
        } else {
            self.dial(peer, Purpose::Sync, None);
        }
    }
}

/// Whether a refusal with this code means that the other side does not take us for a member.
const fn shuts_out(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownKey
            | Code::Revoked
            | Code::Suspended
            | Code::ApprovalPending
            | Code::Left
            | Code::KeyConflict
            | Code::KeyRetired
    )
}

/// After that time a word is asked for again.
const AGAIN: Duration = Duration::from_secs(15);
/// The same when there is reason to; and between two such dials.
const SOON: Duration = Duration::from_secs(1);
