//! What admins and machines change in the list.

use control::local::Request as Ask;
use identity::{Name, PublicKey, StatementId, Tag};
use member_crdt::{Member, MemberState};
use org_trust::{Assign, Cancel, Cosign, Invite, Payload, Reason, Resume, Revoke, Suspend};
use rand::RngExt as _;

use crate::{
    client::Errand,
    machine::{Phase, key_of},
    network::Party,
    oracle::InviteMade,
    plan::Sabotage,
    workload::{Work, admins::Asked, settings::ends},
    world::{Event, SECOND, World},
};

impl World {
    pub(crate) fn change(&mut self) {
        let waiting = self.waiting_outside();
        match self.rng.random_range(0..24) {
            0..=6 if !waiting.is_empty() => self.invite(&waiting),
            7..=8 => self.cancel_some(),
            9 => self.leave(),
            10 if !waiting.is_empty() && self.rng.random_bool(0.4) => self.revoke_by_enough(waiting[0]),
            11..=13 => self.suspend_some(),
            14..=16 => self.assign_some(),
            17..=18 => self.rotate_some(),
            19..=20 => self.change_settings(),
            _ => {
                let may_go = self.may_go();
                if !may_go.is_empty() {
                    let machine = may_go[self.rng.random_range(0..may_go.len())];
                    self.revoke_by_enough(machine);
                }
            }
        }
        if self.rng.random_bool(0.5) {
            self.ask_something();
        }
    }

    /// Machines that have not been invited.
    fn waiting_outside(&self) -> Vec<Party> {
        (self.plan.members..self.plan.members + self.plan.newcomers)
            .filter(|machine| matches!(self.machines[*machine].phase, Phase::Outside))
            .filter(|machine| !self.oracle.invited.contains(machine))
            .collect()
    }

    /// Members that are there and not on their way out; the first one is left in peace.
    pub(crate) fn staying(&self) -> Vec<Party> {
        (1..self.machines.len())
            .filter(|number| {
                let machine = &self.machines[*number];
                !matches!(machine.phase, Phase::Outside | Phase::Gone)
                    && !machine.is_copy
                    && !self.oracle.has_gone(*number)
            })
            .collect()
    }

    /// Of them those that the org can do without; some always stay.
    pub(crate) fn may_go(&self) -> Vec<Party> {
        let gone = (0..self.machines.len()).filter(|number| self.oracle.has_gone(*number)).count();
        if gone * 3 >= self.machines.len() { Vec::new() } else { self.staying() }
    }

    fn one_of(&mut self, machines: &[Party]) -> Option<Party> {
        (!machines.is_empty()).then(|| machines[self.rng.random_range(0..machines.len())])
    }

    fn invite(&mut self, waiting: &[Party]) {
        let gateways: Vec<Party> =
            self.gateways().into_iter().filter(|gateway| !self.oracle.has_gone(*gateway)).collect();
        let Some(gateway) = self.one_of(&gateways) else { return };
        let uses = self.rng.random_range(1..=3);
        let approval = self.rng.random_bool(0.3);
        let Some(id) = self.make_invite(gateway, uses, approval) else { return };
        let number = self.oracle.invites[&id].number;
        // One too many comes now and then.
        for machine in waiting.iter().take(uses as usize + 1) {
            self.oracle.invited.insert(*machine);
            let wait = self.rng.random_range(SECOND..10 * SECOND);
            let errand = Errand::Enrol { invite: id, secret: number, tries: 0 };
            self.after(wait, Event::Work(Work::Errand(*machine, errand)));
        }
    }

    pub(crate) fn make_invite(&mut self, gateway: Party, uses: u32, approval: bool) -> Option<StatementId> {
        let number = self.oracle.invites.len();
        let redeemer = self.machines[gateway].role_key()?.public();
        let secret = key_of(self.seed, &format!("invite {number}"));
        // A date decides nothing for those who hold to the design: the redeemer's advice is left out.
        let expires_unix_s = if self.sabotage == Some(Sabotage::ClocksDecide) { 1_790_000_000 } else { 0 };
        let invite = Invite {
            key: secret.public(),
            uses,
            redeemer,
            labels: Vec::new(),
            expires_unix_s,
            approval,
            attestation: false,
            tpms: Vec::new(),
            note: String::new(),
        };
        let admin = self.an_admin();
        let id = self.sign(admin, &Payload::from(invite));
        self.oracle.invites.insert(id, InviteMade { number, uses, redeemer });
        self.totals.approvals += u64::from(approval);
        Some(id)
    }

    fn cancel_some(&mut self) {
        if self.oracle.invites.len() > 1 {
            let ids: Vec<StatementId> = self.oracle.invites.keys().copied().collect();
            let invite = ids[self.rng.random_range(0..ids.len())];
            self.cancel(invite);
        }
    }

    /// What the redeemer signed up to here still counts, but for what a thief did and what follows it;
    /// without that nobody's admission would.
    pub(crate) fn cancel(&mut self, invite: StatementId) {
        let redeemer = self.oracle.invites[&invite].redeemer;
        let machines: Vec<Party> = self.up().collect();
        let Some(machine) = self.one_of(&machines) else { return };
        let seen = self.seen_of(redeemer, machine);
        let stolen = self.oracle.stolen.clone();
        let tip = ends(&seen, &stolen).into_iter().max_by_key(|end| end.seq()).map(|end| end.id());
        let admin = self.an_admin();
        self.sign(admin, &Payload::Cancel(Cancel { invite, tip }));
    }

