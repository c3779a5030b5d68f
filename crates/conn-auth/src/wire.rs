//! The four lines. Every value has one text form and every line one order of fields; a parser accepts
//! what the formatter writes and names the field where anything else departs from it.

use core::fmt;

use identity::{
    Code, Heads, HexError, KeyError, PublicKey, Signature, decode_hex, encode_hex,
    limits::{CHALLENGE_BYTES_MAX, HELLO_BYTES_MAX, PARAMETERS_MAX, PROOF_BYTES_MAX, VERDICT_BYTES_MAX},
};

use crate::{
    Action, Bind, Reference,
    action::{is_key, is_name, is_value},
};

/// The first token of HELLO and CHALLENGE. There is no negotiation and no fallback.
pub const VERSION: &str = "muster-auth/1";

/// Where and why a line departs from the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The field that was being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineFault {
    /// The 32 bytes are no usable public key.
    BadKey(KeyError),
    /// Not a number, a second form of one, or too large.
    BadNumber,
    /// Not a word of the kind wanted.
    BadWord,
    /// Not the hexadecimal form of the bytes wanted.
    Hex(HexError),
    /// Another text should stand here: a field is missing, doubled, out of order, or badly spaced.
    Missing {
        /// That text.
        wanted: &'static str,
    },
    /// Keys of parameters must ascend strictly.
    NotAscending,
    /// More bytes or items than allowed.
    TooMany {
        /// Most allowed.
        max: usize,
        /// Given, or seen so far.
        got: usize,
    },
    /// Bytes follow the last field.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Another version of the handshake.
    Version,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.fault)
    }
}

impl core::error::Error for LineError {}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey(why) => write!(f, "{why}"),
            Self::BadNumber => f.write_str("not a number in its one form"),
            Self::BadWord => f.write_str("not a word of the kind wanted"),
            Self::Hex(why) => write!(f, "{why}"),
            Self::Missing { wanted } => write!(f, "{wanted:?} does not stand where it should"),
            Self::NotAscending => f.write_str("keys do not ascend strictly"),
            Self::TooMany { max, got } => write!(f, "at most {max} allowed, {got} given"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the end"),
            Self::Version => f.write_str("another version of the handshake"),
        }
    }
}

/// Whom HELLO asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HelloTo {
    /// `to=any`.
    Any,
    /// Only ever compared with our own key, so it is not decompressed.
    Key([u8; 32]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) peer: PublicKey,
    pub(crate) to: HelloTo,
    pub(crate) nonce: [u8; 32],
    pub(crate) bind: Bind,
    pub(crate) action: Action,
}

impl Hello {
    pub(crate) fn parse(line: &[u8]) -> Result<Self, LineError> {
        let mut rest = Fields::new(line, HELLO_BYTES_MAX)?;
        rest.version()?;
        rest.literal("pubkey", " pubkey=")?;
        let peer = rest.key("pubkey")?;
        rest.literal("to", " to=")?;
        let to = if rest.next_is(b"any") {
            rest.literal("to", "any")?;
            HelloTo::Any
        } else {
            HelloTo::Key(rest.hex("to")?)
        };
        rest.literal("nonce", " nonce=")?;
        let nonce = rest.hex("nonce")?;
        rest.literal("bind", " bind=")?;
        let bind = match rest.word() {
            b"tls" => Bind::Tls,
            b"wg" => Bind::WireGuard,
            _ => return Err(LineError { field: "bind", fault: LineFault::BadWord }),
        };
        rest.literal("action", " action=")?;
        let action = rest.action()?;
        Ok(Self { peer, to, nonce, bind, action })
    }

    pub(crate) fn format(&self) -> String {
        let to = match self.to {
            HelloTo::Any => "any".to_owned(),
            HelloTo::Key(key) => encode_hex(&key),
        };
        let Self { peer, bind, action, nonce, .. } = self;
        [
            VERSION,
            " pubkey=",
            &encode_hex(peer.as_bytes()),
            " to=",
            &to,
            " nonce=",
            &encode_hex(nonce),
            " bind=",
            bind.as_str(),
            " action=",
            &action.to_string(),
        ]
        .concat()
    }
}

