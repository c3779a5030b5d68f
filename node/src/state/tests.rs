use std::{sync::Arc, time::Instant};

use conn_auth::{Accept, Action, Binding, Dial, Holder, Reference, Standing, To};
use control::{
    gateway::{Exporter, FromGateway, ToGateway},
    local::{Answer, Request as Ask, State as Stage},
    text::Text,
};
use identity::{Heads, SecretKey, StatementId};
use org_trust::{
    Assurance, Cosign, EnrolRequest, Invite, Lane, Payload, Reason, Record, Redemption, Reply, Request,
    Resume, Revoke, Statement, Suspend,
};
use rand::SeedableRng as _;
use tokio::sync::mpsc;

use super::*;
use crate::{
    fixture::{self, Machine, admin, gateway_key, key, name},
    sessions::Purpose,
    writer::Written,
};

mod attestation;
mod gateway;
mod healing;
mod images;
mod liveness;
mod members;
mod parting;
mod reports;
mod rotation;
mod share;
mod unsettled;

/// What was done, in a form that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Append,
    CloseGate(WireGuardKey),
    Decide,
    Dial(Purpose),
    Keys(KeysOrder),
    MakeRoleKey,
    OpenGate(WireGuardKey),
    Peers(usize),
    Replace,
    Shares,
}

/// A gateway's musterd (keys 10, 11, 12) in an org with members 20 and 30, and what it does.
struct Bench {
    state: State,
    now: Now,
    deeds: Vec<Deed>,
    /// What it does for SWIM.
    probing: Vec<Effect>,
    /// What its images' thread was asked.
    asked_images: Vec<(SessionKey, org_trust::BlobRequest)>,
    socket: Socket,
    gateway: mpsc::Receiver<ToGateway>,
    broken: Arc<tokio::sync::Notify>,
    next: u64,
    kept: Vec<ToGateway>,
}

impl Bench {
    /// The others have never run.
    fn new() -> Self {
        Self::with(fixture::org(0).0)
    }

    fn with(replica: Replica) -> Self {
        Self::with_keys(replica, 10, false)
    }

    /// With these keys; `next`: beside them lie others.
    fn with_keys(mut replica: Replica, machine: u8, next: bool) -> Self {
        replica.save().unwrap();
        let Machine { node, wireguard, .. } = Machine::new(machine);
        let keys = Keys { node, wireguard, gateway: Some(gateway_key()) };
        let now = Now { at: Instant::now(), unix_ns: 1_000_000_000 };
        let (boot_nonce, endpoints) = (BootNonce([0; 16]), Vec::new());
        let randomness = StdRng::seed_from_u64(0);
        let beginning = Beginning {
            keys: Arc::new(keys),
            replica,
            boot_nonce,
            randomness,
            endpoints,
            replace: false,
            beside: Beside { next, ..Beside::default() },
        };
        let (socket, gateway, broken) = Socket::new(1, 256);
        let state = State::new(beginning, now);
        let mut bench = Self {
            state,
            now,
            deeds: Vec::new(),
            probing: Vec::new(),
            asked_images: Vec::new(),
            socket,
            gateway,
            broken,
            next: 0,
            kept: Vec::new(),
        };
        bench.perform();
        bench.written();
        bench.deeds.clear();
        bench
    }

    /// What a machine says of itself, behind what made the key its own.
    fn by_node(&self, key: &SecretKey, payload: &Payload) -> Statement {
        let place = self.state.replica.next_place(&key.public(), Lane::Main).unwrap();
        Statement::sign(&self.state.org, key, place, payload).unwrap()
    }

    fn rotation(&self, old: &Machine, new: &Machine) -> Statement {
        let rotate = org_trust::Rotate::new(&self.state.org, old.node.public(), new.keys());
        self.by_node(&old.node, &Payload::from(rotate))
    }

    fn perform(&mut self) {
        let effects: Vec<Effect> = self.state.effects().collect();
        for effect in effects {
            if matches!(effect, Effect::Probe(_) | Effect::Datagram(..)) {
                self.probing.push(effect);
                continue;
            }
            if let Effect::Images(order) = effect {
                let ImagesOrder::Ask(key, request, _) = order else { panic!("{order:?}") };
                self.asked_images.push((key, request));
                continue;
            }
            if let Effect::Services(order) = effect {
                self.state.on_services_kept(Ok(()), *order);
                continue;
            }
            self.deeds.push(match effect {
                Effect::CloseGate(member) => Deed::CloseGate(member),
                Effect::Decide(reply, decision) => {
                    assert!(reply.send(*decision).is_ok());
                    Deed::Decide
                }
                Effect::Dial(order) => Deed::Dial(order.purpose),
                Effect::MakeRoleKey(_) => Deed::MakeRoleKey,
                Effect::Keys(order) => Deed::Keys(order),
                Effect::OpenGate(member) => Deed::OpenGate(member),
                Effect::Peers(peers) => {
                    let revoked = |peer: &&TunnelPeer| peer.wireguard == Machine::new(20).wireguard();
                    Deed::Peers(peers.iter().filter(revoked).count())
                }
                Effect::Images(_) | Effect::Services(_) | Effect::Probe(_) | Effect::Datagram(..) => {
                    unreachable!()
                }
                Effect::Shares(_) => Deed::Shares,
                Effect::Write(Write::Append(_)) => Deed::Append,
                Effect::Write(Write::Replace(..)) => Deed::Replace,
            });
        }
    }

