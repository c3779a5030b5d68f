//! A small org for tests: everybody's keys, everybody's chains, and steps to draw stories from.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "each test file uses a part of the kit"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use identity::{BootNonce, HashContext, Name, OrgId, SecretKey, StatementId, Tag};
use member_crdt::{Applied, Replica, Roster};
use org_trust::{
    Admin, Admit, Assign, Assurance, Cancel, Charter, CharterChain, Cosign, EnrolRequest, Gateway, Invite,
    Lane, NodeKeys, Payload, Place, PolicyChange, Reason, Record, Redemption, Report, ReportBody, Resume,
    Retire, Revoke, Rotate, Statement, Suspend, UnverifiedCharter, VerifiedCharter,
};
use policy::PolicyFile;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Admin(u8),
    Gateway(u8),
    Node(u8),
    Stranger(u8),
}

pub struct World {
    pub org: OrgId,
    pub chain: CharterChain,
    pub statements: Vec<Arc<Statement>>,
    pub reports: Vec<Report>,
    pub invites: Vec<(StatementId, u8)>,
    tips: BTreeMap<([u8; 32], Lane), (u64, [u8; 32])>,
}

pub fn seed(what: &str, n: u8) -> [u8; 32] {
    HashContext::STATEMENT_ID.hash(&[what.as_bytes(), &[n]])
}

pub fn key(who: Who) -> SecretKey {
    SecretKey::from_seed(&match who {
        Who::Admin(n) => seed("admin", n),
        Who::Gateway(n) => seed("gateway", n),
        Who::Node(n) => seed("node", n),
        Who::Stranger(n) => seed("stranger", n),
    })
}

pub fn root() -> SecretKey {
    SecretKey::from_seed(&seed("root", 0))
}

pub fn charter(name: &str, admins: u8, gateways: u8, threshold: u8) -> Charter {
    let mut charter = Charter::genesis(Name::parse(name).unwrap(), 1, vec![root().public()], [0; 16]);
    charter.revoke_threshold = threshold;
    charter.admins = (0..admins)
        .map(|n| Admin { key: key(Who::Admin(n)).public(), name: Name::parse(&format!("a{n}")).unwrap() })
        .collect();
    charter.gateways = (0..gateways)
        .map(|n| Gateway { key: key(Who::Gateway(n)).public(), node: key(Who::Node(n)).public() })
        .collect();
    charter
}

pub fn genesis(charter: Charter) -> VerifiedCharter {
    UnverifiedCharter::sign(charter, &[&root()]).unwrap().verify_genesis().unwrap()
}

impl World {
    pub fn new(admins: u8, gateways: u8, threshold: u8) -> Self {
        Self::named("demo", admins, gateways, threshold)
    }

    pub fn named(name: &str, admins: u8, gateways: u8, threshold: u8) -> Self {
        let first = genesis(charter(name, admins, gateways, threshold));
        Self {
            org: first.org(),
            chain: CharterChain::start(first).unwrap(),
            statements: Vec::new(),
            reports: Vec::new(),
            invites: Vec::new(),
            tips: BTreeMap::new(),
        }
    }

    pub fn replica(&self) -> Replica {
        Replica::new(self.chain.genesis()).unwrap()
    }

    /// The next charter, changed by `change` and signed by the root.
    pub fn govern(&mut self, change: impl FnOnce(&mut Charter)) {
        let mut next = self.chain.head().charter().successor();
        change(&mut next);
        self.chain.extend(UnverifiedCharter::sign(next, &[&root()]).unwrap()).unwrap();
    }

    pub fn place(&self, who: Who, lane: Lane) -> Place {
        let author = key(who).public();
        let charter = self.chain.head().id();
        let first = || (0, self.chain.named(&author).map_or([7; 32], |c| c.id().0));
        let (seq, prev) = self.tips.get(&(*author.as_bytes(), lane)).copied().unwrap_or_else(first);
        Place { charter, lane, seq, prev }
    }

    pub fn sign_at(&self, who: Who, place: Place, payload: impl Into<Payload>) -> Statement {
        Statement::sign(&self.org, &key(who), place, &payload.into()).unwrap()
    }

    pub fn say(&mut self, who: Who, payload: impl Into<Payload>) -> StatementId {
        let payload = payload.into();
        let statement = self.sign_at(who, self.place(who, payload.lane()), payload);
        self.keep(statement)
    }