/// CHALLENGE, and the part of it that the signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge<'a> {
    pub(crate) server: PublicKey,
    pub(crate) covered: &'a [u8],
    pub(crate) signature: Signature,
}

impl<'a> Challenge<'a> {
    /// A key among `known` need not be decompressed again, a tenth of a verification.
    pub(crate) fn parse(line: &'a [u8], known: &[PublicKey]) -> Result<Self, LineError> {
        let mut rest = Fields::new(line, CHALLENGE_BYTES_MAX)?;
        rest.version()?;
        rest.literal("pubkey", " pubkey=")?;
        let server = rest.key_among("pubkey", known)?;
        rest.literal("challenge", " challenge=")?;
        rest.hex::<32>("challenge")?;
        let covered = rest.read_so_far();
        let signature = rest.signature()?;
        Ok(Self { server, covered, signature })
    }

    pub(crate) fn format_covered(server: &PublicKey, challenge: &[u8; 32]) -> String {
        [VERSION, " pubkey=", &encode_hex(server.as_bytes()), " challenge=", &encode_hex(challenge)].concat()
    }
}

/// PROOF, and the part of it that the signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof<'a> {
    pub(crate) heads: Heads,
    pub(crate) count: u64,
    pub(crate) covered: &'a [u8],
    pub(crate) signature: Signature,
}

impl<'a> Proof<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let mut rest = Fields::new(line, PROOF_BYTES_MAX)?;
        rest.literal("heads", "heads=")?;
        let heads = Heads(rest.hex("heads")?);
        rest.literal("count", " count=")?;
        let count = rest.number("count")?;
        let covered = rest.read_so_far();
        let signature = rest.signature()?;
        Ok(Self { heads, count, covered, signature })
    }

    pub(crate) fn format_covered(heads: &Heads, count: u64) -> String {
        format!("heads={heads} count={count}")
    }
}

/// ` sig=...`, which ends CHALLENGE and PROOF.
pub(crate) fn format_signed(covered: &str, signature: &Signature) -> String {
    [covered, " sig=", &encode_hex(&signature.0)].concat()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes { reference: Reference, heads: Heads, count: u64 },
    No { reference: Reference, code: Option<u16> },
}

impl Verdict {
    pub(crate) fn parse(line: &[u8]) -> Result<Self, LineError> {
        let mut rest = Fields::new(line, VERDICT_BYTES_MAX)?;
        let verdict = if rest.next_is(b"no") {
            rest.literal("ref", "no ref=")?;
            let reference = Reference(rest.hex("ref")?);
            let code = if rest.at_end() { None } else { Some(rest.code()?) };
            Self::No { reference, code }
        } else {
            rest.literal("ref", "ok ref=")?;
            let reference = Reference(rest.hex("ref")?);
            rest.literal("heads", " heads=")?;
            let heads = Heads(rest.hex("heads")?);
            rest.literal("count", " count=")?;
            Self::Yes { reference, heads, count: rest.number("count")? }
        };
        rest.end()?;
        Ok(verdict)
    }

    /// Whether a line that should be CHALLENGE is a refusal instead.
    pub(crate) fn refuses(line: &[u8]) -> bool {
        line.starts_with(b"no ")
    }

    pub(crate) fn format_ok(reference: Reference, heads: &Heads, count: u64) -> String {
        format!("ok ref={reference} heads={heads} count={count}")
    }
}

