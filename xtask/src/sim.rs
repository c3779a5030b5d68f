//! The simulation: whole orgs in memory, each from a seed (docs/simulation.md).

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Machines of an org, LEAST-MOST
    #[arg(long, default_value = "5-25")]
    nodes: String,
    /// Virtual seconds during which things go wrong
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// One object instead of lines
    #[arg(long)]
    json: bool,
    /// Everything that happens, seed by seed
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut simulation = machine::cargo();
    simulation.args(["run", "--quiet", "--package", "muster-sim", "--", "--nodes", &options.nodes]);
    for (name, value) in [("seeds", options.seeds), ("from", options.from), ("seconds", options.seconds)] {
        simulation.arg(format!("--{name}={value}"));
    }
    simulation.args(options.json.then_some("--json"));
    simulation.args(options.verbose.then_some("--verbose"));
    machine::run(&mut simulation)
}

/// What CI runs.
pub(crate) fn check() -> Result<(), Failure> {
    let mut simulation = machine::cargo();
    simulation.args(["run", "--quiet", "--package", "muster-sim"]);
    machine::run(&mut simulation)
}
