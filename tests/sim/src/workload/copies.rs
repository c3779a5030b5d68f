//! Two machines that run from one disk: a clone of a virtual machine that was started beside it.

use rand::RngExt as _;

use crate::{
    machine::{Backup, Phase},
    network::Party,
    workload::Work,
    world::{Event, SECOND, World},
};

impl World {
    /// A copy of some machine starts somewhere else, while that machine runs on.
    pub(crate) fn copy_some_machine(&mut self) {
        let free = (0..self.machines.len()).find(|number| {
            self.machines[*number].is_copy && matches!(self.machines[*number].phase, Phase::Outside)
        });
        let Some(copy) = free else { return };
        let gateways = self.gateways();
        let may_be: Vec<Party> = self
            .staying()
            .into_iter()
            .filter(|number| {
                let machine = &self.machines[*number];
                // Its keys are not on their way to be others.
                machine.running().is_some()
                    && machine.is_honest()
                    && machine.next.is_none()
                    && !machine.disk_is_spoiled
                    && !gateways.contains(number)
            })
            .collect();
        if self.is_calm || may_be.is_empty() {
            return;
        }
        let original = may_be[self.rng.random_range(0..may_be.len())];
        let Backup { bytes } = Backup { bytes: self.machines[original].disk.backup() };
        let kept = self.machines[original].kept;
        self.copied.insert(original);
        self.machines[copy].disk.restore(bytes);
        self.machines[copy].kept = kept;
        self.machines[copy].uses(kept);
        self.trace.note(self.now, "copy", [original, copy], &[], String::new);
        self.totals.copies += 1;
        self.start(copy, None);
        let runs = self.rng.random_range(8 * SECOND..30 * SECOND);
        self.after(runs, Event::Work(Work::CopyEnds(copy)));
    }

    /// Whoever looks after the machines turns it off, or an admin shuts out both.
    pub(crate) fn copy_ends(&mut self, copy: Party) {
        if matches!(self.machines[copy].phase, Phase::Gone) {
            return;
        }
        if !self.is_calm && self.rng.random_bool(0.3) {
            let node = self.machines[copy].node;
            if let Some(original) = self.oracle.nodes.get(&node).copied() {
                self.revoke_by_enough(original);
                self.after(10 * SECOND, Event::Work(Work::CopyEnds(copy)));
                return;
            }
        }
        if self.machines[copy].running().is_some() {
            self.crash(copy, SECOND);
        }
        self.machines[copy].phase = Phase::Gone;
    }
}
