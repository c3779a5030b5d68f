//! Accepts connections, keeps the table of those that proved nothing, and ends in good order.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use control::gateway::ConnectionId;
use identity::{
    Code,
    limits::{CLOSE_FLUSH_MS, LISTEN_BACKLOG, NETWORKS_PROVEN_MAX, UNPROVEN_MAX},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinSet},
    time::{Instant, sleep, timeout},
};
use transport::{Deadlines, Reference, ServerTls, Ticket, TlsError, Unproven};

use crate::{
    connection::{Service, Turned, serve},
    link::Link,
};

/// The front, before it runs.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) tls: ServerTls,
    pub(crate) link: Link,
}

/// What happens outside.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A certificate to show from now on.
    Certificate(ServerTls),
    /// Stop.
    Stop,
}

/// A running connection.
struct Running {
    id: ConnectionId,
    source: SocketAddr,
    ticket: Ticket,
    abort: AbortHandle,
}

impl Front {
    /// Runs until told to stop.
    pub(crate) async fn run(self, mut signals: mpsc::Receiver<Signal>) {
        let Self { listeners, mut tls, link } = self;
        let (stop, stopping) = watch::channel(false);
        let (arrived, mut arrivals) = mpsc::channel(ARRIVALS_QUEUED_MAX);
        let (proven_sender, mut proven) = mpsc::channel(ARRIVALS_QUEUED_MAX);
        let mut acceptors = JoinSet::new();
        for listener in listeners {
            acceptors.spawn(accept(listener, arrived.clone()));
        }
        let mut table = Unproven::new(UNPROVEN_MAX, NETWORKS_PROVEN_MAX);
        let mut connections: JoinSet<Result<(), Turned>> = JoinSet::new();
        let mut running: BTreeMap<Id, Running> = BTreeMap::new();
        let mut next_id: ConnectionId = 0;
        let mut told = None;
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Certificate(newer)) => tls = newer,
                    Some(Signal::Stop) | None => break,
                },
                Some((tcp, source, accepted)) = arrivals.recv() => {
                    let admission = table.admit(source.ip());
                    if let Some(evicted) = admission.evicted {
                        running.values().filter(|r| r.ticket == evicted).for_each(|r| r.abort.abort());
                    }
                    next_id += 1;
                    let service = Service {
                        tls: tls.clone(),
                        link: link.clone(),
                        proven: proven_sender.clone(),
                        stopping: stopping.clone(),
                    };
                    let task = serve(next_id, tcp, source, Deadlines::since(accepted), service);
                    let abort = connections.spawn(traced(next_id, source, task));
                    let entry = Running { id: next_id, source, ticket: admission.ticket, abort };
                    running.insert(entry.abort.id(), entry);
                }
                Some(id) = proven.recv() => remember(&mut table, &running, id),
                Some(ended) = connections.join_next_with_id() => {
                    let (task, refused) = match ended {
                        Ok((task, outcome)) => (task, outcome.err().and_then(CertificateRefused::of)),
                        Err(ended) => (ended.id(), None),
                    };
                    // Of those that ended too: a machine that is done with its answer at once has proved its key.
                    while let Ok(id) = proven.try_recv() {
                        remember(&mut table, &running, id);
                    }
                    if let Some(Running { id, source, ticket, .. }) = running.remove(&task) {
                        if let Some(refused) = refused {
                            refused.tell(source, &mut told);
                        }
                        table.ended(ticket);
                        link.gone(id).await;
                    }
                }
            }
        }
        drop(acceptors);
        if stop.send(true).is_err() {
            tracing::debug!("no connection is left to stop");
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(Duration::from_millis(2 * CLOSE_FLUSH_MS), all).await.is_err() {
            tracing::debug!(left = connections.len(), "connections dropped");
        }
    }
}

/// The one refusal that the operator of this gateway has to do something about.
struct CertificateRefused {
    why: TlsError,
    reference: Option<Reference>,
}

impl CertificateRefused {
    fn of(turned: Turned) -> Option<Self> {
        match turned {
            Turned::Tls { why, reference } if why.code() == Code::CertificateRefused => {
                Some(Self { why, reference })
            }
            Turned::Away
            | Turned::Broken(_)
            | Turned::NotFound
            | Turned::Refused
            | Turned::Serve(_)
            | Turned::Stopping
            | Turned::Tls { .. } => None,
        }
    }

    /// What strangers do does not fill the log: one line a second stands in it.
    fn tell(self, source: SocketAddr, told: &mut Option<Instant>) {
        let Self { why, reference } = self;
        let (code, source) = (why.code(), source.ip());
        let reference = reference.map(|reference| reference.to_string()).unwrap_or_default();
        if told.is_some_and(|at| at.elapsed() < LINE_PAUSE) {
            tracing::debug!(MUSTER_CODE = %code, reference, %source, "certificate refused: {why}");
        } else {
            tracing::warn!(MUSTER_CODE = %code, reference, %source, "certificate refused: {why}");
            *told = Some(Instant::now());
        }
    }
}

fn remember(table: &mut Unproven, running: &BTreeMap<Id, Running>, proven: ConnectionId) {
    running.values().filter(|r| r.id == proven).for_each(|r| table.proven(r.ticket));
}

async fn traced(
    id: ConnectionId,
    source: SocketAddr,
    task: impl Future<Output = Result<(), Turned>>,
) -> Result<(), Turned> {
    let ended = task.await;
    match &ended {
        Ok(()) => tracing::debug!(id, %source, "connection ended"),
        Err(why) => tracing::debug!(id, %source, code = %why.code(), %why, "connection turned away"),
    }
    ended
}

async fn accept(listener: TcpListener, arrived: mpsc::Sender<(TcpStream, SocketAddr, Instant)>) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "the socket keeps small packets back");
                }
                if arrived.send((stream, source, Instant::now())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors: trying at once would only burn the processor.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds every address of the configuration.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let listen = |&address| listen(address).map_err(|error| (address, error));
    addresses.iter().map(listen).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

const ARRIVALS_QUEUED_MAX: usize = 16;
const LINE_PAUSE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
