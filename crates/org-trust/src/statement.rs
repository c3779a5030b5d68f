//! Statements: one header, one payload, one signature.

use core::{fmt, ops};

use identity::{
    CharterId, Code, HashContext, KeyUpToSign, Label, OrgId, PublicKey, SecretKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer},
};

use crate::{
    admit::PossessionError,
    payload::{Lane, Payload},
};

/// A decoded statement whose signatures nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedStatement(StatementClaim);

/// A statement that its author signed for this org, with every key in it proved. Whether the author
/// may say so is not decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(StatementClaim);

/// What a statement says, whoever signed it. A [`Statement`] derefs to it; a claim never becomes one
/// but by [`UnverifiedStatement::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementClaim {
    id: StatementId,
    author: PublicKey,
    place: Place,
    payload: Payload,
    bytes: Vec<u8>,
}

/// Where a statement stands in its author's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The newest charter the author knew.
    pub charter: CharterId,
    /// The lane.
    pub lane: Lane,
    /// 0, then one more each time.
    pub seq: u64,
    /// Id of the statement before it in this lane. At seq 0: of the charter that first named the
    /// author; of a statement of a node's own, of the Admit or Rotate that made its key a member's.
    pub prev: [u8; 32],
}

/// Why a statement's signatures do not hold, or why it cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatementError {
    /// Not signed by its author, or for another org.
    BadSignature,
    /// The key of an invite is also its redeemer's or its author's, or is not torsion-free.
    InviteKey,
    /// What should be signed is no statement.
    Malformed(DecodeError),
    /// A proof in an Admit or a Rotate does not hold.
    Possession(PossessionError),
}

impl UnverifiedStatement {
    /// Reads a statement.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.exactly("statement format", FORMAT)?;
        let kind = r.u8("kind")?;
        let max = Payload::bytes_max(kind);
        if bytes.len() > max {
            let fault = Fault::TooLong { max, got: bytes.len() };
            return Err(DecodeError { field: "statement", fault });
        }
        let lane = Lane::read(&mut r, "lane")?;
        r.exactly("statement flags", NO_FLAGS)?;
        let seq = r.u64("seq")?;
        let author = r.key("author")?;
        let charter = CharterId(r.array("charter")?);
        let prev = r.array("prev")?;
        let payload = Payload::read(kind, author, &mut r)?;
        r.signature("author signature")?;
        r.finish("end of statement")?;
        if lane != payload.lane() {
            let fault = Fault::OutOfRange { got: lane.number().into() };
            return Err(DecodeError { field: "lane", fault });
        }
        // What a node says stands alone; u64::MAX has no successor.
        if seq == u64::MAX || (payload.is_by_node() && seq != 0) {
            return Err(DecodeError { field: "seq", fault: Fault::OutOfRange { got: seq } });
        }
        let id = StatementId(HashContext::STATEMENT_ID.hash(&[bytes]));
        let place = Place { charter, lane, seq, prev };
        Ok(Self(StatementClaim { id, author, place, payload, bytes: bytes.to_vec() }))
    }

    /// Checks the author's signature, and in an Admit or a Rotate the proofs of the three keys.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(self, org: &OrgId) -> Result<Statement, StatementError> {
        let Some((body, signature)) = self.0.bytes.split_last_chunk() else {
            return Err(StatementError::BadSignature);
        };
        let signature = identity::Signature(*signature);
        let message = [org.as_bytes(), body].concat();
        let author = &self.0.author;
        author.verify(Label::STATEMENT, &message, &signature).map_err(|_| StatementError::BadSignature)?;
        match &self.0.payload {
            Payload::Admit(admit) => admit.verify_keys(org).map_err(StatementError::Possession)?,
            Payload::Invite(invite) => {
                let taken = invite.key == invite.redeemer || invite.key == *author;
                if taken || !invite.key.is_torsion_free() {
                    return Err(StatementError::InviteKey);
                }
            }
            Payload::Rotate(rotate) => rotate.verify_keys(org).map_err(StatementError::Possession)?,
            Payload::Revoke(_)
            | Payload::Cancel(_)
            | Payload::Leave
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => {}
        }
        Ok(Statement(self.0))
    }

    /// What it says, unverified: for the cheap checks that come before the signature's.
    #[must_use]
    pub const fn claimed(&self) -> &StatementClaim {
        &self.0
    }
}

