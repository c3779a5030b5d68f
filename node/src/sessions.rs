//! Every session of this machine, under the identity that was proved for it.
//!
//! A session is registered first and judged after that, and every change to the member list judges
//! all of them again, so a revocation that races with a handshake wins. A session that is cut is
//! told why within its flush time and carries nothing else from that moment on.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use conn_auth::{Accepted, Admitted, Holder, Reference, Refusal, ServiceName, Standing};
use control::gateway::{ConnectionId, ToGateway};
use identity::{Code, PublicKey, SessionId, limits::SYNC_QUEUE_FRAMES_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::state::Socket;

/// One session here; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(u64);

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Fetches an image.
    Blob,
    /// Brings a file to be kept.
    Put,
    /// Opens the gate of the tunnel as long as it lives.
    Link,
    /// Measures.
    Ping,
    /// Carries a program's bytes.
    Service(ServiceName),
    /// Keeps the member list in step.
    Sync,
    /// A machine at the gateway: one request and its answer.
    Outside(&'static str),
}

impl Purpose {
    /// Of an action between members.
    #[must_use]
    pub fn of(action: &str) -> Option<Self> {
        match action {
            "blob-get" => Some(Self::Blob),
            "blob-put" => Some(Self::Put),
            "link" => Some(Self::Link),
            "ping" => Some(Self::Ping),
            "sync" => Some(Self::Sync),
            other => ServiceName::parse(other).map(Self::Service),
        }
    }

    /// Whether the org's policy says who may.
    #[must_use]
    pub const fn is_permitted(&self) -> bool {
        match self {
            Self::Put | Self::Service(_) => true,
            Self::Blob | Self::Link | Self::Ping | Self::Sync | Self::Outside(_) => false,
        }
    }

    /// The name of its action.
    #[must_use]
    pub fn action(&self) -> &str {
        match self {
            Self::Blob => "blob-get",
            Self::Put => "blob-put",
            Self::Link => "link",
            Self::Ping => "ping",
            Self::Service(name) => name.as_str(),
            Self::Sync => "sync",
            Self::Outside(action) => action,
        }
    }
}

/// How the peer's key was proved.
#[derive(Debug)]
pub enum Proof {
    /// It dialled.
    Admitted(Box<Admitted>),
    /// We dialled.
    Accepted(Box<Accepted>),
}

impl Proof {
    /// The proved key.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        match self {
            Self::Admitted(admitted) => admitted.peer(),
            Self::Accepted(accepted) => accepted.server(),
        }
    }

    /// The session's name in both logs.
    #[must_use]
    pub fn session(&self) -> SessionId {
        match self {
            Self::Admitted(admitted) => admitted.session(),
            Self::Accepted(accepted) => accepted.session(),
        }
    }

    /// Asks of the same proof what the member list says by now.
    ///
    /// # Errors
    /// [`Refusal`]; the session ends.
    pub fn judge(&self, standing: Standing) -> Result<(), Refusal> {
        match (self, standing) {
            (Self::Admitted(admitted), standing) => admitted.recheck(standing),
            (Self::Accepted(_), Standing::Good(Holder::Member) | Standing::Permitted) => Ok(()),
            (Self::Accepted(_), Standing::Barred(code)) => Err(Refusal { code }),
            (Self::Accepted(_), Standing::Good(Holder::BootKey | Holder::Admin) | Standing::Unknown) => {
                Err(Refusal { code: Code::UnknownKey })
            }
        }
    }
}

/// Why a session was ended by this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The code.
    pub code: Code,
    /// For people.
    pub reason: String,
}

/// Where a session's bytes go.
#[derive(Debug)]
pub enum Line {
    /// To the task that moves them.
    Task {
        /// Frames to send.
        frames: mpsc::Sender<Vec<u8>>,
        /// Tells it to end; gone once used.
        cut: Option<oneshot::Sender<Cut>>,
    },
    /// To a gateway.
    Gateway {
        /// The gateway's number for the connection.
        id: ConnectionId,
        /// Its socket.
        socket: Socket,
    },
}

