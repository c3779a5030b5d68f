//! One outside machine, from TLS to the end of its session. Decides nothing: musterd does.

use std::{net::SocketAddr, time::Duration};

use control::gateway::{ConnectionId, Exporter, FromGateway, ToGateway};
use control::text::{Bytes, Text};
use identity::{Code, limits::HANDSHAKE_DEADLINE_MS};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{mpsc, watch},
    time::{timeout, timeout_at},
};
use tokio_rustls::{TlsStream as EitherTlsStream, server::TlsStream};
use transport::{
    AwaitProof, Broken, Deadlines, Get, HELLO_PREFIX_BYTES, Incoming, Inner, Reference, Request, ServeError,
    ServerTls, Session, Status, TlsError, Upgrade, Way, after_of, encode_charters, hello_reference,
};

use crate::{
    link::{Away, Link},
    routes::{Gate, route},
};

/// What a connection is served with.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) tls: ServerTls,
    pub(crate) link: Link,
    /// Told the ids of connections that were accepted and have asked something.
    pub(crate) proven: mpsc::Sender<ConnectionId>,
    /// Turns true when the front stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Why a connection ended before its session.
#[derive(Debug)]
pub(crate) enum Turned {
    /// musterd is away or forgot the connection.
    Away,
    /// It did not finish TLS in time, or not at all.
    Broken(Broken),
    /// musterd said no.
    Refused,
    /// The front stops.
    Stopping,
    /// The request or a message was refused.
    Serve(ServeError),
    /// Not TLS, or TLS failed; the reference is the one that the other side can print.
    Tls { why: TlsError, reference: Option<Reference> },
    /// The path is not one of ours.
    NotFound,
}

type Stream = TlsStream<Way>;

/// Serves one connection to its end.
pub(crate) async fn serve(
    id: ConnectionId,
    tcp: TcpStream,
    source: SocketAddr,
    deadlines: Deadlines,
    service: Service,
) -> Result<(), Turned> {
    let mut stopping = service.stopping.clone();
    let (session, inbox) = tokio::select! {
        admitted = admit(id, tcp, source, deadlines, &service) => match admitted? {
            Some(admitted) => admitted,
            None => return Ok(()),
        },
        () = stopped(&mut stopping) => return Err(Turned::Stopping),
    };
    relay(id, session, inbox, &service, stopping).await;
    Ok(())
}

type Admitted = (Session<Stream>, mpsc::Receiver<ToGateway>);

async fn admit(
    id: ConnectionId,
    tcp: TcpStream,
    source: SocketAddr,
    deadlines: Deadlines,
    service: &Service,
) -> Result<Option<Admitted>, Turned> {
    let (tcp, reference) = speaks_tls(tcp, deadlines).await?;
    let (mut way, mut reference, mut inside) = (Way::from(tcp), reference, false);
    let mut inbox = None;
    let (upgrade, exporter) = loop {
        let secured = timeout_at(deadlines.hello(), service.tls.accept(way)).await;
        let secured = secured.map_err(|_| Turned::Broken(Broken::Deadline))?;
        let (stream, exporter) = secured.map_err(|why| Turned::Tls { why, reference })?;
        match asked(id, stream, &service.link, &mut inbox, deadlines).await? {
            Asked::Nothing => return Ok(None),
            Asked::Upgrade(upgrade) => break (upgrade, exporter),
            // Everything begins once more, for the same connection: its place, its id, its deadlines.
            Asked::Inner(inner) if !inside && is_inner(inner.target()) => {
                (way, reference) = opened(inner, deadlines).await?;
                inside = true;
            }
            Asked::Inner(inner) => {
                inner.refuse(Status::NotFound).await?;
                return Err(Turned::NotFound);
            }
        }
    };
    if route(upgrade.target()).is_none_or(|route| route.gate != Gate::Action) {
        upgrade.refuse(Status::NotFound).await?;
        return Err(Turned::NotFound);
    }
    let inbox = match inbox {
        Some(inbox) => inbox,
        None => service.link.open(id).await?,
    };
    let exporter = Text(Exporter(exporter));
    authenticate(id, upgrade, exporter, source, inbox, &service.link, deadlines).await.map(Some)
}

/// What comes after the pages.
enum Asked {
    Nothing,
    Upgrade(Upgrade<Stream>),
    Inner(Inner<Stream>),
}

/// Serves pages until something else is asked for.
async fn asked(
    id: ConnectionId,
    stream: Stream,
    link: &Link,
    inbox: &mut Option<mpsc::Receiver<ToGateway>>,
    deadlines: Deadlines,
) -> Result<Asked, Turned> {
    let mut incoming = Incoming::new(stream, deadlines);
    loop {
        match incoming.next().await {
            Ok(Request::Get(get)) => incoming = page(id, get, link, inbox, deadlines).await?,
            Ok(Request::Upgrade(upgrade)) => return Ok(Asked::Upgrade(upgrade)),
            Ok(Request::Inner(inner)) => return Ok(Asked::Inner(inner)),
            // After a page, closing is how a reader says that it is done.
            Err(ServeError::Broken(Broken::Ended)) if inbox.is_some() => return Ok(Asked::Nothing),
            Err(why) => return Err(why.into()),
        }
    }
}

