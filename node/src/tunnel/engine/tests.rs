use blake2::{
    Blake2s256, Blake2sMac, Digest as _,
    digest::{Mac, consts::U16},
};
use boringtun::noise::TunnResult;
use identity::limits::{DIAL_DEADLINE_MS, LINK_QUIET_MS, TUNNEL_QUEUE_PACKETS_MAX};

use super::{receive::COOKIE_REPLY_BYTES, *};
use crate::tunnel::{output::Drops, packet::build};

const AUTH: u16 = 4714;
const PREFIX: [u16; 3] = [0xfd12, 0x3456, 0x789a];

fn address(last: u16) -> Ipv6Addr {
    let [a, b, c] = PREFIX;
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 51_820))
}

fn counter(start: u32) -> Box<dyn FnMut() -> u32 + Send> {
    let mut next = start;
    Box::new(move || {
        next = next.wrapping_add(0x100);
        next
    })
}

/// One node of a network made of memory.
struct Node {
    engine: Engine,
    number: u8,
}

impl Node {
    fn new(number: u8, allow: &[&str]) -> Self {
        let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
        let config = EngineConfig { address: address(number.into()), auth_port: AUTH, allow };
        let draw = counter(u32::from(number) << 24);
        Self { engine: Engine::new(config, &key(number), draw, Instant::now()).unwrap(), number }
    }

    fn as_peer(number: u8) -> TunnelPeer {
        TunnelPeer {
            wireguard: key(number).public().to_wireguard(),
            earlier: vec![],
            address: address(number.into()),
            endpoints: vec![place(number)],
        }
    }

    fn knows(&mut self, numbers: &[u8]) {
        let left_out = self.engine.set_peers(numbers.iter().copied().map(Self::as_peer).collect());
        assert_eq!(left_out, []);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.engine.poll_output()).collect()
    }

    fn datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent = |output| match output {
            Output::Datagram { to, bytes } => Some((to, bytes)),
            Output::Packet(_) | Output::Event(_) => None,
        };
        self.outputs().into_iter().filter_map(sent).collect()
    }

    fn drops(&self) -> Drops {
        self.engine.stats(Instant::now()).drops
    }

    fn tunnels(&self) -> usize {
        self.engine.stats(Instant::now()).tunnels
    }
}

fn wireguard(number: u8) -> WireGuardKey {
    key(number).public().to_wireguard()
}

/// Carries datagrams between the nodes until nothing moves; returns what came out of each.
fn settle<const N: usize>(mut nodes: [&mut Node; N]) -> [(Vec<Vec<u8>>, Vec<TunnelEvent>); N] {
    let mut came = std::array::from_fn(|_| (Vec::new(), Vec::new()));
    loop {
        let mut moved = Vec::new();
        for (node, (packets, events)) in nodes.iter_mut().zip(&mut came) {
            for output in node.outputs() {
                match output {
                    Output::Datagram { to, bytes } => moved.push((place(node.number), to, bytes)),
                    Output::Packet(bytes) => packets.push(bytes),
                    Output::Event(event) => events.push(event),
                }
            }
        }
        if moved.is_empty() {
            return came;
        }
        for (from, to, bytes) in moved {
            for node in &mut nodes {
                if place(node.number) == to {
                    node.engine.handle_datagram(from, &bytes, Instant::now());
                }
            }
        }
    }
}

fn knock(from: u8, to: u8) -> Vec<u8> {
    build::syn((address(from.into()), 40_000), (address(to.into()), AUTH))
}

fn ping(from: u8, to: u8) -> Vec<u8> {
    build::echo(address(from.into()), address(to.into()), false, 7)
}

/// Two nodes that know each other, with a session and closed gates.
fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, [knock(1, 2)]);
    (a, b)
}

