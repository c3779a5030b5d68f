//! Two tunnels between two namespaces, with the kernel's own TCP over them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use identity::{OrgId, SecretKey, WireGuardKey, overlay_address};
use lab::{Bridge, Namespace, Sandbox, SandboxError, Underlay};
use musterd::tunnel::{self, TunnelConfig, TunnelEvent, TunnelGone, TunnelHandle, TunnelPeer};
use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
};

const ORG: OrgId = OrgId([5; 32]);
const AUTH: u16 = 4714;
const SERVICE: u16 = 8080;
const PORT: u16 = 51_820;
/// For what must not arrive.
const SILENCE: Duration = Duration::from_millis(400);
/// For what must.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host with a tunnel.
struct Node {
    namespace: Namespace,
    runtime: Handle,
    tunnel: TunnelHandle,
    events: mpsc::Receiver<TunnelEvent>,
    address: Ipv6Addr,
    wireguard: WireGuardKey,
}

fn runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn nodes(sandbox: &Sandbox, allow: &[&str]) -> (Bridge, [Node; 2]) {
    let mut bridge = Bridge::new(sandbox, Underlay::Both).unwrap();
    let runtime = runtime();
    let namespaces: [Namespace; 2] = bridge.attach(&["a", "b"]).unwrap().try_into().unwrap();
    let mut seed = 0;
    let nodes = namespaces.map(|namespace| {
        seed += 1;
        let key = SecretKey::from_seed(&[seed; 32]);
        let address = overlay_address(&ORG, &key.public());
        let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
        let config =
            TunnelConfig { interface: "muster0".to_owned(), address, port: PORT, auth_port: AUTH, allow };
        let (sender, events) = mpsc::channel(16);
        let spawned = namespace.run(|| {
            let _inside = runtime.enter();
            tunnel::spawn(config, &key, sender)
        });
        let tunnel = spawned.unwrap().unwrap();
        let wireguard = key.public().to_wireguard();
        Node { namespace, runtime: runtime.clone(), tunnel, events, address, wireguard }
    });
    (bridge, nodes)
}

impl Node {
    fn ipv4(&self) -> IpAddr {
        self.namespace.address().into()
    }

    fn ipv6(&self) -> IpAddr {
        self.namespace.address6().unwrap().into()
    }

    fn at(&self, ip: IpAddr) -> TunnelPeer {
        let endpoints = vec![SocketAddr::new(ip, PORT)];
        TunnelPeer { wireguard: self.wireguard, earlier: vec![], address: self.address, endpoints }
    }

    fn knows(&self, peers: Vec<TunnelPeer>) {
        assert_eq!(self.runtime.block_on(self.tunnel.set_peers(peers)).unwrap(), []);
    }

    fn opens_to(&self, peer: &Self) {
        assert!(self.runtime.block_on(self.tunnel.open_gate(peer.wireguard)).unwrap());
    }

    fn closes_to(&self, peer: &Self) {
        assert!(self.runtime.block_on(self.tunnel.close_gate(peer.wireguard)).unwrap());
    }

    fn channel_of(&self, peer: &Self) -> Option<WireGuardKey> {
        self.runtime.block_on(self.tunnel.channel_of(peer.address)).unwrap()
    }

    fn listens(&self, port: u16) -> TcpListener {
        self.namespace.run(|| TcpListener::bind((self.address, port)).unwrap()).unwrap()
    }

    fn connects(&self, peer: &Self, port: u16, within: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::from((peer.address, port));
        let stream = self.namespace.run(|| TcpStream::connect_timeout(&to, within)).unwrap()?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        Ok(stream)
    }
}

fn fails(connected: io::Result<TcpStream>) {
    assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

fn carries(mut sender: TcpStream, mut receiver: TcpStream, count: usize) {
    let bytes: Vec<u8> = (0..=250).cycle().take(count).collect();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&bytes).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        assert!(received == bytes, "{} of {} bytes", received.len(), bytes.len());
    });
}

#[test]
fn a_closed_gate_passes_conn_auth_alone_and_an_open_one_what_is_allowed() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [mut a, b]) = nodes(sandbox, &["tcp/8080"]);
        a.knows(vec![b.at(b.ipv4())]);
        b.knows(vec![a.at(a.ipv4())]);
        let (auth, service, other) = (b.listens(AUTH), b.listens(SERVICE), b.listens(SERVICE + 1));

        fails(a.connects(&b, SERVICE, SILENCE));
        assert_eq!(a.events.blocking_recv(), Some(TunnelEvent::WantLink(b.wireguard)));
        assert_eq!(a.channel_of(&b), None);

        let dialled = a.connects(&b, AUTH, PATIENCE).unwrap();
        let (_, from) = auth.accept().unwrap();
        assert_eq!((from.ip(), dialled.local_addr().unwrap()), (a.address.into(), from));
        assert_eq!((a.channel_of(&b), b.channel_of(&a)), (Some(b.wireguard), Some(a.wireguard)));
        assert!(matches!(a.events.blocking_recv(), Some(TunnelEvent::Handshake { .. })));

        a.opens_to(&b);
        fails(a.connects(&b, SERVICE, SILENCE));
        b.opens_to(&a);
        let sender = a.connects(&b, SERVICE, PATIENCE).unwrap();
        fails(a.connects(&b, SERVICE + 1, SILENCE));
        other.set_nonblocking(true).unwrap();
        assert_eq!(other.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        carries(sender, service.accept().unwrap().0, 16_000_000);
    })
}

