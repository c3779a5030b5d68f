//! What the musterd of this machine says, and what of it is seen from outside.

use core::time::Duration;
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use control::{
    local::{Answer, FreshnessState, Liveness, Request, State, Status},
    settings::Survey,
};
use diagnosis::Check;
use identity::Code;
use serde_json::Value;

use super::{Finding, Part, Verdict};
use crate::{
    connection::here,
    duration,
    failure::Failure,
    local::{self, Daemon},
    place::Places,
};

pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    pub(super) names: Finding,
    /// Whether it is worse than degraded.
    pub(super) down: Option<Verdict>,
}

pub(super) fn look(places: &Places, survey: Option<&Survey>) -> Seen {
    let asked = Daemon::connect(&places.socket).and_then(|mut daemon| daemon.ask(&Request::Status {}));
    match asked {
        Ok(Answer::Status(status)) => of_status(&status, survey),
        Ok(_) => without(places, &local::unexpected()),
        Err(failure) => without(places, &failure),
    }
}

fn of_status(status: &Status, survey: Option<&Survey>) -> Seen {
    let is_member = matches!(status.state, State::Ready | State::Alone);
    let down = match status.state {
        State::NotEnrolled => Some(Verdict::NotEnrolled),
        State::IdentityUnavailable | State::NotMember => Some(Verdict::Down),
        State::Ready | State::Alone => None,
    };
    let mut findings = vec![daemon(status), membership(status)];
    if is_member {
        findings.extend([interface(status), port(survey), list(status), links(status)]);
    } else {
        let rest = [Part::Interface, Part::Port, Part::List, Part::Links];
        findings.extend(rest.map(|part| Check::skip(part, "only of a member")));
    }
    Seen { findings, names: names(status, survey), down }
}

/// Whether this machine joined at all is seen from its files, by whoever may look.
fn without(places: &Places, failure: &Failure) -> Seen {
    let kept = ["keys", "handover", "store", "preboot"].iter().any(|dir| places.state.join(dir).exists());
    let readable = fs::read_dir(&places.state);
    let hidden = readable.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    let forbidden = failure.code() == Code::NotPermitted;
    let (first, down) = if forbidden {
        (Check::warn(Part::Daemon, failure.code(), failure.seen()), None)
    } else if kept || hidden {
        (Check::fail(Part::Daemon, failure.code(), failure.seen()), Some(Verdict::Down))
    } else {
        let seen = format!("nothing of an org in {}", places.state.display());
        (Check::fail(Part::Daemon, Code::NotEnrolled, seen), Some(Verdict::NotEnrolled))
    };
    let rest = [Part::Membership, Part::Interface, Part::Port, Part::List, Part::Links];
    let mut findings = vec![first];
    findings.extend(rest.map(|part| Check::skip(part, NOBODY)));
    Seen { findings, names: Check::skip(Part::Names, NOBODY), down }
}

fn daemon(status: &Status) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let up = duration::short(Duration::from_millis(status.up_ms));
    if status.version == ours {
        Check::ok(Part::Daemon, format!("answers, release {ours}, up {up}"))
    } else {
        let seen = format!("musterd is {}, muster is {ours}", status.version);
        Check::warn(Part::Daemon, Code::ReleasesDiffer, seen)
    }
}

fn membership(status: &Status) -> Finding {
    let part = Part::Membership;
    // What the list check says is not said twice.
    let problem = status.problems.iter().find(|problem| problem.code.0 != Code::ListStale);
    let told = |otherwise: Code| {
        let code = problem.map_or(otherwise, |problem| problem.code.0);
        let seen = problem.map(|problem| problem.detail.clone()).filter(|detail| !detail.is_empty());
        (code, seen.unwrap_or_else(|| code.cause().to_owned()))
    };
    match status.state {
        State::NotEnrolled => {
            let (code, seen) = told(Code::NotEnrolled);
            Check::fail(part, code, seen)
        }
        State::NotMember => {
            let (code, seen) = told(Code::Revoked);
            Check::fail(part, code, seen)
        }
        State::IdentityUnavailable => {
            let (code, seen) = told(Code::KeysMissing);
            Check::fail(part, code, seen)
        }
        State::Ready | State::Alone => {
            if let Some(problem) = problem {
                return Check::warn(part, problem.code.0, problem.detail.clone());
            }
            let name = status.node.as_ref().map_or("this machine", |node| node.name.as_str());
            let org = status.org.as_ref().map_or_else(String::new, |org| {
                let gateway = if status.gateway { " and gateway" } else { "" };
                format!("{gateway} of {}, {} members", org.name.0, org.members)
            });
            Check::ok(part, format!("{name} is a member{org}"))
        }
    }
}

