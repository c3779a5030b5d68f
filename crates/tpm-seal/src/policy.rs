//! What a sealed object asks of whoever wants to open it, computed as the TPM does (TPM 2.0 part 3), and
//! what stands between it and what was booted.
//!
//! Pure: what the registers hold comes in as an argument.

use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::approvals::{Approval, Approvals};
use crate::blob::Name;

/// The registers that a policy looks at, of the SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// 7: Secure Boot, its keys, and the one that let this system start.
    pub firmware: [u8; 32],
    /// 11: the image, and whether its preboot is over.
    pub image: [u8; 32],
    /// 12: what came beside the image, a command line for one.
    pub beside: [u8; 32],
}

/// What a sealed object asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The command `Unseal` and nothing else: any program that may use this TPM.
    Unseal,
    /// An image that a key approved, in one of its phases, on a machine whose firmware is set as it was.
    Image(ImagePolicy),
}

/// The terms of [`Policy::Image`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Name of the key that approves images.
    pub key: Name,
    /// Which phase of which org's images; the policyRef.
    pub phase: [u8; 32],
    /// Register 7 when it was sealed.
    pub firmware: [u8; 32],
}

impl Policy {
    /// The value of `authPolicy`.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        match self {
            Self::Unseal => extended(&[&[0; 32], &TPM_CC_POLICY_COMMAND_CODE, &TPM_CC_UNSEAL]),
            Self::Image(policy) => {
                // PolicyAuthorize begins anew, with the Name and then, hashed once more, the policyRef.
                let authorized = extended(&[&[0; 32], &TPM_CC_POLICY_AUTHORIZE, policy.key.as_bytes()]);
                let authorized = extended(&[&authorized, &policy.phase]);
                with_registers(&authorized, FIRMWARE_SELECTION, &[policy.firmware])
            }
        }
    }
}

impl ImagePolicy {
    /// The first thing that keeps it closed, with these approvals and these values of the registers.
    #[must_use]
    pub fn obstacle(&self, approvals: Option<&Approvals>, now: &Registers) -> Option<Obstacle> {
        let approval = match self.approval(approvals) {
            Ok(approval) => approval,
            Err(obstacle) => return Some(obstacle),
        };
        if self.firmware != now.firmware {
            return Some(Obstacle::Firmware { sealed: self.firmware, now: now.firmware });
        }
        if now.beside != [0; 32] {
            return Some(Obstacle::Beside { now: now.beside });
        }
        (approval.image != now.image).then_some(Obstacle::Image { approved: approval.image, now: now.image })
    }

    /// The approval among these that is for this object.
    ///
    /// # Errors
    /// There is none.
    pub fn approval<'a>(&self, approvals: Option<&'a Approvals>) -> Result<&'a Approval, Obstacle> {
        let approvals = approvals.ok_or(Obstacle::NoApprovals)?;
        let both = [&approvals.preboot, &approvals.node];
        let found = both.into_iter().find(|approval| approval.phase == self.phase);
        found.filter(|_| approvals.key.name() == self.key).ok_or(Obstacle::OtherKey)
    }
}

/// What keeps a whole object closed on the TPM that sealed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Something came beside the image.
    Beside {
        /// Register 12.
        now: [u8; 32],
    },
    /// Secure Boot or its keys are not set as they were.
    Firmware {
        /// Register 7 when it was sealed.
        sealed: [u8; 32],
        /// Register 7.
        now: [u8; 32],
    },
    /// Another system runs, or another phase.
    Image {
        /// Register 11 as approved.
        approved: [u8; 32],
        /// Register 11.
        now: [u8; 32],
    },
    /// What was booted brought no approvals.
    NoApprovals,
    /// The approvals are another key's, or of another org.
    OtherKey,
    /// The key that is named did not sign the approval.
    Signature,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beside { now } => {
                write!(f, "PCR 12 is {}, and must be zero: something was added to the image", Hex(now))
            }
            Self::Firmware { sealed, now } => {
                write!(f, "PCR 7 was {} when the keys were sealed, and is {}", Hex(sealed), Hex(now))
            }
            Self::Image { approved, now } => {
                write!(f, "PCR 11 is {}, and approved for these keys is {}", Hex(now), Hex(approved))
            }
            Self::NoApprovals => f.write_str("what was booted brought no approvals of the org's image key"),
            Self::OtherKey => {
                f.write_str("the image is approved by another key than the keys were sealed for")
            }
            Self::Signature => f.write_str("the approval is not signed by the org's image key"),
        }
    }
}

