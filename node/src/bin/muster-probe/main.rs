//! `muster-probe`: what a thief does with a machine's keys. It opens them as musterd would, makes the
//! machine's tunnels and proofs with the same code, and asks nobody whether it may: it has no member
//! list and a filter that is open to all.
//!
//! It holds one link session to each target and says when and how that ended, and every few
//! milliseconds it dials each target anew. Each outcome is one line of JSON on standard output. Tests
//! and the demonstration read from them how long a revoked machine was still served. Or it says given
//! frames in sessions of sync, as a hostile member would.

mod attack;
mod report;
mod say;
mod target;

use std::{
    fmt, io,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use identity::{HexError, OrgId, SecretKey, overlay_address};
use musterd::tunnel::{self, Allow, TunnelConfig, TunnelError, TunnelGone, TunnelPeer};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time,
};
use tpm_seal::{Custody, CustodyError, NodeSecrets, Tpm, TpmError};

use crate::{
    attack::{Attacker, Keys, Pace},
    target::{Target, TargetsError},
};

/// Reported handshakes are read and thrown away.
const EVENTS_MAX: usize = 16;

/// Keep using a machine's keys against other members, and report how they answer.
#[derive(Debug, Parser)]
#[command(name = "muster-probe", version)]
struct Arguments {
    /// Directory of the machine's state; its keys are in `keys/`.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// TPM that opens the keys; without it they are plain files.
    #[arg(long, value_name = "DEVICE")]
    tpm: Option<PathBuf>,
    /// The org's id.
    #[arg(long, value_name = "HEX", value_parser = parse_org)]
    org: OrgId,
    /// JSON list of {name, node, wireguard, address, endpoint}.
    #[arg(long, value_name = "FILE")]
    targets: PathBuf,
    /// The machine's overlay address, if its node key is not the first of its lineage.
    #[arg(long, value_name = "IPV6")]
    address: Option<Ipv6Addr>,
    /// Network interface to make.
    #[arg(long, value_name = "NAME", default_value = "muster-probe0")]
    interface: String,
    /// UDP port for WireGuard; 0 takes a free one.
    #[arg(long, default_value_t = 51_820)]
    port: u16,
    /// The targets' TCP port of conn_auth.
    #[arg(long, default_value_t = 4714)]
    auth_port: u16,
    /// Between two dials to one target.
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    interval_ms: u64,
    /// When a dial without an answer counts as a timeout.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    deadline_ms: u64,
    /// Only say these frames in sessions of sync, a session each: a JSON list of lists of bytes.
    #[arg(long, value_name = "FILE")]
    say: Option<PathBuf>,
    /// Stop by itself; otherwise on SIGTERM or SIGINT.
    #[arg(long, value_name = "MS")]
    for_ms: Option<u64>,
}

fn parse_org(text: &str) -> Result<OrgId, HexError> {
    OrgId::from_hex(text)
}

/// Why the probe did not start.
#[derive(Debug)]
enum ProbeError {
    Keys(CustodyError),
    Frames(say::FramesError),
    Runtime(io::Error),
    Targets(TargetsError),
    Tpm(TpmError),
    Tunnel(TunnelError),
    TunnelGone(TunnelGone),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(why) => write!(f, "cannot open the keys: {why}"),
            Self::Frames(why) => write!(f, "cannot read what to say: {why}"),
            Self::Runtime(why) => write!(f, "cannot start: {why}"),
            Self::Targets(why) => write!(f, "cannot read the targets: {why}"),
            Self::Tpm(why) => write!(f, "cannot use the TPM: {why}"),
            Self::Tunnel(why) => match std::error::Error::source(why) {
                Some(cause) => write!(f, "{why}: {cause}"),
                None => write!(f, "{why}"),
            },
            Self::TunnelGone(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ProbeError {}

fn main() -> ExitCode {
    tpm_seal::quiet_tpm_library();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("muster-probe: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), ProbeError> {
    let keys = open_keys(&arguments.state_dir, arguments.tpm.as_deref())?;
    let targets = target::read(&arguments.targets).map_err(ProbeError::Targets)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ProbeError::Runtime)?.block_on(probe(arguments, keys, targets))
}

fn open_keys(state_dir: &Path, tpm: Option<&Path>) -> Result<Keys, ProbeError> {
    let custody = match tpm {
        Some(device) => Custody::Tpm(Tpm::open(device).map_err(ProbeError::Tpm)?),
        None => Custody::File,
    };
    let secrets: NodeSecrets = custody.load(&state_dir.join("keys")).map_err(ProbeError::Keys)?;
    Ok(Keys {
        node: secrets.identity.expose(SecretKey::from_seed),
        wireguard: secrets.wireguard.expose(SecretKey::from_seed),
    })
}

async fn probe(arguments: Arguments, keys: Keys, targets: Vec<Target>) -> Result<(), ProbeError> {
    let config = TunnelConfig {
        interface: arguments.interface,
        address: arguments.address.unwrap_or_else(|| overlay_address(&arguments.org, &keys.node.public())),
        port: arguments.port,
        auth_port: arguments.auth_port,
        allow: vec![Allow::All],
    };
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let tunnels = tunnel::spawn(config, &keys.wireguard, events).map_err(ProbeError::Tunnel)?;
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let peers = targets.iter().map(|target| TunnelPeer {
        wireguard: target.wireguard,
        earlier: vec![],
        address: target.address,
        endpoints: vec![target.endpoint],
    });
    tunnels.set_peers(peers.collect()).await.map_err(ProbeError::TunnelGone)?;
    for target in &targets {
        tunnels.open_gate(target.wireguard).await.map_err(ProbeError::TunnelGone)?;
    }

    let pace = Pace {
        interval: Duration::from_millis(arguments.interval_ms),
        deadline: Duration::from_millis(arguments.deadline_ms),
    };
    let attacker = Arc::new(Attacker { org: arguments.org, keys, auth_port: arguments.auth_port });
    if let Some(path) = &arguments.say {
        let frames = say::read(path).map_err(ProbeError::Frames)?;
        say::all(&attacker, &targets, &frames).await;
        return Ok(());
    }
    let outcomes = attack::start(&attacker, &targets, pace);
    let names = targets.into_iter().map(|target| target.name).collect();
    report::until(outcomes, names, stop(arguments.for_ms)?).await;
    drop(tunnels);
    Ok(())
}

/// Resolves when the probe should end.
fn stop(for_ms: Option<u64>) -> Result<impl Future<Output = ()>, ProbeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ProbeError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProbeError::Runtime)?;
    Ok(async move {
        let enough = async {
            match for_ms {
                Some(ms) => time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = enough => {}
        }
    })
}
