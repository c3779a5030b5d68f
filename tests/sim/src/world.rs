//! All machines, the time they share, and what happens next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use identity::BootNonce;
use member_crdt::Replica;
use musterd::{
    sessions::Purpose,
    state::{Beginning, Decision, Effect, Now, Outside, Socket, State},
    store::{Store, StoreError},
    tunnel::TunnelPeer,
    writer,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    client::Errand,
    connection::{Connection, ConnectionId},
    faults::Fault,
    invariants::Violation,
    machine::{Machine, OnDisk, Org, Phase, Revoked, Running},
    network::{Network, Party},
    oracle::Oracle,
    plan::{Options, Plan, Sabotage},
    totals::Totals,
    trace::Trace,
    workload::{Admin, Submission, Theft, Work},
};

/// What is due.
#[derive(Debug)]
pub(crate) enum Event {
    /// A segment arrives at this side.
    Arrive {
        connection: ConnectionId,
        side: usize,
        number: u64,
        tries: u32,
    },
    /// This side tries to send a segment.
    Attempt {
        connection: ConnectionId,
        side: usize,
        number: u64,
        tries: u32,
    },
    /// A datagram arrives out of this machine's tunnel.
    Datagram {
        from: Party,
        to: Party,
        bytes: Vec<u8>,
    },
    Fault(Fault),
    /// A cut peer has had its time.
    Flushed {
        connection: ConnectionId,
        side: usize,
    },
    /// A handshake has had its time.
    GiveUp {
        connection: ConnectionId,
        side: usize,
    },
    /// A write that was said to be done long ago.
    LateWrite(Party, u64, Box<(writer::Write, OnDisk)>),
    /// This end asks whether the other is there.
    Probe {
        connection: ConnectionId,
        side: usize,
    },
    /// A socket has room again.
    Pump(Party),
    /// Nobody is behind this side's connection.
    Reset {
        connection: ConnectionId,
        side: usize,
    },
    Wake(Party, u64),
    Work(Work),
    Written(Party, u64),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    /// Microseconds since the beginning.
    pub(crate) now: u64,
    base: Instant,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(crate) org: Org,
    pub(crate) machines: Vec<Machine>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) next_connection: ConnectionId,
    pub(crate) network: Network,
    pub(crate) admins: Vec<Admin>,
    /// Whom settings name that are being made.
    pub(crate) new_admins: Vec<Admin>,
    pub(crate) settings_acknowledged: bool,
    pub(crate) thefts: Vec<Theft>,
    /// Machines of thieves that were used, counted each time.
    pub(crate) rogues_used: usize,
    /// Machines of which there was a copy.
    pub(crate) copied: BTreeSet<Party>,
    pub(crate) submissions: Vec<Submission>,
    pub(crate) oracle: Oracle,
    pub(crate) plan: Plan,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) only: Option<&'static str>,
    /// For what machines and people draw; clocks draw from their own, so that they change nothing.
    pub(crate) rng: StdRng,
    pub(crate) clock_rng: StdRng,
    /// Frames seen on the way, for those that replay them.
    pub(crate) heard: Vec<Vec<u8>>,
    pub(crate) trace: Trace,
    pub(crate) totals: Totals,
    pub(crate) violation: Option<Violation>,
    /// Things go wrong until then.
    pub(crate) faults_end: u64,
    pub(crate) is_calm: bool,
}

