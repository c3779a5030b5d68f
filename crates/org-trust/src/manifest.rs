//! The invite manifest: the one line that lets a machine join.

use core::fmt;

use identity::{
    Code, HashContext, OrgId, PublicKey, SecretKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{
        ADDRESS_BYTES_MAX, BUNDLE_BYTES_MAX, BUNDLE_CERTIFICATES_MAX, CHARTER_BYTES_MAX, MANIFEST_BYTES_MAX,
        MANIFEST_GATEWAYS_MAX, STATEMENT_BYTES_MAX,
    },
};
use zeroize::Zeroizing;

use crate::{
    base64::Alphabet,
    bundle::{BundleError, TrustBundle},
    chain::CharterChain,
    charter_signed::CharterError,
    endpoint::check_address,
    invite::Invite,
    payload::Payload,
    statement::{Statement, StatementError, UnverifiedStatement},
};

/// What an invite carries, unverified. Holds a secret: cannot be cloned or printed.
pub struct InviteManifest {
    org: OrgId,
    charters: Vec<Vec<u8>>,
    bundle: Vec<Vec<u8>>,
    gateways: Vec<String>,
    invite: Vec<u8>,
    secret: Zeroizing<[u8; 32]>,
}

/// An invite whose parts belong together: a newcomer that has only this knows whom to trust.
#[derive(Debug)]
pub struct CheckedInvite {
    chain: CharterChain,
    bundle: TrustBundle,
    gateways: Vec<String>,
    statement: Statement,
    invite: Invite,
    secret: SecretKey,
}

/// Why a text is no invite, or its parts do not belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// A gateway's address is neither `HOST:PORT` nor `wss://HOST:PORT`.
    Address {
        /// Which, from 1.
        gateway: usize,
    },
    /// The trust bundle is not usable.
    Bundle(BundleError),
    /// A charter does not hold.
    Charter(CharterError),
    /// A part of the text was lost or changed on the way.
    Lost,
    /// The bytes are no invite.
    Malformed(DecodeError),
    /// Its author is no admin of the org.
    NotByAdmin {
        /// The author.
        author: [u8; 32],
    },
    /// The text does not begin as an invite does.
    NotAnInvite,
    /// The secret is not that of the invite.
    OtherSecret,
    /// The first charter is another org's.
    OtherOrg {
        /// The org the invite names.
        wanted: OrgId,
        /// The charter's.
        got: OrgId,
    },
    /// The bundle holds a CA that the org has retired.
    RetiredCa,
    /// The invite's statement does not hold.
    Statement(StatementError),
    /// More than an invite may hold.
    TooLarge {
        /// Bytes.
        bytes: usize,
    },
    /// It names a gateway that is none of the org's.
    UnknownGateway {
        /// The role key it names.
        redeemer: [u8; 32],
    },
    /// The text is an invite of a format that this release does not know.
    UnknownVersion,
}

impl InviteManifest {
    /// Begins every invite of this format.
    pub const PREFIX: &str = "muster-invite-1:";

    /// Puts an invite together, and checks that it will pass [`Self::check`].
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn new(
        chain: &CharterChain,
        bundle: &TrustBundle,
        gateways: Vec<String>,
        invite: &Statement,
        secret: &SecretKey,
    ) -> Result<Self, ManifestError> {
        let manifest = Self {
            org: chain.org(),
            charters: chain.iter().map(|charter| charter.bytes().to_vec()).collect(),
            bundle: bundle.certificates().iter().map(|anchor| anchor.der().to_vec()).collect(),
            gateways,
            invite: invite.bytes().to_vec(),
            secret: secret.expose_seed(|seed| Zeroizing::new(*seed)),
        };
        Self::decode(&manifest.encode())?.check()?;
        Ok(manifest)
    }

