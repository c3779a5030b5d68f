//! What the console shows: numbered checkpoints, so that a photograph of the screen tells how far it
//! came.

use core::fmt;
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
};

use crate::failure::Failure;

/// Counts checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Console {
    reached: u32,
    /// Of an image: every console that the kernel uses. Otherwise standard error.
    screens: Vec<File>,
}

impl Console {
    /// The next checkpoint.
    pub(crate) fn checkpoint(&mut self, what: impl fmt::Display) {
        self.reached += 1;
        self.say(format_args!("muster-preboot {:2}  {what}", self.reached));
    }

    /// Something to know between two checkpoints.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.say(format_args!("muster-preboot  .  {what}"));
    }

    /// The end, with what to do about it.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.say(format_args!("muster-preboot: stopped after checkpoint {}", self.reached));
        self.say(format_args!("  {failure}"));
        self.say(format_args!("  {}", failure.code.remedy()));
    }

    /// Speaks on every console from here on, with the seconds since the kernel began.
    pub(crate) fn open_all(&mut self) {
        let names = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let open = |name: &str| OpenOptions::new().write(true).open(format!("/dev/{name}")).ok();
        self.screens = names.split_whitespace().filter_map(open).collect();
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        if self.screens.is_empty() {
            eprintln!("{line}");
            return;
        }
        let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = up.split_whitespace().next().unwrap_or_default();
        for mut screen in &self.screens {
            // A console that is gone cannot be told.
            drop(writeln!(screen, "{up:>7} {line}\r"));
        }
    }
}
