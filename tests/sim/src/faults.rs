//! What goes wrong, and when.

use rand::RngExt as _;

use crate::{
    disk::SimDisk,
    machine::{Backup, Phase, endpoint},
    network::{self, Cuts, Party},
    plan::Sabotage,
    world::{Event, SECOND, World},
};

#[derive(Debug)]
pub(crate) enum Fault {
    /// A copy of a disk is made, and put back after a while.
    Backup,
    PutBack(Party),
    /// A clock shows another decade.
    ClockJump,
    Crash,
    Restart(Party),
    /// A disk is full, fails, lies or rots for a while.
    Disk,
    DiskIsWell(Party),
    /// A machine is elsewhere.
    Move,
    Partition,
    PartitionEnds(Cuts),
}

impl World {
    pub(crate) fn schedule_faults(&mut self, clock_jumps: bool) {
        let plan = (self.plan.partitions, self.plan.crashes, self.plan.disk_faults, self.plan.moves);
        for _ in 0..plan.0 {
            self.some_time(|| Fault::Partition);
        }
        for _ in 0..plan.1 {
            self.some_time(|| Fault::Crash);
        }
        for number in 0..plan.2 {
            self.some_time(|| if number % 2 == 1 { Fault::Backup } else { Fault::Disk });
        }
        for _ in 0..plan.3 {
            self.some_time(|| Fault::Move);
        }
        if clock_jumps {
            for _ in 0..self.plan.clock_jumps {
                let when = self.clock_rng.random_range(SECOND..self.faults_end);
                self.at(when, Event::Fault(Fault::ClockJump));
            }
        }
    }

    fn some_time(&mut self, fault: impl FnOnce() -> Fault) {
        let when = self.rng.random_range(SECOND..self.faults_end);
        self.at(when, Event::Fault(fault()));
    }

    fn somebody_up(&mut self) -> Option<Party> {
        let up: Vec<Party> = self.up().collect();
        (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())])
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Backup => {
                if let Some(machine) = self.somebody_up() {
                    let bytes = self.machines[machine].disk.backup();
                    self.machines[machine].backup = Some(Backup { bytes });
                    let wait = self.rng.random_range(5 * SECOND..30 * SECOND);
                    self.after(wait, Event::Fault(Fault::PutBack(machine)));
                }
            }
            Fault::PutBack(machine) => self.put_back(machine),
            Fault::ClockJump => {
                let mut machine = self.clock_rng.random_range(0..self.machines.len());
                let mut offset = self.clock_rng.random_range(-TEN_YEARS_NS..=TEN_YEARS_NS);
                if self.sabotage == Some(Sabotage::ClocksDecide) {
                    (machine, offset) = (machine % self.plan.gateways, TEN_YEARS_NS);
                }
                self.machines[machine].clock_offset_ns = offset;
                self.totals.clock_jumps += 1;
            }
            Fault::Crash => {
                if let Some(machine) = self.somebody_up() {
                    let wait = self.rng.random_range(SECOND / 10..20 * SECOND);
                    self.crash(machine, wait);
                }
            }
            Fault::Restart(machine) => {
                if matches!(self.machines[machine].phase, Phase::Down) {
                    self.start(machine, None);
                }
            }
            Fault::Disk => {
                if let Some(machine) = self.somebody_up() {
                    self.spoil(machine);
                }
            }
            Fault::DiskIsWell(machine) => {
                self.machines[machine].disk.mood(|mood| *mood = crate::disk::Mood::default());
            }
            Fault::Move => {
                if let Some(machine) = self.somebody_up() {
                    let now = endpoint(machine, self.rng.random_range(1..200));
                    self.machines[machine].endpoint = now;
                    self.totals.moves += 1;
                    self.step(machine, |state, at| state.on_endpoints(vec![now], at));
                }
            }
            Fault::Partition => {
                let machines: Vec<Party> = (0..self.machines.len()).collect();
                let (kind, cuts) = network::partition(&machines, &mut self.rng);
                self.trace.note(self.now, "partition", [cuts.len(), 0], &[], || kind.to_owned());
                self.network.block(&cuts);
                self.totals.partitions += 1;
                let lasts = self.rng.random_range(SECOND..40 * SECOND);
                self.after(lasts, Event::Fault(Fault::PartitionEnds(cuts)));
            }
            Fault::PartitionEnds(cuts) => {
                self.network.unblock(&cuts);
                self.trace.note(self.now, "healed", [cuts.len(), 0], &[], String::new);
            }
        }
    }

    fn spoil(&mut self, machine: Party) {
        let lasts = self.rng.random_range(SECOND..30 * SECOND);
        let disk: SimDisk = self.machines[machine].disk.clone();
        let kind = self.rng.random_range(0..7);
        self.trace.note(self.now, "disk", [machine, kind], &[], || {
            ["full", "full", "forgets", "forgets", "rots", "fails", "fails"][kind].to_owned()
        });
        match kind {
            0 | 1 => disk.mood(|mood| mood.is_full = true),
            2 | 3 => disk.mood(|mood| mood.forgets_syncs = true),
            5 | 6 => disk.mood(|mood| mood.fails = true),
            _ => {
                disk.rot(&mut self.rng);
                self.machines[machine].disk_is_spoiled = true;
                self.totals.disks_spoiled += 1;
                self.crash(machine, lasts);
            }
        }
        self.totals.disk_faults += 1;
        self.after(lasts, Event::Fault(Fault::DiskIsWell(machine)));
    }

    /// An old copy of a disk comes back in its place.
    fn put_back(&mut self, machine: Party) {
        let Some(backup) = self.machines[machine].backup.take() else { return };
        if self.is_calm || self.machines[machine].running().is_none() {
            return;
        }
        self.crash(machine, SECOND);
        let machine = &mut self.machines[machine];
        machine.disk.restore(backup.bytes);
        machine.memory.forget_disk();
        self.totals.backups_restored += 1;
    }
}

const TEN_YEARS_NS: i64 = 315_576_000_000_000_000;
