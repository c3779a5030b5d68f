//! Looking for bytes that break a reader, guided by coverage, on the stable toolchain.
//!
//! The passes that cargo-fuzz turns on with nightly's `-Zsanitizer` are LLVM's own and can be asked for
//! by name. What is built with them goes into a directory of its own: it is of no other use.

use std::{env, fs, path::Path};

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these targets: folders of fuzz/corpus
    targets: Vec<String>,
    /// How long to run each
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let corpora = machine::root().join("fuzz/corpus");
    let known = folders(&corpora)?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        return Err(Failure::Machine(format!("no target {unknown}; there are {}", known.join(", "))));
    }
    let target_dir = machine::target_dir().join("fuzz");
    // Naming the platform keeps the flags off build scripts and procedural macros.
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = machine::cargo();
    build.args(["build", "--package", "muster-fuzz", "--features", "libfuzzer", "--target", &platform]);
    build.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", INSTRUMENTED);
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_TARGET_DIR", &target_dir);
    machine::run(&mut build)?;

    let program = target_dir.join(&platform).join("debug/muster-fuzz");
    for target in if options.targets.is_empty() { &known } else { &options.targets } {
        println!("== {target}");
        // What is found on the way stays out of the repository; what breaks a target becomes a test.
        let found = target_dir.join("corpus").join(target);
        fs::create_dir_all(&found)
            .map_err(|why| Failure::Machine(format!("{} cannot be made: {why}", found.display())))?;
        let committed = corpora.join(target);
        let mut fuzz = std::process::Command::new(&program);
        fuzz.env("MUSTER_FUZZ_TARGET", target);
        fuzz.arg(format!("-max_total_time={}", options.seconds));
        fuzz.arg(format!("-artifact_prefix={}/", committed.display()));
        fuzz.args(["-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"]);
        fuzz.arg(found).arg(committed);
        machine::run(&mut fuzz)?;
    }
    Ok(())
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
