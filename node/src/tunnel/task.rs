//! The task that owns the tunnels, and the handle everyone else has.

use std::{fmt, io, net::Ipv6Addr, time::Instant};

use identity::{SecretKey, WireGuardKey};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time,
};
use tun_rs::AsyncDevice;

use super::{
    device::{mapped, open_tun, open_udp, restore_address},
    engine::{Engine, EngineConfig, KeyMismatch, TunnelPeer},
    filter::Allow,
    output::{Output, Stats, TunnelEvent},
};

/// Requests in flight to the task; callers wait beyond it.
const REQUESTS_MAX: usize = 64;
/// Between two looks at whether the interface has its address: kernels take it when somebody takes the
/// interface down.
const ADDRESS_LOOK: time::Duration = time::Duration::from_secs(1);
/// Packets taken from one source before the others get a turn.
const BURST: usize = 64;
/// More than our MTU, so that a longer packet shows as one and fails to verify.
const BUFFER_BYTES: usize = 2048;

/// What the tunnels need to know.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// Name of the network interface.
    pub interface: String,
    /// Our overlay address; its first 48 bits are the org's network.
    pub address: Ipv6Addr,
    /// UDP port, both families.
    pub port: u16,
    /// TCP port of conn_auth, ours and theirs.
    pub auth_port: u16,
    /// What members may reach once linked, besides conn_auth and echo.
    pub allow: Vec<Allow>,
}

/// Why there are no tunnels.
#[derive(Debug)]
#[non_exhaustive]
pub enum TunnelError {
    /// The WireGuard key does not match its public half.
    Key(KeyMismatch),
    /// The interface could not be made.
    Interface {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The UDP port could not be had.
    Port {
        /// Its number.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(mismatch) => mismatch.fmt(f),
            Self::Interface { name, .. } => write!(f, "cannot make the network interface {name}"),
            Self::Port { port, .. } => write!(f, "cannot listen on UDP port {port}"),
        }
    }
}

impl std::error::Error for TunnelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key(mismatch) => Some(mismatch),
            Self::Interface { source, .. } | Self::Port { source, .. } => Some(source),
        }
    }
}

/// The tunnels have ended: the network interface was taken away. The process should end and be started
/// anew; the sender of events is dropped at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelGone;

impl fmt::Display for TunnelGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tunnels have ended")
    }
}

impl std::error::Error for TunnelGone {}

enum Request {
    SetPeers(Vec<TunnelPeer>, oneshot::Sender<Vec<TunnelPeer>>),
    OpenGate(WireGuardKey, oneshot::Sender<bool>),
    CloseGate(WireGuardKey, oneshot::Sender<bool>),
    SetProbed(Vec<Ipv6Addr>, oneshot::Sender<()>),
    ChannelOf(Ipv6Addr, oneshot::Sender<Option<WireGuardKey>>),
    Stats(oneshot::Sender<Stats>),
}

/// How everyone else speaks to the tunnels. They end, and with them the interface, when the last handle
/// is dropped.
#[derive(Clone, Debug)]
pub struct TunnelHandle {
    requests: mpsc::Sender<Request>,
}

impl TunnelHandle {
    /// Makes `peers` the peers, all of them. When this returns, whoever is missing has lost its tunnel,
    /// session, endpoints, flows and gate. Returns the entries that were left out: ourselves, an
    /// address outside the org's network, a key or address that stands twice.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn set_peers(&self, peers: Vec<TunnelPeer>) -> Result<Vec<TunnelPeer>, TunnelGone> {
        self.ask(|answer| Request::SetPeers(peers, answer)).await
    }

    /// A link session with the member was accepted: the filter decides from now on. Says whether the
    /// member is still a peer.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn open_gate(&self, member: WireGuardKey) -> Result<bool, TunnelGone> {
        self.ask(|answer| Request::OpenGate(member, answer)).await
    }

    /// The last link session with the member ended: only conn_auth passes. Says whether
    /// the member is still a peer.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn close_gate(&self, member: WireGuardKey) -> Result<bool, TunnelGone> {
        self.ask(|answer| Request::CloseGate(member, answer)).await
    }

    /// The datagrams of SWIM pass to and from these members, and nobody else.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn set_probed(&self, members: Vec<Ipv6Addr>) -> Result<(), TunnelGone> {
        self.ask(|answer| Request::SetProbed(members, answer)).await
    }

    /// The key behind an overlay address, from the tunnels' own state, if a session with it exists.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn channel_of(&self, address: Ipv6Addr) -> Result<Option<WireGuardKey>, TunnelGone> {
        self.ask(|answer| Request::ChannelOf(address, answer)).await
    }

    /// What may be shown to a person.
    ///
    /// # Errors
    /// [`TunnelGone`].
    pub async fn stats(&self) -> Result<Stats, TunnelGone> {
        self.ask(Request::Stats).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, TunnelGone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| TunnelGone)?;
        answered.await.map_err(|_| TunnelGone)
    }
}

