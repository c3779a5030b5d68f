//! The rows of the member list: machines and invites, as they stand.

use std::net::Ipv6Addr;

use identity::{Code, HashContext, Name, PublicKey, StatementId, Tag, TpmId, codec::Writer};
use org_trust::{Assurance, Reason};

/// A machine that was admitted, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its newest key for conn_auth.
    pub node: PublicKey,
    /// Its newest key for WireGuard, in Ed25519 form.
    pub wireguard: PublicKey,
    /// Its newest key before the disk is open.
    pub boot: PublicKey,
    /// The statement that made these its keys: its Admit, or a Rotate.
    pub since: StatementId,
    /// The keys it had before them, oldest first.
    pub earlier: Vec<EarlierKeys>,
    /// What people call it; not unique.
    pub name: Name,
    /// What it may do beyond what every member may.
    pub roles: Vec<Tag>,
    /// Labels from an Assign, or else from the invite.
    pub labels: Vec<Tag>,
    /// The Assigns in force, ascending: the next one replaces them.
    pub assigns: Vec<StatementId>,
    /// How it says its keys are held.
    pub assurance: Assurance,
    /// The TPM that its gateway has the word of; only with [`Assurance::TpmAttested`].
    pub tpm: Option<TpmId>,
    /// Its address in the overlay, from its first key.
    pub address: Ipv6Addr,
    /// The statement that admitted it.
    pub admit: StatementId,
    /// The gateway's or admin's key that signed it.
    pub admitted_by: PublicKey,
    /// The invite it used; none if an admin admitted it.
    pub invite: Option<StatementId>,
    /// Who revoked it, when that is not enough.
    pub revoking: Option<Revoking>,
    /// Whether it is still one of us.
    pub state: MemberState,
}

/// Keys that a machine had before a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierKeys {
    /// The node key.
    pub node: PublicKey,
    /// The WireGuard key.
    pub wireguard: PublicKey,
    /// The boot key.
    pub boot: PublicKey,
    /// The statement that made them its keys.
    pub by: StatementId,
    /// Whether they have ended. Until then it may use these or later ones.
    pub retired: bool,
}

/// A revocation that fewer admins signed than it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoking {
    /// The admins that did, ascending.
    pub by: Vec<PublicKey>,
    /// How many it takes.
    pub wanted: u8,
}

/// Whether a machine that was admitted is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// One of its keys is also claimed by another machine, in another place, or by a role; or one of
    /// them signed two rotations.
    KeyConflict,
    /// Admins suspended it, until they resume it.
    Suspended {
        /// The admin whose statement has the lowest id.
        by: PublicKey,
        /// That statement's reason.
        reason: Reason,
        /// That statement's words.
        note: String,
        /// All that count and that no Resume ends, ascending.
        ids: Vec<StatementId>,
    },
    /// It used an invite with approval, and no admin has approved it.
    Pending,
    /// Whether it was admitted is for a statement to say that is not held: the end of a cut, or of a
    /// cancelled invite.
    Unsettled,
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
    /// Whether what it admits waits for an admin's approval.
    pub approval: bool,
    /// Whether the redeemer must have the word of a machine's TPM.
    pub attestation: bool,
    /// The TPMs it is limited to; any when empty.
    pub tpms: Vec<TpmId>,
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

impl Member {
    /// Whether it is a member in good standing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.state == MemberState::Good
    }

    /// Whether it is not known here if it is a member, for want of a statement that others have.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.state == MemberState::Unsettled
    }

    /// The node key that it was admitted with: what it is called by across rotations.
    #[must_use]
    pub fn first(&self) -> PublicKey {
        self.earlier.first().map_or(self.node, |keys| keys.node)
    }

    /// Every node key it has or had, oldest first.
    pub fn nodes(&self) -> impl Iterator<Item = PublicKey> {
        self.earlier.iter().map(|keys| keys.node).chain(core::iter::once(self.node))
    }

    /// The keys it may use: the newest first, then earlier ones that have not ended.
    pub fn in_use(&self) -> impl Iterator<Item = EarlierKeys> {
        let (node, wireguard, boot, by) = (self.node, self.wireguard, self.boot, self.since);
        let newest = EarlierKeys { node, wireguard, boot, by, retired: false };
        let earlier = self.earlier.iter().rev().filter(|keys| !keys.retired).copied();
        core::iter::once(newest).chain(earlier)
    }

    /// Whether this is a node key that it may use.
    #[must_use]
    pub fn uses(&self, node: &PublicKey) -> bool {
        self.in_use().any(|keys| keys.node == *node)
    }

    pub(super) fn uses_boot(&self, boot: &PublicKey) -> bool {
        self.in_use().any(|keys| keys.boot == *boot)
    }

    /// The code that a peer is refused with, if it is.
    #[must_use]
    pub const fn refusal(&self) -> Option<Code> {
        self.state.refusal()
    }

    pub(super) fn leaf(&self) -> [u8; 32] {
        let mut out = Writer::new();
        out.bytes(self.node.as_bytes()).bytes(self.wireguard.as_bytes()).bytes(self.boot.as_bytes());
        out.count(self.earlier.len());
        for keys in &self.earlier {
            out.bytes(keys.by.as_bytes()).u8(u8::from(keys.retired));
        }
        out.short_bytes(self.name.as_str().as_bytes());
        write_tags(&mut out, &self.roles);
        write_tags(&mut out, &self.labels);
        out.short_bytes(self.assurance.as_str().as_bytes()).bytes(self.admit.as_bytes());
        out.bytes(self.admitted_by.as_bytes());
        out.bytes(self.invite.unwrap_or(StatementId([0; 32])).as_bytes());
        out.short_bytes(self.state.as_str().as_bytes());
        if let MemberState::Revoked { ids, .. } | MemberState::Suspended { ids, .. } = &self.state {
            for id in ids {
                out.bytes(id.as_bytes());
            }
        }
        for admin in self.revoking.iter().flat_map(|revoking| &revoking.by) {
            out.bytes(admin.as_bytes());
        }
        HashContext::ROSTER_DIGEST.hash(&[&out.into_bytes()])
    }
}

impl InviteStanding {
    pub(super) fn leaf(&self) -> [u8; 32] {
        let mut out = Writer::new();
        out.bytes(self.id.as_bytes()).u32(self.used).short_bytes(self.state.as_str().as_bytes());
        HashContext::ROSTER_DIGEST.hash(&[&out.into_bytes()])
    }
}

fn write_tags(out: &mut Writer, tags: &[Tag]) {
    out.count(tags.len());
    for tag in tags {
        out.short_bytes(tag.as_str().as_bytes());
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
            Self::Suspended { .. } => Some(Code::Suspended),
            Self::Pending => Some(Code::ApprovalPending),
            Self::Unsettled => Some(Code::Unsettled),
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
            Self::Suspended { .. } => "suspended",
            Self::Pending => "pending",
            Self::Unsettled => "unsettled",
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
