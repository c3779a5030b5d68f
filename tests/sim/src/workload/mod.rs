//! What the people and machines of the org do: change the list, join, leave, talk, ask, steal.

use identity::{BootNonce, Heads};
use member_crdt::Replica;
use org_trust::{Record, Report, ReportBody};
use rand::RngExt as _;

use crate::{
    client::Errand,
    hostile::Hostility,
    network::Party,
    world::{Event, SECOND, World},
};

pub(crate) mod admins;
mod changes;
mod copies;
mod errands;
mod keys;
mod probes;
mod settings;
mod thieves;

pub(crate) use admins::{Admin, Submission, found};
pub(crate) use thieves::Theft;

/// Something to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// An admin looks at who waits for approval.
    Approve,
    /// An admin changes the list.
    Change,
    /// Two machines run from one disk; and one of them no longer.
    Copy,
    CopyEnds(Party),
    /// A machine outside goes to a gateway.
    Errand(Party, Errand),
    /// Somebody shakes hands with somebody, whatever the tunnels say.
    Handshake,
    /// A machine carries out an order about its keys.
    Keys(Party, u64),
    /// A machine begins anew, with other keys.
    Restart(Party, u64),
    /// Somebody ends a machine's suspension.
    Resume(Party),
    /// An admin revokes a machine too.
    Revoke(usize, Party),
    /// A machine makes the key of a role.
    RoleKey(Party, u64),
    /// The holder of the org's keys hands in what is not acknowledged yet.
    Settings,
    /// Somebody steals a key: a gateway's, or an admin's.
    Steal {
        gateway: bool,
    },
    /// An admin hands in what is not acknowledged yet.
    Submit(usize),
    /// Who has stolen a key uses it.
    Thief(usize),
    /// A program on one machine talks to one on another.
    Traffic,
    /// A theft was noticed.
    Undo(usize),
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
                charter: self.org.chain.genesis().id(),
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
        for number in self.plan.members + self.plan.newcomers..self.machines.len() {
            let machine = &mut self.machines[number];
            machine.is_rogue = number < self.plan.members + self.plan.newcomers + self.plan.rogues;
            machine.is_copy = !machine.is_rogue;
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

    pub(crate) fn replica_of(&self, records: &[Record]) -> Result<Replica, String> {
        let mut replica = Replica::new(self.org.chain.genesis()).map_err(|why| format!("{why:?}"))?;
        for record in records {
            replica.apply(record).map_err(|why| why.to_string())?;
        }
        Ok(replica)
    }

    pub(crate) fn schedule_work(&mut self) {
        let (end, plan) = (self.faults_end, self.plan.clone());
        for _ in 0..plan.changes {
            let when = self.rng.random_range(SECOND..end);
            self.at(when, Event::Work(Work::Change));
        }
        for _ in 0..plan.traffic {
            let when = self.rng.random_range(SECOND..end + 20 * SECOND);
            self.at(when, Event::Work(Work::Traffic));
        }
        for _ in 0..plan.probes {
            let when = self.rng.random_range(SECOND..end + 20 * SECOND);
            self.at(when, Event::Work(Work::Handshake));
        }
        for gateway in plan.thefts {
            let when = self.rng.random_range(SECOND..end * 2 / 3);
            self.at(when, Event::Work(Work::Steal { gateway }));
        }
        for _ in 0..plan.copies {
            let when = self.rng.random_range(5 * SECOND..end * 2 / 3);
            self.at(when, Event::Work(Work::Copy));
        }
    }

    pub(crate) fn work(&mut self, work: Work) {
        match work {
            Work::Approve => self.approve(),
            Work::Change => self.change(),
            Work::Copy => self.copy_some_machine(),
            Work::CopyEnds(machine) => self.copy_ends(machine),
            Work::Errand(machine, errand) => self.go(machine, errand),
            Work::Handshake => self.shake_some_hands(),
            Work::Keys(machine, incarnation) => self.carry_out(machine, incarnation),
            Work::Restart(machine, incarnation) => self.begin_anew(machine, incarnation),
            Work::Resume(machine) => self.resume(machine),
            Work::Revoke(admin, machine) => self.revoke(admin, machine),
            Work::RoleKey(machine, incarnation) => self.make_role_key(machine, incarnation),
            Work::Settings => self.submit_settings(),
            Work::Steal { gateway: true } => self.steal_from_a_gateway(),
            Work::Steal { gateway: false } => self.steal_from_an_admin(),
            Work::Submit(admin) => self.submit(admin),
            Work::Thief(number) => self.thief_acts(number),
            Work::Traffic => self.traffic(),
            Work::Undo(number) => self.undo(number),
        }
    }
}
