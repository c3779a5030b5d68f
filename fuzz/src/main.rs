//! One target, named by the environment, under libFuzzer. Built and started by `cargo xtask fuzz`.

#![no_main]

use std::{env, sync::OnceLock};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(chosen)(data);
});

fn chosen() -> fn(&[u8]) {
    let name = env::var("MUSTER_FUZZ_TARGET").unwrap_or_default();
    let known = muster_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    known.map_or_else(|| std::process::exit(2), |(_, target)| *target)
}
