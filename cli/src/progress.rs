//! How far long work is: on a terminal, where somebody may look at it, and nowhere else.

use core::time::Duration;
use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{args::Everywhere, output::Format};

/// One line on stderr that is written anew, and removed with the value.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of something that is so many bytes long, some of which are here.
    pub(crate) fn bytes(everywhere: &Everywhere, what: &str, here: u64, of: u64) -> Self {
        let line = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let bar = Self::begin(everywhere, of, line, what);
        // Of what comes now is said how fast it does.
        bar.0.set_position(here);
        bar.0.reset_eta();
        bar
    }

    /// Of things that are counted.
    pub(crate) fn count(everywhere: &Everywhere, what: &str, of: u64) -> Self {
        Self::begin(everywhere, of, "{msg} [{bar:30}] {pos}/{len}, {elapsed}", what)
    }

    /// Of steps, each with a name and a length that nobody knows.
    pub(crate) fn steps(everywhere: &Everywhere, of: u64) -> Self {
        let bar = Self::begin(everywhere, of, "{spinner} step {pos}/{len}: {msg}, {elapsed}", "");
        if !bar.0.is_hidden() {
            bar.0.enable_steady_tick(Duration::from_millis(120));
        }
        bar
    }

    /// The next step.
    pub(crate) fn step(&self, name: &'static str) {
        self.0.set_message(name);
        self.0.inc(1);
    }

    /// So far.
    pub(crate) fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    fn begin(everywhere: &Everywhere, of: u64, line: &str, what: &str) -> Self {
        let target =
            if is_wanted(everywhere) { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(line).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("=> ").tick_chars("|/-\\ ");
        let bar = ProgressBar::with_draw_target(Some(of), target).with_style(style);
        Self(bar.with_message(what.to_owned()))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A program that reads, a log, and whoever wants no colour, gets no line that moves.
fn is_wanted(everywhere: &Everywhere) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stderr().is_terminal()
        && everywhere.format() == Format::Table
        && !everywhere.no_input
        && set("NO_COLOR").is_none()
        && set("TERM").is_some_and(|term| term != "dumb")
}
