//! One connection of two parties: two reliable streams over a network that loses, repeats and reorders,
//! and how far each end has come.

use std::collections::{BTreeMap, BTreeSet};

use conn_auth::{Accepted, AwaitChallenge, AwaitProof, AwaitVerdict};
use identity::Code;
use musterd::{
    sessions::{Ends, Purpose, SessionKey},
    state::{Decision, Order},
};
use org_trust::Reply;
use tokio::sync::oneshot;

use crate::{client::Errand, network::Party};

pub(crate) type ConnectionId = u64;
/// The end that dialled, and the end that was dialled.
pub(crate) const DIALLER: usize = 0;
pub(crate) const ACCEPTOR: usize = 1;

/// What travels on a stream, in order.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// One of the four of conn_auth, as bytes.
    Line(Vec<u8>),
    /// A frame of a session.
    Frame(Vec<u8>),
    /// The end of it, and why.
    Close(Option<Code>),
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) ends: [End; 2],
    /// What each end sends.
    pub(crate) streams: [Stream; 2],
    /// The exporter of TLS for a machine outside; none in a tunnel.
    pub(crate) exporter: Option<[u8; 32]>,
    /// How long an end waits for a peer that does not answer.
    pub(crate) patience: u64,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) party: Party,
    pub(crate) is_alive: bool,
    pub(crate) stage: Stage,
    pub(crate) unanswered_since: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// A member that dialled.
    AwaitChallenge(Box<(AwaitChallenge<'static>, Order)>),
    AwaitVerdict(Box<(AwaitVerdict, Order)>),
    /// A member that was dialled.
    AwaitHello,
    AwaitProof(Box<AwaitProof>),
    /// Its state decides; with the echo of what comes.
    AwaitDecision(oneshot::Receiver<Decision>, Purpose),
    Session {
        key: SessionKey,
        ends: Box<Ends>,
        echoes: bool,
    },
    /// Cut by this end, which waits until the other has heard why.
    Flushing(SessionKey),
    /// A gateway's front.
    Front {
        has_begun: bool,
    },
    /// A machine or an admin outside.
    Client(Box<ClientStage>),
    Over,
}

#[derive(Debug)]
pub(crate) enum ClientStage {
    Challenge(AwaitChallenge<'static>, Errand),
    Verdict(AwaitVerdict, Errand),
    Replies(Accepted, Errand, Vec<Reply>),
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    next: u64,
    pub(crate) delivered: u64,
    /// Sent and not delivered in order yet, with the time of sending.
    pub(crate) flying: BTreeMap<u64, (u64, Message)>,
    pub(crate) arrived: BTreeSet<u64>,
}

impl Stream {
    pub(crate) fn push(&mut self, now: u64, message: Message) -> u64 {
        let number = self.next;
        self.next += 1;
        self.flying.insert(number, (now, message));
        number
    }

    pub(crate) fn has_room(&self) -> bool {
        self.flying.len() < WINDOW
    }
}

impl End {
    pub(crate) const fn new(party: Party, stage: Stage) -> Self {
        Self { party, is_alive: true, stage, unanswered_since: None }
    }
}

/// Messages under way before a sender waits, as a socket's buffer makes it.
const WINDOW: usize = 64;