/// The digest that an image key approves: this value of register 11, and zeros in register 12.
#[must_use]
pub fn image_digest(image: &[u8; 32]) -> [u8; 32] {
    with_registers(&[0; 32], IMAGE_SELECTION, &[*image, [0; 32]])
}

/// PolicyPCR on top of a digest.
fn with_registers(digest: &[u8; 32], bits: [u8; 3], values: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    values.iter().for_each(|value| hash.update(value));
    let values: [u8; 32] = hash.finalize().into();
    // TPML_PCR_SELECTION of one bank.
    let selection = [&[0, 0, 0, 1], &TPM_ALG_SHA256[..], &[3], &bits].concat();
    extended(&[digest, &TPM_CC_POLICY_PCR, &selection, &values])
}

fn extended(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..")
    }
}

const FIRMWARE_SELECTION: [u8; 3] = [1 << 7, 0, 0];
const IMAGE_SELECTION: [u8; 3] = [0, 1 << 3 | 1 << 4, 0];
const TPM_ALG_SHA256: [u8; 2] = [0x00, 0x0b];
const TPM_CC_POLICY_AUTHORIZE: [u8; 4] = [0x00, 0x00, 0x01, 0x6a];
const TPM_CC_POLICY_COMMAND_CODE: [u8; 4] = [0x00, 0x00, 0x01, 0x6c];
const TPM_CC_POLICY_PCR: [u8; 4] = [0x00, 0x00, 0x01, 0x7f];
const TPM_CC_UNSEAL: [u8; 4] = [0x00, 0x00, 0x01, 0x5e];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::ImageKey;

    fn approvals() -> Approvals {
        let approval = |phase, image| Approval { phase: [phase; 32], image: [image; 32], signature: [0; 64] };
        Approvals { key: ImageKey([5; 64]), preboot: approval(1, 11), node: approval(2, 12) }
    }

    #[test]
    fn what_keeps_an_object_closed_is_named() {
        let (mine, now) = (approvals(), Registers { firmware: [7; 32], image: [11; 32], beside: [0; 32] });
        let policy = ImagePolicy { key: mine.key.name(), phase: [1; 32], firmware: [7; 32] };
        let of = |approvals, registers| policy.obstacle(approvals, registers);
        assert_eq!(of(Some(&mine), &now), None);
        assert_eq!(of(None, &now), Some(Obstacle::NoApprovals));
        let other = Approvals { key: ImageKey([6; 64]), ..mine };
        assert_eq!(of(Some(&other), &now), Some(Obstacle::OtherKey));
        let node = ImagePolicy { phase: [2; 32], ..policy };
        let closed = node.obstacle(Some(&mine), &now);
        assert_eq!(closed, Some(Obstacle::Image { approved: [12; 32], now: [11; 32] }));
        let changed = Registers { firmware: [8; 32], ..now };
        assert!(matches!(of(Some(&mine), &changed), Some(Obstacle::Firmware { .. })));
        let changed = Registers { beside: [8; 32], ..now };
        assert!(matches!(of(Some(&mine), &changed), Some(Obstacle::Beside { .. })));
        let foreign = ImagePolicy { phase: [3; 32], ..policy };
        assert_eq!(foreign.obstacle(Some(&mine), &now), Some(Obstacle::OtherKey));
    }
}
