//! muster-gateway: the TLS front of a gateway.
//!
//! ```text
//! outside machines --TLS 1.3, WebSocket--> muster-gateway --unix socket--> musterd
//! ```
//!
//! It ends TLS and HTTP, holds strangers to their bounds and deadlines, and moves bytes. It holds the
//! TLS key and no other, knows no member, verifies no identity and decides nothing: musterd beside it,
//! under another user, does. While musterd is away it answers 503.

mod config;
mod connection;
mod front;
mod link;
mod routes;
mod survey;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser};
use identity::Code;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal as UnixSignal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    config::Config,
    front::{Front, Signal, bind},
    link::Link,
};

/// The TLS front of a gateway: machines outside the overlay join and boot through it.
#[derive(Debug, Parser)]
#[command(name = "muster-gateway", version, max_term_width = 100)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/muster/muster-gateway.toml")]
    config: PathBuf,
    /// Checks the configuration, the certificate and its key, and exits.
    #[arg(long)]
    check: bool,
    /// Prints every setting, where it is from, and all that is wrong, as JSON, and exits.
    #[arg(long)]
    survey: bool,
    /// Writes its page of the manual to standard output, and exits.
    #[arg(long, hide = true)]
    manual: bool,
}

/// What ends the program, as people see it.
struct Failure {
    code: Code,
    detail: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let arguments = Arguments::parse();
    if arguments.manual {
        let page = clap_mangen::Man::new(Arguments::command()).section("8");
        return page.render(&mut io::stdout()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if arguments.survey {
        let survey = survey::survey(&arguments.config, credentials().as_deref());
        let written = serde_json::to_writer(io::stdout(), &survey);
        return written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    journal::begin("muster-gateway", filter);
    let descriptors = transport::raise_descriptor_limit();
    tracing::debug!(descriptors, "may be opened");
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, detail }) => {
            eprintln!("muster-gateway: {code}: {}: {detail}", code.title());
            eprintln!("  {}", code.remedy());
            ExitCode::from(code.exit_status())
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = load(&arguments.config)?;
    let tls = config
        .server_tls(credentials().as_deref())
        .map_err(|why| Failure { code: why.code(), detail: why.to_string() })?;
    if arguments.check {
        return Ok(());
    }
    let not_bound = |(address, error): (SocketAddr, io::Error)| Failure {
        code: bind_code(&error),
        detail: format!("{address}: {error}"),
    };
    let mut listeners = handed_over().map_err(|error| Failure {
        code: Code::ConfigBadValue,
        detail: format!("a socket of systemd: {error}"),
    })?;
    if listeners.is_empty() {
        listeners = bind(&config.listen).map_err(not_bound)?;
    }
    let no_signals = |error: io::Error| Failure { code: Code::FileProblem, detail: error.to_string() };
    let hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "listening");
        }
    }
    let (link, queue) = Link::new();
    let linked = tokio::spawn(link::run(config.musterd.clone(), queue));
    let (signals, received) = mpsc::channel(1);
    let watching = tokio::spawn(watch(arguments.config.clone(), hangup, terminate, interrupt, signals));
    notify(&[NotifyState::Ready, NotifyState::Status("listening")]);
    Front { listeners, tls, link }.run(received).await;
    watching.abort();
    // The last handle is gone, so this ends after what was queued.
    if let Err(error) = linked.await {
        tracing::error!(%error, "the link to musterd ended badly");
    }
    Ok(())
}

/// Sockets that systemd holds for it by `muster-gateway.socket`; with them the setting `listen` says nothing.
fn handed_over() -> io::Result<Vec<TcpListener>> {
    let mut held = ListenFd::from_env();
    let count = held.len();
    let take = |at| {
        let listener = held.take_tcp_listener(at)?.ok_or(io::ErrorKind::InvalidInput)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    (0..count).map(take).collect()
}

/// Where systemd puts what the unit loads for it.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Turns signals into what the front does.
async fn watch(
    config: PathBuf,
    mut hangup: UnixSignal,
    mut terminate: UnixSignal,
    mut interrupt: UnixSignal,
    front: mpsc::Sender<Signal>,
) {
    loop {
        let what = tokio::select! {
            _ = hangup.recv() => {
                if let Ok(now) = NotifyState::monotonic_usec_now() {
                    notify(&[NotifyState::Reloading, now]);
                }
                let newer = reload(&config);
                notify(&[NotifyState::Ready]);
                match newer {
                    Some(signal) => signal,
                    None => continue,
                }
            }
            _ = terminate.recv() => Signal::Stop,
            _ = interrupt.recv() => Signal::Stop,
        };
        if matches!(what, Signal::Stop) {
            notify(&[NotifyState::Stopping]);
        }
        if front.send(what).await.is_err() {
            return;
        }
    }
}

/// The certificate as it lies on disk now; connections that stand keep theirs.
fn reload(config: &Path) -> Option<Signal> {
    match Config::load(config).and_then(|config| config.server_tls(credentials().as_deref())) {
        Ok(tls) => {
            tracing::info!("certificate loaded");
            Some(Signal::Certificate(tls))
        }
        Err(why) => {
            tracing::error!(code = %why.code(), %why, "the certificate in use is kept");
            None
        }
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path)
        .map_err(|why| Failure { code: why.code(), detail: format!("{}: {why}", path.display()) })
}

fn bind_code(error: &io::Error) -> Code {
    if error.kind() == io::ErrorKind::AddrInUse { Code::PortInUse } else { Code::FileProblem }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
