//! The two keys of a machine's encrypted disk: its own, and one that the org can work out as well.
//!
//! The recovery passphrase is agreed upon, not sent: the machine has a key pair for it, the org has one
//! whose public half is in every image, and each side works the passphrase out from its own secret and the
//! other's public key (X25519). So no gateway holds it, no machine holds another's, and the disk's header,
//! which names the machine's public key, is all that is needed beside the org keys.

use zeroize::Zeroizing;

use crate::{HashContext, OrgId, PublicKey, SecretKey, encode_hex};

/// What opens a machine's disk.
#[derive(Debug)]
pub struct DiskKeys {
    secret: Zeroizing<[u8; 32]>,
    share: Option<DiskShare>,
    machine: SecretKey,
    org: OrgId,
    recovery: PublicKey,
}

impl DiskKeys {
    /// Of a machine with this secret, in an org with this recovery key. `share` is the part that a gateway
    /// gives, where the org wants one.
    #[must_use]
    pub fn new(secret: &[u8; 32], share: Option<DiskShare>, org: OrgId, recovery: PublicKey) -> Self {
        let machine = Zeroizing::new(HashContext::DISK_MACHINE.hash(&[secret]));
        Self {
            secret: Zeroizing::new(*secret),
            share,
            machine: SecretKey::from_seed(&machine),
            org,
            recovery,
        }
    }

    /// The machine's own key.
    #[must_use]
    pub fn disk(&self) -> Zeroizing<[u8; 32]> {
        let share = self.share.as_ref().map_or(&[][..], |share| share.0.as_slice());
        let flag = [u8::from(self.share.is_some())];
        Zeroizing::new(HashContext::DISK_KEY.hash(&[&*self.secret, &flag, share]))
    }

    /// The key by which the org finds the passphrase; it stands in the disk's header.
    #[must_use]
    pub fn machine(&self) -> PublicKey {
        self.machine.public()
    }

    /// The recovery passphrase.
    #[must_use]
    pub fn recovery(&self) -> Zeroizing<String> {
        passphrase(&self.machine, &self.recovery, &self.org, &self.machine(), &self.recovery)
    }
}

/// The part of a disk's key that a gateway gives.
#[derive(Clone, PartialEq, Eq)]
pub struct DiskShare(Zeroizing<[u8; 32]>);

impl DiskShare {
    /// Takes the bytes; the caller's copy is the caller's to wipe.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// For the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for DiskShare {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DiskShare(..)")
    }
}

/// With which gateways give machines their shares. Whoever has the org keys works it out anew, so they are
/// its backup.
#[derive(Clone)]
pub struct ShareKey {
    epoch: u32,
    key: Zeroizing<[u8; 32]>,
}

impl ShareKey {
    /// Of an epoch. Another epoch is another key: no share of the last one is of use in it.
    #[must_use]
    pub fn of(release: &SecretKey, epoch: u32) -> Self {
        let key = release
            .expose_seed(|seed| HashContext::DISK_SHARE_KEY.hash(&[seed.as_slice(), &epoch.to_le_bytes()]));
        Self { epoch, key: Zeroizing::new(key) }
    }

    /// As a gateway keeps it.
    #[must_use]
    pub fn from_bytes(epoch: u32, key: &[u8; 32]) -> Self {
        Self { epoch, key: Zeroizing::new(*key) }
    }

    /// Which one it is.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Lends the key to a gateway that keeps it.
    pub fn expose<T>(&self, with: impl FnOnce(&[u8; 32]) -> T) -> T {
        with(&self.key)
    }

    /// The share of the machine that was admitted with this key, whatever keys it has had since.
    #[must_use]
    pub fn share(&self, first: &PublicKey) -> DiskShare {
        DiskShare(Zeroizing::new(HashContext::DISK_SHARE.hash(&[self.key.as_slice(), first.as_bytes()])))
    }
}

impl core::fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ShareKey({})", self.epoch)
    }
}

