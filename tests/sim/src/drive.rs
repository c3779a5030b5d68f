//! Moves connections on, as the daemon's tasks do: dialling, accepting, carrying, closing.

use std::net::Ipv6Addr;

use conn_auth::{Accept, Action, Binding, Dial, To};
use control::{
    gateway::{Exporter, FromGateway, ToGateway},
    text::Text,
};
use identity::{
    Code, PublicKey, WireGuardKey,
    limits::{CLOSE_FLUSH_MS, DIAL_DEADLINE_MS, HANDSHAKE_DEADLINE_MS},
};
use musterd::{
    sessions::Purpose,
    state::{Decision, Dialled, Failure, Order, Outside, Proven},
    tunnel::TunnelEvent,
};
use rand::RngExt as _;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::{
    connection::{ACCEPTOR, Connection, ConnectionId, DIALLER, End, Message, Stage, Stream},
    hostile,
    machine::Phase,
    network::Party,
    plan::Sabotage,
    world::{Event, MS, SECOND, World},
};

impl World {
    /// A member dials another through its tunnel.
    pub(crate) fn dial(&mut self, from: Party, order: Order) {
        let Some((to, node, server)) = self.reached_by(from, &order) else { return };
        let keys = self.machines[from].keys;
        let binding = Binding::WireGuard { client: self.machines[from].wireguard, server };
        let action = Action::new(order.purpose.action(), &[]).expect("a known action");
        let dial = Dial { org: self.org.id, key: &keys.node, to: To::Key(node), binding, action };
        let pending = dial.start(self.rng.random()).expect("another machine");
        let hello = pending.hello().as_bytes().to_vec();
        let patience = if order.purpose == Purpose::Sync { 5 * SECOND } else { 40 * SECOND };
        let stage = Stage::AwaitChallenge(Box::new((pending, order)));
        let connection =
            self.connect([End::new(from, stage), End::new(to, Stage::AwaitHello)], None, patience);
        self.enlist(connection, DIALLER);
        self.totals.dials += 1;
        self.send(connection, DIALLER, Message::Line(hello));
        self.after(DIAL_DEADLINE_MS * MS, Event::GiveUp { connection, side: DIALLER });
    }

    /// The machine at the other end of the tunnel, and the keys that the tunnel shows it to use. Of two
    /// that use one key it is the one that was heard last.
    fn reached_by(&self, from: Party, order: &Order) -> Option<(Party, PublicKey, WireGuardKey)> {
        let pairs = [(order.node, order.wireguard)].into_iter().chain(order.earlier.iter().copied());
        for (node, wireguard) in pairs {
            let users = || (0..self.machines.len()).filter(|m| self.machines[*m].node == node);
            let learned = self.machines[from].running().and_then(|running| running.learned.get(&wireguard));
            let heard = users().find(|user| learned == Some(&self.machines[*user].endpoint));
            let there = || users().find(|user| self.machines[*user].running().is_some());
            if let Some(user) = heard.or_else(there).or_else(|| users().next()) {
                return Some((user, node, wireguard));
            }
        }
        // It uses none of them any more.
        let to = self.oracle.nodes.get(&order.node).copied()?;
        Some((to, order.node, order.wireguard))
    }

    pub(crate) fn connect(
        &mut self,
        ends: [End; 2],
        exporter: Option<[u8; 32]>,
        patience: u64,
    ) -> ConnectionId {
        let number = self.next_connection;
        self.next_connection += 1;
        let streams = [Stream::default(), Stream::default()];
        self.connections.insert(number, Connection { ends, streams, exporter, patience });
        number
    }

    /// The end is the machine's to look after.
    pub(crate) fn enlist(&mut self, connection: ConnectionId, side: usize) {
        let Some(party) = self.party(connection, side) else { return };
        if let Some(running) = self.machines.get_mut(party).and_then(|machine| machine.running_mut()) {
            running.ends.insert((connection, side));
        }
    }

    pub(crate) fn party(&self, connection: ConnectionId, side: usize) -> Option<Party> {
        self.connections.get(&connection).map(|connection| connection.ends[side].party)
    }

