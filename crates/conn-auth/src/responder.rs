//! The acceptor: answers everybody alike until a key is proved, and asks for its standing only then.

use core::fmt;

use identity::{Code, Heads, Label, OrgId, PublicKey, SecretKey, SessionId, Signature};

use crate::{
    Action, ActionRule, Bind, Binding, LineError, LineFault, Reference, Refusal, Standing, Who,
    transcript::ServerTranscript,
    wire::{Challenge, Hello, HelloTo, Proof, Verdict, format_signed},
};

/// A connection that came in.
#[derive(Debug)]
pub struct Accept<'a> {
    /// The org both sides must belong to.
    pub org: OrgId,
    /// Our key; needed for one signature and not kept.
    pub key: &'a SecretKey,
    /// The channel, from our end of it.
    pub binding: Binding,
}

/// Why HELLO gets no CHALLENGE. The peer learns nothing but that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HelloError {
    /// `to=any` outside TLS.
    AnyNeedsTls,
    /// The dialler believes to be in another kind of channel.
    BindingMismatch {
        /// What it named.
        named: Bind,
    },
    /// Not a HELLO.
    Malformed(LineError),
    /// The peer claims our own key: somebody reflects our messages.
    OwnKey,
}

impl HelloError {
    /// The code for the log.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BindingMismatch { .. } => Code::BindingMismatch,
            Self::Malformed(LineError { fault: LineFault::Version, .. }) => Code::VersionUnsupported,
            Self::AnyNeedsTls | Self::Malformed(_) => Code::HelloMalformed,
            Self::OwnKey => Code::WrongServer,
        }
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyNeedsTls => f.write_str("any gateway was asked for outside tls"),
            Self::BindingMismatch { named } => write!(f, "the opening message is for bind={named}"),
            Self::Malformed(_) => f.write_str("the opening message is malformed"),
            Self::OwnKey => f.write_str("the peer claims our own key"),
        }
    }
}

impl core::error::Error for HelloError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::AnyNeedsTls | Self::BindingMismatch { .. } | Self::OwnKey => None,
        }
    }
}

impl Accept<'_> {
    /// Takes the opening line, with 32 fresh random bytes for the answer.
    ///
    /// # Errors
    /// [`HelloError`]; send [`Reference::verdict_no`] where the framing has a place for it, and close.
    pub fn on_hello(self, line: &[u8], challenge: [u8; 32]) -> Result<AwaitProof, HelloError> {
        let hello = Hello::parse(line).map_err(HelloError::Malformed)?;
        let own = self.key.public();
        if hello.bind != self.binding.bind() {
            return Err(HelloError::BindingMismatch { named: hello.bind });
        }
        if hello.peer == own {
            return Err(HelloError::OwnKey);
        }
        let for_us = match hello.to {
            HelloTo::Any if hello.bind != Bind::Tls => return Err(HelloError::AnyNeedsTls),
            HelloTo::Any => true,
            HelloTo::Key(key) => key == *own.as_bytes(),
        };
        let covered = Challenge::format_covered(&own, &challenge);
        let transcript = ServerTranscript::new(&self.org, &self.binding, line, covered.as_bytes());
        let signature = self.key.sign(Label::CONN_AUTH_SERVER, transcript.as_bytes());
        Ok(AwaitProof {
            peer: hello.peer,
            action: hello.action,
            for_us,
            binding: self.binding,
            transcript,
            challenge: format_signed(&covered, &signature),
            signature,
        })
    }
}

/// CHALLENGE is to be sent; PROOF is awaited.
#[derive(Debug)]
#[must_use]
pub struct AwaitProof {
    peer: PublicKey,
    action: Action,
    for_us: bool,
    binding: Binding,
    transcript: ServerTranscript,
    challenge: String,
    signature: Signature,
}

/// Why no key is proved. The peer gets a bare no.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProofError {
    /// Not a PROOF.
    Malformed(LineError),
    /// The key is proved, but HELLO asked for another server.
    NotForUs {
        /// The dialler.
        peer: Box<PublicKey>,
    },
    /// The signature does not belong to this key, org, channel and handshake.
    Wrong {
        /// The key that was claimed.
        claimed: Box<PublicKey>,
    },
}

impl ProofError {
    /// The code for the log.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::ProofMalformed,
            Self::NotForUs { .. } => Code::WrongServer,
            Self::Wrong { .. } => Code::ClientProofWrong,
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => f.write_str("the proof is malformed"),
            Self::NotForUs { peer } => write!(f, "{} asked for another server", peer.short()),
            Self::Wrong { claimed } => write!(f, "the proof is not by {}", claimed.short()),
        }
    }
}

