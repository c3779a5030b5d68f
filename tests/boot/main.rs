//! Machines that boot images of an org: firmware, kernel, preboot, node image, in QEMU. Every test is one
//! claim, and every boot has its own deadline. They need what `cargo xtask test --boot` installs.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is a test, functions that several of them share included"
)]

mod disk;
mod generations;
mod images;
mod joining;
mod making;
mod sealing;
mod secure_boot;