#[test]
fn a_conversation_goes_on_over_the_next_link_whoever_speaks_first() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [mut a, mut b]) = nodes(sandbox, &["tcp/8080"]);
        a.knows(vec![b.at(b.ipv4())]);
        b.knows(vec![a.at(a.ipv4())]);
        let service = b.listens(SERVICE);
        a.opens_to(&b);
        b.opens_to(&a);
        let mut asking = a.connects(&b, SERVICE, PATIENCE).unwrap();
        let mut serving = service.accept().unwrap().0;
        for answers in [true, false] {
            a.closes_to(&b);
            b.closes_to(&a);
            let (speaker, mut from, to) =
                if answers { (&mut b, &serving, &mut asking) } else { (&mut a, &asking, &mut serving) };
            from.write_all(b"still there?").unwrap();
            while !matches!(speaker.events.blocking_recv().unwrap(), TunnelEvent::WantLink(_)) {}
            b.opens_to(&a);
            a.opens_to(&b);
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut heard = [0; 12];
            to.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"still there?");
        }
    })
}

#[test]
fn full_packets_pass_where_the_network_below_is_narrower() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [a, b]) = nodes(sandbox, &[]);
        for node in [&a, &b] {
            let narrow = node.namespace.program("ip").args(["link", "set", "eth0", "mtu", "1300"]);
            narrow.run(PATIENCE).unwrap().ok().unwrap();
        }
        let auth = b.listens(AUTH);
        for ip in [Node::ipv4, Node::ipv6] {
            a.knows(vec![]);
            b.knows(vec![a.at(ip(&a))]);
            a.knows(vec![b.at(ip(&b))]);
            let sender = a.connects(&b, AUTH, PATIENCE).unwrap();
            carries(sender, auth.accept().unwrap().0, 1_000_000);
        }
    })
}

#[test]
fn a_removed_peer_hears_nothing_more_on_old_connections_or_new_ones() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [a, b]) = nodes(sandbox, &[]);
        a.knows(vec![b.at(b.ipv6())]);
        b.knows(vec![a.at(a.ipv6())]);
        let auth = b.listens(AUTH);
        let mut old = a.connects(&b, AUTH, PATIENCE).unwrap();
        let (mut accepted, _) = auth.accept().unwrap();
        accepted.write_all(b"x").unwrap();
        old.read_exact(&mut [0]).unwrap();

        b.knows(vec![]);
        assert_eq!(b.channel_of(&a), None);
        accepted.write_all(b"y").unwrap();
        old.set_read_timeout(Some(SILENCE)).unwrap();
        assert_eq!(old.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fails(a.connects(&b, AUTH, SILENCE));

        b.knows(vec![a.at(a.ipv6())]);
        drop(a.connects(&b, AUTH, PATIENCE).unwrap());
    })
}

#[test]
fn tunnels_end_when_their_interface_is_taken_away() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [mut a, _]) = nodes(sandbox, &[]);
        let deleted = a.namespace.program("ip").args(["link", "del", "muster0"]).run(PATIENCE).unwrap();
        deleted.ok().unwrap();
        assert_eq!(a.events.blocking_recv(), None);
        assert_eq!(a.runtime.block_on(a.tunnel.stats()), Err(TunnelGone));
    })
}

#[test]
fn a_peer_is_found_at_its_second_endpoint_and_by_either_family() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let (_bridge, [a, b]) = nodes(sandbox, &[]);
        let nobody = SocketAddr::new(Ipv4Addr::new(10, 77, 0, 99).into(), PORT);
        let mut peer = b.at(b.ipv6());
        peer.endpoints.insert(0, nobody);
        a.knows(vec![peer]);
        // The other side knows no endpoint at all and answers to where it was called from.
        b.knows(vec![TunnelPeer { endpoints: vec![], ..a.at(a.ipv4()) }]);
        let _auth = b.listens(AUTH);
        drop(a.connects(&b, AUTH, PATIENCE).unwrap());
        let stats = b.runtime.block_on(b.tunnel.stats()).unwrap();
        let at = stats.peers.first().unwrap().endpoint;
        assert_eq!(at.map(|endpoint| endpoint.ip()), Some(a.ipv6()));
    })
}
