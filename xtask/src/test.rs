//! All tests of the repository, in parts that can be named, each with its time and one total.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use lab::packages::Purpose;

use crate::{
    demo, deps, fuzz,
    machine::{self, Failure},
    sim,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these parts, in this order
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Also formatting, clippy, booting and fuzzing, as CI does
    #[arg(long)]
    strict: bool,
    /// Instead: whole machines that boot images, in QEMU, always emulated; minutes on a quiet machine
    #[arg(long, conflicts_with_all = ["only", "strict"])]
    boot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Part {
    /// Formatting
    Fmt,
    /// Clippy, warnings denied
    Clippy,
    /// The law of dependencies
    Deps,
    /// Build everything the other parts run
    Build,
    /// Crates and binaries, each by itself
    Unit,
    /// Examples in the documentation
    Doc,
    /// The published vectors, by the second implementation
    Vectors,
    /// The seed's handshake: every attack on it works, so the tests that stop them can fail
    SeedWire,
    /// Whole orgs in memory under faults, and that each check of them can fail
    Sim,
    /// Real processes: attacks, kills, namespaces, TPM emulators
    Scenario,
    /// The demo with five machines, and that it fails when nobody enforces
    Demo,
    /// Machines that boot images of an org, two at a time
    Boot,
    /// Every reader of bytes under the fuzzer for 20 s, two at a time
    Fuzz,
}

const STRICT: [Part; 2] = [Part::Fmt, Part::Clippy];
const STRICT_LAST: [Part; 2] = [Part::Boot, Part::Fuzz];
const FUZZ_SECONDS: u32 = 20;
/// Machines that boot at once.
const GUESTS: &str = "2";
const USUAL: [Part; 9] = [
    Part::Deps,
    Part::Build,
    Part::Unit,
    Part::Doc,
    Part::Vectors,
    Part::SeedWire,
    Part::Sim,
    Part::Scenario,
    Part::Demo,
];

/// What a part counted.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: u64,
    failed: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    demo::packages()?;
    let mut parts: Vec<Part> = options.only.clone();
    if options.boot {
        parts.push(Part::Boot);
    }
    if parts.is_empty() {
        parts.extend(if options.strict { &STRICT[..] } else { &[] });
        parts.extend(USUAL);
        parts.extend(if options.strict { &STRICT_LAST[..] } else { &[] });
    }
    let mut rows = Vec::new();
    let mut total = Count::default();
    for part in parts {
        eprintln!("== {part:?}");
        let start = Instant::now();
        let mut count = Count::default();
        let outcome = run_part(part, &mut count);
        if outcome.is_err() && count.failed == 0 {
            count.failed = 1;
        }
        total.passed += count.passed;
        total.failed += count.failed;
        rows.push((part, start.elapsed(), count, outcome.err()));
    }
    report(&rows, total)
}

fn run_part(part: Part, count: &mut Count) -> Result<(), Failure> {
    let cargo = |arguments: &[&str]| {
        let mut command = machine::cargo();
        command.args(arguments);
        command
    };
    match part {
        Part::Fmt => check(&mut cargo(&["fmt", "--all", "--check"]), count),
        Part::Clippy => {
            let clippy =
                ["clippy", "--workspace", "--all-targets", "--features", "muster-tests/boot", "--quiet"];
            let clippy = [&clippy[..], &["--", "--deny", "warnings"]].concat();
            check(&mut cargo(&clippy), count)
        }
        Part::Deps => {
            deps::run()?;
            count.passed += 1;
            Ok(())
        }
        Part::Build => check(&mut cargo(&["build", "--workspace", "--all-targets", "--quiet"]), count),
        Part::Unit => counted(
            &mut tests(&["--workspace", "--exclude", "muster-tests", "--exclude", "muster-sim"]),
            count,
        ),
        Part::Doc => counted(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]), count),
        Part::Vectors => vectors(count),
        Part::SeedWire => {
            let packages = ["--package", "conn-auth", "--package", "muster-fuzz"];
            counted(&mut tests(&[&packages[..], &["--features", "seed-wire"]].concat()), count)
        }
        Part::Sim => {
            sim::check()?;
            count.passed += 1;
            counted(&mut tests(&["--package", "muster-sim"]), count)?;
            let control = ["--package", "muster-sim", "--features", "danger-no-enforcement"];
            counted(&mut tests(&control), count)
        }
        Part::Scenario => {
            demo::install(&[Purpose::Edge, Purpose::Ssh])?;
            counted(&mut tests(&["--package", "muster-tests", "--features", "seed-wire"]), count)
        }
        Part::Demo => {
            demo::check(5)?;
            count.passed += 1;
            demo::check_fails_without_enforcement()?;
            count.passed += 1;
            Ok(())
        }
        Part::Boot => {
            demo::install(&[Purpose::Boot])?;
            demo::build(demo::Profile::Dev)?;
            demo::check_boot()?;
            count.passed += 1;
            let suite = ["--package", "muster-tests", "--features", "boot", "--test", "boot"];
            let mut suite = tests(&suite);
            // A machine keeps one core busy, and its times are shown when it is done.
            if machine::has_program("cargo-nextest") {
                suite.args(["--test-threads", GUESTS, "--success-output", "immediate"]);
            } else {
                suite.args(["--", "--test-threads", GUESTS]);
            }
            counted(&mut suite, count)
        }
        Part::Fuzz => {
            let totals = fuzz::search(&fuzz::Options::each(FUZZ_SECONDS))?;
            count.passed += totals.targets - totals.broken;
            count.failed += totals.broken;
            match totals.broken {
                0 => Ok(()),
                broken => Err(Failure::Found(format!("{broken} broken"))),
            }
        }
    }
}

