//! The rules of docs/spec/roster.md a second time, as plainly as they are written: sets, no index, no
//! order, nothing incremental. Slow, and meant to be.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "each test file uses a part of the model"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::{CharterId, PublicKey, StatementId, WireGuardKey};
use member_crdt::{MemberState, Roster};
use org_trust::{Admit, Assign, Charter, CharterChain, Payload, Statement};

/// What the model says of one machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub state: &'static str,
    /// Node keys, oldest first, and how many of them are ended.
    pub nodes: Vec<PublicKey>,
    pub ended: usize,
    pub name: String,
    pub roles: Vec<String>,
    pub labels: Vec<String>,
    pub assigns: Vec<StatementId>,
    /// The Revokes or Suspends that make its state.
    pub because: Vec<StatementId>,
    /// Admins that revoked it, when they are too few.
    pub revoking: Vec<PublicKey>,
    pub admit: StatementId,
}

pub type Rows = BTreeMap<PublicKey, Row>;

/// What resolve says, in the model's words.
pub fn rows_of(roster: &Roster) -> Rows {
    let row = |m: &member_crdt::Member| Row {
        state: m.state.as_str(),
        nodes: m.nodes().collect(),
        ended: m.earlier.iter().filter(|keys| keys.retired).count(),
        name: m.name.to_string(),
        roles: m.roles.iter().map(ToString::to_string).collect(),
        labels: m.labels.iter().map(ToString::to_string).collect(),
        assigns: m.assigns.clone(),
        because: match &m.state {
            MemberState::Revoked { ids, .. } | MemberState::Suspended { ids, .. } => ids.clone(),
            _ => vec![],
        },
        revoking: m.revoking.as_ref().map(|r| r.by.clone()).unwrap_or_default(),
        admit: m.admit,
    };
    roster.members().into_iter().map(|m| (m.first(), row(m))).collect()
}

/// What decides over actions: the policy in force, those that may be instead, those it was chosen over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deciding {
    pub in_force: Option<StatementId>,
    pub open: BTreeSet<StatementId>,
    pub passed_over: BTreeSet<StatementId>,
}

/// What resolve says of policies, in the model's words.
pub fn deciding_of(roster: &Roster) -> Deciding {
    Deciding {
        in_force: roster.policy().map(|policy| policy.id),
        open: roster.policies_unsettled().iter().map(|policy| policy.id).collect(),
        passed_over: roster.policies_passed_over().iter().copied().collect(),
    }
}

pub struct Model<'a> {
    chain: &'a CharterChain,
    /// Kept, but for what machines say of themselves.
    held: BTreeMap<StatementId, &'a Statement>,
    own: Vec<&'a Statement>,
}

/// A machine's keys as far as the chain holds.
struct Lineage<'a> {
    rotates: Vec<&'a Statement>,
    /// The newest key signed two Rotates.
    forked: bool,
    left: bool,
    ended: usize,
}

/// How far an Admit counts, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counts {
    No,
    Waits,
    Open,
    Yes,
}

pub fn model(chain: &CharterChain, statements: &[Arc<Statement>]) -> Rows {
    let mut model = held(chain, statements);
    let own: BTreeMap<_, _> =
        statements.iter().filter(|s| s.payload().is_by_node()).map(|s| (s.id(), &**s)).collect();
    model.own = own.into_values().filter(|s| chain.get(&s.charter()).is_some()).collect();
    let roots: BTreeSet<PublicKey> = model.admits().map(|(_, a)| a.node).collect();
    roots.into_iter().filter_map(|root| Some((root, model.row(root)?))).collect()
}