    /// Makes a statement part of the story and the tip of its lane.
    pub fn keep(&mut self, s: Statement) -> StatementId {
        let id = s.id();
        self.tips.insert((*s.author().as_bytes(), s.lane()), (s.seq() + 1, id.0));
        self.statements.push(Arc::new(s));
        id
    }

    pub fn invite(&mut self, admin: u8, gateway: u8, uses: u32) -> usize {
        self.invite_with(admin, gateway, uses, false)
    }

    pub fn invite_with(&mut self, admin: u8, gateway: u8, uses: u32, approval: bool) -> usize {
        let n = u8::try_from(self.invites.len()).unwrap();
        let redeemer = key(Who::Gateway(gateway)).public();
        let id = self.say(Who::Admin(admin), Invite { uses, redeemer, approval, ..an_invite(n) });
        self.invites.push((id, gateway));
        self.invites.len() - 1
    }

    pub fn enrol(&self, invite: usize, machine: Machine) -> Admit {
        let (id, gateway) = self.invites[invite];
        let secret = invite_key(u8::try_from(invite).unwrap());
        let redeemer = key(Who::Gateway(gateway)).public();
        let redemption = Redemption { invite: id, key: &secret, redeemer };
        machine.with_keys(|keys| {
            let name = Name::parse(&format!("m{}", machine.node)).unwrap();
            let request = EnrolRequest::sign(&self.org, keys, redemption, name, Assurance::File, [0; 32]);
            request.claimed().clone()
        })
    }

    pub fn admit(&mut self, invite: usize, machine: Machine) -> StatementId {
        let admit = self.enrol(invite, machine);
        self.say(Who::Gateway(self.invites[invite].1), admit)
    }

    /// A machine beyond the 256 that have a number of eight bits.
    pub fn admit_numbered(&mut self, invite: usize, n: u16) -> StatementId {
        let (id, gateway) = self.invites[invite];
        let seed = |what: &str| HashContext::STATEMENT_ID.hash(&[what.as_bytes(), &n.to_le_bytes()]);
        let keys = ["node", "wireguard", "boot"].map(|what| SecretKey::from_seed(&seed(what)));
        let keys = NodeKeys { node: &keys[0], wireguard: &keys[1], boot: &keys[2] };
        let secret = invite_key(u8::try_from(invite).unwrap());
        let redeemer = key(Who::Gateway(gateway)).public();
        let redemption = Redemption { invite: id, key: &secret, redeemer };
        let name = Name::parse(&format!("m{n}")).unwrap();
        let request = EnrolRequest::sign(&self.org, keys, redemption, name, Assurance::File, [0; 32]);
        self.say(Who::Gateway(gateway), request.claimed().clone())
    }

    pub fn own_admit(&mut self, admin: u8, machine: Machine) -> StatementId {
        let redeemer = key(Who::Admin(admin)).public();
        let name = Name::parse(&format!("m{}", machine.node)).unwrap();
        let admit =
            machine.with_keys(|keys| Admit::by_admin(&self.org, keys, redeemer, name, Assurance::Tpm));
        self.say(Who::Admin(admin), admit)
    }

    pub fn revoke(&mut self, admin: u8, node: u8) -> StatementId {
        self.say(Who::Admin(admin), revocation(node))
    }

    pub fn cancel(&mut self, admin: u8, invite: usize, tip: Option<StatementId>) -> StatementId {
        self.say(Who::Admin(admin), Payload::Cancel(Cancel { invite: self.invites[invite].0, tip }))
    }

    /// What a machine says of itself, with the key that `made` made its own.
    pub fn own(&mut self, node: u8, made: StatementId, payload: impl Into<Payload>) -> StatementId {
        let charter = self.chain.head().id();
        let place = Place { charter, lane: Lane::Main, seq: 0, prev: made.0 };
        let statement = self.sign_at(Who::Node(node), place, payload);
        let id = statement.id();
        self.statements.push(Arc::new(statement));
        id
    }

    pub fn leave(&mut self, node: u8, made: StatementId) -> StatementId {
        self.own(node, made, Payload::Leave)
    }

    pub fn rotate(&mut self, node: u8, made: StatementId, to: Machine) -> StatementId {
        let payload = rotation(&self.org, node, to);
        self.own(node, made, payload)
    }