/// Midnight of a day in 2026, in nanoseconds since 1970.
const BEGINNING_UNIX_NS: i128 = 1_772_323_200_000_000_000;
pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let plan = Plan::new(seed, options);
        let rng = |stream: u64| StdRng::seed_from_u64(seed ^ (stream << 56));
        let machines: Vec<Machine> = (0..plan.members + plan.newcomers + plan.rogues + plan.copies)
            .map(|number| Machine::new(seed, number, number < plan.gateways))
            .collect();
        let (org, admins) = crate::workload::found(seed, &plan, &machines);
        let network = Network::new(rng(1), plan.loss, plan.duplicate, plan.delay);
        let mut world = Self {
            seed,
            now: 0,
            base: Instant::now(),
            queue: BTreeMap::new(),
            scheduled: 0,
            oracle: Oracle::new(&org, &machines, plan.threshold),
            org,
            machines,
            connections: BTreeMap::new(),
            next_connection: 1,
            network,
            admins,
            new_admins: Vec::new(),
            settings_acknowledged: true,
            thefts: Vec::new(),
            rogues_used: 0,
            copied: BTreeSet::new(),
            submissions: Vec::new(),
            plan,
            sabotage: options.sabotage,
            only: options.only,
            rng: rng(2),
            clock_rng: rng(3),
            heard: Vec::new(),
            trace: Trace::new(options.keeps_lines),
            totals: Totals { seeds: 1, ..Totals::default() },
            violation: None,
            faults_end: options.seconds * SECOND,
            is_calm: false,
        };
        world.totals.machines = (world.plan.members + world.plan.newcomers) as u64;
        world.begin_members();
        world.schedule_work();
        world.schedule_faults(options.clock_jumps);
        world
    }

    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((when.max(self.now), self.scheduled), event);
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    /// Lets time pass until `end`, or until something does not hold.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else { break };
            let ((when, _), event) = entry.remove_entry();
            self.now = when;
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { connection, side, number, tries } => self.arrive(connection, side, number, tries),
            Event::Attempt { connection, side, number, tries } => {
                self.attempt(connection, side, number, tries);
            }
            Event::Datagram { from, to, bytes } => self.arrive_datagram(from, to, &bytes),
            Event::Fault(fault) => self.strike(fault),
            Event::Flushed { connection, side } => self.flushed(connection, side),
            Event::GiveUp { connection, side } => self.give_up(connection, side),
            Event::LateWrite(machine, incarnation, write) => {
                if let Some(running) = self.running(machine, incarnation) {
                    let (write, on_disk) = *write;
                    if writer::perform(&mut running.store, write, || 0).result.is_ok() {
                        self.on_disk(machine, on_disk);
                    }
                }
            }
            Event::Probe { connection, side } => self.probe(connection, side),
            Event::Pump(machine) => self.settle(machine),
            Event::Reset { connection, side } => self.break_end(connection, side),
            Event::Wake(machine, incarnation) => self.wake(machine, incarnation),
            Event::Work(work) => self.work(work),
            Event::Written(machine, incarnation) => self.written(machine, incarnation),
        }
    }

    fn running(&mut self, machine: Party, incarnation: u64) -> Option<&mut Running> {
        let machine = self.machines.get_mut(machine)?;
        if machine.incarnation == incarnation { machine.running_mut() } else { None }
    }

    pub(crate) fn now_of(&self, machine: Party) -> Now {
        let true_ns = BEGINNING_UNIX_NS + i128::from(self.now) * 1000;
        let shown = true_ns + i128::from(self.machines[machine].clock_offset_ns);
        Now {
            at: self.base + Duration::from_micros(self.now),
            unix_ns: u64::try_from(shown).unwrap_or_default(),
        }
    }

    /// Gives the state of a machine that runs an input, and does all that follows from it.
    pub(crate) fn step(&mut self, machine: Party, input: impl FnOnce(&mut State, Now)) {
        let now = self.now_of(machine);
        let Some(running) = self.machines[machine].running_mut() else { return };
        input(&mut running.state, now);
        self.settle(machine);
    }

    /// The same without what follows, for what is part of it.
    pub(crate) fn tell(&mut self, machine: Party, input: impl FnOnce(&mut State, Now)) {
        let now = self.now_of(machine);
        if let Some(running) = self.machines[machine].running_mut() {
            input(&mut running.state, now);
        }
    }

    pub(crate) fn settle(&mut self, machine: Party) {
        loop {
            let Some(running) = self.machines[machine].running_mut() else { return };
            let effects: Vec<Effect> = running.state.effects().collect();
            let had_effects = !effects.is_empty();
            for effect in effects {
                self.perform(machine, effect);
            }
            if !self.pump(machine) && !had_effects {
                break;
            }
        }
        self.check_machine(machine);
        self.set_alarm(machine);
        if self.machines[machine].running().is_some_and(|running| running.state.wants_restart()) {
            let incarnation = self.machines[machine].incarnation;
            self.after(0, Event::Work(Work::Restart(machine, incarnation)));
        }
    }

    fn perform(&mut self, machine: Party, effect: Effect) {
        let keeps_gates = self.sabotage == Some(Sabotage::GatesStayOpen);
        let Some(running) = self.machines[machine].running_mut() else { return };
        match effect {
            Effect::CloseGate(member) => {
                if !keeps_gates {
                    running.gates.remove(&member);
                }
            }
            Effect::Datagram(to, bytes) => self.send_datagram(machine, to, bytes),
            Effect::Decide(reply, decision) => {
                if let Decision::Open { purpose, .. } = &*decision {
                    let purpose = purpose.action();
                    self.trace
                        .note(self.now, "open", [machine, 0], purpose.as_bytes(), || purpose.to_owned());
                }
                if let Err(Decision::Open { key, .. }) = reply.send(*decision) {
                    self.tell(machine, |state, now| state.on_ended(key, now));
                }
            }
            Effect::Dial(order) => self.dial(machine, *order),
            // Nobody in here fetches an image, has a disk that wants a share, or offers a program.
            Effect::Images(_) | Effect::Services(_) | Effect::Shares(_) => {}
            Effect::Keys(order) => self.order_keys(machine, order),
            Effect::MakeRoleKey(order) => self.order_role_key(machine, order),
            Effect::OpenGate(member) => {
                if running.peers.contains_key(&member) {
                    running.gates.insert(member, self.now);
                }
            }
            Effect::Peers(peers) => {
                let by_key = |peer: TunnelPeer| {
                    let keys = [peer.wireguard].into_iter().chain(peer.earlier.clone());
                    keys.map(|key| (key, peer.clone())).collect::<Vec<_>>()
                };
                running.peers = peers.into_iter().flat_map(by_key).collect();
                let peers = &running.peers;
                if !keeps_gates {
                    running.gates.retain(|member, _| peers.contains_key(member));
                }
                running.learned.retain(|member, _| peers.contains_key(member));
                running.handshaken.retain(|member, _| peers.contains_key(member));
            }
            Effect::Probe(members) => running.probed = members,
            Effect::Write(write) => self.begin_write(machine, write),
        }
    }

    fn begin_write(&mut self, machine: Party, write: writer::Write) {
        let incarnation = self.machines[machine].incarnation;
        let Some(running) = self.machines[machine].running_mut() else { return };
        let replica = running.state.replica();
        let on_disk = OnDisk {
            revoked: revoked(replica),
            tips: replica.report_tips(),
            settings: replica.chain().head().charter().version,
        };
        let slow = self.rng.random_bool(0.02);
        let takes = if slow {
            self.rng.random_range(SECOND..3 * SECOND)
        } else {
            self.rng.random_range(200..20 * MS)
        };
        if self.sabotage == Some(Sabotage::AcknowledgesTooEarly) {
            self.after(3 * SECOND, Event::LateWrite(machine, incarnation, Box::new((write, on_disk))));
        } else {
            running.write = Some((write, on_disk));
        }
        self.after(takes, Event::Written(machine, incarnation));
    }

    fn written(&mut self, machine: Party, incarnation: u64) {
        let unix_ns = self.now_of(machine).unix_ns;
        let Some(running) = self.running(machine, incarnation) else { return };
        let written = match running.write.take() {
            Some((write, on_disk)) => {
                let written = writer::perform(&mut running.store, write, || unix_ns);
                if written.result.is_ok() {
                    self.on_disk(machine, on_disk);
                } else {
                    self.totals.writes_refused += 1;
                }
                written
            }
            None => writer::Written { result: Ok(()), unix_ns, wants_replacing: false },
        };
        self.totals.writes += 1;
        self.trace.note(self.now, "written", [machine, 0], &[u8::from(written.result.is_ok())], || {
            format!("{:?}", written.result)
        });
        self.step(machine, |state, now| state.on_written(written, now));
    }

    fn on_disk(&mut self, machine: Party, on_disk: OnDisk) {
        let memory = &mut self.machines[machine].memory;
        memory.revoked_on_disk.extend(on_disk.revoked);
        memory.tips_on_disk.extend(on_disk.tips);
        memory.settings_on_disk = memory.settings_on_disk.max(on_disk.settings);
    }

    fn set_alarm(&mut self, machine: Party) {
        let (base, now) = (self.base, self.now);
        let incarnation = self.machines[machine].incarnation;
        let Some(running) = self.machines[machine].running_mut() else { return };
        let Some(due) = running.state.timeout() else { return };
        let since = due.saturating_duration_since(base);
        // To the next microsecond, so that it is due when it rings.
        let due = u64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX).max(now);
        if running.wake_at.is_none_or(|at| at > due) {
            running.wake_at = Some(due);
            self.at(due, Event::Wake(machine, incarnation));
        }
    }

    fn wake(&mut self, machine: Party, incarnation: u64) {
        let now = self.now;
        let Some(running) = self.running(machine, incarnation) else { return };
        if running.wake_at != Some(now) {
            return;
        }
        running.wake_at = None;
        running.wakes = if running.wakes.0 == now { (now, running.wakes.1 + 1) } else { (now, 1) };
        let wakes = running.wakes.1;
        self.hold_time_moves_on(machine, wakes);
        self.step(machine, |state, now| state.on_timeout(now));
    }

    /// Starts what is on a machine's disk, or begins with a list that it was given.
    pub(crate) fn start(&mut self, machine: Party, given: Option<Replica>) {
        let number = machine;
        // What it started with through a gateway has its own disk in it.
        let was_given = given.is_some() && !matches!(self.machines[machine].phase, Phase::Booting);
        let (org, machine) = (self.org.id, &mut self.machines[machine]);
        machine.incarnation += 1;
        let opened = Store::open(machine.disk.clone());
        if let Err(StoreError::Disk(why)) = &opened
            && machine.disk.mood(|mood| mood.fails)
        {
            // Whoever looks after the daemons starts it again after a while.
            let why = why.to_string();
            self.trace.note(self.now, "unread", [number, 0], &[], || why);
            machine.phase = Phase::Down;
            return self.after(2 * SECOND, Event::Fault(Fault::Restart(number)));
        }
        let read = opened.map_err(|why| why.to_string()).and_then(|(mut store, contents)| match given {
            Some(mut replica) => {
                let document = replica.save().map_err(|why| why.to_string())?;
                store.replace(&org, &document).map_err(|why| why.to_string())?;
                Ok((store, replica, false, 0))
            }
            None => {
                let loaded = Replica::load(&contents.document, &org).map_err(|why| format!("{why:?}"))?;
                let replace = loaded.torn || store.wants_replacing();
                Ok((store, loaded.replica, replace, loaded.refused.len()))
            }
        });
        let (store, replica, replace, refused) = match read {
            Ok(read) => read,
            Err(why) => {
                self.trace.note(self.now, "damaged", [number, 0], &[], || why.clone());
                return self.does_not_start(number, &why);
            }
        };
        let roster = replica.roster();
        let Some(beside) = self.open_keys(number, &roster) else {
            // An old list, from before it got these keys: it has to be given a newer one.
            self.trace.note(self.now, "foreign", [number, 0], &[], String::new);
            return self.needs_a_list(number);
        };
        let machine = &mut self.machines[number];
        if was_given {
            machine.memory.forget_disk();
        }
        if self.sabotage == Some(Sabotage::DisksForget) {
            machine.disk.mood(|mood| mood.forgets_syncs = true);
        }
        let has_front = machine.role.is_some();
        let boot_nonce = BootNonce(self.rng.random());
        let beginning = Beginning {
            keys: machine.daemon_keys(),
            boot_nonce,
            randomness: StdRng::from_seed(self.rng.random()),
            endpoints: vec![machine.endpoint],
            replace,
            replica,
            beside,
        };
        let now = self.now_of(number);
        let state = State::new(beginning, now);
        self.trace.note(self.now, "start", [number, 0], state.replica().heads().as_bytes(), String::new);
        // What was noticed of copies is not on the disk.
        self.machines[number].memory.starts_seen.clear();
        self.machines[number].memory.resumes_seen.clear();
        self.check_start(number, state.replica(), was_given, refused);
        let roster = state.replica().roster();
        self.machines[number].phase = Phase::Up(Box::new(Running {
            state,
            roster,
            store,
            disk: self.machines[number].disk.clone(),
            peers: BTreeMap::new(),
            gates: Default::default(),
            probed: Vec::new(),
            learned: BTreeMap::new(),
            handshaken: BTreeMap::new(),
            write: None,
            ends: Default::default(),
            front: None,
            boot_nonce,
            keys_order: None,
            role_order: None,
            wake_at: None,
            wakes: (0, 0),
            lost_at: BTreeMap::new(),
            out_at: None,
        }));
        self.totals.starts += 1;
        if has_front {
            self.open_front(number);
        }
        self.settle(number);
    }

    /// The front of a gateway connects to its daemon.
    pub(crate) fn open_front(&mut self, number: Party) {
        let incarnation = self.machines[number].incarnation;
        if let Some(running) = self.machines[number].running_mut()
            && running.front.is_none()
        {
            let (socket, queue, _) = Socket::new(incarnation, FRONT_QUEUED_MAX);
            running.front = Some((socket, queue));
        }
    }

    /// A disk that does not read back: an operator wipes it and a gateway gives the list anew.
    fn does_not_start(&mut self, machine: Party, why: &str) {
        self.check_damage(machine, why);
        self.needs_a_list(machine);
    }

    fn needs_a_list(&mut self, machine: Party) {
        if self.machines[machine].is_copy {
            self.machines[machine].phase = Phase::Gone;
            return;
        }
        self.machines[machine].phase = Phase::Damaged;
        self.machines[machine].disk.wipe();
        self.machines[machine].disk_is_spoiled = false;
        self.machines[machine].memory.forget_disk();
        self.totals.disks_lost += 1;
        self.after(SECOND, Event::Work(Work::Errand(machine, Errand::Boot { tries: 0 })));
    }

    /// Power goes, or the daemon is killed.
    pub(crate) fn crash(&mut self, machine: Party, wait: u64) {
        let Some(running) = self.machines[machine].running_mut() else { return };
        let ends = std::mem::take(&mut running.ends);
        let (write, order) = (running.write.take(), running.keys_order.take());
        let torn = self.rng.random_range(0..8);
        if let Some((write, _)) = write {
            running.store_stops_after(torn, write);
        }
        if let Some(order) = order.filter(|_| torn % 2 == 0) {
            self.on_keys_disk(machine, order);
        }
        self.machines[machine].phase = Phase::Down;
        let disk = self.machines[machine].disk.clone();
        let lied = disk.has_lied();
        disk.stop(&mut self.rng);
        if lied && self.sabotage != Some(Sabotage::DisksForget) {
            self.machines[machine].memory.forget_disk();
            self.machines[machine].disk_is_spoiled = true;
            self.totals.disks_spoiled += 1;
        }
        if self.sabotage == Some(Sabotage::DisksRot) {
            disk.rot(&mut self.rng);
        }
        for (connection, side) in ends {
            self.vanish(connection, side);
        }
        self.submissions.retain(|submission| submission.machine != machine);
        self.totals.crashes += 1;
        self.trace.note(self.now, "crash", [machine, 0], &[torn], String::new);
        self.after(wait, Event::Fault(Fault::Restart(machine)));
    }

    /// Everything queued for a gateway's front goes out. Whether there was something.
    pub(crate) fn pump_front(&mut self, machine: Party) -> bool {
        let mut said = Vec::new();
        let number = self.machines[machine].incarnation;
        let Some(running) = self.machines[machine].running_mut() else { return false };
        let Some((_, queue)) = &mut running.front else { return false };
        while let Ok(message) = queue.try_recv() {
            said.push(message);
        }
        if said.is_empty() {
            return false;
        }
        for message in said {
            self.front_is_told(message);
        }
        self.tell(machine, |state, now| state.on_outside(Outside::Drained(number), now));
        true
    }

    /// Sessions of one purpose that a machine has with another.
    pub(crate) fn is_linked(&self, from: Party, to: Party, purpose: Purpose) -> bool {
        let node = self.machines[to].node;
        self.machines[from].running().is_some_and(|running| {
            running.state.sessions().live_of(node).any(|(_, session)| session.purpose == purpose)
        })
    }
}

/// Keys that a list says are revoked, all of a machine's, and by what.
pub(crate) fn revoked(replica: &Replica) -> Revoked {
    let mut revoked = Revoked::new();
    for member in replica.roster().members() {
        if let member_crdt::MemberState::Revoked { ids, .. } = &member.state {
            revoked.extend(member.nodes().map(|node| (node, ids.clone())));
        }
    }
    revoked
}

impl Running {
    /// The machine stops within a write.
    fn store_stops_after(&mut self, operations: u8, write: writer::Write) {
        self.disk.mood(|mood| mood.operations_left = Some(u32::from(operations)));
        drop(writer::perform(&mut self.store, write, || 0));
    }
}

/// Messages queued for a gateway's front, as the daemon has it.
const FRONT_QUEUED_MAX: usize = 256;
