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
                machine.beside = Beside::default();
                if let Some(next) = machine.next.take() {
                    machine.kept = next;
                    self.totals.rotations += 1;
                    let known_by = self.knowers(number);
                    self.machines[number].known_by =
                        known_by.map(|other| (other, self.machines[other].memory.disks)).collect();
                }
            }
        }
    }

    /// Who has a machine's own keys on its list.
    fn knowers(&self, number: Party) -> impl Iterator<Item = Party> {
        let own = self.machines[number].kept.node.public();
        let knows = move |other: &Party| {
            let running = self.machines[*other].running();
            *other != number && running.is_some_and(|running| running.roster.member_of(&own).is_some())
        };
        self.up().filter(knows)
    }

    /// Whether a machine has rotated its keys, and all who knew of it, a gateway among them, have been shut out or
    /// have lost their disks since. Nobody lets it in any more; its operator makes it join anew.
    pub(crate) fn is_stranded(&self, number: Party) -> bool {
        let Some(first) = self.machines[0].running() else { return false };
        let roster = first.state.replica().roster();
        let is_out = |other: Party| {
            let member = roster.member_of(&self.machines[other].first);
            !member.is_some_and(member_crdt::Member::is_good)
        };
        let has_lost =
            |(other, disks): &(Party, u32)| is_out(*other) || self.machines[*other].memory.disks != *disks;
        let known_by = &self.machines[number].known_by;
        let by_gateway = known_by.iter().any(|(other, _)| self.machines[*other].role.is_some());
        by_gateway && known_by.iter().all(has_lost) && self.knowers(number).all(is_out)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;

    #[test]
    fn only_a_machine_whose_keys_a_gateway_knew_and_no_member_knows_any_more_is_stranded() {
        let mut world = World::new(1, &Options::default());
        let (gateway, number) = (0, world.up().last().unwrap());
        assert!(number != gateway && world.machines[number].role.is_none());
        let disk = |world: &World, of: Party| (of, world.machines[of].memory.disks);
        let lost = |world: &World, of: Party| (of, world.machines[of].memory.disks + 1);
        world.machines[number].known_by = vec![lost(&world, gateway)];
        assert!(!world.is_stranded(number), "all know them");
        world.machines[number].kept = MachineKeys::leaked(world.seed, number, 9);
        assert!(world.is_stranded(number), "nobody does, and the gateway that did has another disk");
        world.machines[number].known_by = vec![lost(&world, gateway), disk(&world, 1)];
        assert!(!world.is_stranded(number), "one that knew them has forgotten them without a cause");
        world.machines[number].known_by = vec![];
        assert!(!world.is_stranded(number), "it gave up the old ones where no gateway knew the new");
    }
}