    pub fn retire(&mut self, node: u8, made: StatementId, old: u8) -> StatementId {
        let old = key(Who::Node(old)).public();
        self.own(node, made, Payload::Retire(Retire { old }))
    }

    pub fn suspend(&mut self, admin: u8, node: u8) -> StatementId {
        self.say(Who::Admin(admin), suspension(node))
    }

    pub fn resume(&mut self, admin: u8, node: u8, suspends: &[StatementId]) -> StatementId {
        self.say(Who::Admin(admin), resumption(node, suspends))
    }

    pub fn assign(
        &mut self,
        admin: u8,
        node: u8,
        name: &str,
        roles: &str,
        replaces: &[StatementId],
    ) -> StatementId {
        self.say(Who::Admin(admin), assignment(node, name, roles, replaces))
    }

    pub fn cosign(&mut self, admin: u8, target: StatementId) -> StatementId {
        self.say(Who::Admin(admin), Payload::Cosign(Cosign { target }))
    }

    pub fn policy(&mut self, admin: u8, number: u32, actions: &str) -> StatementId {
        self.say(Who::Admin(admin), policy(number, actions))
    }

    pub fn report(&self, node: u8, seq: u64, replica: &Replica) -> Report {
        self.report_since(node, seq, 1, replica)
    }

    pub fn report_since(&self, node: u8, seq: u64, start: u8, replica: &Replica) -> Report {
        let body = ReportBody {
            boot_nonce: BootNonce([start; 16]),
            seq,
            heads: replica.heads(),
            count: replica.count(),
            charter: replica.chain().head().id(),
            tips: replica.report_tips(),
            version: "0.1.0".into(),
            endpoints: vec![SocketAddr::from(([127, 0, 0, 1], 51820))],
        };
        Report::sign(&self.org, &key(Who::Node(node)), body).unwrap()
    }

    /// Everything said, charters first.
    pub fn records(&self) -> Vec<Record> {
        let charters = self.chain.iter().skip(1).map(Record::from);
        let statements = self.statements.iter().map(|s| Record::from(&**s));
        charters.chain(statements).chain(self.reports.iter().map(Record::from)).collect()
    }

    pub fn filled(&self) -> Replica {
        let mut replica = self.replica();
        deliver(&mut replica, &self.records());
        replica
    }

    /// The same org before anybody said these.
    pub fn clone_without(&self, unsaid: &[StatementId]) -> Self {
        let mut world = Self::named("demo", 1, 0, 1);
        world.org = self.org;
        world.chain = self.chain.clone();
        world.statements = self.statements.clone();
        world.statements.retain(|s| !unsaid.contains(&s.id()));
        world
    }

    pub fn resolved(&self) -> Roster {
        member_crdt::resolve(&self.chain, &self.statements)
    }
}

/// An org of so many members under one invite.
pub fn of_size(members: u16) -> World {
    let mut world = World::new(1, 1, 1);
    let invite = world.invite(0, 0, 10_000);
    for n in 0..members {
        match u8::try_from(n) {
            Ok(n) => world.admit(invite, Machine::new(n)),
            Err(_) => world.admit_numbered(invite, n),
        };
    }
    world
}

/// Which seeds a machine's keys come from.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub node: u8,
    pub wireguard: u8,
    pub boot: u8,
}

impl Machine {
    pub fn new(n: u8) -> Self {
        Self { node: n, wireguard: n, boot: n }
    }

