//! A member that has turned: its keys, its tunnel and its proofs in a program that follows no rule.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use conn_auth::{Action, Binding, Dial, To};
use identity::{Code, Heads, OrgId, PublicKey, SecretKey, WireGuardKey, overlay_address};
use lab::org::Org;
use member_crdt::{Replica, Session as SyncSession};
use muster_tests::raw::{Framing, Raw, Side};
use musterd::tunnel::{self, Allow, TunnelConfig, TunnelHandle, TunnelPeer};
use org_trust::{InviteManifest, VerifiedCharter};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tpm_seal::{Custody, NodeSecrets, Tpm};
use transport::{
    Session, SessionError,
    client::{DialError, authenticate, nonce},
};

use super::hold::port;
use crate::harness;

pub(super) const AUTH_PORT: u16 = 4714;
/// States of a connection in the kernel's tables, whose other end knows that it is over.
const TIME_WAIT: &str = "06";
const FIN_WAIT_2: &str = "05";
const UDP_PORT: u16 = 51_820;

/// The member, and the machine that it is after.
pub(super) struct Hostile {
    pub(super) org: OrgId,
    pub(super) node: SecretKey,
    wireguard: SecretKey,
    genesis: VerifiedCharter,
    address: Ipv6Addr,
    target: PublicKey,
    target_wireguard: WireGuardKey,
    pub(super) target_address: Ipv6Addr,
    target_endpoint: SocketAddr,
}

/// Its tunnel to that machine.
pub(super) struct Tunnelled<'a> {
    pub(super) hostile: &'a Hostile,
    _tunnels: TunnelHandle,
    /// Ends of connections that were there before: the member's musterd left them to a tunnel that is gone, and
    /// the kernel speaks on into it for a while.
    left: BTreeSet<String>,
}

/// A machine's keys, as its TPM opens them.
pub(super) fn keys(org: &Org, node: usize) -> NodeSecrets {
    let tpm = Tpm::open(org.host(node).unwrap().tpm().unwrap().device()).unwrap();
    Custody::Tpm(tpm).load(&org.state(node).unwrap().join("keys")).unwrap()
}

impl Hostile {
    /// The machine `node` turns against `target`. Its musterd must not run any more.
    pub(super) fn turned(org: &Org, node: usize, target: usize) -> Self {
        let secrets = keys(org, node);
        let invite = InviteManifest::parse(&org.invite(0, 1).unwrap()).unwrap().check().unwrap();
        let key = secrets.identity.expose(SecretKey::from_seed);
        let list = harness::members_on(org, target).unwrap();
        let of = list.iter().find(|m| m["name"] == *Org::name(target)).unwrap();
        let target_key = PublicKey::from_hex(of["key"].as_str().unwrap()).unwrap();
        Self {
            org: invite.org(),
            address: overlay_address(&invite.org(), &key.public()),
            node: key,
            wireguard: secrets.wireguard.expose(SecretKey::from_seed),
            genesis: invite.chain().head().clone(),
            target: target_key,
            target_wireguard: keys(org, target)
                .wireguard
                .expose(|seed| SecretKey::from_seed(seed).public().to_wireguard()),
            target_address: overlay_address(&invite.org(), &target_key),
            target_endpoint: SocketAddr::from((org.host(target).unwrap().address(), UDP_PORT)),
        }
    }

    /// In the machine's own network.
    pub(super) async fn tunnel(&self) -> Tunnelled<'_> {
        let left = connections().map(|(end, ..)| end).collect();
        let config = TunnelConfig {
            interface: "turned0".to_owned(),
            address: self.address,
            port: UDP_PORT,
            auth_port: AUTH_PORT,
            allow: vec![Allow::All],
        };
        let (events, mut heard) = mpsc::channel(16);
        let tunnels = tunnel::spawn(config, &self.wireguard, events).unwrap();
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let peer = TunnelPeer {
            wireguard: self.target_wireguard,
            earlier: vec![],
            address: self.target_address,
            endpoints: vec![self.target_endpoint],
        };
        tunnels.set_peers(vec![peer]).await.unwrap();
        tunnels.open_gate(self.target_wireguard).await.unwrap();
        Tunnelled { hostile: self, _tunnels: tunnels, left }
    }

    /// The tunnel's ends.
    pub(super) fn binding(&self) -> Binding {
        Binding::WireGuard { client: self.wireguard.public().to_wireguard(), server: self.target_wireguard }
    }

    /// HELLO by this member.
    pub(super) fn hello(&self, action: &str) -> String {
        let nonce = identity::encode_hex(&[0x4e; 32]);
        let (own, to) = (self.node.public(), self.target);
        format!("muster-auth/1 pubkey={own} to={to} nonce={nonce} bind=wg action={action}")
    }

    /// An empty member list of its org.
    pub(super) fn replica(&self) -> Replica {
        Replica::new(&self.genesis).unwrap()
    }
}

