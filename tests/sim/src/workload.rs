//! What the people and machines of the org do: change the list, join, leave, talk, ask.

use conn_auth::{Accept, Action, Binding, Dial, To};
use control::{
    local::{Answer, Request as Ask},
    text::Text,
};
use identity::{BootNonce, Code, Heads, Name, PublicKey, SecretKey, StatementId};
use member_crdt::Replica;
use musterd::{
    sessions::{Purpose, Session},
    state::{Decision, Proven},
};
use org_trust::{
    Admit, Assurance, Cancel, Charter, EnrolRequest, Gateway, Invite, Lane, Payload, Place, Reason, Record,
    Records, Redemption, Reply, Report, ReportBody, Request, Revoke, Statement, UnverifiedCharter,
};
use rand::RngExt as _;
use tokio::sync::oneshot;

use crate::{
    client::{Answered, Errand},
    connection::{ACCEPTOR, ClientStage, ConnectionId, DIALLER, End, Message, Stage},
    hostile::Hostility,
    machine::{Machine, Org, Phase, key_of},
    network::Party,
    plan::{Plan, Sabotage},
    world::{Event, SECOND, World},
};

/// Something to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// An admin changes the list.
    Change,
    /// A machine outside goes to a gateway.
    Errand(Party, Errand),
    /// Somebody shakes hands with somebody, whatever the tunnels say.
    Handshake,
    /// An admin revokes too.
    Revoke(usize, PublicKey),
    /// An admin hands in what is not acknowledged yet.
    Submit(usize),
    /// A program on one machine talks to one on another.
    Traffic,
}

/// An admin's device: it keeps what it signed before anybody hears of it.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) key: &'static SecretKey,
    main: Vec<Statement>,
    revokes: Vec<Statement>,
    unacknowledged: Vec<StatementId>,
}

/// A program that waits for an answer.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) machine: Party,
    asked: Asked,
    answer: oneshot::Receiver<Answer>,
    /// Others had shut the machine out when it was asked.
    was_outcast: bool,
}

#[derive(Debug)]
enum Asked {
    Leave,
    Submit(usize, Vec<StatementId>),
}

/// The org's first settings, its admins, and their first changes: the members.
pub(crate) fn found(seed: u64, plan: &Plan, machines: &[Machine]) -> (Org, Vec<Admin>) {
    let root = key_of(seed, "root");
    let name = |text: &str| Name::parse(text).expect("a name");
    let mut charter = Charter::genesis(name("acme"), 1, vec![root.public()], [7; 16]);
    let mut admins = Vec::new();
    for number in 0..plan.admins {
        let key: &'static SecretKey = Box::leak(Box::new(key_of(seed, &format!("admin {number}"))));
        charter.admins.push(org_trust::Admin { key: key.public(), name: name(&format!("ada{number}")) });
        admins.push(Admin { key, main: Vec::new(), revokes: Vec::new(), unacknowledged: Vec::new() });
    }
    charter.revoke_threshold = plan.threshold;
    for machine in machines {
        if let Some(key) = machine.keys.gateway() {
            charter.gateways.push(Gateway { key: key.public(), node: machine.node });
        }
    }
    let gateways: Vec<PublicKey> = charter.gateways.iter().map(|gateway| gateway.key).collect();
    let genesis =
        UnverifiedCharter::sign(charter, &[&root]).expect("settings").verify_genesis().expect("first");
    let org = Org { id: genesis.org(), genesis, gateways: Vec::leak(gateways) };
    for machine in machines.iter().take(plan.members) {
        let by = admins[0].key.public();
        let admit = Admit::by_admin(&org.id, machine.keys.all(), by, machine.name.clone(), Assurance::File);
        admins[0].sign(&org, &Payload::from(admit));
    }
    admins[0].unacknowledged.clear();
    (org, admins)
}

impl Admin {
    fn sign(&mut self, org: &Org, payload: &Payload) -> Statement {
        let lane = payload.lane();
        let chain = if lane == Lane::Main { &mut self.main } else { &mut self.revokes };
        let charter = org.genesis.id();
        let first = Place { charter, lane, seq: 0, prev: charter.0 };
        let place = chain.last().map_or(first, |last| last.next_place(charter));
        let statement = Statement::sign(&org.id, self.key, place, payload).expect("a change");
        chain.push(statement.clone());
        self.unacknowledged.push(statement.id());
        statement
    }

    /// All that it signed, in an order in which each can be applied.
    pub(crate) fn signed(&self) -> impl Iterator<Item = &Statement> {
        self.revokes.iter().chain(&self.main)
    }
}

