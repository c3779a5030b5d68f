//! The front over real sockets, with a musterd that this file plays.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use conn_auth::{Accept, Action, Binding, Holder, Reference, Refusal, Standing};
use control::{
    framing,
    gateway::{Bounds, FromGateway, ToGateway},
    text::{Bytes, Text},
};
use identity::{
    Code, Heads, Name, SecretKey,
    limits::{GATEWAY_MESSAGE_BYTES_MAX, HANDSHAKE_DEADLINE_MS},
};
use org_trust::{Admin, Charter, CharterChain, Gateway, UnverifiedCharter};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use transport::{
    Address, ClientTls, ServerTls, SessionError,
    client::{DialError, GatewayDial, GatewaySession, dial_gateway},
};

use crate::{
    front::{Front, Signal, bind},
    link::{self, Link},
    routes::{Gate, ROUTES},
};

mod edge;

/// A front that runs, with all that it needs.
struct Bench {
    address: SocketAddr,
    ca: Ca,
    chain: CharterChain,
    signals: mpsc::Sender<Signal>,
    running: JoinHandle<()>,
    linked: JoinHandle<()>,
    socket: PathBuf,
    /// What the played musterd heard, in order.
    heard: mpsc::UnboundedReceiver<FromGateway>,
    told: mpsc::UnboundedSender<FromGateway>,
    musterd: Option<JoinSet<()>>,
    _dir: tempfile::TempDir,
}

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, der }
    }

    fn server(&self) -> ServerTls {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        ServerTls::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::new([self.der.as_slice()]).unwrap()
    }
}

fn seed(byte: u8) -> SecretKey {
    SecretKey::from_seed(&[byte; 32])
}

fn chain() -> CharterChain {
    let mut charter = Charter::genesis(Name::parse("acme").unwrap(), 1, vec![seed(1).public()], [3; 16]);
    charter.admins = vec![Admin { key: seed(5).public(), name: Name::parse("ann").unwrap() }];
    charter.gateways = vec![Gateway { key: seed(2).public(), node: seed(4).public() }];
    let genesis = UnverifiedCharter::sign(charter, &[&seed(1)]).unwrap().verify_genesis().unwrap();
    CharterChain::start(genesis).unwrap()
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gateway.sock");
        let ca = Ca::new();
        let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (link, queue) = Link::new();
        let linked = tokio::spawn(link::run(socket.clone(), queue));
        let (signals, received) = mpsc::channel(1);
        let running = tokio::spawn(Front { listeners, tls: ca.server(), link }.run(received));
        let (told, heard) = mpsc::unbounded_channel();
        let chain = chain();
        Self { address, ca, chain, signals, running, linked, socket, heard, told, musterd: None, _dir: dir }
    }

    /// Starts a musterd that gives this standing to every key.
    async fn with_musterd(standing: Standing) -> Self {
        let mut bench = Self::new();
        bench.start_musterd(standing).await;
        bench
    }

    async fn start_musterd(&mut self, standing: Standing) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (told, chain) = (self.told.clone(), self.chain.clone());
        let (up, started) = tokio::sync::oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            up.send(()).unwrap();
            play(stream, chain, standing, told).await;
        });
        started.await.unwrap();
        self.musterd = Some(tasks);
    }

    async fn stop_musterd(&mut self) {
        self.musterd.take().unwrap().shutdown().await;
        std::fs::remove_file(&self.socket).unwrap();
    }

    async fn dial(&self) -> Result<GatewaySession, DialError> {
        self.dial_at(&self.address.to_string()).await
    }

    async fn dial_at(&self, address: &str) -> Result<GatewaySession, DialError> {
        let mut known = self.chain.clone();
        let address = Address::parse(address).unwrap();
        let dial = GatewayDial {
            address: &address,
            tls: &self.ca.client(),
            anchor: None,
            key: &seed(9),
            action: Action::new("boot", &[]).unwrap(),
            heads: Heads([0; 32]),
            count: 0,
        };
        dial_gateway(dial, &mut known).await.map(|(session, _)| session)
    }

    /// Sends a request without any proof, and returns the answer.
    async fn ask(&self, request: &str) -> String {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let (mut stream, _) = self.ca.client().connect("127.0.0.1", tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 * 1024];
        let got = timeout(Duration::from_secs(8), stream.read(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer[..got]).into_owned()
    }

    async fn stop(self) {
        self.signals.send(Signal::Stop).await.unwrap();
        self.running.await.unwrap();
        self.linked.await.unwrap();
    }
}