    /// Queues a message; a hostile machine's frames leave as it likes.
    pub(crate) fn send(&mut self, connection: ConnectionId, side: usize, message: Message) {
        let Some(party) = self.party(connection, side) else { return };
        let messages = match message {
            Message::Frame(frame) => self.leaving(party, frame).into_iter().map(Message::Frame).collect(),
            message @ (Message::Line(_) | Message::Close(_)) => vec![message],
        };
        for message in messages {
            let bytes = match &message {
                Message::Line(bytes) | Message::Frame(bytes) => bytes.as_slice(),
                Message::Close(_) => &[],
            };
            self.trace.note(
                self.now,
                "send",
                [party, usize::try_from(connection).unwrap_or(0)],
                bytes,
                || match &message {
                    Message::Line(line) => String::from_utf8_lossy(line).chars().take(100).collect(),
                    Message::Frame(frame) => {
                        format!("frame {} of {} bytes", frame.first().copied().unwrap_or(0), frame.len())
                    }
                    Message::Close(code) => format!("close {code:?}"),
                },
            );
            let now = self.now;
            let Some(open) = self.connections.get_mut(&connection) else { return };
            let number = open.streams[side].push(now, message);
            self.totals.messages += 1;
            self.attempt(connection, side, number, 0);
        }
    }

    fn leaving(&mut self, party: Party, frame: Vec<u8>) -> Vec<Vec<u8>> {
        if self.sabotage == Some(Sabotage::RevocationsAreWithheld) {
            return hostile::without_revocations(&frame).into_iter().collect();
        }
        let Some(machine) = self.machines.get(party) else { return vec![frame] };
        match machine.hostility {
            Some(hostility) => {
                let out = hostility.twist(frame, &self.heard, &mut self.rng);
                self.totals.hostile_frames += out.len() as u64;
                out
            }
            None => {
                if self.heard.len() < FRAMES_HEARD_MAX && self.plan.hostile > 0 {
                    self.heard.push(frame.clone());
                }
                vec![frame]
            }
        }
    }

    /// Whether a packet of this side gets through to the other machine at all.
    fn passes(&self, connection: &Connection, side: usize) -> bool {
        let (from, to) = (connection.ends[side].party, connection.ends[1 - side].party);
        if !self.is_there(from) || !self.is_there(to) || self.network.is_blocked(from, to) {
            return false;
        }
        if connection.exporter.is_some() {
            return true;
        }
        let (from, to) = (&self.machines[from], &self.machines[to]);
        let (Some(here), Some(there)) = (from.running(), to.running()) else { return false };
        let finds = here.learned.get(&to.wireguard) == Some(&to.endpoint)
            || here.peers.get(&to.wireguard).is_some_and(|peer| peer.endpoints.contains(&to.endpoint));
        finds && here.peers.contains_key(&to.wireguard) && there.peers.contains_key(&from.wireguard)
    }

    /// A datagram of SWIM leaves; a hostile machine says in it that all others are dead.
    pub(crate) fn send_datagram(&mut self, from: Party, to: Ipv6Addr, bytes: Vec<u8>) {
        let Some(running) = self.machines[from].running() else { return };
        let Some(peer) = running.peers.values().find(|peer| peer.address == to) else { return };
        let wireguard = peer.wireguard;
        let Some(to) = self.machines.iter().position(|machine| machine.wireguard == wireguard) else {
            return;
        };
        let bytes = if self.machines[from].hostility.is_some() {
            let others = self.machines.iter().map(|machine| machine.node);
            hostile::that_all_are_dead(&bytes, others)
        } else {
            bytes
        };
        self.totals.datagrams += 1;
        if !self.network.loses() {
            let delay = self.network.delay();
            self.after(delay, Event::Datagram { from, to, bytes });
        }
    }

