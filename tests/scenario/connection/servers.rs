//! Servers of this test's own, each broken in its way or in none.

use std::{net::SocketAddr, sync::Arc};

use conn_auth::{Accept, Binding, Reference, Refusal};
use identity::{Code, Name, SecretKey};
use org_trust::{Admin, CaState, Charter, CharterChain, Gateway, TlsCa, UnverifiedCharter};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    time::Instant,
};
use transport::{ClientTls, Deadlines, Incoming, Request, ServerTls, Status};

use super::pki::{Authority, pem};

/// Where they are.
pub(super) const HOST: &str = "127.0.0.1";

/// What a server does with each connection.
#[derive(Clone)]
pub(super) enum Does {
    /// Says this at once, and closes.
    Says(Vec<u8>),
    /// Nothing at all.
    Nothing,
    /// Serves TLS and what is behind it.
    Tls(ServerTls, Behind),
    /// Opens TLS and makes another TLS connection to a gateway.
    Edge(ServerTls, ClientTls, SocketAddr),
    /// Opens TLS, and the TLS inside the WebSocket too, with what is shown there; then as above.
    EdgeInside(ServerTls, ServerTls, ClientTls, SocketAddr),
}

/// What a server does behind TLS.
#[derive(Clone, Copy)]
pub(super) enum Behind {
    Well,
    Settings(Status),
    JunkSettings,
    /// Answers the upgrade with this.
    Answer(&'static str),
    OtherKey,
    HelloRefused,
    Challenge(&'static str),
    Suspended,
    Verdict(&'static str),
}

/// One connection.
pub(super) async fn serve(mut tcp: TcpStream, does: Does, org: Arc<Keys>) {
    match does {
        Does::Says(bytes) => {
            // Whatever was said first is read, so that closing does not take the answer with it.
            let mut hello = [0; 1024];
            drop(tcp.read(&mut hello).await);
            drop(tcp.write_all(&bytes).await);
            drop(tcp.shutdown().await);
        }
        Does::Nothing => drop(tcp.read_to_end(&mut Vec::new()).await),
        Does::Tls(tls, behind) => {
            let Ok((stream, exporter)) = tls.accept(tcp).await else { return };
            if let Behind::Answer(text) = behind {
                return answer(stream, text).await;
            }
            let incoming = Incoming::new(stream, Deadlines::since(Instant::now()));
            // A dialler that has seen enough hangs up, which is its good right.
            answered(incoming, exporter, behind, &org).await.unwrap_or_default();
        }
        Does::Edge(tls, client, gateway) => {
            let (outside, _) = tls.accept(tcp).await.unwrap();
            passes_on(outside, &client, gateway).await;
        }
        Does::EdgeInside(tls, shown, client, gateway) => {
            let (outside, _) = tls.accept(tcp).await.unwrap();
            let incoming = Incoming::new(outside, Deadlines::since(Instant::now()));
            let Request::Inner(inner) = incoming.next().await.unwrap() else { panic!("no wss:// dialler") };
            let (opened, _) = shown.accept(inner.open().await.unwrap()).await.unwrap();
            passes_on(opened, &client, gateway).await;
        }
    }
}

async fn passes_on(mut opened: impl AsyncRead + AsyncWrite + Unpin, client: &ClientTls, gateway: SocketAddr) {
    let tcp = TcpStream::connect(gateway).await.unwrap();
    let (mut inside, _) = client.connect(HOST, tcp).await.unwrap();
    drop(copy_bidirectional(&mut opened, &mut inside).await);
}

/// Gives an empty page of settings, then this text.
async fn answer(mut stream: tokio_rustls::server::TlsStream<TcpStream>, text: &str) {
    for text in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", text] {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
}

async fn answered(
    mut incoming: Incoming<tokio_rustls::server::TlsStream<TcpStream>>,
    exporter: [u8; 32],
    behind: Behind,
    org: &Keys,
) -> Result<(), transport::ServeError> {
    let upgrade = loop {
        match incoming.next().await? {
            Request::Upgrade(upgrade) => break upgrade,
            Request::Inner(inner) => return inner.refuse(Status::NotFound).await,
            Request::Get(get) => {
                if let Behind::Settings(status) = behind {
                    return get.refuse(status).await;
                }
                let junk = matches!(behind, Behind::JunkSettings);
                incoming = get.answer(if junk { &[1, 0, 0, 0, 7] } else { &[] }).await?;
            }
        }
    };
    let reference = Reference([5; 8]);
    let key = if matches!(behind, Behind::OtherKey) { &org.stranger } else { &org.gateway };
    let accept = Accept { org: org.chain.org(), key, binding: Binding::Tls(exporter) };
    let waiting = accept.on_hello(upgrade.hello(), [8; 32]).unwrap();
    if let Behind::HelloRefused = behind {
        return upgrade.refuse_hello(&reference.verdict_no()).await;
    }
    if let Behind::Challenge(line) = behind {
        return upgrade.challenge(line).await.map(drop);
    }
    let (proof, pending) = upgrade.challenge(waiting.challenge()).await?.proof().await?;
    let proven = waiting.on_proof(&proof).unwrap();
    if let Behind::Suspended = behind {
        return pending.refuse(&Refusal { code: Code::Suspended }.verdict(reference, true)).await;
    }
    if let Behind::Verdict(line) = behind {
        return pending.refuse(line).await;
    }
    let admitted = proven.admit(conn_auth::Standing::Unknown).unwrap();
    let line = admitted.verdict_ok(reference, identity::Heads([0; 32]), 0);
    let mut session = pending.accept(&line, 1024).await?;
    drop(session.recv().await);
    Ok(())
}

/// An org whose keys this test has.
pub(super) struct Keys {
    pub(super) chain: CharterChain,
    gateway: SecretKey,
    stranger: SecretKey,
}

impl Keys {
    pub(super) fn new(root: &Authority, more: &[(CaState, &Authority)]) -> Self {
        let seed = |byte| SecretKey::from_seed(&[byte; 32]);
        let mut charter = Charter::genesis(Name::parse("acme").unwrap(), 1, vec![seed(1).public()], [3; 16]);
        charter.admins = vec![Admin { key: seed(5).public(), name: Name::parse("ann").unwrap() }];
        charter.gateways = vec![Gateway { key: seed(2).public(), node: seed(4).public() }];
        let active = (CaState::Active, root);
        let listed = more.iter().chain([&active]).filter(|_| !more.is_empty());
        charter.tls_cas = listed
            .map(|(state, ca)| TlsCa { state: *state, certificate: ca.certificate.der().to_vec() })
            .collect();
        let genesis = UnverifiedCharter::sign(charter, &[&seed(1)]).unwrap().verify_genesis().unwrap();
        Self { chain: CharterChain::start(genesis).unwrap(), gateway: seed(2), stranger: seed(6) }
    }
}

/// TLS with this chain.
pub(super) fn server(chain: &[&Authority], leaf: &Authority) -> ServerTls {
    let chain: Vec<_> = chain.iter().map(|authority| &authority.certificate).collect();
    ServerTls::from_pem(pem(&chain).as_bytes(), leaf.key.serialize_pem().as_bytes()).unwrap()
}
