//! How a node's keys are held.

use core::fmt;

use identity::codec::{DecodeError, Fault, Reader, Writer};

/// How a node's keys are held. Until attested this is the node's own claim and is shown as claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assurance {
    /// In a TPM, bound to a measured boot, and proved so to the org.
    TpmAttested,
    /// In a TPM, bound to a measured boot.
    Tpm,
    /// In a TPM that gives the keys to whatever system runs on the machine.
    TpmUnbound,
    /// In a TPM made of software.
    TpmSoftware,
    /// In a file.
    File,
}

impl Assurance {
    /// Every value, strongest first.
    pub const ALL: &[Self] = &[Self::TpmAttested, Self::Tpm, Self::TpmUnbound, Self::TpmSoftware, Self::File];

    /// The word shown to people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TpmAttested => "tpm-attested",
            Self::Tpm => "tpm",
            Self::TpmUnbound => "tpm-unbound",
            Self::TpmSoftware => "tpm-software",
            Self::File => "file",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.as_str() == word)
    }

    const fn number(self) -> u8 {
        match self {
            Self::TpmAttested => 1,
            Self::Tpm => 2,
            Self::TpmUnbound => 3,
            Self::TpmSoftware => 4,
            Self::File => 5,
        }
    }

    pub(crate) fn write(self, out: &mut Writer) {
        out.u8(self.number());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let got = reader.u8("assurance")?;
        let known = Self::ALL.iter().copied().find(|a| a.number() == got);
        known.ok_or_else(|| DecodeError { field: "assurance", fault: Fault::Unknown { got: got.into() } })
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assurance_reads_back_from_its_word_and_number() {
        for &assurance in Assurance::ALL {
            assert_eq!(Assurance::parse(assurance.as_str()), Some(assurance));
            let mut out = Writer::new();
            assurance.write(&mut out);
            assert_eq!(Assurance::read(&mut Reader::new(&out.into_bytes())), Ok(assurance));
        }
        assert_eq!(Assurance::parse("TPM"), None);
        assert!(Assurance::read(&mut Reader::new(&[0])).is_err());
        assert!(Assurance::read(&mut Reader::new(&[6])).is_err());
    }
}
