//! What a register of the TPM will hold.

use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::uki::Uki;

/// A register of the SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pcr([u8; 32]);

/// What preboot adds to register 11 when its phase ends, well or not: after it nothing that is sealed
/// to the preboot phase opens until the machine starts anew.
pub const LEAVE_PREBOOT: &[u8] = b"muster leave preboot v1\n";

impl Pcr {
    /// As it is after power-on. Register 12 stays so: nothing of ours is measured into it, and a
    /// command line that is not the image's own would be.
    pub const ZERO: Self = Self([0; 32]);

    /// Register 11 when preboot begins, by this image: systemd's stub (252) measures name and content
    /// of each part that it knows.
    #[must_use]
    pub fn of_image(uki: &Uki) -> Self {
        let mut pcr = Self::ZERO;
        for name in MEASURED {
            if let Some(content) = uki.part(name) {
                let mut named = name.as_bytes().to_vec();
                named.push(0);
                pcr = pcr.extended(&named).extended(content);
            }
        }
        pcr
    }

    /// With one more measurement, of the hash of these bytes.
    #[must_use]
    pub fn extended(self, event: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(Sha256::digest(event));
        Self(hash.finalize().into())
    }

    /// The value.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Pcr {
    fn from(value: [u8; 32]) -> Self {
        Self(value)
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// In the stub's order, which is not the file's.
const MEASURED: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_the_chain_of_what_was_measured() {
        // Python: sha256(bytes(32) + sha256(b"abc").digest()).
        let expected = "589f9ffed4c477966bfb8d41f37895b08c69047df8f911d6f3b57fbe08faee8d";
        let once = Pcr::ZERO.extended(b"abc");
        assert_eq!(once.to_string(), expected);
        assert_ne!(once, Pcr::ZERO.extended(b"abd"));
        assert_ne!(once.extended(b"x"), Pcr::ZERO.extended(b"x").extended(b"abc"), "the order counts");
    }
}
