//! The org's policy: which one is in force (rule 18 of docs/spec/roster.md), and what it says of two keys.

use identity::{Code, HashContext, PublicKey, StatementId, codec::Writer};
use org_trust::{Payload, PolicyChange};
use policy::{Decision, Policy, Rule, Subject, Unmatched};

use crate::{
    held::Entry,
    resolve::{Rules, Weight},
    roster::{Member, Roster},
};

/// A policy as an admin signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStanding {
    /// The statement.
    pub id: StatementId,
    /// Its number.
    pub number: u32,
    /// The admin.
    pub by: PublicKey,
    /// What it permits.
    pub policy: Policy,
}

/// The policies that decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    /// The one that counts.
    pub(crate) in_force: Option<PolicyStanding>,
    /// Those that would be in force in its place if a statement that is not held says so.
    pub(crate) open: Vec<PolicyStanding>,
    /// Others of its number, which it was chosen over.
    pub(crate) passed_over: Vec<StatementId>,
}

/// One of the two ends of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Who asks.
    From,
    /// Of whom it is asked.
    To,
}

/// That a member may do something to another, and by what rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permitted<'a> {
    /// The number of the policy.
    pub policy: u32,
    /// Which of its rules, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// Why one key may not do something to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPermitted {
    /// The org has no policy.
    NoPolicy,
    /// The policy does not allow it.
    Denied {
        /// The number of the policy.
        policy: u32,
        /// How far its rules go.
        why: Unmatched,
    },
    /// The machine is no member in good standing.
    NotGood {
        /// Which of the two.
        end: End,
        /// The word for what it is instead.
        state: &'static str,
        /// What it is refused with.
        code: Code,
    },
    /// No machine uses this key.
    Unknown {
        /// Which of the two.
        end: End,
    },
}

impl Roster {
    /// The policy in force, if an admin ever signed one.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyStanding> {
        self.policies.in_force.as_ref()
    }

    /// Policies that admins signed under the number of the one in force, not knowing of each other, and that
    /// have no effect: the one with the lowest id is in force.
    #[must_use]
    pub fn policies_passed_over(&self) -> &[StatementId] {
        &self.policies.passed_over
    }

    /// Policies that would be in force instead if a statement that is not held says so: until it is held, what
    /// one of them does not allow is not permitted.
    #[must_use]
    pub fn policies_unsettled(&self) -> &[PolicyStanding] {
        &self.policies.open
    }

    /// The number that the next policy has.
    #[must_use]
    pub fn next_policy_number(&self) -> u32 {
        let known = self.policies.in_force.iter().chain(&self.policies.open).map(|policy| policy.number);
        known.max().unwrap_or(0).saturating_add(1)
    }

    /// Whether the machine with the node key `from` may do `action` to the one with the node key `to`: both
    /// are members in good standing, and a rule of the policy allows it. What muster does itself
    /// ([`policy::BUILT_IN`]) is not asked here.
    ///
    /// # Errors
    /// [`NotPermitted`]: the first reason that applies.
    pub fn permits(
        &self,
        from: &PublicKey,
        to: &PublicKey,
        action: &str,
    ) -> Result<Permitted<'_>, NotPermitted> {
        let (from, to) = (self.good_end(from, End::From)?, self.good_end(to, End::To)?);
        let in_force = self.policy().ok_or(NotPermitted::NoPolicy)?;
        let (from, to) = (from.subject(), to.subject());
        // Whichever of them turns out to be in force, what is permitted here it permits.
        for open in &self.policies.open {
            if let Decision::Deny(why) = open.policy.permits(&from, &to, action) {
                return Err(NotPermitted::Denied { policy: open.number, why });
            }
        }
        match in_force.policy.permits(&from, &to, action) {
            Decision::Allow { rule, number } => Ok(Permitted { policy: in_force.number, number, rule }),
            Decision::Deny(why) => Err(NotPermitted::Denied { policy: in_force.number, why }),
        }
    }

    fn good_end(&self, key: &PublicKey, end: End) -> Result<&Member, NotPermitted> {
        let member = self.get(key).ok_or(NotPermitted::Unknown { end })?;
        match member.refusal() {
            None => Ok(member),
            Some(code) => Err(NotPermitted::NotGood { end, state: member.state.as_str(), code }),
        }
    }
}

impl Member {
    /// What a policy looks at. The name counts if an admin gave it, by an Assign or by an Admit of his own: a
    /// machine that joins with an invite calls itself what it likes.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject { name: self.given_name(), roles: &self.roles, labels: &self.labels }
    }

    fn given_name(&self) -> Option<&identity::Name> {
        (self.invite.is_none() || !self.assigns.is_empty()).then_some(&self.name)
    }
}

impl Rules<'_> {
    /// Rule 18.
    pub(crate) fn policies(&self) -> Policies {
        let mut policies = Policies::default();
        for (number, ids) in self.held.policies() {
            for (entry, change) in ids.iter().filter_map(|id| policy_of(self.held.get(id)?)) {
                let standing = || PolicyStanding {
                    id: entry.statement.id(),
                    number,
                    by: *entry.statement.author(),
                    policy: change.policy.clone(),
                };
                match (self.gives(entry), &policies.in_force) {
                    (Weight::Void, _) | (Weight::Open, Some(_)) => {}
                    (Weight::Open, None) => policies.open.push(standing()),
                    (Weight::Counts, None) => policies.in_force = Some(standing()),
                    (Weight::Counts, Some(_)) => policies.passed_over.push(entry.statement.id()),
                }
            }
            if policies.in_force.is_some() {
                break;
            }
        }
        policies
    }
}

fn policy_of(entry: &Entry) -> Option<(&Entry, &PolicyChange)> {
    if let Payload::Policy(change) = entry.statement.payload() { Some((entry, change)) } else { None }
}

impl Policies {
    pub(crate) fn leaf(&self) -> [u8; 32] {
        let mut out = Writer::new();
        for policy in self.in_force.iter().chain(&self.open) {
            out.u32(policy.number).bytes(policy.id.as_bytes());
        }
        HashContext::ROSTER_DIGEST.hash(&[&out.into_bytes()])
    }
}

impl NotPermitted {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NoPolicy => Code::PolicyAbsent,
            Self::Denied { .. } => Code::PolicyDenies,
            Self::NotGood { code, .. } => *code,
            Self::Unknown { .. } => Code::UnknownKey,
        }
    }
}

impl core::fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("the org has no policy"),
            Self::Denied { policy, why } => write!(f, "policy {policy}: {why}"),
            Self::NotGood { end, state, .. } => write!(f, "{end} is {state}"),
            Self::Unknown { end } => write!(f, "{end} is no member"),
        }
    }
}

impl core::fmt::Display for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::From => "who asks",
            Self::To => "who is asked",
        })
    }
}

impl core::error::Error for NotPermitted {}
