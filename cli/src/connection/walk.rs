//! The way to a gateway, by the dialler's own steps.

use std::{
    io::ErrorKind::{HostUnreachable, NetworkUnreachable},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use conn_auth::{Action, ChallengeError, Reference, VerdictError};
use diagnosis::{Certificate, Check, Sent, Spoken, Stage, edge_in, explain};
use identity::{Code, Heads, limits::DIAL_DEADLINE_MS};
use org_trust::CharterChain;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use transport::{
    Address, Broken, ClientTls, First, HeadFault, Shown, Tap, TlsError,
    client::{self, DialError, DialFault, GatewayDial, Step},
};

use super::{NO_ANSWER, known::Known, skipped};
use crate::{
    failure::{Failure, Outcome},
    random,
};

/// What was found on the way.
#[derive(Default)]
pub(crate) struct Walked {
    pub(crate) checks: Vec<Check>,
    /// What the server showed.
    pub(crate) certificates: Vec<Certificate>,
    /// The dialler's own code; none if it came through.
    pub(crate) refused: Option<Code>,
    /// By which both ends name the TLS connection.
    pub(crate) tls_reference: Option<Reference>,
    /// By which the gateway names the handshake.
    pub(crate) reference: Option<Reference>,
}

const OF_TLS: &[Stage] = &[Stage::Chain, Stage::Name, Stage::Time, Stage::Anchor];
const AFTER_TLS: &[Stage] = &[Stage::Settings, Stage::WebSocket, Stage::Exporter, Stage::ConnAuth];

pub(crate) fn run(address: &Address, known: &Known) -> Outcome<Walked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Code::FileProblem, e))?;
    let mut walked = Walked { checks: vec![known.bundle.clone()], ..Walked::default() };
    let went = runtime.block_on(walk(address, known, &mut walked));
    // A name server that does not answer keeps a thread, which nobody has to wait for.
    runtime.shutdown_background();
    went.map(|()| walked)
}

async fn walk(address: &Address, known: &Known, walked: &mut Walked) -> Outcome<()> {
    let until = tokio::time::Instant::now() + Duration::from_millis(DIAL_DEADLINE_MS);
    let began = Instant::now();
    let (found, connected) = tokio::join!(
        tokio::time::timeout_at(until, lookup_host((address.host(), address.port()))),
        client::connect(address, until)
    );
    let found = found.map(|found| found.map(|found| found.collect::<Vec<SocketAddr>>()));
    let tcp = match connected {
        Ok(tcp) => tcp,
        Err(why) => {
            walked.refused = Some(why.code());
            walked.checks.extend(unreached(address, &found, &why));
            let edge = if address.through_edge() { &[Stage::Edge][..] } else { &[] };
            let rest = [edge, &[Stage::Tls], OF_TLS, AFTER_TLS].concat();
            walked.checks.extend(skipped(&rest, "nobody was reached"));
            return Ok(());
        }
    };
    let took = began.elapsed();
    walked.checks.push(Check::ok(Stage::Resolve, listed(&found)));
    walked.checks.push(Check::ok(Stage::Tcp, connected_to(&tcp, took)));
    if !address.through_edge() {
        return beyond(tcp, address, known, walked, until).await;
    }
    match passed(tcp, address, walked, until).await {
        Some(channel) => Box::pin(beyond(channel, address, known, walked, until)).await,
        None => {
            let rest = [&[Stage::Tls], OF_TLS, AFTER_TLS].concat();
            walked.checks.extend(skipped(&rest, "the edge was not passed"));
            Ok(())
        }
    }
}