/// musterd's side of the socket: echoes frames, cuts on the frame `cut`.
async fn play(
    mut stream: UnixStream,
    chain: CharterChain,
    standing: Standing,
    told: mpsc::UnboundedSender<FromGateway>,
) {
    let mut pending = std::collections::BTreeMap::new();
    let gateway = seed(2);
    while let Some(message) = read(&mut stream).await {
        told.send(message.clone()).unwrap();
        let id = message.id();
        let reference = Reference([7; 8]);
        let answer = match message {
            FromGateway::Begin { exporter, hello, .. } => {
                let accept = Accept { org: chain.org(), key: &gateway, binding: Binding::Tls(exporter.0.0) };
                match accept.on_hello(&hello.0, [8; 32]) {
                    Ok(waiting) => {
                        let line = waiting.challenge().to_owned();
                        pending.insert(id, waiting);
                        ToGateway::Challenge { id, line }
                    }
                    Err(_) => ToGateway::Verdict { id, line: reference.verdict_no(), session: None },
                }
            }
            FromGateway::Finish { proof, .. } => {
                let verdict = match pending.remove(&id).unwrap().on_proof(&proof.0) {
                    Ok(proven) => proven.admit(standing),
                    Err(_) => Err(Refusal { code: Code::ClientProofWrong }),
                };
                match verdict {
                    Ok(admitted) => ToGateway::Verdict {
                        id,
                        line: admitted.verdict_ok(reference, Heads([0; 32]), 0),
                        session: Some(Bounds { frame_bytes_max: 1024 }),
                    },
                    Err(refusal) => {
                        ToGateway::Verdict { id, line: refusal.verdict(reference, true), session: None }
                    }
                }
            }
            FromGateway::Data { frame, .. } if frame.0 == b"cut" => {
                ToGateway::Cut { id, code: Some(Text(Code::Revoked)), reason: "revoked by ann".into() }
            }
            FromGateway::Data { frame, .. } if frame.0 == b"end" => {
                ToGateway::Cut { id, code: None, reason: String::new() }
            }
            FromGateway::Data { frame, .. } => ToGateway::Data { id, frame },
            FromGateway::Charters { after, .. } => ToGateway::Charters {
                id,
                known: chain.get(&after.0).is_some(),
                charters: chain.after(&after.0).map(|c| Bytes(c.bytes().to_vec())).collect(),
            },
            FromGateway::Close { .. } => continue,
        };
        stream.write_all(&framing::encode(&answer, GATEWAY_MESSAGE_BYTES_MAX).unwrap()).await.unwrap();
    }
}

async fn read(stream: &mut UnixStream) -> Option<FromGateway> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; framing::body_length(prefix, GATEWAY_MESSAGE_BYTES_MAX).unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(framing::decode(&body).unwrap())
}

const GOOD: Standing = Standing::Good(Holder::BootKey);

#[tokio::test]
async fn frames_pass_both_ways_and_musterd_hears_of_the_end() {
    let mut bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    session.send(b"hello".to_vec()).await.unwrap();
    assert_eq!(session.recv().await.unwrap(), b"hello");
    session.close().await;
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(FromGateway::Close { .. })) {
        heard.push(bench.heard.recv().await.unwrap());
    }
    let names: Vec<_> = heard
        .iter()
        .map(|message| match message {
            FromGateway::Charters { .. } => "charters",
            FromGateway::Begin { .. } => "begin",
            FromGateway::Finish { .. } => "finish",
            FromGateway::Data { .. } => "data",
            FromGateway::Close { .. } => "close",
        })
        .collect();
    assert_eq!(names, ["charters", "begin", "finish", "data", "close"]);
    assert!(heard.iter().all(|message| message.id() == heard[0].id()));
    bench.stop().await;
}

#[tokio::test]
async fn whoever_is_accepted_and_asks_nothing_loses_its_place_in_time() {
    let mut bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    let in_time = Duration::from_millis(2 * HANDSHAKE_DEADLINE_MS);
    let ended = timeout(in_time, session.recv()).await.expect("a session that asks nothing stays for ever");
    assert!(ended.is_err());
    while !matches!(bench.heard.recv().await.unwrap(), FromGateway::Close { .. }) {}
    bench.stop().await;
}

