//! What a node *is*, in types that cannot be wrong.
//!
//! This crate holds the ground every other crate stands on: keys and signatures ([`PublicKey`],
//! [`SecretKey`], [`Signature`]), the ids of what the org signs ([`OrgId`], [`CharterId`],
//! [`StatementId`]), the overlay address that follows from a key, one strict binary codec
//! ([`codec`]), and three registries that exist once for the whole project:
//!
//! * [`label`]: everything a key of ours ever signs or hashes begins with a label from that file;
//! * [`code`]: every refusal and failure a person can meet, with its cause and its remedy;
//! * [`limits`]: every bound on something a peer controls, with the reason for its value.
//!
//! It does no I/O, reads no clock, draws no randomness, and never signs a message without a label.

pub mod code;
pub mod codec;
mod disk_keys;
mod hex;
mod id;
mod key;
pub mod label;
pub mod limits;
mod name;
mod outline;
mod overlay_address;

pub use code::Code;
pub use disk_keys::{DiskKeys, DiskShare, ShareKey, recovery_key, recovery_passphrase};
pub use hex::{HexError, decode_hex, encode_hex};
pub use id::{BlobHash, BootNonce, CharterId, Heads, OrgId, RosterDigest, SessionId, StatementId, TpmId};
pub use key::{BadSignature, KeyError, KeyUpToSign, PublicKey, SecretKey, Signature, WireGuardKey};
pub use label::{HashContext, Label};
pub use name::{Name, NameError, Tag};
pub use outline::{Outline, OutlineError, Outliner};
pub use overlay_address::{overlay_address, overlay_prefix};