/// Makes the interface and the socket and starts the task. Must be called inside a tokio runtime.
/// Events that find `events` full are lost: each repeats itself or is only for show.
///
/// # Errors
/// [`TunnelError`] when the key is no WireGuard key, or the kernel gives no interface or port.
pub fn spawn(
    config: TunnelConfig,
    key: &SecretKey,
    events: mpsc::Sender<TunnelEvent>,
) -> Result<TunnelHandle, TunnelError> {
    let engine = EngineConfig { address: config.address, auth_port: config.auth_port, allow: config.allow };
    let engine =
        Engine::new(engine, key, Box::new(rand::random), Instant::now()).map_err(TunnelError::Key)?;
    let udp = open_udp(config.port).map_err(|source| TunnelError::Port { port: config.port, source })?;
    let tun = open_tun(&config.interface, config.address)
        .map_err(|source| TunnelError::Interface { name: config.interface, source })?;
    let (requests, received) = mpsc::channel(REQUESTS_MAX);
    let dual_stack = udp.local_addr().is_ok_and(|address| address.is_ipv6());
    let address = config.address;
    tokio::spawn(Task { address, engine, udp, dual_stack, tun, events }.run(received));
    Ok(TunnelHandle { requests })
}

enum Ready {
    Look,
    Request(Request),
    Tick,
    Traffic(Traffic),
}

enum Traffic {
    Network,
    Interface,
}

struct Task {
    address: Ipv6Addr,
    engine: Engine,
    udp: UdpSocket,
    dual_stack: bool,
    tun: AsyncDevice,
    events: mpsc::Sender<TunnelEvent>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let (mut datagram, mut packet) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
        let mut looks = time::interval(ADDRESS_LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        loop {
            let tick = time::Instant::from_std(self.engine.poll_timeout());
            // Requests first: whoever removes a peer waits, and the peer's packets must lose. Network and
            // interface by chance, or a flood from one would silence the other.
            let traffic = async {
                tokio::select! {
                    _ = self.udp.readable() => Traffic::Network,
                    _ = self.tun.readable() => Traffic::Interface,
                }
            };
            let ready = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => Ready::Request(request),
                    None => return,
                },
                () = time::sleep_until(tick) => Ready::Tick,
                _ = looks.tick() => Ready::Look,
                traffic = traffic => Ready::Traffic(traffic),
            };
            match ready {
                Ready::Request(request) => self.on_request(request),
                Ready::Tick => self.engine.handle_timeout(Instant::now()),
                Ready::Look => self.look_after_address(),
                Ready::Traffic(Traffic::Network) => self.on_udp(&mut datagram),
                Ready::Traffic(Traffic::Interface) => {
                    if let Err(error) = self.on_tun(&mut packet) {
                        tracing::error!(%error, "the network interface is gone");
                        return;
                    }
                }
            }
            self.flush().await;
        }
    }

    fn look_after_address(&self) {
        match restore_address(&self.tun, self.address) {
            Ok(false) => {}
            Ok(true) => tracing::warn!(address = %self.address, "the interface had lost its address"),
            Err(error) => tracing::debug!(%error, "the interface's address cannot be put back"),
        }
    }

    /// A caller that no longer waits for its answer is no concern of ours.
    fn on_request(&mut self, request: Request) {
        let unheard = match request {
            Request::SetPeers(peers, answer) => answer.send(self.engine.set_peers(peers)).is_err(),
            Request::OpenGate(member, answer) => {
                answer.send(self.engine.open_gate(&member, Instant::now())).is_err()
            }
            Request::CloseGate(member, answer) => answer.send(self.engine.close_gate(&member)).is_err(),
            Request::SetProbed(members, answer) => {
                self.engine.set_probed(&members);
                answer.send(()).is_err()
            }
            Request::ChannelOf(address, answer) => answer.send(self.engine.channel_of(address)).is_err(),
            Request::Stats(answer) => answer.send(self.engine.stats(Instant::now())).is_err(),
        };
        if unheard {
            tracing::debug!("nobody waited for the tunnels' answer");
        }
    }

    fn on_udp(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        for _ in 0..BURST {
            match self.udp.try_recv_from(buffer) {
                Ok((length, from)) => {
                    if let Some(datagram) = buffer.get(..length) {
                        self.engine.handle_datagram(from, datagram, now);
                    }
                }
                // Nothing more, or a complaint about something sent earlier, which reading it removes.
                Err(_) => return,
            }
        }
    }

    /// # Errors
    /// The interface was taken away; it would be readable for ever.
    fn on_tun(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..BURST {
            match self.tun.try_recv(buffer) {
                Ok(length) => {
                    if let Some(packet) = buffer.get(..length) {
                        self.engine.handle_packet(packet, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Does what the engine asks. A datagram or packet that cannot be delivered is lost, as IP may.
    async fn flush(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Datagram { to, bytes } => {
                    let to = if self.dual_stack { mapped(to) } else { to };
                    if let Err(error) = self.udp.send_to(&bytes, to).await {
                        tracing::trace!(%error, %to, "datagram not sent");
                    }
                }
                Output::Packet(bytes) => {
                    if let Err(error) = self.tun.send(&bytes).await {
                        tracing::trace!(%error, "packet not delivered");
                    }
                }
                Output::Event(event) => {
                    if let Err(error) = self.events.try_send(event) {
                        tracing::trace!(%error, "tunnel event lost");
                    }
                }
            }
        }
    }
}
