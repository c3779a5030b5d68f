//! Where a node's secrets rest: sealed to the machine's TPM, or, when someone said so, in a file.
//!
//! * [`Tpm`] seals up to 128 bytes to one TPM and opens them again, in sessions whose contents cannot
//!   be read on the bus. It tells apart a TPM that is absent, busy, another one, or has a damaged file
//!   in front of it ([`TpmError`]).
//! * [`Policy`] is what an object asks for, [`Approvals`] what an image brings to meet it, [`Obstacle`]
//!   what is between the two. Pure, and compared with the TPM's own in tests.
//! * [`SealedBlob`] is the file format (docs/spec/sealed-objects.md), decoded strictly.
//! * [`NodeSecrets`] and [`BootSecrets`] are what is sealed, and [`Custody`] keeps them in a directory.
//!
//! It refuses to reach a TPM by anything but a device, to make a key because another would not open, to
//! use a file where the TPM was asked for, to read a secret that others can read, and to take ownership
//! of the TPM or evict anything from it. A sealed secret is confidential, not authentic: whoever may use
//! the TPM may seal something else. Nothing here depends on the rest of the workspace, and nothing but
//! this crate knows the TPM's library.

mod approvals;
mod attestation;
mod blob;
mod custody;
mod device;
mod file;
mod operation;
mod policy;
mod process;
mod secrets;
mod tpm;

pub use approvals::{Approval, Approvals, ApprovalsError, ImageKey, Phase};
pub use attestation::Quote;
pub use blob::{BlobError, Name, SealedBlob};
pub use custody::{Custody, CustodyError, Malformed};
pub use device::DeviceError;
pub use policy::{ImagePolicy, Obstacle, Policy, Registers, image_digest};
pub use process::{Hardening, harden_process, quiet_tpm_library};
pub use secrets::{
    BootSecrets, NextBoot, NodeSecrets, PayloadError, SHARE_KEYS_MAX, Secrets, Seed, ShareSecrets,
};
pub use tpm::{Kind, PAYLOAD_BYTES_MAX, Tpm, TpmError};
