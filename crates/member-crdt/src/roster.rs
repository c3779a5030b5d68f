//! The member list as one immutable snapshot.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    sync::{Arc, OnceLock},
};

use identity::{
    CharterId, Code, HashContext, Name, OrgId, PublicKey, RosterDigest, StatementId, Tag, WireGuardKey,
    codec::Writer,
};
use org_trust::{Admin, Assurance, Charter, Gateway, Reason};

use crate::{held::KeyBytes, shards::Shards};

/// What the statements held resolve to. A snapshot never changes; the next one shares with it all
/// that stayed as it was.
#[derive(Clone, Debug)]
pub struct Roster {
    org: OrgId,
    anchor: CharterId,
    roles: Arc<Roles>,
    members: Shards<KeyBytes, Arc<Member>>,
    by_wireguard: Index,
    by_boot: Index,
    by_address: Index,
    by_name: Shards<(Name, KeyBytes), ()>,
    invites: Shards<KeyBytes, Arc<InviteStanding>>,
    digest: OnceLock<RosterDigest>,
}

/// Pairs of a key and the node key it leads to: two nodes may claim one key.
type Index = Shards<(KeyBytes, KeyBytes), ()>;

#[derive(Debug)]
struct Roles {
    admins: Vec<Admin>,
    gateways: Vec<Gateway>,
    revoke_threshold: u8,
}

/// A machine that was admitted, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its key for conn_auth; who it is.
    pub node: PublicKey,
    /// Its key for WireGuard, in Ed25519 form.
    pub wireguard: PublicKey,
    /// Its key before the disk is open.
    pub boot: PublicKey,
    /// What people call it; not unique.
    pub name: Name,
    /// Labels from the invite.
    pub labels: Vec<Tag>,
    /// How it says its keys are held.
    pub assurance: Assurance,
    /// Its address in the overlay.
    pub address: Ipv6Addr,
    /// The statement that admitted it.
    pub admit: StatementId,
    /// The gateway's or admin's key that signed it.
    pub admitted_by: PublicKey,
    /// The invite it used; none if an admin admitted it.
    pub invite: Option<StatementId>,
    /// Whether it is still one of us.
    pub state: MemberState,
}

/// Whether a machine that was admitted is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it lies in a member, and a member behind a count")]
pub enum MemberState {
    /// It is.
    Good,
    /// Admins revoked it, for ever.
    Revoked {
        /// The admin whose statement has the lowest id.
        by: PublicKey,
        /// That statement's reason.
        reason: Reason,
        /// That statement's words.
        note: String,
        /// All that count, ascending.
        ids: Vec<StatementId>,
    },
    /// It left by itself, for ever.
    Left,
    /// One of its keys is also claimed by another machine, in another place, or by a role.
    KeyConflict,
}

/// An invite and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteStanding {
    /// Its id.
    pub id: StatementId,
    /// Its public key.
    pub key: PublicKey,
    /// The admin that signed it.
    pub by: PublicKey,
    /// The gateway's role key that redeems it.
    pub redeemer: PublicKey,
    /// How many machines it may admit.
    pub uses: u32,
    /// How many Admits under it are held, at most `uses`.
    pub used: u32,
    /// Labels it gives.
    pub labels: Vec<Tag>,
    /// Advice to the redeemer, in Unix seconds; 0 for never.
    pub expires_unix_s: u64,
    /// The admin's words.
    pub note: String,
    /// Whether it admits.
    pub state: InviteState,
}

/// Whether an invite admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteState {
    /// It does.
    Open,
    /// All its uses are spent.
    Spent,
    /// An admin cancelled it.
    Cancelled,
    /// Its admin or its redeemer no longer has the role.
    Void,
}

