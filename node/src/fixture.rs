//! An org of fixed keys for tests: root 1, admin 2, gateway role 3; machines 10, 20 and 30, each with
//! its WireGuard and boot keys in the two numbers after its own. The first one is the gateway.

use identity::{Name, SecretKey, WireGuardKey};
use member_crdt::Replica;
use org_trust::{
    Admin, Admit, Assurance, Charter, Gateway, Lane, NodeKeys, Payload, Record, Statement, UnverifiedCharter,
    VerifiedCharter,
};

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn admin() -> SecretKey {
    key(2)
}

pub(crate) fn gateway_key() -> SecretKey {
    key(3)
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) struct Machine {
    pub(crate) node: SecretKey,
    pub(crate) wireguard: SecretKey,
    pub(crate) boot: SecretKey,
}

impl Machine {
    pub(crate) fn new(seed: u8) -> Self {
        Self { node: key(seed), wireguard: key(seed + 1), boot: key(seed + 2) }
    }

    pub(crate) fn wireguard(&self) -> WireGuardKey {
        self.wireguard.public().to_wireguard()
    }

    pub(crate) fn keys(&self) -> NodeKeys<'_> {
        NodeKeys { node: &self.node, wireguard: &self.wireguard, boot: &self.boot }
    }
}

/// The org's first settings; `salt` makes another org of the same keys.
pub(crate) fn genesis(salt: u8) -> VerifiedCharter {
    let root = key(1);
    let mut charter = Charter::genesis(name("acme"), 1, vec![root.public()], [salt; 16]);
    charter.admins.push(Admin { key: admin().public(), name: name("ada") });
    charter.gateways.push(Gateway { key: gateway_key().public(), node: key(10).public() });
    UnverifiedCharter::sign(charter, &[&root]).unwrap().verify_genesis().unwrap()
}

/// The settings that follow, signed.
pub(crate) fn settings(next: Charter) -> UnverifiedCharter {
    UnverifiedCharter::sign(next, &[&key(1)]).unwrap()
}

/// A replica in which the three machines are members, and the changes that admitted them.
pub(crate) fn org(salt: u8) -> (Replica, Vec<Statement>) {
    let mut replica = Replica::new(&genesis(salt)).unwrap();
    let mut admits = Vec::new();
    for (seed, called) in [(10, "one"), (20, "two"), (30, "three")] {
        let (org, machine) = (replica.org(), Machine::new(seed));
        let admit = Admit::by_admin(&org, machine.keys(), admin().public(), name(called), Assurance::File);
        let place = replica.next_place(&admin().public(), Lane::Main).unwrap();
        let statement = Statement::sign(&org, &admin(), place, &Payload::from(admit)).unwrap();
        replica.apply(&Record::from(&statement)).unwrap();
        admits.push(statement);
    }
    (replica, admits)
}