    pub(crate) fn arrive_datagram(&mut self, from: Party, to: Party, bytes: &[u8]) {
        if !self.is_there(from) || !self.is_there(to) || self.network.is_blocked(from, to) {
            return;
        }
        let wireguard = self.machines[from].wireguard;
        let Some(running) = self.machines[to].running() else { return };
        let Some(source) = running.peers.get(&wireguard).map(|peer| peer.address) else { return };
        if running.probed.contains(&source) {
            self.step(to, |state, now| state.on_datagram(source, bytes, now));
        }
    }

    fn is_there(&self, party: Party) -> bool {
        match self.machines.get(party).map(|machine| &machine.phase) {
            // An admin's device; a machine that is a client only.
            None | Some(Phase::Up(_) | Phase::Outside | Phase::Booting | Phase::Damaged) => true,
            Some(Phase::Down | Phase::Gone) => false,
        }
    }

    pub(crate) fn attempt(&mut self, connection: ConnectionId, side: usize, number: u64, tries: u32) {
        let Some(open) = self.connections.get(&connection) else { return };
        let Some((sent, _)) = open.streams[side].flying.get(&number) else { return };
        let late = self.now - sent > open.patience;
        if self.passes(open, side) && !self.network.loses() {
            let delay = self.network.delay();
            self.after(delay, Event::Arrive { connection, side: 1 - side, number, tries });
            if self.network.repeats() {
                let again = delay + self.network.delay();
                self.after(again, Event::Arrive { connection, side: 1 - side, number, tries });
                self.totals.repeated += 1;
            }
        } else if late {
            self.break_end(connection, side);
        } else {
            self.totals.lost += 1;
            self.after(pause(tries), Event::Attempt { connection, side, number, tries: tries + 1 });
        }
    }

    pub(crate) fn arrive(&mut self, connection: ConnectionId, side: usize, number: u64, tries: u32) {
        let from = 1 - side;
        let Some(open) = self.connections.get(&connection) else { return };
        if !self.passes(open, from) {
            self.after(pause(tries), Event::Attempt { connection, side: from, number, tries: tries + 1 });
            return;
        }
        if !open.ends[side].is_alive {
            let delay = self.network.delay();
            self.after(delay, Event::Reset { connection, side: from });
            return;
        }
        if open.exporter.is_none() {
            self.tunnels_meet(connection, side);
        }
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let stream = &mut open.streams[from];
        if number < stream.delivered || !stream.flying.contains_key(&number) {
            return;
        }
        stream.arrived.insert(number);
        while let Some(open) = self.connections.get_mut(&connection) {
            let stream = &mut open.streams[from];
            let next = stream.delivered;
            if !stream.arrived.remove(&next) || !open.ends[side].is_alive {
                break;
            }
            let was_full = !stream.has_room();
            stream.delivered += 1;
            let Some((_, message)) = stream.flying.remove(&next) else { break };
            let sender = open.ends[from].party;
            if was_full && sender < self.machines.len() {
                self.after(0, Event::Pump(sender));
            }
            self.receive(connection, side, message);
        }
    }

    /// The first packet in a while makes a WireGuard handshake; either side learns where the other is.
    fn tunnels_meet(&mut self, connection: ConnectionId, side: usize) {
        let (Some(here), Some(there)) = (self.party(connection, side), self.party(connection, 1 - side))
        else {
            return;
        };
        for (here, there) in [(here, there), (there, here)] {
            let now = self.now;
            let (wireguard, endpoint) = (self.machines[there].wireguard, self.machines[there].endpoint);
            let Some(running) = self.machines[here].running_mut() else { continue };
            let fresh = running.handshaken.get(&wireguard).is_some_and(|at| now - at < 120 * SECOND);
            let moved = running.learned.insert(wireguard, endpoint) != Some(endpoint);
            if !fresh || moved {
                running.handshaken.insert(wireguard, now);
                let event = TunnelEvent::Handshake { wireguard, endpoint };
                self.step(here, |state, now| state.on_tunnel(event, now));
            }
        }
    }

    fn stage(&mut self, connection: ConnectionId, side: usize) -> Option<&mut Stage> {
        self.connections.get_mut(&connection).map(|connection| &mut connection.ends[side].stage)
    }

