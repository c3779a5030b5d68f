//! `muster status`: is it well, on one screen.

use core::time::Duration;
use std::thread;

use control::local::{
    Answer, Failed, Freshness, FreshnessState, Liveness, Neighbour, Request, State, Status,
};
use identity::Code;
use serde_json::{Value, json};

use crate::{
    args::Everywhere,
    duration,
    failure::{Failure, Outcome},
    local::{self, Daemon},
    member,
    output::{self, Format, talk},
    place::Places,
};

/// The four answers of `status --check`; the numbers are its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Healthy = 0,
    Degraded = 1,
    Down = 2,
    NotEnrolled = 3,
}

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere, check: bool) -> Outcome<u8> {
    let places = Places::find(everywhere)?;
    let status = match Daemon::connect(&places.socket).and_then(|mut d| d.ask(&Request::Status {})) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return Err(local::unexpected()),
        Err(failure) => return Ok(without_daemon(everywhere, check, &places, &failure)),
    };
    let health = health(&status);
    output::print(everywhere.format(), value(&status, health), || screen(&status, health));
    Ok(if check { health as u8 } else { 0 })
}

/// `status --watch`: the same again and again. Programs get a line for each look.
pub(crate) fn watch(everywhere: &Everywhere) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    loop {
        let asked = Daemon::connect(&places.socket).and_then(|mut daemon| daemon.ask(&Request::Status {}));
        if everywhere.format() == Format::Table {
            output::clear();
        }
        match asked {
            Ok(Answer::Status(status)) => {
                let health = health(&status);
                output::print(everywhere.format(), value(&status, health), || screen(&status, health));
            }
            Ok(_) => return Err(local::unexpected()),
            Err(failure) => {
                without_daemon(everywhere, true, &places, &failure);
            }
        }
        thread::sleep(PACE);
    }
}

pub(crate) fn health(status: &Status) -> Health {
    match status.state {
        State::NotEnrolled => Health::NotEnrolled,
        State::IdentityUnavailable | State::NotMember => Health::Down,
        State::Alone => Health::Degraded,
        State::Ready if status.problems.is_empty() => Health::Healthy,
        State::Ready => Health::Degraded,
    }
}

/// musterd does not answer: whether this machine joined at all is seen from its files.
fn without_daemon(everywhere: &Everywhere, check: bool, places: &Places, failure: &Failure) -> u8 {
    let joined = ["keys", "handover", "store", "preboot"].iter().any(|d| places.state.join(d).exists());
    let absent =
        Failure::new(Code::NotEnrolled, format_args!("nothing of an org in {}", places.state.display()));
    let (health, failure) = if joined || failure.code() == Code::NotPermitted {
        (Health::Down, failure)
    } else {
        (Health::NotEnrolled, &absent)
    };
    let problem = json!({
        "code": failure.code().to_string(),
        "title": failure.code().title(),
        "detail": failure.seen(),
        "remedy": failure.what_to_do(),
    });
    let value = json!({ "health": word(health), "problems": [problem] });
    output::print(everywhere.format(), value, || format!("{}\n", word(health)));
    talk(failure.text().trim_end());
    if check { health as u8 } else { failure.code().exit_status() }
}

fn value(status: &Status, health: Health) -> Value {
    json!({
        "health": word(health),
        "state": state_word(status.state),
        "problems": status.problems.iter().map(problem).collect::<Vec<_>>(),
        "org": status.org.as_ref().map(|org| json!({
            "id": org.id.to_string(),
            "name": org.name.to_string(),
            "settings": org.settings,
            "list_version": org.list.to_string(),
            "members": org.members,
            "former_members": org.former,
            "records": org.records,
            "forks": org.forks,
        })),
        "node": status.node.as_ref().map(member::value),
        "gateway": status.gateway,
        "release": status.version,
        "up_ms": status.up_ms,
        "links": {
            "up": status.links.linked,
            "sessions": status.links.sessions,
            "refused": status.links.refused,
            "received_bytes": status.links.received,
            "sent_bytes": status.links.sent,
        },
        "neighbours": status.neighbours.iter().map(|n| json!({
            "name": n.name,
            "liveness": member::answers_word(n.liveness),
            "last_contact_ms_ago": n.heard_ms_ago,
        })).collect::<Vec<_>>(),
        "list": status.freshness.map(|list| json!({
            "state": freshness_word(list.state),
            "compared_ms_ago": list.compared_ms_ago,
        })),
    })
}

