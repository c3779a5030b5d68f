//! One machine: its keys and disk, which outlive a crash, and what runs on it, which does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use identity::{BootNonce, Name, OrgId, PublicKey, SecretKey, StatementId, WireGuardKey};
use member_crdt::Replica;
use musterd::{
    keys::{Beside, Keys, KeysOrder, NextKeys},
    state::{RoleKeyOrder, Socket, State},
    store::Store,
    tunnel::TunnelPeer,
    writer::Write,
};
use org_trust::{Charter, CharterChain, NodeKeys, ReportTip};
use tokio::sync::mpsc;

use crate::{connection::ConnectionId, disk::SimDisk, hostile::Hostility, network::Party};

/// The keys of a machine. Never freed: a run makes a few dozen.
#[derive(Debug)]
pub(crate) struct MachineKeys {
    pub(crate) node: SecretKey,
    pub(crate) wireguard: SecretKey,
    pub(crate) boot: SecretKey,
    seeds: [[u8; 32]; 3],
}

/// A key that follows from a seed and a name.
pub(crate) fn key_of(seed: u64, name: &str) -> SecretKey {
    SecretKey::from_seed(&seed_of(seed, name))
}

pub(crate) fn seed_of(seed: u64, name: &str) -> [u8; 32] {
    *blake3::hash(format!("{seed} {name}").as_bytes()).as_bytes()
}

impl MachineKeys {
    /// The keys of a machine after so many rotations.
    pub(crate) fn leaked(seed: u64, machine: Party, rotations: u32) -> &'static Self {
        let seeds =
            ["node", "wg", "boot"].map(|what| seed_of(seed, &format!("{what} {machine} {rotations}")));
        let [node, wireguard, boot] = seeds.map(|seed| SecretKey::from_seed(&seed));
        Box::leak(Box::new(Self { node, wireguard, boot, seeds }))
    }

    pub(crate) const fn all(&self) -> NodeKeys<'_> {
        NodeKeys { node: &self.node, wireguard: &self.wireguard, boot: &self.boot }
    }

    /// The same for a daemon that made them.
    pub(crate) fn made(&self) -> NextKeys {
        let [node, wireguard, boot] = self.seeds.map(|seed| SecretKey::from_seed(&seed));
        NextKeys::of(node, wireguard, boot)
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    /// Those in use, and their public halves.
    pub(crate) keys: &'static MachineKeys,
    pub(crate) node: PublicKey,
    pub(crate) wireguard: WireGuardKey,
    /// The node key that it was made with.
    pub(crate) first: PublicKey,
    /// Those that lie on its disk as its own, what a rotation has made beside them, and what it has noted.
    pub(crate) kept: &'static MachineKeys,
    pub(crate) next: Option<&'static MachineKeys>,
    pub(crate) beside: Beside,
    pub(crate) rotations: u32,
    /// Who had its newest keys on the list when the old ones were given up, and which disk of theirs.
    pub(crate) known_by: Vec<(Party, u32)>,
    /// The key of the gateway role, if it has one, and how many it has made.
    pub(crate) role: Option<[u8; 32]>,
    pub(crate) roles_made: u32,
    /// Somebody's who has stolen a key: it runs no daemon.
    pub(crate) is_rogue: bool,
    /// Runs from a copy of another one's disk, if at all.
    pub(crate) is_copy: bool,
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
    /// It starts through a gateway, with its disk whole.
    Booting,
    /// Its disk does not open; a gateway has to give it the list anew.
    Damaged,
    /// Gone for good.
    Gone,
}

/// Keys that are revoked, and by which statements.
pub(crate) type Revoked = BTreeMap<PublicKey, Vec<StatementId>>;

/// What the checks remember of a machine beside what it says itself.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Keys that it knows to be revoked: those on its disk outlive a crash.
    pub(crate) revoked: Revoked,
    pub(crate) revoked_on_disk: Revoked,
    /// Lane ends that it had on disk at some time.
    pub(crate) tips_on_disk: BTreeSet<ReportTip>,
    /// Changes that it acknowledged.
    pub(crate) acknowledged: BTreeSet<StatementId>,
    pub(crate) settings_on_disk: u32,
    pub(crate) report_seq: Option<u64>,
    /// How often its disk was another one: what was acknowledged before is not looked for.
    pub(crate) disks: u32,
    /// Whose starts it has seen in reports since it started itself, for keys that two machines use.
    pub(crate) starts_seen: BTreeMap<PublicKey, Vec<BootNonce>>,
    /// How many ends of suspensions of such a machine it has heard of.
    pub(crate) resumes_seen: BTreeMap<PublicKey, usize>,
}