/// What `node` sends for `packet`, as datagrams.
fn sealed(node: &mut Node, packet: &[u8]) -> Vec<Vec<u8>> {
    node.engine.handle_packet(packet, Instant::now());
    node.datagrams().into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn a_handshake_is_made_and_packets_pass_both_ways() {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    assert_eq!(a.engine.channel_of(address(2)), None);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    let [(_, at_a), (packets, at_b)] = settle([&mut a, &mut b]);
    assert_eq!(packets, [knock(1, 2)]);
    assert_eq!(at_a, [TunnelEvent::Handshake { wireguard: wireguard(2), endpoint: place(2) }]);
    assert_eq!(at_b, [TunnelEvent::Handshake { wireguard: wireguard(1), endpoint: place(1) }]);
    assert_eq!(a.engine.channel_of(address(2)), Some(wireguard(2)));
    assert_eq!(b.engine.channel_of(address(1)), Some(wireguard(1)));

    let answer = build::syn_ack((address(2), AUTH), (address(1), 40_000));
    b.engine.handle_packet(&answer, Instant::now());
    let [(packets, _), _] = settle([&mut a, &mut b]);
    assert_eq!(packets, [answer]);
}

#[test]
fn handshakes_that_cross_leave_a_session_both_ways() {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    b.engine.handle_packet(&knock(2, 1), Instant::now());
    let [(at_a, _), (at_b, _)] = settle([&mut a, &mut b]);
    assert_eq!((at_a, at_b), (vec![knock(2, 1)], vec![knock(1, 2)]));
    for (from, to, other) in [(1, 2, 0), (2, 1, 1)] {
        let packet = knock(from, to);
        [&mut a, &mut b][other].engine.handle_packet(&packet, Instant::now());
        let came = settle([&mut a, &mut b]);
        assert_eq!(came[1 - other].0, [packet]);
    }
}

#[test]
fn an_open_gate_carries_echo() {
    let (mut a, mut b) = pair();
    for node in [&mut a, &mut b] {
        let other = wireguard(3 - node.number);
        assert!(node.engine.open_gate(&other, Instant::now()));
    }
    a.engine.handle_packet(&ping(1, 2), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, [ping(1, 2)]);
    let reply = build::echo(address(2), address(1), true, 7);
    b.engine.handle_packet(&reply, Instant::now());
    let [(packets, _), _] = settle([&mut a, &mut b]);
    assert_eq!(packets, [reply]);
}

#[test]
fn an_unknown_key_is_dropped_before_any_state() {
    let (mut stranger, mut node) = (Node::new(3, &[]), Node::new(1, &[]));
    node.knows(&[2]);
    stranger.knows(&[1]);
    for _ in 0..3 {
        stranger.engine.handle_packet(&knock(3, 1), Instant::now());
    }
    for datagram in stranger.datagrams() {
        node.engine.handle_datagram(place(3), &datagram.1, Instant::now());
    }
    assert_eq!(node.outputs(), []);
    assert_eq!((node.tunnels(), node.drops().unknown_key), (0, 1));
}

#[test]
fn naming_a_members_key_without_having_it_leaves_no_state() {
    let (mut member, mut node) = (Node::new(2, &[]), Node::new(1, &[]));
    node.knows(&[2]);
    member.knows(&[1]);
    let mut initiation = sealed(&mut member, &knock(2, 1)).remove(0);
    // The timestamp is sealed under the key that only the member has; the outer MAC needs no secret.
    initiation[90] ^= 1;
    resign_mac1(&mut initiation, &wireguard(1).0);
    node.engine.handle_datagram(place(3), &initiation, Instant::now());
    assert_eq!(node.outputs(), []);
    assert_eq!((node.tunnels(), node.drops().handshake), (0, 1));
}

/// Anyone can make a handshake message's first MAC: its key is a hash of a public key.
fn resign_mac1(initiation: &mut [u8], public: &[u8; 32]) {
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(public).finalize();
    let mac =
        <Blake2sMac<U16> as Mac>::new_from_slice(&key).unwrap().chain_update(&initiation[..116]).finalize();
    initiation[116..132].copy_from_slice(&mac.into_bytes());
}

#[test]
fn a_removed_peer_has_lost_everything_at_once() {
    let (mut a, mut b) = pair();
    a.engine.open_gate(&wireguard(2), Instant::now());
    b.engine.open_gate(&wireguard(1), Instant::now());
    let before = sealed(&mut a, &ping(1, 2));
    b.knows(&[]);
    assert_eq!(b.engine.channel_of(address(1)), None);
    assert_eq!((b.tunnels(), b.engine.stats(Instant::now()).flows), (0, 0));
    for datagram in before {
        b.engine.handle_datagram(place(1), &datagram, Instant::now());
    }
    assert_eq!(b.outputs(), []);
    assert_eq!(b.drops().unknown_index, 1);
    b.engine.handle_packet(&ping(2, 1), Instant::now());
    assert_eq!(b.outputs(), []);
    assert!(!b.engine.open_gate(&wireguard(1), Instant::now()));

    // Its next handshake meets silence, and being admitted again begins with a closed gate.
    let mut again = Node::new(1, &[]);
    again.knows(&[2]);
    let initiation = sealed(&mut again, &knock(1, 2));
    b.engine.handle_datagram(place(1), &initiation[0], Instant::now());
    assert_eq!((b.outputs().len(), b.tunnels(), b.drops().unknown_key), (0, 0, 1));
    b.knows(&[1]);
    assert!(!b.engine.stats(Instant::now()).peers[0].gate_open);
}

#[test]
fn the_other_peers_keep_their_tunnels_when_one_is_removed() {
    let (mut a, mut b, mut c) = (Node::new(1, &[]), Node::new(2, &[]), Node::new(3, &[]));
    b.knows(&[1, 3]);
    a.knows(&[2]);
    c.knows(&[2]);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    c.engine.handle_packet(&knock(3, 2), Instant::now());
    settle([&mut a, &mut b, &mut c]);
    b.engine.open_gate(&wireguard(3), Instant::now());
    b.knows(&[3]);
    assert_eq!(b.engine.channel_of(address(1)), None);
    assert_eq!(b.engine.channel_of(address(3)), Some(wireguard(3)));
    c.engine.handle_packet(&knock(3, 2), Instant::now());
    let [_, (packets, _), _] = settle([&mut a, &mut b, &mut c]);
    assert_eq!(packets, [knock(3, 2)]);
    assert!(b.engine.stats(Instant::now()).peers[0].gate_open);
}

#[test]
fn a_spoofed_inner_source_is_dropped() {
    let (mut a, mut b) = pair();
    b.knows(&[1, 3]);
    a.engine.open_gate(&wireguard(2), Instant::now());
    b.engine.open_gate(&wireguard(1), Instant::now());
    // Node 1 claims node 3's address: its own engine would not send this, so it gets that address.
    a.engine.address = address(3);
    a.engine.handle_packet(&knock(3, 2), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!((packets.len(), b.drops().foreign_address), (0, 1));
}

#[test]
fn a_packet_for_another_address_is_not_forwarded() {
    let (mut a, mut b) = pair();
    b.knows(&[1, 3]);
    a.engine.set_peers(vec![TunnelPeer { address: address(3), ..Node::as_peer(2) }]);
    a.engine.handle_packet(&knock(1, 3), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!((packets.len(), b.drops().foreign_address), (0, 1));
}

#[test]
fn inner_ipv4_is_dropped() {
    let (mut a, mut b) = pair();
    b.engine.open_gate(&wireguard(1), Instant::now());
    let mut ipv4 = vec![0; 28];
    ipv4[0] = 0x45;
    ipv4[3] = 28;
    let tunnel = a.engine.peers.get_mut(&wireguard(2)).unwrap().tunnel.as_mut().unwrap();
    let mut buffer = vec![0; 2048];
    let TunnResult::WriteToNetwork(datagram) = tunnel.tunn.encapsulate(&ipv4, &mut buffer) else { panic!() };
    b.engine.handle_datagram(place(1), datagram, Instant::now());
    assert_eq!((b.outputs().len(), b.drops().unreadable_in), (0, 1));
}

#[test]
fn a_closed_gate_passes_conn_auth_only_and_says_who_is_wanted() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    a.engine.handle_packet(&ping(1, 2), now);
    a.engine.handle_packet(&ping(1, 2), now);
    assert_eq!(a.outputs(), [Output::Event(TunnelEvent::WantLink(wireguard(2)))]);
    a.engine.handle_packet(&ping(1, 2), now + WANT_LINK_INTERVAL);
    assert_eq!(a.outputs(), [Output::Event(TunnelEvent::WantLink(wireguard(2)))]);

    // One end alone cannot open it: what an open sender sends, a closed receiver drops.
    a.engine.open_gate(&wireguard(2), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!((packets.len(), b.drops().gate_in), (0, 3));
    b.engine.open_gate(&wireguard(1), Instant::now());
    a.engine.handle_packet(&ping(1, 2), now);
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, [ping(1, 2)]);
    b.engine.close_gate(&wireguard(1));
    a.engine.handle_packet(&ping(1, 2), now);
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, Vec::<Vec<u8>>::new());
}

#[test]
fn what_was_sent_at_a_closed_gate_waits_for_a_link_up_to_a_bound() {
    let (mut a, mut b) = pair();
    for _ in 0..TUNNEL_QUEUE_PACKETS_MAX + 5 {
        a.engine.handle_packet(&ping(1, 2), Instant::now());
    }
    assert_eq!((a.datagrams().len(), a.drops().gate_out), (0, 5));
    b.engine.open_gate(&wireguard(1), Instant::now());
    a.engine.open_gate(&wireguard(2), Instant::now());
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, vec![ping(1, 2); TUNNEL_QUEUE_PACKETS_MAX]);
}