/// Reads a line's fields from the left.
struct Fields<'a> {
    line: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    const fn new(line: &'a [u8], max: usize) -> Result<Self, LineError> {
        if line.len() > max {
            let fault = LineFault::TooMany { max, got: line.len() };
            return Err(LineError { field: "line", fault });
        }
        Ok(Self { line, rest: line })
    }

    fn next_is(&self, text: &[u8]) -> bool {
        self.rest.starts_with(text)
    }

    const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn read_so_far(&self) -> &'a [u8] {
        self.line.get(..self.line.len() - self.rest.len()).unwrap_or_default()
    }

    /// Exactly this text.
    fn literal(&mut self, field: &'static str, wanted: &'static str) -> Result<(), LineError> {
        match self.rest.strip_prefix(wanted.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(LineError { field, fault: LineFault::Missing { wanted } }),
        }
    }

    /// All bytes before `end`, or to the end of the line.
    fn until(&mut self, end: u8) -> &'a [u8] {
        let length = self.rest.iter().position(|&c| c == end).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = rest;
        head
    }

    fn word(&mut self) -> &'a [u8] {
        self.until(b' ')
    }

    /// Exactly two digits a byte; fewer and more both fail, here or at the next literal.
    fn hex<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], LineError> {
        let (head, rest) = self.rest.split_at_checked(2 * N).unwrap_or((self.rest, &[]));
        self.rest = rest;
        decode_hex(head).map_err(|why| LineError { field, fault: LineFault::Hex(why) })
    }

    fn key(&mut self, field: &'static str) -> Result<PublicKey, LineError> {
        self.key_among(field, &[])
    }

    fn key_among(&mut self, field: &'static str, known: &[PublicKey]) -> Result<PublicKey, LineError> {
        let bytes = self.hex(field)?;
        match known.iter().find(|key| *key.as_bytes() == bytes) {
            Some(key) => Ok(*key),
            None => PublicKey::from_bytes(&bytes)
                .map_err(|why| LineError { field, fault: LineFault::BadKey(why) }),
        }
    }

    fn version(&mut self) -> Result<(), LineError> {
        if !self.next_is(b"muster-auth/") {
            return self.literal("version", VERSION);
        }
        if self.word() == VERSION.as_bytes() {
            Ok(())
        } else {
            Err(LineError { field: "version", fault: LineFault::Version })
        }
    }

    fn number(&mut self, field: &'static str) -> Result<u64, LineError> {
        let bad = LineError { field, fault: LineFault::BadNumber };
        let digits = self.word();
        if !digits.iter().all(u8::is_ascii_digit) || (digits.starts_with(b"0") && digits.len() > 1) {
            return Err(bad);
        }
        core::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(bad)
    }

    fn action(&mut self) -> Result<Action, LineError> {
        let fault = |field, fault| Err(LineError { field, fault });
        let name = self.word();
        if !is_name(name) {
            return fault("action", LineFault::BadWord);
        }
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        while !self.at_end() {
            if parameters.len() == PARAMETERS_MAX {
                return fault(
                    "parameters",
                    LineFault::TooMany { max: PARAMETERS_MAX, got: PARAMETERS_MAX + 1 },
                );
            }
            self.literal("parameters", " ")?;
            let mut pair = Self { line: self.line, rest: self.word() };
            let key = pair.until(b'=');
            pair.literal("parameters", "=")?;
            if !is_key(key) || !is_value(pair.rest) {
                return fault("parameters", LineFault::BadWord);
            }
            let (key, value) = (ascii(key), ascii(pair.rest));
            if parameters.last().is_some_and(|&(last, _)| last >= key) {
                return fault("parameters", LineFault::NotAscending);
            }
            parameters.push((key, value));
        }
        Action::new(ascii(name), &parameters)
            .map_err(|_| LineError { field: "action", fault: LineFault::BadWord })
    }

    fn signature(&mut self) -> Result<Signature, LineError> {
        self.literal("sig", " sig=")?;
        let signature = Signature(self.hex("sig")?);
        self.end()?;
        Ok(signature)
    }

    fn code(&mut self) -> Result<u16, LineError> {
        self.literal("code", " code=MU-")?;
        let bad = LineError { field: "code", fault: LineFault::BadNumber };
        let digits = self.word();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(bad);
        }
        ascii(digits).parse().map_err(|_| bad)
    }

    const fn end(&self) -> Result<(), LineError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(LineError { field: "line", fault: LineFault::Trailing { bytes } }),
        }
    }
}

/// Text that a grammar of printable ASCII has already accepted.
fn ascii(text: &[u8]) -> &str {
    core::str::from_utf8(text).unwrap_or_default()
}

/// The code a server told, when this release knows its number.
pub(crate) fn known(number: Option<u16>) -> Option<Code> {
    number.and_then(Code::from_number)
}