impl Tunnelled<'_> {
    /// Leaves when the machine has heard the end of every connection. To one that goes with words on their way
    /// the machine holds on for as long as links outlive an outage.
    pub(super) async fn leave(self) {
        let is_heard = |(end, to, state): (String, u16, String)| {
            to != AUTH_PORT || matches!(state.as_str(), TIME_WAIT | FIN_WAIT_2) || self.left.contains(&end)
        };
        let until = Instant::now() + Duration::from_secs(10);
        while !connections().all(is_heard) {
            assert!(Instant::now() < until, "the machine does not hear the end of a connection");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// TCP, and nothing more.
    pub(super) async fn tcp(&self) -> TcpStream {
        let to = (self.hostile.target_address, AUTH_PORT);
        // The first segments may be lost to a tunnel that is being made.
        for _ in 0..20 {
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(5), TcpStream::connect(to)).await {
                stream.set_nodelay(true).unwrap();
                return stream;
            }
        }
        panic!("the machine is not reached");
    }

    /// A connection without any rule.
    pub(super) async fn raw(&self) -> Raw {
        Raw::new(self.tcp().await, Framing::WebSocket, Side::Dialler)
    }

    /// A session, honestly opened, that takes frames of any length from us. A machine that compares lists
    /// first is asked again, as a musterd does.
    pub(super) async fn session(&self, action: &str) -> Session<TcpStream> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.dial(action).await {
                Err(error) if error.code() == Code::HealFirst && Instant::now() < until => {
                    sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    pub(super) async fn dial(&self, action: &str) -> Result<Session<TcpStream>, DialError> {
        let hostile = self.hostile;
        let action = Action::new(action, &[]).unwrap();
        let to = To::Key(hostile.target);
        let dial = Dial { org: hostile.org, key: &hostile.node, to, binding: hostile.binding(), action };
        let pending = dial.start(nonce().unwrap()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let host = format!("[{}]:{AUTH_PORT}", hostile.target_address);
        let held = (Heads([0; 32]), 0);
        let stream = self.tcp().await;
        authenticate(stream, &host, pending, held, ANY_LENGTH, until).await.map(|(session, _)| session)
    }

    /// Brings an honest copy of the member list up to the machine's.
    pub(super) async fn follow(&self, replica: &mut Replica) {
        let mut connection = self.session("sync").await;
        let mut sync = SyncSession::new();
        connection.send(sync.open(replica)).await.unwrap();
        let mut quiet = 0;
        while quiet < 2 {
            match timeout(Duration::from_millis(300), connection.recv()).await {
                Ok(frame) => {
                    for answer in sync.handle(replica, &frame.unwrap()).unwrap().send {
                        connection.send(answer).await.unwrap();
                    }
                    quiet = 0;
                }
                Err(_) => quiet += 1,
            }
        }
        connection.close().await;
    }
}

/// This thread's network: our end, the port of the other one, and the state.
fn connections() -> impl Iterator<Item = (String, u16, String)> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[1].to_owned(), port(fields[2]), fields[3].to_owned())
    };
    table.lines().skip(1).map(of).collect::<Vec<_>>().into_iter()
}

/// How a session ended, if it did; what came before that is passed over.
pub(super) async fn end_of(session: &mut Session<TcpStream>) -> Option<SessionError> {
    let end = async {
        loop {
            if let Err(end) = session.recv().await {
                return end;
            }
        }
    };
    timeout(Duration::from_secs(5), end).await.ok()
}

const ANY_LENGTH: usize = 256 << 20;
