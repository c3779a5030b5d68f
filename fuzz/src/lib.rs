//! Every reader of bytes from outside, as one function each that takes any bytes.
//!
//! A target ends in a panic when a claim of the reader does not hold: that no bytes make it panic, that
//! whatever it accepts has one encoding, and that nothing is accepted which no key of the published test
//! vectors signed. `tests/replay.rs` runs the committed corpora and their neighbours with every test;
//! `cargo xtask fuzz` looks for new ones.

#![expect(clippy::unwrap_used, reason = "a target says by panicking that a claim does not hold")]

mod files;
pub mod fixture;
mod handshake;
mod http;
mod images;
mod local;
mod packet;
mod proxy;
mod records;
#[cfg(feature = "seed-wire")]
mod seed_wire;
mod store;
mod stream;
mod swim;
mod sync;
mod tpm;

pub use files::{bundle, gateway_request, handover, invite, policy, sealed_blob, tls_files};
pub use handshake::{challenge, hello, proof, verdict};
pub use http::{http_answer, http_request};
pub use images::{EXCHANGE, approvals, blob, dhcp, disk_token, generation, image, initramfs, outline, pins};
pub use local::{config, control, gateway, gateway_config};
pub use packet::packet;
pub use proxy::proxy_header;
pub use records::{batch, charter, enrol, reply, report, request, statement};
#[cfg(feature = "seed-wire")]
pub use seed_wire::seed_wire;
pub use store::{Memory, store};
pub use stream::stream;
pub use swim::swim;
pub use sync::sync;
pub use tpm::{tpm_certificate, tpm_key, tpm_quote};

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its folder under `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("approvals", approvals),
    ("batch", batch),
    ("blob", blob),
    ("bundle", bundle),
    ("challenge", challenge),
    ("charter", charter),
    ("config", config),
    ("control", control),
    ("dhcp", dhcp),
    ("disk_token", disk_token),
    ("enrol", enrol),
    ("gateway", gateway),
    ("gateway_config", gateway_config),
    ("gateway_request", gateway_request),
    ("generation", generation),
    ("handover", handover),
    ("hello", hello),
    ("http_answer", http_answer),
    ("http_request", http_request),
    ("image", image),
    ("initramfs", initramfs),
    ("invite", invite),
    ("outline", outline),
    ("packet", packet),
    ("pins", pins),
    ("policy", policy),
    ("proof", proof),
    ("proxy_header", proxy_header),
    ("reply", reply),
    ("report", report),
    ("request", request),
    ("sealed_blob", sealed_blob),
    #[cfg(feature = "seed-wire")]
    ("seed_wire", seed_wire),
    ("statement", statement),
    ("store", store),
    ("stream", stream),
    ("swim", swim),
    ("sync", sync),
    ("tls_files", tls_files),
    ("tpm_certificate", tpm_certificate),
    ("tpm_key", tpm_key),
    ("tpm_quote", tpm_quote),
    ("verdict", verdict),
];
