//! Honest listeners: the real acceptor of each wire on a socket of the loopback, the member list of
//! [`crate::org`] behind it, and a record of what it came to believe of every peer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conn_auth::{Accept, Binding, HelloError, KeyProven, ProofError, Reference, Refusal};
use identity::{Code, Heads, PublicKey, SecretKey};
#[cfg(feature = "seed-wire")]
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use transport::{
    AUTH_PATH, Broken, Deadlines, Incoming, Request, ServeError, ServerTls, Status, StreamIncoming, TlsError,
};

use crate::org::{Members, ORG};

/// What a listener came to believe of one connection.
#[derive(Debug)]
pub enum Seen {
    /// A peer proved its key, or so it seemed, and said something.
    Accepted {
        /// The key.
        peer: [u8; 32],
        /// What for.
        action: String,
        /// The first application message, empty when none came.
        said: Vec<u8>,
    },
    /// The token of a returning boot was shown.
    TokenShown,
    /// No session.
    Refused(Refused),
}

/// Why there was no session, in the words of the step that refused.
#[derive(Debug)]
pub enum Refused {
    /// The connection ended early or took too long.
    Broken(Broken),
    /// HELLO.
    Hello(HelloError),
    /// The line was longer than any of its kind.
    LineTooLong,
    /// The first handshake.
    #[cfg(feature = "seed-wire")]
    Seed(transport::seed_wire::SeedError),
    /// The HTTP head or the WebSocket frame.
    Serve(ServeError),
    /// The member list.
    Standing(Refusal),
    /// Another path than the one served.
    NotFound,
    /// PROOF.
    Proof(ProofError),
    /// TLS.
    Tls(TlsError),
    /// Another token.
    Token,
}

/// What is listened for.
#[derive(Debug)]
pub enum Wire {
    /// conn_auth on lines, in a tunnel.
    Lines(Binding),
    /// conn_auth on a WebSocket in a tunnel.
    TunnelWebSocket(Binding),
    /// conn_auth on a WebSocket over TLS.
    Tls(ServerTls),
    /// The first handshake.
    #[cfg(feature = "seed-wire")]
    Seed,
    /// The token of the first handshake's returning boot, over TLS.
    #[cfg(feature = "seed-wire")]
    SeedToken(ServerTls, conn_auth::v0::Token),
}

/// A listener that runs.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    live: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

struct Service {
    key: SecretKey,
    wire: Wire,
    members: Members,
}

impl Listener {
    /// Serves connections with this key until dropped.
    pub async fn start(key: SecretKey, wire: Wire) -> Self {
        let service = Arc::new(Service { key, wire, members: Members::of_the_org() });
        let socket = Socket::bind(&service.wire).await;
        let address = socket.address();
        let (tell, seen) = mpsc::unbounded_channel();
        let live = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&live);
        let task = tokio::spawn(async move {
            while let Ok(tcp) = socket.accept().await {
                let (service, tell) = (Arc::clone(&service), tell.clone());
                let count = Live::one(&counted);
                tokio::spawn(async move {
                    let seen = Box::pin(service.serve(tcp, count)).await.unwrap_or_else(Seen::Refused);
                    // The test may be over.
                    drop(tell.send(seen));
                });
            }
        });
        Self { address, seen, live, task }
    }

    /// What the next connection that ended came to.
    pub async fn seen(&mut self) -> Seen {
        let seen = timeout(Duration::from_secs(20), self.seen.recv()).await;
        seen.expect("no connection came to an end").unwrap()
    }

    /// The next one's refusal.
    pub async fn refused(&mut self) -> Refused {
        match self.seen().await {
            Seen::Refused(why) => why,
            Seen::Accepted { .. } | Seen::TokenShown => panic!("a peer was let in"),
        }
    }

    /// Connections held at this moment.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Live(Arc<AtomicUsize>);

