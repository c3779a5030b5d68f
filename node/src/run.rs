//! The daemon: brings up what the state needs, then turns what happens into inputs and effects into
//! deeds, one after the other.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use control::local::{Failed, Request, State as Stage};
use identity::{BootNonce, Code, PublicKey, SecretKey, ShareKey, limits::SWIM_QUEUED_MAX};
use org_trust::RunningImage;
use tokio::{
    net::UdpSocket,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    blobs::Blobs,
    booted, clock,
    config::{Config, Storage},
    health,
    images::{self, Images, ImagesOrder},
    keys::{Keys, KeysDone, KeysOrder},
    link::{self, Ground},
    names,
    notify::Notify,
    prepare::{self, Prepared, Unready},
    probes,
    services::{self, Offers, Services},
    sessions::SessionKey,
    sockets::{self, Asked},
    state::{
        Beginning, Decision, Dialled, Effect, Now, Outside, Proven, RoleKeyOrder, ServicesOrder, ShareOrder,
        State,
    },
    tunnel::{self, TunnelConfig, TunnelEvent, TunnelHandle},
    unready,
    writer::{self, Write, Written},
};

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A dial has ended.
    Dialled(Dialled),
    /// A session's task is done.
    Ended(SessionKey),
    /// A frame of a session.
    Frame(SessionKey, Vec<u8>),
    /// From a gateway's front.
    Outside(Outside),
    /// The disk was read for a session that fetches an image.
    ImageRead(SessionKey, Vec<Vec<u8>>),
    /// A member that was dialled hears others before it serves anybody.
    HealsFirst(PublicKey),
    /// A peer proved its key.
    Proven(Proven),
    /// The key of the gateway role is made, or could not be.
    RoleKey(Result<SecretKey, Failed>, Box<RoleKeyOrder>),
    /// Keys for shares were kept or forgotten.
    Shares(Result<Vec<ShareKey>, Failed>, Box<ShareOrder>),
    /// An order about keys was carried out, or could not be.
    Keys(Result<KeysDone, Failed>),
    /// A program sees the session that it serves come from there.
    Seen(SessionKey, SocketAddr),
    /// Why a peer closed a session, as it says; the session's end follows.
    Told(SessionKey, Code),
    /// A handshake ended before that.
    Unproven {
        /// Why.
        code: Code,
        /// In full.
        detail: String,
        /// From where.
        source: String,
    },
}

/// Why the daemon does not run at all.
#[derive(Debug)]
pub struct StartError {
    /// The code.
    pub code: Code,
    /// What exactly.
    pub detail: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.code.title(), self.detail)
    }
}

impl core::error::Error for StartError {}

/// The signals that mean something.
#[derive(Debug)]
pub struct Signals {
    stop: Signal,
    interrupt: Signal,
    reload: Signal,
}

/// A signal that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stop: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Asks {
        tokio::select! {
            _ = self.stop.recv() => Asks::Stop,
            _ = self.interrupt.recv() => Asks::Stop,
            _ = self.reload.recv() => Asks::Reload,
        }
    }
}

/// Runs until told to stop. `reload` reads the configuration anew.
///
/// # Errors
/// [`StartError`] when not even status can be served, or another musterd runs here.
pub async fn run(mut config: Config, reload: impl Fn() -> Option<Config>) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(|error| failed(Code::FileProblem, &error))?;
    let (asked, mut requests) = mpsc::channel(REQUESTS_QUEUED_MAX);
    let mut control = JoinSet::new();
    let path = config.control_socket.clone();
    let at = |error: io::Error| {
        let code =
            if error.kind() == io::ErrorKind::AddrInUse { Code::StoreInUse } else { Code::FileProblem };
        StartError { code, detail: format!("{}: {error}", path.display()) }
    };
    let listener = sockets::listen(&path).map_err(at)?;
    if let Some(at) = config.health {
        // A port that is taken is no reason to leave the org.
        match health::listen(at).await {
            Ok(listener) => drop(control.spawn(health::serve(listener, asked.clone()))),
            Err(error) => tracing::error!("no health and metrics at {at}: {error}"),
        }
    }
    let _names = match config.names {
        Some(at) => match names::serve(at, asked.clone()).await {
            Ok(server) => Some(server),
            Err(error) => {
                tracing::error!("no names at {at}: {error}");
                None
            }
        },
        None => None,
    };
    control.spawn(sockets::control(listener, asked));
    let notify = Notify::new();
    loop {
        let settings = config.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare::prepare(&settings)).await;
        let prepared = prepared.map_err(|error| failed(Code::FileProblem, &error))?;
        let up = match prepared {
            Ok(prepared) => Daemon::start(&config, prepared),
            Err(why) => Err(why),
        };
        match up {
            Ok(daemon) => match Box::pin(daemon.run(&mut signals, &mut requests, &notify, &reload)).await {
                Asks::Stop => break,
                // With other keys.
                Asks::Reload => config = reload().unwrap_or(config),
            },
            Err(why) if why.code == Code::StoreInUse => {
                return Err(StartError { code: why.code, detail: why.detail });
            }
            Err(why) => match unready::run(&why, &mut signals, &mut requests, &notify).await {
                Asks::Stop => break,
                Asks::Reload => config = reload().unwrap_or(config),
            },
        }
    }
    notify.stopping();
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::debug!(%error, "control socket not removed");
    }
    Ok(())
}

