//! The dialler: names the key it wants, trusts nothing before that key has proved itself here, and
//! only then proves its own.

use core::fmt;

use identity::{
    Code, Heads, Label, OrgId, PublicKey, SecretKey, SessionId, Signature, limits::HELLO_BYTES_MAX,
};

use crate::{
    Action, Bind, Binding, LineError, LineFault, Reference,
    transcript::ServerTranscript,
    wire::{Challenge, Hello, HelloTo, Proof, Verdict, format_signed, known},
};

/// Whom to reach.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    /// Exactly this key.
    Key(PublicKey),
    /// Any of these: the gateway keys of the newest charter that the caller holds. On the wire
    /// `to=any`; over TLS verified against the trust bundle only.
    AnyOf(&'a [PublicKey]),
}

/// A connection to open.
#[derive(Debug)]
pub struct Dial<'a> {
    /// The org both sides must belong to.
    pub org: OrgId,
    /// Our key.
    pub key: &'a SecretKey,
    /// Whom to reach.
    pub to: To<'a>,
    /// The channel, from our end of it.
    pub binding: Binding,
    /// What for.
    pub action: Action,
}

/// Why nothing was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialError {
    /// [`To::AnyOf`] needs TLS: nothing else proves that a gateway answers.
    AnyNeedsTls,
    /// [`To::AnyOf`] with no key.
    NobodyNamed,
    /// The key to reach is our own.
    OwnKey,
    /// HELLO would be too long.
    TooLong {
        /// Its length.
        got: usize,
    },
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyNeedsTls => f.write_str("any gateway may be asked for over tls only"),
            Self::NobodyNamed => f.write_str("no gateway is known to ask for"),
            Self::OwnKey => f.write_str("the key to reach is our own"),
            Self::TooLong { got } => {
                write!(f, "the opening message has {got} bytes, at most {HELLO_BYTES_MAX} allowed")
            }
        }
    }
}

impl core::error::Error for DialError {}

impl<'a> Dial<'a> {
    /// Begins, with 32 fresh random bytes.
    ///
    /// # Errors
    /// [`DialError`]; nothing has been sent.
    pub fn start(self, nonce: [u8; 32]) -> Result<AwaitChallenge<'a>, DialError> {
        let own = self.key.public();
        let to = match self.to {
            To::Key(key) if key == own => return Err(DialError::OwnKey),
            To::Key(key) => HelloTo::Key(*key.as_bytes()),
            To::AnyOf(_) if self.binding.bind() != Bind::Tls => return Err(DialError::AnyNeedsTls),
            To::AnyOf([]) => return Err(DialError::NobodyNamed),
            To::AnyOf(_) => HelloTo::Any,
        };
        let Self { org, key, to: wanted, binding, action } = self;
        let hello = Hello { peer: own, to, nonce, bind: binding.bind(), action }.format();
        if hello.len() > HELLO_BYTES_MAX {
            return Err(DialError::TooLong { got: hello.len() });
        }
        Ok(AwaitChallenge { org, key, to: wanted, binding, hello })
    }
}

/// HELLO is to be sent; CHALLENGE is awaited.
#[derive(Debug)]
#[must_use]
pub struct AwaitChallenge<'a> {
    org: OrgId,
    key: &'a SecretKey,
    to: To<'a>,
    binding: Binding,
    hello: String,
}

/// Why the server is not trusted. Nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Not a CHALLENGE.
    Malformed(LineError),
    /// Our own key answered: somebody reflects our messages.
    OwnKey,
    /// The signature does not belong to this key, org, channel and HELLO.
    ProofWrong,
    /// The server took HELLO for malformed.
    Refused {
        /// Its name for this handshake.
        reference: Reference,
    },
    /// Another key answered.
    WrongServer {
        /// That key.
        got: Box<PublicKey>,
    },
}

impl ChallengeError {
    /// The code people meet.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Malformed(LineError { fault: LineFault::Version, .. }) => Code::VersionUnsupported,
            Self::Malformed(_) => Code::ChallengeMalformed,
            Self::OwnKey | Self::WrongServer { .. } => Code::WrongServer,
            Self::ProofWrong => Code::ServerProofWrong,
            Self::Refused { .. } => Code::RefusedWithoutReason,
        }
    }
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => f.write_str("the answer to the opening message is malformed"),
            Self::OwnKey => f.write_str("our own key answered"),
            Self::ProofWrong => f.write_str("the server did not prove its key"),
            Self::Refused { reference } => {
                write!(f, "the server refused the opening message, ref {reference}")
            }
            Self::WrongServer { got } => write!(f, "another machine answered, with key {}", got.short()),
        }
    }
}

impl core::error::Error for ChallengeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::OwnKey | Self::ProofWrong | Self::Refused { .. } | Self::WrongServer { .. } => None,
        }
    }
}

impl<'a> AwaitChallenge<'a> {
    /// The line to send.
    #[must_use]
    pub fn hello(&self) -> &str {
        &self.hello
    }

