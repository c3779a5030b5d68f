//! Connections between members, through the tunnels: accepting, dialling, and moving a session's
//! bytes. What is decided is decided by the state; nothing here knows a member.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use conn_auth::{Accept, Accepted, Action, Bind, Binding, Dial, KeyProven, Reference, To};
use control::{
    local::{Answer, Connected, Ping},
    text::Bytes,
};
use identity::{
    Code, OrgId, WireGuardKey,
    limits::{
        BLOB_QUIET_MS, CLOSE_FLUSH_MS, DIAL_DEADLINE_MS, HEAL_DEADLINE_MS, LISTEN_BACKLOG,
        NETWORKS_PROVEN_MAX, UNPROVEN_MAX,
    },
};
use org_trust::BlobReply;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use transport::{
    AUTH_PATH, AwaitVerdict, Deadlines, Incoming, Request, Session, SessionError, Status, Ticket, Unproven,
    client,
};

use crate::{
    blobs,
    keys::Keys,
    pump,
    run::Input,
    sessions::{Cut, Ends, Purpose, SessionKey},
    state::{Asking, Connecting, Decision, Dialled, Echo, Errand, Failure, Order, Proven, Serve},
    tunnel::TunnelHandle,
};

/// What every connection's task needs.
#[derive(Debug)]
pub struct Ground {
    /// The org.
    pub org: OrgId,
    /// This machine's keys.
    pub keys: Arc<Keys>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// The interface of the overlay; connections are bound to it both ways.
    pub interface: String,
    /// The port of conn_auth.
    pub auth_port: u16,
    /// The tunnels.
    pub tunnel: TunnelHandle,
    /// The state's ear.
    pub inputs: mpsc::Sender<Input>,
}

/// Listens on the overlay address, for what comes out of the tunnels and nothing else.
///
/// # Errors
/// The address or port cannot be had.
pub fn listen(ground: &Ground) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind_device(Some(ground.interface.as_bytes()))?;
    socket.bind(SocketAddr::V6(SocketAddrV6::new(ground.address, ground.auth_port, 0, 0)))?;
    socket.listen(LISTEN_BACKLOG)
}

