//! Names of things by their content, each a distinct type so that one cannot stand for another.

use core::fmt;

use crate::hex::{HexError, decode_hex, encode_hex};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $bytes:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Size in bytes.
            pub const BYTES: usize = $bytes;

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Reads the one text form, lower-case hexadecimal.
            ///
            /// # Errors
            /// [`HexError`] for any other text.
            pub fn from_hex(text: &str) -> Result<Self, HexError> {
                decode_hex(text.as_bytes()).map(Self)
            }

            /// The first eight digits, for people; never compared by code.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    )*};
}

ids! {
    /// The organisation: a hash of its genesis charter's body.
    OrgId 32;
    /// One charter: a hash of its body, signatures excluded.
    CharterId 32;
    /// One statement: a hash of its exact bytes, signature included.
    StatementId 32;
    /// Digest of everything a replica holds. Equal heads mean equal sets; compared with nothing else.
    Heads 32;
    /// Digest of the resolved member list with its anchor. Never compared with [`Heads`].
    RosterDigest 32;
    /// One TPM: SHA-256 of its endorsement key (SubjectPublicKeyInfo, DER), so that other tools name it alike.
    TpmId 32;
    /// Content address of a blob.
    BlobHash 32;
    /// One conn_auth session; for logs, never a key.
    SessionId 16;
    /// Drawn once for each start of a node; two that advance by turns betray a clone.
    BootNonce 16;
}
