//! New keys of machines, and keys for roles: what the daemon orders is done on the machine.

use control::local::Request as Ask;
use identity::SecretKey;
use member_crdt::Roster;
use musterd::{
    keys::{Beside, KeysDone, KeysOrder},
    state::RoleKeyOrder,
};
use rand::RngExt as _;

use crate::{
    machine::{MachineKeys, seed_of},
    network::Party,
    plan::Sabotage,
    workload::{Work, admins::Asked},
    world::{Event, MS, World},
};

impl World {
    /// A program on some machine asks for new keys.
    pub(crate) fn rotate_some(&mut self) {
        let machines: Vec<Party> = self
            .staying()
            .into_iter()
            .filter(|machine| self.machines[*machine].running().is_some())
            .filter(|machine| !self.copied.contains(machine))
            .collect();
        if machines.is_empty() {
            return;
        }
        let machine = machines[self.rng.random_range(0..machines.len())];
        self.ask(machine, Asked::Nothing, Ask::RotateKeys { keep_old: false });
    }

    /// The machine's daemon wants something done with its keys.
    pub(crate) fn order_keys(&mut self, machine: Party, order: KeysOrder) {
        let incarnation = self.machines[machine].incarnation;
        let takes = self.rng.random_range(5 * MS..500 * MS);
        if let Some(running) = self.machines[machine].running_mut() {
            running.keys_order = Some(order);
            self.after(takes, Event::Work(Work::Keys(machine, incarnation)));
        }
    }

    pub(crate) fn carry_out(&mut self, number: Party, incarnation: u64) {
        if self.machines[number].incarnation != incarnation {
            return;
        }
        let Some(order) = self.machines[number].running_mut().and_then(|running| running.keys_order.take())
        else {
            return;
        };
        self.on_keys_disk(number, order);
        let done = match (order, self.machines[number].next) {
            (KeysOrder::Make { .. }, Some(next)) => KeysDone::Made(Box::new(next.made())),
            (order, _) => KeysDone::Done(order),
        };
        self.trace.note(self.now, "keys", [number, 0], &[], || format!("{order:?}"));
        self.step(number, |state, now| state.on_keys(Ok(done), now));
    }

    /// What an order changes on the disk; a machine that stops has done it or not.
    pub(crate) fn on_keys_disk(&mut self, number: Party, order: KeysOrder) {
        let seed = self.seed;
        let machine = &mut self.machines[number];
        match order {
            KeysOrder::Make { keep_old } => {
                if machine.next.is_none() {
                    machine.rotations += 1;
                    let next = MachineKeys::leaked(seed, number, machine.rotations);
                    machine.next = Some(next);
                    if self.sabotage != Some(Sabotage::KeysAreForeign) {
                        self.oracle.nodes.insert(next.node.public(), number);
                    }
                }
                self.machines[number].beside.keep_old = keep_old;
            }
            KeysOrder::UseNext => machine.beside.known = true,
            KeysOrder::UseOld => machine.beside.known = false,
            KeysOrder::Promote => {
                if let Some(next) = machine.next.take() {
                    machine.kept = next;
                    self.totals.rotations += 1;
                }
                self.machines[number].beside = Beside::default();
            }
        }
    }

    /// The keys that a daemon opens: those that a rotation made, if the list has them as the newest and
    /// another member knows of them, and else the old ones. Whether the list knows them.
    pub(crate) fn open_keys(&mut self, number: Party, roster: &Roster) -> Option<Beside> {
        let machine = &mut self.machines[number];
        let old = machine.kept;
        machine.uses(old);
        machine.daemon_keys().whose(roster).ok()?;
        let mut beside = machine.beside;
        beside.next = false;
        if let Some(next) = machine.next {
            let ours = |member: &member_crdt::Member| {
                member.node == next.node.public() && member.nodes().any(|node| node == old.node.public())
            };
            beside.next = roster.member_of(&next.node.public()).is_some_and(ours);
            if beside.next && beside.known {
                machine.uses(next);
            }
        }
        Some(beside)
    }

    /// The daemon ends to begin with other keys.
    pub(crate) fn begin_anew(&mut self, machine: Party, incarnation: u64) {
        if self.machines[machine].incarnation == incarnation && self.machines[machine].running().is_some() {
            self.crash(machine, 100 * MS);
        }
    }

    /// The machine's daemon wants a key for a role.
    pub(crate) fn order_role_key(&mut self, machine: Party, order: Box<RoleKeyOrder>) {
        let incarnation = self.machines[machine].incarnation;
        let takes = self.rng.random_range(5 * MS..500 * MS);
        if let Some(running) = self.machines[machine].running_mut() {
            running.role_order = Some(order);
            self.after(takes, Event::Work(Work::RoleKey(machine, incarnation)));
        }
    }

    pub(crate) fn make_role_key(&mut self, number: Party, incarnation: u64) {
        let seed = self.seed;
        let machine = &mut self.machines[number];
        if machine.incarnation != incarnation {
            return;
        }
        let Some(order) = machine.running_mut().and_then(|running| running.role_order.take()) else { return };
        machine.roles_made += 1;
        let made = seed_of(seed, &format!("gateway {number} {}", machine.roles_made));
        machine.role = Some(made);
        let key = SecretKey::from_seed(&made);
        self.open_front(number);
        self.step(number, |state, now| state.on_role_key(Ok(key), *order, now));
    }
}
