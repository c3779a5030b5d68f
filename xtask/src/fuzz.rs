//! Looking for bytes that break a reader, guided by coverage, on the stable toolchain.
//!
//! The passes that cargo-fuzz turns on with nightly's `-Zsanitizer` are LLVM's own and can be asked for
//! by name. What is built with them goes into a directory of its own: it is of no other use.

use std::{
    collections::VecDeque,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these targets: folders of fuzz/corpus
    targets: Vec<String>,
    /// How long to run each
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// How many to run at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Write anew what the corpora begin with, from tests/vectors, and run nothing
    #[arg(long, conflicts_with_all = ["targets", "seconds", "jobs"])]
    seed_corpora: bool,
}

impl Options {
    /// Every target for this long, two at a time.
    pub(crate) const fn each(seconds: u32) -> Self {
        Self { targets: Vec::new(), seconds, jobs: 2, seed_corpora: false }
    }
}

/// What the targets went through.
#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) targets: u64,
    pub(crate) broken: u64,
    inputs: u64,
    peak_mib: u64,
}

const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.seed_corpora {
        return seed_corpora();
    }
    let totals = search(options)?;
    if totals.broken == 0 { Ok(()) } else { Err(Failure::Found(format!("{} broken", totals.broken))) }
}

/// Runs the targets and says of each one, and of all, what was seen.
pub(crate) fn search(options: &Options) -> Result<Totals, Failure> {
    let corpora = machine::root().join("fuzz/corpus");
    let known = folders(&corpora)?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        return Err(Failure::Machine(format!("no target {unknown}; there are {}", known.join(", "))));
    }
    let target_dir = machine::target_dir().join("fuzz");
    let program = build(&target_dir)?;
    let chosen = if options.targets.is_empty() { known } else { options.targets.clone() };
    println!("{:<14} {:>11} {:>9} {:>9}  outcome", "target", "inputs", "coverage", "peak MiB");
    let waiting = Mutex::new(VecDeque::from(chosen));
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
    let outcomes: Vec<Result<Totals, Failure>> = thread::scope(|scope| {
        let work = || {
            let mut all = Vec::new();
            while let Some(target) = next() {
                all.push(run_one(&program, &target, &corpora.join(&target), &target_dir, options.seconds));
            }
            all
        };
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    let mut totals = Totals::default();
    for outcome in outcomes {
        let one = outcome?;
        totals.targets += one.targets;
        totals.broken += one.broken;
        totals.inputs += one.inputs;
        totals.peak_mib = totals.peak_mib.max(one.peak_mib);
    }
    println!(
        "{} targets, {} s each: {} inputs, {} broken, at most {} MiB",
        totals.targets, options.seconds, totals.inputs, totals.broken, totals.peak_mib
    );
    Ok(totals)
}

fn build(target_dir: &Path) -> Result<PathBuf, Failure> {
    // Naming the platform keeps the flags off build scripts and procedural macros.
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = machine::cargo();
    build.args(["build", "--quiet", "--package", "muster-fuzz", "--features", "libfuzzer,seed-wire"]);
    build.args(["--target", &platform]);
    build.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", INSTRUMENTED);
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_TARGET_DIR", target_dir);
    machine::run(&mut build)?;
    Ok(target_dir.join(&platform).join("debug/muster-fuzz"))
}

fn run_one(
    program: &Path,
    target: &str,
    committed: &Path,
    target_dir: &Path,
    seconds: u32,
) -> Result<Totals, Failure> {
    // What is found on the way stays out of the repository; what breaks a target becomes a test.
    let found = target_dir.join("corpus").join(target);
    fs::create_dir_all(&found)
        .map_err(|why| Failure::Machine(format!("{} cannot be made: {why}", found.display())))?;
    let mut fuzz = Command::new(program);
    fuzz.env("MUSTER_FUZZ_TARGET", target);
    fuzz.arg(format!("-max_total_time={seconds}"));
    fuzz.arg(format!("-artifact_prefix={}/", committed.display()));
    fuzz.arg("-timeout=5").arg(format!("-rss_limit_mb={RSS_MIB_MAX}")).arg("-print_final_stats=1");
    let output = fuzz.arg(found).arg(committed).output();
    let output = output.map_err(|why| Failure::NotStarted(format!("muster-fuzz {target}"), why))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let broken = !output.status.success();
    let totals = Totals {
        targets: 1,
        broken: u64::from(broken),
        inputs: number_after(&log, "stat::number_of_executed_units:"),
        peak_mib: number_after(&log, "stat::peak_rss_mb:"),
    };
    let coverage = number_after(&log, " cov:");
    let outcome = if broken { "broken" } else { "ok" };
    println!("{target:<14} {:>11} {coverage:>9} {:>9}  {outcome}", totals.inputs, totals.peak_mib);
    if broken {
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n"));
    }
    Ok(totals)
}

/// The number behind the last occurrence of a word in libFuzzer's output.
fn number_after(log: &str, word: &str) -> u64 {
    let rest = log.rsplit_once(word).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

fn seed_corpora() -> Result<(), Failure> {
    let mut write = machine::cargo();
    write.args(["test", "--quiet", "--package", "muster-fuzz", "--features", "seed-wire"]);
    write.args(["--test", "seeds", "--", "--ignored"]);
    machine::run(&mut write)
}

fn folders(dir: &Path) -> Result<Vec<String>, Failure> {
    let listing = fs::read_dir(dir)
        .map_err(|why| Failure::Machine(format!("{} cannot be read: {why}", dir.display())))?;
    let mut names: Vec<String> = listing
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// A reader holds a few messages of at most 64 KiB; what needs more than this has lost its bound.
const RSS_MIB_MAX: u32 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_own_totals_are_read() {
        let log = "#2 INITED cov: 5 ft: 6\n#9\tDONE   cov: 417 ft: 902 corp: 31/9Kb\n\
            stat::number_of_executed_units: 1234567\nstat::peak_rss_mb:              84\n";
        assert_eq!(number_after(log, " cov:"), 417);
        assert_eq!(number_after(log, "stat::number_of_executed_units:"), 1_234_567);
        assert_eq!(number_after(log, "stat::peak_rss_mb:"), 84);
        assert_eq!(number_after("", "stat::peak_rss_mb:"), 0);
    }
}