/// Rule 18.
pub fn deciding(chain: &CharterChain, statements: &[Arc<Statement>]) -> Deciding {
    let model = held(chain, statements);
    let numbered = model.of(|p| match p {
        Payload::Policy(change) => Some(change.number),
        _ => None,
    });
    // Least is first: the highest number, of one number the lowest id.
    let rank = |(s, number): &(&Statement, u32)| (core::cmp::Reverse(*number), s.id());
    let counting: Vec<_> = numbered.iter().filter(|(s, _)| model.gives(s)).collect();
    let first = counting.iter().map(|policy| rank(policy)).min();
    let same = |number: u32| first.is_some_and(|(first, _)| first.0 == number);
    let others = counting.iter().filter(|policy| same(policy.1) && Some(rank(policy)) != first);
    let open = numbered.iter().filter(|(s, _)| model.takes(s) && !model.gives(s));
    Deciding {
        in_force: first.map(|(_, id)| id),
        passed_over: others.map(|(s, _)| s.id()).collect(),
        open: open
            .filter(|policy| first.is_none_or(|first| rank(policy) < first))
            .map(|(s, _)| s.id())
            .collect(),
    }
}

/// What is kept, but for what machines say of themselves.
fn held<'a>(chain: &'a CharterChain, statements: &'a [Arc<Statement>]) -> Model<'a> {
    let mut model = Model { chain, held: BTreeMap::new(), own: Vec::new() };
    loop {
        let before = model.held.len();
        for s in statements.iter().filter(|s| !s.payload().is_by_node()) {
            if model.fits(s) {
                model.held.insert(s.id(), s);
            }
        }
        if model.held.len() == before {
            break;
        }
    }
    model
}

impl<'a> Model<'a> {
    // What is kept: K2 to K4. Nobody here signs nine branches or ten thousand early Revokes.

    fn fits(&self, s: &Statement) -> bool {
        let Some(charter) = self.chain.get(&s.charter()) else { return false };
        let c = charter.charter();
        let admin = c.admin(s.author()).is_some();
        let allowed = match s.payload() {
            Payload::Admit(a) if a.invite.is_some() => c.gateway(s.author()).is_some(),
            _ => admin,
        };
        let placed = if s.seq() == 0 {
            self.chain.named(s.author()).is_some_and(|c| c.id().0 == s.prev())
        } else {
            self.held.get(&StatementId(s.prev())).is_some_and(|p| {
                let newer = self.version(&p.charter()) > self.version(&s.charter());
                p.author() == s.author() && p.lane() == s.lane() && p.seq() + 1 == s.seq() && !newer
            })
        };
        let again = |target: &PublicKey| {
            let mut at = self.held.get(&StatementId(s.prev())).filter(|_| s.seq() > 0);
            while let Some(p) = at {
                if matches!(p.payload(), Payload::Revoke(r) if r.node == *target) {
                    return true;
                }
                at = self.held.get(&StatementId(p.prev())).filter(|_| p.seq() > 0);
            }
            false
        };
        let twice = matches!(s.payload(), Payload::Revoke(r) if again(&r.node));
        allowed && placed && !twice
    }

    fn version(&self, id: &CharterId) -> u32 {
        self.chain.get(id).map_or(0, |c| c.charter().version)
    }

