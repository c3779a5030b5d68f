//! What the demo shows: steps with their times, on standard error.

use std::{
    io::{IsTerminal as _, stderr},
    time::Instant,
};

/// A readable screen.
pub(crate) struct Screen {
    start: Instant,
    colour: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { start: Instant::now(), colour }
    }

    pub(crate) fn elapsed_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A heading.
    pub(crate) fn step(&self, what: &str) {
        let (bold, plain) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        eprintln!("\n{:>6.1} s  {bold}{what}{plain}", self.elapsed_s());
    }

    /// A line under it.
    pub(crate) fn line(&self, text: &str) {
        eprintln!("          {text}");
    }

    /// A line that says whether something is as it should be.
    pub(crate) fn check(&self, holds: bool, text: &str) {
        let (sign, colour) = if holds { ("ok", "\x1b[32m") } else { ("NO", "\x1b[31m") };
        let (colour, plain) = if self.colour { (colour, "\x1b[0m") } else { ("", "") };
        eprintln!("      {colour}{sign}{plain}  {text}");
    }
}
