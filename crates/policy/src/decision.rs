//! Whether a policy permits something, and by what.

use core::fmt;

use identity::{Name, Tag};

use crate::{Policy, rule::Rule};

/// What a policy looks at in a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What an admin called it. A name that a machine chose for itself is none: whoever may join could
    /// choose another's.
    pub name: Option<&'a Name>,
    /// Its roles.
    pub roles: &'a [Tag],
    /// Its labels.
    pub labels: &'a [Tag],
}

/// What a policy says to one action of one member on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It may.
    Allow {
        /// The first rule that permits it.
        rule: &'a Rule,
        /// Which of the policy's rules that is, from 1.
        number: usize,
    },
    /// It may not.
    Deny(Unmatched),
}

/// How far the rules go that come nearest to permitting something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// There is no rule.
    Empty,
    /// None is about the action.
    Action,
    /// None of those is about who asks.
    From,
    /// None of those is about whom it is asked of.
    To,
}

impl Policy {
    /// Whether a member `from` may do `action` to a member `to`. Whether both are members in good standing
    /// is for the caller to know.
    #[must_use]
    pub fn permits(&self, from: &Subject<'_>, to: &Subject<'_>, action: &str) -> Decision<'_> {
        let mut nearest = if self.is_empty() { Unmatched::Empty } else { Unmatched::Action };
        for (number, rule) in (1..).zip(self.rules()) {
            if !rule.is_about(action) {
                continue;
            }
            let leaves = rule.from().iter().any(|selector| selector.matches(from));
            let arrives = rule.to().iter().any(|selector| selector.matches(to));
            match (leaves, arrives) {
                (true, true) => return Decision::Allow { rule, number },
                (true, false) => nearest = Unmatched::To,
                (false, _) if nearest != Unmatched::To => nearest = Unmatched::From,
                (false, _) => {}
            }
        }
        Decision::Deny(nearest)
    }
}

impl Decision<'_> {
    /// Whether it may.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the policy has no rules",
            Self::Action => "no rule is about this action",
            Self::From => "no rule about this action is about who asks",
            Self::To => "no rule about this action lets who asks do it to this member",
        })
    }
}