impl Memory {
    /// The disk is another one: what it was known to hold does not count.
    pub(crate) fn forget_disk(&mut self) {
        let (tips_on_disk, disks) = (std::mem::take(&mut self.tips_on_disk), self.disks + 1);
        *self = Self { tips_on_disk, disks, ..Self::default() };
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) state: State,
    pub(crate) store: Store<SimDisk>,
    pub(crate) disk: SimDisk,
    /// The tunnels: who may have one, whose gate is open, where each was last heard.
    pub(crate) peers: BTreeMap<WireGuardKey, TunnelPeer>,
    /// With when a packet last passed it, or it was opened.
    pub(crate) gates: BTreeMap<WireGuardKey, u64>,
    /// Overlay addresses whose probes pass.
    pub(crate) probed: Vec<Ipv6Addr>,
    pub(crate) learned: BTreeMap<WireGuardKey, SocketAddr>,
    pub(crate) handshaken: BTreeMap<WireGuardKey, u64>,
    /// An order about its keys, or a role's, that is under way.
    pub(crate) boot_nonce: BootNonce,
    pub(crate) keys_order: Option<KeysOrder>,
    pub(crate) role_order: Option<Box<RoleKeyOrder>>,
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
    pub(crate) revoked: Revoked,
    pub(crate) tips: Vec<ReportTip>,
    pub(crate) settings: u32,
}

impl Machine {
    pub(crate) fn new(seed: u64, number: Party, is_gateway: bool) -> Self {
        let keys = MachineKeys::leaked(seed, number, 0);
        Self {
            next: None,
            beside: Beside::default(),
            rotations: 0,
            known_by: Vec::new(),
            role: is_gateway.then(|| seed_of(seed, &format!("gateway {number} 0"))),
            roles_made: 0,
            is_rogue: false,
            is_copy: false,
            kept: keys,
            node: keys.node.public(),
            first: keys.node.public(),
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
            Phase::Outside | Phase::Down | Phase::Booting | Phase::Damaged | Phase::Gone => None,
        }
    }

    pub(crate) const fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Up(running) => Some(running),
            Phase::Outside | Phase::Down | Phase::Booting | Phase::Damaged | Phase::Gone => None,
        }
    }

    pub(crate) const fn is_honest(&self) -> bool {
        self.hostility.is_none()
    }

    pub(crate) fn role_key(&self) -> Option<SecretKey> {
        self.role.as_ref().map(SecretKey::from_seed)
    }

    /// What a daemon opens when it starts.
    pub(crate) fn daemon_keys(&self) -> Arc<Keys> {
        let [node, wireguard, _] = self.keys.seeds.map(|seed| SecretKey::from_seed(&seed));
        Arc::new(Keys { node, wireguard, gateway: self.role_key() })
    }

    /// The list on its disk, if that opens.
    pub(crate) fn read(&self, org: &OrgId) -> Option<Replica> {
        let (_, contents) = Store::open(self.disk.durable()).ok()?;
        Replica::load(&contents.document, org).ok().map(|loaded| loaded.replica)
    }

    pub(crate) fn uses(&mut self, keys: &'static MachineKeys) {
        self.keys = keys;
        (self.node, self.wireguard) = (keys.node.public(), keys.wireguard.public().to_wireguard());
    }
}

/// Where a machine is reached after it has moved so many times.
pub(crate) fn endpoint(machine: Party, moves: u8) -> SocketAddr {
    let host = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(10, 0, moves, host), 51820))
}

/// The org's settings, the key that signs them, and the gateways that stand in them.
#[derive(Debug)]
pub(crate) struct Org {
    pub(crate) id: OrgId,
    pub(crate) chain: CharterChain,
    pub(crate) root: SecretKey,
    pub(crate) gateways: &'static [PublicKey],
}

impl Org {
    pub(crate) fn head(&self) -> &Charter {
        self.chain.head().charter()
    }
}
