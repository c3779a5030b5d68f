//! What a gateway makes of the word of a machine's TPM, when the machine joins and when it asks for its share
//! of its disk's key. Pure: the caller draws, keeps and answers.
//!
//! A machine says which TPM speaks for it and proves that in two steps. First it gets a secret that only this
//! TPM opens, and only if it also holds the key that will speak; then that key says what the registers hold,
//! in answer to a question made of the session, the machine's keys, what it asks for, and the opened secret.

use core::fmt;
use std::time::Instant;

use attest::{
    Accepted, AttestationKey, Endorsement, EndorsementError, KeyError, QuoteError, Quoted, Registers,
};
use identity::{Code, PublicKey, SessionId, TpmId};
use org_trust::{Admit, Challenge, Offer, Quote, ShareOffer, TrustBundle, question, share_question};
use zeroize::Zeroizing;

/// What the word of a TPM is checked against: `[attestation]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// The very CAs that sign the certificates of endorsement keys.
    pub makers: Option<TrustBundle>,
    /// Registers that will do.
    pub accepted: Accepted,
}

/// A machine that was given a credential and has not answered.
#[derive(Debug)]
pub struct Pending {
    /// What it asked for; decided about anew once its TPM has spoken.
    pub asked: Wanted,
    /// Until when it may answer.
    pub until: Instant,
    endorsement: Endorsement,
    key: AttestationKey,
    secret: Zeroizing<[u8; 32]>,
}

/// What a TPM speaks for.
#[derive(Debug)]
pub enum Wanted {
    /// That a machine is admitted.
    Join {
        /// The request.
        request: Vec<u8>,
        /// What it would become, its proofs checked.
        admit: Box<Admit>,
    },
    /// A share of a disk's key.
    Share {
        /// The machine's boot key.
        boot: PublicKey,
        /// Of this epoch.
        epoch: u32,
    },
}

/// A TPM whose word holds and will do.
#[derive(Clone, Debug)]
pub struct Word {
    /// Which TPM.
    pub tpm: TpmId,
    /// Who vouches for it.
    pub by: String,
    /// What it says.
    pub quoted: Quoted,
}

/// What the operating system drew for one credential.
#[derive(Debug)]
pub struct Drawn {
    /// What the TPM is to open.
    pub secret: Zeroizing<[u8; 32]>,
    /// For wrapping it.
    pub randomness: Zeroizing<[u8; 64]>,
}

/// Why a machine has no word of a TPM that counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unattested {
    /// Nobody vouches for the TPM.
    Endorsement(EndorsementError),
    /// The key that is to speak could say anything.
    Key(KeyError),
    /// The invite is for other TPMs.
    NotInvited {
        /// This one.
        tpm: TpmId,
    },
    /// Nothing is set up to check it against.
    NotSetUp,
    /// The certificate is of another TPM than the one that the request names, or that spoke when the
    /// machine joined.
    OtherTpm,
    /// What it says does not hold, or will not do.
    Quote(QuoteError),
}

impl Attestation {
    /// Whether anything could pass.
    #[must_use]
    pub const fn is_set_up(&self) -> bool {
        self.makers.is_some() && !self.accepted.secure_boot.is_empty() && !self.accepted.images.is_empty()
    }

    /// Checks what a machine offers, and makes what its TPM must open. `admit` is what it asks for, its
    /// proofs checked; `invited` are the TPMs that its invite is limited to.
    ///
    /// # Errors
    /// [`Unattested`].
    pub fn challenge(
        &self,
        offer: Offer,
        admit: Box<Admit>,
        invited: &[TpmId],
        drawn: Drawn,
        until: Instant,
    ) -> Result<(Challenge, Pending), Unattested> {
        let endorsement = self.endorsement(&offer.certificate)?;
        let tpm = endorsement.tpm();
        if admit.tpm() != Some(tpm) {
            return Err(Unattested::OtherTpm);
        }
        if !invited.is_empty() && !invited.contains(&tpm) {
            return Err(Unattested::NotInvited { tpm });
        }
        let asked = Wanted::Join { request: offer.request, admit };
        ask(asked, endorsement, &offer.key, drawn, until)
    }

