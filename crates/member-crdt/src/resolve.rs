//! The rules of docs/spec/roster.md: what the statements held say of one machine, and of all.

use std::{collections::BTreeSet, sync::Arc};

use identity::{PublicKey, StatementId, WireGuardKey, overlay_address};
use org_trust::{Admit, Charter, CharterChain, Invite, Payload, Revoke, Statement, VerifiedCharter};

use crate::{
    held::{Entry, Fit, Held, KeyBytes, slots},
    roster::{InviteStanding, InviteState, Member, MemberState, Roster},
};

/// Resolves a set of statements under a chain of charters: the whole of it at once, in any order. A
/// statement that does not fit the others is as if it were not there.
#[must_use]
pub fn resolve(chain: &CharterChain, statements: &[Arc<Statement>]) -> Roster {
    let mut held = Held::default();
    for charter in chain.iter() {
        held.name_roles(charter.charter());
    }
    let mut waiting: Vec<&Arc<Statement>> = statements.iter().collect();
    // By place first, so that one pass is the rule and a second one the exception (a Leave before
    // its Admit).
    waiting.sort_by_key(|s| (s.seq(), s.id()));
    loop {
        let before = waiting.len();
        waiting.retain(|s| match held.fit(chain, s) {
            Ok(Fit::Here(spot)) => {
                held.keep(Arc::clone(s), spot);
                false
            }
            Ok(Fit::Waiting(_)) => true,
            Ok(Fit::Known) | Err(_) => false,
        });
        if waiting.len() == before || waiting.is_empty() {
            return Rules { chain, held: &held }.whole();
        }
    }
}

/// The rules over one set.
pub(crate) struct Rules<'a> {
    pub(crate) chain: &'a CharterChain,
    pub(crate) held: &'a Held,
}

/// What a statement can change.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) nodes: BTreeSet<KeyBytes>,
    pub(crate) invites: BTreeSet<StatementId>,
}

