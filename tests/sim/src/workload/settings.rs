//! New settings of the org: admins and gateways come and go, and what the latter signed counts up to
//! a cut.

use std::collections::BTreeSet;

use control::local::Request as Ask;
use identity::{Name, PublicKey, StatementId};
use org_trust::{
    CaState, Charter, Cut, Gateway, Lane, Record, Statement, UnverifiedCharter, UnverifiedStatement,
};
use rand::RngExt as _;

use crate::{
    machine::key_of,
    network::Party,
    plan::Sabotage,
    workload::{
        Work,
        admins::{Admin, Asked, submitted},
    },
    world::{Event, SECOND, World},
};

impl World {
    /// Somebody is made an admin or a gateway, or is one no longer.
    pub(crate) fn change_settings(&mut self) {
        let admins: Vec<usize> = self.honest_admins().collect();
        match self.rng.random_range(0..4) {
            0 if admins.len() < ADMINS_MAX => {
                let mut next = self.org.head().successor();
                self.add_admin(&mut next);
                self.settle_on(next);
            }
            1 if admins.len() > usize::from(self.plan.threshold) => {
                let admin = admins[self.rng.random_range(0..admins.len())];
                // Whose key is stolen is for those who know of it.
                if !self.thefts.iter().any(|theft| theft.victim == Some(admin) && !theft.is_undone) {
                    let mut next = self.org.head().successor();
                    self.remove_admin(&mut next, admin);
                    self.settle_on(next);
                }
            }
            2 => self.prepare_gateway(),
            _ => self.remove_some_gateway(),
        }
    }

    /// A new key for a new admin, or for one whose old key was stolen.
    pub(crate) fn add_admin(&mut self, next: &mut Charter) {
        let number = self.admins.len();
        let key = key_of(self.seed, &format!("admin {number}"));
        let name = format!("ada{number}");
        next.admins.push(org_trust::Admin { key: key.public(), name: Name::parse(&name).expect("a name") });
        // The settings that name it are not made yet; its first statement comes after they are.
        let admin = Admin::new(key, &self.org);
        self.new_admins.push(admin);
    }

    /// All that it signed counts for ever, and nothing that anybody signs with its key from here on.
    pub(crate) fn remove_admin(&mut self, next: &mut Charter, admin: usize) {
        let key = self.admins[admin].key.public();
        next.admins.retain(|other| other.key != key);
        let cut = |end: &Statement| Cut { key, lane: end.lane(), tip: end.id() };
        next.cuts.extend(self.admins[admin].ends().map(cut));
        self.admins[admin].is_removed = true;
    }

    /// The holder of the org's keys signs and hands in.
    pub(crate) fn settle_on(&mut self, mut next: Charter) {
        if self.sabotage == Some(Sabotage::CaIsRetired) {
            next.tls_cas.iter_mut().for_each(|ca| ca.state = CaState::Retiring);
        }
        let signed = UnverifiedCharter::sign(next, &[&self.org.root]).expect("settings");
        let id = self.org.chain.extend(signed).expect("the next settings");
        if self.sabotage != Some(Sabotage::SettingsAreForged) {
            self.oracle.settings.insert(id);
        }
        let gateways: Vec<PublicKey> = self.org.head().gateways.iter().map(|gateway| gateway.key).collect();
        self.oracle.gateways.extend(&gateways);
        self.org.gateways = Vec::leak(gateways);
        for admin in std::mem::take(&mut self.new_admins) {
            self.admins.push(admin.named_by(id));
        }
        self.totals.settings += 1;
        let version = self.org.head().version;
        self.trace.note(self.now, "settings", [0, 0], id.as_bytes(), || format!("version {version}"));
        self.settings_acknowledged = false;
        self.submit_settings();
    }

    /// To some machine, until one has them on its disk.
    pub(crate) fn submit_settings(&mut self) {
        if self.settings_acknowledged {
            return;
        }
        let machines: Vec<Party> = if self.is_calm {
            self.faithful()
        } else {
            self.up().filter(|machine| self.machines[*machine].is_honest()).collect()
        };
        self.after(4 * SECOND, Event::Work(Work::Settings));
        if machines.is_empty() {
            return;
        }
        let machine = machines[self.rng.random_range(0..machines.len())];
        self.bring_settings(machine);
    }

    pub(crate) fn bring_settings(&mut self, machine: Party) {
        let Some(running) = self.machines[machine].running() else { return };
        let held = running.state.replica().chain().head().id();
        let records: Vec<Record> = self.org.chain.after(&held).map(Record::from).collect();
        let version = self.org.head().version;
        self.ask(machine, Asked::Settings(version), submitted(records));
    }

    /// By hand: the settings, and all that admins signed, on which a cut may rest.
    pub(crate) fn bring_all(&mut self, machine: Party) {
        let settings = self.org.chain.iter().map(Record::from);
        let admins = self.admins.iter().filter(|admin| !admin.is_thief);
        let signed = admins.flat_map(|admin| admin.signed()).map(Record::from);
        let records: Vec<Record> = settings.chain(signed).collect();
        self.ask(machine, Asked::Nothing, submitted(records));
    }