impl World {
    /// The first members come up with the same list.
    pub(crate) fn begin_members(&mut self) {
        let mut records: Vec<Record> = self.admins[0].signed().map(Record::from).collect();
        for machine in self.machines.iter().take(self.plan.members) {
            let body = ReportBody {
                boot_nonce: BootNonce([0; 16]),
                seq: 0,
                heads: Heads([0; 32]),
                count: 0,
                charter: self.org.genesis.id(),
                tips: Vec::new(),
                version: String::new(),
                endpoints: vec![machine.endpoint],
            };
            records
                .push(Record::from(&Report::sign(&self.org.id, &machine.keys.node, body).expect("a report")));
        }
        for signed in self.admins[0].signed() {
            self.oracle.signed(signed);
        }
        for machine in 0..self.plan.members {
            let replica = self.replica_of(&records).expect("the first list");
            self.start(machine, Some(replica));
        }
        for _ in 0..self.plan.hostile {
            // The first one is a gateway that everybody can count on.
            let machine = self.rng.random_range(1..self.plan.members);
            self.machines[machine].hostility = Some(Hostility::draw(&mut self.rng));
        }
        self.totals.hostile += self.machines.iter().filter(|machine| !machine.is_honest()).count() as u64;
    }

    fn replica_of(&self, records: &[Record]) -> Result<Replica, String> {
        let mut replica = Replica::new(&self.org.genesis).map_err(|why| format!("{why:?}"))?;
        for record in records {
            replica.apply(record).map_err(|why| why.to_string())?;
        }
        Ok(replica)
    }

    pub(crate) fn schedule_work(&mut self) {
        let end = self.faults_end;
        let plan = (self.plan.changes, self.plan.traffic, self.plan.probes);
        for _ in 0..plan.0 {
            let when = self.rng.random_range(SECOND..end);
            self.at(when, Event::Work(Work::Change));
        }
        for _ in 0..plan.1 {
            let when = self.rng.random_range(SECOND..end + 20 * SECOND);
            self.at(when, Event::Work(Work::Traffic));
        }
        for _ in 0..plan.2 {
            let when = self.rng.random_range(SECOND..end + 20 * SECOND);
            self.at(when, Event::Work(Work::Handshake));
        }
    }

    pub(crate) fn work(&mut self, work: Work) {
        match work {
            Work::Change => self.change(),
            Work::Errand(machine, errand) => self.go(machine, errand),
            Work::Handshake => self.shake_some_hands(),
            Work::Revoke(admin, node) => self.revoke(admin, node),
            Work::Submit(admin) => self.submit(admin),
            Work::Traffic => self.traffic(),
        }
    }

    fn change(&mut self) {
        let admin = self.rng.random_range(0..self.admins.len());
        let waiting = self.waiting_outside();
        let kind = self.rng.random_range(0..10);
        match kind {
            0..=3 if !waiting.is_empty() => self.invite(admin, &waiting),
            4 if self.oracle.invites.len() > 1 => self.cancel(admin),
            5 => self.leave(),
            6 if !waiting.is_empty() && self.rng.random_bool(0.2) => {
                let node = self.machines[waiting[0]].node;
                self.revoke_by_enough(node);
            }
            _ => {
                let may_go = self.may_go();
                if !may_go.is_empty() {
                    let machine = may_go[self.rng.random_range(0..may_go.len())];
                    self.revoke_by_enough(self.machines[machine].node);
                }
            }
        }
        if self.rng.random_bool(0.5) {
            self.ask_something();
        }
    }

    /// Machines that have not been invited.
    fn waiting_outside(&self) -> Vec<Party> {
        (self.plan.members..self.machines.len())
            .filter(|machine| matches!(self.machines[*machine].phase, Phase::Outside))
            .filter(|machine| !self.oracle.invited.contains(machine))
            .collect()
    }

    /// Members that the org can do without; some always stay.
    fn may_go(&self) -> Vec<Party> {
        let gone = self.machines.iter().filter(|machine| self.oracle.has_gone(&machine.node)).count();
        if gone * 3 >= self.machines.len() {
            return Vec::new();
        }
        let is_member = |machine: &Machine| !matches!(machine.phase, Phase::Outside | Phase::Gone);
        (1..self.machines.len())
            .filter(|machine| is_member(&self.machines[*machine]))
            .filter(|machine| !self.oracle.has_gone(&self.machines[*machine].node))
            .collect()
    }

