//! The handshake as it was first published, byte for byte, with every hole it has:
//!
//! ```text
//! Client -> Server: pubkey=<hex> action=<name> [kv...]
//! Server -> Client: <32 random bytes>
//! Client -> Server: sig=<hex>            Ed25519 over the 32 bytes
//! Server verifies: sig valid against pubkey AND pubkey in org member list
//! ```
//!
//! It is the negative control of the attack tests, each of which must succeed here and fail on
//! version 1, and it serves interop on loopback. **It protects against nobody**: it can be relayed, its
//! action can be swapped, its server proves nothing, its client signs whatever it is sent, and it takes
//! weak keys. So is the token of a returning boot, which whoever sees it once may show again.
//!
//! Nothing here is bound, strict or labelled, on purpose; the signatures are the only ones in the
//! project that do not go through `identity`, because `identity` refuses to make and to accept them.

use core::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use identity::{Code, SecretKey, decode_hex, encode_hex, limits::HELLO_BYTES_MAX};
use subtle::ConstantTimeEq as _;

use crate::Action;

/// A connection to open.
#[derive(Debug)]
pub struct Dial<'a> {
    /// Our key.
    pub key: &'a SecretKey,
    /// What for.
    pub action: Action,
}

impl Dial<'_> {
    /// The first line.
    #[must_use]
    pub fn hello(&self) -> String {
        format!("pubkey={} action={}", self.key.public(), self.action)
    }

    /// The answer to whatever the server sent.
    #[must_use]
    pub fn on_challenge(self, challenge: &[u8; 32]) -> String {
        let signature = self.key.expose_seed(|seed| SigningKey::from_bytes(seed).sign(challenge));
        format!("sig={}", encode_hex(&signature.to_bytes()))
    }
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeedWireError {
    /// The first line is not `pubkey=<hex> action=<name> [kv...]`.
    Hello,
    /// The key is not in the member list.
    NotMember,
    /// The signature is not one of the key over the challenge.
    Signature,
}

impl SeedWireError {
    /// The code people meet.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Hello => Code::HelloMalformed,
            Self::NotMember => Code::UnknownKey,
            Self::Signature => Code::ClientProofWrong,
        }
    }
}

impl fmt::Display for SeedWireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "the first line is malformed",
            Self::NotMember => "not in the member list",
            Self::Signature => "the signature does not hold",
        })
    }
}

impl core::error::Error for SeedWireError {}

/// The 32 bytes are to be sent; the signature is awaited.
#[derive(Debug)]
#[must_use]
pub struct AwaitSignature {
    peer: [u8; 32],
    action: Action,
    challenge: [u8; 32],
}

/// Takes the first line, with the 32 fresh random bytes of the answer.
///
/// # Errors
/// [`SeedWireError::Hello`].
pub fn on_hello(line: &[u8], challenge: [u8; 32]) -> Result<AwaitSignature, SeedWireError> {
    parse(line).map(|(peer, action)| AwaitSignature { peer, action, challenge }).ok_or(SeedWireError::Hello)
}

fn parse(line: &[u8]) -> Option<([u8; 32], Action)> {
    if line.len() > HELLO_BYTES_MAX {
        return None;
    }
    let mut words = core::str::from_utf8(line).ok()?.split(' ');
    let peer = decode_hex(words.next()?.strip_prefix("pubkey=")?.as_bytes()).ok()?;
    let name = words.next()?.strip_prefix("action=")?;
    let parameters = words.map(|word| word.split_once('=')).collect::<Option<Vec<_>>>()?;
    Some((peer, Action::new(name, &parameters).ok()?))
}

impl AwaitSignature {
    /// The bytes to send.
    #[must_use]
    pub const fn challenge(&self) -> &[u8; 32] {
        &self.challenge
    }

    /// Takes the last line.
    ///
    /// # Errors
    /// [`SeedWireError::Signature`].
    #[expect(clippy::disallowed_methods, reason = "the seed's wire as it was published, cofactors and all")]
    pub fn on_signature(self, line: &[u8]) -> Result<KeyProven, SeedWireError> {
        let valid = || {
            let signature = Signature::from_bytes(&decode_hex(line.strip_prefix(b"sig=")?).ok()?);
            VerifyingKey::from_bytes(&self.peer).ok()?.verify(&self.challenge, &signature).ok()
        };
        valid().ok_or(SeedWireError::Signature)?;
        Ok(KeyProven { peer: self.peer, action: self.action })
    }
}

/// The peer showed a signature by its key over the challenge.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct KeyProven {
    peer: [u8; 32],
    action: Action,
}

impl KeyProven {
    /// The key, not even known to be a usable one.
    #[must_use]
    pub const fn peer(&self) -> [u8; 32] {
        self.peer
    }

    /// What it asks for.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// The second half of the rule: is the key in the member list?
    ///
    /// # Errors
    /// [`SeedWireError::NotMember`].
    pub fn admit(self, is_member: bool) -> Result<Admitted, SeedWireError> {
        if is_member { Ok(Admitted { proven: self }) } else { Err(SeedWireError::NotMember) }
    }
}

/// The peer may act.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    proven: KeyProven,
}

impl Admitted {
    /// The key.
    #[must_use]
    pub const fn peer(&self) -> [u8; 32] {
        self.proven.peer
    }

    /// What it was admitted for.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.proven.action
    }
}

/// `H(preboot_secret)`, which a returning boot shows to the gateway and the gateway keeps. H is BLAKE3.
#[derive(Clone, Copy)]
pub struct Token([u8; 32]);

impl Token {
    /// The token of a machine.
    #[must_use]
    pub fn of(preboot_secret: &[u8; 32]) -> Self {
        Self(*blake3::hash(preboot_secret).as_bytes())
    }

    /// What the machine sends, every time.
    #[must_use]
    pub fn to_text(self) -> String {
        encode_hex(&self.0)
    }

    /// Whether this is what was sent.
    #[must_use]
    pub fn matches(&self, sent: &[u8]) -> bool {
        decode_hex::<32>(sent).is_ok_and(|sent| self.0.ct_eq(&sent).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
