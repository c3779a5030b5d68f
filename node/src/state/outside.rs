//! Machines at the gateway. Its front brings bytes; who is behind them, and what they may do, is
//! decided here, with the gateway role key.

use std::{collections::BTreeMap, mem, net::SocketAddr, sync::Arc, time::Instant};

use conn_auth::{Accept, AwaitProof, Bind, Binding, Refusal};
use control::gateway::{Bounds, ConnectionId, FromGateway, ToGateway};
use identity::{
    CharterId, Code, PublicKey, TpmId,
    limits::{SYNC_FRAME_BYTES_MAX, UNPROVEN_MAX},
};
use member_crdt::{Applied, MemberState};
use org_trust::{BlobRequest, Outcome, Record, Reply, Request, Select};
use rand::RngExt as _;
use tokio::sync::{Notify, mpsc};

use super::{Asked, Now, State, disk::Withheld};
use crate::{
    attestation::Pending,
    enrol::{self, Enrolled},
    sessions::{Cut, Line, Proof, Purpose, Session, SessionKey, Sessions},
};

/// A connected gateway front.
#[derive(Clone, Debug)]
pub struct Socket {
    number: u64,
    send: mpsc::Sender<ToGateway>,
    broken: Arc<Notify>,
}

impl Socket {
    /// A socket, what is to be written to it, and the word that it must be closed.
    #[must_use]
    pub fn new(number: u64, queued_max: usize) -> (Self, mpsc::Receiver<ToGateway>, Arc<Notify>) {
        let (send, outgoing) = mpsc::channel(queued_max);
        let broken = Arc::new(Notify::new());
        (Self { number, send, broken: Arc::clone(&broken) }, outgoing, broken)
    }

    /// Queues a message. When one is lost nobody could tell which connections wait for it, so the
    /// whole socket is closed: the front makes another and its clients try again.
    pub(crate) fn tell(&self, message: ToGateway) {
        if self.send.try_send(message).is_err() {
            tracing::debug!(number = self.number, "the gateway's front does not read or is gone");
            self.broken.notify_one();
        }
    }

    fn has_room(&self) -> bool {
        self.send.max_capacity().saturating_sub(self.send.capacity()) < PACED_QUEUED_MAX
    }
}

/// Something from a gateway front.
#[derive(Debug)]
pub enum Outside {
    /// It went away, and every connection with it.
    Gone(u64),
    /// Everything queued for it was written.
    Drained(u64),
    /// It says something.
    Said(Socket, FromGateway),
}

#[derive(Debug)]
pub(super) enum Stage {
    Proof { pending: Box<AwaitProof>, source: SocketAddr },
    Open { key: SessionKey, turn: Turn },
}

/// What a session may say next.
#[derive(Debug)]
pub(super) enum Turn {
    /// Its question.
    First,
    /// What its TPM says.
    Quote(Box<Pending>),
    /// Nothing.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) stages: BTreeMap<(u64, ConnectionId), Stage>,
    /// What is still to be said.
    answers: BTreeMap<SessionKey, Frames>,
}

#[derive(Debug)]
struct Frames {
    left: std::vec::IntoIter<Vec<u8>>,
    /// Whether the session ends with them.
    last: bool,
}

impl Connections {
    /// A session is over; nothing more is said in it.
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.stages.retain(|_, stage| !matches!(stage, Stage::Open { key: open, .. } if *open == key));
        self.answers.remove(&key);
    }

    /// Machines whose TPM has been asked.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.stages.values().filter_map(|stage| match stage {
            Stage::Open { turn: Turn::Quote(pending), .. } => Some(&**pending),
            Stage::Open { turn: Turn::First | Turn::Over, .. } | Stage::Proof { .. } => None,
        })
    }

    /// Those of them that have had their time; they may say nothing more.
    pub(super) fn silent(&mut self, now: Instant) -> Vec<SessionKey> {
        let mut silent = Vec::new();
        for stage in self.stages.values_mut() {
            if let Stage::Open { key, turn } = stage
                && matches!(turn, Turn::Quote(pending) if pending.until <= now)
            {
                *turn = Turn::Over;
                silent.push(*key);
            }
        }
        silent
    }
}