/// The org's recovery key, as it follows from the seed of the key that signs images.
#[must_use]
pub fn recovery_key(release: &SecretKey) -> SecretKey {
    release.expose_seed(|seed| {
        SecretKey::from_seed(&Zeroizing::new(HashContext::DISK_RECOVERY_KEY.hash(&[seed])))
    })
}

/// The passphrase of the disk whose header names this machine's key.
#[must_use]
pub fn recovery_passphrase(recovery: &SecretKey, machine: &PublicKey, org: &OrgId) -> Zeroizing<String> {
    passphrase(recovery, machine, org, machine, &recovery.public())
}

/// 128 bits in eight groups: short enough to be typed.
fn passphrase(
    own: &SecretKey,
    other: &PublicKey,
    org: &OrgId,
    machine: &PublicKey,
    recovery: &PublicKey,
) -> Zeroizing<String> {
    let agreed = own.agree(other);
    let parts: [&[u8]; 4] = [&*agreed, org.as_bytes(), machine.as_bytes(), recovery.as_bytes()];
    let bytes = Zeroizing::new(HashContext::DISK_RECOVERY.hash(&parts));
    let (half, _) = bytes.split_at(16);
    let mut text = Zeroizing::new(String::with_capacity(39));
    for pair in half.chunks(2) {
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(&Zeroizing::new(encode_hex(pair)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: OrgId = OrgId([9; 32]);

    fn release(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn keys(secret: u8, share: Option<&[u8; 32]>) -> DiskKeys {
        DiskKeys::new(&[secret; 32], share.map(DiskShare::new), ORG, recovery_key(&release(1)).public())
    }

    #[test]
    fn the_org_works_out_the_passphrase_of_a_disk_from_its_header_and_nobody_else_does() {
        let machine = keys(5, None);
        let passphrase = machine.recovery();
        assert_eq!(passphrase.len(), 39);
        let found = |release: &SecretKey, machine: &PublicKey, org: &OrgId| {
            recovery_passphrase(&recovery_key(release), machine, org)
        };
        assert_eq!(found(&release(1), &machine.machine(), &ORG), passphrase);
        assert_ne!(found(&release(2), &machine.machine(), &ORG), passphrase, "another org's key");
        assert_ne!(found(&release(1), &keys(6, None).machine(), &ORG), passphrase, "another machine's disk");
        assert_ne!(found(&release(1), &machine.machine(), &OrgId([8; 32])), passphrase);
        assert_ne!(recovery_key(&release(1)).public(), release(1).public());
    }

    #[test]
    fn a_disk_that_wants_a_share_opens_with_it_alone_and_recovers_without() {
        let (with, without) = (keys(5, Some(&[7; 32])), keys(5, None));
        assert_ne!(with.disk(), without.disk());
        assert_ne!(with.disk(), keys(5, Some(&[8; 32])).disk());
        assert_ne!(with.disk(), keys(6, Some(&[7; 32])).disk());
        assert_ne!(keys(5, Some(&[0; 32])).disk(), without.disk(), "a share of zeros is one");
        assert_eq!(with.recovery(), without.recovery());
    }

    #[test]
    fn a_share_is_one_machines_and_one_epochs() {
        let (key, machine) = (ShareKey::of(&release(1), 1), release(5).public());
        let kept = key.expose(|bytes| ShareKey::from_bytes(key.epoch(), bytes));
        assert_eq!((kept.epoch(), kept.share(&machine)), (1, key.share(&machine)));
        assert_ne!(key.share(&machine), key.share(&release(6).public()));
        assert_ne!(key.share(&machine), ShareKey::of(&release(1), 2).share(&machine));
        assert_ne!(key.share(&machine), ShareKey::of(&release(2), 1).share(&machine), "another org's");
        assert_eq!(format!("{key:?} {:?}", key.share(&machine)), "ShareKey(1) DiskShare(..)");
    }
}
