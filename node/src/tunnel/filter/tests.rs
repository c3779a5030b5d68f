use std::net::Ipv6Addr;

use super::*;
use crate::tunnel::packet::build;

const US: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const AUTH: u16 = 4714;

fn filter(allow: &[&str]) -> Filter {
    Filter::new(AUTH, allow.iter().map(|text| text.parse().unwrap()).collect())
}

fn inbound(filter: &mut Filter, gate: Gate, bytes: &[u8], now: Instant) -> Verdict {
    filter.inbound(gate, &Packet::parse(bytes).unwrap(), now)
}

fn outbound(filter: &mut Filter, gate: Gate, bytes: &[u8], now: Instant) -> Verdict {
    filter.outbound(gate, &Packet::parse(bytes).unwrap(), now)
}

#[test]
fn allow_entries_have_one_spelling() {
    for text in ["tcp/22", "udp/53", "all"] {
        assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
    }
    for text in
        ["", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+22", "TCP/22", "tcp/22 ", "sctp/1", "ALL", "/22"]
    {
        assert_eq!(text.parse::<Allow>(), Err(AllowError), "{text:?}");
    }
}

#[test]
fn a_closed_gate_passes_only_conn_auth_to_our_port() {
    let (mut filter, now) = (filter(&["all"]), Instant::now());
    let mut come = |bytes: &[u8]| inbound(&mut filter, Gate::Closed, bytes, now);
    assert_eq!(come(&build::syn((PEER, 40_000), (US, AUTH))), Verdict::Pass);
    assert_eq!(come(&build::ack((PEER, 40_000), (US, AUTH))), Verdict::Pass);
    assert_eq!(come(&build::syn((PEER, 40_000), (US, 22))), Verdict::GateClosed);
    assert_eq!(come(&build::udp((PEER, 40_000), (US, AUTH))), Verdict::GateClosed);
    assert_eq!(come(&build::echo(PEER, US, false, 1)), Verdict::GateClosed);
    let error = build::unreachable(PEER, US, &build::syn((US, 5), (PEER, AUTH)));
    assert_eq!(come(&error), Verdict::GateClosed);
}

#[test]
fn a_closed_gate_lets_our_listener_answer_but_not_open() {
    let (mut filter, now) = (filter(&["all"]), Instant::now());
    let mut go = |bytes: &[u8]| outbound(&mut filter, Gate::Closed, bytes, now);
    assert_eq!(go(&build::syn_ack((US, AUTH), (PEER, 40_000))), Verdict::Pass);
    assert_eq!(go(&build::syn((US, AUTH), (PEER, 22))), Verdict::GateClosed);
    assert_eq!(go(&build::syn((US, 40_000), (PEER, 22))), Verdict::GateClosed);
    assert_eq!(go(&build::udp((US, AUTH), (PEER, 1))), Verdict::GateClosed);
    assert_eq!(go(&build::echo(US, PEER, false, 1)), Verdict::GateClosed);
}

#[test]
fn a_closed_gate_passes_the_flow_that_we_opened_and_no_other() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    let answer = build::syn_ack((PEER, AUTH), (US, 40_000));
    assert_eq!(inbound(&mut filter, Gate::Closed, &answer, now), Verdict::GateClosed);
    let before = build::ack((US, 40_000), (PEER, AUTH));
    assert_eq!(outbound(&mut filter, Gate::Closed, &before, now), Verdict::GateClosed);
    let open = build::syn((US, 40_000), (PEER, AUTH));
    assert_eq!(outbound(&mut filter, Gate::Closed, &open, now), Verdict::Pass);
    assert_eq!(inbound(&mut filter, Gate::Closed, &answer, now), Verdict::Pass);
    assert_eq!(outbound(&mut filter, Gate::Closed, &before, now), Verdict::Pass);
    let other_port = build::syn_ack((PEER, AUTH), (US, 40_001));
    assert_eq!(inbound(&mut filter, Gate::Closed, &other_port, now), Verdict::GateClosed);
    let their_syn = build::syn((PEER, AUTH), (US, 40_000));
    assert_eq!(inbound(&mut filter, Gate::Closed, &their_syn, now), Verdict::GateClosed);
}

