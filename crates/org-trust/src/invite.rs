//! An invite and its end.

use identity::{
    PublicKey, StatementId, Tag,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{INVITE_USES_MAX, LABELS_MAX, NOTE_BYTES_MAX},
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
        out.u8(u8::from(self.approval)).u8(ANY_TPM);
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
        let approval = match r.u8("invite flags")? {
            0 => false,
            APPROVAL => true,
            got => {
                return Err(DecodeError { field: "invite flags", fault: Fault::Unknown { got: got.into() } });
            }
        };
        r.exactly("endorsement keys", ANY_TPM)?;
        Ok(Self { key, uses, redeemer, labels, expires_unix_s, note, approval })
    }
}

/// The one flag of an invite that this release knows.
const APPROVAL: u8 = 1;
/// The count of TPM endorsement keys an invite is limited to; this release limits none.
const ANY_TPM: u8 = 0;