impl Rules<'_> {
    pub(crate) fn whole(&self) -> Roster {
        let head = self.chain.head();
        let mut roster = Roster::empty(self.chain.org(), head.id(), head.charter());
        for node in self.held.nodes() {
            roster.set_member(node, self.member(node));
        }
        for invite in self.held.invites().filter_map(|id| self.invite_standing(id)) {
            roster.set_invite(invite);
        }
        roster
    }

    pub(crate) fn update(&self, roster: &mut Roster, touched: &Touched) {
        for node in &touched.nodes {
            roster.set_member(node, self.member(node));
        }
        for invite in touched.invites.iter().filter_map(|id| self.invite_standing(id)) {
            roster.set_invite(invite);
        }
    }

    /// What keeping this statement can change: itself, what it cancels or completes, and whoever
    /// shares a key with a machine whose Admits may now count or no longer.
    pub(crate) fn touched_by(&self, s: &Statement) -> Touched {
        let mut touched = Touched::default();
        let mut admitted = BTreeSet::new();
        match s.payload() {
            Payload::Admit(a) => {
                admitted.insert(*a.node.as_bytes());
                touched.invites.extend(a.invite);
            }
            Payload::Revoke(r) => {
                touched.nodes.insert(*r.node.as_bytes());
            }
            Payload::Leave => {
                touched.nodes.insert(*s.author().as_bytes());
            }
            Payload::Invite(_) => {
                touched.invites.insert(s.id());
                admitted.extend(self.held.admits_under(&s.id()));
            }
            Payload::Cancel(c) => {
                touched.invites.insert(c.invite);
                admitted.extend(self.held.admits_under(&c.invite));
            }
            Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Rotate(_)
            | Payload::Retire(_)
            | Payload::Cosign(_) => {}
        }
        for invite in self.held.cancelled_at(&s.id()) {
            touched.invites.insert(*invite);
            admitted.extend(self.held.admits_under(invite));
        }
        for node in &admitted {
            for key in self.keys_of(node) {
                touched.nodes.extend(self.held.claims_on(&key).iter().map(|claim| claim.node));
            }
        }
        touched.nodes.extend(admitted);
        touched
    }

    /// Whether a charter's cut names this statement, so that all before it may count from here on.
    pub(crate) fn is_cut_tip(&self, id: &StatementId) -> bool {
        self.chain.iter().any(|c| c.charter().cuts.iter().any(|cut| cut.tip == *id))
    }

    /// A machine, if any Admit of it counts.
    pub(crate) fn member(&self, node: &KeyBytes) -> Option<Member> {
        let admits = self.held.admits_of(node).iter();
        let mut counting: Vec<(&Entry, &Admit)> = admits.filter_map(|id| self.counting(id)).collect();
        counting.sort_unstable_by_key(|(entry, _)| entry.statement.id());
        let (entry, admit) = *counting.first()?;
        let labels = admit.invite.and_then(|id| self.invite(&id)).map(|(_, invite)| invite.labels.clone());
        let org = self.chain.org();
        Some(Member {
            node: admit.node,
            wireguard: admit.wireguard,
            boot: admit.boot,
            name: admit.name.clone(),
            labels: labels.unwrap_or_default(),
            assurance: admit.assurance,
            address: overlay_address(&org, &admit.node),
            admit: entry.statement.id(),
            admitted_by: *entry.statement.author(),
            invite: admit.invite,
            state: self.state(node, &counting),
        })
    }

    fn state(&self, node: &KeyBytes, counting: &[(&Entry, &Admit)]) -> MemberState {
        if let Some(revoked) = self.revoked(node) {
            return revoked;
        }
        if self.held.leave_of(node).is_some() {
            return MemberState::Left;
        }
        if counting.iter().any(|(_, admit)| self.conflicts(node, admit)) {
            return MemberState::KeyConflict;
        }
        MemberState::Good
    }

    /// Rule 9: a key of this Admit is claimed for another machine, in another place, or by a role.
    fn conflicts(&self, node: &KeyBytes, admit: &Admit) -> bool {
        slots(admit).into_iter().any(|(slot, key)| {
            let mut others = self.held.claims_on(&key).iter().filter(|c| c.node != *node || c.slot != slot);
            others.any(|claim| self.counting(&claim.admit).is_some()) || self.held.is_role_key(&key)
        })
    }

    /// Whether enough admins revoked a node key, admitted or not.
    pub(crate) fn is_revoked(&self, node: &KeyBytes) -> bool {
        self.revoked(node).is_some()
    }

    /// Rules 6 and 7: enough distinct admins revoked it.
    fn revoked(&self, node: &KeyBytes) -> Option<MemberState> {
        let mut admins = BTreeSet::new();
        let mut threshold = u8::MAX;
        let mut counting: Vec<(&Statement, &Revoke)> = Vec::new();
        for entry in self.held.revokes_of(node).filter_map(|id| self.held.get(id)) {
            let Payload::Revoke(revoke) = entry.statement.payload() else { continue };
            let Some(cited) = self.chain.get(&entry.statement.charter()) else { continue };
            if self.under_cuts(entry, IfTipUnknown::Counts, |c, key| c.admin(key).is_some()) {
                admins.insert(*entry.statement.author().as_bytes());
                threshold = threshold.min(cited.charter().revoke_threshold);
                counting.push((&entry.statement, revoke));
            }
        }
        let (first, revoke) = *counting.first()?;
        (admins.len() >= usize::from(threshold)).then(|| MemberState::Revoked {
            by: *first.author(),
            reason: revoke.reason,
            note: revoke.note.clone(),
            ids: counting.iter().map(|(s, _)| s.id()).collect(),
        })
    }

    /// An Admit that counts (rules 3 to 5).
    fn counting(&self, id: &StatementId) -> Option<(&Entry, &Admit)> {
        let entry = self.held.get(id)?;
        let Payload::Admit(admit) = entry.statement.payload() else { return None };
        let author = entry.statement.author();
        if self.held.is_burned(author) {
            return None;
        }
        let counts = match &admit.invite {
            None => self.under_cuts(entry, IfTipUnknown::Void, |c, key| c.admin(key).is_some()),
            Some(invite) => {
                self.under_cuts(entry, IfTipUnknown::Void, |c, key| c.gateway(key).is_some())
                    && self.invited(entry, admit, invite)
            }
        };
        counts.then_some((entry, admit))
    }

    fn invited(&self, entry: &Entry, admit: &Admit, id: &StatementId) -> bool {
        let Some((_, invite)) = self.invite(id) else { return false };
        let org = self.chain.org();
        !invite.approval
            && invite.redeemer == *entry.statement.author()
            && entry.nth < invite.uses
            && self.not_cancelled(entry, id)
            && *entry.invited.get_or_init(|| admit.verify_invite(&org, &invite.key).is_ok())
    }

    /// An Invite that counts.
    fn invite(&self, id: &StatementId) -> Option<(&Entry, &Invite)> {
        let entry = self.held.get(id)?;
        let Payload::Invite(invite) = entry.statement.payload() else { return None };
        let author = entry.statement.author();
        let counts = !self.held.is_burned(author)
            && self.under_cuts(entry, IfTipUnknown::Void, |c, key| c.admin(key).is_some());
        counts.then_some((entry, invite))
    }

    fn not_cancelled(&self, entry: &Entry, invite: &StatementId) -> bool {
        let id = entry.statement.id();
        self.cancels(invite)
            .all(|tip| tip.is_some_and(|tip| self.held.stands_before(&id, &tip) == Some(true)))
    }

    /// The tips of the Cancels of an invite. A Cancel takes away, so one that could be void counts.
    fn cancels(&self, invite: &StatementId) -> impl Iterator<Item = Option<StatementId>> {
        self.held.cancels_of(invite).iter().filter_map(|id| {
            let entry = self.held.get(id)?;
            let Payload::Cancel(cancel) = entry.statement.payload() else { return None };
            self.under_cuts(entry, IfTipUnknown::Counts, |c, key| c.admin(key).is_some())
                .then_some(cancel.tip)
        })
    }

    /// Rule 2: the author has the role in the newest charter, or a cut of the charter that took it
    /// away still lets this statement count.
    fn under_cuts(
        &self,
        entry: &Entry,
        unknown: IfTipUnknown,
        has_role: impl Fn(&Charter, &PublicKey) -> bool,
    ) -> bool {
        let s = &entry.statement;
        let author = s.author();
        if has_role(self.chain.head().charter(), author) {
            return true;
        }
        let cited = s.charter();
        let mut after = self.chain.after(&cited).map(VerifiedCharter::charter);
        let Some(removal) = after.find(|c| !has_role(c, author)) else { return false };
        let mut cuts = removal.cuts.iter().filter(|cut| cut.key == *author && cut.lane == s.lane());
        cuts.any(|cut| match (self.held.stands_before(&s.id(), &cut.tip), unknown) {
            (Some(before), _) => before,
            (None, IfTipUnknown::Counts) => true,
            (None, IfTipUnknown::Void) => false,
        })
    }

    fn invite_standing(&self, id: &StatementId) -> Option<InviteStanding> {
        let entry = self.held.get(id)?;
        let Payload::Invite(invite) = entry.statement.payload() else { return None };
        let used = self.held.spent(id).min(invite.uses);
        let redeems = self.chain.head().charter().gateway(&invite.redeemer).is_some();
        let state = if self.invite(id).is_none() || !redeems {
            InviteState::Void
        } else if self.cancels(id).next().is_some() {
            InviteState::Cancelled
        } else if used >= invite.uses {
            InviteState::Spent
        } else {
            InviteState::Open
        };
        Some(InviteStanding {
            id: *id,
            key: invite.key,
            by: *entry.statement.author(),
            redeemer: invite.redeemer,
            uses: invite.uses,
            used,
            labels: invite.labels.clone(),
            expires_unix_s: invite.expires_unix_s,
            note: invite.note.clone(),
            state,
        })
    }

    fn keys_of(&self, node: &KeyBytes) -> BTreeSet<WireGuardKey> {
        let admits = self.held.admits_of(node).iter().filter_map(|id| self.held.get(id));
        let keys = admits.filter_map(|entry| entry.statement.payload().admit());
        let keys = keys.map(|admit| slots(admit).map(|(_, key)| key));
        keys.flatten().collect()
    }
}

/// What becomes of a statement while the tip of a cut is not held: what gives waits, what takes away
/// counts.
#[derive(Clone, Copy)]
enum IfTipUnknown {
    Counts,
    Void,
}