struct Daemon {
    state: State,
    ground: Arc<Ground>,
    tunnel: TunnelHandle,
    writes: mpsc::Sender<Write>,
    store: std::thread::JoinHandle<()>,
    inputs: mpsc::Receiver<Input>,
    events: mpsc::Receiver<TunnelEvent>,
    probes: Arc<UdpSocket>,
    heard: mpsc::Receiver<probes::Heard>,
    written: mpsc::Receiver<Written>,
    images: mpsc::Sender<ImagesOrder>,
    images_thread: std::thread::JoinHandle<()>,
    /// The image that this machine was booted by, until it is known to be good.
    on_trial: Option<RunningImage>,
    tasks: JoinSet<()>,
    /// As at the start.
    config: Arc<Config>,
    slept: Duration,
}

impl Daemon {
    fn start(config: &Config, prepared: Prepared) -> Result<Self, Unready> {
        let Prepared { keys, replica, store, replace, beside, shares } = prepared;
        let keys = Arc::new(keys);
        let org = replica.org();
        let node = keys.node.public();
        // From the key it was admitted with, whatever keys it has had since.
        let first = replica.roster().member_of(&node).map_or(node, member_crdt::Member::first);
        let address = identity::overlay_address(&org, &first);
        let (told, events) = mpsc::channel(EVENTS_QUEUED_MAX);
        let tunnels = TunnelConfig {
            interface: config.interface.clone(),
            address,
            port: config.port,
            auth_port: config.auth_port,
            allow: config.allow.clone(),
        };
        let tunnel = tunnel::spawn(tunnels, &keys.wireguard, told).map_err(Unready::tunnel)?;
        let (sender, inputs) = mpsc::channel(INPUTS_QUEUED_MAX);
        let ground = Arc::new(Ground {
            org,
            keys: Arc::clone(&keys),
            address,
            interface: config.interface.clone(),
            auth_port: config.auth_port,
            tunnel: tunnel.clone(),
            inputs: sender,
        });
        let mut tasks = JoinSet::new();
        let listener = link::listen(&ground).map_err(|error| Unready::port(config.auth_port, &error))?;
        tasks.spawn(link::accept(Arc::clone(&ground), listener));
        let probes = probes::open(&ground).map_err(|error| Unready::port(config.auth_port, &error))?;
        let (hear, heard) = mpsc::channel(SWIM_QUEUED_MAX);
        tasks.spawn(probes::receive(Arc::clone(&probes), hear));
        if let Some(path) = &config.gateway_socket {
            let at = |error: io::Error| Unready::file(path, &error);
            let listener = sockets::listen(path).map_err(at)?;
            let group = sockets::group_of(path).map_err(at)?;
            tasks.spawn(sockets::gateway(listener, group, ground.inputs.clone()));
        }
        let (done, written) = mpsc::channel(1);
        let (writes, store) =
            writer::spawn(store, done).map_err(|error| Unready::file(&config.state_dir, &error))?;
        let endpoints = endpoints(config, address.into());
        tracing::info!(
            org = %replica.chain().genesis().charter().name,
            node = keys.node.public().short(),
            %address,
            interface = config.interface,
            port = config.port,
            "up"
        );
        let running = booted::image(config);
        let blobs = blobs_of(config);
        let images = Images::of(&config.state_dir, running.clone()).with(blobs.clone());
        let (images, images_thread) = images::spawn(images, ground.inputs.clone())
            .map_err(|error| Unready::file(&config.state_dir, &error))?;
        let boot_nonce = BootNonce(rand::random());
        let beginning =
            Beginning { keys, replica, boot_nonce, randomness: rand::make_rng(), endpoints, replace, beside };
        let mut state = State::new(beginning, now());
        state.on_policy(config.policy, now());
        state.on_attestation(config.attestation.clone());
        state.on_shares(shares, config.storage == Storage::File);
        state.on_blobs(blobs);
        state.on_services(Services { declared: config.exposed.clone(), kept: kept_services(config) });
        if let Some(release) = running.as_ref().and_then(|image| image.given_up) {
            state.on_given_up(release);
        }
        let slept = clock::slept();
        let config = Arc::new(config.clone());
        Ok(Self {
            state,
            ground,
            tunnel,
            writes,
            store,
            inputs,
            events,
            probes,
            heard,
            written,
            images,
            images_thread,
            on_trial: running,
            tasks,
            config,
            slept,
        })
    }