    fn invite(&mut self, admin: usize, waiting: &[Party]) {
        let number = self.oracle.invites.len();
        let gateways: Vec<Party> = (0..self.plan.gateways)
            .filter(|gateway| !self.oracle.has_gone(&self.machines[*gateway].node))
            .collect();
        let gateway = gateways[self.rng.random_range(0..gateways.len())];
        let redeemer = self.machines[gateway].keys.gateway().expect("a gateway").public();
        let uses = self.rng.random_range(1..=3);
        let secret = key_of(self.seed, &format!("invite {number}"));
        // A date decides nothing for those who hold to the design: the redeemer's advice is left out.
        let expires_unix_s = if self.sabotage == Some(Sabotage::ClocksDecide) { 1_790_000_000 } else { 0 };
        let invite = Invite {
            key: secret.public(),
            uses,
            redeemer,
            labels: Vec::new(),
            expires_unix_s,
            approval: false,
            note: String::new(),
        };
        let id = self.sign(admin, &Payload::from(invite));
        self.oracle.invites.insert(id, (uses, redeemer));
        // One too many comes now and then.
        for machine in waiting.iter().take(uses as usize + 1) {
            self.oracle.invited.insert(*machine);
            let wait = self.rng.random_range(SECOND..10 * SECOND);
            let errand = Errand::Enrol { invite: id, secret: number, tries: 0 };
            self.after(wait, Event::Work(Work::Errand(*machine, errand)));
        }
    }

    fn cancel(&mut self, admin: usize) {
        let ids: Vec<StatementId> = self.oracle.invites.keys().copied().collect();
        let invite = ids[self.rng.random_range(0..ids.len())];
        let redeemer = self.oracle.invites[&invite].1;
        // What the redeemer signed up to here still counts; without it nobody's admission would.
        let machines: Vec<Party> = self.up().collect();
        let machine = machines[self.rng.random_range(0..machines.len())];
        let tip = self.machines[machine].running().and_then(|running| {
            let tips = running.state.replica().tips();
            tips.into_iter().find(|tip| tip.author == redeemer && tip.lane == Lane::Main).map(|tip| tip.id)
        });
        self.sign(admin, &Payload::Cancel(Cancel { invite, tip }));
        self.oracle.cancelled.insert(invite);
    }

    fn leave(&mut self) {
        let may_go: Vec<Party> = self
            .may_go()
            .into_iter()
            .filter(|m| *m >= self.plan.gateways && self.machines[*m].is_honest())
            .collect();
        if may_go.is_empty() {
            return;
        }
        let machine = may_go[self.rng.random_range(0..may_go.len())];
        if self.machines[machine].running().is_none() {
            return;
        }
        self.oracle.leaving.insert(self.machines[machine].node);
        let (reply, answer) = oneshot::channel();
        self.submissions.push(Submission { machine, asked: Asked::Leave, answer, was_outcast: false });
        self.totals.leaves += 1;
        self.step(machine, |state, now| state.on_request(Ask::Leave {}, reply, now));
    }

    fn revoke_by_enough(&mut self, node: PublicKey) {
        let admins = self.admins.len();
        let first = self.rng.random_range(0..admins);
        self.revoke(first, node);
        if self.plan.threshold > 1 && self.rng.random_bool(0.9) {
            let second = (first + 1) % admins;
            let wait = self.rng.random_range(0..10 * SECOND);
            self.after(wait, Event::Work(Work::Revoke(second, node)));
        }
    }

    fn revoke(&mut self, admin: usize, node: PublicKey) {
        let by = self.admins[admin].key.public();
        if self.oracle.revokes.entry(node).or_default().insert(by) {
            let revoke = Revoke { node, reason: Reason::Stolen, note: String::new() };
            self.sign(admin, &Payload::Revoke(revoke));
            self.totals.revokes += 1;
        }
    }

    /// An admin signs and hands it in.
    pub(crate) fn sign(&mut self, admin: usize, payload: &Payload) -> StatementId {
        let statement = self.admins[admin].sign(&self.org, payload);
        self.oracle.signed(&statement);
        self.totals.statements += 1;
        self.trace.note(self.now, "sign", [admin, 0], statement.id().as_bytes(), || {
            format!("{} {}", payload.kind(), statement.id().short())
        });
        self.submit(admin);
        statement.id()
    }

