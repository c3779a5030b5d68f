//! The whole way, over real sockets on the loopback: TLS, settings, the four messages, the session.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Authority, GOOD, Org, chain_pem};
use conn_auth::{Accept, Action, Binding, Dial, Holder, Reference, Standing, To};
use identity::{CharterId, Code, Heads, OrgId, SecretKey, WireGuardKey};
use org_trust::CharterChain;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use transport::{
    Address, ClientTls, Deadlines, Incoming, Request, ServerTls, Session, SessionError, Status, after_of,
    client::{DialError, GatewayDial, GatewaySession, Step, authenticate, dial_gateway},
    encode_charters,
};

/// What the server of a test does with whoever proves a key.
#[derive(Clone, Copy)]
enum Mood {
    Admits,
    Refuses(Code),
    Away,
}

struct Bench {
    org: Org,
    address: Address,
    tls: ClientTls,
    listener: TcpListener,
    server_tls: ServerTls,
    key: SecretKey,
    /// Sent as the page of settings in place of the real one.
    forged: Option<Vec<u8>>,
}

impl Bench {
    async fn new(later: usize) -> Self {
        let root = Authority::root("root");
        let leaf = root.leaf("127.0.0.1", GOOD);
        let pem = chain_pem(&[&leaf.certificate]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            org: Org::new(later),
            address: Address::parse(&listener.local_addr().unwrap().to_string()).unwrap(),
            tls: ClientTls::new([root.der()]).unwrap(),
            server_tls: ServerTls::from_pem(&pem, leaf.key.serialize_pem().as_bytes()).unwrap(),
            listener,
            key: SecretKey::from_seed(&[9; 32]),
            forged: None,
        }
    }

    async fn dial(
        &self,
        chain: &mut CharterChain,
        anchor: Option<CharterId>,
    ) -> Result<GatewaySession, DialError> {
        let dial = GatewayDial {
            address: &self.address,
            tls: &self.tls,
            anchor,
            key: &self.key,
            action: Action::new("boot", &[]).unwrap(),
            heads: Heads([0; 32]),
            count: 0,
        };
        dial_gateway(dial, chain).await.map(|(session, _)| session)
    }

    async fn serve(&self, mood: Mood) -> Option<Session<TlsStream<TcpStream>>> {
        self.serve_as(mood, &self.org.gateway).await
    }

    async fn serve_as(&self, mood: Mood, key: &SecretKey) -> Option<Session<TlsStream<TcpStream>>> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let (stream, exporter) = self.server_tls.accept(tcp).await.ok()?;
        let mut incoming = Incoming::new(stream, Deadlines::since(Instant::now()));
        let upgrade = loop {
            match incoming.next().await.ok()? {
                Request::Get(get) => {
                    let after = after_of(get.target()).unwrap();
                    if let Some(forged) = &self.forged {
                        incoming = get.answer(&encode_charters([forged.as_slice()])).await.ok()?;
                        continue;
                    }
                    if self.org.chain.get(&after).is_none() {
                        get.refuse(Status::NotFound).await.unwrap();
                        return None;
                    }
                    // One at a time, so that the walk takes several pages.
                    let page = self.org.chain.after(&after).take(1).map(|c| c.bytes());
                    incoming = get.answer(&encode_charters(page)).await.ok()?;
                }
                Request::Upgrade(upgrade) => break upgrade,
                Request::Inner(_) => return None,
            }
        };
        if matches!(mood, Mood::Away) {
            upgrade.refuse(Status::Unavailable).await.unwrap();
            return None;
        }
        let accept = Accept { org: self.org.chain.org(), key, binding: Binding::Tls(exporter) };
        let pending = accept.on_hello(upgrade.hello(), [5; 32]).unwrap();
        let switched = upgrade.challenge(pending.challenge()).await.unwrap();
        let (proof, verdict) = switched.proof().await.ok()?;
        let proven = pending.on_proof(&proof).unwrap();
        let reference = Reference([6; 8]);
        let standing = match mood {
            Mood::Refuses(code) => Standing::Barred(code),
            Mood::Admits | Mood::Away => Standing::Good(Holder::BootKey),
        };
        match proven.admit(standing) {
            Ok(admitted) => {
                let line = admitted.verdict_ok(reference, Heads([0; 32]), 0);
                Some(verdict.accept(&line, 1024).await.unwrap())
            }
            Err(refusal) => {
                verdict.refuse(&refusal.verdict(reference, true)).await.unwrap();
                None
            }
        }
    }
}