    pub(crate) fn set_stage(&mut self, connection: ConnectionId, side: usize, to: Stage) {
        if let Some(stage) = self.stage(connection, side) {
            *stage = to;
        }
    }

    fn receive(&mut self, connection: ConnectionId, side: usize, message: Message) {
        let Some(party) = self.party(connection, side) else { return };
        let Some(stage) = self.stage(connection, side) else { return };
        let stage = std::mem::replace(stage, Stage::Over);
        match (stage, message) {
            (Stage::AwaitHello, Message::Line(hello)) => self.on_hello(connection, party, &hello),
            (Stage::AwaitProof(pending), Message::Line(proof)) => match pending.on_proof(&proof) {
                Ok(proven) => {
                    let (reply, decided) = oneshot::channel();
                    let purpose = Purpose::of(proven.action().name()).unwrap_or(Purpose::Ping);
                    self.set_stage(connection, side, Stage::AwaitDecision(decided, purpose));
                    let source = identity::overlay_address(&self.org.id, &proven.peer());
                    self.totals.handshakes += 1;
                    self.step(party, |state, now| state.on_proven(Proven { proven, source, reply }, now));
                }
                Err(why) => self.unproven(connection, party, why.code(), why.to_string()),
            },
            (Stage::AwaitChallenge(both), Message::Line(line)) => {
                let (pending, order) = *both;
                match pending.on_challenge(&line) {
                    Ok(proven) => {
                        let (heads, count) = order.held;
                        let wait = proven.prove(heads, count);
                        let proof = wait.proof().as_bytes().to_vec();
                        self.set_stage(connection, side, Stage::AwaitVerdict(Box::new((wait, order))));
                        self.send(connection, side, Message::Line(proof));
                    }
                    Err(why) => {
                        let failure = Failure { code: why.code(), detail: why.to_string() };
                        self.dialled(connection, party, &order, Err(failure));
                    }
                }
            }
            (Stage::AwaitVerdict(both), Message::Line(line)) => {
                let (wait, order) = *both;
                let result = wait
                    .on_verdict(&line)
                    .map_err(|why| Failure { code: why.code(), detail: why.to_string() });
                self.dialled(connection, party, &order, result);
            }
            (Stage::AwaitChallenge(both), Message::Close(_)) => {
                self.dialled(connection, party, &both.1, Err(unreachable_failure("closed")));
            }
            (Stage::AwaitVerdict(both), Message::Close(_)) => {
                self.dialled(connection, party, &both.1, Err(unreachable_failure("closed")));
            }
            (Stage::Session { key, ends, echoes }, Message::Frame(frame)) => {
                self.set_stage(connection, side, Stage::Session { key, ends, echoes });
                if echoes {
                    self.send(connection, side, Message::Frame(frame));
                } else {
                    self.step(party, |state, now| state.on_frame(key, &frame, now));
                }
            }
            (Stage::Session { key, .. }, Message::Close(code)) => {
                self.send(connection, side, Message::Close(None));
                self.finish(connection, side);
                self.step(party, |state, now| {
                    if let Some(code) = code {
                        state.on_told(key, code, now);
                    }
                    state.on_ended(key, now);
                });
            }
            (Stage::Flushing(key), Message::Close(_)) => {
                self.finish(connection, side);
                self.step(party, |state, now| state.on_ended(key, now));
            }
            (Stage::Front { has_begun }, message) => self.front_hears(connection, party, has_begun, message),
            (Stage::Client(stage), message) => self.client_hears(connection, *stage, message),
            (Stage::AwaitProof(_), Message::Close(_)) => self.finish(connection, side),
            (stage, _) => self.set_stage(connection, side, stage),
        }
    }