#[tokio::test]
async fn musterd_cuts_a_session_with_code_and_reason() {
    let bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    session.send(b"cut".to_vec()).await.unwrap();
    let end = session.recv().await.unwrap_err();
    let reason = "revoked by ann".to_owned();
    assert_eq!(end, SessionError::Closed { status: 4401, code: Some(Code::Revoked), reason });
    let mut session = bench.dial().await.unwrap();
    session.send(b"end".to_vec()).await.unwrap();
    let end = session.recv().await.unwrap_err();
    assert_eq!(end, SessionError::Closed { status: 1000, code: None, reason: String::new() });
    bench.stop().await;
}

#[tokio::test]
async fn a_revoked_key_and_a_strangers_get_musterds_word_and_no_session() {
    for (standing, code) in
        [(Standing::Barred(Code::Revoked), Code::Revoked), (Standing::Unknown, Code::UnknownKey)]
    {
        let mut bench = Bench::with_musterd(standing).await;
        assert_eq!(bench.dial().await.unwrap_err().code(), code);
        while let Ok(message) = bench.heard.try_recv() {
            assert!(!matches!(message, FromGateway::Data { .. }));
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn no_route_but_the_settings_answers_who_proved_nothing() {
    let bench = Bench::with_musterd(GOOD).await;
    let genesis = bench.chain.head().id();
    for route in ROUTES {
        let plain = bench.ask(&format!("GET {} HTTP/1.1\r\nHost: gw\r\n\r\n", route.path)).await;
        assert!(plain.starts_with("HTTP/1.1 404 "), "{}: {plain}", route.path);
        let page =
            bench.ask(&format!("GET {}?after={genesis} HTTP/1.1\r\nHost: gw\r\n\r\n", route.path)).await;
        let expected = match route.gate {
            Gate::Open => "HTTP/1.1 200 OK\r\n",
            Gate::Action | Gate::Inner => "HTTP/1.1 404 ",
        };
        assert!(page.starts_with(expected), "{}: {page}", route.path);
        let hello = format!(
            "GET {} HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Hello: let me in\r\n\r\n",
            route.path
        );
        let refused = bench.ask(&hello).await;
        match route.gate {
            Gate::Action => {
                assert!(
                    refused.starts_with("HTTP/1.1 400 ") && refused.contains("Muster-Challenge: no ref=")
                );
            }
            Gate::Open | Gate::Inner => assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}"),
        }
    }
    for path in ["/", "/admin", "/auth/", "//auth", "/charters/x", "/../auth", "/auth?x=1"] {
        let answer = bench.ask(&format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let unknown = "ab".repeat(32);
    let answer = bench.ask(&format!("GET /charters?after={unknown} HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    bench.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_that_this_is_tls() {
    let bench = Bench::with_musterd(GOOD).await;
    let mut tcp = TcpStream::connect(bench.address).await.unwrap();
    tcp.write_all(b"GET /auth HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The unread request makes the kernel reset the connection after the answer.
    if tcp.read_to_end(&mut answer).await.is_ok() {
        assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
        assert!(answer.ends_with(b"this port speaks muster over TLS 1.3\n"));
    }
    bench.stop().await;
}

#[tokio::test]
async fn without_musterd_the_answer_is_503_and_with_it_again_all_is_well() {
    let mut bench = Bench::new();
    assert_eq!(bench.dial().await.unwrap_err().code(), Code::GatewayUnavailable);
    bench.start_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    bench.stop_musterd().await;
    let end = session.recv().await.unwrap_err();
    assert_eq!(end.code(), Code::GatewayUnavailable, "{end}");
    assert_eq!(bench.dial().await.unwrap_err().code(), Code::GatewayUnavailable);
    bench.start_musterd(GOOD).await;
    bench.dial().await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_drops_nobody() {
    let mut bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    let old = std::mem::replace(&mut bench.ca, Ca::new());
    bench.signals.send(Signal::Certificate(bench.ca.server())).await.unwrap();
    while bench.dial().await.is_err() {
        tokio::task::yield_now().await;
    }
    session.send(b"still here".to_vec()).await.unwrap();
    assert_eq!(session.recv().await.unwrap(), b"still here");
    bench.ca = old;
    assert_eq!(bench.dial().await.unwrap_err().code(), Code::ChainUnknown);
    bench.stop().await;
}

#[tokio::test]
async fn stopping_tells_every_session() {
    let bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial().await.unwrap();
    let (end, ()) = tokio::join!(session.recv(), bench.stop());
    assert_eq!(end.unwrap_err().code(), Code::ShuttingDown);
}
