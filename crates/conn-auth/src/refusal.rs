//! What an acceptor's caller knows of a key, and the one answer a refused peer gets.

use core::fmt;

use identity::{Code, HexError, decode_hex, encode_hex};

/// What the member list says of a proved key at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The key is in good standing, as this.
    Good(Holder),
    /// The key is a member's in good standing, and the org's policy lets that member do here what it asks for.
    Permitted,
    /// The key is known and must not pass: revoked, left, in conflict, not the tunnel's owner, busy.
    Barred(Code),
    /// Nobody of the org has this key.
    Unknown,
}

/// What a key in good standing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A member's node key.
    Member,
    /// A member's boot key.
    BootKey,
    /// An admin's key.
    Admin,
}

/// Names one handshake at the server, so that its log can be asked for the reason. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(pub [u8; 8]);

impl Reference {
    /// Reads the 16 lower-case digits.
    ///
    /// # Errors
    /// [`HexError`] for any other text.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        decode_hex(text.as_bytes()).map(Self)
    }

    /// The VERDICT that refuses without a reason: all a peer gets that has not proved its key.
    #[must_use]
    pub fn verdict_no(self) -> String {
        format!("no ref={self}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

/// A proved key was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
}

impl Refusal {
    /// The VERDICT line; with the code when `tell`.
    #[must_use]
    pub fn verdict(&self, reference: Reference, tell: bool) -> String {
        if tell { format!("{} code={}", reference.verdict_no(), self.code) } else { reference.verdict_no() }
    }

    /// Why.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.title())
    }
}

impl core::error::Error for Refusal {}
