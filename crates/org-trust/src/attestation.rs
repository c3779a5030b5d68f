//! The word of a machine's TPM as it travels when the machine joins, and when it asks for its share of its
//! disk's key: what it offers, what it must open, what the TPM says then. What is in the TPM's encoding stays bytes here; the crate `attest` reads it.

use identity::{
    HashContext, PublicKey, SessionId,
    codec::{DecodeError, Reader, Writer},
    limits::{EK_CERTIFICATE_BYTES_MAX, ENROL_FRAME_BYTES_MAX, TPM_STRUCTURE_BYTES_MAX},
};

use crate::admit::Admit;

/// What a newcomer whose TPM speaks for it sends first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// An encoded [`crate::EnrolRequest`] that says [`crate::Assurance::TpmAttested`] and names the TPM.
    pub request: Vec<u8>,
    /// The certificate of the TPM's endorsement key, DER.
    pub certificate: Vec<u8>,
    /// The key that will speak, a TPMT_PUBLIC.
    pub key: Vec<u8>,
}

/// What a machine that starts sends for its share of its disk's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOffer {
    /// Which share key it is to be made with.
    pub epoch: u32,
    /// The certificate of the TPM's endorsement key, DER.
    pub certificate: Vec<u8>,
    /// The key that will speak, a TPMT_PUBLIC.
    pub key: Vec<u8>,
}

/// What only the TPM can open that holds both keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// TPMS_ID_OBJECT.
    pub credential: Vec<u8>,
    /// The encrypted seed.
    pub seed: Vec<u8>,
}

/// What the TPM says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What registers 7, 11 and 12 hold.
    pub registers: [[u8; 32]; 3],
    /// TPMS_ATTEST over them, with [`question`] or [`share_question`] as its extra data.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

/// The 32 bytes that tie a quote to one session, to the three keys and the invite of one request, and to the
/// secret that the credential held: it can be shown to nobody else, later, or for other keys.
#[must_use]
pub fn question(session: &SessionId, admit: &Admit, opened: &[u8; 32]) -> [u8; 32] {
    let invite = admit.invite.map_or([0; 32], |invite| invite.0);
    let [node, wireguard, boot] = [&admit.node, &admit.wireguard, &admit.boot].map(|key| key.as_bytes());
    HashContext::ATTESTATION.hash(&[session.as_bytes(), node, wireguard, boot, &invite, opened])
}

/// The same for a machine that asks for its share: tied to the session, the boot key that it proved there,
/// the epoch, and the secret that the credential held.
#[must_use]
pub fn share_question(session: &SessionId, boot: &PublicKey, epoch: u32, opened: &[u8; 32]) -> [u8; 32] {
    let epoch = epoch.to_le_bytes();
    HashContext::DISK_SHARE_QUESTION.hash(&[session.as_bytes(), boot.as_bytes(), &epoch, opened])
}

impl Offer {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.long_bytes(&self.request).long_bytes(&self.certificate).long_bytes(&self.key);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            request: r.long_bytes("enrolment request", ENROL_FRAME_BYTES_MAX)?.to_vec(),
            certificate: r.long_bytes("TPM's certificate", EK_CERTIFICATE_BYTES_MAX)?.to_vec(),
            key: r.long_bytes("attestation key", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
        })
    }
}

impl ShareOffer {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u32(self.epoch).long_bytes(&self.certificate).long_bytes(&self.key);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: r.u32("epoch")?,
            certificate: r.long_bytes("TPM's certificate", EK_CERTIFICATE_BYTES_MAX)?.to_vec(),
            key: r.long_bytes("attestation key", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
        })
    }
}

impl Challenge {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.long_bytes(&self.credential).long_bytes(&self.seed);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            credential: r.long_bytes("credential", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
            seed: r.long_bytes("credential's seed", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
        })
    }
}

impl Quote {
    pub(crate) fn write(&self, out: &mut Writer) {
        for register in &self.registers {
            out.bytes(register);
        }
        out.long_bytes(&self.attest).long_bytes(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            registers: [r.array("register 7")?, r.array("register 11")?, r.array("register 12")?],
            attest: r.long_bytes("quote", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
            signature: r.long_bytes("quote's signature", TPM_STRUCTURE_BYTES_MAX)?.to_vec(),
        })
    }
}