    async fn run(
        mut self,
        signals: &mut Signals,
        requests: &mut mpsc::Receiver<Asked>,
        notify: &Notify,
        reload: &impl Fn() -> Option<Config>,
    ) -> Asks {
        self.perform().await;
        notify.ready();
        let mut pulse = tokio::time::interval(notify.pulse());
        loop {
            let deadline = self.state.timeout().map_or_else(far_away, Instant::from_std);
            tokio::select! {
                biased;
                asks = signals.next() => match asks {
                    Asks::Stop => break,
                    Asks::Reload => self.reload(reload()),
                },
                _ = pulse.tick() => notify.alive(&self.state.summary()),
                () = sleep_until(deadline) => self.state.on_timeout(now()),
                Some(written) = self.written.recv() => self.state.on_written(written, now()),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                Some(input) = self.inputs.recv() => self.handle(input),
                Some(event) = self.events.recv() => {
                    self.notice_sleep();
                    self.state.on_tunnel(event, now());
                }
                Some((source, bytes)) = self.heard.recv() => self.state.on_datagram(source, &bytes, now()),
                Some(Asked { request, reply, stream }) = requests.recv() => {
                    if request == (Request::Status {}) && let Ok(stats) = self.tunnel.stats().await {
                        self.state.on_stats(stats);
                    }
                    match (request, stream) {
                        (Request::Connect { node, action }, Some(stream)) => {
                            self.state.on_connect((&node, &action), reply, stream);
                        }
                        (request, _) => self.state.on_request(request, reply, now()),
                    }
                }
            }
            self.notice_sleep();
            self.perform().await;
            if let Some(image) = self.on_trial.take_if(|_| self.state.stage() == Stage::Ready) {
                self.tasks.spawn(booted::passed(image));
            }
            if self.state.wants_restart() {
                tracing::info!("beginning anew with other keys");
                Box::pin(self.stop()).await;
                return Asks::Reload;
            }
        }
        notify.stopping();
        Box::pin(self.stop()).await;
        Asks::Stop
    }

    /// Before anything else is heard: nobody knows what happened meanwhile.
    fn notice_sleep(&mut self) {
        let slept = clock::slept();
        if slept > self.slept + SLEEP_MIN {
            self.state.on_resumed(now());
        }
        self.slept = self.slept.max(slept);
    }

    fn handle(&mut self, input: Input) {
        self.notice_sleep();
        let now = now();
        match input {
            Input::Dialled(dialled) => self.state.on_dialled(dialled, now),
            Input::Ended(key) => self.state.on_ended(key, now),
            Input::Frame(key, frame) => self.state.on_frame(key, &frame, now),
            Input::Outside(outside) => self.state.on_outside(outside, now),
            Input::HealsFirst(node) => self.state.on_heals_first(node),
            Input::ImageRead(key, frames) => self.state.on_image_read(key, Some(frames)),
            Input::Proven(proven) => self.state.on_proven(proven, now),
            Input::RoleKey(made, order) => self.state.on_role_key(made, *order, now),
            Input::Keys(done) => self.state.on_keys(done, now),
            Input::Shares(kept, order) => {
                self.state.on_shares_kept(kept, self.config.storage == Storage::File, *order);
            }
            Input::Seen(key, at) => self.state.on_seen(key, at),
            Input::Told(key, code) => self.state.on_told(key, code, now),
            Input::Unproven { code, detail, source } => self.state.on_unproven(code, detail, source, now),
        }
    }

