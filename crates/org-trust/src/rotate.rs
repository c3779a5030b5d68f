//! A Rotate, by which a machine gets new keys, and the Retire that ends its old ones.
//!
//! The old node key writes the Rotate; the three new keys prove themselves by signing the org, the old
//! key and each other. So no proof moves to another machine, and nobody rotates to a key that is not its
//! own.

use identity::{
    Label, OrgId, PublicKey, SecretKey, Signature,
    codec::{DecodeError, Reader, Writer},
};

use crate::admit::{NodeKeys, PossessionError};

/// New keys of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// The node key it had: the author of the statement.
    pub old: PublicKey,
    /// The key that stands for the member from now on.
    pub node: PublicKey,
    /// The key of its tunnel, in its Ed25519 form; used for nothing else.
    pub wireguard: PublicKey,
    /// The key it boots with.
    pub boot: PublicKey,
    /// Proof of each key.
    pub signatures: RotatePossession,
}

/// Three signatures over one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotatePossession {
    /// By the new node key.
    pub node: Signature,
    /// By the new WireGuard key.
    pub wireguard: Signature,
    /// By the new boot key.
    pub boot: Signature,
}

/// The end of the keys before the author's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retire {
    /// The node key that was rotated to the author's; it and those before it end.
    pub old: PublicKey,
}

impl Rotate {
    /// A Rotate from `old` to these keys, each proved.
    #[must_use]
    pub fn new(org: &OrgId, old: PublicKey, keys: NodeKeys<'_>) -> Self {
        let none = Signature([0; 64]);
        let mut rotate = Self {
            old,
            node: keys.node.public(),
            wireguard: keys.wireguard.public(),
            boot: keys.boot.public(),
            signatures: RotatePossession { node: none, wireguard: none, boot: none },
        };
        let message = rotate.message(org);
        let by = |key: &SecretKey, label| key.sign(label, &message);
        rotate.signatures = RotatePossession {
            node: by(keys.node, Label::ROTATE_NODE),
            wireguard: by(keys.wireguard, Label::ROTATE_WIREGUARD),
            boot: by(keys.boot, Label::ROTATE_BOOT),
        };
        rotate
    }

    /// Checks the three keys and their proofs.
    ///
    /// # Errors
    /// [`PossessionError`] naming the first that does not hold.
    pub fn verify_keys(&self, org: &OrgId) -> Result<(), PossessionError> {
        use PossessionError as E;
        let (node, wireguard, boot, old) = (self.node, self.wireguard, self.boot, self.old);
        let pairs =
            [(node, wireguard), (node, boot), (wireguard, boot), (node, old), (wireguard, old), (boot, old)];
        if let Some((key, _)) = pairs.into_iter().find(|(a, b)| a == b) {
            return Err(E::KeyTwice { key: *key.as_bytes() });
        }
        if let Some(key) = [node, wireguard, boot].into_iter().find(|key| !key.is_torsion_free()) {
            return Err(E::TorsionKey { key: *key.as_bytes() });
        }
        let (message, by) = (self.message(org), &self.signatures);
        node.verify(Label::ROTATE_NODE, &message, &by.node).map_err(|_| E::Node)?;
        wireguard.verify(Label::ROTATE_WIREGUARD, &message, &by.wireguard).map_err(|_| E::WireGuard)?;
        boot.verify(Label::ROTATE_BOOT, &message, &by.boot).map_err(|_| E::Boot)?;
        Ok(())
    }

    fn message(&self, org: &OrgId) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(org.as_bytes()).bytes(self.old.as_bytes());
        self.write_keys(&mut out);
        out.into_bytes()
    }

    /// The old key is not written: it is the author of the statement.
    pub(crate) fn write(&self, out: &mut Writer) {
        self.write_keys(out);
        let by = &self.signatures;
        out.bytes(&by.node.0).bytes(&by.wireguard.0).bytes(&by.boot.0);
    }

    fn write_keys(&self, out: &mut Writer) {
        out.bytes(self.node.as_bytes()).bytes(self.wireguard.as_bytes()).bytes(self.boot.as_bytes());
    }

    pub(crate) fn read(old: PublicKey, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            old,
            node: r.key("node key")?,
            wireguard: r.key("wireguard key")?,
            boot: r.key("boot key")?,
            signatures: RotatePossession {
                node: r.signature("node signature")?,
                wireguard: r.signature("wireguard signature")?,
                boot: r.signature("boot signature")?,
            },
        })
    }
}