fn tests(arguments: &[&str]) -> Command {
    let mut command = machine::cargo();
    if machine::has_program("cargo-nextest") {
        command.args(["nextest", "run", "--no-fail-fast", "--status-level", "fail", "--hide-progress-bar"]);
    } else {
        command.args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    }
    command.args(arguments);
    command
}

fn vectors(count: &mut Count) -> Result<(), Failure> {
    let dir = machine::root().join("tests/vectors");
    let listing = std::fs::read_dir(&dir)
        .map_err(|why| Failure::Machine(format!("{} cannot be read: {why}", dir.display())))?;
    let mut scripts: Vec<_> = listing.flatten().map(|entry| entry.path()).filter(|p| is_check(p)).collect();
    scripts.sort();
    if scripts.is_empty() {
        return Err(Failure::Found(format!("no checks in {}", dir.display())));
    }
    for script in scripts {
        check(Command::new("python3").arg("-B").arg(&script), count)?;
    }
    Ok(())
}

fn is_check(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "py") && path.with_extension("json").file_name().is_some()
}

/// A program that passes or fails as a whole.
fn check(command: &mut Command, count: &mut Count) -> Result<(), Failure> {
    machine::run(command)?;
    count.passed += 1;
    Ok(())
}

/// A test runner; its own totals are counted.
fn counted(command: &mut Command, count: &mut Count) -> Result<(), Failure> {
    let name = command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| Failure::NotStarted(name.clone(), why))?;
    let readers = [
        child.stdout.take().map(|stream| thread::spawn(move || totals(stream))),
        child.stderr.take().map(|stream| thread::spawn(move || totals(stream))),
    ];
    for reader in readers.into_iter().flatten() {
        let seen = reader.join().map_err(|_| Failure::Found(format!("{name}: its output was lost")))?;
        count.passed += seen.passed;
        count.failed += seen.failed;
    }
    let status = child.wait().map_err(|why| Failure::NotStarted(name.clone(), why))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::Status(name, status)),
    }
}

/// Shows what a test runner prints and adds up its summary lines, nextest's or libtest's.
fn totals(stream: impl Read) -> Count {
    let mut count = Count::default();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        eprintln!("{line}");
        if line.contains("test result:") || line.contains("tests run:") || line.contains("test run:") {
            count.passed += number_before(&line, " passed");
            count.failed += number_before(&line, " failed");
        }
    }
    count
}

fn number_before(line: &str, word: &str) -> u64 {
    let digits = line.split_once(word).map(|(before, _)| before).and_then(|b| b.rsplit([' ', ':']).next());
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

fn report(rows: &[(Part, Duration, Count, Option<Failure>)], total: Count) -> Result<(), Failure> {
    println!("\n{:<10} {:>8} {:>8} {:>8}", "part", "seconds", "passed", "failed");
    for (part, time, count, _) in rows {
        println!(
            "{:<10} {:>8.1} {:>8} {:>8}",
            format!("{part:?}").to_lowercase(),
            time.as_secs_f64(),
            count.passed,
            count.failed
        );
    }
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(part, _, _, why)| why.as_ref().map(|why| format!("{part:?}: {why}")))
        .collect();
    for failure in &failures {
        println!("{failure}");
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    if failures.is_empty() { Ok(()) } else { Err(Failure::Found("tests failed".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_totals_are_read() {
        let nextest = "     Summary [   1.2s] 31 tests run: 30 passed, 1 failed, 0 skipped\n";
        let libtest = "test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let count = totals([nextest, libtest].concat().as_bytes());
        assert_eq!((count.passed, count.failed), (37, 3));
    }
}