    /// Effects in their order: a gate is open before the other side is told that it may use it.
    async fn perform(&mut self) {
        let mut effects: VecDeque<Effect> = self.state.effects().collect();
        while let Some(effect) = effects.pop_front() {
            let done = match effect {
                Effect::CloseGate(member) => self.tunnel.close_gate(member).await.map(drop),
                Effect::Datagram(to, bytes) => {
                    probes::send(&self.probes, &self.ground, to, &bytes);
                    Ok(())
                }
                Effect::Decide(reply, decision) => {
                    if let Err(Decision::Open { key, .. }) = reply.send(*decision) {
                        // The connection ended, or made room for another, before its verdict.
                        self.state.on_ended(key, now());
                        effects.extend(self.state.effects());
                    }
                    Ok(())
                }
                Effect::Dial(order) => {
                    self.tasks.spawn(link::dial(Arc::clone(&self.ground), *order));
                    Ok(())
                }
                Effect::Images(order) => {
                    match self.images.try_send(order).map_err(TrySendError::into_inner) {
                        Err(ImagesOrder::Ask(key, ..)) => {
                            self.state.on_image_read(key, None);
                            effects.extend(self.state.effects());
                        }
                        // Programs that wait are told that nobody answers.
                        Ok(())
                        | Err(
                            ImagesOrder::Drop(..)
                            | ImagesOrder::Offer(..)
                            | ImagesOrder::Show(_)
                            | ImagesOrder::Upload(..),
                        ) => {}
                    }
                    Ok(())
                }
                Effect::MakeRoleKey(order) => {
                    self.tasks.spawn(make_role_key(Arc::clone(&self.config), order, self.ground.inputs.clone()));
                    Ok(())
                }
                Effect::Keys(order) => {
                    let (config, inputs) = (Arc::clone(&self.config), self.ground.inputs.clone());
                    self.tasks.spawn(carry_out(config, order, inputs));
                    Ok(())
                }
                Effect::Shares(order) => {
                    self.tasks.spawn(keep_shares(Arc::clone(&self.config), order, self.ground.inputs.clone()));
                    Ok(())
                }
                Effect::Services(order) => {
                    self.keep_services(*order).await;
                    effects.extend(self.state.effects());
                    Ok(())
                }
                Effect::OpenGate(member) => self.tunnel.open_gate(member).await.map(drop),
                Effect::Probe(members) => self.tunnel.set_probed(members).await,
                Effect::Peers(peers) => self.tunnel.set_peers(peers).await.map(|left_out| {
                    for peer in left_out {
                        tracing::warn!(address = %peer.address, "no tunnel for a member: its key or address is not usable");
                    }
                }),
                Effect::Write(write) => {
                    if self.writes.try_send(write).is_err() {
                        tracing::error!("the store's thread is gone");
                    }
                    Ok(())
                }
            };
            if let Err(gone) = done {
                tracing::error!("{gone}");
            }
        }
    }

    /// Waited for: of two commands the second begins with what the first has left.
    async fn keep_services(&mut self, order: ServicesOrder) {
        let (state_dir, offers) = (self.config.state_dir.clone(), order.services.kept.clone());
        let kept = tokio::task::spawn_blocking(move || services::keep(&state_dir, &offers)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        let failed = |error: io::Error| Failed { code: Code::FileProblem.into(), detail: error.to_string() };
        self.state.on_services_kept(kept.map_err(failed), order);
    }

    fn reload(&mut self, config: Option<Config>) {
        if let Some(config) = config {
            tracing::info!(
                "settings read again: endpoints, [members], [attestation] and [expose] apply at once, the others at the next start"
            );
            self.state.on_policy(config.policy, now());
            self.state.on_attestation(config.attestation.clone());
            self.state.on_services_declared(config.exposed.clone());
            self.state.on_endpoints(endpoints(&config, self.ground.address.into()), now());
        }
    }

    /// Everybody is told, within the time that a close frame has; then the disk gets what is left.
    async fn stop(mut self) {
        self.state.on_stop();
        let until = Instant::now() + STOP_DEADLINE;
        while !self.state.is_quiet() {
            let step = async {
                tokio::select! {
                    Some(input) = self.inputs.recv() => self.handle(input),
                    Some(written) = self.written.recv() => self.state.on_written(written, now()),
                    Some(_) = self.tasks.join_next() => {}
                }
            };
            if timeout_at(until, step).await.is_err() {
                break;
            }
            self.perform().await;
        }
        if let Some(path) = &self.config.gateway_socket
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "gateway socket not removed");
        }
        self.tasks.shutdown().await;
        drop((self.writes, self.images));
        self.written.close();
        self.inputs.close();
        let threads = move || (self.store.join(), self.images_thread.join());
        if tokio::task::spawn_blocking(threads).await.is_err() {
            tracing::debug!("the threads of store and images were not joined");
        }
        // The interface and the port are free again once the tunnels' task is gone.
        drop((self.state, self.ground, self.tunnel));
        let gone = async { while self.events.recv().await.is_some() {} };
        if timeout_at(Instant::now() + STOP_DEADLINE, gone).await.is_err() {
            tracing::debug!("the tunnels are still there");
        }
    }
}

