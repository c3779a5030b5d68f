//! What preboot writes into the header of a machine's encrypted disk, beside the key slots: a LUKS2 token.
//! It holds no secret, and nothing in it is believed: a wrong one opens no disk.

use identity::PublicKey;
use serde_json::{Value, json};

/// The token of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskToken {
    /// The key by which the holder of the org keys works out the recovery passphrase, which is in slot 1.
    pub machine: PublicKey,
    /// The epoch of the gateways' share in the key of the disk, if they have one.
    pub share: Option<u32>,
    /// The slot with the key of the disk: 0, or 2 after that key was changed, and so on in turn.
    pub slot: u8,
}

impl DiskToken {
    /// How much of a disk [`Self::find`] wants: the first copy of the header, of the size that cryptsetup makes.
    pub const HEAD_BYTES: usize = 16 * 1024;

    /// What cryptsetup takes in.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut token = json!({ "type": KIND, "keyslots": ["1"], "machine": self.machine.to_string() });
        if let Some(token) = token.as_object_mut() {
            if let Some(epoch) = self.share {
                token.insert("share".to_owned(), epoch.into());
            }
            if self.slot != 0 {
                token.insert("slot".to_owned(), self.slot.into());
            }
        }
        token.to_string()
    }

    /// The token in the first bytes of a disk: among the JSON behind the 4 KiB of a LUKS2 header.
    #[must_use]
    pub fn find(head: &[u8]) -> Option<Self> {
        if head.get(..LUKS2.len())? != LUKS2 {
            return None;
        }
        let json = head.get(4096..Self::HEAD_BYTES)?.split(|byte| *byte == 0).next()?;
        let metadata: Value = serde_json::from_slice(json).ok()?;
        let tokens = metadata.get("tokens")?.as_object()?;
        let token = tokens.values().find(|token| token.get("type").is_some_and(|kind| kind == KIND))?;
        let machine = PublicKey::from_hex(token.get("machine")?.as_str()?).ok()?;
        let share = match token.get("share") {
            None => None,
            Some(epoch) => Some(u32::try_from(epoch.as_u64()?).ok()?),
        };
        let slot = match token.get("slot") {
            None => 0,
            Some(slot) => u8::try_from(slot.as_u64()?).ok().filter(|slot| *slot == 2)?,
        };
        Some(Self { machine, share, slot })
    }

    /// The same disk, whose key is another from now on, in the slot that was free.
    #[must_use]
    pub const fn with_key_of(self, share: Option<u32>) -> Self {
        Self { share, slot: if self.slot == 0 { 2 } else { 0 }, ..self }
    }
}

const KIND: &str = "muster";
/// Magic and version of a LUKS2 header.
const LUKS2: &[u8] = b"LUKS\xba\xbe\0\x02";

#[cfg(test)]
mod tests {
    use identity::SecretKey;

    use super::*;

    fn header(magic: &[u8], token: &str) -> Vec<u8> {
        let mut head = vec![0; DiskToken::HEAD_BYTES];
        head[..magic.len()].copy_from_slice(magic);
        let json = format!(r#"{{"keyslots":{{}},"tokens":{{"0":{{"type":"x"}},"1":{token}}}}}"#);
        head[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        head
    }

    #[test]
    fn a_token_is_found_in_the_header_it_was_written_into_and_in_no_other() {
        let machine = SecretKey::from_seed(&[4; 32]).public();
        let plain = DiskToken { machine, share: None, slot: 0 };
        for token in [
            plain,
            DiskToken { share: Some(0), ..plain },
            DiskToken { share: Some(u32::MAX), slot: 2, ..plain },
        ] {
            assert_eq!(DiskToken::find(&header(LUKS2, &token.to_json())), Some(token));
            let next = token.with_key_of(Some(7));
            assert_eq!(
                (next.share, next.machine, next.with_key_of(None).slot),
                (Some(7), machine, token.slot)
            );
        }
        // Of the releases before there were shares.
        let first = format!(r#"{{"type":"muster","keyslots":["1"],"machine":"{machine}"}}"#);
        assert_eq!(DiskToken::find(&header(LUKS2, &first)), Some(plain));
        assert_eq!(DiskToken::find(&header(b"LUKS\xba\xbe\0\x01", &first)), None);
        for wrong in [
            r#"{"type":"other"}"#.to_owned(),
            r#"{"type":"muster","machine":"77"}"#.to_owned(),
            first.replace('}', r#","share":-1}"#),
            first.replace('}', r#","share":"1"}"#),
            first.replace('}', r#","slot":1}"#),
            first.replace('}', r#","slot":3}"#),
        ] {
            assert_eq!(DiskToken::find(&header(LUKS2, &wrong)), None, "{wrong}");
        }
        let head = header(LUKS2, &first);
        for end in [0, 4, 4096, 4100, DiskToken::HEAD_BYTES - 1] {
            assert_eq!(DiskToken::find(&head[..end]), None, "cut at {end}");
        }
    }
}
