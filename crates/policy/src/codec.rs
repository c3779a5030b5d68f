//! The one encoding of a policy (docs/spec/records.md).

use identity::{
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{POLICY_RULES_MAX, POLICY_SELECTORS_MAX},
};

use crate::{
    Policy,
    rule::{Doing, Rule, Selector},
};

pub(crate) fn write(policy: &Policy, out: &mut Writer) {
    out.count(policy.rules.len());
    for rule in &policy.rules {
        write_selectors(out, &rule.from);
        write_selectors(out, &rule.to);
        out.count(rule.actions.len());
        for doing in &rule.actions {
            match doing {
                Doing::Any => out.u8(ANY),
                Doing::Action(name) => out.u8(ACTION).short_bytes(name.as_str().as_bytes()),
            };
        }
    }
}

pub(crate) fn read(r: &mut Reader<'_>) -> Result<Policy, DecodeError> {
    let count = r.count("rules", POLICY_RULES_MAX)?;
    let mut rules = Vec::new();
    for _ in 0..count {
        rules.push(Rule {
            from: read_list(r, "rule from", read_selector)?,
            to: read_list(r, "rule to", read_selector)?,
            actions: read_list(r, "rule actions", read_doing)?,
        });
    }
    ascending("rules", &rules)?;
    Ok(Policy { rules })
}

fn write_selectors(out: &mut Writer, selectors: &[Selector]) {
    out.count(selectors.len());
    for selector in selectors {
        match selector {
            Selector::Any => out.u8(ANY),
            Selector::Role(role) => out.u8(ROLE).short_bytes(role.as_str().as_bytes()),
            Selector::Label(label) => out.u8(LABEL).short_bytes(label.as_str().as_bytes()),
            Selector::Member(name) => out.u8(MEMBER).short_bytes(name.as_str().as_bytes()),
        };
    }
}

/// A set of at least one; what means everybody or everything stands alone.
fn read_list<T: Ord>(
    r: &mut Reader<'_>,
    field: &'static str,
    read: impl Fn(&mut Reader<'_>, &'static str) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = r.count(field, POLICY_SELECTORS_MAX)?;
    let out_of_range = |got: usize| {
        let got = u64::try_from(got).unwrap_or(u64::MAX);
        DecodeError { field, fault: Fault::OutOfRange { got } }
    };
    if count == 0 {
        return Err(out_of_range(0));
    }
    let alone = r.rest().first() == Some(&ANY);
    if alone && count > 1 {
        return Err(out_of_range(count));
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(r, field)?);
    }
    ascending(field, &items)?;
    Ok(items)
}

fn read_selector(r: &mut Reader<'_>, field: &'static str) -> Result<Selector, DecodeError> {
    match r.u8(field)? {
        ANY => Ok(Selector::Any),
        ROLE => r.tag(field).map(Selector::Role),
        LABEL => r.tag(field).map(Selector::Label),
        MEMBER => r.name(field).map(Selector::Member),
        got => Err(DecodeError { field, fault: Fault::Unknown { got: got.into() } }),
    }
}

fn read_doing(r: &mut Reader<'_>, field: &'static str) -> Result<Doing, DecodeError> {
    match r.u8(field)? {
        ANY => Ok(Doing::Any),
        ACTION => r.tag(field).map(Doing::Action),
        got => Err(DecodeError { field, fault: Fault::Unknown { got: got.into() } }),
    }
}

/// Ascends as the variants do, so that `any` comes first in a list.
const ANY: u8 = 1;
const ROLE: u8 = 2;
const LABEL: u8 = 3;
const MEMBER: u8 = 4;
const ACTION: u8 = 2;