/// A disk that refuses leaves this machine a member that keeps nothing for others.
fn blobs_of(config: &Config) -> Option<Arc<Blobs>> {
    let room = config.blobs.room()?;
    match Blobs::open(&config.state_dir, room) {
        Ok(blobs) => Some(Arc::new(blobs)),
        Err(error) => {
            tracing::error!(MUSTER_CODE = %Code::FileProblem, %error, "no files are kept for others");
            None
        }
    }
}

/// A file that cannot be read leaves this machine a member that offers less.
fn kept_services(config: &Config) -> Offers {
    services::kept(&config.state_dir).unwrap_or_else(|error| {
        tracing::error!(MUSTER_CODE = %Code::FileProblem, %error, "what `muster expose` added is not offered");
        Offers::new()
    })
}

/// Disk and TPM block, so this is a task of its own.
async fn make_role_key(config: Arc<Config>, order: Box<RoleKeyOrder>, inputs: mpsc::Sender<Input>) {
    let made = tokio::task::spawn_blocking(move || Keys::make_gateway(&config)).await;
    let failed = |code: Code, why: &dyn fmt::Display| Failed { code: code.into(), detail: why.to_string() };
    let made = match made {
        Ok(made) => made.map_err(|why| failed(why.code(), &why)),
        Err(error) => Err(failed(Code::TpmFailure, &error)),
    };
    if inputs.send(Input::RoleKey(made, order)).await.is_err() {
        tracing::debug!("stopping; nobody waits for the role's key");
    }
}

/// The same.
async fn keep_shares(config: Arc<Config>, order: Box<ShareOrder>, inputs: mpsc::Sender<Input>) {
    let keep = order.keep.clone();
    let kept = tokio::task::spawn_blocking(move || match keep {
        Some(key) => Keys::keep_share(&config, &key),
        None => Keys::forget_shares(&config).map(|()| Vec::new()),
    });
    let failed = |code: Code, why: &dyn fmt::Display| Failed { code: code.into(), detail: why.to_string() };
    let kept = match kept.await {
        Ok(kept) => kept.map_err(|why| failed(why.code(), &why)),
        Err(error) => Err(failed(Code::TpmFailure, &error)),
    };
    if inputs.send(Input::Shares(kept, order)).await.is_err() {
        tracing::debug!("stopping; nobody waits for the keys for shares");
    }
}

/// The same.
async fn carry_out(config: Arc<Config>, order: KeysOrder, inputs: mpsc::Sender<Input>) {
    let done = tokio::task::spawn_blocking(move || order.carry_out(&config)).await;
    let failed = |code: Code, why: &dyn fmt::Display| Failed { code: code.into(), detail: why.to_string() };
    let done = match done {
        Ok(done) => done.map_err(|why| failed(why.code(), &why)),
        Err(error) => Err(failed(Code::TpmFailure, &error)),
    };
    if inputs.send(Input::Keys(done)).await.is_err() {
        tracing::debug!("stopping; nobody waits for the keys");
    }
}

fn now() -> Now {
    Now { at: std::time::Instant::now(), unix_ns: clock::unix_ns() }
}

/// Where others reach this machine: as configured, or every address of its interfaces.
fn endpoints(config: &Config, own: IpAddr) -> Vec<SocketAddr> {
    if !config.endpoints.is_empty() {
        return config.endpoints.clone();
    }
    let Ok(interfaces) = getifaddrs::getifaddrs() else { return Vec::new() };
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && *address != own,
    };
    let addresses = interfaces.filter(|interface| interface.name != config.interface);
    let addresses = addresses.filter_map(|interface| interface.address.ip_addr()).filter(reachable);
    let mut endpoints: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, config.port)).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.truncate(identity::limits::ENDPOINTS_MAX);
    endpoints
}

fn failed(code: Code, why: &dyn fmt::Display) -> StartError {
    StartError { code, detail: why.to_string() }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Two clocks are read one after the other; what lies between is no sleep.
const SLEEP_MIN: Duration = Duration::from_secs(1);
/// Inputs that wait for the state; tasks wait beyond it, and so do the peers behind them.
const INPUTS_QUEUED_MAX: usize = 1024;
const EVENTS_QUEUED_MAX: usize = 256;
const REQUESTS_QUEUED_MAX: usize = 64;
/// For close frames and the last write.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
