//! The only automation of this repository: `cargo xtask demo` and `cargo xtask test` set up a fresh
//! machine by themselves and then do what their names say; the rest serves those who change the code.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod bench;
mod book;
mod demo;
mod deps;
mod fire;
mod fuzz;
mod machine;
mod models;
mod package;
mod pages;
mod sim;
mod test;
mod upgrade;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Demo, tests, checks and benchmarks of muster")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on this machine: machines join, talk, and one is revoked
    Demo(demo::Options),
    /// Partitions, kills, full disks and thefts against an org in namespaces
    Fire(fire::Options),
    /// All tests, each part with its time
    Test(test::Options),
    /// Check the law of dependencies
    Deps,
    /// Measure, beside peers, in one interleaved run
    Bench(bench::Options),
    /// The documentation as a book, with an index of all codes
    Book(book::Options),
    /// Look for bytes that break a reader, guided by coverage
    Fuzz(fuzz::Options),
    /// Let Verifpal look for attacks on models of the handshake
    Models(models::Options),
    /// The Debian package and the tarball
    Package(package::Options),
    /// Run whole orgs in memory under faults, each from a seed, and check what must hold
    Sim(sim::Options),
    /// An org of an older release, upgraded machine by machine while it is at work
    Upgrade(upgrade::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Fire(options) => fire::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Deps => deps::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Book(options) => book::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Models(options) => models::run(&options),
        Command::Package(options) => package::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Upgrade(options) => upgrade::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
