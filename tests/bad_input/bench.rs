//! A listener that is attacked, and the honest dialler that must be served right after.

use std::{net::SocketAddr, time::Duration};

use identity::encode_hex;
use muster_tests::{
    dialler::Dialler,
    listener::{Listener, Refused, Seen, Wire},
    org::{Person, tunnel},
    pki::{Authority, Leaf},
    raw::{Framing, Message, Raw, Side},
};
use tokio::{net::TcpStream, time::timeout};

/// The tunnel in which the attacker dials the honest member, in the name of the victim or its own.
pub(crate) const TUNNEL: conn_auth::Binding = tunnel(Person::Victim, Person::Honest);
/// An honest peer waits this long for the end of a connection that was refused.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(2500);

/// Which of the acceptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Lines,
    WebSocket,
    Tls,
}

pub(crate) struct Bench {
    pub(crate) listener: Listener,
    pub(crate) authority: Authority,
    on: On,
}

impl Bench {
    pub(crate) async fn new(on: On) -> Self {
        let authority = Authority::new();
        let leaf: Leaf = authority.leaf();
        let (key, wire) = match on {
            On::Lines => (Person::Honest.key(), Wire::Lines(TUNNEL)),
            On::WebSocket => (Person::Honest.key(), Wire::TunnelWebSocket(TUNNEL)),
            On::Tls => (Person::Gateway.key(), Wire::Tls(leaf.server())),
        };
        Self { listener: Listener::start(key, wire).await, authority, on }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// A raw connection.
    pub(crate) async fn raw(&self) -> Raw {
        let tcp = TcpStream::connect(self.address()).await.unwrap();
        let framing = if self.on == On::Lines { Framing::Lines } else { Framing::WebSocket };
        Raw::new(tcp, framing, Side::Dialler)
    }

    /// A raw connection on which HELLO, as it is, was answered with a CHALLENGE.
    pub(crate) async fn challenged(&self, hello: &str) -> (Raw, String) {
        let mut raw = self.raw().await;
        raw.send(Message::Hello, hello.as_bytes()).await.unwrap();
        let challenge = raw.recv(Message::Challenge).await.unwrap();
        (raw, String::from_utf8(challenge).unwrap())
    }

    /// Sends bytes and nothing more on a fresh connection: the listener's error and its last words.
    pub(crate) async fn said(&mut self, bytes: &[u8]) -> (Refused, Vec<u8>) {
        let mut raw = self.raw().await;
        // The listener may refuse before it has taken everything.
        drop(raw.bytes(bytes).await);
        self.refused(raw).await
    }

    /// How the listener ended this connection, which must be at once.
    pub(crate) async fn refused(&mut self, mut raw: Raw) -> (Refused, Vec<u8>) {
        raw.shutdown().await;
        let words = timeout(AT_ONCE, raw.rest()).await.expect("it was left open");
        (self.listener.refused().await, words)
    }

    /// An honest dialler is served.
    pub(crate) async fn serves(&mut self, after: &str) {
        let member = Dialler::victim(Person::Honest, "sync");
        let boot = Dialler::boot(Person::Gateway);
        let (answer, wanted) = match self.on {
            On::Lines => (member.lines(self.address(), TUNNEL).await, "done: sync"),
            On::WebSocket => (member.tunnel_websocket(self.address(), TUNNEL).await, "done: sync"),
            On::Tls => (boot.tls(self.address(), &self.authority.client()).await, "done: boot"),
        };
        assert_eq!(answer.unwrap(), wanted.as_bytes(), "after {after}");
        assert!(matches!(self.listener.seen().await, Seen::Accepted { .. }), "after {after}");
    }

    /// Nothing of any connection is left: no task, no socket.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.listener.live(), 0);
        assert_eq!(sockets_at(self.address()), 0);
    }
}

/// A correct HELLO of the victim, in parts that can be tampered with.
pub(crate) fn hello() -> String {
    hello_of(Person::Victim, &Person::Honest.public().to_string(), "sync")
}

pub(crate) fn hello_of(peer: Person, to: &str, action: &str) -> String {
    let nonce = encode_hex(&[0x4e; 32]);
    format!("muster-auth/1 pubkey={} to={to} nonce={nonce} bind=wg action={action}", peer.public())
}

/// Connected sockets of this machine whose local end is the listener's.
fn sockets_at(address: SocketAddr) -> usize {
    const LISTENING: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let columns = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Without an inode no program has it: the kernel alone remembers that it was there.
    columns.filter(|c| c[1].ends_with(&port) && c[3] != LISTENING && c[9] != "0").count()
}
