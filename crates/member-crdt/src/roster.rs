//! The member list as one immutable snapshot.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    sync::{Arc, OnceLock},
};

use identity::{
    CharterId, Code, HashContext, Name, OrgId, PublicKey, RosterDigest, StatementId, WireGuardKey,
};
use org_trust::{Admin, Charter, Gateway};

pub use self::member::{EarlierKeys, InviteStanding, InviteState, Member, MemberState, Revoking};
use crate::{held::KeyBytes, policies::Policies, shards::Shards};

mod member;

/// What the statements held resolve to. A snapshot never changes; the next one shares with it all
/// that stayed as it was.
#[derive(Clone, Debug)]
pub struct Roster {
    org: OrgId,
    anchor: CharterId,
    roles: Arc<Roles>,
    /// By first node key.
    members: Shards<KeyBytes, Arc<Member>>,
    /// Later node keys.
    by_later: Index,
    by_wireguard: Index,
    by_boot: Index,
    by_address: Index,
    by_name: Shards<(Name, KeyBytes), ()>,
    invites: Shards<KeyBytes, Arc<InviteStanding>>,
    pub(crate) policies: Arc<Policies>,
    digest: OnceLock<RosterDigest>,
}

/// Pairs of a key and the first node key it leads to: two machines may claim one key.
type Index = Shards<(KeyBytes, KeyBytes), ()>;

#[derive(Debug)]
struct Roles {
    admins: Vec<Admin>,
    gateways: Vec<Gateway>,
    revoke_threshold: u8,
}

/// What waits for admins.
#[derive(Clone, Debug)]
pub struct Pending<'a> {
    /// Machines that used an invite with approval, by node key.
    pub admits: Vec<&'a Member>,
    /// Machines that fewer admins revoked than it takes, by node key.
    pub revokes: Vec<&'a Member>,
}