    /// To a machine of the admin's choice: all that it lacks.
    pub(crate) fn submit(&mut self, admin: usize) {
        if self.admins[admin].unacknowledged.is_empty() {
            return;
        }
        let honest: Vec<Party> = if self.is_calm {
            self.faithful()
        } else {
            self.up().filter(|machine| self.machines[*machine].is_honest()).collect()
        };
        self.after(4 * SECOND, Event::Work(Work::Submit(admin)));
        if honest.is_empty() {
            return;
        }
        let machine = honest[self.rng.random_range(0..honest.len())];
        let Some(running) = self.machines[machine].running() else { return };
        let replica = running.state.replica();
        let unacknowledged = &self.admins[admin].unacknowledged;
        let lacks = |statement: &&Statement| {
            replica.statement(&statement.id()).is_none() || unacknowledged.contains(&statement.id())
        };
        let lacking: Vec<&Statement> = self.admins[admin].signed().filter(lacks).collect();
        let ids: Vec<StatementId> = lacking.iter().map(|statement| statement.id()).collect();
        let records: Vec<Record> = lacking.iter().map(|statement| Record::from(*statement)).collect();
        if self.rng.random_bool(0.25) {
            let device = self.machines.len() + admin;
            let take = records.len().min(25);
            return self.go(device, Errand::Submit(records.into_iter().take(take).collect()));
        }
        let batches = Records::batches(records, 60_000).map(Into::into).collect();
        let (reply, answer) = oneshot::channel();
        let was_outcast = self.is_outcast(machine);
        self.submissions.push(Submission { machine, asked: Asked::Submit(admin, ids), answer, was_outcast });
        self.step(machine, |state, now| state.on_request(Ask::Submit { records: batches }, reply, now));
    }

    /// An admin who sees that few machines have applied a change hands it in elsewhere: it may have been
    /// taken by one that another change has removed since, that hears of others only through hostile ones,
    /// or whose disk has lost it.
    pub(crate) fn hand_in_again(&mut self) {
        let lost = self.lost_changes();
        for (admin, lost) in self.admins.iter_mut().zip(lost) {
            admin.unacknowledged.extend(lost);
        }
        for admin in 0..self.admins.len() {
            self.after(0, Event::Work(Work::Submit(admin)));
        }
    }

    /// Such changes, of each admin, as the first gateway shows them to be missing.
    pub(crate) fn lost_changes(&self) -> Vec<Vec<StatementId>> {
        let Some(gateway) = self.machines[0].running() else { return Vec::new() };
        let replica = gateway.state.replica();
        let may_be_lost = |id: &StatementId| {
            let taken_by = self.oracle.taken_by.get(id);
            self.may_lose_changes() || taken_by.is_some_and(|machine| self.is_outcast(*machine))
        };
        let lost = self.admins.iter().map(|admin| {
            let lacking = admin.signed().map(|signed| signed.id());
            let lacking = lacking.filter(|id| replica.statement(id).is_none() && may_be_lost(id));
            lacking.filter(|id| !admin.unacknowledged.contains(id)).collect()
        });
        lost.collect()
    }

    /// Programs hear what a machine answers them.
    pub(crate) fn hear_answers(&mut self, machine: Party) {
        let waiting = std::mem::take(&mut self.submissions);
        for mut submission in waiting {
            if submission.machine != machine {
                self.submissions.push(submission);
                continue;
            }
            match submission.answer.try_recv() {
                Ok(Answer::Submitted(done)) => {
                    // What one machine alone has is handed in at another one, too; and so is, once people
                    // read coverage, what was taken by one that is in contact only with others like it.
                    let is_told = (done.told > 0 || done.others == 0) && !submission.was_outcast;
                    self.totals.parted += u64::from(done.removed);
                    if let Asked::Submit(admin, ids) = submission.asked {
                        if !done.removed {
                            self.oracle.taken_by.extend(ids.iter().map(|id| (*id, machine)));
                        }
                        self.acknowledge(machine, Some(admin).filter(|_| is_told), &ids);
                    }
                }
                Ok(Answer::Failed(failed)) => {
                    self.totals.unheard += u64::from(failed.code.0 == Code::ChangeUnheard);
                    if matches!(submission.asked, Asked::Leave) {
                        self.trace.remark(self.now, || format!("{machine} does not leave: {failed:?}"));
                    }
                }
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.submissions.push(submission),
            }
        }
    }