/// What a key is to the org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The node key of a machine that was admitted; its state says whether it is still a member.
    Member(&'a Member),
    /// The boot key of one.
    Boot(&'a Member),
    /// An admin's key.
    Admin(&'a Admin),
    /// Nothing.
    Unknown,
}

/// Why a name or key prefix names no member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindError {
    /// More than one machine matches.
    Ambiguous {
        /// Their node keys, ascending.
        nodes: Vec<PublicKey>,
    },
    /// No machine matches.
    Unknown,
}

impl Roster {
    pub(crate) fn empty(org: OrgId, anchor: CharterId, charter: &Charter) -> Self {
        Self {
            org,
            anchor,
            roles: Arc::new(Roles {
                admins: charter.admins.clone(),
                gateways: charter.gateways.clone(),
                revoke_threshold: charter.revoke_threshold,
            }),
            members: Shards::new(),
            by_wireguard: Shards::new(),
            by_boot: Shards::new(),
            by_address: Shards::new(),
            by_name: Shards::new(),
            invites: Shards::new(),
            digest: OnceLock::new(),
        }
    }

    /// The org.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// The newest charter it rests on.
    #[must_use]
    pub const fn anchor(&self) -> CharterId {
        self.anchor
    }

    /// The admins.
    #[must_use]
    pub fn admins(&self) -> &[Admin] {
        &self.roles.admins
    }

    /// The gateways.
    #[must_use]
    pub fn gateways(&self) -> &[Gateway] {
        &self.roles.gateways
    }

    /// How many admins must revoke a key before it is revoked.
    #[must_use]
    pub fn revoke_threshold(&self) -> u8 {
        self.roles.revoke_threshold
    }

    /// The machine with this node key.
    #[must_use]
    pub fn get(&self, node: &PublicKey) -> Option<&Member> {
        self.by_node(node.as_bytes())
    }

    /// The machine with this WireGuard key. Of several claimants, none of which is a member, the one
    /// with the lowest node key.
    #[must_use]
    pub fn by_wireguard(&self, key: &WireGuardKey) -> Option<&Member> {
        self.first(&self.by_wireguard, key.0)
    }

    /// The machine with this boot key; see [`Self::by_wireguard`] on several.
    #[must_use]
    pub fn by_boot(&self, key: &PublicKey) -> Option<&Member> {
        self.first(&self.by_boot, *key.as_bytes())
    }

    /// The machine with this overlay address; see [`Self::by_wireguard`] on several.
    #[must_use]
    pub fn by_address(&self, address: Ipv6Addr) -> Option<&Member> {
        self.first(&self.by_address, padded(address))
    }

    /// Every machine that was admitted, by node key.
    #[must_use]
    pub fn members(&self) -> Vec<&Member> {
        let mut all: Vec<&Member> = self.members.values().map(|member| &**member).collect();
        all.sort_unstable_by_key(|member| member.node);
        all
    }

    /// The members in good standing, in no particular order.
    pub fn good(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|member| &**member).filter(|member| member.state == MemberState::Good)
    }

    /// How many machines were admitted, whatever became of them.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody was admitted yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// The machine that a person means by a name or the beginning of a node key. Of several with one
    /// name, members in good standing go before the others.
    ///
    /// # Errors
    /// [`FindError`] when it is none or more than one.
    pub fn find(&self, text: &str) -> Result<&Member, FindError> {
        let named = Name::parse(text).ok().map(|name| self.named(&name)).unwrap_or_default();
        let mut found = named;
        if found.is_empty() && text.len() >= KEY_PREFIX_DIGITS_MIN {
            let starts = |m: &&Member| m.node.to_string().starts_with(text);
            found = self.members.values().map(|m| &**m).filter(starts).collect();
        }
        let good: Vec<&Member> = found.iter().copied().filter(|m| m.state == MemberState::Good).collect();
        let mut choice = if good.is_empty() { found } else { good };
        match (choice.pop(), choice.is_empty()) {
            (None, _) => Err(FindError::Unknown),
            (Some(one), true) => Ok(one),
            (Some(one), false) => {
                let mut nodes: Vec<PublicKey> = choice.iter().map(|m| m.node).collect();
                nodes.push(one.node);
                nodes.sort_unstable();
                Err(FindError::Ambiguous { nodes })
            }
        }
    }

    /// All machines of one name, by node key.
    #[must_use]
    pub fn named(&self, name: &Name) -> Vec<&Member> {
        let Some(part) = self.by_name.part(name.as_str().as_bytes()) else { return Vec::new() };
        let range = (name.clone(), [0; 32])..=(name.clone(), [255; 32]);
        part.range(range).filter_map(|((_, node), ())| self.by_node(node)).collect()
    }

    /// Every invite, by id.
    #[must_use]
    pub fn invites(&self) -> Vec<&InviteStanding> {
        let mut all: Vec<&InviteStanding> = self.invites.values().map(|invite| &**invite).collect();
        all.sort_unstable_by_key(|invite| invite.id);
        all
    }

    /// The invite with this id.
    #[must_use]
    pub fn invite(&self, id: &StatementId) -> Option<&InviteStanding> {
        self.invites.get(id.as_bytes()).map(|invite| &**invite)
    }

    /// What a key is to the org. A key in two places is no member in either (rule 9).
    #[must_use]
    pub fn standing(&self, key: &PublicKey) -> Standing<'_> {
        if let Some(admin) = self.roles.admins.iter().find(|admin| admin.key == *key) {
            return Standing::Admin(admin);
        }
        match (self.get(key), self.by_boot(key)) {
            (Some(member), _) => Standing::Member(member),
            (None, Some(member)) => Standing::Boot(member),
            (None, None) => Standing::Unknown,
        }
    }

    /// A digest of all of the above: equal for two replicas that hold the same.
    #[must_use]
    pub fn digest(&self) -> RosterDigest {
        *self.digest.get_or_init(|| {
            let members: Vec<u8> = self.members().iter().flat_map(|m| m.leaf()).collect();
            let invites: Vec<u8> = self.invites().iter().flat_map(|i| i.leaf()).collect();
            let invites = HashContext::ROSTER_DIGEST.hash(&[&invites]);
            RosterDigest(HashContext::ROSTER_DIGEST.hash(&[
                self.org.as_bytes(),
                self.anchor.as_bytes(),
                &invites,
                &members,
            ]))
        })
    }

    pub(crate) fn set_member(&mut self, node: &KeyBytes, member: Option<Member>) {
        let old = self.members.get(node);
        if old.map(|m| &**m) == member.as_ref() {
            return;
        }
        self.digest = OnceLock::new();
        if let Some(old) = old.cloned() {
            let places = Places::of(&old);
            self.members.remove(node, node);
            self.by_wireguard.remove(&places.wireguard, &(places.wireguard, *node));
            self.by_boot.remove(&places.boot, &(places.boot, *node));
            self.by_address.remove(&places.address, &(places.address, *node));
            self.by_name.remove(old.name.as_str().as_bytes(), &(old.name.clone(), *node));
        }
        if let Some(new) = member {
            let places = Places::of(&new);
            self.by_wireguard.insert(&places.wireguard, (places.wireguard, *node), ());
            self.by_boot.insert(&places.boot, (places.boot, *node), ());
            self.by_address.insert(&places.address, (places.address, *node), ());
            self.by_name.insert(new.name.as_str().as_bytes(), (new.name.clone(), *node), ());
            self.members.insert(node, *node, Arc::new(new));
        }
    }

    pub(crate) fn set_invite(&mut self, invite: InviteStanding) {
        let id = invite.id.0;
        if self.invites.get(&id).is_none_or(|held| **held != invite) {
            self.digest = OnceLock::new();
            self.invites.insert(&id, id, Arc::new(invite));
        }
    }

    fn by_node(&self, node: &KeyBytes) -> Option<&Member> {
        self.members.get(node).map(|member| &**member)
    }

    fn first(&self, index: &Index, key: KeyBytes) -> Option<&Member> {
        let (_, node) = index.part(&key)?.range((key, [0; 32])..=(key, [255; 32])).next()?.0;
        self.by_node(node)
    }
}

impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        let by_id = |roster: &Self| -> BTreeMap<KeyBytes, Arc<InviteStanding>> {
            roster.invites.values().map(|i| (i.id.0, Arc::clone(i))).collect()
        };
        self.org == other.org
            && self.anchor == other.anchor
            && self.members() == other.members()
            && by_id(self) == by_id(other)
    }
}

struct Places {
    wireguard: KeyBytes,
    boot: KeyBytes,
    address: KeyBytes,
}

impl Places {
    fn of(member: &Member) -> Self {
        Self {
            wireguard: member.wireguard.to_wireguard().0,
            boot: *member.boot.as_bytes(),
            address: padded(member.address),
        }
    }
}

fn padded(address: Ipv6Addr) -> KeyBytes {
    let mut key = [0; 32];
    for (out, byte) in key.iter_mut().zip(address.octets()) {
        *out = byte;
    }
    key
}

/// Fewer digits than this are taken for a name only.
const KEY_PREFIX_DIGITS_MIN: usize = 4;

impl Member {
    /// Whether it is a member in good standing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.state == MemberState::Good
    }

    /// The code that a peer is refused with, if it is.
    #[must_use]
    pub const fn refusal(&self) -> Option<Code> {
        self.state.refusal()
    }
}

impl Member {
    fn leaf(&self) -> [u8; 32] {
        let mut out = Writer::new();
        out.bytes(self.node.as_bytes()).bytes(self.wireguard.as_bytes()).bytes(self.boot.as_bytes());
        out.short_bytes(self.name.as_str().as_bytes());
        write_labels(&mut out, &self.labels);
        out.short_bytes(self.assurance.as_str().as_bytes()).bytes(self.admit.as_bytes());
        out.bytes(self.admitted_by.as_bytes());
        out.bytes(self.invite.unwrap_or(StatementId([0; 32])).as_bytes());
        out.short_bytes(self.state.as_str().as_bytes());
        if let MemberState::Revoked { ids, .. } = &self.state {
            for id in ids {
                out.bytes(id.as_bytes());
            }
        }
        HashContext::ROSTER_DIGEST.hash(&[&out.into_bytes()])
    }
}

