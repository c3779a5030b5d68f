//! One machine: its keys and disk, which outlive a crash, and what runs on it, which does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use identity::{Name, OrgId, PublicKey, SecretKey, StatementId, WireGuardKey};
use musterd::{
    keys::Keys,
    state::{Socket, State},
    store::Store,
    tunnel::TunnelPeer,
    writer::Write,
};
use org_trust::{NodeKeys, ReportTip};
use tokio::sync::mpsc;

use crate::{connection::ConnectionId, disk::SimDisk, hostile::Hostility, network::Party};

/// The keys of a machine. Never freed: a run makes a few dozen.
#[derive(Debug)]
pub(crate) struct MachineKeys {
    pub(crate) node: SecretKey,
    pub(crate) wireguard: SecretKey,
    pub(crate) boot: SecretKey,
    gateway: Option<[u8; 32]>,
    seeds: [[u8; 32]; 2],
}

/// A key that follows from a seed and a name.
pub(crate) fn key_of(seed: u64, name: &str) -> SecretKey {
    SecretKey::from_seed(&seed_of(seed, name))
}

fn seed_of(seed: u64, name: &str) -> [u8; 32] {
    *blake3::hash(format!("{seed} {name}").as_bytes()).as_bytes()
}

impl MachineKeys {
    pub(crate) fn leaked(seed: u64, machine: Party, is_gateway: bool) -> &'static Self {
        let seeds = [seed_of(seed, &format!("node {machine}")), seed_of(seed, &format!("wg {machine}"))];
        Box::leak(Box::new(Self {
            node: SecretKey::from_seed(&seeds[0]),
            wireguard: SecretKey::from_seed(&seeds[1]),
            boot: key_of(seed, &format!("boot {machine}")),
            gateway: is_gateway.then(|| seed_of(seed, &format!("gateway {machine}"))),
            seeds,
        }))
    }

    pub(crate) fn gateway(&self) -> Option<SecretKey> {
        self.gateway.as_ref().map(SecretKey::from_seed)
    }

    pub(crate) fn daemon(&self) -> Arc<Keys> {
        Arc::new(Keys {
            node: SecretKey::from_seed(&self.seeds[0]),
            wireguard: SecretKey::from_seed(&self.seeds[1]),
            gateway: self.gateway(),
        })
    }

    pub(crate) const fn all(&self) -> NodeKeys<'_> {
        NodeKeys { node: &self.node, wireguard: &self.wireguard, boot: &self.boot }
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) keys: &'static MachineKeys,
    pub(crate) node: PublicKey,
    pub(crate) wireguard: WireGuardKey,
    pub(crate) name: Name,
    pub(crate) endpoint: SocketAddr,
    pub(crate) disk: SimDisk,
    pub(crate) phase: Phase,
    /// What its clock shows beside the true time, in nanoseconds.
    pub(crate) clock_offset_ns: i64,
    /// Grows with every start.
    pub(crate) incarnation: u64,
    pub(crate) hostility: Option<Hostility>,
    pub(crate) memory: Memory,
    /// Its disk was made to forget or to rot: it need not read back.
    pub(crate) disk_is_spoiled: bool,
    pub(crate) backup: Option<Backup>,
}

/// A copy of a disk, and what was known when it was made.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Not a member yet.
    Outside,
    Up(Box<Running>),
    Down,
    /// Its disk does not open; a gateway has to give it the list anew.
    Damaged,
    /// Gone for good.
    Gone,
}

/// What the checks remember of a machine beside what it says itself.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Keys that it knows to be revoked: those on its disk outlive a crash.
    pub(crate) revoked: BTreeSet<PublicKey>,
    pub(crate) revoked_on_disk: BTreeSet<PublicKey>,
    /// Lane ends that it had on disk at some time.
    pub(crate) tips_on_disk: BTreeSet<ReportTip>,
    /// Changes that it acknowledged.
    pub(crate) acknowledged: BTreeSet<StatementId>,
    pub(crate) settings_on_disk: u32,
    pub(crate) report_seq: Option<u64>,
}

impl Memory {
    /// The disk is another one: what it was known to hold does not count.
    pub(crate) fn forget_disk(&mut self) {
        let tips_on_disk = std::mem::take(&mut self.tips_on_disk);
        *self = Self { tips_on_disk, ..Self::default() };
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) state: State,
    pub(crate) store: Store<SimDisk>,
    pub(crate) disk: SimDisk,
    /// The tunnels: who may have one, whose gate is open, where each was last heard.
    pub(crate) peers: BTreeMap<WireGuardKey, TunnelPeer>,
    pub(crate) gates: BTreeSet<WireGuardKey>,
    /// Overlay addresses whose probes pass.
    pub(crate) probed: Vec<Ipv6Addr>,
    pub(crate) learned: BTreeMap<WireGuardKey, SocketAddr>,
    pub(crate) handshaken: BTreeMap<WireGuardKey, u64>,
    /// The write under way, with what it will have put on disk.
    pub(crate) write: Option<(Write, OnDisk)>,
    pub(crate) ends: BTreeSet<(ConnectionId, usize)>,
    pub(crate) front: Option<(Socket, mpsc::Receiver<control::gateway::ToGateway>)>,
    /// The time for which a wake-up is under way.
    pub(crate) wake_at: Option<u64>,
    /// Wake-ups at one moment.
    pub(crate) wakes: (u64, u32),
    /// The member list when it was last looked at.
    pub(crate) roster: Arc<member_crdt::Roster>,
    /// When somebody lost its standing here, by tunnel.
    pub(crate) lost_at: BTreeMap<WireGuardKey, u64>,
    /// When its list first said that it is no member.
    pub(crate) out_at: Option<u64>,
}

/// What a write puts on disk.
#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    pub(crate) revoked: BTreeSet<PublicKey>,
    pub(crate) tips: Vec<ReportTip>,
    pub(crate) settings: u32,
}

impl Machine {
    pub(crate) fn new(seed: u64, number: Party, is_gateway: bool) -> Self {
        let keys = MachineKeys::leaked(seed, number, is_gateway);
        Self {
            node: keys.node.public(),
            wireguard: keys.wireguard.public().to_wireguard(),
            keys,
            name: Name::parse(&format!("m{number}")).expect("a name"),
            endpoint: endpoint(number, 0),
            disk: SimDisk::default(),
            phase: Phase::Outside,
            clock_offset_ns: 0,
            incarnation: 0,
            hostility: None,
            memory: Memory::default(),
            disk_is_spoiled: false,
            backup: None,
        }
    }

    pub(crate) const fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Up(running) => Some(running),
            Phase::Outside | Phase::Down | Phase::Damaged | Phase::Gone => None,
        }
    }

    pub(crate) const fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Up(running) => Some(running),
            Phase::Outside | Phase::Down | Phase::Damaged | Phase::Gone => None,
        }
    }

    pub(crate) const fn is_honest(&self) -> bool {
        self.hostility.is_none()
    }
}

/// Where a machine is reached after it has moved so many times.
pub(crate) fn endpoint(machine: Party, moves: u8) -> SocketAddr {
    let host = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(10, 0, moves, host), 51820))
}

/// The org's first settings and the keys that stand in them.
#[derive(Debug)]
pub(crate) struct Org {
    pub(crate) id: OrgId,
    pub(crate) genesis: org_trust::VerifiedCharter,
    pub(crate) gateways: &'static [PublicKey],
}