#[test]
fn what_no_link_comes_for_is_asked_for_again_and_then_given_up() {
    let (mut a, _b) = pair();
    let start = Instant::now();
    a.engine.handle_packet(&ping(1, 2), start);
    let wants = [Output::Event(TunnelEvent::WantLink(wireguard(2)))];
    assert_eq!(a.outputs(), wants);
    let patience = Duration::from_millis(DIAL_DEADLINE_MS);
    a.engine.handle_timeout(start + patience / 2);
    assert_eq!(a.outputs(), wants);
    assert_eq!(a.drops().gate_out, 0);
    a.engine.handle_timeout(start + patience);
    assert_eq!((a.outputs(), a.drops().gate_out), (vec![], 1));
    a.engine.open_gate(&wireguard(2), start + patience);
    assert_eq!(a.outputs(), []);
}

#[test]
fn a_removed_peer_gets_nothing_that_waited_for_it() {
    let (mut a, _b) = pair();
    a.engine.handle_packet(&ping(1, 2), Instant::now());
    a.knows(&[]);
    a.knows(&[2]);
    a.outputs();
    a.engine.open_gate(&wireguard(2), Instant::now());
    assert_eq!(a.outputs(), []);
}

#[test]
fn a_link_is_quiet_when_only_conn_auth_and_probes_passed_for_long() {
    let (mut a, mut b) = pair();
    let (start, quiet) = (Instant::now(), Duration::from_millis(LINK_QUIET_MS));
    let probe = build::udp((address(1), AUTH), (address(2), AUTH));
    for (node, other) in [(&mut a, 2), (&mut b, 1)] {
        node.engine.open_gate(&wireguard(other), start);
        node.engine.set_probed(&[address(other.into())]);
    }
    // The first of these uses the link, the others need none.
    let used = start + quiet / 2;
    for (packet, at) in [(ping(1, 2), used), (knock(1, 2), used + quiet / 2), (probe, used + quiet / 2)] {
        a.engine.handle_packet(&packet, at);
        for (_, datagram) in a.datagrams() {
            b.engine.handle_datagram(place(1), &datagram, at);
        }
        assert_eq!(b.outputs(), [Output::Packet(packet)]);
    }
    for (node, other) in [(&mut a, 2), (&mut b, 1)] {
        let mut quiets = |at: Instant| {
            node.engine.handle_timeout(at);
            node.outputs().contains(&Output::Event(TunnelEvent::QuietLink(wireguard(other))))
        };
        assert!(!quiets(start + quiet), "it was used since");
        assert!(quiets(used + quiet));
        assert!(quiets(used + quiet + PURGE), "told again, as long as it is open");
        node.engine.close_gate(&wireguard(other));
        node.engine.handle_timeout(used + quiet + PURGE * 2);
        assert!(!node.outputs().iter().any(|output| matches!(output, Output::Event(_))));
    }
}