    fn acknowledge(&mut self, machine: Party, admin: Option<usize>, ids: &[StatementId]) {
        self.machines[machine].memory.acknowledged.extend(ids);
        // What a machine took that is cut off from the others has to be handed in again.
        let counts = !self.is_calm || self.faithful().contains(&machine);
        if let Some(admin) = admin.filter(|_| counts) {
            self.admins[admin].unacknowledged.retain(|id| !ids.contains(id));
        }
        self.totals.acknowledged += ids.len() as u64;
        self.check_acknowledged(machine);
    }

    /// Whether others know already that a machine is none of the org.
    fn is_outcast(&self, machine: Party) -> bool {
        let node = self.machines[machine].node;
        let knows = |other: Party| {
            let running = self.machines[other].running();
            running.is_some_and(|running| {
                let roster = running.state.replica().roster();
                !roster.get(&node).is_some_and(member_crdt::Member::is_good)
            })
        };
        self.up().any(|other| other != machine && knows(other))
    }

    /// Whether a machine keeps in step with anybody.
    fn is_in_contact(&self, machine: Party) -> bool {
        let is_open = |session: &Session| session.purpose == Purpose::Sync && !session.is_cut();
        let running = self.machines[machine].running();
        running.is_some_and(|running| running.state.sessions().iter().any(|(_, session)| is_open(session)))
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = Party> {
        (0..self.machines.len()).filter(|machine| self.machines[*machine].running().is_some())
    }

    fn ask_something(&mut self) {
        let machines: Vec<Party> = self.up().collect();
        if machines.is_empty() {
            return;
        }
        let machine = machines[self.rng.random_range(0..machines.len())];
        let changes: Vec<StatementId> = self.oracle.statements.iter().copied().collect();
        let change = changes[self.rng.random_range(0..changes.len())];
        let asks = [
            Ask::Status {},
            Ask::Members {},
            Ask::Sessions {},
            Ask::Invites {},
            Ask::Coverage { change: Text(change) },
        ];
        for ask in asks {
            let (reply, mut answer) = oneshot::channel();
            self.step(machine, |state, now| state.on_request(ask, reply, now));
            if let Ok(Answer::Coverage(coverage)) = answer.try_recv() {
                self.check_coverage(machine, change, &coverage);
            }
        }
    }

    pub(crate) fn ask_status(&mut self, machine: Party) {
        let (reply, mut answer) = oneshot::channel();
        self.step(machine, |state, now| state.on_request(Ask::Status {}, reply, now));
        if let Ok(Answer::Status(status)) = answer.try_recv() {
            self.check_status(&status.problems);
        }
    }

    fn traffic(&mut self) {
        let machines: Vec<Party> = self.up().collect();
        if machines.len() < 2 {
            return;
        }
        for _ in 0..4 {
            let from = machines[self.rng.random_range(0..machines.len())];
            let to = machines[self.rng.random_range(0..machines.len())];
            if from != to {
                self.packet(from, to);
            }
        }
    }

    /// One packet of an application.
    pub(crate) fn packet(&mut self, from: Party, to: Party) {
        let (here, there) = (self.machines[from].wireguard, self.machines[to].wireguard);
        let Some(running) = self.machines[from].running() else { return };
        if !running.gates.contains(&there) {
            if running.peers.contains_key(&there) {
                self.step(from, |state, now| {
                    state.on_tunnel(musterd::tunnel::TunnelEvent::WantLink(there), now);
                });
            }
            return;
        }
        let arrives = !self.network.is_blocked(from, to)
            && self.machines[to].running().is_some_and(|running| running.gates.contains(&here));
        if arrives {
            self.totals.packets += 1;
            self.trace.note(self.now, "packet", [from, to], &[], String::new);
            self.check_packet(from, to);
        }
    }

    fn shake_some_hands(&mut self) {
        let machines: Vec<Party> = self.up().collect();
        for _ in 0..4 {
            let Some(&at) = machines.get(self.rng.random_range(0..machines.len().max(1))) else { return };
            let by = self.rng.random_range(0..self.machines.len());
            let action = ["link", "ping", "sync"][self.rng.random_range(0..3)];
            self.shake_hands(by, at, action);
        }
    }

    /// A whole handshake in a tunnel that is taken for granted: what the acceptor's list says decides.
    /// The dialler lies that it holds what the acceptor holds.
    pub(crate) fn shake_hands(&mut self, by: Party, at: Party, action: &str) -> Option<Result<(), Code>> {
        if by == at {
            return None;
        }
        let running = self.machines[at].running()?;
        let (heads, count) = (running.state.replica().heads(), running.state.replica().count());
        let in_step = running.state.is_in_step();
        let (client, server) = (&self.machines[by], &self.machines[at]);
        let binding = Binding::WireGuard { client: client.wireguard, server: server.wireguard };
        let named = Action::new(action, &[]).expect("a known action");
        let (dialler, acceptor) = (&client.keys.node, &server.keys.node);
        let dial = Dial { org: self.org.id, key: dialler, to: To::Key(server.node), binding, action: named };
        let dial = dial.start(self.rng.random()).expect("another machine");
        let accept = Accept { org: self.org.id, key: acceptor, binding };
        let pending = accept.on_hello(dial.hello().as_bytes(), self.rng.random()).expect("a hello");
        let wait = dial.on_challenge(pending.challenge().as_bytes()).expect("a server").prove(heads, count);
        let proven = pending.on_proof(wait.proof().as_bytes()).expect("a proof");
        let source = identity::overlay_address(&self.org.id, &self.machines[by].node);
        let (reply, mut decided) = oneshot::channel();
        self.totals.handshakes += 1;
        self.step(at, |state, now| state.on_proven(Proven { proven, source, reply }, now));
        let outcome = match decided.try_recv() {
            Ok(Decision::Open { verdict, key, .. }) => {
                assert!(wait.on_verdict(verdict.unwrap_or_default().as_bytes()).is_ok(), "a verdict");
                self.step(at, |state, now| state.on_ended(key, now));
                Ok(())
            }
            Ok(Decision::Refuse { code, .. }) => {
                self.totals.refused += 1;
                Err(code)
            }
            Err(_) => return None,
        };
        self.trace.note(self.now, "shake", [by, at], &[u8::from(outcome.is_ok())], || {
            format!("{action} {outcome:?}")
        });
        self.check_handshake(by, at, outcome, in_step);
        Some(outcome)
    }

    /// A party outside dials a gateway.
    fn go(&mut self, party: Party, errand: Errand) {
        let gateway = match &errand {
            Errand::Enrol { invite, .. } => {
                let redeemer = self.oracle.invites[invite].1;
                (0..self.plan.gateways)
                    .find(|g| self.machines[*g].keys.gateway().is_some_and(|key| key.public() == redeemer))
            }
            Errand::Boot { .. } | Errand::Submit(_) => {
                // A machine without its list may find the gateways without theirs.
                let serves = |gateway: &Party| {
                    !matches!(errand, Errand::Boot { .. }) || self.machines[*gateway].running().is_some()
                };
                let others: Vec<Party> =
                    (0..self.plan.gateways).filter(|other| *other != party).filter(serves).collect();
                (!others.is_empty()).then(|| others[self.rng.random_range(0..others.len())])
            }
        };
        let Some(gateway) = gateway else { return self.copy_list(party) };
        let key: &'static SecretKey = match (&errand, self.machines.get(party)) {
            (Errand::Enrol { .. }, Some(machine)) if matches!(machine.phase, Phase::Outside) => {
                &machine.keys.node
            }
            (Errand::Boot { .. }, Some(machine)) => &machine.keys.boot,
            (Errand::Submit(_), None) => self.admins[party - self.machines.len()].key,
            (Errand::Enrol { .. } | Errand::Boot { .. } | Errand::Submit(_), _) => return,
        };
        let exporter: [u8; 32] = self.rng.random();
        let action = Action::new(errand.action(), &[]).expect("a known action");
        let to = To::AnyOf(self.org.gateways);
        let dial = Dial { org: self.org.id, key, to, binding: Binding::Tls(exporter), action };
        let pending = dial.start(self.rng.random()).expect("a gateway");
        let hello = pending.hello().as_bytes().to_vec();
        let stage = Stage::Client(Box::new(ClientStage::Challenge(pending, errand)));
        let front = Stage::Front { has_begun: false };
        let ends = [End::new(party, stage), End::new(gateway, front)];
        let connection = self.connect(ends, Some(exporter), 10 * SECOND);
        self.totals.dials += 1;
        self.send(connection, DIALLER, Message::Line(hello));
        self.after(20 * SECOND, Event::GiveUp { connection, side: DIALLER });
    }