#[tokio::test]
async fn a_member_walks_the_settings_proves_its_key_and_talks() {
    let bench = Bench::new(3).await;
    let mut chain = bench.org.genesis_only();
    let (dialled, served) = tokio::join!(bench.dial(&mut chain, None), bench.serve(Mood::Admits));
    let (mut client, mut server) = (dialled.unwrap(), served.unwrap());
    assert_eq!(chain.head().id(), bench.org.chain.head().id());
    client.send(vec![1; 1024]).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), vec![1; 1024]);
    server.send(b"answer".to_vec()).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), b"answer");
    assert_eq!(server.send(vec![0; 1025]).await, Err(SessionError::Oversize));
    let (mut sender, mut receiver) = server.split();
    sender.send(Vec::new()).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), b"");
    tokio::join!(client.close(), async {
        let end = receiver.recv().await.unwrap_err();
        assert_eq!(end, SessionError::Closed { status: 1000, code: None, reason: String::new() });
    });
}

#[tokio::test]
async fn application_bytes_that_travel_with_the_verdict_arrive() {
    let (org, key, server) = (OrgId([1; 32]), SecretKey::from_seed(&[2; 32]), SecretKey::from_seed(&[3; 32]));
    let binding = Binding::WireGuard { client: WireGuardKey([4; 32]), server: WireGuardKey([5; 32]) };
    let action = Action::new("sync", &[]).unwrap();
    let dial = Dial { org, key: &key, to: To::Key(server.public()), binding, action };
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let deadlines = Deadlines::since(Instant::now());
    let frames = [b"at once".to_vec(), vec![9; 1024], Vec::new()];
    let pending = dial.start([6; 32]).unwrap();
    let dialled = authenticate(ours, "host", pending, (Heads([0; 32]), 0), 1024, deadlines.verdict());
    let served = async {
        let Request::Upgrade(upgrade) = Incoming::new(theirs, deadlines).next().await.unwrap() else {
            unreachable!("the dialler asks for nothing else")
        };
        let pending = Accept { org, key: &server, binding }.on_hello(upgrade.hello(), [7; 32]).unwrap();
        let waiting = upgrade.challenge(pending.challenge()).await.unwrap();
        let (proof, waiting) = waiting.proof().await.unwrap();
        let admitted = pending.on_proof(&proof).unwrap().admit(Standing::Good(Holder::Member)).unwrap();
        let line = admitted.verdict_ok(Reference([8; 8]), Heads([0; 32]), 0);
        let mut session = waiting.accept(&line, 1024).await.unwrap();
        // Nothing waits in between, so all of it lies behind VERDICT before the dialler reads that.
        for frame in &frames {
            session.send(frame.clone()).await.unwrap();
        }
        session
    };
    let (dialled, _server) = tokio::join!(dialled, served);
    let (mut client, _) = dialled.unwrap();
    for frame in frames {
        assert_eq!(client.recv().await.unwrap(), frame);
    }
}

#[tokio::test]
async fn a_cut_session_learns_its_code_and_its_reason() {
    let bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let (dialled, served) = tokio::join!(bench.dial(&mut chain, None), bench.serve(Mood::Admits));
    let (mut client, server) = (dialled.unwrap(), served.unwrap());
    let long = "é".repeat(100);
    let (end, ()) = tokio::join!(client.recv(), server.cut(Code::Revoked, &long));
    let SessionError::Closed { status: 4401, code: Some(Code::Revoked), reason } = end.unwrap_err() else {
        panic!("another end")
    };
    assert!(long.starts_with(&reason) && reason.len() > 100);
}