    fn of<T>(&self, pick: impl Fn(&'a Payload) -> Option<T>) -> Vec<(&'a Statement, T)> {
        self.held.values().filter_map(|s| Some((*s, pick(s.payload())?))).collect()
    }

    fn admits(&self) -> impl Iterator<Item = (&'a Statement, &'a Admit)> {
        self.held.values().filter_map(|s| Some((*s, s.payload().admit()?)))
    }

    fn is_before(&self, s: &Statement, tip: &Statement) -> bool {
        let mut at = Some(tip);
        while let Some(t) = at {
            if t.id() == s.id() {
                return true;
            }
            at = self.held.get(&StatementId(t.prev())).copied().filter(|_| t.seq() > 0);
        }
        false
    }

    // Rule 2.

    /// What counts: in the best case, if tips that are not held turn out well, and in the worst.
    fn counts(&self, s: &Statement, at_best: bool, role: impl Fn(&Charter) -> bool) -> bool {
        if role(self.chain.head().charter()) {
            return true;
        }
        let mut later = self.chain.iter().filter(|c| c.charter().version > self.version(&s.charter()));
        let Some(removal) = later.find(|c| !role(c.charter())) else { return false };
        removal
            .charter()
            .cuts
            .iter()
            .filter(|cut| cut.key == *s.author() && cut.lane == s.lane())
            .any(|cut| self.held.get(&cut.tip).map_or(at_best, |tip| self.is_before(s, tip)))
    }

    fn gives(&self, s: &Statement) -> bool {
        self.may_give(s, false)
    }

    fn may_give(&self, s: &Statement, at_best: bool) -> bool {
        self.counts(s, at_best, |c| c.admin(s.author()).is_some())
    }

    fn takes(&self, s: &Statement) -> bool {
        self.may_give(s, true)
    }

    // Rules 3 to 5 and 12.

    fn admission(&self, s: &Statement, a: &Admit) -> Counts {
        match (self.admitted(s, a, false), self.admitted(s, a, true)) {
            (Counts::Yes, _) => Counts::Yes,
            (_, Counts::Yes) => Counts::Open,
            (worst, _) => worst,
        }
    }

    fn admitted(&self, s: &Statement, a: &Admit, at_best: bool) -> Counts {
        let Some(id) = a.invite else {
            return if self.may_give(s, at_best) { Counts::Yes } else { Counts::No };
        };
        let Some(held) = self.held.get(&id) else { return Counts::No };
        let Payload::Invite(invite) = held.payload() else { return Counts::No };
        let mut spent = 0;
        let mut at = self.held.get(&StatementId(s.prev())).filter(|_| s.seq() > 0);
        while let Some(p) = at {
            spent += u32::from(p.payload().admit().is_some_and(|p| p.invite == Some(id)));
            at = self.held.get(&StatementId(p.prev())).filter(|_| p.seq() > 0);
        }
        let cancels = self.of(|p| match p {
            Payload::Cancel(c) if c.invite == id => Some(c.tip),
            _ => None,
        });
        let cancelled = cancels.iter().filter(|(c, _)| self.takes(c)).any(|(_, tip)| match tip {
            None => true,
            Some(tip) => self.held.get(tip).map_or(!at_best, |tip| !self.is_before(s, tip)),
        });
        let counts = self.counts(s, at_best, |c| c.gateway(s.author()).is_some())
            && self.may_give(held, at_best)
            && invite.redeemer == *s.author()
            && a.verify_invite(&self.chain.org(), &invite.key).is_ok()
            && spent < invite.uses
            && !cancelled;
        let approved = || {
            let cosigns = self.of(|p| matches!(p, Payload::Cosign(c) if c.target == s.id()).then_some(()));
            cosigns.iter().any(|(c, ())| self.may_give(c, at_best))
        };
        match counts {
            false => Counts::No,
            true if invite.approval && !approved() => Counts::Waits,
            true => Counts::Yes,
        }
    }

    // K8 and rule 15.

    fn lineage(&self, root: PublicKey) -> Lineage<'a> {
        let admits: Vec<_> = self.admits().filter(|(_, a)| a.node == root).map(|(s, _)| s).collect();
        let mut lineage = Lineage { rotates: vec![], forked: false, left: false, ended: 0 };
        let mut node = root;
        let mut origin: Vec<&Statement> = admits;
        loop {
            let here: Vec<_> = self
                .own
                .iter()
                .copied()
                .filter(|s| *s.author() == node && origin.iter().any(|o| o.id().0 == s.prev()))
                .collect();
            lineage.left |= here.iter().any(|s| *s.payload() == Payload::Leave);
            let old = lineage.rotates.last().map(|s| *s.author());
            if here.iter().any(|s| matches!(s.payload(), Payload::Retire(r) if Some(r.old) == old)) {
                lineage.ended = lineage.rotates.len();
            }
            let few = lineage.rotates.len() < 64;
            let rotates = here.into_iter().filter(|s| matches!(s.payload(), Payload::Rotate(_)));
            let rotates: Vec<_> = rotates.filter(|s| few && self.is_new(s)).collect();
            match rotates.as_slice() {
                [] => return lineage,
                [one] => {
                    let Payload::Rotate(r) = one.payload() else { return lineage };
                    node = r.node;
                    lineage.rotates.push(one);
                    origin = vec![one];
                }
                _ => {
                    lineage.forked = true;
                    return lineage;
                }
            }
        }
    }