    /// Takes the server's line and holds the server to what it proves.
    ///
    /// # Errors
    /// [`ChallengeError`]; close the connection.
    pub fn on_challenge(self, line: &[u8]) -> Result<ServerProven<'a>, ChallengeError> {
        if Verdict::refuses(line) {
            return Err(match Verdict::parse(line) {
                Ok(Verdict::No { reference, code: None }) => ChallengeError::Refused { reference },
                Ok(_) => ChallengeError::Malformed(CODE_TOO_EARLY),
                Err(why) => ChallengeError::Malformed(why),
            });
        }
        let wanted = match &self.to {
            To::Key(key) => core::slice::from_ref(key),
            To::AnyOf(keys) => keys,
        };
        let Challenge { server, covered, signature } =
            Challenge::parse(line, wanted).map_err(ChallengeError::Malformed)?;
        if server == self.key.public() {
            return Err(ChallengeError::OwnKey);
        }
        if !wanted.contains(&server) {
            return Err(ChallengeError::WrongServer { got: Box::new(server) });
        }
        let transcript = ServerTranscript::new(&self.org, &self.binding, self.hello.as_bytes(), covered);
        server
            .verify(Label::CONN_AUTH_SERVER, transcript.as_bytes(), &signature)
            .map_err(|_| ChallengeError::ProofWrong)?;
        Ok(ServerProven { key: self.key, server, transcript, signature })
    }
}

/// A refusal with a code has no place before PROOF.
const CODE_TOO_EARLY: LineError = LineError { field: "code", fault: LineFault::BadWord };

/// The server proved its key on this channel. Our key is not proved yet.
#[derive(Debug)]
#[must_use]
pub struct ServerProven<'a> {
    key: &'a SecretKey,
    server: PublicKey,
    transcript: ServerTranscript,
    signature: Signature,
}

impl ServerProven<'_> {
    /// The key that the server proved; check its standing before going on.
    #[must_use]
    pub const fn server(&self) -> PublicKey {
        self.server
    }

    /// Proves our key. `heads` and `count` are a hint about what we hold.
    pub fn prove(self, heads: Heads, count: u64) -> AwaitVerdict {
        let covered = Proof::format_covered(&heads, count);
        let transcript = self.transcript.client(&self.signature, covered.as_bytes());
        let signature = self.key.sign(Label::CONN_AUTH_CLIENT, transcript.as_bytes());
        AwaitVerdict {
            server: self.server,
            session: transcript.session(),
            proof: format_signed(&covered, &signature),
        }
    }
}

/// PROOF is to be sent; VERDICT is awaited.
#[derive(Debug)]
#[must_use]
pub struct AwaitVerdict {
    server: PublicKey,
    session: SessionId,
    proof: String,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerdictError {
    /// Not a VERDICT.
    Malformed(LineError),
    /// The server said no.
    Refused {
        /// Its name for this handshake.
        reference: Reference,
        /// Its reason, if it told one that this release knows.
        code: Option<Code>,
    },
}

impl VerdictError {
    /// The code people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::VerdictMalformed,
            Self::Refused { code, .. } => code.unwrap_or(Code::RefusedWithoutReason),
        }
    }
}

impl fmt::Display for VerdictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => f.write_str("the last message of the handshake is malformed"),
            Self::Refused { reference, .. } => {
                write!(f, "the server refused: {}, ref {reference}", self.code().title())
            }
        }
    }
}

impl core::error::Error for VerdictError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::Refused { .. } => None,
        }
    }
}

impl AwaitVerdict {
    /// The line to send.
    #[must_use]
    pub fn proof(&self) -> &str {
        &self.proof
    }

    /// The session this becomes if the server agrees.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// [`VerdictError`]; close the connection.
    pub fn on_verdict(self, line: &[u8]) -> Result<Accepted, VerdictError> {
        match Verdict::parse(line).map_err(VerdictError::Malformed)? {
            Verdict::Yes { reference, heads, count } => {
                Ok(Accepted { server: self.server, session: self.session, reference, heads, count })
            }
            Verdict::No { reference, code } => Err(VerdictError::Refused { reference, code: known(code) }),
        }
    }
}

/// Both keys are proved and the server agreed. Cannot be copied; made by [`AwaitVerdict::on_verdict`] only.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    server: PublicKey,
    session: SessionId,
    reference: Reference,
    heads: Heads,
    count: u64,
}

impl Accepted {
    /// The server's proved key.
    #[must_use]
    pub const fn server(&self) -> PublicKey {
        self.server
    }

    /// Names the session in both logs.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The server's name for the handshake.
    #[must_use]
    pub const fn reference(&self) -> Reference {
        self.reference
    }

    /// What the server says it holds: a hint, never evidence.
    #[must_use]
    pub const fn heads(&self) -> Heads {
        self.heads
    }

    /// How much the server says it holds.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}
