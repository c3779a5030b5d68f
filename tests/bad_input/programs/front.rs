//! BI at a running gateway: what comes before TLS, in it, and as the request of whoever holds an invite.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use conn_auth::{Action, Binding, Dial, To};
use identity::{Code, Heads, Name, PublicKey, SecretKey, StatementId, encode_hex};
use lab::org::{GATEWAY_PORT, Org};
use muster_tests::raw::{Framing, Message, Raw, Side, TEXT, frame};
use org_trust::{
    Assurance, CheckedInvite, EnrolRequest, InviteManifest, NodeKeys, Redemption, Reply, Request,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use transport::{
    ClientTls,
    client::{DialError, GatewaySession, authenticate, nonce, secure},
};

use super::{Believed, block_on, hold::Hold};
use crate::{craft::Craft, harness, mutations::Draw};

/// By chance, on each of four ways; with those at musterd ten thousand.
const BEFORE_TLS: u32 = 1000;
const HEADS: u32 = 2500;
const PROOFS: u32 = 1000;
const REQUESTS: u32 = 1000;
const WARM: u32 = 100;

/// What somebody knows who holds an invite.
pub(super) struct Front {
    host: String,
    tls: ClientTls,
    gateway: PublicKey,
    invite: CheckedInvite,
    /// The address to come from, if the machine has several.
    pub(super) from: Option<IpAddr>,
}

impl Front {
    pub(super) fn of(org: &Org, invite: &str) -> Self {
        let invite = InviteManifest::parse(invite).unwrap().check().unwrap();
        Self {
            host: org.host(0).unwrap().address().to_string(),
            tls: ClientTls::new(invite.bundle().certificates().iter().map(|c| c.der())).unwrap(),
            gateway: invite.chain().head().charter().gateways[0].key,
            invite,
            from: None,
        }
    }

    async fn tcp(&self) -> TcpStream {
        let to = SocketAddr::new(self.host.parse().unwrap(), GATEWAY_PORT);
        let stream = connect(to, self.from).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn raw(&self) -> (Raw, Binding) {
        let until = Instant::now() + Duration::from_secs(10);
        let (stream, exporter) = secure(&self.tls, &self.host, self.tcp().await, until).await.unwrap();
        (Raw::new(stream, Framing::WebSocket, Side::Dialler), Binding::Tls(exporter))
    }

    fn hello(&self, key: &SecretKey) -> String {
        let (own, to, nonce) = (key.public(), self.gateway, encode_hex(&[0x4e; 32]));
        format!("muster-auth/1 pubkey={own} to={to} nonce={nonce} bind=tls action=enrol")
    }

    /// Honest as far as VERDICT. A gateway that compares lists first is asked again, as preboot does.
    pub(super) async fn session(&self, key: &SecretKey) -> GatewaySession {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.dial(key).await {
                Err(error) if error.code() == Code::HealFirst && Instant::now() < until => {
                    sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    async fn dial(&self, key: &SecretKey) -> Result<GatewaySession, DialError> {
        let until = Instant::now() + Duration::from_secs(10);
        let (stream, exporter) =
            secure(&self.tls, &self.host, transport::Way::from(self.tcp().await), until).await.unwrap();
        let action = Action::new("enrol", &[]).unwrap();
        let to = To::Key(self.gateway);
        let dial = Dial { org: self.invite.org(), key, to, binding: Binding::Tls(exporter), action };
        let pending = dial.start(nonce().unwrap()).unwrap();
        let held = (Heads([0; 32]), 0);
        authenticate(stream, &self.host, pending, held, 64 * 1024, until).await.map(|(session, _)| session)
    }

    /// What a request is answered, by a gateway that is in step.
    pub(super) async fn ask(&self, key: &SecretKey, request: Vec<u8>) -> Answer {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.ask_once(key, request.clone()).await;
            if answer != Answer::Refused(Code::HealFirst) || Instant::now() > until {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask_once(&self, key: &SecretKey, request: Vec<u8>) -> Answer {
        let mut session = self.session(key).await;
        drop(session.send(request).await);
        match timeout(Duration::from_secs(6), session.recv()).await.expect("left open") {
            Ok(reply) => match Reply::decode(&reply).unwrap() {
                Reply::Refused(code) => Answer::Refused(code),
                given @ (Reply::Admitted(_)
                | Reply::Challenge(_)
                | Reply::Share(_)
                | Reply::Records(_)
                | Reply::End { .. }
                | Reply::Submitted(_)) => Answer::Given(format!("{given:?}")),
            },
            Err(_) => Answer::Ended,
        }
    }
}

/// TCP, from an address of choice.
pub(super) async fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Refused(Code),
    Ended,
    Given(String),
}

#[test]
fn nothing_bad_is_let_in_by_a_running_gateway() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 1);
        let member = super::member::keys(&org, 0).identity.expose(SecretKey::from_seed).public();
        let made = |arguments: &[&str]| {
            let made = org.ask(0, &[&["invite", "create"], arguments].concat()).unwrap();
            (made["invite"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
        };
        let front = Front::of(&org, &made(&[]).0);
        let (cancelled, id) = made(&[]);
        org.muster(0, &["invite", "cancel", &id, "--yes"]).unwrap().ok().unwrap();
        let (spent, expired) = (made(&[]).0, made(&["--expires", "1s"]).0);
        let unix_s = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let expires = unix_s() + 1;
        let others = [Front::of(&org, &cancelled), Front::of(&org, &spent), Front::of(&org, &expired)];
        let daemons = (org.take_gateway(0).unwrap(), org.take_musterd(0).unwrap());
        let namespace = || org.host(1).unwrap().namespace();
        let warmed = namespace().run(|| {
            block_on(async {
                // The one that is spent, by an honest machine.
                let machine = Machine::new(1);
                let asked = others[1].ask(&machine.node, machine.request(&others[1])).await;
                assert!(matches!(asked, Answer::Given(_)), "{asked:?}");
                by_chance(&front, [WARM; 4], 1).await;
            });
        });
        warmed.unwrap();
        let bases = (Hold::of(daemons.0.pid()), Hold::of(daemons.1.pid()));
        let believed = Believed::of(&org);
        harness::within(Duration::from_secs(5), "it has expired", || (unix_s() > expires).then_some(()));
        let attacked = namespace().run(|| {
            block_on(async {
                by_name(&front, &others, member).await;
                by_chance(&front, [BEFORE_TLS, HEADS, PROOFS, REQUESTS], 2).await;
            });
        });
        attacked.unwrap();
        assert_eq!(Believed::of(&org), believed);
        println!("{} inputs by chance to a gateway, none accepted", BEFORE_TLS + HEADS + PROOFS + REQUESTS);
        bases.0.assert_back(daemons.0.pid(), "muster-gateway");
        bases.1.assert_back(daemons.1.pid(), "musterd");
        // And whoever is honest is served as before.
        let served = namespace().run(|| {
            block_on(async {
                let machine = Machine::new(2);
                front.ask(&machine.node, machine.request(&front)).await
            })
        });
        let served = served.unwrap();
        assert!(matches!(served, Answer::Given(_)), "{served:?}");
    })
}

/// The keys of a machine that wants to join.
struct Machine {
    node: SecretKey,
    wireguard: SecretKey,
    boot: SecretKey,
}

impl Machine {
    fn new(number: u8) -> Self {
        let key = |which: u8| SecretKey::from_seed(&[number, which].repeat(16).try_into().unwrap());
        Self { node: key(1), wireguard: key(2), boot: key(3) }
    }

    const fn keys(&self) -> NodeKeys<'_> {
        NodeKeys { node: &self.node, wireguard: &self.wireguard, boot: &self.boot }
    }

    fn request(&self, front: &Front) -> Vec<u8> {
        let (invite, key) = (front.invite.id(), front.invite.secret());
        let redemption = Redemption { invite, key, redeemer: front.gateway };
        self.asks(front.invite.org(), redemption)
    }

    fn asks(&self, org: identity::OrgId, redemption: Redemption<'_>) -> Vec<u8> {
        let name = Name::parse("bad").unwrap();
        let request = EnrolRequest::sign(&org, self.keys(), redemption, name, Assurance::File, [0; 32]);
        Request::Enrol(request.encode()).encode()
    }
}

async fn by_name(front: &Front, others: &[Front; 3], member: PublicKey) {
    let refused = Answer::Refused;
    let [cancelled, spent, expired] = others;
    let machine = Machine::new(3);
    let good = machine.request(front);
    let (org, stranger) = (front.invite.org(), SecretKey::from_seed(&[0x77; 32]));
    let (invite, key, redeemer) = (front.invite.id(), front.invite.secret(), front.gateway);
    let redemption = Redemption { invite, key, redeemer };
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let twice =
        Machine { node: Machine::new(3).node, wireguard: Machine::new(3).node, boot: Machine::new(3).boot };
    // Tag, format, redeemer, invite: then the node's key.
    let mut taken = good.clone();
    taken[66..98].copy_from_slice(member.as_bytes());
    let mut weak = good.clone();
    weak[98..130].fill(0);
    weak[98] = 1;
    let cases: Vec<(&str, Vec<u8>, Answer)> = vec![
        ("BI-enrol-empty", vec![], refused(Code::EnrolMalformed)),
        ("BI-enrol-unknown-request", vec![0xee; 40], refused(Code::EnrolMalformed)),
        (
            "BI-enrol-asks-for-everything",
            Request::Fetch(org_trust::Select::Everything).encode(),
            refused(Code::ActionNotAllowed),
        ),
        ("BI-enrol-json", b"{\"enrol\":{}}".to_vec(), refused(Code::EnrolMalformed)),
        ("BI-enrol-of-one-byte", vec![1], refused(Code::EnrolMalformed)),
        ("BI-enrol-cut-short", good[..good.len() - 1].to_vec(), refused(Code::EnrolMalformed)),
        ("BI-enrol-trailing-byte", [&good[..], &[0]].concat(), refused(Code::EnrolMalformed)),
        ("BI-enrol-another-format", changed(1), refused(Code::EnrolMalformed)),
        ("BI-enrol-key-of-small-order", weak, refused(Code::EnrolMalformed)),
        ("BI-enrol-one-key-twice", twice.request(front), refused(Code::EnrolKeyUnproven)),
        ("BI-enrol-longer-than-any", vec![1; 4098], refused(Code::EnrolMalformed)),
        (
            "BI-enrol-another-invite",
            machine.asks(org, Redemption { invite: StatementId([9; 32]), ..redemption }),
            refused(Code::InviteUnknown),
        ),
        (
            "BI-enrol-another-secret",
            machine.asks(org, Redemption { key: &stranger, ..redemption }),
            refused(Code::EnrolKeyUnproven),
        ),
        (
            "BI-enrol-another-gateway",
            machine.asks(org, Redemption { redeemer: stranger.public(), ..redemption }),
            refused(Code::NotTheGateway),
        ),
        (
            "BI-enrol-for-another-org",
            machine.asks(identity::OrgId([9; 32]), redemption),
            refused(Code::EnrolKeyUnproven),
        ),
        (
            "BI-enrol-in-another-machines-name",
            Machine::new(4).request(front),
            refused(Code::EnrolKeyUnproven),
        ),
        ("BI-enrol-with-a-members-key", taken, refused(Code::EnrolKeyUnproven)),
        ("BI-enrol-signature-flipped", changed(good.len() - 1), refused(Code::EnrolKeyUnproven)),
        ("BI-enrol-cancelled", machine.request(cancelled), refused(Code::InviteCancelled)),
        ("BI-enrol-used-up", machine.request(spent), refused(Code::InviteUsedUp)),
        ("BI-enrol-expired", machine.request(expired), refused(Code::InviteExpired)),
    ];
    let mut wrong = Vec::new();
    for (name, request, want) in cases {
        let got = front.ask(&machine.node, request).await;
        if got != want {
            wrong.push(format!("{name}: {want:?} wanted, {got:?} got"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Changes drawn from a seed to what an honest newcomer sends, in each of its steps.
async fn by_chance(front: &Front, inputs: [u32; 4], seed: u64) {
    let mut draw = Draw::new(seed);
    let machine = Machine::new(5);
    let [before_tls, heads, proofs, requests] = inputs;
    let client_hello = [&b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03"[..], &[7; 245]].concat();
    for round in 0..before_tls {
        let mut raw = Raw::new(front.tcp().await, Framing::WebSocket, Side::Dialler);
        drop(raw.bytes(&draw.mutated(&client_hello)).await);
        assert_no_verdict(&mut raw, round).await;
    }
    let good = muster_tests::raw::upgrade(front.hello(&machine.node).as_bytes());
    for round in 0..heads {
        let (mut raw, _) = front.raw().await;
        let stale = frame(TEXT, true, &[b'0'; 200]);
        drop(raw.bytes(&[draw.mutated(&good), stale].concat()).await);
        assert_no_verdict(&mut raw, round).await;
    }
    let hello = front.hello(&machine.node);
    for round in 0..proofs {
        let (mut raw, binding) = front.raw().await;
        raw.send(Message::Hello, hello.as_bytes()).await.unwrap();
        let challenge = String::from_utf8(raw.recv(Message::Challenge).await.unwrap()).unwrap();
        let honest = Craft::honest(&machine.node, binding, &hello, &challenge);
        let good = Craft { org: front.invite.org(), ..honest }.proof();
        drop(raw.bytes(&frame(TEXT, true, &draw.mutated(good.as_bytes()))).await);
        assert_no_verdict(&mut raw, round).await;
    }
    let good = machine.request(front);
    for round in 0..requests {
        let answer = front.ask(&machine.node, draw.mutated(&good)).await;
        assert!(!matches!(answer, Answer::Given(_)), "{round}: {answer:?}");
    }
}

async fn assert_no_verdict(raw: &mut Raw, round: u32) {
    raw.shutdown().await;
    let words = timeout(Duration::from_secs(6), raw.rest()).await.expect("left open");
    assert!(!words.windows(7).any(|w| w == b"ok ref="), "{round}");
}
