//! The catalogue of bad input, by name, on real sockets: nothing of it is let in, each has a typed error
//! on our side that says what was wrong, nobody panics, and an honest peer is served right after.
//!
//! `hello` and `proof` send what departs from conn_auth, `heads` and `frames` what departs from HTTP and
//! WebSocket, `slow` what does not come at all or too slowly, `mutations` ten thousand random changes.
//! `parsers` holds what is read from files and other members: only what the crates' own tests leave out.
//!
//! What a connection costs before its verdict is measured where it is allocated: transport's
//! `a_stranger_costs_less_than_its_bound`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod bench;
mod craft;
mod frames;
mod heads;
mod hello;
mod mutations;
mod parsers;
mod proof;
mod slow;