/// The WebSocket through an edge that opens TLS.
async fn passed(
    tcp: TcpStream,
    address: &Address,
    walked: &mut Walked,
    until: tokio::time::Instant,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let (tap, first) = Tap::new(tcp);
    let stream = match client::secure_to_edge(address, tap, until).await {
        Ok(stream) => stream,
        Err(why) => {
            walked.refused = Some(why.code());
            walked.checks.push(not_tls(Stage::Edge, &why, &first));
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| Certificate::read(chain.first()?));
    let by = shown.map_or_else(|| "an edge".to_owned(), |shown| format!("{:?}", shown.subject));
    let (tap, answer) = Tap::new(stream);
    let opened = client::through(address, tap, until).await;
    let header = edge_in(&answer.received());
    let header = header.map_or_else(String::new, |header| format!(" (the answer has {header:?})"));
    match opened {
        Ok(channel) => {
            let seen = format!("TLS 1.3 with {by}, which counts for nothing; WebSocket opened{header}");
            walked.checks.push(Check::ok(Stage::Edge, seen));
            Some(channel)
        }
        Err(why) => {
            walked.refused = Some(why.code());
            walked.checks.push(Check::fail(Stage::Edge, why.code(), format!("{why}{header}")));
            None
        }
    }
}

/// TLS with the gateway, and what is behind it.
async fn beyond<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: &Address,
    known: &Known,
    walked: &mut Walked,
    until: tokio::time::Instant,
) -> Outcome<()> {
    let Some(anchors) = &known.anchors else {
        walked.refused = known.bundle.code;
        let rest = [&[Stage::Tls], OF_TLS, AFTER_TLS].concat();
        walked.checks.extend(skipped(&rest, "without a bundle nothing is trusted"));
        return Ok(());
    };
    let tls = ClientTls::trusting(anchors);
    let tls = tls.map_err(|why| Failure::new(why.code(), why))?;
    let (watched, witness) = tls.witnessed().map_err(|why| Failure::new(why.code(), why))?;
    let (tap, first) = Tap::new(stream);
    let secured = client::secure(&watched, address.host(), tap, until).await;
    walked.tls_reference = first.reference();
    let reference = first.reference().map_or_else(String::new, |reference| format!(", ref {reference}"));
    let shown = witness.shown();
    match (&secured, &shown) {
        (Ok(_), _) => walked.checks.push(Check::ok(Stage::Tls, format!("TLS 1.3{reference}"))),
        // TLS itself went as far as the certificate: that is what failed.
        (Err(_), Some(Shown { refused: Some(_), .. })) => {
            let seen = format!("TLS 1.3, ended by this side for the certificate{reference}");
            walked.checks.push(Check::ok(Stage::Tls, seen));
        }
        (Err(why), _) => walked.checks.push(not_tls(Stage::Tls, why, &first)),
    }
    match &shown {
        Some(shown) => judged(walked, address, known, shown),
        None => walked.checks.extend(skipped(OF_TLS, "no certificate was shown")),
    }
    let (stream, exporter) = match secured {
        Ok(secured) => secured,
        Err(why) => {
            walked.refused = Some(why.code());
            walked.checks.extend(skipped(AFTER_TLS, "TLS did not come to stand"));
            return Ok(());
        }
    };
    let Some(mut chain) = known.chain.clone() else {
        walked.checks.extend(skipped(AFTER_TLS, "which org it is is not known here"));
        return Ok(());
    };
    // Any key may ask to enrol, and one that nobody has seen shows nothing of this machine.
    let key = random::key()?;
    let action = Action::new("enrol", &[]).map_err(|why| Failure::new(Code::ActionUnknown, why))?;
    let dial = GatewayDial {
        address,
        tls: &tls,
        anchor: Some(chain.head().id()),
        key: &key,
        action,
        heads: Heads([0; 32]),
        count: 0,
    };
    let (stream, answers) = Tap::new(stream);
    proved(walked, dial, stream, exporter, &mut chain, &answers, until).await;
    Ok(())
}

async fn proved<S: AsyncRead + AsyncWrite + Unpin>(
    walked: &mut Walked,
    dial: GatewayDial<'_>,
    stream: S,
    exporter: [u8; 32],
    chain: &mut CharterChain,
    answers: &First,
    until: tokio::time::Instant,
) {
    let outcome = Box::pin(client::prove(dial, stream, exporter, chain, until)).await;
    let settings = || Check::ok(Stage::Settings, format!("version {}", chain.head().charter().version));
    let upgraded = || Check::ok(Stage::WebSocket, "opened");
    let ours = || Check::ok(Stage::Exporter, "the gateway proved its key for this TLS connection");
    match outcome {
        Ok((session, accepted)) => {
            session.close().await;
            walked.reference = Some(accepted.reference());
            let seen = format!("gateway {}, ref {}", accepted.server().short(), accepted.reference());
            walked.checks.extend([settings(), upgraded(), ours(), Check::ok(Stage::ConnAuth, seen)]);
        }
        Err(why) => {
            walked.refused = Some(why.code());
            walked.reference = reference_of(&why);
            let edge = edge_in(&answers.received());
            let edge = edge.map_or_else(String::new, |header| format!(" (the answer has {header:?})"));
            let (stage, code) = placed(&why);
            let before = [settings(), upgraded(), ours()];
            walked.checks.extend(before.into_iter().filter(|check| check.stage < stage));
            walked.checks.push(Check::fail(stage, code, format!("{why}{edge}")));
            let after: Vec<_> = AFTER_TLS.iter().copied().filter(|later| *later > stage).collect();
            walked.checks.extend(skipped(&after, "it did not come to that"));
        }
    }
}

