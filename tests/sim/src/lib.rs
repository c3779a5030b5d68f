//! A whole org in one thread: the real daemons' states, member lists, handshakes and stores on a paused
//! clock and a network in memory, under faults, all of it drawn from one seed.
//!
//! The same seed gives the same run, to the byte. docs/simulation.md says what is real in it, what is
//! not, and how a seed that failed is run again.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot be set up has failed its test"
)]

mod client;
mod connection;
mod disk;
mod drive;
mod faults;
mod finale;
mod hostile;
mod invariants;
mod machine;
mod network;
mod oracle;
mod plan;
mod totals;
mod trace;
mod workload;
mod world;

pub use finale::{Outcome, run};
pub use invariants::{Violation, invariant_clocks_decide_nothing};
pub use plan::{Options, Sabotage};
pub use totals::Totals;