    /// The only gateway has lost its disk: its operator brings a copy of another machine's list.
    fn copy_list(&mut self, machine: Party) {
        let from = self.up().find(|other| self.machines[*other].is_honest() && *other != machine);
        let Some(running) = from.and_then(|from| self.machines[from].running()) else {
            let errand = Errand::Boot { tries: 0 };
            return self.after(SECOND, Event::Work(Work::Errand(machine, errand)));
        };
        let records: Vec<Record> = running.state.replica().records().collect();
        self.joins(machine, machine, &records, Errand::Boot { tries: 0 });
    }

    pub(crate) fn client_hears(&mut self, connection: ConnectionId, stage: ClientStage, message: Message) {
        let (Some(party), Some(gateway)) =
            (self.party(connection, DIALLER), self.party(connection, ACCEPTOR))
        else {
            return;
        };
        let next = match (stage, message) {
            (ClientStage::Challenge(pending, errand), Message::Line(line)) => {
                match pending.on_challenge(&line) {
                    Ok(proven) => {
                        let wait = proven.prove(Heads([0; 32]), 0);
                        let proof = wait.proof().as_bytes().to_vec();
                        self.send(connection, DIALLER, Message::Line(proof));
                        Ok(ClientStage::Verdict(wait, errand))
                    }
                    Err(why) => Err((errand, Answered::Refused(why.code()))),
                }
            }
            (ClientStage::Verdict(wait, errand), Message::Line(line)) => match wait.on_verdict(&line) {
                Ok(accepted) => {
                    let request = self.request(party, &errand).encode();
                    self.send(connection, DIALLER, Message::Frame(request));
                    Ok(ClientStage::Replies(accepted, errand, Vec::new()))
                }
                Err(why) => Err((errand, Answered::Refused(why.code()))),
            },
            (ClientStage::Replies(accepted, errand, mut replies), Message::Frame(frame)) => {
                replies.extend(Reply::decode(&frame));
                Ok(ClientStage::Replies(accepted, errand, replies))
            }
            (ClientStage::Replies(_, errand, replies), Message::Close(None)) => {
                Err((errand, Answered::Replies(replies)))
            }
            (ClientStage::Replies(_, errand, _), Message::Close(Some(code))) => {
                Err((errand, Answered::Refused(code)))
            }
            (ClientStage::Challenge(_, errand) | ClientStage::Verdict(_, errand), _) => {
                Err((errand, Answered::Nothing))
            }
            (stage @ ClientStage::Replies(..), Message::Line(_)) => Ok(stage),
        };
        match next {
            Ok(stage) => self.set_stage(connection, DIALLER, Stage::Client(Box::new(stage))),
            Err((errand, answered)) => {
                self.send(connection, DIALLER, Message::Close(None));
                self.finish(connection, DIALLER);
                self.answered(party, gateway, errand, answered);
            }
        }
    }

