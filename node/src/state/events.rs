//! What happened lately, for `muster events`. In memory only: what is for ever stands in the member list.

use std::collections::VecDeque;

use conn_auth::Reference;
use control::local::{Event, EventKind, Events as Told};
use identity::{Code, PublicKey, limits::EVENTS_KEPT_MAX};
use member_crdt::{Member, MemberState, Roster};

use super::{Now, State};
use crate::standing;

/// The newest events; refusals apart, so that no stranger drives out what happened to members.
#[derive(Debug, Default)]
pub(super) struct Events {
    happened: VecDeque<Event>,
    refused: VecDeque<Event>,
    last: u64,
    /// The version of the org's settings that was told last.
    settings: Option<u32>,
}

impl Events {
    fn add(&mut self, mut event: Event) {
        self.last += 1;
        event.number = self.last;
        let kept = if event.kind == EventKind::Refused { &mut self.refused } else { &mut self.happened };
        if kept.len() == EVENTS_KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    /// What is kept after a number; everything when that is of an earlier start.
    pub(super) fn after(&self, number: u64) -> Told {
        let number = if number > self.last { 0 } else { number };
        let both = self.happened.iter().chain(&self.refused);
        let mut events: Vec<Event> = both.filter(|event| event.number > number).cloned().collect();
        events.sort_unstable_by_key(|event| event.number);
        let kept = u64::try_from(events.len()).unwrap_or(u64::MAX);
        Told { events, last: self.last, lost: (self.last - number).saturating_sub(kept) }
    }
}

/// What is told of an event beside its kind.
#[derive(Debug, Default)]
pub(super) struct Of {
    pub(super) node: Option<PublicKey>,
    pub(super) code: Option<Code>,
    pub(super) detail: String,
    pub(super) reference: Option<Reference>,
}

impl Of {
    /// Of a machine, and nothing more.
    pub(super) fn node(node: PublicKey) -> Self {
        Self { node: Some(node), ..Self::default() }
    }
}

impl State {
    /// Something happened.
    pub(super) fn happened(&mut self, kind: EventKind, of: Of, now: Now) {
        let Of { node, code, detail, reference } = of;
        let holder = |key| self.roster.member_of(&key).or_else(|| self.roster.by_boot(&key));
        let member = node.and_then(holder).map(|member| member.node);
        let name = member.map(|member| self.name_of(&member));
        self.events.add(Event {
            number: 0,
            at_unix_ms: now.unix_ms(),
            kind,
            node: node.map(Into::into),
            name,
            code: code.map(Into::into),
            detail,
            reference: reference.map(|reference| reference.to_string()),
        });
    }

    /// Whether the org has new settings. Those that a start finds are no news.
    pub(super) fn tell_settings(&mut self, now: Now) {
        let version = self.replica.chain().head().charter().version;
        if self.events.settings.replace(version).is_some_and(|told| told != version) {
            let detail = format!("version {version}");
            self.happened(EventKind::SettingsChanged, Of { detail, ..Of::default() }, now);
        }
    }

    /// What became of members between two member lists.
    pub(super) fn tell_changes(&mut self, before: &Roster, now: Now) {
        let roster = self.roster.clone();
        if let Some(policy) = roster.policy().filter(|policy| Some(*policy) != before.policy()) {
            let detail =
                format!("version {}, by {}", policy.number, standing::admin_name(&roster, &policy.by));
            self.happened(EventKind::PolicyChanged, Of { detail, ..Of::default() }, now);
        }
        for (old, member) in roster.changed_since(before) {
            let Some(kind) = change(old, member) else { continue };
            let code = standing::refusal(&member.state);
            let detail = match code {
                Some(code) => standing::reason(&roster, &member.node, code),
                None => old.map(|old| differences(old, member)).unwrap_or_default(),
            };
            self.happened(kind, Of { node: Some(member.node), code, detail, reference: None }, now);
        }
    }
}

fn change(old: Option<&Member>, new: &Member) -> Option<EventKind> {
    let was = old.map(|old| &old.state);
    let is_same = was.is_some_and(|was| core::mem::discriminant(was) == core::mem::discriminant(&new.state));
    match (&new.state, was) {
        _ if is_same => Some(EventKind::MemberChanged).filter(|_| new.state == MemberState::Good),
        (MemberState::Good, Some(MemberState::Suspended { .. })) => Some(EventKind::MemberResumed),
        (MemberState::Good, _) => Some(EventKind::MemberJoined),
        (MemberState::Revoked { .. }, _) => Some(EventKind::MemberRevoked),
        (MemberState::Left, _) => Some(EventKind::MemberLeft),
        (MemberState::KeyConflict, _) => Some(EventKind::MemberInConflict),
        (MemberState::Suspended { .. }, _) => Some(EventKind::MemberSuspended),
        (MemberState::Pending, _) => Some(EventKind::MemberWaits),
        (MemberState::Unsettled, _) => None,
    }
}

fn differences(old: &Member, new: &Member) -> String {
    let mut said = Vec::new();
    if old.name != new.name {
        said.push(format!("it was called {}", old.name));
    }
    let list = |tags: &[identity::Tag]| {
        let words: Vec<String> = tags.iter().map(ToString::to_string).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(" ") }
    };
    for (word, old, new) in [("roles", &old.roles, &new.roles), ("labels", &old.labels, &new.labels)] {
        if old != new {
            said.push(format!("{word}: {}", list(new)));
        }
    }
    if old.node != new.node || old.earlier != new.earlier {
        said.push("its keys".to_owned());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        let (name, detail) = (None, String::new());
        Event { number: 0, at_unix_ms: 0, kind, node: None, name, code: None, detail, reference: None }
    }

    #[test]
    fn a_flood_of_refusals_drives_out_no_other_event() {
        let mut events = Events::default();
        events.add(event(EventKind::MemberJoined));
        for _ in 0..EVENTS_KEPT_MAX + 5 {
            events.add(event(EventKind::Refused));
        }
        let told = events.after(0);
        assert_eq!((told.events[0].kind, told.events[0].number), (EventKind::MemberJoined, 1));
        assert_eq!((told.events.len(), told.lost), (EVENTS_KEPT_MAX + 1, 5));
        assert!(told.events.is_sorted_by_key(|event| event.number));
    }

    #[test]
    fn who_asks_with_a_number_hears_what_came_after_it_and_of_an_earlier_start_everything() {
        let mut events = Events::default();
        for _ in 0..3 {
            events.add(event(EventKind::LinkUp));
        }
        assert_eq!(events.after(2).events.len(), 1);
        assert_eq!(events.after(3), Told { events: vec![], last: 3, lost: 0 });
        assert_eq!(events.after(99).events.len(), 3);
    }
}