#[test]
fn no_tunnel_is_made_for_what_a_closed_gate_drops() {
    let mut a = Node::new(1, &[]);
    a.knows(&[2]);
    a.engine.handle_packet(&ping(1, 2), Instant::now());
    assert_eq!((a.tunnels(), a.datagrams().len()), (0, 0));
}

#[test]
fn packets_wait_for_a_session_up_to_a_bound() {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    for _ in 0..TUNNEL_QUEUE_PACKETS_MAX + 5 {
        a.engine.handle_packet(&knock(1, 2), Instant::now());
    }
    assert_eq!(a.drops().queue_full, 5);
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets.len(), TUNNEL_QUEUE_PACKETS_MAX);
}

#[test]
fn a_member_without_a_known_place_costs_no_tunnel() {
    let mut a = Node::new(1, &[]);
    a.engine.set_peers(vec![TunnelPeer { endpoints: vec![], ..Node::as_peer(2) }]);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    assert_eq!((a.tunnels(), a.drops().no_endpoint), (0, 1));
}

#[test]
fn data_moves_the_endpoint_and_a_cookie_reply_does_not() {
    let (mut a, mut b) = pair();
    let endpoint = |node: &Node| node.engine.stats(Instant::now()).peers[0].endpoint;
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 9));

    // An initiation of node 1 that meets a busy node 2 is answered with a cookie, from anywhere.
    let mut fresh = Node::new(1, &[]);
    fresh.knows(&[2]);
    let initiation = sealed(&mut fresh, &knock(1, 2)).remove(0);
    let busy = RateLimiter::new(&b.engine.public, 0);
    let mut reply = [0; COOKIE_REPLY_BYTES];
    let Err(TunnResult::WriteToNetwork(cookie)) =
        busy.verify_packet(Some(place(1).ip()), &initiation, &mut reply)
    else {
        panic!("no cookie")
    };
    fresh.engine.handle_datagram(elsewhere, cookie, Instant::now());
    assert_eq!((endpoint(&fresh), fresh.drops()), (None, Drops::default()));

    for datagram in sealed(&mut a, &knock(1, 2)) {
        b.engine.handle_datagram(elsewhere, &datagram, Instant::now());
    }
    assert_eq!(endpoint(&b), Some(elsewhere));
    for datagram in sealed(&mut a, &knock(1, 2)) {
        let mut broken = datagram;
        *broken.last_mut().unwrap() ^= 1;
        b.engine.handle_datagram(place(9), &broken, Instant::now());
    }
    assert_eq!((endpoint(&b), b.drops().undecryptable), (Some(elsewhere), 1));
}