#[test]
fn pending_flows_are_bounded() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    for port in 1..=u16::try_from(PENDING_FLOWS_MAX).unwrap() {
        assert_eq!(
            outbound(&mut filter, Gate::Closed, &build::syn((US, port), (PEER, AUTH)), now),
            Verdict::Pass
        );
    }
    let one_more = build::syn((US, 60_000), (PEER, AUTH));
    assert_eq!(outbound(&mut filter, Gate::Closed, &one_more, now), Verdict::FlowsFull);
    filter.forget(PEER);
    assert_eq!(filter.flows(), 0);
    assert_eq!(outbound(&mut filter, Gate::Closed, &one_more, now), Verdict::Pass);
}

#[test]
fn an_open_gate_keeps_the_flow_it_was_opened_over() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    outbound(&mut filter, Gate::Closed, &build::syn((US, 40_000), (PEER, AUTH)), now);
    filter.opened(PEER);
    assert_eq!(inbound(&mut filter, Gate::Open, &build::ack((PEER, AUTH), (US, 40_000)), now), Verdict::Pass);
}

#[test]
fn a_gate_that_closes_passes_conn_auth_alone_and_the_rest_goes_on_when_it_opens_again() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    for port in [AUTH, 80] {
        outbound(&mut filter, Gate::Open, &build::syn((US, 40_000), (PEER, port)), now);
    }
    filter.closed(PEER);
    let answer = |port| build::syn_ack((PEER, port), (US, 40_000));
    assert_eq!(inbound(&mut filter, Gate::Closed, &answer(AUTH), now), Verdict::Pass);
    assert_eq!(inbound(&mut filter, Gate::Closed, &answer(80), now), Verdict::GateClosed);
    filter.opened(PEER);
    assert_eq!(inbound(&mut filter, Gate::Open, &answer(80), now), Verdict::Pass);
    assert_eq!(inbound(&mut filter, Gate::Open, &answer(AUTH), now), Verdict::Pass);
    filter.forget(PEER);
    assert_eq!(inbound(&mut filter, Gate::Open, &answer(80), now), Verdict::NotAllowed);
}

#[test]
fn an_open_gate_admits_conn_auth_echo_and_what_is_configured() {
    let (mut filter, now) = (filter(&["tcp/22", "udp/53"]), Instant::now());
    let mut come = |bytes: &[u8]| inbound(&mut filter, Gate::Open, bytes, now);
    assert_eq!(come(&build::syn((PEER, 40_000), (US, AUTH))), Verdict::Pass);
    assert_eq!(come(&build::echo(PEER, US, false, 1)), Verdict::Pass);
    assert_eq!(come(&build::syn((PEER, 40_000), (US, 22))), Verdict::Pass);
    assert_eq!(come(&build::udp((PEER, 40_000), (US, 53))), Verdict::Pass);
    assert_eq!(come(&build::udp((PEER, 40_000), (US, 22))), Verdict::NotAllowed);
    assert_eq!(come(&build::syn((PEER, 40_000), (US, 53))), Verdict::NotAllowed);
    assert_eq!(come(&build::echo(PEER, US, true, 1)), Verdict::NotAllowed);
}

#[test]
fn an_open_gate_returns_the_answers_to_what_we_asked() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    for (ask, answer) in [
        (build::syn((US, 40_000), (PEER, 80)), build::syn_ack((PEER, 80), (US, 40_000))),
        (build::udp((US, 40_000), (PEER, 53)), build::udp((PEER, 53), (US, 40_000))),
        (build::echo(US, PEER, false, 9), build::echo(PEER, US, true, 9)),
    ] {
        assert_eq!(inbound(&mut filter, Gate::Open, &answer, now), Verdict::NotAllowed);
        assert_eq!(outbound(&mut filter, Gate::Open, &ask, now), Verdict::Pass);
        assert_eq!(inbound(&mut filter, Gate::Open, &answer, now), Verdict::Pass);
    }
    let open_back = build::syn((PEER, 80), (US, 40_000));
    assert_eq!(inbound(&mut filter, Gate::Open, &open_back, now), Verdict::NotAllowed);
}