#[tokio::test]
async fn a_frame_beyond_the_actions_bound_ends_the_session() {
    let bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let (dialled, served) = tokio::join!(bench.dial(&mut chain, None), bench.serve(Mood::Admits));
    // The dialler's bound for `boot` is larger than what this server takes.
    let (mut client, mut server) = (dialled.unwrap(), served.unwrap());
    client.send(vec![0; 1025]).await.unwrap();
    assert_eq!(server.recv().await, Err(SessionError::Oversize));
}

#[tokio::test]
async fn a_revoked_key_is_told_its_code() {
    let bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let served = bench.serve(Mood::Refuses(Code::Revoked));
    let (dialled, _) = tokio::join!(bench.dial(&mut chain, None), served);
    assert_eq!(dialled.unwrap_err().code(), Code::Revoked);
}

#[tokio::test]
async fn a_front_without_its_daemon_says_so() {
    let bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let (dialled, _) = tokio::join!(bench.dial(&mut chain, None), bench.serve(Mood::Away));
    assert_eq!(dialled.unwrap_err().code(), Code::GatewayUnavailable);
}

#[tokio::test]
async fn a_stolen_certificate_alone_is_no_gateway() {
    let bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let thief = SecretKey::from_seed(&[77; 32]);
    let (dialled, _) = tokio::join!(bench.dial(&mut chain, None), bench.serve_as(Mood::Admits, &thief));
    assert_eq!(dialled.unwrap_err().code(), Code::GatewayNotNamed);
}

#[tokio::test]
async fn a_gateway_that_was_set_back_is_refused() {
    let bench = Bench::new(1).await;
    // This machine has seen settings that the gateway has not.
    let mut ahead = Org::new(2).chain;
    let (dialled, _) = tokio::join!(bench.dial(&mut ahead, None), bench.serve(Mood::Admits));
    assert_eq!(dialled.unwrap_err().code(), Code::GatewayBehind);
    // It has lost its own copy of them but holds the anchor.
    let mut lost = bench.org.genesis_only();
    let anchor = Some(Org::new(2).chain.head().id());
    let (dialled, _) = tokio::join!(bench.dial(&mut lost, anchor), bench.serve(Mood::Admits));
    assert_eq!(dialled.unwrap_err().code(), Code::GatewayBehind);
}

#[tokio::test]
async fn settings_that_the_orgs_rules_do_not_allow_are_refused() {
    let mut bench = Bench::new(1).await;
    let later = bench.org.chain.head().bytes().to_vec();
    let mut unsigned = later.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    let of_another_org = Org::of(&SecretKey::from_seed(&[66; 32]), 1).chain.head().bytes().to_vec();
    let genesis = bench.org.chain.genesis().bytes().to_vec();
    for forged in [unsigned, of_another_org, genesis, b"junk".to_vec(), later[..later.len() - 1].to_vec()] {
        bench.forged = Some(forged);
        let mut chain = bench.org.genesis_only();
        let (dialled, _) = tokio::join!(bench.dial(&mut chain, None), bench.serve(Mood::Admits));
        let error = dialled.unwrap_err();
        assert_eq!((error.step, error.code()), (Step::Charters, Code::ChartersInvalid), "{error}");
        assert_eq!(chain.iter().count(), 1);
    }
}

#[tokio::test]
async fn nobody_there_and_no_such_host_have_their_codes() {
    let mut bench = Bench::new(0).await;
    let mut chain = bench.org.genesis_only();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    bench.address = Address::parse(&free.to_string()).unwrap();
    assert_eq!(bench.dial(&mut chain, None).await.unwrap_err().code(), Code::GatewayRefused);
    bench.address = Address::parse("no-such-host.invalid:1").unwrap();
    assert_eq!(bench.dial(&mut chain, None).await.unwrap_err().code(), Code::NameNotResolved);
}
