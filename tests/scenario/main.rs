//! What an org of machines holds to, shown by the programs that are shipped, each machine with a network and
//! a TPM of its own. Every test is one claim. The programs must have been built:
//! `cargo build -p muster -p musterd -p muster-gateway -p muster-preboot`, or `cargo xtask test`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this is a test, functions that several scenarios share included"
)]

mod activation;
mod attest;
mod blobs;
mod connection;
mod crash;
mod debian;
mod enrol;
mod fire;
mod harness;
mod heal;
mod hostile;
mod images;
mod lab;
mod members;
mod network;
mod operate;
mod policy;
mod progress;
mod revoke;
mod rotate;
mod secrets;
mod services;
mod settings;
mod status;
mod thief;
mod tutorial;