    pub(crate) fn client_fails(&mut self, party: Party, stage: ClientStage) {
        let (ClientStage::Challenge(_, errand)
        | ClientStage::Verdict(_, errand)
        | ClientStage::Replies(_, errand, _)) = stage;
        self.answered(party, party, errand, Answered::Nothing);
    }

    fn request(&self, party: Party, errand: &Errand) -> Request {
        match errand {
            Errand::Enrol { invite, secret, .. } => {
                let machine = &self.machines[party];
                let key = key_of(self.seed, &format!("invite {secret}"));
                let redemption =
                    Redemption { invite: *invite, key: &key, redeemer: self.oracle.invites[invite].1 };
                let name = machine.name.clone();
                let keys = machine.keys.all();
                Request::Enrol(
                    EnrolRequest::sign(&self.org.id, keys, redemption, name, Assurance::File, [0; 32])
                        .encode(),
                )
            }
            Errand::Boot { .. } => Request::Boot { charter: self.org.genesis.id(), floor: 0 },
            Errand::Submit(records) => Request::Submit(records.clone()),
        }
    }

    /// An errand is over.
    fn answered(&mut self, party: Party, gateway: Party, errand: Errand, answered: Answered) {
        self.trace.note(self.now, "errand", [party, gateway], &[], || {
            let words = match &answered {
                Answered::Replies(replies) => format!(
                    "{} replies, first {:?}",
                    replies.len(),
                    replies.first().map(|reply| match reply {
                        Reply::Refused(code) => format!("refused {code}"),
                        Reply::Admitted(_) => "admitted".to_owned(),
                        Reply::Records(records) => format!("{} records", records.len()),
                        Reply::End { .. } => "end".to_owned(),
                        Reply::Submitted(outcomes) => format!("{outcomes:?}"),
                    })
                ),
                Answered::Nothing => "nothing".to_owned(),
                Answered::Refused(code) => format!("refused {code}"),
            };
            format!("{} {words}", errand.action())
        });
        let code = match &answered {
            Answered::Refused(code) => Some(*code),
            Answered::Replies(replies) => replies.iter().find_map(|reply| match reply {
                Reply::Refused(code) => Some(*code),
                Reply::Admitted(_) | Reply::Records(_) | Reply::End { .. } | Reply::Submitted(_) => None,
            }),
            Answered::Nothing => None,
        };
        let list = match &answered {
            Answered::Replies(replies) if matches!(replies.last(), Some(Reply::End { .. })) => {
                Some(listed(replies))
            }
            Answered::Replies(_) | Answered::Nothing | Answered::Refused(_) => None,
        };
        match errand {
            Errand::Submit(records) => {
                let taken = matches!(&answered, Answered::Replies(replies)
                    if matches!(replies.first(), Some(Reply::Submitted(outcomes))
                        if outcomes.iter().all(|o| !matches!(o, org_trust::Outcome::Refused(_)))));
                if taken {
                    let ids: Vec<StatementId> =
                        records.iter().map(|record| StatementId(record.id())).collect();
                    // A gateway does not say whom it told; coverage, which an admin then reads, does.
                    let is_told = self.is_in_contact(gateway) && !self.is_outcast(gateway);
                    self.oracle.taken_by.extend(ids.iter().map(|id| (*id, gateway)));
                    let admin = Some(party - self.machines.len()).filter(|_| is_told);
                    self.acknowledge(gateway, admin, &ids);
                }
            }
            Errand::Enrol { invite, secret, tries } => match (list, code) {
                (Some(records), _) => {
                    let again = Errand::Enrol { invite, secret, tries: tries + 1 };
                    self.joins(party, gateway, &records, again);
                }
                (None, Some(code)) if is_final(code) => self.totals.turned_away += 1,
                (None, _) if tries < 20 => {
                    let wait = self.rng.random_range(SECOND..5 * SECOND);
                    let errand = Errand::Enrol { invite, secret, tries: tries + 1 };
                    self.after(wait, Event::Work(Work::Errand(party, errand)));
                }
                (None, _) => {}
            },
            Errand::Boot { tries } => match (list, code) {
                (Some(records), _) if matches!(self.machines[party].phase, Phase::Damaged) => {
                    self.joins(party, gateway, &records, Errand::Boot { tries: tries + 1 });
                }
                (None, Some(Code::Revoked | Code::Left | Code::UnknownKey)) => {
                    self.machines[party].phase = Phase::Gone;
                }
                (None, _) if tries < 40 => {
                    let wait = self.rng.random_range(SECOND..5 * SECOND);
                    self.after(wait, Event::Work(Work::Errand(party, Errand::Boot { tries: tries + 1 })));
                }
                (Some(_) | None, _) => {}
            },
        }
    }

