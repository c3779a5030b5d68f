//! What the tests across the whole project share: an org of a few known keys, listeners and diallers
//! made of the real ones, and a raw hand on the wire for whoever does not play by the rules.
//!
//! The listeners are `transport`'s acceptors wired to `conn_auth` and a small member list, on sockets of
//! the loopback; the attacker is the program `muster-attack`, a process of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot be set up has failed its test"
)]

pub mod attacker;
pub mod dialler;
pub mod listener;
pub mod org;
pub mod pki;
pub mod raw;