impl InviteStanding {
    fn leaf(&self) -> [u8; 32] {
        let mut out = Writer::new();
        out.bytes(self.id.as_bytes()).u32(self.used).short_bytes(self.state.as_str().as_bytes());
        HashContext::ROSTER_DIGEST.hash(&[&out.into_bytes()])
    }
}

fn write_labels(out: &mut Writer, labels: &[Tag]) {
    out.count(labels.len());
    for label in labels {
        out.short_bytes(label.as_str().as_bytes());
    }
}

impl MemberState {
    /// The code that a peer in this state is refused with; none in good standing.
    #[must_use]
    pub const fn refusal(&self) -> Option<Code> {
        match self {
            Self::Good => None,
            Self::Revoked { .. } => Some(Code::Revoked),
            Self::Left => Some(Code::Left),
            Self::KeyConflict => Some(Code::KeyConflict),
        }
    }

    /// The word shown to people.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked { .. } => "revoked",
            Self::Left => "left",
            Self::KeyConflict => "key-conflict",
        }
    }
}

impl InviteState {
    /// The word shown to people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Spent => "spent",
            Self::Cancelled => "cancelled",
            Self::Void => "void",
        }
    }
}

impl FindError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Ambiguous { .. } => Code::AmbiguousMember,
            Self::Unknown => Code::NoSuchMember,
        }
    }
}

impl core::fmt::Display for FindError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ambiguous { nodes } => {
                write!(f, "{} members match:", nodes.len())?;
                nodes.iter().try_for_each(|node| write!(f, " {}", node.short()))
            }
            Self::Unknown => f.write_str("no member has this name or a key that begins so"),
        }
    }
}

impl core::error::Error for FindError {}
