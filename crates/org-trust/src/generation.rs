//! A node image as the org released it: its number, its hash, and the signature of the release key.

use core::fmt;

use identity::{
    Label, OrgId, PublicKey, SecretKey, Signature,
    codec::{DecodeError, Fault, Reader, Writer},
};

/// One release of a node image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Later ones have higher numbers; a machine that ran one starts none before its floor.
    pub number: u32,
    /// BLAKE3 of the image.
    pub image: [u8; 32],
    /// Its length.
    pub image_bytes: u64,
    /// Once it was ready on a machine, that machine starts none before this number.
    pub minimum: u32,
}

/// A generation whose signature nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedGeneration {
    claimed: Generation,
    signature: Signature,
}

/// Why something is no generation of the org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerationError {
    /// Not signed by this org's release key.
    BadSignature,
    /// The bytes are none.
    Malformed(DecodeError),
}

impl Generation {
    /// The signed file.
    #[must_use]
    pub fn sign(&self, org: &OrgId, release: &SecretKey) -> Vec<u8> {
        let mut file = Writer::new();
        self.write(&mut file);
        let signature = release.sign(Label::GENERATION, &self.message(org));
        file.bytes(&signature.0);
        file.into_bytes()
    }

    fn write(&self, into: &mut Writer) {
        into.u8(VERSION).u32(self.number).bytes(&self.image).u64(self.image_bytes).u32(self.minimum);
    }

    fn message(&self, org: &OrgId) -> Vec<u8> {
        let mut message = Writer::new();
        message.bytes(org.as_bytes());
        self.write(&mut message);
        message.into_bytes()
    }
}

impl UnverifiedGeneration {
    /// Reads a file that nobody vouches for.
    ///
    /// # Errors
    /// [`GenerationError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GenerationError> {
        let read = || {
            let mut reader = Reader::new(bytes);
            reader.exactly("version", VERSION)?;
            let claimed = Generation {
                number: reader.u32("number")?,
                image: reader.array("image")?,
                image_bytes: reader.u64("image_bytes")?,
                minimum: reader.u32("minimum")?,
            };
            // It would shut itself out.
            if claimed.minimum > claimed.number {
                let fault = Fault::OutOfRange { got: claimed.minimum.into() };
                return Err(DecodeError { field: "minimum", fault });
            }
            let signature = reader.signature("signature")?;
            reader.finish("end")?;
            Ok(Self { claimed, signature })
        };
        read().map_err(GenerationError::Malformed)
    }

    /// What it says, for whoever only passes it on.
    #[must_use]
    pub const fn claimed(&self) -> &Generation {
        &self.claimed
    }

    /// The generation, if this org's release key signed it.
    ///
    /// # Errors
    /// [`GenerationError::BadSignature`].
    pub fn verify(self, org: &OrgId, release: &PublicKey) -> Result<Generation, GenerationError> {
        let message = self.claimed.message(org);
        release
            .verify(Label::GENERATION, &message, &self.signature)
            .map_err(|_| GenerationError::BadSignature)?;
        Ok(self.claimed)
    }
}

impl fmt::Display for GenerationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature => f.write_str("not signed by the org's release key"),
            Self::Malformed(error) => write!(f, "not a generation: {error}"),
        }
    }
}

impl core::error::Error for GenerationError {}

const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: OrgId = OrgId([5; 32]);

    #[test]
    fn only_the_orgs_release_key_makes_a_generation() {
        let key = SecretKey::from_seed(&[1; 32]);
        let generation = Generation { number: 3, image: [9; 32], image_bytes: 12, minimum: 2 };
        let file = generation.sign(&ORG, &key);
        let read = || UnverifiedGeneration::decode(&file).unwrap();
        assert_eq!(read().verify(&ORG, &key.public()), Ok(generation));
        let wrong = Err(GenerationError::BadSignature);
        assert_eq!(read().verify(&OrgId([6; 32]), &key.public()), wrong, "another org's");
        assert_eq!(read().verify(&ORG, &SecretKey::from_seed(&[2; 32]).public()), wrong);
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let read = UnverifiedGeneration::decode(&changed);
            assert!(read.and_then(|g| g.verify(&ORG, &key.public())).is_err(), "byte {at}");
            assert!(UnverifiedGeneration::decode(&file[..at]).is_err());
        }
    }

    #[test]
    fn a_generation_that_shuts_itself_out_is_none() {
        let generation = Generation { number: 3, image: [9; 32], image_bytes: 12, minimum: 4 };
        let file = generation.sign(&ORG, &SecretKey::from_seed(&[1; 32]));
        let fault = Fault::OutOfRange { got: 4 };
        let refused = GenerationError::Malformed(DecodeError { field: "minimum", fault });
        assert_eq!(UnverifiedGeneration::decode(&file), Err(refused));
    }
}
