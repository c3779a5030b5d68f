//! The TPM's encoding: big-endian numbers, and bytes behind their 16-bit length.

use core::fmt;

/// Bytes that do not follow the TPM's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The field at which reading stopped.
    pub field: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed at {}", self.field)
    }
}

impl core::error::Error for Malformed {}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A TPM2B: at most `max` bytes behind their length.
    pub(crate) fn sized(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16(field)?);
        let (head, rest) =
            self.0.split_at_checked(length).filter(|_| length <= max).ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(head)
    }

    /// A number of 32 bytes that may have been sent without its leading zeros.
    pub(crate) fn scalar(&mut self, field: &'static str) -> Result<[u8; 32], Malformed> {
        let given = self.sized(field, 32)?;
        let mut number = [0; 32];
        for (out, byte) in number.iter_mut().rev().zip(given.iter().rev()) {
            *out = *byte;
        }
        Ok(number)
    }

    pub(crate) const fn finish(self, field: &'static str) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed { field }) }
    }
}

/// TPM_ALG_SHA256.
pub(crate) const SHA256: u16 = 0x000B;
/// TPM_ALG_ECDSA.
pub(crate) const ECDSA: u16 = 0x0018;