    pub fn with_keys<T>(self, with: impl FnOnce(NodeKeys<'_>) -> T) -> T {
        let wireguard = SecretKey::from_seed(&seed("wireguard", self.wireguard));
        let boot = SecretKey::from_seed(&seed("boot", self.boot));
        with(NodeKeys { node: &key(Who::Node(self.node)), wireguard: &wireguard, boot: &boot })
    }
}

pub fn invite_key(n: u8) -> SecretKey {
    SecretKey::from_seed(&seed("invite", n))
}

pub fn an_invite(n: u8) -> Invite {
    Invite {
        key: invite_key(n).public(),
        uses: 1,
        redeemer: key(Who::Gateway(0)).public(),
        labels: vec![],
        expires_unix_s: 0,
        note: String::new(),
        approval: false,
        attestation: false,
        tpms: Vec::new(),
    }
}

pub fn revocation(node: u8) -> Payload {
    let node = key(Who::Node(node)).public();
    Payload::Revoke(Revoke { node, reason: Reason::Lost, note: String::new() })
}

pub fn suspension(node: u8) -> Payload {
    let node = key(Who::Node(node)).public();
    Payload::Suspend(Suspend { node, reason: Reason::Unspecified, note: String::new() })
}

pub fn resumption(node: u8, suspends: &[StatementId]) -> Payload {
    let mut suspends = suspends.to_vec();
    suspends.sort_unstable();
    suspends.dedup();
    Payload::Resume(Resume { node: key(Who::Node(node)).public(), suspends })
}

/// Roles, and the same words for labels, one letter each.
pub fn assignment(node: u8, name: &str, roles: &str, replaces: &[StatementId]) -> Payload {
    let tags: Vec<Tag> = roles.chars().map(|c| Tag::parse(&c.to_string()).unwrap()).collect();
    let mut replaces = replaces.to_vec();
    replaces.sort_unstable();
    replaces.dedup();
    let (node, name) = (key(Who::Node(node)).public(), Name::parse(name).unwrap());
    Assign { node, name, roles: tags.clone(), labels: tags, replaces }.into()
}

/// Everybody may do these actions, one letter each, to everybody.
pub fn policy(number: u32, actions: &str) -> Payload {
    let rule = |action: char| format!("[[rule]]\nfrom = 'any'\nto = 'any'\naction = '{action}'\n");
    let file = PolicyFile::parse(&actions.chars().map(rule).collect::<String>()).unwrap();
    PolicyChange { number, policy: file.policy }.into()
}

pub fn rotation(org: &OrgId, node: u8, to: Machine) -> Payload {
    let old = key(Who::Node(node)).public();
    to.with_keys(|keys| Rotate::new(org, old, keys)).into()
}

/// Applies records in the order given, again and again while one of them is new.
pub fn deliver(replica: &mut Replica, records: &[Record]) {
    let mut rest: Vec<&Record> = records.iter().collect();
    loop {
        let before = rest.len();
        rest.retain(|r| matches!(replica.apply(r), Ok(Applied::Waiting { .. })));
        if rest.len() == before {
            return;
        }
    }
}

/// One thing somebody does. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Invite {
        admin: u8,
        gateway: u8,
        uses: u32,
        approval: bool,
    },
    Admit {
        invite: u8,
        machine: Machine,
    },
    OwnAdmit {
        admin: u8,
        machine: Machine,
    },
    Revoke {
        admin: u8,
        node: u8,
    },
    /// At a place the author used before.
    ForkedRevoke {
        admin: u8,
        node: u8,
        back: u8,
    },
    ForkedAdmit {
        invite: u8,
        machine: Machine,
        back: u8,
    },
    Cancel {
        admin: u8,
        invite: u8,
        tip: u8,
    },
    Leave {
        made: u8,
    },
    Rotate {
        made: u8,
        machine: Machine,
    },
    Retire {
        made: u8,
    },
    Suspend {
        admin: u8,
        node: u8,
    },
    Resume {
        admin: u8,
        picks: [u8; 2],
    },
    Assign {
        admin: u8,
        node: u8,
        roles: u8,
        picks: [u8; 2],
    },
    Cosign {
        admin: u8,
        admit: u8,
    },
    Policy {
        admin: u8,
        number: u32,
        actions: u8,
    },
    RemoveAdmin {
        cut: u8,
    },
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let machine = prop_oneof![
        6 => (0..8u8).prop_map(Machine::new),
        1 => (0..8u8, 0..8u8, 0..8u8)
            .prop_map(|(node, wireguard, boot)| Machine { node, wireguard, boot }),
    ];
    let step = prop_oneof![
        2 => (0..3u8, 0..2u8, 1..4u32, any::<bool>())
            .prop_map(|(admin, gateway, uses, approval)| Step::Invite { admin, gateway, uses, approval }),
        6 => (any::<u8>(), machine.clone()).prop_map(|(invite, machine)| Step::Admit { invite, machine }),
        1 => (0..3u8, machine.clone()).prop_map(|(admin, machine)| Step::OwnAdmit { admin, machine }),
        3 => (0..3u8, 0..8u8).prop_map(|(admin, node)| Step::Revoke { admin, node }),
        1 => (0..3u8, 0..8u8, any::<u8>()).prop_map(|(admin, node, back)| Step::ForkedRevoke { admin, node, back }),
        2 => (any::<u8>(), machine.clone(), any::<u8>())
            .prop_map(|(invite, machine, back)| Step::ForkedAdmit { invite, machine, back }),
        1 => (0..3u8, any::<u8>(), any::<u8>()).prop_map(|(admin, invite, tip)| Step::Cancel { admin, invite, tip }),
        1 => any::<u8>().prop_map(|made| Step::Leave { made }),
        4 => (any::<u8>(), machine).prop_map(|(made, machine)| Step::Rotate { made, machine }),
        2 => any::<u8>().prop_map(|made| Step::Retire { made }),
        2 => (0..3u8, 0..8u8).prop_map(|(admin, node)| Step::Suspend { admin, node }),
        2 => (0..3u8, any::<[u8; 2]>()).prop_map(|(admin, picks)| Step::Resume { admin, picks }),
        2 => (0..3u8, 0..8u8, any::<u8>(), any::<[u8; 2]>())
            .prop_map(|(admin, node, roles, picks)| Step::Assign { admin, node, roles, picks }),
        2 => (0..3u8, any::<u8>()).prop_map(|(admin, admit)| Step::Cosign { admin, admit }),
        2 => (0..3u8, 1..5u32, 0..8u8)
            .prop_map(|(admin, number, actions)| Step::Policy { admin, number, actions }),
        1 => any::<u8>().prop_map(|cut| Step::RemoveAdmin { cut }),
    ];
    prop::collection::vec(step, 1..most)
}