    fn leave(&mut self) {
        let gateways = self.gateways();
        let may_go: Vec<Party> = self
            .may_go()
            .into_iter()
            .filter(|machine| !gateways.contains(machine) && self.machines[*machine].is_honest())
            .filter(|machine| self.machines[*machine].running().is_some())
            .collect();
        if let Some(machine) = self.one_of(&may_go) {
            self.oracle.leaving.insert(machine);
            self.totals.leaves += 1;
            self.ask(machine, Asked::Nothing, Ask::Leave {});
        }
    }

    pub(crate) fn revoke_by_enough(&mut self, machine: Party) {
        let first = self.an_admin();
        self.revoke(first, machine);
        if self.plan.threshold > 1 && self.rng.random_bool(0.9) {
            let others: Vec<usize> = self.honest_admins().filter(|admin| *admin != first).collect();
            if let Some(second) = self.one_of(&others) {
                let wait = self.rng.random_range(0..10 * SECOND);
                self.after(wait, Event::Work(Work::Revoke(second, machine)));
            }
        }
    }

    pub(crate) fn revoke(&mut self, admin: usize, machine: Party) {
        let by = self.admins[admin].key.public();
        let is_new = !self.oracle.revokes.get(&machine).is_some_and(|admins| admins.contains(&by));
        if is_new && self.admins[admin].may_sign() {
            let node = self.machines[machine].first;
            let revoke = Revoke { node, reason: Reason::Stolen, note: String::new() };
            self.sign(admin, &Payload::Revoke(revoke));
            self.totals.revokes += 1;
        }
    }

    fn suspend_some(&mut self) {
        let staying = self.staying();
        let suspended = staying.iter().filter(|machine| self.oracle.is_suspended(**machine)).count();
        if suspended * 4 > staying.len() {
            return;
        }
        let Some(machine) = self.one_of(&staying) else { return };
        let node = self.machines[machine].first;
        let admin = self.an_admin();
        let suspend = Suspend { node, reason: Reason::Lost, note: String::new() };
        self.sign(admin, &Payload::Suspend(suspend));
        self.totals.suspends += 1;
        if self.rng.random_bool(0.8) {
            let wait = self.rng.random_range(2 * SECOND..20 * SECOND);
            self.after(wait, Event::Work(Work::Resume(machine)));
        }
    }

    /// An admin ends the suspensions that a machine shows.
    pub(crate) fn resume(&mut self, machine: Party) {
        let Some(Member { state: MemberState::Suspended { ids, .. }, .. }) = self.shown(machine) else {
            return;
        };
        let node = self.machines[machine].first;
        let stolen = |id: &StatementId| self.oracle.stolen.contains(id);
        if ids.iter().any(stolen) {
            return;
        }
        let admin = self.an_admin();
        let suspends: Vec<StatementId> = ids.into_iter().take(16).collect();
        self.sign(admin, &Payload::Resume(Resume { node, suspends: suspends.clone() }));
        if self.sabotage == Some(Sabotage::ResumesAreForged) {
            self.oracle.resumed.retain(|id| !suspends.contains(id));
        }
        self.totals.resumes += 1;
    }

    fn assign_some(&mut self) {
        let staying = self.staying();
        let is_misread = self.sabotage == Some(Sabotage::AssignmentsAreMisread);
        let some = if is_misread { Some(1) } else { self.one_of(&staying) };
        if let Some(machine) = some {
            let admin = self.an_admin();
            self.assign(admin, machine, "node");
        }
    }

    /// A name, roles and labels in place of those that some machine shows.
    pub(crate) fn assign(&mut self, admin: usize, machine: Party, name: &str) {
        let Some(member) = self.shown(machine) else { return };
        let words = ["build", "db", "edge", "web"];
        let mut some = || -> Vec<Tag> {
            let words = words.iter().filter(|_| self.rng.random_bool(0.5));
            words.map(|word| Tag::parse(word).expect("a tag")).collect()
        };
        let (roles, labels) = (some(), some());
        let assign = Assign {
            node: self.machines[machine].first,
            name: Name::parse(&format!("{name}{machine}")).expect("a name"),
            roles,
            labels,
            replaces: member.assigns.into_iter().take(8).collect(),
        };
        self.sign(admin, &Payload::from(assign));
        self.totals.assigns += 1;
    }

    /// How some machine that is up shows a member.
    fn shown(&mut self, machine: Party) -> Option<Member> {
        let seers: Vec<Party> = self.up().collect();
        let seer = self.one_of(&seers)?;
        let roster = self.machines[seer].running()?.state.replica().roster();
        roster.member_of(&self.machines[machine].first).cloned()
    }

    /// An admin looks at who waits for approval.
    pub(crate) fn approve(&mut self) {
        let seers: Vec<Party> = self.up().collect();
        let Some(seer) = self.one_of(&seers) else { return };
        let Some(running) = self.machines[seer].running() else { return };
        let roster = running.state.replica().roster();
        let waiting: Vec<(PublicKey, StatementId)> =
            roster.pending().admits.iter().map(|member| (member.node, member.admit)).collect();
        for (node, target) in waiting {
            let Some(machine) = self.oracle.nodes.get(&node).copied() else { continue };
            if self.machines[machine].is_rogue || self.rng.random_bool(0.2) {
                self.revoke_by_enough(machine);
            } else {
                let admin = self.an_admin();
                let id = self.sign(admin, &Payload::Cosign(Cosign { target }));
                if self.sabotage == Some(Sabotage::ApprovalsAreForged) {
                    self.oracle.statements.remove(&id);
                }
                self.totals.approved += 1;
            }
        }
    }
}
