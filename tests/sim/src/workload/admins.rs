//! Admins and their devices: what they sign, and how it gets to the machines.

use control::local::{Answer, Request as Ask};
use identity::{CharterId, Code, Name, PublicKey, SecretKey, StatementId};
use musterd::{
    sessions::{Purpose, Session},
    state::State,
};
use org_trust::{
    Admit, Assurance, CaState, Charter, CharterChain, Gateway, Lane, Payload, Place, Record, Records,
    Statement, TlsCa, UnverifiedCharter, VerifiedCharter,
};
use rand::RngExt as _;
use tokio::sync::oneshot;

use crate::{
    client::Errand,
    machine::{Machine, Org, key_of},
    network::Party,
    plan::Plan,
    workload::Work,
    world::{Event, SECOND, World},
};

/// An admin's device: it keeps what it signed before anybody hears of it.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) key: &'static SecretKey,
    /// The settings that first named the key.
    named: CharterId,
    main: Vec<Statement>,
    revokes: Vec<Statement>,
    /// Beside others of the same lane and number: forks.
    beside: Vec<Statement>,
    unacknowledged: Vec<StatementId>,
    pub(crate) is_removed: bool,
    /// Somebody else's, who has the key.
    pub(crate) is_thief: bool,
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
pub(crate) enum Asked {
    /// A machine's own affair.
    Nothing,
    /// Of a machine that is to be a gateway.
    Role,
    /// Settings up to this version.
    Settings(u32),
    Submit(usize, Vec<StatementId>),
}

/// The org's first settings, its admins, and their first changes: the members.
pub(crate) fn found(seed: u64, plan: &Plan, machines: &[Machine]) -> (Org, Vec<Admin>) {
    let root = key_of(seed, "root");
    let name = |text: &str| Name::parse(text).expect("a name");
    let mut charter = Charter::genesis(name("acme"), 1, vec![root.public()], [7; 16]);
    for number in 0..plan.admins {
        let key = key_of(seed, &format!("admin {number}")).public();
        charter.admins.push(org_trust::Admin { key, name: name(&format!("ada{number}")) });
    }
    charter.revoke_threshold = plan.threshold;
    // Nobody looks into it here; that it is there is what is asked.
    charter.tls_cas.push(TlsCa { state: CaState::Active, certificate: vec![1] });
    for machine in machines {
        if let Some(key) = machine.role_key() {
            charter.gateways.push(Gateway { key: key.public(), node: machine.node });
        }
    }
    let gateways: Vec<PublicKey> = charter.gateways.iter().map(|gateway| gateway.key).collect();
    let genesis =
        UnverifiedCharter::sign(charter, &[&root]).expect("settings").verify_genesis().expect("first");
    let chain = CharterChain::start(genesis).expect("settings");
    let org = Org { id: chain.org(), chain, root, gateways: Vec::leak(gateways) };
    let mut admins: Vec<Admin> =
        (0..plan.admins).map(|number| Admin::new(key_of(seed, &format!("admin {number}")), &org)).collect();
    for machine in machines.iter().take(plan.members) {
        let by = admins[0].key.public();
        let admit = Admit::by_admin(&org.id, machine.keys.all(), by, machine.name.clone(), Assurance::File);
        admins[0].sign(&org, &Payload::from(admit));
    }
    admins[0].unacknowledged.clear();
    (org, admins)
}

impl Admin {
    /// One that the newest settings name.
    pub(crate) fn new(key: SecretKey, org: &Org) -> Self {
        Self {
            key: Box::leak(Box::new(key)),
            named: org.chain.head().id(),
            main: Vec::new(),
            revokes: Vec::new(),
            beside: Vec::new(),
            unacknowledged: Vec::new(),
            is_removed: false,
            is_thief: false,
        }
    }

    pub(crate) fn named_by(self, named: CharterId) -> Self {
        Self { named, ..self }
    }

    /// A thief's, who found this on the device.
    pub(crate) fn copied(&self) -> Self {
        Self { is_thief: true, unacknowledged: Vec::new(), ..self.clone() }
    }

    /// A thief's, who has the key of a gateway and goes on from what it last signed.
    pub(crate) fn of_gateway(key: SecretKey, named: CharterId, last: Option<Statement>, org: &Org) -> Self {
        Self { named, main: last.into_iter().collect(), is_thief: true, ..Self::new(key, org) }
    }