/// Where a failure behind TLS belongs, and its narrower code.
fn placed(why: &DialError) -> (Stage, Code) {
    let DialError { step, fault } = why;
    let code = why.code();
    match (step, fault) {
        (Step::Charters, DialFault::Status(status)) if *status != 503 => {
            (Stage::Settings, Code::WebSocketStatus)
        }
        (Step::Resolve | Step::Tcp | Step::Edge | Step::Tls | Step::Charters, _) => (Stage::Settings, code),
        (_, DialFault::Status(status)) if *status != 503 => (Stage::WebSocket, Code::WebSocketStatus),
        (_, DialFault::Head(HeadFault::Header("sec-websocket-accept"))) => {
            (Stage::WebSocket, Code::WebSocketBadAccept)
        }
        (_, DialFault::Status(_) | DialFault::Head(_)) => (Stage::WebSocket, code),
        (Step::Challenge, DialFault::Broken(_)) => (Stage::WebSocket, code),
        // Signed by a gateway of the org, and not for this connection.
        (_, DialFault::Challenge(ChallengeError::ProofWrong)) => (Stage::Exporter, Code::EdgeTerminatesTls),
        _ => (Stage::ConnAuth, code),
    }
}

fn reference_of(why: &DialError) -> Option<Reference> {
    if let DialFault::Challenge(ChallengeError::Refused { reference })
    | DialFault::Verdict(VerdictError::Refused { reference, .. }) = &why.fault
    {
        return Some(*reference);
    }
    None
}

/// The chain, by the verifier's own verdict.
fn judged(walked: &mut Walked, address: &Address, known: &Known, shown: &Shown) {
    let anchors = known.anchors.as_ref().map_or(&[][..], |bundle| bundle.certificates());
    let explained = explain(&Sent {
        certificates: &shown.certificates,
        host: address.host(),
        anchors,
        retired: &known.retired,
        now_unix_s: i64::try_from(shown.at_unix_s).unwrap_or(i64::MAX),
        refused: shown.refused,
    });
    walked.checks.extend(explained.checks);
    walked.certificates = explained.certificates;
}

fn not_tls(stage: Stage, why: &DialError, first: &First) -> Check {
    let spoken = Spoken::of(&first.received());
    let says = match &spoken {
        Spoken::Other(text) => format!("it answers {text:?}"),
        Spoken::Http => "the answer begins with HTTP/".to_owned(),
        Spoken::OldTls | Spoken::Tls if matches!(why.fault, DialFault::Tls(TlsError::Io(_))) => {
            "closed during TLS, without a word".to_owned()
        }
        Spoken::OldTls | Spoken::Tls => why.to_string(),
    };
    Check::fail(stage, spoken.code().unwrap_or_else(|| why.code()), says)
}

type Looked = Result<std::io::Result<Vec<SocketAddr>>, tokio::time::error::Elapsed>;

fn unreached(address: &Address, found: &Looked, why: &DialError) -> Vec<Check> {
    let resolved = matches!(found, Ok(Ok(list)) if !list.is_empty());
    if resolved && why.step >= Step::Tcp {
        let no_route = matches!(why.fault, DialFault::Os(NetworkUnreachable | HostUnreachable));
        let code = if no_route { Code::NoRoute } else { why.code() };
        let seen = if matches!(why.fault, DialFault::Broken(Broken::Deadline)) {
            format!("{address}: no answer within {} s", DIAL_DEADLINE_MS / 1_000)
        } else {
            format!("{address}: {}", why.fault)
        };
        return vec![Check::ok(Stage::Resolve, listed(found)), Check::fail(Stage::Tcp, code, seen)];
    }
    let (code, seen) = match found {
        Err(_) => (Code::ResolverSilent, format!("{}: no answer in time", address.host())),
        // Of the C library's words for it, this one means that nobody could be asked.
        Ok(Err(error)) if error.to_string().contains("Temporary failure") => {
            (Code::ResolverSilent, format!("{}: {error}", address.host()))
        }
        Ok(Err(error)) => (Code::NameNotResolved, format!("{}: {error}", address.host())),
        Ok(Ok(_)) if why.code() == NO_ANSWER => (Code::ResolverSilent, format!("{why}")),
        Ok(Ok(_)) => (why.code(), format!("{}: no address", address.host())),
    };
    vec![
        Check::fail(Stage::Resolve, code, seen),
        Check::skip(Stage::Tcp, "there is no address to connect to"),
    ]
}

fn listed(found: &Looked) -> String {
    let Ok(Ok(addresses)) = found else { return "found".to_owned() };
    let mut texts: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    texts.dedup();
    texts.join(", ")
}

fn connected_to(tcp: &TcpStream, took: Duration) -> String {
    let peer = tcp.peer_addr().map_or_else(|_| "connected".to_owned(), |peer| format!("connected to {peer}"));
    format!("{peer} in {} ms", took.as_millis())
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