impl Live {
    fn one(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Socket {
    Any(TcpListener),
    #[cfg(feature = "seed-wire")]
    Seed(transport::seed_wire::SeedListener),
}

impl Socket {
    async fn bind(wire: &Wire) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        match wire {
            Wire::Lines(_) | Wire::TunnelWebSocket(_) | Wire::Tls(_) => {
                Self::Any(TcpListener::bind(loopback).await.unwrap())
            }
            #[cfg(feature = "seed-wire")]
            Wire::Seed | Wire::SeedToken(..) => {
                Self::Seed(transport::seed_wire::SeedListener::bind(loopback).await.unwrap())
            }
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Any(tcp) => tcp.local_addr().unwrap(),
            #[cfg(feature = "seed-wire")]
            Self::Seed(seed) => seed.local_addr().unwrap(),
        }
    }

    async fn accept(&self) -> std::io::Result<TcpStream> {
        match self {
            Self::Any(tcp) => tcp.accept().await.map(|(tcp, _)| tcp),
            #[cfg(feature = "seed-wire")]
            Self::Seed(seed) => seed.accept().await.map(|(tcp, _)| tcp),
        }
    }
}

impl Service {
    /// One connection to its end; `count` is given back with the socket closed.
    async fn serve(&self, tcp: TcpStream, count: Live) -> Result<Seen, Refused> {
        let deadlines = Deadlines::since(Instant::now());
        let seen = match &self.wire {
            Wire::Lines(binding) => self.lines(tcp, deadlines, *binding).await,
            Wire::TunnelWebSocket(binding) => self.websocket(tcp, deadlines, *binding).await,
            Wire::Tls(tls) => {
                let (stream, exporter) = secured(tls, tcp, deadlines).await?;
                self.websocket(stream, deadlines, Binding::Tls(exporter)).await
            }
            #[cfg(feature = "seed-wire")]
            Wire::Seed => self.seed(tcp, deadlines).await,
            #[cfg(feature = "seed-wire")]
            Wire::SeedToken(tls, token) => {
                let (mut stream, _) = secured(tls, tcp, deadlines).await?;
                let shown = transport::seed_wire::accept_token(&mut stream, deadlines, token).await;
                if !shown.map_err(Refused::Seed)? {
                    return Err(Refused::Token);
                }
                // Whoever left without waiting for the answer has had its way all the same.
                drop(stream.write_all(b"welcome back\n").await);
                drop(stream.shutdown().await);
                Ok(Seen::TokenShown)
            }
        };
        drop(count);
        seen
    }

    async fn lines(&self, tcp: TcpStream, deadlines: Deadlines, binding: Binding) -> Result<Seen, Refused> {
        let mut incoming = StreamIncoming::new(tcp, deadlines);
        let hello = incoming.hello().await.map_err(Refused::Broken)?.ok_or(Refused::LineTooLong)?;
        let reference = Reference(rand::random());
        let accept = Accept { org: ORG, key: &self.key, binding };
        let pending = match accept.on_hello(&hello, rand::random()) {
            Ok(pending) => pending,
            Err(why) => {
                told(incoming.say(&reference.verdict_no()).await);
                return Err(Refused::Hello(why));
            }
        };
        incoming.say(pending.challenge()).await.map_err(Refused::Broken)?;
        let proof = incoming.proof().await.map_err(Refused::Broken)?.ok_or(Refused::LineTooLong)?;
        match pending.on_proof(&proof).map_err(Refused::Proof).and_then(|p| self.admit(p, reference)) {
            Err(why) => {
                told(incoming.say(&why.verdict(reference)).await);
                Err(why)
            }
            Ok((verdict, peer, action, frame_bytes_max)) => {
                incoming.say(&verdict).await.map_err(Refused::Broken)?;
                let mut session = incoming.accepted(frame_bytes_max);
                let said = timeout(PATIENCE, session.recv()).await;
                let said = said.ok().and_then(Result::ok).unwrap_or_default();
                if !said.is_empty() {
                    drop(session.send(&done(&action)).await);
                }
                Ok(Seen::Accepted { peer: *peer.as_bytes(), action, said })
            }
        }
    }