#[test]
fn answers_of_an_open_service_take_no_place_in_the_flow_table() {
    let (mut filter, now) = (filter(&["tcp/22"]), Instant::now());
    let answer = build::syn_ack((US, 22), (PEER, 40_000));
    assert_eq!(outbound(&mut filter, Gate::Open, &answer, now), Verdict::Pass);
    assert_eq!(filter.flows(), 0);
}

#[test]
fn an_error_passes_only_about_a_flow_of_ours() {
    let (mut filter, now) = (filter(&[]), Instant::now());
    let ask = build::udp((US, 40_000), (PEER, 53));
    let error = build::unreachable(PEER, US, &ask);
    assert_eq!(inbound(&mut filter, Gate::Open, &error, now), Verdict::NotAllowed);
    outbound(&mut filter, Gate::Open, &ask, now);
    assert_eq!(inbound(&mut filter, Gate::Open, &error, now), Verdict::Pass);
    let about_another = build::unreachable(PEER, US, &build::udp((PEER, 40_000), (PEER, 53)));
    assert_eq!(inbound(&mut filter, Gate::Open, &about_another, now), Verdict::NotAllowed);
}

#[test]
fn all_opens_every_port_but_only_behind_an_open_gate() {
    let (mut filter, now) = (filter(&["all"]), Instant::now());
    let knock = build::syn((PEER, 40_000), (US, 8080));
    assert_eq!(inbound(&mut filter, Gate::Open, &knock, now), Verdict::Pass);
    assert_eq!(inbound(&mut filter, Gate::Closed, &knock, now), Verdict::GateClosed);
}

#[test]
fn probes_pass_at_any_gate_to_and_from_those_who_are_probed_and_nobody_else() {
    let (mut filter, now) = (filter(&["all"]), Instant::now());
    let (come, go) = (build::udp((PEER, AUTH), (US, AUTH)), build::udp((US, AUTH), (PEER, AUTH)));
    for gate in [Gate::Closed, Gate::Open] {
        assert_eq!(inbound(&mut filter, gate, &come, now), Verdict::NotAllowed);
        assert_eq!(outbound(&mut filter, gate, &go, now), Verdict::NotAllowed);
    }
    filter.set_probed(&[PEER]);
    for gate in [Gate::Closed, Gate::Open] {
        assert_eq!(inbound(&mut filter, gate, &come, now), Verdict::Pass);
        assert_eq!(outbound(&mut filter, gate, &go, now), Verdict::Pass);
    }
    for (source, destination) in [(AUTH, 22), (40_000, AUTH), (22, AUTH)] {
        let other = build::udp((PEER, source), (US, destination));
        assert_eq!(inbound(&mut filter, Gate::Closed, &other, now), Verdict::GateClosed);
    }
    filter.forget(PEER);
    assert_eq!(inbound(&mut filter, Gate::Open, &come, now), Verdict::NotAllowed);
    filter.set_probed(&[]);
    assert_eq!(outbound(&mut filter, Gate::Open, &go, now), Verdict::NotAllowed);
}

#[test]
fn who_floods_with_probes_gets_a_bounded_number_through_and_others_keep_theirs() {
    let (mut filter, start) = (filter(&[]), Instant::now());
    let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
    filter.set_probed(&[PEER, other]);
    let mut passed = [0, 0];
    for ms in 0..10_000 {
        let now = start + Duration::from_millis(ms);
        for _ in 0..5 {
            let flood = build::udp((PEER, AUTH), (US, AUTH));
            passed[0] += usize::from(inbound(&mut filter, Gate::Closed, &flood, now) == Verdict::Pass);
        }
        if ms % 100 == 0 {
            let honest = build::udp((other, AUTH), (US, AUTH));
            passed[1] += usize::from(inbound(&mut filter, Gate::Closed, &honest, now) == Verdict::Pass);
        }
        // Being told again who is probed gives nobody a new start.
        filter.set_probed(&[PEER, other]);
    }
    let most = SWIM_BURST as usize + 11 * SWIM_DATAGRAMS_PER_S as usize;
    assert!((300..=most).contains(&passed[0]), "{passed:?}");
    assert_eq!(passed[1], 100);
}