    /// The same for the share of a machine's disk key. `tpm` is the one that spoke for it when it joined.
    ///
    /// # Errors
    /// [`Unattested`].
    pub fn challenge_for_share(
        &self,
        offer: &ShareOffer,
        boot: PublicKey,
        tpm: Option<TpmId>,
        drawn: Drawn,
        until: Instant,
    ) -> Result<(Challenge, Pending), Unattested> {
        let endorsement = self.endorsement(&offer.certificate)?;
        if tpm.is_some_and(|known| known != endorsement.tpm()) {
            return Err(Unattested::OtherTpm);
        }
        ask(Wanted::Share { boot, epoch: offer.epoch }, endorsement, &offer.key, drawn, until)
    }

    fn endorsement(&self, certificate: &[u8]) -> Result<Endorsement, Unattested> {
        let makers = self.makers.as_ref().filter(|_| self.is_set_up()).ok_or(Unattested::NotSetUp)?;
        let makers = makers.certificates().iter().map(|ca| ca.der());
        Endorsement::of_certificate(certificate, makers).map_err(Unattested::Endorsement)
    }

    /// Hears what the TPM says in this session.
    ///
    /// # Errors
    /// [`Unattested::Quote`].
    pub fn hear(&self, session: &SessionId, pending: &Pending, quote: &Quote) -> Result<Word, Unattested> {
        let [secure_boot, image, command_line] = quote.registers;
        let registers = Registers { secure_boot, image, command_line };
        let question = match &pending.asked {
            Wanted::Join { admit, .. } => question(session, admit, &pending.secret),
            Wanted::Share { boot, epoch } => share_question(session, boot, *epoch, &pending.secret),
        };
        let quoted = pending
            .key
            .verify_quote(&quote.attest, &quote.signature, &question, &registers)
            .map_err(Unattested::Quote)?;
        quoted.check(&self.accepted).map_err(Unattested::Quote)?;
        Ok(Word { tpm: pending.endorsement.tpm(), by: pending.endorsement.by().to_owned(), quoted })
    }
}

fn ask(
    asked: Wanted,
    endorsement: Endorsement,
    key: &[u8],
    drawn: Drawn,
    until: Instant,
) -> Result<(Challenge, Pending), Unattested> {
    let key = AttestationKey::decode(key).map_err(Unattested::Key)?;
    let Drawn { secret, randomness } = drawn;
    let made = endorsement.make_credential(&key, &secret, &randomness);
    let made = made.ok_or(Unattested::Endorsement(EndorsementError::Malformed))?;
    let challenge = Challenge { credential: made.blob, seed: made.seed };
    Ok((challenge, Pending { asked, until, endorsement, key, secret }))
}

impl Unattested {
    /// The code that people meet.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Endorsement(_) => Code::EkUntrusted,
            Self::Key(_) => Code::AttestationKeyUnfit,
            Self::NotInvited { .. } => Code::EkNotInvited,
            Self::NotSetUp => Code::AttestationNotSetUp,
            Self::OtherTpm | Self::Quote(QuoteError::OtherQuestion) => Code::QuoteOfAnother,
            Self::Quote(QuoteError::NotAccepted { .. }) => Code::BootNotAccepted,
            Self::Quote(_) => Code::QuoteInvalid,
        }
    }
}

impl fmt::Display for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endorsement(why) => why.fmt(f),
            Self::Key(why) => why.fmt(f),
            Self::NotInvited { tpm } => write!(f, "the invite is not for TPM {tpm}"),
            Self::NotSetUp => f.write_str(Code::AttestationNotSetUp.title()),
            Self::OtherTpm => f.write_str("the certificate is of another TPM than the one that is named"),
            Self::Quote(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for Unattested {}
