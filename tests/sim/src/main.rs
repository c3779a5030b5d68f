//! Runs seeds on all cores and says what they came to. `cargo xtask sim` calls it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::{
    ops::RangeInclusive,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use muster_sim::{Options, Outcome, Totals, run};

/// Runs a whole org in memory, once for each seed, and checks what must hold.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Machines of an org, least and most
    #[arg(long, default_value = "5-25", value_parser = nodes)]
    nodes: RangeInclusive<usize>,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let outcomes = run_all(&arguments);
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    let mut converged: Vec<u64> = Vec::new();
    for outcome in &outcomes {
        totals.add(&outcome.totals);
        converged.extend(outcome.converged_ms);
        if outcome.violation.is_some() {
            failed.push(outcome.seed);
        }
    }
    converged.sort_unstable();
    say(&arguments, &totals, &failed, &converged, began.elapsed());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(arguments: &Arguments) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let options = Options {
        nodes: arguments.nodes.clone(),
        seconds: arguments.seconds,
        keeps_lines: arguments.verbose,
        ..Options::default()
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = thread::scope(|scope| {
        let work = || {
            let mut outcomes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= arguments.seeds {
                    return outcomes;
                }
                let outcome = run(arguments.from + number, &options);
                tell(arguments, &outcome);
                outcomes.push(Outcome { lines: Vec::new(), ..outcome });
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

/// One seed is over: what failed is said at once, and how to see it again.
fn tell(arguments: &Arguments, outcome: &Outcome) {
    for line in &outcome.lines {
        eprintln!("{line}");
    }
    if let Some(violation) = &outcome.violation {
        let (least, most) = (arguments.nodes.start(), arguments.nodes.end());
        eprintln!(
            "seed {}: {} does not hold after {:.3} s: {}\n  replay: cargo xtask sim --from {} --seeds 1 --nodes {least}-{most} --seconds {} -v",
            outcome.seed,
            violation.invariant,
            violation.at_s,
            violation.detail,
            outcome.seed,
            arguments.seconds
        );
    } else if arguments.verbose {
        eprintln!("seed {}: trace {}", outcome.seed, outcome.trace);
    }
}

fn say(arguments: &Arguments, totals: &Totals, failed: &[u64], converged: &[u64], wall: Duration) {
    let at =
        |share: usize| converged.get((converged.len() * share / 100).min(converged.len().saturating_sub(1)));
    let mut object = totals.to_json();
    object.insert("failed_seeds".to_owned(), failed.into());
    object.insert("converged_ms_p50".to_owned(), at(50).copied().into());
    object.insert("converged_ms_max".to_owned(), converged.last().copied().into());
    object.insert("wall_ms".to_owned(), u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).into());
    if arguments.json {
        return println!("{}", serde_json::Value::Object(object));
    }
    for (name, value) in &object {
        println!("{:<20} {value}", name.replace('_', " "));
    }
    let hours = Duration::from_millis(totals.virtual_ms).as_secs_f64() / 3600.0;
    println!(
        "\n{} seeds, {} failed, {hours:.1} virtual hours in {:.1} s",
        totals.seeds,
        failed.len(),
        wall.as_secs_f64()
    );
}

fn nodes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let parsed =
        text.split_once('-').and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
    match parsed {
        Some((least, most)) if (3..=most).contains(&least) && most <= 100 => Ok(least..=most),
        _ => Err("LEAST-MOST, from 3 to 100".to_owned()),
    }
}