    pub(crate) fn acknowledge_settings(&mut self, machine: Party, version: u32) {
        let memory = &mut self.machines[machine].memory;
        memory.settings_on_disk = memory.settings_on_disk.max(version);
        self.settings_acknowledged |= version == self.org.head().version;
    }

    /// A member is to be a gateway: its daemon makes the key.
    fn prepare_gateway(&mut self) {
        let plain = |machine: &Party| {
            let machine = &self.machines[*machine];
            machine.role.is_none() && machine.is_honest() && !machine.is_copy
        };
        let machines: Vec<Party> =
            self.up().filter(plain).filter(|machine| !self.oracle.has_gone(*machine)).collect();
        if machines.is_empty() || self.org.gateways.len() >= 4 {
            return;
        }
        let machine = machines[self.rng.random_range(0..machines.len())];
        let ask = Ask::PrepareGateway { tls_key: vec![3; 32].into(), address: "gate.example:443".to_owned() };
        self.ask(machine, Asked::Role, ask);
    }

    /// Its request is there.
    pub(crate) fn add_gateway(&mut self, machine: Party) {
        let Some(key) = self.machines[machine].role_key() else { return };
        if self.is_calm || self.oracle.has_gone(machine) || self.oracle.gateways.contains(&key.public()) {
            return;
        }
        let mut next = self.org.head().successor();
        next.gateways.push(Gateway { key: key.public(), node: self.machines[machine].node });
        self.settle_on(next);
    }

    fn remove_some_gateway(&mut self) {
        // The first one stays.
        let gateways: Vec<Party> = self.gateways().into_iter().filter(|gateway| *gateway != 0).collect();
        if gateways.is_empty() {
            return;
        }
        let gateway = gateways[self.rng.random_range(0..gateways.len())];
        let Some(key) = self.machines[gateway].role_key() else { return };
        let mut next = self.org.head().successor();
        self.remove_gateway(&mut next, key.public(), gateway, &BTreeSet::new());
        self.settle_on(next);
    }

    /// What it signed counts as far as one machine knows of it, but for these and what follows them.
    pub(crate) fn remove_gateway(
        &mut self,
        next: &mut Charter,
        key: PublicKey,
        gateway: Party,
        void: &BTreeSet<StatementId>,
    ) {
        next.gateways.retain(|other| other.key != key);
        let seen = self.seen_of(key, gateway);
        let cut = |tip: &Statement| Cut { key, lane: tip.lane(), tip: tip.id() };
        next.cuts.extend(ends(&seen, void).into_iter().map(cut));
        self.machines[gateway].role = None;
    }

    /// What a key signed, as the machine knows, or another one if that is down.
    pub(crate) fn seen_of(&mut self, key: PublicKey, machine: Party) -> Vec<Statement> {
        let others = self.up().find(|other| self.machines[*other].is_honest());
        let seer = Some(machine).filter(|machine| self.machines[*machine].running().is_some()).or(others);
        let Some(running) = seer.and_then(|seer| self.machines[seer].running()) else { return Vec::new() };
        let replica = running.state.replica();
        let of_it = |record: Record| match record {
            Record::Statement(bytes) => {
                let statement = UnverifiedStatement::decode(&bytes).ok()?;
                (*statement.claimed().author() == key).then(|| StatementId(Record::Statement(bytes).id()))
            }
            Record::Charter(_) | Record::Report(_) => None,
        };
        let ids: Vec<StatementId> = replica.records().filter_map(of_it).collect();
        let mut seen: Vec<Statement> = ids.iter().filter_map(|id| replica.statement(id)).cloned().collect();
        seen.sort_by_key(|statement| (statement.lane(), statement.seq(), statement.id()));
        seen
    }

    /// The machines that the settings name as gateways.
    pub(crate) fn gateways(&self) -> Vec<Party> {
        let named = |machine: &Party| {
            let role = self.machines[*machine].role_key().map(|key| key.public());
            !self.machines[*machine].is_copy && role.is_some_and(|key| self.org.gateways.contains(&key))
        };
        (0..self.machines.len()).filter(named).collect()
    }
}

/// The last ones, lane by lane, of what is left without the void ones and what follows them.
pub(crate) fn ends<'a>(statements: &'a [Statement], void: &BTreeSet<StatementId>) -> Vec<&'a Statement> {
    let mut gone: BTreeSet<[u8; 32]> = BTreeSet::new();
    let mut ends: Vec<&Statement> = Vec::new();
    for statement in statements {
        if void.contains(&statement.id()) || gone.contains(&statement.prev()) {
            gone.insert(statement.id().0);
        } else {
            ends.retain(|end| end.id().0 != statement.prev() || end.lane() != statement.lane());
            ends.push(statement);
        }
    }
    debug_assert!(ends.iter().all(|end| Lane::ALL.contains(&end.lane())));
    ends
}

const ADMINS_MAX: usize = 5;
