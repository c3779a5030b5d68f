//! Whether firmware starts nothing but what the org has signed. Read from the firmware's variables: the
//! same ones that it measures into register 7.

use std::{fs, path::Path};

use rustix::mount::MountFlags;
use sha2::{Digest as _, Sha256};

use super::kernel::mount_at;

/// Nothing, or why another system can be started here.
pub(crate) fn weakness(certificate: Option<&[u8; 32]>) -> Option<&'static str> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    if mount_at("efivarfs", VARIABLES, "efivarfs", flags, c"").is_err() {
        return Some("the firmware's variables cannot be read");
    }
    let content = |name: &str| fs::read(Path::new(VARIABLES).join(name)).ok();
    let found = judge(certificate, content(SECURE_BOOT), content(SETUP_MODE), content(DATABASE));
    // The node OS gets no way to them by us.
    let _unmounted = rustix::mount::unmount(VARIABLES, rustix::mount::UnmountFlags::DETACH);
    found
}

fn judge(
    certificate: Option<&[u8; 32]>,
    secure_boot: Option<Vec<u8>>,
    setup_mode: Option<Vec<u8>>,
    database: Option<Vec<u8>>,
) -> Option<&'static str> {
    let on = |variable: &Option<Vec<u8>>| {
        variable.as_deref().and_then(|variable| variable.get(ATTRIBUTES..)) == Some(&[1])
    };
    if !on(&secure_boot) || on(&setup_mode) {
        return Some("Secure Boot is off");
    }
    let Some(certificate) = certificate else { return Some("the image names no certificate of the org") };
    let database = database.as_deref().and_then(|variable| variable.get(ATTRIBUTES..));
    let only = database.and_then(entries).is_some_and(|entries| {
        !entries.is_empty() && entries.iter().all(|entry| Sha256::digest(entry).as_slice() == certificate)
    });
    (!only).then_some("the firmware's db holds more than the org's certificate")
}

/// The certificates of EFI_SIGNATURE_LISTs; nothing when there is anything else in them.
fn entries(mut lists: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !lists.is_empty() {
        let word = |at: usize| -> Option<usize> {
            let bytes: [u8; 4] = lists.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let (length, head, entry) = (word(16)?, word(20)?, word(24)?);
        let list = lists.get(..length)?;
        if list.get(..16) != Some(&X509) || entry <= OWNER {
            return None;
        }
        let body = list.get(LIST_HEAD.checked_add(head)?..)?;
        if body.is_empty() || body.len() % entry != 0 {
            return None;
        }
        for entry in body.chunks(entry) {
            found.push(entry.get(OWNER..)?);
        }
        lists = lists.get(length..)?;
    }
    Some(found)
}

const VARIABLES: &str = "/sys/firmware/efi/efivars";
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SETUP_MODE: &str = "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const DATABASE: &str = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// Before the content of each variable.
const ATTRIBUTES: usize = 4;
/// Type, and three lengths.
const LIST_HEAD: usize = 28;
/// The id of who put an entry there, in front of it.
const OWNER: usize = 16;
/// EFI_CERT_X509_GUID.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: [u8; 16], entries: &[&[u8]]) -> Vec<u8> {
        let entry = OWNER + entries[0].len();
        let mut list = kind.to_vec();
        for number in [LIST_HEAD + entry * entries.len(), 0, entry] {
            list.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        for content in entries {
            list.extend([9; OWNER]);
            list.extend(*content);
        }
        list
    }

    fn variable(content: &[u8]) -> Option<Vec<u8>> {
        Some([&[7, 0, 0, 0], content].concat())
    }

    #[test]
    fn only_firmware_that_trusts_the_orgs_certificate_alone_binds() {
        let ours: [u8; 32] = Sha256::digest(b"ours").into();
        let judged = |database: &[u8]| judge(Some(&ours), variable(&[1]), variable(&[0]), variable(database));
        let good = list(X509, &[b"ours"]);
        assert_eq!(judged(&good), None);
        assert!(judged(&[]).is_some(), "an empty db starts nothing, so this is not what it seems");
        assert!(judged(&list(X509, &[b"ours", b"else"])).is_some());
        assert!(judged(&[good.clone(), list(X509, &[b"else"])].concat()).is_some());
        assert!(judged(&[good.clone(), list([3; 16], &[b"a hash of some program"])].concat()).is_some());
        for length in 1..good.len() {
            assert!(judged(&good[..length]).is_some(), "{length}");
        }
        assert!(judge(None, variable(&[1]), variable(&[0]), variable(&good)).is_some());
        for (secure, setup) in
            [(variable(&[0]), variable(&[0])), (variable(&[1]), variable(&[1])), (None, None)]
        {
            assert_eq!(judge(Some(&ours), secure, setup, variable(&good)), Some("Secure Boot is off"));
        }
    }
}