#[test]
fn a_replayed_initiation_does_not_move_the_endpoint() {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    let initiation = sealed(&mut a, &knock(1, 2)).remove(0);
    // Node 2 has forgotten every timestamp: it answers, but believes nothing yet.
    b.engine.handle_datagram(place(9), &initiation, Instant::now());
    assert_eq!(b.datagrams()[0].0, place(9));
    assert_eq!(b.engine.stats(Instant::now()).peers[0].endpoint, None);
    assert_eq!(b.engine.channel_of(address(1)), None);
}

#[test]
fn each_handshake_counts_once_and_above_the_limit_cookies_are_asked_for() {
    let (mut a, mut b) = (Node::new(1, &[]), Node::new(2, &[]));
    a.knows(&[2]);
    b.knows(&[1]);
    b.engine.limiter = Arc::new(RateLimiter::new(&b.engine.public, 2));
    for _ in 0..3 {
        let mut fresh = Node::new(1, &[]);
        fresh.knows(&[2]);
        let initiation = sealed(&mut fresh, &knock(1, 2)).remove(0);
        b.engine.handle_datagram(place(1), &initiation, Instant::now());
    }
    assert_eq!(b.drops().rate_limited, 1);
    let sizes: Vec<_> = b.datagrams().iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(sizes.last(), Some(&COOKIE_REPLY_BYTES));
}

#[test]
fn initiations_go_through_the_reported_endpoints_in_turn() {
    let mut a = Node::new(1, &[]);
    let endpoints = vec![place(11), place(12), place(13)];
    a.engine.set_peers(vec![TunnelPeer { endpoints, ..Node::as_peer(2) }]);
    let start = Instant::now();
    a.engine.handle_packet(&knock(1, 2), start);
    let mut tried: Vec<_> = a.datagrams().into_iter().map(|(to, _)| to).collect();
    for second in 1..=3 {
        a.engine.handle_timeout(start + Duration::from_secs(second));
        tried.extend(a.datagrams().into_iter().map(|(to, _)| to));
    }
    assert_eq!(tried, [place(11), place(12), place(13), place(11)]);
}

#[test]
fn a_peer_that_started_anew_is_called_again_within_seconds() {
    let (mut a, _) = pair();
    let mut b = Node::new(2, &[]);
    b.knows(&[1]);
    let now = Instant::now();
    a.engine.handle_packet(&knock(1, 2), now);
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, Vec::<Vec<u8>>::new());
    a.engine.handle_timeout(now + Duration::from_secs(3));
    settle([&mut a, &mut b]);
    a.engine.handle_packet(&knock(1, 2), now);
    let [_, (packets, _)] = settle([&mut a, &mut b]);
    assert_eq!(packets, [knock(1, 2)]);
}

