//! What a newcomer sends to the gateway that its invite names.

use core::fmt;

use identity::{
    Code, Name, OrgId, PublicKey, SecretKey, Signature, StatementId,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::ENROL_FRAME_BYTES_MAX,
};

use crate::{
    admit::{Admit, NodeKeys, Possession, PossessionError},
    assurance::Assurance,
};

/// A request to become a member, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolRequest(Admit);

/// A request whose four proofs hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEnrol(Admit);

/// An invite as its holder uses it.
#[derive(Clone, Copy, Debug)]
pub struct Redemption<'a> {
    /// The invite.
    pub invite: StatementId,
    /// Its secret key.
    pub key: &'a SecretKey,
    /// The gateway's role key that it names.
    pub redeemer: PublicKey,
}

/// Why a request does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnrolError {
    /// The bytes are no request.
    Malformed(DecodeError),
    /// A proof does not hold.
    Possession(PossessionError),
}

impl EnrolRequest {
    /// Signs a request with the machine's three keys and the invite's.
    #[must_use]
    pub fn sign(
        org: &OrgId,
        keys: NodeKeys<'_>,
        redemption: Redemption<'_>,
        name: Name,
        assurance: Assurance,
        attestation: [u8; 32],
    ) -> Self {
        let none = Signature([0; 64]);
        let mut admit = Admit {
            node: keys.node.public(),
            wireguard: keys.wireguard.public(),
            boot: keys.boot.public(),
            invite: Some(redemption.invite),
            redeemer: redemption.redeemer,
            name,
            assurance,
            attestation,
            signatures: Possession { node: none, wireguard: none, boot: none, invite: none },
        };
        admit.prove(org, keys, Some(redemption.key));
        Self(admit)
    }

    /// The one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT).bytes(self.0.redeemer.as_bytes());
        self.0.write(&mut out);
        out.into_bytes()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`EnrolError::Malformed`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnrolError> {
        Self::read(bytes).map_err(EnrolError::Malformed)
    }

    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > ENROL_FRAME_BYTES_MAX {
            let fault = Fault::TooLong { max: ENROL_FRAME_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "enrolment request", fault });
        }
        let mut r = Reader::new(bytes);
        r.exactly("request format", FORMAT)?;
        let redeemer = r.key("redeemer")?;
        let admit = Admit::read(redeemer, &mut r)?;
        r.finish("end of request")?;
        if admit.invite.is_none() {
            return Err(DecodeError { field: "invite", fault: Fault::OutOfRange { got: 0 } });
        }
        Ok(Self(admit))
    }

    /// The invite it names, by which its key is found.
    #[must_use]
    pub const fn invite(&self) -> Option<StatementId> {
        self.0.invite
    }

    /// What it asks for, unverified.
    #[must_use]
    pub const fn claimed(&self) -> &Admit {
        &self.0
    }

    /// Checks the proofs of the three keys and of the invite.
    ///
    /// # Errors
    /// [`EnrolError::Possession`] naming the first that does not hold.
    pub fn verify(self, org: &OrgId, invite_key: &PublicKey) -> Result<VerifiedEnrol, EnrolError> {
        self.0.verify_keys(org).map_err(EnrolError::Possession)?;
        self.0.verify_invite(org, invite_key).map_err(EnrolError::Possession)?;
        Ok(VerifiedEnrol(self.0))
    }
}

impl VerifiedEnrol {
    /// What it asks for.
    #[must_use]
    pub const fn admit(&self) -> &Admit {
        &self.0
    }

    /// The payload that its redeemer signs.
    #[must_use]
    pub fn into_admit(self) -> Admit {
        self.0
    }
}

impl EnrolError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::EnrolMalformed,
            Self::Possession(_) => Code::EnrolKeyUnproven,
        }
    }
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "{why}"),
            Self::Possession(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for EnrolError {}

const FORMAT: u8 = 1;
