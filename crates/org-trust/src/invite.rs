//! An invite and its end.

use identity::{
    PublicKey, StatementId, Tag, TpmId,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{INVITE_TPMS_MAX, INVITE_USES_MAX, LABELS_MAX, NOTE_BYTES_MAX},
};

use crate::assign::{read_tags, write_tags};

/// An invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its public key; whoever has the secret half may use it.
    pub key: PublicKey,
    /// How many machines may, at least 1.
    pub uses: u32,
    /// The gateway's role key that admits them.
    pub redeemer: PublicKey,
    /// Labels they get, ascending.
    pub labels: Vec<Tag>,
    /// When the redeemer should stop by its clock, in Unix seconds; 0 for never. Advice: whether an
    /// Admit counts never depends on a clock.
    pub expires_unix_s: u64,
    /// What it is for, in the admin's words.
    pub note: String,
    /// Whether a machine that used it waits until an admin has approved it.
    pub approval: bool,
    /// Whether the redeemer must have the word of a machine's TPM before it admits it.
    pub attestation: bool,
    /// The TPMs it is limited to, ascending; any when empty. Only with `attestation`.
    pub tpms: Vec<TpmId>,
}

/// The end of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The invite.
    pub invite: StatementId,
    /// The redeemer's last statement up to which Admits under the invite count; none of them counts
    /// when it is absent.
    pub tip: Option<StatementId>,
}

impl Invite {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.bytes(self.key.as_bytes()).u32(self.uses).bytes(self.redeemer.as_bytes());
        write_tags(out, &self.labels);
        out.u64(self.expires_unix_s).short_bytes(self.note.as_bytes());
        let flags = [(self.approval, APPROVAL), (self.attestation, ATTESTATION)];
        out.u8(flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag));
        out.count(self.tpms.len());
        for tpm in &self.tpms {
            out.bytes(tpm.as_bytes());
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key = r.key("invite key")?;
        let uses = r.u32("uses")?;
        if uses == 0 || uses > INVITE_USES_MAX {
            return Err(DecodeError { field: "uses", fault: Fault::OutOfRange { got: uses.into() } });
        }
        let redeemer = r.key("redeemer")?;
        let labels = read_tags(r, "labels", "label", LABELS_MAX)?;
        let expires_unix_s = r.u64("expires")?;
        let note = r.text("note", NOTE_BYTES_MAX)?.to_owned();
        let flags = r.u8("invite flags")?;
        if flags & !(APPROVAL | ATTESTATION) != 0 {
            return Err(DecodeError { field: "invite flags", fault: Fault::Unknown { got: flags.into() } });
        }
        let (approval, attestation) = (flags & APPROVAL != 0, flags & ATTESTATION != 0);
        let count = r.count("endorsement keys", INVITE_TPMS_MAX)?;
        let tpms = (0..count).map(|_| r.array("endorsement key").map(TpmId));
        let tpms = tpms.collect::<Result<Vec<_>, _>>()?;
        ascending("endorsement keys", &tpms)?;
        // Names without the flag would limit nothing, and look as if they did.
        if !attestation && !tpms.is_empty() {
            return Err(DecodeError { field: "endorsement keys", fault: Fault::OutOfRange { got: 0 } });
        }
        Ok(Self { key, uses, redeemer, labels, expires_unix_s, note, approval, attestation, tpms })
    }
}

/// The flags of an invite that this release knows.
const APPROVAL: u8 = 1;
const ATTESTATION: u8 = 2;
