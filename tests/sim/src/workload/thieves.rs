//! Stolen keys: what thieves do with them, and how it is undone.

use std::collections::BTreeSet;

use identity::{Name, PublicKey, StatementId, Tag};
use org_trust::{
    Admit, Assign, Assurance, Cancel, EnrolRequest, Lane, Payload, Reason, Redemption, Resume, Revoke,
    Suspend,
};
use rand::RngExt as _;

use crate::{
    machine::key_of,
    network::Party,
    oracle::InviteMade,
    plan::Sabotage,
    workload::{Work, admins::Admin},
    world::{Event, SECOND, World},
};

/// A stolen key.
#[derive(Debug)]
pub(crate) struct Theft {
    /// The thief's own device.
    device: usize,
    /// The admin whose key it is; none for a gateway's.
    pub(crate) victim: Option<usize>,
    gateway: Party,
    /// The invite that leaked with a gateway's key.
    invite: Option<StatementId>,
    /// Whom the thief shuts out.
    targets: BTreeSet<Party>,
    pub(crate) is_undone: bool,
}

impl World {
    /// Somebody gets at an admin's device.
    pub(crate) fn steal_from_an_admin(&mut self) {
        let victim = self.an_admin();
        let device = self.admins.len();
        let copy = self.admins[victim].copied();
        self.admins.push(copy);
        self.stolen(Theft {
            device,
            victim: Some(victim),
            gateway: 0,
            invite: None,
            targets: BTreeSet::new(),
            is_undone: false,
        });
    }

    /// Somebody gets at a gateway's key, perhaps with an invite that names it.
    pub(crate) fn steal_from_a_gateway(&mut self) {
        let gateways = self.gateways();
        let gateway = gateways[self.rng.random_range(0..gateways.len())];
        let leaks = self.rng.random_bool(0.7);
        let invite = if leaks { self.make_invite(gateway, 2, false) } else { None };
        let Some(key) = self.machines[gateway].role_key() else { return };
        let seen = self.seen_of(key.public(), gateway);
        let last = seen.iter().filter(|statement| statement.lane() == Lane::Main).max_by_key(|s| s.seq());
        let Some(named) = self.org.chain.named(&key.public()).map(|charter| charter.id()) else { return };
        let device = self.admins.len();
        let thief = Admin::of_gateway(key, named, last.cloned(), &self.org);
        self.admins.push(thief);
        self.stolen(Theft {
            device,
            victim: None,
            gateway,
            invite,
            targets: BTreeSet::new(),
            is_undone: false,
        });
    }

    fn stolen(&mut self, theft: Theft) {
        let number = self.thefts.len();
        self.trace.note(self.now, "theft", [number, theft.gateway], &[], || format!("{theft:?}"));
        self.totals.thefts += 1;
        self.thefts.push(theft);
        for _ in 0..3 {
            let wait = self.rng.random_range(0..10 * SECOND);
            self.after(wait, Event::Work(Work::Thief(number)));
        }
        let wait = self.rng.random_range(4 * SECOND..20 * SECOND);
        self.after(wait, Event::Work(Work::Undo(number)));
        // Who has the key goes on after it is worth nothing.
        self.after(wait + 3 * SECOND, Event::Work(Work::Thief(number)));
    }

    /// A thief signs some of all that can be signed.
    pub(crate) fn thief_acts(&mut self, number: usize) {
        if self.is_calm {
            return;
        }
        let device = self.thefts[number].device;
        let acts = self.rng.random_range(1..=3);
        for _ in 0..acts {
            if self.thefts[number].victim.is_some() {
                self.thief_changes(number, device);
            } else {
                self.thief_admits_by_gateway(number, device);
            }
        }
        self.submit(device);
    }

    fn thief_changes(&mut self, number: usize, device: usize) {
        let staying = self.staying();
        let Some(some) = staying.get(self.rng.random_range(0..staying.len().max(1))).copied() else { return };
        let node = self.machines[some].first;
        let note = String::new;
        match self.rng.random_range(0..8) {
            0..=2 => {
                // All at once.
                for machine in staying {
                    if self.rng.random_bool(0.4) {
                        self.thief_revokes(number, device, machine);
                    }
                }
            }
            3 => {
                self.thefts[number].targets.insert(some);
                let suspend = Suspend { node, reason: Reason::Retired, note: note() };
                self.thief_signs(device, &Payload::Suspend(suspend));
            }
            4 => self.thief_admits(device),
            5 => {
                let assign = Assign {
                    node,
                    name: Name::parse("owned").expect("a name"),
                    roles: vec![Tag::parse("root").expect("a tag")],
                    labels: Vec::new(),
                    replaces: Vec::new(),
                };
                self.thief_signs(device, &Payload::from(assign));
            }
            6 => {
                if let Some(invite) = self.oracle.invites.keys().next().copied() {
                    self.thief_signs(device, &Payload::Cancel(Cancel { invite, tip: None }));
                }
            }
            _ => {
                let suspends = self.oracle.suspends.get(&some).cloned().unwrap_or_default();
                if !suspends.is_empty() {
                    let suspends = suspends.into_iter().take(16).collect();
                    self.thief_signs(device, &Payload::Resume(Resume { node, suspends }));
                }
                // And two things at one place.
                let revoke = Revoke { node, reason: Reason::Compromised, note: "beside".to_owned() };
                let beside = self.admins[device].sign_beside(&self.org, &Payload::Revoke(revoke));
                if let Some(statement) = beside {
                    self.thefts[number].targets.insert(some);
                    self.was_signed(device, &statement);
                }
            }
        }
    }

