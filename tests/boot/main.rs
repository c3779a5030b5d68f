//! Machines that boot images of an org: firmware, kernel, preboot, node image, in QEMU. Every test is one
//! claim, and every boot has its own deadline. They need what `cargo xtask test --boot` installs.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is a test, functions that several of them share included"
)]

mod alone;
mod attested;
mod disk;
mod first_start;
mod generations;
mod images;
mod intruder;
mod joining;
mod making;
mod refused;
mod sealing;
mod secure_boot;
mod share;
mod state;