    fn is_new(&self, rotate: &Statement) -> bool {
        let new = keys(rotate).unwrap();
        let mut at = self.made(rotate.prev());
        while let Some(made) = at {
            if keys(made).unwrap().iter().any(|key| new.contains(key)) {
                return false;
            }
            at = if made.payload().admit().is_some() { None } else { self.made(made.prev()) };
        }
        true
    }

    fn made(&self, id: [u8; 32]) -> Option<&'a Statement> {
        let id = StatementId(id);
        self.held.get(&id).copied().or_else(|| self.own.iter().copied().find(|s| s.id() == id))
    }

    // Rule 9.

    /// The keys of a machine by slot, if any Admit of it counts.
    fn claims(&self, root: PublicKey) -> BTreeSet<(usize, WireGuardKey)> {
        let admits = self.admits().filter(|(s, a)| a.node == root && self.admission(s, a) >= Counts::Open);
        let mut all: Vec<&Statement> = admits.map(|(s, _)| s).collect();
        if !all.is_empty() {
            all.extend(self.lineage(root).rotates);
        }
        all.iter().flat_map(|s| keys(s).unwrap().into_iter().enumerate()).collect()
    }

    fn row(&self, root: PublicKey) -> Option<Row> {
        let all: Vec<_> = self
            .admits()
            .filter(|(_, a)| a.node == root)
            .map(|(s, a)| (s, a, self.admission(s, a)))
            .collect();
        let wanted = all.iter().map(|(.., counts)| *counts).max().filter(|counts| *counts != Counts::No)?;
        // The held ones ascend by id.
        let mut admits = all.into_iter().filter(|(.., counts)| *counts == wanted).map(|(s, a, _)| (s, a));
        let (first, admit) = admits.next()?;
        let admits: Vec<_> = admits.map(|(s, _)| s).chain([first]).collect();
        let lineage = self.lineage(root);
        let nodes: Vec<PublicKey> = [root]
            .into_iter()
            .chain(lineage.rotates.iter().map(|s| match s.payload() {
                Payload::Rotate(r) => r.node,
                _ => unreachable!("{s:?}"),
            }))
            .collect();

        let revokes = self.of(|p| matches!(p, Payload::Revoke(r) if nodes.contains(&r.node)).then_some(()));
        let revokes: Vec<&Statement> =
            revokes.into_iter().map(|(s, ())| s).filter(|s| self.takes(s)).collect();
        let authors: BTreeSet<PublicKey> = revokes.iter().map(|s| *s.author()).collect();
        let threshold =
            revokes.iter().map(|s| self.chain.get(&s.charter()).unwrap().charter().revoke_threshold).min();
        let revoked = threshold.is_some_and(|t| authors.len() >= usize::from(t));

        let resumed: BTreeSet<StatementId> = self
            .of(|p| match p {
                Payload::Resume(r) if nodes.contains(&r.node) => Some(&r.suspends),
                _ => None,
            })
            .into_iter()
            .filter(|(s, _)| self.gives(s))
            .flat_map(|(_, ids)| ids.clone())
            .collect();
        let suspends = self.of(|p| matches!(p, Payload::Suspend(r) if nodes.contains(&r.node)).then_some(()));
        let suspends: Vec<StatementId> = suspends
            .into_iter()
            .filter(|(s, ())| self.takes(s) && !resumed.contains(&s.id()))
            .map(|(s, ())| s.id())
            .collect();

        let mine: BTreeSet<(usize, WireGuardKey)> = admits
            .iter()
            .chain(&lineage.rotates)
            .flat_map(|s| keys(s).unwrap().into_iter().enumerate())
            .collect();
        let others: BTreeSet<PublicKey> =
            self.admits().map(|(_, a)| a.node).filter(|node| *node != root).collect();
        let taken: BTreeSet<WireGuardKey> =
            others.iter().flat_map(|o| self.claims(*o)).map(|(_, key)| key).collect();
        let role_keys: BTreeSet<WireGuardKey> =
            self.chain.iter().flat_map(|c| role_keys(c.charter())).collect();
        let claimed = self.claims(root);
        let elsewhere = |slot, key| claimed.iter().any(|(s, k)| *k == key && *s != slot);
        let conflict = mine
            .iter()
            .any(|(slot, key)| taken.contains(key) || role_keys.contains(key) || elsewhere(*slot, *key));

        let state = match () {
            () if revoked => "revoked",
            () if lineage.left => "left",
            () if lineage.forked || conflict => "key-conflict",
            () if !suspends.is_empty() => "suspended",
            () if wanted == Counts::Open => "unsettled",
            () if wanted == Counts::Waits => "pending",
            () => "good",
        };

        let labels = || {
            let invite = admit.invite.and_then(|id| self.held.get(&id)).map(|s| s.payload());
            match invite {
                Some(Payload::Invite(i)) => i.labels.iter().map(ToString::to_string).collect(),
                _ => vec![],
            }
        };
        let in_force = self.in_force(&nodes, false);
        let open = self.in_force(&nodes, true);
        let common = |unassigned: Vec<String>, pick: fn(&Assign) -> Vec<String>| -> Vec<String> {
            let mut sets = in_force.iter().map(|(_, a)| pick(a));
            let first = sets.next().unwrap_or(unassigned);
            let sets = sets.chain(open.iter().map(|(_, a)| pick(a)));
            sets.fold(first, |all, set| all.into_iter().filter(|tag| set.contains(tag)).collect())
        };
        Some(Row {
            state,
            nodes,
            ended: lineage.ended,
            name: in_force.first().map_or(&admit.name, |(_, a)| &a.name).to_string(),
            roles: common(vec![], |a| a.roles.iter().map(ToString::to_string).collect()),
            labels: common(labels(), |a| a.labels.iter().map(ToString::to_string).collect()),
            assigns: in_force.iter().map(|(s, _)| s.id()).collect(),
            because: match state {
                "revoked" => revokes.iter().map(|s| s.id()).collect(),
                "suspended" => suspends,
                _ => vec![],
            },
            revoking: if revoked { vec![] } else { authors.into_iter().collect() },
            admit: first.id(),
        })
    }

    // Rule 14.

    /// Those that count and no other that counts replaces; or, if `open`, those that may count.
    fn in_force(&self, nodes: &[PublicKey], open: bool) -> Vec<(&'a Statement, &'a Assign)> {
        let all = self.of(|p| match p {
            Payload::Assign(a) if nodes.contains(&a.node) => Some(&**a),
            _ => None,
        });
        let replaces = |newer: &Assign, older: StatementId| {
            let mut reached: BTreeSet<StatementId> = newer.replaces.iter().copied().collect();
            loop {
                let known = all.iter().filter(|(s, _)| reached.contains(&s.id()));
                let more: BTreeSet<_> = known.flat_map(|(_, a)| a.replaces.clone()).collect();
                let before = reached.len();
                reached.extend(more);
                if reached.len() == before {
                    return reached.contains(&older);
                }
            }
        };
        let counting: Vec<_> = all.iter().filter(|(s, _)| self.gives(s)).collect();
        let wanted = all.iter().filter(|(s, _)| self.takes(s) && self.gives(s) != open);
        let in_force = wanted.filter(|(s, _)| !counting.iter().any(|(_, newer)| replaces(newer, s.id())));
        in_force.map(|(s, a)| (*s, *a)).collect()
    }
}

/// The three keys that an Admit or a Rotate names, by their u.
fn keys(s: &Statement) -> Option<[WireGuardKey; 3]> {
    let of = |node: &PublicKey, wireguard: &PublicKey, boot: &PublicKey| {
        [node.to_wireguard(), wireguard.to_wireguard(), boot.to_wireguard()]
    };
    match s.payload() {
        Payload::Admit(a) => Some(of(&a.node, &a.wireguard, &a.boot)),
        Payload::Rotate(r) => Some(of(&r.node, &r.wireguard, &r.boot)),
        _ => None,
    }
}

fn role_keys(c: &Charter) -> Vec<WireGuardKey> {
    let admins = c.admins.iter().map(|a| a.key);
    let keys = admins.chain(c.gateways.iter().map(|g| g.key)).chain(c.root_keys.iter().copied());
    keys.map(|key| key.to_wireguard()).collect()
}