    fn on_hello(&mut self, connection: ConnectionId, party: Party, hello: &[u8]) {
        let Some(client) = self.party(connection, DIALLER) else { return };
        // From one's own tunnels, never from the peer's words.
        let client = self.machines[client].wireguard;
        let keys = self.machines[party].keys;
        let binding = Binding::WireGuard { client, server: self.machines[party].wireguard };
        self.enlist(connection, ACCEPTOR);
        let accept = Accept { org: self.org.id, key: &keys.node, binding };
        match accept.on_hello(hello, self.rng.random()) {
            Ok(pending) => {
                let challenge = pending.challenge().as_bytes().to_vec();
                self.set_stage(connection, ACCEPTOR, Stage::AwaitProof(Box::new(pending)));
                self.send(connection, ACCEPTOR, Message::Line(challenge));
                self.after(HANDSHAKE_DEADLINE_MS * MS, Event::GiveUp { connection, side: ACCEPTOR });
            }
            Err(why) => self.unproven(connection, party, why.code(), why.to_string()),
        }
    }

    fn unproven(&mut self, connection: ConnectionId, party: Party, code: Code, detail: String) {
        self.totals.unproven += 1;
        self.send(connection, ACCEPTOR, Message::Close(None));
        self.finish(connection, ACCEPTOR);
        self.step(party, |state, now| state.on_unproven(code, detail, party.to_string(), now));
    }

    fn dialled(
        &mut self,
        connection: ConnectionId,
        party: Party,
        order: &Order,
        result: Result<conn_auth::Accepted, Failure>,
    ) {
        let (reply, decided) = oneshot::channel();
        let (node, purpose) = (order.node, order.purpose);
        if let Err(why) = &result {
            self.totals.dials_failed += 1;
            let code = why.code;
            self.trace.note(self.now, "not", [party, 0], code.title().as_bytes(), || {
                format!("{} {code}: {}", purpose.action(), why.detail)
            });
        }
        self.set_stage(connection, DIALLER, Stage::AwaitDecision(decided, purpose));
        self.step(party, |state, now| state.on_dialled(Dialled { node, purpose, result, reply }, now));
    }

    /// Looks after all ends of a machine. Whether its state was told something.
    pub(crate) fn pump(&mut self, machine: Party) -> bool {
        let Some(running) = self.machines[machine].running() else { return false };
        let ends: Vec<(ConnectionId, usize)> = running.ends.iter().copied().collect();
        let mut moved = false;
        for (connection, side) in ends {
            moved |= self.pump_end(machine, connection, side);
        }
        moved |= self.pump_front(machine);
        self.hear_answers(machine);
        moved
    }

    fn pump_end(&mut self, machine: Party, connection: ConnectionId, side: usize) -> bool {
        let Some(stage) = self.stage(connection, side) else { return false };
        match std::mem::replace(stage, Stage::Over) {
            Stage::AwaitDecision(mut decided, purpose) => match decided.try_recv() {
                Ok(Decision::Open { verdict, key, purpose, mut ends, .. }) => {
                    if verdict.is_some() && ends.cut.try_recv().is_ok() {
                        // A change that came after the decision has ended the session already.
                        self.send(connection, side, Message::Close(None));
                        self.finish(connection, side);
                        self.tell(machine, |state, now| state.on_ended(key, now));
                        return true;
                    }
                    let echoes = side == ACCEPTOR && purpose != Purpose::Sync;
                    self.set_stage(connection, side, Stage::Session { key, ends: Box::new(ends), echoes });
                    if let Some(line) = verdict {
                        self.send(connection, side, Message::Line(line.into_bytes()));
                    }
                    self.totals.sessions += 1;
                    self.after(2 * SECOND, Event::Probe { connection, side });
                    true
                }
                Ok(Decision::Refuse { verdict, code }) => {
                    if let Some(line) = verdict {
                        self.totals.refused += 1;
                        self.trace.note(self.now, "refuse", [machine, 0], code.title().as_bytes(), || {
                            format!("{code}")
                        });
                        self.send(connection, side, Message::Line(line.into_bytes()));
                    }
                    self.send(connection, side, Message::Close(None));
                    self.finish(connection, side);
                    false
                }
                Err(TryRecvError::Empty) => {
                    self.set_stage(connection, side, Stage::AwaitDecision(decided, purpose));
                    false
                }
                Err(TryRecvError::Closed) => {
                    self.finish(connection, side);
                    false
                }
            },
            Stage::Session { key, mut ends, echoes } => {
                match ends.cut.try_recv() {
                    Ok(cut) => {
                        self.set_stage(connection, side, Stage::Flushing(key));
                        self.send(connection, side, Message::Close(Some(cut.code)));
                        self.totals.cut += 1;
                        self.after(CLOSE_FLUSH_MS * MS, Event::Flushed { connection, side });
                        return false;
                    }
                    Err(TryRecvError::Closed) => {
                        self.send(connection, side, Message::Close(None));
                        self.finish(connection, side);
                        self.tell(machine, |state, now| state.on_ended(key, now));
                        return true;
                    }
                    Err(TryRecvError::Empty) => {}
                }
                let mut frames = Vec::new();
                let room =
                    self.connections.get(&connection).is_some_and(|open| open.streams[side].has_room());
                while room && frames.len() < 16 {
                    let Ok(frame) = ends.frames.try_recv() else { break };
                    frames.push(frame);
                }
                self.set_stage(connection, side, Stage::Session { key, ends, echoes });
                let more = frames.len() == 16;
                for frame in frames {
                    self.send(connection, side, Message::Frame(frame));
                }
                more
            }
            stage @ (Stage::AwaitChallenge(_)
            | Stage::AwaitVerdict(_)
            | Stage::AwaitHello
            | Stage::AwaitProof(_)
            | Stage::Flushing(_)
            | Stage::Front { .. }
            | Stage::Client(_)
            | Stage::Over) => {
                self.set_stage(connection, side, stage);
                false
            }
        }
    }

