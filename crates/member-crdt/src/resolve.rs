//! The rules of docs/spec/roster.md: what the statements held say of one machine, and of all.

use std::{collections::BTreeSet, sync::Arc};

use identity::{KeyUpToSign, PublicKey, StatementId};
use org_trust::{Admit, Charter, CharterChain, Invite, Lane, Payload, Statement, VerifiedCharter};

use crate::{
    held::{Claim, Entry, Fit, Held, KeyBytes, slots},
    lineage::Lineage,
    roster::{InviteStanding, InviteState, Roster},
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
    pub(crate) policies: bool,
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
        roster.set_policies(self.policies());
        roster
    }

    pub(crate) fn update(&self, roster: &mut Roster, touched: &Touched) {
        for node in &touched.nodes {
            roster.set_member(node, self.member(node));
        }
        for invite in touched.invites.iter().filter_map(|id| self.invite_standing(id)) {
            roster.set_invite(invite);
        }
        if touched.policies {
            roster.set_policies(self.policies());
        }
    }

    /// What keeping this statement, and dropping those for it, can change: itself, what it cancels,
    /// approves or completes, and whoever shares a key with a machine whose keys may now count or no
    /// longer.
    pub(crate) fn touched_by(&self, s: &Statement, dropped: &[Arc<Statement>]) -> Touched {
        let mut touched = Touched::default();
        let mut admitted = BTreeSet::new();
        match s.payload() {
            Payload::Admit(a) => {
                admitted.insert(*a.node.as_bytes());
                touched.invites.extend(a.invite);
            }
            Payload::Rotate(_) => admitted.extend(self.held.lineages().get(&s.id()).map(|r| r.root)),
            Payload::Revoke(r) => touched.nodes.extend(self.roots_of(&r.node)),
            Payload::Suspend(r) => touched.nodes.extend(self.roots_of(&r.node)),
            Payload::Resume(r) => touched.nodes.extend(self.roots_of(&r.node)),
            Payload::Assign(a) => touched.nodes.extend(self.roots_of(&a.node)),
            Payload::Leave | Payload::Retire(_) => touched.nodes.extend(self.roots_of(s.author())),
            Payload::Cosign(c) => {
                let target = self.held.get(&c.target).and_then(|entry| entry.statement.payload().admit());
                admitted.extend(target.map(|admit| *admit.node.as_bytes()));
            }
            Payload::Policy(_) => touched.policies = true,
            Payload::Invite(_) => {
                touched.invites.insert(s.id());
                admitted.extend(self.held.admits_under(&s.id()));
            }
            Payload::Cancel(c) => {
                touched.invites.insert(c.invite);
                admitted.extend(self.held.admits_under(&c.invite));
            }
        }
        for invite in self.held.cancelled_at(&s.id()) {
            touched.invites.insert(*invite);
            admitted.extend(self.held.admits_under(invite));
        }
        let mut keys: BTreeSet<KeyUpToSign> =
            admitted.iter().flat_map(|root| self.keys_under(root)).collect();
        keys.extend(dropped.iter().flat_map(|old| slots(old)).map(|(_, key)| key));
        for key in &keys {
            touched.nodes.extend(self.held.claims_on(key).iter().map(|claim| claim.node));
        }
        touched.nodes.extend(admitted);
        touched
    }

    /// Whether a charter's cut names this statement, so that all before it may count from here on.
    pub(crate) fn is_cut_tip(&self, id: &StatementId) -> bool {
        self.chain.iter().any(|c| c.charter().cuts.iter().any(|cut| cut.tip == *id))
    }

    /// An Admit that is or may be one, and how far it counts (rules 2 to 5 and 12).
    pub(crate) fn admission(&self, id: &StatementId) -> Option<(&Entry, &Admit, Admission)> {
        let entry = self.held.get(id)?;
        let admit = entry.statement.payload().admit()?;
        if self.held.is_burned(entry.statement.author(), Lane::Main) {
            return None;
        }
        let admission = match &admit.invite {
            None => match self.under_cuts(entry, |c, key| c.admin(key).is_some()) {
                Weight::Void => return None,
                Weight::Open => Admission::Open,
                Weight::Counts => Admission::Counts,
            },
            Some(id_of_invite) => {
                let by_gateway = self.under_cuts(entry, |c, key| c.gateway(key).is_some());
                let (invite, invited) = self.invited(entry, admit, id_of_invite)?;
                let approved = if invite.approval { self.approved(id) } else { Weight::Counts };
                match (by_gateway.min(invited), approved) {
                    (Weight::Void, _) | (Weight::Open, Weight::Void) => return None,
                    (Weight::Counts, Weight::Void) => Admission::Waits,
                    (Weight::Open, Weight::Open | Weight::Counts) | (Weight::Counts, Weight::Open) => {
                        Admission::Open
                    }
                    (Weight::Counts, Weight::Counts) => Admission::Counts,
                }
            }
        };
        Some((entry, admit, admission))
    }

    /// Whether an Admit counts, or may.
    fn admits(&self, id: &StatementId) -> bool {
        self.admission(id).is_some_and(|(.., admission)| admission != Admission::Waits)
    }

    /// Rule 12: an admin approved it.
    fn approved(&self, id: &StatementId) -> Weight {
        let cosigns = self.held.cosigns_of(id).filter_map(|id| self.held.get(id));
        cosigns.map(|entry| self.gives(entry)).max().unwrap_or(Weight::Void)
    }

    /// What an admin says on its main lane to give something.
    pub(crate) fn gives(&self, entry: &Entry) -> Weight {
        if self.held.is_burned(entry.statement.author(), Lane::Main) {
            return Weight::Void;
        }
        self.under_cuts(entry, |c, key| c.admin(key).is_some())
    }

    /// Whether what an admin says to take something away is in force: also while that is open.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        self.under_cuts(entry, |c, key| c.admin(key).is_some()) != Weight::Void
    }

    /// Rule 9: a key is claimed for another machine, in another place, or by a role.
    pub(crate) fn conflicts(&self, root: &KeyBytes, admits: &[&Statement], lineage: &Lineage<'_>) -> bool {
        let rotates = lineage.later.iter().map(|(rotate, _)| *rotate);
        admits.iter().copied().chain(rotates).flat_map(slots).any(|(slot, key)| {
            let mut others = self.held.claims_on(&key).iter().filter(|c| c.node != *root || c.slot != slot);
            others.any(|claim| self.claims(claim)) || self.held.is_role_key(&key)
        })
    }

    /// Whether a claim counts: an Admit that does, or a Rotate of a machine that has one. A claim takes
    /// away, so one that may be void counts.
    fn claims(&self, claim: &Claim) -> bool {
        self.admits(&claim.by)
            || (self.held.lineages().is_single(&claim.by)
                && self.held.admits_of(&claim.node).iter().any(|id| self.admits(id)))
    }

    /// The Invite that admits, and how far it does.
    fn invited(&self, entry: &Entry, admit: &Admit, id: &StatementId) -> Option<(&Invite, Weight)> {
        let (_, invite, given) = self.invite(id)?;
        let org = self.chain.org();
        let admits = invite.redeemer == *entry.statement.author() && entry.nth < invite.uses;
        let weight = given.min(self.left_by_cancels(entry, id));
        let admits = admits
            && weight != Weight::Void
            && *entry.invited.get_or_init(|| admit.verify_invite(&org, &invite.key).is_ok());
        admits.then_some((invite, weight))
    }

    /// An Invite that counts, or may.
    pub(crate) fn invite(&self, id: &StatementId) -> Option<(&Entry, &Invite, Weight)> {
        let entry = self.held.get(id)?;
        let Payload::Invite(invite) = entry.statement.payload() else { return None };
        let weight = self.gives(entry);
        (weight != Weight::Void).then_some((entry, &**invite, weight))
    }

    /// What the Cancels of its invite leave of an Admit.
    fn left_by_cancels(&self, entry: &Entry, invite: &StatementId) -> Weight {
        let id = entry.statement.id();
        let left = self.cancels(invite).map(|tip| match tip {
            Some(tip) => Weight::of(self.held.stands_before(&id, &tip)),
            None => Weight::Void,
        });
        left.min().unwrap_or(Weight::Counts)
    }

    /// The tips of the Cancels of an invite. A Cancel takes away, so one that could be void counts.
    fn cancels(&self, invite: &StatementId) -> impl Iterator<Item = Option<StatementId>> {
        self.held.cancels_of(invite).iter().filter_map(|id| {
            let entry = self.held.get(id)?;
            let Payload::Cancel(cancel) = entry.statement.payload() else { return None };
            self.takes(entry).then_some(cancel.tip)
        })
    }

    /// Rule 2: the author has the role in the newest charter, or a cut of the charter that took it
    /// away still lets this statement count.
    fn under_cuts(&self, entry: &Entry, has_role: impl Fn(&Charter, &PublicKey) -> bool) -> Weight {
        let s = &entry.statement;
        let author = s.author();
        if has_role(self.chain.head().charter(), author) {
            return Weight::Counts;
        }
        let cited = s.charter();
        let mut after = self.chain.after(&cited).map(VerifiedCharter::charter);
        let Some(removal) = after.find(|c| !has_role(c, author)) else { return Weight::Void };
        let cuts = removal.cuts.iter().filter(|cut| cut.key == *author && cut.lane == s.lane());
        let weights = cuts.map(|cut| Weight::of(self.held.stands_before(&s.id(), &cut.tip)));
        weights.max().unwrap_or(Weight::Void)
    }

    fn invite_standing(&self, id: &StatementId) -> Option<InviteStanding> {
        let entry = self.held.get(id)?;
        let Payload::Invite(invite) = entry.statement.payload() else { return None };
        let used = self.held.spent(id).min(invite.uses);
        let redeems = self.chain.head().charter().gateway(&invite.redeemer).is_some();
        let counts = self.gives(entry) == Weight::Counts;
        let state = if !counts || !redeems {
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
            approval: invite.approval,
            attestation: invite.attestation,
            tpms: invite.tpms.clone(),
            state,
        })
    }

    /// The first keys of the machines that a node key is, or by a Rotate would be, a key of.
    fn roots_of(&self, node: &PublicKey) -> BTreeSet<KeyBytes> {
        let node = node.as_bytes();
        let rotated = self.held.lineages().to(node).map(|rotation| rotation.root);
        rotated.chain((!self.held.admits_of(node).is_empty()).then_some(*node)).collect()
    }

    /// Every key that an Admit or a Rotate names for a machine.
    fn keys_under(&self, root: &KeyBytes) -> BTreeSet<KeyUpToSign> {
        let admits = self.held.admits_of(root).iter().filter_map(|id| self.held.get(id));
        let admitted = admits.flat_map(|entry| slots(&entry.statement));
        let rotated = self.held.lineages().of(root).flat_map(slots);
        admitted.chain(rotated).map(|(_, key)| key).collect()
    }
}

/// How far an Admit that holds counts; what counts least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// No admin has approved it.
    Waits,
    /// Whether it counts is for a statement to say that is not held.
    Open,
    Counts,
}

/// How far a statement of a key counts that had a role; what counts least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    Void,
    /// The tip that decides is not held.
    Open,
    Counts,
}

impl Weight {
    /// By whether a statement stands before a tip.
    const fn of(stands_before: Option<bool>) -> Self {
        match stands_before {
            Some(true) => Self::Counts,
            Some(false) => Self::Void,
            None => Self::Open,
        }
    }
}
