//! `muster image recovery`: what opens a machine's encrypted disk when nothing else does. It needs the disk
//! and the org keys; no gateway, no member list and no machine.

use std::{fs::File, io::Read as _, path::Path};

use identity::{Code, PublicKey, recovery_key, recovery_passphrase};
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, ImageRecovery},
    failure::{Failure, Outcome},
    org_keys, output,
};

pub(super) fn run(everywhere: &Everywhere, args: &ImageRecovery) -> Outcome<()> {
    let mut head = Vec::new();
    let read = File::open(&args.disk).and_then(|disk| disk.take(HEAD_BYTES).read_to_end(&mut head));
    read.map_err(|e| Failure::file(&args.disk, &e))?;
    let machine = machine_in(&head).ok_or_else(|| no_such_disk(&args.disk))?;
    let (profile, path) = super::org(everywhere, args.org.as_deref(), &args.org_keys)?;
    let keys = org_keys::unlock(everywhere, &args.org_keys, &path, profile.org())?;
    let passphrase = recovery_passphrase(&recovery_key(&keys.release), &machine, &profile.org());
    let value = json!({ "passphrase": passphrase.as_str(), "machine": machine.to_string() });
    output::print(everywhere.format(), value, || format!("{}\n", passphrase.as_str()));
    Ok(())
}

/// The key that preboot wrote into the header, among the JSON behind its first 4 KiB.
fn machine_in(head: &[u8]) -> Option<PublicKey> {
    if head.get(..8)? != LUKS2 {
        return None;
    }
    let json = head.get(4096..)?.split(|byte| *byte == 0).next()?;
    let metadata: Value = serde_json::from_slice(json).ok()?;
    let tokens = metadata.get("tokens")?.as_object()?;
    let token = tokens.values().find(|token| token.get("type").is_some_and(|kind| kind == "muster"))?;
    PublicKey::from_hex(token.get("machine")?.as_str()?).ok()
}

fn no_such_disk(path: &Path) -> Failure {
    Failure::new(Code::PersistDisk, format_args!("{}: not a disk that a muster machine made", path.display()))
        .remedy("Name the disk or partition that holds the LUKS header, or a copy of its first 16 MiB.")
}

/// Magic and version of a LUKS2 header.
const LUKS2: &[u8] = b"LUKS\xba\xbe\0\x02";
/// The first copy of the header, of the size that cryptsetup makes.
const HEAD_BYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use identity::SecretKey;

    use super::*;

    #[test]
    fn the_machine_is_found_in_the_header_and_in_no_other() {
        let key = SecretKey::from_seed(&[4; 32]).public();
        let header = |magic: &[u8], token: &str| {
            let mut head = vec![0; 16 * 1024];
            head[..magic.len()].copy_from_slice(magic);
            let json = format!(r#"{{"keyslots":{{}},"tokens":{{"0":{token}}}}}"#);
            head[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
            machine_in(&head)
        };
        let token = format!(r#"{{"type":"muster","keyslots":["1"],"machine":"{key}"}}"#);
        assert_eq!(header(LUKS2, &token), Some(key));
        assert_eq!(header(b"LUKS\xba\xbe\0\x01", &token), None);
        assert_eq!(header(LUKS2, r#"{"type":"other"}"#), None);
        assert_eq!(header(LUKS2, r#"{"type":"muster","machine":"77"}"#), None);
        assert_eq!(machine_in(b"LUKS"), None);
    }
}