    /// The end is over; the connection goes with its last end.
    pub(crate) fn finish(&mut self, connection: ConnectionId, side: usize) {
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let party = open.ends[side].party;
        open.ends[side].is_alive = false;
        open.ends[side].stage = Stage::Over;
        let other = &mut open.ends[1 - side];
        if matches!(other.stage, Stage::AwaitHello) && side == DIALLER {
            other.is_alive = false;
        }
        if !other.is_alive {
            self.connections.remove(&connection);
        }
        if let Some(running) = self.machines.get_mut(party).and_then(|machine| machine.running_mut()) {
            running.ends.remove(&(connection, side));
        }
    }

    /// The machine behind this end is gone, without a word.
    pub(crate) fn vanish(&mut self, connection: ConnectionId, side: usize) {
        if let Some(open) = self.connections.get_mut(&connection) {
            open.streams[side].flying.clear();
        }
        self.finish(connection, side);
    }

    /// Nothing comes through any more.
    pub(crate) fn break_end(&mut self, connection: ConnectionId, side: usize) {
        let Some(party) = self.party(connection, side) else { return };
        let Some(open) = self.connections.get_mut(&connection).filter(|open| open.ends[side].is_alive) else {
            return;
        };
        let stage = std::mem::replace(&mut open.ends[side].stage, Stage::Over);
        open.streams[side].flying.clear();
        match stage {
            Stage::AwaitChallenge(both) => {
                self.dialled(connection, party, &both.1, Err(unreachable_failure("no answer")));
            }
            Stage::AwaitVerdict(both) => {
                self.dialled(connection, party, &both.1, Err(unreachable_failure("no answer")));
            }
            Stage::Session { key, .. } | Stage::Flushing(key) => {
                self.finish(connection, side);
                self.step(party, |state, now| state.on_ended(key, now));
            }
            Stage::Front { has_begun } => {
                self.front_hears(connection, party, has_begun, Message::Close(None));
            }
            Stage::Client(stage) => {
                self.finish(connection, side);
                self.client_fails(party, *stage);
            }
            Stage::AwaitHello | Stage::AwaitProof(_) | Stage::AwaitDecision(..) | Stage::Over => {
                self.finish(connection, side);
            }
        }
    }

    pub(crate) fn flushed(&mut self, connection: ConnectionId, side: usize) {
        let Some(party) = self.party(connection, side) else { return };
        if let Some(Stage::Flushing(key)) = self.stage(connection, side) {
            let key = *key;
            self.finish(connection, side);
            self.step(party, |state, now| state.on_ended(key, now));
        }
    }