    async fn websocket<S: crate::raw::Duplex>(
        &self,
        stream: S,
        deadlines: Deadlines,
        binding: Binding,
    ) -> Result<Seen, Refused> {
        let upgrade = match Incoming::new(stream, deadlines).next().await.map_err(Refused::Serve)? {
            Request::Upgrade(upgrade) if upgrade.target() == AUTH_PATH => upgrade,
            Request::Upgrade(upgrade) => {
                told(upgrade.refuse(Status::NotFound).await);
                return Err(Refused::NotFound);
            }
            Request::Get(get) => {
                told(get.refuse(Status::NotFound).await);
                return Err(Refused::NotFound);
            }
            Request::Inner(inner) => {
                told(inner.refuse(Status::NotFound).await);
                return Err(Refused::NotFound);
            }
        };
        let reference = Reference(rand::random());
        let accept = Accept { org: ORG, key: &self.key, binding };
        let pending = match accept.on_hello(upgrade.hello(), rand::random()) {
            Ok(pending) => pending,
            Err(why) => {
                told(upgrade.refuse_hello(&reference.verdict_no()).await);
                return Err(Refused::Hello(why));
            }
        };
        let waiting = upgrade.challenge(pending.challenge()).await.map_err(Refused::Serve)?;
        let (proof, waiting) = waiting.proof().await.map_err(Refused::Serve)?;
        match pending.on_proof(&proof).map_err(Refused::Proof).and_then(|p| self.admit(p, reference)) {
            Err(why) => {
                told(waiting.refuse(&why.verdict(reference)).await);
                Err(why)
            }
            Ok((verdict, peer, action, frame_bytes_max)) => {
                let mut session = waiting.accept(&verdict, frame_bytes_max).await.map_err(Refused::Serve)?;
                let said = timeout(PATIENCE, session.recv()).await;
                let said = said.ok().and_then(Result::ok).unwrap_or_default();
                if !said.is_empty() {
                    drop(session.send(done(&action)).await);
                }
                session.close().await;
                Ok(Seen::Accepted { peer: *peer.as_bytes(), action, said })
            }
        }
    }

    fn admit(
        &self,
        proven: KeyProven,
        reference: Reference,
    ) -> Result<(String, PublicKey, String, usize), Refused> {
        let standing = self.members.standing(proven.peer().as_bytes());
        let admitted = proven.admit(standing).map_err(Refused::Standing)?;
        let verdict = admitted.verdict_ok(reference, Heads([0; 32]), 0);
        let action = admitted.action().name().to_owned();
        Ok((verdict, admitted.peer(), action, admitted.rule().frame_bytes_max))
    }

    #[cfg(feature = "seed-wire")]
    async fn seed(&self, tcp: TcpStream, deadlines: Deadlines) -> Result<Seen, Refused> {
        use conn_auth::Standing;
        use transport::seed_wire;

        let is_member = |key: &[u8; 32]| matches!(self.members.standing(key), Standing::Good(_));
        let session = seed_wire::accept(tcp, deadlines, rand::random(), is_member).await;
        let seed_wire::SeedSession { admitted, received, mut stream } = session.map_err(Refused::Seed)?;
        let mut lines = transport::LineReader::default();
        let late = Instant::now() + PATIENCE;
        let mut stream_in = std::io::Cursor::new(received).chain(&mut stream);
        let said = lines.line(&mut stream_in, 1024, late).await.ok().flatten().unwrap_or_default();
        let action = admitted.action().name().to_owned();
        if !said.is_empty() {
            drop(stream.write_all(&[&done(&action)[..], b"\n"].concat()).await);
        }
        Ok(Seen::Accepted { peer: admitted.peer(), action, said })
    }
}

async fn secured(
    tls: &ServerTls,
    tcp: TcpStream,
    deadlines: Deadlines,
) -> Result<(tokio_rustls::server::TlsStream<TcpStream>, [u8; 32]), Refused> {
    match timeout_at(deadlines.hello(), tls.accept(tcp)).await {
        Ok(secured) => secured.map_err(Refused::Tls),
        Err(_) => Err(Refused::Broken(Broken::Deadline)),
    }
}

/// For the first application message.
const PATIENCE: Duration = Duration::from_secs(5);

/// A peer that is being turned away may be gone already.
fn told<E>(_: Result<(), E>) {}

fn done(action: &str) -> Vec<u8> {
    format!("done: {action}").into_bytes()
}

impl Refused {
    /// The code in the listener's log.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Broken(why) => why.code(),
            Self::Hello(why) => why.code(),
            Self::LineTooLong | Self::NotFound => Code::HelloMalformed,
            #[cfg(feature = "seed-wire")]
            Self::Seed(why) => why.code(),
            Self::Serve(why) => why.code(),
            Self::Standing(why) => why.code(),
            Self::Proof(why) => why.code(),
            Self::Tls(why) => why.code(),
            Self::Token => Code::UnknownKey,
        }
    }

    fn verdict(&self, reference: Reference) -> String {
        match self {
            Self::Standing(refusal) => refusal.verdict(reference, true),
            Self::Broken(_)
            | Self::Hello(_)
            | Self::LineTooLong
            | Self::Serve(_)
            | Self::NotFound
            | Self::Proof(_)
            | Self::Tls(_)
            | Self::Token => reference.verdict_no(),
            #[cfg(feature = "seed-wire")]
            Self::Seed(_) => reference.verdict_no(),
        }
    }
}