fn is_inner(target: &str) -> bool {
    route(target).is_some_and(|route| route.gate == Gate::Inner)
}

/// The WebSocket through which an edge passes TLS on, and the reference of that TLS.
async fn opened(inner: Inner<Stream>, deadlines: Deadlines) -> Result<(Way, Option<Reference>), Turned> {
    let mut channel = inner.open().await?.map(EitherTlsStream::Server);
    let peeked = timeout_at(deadlines.hello(), channel.peek(HELLO_PREFIX_BYTES)).await;
    let first =
        peeked.map_err(|_| Turned::Broken(Broken::Deadline))?.map_err(|e| Turned::Broken(e.into()))?;
    if first.is_empty() {
        return Err(Turned::Broken(Broken::Ended));
    }
    let reference = hello_reference(first);
    Ok((channel.into(), reference))
}

/// Plain HTTP gets a plain answer; whatever else is not TLS gets none. An opening message that came in one
/// piece, as it does, has a reference.
async fn speaks_tls(
    mut tcp: TcpStream,
    deadlines: Deadlines,
) -> Result<(TcpStream, Option<Reference>), Turned> {
    let mut first = [0; HELLO_PREFIX_BYTES];
    let peeked = timeout_at(deadlines.hello(), tcp.peek(&mut first)).await;
    let got = peeked.map_err(|_| Turned::Broken(Broken::Deadline))?.map_err(|e| Turned::Broken(e.into()))?;
    match first {
        _ if got == 0 => Err(Turned::Broken(Broken::Ended)),
        [c, ..] if c.is_ascii_alphabetic() => {
            let told = timeout_at(deadlines.hello(), async {
                tcp.write_all(PLAIN).await?;
                tcp.shutdown().await
            });
            match told.await {
                Ok(Ok(())) | Ok(Err(_)) | Err(_) => Err(Turned::NotFound),
            }
        }
        _ => Ok((tcp, hello_reference(first.get(..got).unwrap_or_default()))),
    }
}

/// Serves the org's settings.
async fn page(
    id: ConnectionId,
    get: Get<Stream>,
    link: &Link,
    inbox: &mut Option<mpsc::Receiver<ToGateway>>,
    deadlines: Deadlines,
) -> Result<Incoming<Stream>, Turned> {
    let open = route(get.target()).is_some_and(|route| route.gate == Gate::Open);
    let Some(after) = after_of(get.target()).filter(|_| open) else {
        get.refuse(Status::NotFound).await?;
        return Err(Turned::NotFound);
    };
    let answer = async {
        let inbox = match inbox {
            Some(inbox) => inbox,
            None => inbox.insert(link.open(id).await?),
        };
        link.send(FromGateway::Charters { id, after: Text(after) }).await?;
        next(inbox, deadlines).await
    };
    match answer.await {
        Ok(ToGateway::Charters { known: true, charters, .. }) => {
            let body = encode_charters(charters.iter().map(|charter| charter.0.as_slice()));
            Ok(get.answer(&body).await?)
        }
        Ok(ToGateway::Charters { known: false, .. }) => {
            get.refuse(Status::NotFound).await?;
            Err(Turned::NotFound)
        }
        Ok(
            ToGateway::Challenge { .. }
            | ToGateway::Verdict { .. }
            | ToGateway::Data { .. }
            | ToGateway::Cut { .. },
        )
        | Err(_) => {
            get.refuse(Status::Unavailable).await?;
            Err(Turned::Away)
        }
    }
}