    pub(crate) fn sign(&mut self, org: &Org, payload: &Payload) -> Statement {
        let lane = payload.lane();
        // A thief goes back to the newest settings that name the key.
        let key = self.key.public();
        let names = |charter: &&VerifiedCharter| {
            let charter = charter.charter();
            charter.admin(&key).is_some() || charter.gateway(&key).is_some()
        };
        let charter = org.chain.iter().filter(names).last().map_or(self.named, VerifiedCharter::id);
        let first = Place { charter, lane, seq: 0, prev: self.named.0 };
        let chain = if lane == Lane::Main { &mut self.main } else { &mut self.revokes };
        let place = chain.last().map_or(first, |last| last.next_place(charter));
        let statement = Statement::sign(&org.id, self.key, place, payload).expect("a change");
        chain.push(statement.clone());
        self.unacknowledged.push(statement.id());
        statement
    }

    /// The same at a place that is taken; none if none is.
    pub(crate) fn sign_beside(&mut self, org: &Org, payload: &Payload) -> Option<Statement> {
        let chain = if payload.lane() == Lane::Main { &self.main } else { &self.revokes };
        let place = *chain.last()?.place();
        let statement = Statement::sign(&org.id, self.key, place, payload).expect("a change");
        self.beside.push(statement.clone());
        self.unacknowledged.push(statement.id());
        Some(statement)
    }

    /// All that it signed, in an order in which each can be applied.
    pub(crate) fn signed(&self) -> impl Iterator<Item = &Statement> {
        self.revokes.iter().chain(&self.main).chain(&self.beside)
    }

    /// The ends of its lanes.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &Statement> {
        self.revokes.last().into_iter().chain(self.main.last())
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        !self.unacknowledged.is_empty() && !self.is_thief
    }

    pub(crate) const fn may_sign(&self) -> bool {
        !self.is_thief && !self.is_removed
    }
}

impl World {
    /// One of the admins there are.
    pub(crate) fn an_admin(&mut self) -> usize {
        let admins: Vec<usize> = self.honest_admins().collect();
        admins[self.rng.random_range(0..admins.len())]
    }

    pub(crate) fn honest_admins(&self) -> impl Iterator<Item = usize> {
        (0..self.admins.len()).filter(|admin| self.admins[*admin].may_sign())
    }

    /// An admin signs and hands it in.
    pub(crate) fn sign(&mut self, admin: usize, payload: &Payload) -> StatementId {
        let statement = self.admins[admin].sign(&self.org, payload);
        self.was_signed(admin, &statement);
        self.submit(admin);
        statement.id()
    }

    pub(crate) fn was_signed(&mut self, admin: usize, statement: &Statement) {
        if self.admins[admin].is_thief {
            self.oracle.stolen.insert(statement.id());
        } else {
            self.oracle.signed(statement);
        }
        self.totals.statements += 1;
        self.trace.note(self.now, "sign", [admin, 0], statement.id().as_bytes(), || {
            let thief = if self.admins[admin].is_thief { "thief: " } else { "" };
            let of = match statement.payload() {
                Payload::Revoke(revoke) => self.oracle.nodes.get(&revoke.node),
                Payload::Suspend(suspend) => self.oracle.nodes.get(&suspend.node),
                Payload::Resume(resume) => self.oracle.nodes.get(&resume.node),
                Payload::Admit(_)
                | Payload::Invite(_)
                | Payload::Cancel(_)
                | Payload::Leave
                | Payload::Assign(_)
                | Payload::Rotate(_)
                | Payload::Retire(_)
                | Payload::Cosign(_)
                | Payload::Policy(_) => None,
            };
            let of = of.map(|number| format!(" of {number}")).unwrap_or_default();
            format!("{thief}{} {}{of}", statement.payload().kind(), statement.id().short())
        });
    }

    /// To a machine of the admin's choice: all that it lacks.
    pub(crate) fn submit(&mut self, admin: usize) {
        if self.admins[admin].unacknowledged.is_empty() || self.is_calm && self.admins[admin].is_thief {
            return;
        }
        self.after(4 * SECOND, Event::Work(Work::Submit(admin)));
        let Some(machine) = self.takes_changes(admin) else { return };
        let Some(running) = self.machines[machine].running() else { return };
        let replica = running.state.replica();
        let unacknowledged = &self.admins[admin].unacknowledged;
        let lacks = |statement: &&Statement| {
            replica.statement(&statement.id()).is_none() || unacknowledged.contains(&statement.id())
        };
        let lacking: Vec<&Statement> = self.admins[admin].signed().filter(lacks).collect();
        let ids: Vec<StatementId> = lacking.iter().map(|statement| statement.id()).collect();
        let head = replica.chain().head().id();
        let settings = self.org.chain.after(&head).map(Record::from);
        let records: Vec<Record> =
            settings.chain(lacking.iter().map(|statement| Record::from(*statement))).collect();
        let has_role = self.org.head().admin(&self.admins[admin].key.public()).is_some();
        if has_role && self.rng.random_bool(0.25) {
            let device = self.machines.len() + admin;
            let take = records.len().min(25);
            return self
                .go(device, Errand::Submit { records: records.into_iter().take(take).collect(), disk: 0 });
        }
        self.ask(machine, Asked::Submit(admin, ids), submitted(records));
    }