/// Accepts until the state is gone. Only members reach this port, since others have no tunnel, and a
/// tunnel carries its member's address alone: who floods makes room for himself.
pub async fn accept(ground: Arc<Ground>, listener: TcpListener) {
    let mut tasks = JoinSet::new();
    let mut unproven = Unproven::by_address(UNPROVEN_MAX, NETWORKS_PROVEN_MAX);
    let (over, mut overs) = mpsc::channel::<(Ticket, Option<Box<Proved>>)>(OVERS_QUEUED_MAX);
    let mut waiting: BTreeMap<Ticket, AbortHandle> = BTreeMap::new();
    loop {
        tokio::select! {
            () = ground.inputs.closed() => return,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            Some((ticket, proved)) = overs.recv() => {
                waiting.remove(&ticket);
                match proved {
                    // From here on nobody ends the task: its session would stay registered.
                    Some(proved) => {
                        unproven.proven(ticket);
                        let ground = Arc::clone(&ground);
                        tasks.spawn(async move { serve(&ground, *proved).await });
                    }
                    None => unproven.ended(ticket),
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, SocketAddr::V6(source))) => {
                    let admission = unproven.admit((*source.ip()).into());
                    if let Some(evicted) = admission.evicted.and_then(|ticket| waiting.remove(&ticket)) {
                        AbortHandle::abort(&evicted);
                    }
                    let (ground, over, ticket) = (Arc::clone(&ground), over.clone(), admission.ticket);
                    let handle = tasks.spawn(async move {
                        let proved = prove(&ground, stream, *source.ip()).await.map(Box::new);
                        // Nobody listens when the daemon stops.
                        drop(over.send((ticket, proved)).await);
                    });
                    waiting.insert(ticket, handle);
                }
                Ok((_, SocketAddr::V4(_))) => {}
                Err(error) => {
                    // Out of descriptors or the like: existing sessions go on, new ones wait.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A session that was opened, and the task's ends of it.
struct Opened {
    session: Session<TcpStream>,
    key: SessionKey,
    purpose: Purpose,
    ends: Ends,
    serve: Option<Box<Serve>>,
}

/// A peer that proved its key and waits for the verdict.
struct Proved {
    connection: AwaitVerdict<TcpStream>,
    proven: KeyProven,
    source: Ipv6Addr,
}

async fn serve(ground: &Ground, proved: Proved) {
    if let Some(Opened { session, key, purpose, ends, serve }) = decide(ground, proved).await {
        if let Some(serve) = serve {
            return match *serve {
                Serve::Program(program) => pump::serve(ground, session, key, ends, program).await,
                Serve::Keep(blobs, member) => {
                    blobs::session::serve(ground, session, key, ends, (blobs, member)).await;
                }
            };
        }
        // Whoever is dialled for these sends back what comes, which means nothing else.
        let echo = matches!(purpose, Purpose::Link | Purpose::Ping);
        carry(ground, session, key, ends, echo).await;
    }
}

/// The first three messages, seen from the acceptor. Nothing is registered yet.
async fn prove(ground: &Ground, stream: TcpStream, source: Ipv6Addr) -> Option<Proved> {
    at_once(&stream);
    let deadlines = Deadlines::since(Instant::now());
    // No tunnel, no channel binding, no answer.
    let client = ground.tunnel.channel_of(source).await.ok()??;
    let unproven = |code, detail| Input::Unproven { code, detail, source: source.to_string() };
    let upgrade = match Incoming::new(stream, deadlines).next().await {
        Ok(Request::Upgrade(upgrade)) if upgrade.target() == AUTH_PATH => upgrade,
        Ok(Request::Upgrade(upgrade)) => return over(upgrade.refuse(Status::NotFound).await),
        Ok(Request::Get(get)) => return over(get.refuse(Status::NotFound).await),
        // In a tunnel nothing stands in between.
        Ok(Request::Inner(inner)) => return over(inner.refuse(Status::NotFound).await),
        Err(why) => return tell(ground, unproven(why.code(), why.to_string())).await,
    };
    let binding = Binding::WireGuard { client, server: own(ground) };
    let accept = Accept { org: ground.org, key: &ground.keys.node, binding };
    let pending = match accept.on_hello(upgrade.hello(), rand::random()) {
        Ok(pending) => pending,
        Err(why) => {
            over::<(), _>(upgrade.refuse(Status::BadRequest).await);
            return tell(ground, unproven(why.code(), why.to_string())).await;
        }
    };
    let connection = match upgrade.challenge(pending.challenge()).await {
        Ok(connection) => connection,
        Err(why) => return tell(ground, unproven(why.code(), why.to_string())).await,
    };
    let (proof, connection) = match connection.proof().await {
        Ok(proof) => proof,
        Err(why) => return tell(ground, unproven(why.code(), why.to_string())).await,
    };
    let proven = match pending.on_proof(&proof) {
        Ok(proven) => proven,
        Err(why) => {
            over::<(), _>(connection.refuse(&Reference(rand::random()).verdict_no()).await);
            return tell(ground, unproven(why.code(), why.to_string())).await;
        }
    };
    Some(Proved { connection, proven, source })
}

/// The fourth.
async fn decide(ground: &Ground, proved: Proved) -> Option<Opened> {
    let Proved { connection, proven, source } = proved;
    let (reply, decided) = oneshot::channel();
    ground.inputs.send(Input::Proven(Proven { proven, source, reply })).await.ok()?;
    match decided.await.ok()? {
        Decision::Open { verdict, key, purpose, frame_bytes_max, mut ends, serve } => {
            // A change that came after the decision has ended the session already.
            let late = ends.cut.try_recv().is_ok();
            let line = verdict.filter(|_| !late).unwrap_or_default();
            if !late && let Ok(session) = connection.accept(&line, frame_bytes_max).await {
                keep_alive(session.get_ref(), purpose);
                return Some(Opened { session, key, purpose, ends, serve });
            }
            tell(ground, Input::Ended(key)).await
        }
        Decision::Refuse { verdict, .. } => over(connection.refuse(&verdict.unwrap_or_default()).await),
    }
}

/// Reaches a member, and stays with the session.
pub async fn dial(ground: Arc<Ground>, order: Order) {
    let Order { node, purpose, .. } = order;
    let (result, session, times) = match reach_healed(&ground, &order).await {
        Ok((session, accepted, times)) => (Ok(accepted), Some(session), times),
        Err(failure) => (Err(failure), None, Times::default()),
    };
    let failed = result.as_ref().err().cloned();
    let reference = result.as_ref().ok().map(|accepted| accepted.reference().to_string());
    let (reply, decided) = oneshot::channel();
    if ground.inputs.send(Input::Dialled(Dialled { node, purpose, result, reply })).await.is_err() {
        return;
    }
    let errand = order.errand;
    let opened = match (decided.await, session) {
        (Ok(Decision::Open { key, ends, .. }), Some(session)) => Ok((session, key, ends)),
        (Ok(Decision::Refuse { code, .. }), _) => {
            Err(failed.unwrap_or_else(|| Failure { code, detail: code.title().to_owned() }))
        }
        (Ok(Decision::Open { .. }) | Err(_), _) => return,
    };
    match (opened, errand) {
        (Ok((session, key, ends)), Some(Errand::Echo(echo))) => {
            measure(&ground, session, key, ends, Measure { node, address: order.address, times, echo }).await;
        }
        (Ok((session, key, ends)), Some(Errand::Ask(asking))) => {
            ask(&ground, session, key, ends, asking).await;
        }
        (Ok((session, key, ends)), Some(Errand::Connect(connecting))) => {
            let Connecting { name, reply, stream } = connecting;
            let (address, reference) = (order.address, reference.unwrap_or_default());
            let connected = Connected { name, node: node.into(), address, reference };
            pump::connect(&ground, session, key, ends, (connected, reply, stream)).await;
        }
        (Ok((session, key, ends)), None) => carry(&ground, session, key, ends, false).await,
        (Err(failure), Some(errand)) => answer(errand.into_reply(), failure.answer()),
        (Err(_), None) => {}
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    connect: Duration,
    auth: Duration,
}

/// Reaches a member, also one that has just started and hears others first, or lacks a change.
async fn reach_healed(
    ground: &Ground,
    order: &Order,
) -> Result<(Session<TcpStream>, Accepted, Times), Failure> {
    let until = Instant::now() + Duration::from_millis(HEAL_DEADLINE_MS) + HEAL_RETRY;
    loop {
        match reach(ground, order).await {
            Err(Failure { code: Code::HealFirst | Code::Unsettled, .. })
                if order.purpose != Purpose::Sync && Instant::now() < until =>
            {
                tell::<()>(ground, Input::HealsFirst(order.node)).await;
                tokio::time::sleep(HEAL_RETRY).await;
            }
            reached => return reached,
        }
    }
}

async fn reach(ground: &Ground, order: &Order) -> Result<(Session<TcpStream>, Accepted, Times), Failure> {
    let began = Instant::now();
    let until = began + Duration::from_millis(DIAL_DEADLINE_MS);
    let failure = |code: Code, detail: String| Failure { code, detail };
    let stream = match timeout_at(until, connect(ground, order.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failure(Code::PeerUnreachable, error.to_string())),
        Err(_) => return Err(failure(Code::PeerUnreachable, "no answer through the tunnel".to_owned())),
    };
    at_once(&stream);
    keep_alive(&stream, order.purpose);
    let connected = Instant::now();
    let server = ground.tunnel.channel_of(order.address).await.ok().flatten();
    let pairs = [(order.node, order.wireguard)].into_iter().chain(order.earlier.iter().copied());
    let Some((node, wireguard)) = pairs.into_iter().find(|(_, wireguard)| server == Some(*wireguard)) else {
        return Err(failure(Code::TunnelMismatch, "the tunnel is not the member's".to_owned()));
    };
    let own_fault = |why: &dyn std::fmt::Display| failure(Code::ClientProofWrong, why.to_string());
    let action = Action::new(order.purpose.action(), &[]).map_err(|why| own_fault(&why))?;
    let bound = action.rule(Bind::WireGuard).map_or(0, |rule| rule.frame_bytes_max);
    let binding = Binding::WireGuard { client: own(ground), server: wireguard };
    let nonce = client::nonce().map_err(|why| own_fault(&why))?;
    let pending = Dial { org: ground.org, key: &ground.keys.node, to: To::Key(node), binding, action }
        .start(nonce)
        .map_err(|why| own_fault(&why))?;
    let host = format!("[{}]", order.address);
    let (session, accepted) = client::authenticate(stream, &host, pending, order.held, bound, until)
        .await
        .map_err(|why| failure(why.code(), why.to_string()))?;
    let times = Times { connect: connected - began, auth: connected.elapsed() };
    Ok((session, accepted, times))
}

async fn connect(ground: &Ground, address: Ipv6Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v6()?;
    socket.bind_device(Some(ground.interface.as_bytes()))?;
    socket.bind(SocketAddr::V6(SocketAddrV6::new(ground.address, 0, 0, 0)))?;
    socket.connect(SocketAddr::V6(SocketAddrV6::new(address, ground.auth_port, 0, 0))).await
}

/// Moves a session's bytes until it ends. `echo`: what comes is sent back, and means nothing else.
async fn carry(
    ground: &Ground,
    mut session: Session<TcpStream>,
    key: SessionKey,
    mut ends: Ends,
    echo: bool,
) {
    loop {
        // Being cut goes before everything: from then on nothing else is sent.
        let outgoing = tokio::select! {
            biased;
            cut = &mut ends.cut => return end(ground, session, key, cut.ok()).await,
            frame = ends.frames.recv() => match frame {
                Some(frame) => frame,
                None => return end(ground, session, key, None).await,
            },
            frame = session.recv() => match frame {
                Ok(frame) if echo => frame,
                Ok(frame) => {
                    if ground.inputs.send(Input::Frame(key, frame)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(why) => return ended(ground, key, &why).await,
            },
        };
        tokio::select! {
            biased;
            cut = &mut ends.cut => return end(ground, session, key, cut.ok()).await,
            sent = session.send(outgoing) => if let Err(why) = sent {
                return ended(ground, key, &why).await;
            },
        }
    }
}

struct Measure {
    node: identity::PublicKey,
    address: Ipv6Addr,
    times: Times,
    echo: Echo,
}

async fn measure(
    ground: &Ground,
    mut session: Session<TcpStream>,
    key: SessionKey,
    mut ends: Ends,
    measure: Measure,
) {
    let Measure { node, address, times, echo } = measure;
    let mut echo_us = Vec::new();
    let mut failure = None;
    for number in 0..u64::from(echo.count) {
        let began = Instant::now();
        let round = async {
            session.send(number.to_le_bytes().to_vec()).await?;
            session.recv().await
        };
        let round = tokio::select! {
            biased;
            cut = &mut ends.cut => {
                failure = cut.ok().map(|cut| Failure { code: cut.code, detail: cut.reason });
                break;
            }
            round = timeout(Duration::from_millis(DIAL_DEADLINE_MS), round) => round,
        };
        match round {
            Ok(Ok(frame)) if frame == number.to_le_bytes() => echo_us.push(micros(began.elapsed())),
            Ok(Ok(_)) | Err(_) => {
                failure = Some(Failure { code: Code::PeerUnreachable, detail: "no echo".to_owned() });
                break;
            }
            Ok(Err(why)) => {
                failure = Some(Failure { code: why.code(), detail: why.to_string() });
                break;
            }
        }
    }
    let measured = failure.map_or_else(
        || {
            Answer::Ping(Ping {
                name: echo.name.clone(),
                node: node.into(),
                address,
                connect_us: micros(times.connect),
                auth_us: micros(times.auth),
                echo_us,
            })
        },
        |failure| failure.answer(),
    );
    answer(echo.reply, measured);
    end(ground, session, key, None).await;
}

/// Asks one question after the other, as a program wants it, and gives it the answers as they came.
async fn ask(ground: &Ground, mut session: Session<TcpStream>, key: SessionKey, ends: Ends, asking: Asking) {
    let Ends { mut cut, .. } = ends;
    let Asking { questions, reply } = asking;
    let mut frames: Vec<Bytes> = Vec::new();
    let asked = async {
        for question in questions {
            session.send(question.encode()).await?;
            for _ in 0..question.replies() {
                let frame = session.recv().await?;
                let is_refused = matches!(BlobReply::decode(&frame), Ok(BlobReply::Refused(_)));
                frames.push(frame.into());
                if is_refused {
                    return Ok::<_, SessionError>(());
                }
            }
        }
        Ok(())
    };
    let asked = tokio::select! {
        biased;
        cut = &mut cut => Err(cut.ok()),
        asked = timeout(Duration::from_millis(BLOB_QUIET_MS), asked) => Ok(asked),
    };
    match asked {
        Ok(Ok(Ok(()))) => {
            answer(reply, Answer::Blob(frames));
            end(ground, session, key, None).await;
        }
        Ok(Ok(Err(why))) => {
            answer(reply, Failure { code: why.code(), detail: why.to_string() }.answer());
            ended(ground, key, &why).await;
        }
        Ok(Err(_)) => {
            let detail = "it stopped answering".to_owned();
            answer(reply, Failure { code: Code::PeerUnreachable, detail }.answer());
            end(ground, session, key, None).await;
        }
        Err(cut) => {
            let (code, detail) = match &cut {
                Some(cut) => (cut.code, cut.reason.clone()),
                None => (Code::ShuttingDown, String::new()),
            };
            answer(reply, Failure { code, detail }.answer());
            end(ground, session, key, cut).await;
        }
    }
}

/// A peer that is cut has its tunnel as long as it has not heard why, within the time for that: it
/// answers the close frame or closes, and whatever else it says is not listened to.
pub(crate) async fn end(ground: &Ground, session: Session<TcpStream>, key: SessionKey, cut: Option<Cut>) {
    match cut {
        Some(Cut { code, reason }) => {
            let (sender, mut receiver) = session.split();
            sender.cut(code, &reason).await;
            let heard = async { while receiver.recv().await.is_ok() {} };
            if timeout(Duration::from_millis(CLOSE_FLUSH_MS), heard).await.is_err() {
                tracing::debug!("a peer that was cut did not answer");
            }
        }
        None => session.close().await,
    }
    let _: Option<()> = tell(ground, Input::Ended(key)).await;
}

pub(crate) async fn ended(ground: &Ground, key: SessionKey, why: &SessionError) {
    tracing::debug!(MUSTER_CODE = %why.code(), "session ended: {why}");
    if let SessionError::Closed { code: Some(code), .. } = why {
        let _: Option<()> = tell(ground, Input::Told(key, *code)).await;
    }
    let _: Option<()> = tell(ground, Input::Ended(key)).await;
}

/// Tells the state, which may be gone.
pub(crate) async fn tell<T>(ground: &Ground, input: Input) -> Option<T> {
    if ground.inputs.send(input).await.is_err() {
        tracing::debug!("stopping");
    }
    None
}

/// A refusal was written, or the peer did not wait for it.
fn over<T, E: std::fmt::Display>(written: Result<(), E>) -> Option<T> {
    if let Err(why) = written {
        tracing::trace!("the refusal did not get away: {why}");
    }
    None
}

fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    if reply.send(answer).is_err() {
        tracing::debug!("nobody waited for the answer");
    }
}

fn own(ground: &Ground) -> WireGuardKey {
    ground.keys.wireguard.public().to_wireguard()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Small messages leave at once.
fn at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a socket that waits to fill its packets");
    }
}

/// A peer that vanishes is noticed by the kernel, without words of ours.
fn keep_alive(stream: &TcpStream, purpose: Purpose) {
    use rustix::net::sockopt;
    let (idle, between, probes) = match purpose {
        Purpose::Sync => SYNC_KEEP_ALIVE,
        Purpose::Blob
        | Purpose::Put
        | Purpose::Link
        | Purpose::Ping
        | Purpose::Service(_)
        | Purpose::Outside(_) => LINK_KEEP_ALIVE,
    };
    // A program may read as slowly as it likes, which the kernel would take for a peer that is gone.
    let is_service = matches!(purpose, Purpose::Service(_));
    let patience = u32::try_from((idle + between * probes).as_millis()).unwrap_or(u32::MAX);
    let set = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, idle))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, between))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, probes))
        .and_then(|()| match is_service {
            true => Ok(()),
            false => sockopt::set_tcp_user_timeout(stream, patience),
        });
    if let Err(error) = set {
        tracing::debug!(%error, "a socket without keep-alive");
    }
}

/// Between tries at a member that hears others first.
const HEAL_RETRY: Duration = Duration::from_millis(200);
const OVERS_QUEUED_MAX: usize = 64;
const PAUSE: Duration = Duration::from_millis(100);
/// Idle time before the kernel asks whether the peer is there, time between its questions, and how
/// many: news must not wait long behind a neighbour that is gone, and another one is easily found.
const SYNC_KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(2), Duration::from_secs(1), 3);
/// A link outlives a short outage of the network below, since what runs over it would. A machine may have
/// hundreds, so each asks seldom: who is gone from the list is cut by the list, and not by this.
const LINK_KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
