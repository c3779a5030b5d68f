//! What is asked of machines: by programs, by applications, and by anybody who shakes hands.

use conn_auth::{Accept, Action, Binding, Dial, To};
use control::{
    local::{Answer, Failed, Request as Ask},
    text::Text,
};
use identity::{Code, StatementId};
use musterd::{
    state::{Decision, Proven},
    tunnel::TunnelEvent,
};
use rand::RngExt as _;
use tokio::sync::oneshot;

use crate::{
    network::Party,
    world::{SECOND, World},
};

/// Minutes in earnest, and too long for these runs.
const QUIET: u64 = 5 * SECOND;

impl World {
    pub(crate) fn up(&self) -> impl Iterator<Item = Party> {
        (0..self.machines.len()).filter(|machine| self.machines[*machine].running().is_some())
    }

    pub(crate) fn ask_something(&mut self) {
        let machines: Vec<Party> = self.up().collect();
        if machines.is_empty() {
            return;
        }
        let machine = machines[self.rng.random_range(0..machines.len())];
        let changes: Vec<StatementId> = self.oracle.statements.iter().copied().collect();
        let change = changes[self.rng.random_range(0..changes.len())];
        let asks = [
            Ask::Status {},
            Ask::Members {},
            Ask::Sessions {},
            Ask::Invites {},
            Ask::Coverage { change: Text(change) },
        ];
        for ask in asks {
            let (reply, mut answer) = oneshot::channel();
            self.step(machine, |state, now| state.on_request(ask, reply, now));
            if let Ok(Answer::Coverage(coverage)) = answer.try_recv() {
                self.check_coverage(machine, change, &coverage);
            }
        }
    }

    pub(crate) fn ask_status(&mut self, machine: Party) {
        let problems = self.problems(machine);
        self.check_status(&problems);
    }

    /// What a machine says is not well with it.
    pub(crate) fn problems(&mut self, machine: Party) -> Vec<Failed> {
        let (reply, mut answer) = oneshot::channel();
        self.step(machine, |state, now| state.on_request(Ask::Status {}, reply, now));
        match answer.try_recv() {
            Ok(Answer::Status(status)) => status.problems,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    pub(crate) fn traffic(&mut self) {
        self.close_quiet_links();
        let machines: Vec<Party> = self.up().collect();
        if machines.len() < 2 {
            return;
        }
        for _ in 0..4 {
            let from = machines[self.rng.random_range(0..machines.len())];
            let to = machines[self.rng.random_range(0..machines.len())];
            if from != to {
                self.packet(from, to);
            }
        }
    }

    fn close_quiet_links(&mut self) {
        for machine in self.up().collect::<Vec<_>>() {
            let Some(running) = self.machines[machine].running() else { continue };
            let is_quiet = |since: u64| self.now.saturating_sub(since) >= QUIET;
            let gates = running.gates.iter().filter(|(_, since)| is_quiet(**since));
            for gate in gates.map(|(gate, _)| *gate).collect::<Vec<_>>() {
                self.totals.quiet_links += 1;
                self.step(machine, |state, now| state.on_tunnel(TunnelEvent::QuietLink(gate), now));
            }
        }
    }

    /// One packet of an application.
    pub(crate) fn packet(&mut self, from: Party, to: Party) {
        let (here, there) = (self.machines[from].wireguard, self.machines[to].wireguard);
        let Some(running) = self.machines[from].running() else { return };
        if !running.gates.contains_key(&there) {
            if running.peers.contains_key(&there) {
                self.step(from, |state, now| {
                    state.on_tunnel(TunnelEvent::WantLink(there), now);
                });
            }
            return;
        }
        let arrives = !self.network.is_blocked(from, to)
            && self.machines[to].running().is_some_and(|running| running.gates.contains_key(&here));
        if arrives {
            for (machine, gate) in [(from, there), (to, here)] {
                let running = self.machines[machine].running_mut();
                running.and_then(|running| running.gates.insert(gate, self.now));
            }
            self.totals.packets += 1;
            self.trace.note(self.now, "packet", [from, to], &[], String::new);
            self.check_packet(from, to);
        }
    }

    pub(crate) fn shake_some_hands(&mut self) {
        let machines: Vec<Party> = self.up().collect();
        for _ in 0..4 {
            let Some(&at) = machines.get(self.rng.random_range(0..machines.len().max(1))) else { return };
            let by = self.rng.random_range(0..self.machines.len());
            let action = ["link", "ping", "sync"][self.rng.random_range(0..3)];
            self.shake_hands(by, at, action);
        }
    }

    /// A whole handshake in a tunnel that is taken for granted: what the acceptor's list says decides.
    /// The dialler lies that it holds what the acceptor holds.
    pub(crate) fn shake_hands(&mut self, by: Party, at: Party, action: &str) -> Option<Result<(), Code>> {
        if by == at || self.machines[by].node == self.machines[at].node {
            return None;
        }
        let running = self.machines[at].running()?;
        let (heads, count) = (running.state.replica().heads(), running.state.replica().count());
        let in_step = running.state.is_in_step();
        let (client, server) = (&self.machines[by], &self.machines[at]);
        let binding = Binding::WireGuard { client: client.wireguard, server: server.wireguard };
        let named = Action::new(action, &[]).expect("a known action");
        let (dialler, acceptor) = (&client.keys.node, &server.keys.node);
        let dial = Dial { org: self.org.id, key: dialler, to: To::Key(server.node), binding, action: named };
        let dial = dial.start(self.rng.random()).expect("another machine");
        let accept = Accept { org: self.org.id, key: acceptor, binding };
        let pending = accept.on_hello(dial.hello().as_bytes(), self.rng.random()).expect("a hello");
        let wait = dial.on_challenge(pending.challenge().as_bytes()).expect("a server").prove(heads, count);
        let proven = pending.on_proof(wait.proof().as_bytes()).expect("a proof");
        let source = identity::overlay_address(&self.org.id, &self.machines[by].node);
        let (reply, mut decided) = oneshot::channel();
        self.totals.handshakes += 1;
        self.step(at, |state, now| state.on_proven(Proven { proven, source, reply }, now));
        let outcome = match decided.try_recv() {
            Ok(Decision::Open { verdict, key, .. }) => {
                assert!(wait.on_verdict(verdict.unwrap_or_default().as_bytes()).is_ok(), "a verdict");
                self.step(at, |state, now| state.on_ended(key, now));
                Ok(())
            }
            Ok(Decision::Refuse { code, .. }) => {
                self.totals.refused += 1;
                Err(code)
            }
            Err(_) => return None,
        };
        self.trace.note(self.now, "shake", [by, at], &[u8::from(outcome.is_ok())], || {
            format!("{action} {outcome:?}")
        });
        self.check_handshake(by, at, action, outcome, in_step);
        Some(outcome)
    }
}
