//! Benchmarks live in the package `muster-bench` and are built for release; this only calls it.

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// handshake or roster
    name: String,
    /// Print one object last
    #[arg(long)]
    json: bool,
    /// Rounds, each measuring every row once
    #[arg(long)]
    rounds: Option<u32>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut command = machine::cargo();
    command.args(["run", "--quiet", "--release", "--package", "muster-bench", "--", &options.name]);
    if options.json {
        command.arg("--json");
    }
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    machine::run(&mut command)
}