/// Carries the four messages between the machine and musterd.
async fn authenticate(
    id: ConnectionId,
    upgrade: Upgrade<Stream>,
    exporter: Text<Exporter>,
    source: SocketAddr,
    mut inbox: mpsc::Receiver<ToGateway>,
    link: &Link,
    deadlines: Deadlines,
) -> Result<Admitted, Turned> {
    let hello = Bytes(upgrade.hello().to_vec());
    let answer = async {
        link.send(FromGateway::Begin { id, exporter, hello, source }).await?;
        next(&mut inbox, deadlines).await
    };
    let pending: AwaitProof<Stream> = match answer.await {
        Ok(ToGateway::Challenge { line, .. }) => upgrade.challenge(&line).await?,
        Ok(ToGateway::Verdict { line, session: None, .. }) => {
            upgrade.refuse_hello(&line).await?;
            return Err(Turned::Refused);
        }
        Ok(ToGateway::Cut { .. }) => {
            upgrade.refuse(Status::BadRequest).await?;
            return Err(Turned::Refused);
        }
        Ok(ToGateway::Verdict { .. } | ToGateway::Data { .. } | ToGateway::Charters { .. }) | Err(Away) => {
            upgrade.refuse(Status::Unavailable).await?;
            return Err(Turned::Away);
        }
    };
    let (proof, pending) = pending.proof().await?;
    link.send(FromGateway::Finish { id, proof: Bytes(proof) }).await?;
    match next(&mut inbox, deadlines).await? {
        ToGateway::Verdict { line, session: Some(bounds), .. } => {
            let frame_bytes_max = usize::try_from(bounds.frame_bytes_max).unwrap_or(usize::MAX);
            Ok((pending.accept(&line, frame_bytes_max.min(FRAME_BYTES_MAX)).await?, inbox))
        }
        ToGateway::Verdict { line, session: None, .. } => {
            pending.refuse(&line).await?;
            Err(Turned::Refused)
        }
        ToGateway::Cut { .. } => Err(Turned::Refused),
        ToGateway::Challenge { .. } | ToGateway::Data { .. } | ToGateway::Charters { .. } => {
            Err(Turned::Away)
        }
    }
}

/// The next answer of musterd, which shares the peer's deadline.
async fn next(inbox: &mut mpsc::Receiver<ToGateway>, deadlines: Deadlines) -> Result<ToGateway, Away> {
    timeout_at(deadlines.verdict(), inbox.recv()).await.ok().flatten().ok_or(Away)
}

/// Waits until the front stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the front is gone, which is the same.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Moves frames until one side ends it. Any key at all is accepted for `enrol`, so a connection has to ask
/// in time, and keeps its place among those that proved nothing until musterd has answered it.
async fn relay(
    id: ConnectionId,
    session: Session<Stream>,
    mut inbox: mpsc::Receiver<ToGateway>,
    Service { link, proven, .. }: &Service,
    mut stopping: watch::Receiver<bool>,
) {
    let (mut sender, mut receiver) = session.split();
    let inward = async {
        let Ok(Ok(mut frame)) = timeout(QUESTION_DEADLINE, receiver.recv()).await else {
            return tracing::debug!(id, "accepted, and asked nothing in time");
        };
        while link.send(FromGateway::Data { id, frame: Bytes(frame) }).await.is_ok() {
            match receiver.recv().await {
                Ok(next) => frame = next,
                Err(_) => return,
            }
        }
    };
    let outward = async {
        let mut answered = false;
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = stopped(&mut stopping) => {
                    return sender.cut(Code::ShuttingDown, "the gateway is stopping").await;
                }
            };
            match message {
                Some(ToGateway::Data { frame, .. }) => {
                    if !answered && proven.send(id).await.is_err() {
                        return;
                    }
                    answered = true;
                    if sender.send(frame.0).await.is_err() {
                        return;
                    }
                }
                Some(ToGateway::Cut { code: Some(code), reason, .. }) => {
                    return sender.cut(code.0, &reason).await;
                }
                Some(ToGateway::Cut { code: None, .. }) => return sender.close().await,
                Some(
                    ToGateway::Challenge { .. } | ToGateway::Verdict { .. } | ToGateway::Charters { .. },
                )
                | None => {
                    return sender.cut(Code::GatewayUnavailable, "the gateway's musterd went away").await;
                }
            }
        }
    };
    // The first side that ends takes the other with it.
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

impl From<ServeError> for Turned {
    fn from(why: ServeError) -> Self {
        Self::Serve(why)
    }
}

impl From<Away> for Turned {
    fn from(Away: Away) -> Self {
        Self::Away
    }
}

impl Turned {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Away => Code::GatewayUnavailable,
            Self::Broken(why) => why.code(),
            Self::NotFound => Code::UpgradeRefused,
            Self::Refused => Code::RefusedWithoutReason,
            Self::Serve(why) => why.code(),
            Self::Stopping => Code::ShuttingDown,
            Self::Tls { why, .. } => why.code(),
        }
    }
}

impl core::fmt::Display for Turned {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Away => f.write_str("musterd is away"),
            Self::Broken(why) => write!(f, "{why}"),
            Self::NotFound => f.write_str("a request that is not served"),
            Self::Refused => f.write_str("refused by musterd"),
            Self::Serve(why) => write!(f, "{why}"),
            Self::Stopping => f.write_str("the gateway is stopping"),
            Self::Tls { why, .. } => write!(f, "{why}"),
        }
    }
}

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 37\r\n\r\nthis port speaks muster over TLS 1.3\n";
/// From VERDICT until the question, which whoever connects has ready.
const QUESTION_DEADLINE: Duration = Duration::from_millis(HANDSHAKE_DEADLINE_MS);
/// No action has longer frames; a larger bound from musterd would be a fault.
const FRAME_BYTES_MAX: usize = identity::limits::SYNC_FRAME_BYTES_MAX;
