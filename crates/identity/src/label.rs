//! The one registry of domain separation: no key of ours signs, and no id of ours hashes, anything
//! that does not begin with an entry of this file.
//!
//! Signature labels end in a newline and none is a prefix of another (a test holds that), so a
//! signature made for one purpose is never valid for a second one. No label alone or with a body is
//! exactly 32 bytes long by accident of design: the shortest is longer than that, so a key of ours
//! never signs a bare 32-byte challenge, which is what the handshake of the seed could be abused for.

/// Begins every signed message. Made here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(&'static str);

impl Label {
    /// The bytes that stand in front of the message.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        self.0.as_bytes()
    }
}

/// A BLAKE3 `derive_key` context. Made here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashContext(&'static str);

impl HashContext {
    /// The context string.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// 32 bytes bound to this context and to the concatenation of `parts`. The caller frames parts
    /// of variable length.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(self.0);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

macro_rules! registry {
    ($kind:ident: $($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl $kind {
            $($(#[$doc])* pub const $name: Self = Self($text);)*
            /// Every entry.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

registry! { Label:
    /// conn_auth: the acceptor's proof over T2 (docs/spec/conn-auth.md).
    CONN_AUTH_SERVER = "muster conn_auth v1 server proof\n";
    /// conn_auth: the dialler's proof over T3.
    CONN_AUTH_CLIENT = "muster conn_auth v1 client proof\n";
    /// A root key's signature on a charter's body.
    CHARTER = "muster charter v1 root signature\n";
    /// An author's signature on a statement's body.
    STATEMENT = "muster statement v1 author signature\n";
    /// A node's signature on its own report.
    REPORT = "muster report v1 node signature\n";
    /// Enrolment: the node key vouches for the three keys and the invite.
    ADMIT_NODE = "muster admit v1 node key possession\n";
    /// Enrolment: the same by the WireGuard key.
    ADMIT_WIREGUARD = "muster admit v1 wireguard key possession\n";
    /// Enrolment: the same by the boot key.
    ADMIT_BOOT = "muster admit v1 boot key possession\n";
    /// Enrolment: the invite key spends one use on exactly these keys at exactly this gateway.
    ADMIT_INVITE = "muster admit v1 invite redemption\n";
    /// Rotation: the new node key vouches for the old key and the three new ones.
    ROTATE_NODE = "muster rotate v1 node key possession\n";
    /// Rotation: the same by the new WireGuard key.
    ROTATE_WIREGUARD = "muster rotate v1 wireguard key possession\n";
    /// Rotation: the same by the new boot key.
    ROTATE_BOOT = "muster rotate v1 boot key possession\n";
    /// A member asks to be a gateway: its node key vouches for role key, TLS key and address.
    GATEWAY_NODE = "muster gateway request v1 node key\n";
    /// The same by the role key: it is there.
    GATEWAY_ROLE = "muster gateway request v1 role key possession\n";
    /// The org's release key signs a node image.
    GENERATION = "muster generation v1 release signature\n";
    /// Any key, once after it was made or unsealed: proves that seed and public key belong together.
    SELF_TEST = "muster self test v1 of a key just unsealed\n";
}

registry! { HashContext:
    /// conn_auth T2.
    CONN_AUTH_T2 = "muster 2026 conn_auth v1 transcript server";
    /// conn_auth T3.
    CONN_AUTH_T3 = "muster 2026 conn_auth v1 transcript client";
    /// conn_auth session id.
    CONN_AUTH_SESSION = "muster 2026 conn_auth v1 session id";
    /// Channel binding of a WireGuard tunnel.
    CHANNEL_WIREGUARD = "muster 2026 conn_auth v1 channel wireguard";
    /// Org id, from the genesis charter's body.
    ORG_ID = "muster 2026 org id v1";
    /// Charter id, from a charter's body.
    CHARTER_ID = "muster 2026 charter id v1";
    /// Statement id, from a statement's bytes.
    STATEMENT_ID = "muster 2026 statement id v1";
    /// Report id, from a report's bytes.
    REPORT_ID = "muster 2026 report id v1";
    /// A leaf of the trie over everything held.
    HEADS_LEAF = "muster 2026 heads leaf v1";
    /// A branch of that trie.
    HEADS_BRANCH = "muster 2026 heads branch v1";
    /// The digest of a resolved member list.
    ROSTER_DIGEST = "muster 2026 roster digest v1";
    /// A node's overlay address.
    OVERLAY_ADDRESS = "muster 2026 overlay address v1";
    /// An org's overlay prefix.
    OVERLAY_PREFIX = "muster 2026 overlay prefix v1";
    /// The order of members on the ring that chooses whom to sync with.
    SYNC_RING = "muster 2026 sync ring v1";
    /// Checksum of a pasted invite.
    INVITE_CHECKSUM = "muster 2026 invite checksum v1";
    /// The preboot phase of an org's images: what the TPM calls the policyRef.
    IMAGE_PREBOOT_PHASE = "muster 2026 image preboot phase v1";
    /// Their node phase.
    IMAGE_NODE_PHASE = "muster 2026 image node phase v1";
    /// What a TPM signs when its machine joins: session, keys, invite, opened credential.
    ATTESTATION = "muster 2026 attestation v1 question";
    /// Checksum of a frame of musterd's store.
    STORE_FRAME = "muster 2026 store frame v1";
    /// The key of a machine's encrypted disk, from its preboot_secret and the share if there is one.
    DISK_KEY = "muster 2026 disk key v1";
    /// The key that gateways keep to give shares of disk keys, from the seed of the release key and the epoch.
    DISK_SHARE_KEY = "muster 2026 disk share key v1";
    /// One machine's share, from that key and the key that the machine was admitted with.
    DISK_SHARE = "muster 2026 disk share v1";
    /// What a TPM signs when its machine asks for that: session, boot key, epoch, opened credential.
    DISK_SHARE_QUESTION = "muster 2026 disk share v1 question";
    /// Seed of the key pair with which a machine agrees upon the recovery passphrase of its disk.
    DISK_MACHINE = "muster 2026 disk machine key v1";
    /// Seed of the org's, from the seed of its release key.
    DISK_RECOVERY_KEY = "muster 2026 disk recovery key v1";
    /// The passphrase they agree upon.
    DISK_RECOVERY = "muster 2026 disk recovery passphrase v1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_prefix_free_and_never_make_a_32_byte_message() {
        for (i, a) in Label::ALL.iter().enumerate() {
            assert!(a.0.starts_with("muster ") && a.0.ends_with('\n'), "{a:?}");
            assert!(a.0.len() > 31, "{a:?} with an empty body would be 32 bytes or fewer");
            for (j, b) in Label::ALL.iter().enumerate() {
                assert!(i == j || !b.0.starts_with(a.0), "{a:?} begins {b:?}");
            }
        }
    }

    #[test]
    fn hash_contexts_are_distinct() {
        for (i, a) in HashContext::ALL.iter().enumerate() {
            assert!(a.0.starts_with("muster 2026 "), "{a:?}");
            assert!(HashContext::ALL.iter().skip(i + 1).all(|b| a != b), "{a:?} stands twice");
        }
    }
}
