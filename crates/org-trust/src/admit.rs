//! An Admit and the proofs of possession in it.
//!
//! The node, WireGuard and boot keys and the invite's key sign one and the same message, each under a
//! label of its own: the org, the invite, the role key that redeems it, the three keys, the name, the
//! assurance and the attestation. So nobody can enrol another's key, move a proof to another invite,
//! or spend an invite on other keys than the ones its holder chose.

use core::fmt;

use identity::{
    Code, Label, Name, OrgId, PublicKey, SecretKey, Signature, StatementId, TpmId,
    codec::{DecodeError, Reader, Writer},
};

use crate::{
    assurance::Assurance,
    charter::short,
    payload::{read_optional_id, write_optional_id},
};

/// A machine's keys and what is known of it when it becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// The key that stands for the member.
    pub node: PublicKey,
    /// The key of its tunnel, in its Ed25519 form; used for nothing else.
    pub wireguard: PublicKey,
    /// The key it boots with.
    pub boot: PublicKey,
    /// The invite it used; none when an admin admitted it.
    pub invite: Option<StatementId>,
    /// The role key that admits: the author of the statement.
    pub redeemer: PublicKey,
    /// Its name, for people.
    pub name: Name,
    /// How its keys are held.
    pub assurance: Assurance,
    /// The TPM whose word the redeemer has for that; zeros when it has none.
    pub attestation: [u8; 32],
    /// Proof of each key.
    pub signatures: Possession,
}

/// Four signatures over one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possession {
    /// By the node key.
    pub node: Signature,
    /// By the WireGuard key.
    pub wireguard: Signature,
    /// By the boot key.
    pub boot: Signature,
    /// By the invite's key; zeros without an invite.
    pub invite: Signature,
}

/// The three secret keys of a machine.
#[derive(Clone, Copy, Debug)]
pub struct NodeKeys<'a> {
    /// The key that stands for the member.
    pub node: &'a SecretKey,
    /// The key of its tunnel.
    pub wireguard: &'a SecretKey,
    /// The key it boots with.
    pub boot: &'a SecretKey,
}

/// Which proof in an Admit or an enrolment request does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PossessionError {
    /// The boot key did not sign.
    Boot,
    /// The invite's key did not sign.
    Invite,
    /// A signature by an invite where no invite is named.
    InviteWithout,
    /// One key in two of the places.
    KeyTwice {
        /// The key.
        key: [u8; 32],
    },
    /// The node key did not sign.
    Node,
    /// A key with a component of small order, which has relatives that verify alike.
    TorsionKey {
        /// The key.
        key: [u8; 32],
    },
    /// The WireGuard key did not sign.
    WireGuard,
}

impl Admit {
    /// An admin's own Admit of a machine, without an invite: `redeemer` is the admin's key.
    #[must_use]
    pub fn by_admin(
        org: &OrgId,
        keys: NodeKeys<'_>,
        redeemer: PublicKey,
        name: Name,
        assurance: Assurance,
    ) -> Self {
        let none = Signature([0; 64]);
        let mut admit = Self {
            node: keys.node.public(),
            wireguard: keys.wireguard.public(),
            boot: keys.boot.public(),
            invite: None,
            redeemer,
            name,
            assurance,
            attestation: [0; 32],
            signatures: Possession { node: none, wireguard: none, boot: none, invite: none },
        };
        admit.prove(org, keys, None);
        admit
    }

    /// The TPM that spoke for the machine, as the redeemer says by signing this.
    #[must_use]
    pub fn tpm(&self) -> Option<TpmId> {
        let spoke = self.assurance == Assurance::TpmAttested && self.attestation != [0; 32];
        spoke.then_some(TpmId(self.attestation))
    }

    /// Fills in the signatures.
    pub(crate) fn prove(&mut self, org: &OrgId, keys: NodeKeys<'_>, invite: Option<&SecretKey>) {
        let message = self.message(org);
        self.signatures = Possession {
            node: keys.node.sign(Label::ADMIT_NODE, &message),
            wireguard: keys.wireguard.sign(Label::ADMIT_WIREGUARD, &message),
            boot: keys.boot.sign(Label::ADMIT_BOOT, &message),
            invite: invite.map_or(Signature([0; 64]), |key| key.sign(Label::ADMIT_INVITE, &message)),
        };
    }