fn interface(status: &Status) -> Finding {
    let part = Part::Interface;
    let Some(node) = &status.node else { return Check::skip(part, "no address of its own") };
    match here::interface_of(&node.address) {
        Some(interface) => Check::ok(part, format!("{} on {interface}", node.address)),
        None => {
            let seen = format!("no interface has this machine's address {}", node.address);
            Check::fail(part, Code::TunUnavailable, seen)
        }
    }
}

/// By the kernel's list of sockets: which program has it, it does not say to everybody.
fn port(survey: Option<&Survey>) -> Finding {
    let part = Part::Port;
    let Some(port) = setting(survey, "network.port").and_then(Value::as_u64) else {
        return Check::skip(part, "which one it is is not known");
    };
    let mut lists = ["/proc/net/udp", "/proc/net/udp6"].into_iter().map(fs::read_to_string);
    let ends = format!(":{port:04X}");
    let is_bound = |list: String| {
        let local = list.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned));
        local.into_iter().any(|address| address.ends_with(&ends))
    };
    if lists.any(|list| list.is_ok_and(is_bound)) {
        Check::ok(part, format!("UDP {port} is bound"))
    } else {
        Check::fail(part, Code::PortNotHeld, format!("no socket has UDP {port}"))
    }
}

fn list(status: &Status) -> Finding {
    let part = Part::List;
    let (Some(freshness), Some(org)) = (status.freshness, &status.org) else {
        return Check::skip(part, "there is none");
    };
    let ago = freshness.compared_ms_ago.map(|ms| duration::short(Duration::from_millis(ms)));
    let ago = ago.map_or_else(String::new, |ago| format!(", compared with another member {ago} ago"));
    let seen = format!("version {}{ago}", org.list.0.short());
    match freshness.state {
        FreshnessState::InStep => Check::ok(part, seen),
        FreshnessState::Comparing => Check::warn(
            part,
            Code::ListUncompared,
            format!("{seen}, being compared; nothing else is answered"),
        ),
        FreshnessState::Apart => {
            Check::warn(part, Code::ListUncompared, format!("{seen}, nobody is in contact"))
        }
        FreshnessState::Stale => Check::fail(part, Code::ListStale, seen),
    }
}

fn links(status: &Status) -> Finding {
    let part = Part::Links;
    let others = status.org.as_ref().map_or(0, |org| org.members.saturating_sub(1));
    if others == 0 {
        return Check::ok(part, "there is no other member");
    }
    let expected = status.neighbours.len();
    let silent: Vec<&str> = status
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.liveness != Liveness::Alive)
        .map(|neighbour| neighbour.name.as_str())
        .collect();
    let alive = expected.saturating_sub(silent.len());
    let open = status.links.linked;
    let seen = format!(
        "{alive} of {expected} neighbours answer; open to {open} of {others}, the rest when it is needed"
    );
    match (alive, silent.is_empty()) {
        (0, _) => Check::fail(part, Code::NeighboursSilent, seen),
        (_, false) => {
            Check::warn(part, Code::NeighboursSilent, format!("{seen}; silent: {}", silent.join(", ")))
        }
        (_, true) => Check::ok(part, seen),
    }
}

