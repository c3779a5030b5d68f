//! What the TPM says: a TPMS_ATTEST over registers 7, 11 and 12, and its signature.

use core::fmt;

use p256::ecdsa::{Signature, signature::Verifier as _};
use sha2::{Digest as _, Sha256};

use crate::{
    key::AttestationKey,
    reader::{ECDSA, Malformed, Reader, SHA256},
};

/// What a machine says its registers hold, to be compared with what its TPM signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// 7: Secure Boot's state and keys.
    pub secure_boot: [u8; 32],
    /// 11: the image that was started.
    pub image: [u8; 32],
    /// 12: a command line that is not the image's own.
    pub command_line: [u8; 32],
}

/// Registers that were signed, by a key whose TPM answered this very question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted(Registers);

/// Which registers will do, as the operator of a gateway says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Values of register 7, one for each kind of machine.
    pub secure_boot: Vec<[u8; 32]>,
    /// Values of register 11, one for each image: `muster image preboot` prints them.
    pub images: Vec<[u8; 32]>,
}

/// Why a quote does not hold, or is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuoteError {
    /// The bytes are no quote or no signature.
    Malformed(Malformed),
    /// A register holds what nobody accepts.
    NotAccepted {
        /// Its number.
        register: u8,
        /// What it holds.
        value: [u8; 32],
    },
    /// Made for another session, other keys, or without opening the credential.
    OtherQuestion,
    /// It is about other registers than were asked for, or not about the values that were sent.
    OtherRegisters,
    /// The key did not sign it.
    Unsigned,
}

impl AttestationKey {
    /// Checks a quote by this key: its signature, that it answers `question`, and that it is over
    /// `registers`.
    ///
    /// # Errors
    /// [`QuoteError`].
    pub fn verify_quote(
        &self,
        attest: &[u8],
        signature: &[u8],
        question: &[u8; 32],
        registers: &Registers,
    ) -> Result<Quoted, QuoteError> {
        let signature = read_signature(signature).map_err(QuoteError::Malformed)?;
        let said = read_attest(attest).map_err(QuoteError::Malformed)?;
        self.key.verify(attest, &signature).map_err(|_| QuoteError::Unsigned)?;
        if said.question != question {
            return Err(QuoteError::OtherQuestion);
        }
        let Registers { secure_boot, image, command_line } = registers;
        let digest = Sha256::new().chain_update(secure_boot).chain_update(image).chain_update(command_line);
        if !said.of_registers || said.digest != digest.finalize().as_slice() {
            return Err(QuoteError::OtherRegisters);
        }
        Ok(Quoted(*registers))
    }
}

impl Quoted {
    /// What the registers hold.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.0
    }

    /// Whether that will do. Register 12 must be untouched: nothing of ours is measured into it.
    ///
    /// # Errors
    /// [`QuoteError::NotAccepted`] naming the first register that will not.
    pub fn check(&self, accepted: &Accepted) -> Result<(), QuoteError> {
        let Registers { secure_boot, image, command_line } = self.0;
        for (register, value, good) in [
            (12, command_line, command_line == [0; 32]),
            (11, image, accepted.images.contains(&image)),
            (7, secure_boot, accepted.secure_boot.contains(&secure_boot)),
        ] {
            if !good {
                return Err(QuoteError::NotAccepted { register, value });
            }
        }
        Ok(())
    }
}

struct Said<'a> {
    question: &'a [u8],
    of_registers: bool,
    digest: &'a [u8],
}

fn read_attest(bytes: &[u8]) -> Result<Said<'_>, Malformed> {
    let mut r = Reader::new(bytes);
    if r.u32("magic")? != GENERATED {
        return Err(Malformed { field: "magic" });
    }
    if r.u16("kind")? != QUOTE {
        return Err(Malformed { field: "kind" });
    }
    r.sized("signer", NAME_BYTES_MAX)?;
    let question = r.sized("extra data", DATA_BYTES_MAX)?;
    r.u64("clock")?;
    r.u32("reset count")?;
    r.u32("restart count")?;
    if r.u8("safe")? > 1 {
        return Err(Malformed { field: "safe" });
    }
    r.u64("firmware version")?;
    let banks = r.u32("banks")?;
    if banks != 1 {
        return Err(Malformed { field: "banks" });
    }
    let hash = r.u16("bank")?;
    if r.u8("size of selection")? != 3 {
        return Err(Malformed { field: "size of selection" });
    }
    let selected = r.array::<3>("selection")?;
    let digest = r.sized("digest", NAME_BYTES_MAX)?;
    r.finish("end of quote")?;
    Ok(Said { question, of_registers: hash == SHA256 && selected == SELECTED, digest })
}

fn read_signature(bytes: &[u8]) -> Result<Signature, Malformed> {
    let mut r = Reader::new(bytes);
    if r.u16("signature's scheme")? != ECDSA {
        return Err(Malformed { field: "signature's scheme" });
    }
    if r.u16("signature's hash")? != SHA256 {
        return Err(Malformed { field: "signature's hash" });
    }
    let (first, second) = (r.scalar("r")?, r.scalar("s")?);
    r.finish("end of signature")?;
    Signature::from_scalars(first, second).map_err(|_| Malformed { field: "signature" })
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the quote is {why}"),
            Self::NotAccepted { register, value } => {
                write!(f, "register {register} holds {}", identity::encode_hex(value))
            }
            Self::OtherQuestion => f.write_str("the quote answers another session or other keys"),
            Self::OtherRegisters => f.write_str("the quote is not over the registers that were sent"),
            Self::Unsigned => f.write_str("the attestation key did not sign the quote"),
        }
    }
}

