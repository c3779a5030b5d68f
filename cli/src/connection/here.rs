//! This machine as it sees itself: its place in the org, its tunnels, its clock.

use core::time::Duration;
use std::{fs, net::Ipv6Addr};

use control::local::{Answer, Member, Request, State, Status};
use diagnosis::{Check, Stage, date};
use identity::Code;

use super::{known::Known, walk::now_unix_s};
use crate::{duration, failure::Failure, local::Daemon, place::Places};

pub(crate) fn checks(places: &Places, known: &Known) -> Vec<Check> {
    let mut checks = of_musterd(places);
    checks.push(clock(known));
    checks
}

fn of_musterd(places: &Places) -> Vec<Check> {
    let asked = Daemon::connect(&places.socket).and_then(|mut daemon| {
        let status = daemon.ask(&Request::Status {})?;
        let members = daemon.ask(&Request::Members {});
        Ok((status, members))
    });
    match asked {
        Ok((Answer::Status(status), members)) => {
            let members = match members {
                Ok(Answer::Members(members)) => members,
                Ok(_) | Err(_) => Vec::new(),
            };
            let tunnels = match status.state {
                State::Ready | State::Alone => tunnels(&status, &members),
                State::IdentityUnavailable | State::NotEnrolled | State::NotMember => {
                    Check::skip(Stage::WireGuard, "only members have tunnels")
                }
            };
            vec![membership(&status), tunnels]
        }
        Ok(_) => without(places, &crate::local::unexpected()),
        Err(failure) => without(places, &failure),
    }
}

fn without(places: &Places, failure: &Failure) -> Vec<Check> {
    let joined = ["keys", "store"].iter().any(|dir| places.state.join(dir).exists());
    let membership = if joined || failure.code() == Code::NotPermitted {
        Check::warn(Stage::Membership, failure.code(), failure.seen())
    } else {
        Check::skip(Stage::Membership, "this machine has not joined")
    };
    vec![membership, Check::skip(Stage::WireGuard, "no musterd to ask")]
}

fn membership(status: &Status) -> Check {
    let problem = status.problems.first();
    let seen = problem.map_or("", |problem| problem.detail.as_str());
    match status.state {
        State::Ready | State::Alone => {
            let name = status.node.as_ref().map_or("this machine", |node| node.name.as_str());
            let org = status.org.as_ref().map_or_else(String::new, |org| {
                format!(" of {}, {} members, settings {}", org.name.0, org.members, org.settings)
            });
            Check::ok(Stage::Membership, format!("{name} is a member{org}"))
        }
        State::NotEnrolled => Check::skip(Stage::Membership, "this machine has not joined"),
        State::NotMember => {
            Check::fail(Stage::Membership, problem.map_or(Code::Revoked, |problem| problem.code.0), seen)
        }
        State::IdentityUnavailable => {
            Check::fail(Stage::Membership, problem.map_or(Code::NotEnrolled, |problem| problem.code.0), seen)
        }
    }
}

fn tunnels(status: &Status, members: &[Member]) -> Check {
    let Some(node) = &status.node else { return Check::skip(Stage::WireGuard, "no address of its own") };
    let Some(interface) = interface_of(&node.address) else {
        let seen = format!("no interface has this machine's address {}", node.address);
        return Check::fail(Stage::WireGuard, Code::TunUnavailable, seen);
    };
    let others: Vec<_> = members.iter().filter(|member| !member.this).collect();
    let linked = others.iter().filter(|member| member.linked).count();
    let last = others.iter().filter_map(|member| member.heard_ms_ago).min();
    let links = format!("links to {linked} of {} other members, made when used", others.len());
    let seen = format!("{} on {interface}, {links}", node.address);
    match last {
        None if others.is_empty() => Check::ok(Stage::WireGuard, seen),
        None => Check::warn(Stage::WireGuard, Code::NoTunnel, seen),
        Some(ms) => {
            let ago = duration::short(Duration::from_millis(ms));
            Check::ok(Stage::WireGuard, format!("{seen}, the last heard {ago} ago"))
        }
    }
}

/// The interface that has an address, by the kernel's list.
pub(crate) fn interface_of(address: &Ipv6Addr) -> Option<String> {
    let digits: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    // Below /proc/self: muster-diagnose@.service has a /proc of processes alone, without /proc/net.
    let list = fs::read_to_string("/proc/self/net/if_inet6").ok()?;
    let line = list.lines().find(|line| line.starts_with(&digits))?;
    line.split_whitespace().last().map(str::to_owned)
}

/// No CA of the org was made after now.
fn clock(known: &Known) -> Check {
    let now = now_unix_s();
    let anchors = known.anchors.iter().flat_map(|bundle| bundle.certificates());
    let first = anchors.map(|anchor| anchor.not_before_unix_s()).min();
    match first {
        Some(first) if now < first => {
            let seen = format!("{}, and the org's first CA is of {}", date(now), date(first));
            Check::fail(Stage::Clock, Code::ClockImplausible, seen)
        }
        Some(_) | None => Check::ok(Stage::Clock, date(now)),
    }
}