/// The org that a story leads to: three admins, two gateways.
pub fn told(threshold: u8, steps: &[Step]) -> World {
    let mut world = World::new(3, 2, threshold);
    let first = world.invite(0, 0, 3);
    world.admit(first, Machine::new(0));
    for step in steps {
        world.step(*step);
    }
    world
}

impl World {
    pub fn step(&mut self, step: Step) {
        let invites = self.invites.len();
        match step {
            Step::Invite { admin, gateway, uses, approval } => {
                if self.is_admin(admin) {
                    self.invite_with(admin, gateway, uses, approval);
                }
            }
            Step::Admit { invite, machine } => {
                self.admit(usize::from(invite) % invites, machine);
            }
            Step::OwnAdmit { admin, machine } => {
                if self.is_admin(admin) {
                    self.own_admit(admin, machine);
                }
            }
            Step::Revoke { admin, node } => {
                if self.is_admin(admin) {
                    self.revoke(admin, node);
                }
            }
            Step::ForkedRevoke { admin, node, back } => {
                let payload = revocation(node);
                self.fork(Who::Admin(admin), back, payload);
            }
            Step::ForkedAdmit { invite, machine, back } => {
                let invite = usize::from(invite) % invites;
                let payload = self.enrol(invite, machine);
                self.fork(Who::Gateway(self.invites[invite].1), back, payload.into());
            }
            Step::Cancel { admin, invite, tip } => {
                if self.is_admin(admin) {
                    let tip = self.statements.get(usize::from(tip) % (self.statements.len() + 1));
                    let tip = tip.map(|s| s.id());
                    self.cancel(admin, usize::from(invite) % invites, tip);
                }
            }
            Step::Leave { made } => {
                let (id, node) = self.made(made);
                self.leave(node, id);
            }
            Step::Rotate { made, machine } => {
                let (id, node) = self.made(made);
                // To the very same key no Rotate can be signed; everything else may be tried.
                if node != machine.node {
                    self.rotate(node, id, machine);
                }
            }
            Step::Retire { made } => {
                let rotates: Vec<_> =
                    self.statements.iter().filter(|s| old_of(s).is_some()).cloned().collect();
                if let Some(rotate) = rotates.get(usize::from(made) % rotates.len().max(1)) {
                    let (Some(old), Some(node)) = (old_of(rotate), made_by(rotate)) else { return };
                    self.retire(node, rotate.id(), old);
                }
            }
            Step::Suspend { admin, node } => {
                if self.is_admin(admin) {
                    self.suspend(admin, node);
                }
            }
            Step::Resume { admin, picks } => {
                let of = |s: &Statement| match s.payload() {
                    Payload::Suspend(suspend) => number(&suspend.node),
                    _ => None,
                };
                let all: Vec<_> = self.statements.iter().filter_map(|s| Some((s.id(), of(s)?))).collect();
                let picked: Vec<_> =
                    picks.iter().filter_map(|n| all.get(usize::from(*n) % all.len().max(1))).collect();
                if let (Some((_, node)), true) = (picked.first(), self.is_admin(admin)) {
                    let ids: Vec<StatementId> = picked.iter().map(|(id, _)| *id).collect();
                    self.resume(admin, *node, &ids);
                }
            }
            Step::Assign { admin, node, roles, picks } => {
                let assigns: Vec<_> =
                    self.statements.iter().filter(|s| matches!(s.payload(), Payload::Assign(_))).collect();
                let pick = |n: &u8| assigns.get(usize::from(*n) % (assigns.len() + 1)).map(|s| s.id());
                let replaces: Vec<StatementId> = picks.iter().filter_map(pick).collect();
                let roles: String = ('a'..='h').filter(|c| roles & (1 << (*c as u8 - b'a')) != 0).collect();
                if self.is_admin(admin) {
                    self.assign(admin, node, &format!("n{roles}{admin}"), &roles, &replaces);
                }
            }
            Step::Cosign { admin, admit } => {
                let admits: Vec<_> = self
                    .statements
                    .iter()
                    .filter(|s| s.payload().admit().is_some())
                    .map(|s| s.id())
                    .collect();
                if self.is_admin(admin) {
                    self.cosign(admin, admits[usize::from(admit) % admits.len()]);
                }
            }
            Step::Policy { admin, number, actions } => {
                if self.is_admin(admin) {
                    let actions: String =
                        ('a'..='c').filter(|c| actions & (1 << (*c as u8 - b'a')) != 0).collect();
                    self.policy(admin, number, &actions);
                }
            }
            Step::RemoveAdmin { cut } => {
                if self.is_admin(2) {
                    let removed = key(Who::Admin(2)).public();
                    let by: Vec<_> = self.statements.iter().filter(|s| *s.author() == removed).collect();
                    let tip = by.get(usize::from(cut) % (by.len() + 1)).map(|s| (s.lane(), s.id()));
                    let cuts = tip.map(|(lane, tip)| org_trust::Cut { key: removed, lane, tip });
                    self.govern(|next| {
                        next.admins.retain(|admin| admin.key != removed);
                        next.cuts.extend(cuts);
                        next.revoke_threshold = next.revoke_threshold.min(2);
                    });
                }
            }
        }
    }