fn problem(problem: &Failed) -> Value {
    json!({
        "code": problem.code.to_string(),
        "title": problem.code.0.title(),
        "detail": problem.detail,
        "remedy": problem.code.0.remedy(),
    })
}

fn screen(status: &Status, health: Health) -> String {
    let mut rows = Vec::new();
    if let Some(node) = &status.node {
        let gateway = if status.gateway { ", gateway" } else { "" };
        rows.push([
            "this machine".to_owned(),
            format!("{}, {}{gateway}, key storage {}", node.name, node.address, node.assurance),
        ]);
    }
    let note = match status.state {
        State::Alone if status.problems.iter().any(|problem| problem.code.0 == Code::Unsettled) => "",
        State::Alone => "no other member has answered",
        State::IdentityUnavailable => "this machine's keys do not open",
        State::NotMember => "this machine is no member any more",
        State::Ready | State::NotEnrolled => "",
    };
    if !note.is_empty() {
        rows.push(["attention".into(), note.to_owned()]);
    }
    if let Some(org) = &status.org {
        let others = org.members.saturating_sub(1);
        rows.push(["members".into(), format!("{} ({} former)", org.members, org.former)]);
        rows.push([
            "links".into(),
            format!(
                "open to {} of {others}, the rest when it is needed; {} sessions",
                status.links.linked, status.links.sessions
            ),
        ]);
        if !status.neighbours.is_empty() {
            rows.push(["in step with".into(), in_step_with(&status.neighbours)]);
        }
        let compared = status.freshness.map_or_else(String::new, compared);
        rows.push(["list version".into(), format!("{}{compared}", org.list.0.short())]);
        rows.push(["org settings".into(), format!("version {}", org.settings)]);
        if org.forks > 0 {
            rows.push(["forks".into(), format!("{} keys signed two changes at one place", org.forks)]);
        }
    }
    let up = duration::short(Duration::from_millis(status.up_ms));
    rows.push(["musterd".into(), format!("{}, up {up}, {} refused", status.version, status.links.refused)]);
    let name = status.org.as_ref().map_or_else(|| "no org".to_owned(), |org| org.name.to_string());
    let mut out = output::columns([&name, &coloured(health)], &rows);
    for problem in &status.problems {
        let code = problem.code.0;
        out.push_str(&format!("\n{code} {}\n", code.title()));
        if !problem.detail.is_empty() {
            out.push_str(&format!("  seen: {}\n", problem.detail));
        }
        out.push_str(&format!("  do:   {}\n", code.remedy()));
    }
    out
}

/// How many others answer, and who does not.
fn in_step_with(neighbours: &[Neighbour]) -> String {
    let alive = neighbours.iter().filter(|n| n.liveness == Liveness::Alive).count();
    let others = neighbours.iter().filter(|n| n.liveness != Liveness::Alive).map(|n| {
        let word = member::answers_word(n.liveness);
        format!(", {} {word}, last contact {}", n.name, member::contact(n.heard_ms_ago))
    });
    format!("{alive} alive{}", others.collect::<String>())
}

/// How good the list is, behind its version.
fn compared(list: Freshness) -> String {
    let ago = list.compared_ms_ago.map(|ms| duration::short(Duration::from_millis(ms)));
    match (list.state, ago) {
        (FreshnessState::Comparing, _) => {
            ", being compared with other members; nothing else is answered".into()
        }
        (FreshnessState::Stale, None) => ", not compared with another member yet".into(),
        (_, Some(ago)) => format!(", compared with another member {ago} ago"),
        (FreshnessState::InStep | FreshnessState::Apart, None) => String::new(),
    }
}

const fn freshness_word(state: FreshnessState) -> &'static str {
    match state {
        FreshnessState::InStep => "in-step",
        FreshnessState::Comparing => "comparing",
        FreshnessState::Apart => "apart",
        FreshnessState::Stale => "stale",
    }
}

fn coloured(health: Health) -> String {
    let colour = match health {
        Health::Healthy => 32,
        Health::Degraded => 33,
        Health::Down | Health::NotEnrolled => 31,
    };
    if output::colour_on_stdout() {
        format!("\u{1b}[1;{colour}m{}\u{1b}[0m", word(health))
    } else {
        word(health).to_owned()
    }
}

pub(crate) const fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Down => "down",
        Health::NotEnrolled => "not-enrolled",
    }
}

pub(crate) const fn state_word(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Alone => "alone",
        State::IdentityUnavailable => "identity-unavailable",
        State::NotEnrolled => "not-enrolled",
        State::NotMember => "not-member",
    }
}

const PACE: Duration = Duration::from_secs(2);
