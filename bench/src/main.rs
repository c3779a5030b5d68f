//! Measurements beside peers and floors, interleaved in one run; medians of rounds; ratios, not times.
//!
//! `cargo xtask bench NAME` builds this for release and calls it. Nothing here is a test.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod allocations;
mod handshake;
mod org;
mod propagation;
mod roster;
mod sync;
mod table;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[arg(value_enum)]
    name: Name,
    /// Print one object last
    #[arg(long)]
    json: bool,
    /// Rounds, each measuring every row once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds a row is measured in each round
    #[arg(long, default_value_t = 400)]
    slice_ms: u64,
    /// Only the row of this name, or the rows whose names contain it; ratios then lack their anchors
    #[arg(long, default_value = "")]
    row: String,
    /// Simulated nodes of `liveness` and `propagation`
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = clap::value_parser!(u32).range(10..=20_000))]
    nodes: Vec<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Handshake,
    Liveness,
    Propagation,
    Roster,
    Sync,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.name {
        Name::Handshake => handshake::run(arguments.rounds, arguments.slice_ms, &arguments.row),
        Name::Liveness => propagation::liveness(&arguments.nodes, arguments.rounds),
        Name::Propagation => propagation::run(&arguments.nodes, arguments.rounds),
        Name::Roster => roster::run(arguments.rounds),
        Name::Sync => sync::run(arguments.rounds),
    };
    match outcome {
        Ok(report) => {
            report.print();
            if arguments.json {
                println!("{}", report.json());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A benchmark's own failure: nothing to recover from, only to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;
