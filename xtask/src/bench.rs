//! Benchmarks live in the package `muster-bench` and are built for release; this only calls it. Those that
//! need machines, `boot`, `connect`, `idle` and `revoke`, are here.

mod boot;
mod connect;
mod idle;
mod revoke;

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// boot, connect, handshake, idle, liveness, propagation, revoke, roster or sync
    name: String,
    /// Print one object last
    #[arg(long)]
    json: bool,
    /// Rounds, each measuring every row once; boots of `boot`
    #[arg(long)]
    rounds: Option<u32>,
    /// Machines of `revoke`; peers of `idle`; sizes of `liveness` and `propagation`, with commas
    #[arg(long)]
    nodes: Option<String>,
    /// Percent of frames lost between the machines of `revoke`
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
    /// Between two dials of `revoke` to one machine [default: what two cores sustain]
    #[arg(long)]
    interval_ms: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    match options.name.as_str() {
        "boot" => return boot::run(options),
        "connect" => return connect::run(options),
        "idle" => return idle::run(options),
        "revoke" => return revoke::run(options),
        _ => {}
    }
    let mut command = machine::cargo();
    command.args(["run", "--quiet", "--release", "--package", "muster-bench", "--", &options.name]);
    if options.json {
        command.arg("--json");
    }
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(nodes) = &options.nodes {
        command.args(["--nodes", nodes]);
    }
    machine::run(&mut command)
}