    fn is_admin(&self, admin: u8) -> bool {
        self.chain.head().charter().admin(&key(Who::Admin(admin)).public()).is_some()
    }

    /// Says something at a place that the author has used, under the charter cited there.
    fn fork(&mut self, who: Who, back: u8, payload: Payload) {
        let author = key(who).public();
        let said: Vec<_> =
            self.statements.iter().filter(|s| *s.author() == author && s.lane() == payload.lane()).collect();
        if let Some(at) = said.get(usize::from(back) % said.len().max(1)) {
            let statement = self.sign_at(who, *at.place(), payload);
            self.statements.push(Arc::new(statement));
        }
    }

    /// One of the statements that made a key a machine's, and that key's number.
    fn made(&self, pick: u8) -> (StatementId, u8) {
        let made: Vec<_> = self.statements.iter().filter_map(|s| Some((s.id(), made_by(s)?))).collect();
        made[usize::from(pick) % made.len()]
    }
}

/// The number of the node key that a statement makes a machine's.
fn made_by(s: &Statement) -> Option<u8> {
    match s.payload() {
        Payload::Admit(admit) => number(&admit.node),
        Payload::Rotate(rotate) => number(&rotate.node),
        _ => None,
    }
}

/// The number of the node key that a statement rotates from.
fn old_of(s: &Statement) -> Option<u8> {
    match s.payload() {
        Payload::Rotate(rotate) => number(&rotate.old),
        _ => None,
    }
}

pub fn number(node: &identity::PublicKey) -> Option<u8> {
    static NUMBERS: LazyLock<BTreeMap<identity::PublicKey, u8>> =
        LazyLock::new(|| (0..=255).map(|n| (key(Who::Node(n)).public(), n)).collect());
    NUMBERS.get(node).copied()
}
