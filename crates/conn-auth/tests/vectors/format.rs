//! The file of vectors: both sides' inputs, every line, and what comes of it. Bytes are lower-case
//! hexadecimal; a line is a string of the characters U+0000 to U+00FF, one for each byte.

use std::fmt;

use conn_auth::{
    Accept, Action, Binding, ChallengeError, Dial, DialError, HelloError, Holder, LineError, LineFault,
    ProofError, Reference, Standing, To, VerdictError,
};
use identity::{Code, Heads, OrgId, PublicKey, SecretKey, WireGuardKey, decode_hex, encode_hex};
use serde::{Deserialize, Serialize};

use crate::spec;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) about: String,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dialler: Option<Dialler>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acceptor: Option<Acceptor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Wanted {
    #[serde(rename = "key")]
    Key(String),
    #[serde(rename = "any-of")]
    AnyOf(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Channel {
    #[serde(rename = "tls")]
    Tls { exporter: String },
    #[serde(rename = "wg")]
    WireGuard { client: String, server: String },
}

/// `challenge` and `verdict` come in; `hello`, `proof`, the transcripts and the outcome are results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dialler {
    pub(crate) org: String,
    pub(crate) seed: String,
    pub(crate) to: Wanted,
    pub(crate) channel: Channel,
    pub(crate) action: String,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) nonce: String,
    pub(crate) heads: String,
    pub(crate) count: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) hello: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) challenge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) t2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) proof: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) t3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) verdict: Option<String>,
    pub(crate) outcome: Outcome,
}

/// `hello` and `proof` come in; `challenge`, `verdict`, the transcripts and the outcome are results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acceptor {
    pub(crate) org: String,
    pub(crate) seed: String,
    pub(crate) channel: Channel,
    pub(crate) fresh: String,
    pub(crate) standing: String,
    pub(crate) reference: String,
    pub(crate) heads: String,
    pub(crate) count: u64,
    pub(crate) hello: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) challenge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) t2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) proof: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) t3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) verdict: Option<String>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The vector stops before this side decides.
    Open,
    Accepted {
        server: String,
        session: String,
        reference: String,
        heads: String,
        count: u64,
    },
    Admitted {
        peer: String,
        action: String,
        session: String,
        heads: String,
        count: u64,
    },
    Refused {
        at: String,
        error: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        field: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        fault: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        code: Option<String>,
    },
}

/// `accepted`, `admitted`, `open`, or `AT ERROR [FIELD FAULT] [CODE]`: how the cases state what they want.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Accepted { .. } => f.write_str("accepted"),
            Self::Admitted { .. } => f.write_str("admitted"),
            Self::Refused { at, error, field, fault, .. } => {
                write!(f, "{at} {error}")?;
                [field, fault].into_iter().flatten().try_for_each(|word| write!(f, " {word}"))
            }
        }
    }
}

impl Dialler {
    /// The same inputs with the results of this implementation.
    pub(crate) fn replay(&self) -> Self {
        let mut out = Self { hello: None, t2: None, proof: None, t3: None, ..self.clone() };
        out.outcome = out.run().unwrap_or_else(|refused| refused);
        out
    }

    fn run(&mut self) -> Result<Outcome, Outcome> {
        let secret = SecretKey::from_seed(&bytes(&self.seed));
        let keys: Vec<PublicKey>;
        let to = match &self.to {
            Wanted::Key(key) => To::Key(public(key)),
            Wanted::AnyOf(named) => {
                keys = named.iter().map(|key| public(key)).collect();
                To::AnyOf(&keys)
            }
        };
        let pairs: Vec<_> = self.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let action = Action::new(&self.action, &pairs).unwrap();
        let (org, binding) = (OrgId(bytes(&self.org)), self.channel.binding());
        let dial = Dial { org, key: &secret, to, binding, action }.start(bytes(&self.nonce));
        let dial = dial.map_err(|why| refused("start", dial_word(&why), None, None))?;
        self.hello = Some(dial.hello().to_owned());
        let Some(challenge) = self.challenge.clone() else { return Ok(Outcome::Open) };
        let hello = dial.hello().as_bytes().to_vec();
        let trusted = dial.on_challenge(&from_text(&challenge)).map_err(|why| {
            let line = if let ChallengeError::Malformed(line) = &why { Some(*line) } else { None };
            refused("challenge", challenge_word(&why), line, Some(why.code()))
        })?;
        let server = trusted.server();
        let dial = trusted.prove(Heads(bytes(&self.heads)), self.count);
        let t2 = spec::t2(&org, &binding, &hello, &from_text(&challenge));
        let t3 = spec::t3(&t2, &from_text(&challenge), dial.proof().as_bytes());
        assert_eq!(dial.session().as_bytes(), &spec::session(&t3));
        (self.t2, self.t3) = (Some(encode_hex(&t2)), Some(encode_hex(&t3)));
        self.proof = Some(dial.proof().to_owned());
        let Some(verdict) = &self.verdict else { return Ok(Outcome::Open) };
        let accepted = dial.on_verdict(&from_text(verdict)).map_err(|why| match why {
            VerdictError::Malformed(line) => refused("verdict", "malformed", Some(line), Some(why.code())),
            VerdictError::Refused { .. } => refused("verdict", "refused", None, Some(why.code())),
            _ => unreachable!("an outcome without a word"),
        })?;
        assert_eq!(accepted.server(), server);
        Ok(Outcome::Accepted {
            server: server.to_string(),
            session: accepted.session().to_string(),
            reference: accepted.reference().to_string(),
            heads: accepted.heads().to_string(),
            count: accepted.count(),
        })
    }
}

