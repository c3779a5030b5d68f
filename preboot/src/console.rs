//! What the console shows: numbered checkpoints, so that a photograph of the screen tells how far it
//! came.

use core::fmt;

use crate::failure::Failure;

/// Counts checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Console {
    reached: u32,
}

impl Console {
    /// The next checkpoint.
    pub(crate) fn checkpoint(&mut self, what: impl fmt::Display) {
        self.reached += 1;
        eprintln!("muster-preboot {:2}  {what}", self.reached);
    }

    /// Something to know between two checkpoints.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        eprintln!("muster-preboot  .  {what}");
    }

    /// The end, with what to do about it.
    pub(crate) fn failure(&self, failure: &Failure) {
        eprintln!("muster-preboot: stopped after checkpoint {}", self.reached);
        eprintln!("  {failure}");
        eprintln!("  {}", failure.code.remedy());
    }
}