impl Statement {
    /// Signs `payload` as the statement at `place` of `author`.
    ///
    /// # Errors
    /// [`StatementError`] when no reader would accept the outcome.
    pub fn sign(
        org: &OrgId,
        author: &SecretKey,
        place: Place,
        payload: &Payload,
    ) -> Result<Self, StatementError> {
        let body = unsigned(&author.public(), &place, payload);
        let signature = author.sign(Label::STATEMENT, &[org.as_bytes(), body.as_slice()].concat());
        let bytes = [body.as_slice(), &signature.0].concat();
        let read = UnverifiedStatement::decode(&bytes).map_err(StatementError::Malformed)?;
        if read.0.payload != *payload {
            // An Admit with another redeemer than its author, or a Rotate of another key, reads back
            // as its author's, which its keys never signed.
            return Err(StatementError::Possession(PossessionError::Node));
        }
        read.verify(org)
    }

    /// The keys of the machine that an Admit or a Rotate names, node, WireGuard and boot, in the one form in which
    /// two keys can be compared.
    #[must_use]
    pub fn machine_keys(&self) -> Option<[KeyUpToSign; 3]> {
        let keys = match &self.0.payload {
            Payload::Admit(admit) => [admit.node, admit.wireguard, admit.boot],
            Payload::Rotate(rotate) => [rotate.node, rotate.wireguard, rotate.boot],
            Payload::Invite(_)
            | Payload::Revoke(_)
            | Payload::Cancel(_)
            | Payload::Leave
            | Payload::Suspend(_)
            | Payload::Resume(_)
            | Payload::Assign(_)
            | Payload::Retire(_)
            | Payload::Cosign(_)
            | Payload::Policy(_) => return None,
        };
        Some(keys.map(|key| key.up_to_sign()))
    }
}

impl ops::Deref for Statement {
    type Target = StatementClaim;

    fn deref(&self) -> &StatementClaim {
        &self.0
    }
}

impl StatementClaim {
    /// Hash of its bytes.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The key that signed it.
    #[must_use]
    pub const fn author(&self) -> &PublicKey {
        &self.author
    }

    /// Where it stands in its author's chain.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.place.lane
    }

    /// Its number in the lane.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.place.seq
    }

    /// Id of what it follows; see [`Place::prev`].
    #[must_use]
    pub const fn prev(&self) -> [u8; 32] {
        self.place.prev
    }

    /// The newest charter its author knew.
    #[must_use]
    pub const fn charter(&self) -> CharterId {
        self.place.charter
    }

    /// What it says.
    #[must_use]
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Its encoding.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoding of what was read, worked out anew: the same bytes, because there is one form. For
    /// whoever checks that.
    #[must_use]
    pub fn reencoded(&self) -> Vec<u8> {
        let signature = self.bytes.last_chunk::<64>().map_or(&[][..], |signature| signature);
        [unsigned(&self.author, &self.place, &self.payload).as_slice(), signature].concat()
    }

    /// The place after this one in its lane, signed under `charter`.
    #[must_use]
    pub const fn next_place(&self, charter: CharterId) -> Place {
        Place { charter, lane: self.place.lane, seq: self.place.seq.saturating_add(1), prev: self.id.0 }
    }
}

fn unsigned(author: &PublicKey, place: &Place, payload: &Payload) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(FORMAT).u8(payload.number()).u8(place.lane.number()).u8(NO_FLAGS).u64(place.seq);
    out.bytes(author.as_bytes()).bytes(place.charter.as_bytes()).bytes(&place.prev);
    payload.write(&mut out);
    out.into_bytes()
}

impl StatementError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadSignature | Self::Possession(_) => Code::ChangeBadSignature,
            Self::InviteKey | Self::Malformed(_) => Code::ChangeMalformed,
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature => f.write_str("not signed by its author for this org"),
            Self::InviteKey => f.write_str("the invite's key is used elsewhere or weak"),
            Self::Malformed(why) => write!(f, "{why}"),
            Self::Possession(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for StatementError {}

const FORMAT: u8 = 1;
const NO_FLAGS: u8 = 0;