impl Acceptor {
    /// The same inputs with the results of this implementation.
    pub(crate) fn replay(&self) -> Self {
        let mut out = Self { challenge: None, t2: None, t3: None, verdict: None, ..self.clone() };
        out.outcome = out.run().unwrap_or_else(|refused| refused);
        out
    }

    fn run(&mut self) -> Result<Outcome, Outcome> {
        let secret = SecretKey::from_seed(&bytes(&self.seed));
        let (org, binding) = (OrgId(bytes(&self.org)), self.channel.binding());
        let reference = Reference(bytes(&self.reference));
        let hello = from_text(&self.hello);
        self.verdict = Some(reference.verdict_no());
        let accept = Accept { org, key: &secret, binding }.on_hello(&hello, bytes(&self.fresh));
        let accept = accept.map_err(|why| {
            let line = if let HelloError::Malformed(line) = &why { Some(*line) } else { None };
            refused("hello", hello_word(&why), line, Some(why.code()))
        })?;
        self.challenge = Some(accept.challenge().to_owned());
        let challenge = accept.challenge().as_bytes().to_vec();
        let Some(proof) = &self.proof else {
            self.verdict = None;
            return Ok(Outcome::Open);
        };
        let proven = accept.on_proof(&from_text(proof)).map_err(|why| {
            let line = if let ProofError::Malformed(line) = &why { Some(*line) } else { None };
            refused("proof", proof_word(&why), line, Some(why.code()))
        })?;
        let t2 = spec::t2(&org, &binding, &hello, &challenge);
        let t3 = spec::t3(&t2, &challenge, &from_text(proof));
        (self.t2, self.t3) = (Some(encode_hex(&t2)), Some(encode_hex(&t3)));
        let admitted = proven.admit(standing(&self.standing)).map_err(|refusal| {
            self.verdict = Some(refusal.verdict(reference, true));
            refused("admit", "refused", None, Some(refusal.code))
        })?;
        self.verdict = Some(admitted.verdict_ok(reference, Heads(bytes(&self.heads)), self.count));
        Ok(Outcome::Admitted {
            peer: admitted.peer().to_string(),
            action: admitted.action().to_string(),
            session: admitted.session().to_string(),
            heads: admitted.heads().to_string(),
            count: admitted.count(),
        })
    }
}

impl Channel {
    pub(crate) fn binding(&self) -> Binding {
        match self {
            Self::Tls { exporter } => Binding::Tls(bytes(exporter)),
            Self::WireGuard { client, server } => Binding::WireGuard {
                client: WireGuardKey(bytes(client)),
                server: WireGuardKey(bytes(server)),
            },
        }
    }
}

fn standing(word: &str) -> Standing {
    match word {
        "member" => Standing::Good(Holder::Member),
        "boot-key" => Standing::Good(Holder::BootKey),
        "admin" => Standing::Good(Holder::Admin),
        "permitted" => Standing::Permitted,
        "unknown" => Standing::Unknown,
        code => Standing::Barred(Code::parse(code).unwrap()),
    }
}

fn refused(at: &str, error: &str, line: Option<LineError>, code: Option<Code>) -> Outcome {
    Outcome::Refused {
        at: at.to_owned(),
        error: error.to_owned(),
        field: line.map(|line| line.field.to_owned()),
        fault: line.map(|line| fault_word(&line.fault).to_owned()),
        code: code.map(|code| code.to_string()),
    }
}

fn dial_word(why: &DialError) -> &'static str {
    match why {
        DialError::AnyNeedsTls => "any-needs-tls",
        DialError::NobodyNamed => "nobody-named",
        DialError::OwnKey => "own-key",
        DialError::TooLong { .. } => "too-long",
        _ => unreachable!("an error without a word"),
    }
}

fn challenge_word(why: &ChallengeError) -> &'static str {
    match why {
        ChallengeError::Malformed(_) => "malformed",
        ChallengeError::OwnKey => "own-key",
        ChallengeError::ProofWrong => "proof-wrong",
        ChallengeError::Refused { .. } => "refused",
        ChallengeError::WrongServer { .. } => "wrong-server",
        _ => unreachable!("an error without a word"),
    }
}

fn hello_word(why: &HelloError) -> &'static str {
    match why {
        HelloError::AnyNeedsTls => "any-needs-tls",
        HelloError::BindingMismatch { .. } => "binding-mismatch",
        HelloError::Malformed(_) => "malformed",
        HelloError::OwnKey => "own-key",
        _ => unreachable!("an error without a word"),
    }
}

fn proof_word(why: &ProofError) -> &'static str {
    match why {
        ProofError::Malformed(_) => "malformed",
        ProofError::NotForUs { .. } => "not-for-us",
        ProofError::Wrong { .. } => "wrong",
        _ => unreachable!("an error without a word"),
    }
}

fn fault_word(fault: &LineFault) -> &'static str {
    match fault {
        LineFault::BadKey(_) => "bad-key",
        LineFault::BadNumber => "bad-number",
        LineFault::BadWord => "bad-word",
        LineFault::Hex(_) => "bad-hex",
        LineFault::Missing { .. } => "missing",
        LineFault::NotAscending => "not-ascending",
        LineFault::TooMany { .. } => "too-many",
        LineFault::Trailing { .. } => "trailing",
        LineFault::Version => "version",
        _ => unreachable!("a fault without a word"),
    }
}

pub(crate) fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    decode_hex(hex.as_bytes()).unwrap()
}

fn public(hex: &str) -> PublicKey {
    PublicKey::from_hex(hex).unwrap()
}

pub(crate) fn to_text(line: &[u8]) -> String {
    line.iter().map(|&byte| char::from(byte)).collect()
}

pub(crate) fn from_text(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}