    /// The machine that an admin goes to. Nobody hands in at a machine that the change removes: it may
    /// keep the change to itself.
    fn takes_changes(&mut self, admin: usize) -> Option<Party> {
        let honest: Vec<Party> = if self.is_calm {
            self.faithful()
        } else {
            self.up().filter(|machine| self.machines[*machine].is_honest()).collect()
        };
        let thief = self.admins[admin].is_thief;
        let spared: Vec<Party> =
            honest.into_iter().filter(|machine| !thief || !self.is_target(admin, *machine)).collect();
        (!spared.is_empty()).then(|| spared[self.rng.random_range(0..spared.len())])
    }

    /// A program asks a machine for something, and waits.
    pub(crate) fn ask(&mut self, machine: Party, asked: Asked, request: Ask) {
        let (reply, answer) = oneshot::channel();
        let was_outcast = self.is_outcast(machine);
        self.submissions.push(Submission { machine, asked, answer, was_outcast });
        self.step(machine, |state: &mut State, now| state.on_request(request, reply, now));
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
        let first = self.machines[0].running().map(|running| running.state.replica().chain().head().id());
        if first.is_some_and(|head| head != self.org.chain.head().id()) {
            self.settings_acknowledged = false;
            self.after(0, Event::Work(Work::Settings));
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
            let lacking = admin.signed().map(|signed| signed.id()).filter(|_| !admin.is_thief);
            let lacking = lacking.filter(|id| replica.statement(id).is_none() && may_be_lost(id));
            lacking.filter(|id| !admin.unacknowledged.contains(id)).collect()
        });
        lost.collect()
    }

    /// Whether others know already that a machine is none of the org.
    pub(crate) fn is_outcast(&self, machine: Party) -> bool {
        let node = self.machines[machine].first;
        let knows = |other: Party| {
            let running = self.machines[other].running();
            running.is_some_and(|running| {
                let roster = running.state.replica().roster();
                !roster.member_of(&node).is_some_and(|member| member.is_good() || member.is_unsettled())
            })
        };
        // At the end only those count that are members themselves.
        let others = if self.is_calm { self.faithful() } else { self.up().collect() };
        others.into_iter().any(|other| other != machine && knows(other))
    }

    /// Whether a machine keeps in step with anybody.
    pub(crate) fn is_in_contact(&self, machine: Party) -> bool {
        let is_open = |session: &Session| session.purpose == Purpose::Sync && !session.is_cut();
        let running = self.machines[machine].running();
        running.is_some_and(|running| running.state.sessions().iter().any(|(_, session)| is_open(session)))
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
                Ok(Answer::Submitted(done)) => match submission.asked {
                    Asked::Submit(admin, ids) => {
                        // What one machine alone has is handed in at another one, too; and so is, once
                        // people read coverage, what was taken by one that is in contact only with others
                        // like it.
                        let is_told = (done.told > 0 || done.others == 0) && !submission.was_outcast;
                        self.totals.parted += u64::from(done.removed);
                        if !done.removed {
                            self.oracle.taken_by.extend(ids.iter().map(|id| (*id, machine)));
                        }
                        self.acknowledge(machine, Some(admin).filter(|_| is_told), &ids);
                    }
                    Asked::Settings(version) => self.acknowledge_settings(machine, version),
                    Asked::Nothing | Asked::Role => {}
                },
                Ok(Answer::GatewayRequest(_)) => self.add_gateway(machine),
                Ok(Answer::Failed(failed)) => {
                    self.totals.unheard += u64::from(failed.code.0 == Code::ChangeUnheard);
                    self.trace.remark(self.now, || {
                        format!("{machine} does not do it: {:?} {failed:?}", submission.asked)
                    });
                }
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.submissions.push(submission),
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, machine: Party, admin: Option<usize>, ids: &[StatementId]) {
        self.machines[machine].memory.acknowledged.extend(ids);
        // What a machine took that is cut off from the others has to be handed in again.
        let counts = !self.is_calm || self.faithful().contains(&machine);
        if let Some(admin) = admin.filter(|_| counts) {
            self.admins[admin].unacknowledged.retain(|id| !ids.contains(id));
        }
        self.totals.acknowledged += ids.len() as u64;
        self.check_acknowledged(machine);
    }
}

/// What a program says that hands in.
pub(crate) fn submitted(records: Vec<Record>) -> Ask {
    Ask::Submit { records: Records::batches(records, 60_000).map(Into::into).collect() }
}