/// The ends that the task of a session holds.
#[derive(Debug)]
pub struct Ends {
    /// Frames to send.
    pub frames: mpsc::Receiver<Vec<u8>>,
    /// Tells it to end, and why; in good order where the other end is dropped.
    pub cut: oneshot::Receiver<Cut>,
}

impl Line {
    /// A line to a task, and the task's ends of it.
    #[must_use]
    pub fn to_task() -> (Self, Ends) {
        let (frames, received) = mpsc::channel(SYNC_QUEUE_FRAMES_MAX);
        let (cut, is_cut) = oneshot::channel();
        (Self::Task { frames, cut: Some(cut) }, Ends { frames: received, cut: is_cut })
    }
}

/// A registered session.
#[derive(Debug)]
pub struct Session {
    /// How its peer was proved.
    pub proof: Proof,
    /// What it is for.
    pub purpose: Purpose,
    /// The acceptor's name for the handshake.
    pub reference: Reference,
    /// Since when.
    pub since: Instant,
    /// Whose it is across rotations of keys: the machine's first node key, or else the proved key.
    pub member: PublicKey,
    /// Where the program behind a service sees this session come from.
    pub seen_at: Option<SocketAddr>,
    line: Line,
}

impl Session {
    /// A session over `line`.
    #[must_use]
    pub fn new(proof: Proof, purpose: Purpose, reference: Reference, since: Instant, line: Line) -> Self {
        let member = proof.peer();
        Self { proof, purpose, reference, since, member, seen_at: None, line }
    }

    /// The same, of the machine with this first node key.
    #[must_use]
    pub fn of(self, member: PublicKey) -> Self {
        Self { member, ..self }
    }

    /// The proved key.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        self.proof.peer()
    }

    /// Whether it was told to end already.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self.line, Line::Task { cut: None, .. })
    }

    /// The gateway's number for it and the gateway's socket, if it runs over one.
    #[must_use]
    pub const fn gateway(&self) -> Option<(ConnectionId, &Socket)> {
        match &self.line {
            Line::Gateway { id, socket } => Some((*id, socket)),
            Line::Task { .. } => None,
        }
    }
}

/// The registry.
#[derive(Debug, Default)]
pub struct Sessions {
    next: u64,
    sessions: BTreeMap<SessionKey, Session>,
}

/// A session that a re-check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub key: SessionKey,
    /// The proved key.
    pub peer: PublicKey,
    /// Whose it was, as in [`Session::member`].
    pub member: PublicKey,
    /// What it was for.
    pub purpose: Purpose,
    /// Its reference.
    pub reference: Reference,
    /// Why.
    pub cut: Cut,
}

impl Sessions {
    /// Adds a session. Judge it after this, not before.
    pub fn register(&mut self, session: Session) -> SessionKey {
        let key = SessionKey(self.next);
        self.next = self.next.saturating_add(1);
        self.sessions.insert(key, session);
        key
    }