    pub(crate) fn give_up(&mut self, connection: ConnectionId, side: usize) {
        let Some(stage) = self.stage(connection, side) else { return };
        let waits = matches!(
            stage,
            Stage::AwaitChallenge(_) | Stage::AwaitVerdict(_) | Stage::AwaitProof(_) | Stage::Client(_)
        );
        if waits {
            self.break_end(connection, side);
        }
    }

    /// As keep-alive does: an end whose peer is gone, or does not answer for too long, is over.
    pub(crate) fn probe(&mut self, connection: ConnectionId, side: usize) {
        let now = self.now;
        let Some(open) = self.connections.get(&connection) else { return };
        if !open.ends[side].is_alive {
            return;
        }
        let hears = self.passes(open, side) && self.passes(open, 1 - side);
        let is_gone = !open.ends[1 - side].is_alive;
        let flying = open.streams[1 - side].flying.len();
        let patience = open.patience;
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let end = &mut open.ends[side];
        if hears && is_gone && flying == 0 {
            return self.break_end(connection, side);
        }
        if hears {
            end.unanswered_since = None;
        } else if now - *end.unanswered_since.get_or_insert(now) >= patience {
            return self.break_end(connection, side);
        }
        let every = if patience > 10 * SECOND { 10 * SECOND } else { SECOND };
        self.after(every, Event::Probe { connection, side });
    }

    fn front_hears(&mut self, connection: ConnectionId, party: Party, has_begun: bool, message: Message) {
        let number = connection;
        let Some(exporter) = self.connections.get(&connection).and_then(|open| open.exporter) else { return };
        let Some(socket) = self.machines[party].running().and_then(|r| r.front.as_ref()).map(|f| f.0.clone())
        else {
            return self.finish(connection, ACCEPTOR);
        };
        let said = match message {
            Message::Line(hello) if !has_begun => FromGateway::Begin {
                id: number,
                exporter: Text(Exporter(exporter)),
                hello: hello.into(),
                source: self.machines[party].endpoint,
            },
            Message::Line(proof) => FromGateway::Finish { id: number, proof: proof.into() },
            Message::Frame(frame) => FromGateway::Data { id: number, frame: frame.into() },
            Message::Close(_) => {
                self.finish(connection, ACCEPTOR);
                if !has_begun {
                    return;
                }
                FromGateway::Close { id: number }
            }
        };
        self.enlist(connection, ACCEPTOR);
        self.set_stage(connection, ACCEPTOR, Stage::Front { has_begun: true });
        self.step(party, |state, now| state.on_outside(Outside::Said(socket, said), now));
    }

    /// What the front is told goes to its client.
    pub(crate) fn front_is_told(&mut self, message: ToGateway) {
        match message {
            ToGateway::Challenge { id, line } => self.send(id, ACCEPTOR, Message::Line(line.into_bytes())),
            ToGateway::Verdict { id, line, session } => {
                self.totals.handshakes += 1;
                self.send(id, ACCEPTOR, Message::Line(line.into_bytes()));
                if session.is_none() {
                    self.totals.refused += 1;
                    self.send(id, ACCEPTOR, Message::Close(None));
                    self.finish(id, ACCEPTOR);
                }
            }
            ToGateway::Data { id, frame } => self.send(id, ACCEPTOR, Message::Frame(frame.0)),
            ToGateway::Cut { id, code, .. } => {
                self.send(id, ACCEPTOR, Message::Close(code.map(|code| code.0)));
                self.finish(id, ACCEPTOR);
            }
            ToGateway::Charters { .. } => {}
        }
    }
}

fn unreachable_failure(detail: &str) -> Failure {
    Failure { code: Code::PeerUnreachable, detail: detail.to_owned() }
}

/// Between two tries to send a segment.
fn pause(tries: u32) -> u64 {
    (200 * MS * 2_u64.pow(tries.min(4))).min(2 * SECOND)
}

/// Frames kept for those that replay them.
const FRAMES_HEARD_MAX: usize = 200;