/// What a key is to the org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The node key of a machine that was admitted; its state says whether it is still a member.
    Member(&'a Member),
    /// The boot key of one.
    Boot(&'a Member),
    /// A node or boot key that its machine has replaced and ended.
    Retired(&'a Member),
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
            by_later: Shards::new(),
            by_wireguard: Shards::new(),
            by_boot: Shards::new(),
            by_address: Shards::new(),
            by_name: Shards::new(),
            invites: Shards::new(),
            policies: Arc::default(),
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

    /// The machine that uses this node key: its newest, or an earlier one that has not ended.
    #[must_use]
    pub fn get(&self, node: &PublicKey) -> Option<&Member> {
        self.member_of(node).filter(|member| member.uses(node))
    }

    /// The machine that has or had this node key.
    #[must_use]
    pub fn member_of(&self, node: &PublicKey) -> Option<&Member> {
        self.by_root(node.as_bytes()).or_else(|| self.first(&self.by_later, *node.as_bytes()))
    }

    /// What waits for admins.
    #[must_use]
    pub fn pending(&self) -> Pending<'_> {
        let mut pending = Pending { admits: self.members(), revokes: self.members() };
        pending.admits.retain(|member| member.state == MemberState::Pending);
        pending.revokes.retain(|member| member.revoking.is_some());
        pending
    }

    /// The machine that uses this WireGuard key. Of several claimants, none of which is a member, the
    /// one with the lowest first node key.
    #[must_use]
    pub fn by_wireguard(&self, key: &WireGuardKey) -> Option<&Member> {
        self.first(&self.by_wireguard, key.0)
    }

    /// The machine that uses this boot key; see [`Self::by_wireguard`] on several.
    #[must_use]
    pub fn by_boot(&self, key: &PublicKey) -> Option<&Member> {
        self.first(&self.by_boot, *key.as_bytes()).filter(|member| member.uses_boot(key))
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

    /// Who is not what it was in another list of the org, and what that was, by node key. It costs what has
    /// changed when one list came of the other.
    #[must_use]
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> Vec<(Option<&'a Member>, &'a Member)> {
        let apart = self.members.apart_from(&before.members);
        let both = apart.map(|(root, new)| (before.members.get(root), new));
        let both = both.filter(|(old, new)| old.is_none_or(|old| !Arc::ptr_eq(old, new) && old != *new));
        let mut changed: Vec<_> = both.map(|(old, new)| (old.map(|old| &**old), &**new)).collect();
        changed.sort_unstable_by_key(|(_, new)| new.node);
        changed
    }

    /// The members in good standing, in no particular order.
    pub fn good(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|member| &**member).filter(|member| member.state == MemberState::Good)
    }

    /// The members in good standing, and those of whom that is not settled.
    pub fn good_or_unsettled(&self) -> impl Iterator<Item = &Member> {
        let all = self.members.values().map(|member| &**member);
        all.filter(|member| member.is_good() || member.is_unsettled())
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
            let starts = |m: &&Member| m.nodes().any(|node| node.to_string().starts_with(text));
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
        part.range(range).filter_map(|((_, root), ())| self.by_root(root)).collect()
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
        match (self.member_of(key), self.first(&self.by_boot, *key.as_bytes())) {
            (Some(member), _) if member.uses(key) => Standing::Member(member),
            (_, Some(member)) if member.uses_boot(key) => Standing::Boot(member),
            (Some(member), _) | (None, Some(member)) => Standing::Retired(member),
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
                &self.policies.leaf(),
                &invites,
                &members,
            ]))
        })
    }

    pub(crate) fn set_member(&mut self, root: &KeyBytes, member: Option<Member>) {
        let old = self.members.get(root).cloned();
        if old.as_deref() == member.as_ref() {
            return;
        }
        self.digest = OnceLock::new();
        // Most changes leave a machine where it is looked up, and each index that is not touched stays
        // shared with the snapshots.
        let stays = old.as_ref().zip(member.as_ref()).is_some_and(|(old, new)| old.is_found_as(new));
        if let Some(old) = old.filter(|_| !stays) {
            self.members.remove(root, root);
            self.by_address.remove(&padded(old.address), &(padded(old.address), *root));
            self.by_name.remove(old.name.as_str().as_bytes(), &(old.name.clone(), *root));
            for (index, key) in old.places() {
                self.index(index).remove(&key, &(key, *root));
            }
        }
        if let Some(new) = member {
            if !stays {
                self.by_address.insert(&padded(new.address), (padded(new.address), *root), ());
                self.by_name.insert(new.name.as_str().as_bytes(), (new.name.clone(), *root), ());
                for (index, key) in new.places() {
                    self.index(index).insert(&key, (key, *root), ());
                }
            }
            self.members.insert(root, *root, Arc::new(new));
        }
    }

    const fn index(&mut self, place: Place) -> &mut Index {
        match place {
            Place::Later => &mut self.by_later,
            Place::WireGuard => &mut self.by_wireguard,
            Place::Boot => &mut self.by_boot,
        }
    }

    pub(crate) fn set_policies(&mut self, policies: Policies) {
        if *self.policies != policies {
            self.digest = OnceLock::new();
            self.policies = Arc::new(policies);
        }
    }

    pub(crate) fn set_invite(&mut self, invite: InviteStanding) {
        let id = invite.id.0;
        if self.invites.get(&id).is_none_or(|held| **held != invite) {
            self.digest = OnceLock::new();
            self.invites.insert(&id, id, Arc::new(invite));
        }
    }

    fn by_root(&self, root: &KeyBytes) -> Option<&Member> {
        self.members.get(root).map(|member| &**member)
    }

    fn first(&self, index: &Index, key: KeyBytes) -> Option<&Member> {
        let (_, root) = index.part(&key)?.range((key, [0; 32])..=(key, [255; 32])).next()?.0;
        self.by_root(root)
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
            && self.policies == other.policies
    }
}

/// Where a key of a machine is looked up.
#[derive(Clone, Copy)]
enum Place {
    Later,
    WireGuard,
    Boot,
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
    /// Whether both are found by the same name, address and keys.
    fn is_found_as(&self, other: &Self) -> bool {
        let keys = |m: &Self| (m.node, m.wireguard, m.boot);
        self.address == other.address
            && self.name == other.name
            && keys(self) == keys(other)
            && self.earlier == other.earlier
    }

    fn places(&self) -> Vec<(Place, KeyBytes)> {
        let later = self.nodes().skip(1).map(|node| (Place::Later, *node.as_bytes()));
        let tunnels = self.in_use().map(|keys| (Place::WireGuard, keys.wireguard.to_wireguard().0));
        let boots = self.earlier.iter().map(|keys| keys.boot).chain(core::iter::once(self.boot));
        later.chain(tunnels).chain(boots.map(|boot| (Place::Boot, *boot.as_bytes()))).collect()
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