    /// Every write is acknowledged, also those that follow from it.
    fn written(&mut self) {
        while self.state.disk.is_writing() {
            let written = Written { result: Ok(()), unix_ns: 5, wants_replacing: false };
            self.state.on_written(written, self.now);
            self.perform();
        }
    }

    fn refuse_write(&mut self) {
        let written = Written { result: Err("full".to_owned()), unix_ns: 5, wants_replacing: true };
        self.state.on_written(written, self.now);
        self.perform();
    }

    fn ask(&mut self, request: Ask) -> Answer {
        let (reply, mut answered) = oneshot::channel();
        self.state.on_request(request, reply, self.now);
        self.perform();
        answered.try_recv().unwrap()
    }

    fn submit(&mut self, statement: &Statement) -> oneshot::Receiver<Answer> {
        self.hand_in(&Record::from(statement))
    }

    fn hand_in(&mut self, record: &Record) -> oneshot::Receiver<Answer> {
        let records = vec![org_trust::Records::encode(std::slice::from_ref(record)).unwrap().into()];
        let (reply, answered) = oneshot::channel();
        self.state.on_request(Ask::Submit { records }, reply, self.now);
        self.perform();
        answered
    }

    fn signed(&self, lane: Lane, payload: &Payload) -> Statement {
        let place = self.state.replica.next_place(&admin().public(), lane).unwrap();
        Statement::sign(&self.state.org, &admin(), place, payload).unwrap()
    }

    fn signed_revoke(&self, node: u8) -> Statement {
        let node = key(node).public();
        self.signed(
            Lane::Revokes,
            &Payload::Revoke(Revoke { node, reason: Reason::Stolen, note: String::new() }),
        )
    }

    fn signed_suspend(&self, node: u8) -> Statement {
        let node = key(node).public();
        let suspend = Suspend { node, reason: Reason::Lost, note: String::new() };
        self.signed(Lane::Revokes, &Payload::Suspend(suspend))
    }

    fn revoke(&mut self, node: u8) {
        let revoke = self.signed_revoke(node);
        drop(self.submit(&revoke));
    }

    fn invite(&mut self, uses: u32, secret: u8) -> StatementId {
        self.invite_with(uses, secret, false)
    }

    fn invite_with(&mut self, uses: u32, secret: u8, approval: bool) -> StatementId {
        let invite = Invite {
            key: key(secret).public(),
            uses,
            redeemer: gateway_key().public(),
            labels: Vec::new(),
            expires_unix_s: 0,
            note: String::new(),
            approval,
            attestation: false,
            tpms: Vec::new(),
        };
        self.invite_as(invite)
    }

    fn invite_as(&mut self, invite: Invite) -> StatementId {
        let statement = self.signed(Lane::Main, &Payload::from(invite));
        drop(self.submit(&statement));
        self.written();
        statement.id()
    }

    /// The four messages over the gateway's socket.
    fn open_outside(&mut self, by: &SecretKey, action: &str) -> (u64, String) {
        let exporter = [9; 32];
        let action = Action::new(action, &[]).unwrap();
        let gateways = [gateway_key().public()];
        let org = self.state.org;
        let dial = Dial { org, key: by, to: To::AnyOf(&gateways), binding: Binding::Tls(exporter), action };
        let dial = dial.start([3; 32]).unwrap();
        self.next += 1;
        let id = self.next;
        let hello = dial.hello().as_bytes().to_vec().into();
        let source = "192.0.2.1:5".parse().unwrap();
        self.front(FromGateway::Begin { id, exporter: Text(Exporter(exporter)), hello, source });
        let Some(ToGateway::Challenge { line, .. }) = self.heard_last() else { panic!("no challenge") };
        let wait = dial.on_challenge(line.as_bytes()).unwrap().prove(Heads([0; 32]), 0);
        self.front(FromGateway::Finish { id, proof: wait.proof().as_bytes().to_vec().into() });
        let Some(ToGateway::Verdict { line, .. }) = self.heard_last() else { panic!("no verdict") };
        (id, line)
    }

    fn say(&mut self, id: u64, request: &Request) {
        self.front(FromGateway::Data { id, frame: request.encode().into() });
    }

    fn front(&mut self, message: FromGateway) {
        self.state.on_outside(Outside::Said(self.socket.clone(), message), self.now);
        self.perform();
    }

    fn heard(&mut self) -> Vec<ToGateway> {
        let mut heard = std::mem::take(&mut self.kept);
        heard.extend(std::iter::from_fn(|| self.gateway.try_recv().ok()));
        heard
    }

    /// The newest message; those before it are kept.
    fn heard_last(&mut self) -> Option<ToGateway> {
        let mut heard = self.heard();
        let last = heard.pop();
        self.kept = heard;
        last
    }