impl State {
    /// A gateway front says something.
    pub fn on_outside(&mut self, outside: Outside, now: Now) {
        match outside {
            Outside::Gone(number) => self.gateway_gone(number, now),
            Outside::Drained(_) => self.answer_on(),
            Outside::Said(socket, FromGateway::Begin { id, exporter, hello, source }) => {
                let binding = Binding::Tls(exporter.0.0);
                self.begin_outside(&socket, id, binding, &hello.0, source, now);
            }
            Outside::Said(socket, FromGateway::Finish { id, proof }) => {
                self.finish_outside(&socket, id, &proof.0, now);
            }
            Outside::Said(socket, FromGateway::Data { id, frame }) => {
                self.outside_asks(&socket, id, &frame.0, now);
            }
            Outside::Said(socket, FromGateway::Close { id }) => {
                if let Some(Stage::Open { key, .. }) = self.outside.stages.remove(&(socket.number, id)) {
                    self.outside.forget(key);
                    self.on_ended(key, now);
                }
            }
            Outside::Said(socket, FromGateway::Charters { id, after }) => {
                socket.tell(self.charters(id, after.0));
            }
        }
    }

    fn gateway_gone(&mut self, number: u64, now: Now) {
        let of_it = (number, ConnectionId::MIN)..=(number, ConnectionId::MAX);
        let ids: Vec<_> = self.outside.stages.range(of_it).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Stage::Open { key, .. }) = self.outside.stages.remove(&id) {
                self.outside.forget(key);
                self.on_ended(key, now);
            }
        }
    }

    fn begin_outside(
        &mut self,
        socket: &Socket,
        id: ConnectionId,
        binding: Binding,
        hello: &[u8],
        source: SocketAddr,
        now: Now,
    ) {
        let unproven =
            self.outside.stages.values().filter(|stage| matches!(stage, Stage::Proof { .. })).count();
        let fresh = self.randomness.random();
        let begun = if self.outside.stages.contains_key(&(socket.number, id)) {
            Err((Code::RequestMalformed, "a number used twice".to_owned()))
        } else if unproven >= UNPROVEN_MAX {
            Err((Code::TooManyUnproven, Code::TooManyUnproven.title().to_owned()))
        } else {
            self.gateway_key()
                .ok_or_else(|| (Code::NotTheGateway, "this machine is no gateway".to_owned()))
                .and_then(|key| {
                    Accept { org: self.org, key, binding }
                        .on_hello(hello, fresh)
                        .map_err(|why| (why.code(), why.to_string()))
                })
        };
        match begun {
            Ok(pending) => {
                socket.tell(ToGateway::Challenge { id, line: pending.challenge().to_owned() });
                let stage = Stage::Proof { pending: Box::new(pending), source };
                self.outside.stages.insert((socket.number, id), stage);
            }
            Err((code, detail)) => {
                self.on_unproven(code, detail.clone(), source.to_string(), now);
                socket.tell(ToGateway::Cut { id, code: None, reason: detail });
            }
        }
    }

    fn finish_outside(&mut self, socket: &Socket, id: ConnectionId, proof: &[u8], now: Now) {
        let Some(Stage::Proof { pending, source }) = self.outside.stages.remove(&(socket.number, id)) else {
            return self.out_of_turn(socket, id);
        };
        let reference = self.new_reference();
        let proven = match pending.on_proof(proof) {
            Ok(proven) => proven,
            Err(why) => {
                self.on_unproven(why.code(), why.to_string(), source.to_string(), now);
                let line = reference.verdict_no();
                return socket.tell(ToGateway::Verdict { id, line, session: None });
            }
        };
        let (peer, action) = (proven.peer(), proven.action().name().to_owned());
        let purpose = Purpose::Outside(proven.action().rule(Bind::Tls).map_or("", |rule| rule.name));
        let admitted = proven.admit(self.standing_of(&peer, purpose)).and_then(|admitted| {
            let rule = admitted.rule();
            // What an admin brings makes the list newer; what a machine takes away rests on it.
            if !matches!(rule.name, "submit" | "fetch")
                && let Some(code) = self.stale_for(&peer, now)
            {
                return Err(Refusal { code });
            }
            let fetches = rule.name == BlobRequest::ACTION;
            if fetches && !self.may_fetch(&peer) {
                return Err(Refusal { code: Code::Busy });
            }
            let verdict = admitted.verdict_ok(reference, self.replica.heads(), self.replica.count());
            let line = Line::Gateway { id, socket: socket.clone() };
            let proof = Proof::Admitted(Box::new(admitted));
            let session = Session::new(proof, purpose, reference, now.at, line);
            let key = self.sessions.register(session);
            let standing = self.standing_of(&peer, purpose);
            self.sessions.judge(key, standing)?;
            if fetches {
                self.transfer_began(key, now);
            }
            // Answers are of another size than questions; the registry bounds both.
            let bytes = rule.frame_bytes_max.max(SYNC_FRAME_BYTES_MAX);
            Ok((key, verdict, Bounds { frame_bytes_max: u32::try_from(bytes).unwrap_or(u32::MAX) }))
        });
        match admitted {
            Ok((key, line, bounds)) => {
                self.outside.stages.insert((socket.number, id), Stage::Open { key, turn: Turn::First });
                socket.tell(ToGateway::Verdict { id, line, session: Some(bounds) });
            }
            Err(Refusal { code }) => {
                self.refuse(reference, peer, code, Asked { action, source: source.to_string() }, now);
                let line = Refusal { code }.verdict(reference, true);
                socket.tell(ToGateway::Verdict { id, line, session: None });
            }
        }
    }

    /// One session carries one question; if a TPM is asked back, its answer as well. Those that fetch an
    /// image ask one after the other.
    fn outside_asks(&mut self, socket: &Socket, id: ConnectionId, frame: &[u8], now: Now) {
        let (key, turn) = match self.outside.stages.get_mut(&(socket.number, id)) {
            Some(Stage::Open { key, .. }) if is_blob_get(&self.sessions, *key) => {
                let (key, answering) = (*key, self.outside.answers.contains_key(key));
                if answering || !self.ask_for_image(key, frame) {
                    self.out_of_turn(socket, id);
                }
                return;
            }
            Some(Stage::Open { key, turn }) => (*key, mem::replace(turn, Turn::Over)),
            Some(Stage::Proof { .. }) | None => return self.out_of_turn(socket, id),
        };
        let pending = match turn {
            Turn::First => None,
            Turn::Quote(pending) => Some(pending),
            Turn::Over => return self.out_of_turn(socket, id),
        };
        let session = self.sessions.get(key).map(|session| (session.peer(), session.purpose));
        let Some((peer, Purpose::Outside(action))) = session else {
            return self.out_of_turn(socket, id);
        };
        match (Request::decode(frame), pending) {
            (Ok(Request::Quote(quote)), Some(pending)) => {
                self.outside_quotes(key, &pending, &quote, now);
                self.write_on(now);
            }
            (Ok(Request::Quote(_)), None) | (Ok(_), Some(_)) => {
                self.refuse_outside(key, Code::ActionNotAllowed);
            }
            (Ok(Request::Attest(offer)), None) if action == "enrol" => {
                self.outside_attests((socket.number, id), key, *offer, now);
                self.write_on(now);
            }
            (Ok(Request::Share(offer)), None) if action == "boot" => {
                self.outside_asks_for_share((socket.number, id), key, *offer, now);
                self.write_on(now);
            }
            (Ok(request), None) if request.action() == action => self.serve_outside(key, peer, request, now),
            (Ok(_), None) => self.refuse_outside(key, Code::ActionNotAllowed),
            (Err(why), _) => {
                tracing::debug!(MUSTER_PEER = peer.short(), action, "a malformed request: {why}");
                let code = if action == "enrol" { Code::EnrolMalformed } else { Code::ChangeMalformed };
                self.refuse_outside(key, code);
            }
        }
    }

    fn serve_outside(&mut self, key: SessionKey, peer: PublicKey, request: Request, now: Now) {
        match request {
            Request::Enrol(bytes) => match self.enrol(peer, &bytes, None, now) {
                Ok(statement) => self.admitted_outside(key, statement),
                Err(code) => self.refuse_outside(key, code),
            },
            // Served in their turn.
            Request::Attest(_) | Request::Quote(_) | Request::Share(_) => {
                self.refuse_outside(key, Code::ActionNotAllowed)
            }
            Request::Boot { .. } | Request::Fetch(Select::Everything) => {
                let frames = self.everything();
                self.after_disk(Withheld::Outside(key, frames));
            }
            Request::Submit(records) => {
                let outcomes = self.take(&records, now).into_iter().map(|outcome| match outcome {
                    Ok(Applied::New { .. }) => Outcome::Applied,
                    Ok(Applied::Known) => Outcome::Known,
                    Ok(Applied::Waiting { .. }) => Outcome::Refused(Code::ChangeBroken),
                    Err(why) => Outcome::Refused(why.code()),
                });
                let outcomes: Vec<Outcome> = outcomes.collect();
                let parts = self.parting.is_telling();
                self.after_disk(Withheld::Submitted(key, outcomes, parts));
            }
            Request::Fetch(Select::Reports) => {
                let frames = self.some(|record| matches!(record, Record::Report(_)));
                self.after_disk(Withheld::Outside(key, frames));
            }
            Request::Fetch(Select::Author(author)) => {
                let by = |bytes: &[u8]| {
                    org_trust::UnverifiedStatement::decode(bytes)
                        .is_ok_and(|s| *s.claimed().author() == author)
                };
                let frames = self.some(|record| match record {
                    Record::Statement(bytes) => by(bytes),
                    Record::Charter(_) | Record::Report(_) => false,
                });
                self.after_disk(Withheld::Outside(key, frames));
            }
        }
        self.write_on(now);
    }

    /// A machine is admitted: once the disk has it, it gets everything.
    pub(super) fn admitted_outside(&mut self, key: SessionKey, statement: Vec<u8>) {
        let mut frames = vec![Reply::Admitted(statement).encode()];
        frames.extend(self.everything());
        self.after_disk(Withheld::Outside(key, frames));
    }

    /// Admits a machine, or answers again what was answered before. `tpm` has spoken for it.
    pub(super) fn enrol(
        &mut self,
        peer: PublicKey,
        request: &[u8],
        tpm: Option<TpmId>,
        now: Now,
    ) -> Result<Vec<u8>, Code> {
        let key = self.gateway_key().ok_or(Code::NotTheGateway)?;
        let decided = enrol::decide(&self.replica, key, peer, request, tpm, now.unix_ns / 1_000_000_000);
        match decided {
            Ok(Enrolled::Before(statement)) => Ok(statement),
            Ok(Enrolled::New(statement)) => {
                self.is_own();
                let record = Record::from(&*statement);
                for outcome in self.take(&[record], now) {
                    outcome.map_err(|why| {
                        tracing::error!("our own admission is not taken: {why}");
                        why.code()
                    })?;
                }
                // What waits for approval is held like any other and counts for nothing yet.
                if self.roster.get(&peer).is_some_and(|m| m.state == MemberState::Pending) {
                    tracing::info!(MUSTER_PEER = peer.short(), "joined, and waits for an admin's approval");
                    return Err(Code::ApprovalPending);
                }
                tracing::info!(MUSTER_PEER = peer.short(), "admitted");
                Ok(statement.bytes().to_vec())
            }
            Err(why) => {
                tracing::info!(MUSTER_PEER = peer.short(), MUSTER_CODE = %why.code(), "not admitted: {why}");
                Err(why.code())
            }
        }
    }

    pub(super) fn gateway_key(&self) -> Option<&identity::SecretKey> {
        let key = self.role_key()?;
        let named = self.roster.gateways().iter().any(|g| g.key == key.public() && self.is_mine(&g.node));
        (named && self.may_be_member()).then_some(key)
    }

    /// Whether this machine acts as a gateway.
    pub(super) fn is_gateway(&self) -> bool {
        self.gateway_key().is_some()
    }

    fn everything(&self) -> Vec<Vec<u8>> {
        self.some(|_| true)
    }

    fn some(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Vec<u8>> {
        let records = self.replica.records();
        let wanted = records.filter(|record| matches!(record, Record::Charter(_)) || wanted(record));
        let mut frames: Vec<Vec<u8>> = Reply::stream(wanted).collect();
        frames.push(Reply::End { heads: self.replica.heads(), count: self.replica.count() }.encode());
        frames
    }

    fn charters(&self, id: ConnectionId, after: CharterId) -> ToGateway {
        let chain = self.replica.chain();
        let known = chain.get(&after).is_some();
        let mut room = SYNC_FRAME_BYTES_MAX;
        let page = chain.after(&after).filter(|_| known).map_while(|charter| {
            room = room.checked_sub(charter.bytes().len() + CHARTER_PREFIX_BYTES)?;
            Some(charter.bytes().to_vec().into())
        });
        ToGateway::Charters { id, known, charters: page.collect() }
    }

    pub(super) fn answer_outside(&mut self, key: SessionKey, frames: Vec<Vec<u8>>) {
        self.answer_paced(key, frames, true);
    }

    pub(super) fn answer_paced(&mut self, key: SessionKey, frames: Vec<Vec<u8>>, last: bool) {
        let waiting = self.outside.answers.values().flat_map(|frames| frames.left.as_slice());
        let bytes: usize = waiting.chain(&frames).map(Vec::len).sum();
        let frames = if frames.len() > 1 && bytes > ANSWERS_BYTES_MAX && !self.outside.answers.is_empty() {
            // It asks again.
            vec![Reply::Refused(Code::Busy).encode()]
        } else {
            frames
        };
        self.outside.answers.insert(key, Frames { left: frames.into_iter(), last });
        self.answer_on();
    }

    /// Says what is still to be said, as far as the fronts have room: the answers of all machines that
    /// boot at once would not fit. The one with the least left goes first, so that short ones do not
    /// wait and long ones end one after the other.
    fn answer_on(&mut self) {
        let (sessions, answers) = (&mut self.sessions, &mut self.outside.answers);
        answers.retain(|key, _| sessions.get(*key).is_some());
        let mut ended = Vec::new();
        loop {
            let socket = |key: SessionKey| sessions.get(key).and_then(Session::gateway);
            let ready =
                answers.iter_mut().filter(|(key, _)| socket(**key).is_some_and(|(_, s)| s.has_room()));
            let Some((&key, frames)) = ready.min_by_key(|(_, frames)| frames.left.len()) else { break };
            let (frame, last) = (frames.left.next(), frames.last);
            let is_said = frames.left.len() == 0;
            match frame {
                Some(frame) => {
                    sessions.send(key, frame);
                    // The next question may come as soon as this is heard.
                    if is_said && !last {
                        answers.remove(&key);
                        self.images.answered(key);
                    }
                }
                None => {
                    answers.remove(&key);
                    sessions.finish(key);
                    ended.push(key);
                }
            }
        }
        for key in ended {
            self.outside.forget(key);
        }
    }

    pub(super) fn refuse_outside(&mut self, key: SessionKey, code: Code) {
        self.answer_outside(key, vec![Reply::Refused(code).encode()]);
    }

    fn out_of_turn(&mut self, socket: &Socket, id: ConnectionId) {
        if let Some(Stage::Open { key, .. }) = self.outside.stages.remove(&(socket.number, id)) {
            let reason = "one question was asked already".to_owned();
            self.outside.forget(key);
            return self.sessions.cut(key, Cut { code: Code::RequestMalformed, reason });
        }
        let reason = "nothing was begun under this number".to_owned();
        socket.tell(ToGateway::Cut { id, code: Some(Code::RequestMalformed.into()), reason });
    }
}

fn is_blob_get(sessions: &Sessions, key: SessionKey) -> bool {
    sessions.get(key).is_some_and(|session| session.purpose.action() == BlobRequest::ACTION)
}

/// Most bytes of answers that wait, beyond a first one: a few dozen of an org of ten thousand members.
const ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Messages of long answers queued for a front, 64 KiB each: the rest of the queue is left to what
/// cannot wait.
const PACED_QUEUED_MAX: usize = 64;

/// In a page of settings, each stands behind its length.
const CHARTER_PREFIX_BYTES: usize = 4;