    fn thief_revokes(&mut self, number: usize, device: usize, machine: Party) {
        let node = self.machines[machine].first;
        let is_known = |signed: &org_trust::Statement| match signed.payload() {
            Payload::Revoke(revoke) => revoke.node == node,
            Payload::Admit(_)
            | Payload::Invite(_)
            | Payload::Cancel(_)
            | Payload::Leave
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Rotate(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => false,
        };
        if !self.admins[device].signed().any(is_known) {
            self.thefts[number].targets.insert(machine);
            let revoke = Revoke { node, reason: Reason::Retired, note: String::new() };
            self.thief_signs(device, &Payload::Revoke(revoke));
        }
    }

    fn thief_signs(&mut self, device: usize, payload: &Payload) {
        let statement = self.admins[device].sign(&self.org, payload);
        self.was_signed(device, &statement);
    }

    /// A machine of the thief's; none if all were used.
    fn next_rogue(&mut self) -> Option<Party> {
        let rogue = (0..self.machines.len()).filter(|number| self.machines[*number].is_rogue);
        let rogue = rogue.clone().nth(self.rogues_used % rogue.count().max(1));
        self.rogues_used += 1;
        rogue
    }

    pub(crate) fn thief_admits(&mut self, device: usize) {
        let Some(rogue) = self.next_rogue() else { return };
        let (keys, name) = (self.machines[rogue].keys, self.machines[rogue].name.clone());
        let by = self.admins[device].key.public();
        let admit = Admit::by_admin(&self.org.id, keys.all(), by, name, Assurance::File);
        self.thief_signs(device, &Payload::from(admit));
    }

    /// With the invite that leaked, or with one that the thief made up.
    fn thief_admits_by_gateway(&mut self, number: usize, device: usize) {
        let Some(rogue) = self.next_rogue() else { return };
        let (keys, name) = (self.machines[rogue].keys, self.machines[rogue].name.clone());
        let leaked = self.thefts[number].invite;
        let secret = match leaked.map(|invite| self.oracle.invites[&invite]) {
            Some(InviteMade { number, .. }) => format!("invite {number}"),
            None => "made up".to_owned(),
        };
        let secret = key_of(self.seed, &secret);
        let redeemer = self.admins[device].key.public();
        let redemption =
            Redemption { invite: leaked.unwrap_or(StatementId([9; 32])), key: &secret, redeemer };
        let request =
            EnrolRequest::sign(&self.org.id, keys.all(), redemption, name, Assurance::File, [0; 32]);
        let admit = request.verify(&self.org.id, &secret.public()).expect("a request").into_admit();
        let payload = Payload::from(admit);
        // A fork spends an invite more often than it may be.
        let beside = self.rng.random_bool(0.3).then(|| self.admins[device].sign_beside(&self.org, &payload));
        match beside.flatten() {
            Some(statement) => self.was_signed(device, &statement),
            None => self.thief_signs(device, &payload),
        }
    }

    /// One admin, or the holder of the org's keys, undoes it.
    pub(crate) fn undo(&mut self, number: usize) {
        let is_undone = std::mem::replace(&mut self.thefts[number].is_undone, true);
        if is_undone || self.sabotage == Some(Sabotage::TheftsGoUnnoticed) {
            return;
        }
        self.trace.note(self.now, "undo", [number, 0], &[], String::new);
        match (self.thefts[number].victim, self.thefts[number].invite) {
            (Some(victim), _) => {
                let mut next = self.org.head().successor();
                self.add_admin(&mut next);
                self.remove_admin(&mut next, victim);
                self.settle_on(next);
            }
            (None, invite) => {
                if let Some(invite) = invite {
                    self.cancel(invite);
                }
                let key: PublicKey = self.admins[self.thefts[number].device].key.public();
                let gateway = self.thefts[number].gateway;
                let is_named = self.org.gateways.contains(&key);
                // The role goes too, if that leaves a gateway; an admin alone has done what was needed.
                if is_named && gateway != 0 && self.rng.random_bool(0.5) {
                    let mut next = self.org.head().successor();
                    let stolen = self.oracle.stolen.clone();
                    self.remove_gateway(&mut next, key, gateway, &stolen);
                    self.settle_on(next);
                }
            }
        }
    }

    pub(crate) fn is_target(&self, device: usize, machine: Party) -> bool {
        self.thefts.iter().any(|theft| theft.device == device && theft.targets.contains(&machine))
    }
}

impl World {
    /// Somebody has an admin's key and admits a machine with it, and no admin and no check knows.
    pub(crate) fn steal_a_key(&mut self) {
        let thief = crate::machine::Machine::new(self.seed, 99, false);
        let key = self.admins[0].key.public();
        let admit = Admit::by_admin(&self.org.id, thief.keys.all(), key, thief.name, Assurance::File);
        self.admins[0].sign(&self.org, &Payload::from(admit));
        self.after(SECOND, Event::Work(Work::Submit(0)));
    }
}