    /// Checks the three keys and their proofs; the invite's needs [`Self::verify_invite`].
    ///
    /// # Errors
    /// [`PossessionError`] naming the first that does not hold.
    pub fn verify_keys(&self, org: &OrgId) -> Result<(), PossessionError> {
        use PossessionError as E;
        let (node, wireguard, boot, by) = (self.node, self.wireguard, self.boot, self.redeemer);
        let twice =
            [(node, wireguard), (node, boot), (wireguard, boot), (node, by), (wireguard, by), (boot, by)];
        if let Some((key, _)) = twice.into_iter().find(|(a, b)| a == b) {
            return Err(E::KeyTwice { key: *key.as_bytes() });
        }
        if self.invite.is_none() && self.signatures.invite != Signature([0; 64]) {
            return Err(E::InviteWithout);
        }
        if let Some(key) = [node, wireguard, boot].into_iter().find(|key| !key.is_torsion_free()) {
            return Err(E::TorsionKey { key: *key.as_bytes() });
        }
        let (message, by) = (self.message(org), &self.signatures);
        node.verify(Label::ADMIT_NODE, &message, &by.node).map_err(|_| E::Node)?;
        wireguard.verify(Label::ADMIT_WIREGUARD, &message, &by.wireguard).map_err(|_| E::WireGuard)?;
        boot.verify(Label::ADMIT_BOOT, &message, &by.boot).map_err(|_| E::Boot)?;
        Ok(())
    }

    /// Checks that the invite with this key was spent on exactly this.
    ///
    /// # Errors
    /// [`PossessionError::Invite`].
    pub fn verify_invite(&self, org: &OrgId, invite_key: &PublicKey) -> Result<(), PossessionError> {
        let invite = &self.signatures.invite;
        invite_key
            .verify(Label::ADMIT_INVITE, &self.message(org), invite)
            .map_err(|_| PossessionError::Invite)
    }

    fn message(&self, org: &OrgId) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(org.as_bytes());
        write_optional_id(&mut out, self.invite);
        out.bytes(self.redeemer.as_bytes());
        self.write_facts(&mut out);
        out.into_bytes()
    }

    fn write_facts(&self, out: &mut Writer) {
        out.bytes(self.node.as_bytes()).bytes(self.wireguard.as_bytes()).bytes(self.boot.as_bytes());
        out.short_bytes(self.name.as_str().as_bytes());
        self.assurance.write(out);
        out.bytes(&self.attestation);
    }

    /// The redeemer is not written: it is the author of the statement, or stands in front.
    pub(crate) fn write(&self, out: &mut Writer) {
        write_optional_id(out, self.invite);
        self.write_facts(out);
        let by = &self.signatures;
        out.bytes(&by.node.0).bytes(&by.wireguard.0).bytes(&by.boot.0).bytes(&by.invite.0);
    }

    pub(crate) fn read(redeemer: PublicKey, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            redeemer,
            invite: read_optional_id(r, "invite")?,
            node: r.key("node key")?,
            wireguard: r.key("wireguard key")?,
            boot: r.key("boot key")?,
            name: r.name("name")?,
            assurance: Assurance::read(r)?,
            attestation: r.array("attestation")?,
            signatures: Possession {
                node: r.signature("node signature")?,
                wireguard: r.signature("wireguard signature")?,
                boot: r.signature("boot signature")?,
                invite: r.signature("invite signature")?,
            },
        })
    }
}

impl PossessionError {
    /// The code people see when it stands in a request; in a statement it is the statement's.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::EnrolKeyUnproven
    }
}

impl fmt::Display for PossessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => f.write_str("the boot key is not proved"),
            Self::Invite => f.write_str("the invite's key is not proved"),
            Self::InviteWithout => f.write_str("an invite's signature where no invite is named"),
            Self::KeyTwice { key } => write!(f, "key {} stands in two places", short(key)),
            Self::Node => f.write_str("the node key is not proved"),
            Self::TorsionKey { key } => write!(f, "key {} is not torsion-free", short(key)),
            Self::WireGuard => f.write_str("the wireguard key is not proved"),
        }
    }
}

impl core::error::Error for PossessionError {}