    /// The one line, to be shown or written once.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let payload = self.encode();
        let mut bytes = Zeroizing::new(Vec::with_capacity(payload.len() + CHECKSUM_BYTES));
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&checksum(&payload));
        let digits = Alphabet::Url.encode(&bytes);
        let mut line = Zeroizing::new(String::with_capacity(Self::PREFIX.len() + digits.len()));
        line.push_str(Self::PREFIX);
        line.push_str(&digits);
        line
    }

    /// Reads the line as it comes out of a mail or terminal: space around it, and breaks in it with
    /// the space around those, are taken away; nothing else is mended.
    ///
    /// # Errors
    /// [`ManifestError::Lost`] and others that name what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let most = Self::PREFIX.len() + (MANIFEST_BYTES_MAX + CHECKSUM_BYTES).div_ceil(3) * 4;
        // Line breaks and their indent at most double what a mail makes of it.
        if text.len() > 2 * most {
            return Err(ManifestError::TooLarge { bytes: text.len() });
        }
        let mut line = Zeroizing::new(String::with_capacity(text.len()));
        for piece in text.lines() {
            line.push_str(piece.trim_ascii());
        }
        let Some(digits) = line.strip_prefix(Self::PREFIX) else {
            let newer = line.starts_with(PREFIX_OF_ANY);
            return Err(if newer { ManifestError::UnknownVersion } else { ManifestError::NotAnInvite });
        };
        let bytes = Alphabet::Url.decode(digits.as_bytes()).map_err(|_| ManifestError::Lost)?;
        let Some((payload, sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(ManifestError::Lost);
        };
        if *sum != checksum(payload) {
            return Err(ManifestError::Lost);
        }
        Self::decode(payload)
    }

    /// The org it names, unverified.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// Checks, without asking anybody, that its parts belong together: the charters chain from the org
    /// it names, one of their admins signed the invite, the invite names one of their gateways, and
    /// the secret is the invite's.
    ///
    /// # Errors
    /// [`ManifestError`] naming the part that does not hold.
    pub fn check(self) -> Result<CheckedInvite, ManifestError> {
        let chain = self.check_charters()?;
        let head = chain.head().charter();
        let bundle = TrustBundle::from_certificates(self.bundle).map_err(ManifestError::Bundle)?;
        if bundle.holds_retired(head) {
            return Err(ManifestError::RetiredCa);
        }
        for (at, address) in self.gateways.iter().enumerate() {
            check_address(address).map_err(|_| ManifestError::Address { gateway: at + 1 })?;
        }
        let statement = UnverifiedStatement::decode(&self.invite)
            .map_err(StatementError::Malformed)
            .and_then(|statement| statement.verify(&self.org))
            .map_err(ManifestError::Statement)?;
        let Payload::Invite(invite) = statement.payload() else {
            let fault = Fault::OutOfRange { got: statement.payload().number().into() };
            return Err(ManifestError::Malformed(DecodeError { field: "invite statement", fault }));
        };
        let invite = Invite::clone(invite);
        if head.admin(statement.author()).is_none() {
            return Err(ManifestError::NotByAdmin { author: *statement.author().as_bytes() });
        }
        if head.gateway(&invite.redeemer).is_none() {
            return Err(ManifestError::UnknownGateway { redeemer: *invite.redeemer.as_bytes() });
        }
        let secret = SecretKey::from_seed(&self.secret);
        if secret.public() != invite.key {
            return Err(ManifestError::OtherSecret);
        }
        Ok(CheckedInvite { chain, bundle, gateways: self.gateways, statement, invite, secret })
    }

    fn check_charters(&self) -> Result<CharterChain, ManifestError> {
        let chain = CharterChain::read(self.charters.iter().map(Vec::as_slice));
        let chain = chain.map_err(ManifestError::Charter)?;
        if chain.org() != self.org {
            return Err(ManifestError::OtherOrg { wanted: self.org, got: chain.org() });
        }
        Ok(chain)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer::new();
        out.u8(FORMAT).bytes(self.org.as_bytes());
        out.u16(u16::try_from(self.charters.len()).unwrap_or(u16::MAX));
        for charter in &self.charters {
            out.long_bytes(charter);
        }
        out.count(self.bundle.len());
        for certificate in &self.bundle {
            out.long_bytes(certificate);
        }
        out.count(self.gateways.len());
        for gateway in &self.gateways {
            out.long_bytes(gateway.as_bytes());
        }
        out.long_bytes(&self.invite);
        // The secret comes last and in one piece, into a buffer that is not moved again.
        let public = out.into_bytes();
        let mut bytes = Zeroizing::new(Vec::with_capacity(public.len() + self.secret.len()));
        bytes.extend_from_slice(&public);
        bytes.extend_from_slice(self.secret.as_slice());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: bytes.len() });
        }
        Self::read(bytes).map_err(ManifestError::Malformed)
    }

    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.exactly("invite format", FORMAT)?;
        let org = OrgId(r.array("org")?);
        // The length of the whole bounds how many there can be.
        let count = r.u16("charters")?;
        let charters = (0..count).map(|_| Ok(r.long_bytes("charter", CHARTER_BYTES_MAX)?.to_vec()));
        let charters = charters.collect::<Result<Vec<_>, _>>()?;
        let count = r.count("certificates", BUNDLE_CERTIFICATES_MAX)?;
        let bundle = (0..count).map(|_| Ok(r.long_bytes("certificate", BUNDLE_BYTES_MAX)?.to_vec()));
        let bundle = bundle.collect::<Result<Vec<_>, _>>()?;
        let count = r.count("gateways", MANIFEST_GATEWAYS_MAX)?;
        if count == 0 {
            return Err(DecodeError { field: "gateways", fault: Fault::OutOfRange { got: 0 } });
        }
        let gateways = (0..count).map(|_| {
            let text = core::str::from_utf8(r.long_bytes("gateway", ADDRESS_BYTES_MAX)?);
            text.map(str::to_owned).map_err(|_| DecodeError { field: "gateway", fault: Fault::BadText })
        });
        let gateways = gateways.collect::<Result<Vec<_>, _>>()?;
        let invite = r.long_bytes("invite", STATEMENT_BYTES_MAX)?.to_vec();
        let secret = Zeroizing::new(r.array("invite secret")?);
        r.finish("end of invite")?;
        Ok(Self { org, charters, bundle, gateways, invite, secret })
    }
}