impl core::error::Error for ProofError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::NotForUs { .. } | Self::Wrong { .. } => None,
        }
    }
}

impl AwaitProof {
    /// The line to send.
    #[must_use]
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Takes the dialler's line.
    ///
    /// # Errors
    /// [`ProofError`]; send [`Reference::verdict_no`] and close.
    pub fn on_proof(self, line: &[u8]) -> Result<KeyProven, ProofError> {
        let Proof { heads, count, covered, signature } = Proof::parse(line).map_err(ProofError::Malformed)?;
        let transcript = self.transcript.client(&self.signature, covered);
        self.peer
            .verify(Label::CONN_AUTH_CLIENT, transcript.as_bytes(), &signature)
            .map_err(|_| ProofError::Wrong { claimed: Box::new(self.peer) })?;
        if !self.for_us {
            return Err(ProofError::NotForUs { peer: Box::new(self.peer) });
        }
        Ok(KeyProven {
            peer: self.peer,
            action: self.action,
            binding: self.binding,
            heads,
            count,
            session: transcript.session(),
        })
    }
}

/// The peer proved its key on this channel. Nothing is known of its standing yet. Cannot be copied; made by
/// [`AwaitProof::on_proof`] only.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct KeyProven {
    peer: PublicKey,
    action: Action,
    binding: Binding,
    heads: Heads,
    count: u64,
    session: SessionId,
}

impl KeyProven {
    /// The proved key.
    #[must_use]
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// What it asks for.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// The kind of channel.
    #[must_use]
    pub const fn bind(&self) -> Bind {
        self.binding.bind()
    }

    /// The channel.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        self.binding
    }

    /// What the peer says it holds: a hint, never evidence.
    #[must_use]
    pub const fn heads(&self) -> Heads {
        self.heads
    }

    /// How much the peer says it holds.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Names the session in both logs.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Decides, with what the member list says of [`KeyProven::peer`] at this moment.
    ///
    /// # Errors
    /// [`Refusal`]; send [`Refusal::verdict`] and close.
    pub fn admit(self, standing: Standing) -> Result<Admitted, Refusal> {
        let rule = decide(&self.action, self.binding.bind(), standing)?;
        Ok(Admitted { proven: self, rule })
    }
}

/// A bar comes before everything, so that a revoked key hears that it is revoked whatever it asks for;
/// a stranger hears that it is one before it can learn which actions there are, and a member that no policy
/// lets use a service hears that, and not whether there is such a service.
fn decide(action: &Action, bind: Bind, standing: Standing) -> Result<&'static ActionRule, Refusal> {
    let rule = action.rule(bind);
    let missing = match standing {
        Standing::Barred(code) => return Err(Refusal { code }),
        Standing::Unknown => Code::UnknownKey,
        Standing::Good(_) | Standing::Permitted => match rule {
            Some(ActionRule { who: Who::Permitted, .. }) => Code::NoPolicy,
            Some(_) => Code::ActionNotAllowed,
            None if action.is_known() => Code::ActionNotAllowed,
            None => Code::ActionUnknown,
        },
    };
    rule.filter(|rule| rule.who.includes(standing)).ok_or(Refusal { code: missing })
}

/// The peer proved its key and may do what it asks for. Cannot be copied; made by [`KeyProven::admit`] only.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    proven: KeyProven,
    rule: &'static ActionRule,
}

impl Admitted {
    /// The proved key.
    #[must_use]
    pub const fn peer(&self) -> PublicKey {
        self.proven.peer
    }

    /// What it was admitted for.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.proven.action
    }

    /// The registry's line for the action.
    #[must_use]
    pub const fn rule(&self) -> &'static ActionRule {
        self.rule
    }

    /// The channel.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        self.proven.binding
    }

    /// What the peer says it holds: a hint, never evidence.
    #[must_use]
    pub const fn heads(&self) -> Heads {
        self.proven.heads
    }

    /// How much the peer says it holds.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.proven.count
    }

    /// Names the session in both logs.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.proven.session
    }

    /// Asks the same question again: after registering the session, and on every change to the
    /// member list while it lives.
    ///
    /// # Errors
    /// [`Refusal`]; cut the session.
    pub fn recheck(&self, standing: Standing) -> Result<(), Refusal> {
        decide(&self.proven.action, self.proven.binding.bind(), standing).map(|_| ())
    }

    /// The VERDICT line that opens the session. `heads` and `count` are a hint about what we hold.
    #[must_use]
    pub fn verdict_ok(&self, reference: Reference, heads: Heads, count: u64) -> String {
        Verdict::format_ok(reference, &heads, count)
    }
}
