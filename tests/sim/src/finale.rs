//! One run: things go wrong for a while, then no more, and then everything has to come right.

use std::collections::BTreeMap;

use identity::Heads;
use member_crdt::MemberState;
use rand::RngExt as _;

use crate::{
    client::Errand,
    invariants::{Violation, invariant_status_is_true},
    machine::Phase,
    network::Party,
    plan::{Options, Sabotage},
    totals::Totals,
    workload::Work,
    world::{Event, SECOND, World},
};

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// A hash of all that happened.
    pub trace: String,
    /// What it came to.
    pub totals: Totals,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// From the end of the faults until everybody agreed, in virtual milliseconds.
    pub converged_ms: Option<u64>,
    /// What happened, if that was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options);
    if options.sabotage == Some(Sabotage::KeyIsStolen) {
        world.steal_a_key();
    }
    world.run_until(world.faults_end);
    let converged_ms = world.come_right();
    world.last_checks();
    world.totals.virtual_ms = world.now / 1000;
    let (trace, lines) = world.trace.end();
    Outcome { seed, trace, totals: world.totals, violation: world.violation, converged_ms, lines }
}

impl World {
    /// Lets time pass without faults until everybody agrees, or has had the time for it.
    fn come_right(&mut self) -> Option<u64> {
        let began = self.now;
        self.is_calm = true;
        self.network.heal();
        for theft in 0..self.thefts.len() {
            self.undo(theft);
        }
        for machine in 0..self.machines.len() {
            if self.machines[machine].is_copy {
                self.copy_ends(machine);
            }
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].disk.mood(|mood| *mood = crate::disk::Mood::default());
            if matches!(self.machines[machine].phase, Phase::Down) {
                self.start(machine, None);
            }
        }
        let mut is_handed_in = false;
        while self.violation.is_none() {
            // The first gateway may be without its disk.
            let is_due = !is_handed_in || (self.now - began).is_multiple_of(10 * SECOND);
            if self.machines[0].running().is_some() && is_due {
                is_handed_in = true;
                self.hand_in_again();
                self.bring_back();
            }
            self.run_until(self.now + SECOND);
            let waited = self.now - began;
            if waited == CONVERGENCE_S * SECOND / 2 {
                self.give_up_stranded();
            }
            let mut apart = self.apart();
            if !is_handed_in {
                apart.push("the first gateway without its list".to_owned());
            }
            if apart.is_empty() {
                apart.extend(self.say_what_is_not_so());
            }
            if apart.is_empty() {
                return Some(waited / 1000);
            }
            if waited >= CONVERGENCE_S * SECOND {
                if self.plan.hostile > 0 && self.agree_where_they_can() {
                    self.totals.eclipsed += 1;
                    return None;
                }
                self.hold_convergence(&apart, CONVERGENCE_S);
            }
        }
        None
    }

    /// Whether what a machine has taken may be lost with it: those it told of it may withhold it, and disks
    /// have forgotten.
    pub(crate) fn may_lose_changes(&self) -> bool {
        self.plan.hostile > 0 || self.totals.disks_spoiled > 0 || self.totals.backups_restored > 0
    }

    /// Members that must agree: honest, there, and not on their way out.
    pub(crate) fn faithful(&self) -> Vec<Party> {
        // The first gateway never goes; who it does not know as a member has lost its invite.
        let Some(gateway) = self.machines[0].running() else { return Vec::new() };
        let roster = gateway.state.replica().roster();
        let is_member = |machine: &Party| {
            // Of whom that is not settled it has to be, soon.
            let member = roster.member_of(&self.machines[*machine].first);
            member.is_some_and(|member| member.is_good() || member.is_unsettled())
        };
        self.up()
            .filter(is_member)
            .filter(|machine| self.machines[*machine].is_honest())
            .filter(|machine| !self.oracle.has_gone(*machine) && !self.machines[*machine].is_copy)
            .collect()
    }

    /// A machine that was told by a thief's word that it is none of us talks to nobody, and hears no
    /// better: it is started through a gateway. The first gateway gets the settings by hand.
    fn bring_back(&mut self) {
        let state = |seer: Party, machine: Party| {
            let roster = self.machines[seer].running()?.state.replica().roster();
            Some(roster.member_of(&self.machines[machine].first)?.state.clone())
        };
        // The thief revoked it, or cancelled the invite that it joined with.
        let is_out = |machine| matches!(state(machine, machine), None | Some(MemberState::Revoked { .. }));
        if !matches!(state(0, 0), Some(MemberState::Good | MemberState::Unsettled)) {
            return self.bring_all(0);
        }
        let lost = |machine: &Party| {
            let is_good = state(0, *machine) == Some(MemberState::Good);
            is_out(*machine) && is_good && !self.machines[*machine].is_copy
        };
        let lost: Vec<Party> = self.up().filter(lost).collect();
        for machine in lost {
            self.crash(machine, SECOND);
            self.machines[machine].phase = Phase::Booting;
            self.totals.brought_back += 1;
            self.after(SECOND, Event::Work(Work::Errand(machine, Errand::Boot { tries: 0 })));
        }
    }

    /// Those that nobody lets in any more, and whose operators make them join anew.
    fn give_up_stranded(&mut self) {
        let stranded: Vec<Party> =
            self.faithful().into_iter().filter(|machine| self.is_stranded(*machine)).collect();
        for machine in stranded {
            self.crash(machine, SECOND);
            self.machines[machine].phase = Phase::Gone;
            self.totals.stranded += 1;
        }
    }

    /// Members that say they are shut out when all agree that they are not: whoever said so to them is
    /// asked again by then.
    fn say_what_is_not_so(&mut self) -> Option<String> {
        let is_wrong = |world: &mut Self, machine: &Party| {
            let problems = world.problems(*machine);
            invariant_status_is_true(&problems).is_err()
        };
        let wrong: Vec<Party> = self.faithful().into_iter().filter(|m| is_wrong(self, m)).collect();
        (!wrong.is_empty()).then(|| format!("{wrong:?} that say they are shut out"))
    }

    fn heads(&self, machine: Party) -> Option<(Heads, [u8; 32])> {
        let replica = self.machines[machine].running()?.state.replica();
        Some((replica.heads(), *replica.roster_digest().as_bytes()))
    }

    /// Who differs from the greatest number, and which admins wait.
    fn apart(&self) -> Vec<String> {
        let mut views: BTreeMap<_, Vec<Party>> = BTreeMap::new();
        for machine in self.faithful() {
            if let Some((heads, digest)) = self.heads(machine) {
                views.entry((*heads.as_bytes(), digest)).or_default().push(machine);
            }
        }
        let most = views.values().map(Vec::len).max().unwrap_or_default();
        let mut apart = Vec::new();
        let mut is_first = true;
        for machines in views.values() {
            if machines.len() == most && std::mem::take(&mut is_first) {
                continue;
            }
            apart.push(format!("machines {machines:?}"));
        }
        let lost: usize = self.lost_changes().iter().map(Vec::len).sum();
        if lost > 0 {
            apart.push(format!("{lost} changes to be handed in again"));
        }
        let waiting = self.admins.iter().filter(|admin| admin.is_waiting()).count();
        if waiting > 0 {
            apart.push(format!("{waiting} admins without an answer"));
        }
        let writing = self.faithful().into_iter().filter(|machine| {
            self.machines[*machine].running().is_some_and(|running| {
                running.write.is_some() || running.state.summary().starts_with("disk refuses")
            })
        });
        let writing = writing.count();
        if writing > 0 {
            apart.push(format!("{writing} with a write under way"));
        }
        // Who is suspended gets none.
        let wants_a_list = |number: &Party| {
            let phase = &self.machines[*number].phase;
            matches!(phase, Phase::Damaged | Phase::Booting) && !self.oracle.is_suspended(*number)
        };
        let damaged = (0..self.machines.len()).filter(wants_a_list).count();
        if damaged > 0 {
            apart.push(format!("{damaged} without a list"));
        }
        let comparing = self.faithful().into_iter().filter(|machine| {
            self.machines[*machine].running().is_some_and(|running| !running.state.is_in_step())
        });
        let comparing: Vec<Party> = comparing.collect();
        let unsettled = |machine: &Party| {
            let roster = self.machines[*machine].running().map(|running| running.state.replica().roster());
            roster.is_some_and(|roster| roster.good_or_unsettled().any(member_crdt::Member::is_unsettled))
        };
        let unsettled: Vec<Party> = self.faithful().into_iter().filter(unsettled).collect();
        if !unsettled.is_empty() {
            apart.push(format!("{unsettled:?} that lack the end of a cut"));
        }
        if !comparing.is_empty() {
            apart.push(format!("{comparing:?} that have not compared their lists"));
        }
        apart
    }

    /// Whether all honest members that keep in step over honest ones agree.
    fn agree_where_they_can(&self) -> bool {
        let faithful = self.faithful();
        faithful.iter().all(|one| {
            faithful.iter().all(|other| {
                let linked = self.is_linked(*one, *other, musterd::sessions::Purpose::Sync);
                !linked || self.heads(*one) == self.heads(*other)
            })
        })
    }

    fn last_checks(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let mut faithful = self.faithful();
        if self.totals.eclipsed > 0 {
            let first = self.heads(0);
            faithful.retain(|machine| self.heads(*machine) == first);
        }
        for machine in &faithful {
            self.check_list(*machine);
            // Who was kept apart may rightly say that others shut it out.
            if self.totals.eclipsed == 0 {
                self.ask_status(*machine);
            }
        }
        let others = faithful.last().filter(|last| faithful.first() != Some(last));
        for machine in faithful.first().into_iter().chain(others) {
            self.check_replica(*machine);
        }
        for at in &faithful {
            for _ in 0..4 {
                let by = self.rng.random_range(0..self.machines.len());
                self.shake_hands(by, *at, "ping");
            }
        }
        // The power goes everywhere at once: what was acknowledged and reported is still there.
        for machine in 0..self.machines.len() {
            if self.machines[machine].running().is_some() {
                self.crash(machine, SECOND);
            }
        }
        self.run_until(self.now + 2 * SECOND);
    }
}

/// Virtual seconds after the last fault by which everybody agrees. A member that was out of reach is
/// tried again after a minute at the latest; what it missed takes a few exchanges from there.
const CONVERGENCE_S: u64 = 150;