impl core::error::Error for QuoteError {}

/// TPM_GENERATED_VALUE: a restricted key signs nothing else that begins so.
const GENERATED: u32 = 0xFF54_4347;
/// TPM_ST_ATTEST_QUOTE.
const QUOTE: u16 = 0x8018;
/// 7, 11 and 12.
const SELECTED: [u8; 3] = [0x80, 0x18, 0x00];
/// The longest Name and digest, of SHA-512.
const NAME_BYTES_MAX: usize = 66;
const DATA_BYTES_MAX: usize = 66;

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;

    use super::*;
    use crate::key::tests::{ATTRIBUTES, described, signer};

    const QUESTION: [u8; 32] = [7; 32];
    const HELD: Registers = Registers { secure_boot: [1; 32], image: [2; 32], command_line: [0; 32] };

    fn attest(question: &[u8], selected: [u8; 3], held: &Registers) -> Vec<u8> {
        let mut out = GENERATED.to_be_bytes().to_vec();
        out.extend(QUOTE.to_be_bytes());
        out.extend([0, 2, 5, 5]);
        out.extend(u16::try_from(question.len()).unwrap().to_be_bytes());
        out.extend(question);
        out.extend([0; 25]);
        out.extend([0, 0, 0, 1, 0, 0x0B, 3]);
        out.extend(selected);
        out.extend([0, 32]);
        out.extend(Sha256::digest([held.secure_boot, held.image, held.command_line].concat()));
        out
    }

    fn sign(by: u8, attest: &[u8]) -> Vec<u8> {
        let signature: Signature = signer(by).sign(attest);
        let mut out = vec![0, 0x18, 0, 0x0B];
        for part in signature.to_bytes().chunks(32) {
            let short: Vec<u8> = part.iter().copied().skip_while(|byte| *byte == 0).collect();
            out.extend(u16::try_from(short.len()).unwrap().to_be_bytes());
            out.extend(short);
        }
        out
    }

    fn key() -> AttestationKey {
        AttestationKey::decode(&described(ATTRIBUTES, &signer(1))).unwrap()
    }

    #[test]
    fn a_quote_holds_for_its_key_its_question_and_its_registers_alone() {
        let said = attest(&QUESTION, SELECTED, &HELD);
        let signed = sign(1, &said);
        let quoted = key().verify_quote(&said, &signed, &QUESTION, &HELD).unwrap();
        assert_eq!(quoted.registers(), &HELD);
        let wrong = |said: &[u8], signed: &[u8], question: &[u8; 32], held: &Registers| {
            key().verify_quote(said, signed, question, held).unwrap_err()
        };
        assert_eq!(wrong(&said, &sign(2, &said), &QUESTION, &HELD), QuoteError::Unsigned);
        assert_eq!(wrong(&said, &signed, &[8; 32], &HELD), QuoteError::OtherQuestion);
        let other = Registers { image: [3; 32], ..HELD };
        assert_eq!(wrong(&said, &signed, &QUESTION, &other), QuoteError::OtherRegisters);
        let fewer = attest(&QUESTION, [0x80, 0x08, 0], &HELD);
        assert_eq!(wrong(&fewer, &sign(1, &fewer), &QUESTION, &HELD), QuoteError::OtherRegisters);
        let longer = attest(&[7; 33], SELECTED, &HELD);
        assert_eq!(wrong(&longer, &sign(1, &longer), &QUESTION, &HELD), QuoteError::OtherQuestion);
    }

    #[test]
    fn no_byte_of_a_quote_or_its_signature_can_be_changed() {
        let said = attest(&QUESTION, SELECTED, &HELD);
        let signed = sign(1, &said);
        for at in 0..said.len() {
            let mut changed = said.clone();
            changed[at] ^= 1;
            assert!(key().verify_quote(&changed, &signed, &QUESTION, &HELD).is_err(), "byte {at}");
            let cut = key().verify_quote(&said[..at], &signed, &QUESTION, &HELD);
            assert!(matches!(cut, Err(QuoteError::Malformed(_))), "cut at {at}");
        }
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(key().verify_quote(&said, &changed, &QUESTION, &HELD).is_err(), "signature's byte {at}");
            assert!(key().verify_quote(&said, &signed[..at], &QUESTION, &HELD).is_err());
        }
    }

    #[test]
    fn registers_are_accepted_by_value_and_the_first_wrong_one_is_named() {
        let accepted = Accepted { secure_boot: vec![[9; 32], [1; 32]], images: vec![[2; 32]] };
        assert_eq!(Quoted(HELD).check(&accepted), Ok(()));
        for (held, register, value) in [
            (Registers { secure_boot: [2; 32], ..HELD }, 7, [2; 32]),
            (Registers { image: [1; 32], ..HELD }, 11, [1; 32]),
            (Registers { command_line: [1; 32], ..HELD }, 12, [1; 32]),
        ] {
            let wrong = Err(QuoteError::NotAccepted { register, value });
            assert_eq!(Quoted(held).check(&accepted), wrong);
        }
        assert!(Quoted(HELD).check(&Accepted::default()).is_err(), "what is not listed is not accepted");
    }
}