    /// Judges one session.
    ///
    /// # Errors
    /// [`Refusal`]; it is no longer registered.
    pub fn judge(&mut self, key: SessionKey, standing: Standing) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&key) else { return Ok(()) };
        let judged = session.proof.judge(standing);
        if judged.is_err() {
            self.sessions.remove(&key);
        }
        judged
    }

    /// Judges every session and cuts those that may not go on; `reason` words it for people.
    pub fn recheck(
        &mut self,
        standing: impl Fn(&Session) -> Standing,
        reason: impl Fn(&PublicKey, Code) -> String,
    ) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (&key, session) in self.sessions.iter().filter(|(_, session)| !session.is_cut()) {
            let peer = session.peer();
            if let Err(Refusal { code }) = session.proof.judge(standing(session)) {
                let cut = Cut { code, reason: reason(&peer, code) };
                let (purpose, reference) = (session.purpose, session.reference);
                lost.push(Lost { key, peer, member: session.member, purpose, reference, cut });
            }
        }
        for one in &lost {
            self.cut(one.key, one.cut.clone());
        }
        lost
    }

    /// Ends a session with a reason. It stays registered, and carries nothing, until its task is done.
    pub fn cut(&mut self, key: SessionKey, why: Cut) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        match &mut session.line {
            Line::Task { cut, .. } => {
                // A task that is gone has said so already.
                let _gone = cut.take().map(|cut| cut.send(why));
            }
            Line::Gateway { id, socket } => {
                socket.tell(ToGateway::Cut { id: *id, code: Some(why.code.into()), reason: why.reason });
                self.sessions.remove(&key);
            }
        }
    }

    /// Ends a session in good order: at a gateway after what was sent before, else at once.
    pub fn finish(&mut self, key: SessionKey) {
        if let Some(Session { line: Line::Task { cut, .. }, .. }) = self.sessions.get_mut(&key) {
            // The task sees that there is nobody left to cut it.
            return drop(cut.take());
        }
        if let Some(Session { line: Line::Gateway { id, socket }, .. }) = self.sessions.remove(&key) {
            socket.tell(ToGateway::Cut { id, code: None, reason: String::new() });
        }
    }

    /// Queues a frame. A peer that does not read is cut.
    pub fn send(&mut self, key: SessionKey, frame: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| !session.is_cut()) else { return };
        let queued = match &session.line {
            Line::Task { frames, .. } => frames.try_send(frame).is_ok(),
            Line::Gateway { id, socket } => {
                socket.tell(ToGateway::Data { id: *id, frame: frame.into() });
                true
            }
        };
        if !queued {
            self.cut(key, Cut { code: Code::Busy, reason: "too slow to keep up".to_owned() });
        }
    }

    /// The session's task is done, or its connection is gone.
    pub fn ended(&mut self, key: SessionKey) -> Option<Session> {
        self.sessions.remove(&key)
    }

    /// A session.
    #[must_use]
    pub fn get(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(&key)
    }

    /// The program behind a service sees this session come from there.
    pub fn seen(&mut self, key: SessionKey, at: SocketAddr) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.seen_at = Some(at);
        }
    }

    /// Those of programs that were not told to end.
    pub fn of_services(&self) -> impl Iterator<Item = (SessionKey, ServiceName, &Session)> {
        self.iter().filter(|(_, session)| !session.is_cut()).filter_map(|(key, session)| {
            match session.purpose {
                Purpose::Service(name) => Some((key, name, session)),
                Purpose::Blob
                | Purpose::Put
                | Purpose::Link
                | Purpose::Ping
                | Purpose::Sync
                | Purpose::Outside(_) => None,
            }
        })
    }

    /// All, in the order in which they were registered.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.sessions.iter().map(|(&key, session)| (key, session))
    }

    /// Those of one machine, under whichever of its keys, that were not told to end.
    pub fn live_of(&self, member: PublicKey) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.iter().filter(move |(_, session)| session.member == member && !session.is_cut())
    }

    /// Whether a link with this member is up.
    #[must_use]
    pub fn is_linked(&self, member: PublicKey) -> bool {
        self.live_of(member).any(|(_, session)| session.purpose == Purpose::Link)
    }

    /// Whether one is up that this key of the member's was proved for.
    #[must_use]
    pub fn is_linked_by(&self, member: PublicKey, proved: PublicKey) -> bool {
        self.live_of(member).any(|(_, session)| session.purpose == Purpose::Link && session.peer() == proved)
    }

    /// Whether any session of this machine is registered, also one that is being told to end.
    #[must_use]
    pub fn has_any(&self, member: PublicKey) -> bool {
        self.sessions.values().any(|session| session.member == member)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use conn_auth::{Accept, Action, Binding, Dial, To};
    use identity::{Heads, OrgId, SecretKey, WireGuardKey};

    use super::*;

    #[test]
    fn a_change_that_revokes_cuts_every_session_of_the_member_and_no_other() {
        let mut sessions = Sessions::default();
        let (stays, _stays) = linked(&mut sessions, 1);
        let (goes, mut gone) = linked(&mut sessions, 2);
        let revoked = SecretKey::from_seed(&[2; 32]).public();
        let standing = |session: &Session| {
            if session.peer() == revoked {
                Standing::Barred(Code::Revoked)
            } else {
                Standing::Good(Holder::Member)
            }
        };
        let lost = sessions.recheck(standing, |_, _| "by ada".to_owned());
        assert_eq!(lost.iter().map(|lost| lost.key).collect::<Vec<_>>(), [goes]);
        assert_eq!(gone.cut.try_recv().unwrap(), Cut { code: Code::Revoked, reason: "by ada".to_owned() });
        assert!(!sessions.is_linked(revoked), "its gate closes at once");
        assert!(sessions.has_any(revoked), "its tunnel stays until the reason is told");
        sessions.send(goes, vec![1]);
        assert!(gone.frames.try_recv().is_err(), "nothing else is sent to it");
        assert!(sessions.recheck(standing, |_, _| String::new()).is_empty(), "nobody is cut twice");
        assert!(sessions.ended(goes).is_some() && sessions.get(stays).is_some());
    }

    #[test]
    fn a_revocation_that_races_with_the_handshake_wins() {
        let mut sessions = Sessions::default();
        let (key, _ends) = linked(&mut sessions, 3);
        assert_eq!(
            sessions.judge(key, Standing::Barred(Code::Revoked)),
            Err(Refusal { code: Code::Revoked })
        );
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_server_that_is_no_member_is_not_one_because_it_was_dialled() {
        let accepted = handshake(4).1;
        let proof = Proof::Accepted(Box::new(accepted));
        assert_eq!(proof.judge(Standing::Unknown), Err(Refusal { code: Code::UnknownKey }));
        assert_eq!(proof.judge(Standing::Good(Holder::BootKey)), Err(Refusal { code: Code::UnknownKey }));
        assert_eq!(proof.judge(Standing::Barred(Code::Left)), Err(Refusal { code: Code::Left }));
        assert_eq!(proof.judge(Standing::Good(Holder::Member)), Ok(()));
    }

    #[test]
    fn a_peer_that_does_not_read_is_cut() {
        let mut sessions = Sessions::default();
        let (key, mut ends) = linked(&mut sessions, 5);
        for _ in 0..=SYNC_QUEUE_FRAMES_MAX {
            sessions.send(key, vec![0]);
        }
        assert_eq!(ends.cut.try_recv().unwrap().code, Code::Busy);
    }

    fn linked(sessions: &mut Sessions, seed: u8) -> (SessionKey, Ends) {
        let (line, ends) = Line::to_task();
        let proof = Proof::Admitted(Box::new(handshake(seed).0));
        let session = Session::new(proof, Purpose::Link, Reference([seed; 8]), Instant::now(), line);
        (sessions.register(session), ends)
    }

    /// A whole handshake in memory between a client with this seed and a server.
    fn handshake(seed: u8) -> (Admitted, Accepted) {
        let org = OrgId([7; 32]);
        let (client, server) = (SecretKey::from_seed(&[seed; 32]), SecretKey::from_seed(&[99; 32]));
        let binding = Binding::WireGuard { client: WireGuardKey([1; 32]), server: WireGuardKey([2; 32]) };
        let action = Action::new("link", &[]).unwrap();
        let dial = Dial { org, key: &client, to: To::Key(server.public()), binding, action };
        let dial = dial.start([1; 32]).unwrap();
        let accept = Accept { org, key: &server, binding };
        let accept = accept.on_hello(dial.hello().as_bytes(), [2; 32]).unwrap();
        let proven = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
        let wait = proven.prove(Heads([0; 32]), 0);
        let admitted = accept.on_proof(wait.proof().as_bytes()).unwrap();
        let admitted = admitted.admit(Standing::Good(Holder::Member)).unwrap();
        let line = admitted.verdict_ok(Reference([seed; 8]), Heads([0; 32]), 0);
        (admitted, wait.on_verdict(line.as_bytes()).unwrap())
    }
}