    /// A report reaches us over the first sync session.
    fn hear_report(&mut self, node: u8, seq: u64, boot: u8) {
        let report = signed_report(&self.state.replica, node, seq, boot);
        let session = *self.state.sync.keys().next().unwrap();
        let frame = member_crdt::Session::flood(&Record::from(&report));
        self.state.on_frame(session, &frame, self.now);
        self.perform();
    }

    /// The answer to one connection, which is over after it.
    fn replies(&mut self, id: u64) -> Vec<Reply> {
        let mut heard = self.heard();
        assert!(matches!(heard.pop(), Some(ToGateway::Cut { code: None, .. })), "ends in good order");
        let frames = heard.into_iter().map(|message| {
            let ToGateway::Data { id: of, frame } = message else { panic!("{message:?}") };
            assert_eq!(of, id);
            Reply::decode(&frame.0).unwrap()
        });
        frames.collect()
    }

    /// This machine has dialled another one, which lets it in.
    fn dialled(&mut self, other: &Machine, purpose: Purpose) -> Decision {
        let (org, client) = (self.state.org, key(10));
        let binding =
            Binding::WireGuard { client: key(11).public().to_wireguard(), server: other.wireguard() };
        let action = Action::new(purpose.action(), &[]).unwrap();
        let node = other.node.public();
        let dial = Dial { org, key: &client, to: To::Key(node), binding, action }.start([5; 32]).unwrap();
        let accept = Accept { org, key: &other.node, binding };
        let accept = accept.on_hello(dial.hello().as_bytes(), [6; 32]).unwrap();
        let proven = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
        let wait = proven.prove(Heads([0; 32]), 0);
        let admitted = accept.on_proof(wait.proof().as_bytes()).unwrap();
        let admitted = admitted.admit(Standing::Good(Holder::Member)).unwrap();
        let line = admitted.verdict_ok(Reference([7; 8]), Heads([0; 32]), 0);
        let result = wait.on_verdict(line.as_bytes()).map_err(|_| panic!("a verdict"));
        let (reply, mut decided) = oneshot::channel();
        self.state.on_dialled(Dialled { node, purpose, result, reply }, self.now);
        self.perform();
        decided.try_recv().unwrap()
    }

    /// A dial ends without a session.
    fn fails(&mut self, node: u8, purpose: Purpose, code: Code) {
        let (reply, _decided) = oneshot::channel();
        let result = Err(Failure { code, detail: String::new() });
        let dialled = Dialled { node: key(node).public(), purpose, result, reply };
        self.state.on_dialled(dialled, self.now);
        self.perform();
        self.deeds.clear();
    }

    /// The four messages in a tunnel.
    fn open_tunnel(
        &mut self,
        by: &Machine,
        action: &str,
        channel: WireGuardKey,
    ) -> (Option<crate::sessions::Ends>, String) {
        let org = self.state.org;
        let binding = Binding::WireGuard { client: channel, server: key(11).public().to_wireguard() };
        let action = Action::new(action, &[]).unwrap();
        let dial = Dial { org, key: &by.node, to: To::Key(key(10).public()), binding, action };
        let dial = dial.start([3; 32]).unwrap();
        let server = key(10);
        let accept =
            Accept { org, key: &server, binding }.on_hello(dial.hello().as_bytes(), [4; 32]).unwrap();
        let proven = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
        let wait = proven.prove(Heads([0; 32]), 0);
        let proven = accept.on_proof(wait.proof().as_bytes()).unwrap();
        let (reply, mut decided) = oneshot::channel();
        let source = Ipv6Addr::LOCALHOST;
        self.state.on_proven(Proven { proven, source, reply }, self.now);
        self.perform();
        match decided.try_recv().unwrap() {
            Decision::Open { verdict, ends, .. } => (Some(ends), verdict.unwrap()),
            Decision::Refuse { verdict, .. } => (None, verdict.unwrap()),
        }
    }
}

impl Machine {
    fn request(&self, bench: &Bench, invite: &StatementId, secret: u8) -> Vec<u8> {
        self.request_for(bench, *invite, gateway_key().public(), secret)
    }

    fn request_for(&self, bench: &Bench, invite: StatementId, redeemer: PublicKey, secret: u8) -> Vec<u8> {
        let secret = key(secret);
        let redemption = Redemption { invite, key: &secret, redeemer };
        EnrolRequest::sign(&bench.state.org, self.keys(), redemption, name("new"), Assurance::File, [0; 32])
            .encode()
    }
}

fn signed_report(replica: &Replica, node: u8, seq: u64, boot: u8) -> org_trust::Report {
    let body = org_trust::ReportBody {
        boot_nonce: BootNonce([boot; 16]),
        seq,
        heads: replica.heads(),
        count: replica.count(),
        charter: replica.chain().head().id(),
        tips: Vec::new(),
        version: String::new(),
        endpoints: Vec::new(),
    };
    org_trust::Report::sign(&replica.org(), &key(node), body).unwrap()
}