    fn joins(&mut self, machine: Party, gateway: Party, records: &[Record], again: Errand) {
        match self.replica_of(records) {
            Ok(replica) if replica.roster().get(&self.machines[machine].node).is_some() => {
                self.totals.joined += 1;
                self.start(machine, Some(replica));
            }
            Ok(_) => self.machines[machine].phase = Phase::Gone,
            // What a hostile gateway gives does not hold, and another try may meet another one.
            Err(_) if !self.machines[gateway].is_honest() => {
                self.after(5 * SECOND, Event::Work(Work::Errand(machine, again)));
            }
            Err(why) => self.hold_list_given(machine, &why),
        }
    }
}

/// Records of an answer, in their order, without the first settings.
fn listed(replies: &[Reply]) -> Vec<Record> {
    let mut records = Vec::new();
    for reply in replies {
        match reply {
            Reply::Records(more) => records.extend(more.iter().cloned()),
            Reply::Admitted(_) | Reply::End { .. } | Reply::Submitted(_) | Reply::Refused(_) => {}
        }
    }
    records
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InviteUsedUp
            | Code::InviteCancelled
            | Code::InviteExpired
            | Code::Revoked
            | Code::EnrolKeyTaken
            | Code::Left
            | Code::KeyConflict
    )
}

impl Admin {
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.unacknowledged.is_empty()
    }
}

impl World {
    /// Somebody has an admin's key and admits a machine with it, and no admin knows.
    pub(crate) fn steal_a_key(&mut self) {
        let thief = Machine::new(self.seed, 99, false);
        let admin = &mut self.admins[0];
        let admit =
            Admit::by_admin(&self.org.id, thief.keys.all(), admin.key.public(), thief.name, Assurance::File);
        admin.sign(&self.org, &Payload::from(admit));
        self.after(SECOND, Event::Work(Work::Submit(0)));
    }
}