impl fmt::Debug for InviteManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteManifest({:?}, ..)", self.org)
    }
}

impl CheckedInvite {
    /// The org.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.chain.org()
    }

    /// The charters it carries, verified.
    #[must_use]
    pub const fn chain(&self) -> &CharterChain {
        &self.chain
    }

    /// The CAs that a gateway's TLS certificate must come from.
    #[must_use]
    pub const fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Where to go, as `HOST:PORT` or `wss://HOST:PORT`, first choice first.
    #[must_use]
    pub fn gateways(&self) -> &[String] {
        &self.gateways
    }

    /// The invite's statement.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The invite's id.
    #[must_use]
    pub fn id(&self) -> StatementId {
        self.statement.id()
    }

    /// What the invite says.
    #[must_use]
    pub const fn invite(&self) -> &Invite {
        &self.invite
    }

    /// The role key of the gateway that admits with it.
    #[must_use]
    pub const fn redeemer(&self) -> PublicKey {
        self.invite.redeemer
    }

    /// The invite's secret key.
    #[must_use]
    pub const fn secret(&self) -> &SecretKey {
        &self.secret
    }
}

impl ManifestError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Lost
            | Self::Malformed(_)
            | Self::NotAnInvite
            | Self::TooLarge { .. }
            | Self::UnknownVersion => Code::InviteMalformed,
            Self::Address { .. }
            | Self::Bundle(_)
            | Self::Charter(_)
            | Self::NotByAdmin { .. }
            | Self::OtherOrg { .. }
            | Self::OtherSecret
            | Self::RetiredCa
            | Self::Statement(_)
            | Self::UnknownGateway { .. } => Code::InviteBroken,
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { gateway } => {
                write!(f, "the address of gateway {gateway} is neither HOST:PORT nor wss://HOST:PORT")
            }
            Self::Bundle(why) => write!(f, "the trust bundle: {why}"),
            Self::Charter(why) => write!(f, "the org's settings: {why}"),
            Self::Lost => f.write_str("a part of it was lost"),
            Self::Malformed(why) => write!(f, "{why}"),
            Self::NotAnInvite => write!(f, "an invite begins with {}", InviteManifest::PREFIX),
            Self::NotByAdmin { author } => {
                write!(f, "made by {}, who is no admin of the org", crate::charter::short(author))
            }
            Self::OtherOrg { wanted, got } => {
                write!(f, "the org's settings are of org {}, not {}", got.short(), wanted.short())
            }
            Self::OtherSecret => f.write_str("its secret is another invite's"),
            Self::RetiredCa => f.write_str("the trust bundle holds a CA that the org has retired"),
            Self::Statement(why) => write!(f, "{why}"),
            Self::TooLarge { bytes } => write!(f, "{bytes} bytes are more than an invite may have"),
            Self::UnknownGateway { redeemer } => {
                write!(f, "it names gateway {}, which the org does not have", crate::charter::short(redeemer))
            }
            Self::UnknownVersion => f.write_str("an invite of a later release"),
        }
    }
}

impl core::error::Error for ManifestError {}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    for (out, byte) in sum.iter_mut().zip(HashContext::INVITE_CHECKSUM.hash(&[payload])) {
        *out = byte;
    }
    sum
}

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const PREFIX_OF_ANY: &str = "muster-invite-";
