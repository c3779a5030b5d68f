//! musterd: the daemon of one member. It holds the machine's keys, its copy of the member list, the
//! tunnels to the other members and the sessions over them.
//!
//! One task owns the state and decides; every other task moves bytes over bounded channels. Nothing
//! is served to a key that did not prove itself by conn_auth on that very connection, and nothing is
//! acknowledged before it is on disk.

pub mod attestation;
pub mod blobs;
pub mod booted;
pub mod clock;
pub mod config;
pub mod enrol;
#[cfg(test)]
mod fixture;
pub mod handover;
pub mod health;
pub mod images;
pub mod keys;
pub mod link;
pub mod names;
pub mod notify;
pub mod prepare;
pub mod probes;
pub mod pump;
pub mod refusals;
pub mod run;
pub mod services;
pub mod sessions;
pub mod sockets;
pub mod standing;
pub mod state;
pub mod store;
pub mod tunnel;
pub mod unready;
pub mod writer;
