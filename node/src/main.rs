//! The binary `musterd`.

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser};
use identity::Code;
use musterd::{
    config::{Config, Reading},
    run,
};
use tracing_subscriber::EnvFilter;

/// The daemon of one member of a muster org.
#[derive(Debug, Parser)]
#[command(name = "musterd", version, about)]
struct Arguments {
    /// Settings; without it /etc/muster/muster.toml, which may be missing.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info, debug, or a filter like musterd=debug.
    #[arg(long, env = "MUSTER_LOG", default_value = DEFAULT_LOG, value_name = "FILTER")]
    log: String,
    /// Reads the settings, says whether they are in order, and ends.
    #[arg(long)]
    check: bool,
    /// Writes the settings and what is wrong with them as JSON to standard output, and ends.
    #[arg(long, hide = true)]
    survey: bool,
    /// Writes its page of the manual to standard output, and ends.
    #[arg(long, hide = true)]
    manual: bool,
}

fn main() -> ExitCode {
    // Before any other thread and any secret.
    tpm_seal::quiet_tpm_library();
    let hardening = tpm_seal::harden_process();
    let arguments = Arguments::parse();
    if arguments.manual {
        let page = clap_mangen::Man::new(Arguments::command()).section("8");
        return page.render(&mut std::io::stdout()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if arguments.survey {
        let survey = Reading::of(arguments.config.as_deref(), environment()).survey();
        let written = serde_json::to_writer(std::io::stdout(), &survey);
        return written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    journal::begin("musterd", filter);
    if !hardening.undumpable {
        tracing::warn!("this process can be dumped with its keys");
    }
    let descriptors = transport::raise_descriptor_limit();
    tracing::debug!(descriptors, "may be opened");
    let load = || Config::load(arguments.config.as_deref(), environment());
    let config = match load() {
        Ok(config) => config,
        Err(error) => return fail(error.code(), &error),
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    let reload = || match load() {
        Ok(config) => Some(config),
        Err(error) => {
            tracing::warn!(MUSTER_CODE = %error.code(), "settings not read again: {error}");
            None
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    match runtime {
        Ok(runtime) => match runtime.block_on(run::run(config, reload)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.code, &error),
        },
        Err(error) => fail(Code::FileProblem, &error),
    }
}

/// Variables that are not text are nobody's setting.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

fn fail(code: Code, why: &dyn std::fmt::Display) -> ExitCode {
    tracing::error!(MUSTER_CODE = %code, "{why}; {}", code.remedy());
    ExitCode::from(code.exit_status())
}

/// The WireGuard library warns of every handshake that is not answered: a member that is off is no news.
const DEFAULT_LOG: &str = "info,boringtun=error";
/// The state's task and the tunnels' task run beside each other; more would only move them about.
const WORKERS: usize = 2;