#[test]
fn endpoints_inside_the_overlay_and_senseless_ones_are_left_out() {
    let mut a = Node::new(1, &[]);
    let endpoints = vec![
        SocketAddr::from((address(9), 51_820)),
        SocketAddr::from(([0, 0, 0, 0], 1)),
        SocketAddr::from(([224, 0, 0, 1], 1)),
        SocketAddr::from(([255, 255, 255, 255], 1)),
        SocketAddr::from(([192, 0, 2, 1], 0)),
    ];
    a.engine.set_peers(vec![TunnelPeer { endpoints, ..Node::as_peer(2) }]);
    a.engine.handle_packet(&knock(1, 2), Instant::now());
    assert_eq!((a.datagrams().len(), a.drops().no_endpoint), (0, 1));
}

#[test]
fn peers_that_cannot_be_are_left_out() {
    let mut a = Node::new(1, &[]);
    let outside = TunnelPeer { address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4), ..Node::as_peer(4) };
    let twice = TunnelPeer { address: address(2), ..Node::as_peer(5) };
    let peers = vec![Node::as_peer(1), Node::as_peer(2), Node::as_peer(2), outside.clone(), twice.clone()];
    let left_out = a.engine.set_peers(peers);
    assert_eq!(left_out, [Node::as_peer(1), Node::as_peer(2), outside, twice]);
    assert_eq!(a.engine.stats(Instant::now()).peers.len(), 1);
}

#[test]
fn a_datagram_from_inside_the_overlay_is_dropped() {
    let (mut a, mut b) = pair();
    for datagram in sealed(&mut a, &knock(1, 2)) {
        b.engine.handle_datagram(SocketAddr::from((address(1), 51_820)), &datagram, Instant::now());
    }
    assert_eq!((b.outputs().len(), b.drops().malformed), (0, 1));
}

#[test]
fn the_idlest_tunnel_goes_when_there_are_too_many() {
    let mut a = Node::new(1, &[]);
    a.knows(&[2, 3, 4]);
    let start = Instant::now();
    for (second, number) in [(0, 2), (1, 3), (2, 4)] {
        a.engine.handle_packet(&knock(1, number), start + Duration::from_secs(second));
    }
    a.engine.tunnels_max = 2;
    a.engine.evict_above_limit(&wireguard(4));
    assert_eq!(a.tunnels(), 2);
    assert!(a.engine.peers[&wireguard(2)].tunnel.is_none());
}

#[test]
fn garbage_is_dropped_and_never_answered() {
    let (mut a, mut b) = pair();
    let whole = sealed(&mut a, &knock(1, 2)).remove(0);
    for cut in 0..whole.len() {
        b.engine.handle_datagram(place(1), &whole[..cut], Instant::now());
    }
    for kind in 0..=255 {
        for length in [0, 4, 16, 32, 64, 92, 148, 1500] {
            let mut bytes = vec![kind; length];
            if length >= 4 {
                bytes[1..4].fill(0);
            }
            b.engine.handle_datagram(place(1), &bytes, Instant::now());
        }
    }
    assert_eq!(b.outputs(), []);
    b.engine.handle_datagram(place(1), &whole, Instant::now());
    assert_eq!(b.outputs().len(), 1);
}

#[test]
fn the_newest_key_of_a_member_that_answers_replaces_the_earlier_ones() {
    let mut engine = Node::new(1, &[]).engine;
    let now = Instant::now();
    let (newest, earlier) = (key(2).public().to_wireguard(), key(3).public().to_wireguard());
    let peer = || TunnelPeer { earlier: vec![earlier], ..Node::as_peer(2) };
    engine.set_peers(vec![TunnelPeer { wireguard: earlier, ..Node::as_peer(2) }]);
    assert_eq!(engine.set_peers(vec![peer()]), []);
    assert_eq!(engine.by_address[&address(2)], earlier, "what is in use stays so until the new one answers");
    engine.call_others(address(2), now);
    assert!(engine.peers[&newest].tunnel.is_some(), "it is called");
    engine.peers.get_mut(&newest).unwrap().established(place(2), now);
    engine.came_up(&newest);
    assert_eq!(engine.by_address[&address(2)], newest);
    assert!(!engine.peers.contains_key(&earlier));
    engine.set_peers(vec![peer()]);
    assert!(!engine.peers.contains_key(&earlier), "and never comes back");
}