/// Asks for this machine's own name, as any program would.
fn names(status: &Status, survey: Option<&Survey>) -> Finding {
    let part = Part::Names;
    let at = setting(survey, "names.listen").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let Some(at) = at else { return Check::skip(part, "[names] listen is not set") };
    let (Some(node), Some(org)) = (&status.node, &status.org) else {
        return Check::skip(part, "there is no name to ask for");
    };
    let name = format!("{}.{}.internal", node.name, org.name.0);
    match answers(at, &name, node.address) {
        Ok(true) => Check::ok(part, format!("{at} answers with {name}'s address")),
        Ok(false) => Check::fail(part, Code::NamesNotAnswered, format!("{at} does not know {name}")),
        Err(error) => Check::fail(part, Code::NamesNotAnswered, format!("{at}: {error}")),
    }
}

/// Whether a question for the name's IPv6 address is answered with it.
fn answers(at: SocketAddr, name: &str, address: Ipv6Addr) -> std::io::Result<bool> {
    let mut question = vec![0x6d, 0x75, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 28, 0, 1]);
    let any = if at.is_ipv4() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    } else {
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(NAME_ANSWERED_WITHIN))?;
    socket.connect(at)?;
    socket.send(&question)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    Ok(answer.starts_with(&[0x6d, 0x75]) && answer.windows(16).any(|bytes| bytes == address.octets()))
}

fn setting<'a>(survey: Option<&'a Survey>, key: &str) -> Option<&'a Value> {
    survey?.settings.iter().find(|set| set.key == key).map(|set| &set.value)
}

const NOBODY: &str = "no musterd to ask";
const NAME_ANSWERED_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use control::{
        local::{Freshness, LinkStatus, OrgStatus},
        settings::Set,
    };
    use identity::{CharterId, Heads, Name, OrgId, RosterDigest};

    use super::*;

    fn status() -> Status {
        Status {
            version: "0.0.1".to_owned(),
            state: State::Ready,
            problems: Vec::new(),
            org: None,
            node: None,
            gateway: false,
            up_ms: 1,
            links: LinkStatus::default(),
            freshness: Some(Freshness { state: FreshnessState::Apart, compared_ms_ago: None }),
            neighbours: Vec::new(),
        }
    }

    #[test]
    fn a_musterd_of_another_release_and_a_port_that_nobody_holds_are_named() {
        assert_eq!(daemon(&status()).code, Some(Code::ReleasesDiffer));
        let port_of = |number: u16| {
            let set = Set { key: "network.port".to_owned(), value: number.into(), from: None };
            port(Some(&Survey { files: Vec::new(), settings: vec![set], problems: Vec::new() }))
        };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = socket.local_addr().unwrap().port();
        assert_eq!(port_of(number).code, None);
        assert_eq!(port_of(1).code, Some(Code::PortNotHeld));
    }

    #[test]
    fn a_list_that_nobody_compares_with_is_named_and_one_in_step_is_in_order() {
        let list_of = |state| {
            let org = OrgStatus {
                id: OrgId([1; 32]).into(),
                name: Name::parse("demo").unwrap().into(),
                settings: 1,
                settings_id: CharterId([2; 32]).into(),
                list: RosterDigest([3; 32]).into(),
                heads: Heads([4; 32]).into(),
                records: 3,
                members: 2,
                former: 0,
                forks: 0,
            };
            let freshness = Some(Freshness { state, compared_ms_ago: None });
            list(&Status { org: Some(org), freshness, ..status() }).code
        };
        assert_eq!(list_of(FreshnessState::Apart), Some(Code::ListUncompared));
        assert_eq!(list_of(FreshnessState::Comparing), Some(Code::ListUncompared));
        assert_eq!(list_of(FreshnessState::Stale), Some(Code::ListStale));
        assert_eq!(list_of(FreshnessState::InStep), None);
    }

    #[test]
    fn names_are_answered_with_the_address_that_was_asked_for_or_not_at_all() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            for address in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
                let mut question = [0; 512];
                let (length, from) = server.recv_from(&mut question).unwrap();
                assert!(question[..length].windows(5).any(|bytes| bytes == b"\x04demo"));
                server.send_to(&[&question[..length], &address.octets()].concat(), from).unwrap();
            }
        });
        assert!(answers(at, "n1.demo.internal", Ipv6Addr::LOCALHOST).unwrap());
        assert!(!answers(at, "n1.demo.internal", Ipv6Addr::LOCALHOST).unwrap());
        answering.join().unwrap();
    }
}
