//! The catalogue of bad input, by name, on real sockets: nothing of it is let in, each has a typed error
//! on our side that says what was wrong, nobody panics, and an honest peer is served right after.
//!
//! `hello` and `proof` send what departs from conn_auth, `heads` and `frames` what departs from HTTP and
//! WebSocket, `slow` what does not come at all or too slowly, `mutations` ten thousand random changes.
//! `parsers` holds what is read from files and other members: only what the crates' own tests leave out.
//! `programs` sends the same and more to the programs that are shipped. README.md maps the catalogue to the cases.
//!
//! What a connection costs before its verdict is measured where it is allocated: transport's
//! `a_stranger_costs_less_than_its_bound`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod bench;
mod craft;
mod frames;
#[path = "../scenario/harness.rs"]
#[expect(dead_code, reason = "shared with the scenarios, which use all of it")]
mod harness;
mod heads;
mod hello;
mod mutations;
mod parsers;
mod programs;
mod proof;
mod slow;
