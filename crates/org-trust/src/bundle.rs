//! The trust bundle: the CA certificates from which a gateway's TLS certificate must come.

use core::fmt;

use identity::{
    Code,
    limits::{BUNDLE_BYTES_MAX, BUNDLE_CERTIFICATES_MAX},
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use crate::{
    charter::{CaState, Charter},
    pem,
};

/// One to sixteen distinct CA certificates. Nothing else can be in one, and nothing else is ever
/// trusted for TLS: not the system's CAs, not a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    anchors: Vec<Anchor>,
    /// CAs that the org has retired, as far as settings were asked.
    retired: Vec<Anchor>,
}

/// A CA certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    der: Vec<u8>,
    public_key: Vec<u8>,
    /// The key alone, whatever parameters stand beside it.
    key: Vec<u8>,
    subject: String,
    self_issued: bool,
    not_before_unix_s: i64,
    not_after_unix_s: i64,
}

/// Why something is no trust bundle. Certificates are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleError {
    /// A certificate stands twice.
    Duplicate {
        /// The second one.
        certificate: usize,
    },
    /// Nothing in it.
    Empty,
    /// Neither a certificate nor a comment.
    Junk {
        /// The line, from 1.
        line: usize,
    },
    /// Not a CA's certificate.
    Leaf {
        /// Which.
        certificate: usize,
    },
    /// A CA's, whose key usage does not let it sign certificates.
    MayNotSign {
        /// Which.
        certificate: usize,
    },
    /// Not an X.509 certificate.
    NotX509 {
        /// Which.
        certificate: usize,
    },
    /// A PEM block of another kind.
    OtherBlock {
        /// Its label.
        label: String,
    },
    /// A private key, which must not be handed out.
    PrivateKey,
    /// More bytes than a bundle may have.
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// More certificates than a bundle may have.
    TooMany {
        /// How many.
        certificates: usize,
    },
    /// Bytes follow the end of a certificate.
    Trailing {
        /// Which.
        certificate: usize,
        /// How many.
        bytes: usize,
    },
}

impl TrustBundle {
    /// Reads a file: certificates in PEM, or one in DER.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(file: &[u8]) -> Result<Self, BundleError> {
        if file.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { bytes: file.len() });
        }
        if file.trim_ascii().is_empty() {
            return Err(BundleError::Empty);
        }
        if !pem::is_pem(file) {
            return Self::from_certificates([file.to_vec()]);
        }
        let text = core::str::from_utf8(file).map_err(|_| BundleError::Junk { line: 1 })?;
        let blocks = pem::read(text).map_err(|at| BundleError::Junk { line: at.line })?;
        if blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY")) {
            return Err(BundleError::PrivateKey);
        }
        if let Some(other) = blocks.iter().find(|block| block.label != CERTIFICATE) {
            return Err(BundleError::OtherBlock { label: other.label.clone() });
        }
        Self::from_certificates(blocks.into_iter().map(|block| block.contents))
    }

    /// A bundle of these certificates (DER).
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn from_certificates(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, BundleError> {
        let certificates: Vec<_> = certificates.into_iter().collect();
        if certificates.is_empty() {
            return Err(BundleError::Empty);
        }
        if certificates.len() > BUNDLE_CERTIFICATES_MAX {
            return Err(BundleError::TooMany { certificates: certificates.len() });
        }
        let bytes = certificates.iter().map(Vec::len).sum();
        if bytes > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { bytes });
        }
        let mut anchors: Vec<Anchor> = Vec::new();
        for (at, der) in certificates.into_iter().enumerate() {
            if anchors.iter().any(|anchor| anchor.der == der) {
                return Err(BundleError::Duplicate { certificate: at + 1 });
            }
            anchors.push(Anchor::parse(der, at + 1)?);
        }
        Ok(Self { anchors, retired: Vec::new() })
    }

    /// What a holder of `bundle` and of this charter accepts: the bundle and the CAs that are active
    /// or retiring, less those that are retired. What a charter lists that is no CA certificate is left
    /// out: it must not take the others with it.
    ///
    /// # Errors
    /// [`BundleError::Empty`] when nothing is left.
    pub fn accepted(bundle: Option<&Self>, charter: &Charter) -> Result<Self, BundleError> {
        let retired = in_state(charter, &[CaState::Retired]);
        let held = bundle.iter().flat_map(|bundle| bundle.anchors.iter().cloned());
        let mut anchors: Vec<Anchor> = Vec::new();
        for anchor in held.chain(in_state(charter, &[CaState::Active, CaState::Retiring])) {
            if !anchor.is_among(&retired) && !anchors.contains(&anchor) {
                anchors.push(anchor);
            }
        }
        if anchors.is_empty() { Err(BundleError::Empty) } else { Ok(Self { anchors, retired }) }
    }

    /// These and no others, less those that this charter has retired.
    ///
    /// # Errors
    /// [`BundleError::Empty`] when nothing is left.
    pub fn less_retired(self, charter: &Charter) -> Result<Self, BundleError> {
        let retired = in_state(charter, &[CaState::Retired]);
        let anchors: Vec<_> = self.anchors.into_iter().filter(|anchor| !anchor.is_among(&retired)).collect();
        if anchors.is_empty() { Err(BundleError::Empty) } else { Ok(Self { anchors, retired }) }
    }

    /// The CAs that are accepted no more.
    #[must_use]
    pub fn retired(&self) -> &[Anchor] {
        &self.retired
    }

    /// Whether one of these certificates (DER), leaf or CA, used or not, bears the key of a retired CA. One that
    /// cannot be read counts as one: what a TLS library makes of it is not known.
    pub fn shows_retired<'a>(&self, certificates: impl IntoIterator<Item = &'a [u8]>) -> bool {
        !self.retired.is_empty()
            && certificates.into_iter().any(|der| match X509Certificate::from_der(der) {
                Ok((_, parsed)) => {
                    let key = parsed.public_key().subject_public_key.data.as_ref();
                    self.retired.iter().any(|gone| gone.key == key)
                }
                Err(_) => true,
            })
    }

    /// Whether one of them is a CA that this charter has retired.
    #[must_use]
    pub fn holds_retired(&self, charter: &Charter) -> bool {
        let retired = in_state(charter, &[CaState::Retired]);
        self.anchors.iter().any(|anchor| anchor.is_among(&retired))
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Anchor] {
        &self.anchors
    }

    /// The bundle as a file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut text = String::new();
        for anchor in &self.anchors {
            pem::write(CERTIFICATE, &anchor.der, &mut text);
        }
        text
    }
}

impl Anchor {
    fn parse(der: Vec<u8>, certificate: usize) -> Result<Self, BundleError> {
        let (rest, parsed) =
            X509Certificate::from_der(&der).map_err(|_| BundleError::NotX509 { certificate })?;
        if !rest.is_empty() {
            return Err(BundleError::Trailing { certificate, bytes: rest.len() });
        }
        let malformed = |_| BundleError::NotX509 { certificate };
        let constraints = parsed.basic_constraints().map_err(malformed)?;
        let is_ca = parsed.version() == X509Version::V3 && constraints.is_some_and(|c| c.value.ca);
        if !is_ca {
            return Err(BundleError::Leaf { certificate });
        }
        // Without the extension any usage is allowed, as in CAs made by `openssl req -x509`.
        let usage = parsed.key_usage().map_err(malformed)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(BundleError::MayNotSign { certificate });
        }
        let anchor = Self {
            public_key: parsed.public_key().raw.to_vec(),
            key: parsed.public_key().subject_public_key.data.to_vec(),
            subject: parsed.subject().to_string(),
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            not_before_unix_s: parsed.validity().not_before.timestamp(),
            not_after_unix_s: parsed.validity().not_after.timestamp(),
            der: Vec::new(),
        };
        Ok(Self { der, ..anchor })
    }

    /// A certificate issued anew for a retired key is as retired as the first.
    fn is_among(&self, retired: &[Self]) -> bool {
        retired.iter().any(|gone| gone.key == self.key)
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its public key (SubjectPublicKeyInfo, DER).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Its name, for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether it names itself as its issuer: a root. An intermediate is allowed and worth a word.
    #[must_use]
    pub const fn self_issued(&self) -> bool {
        self.self_issued
    }

    /// From when on it is meant to be used. TLS does not look at an anchor's dates, so say it.
    #[must_use]
    pub const fn not_before_unix_s(&self) -> i64 {
        self.not_before_unix_s
    }

    /// Until when it is meant to be used.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }
}

impl BundleError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Duplicate { .. } => Code::BundleDuplicate,
            Self::Empty => Code::BundleEmpty,
            Self::Junk { .. } | Self::Trailing { .. } => Code::BundleJunk,
            Self::Leaf { .. } | Self::MayNotSign { .. } => Code::BundleNotCa,
            Self::NotX509 { .. } | Self::OtherBlock { .. } => Code::BundleInvalid,
            Self::PrivateKey => Code::BundlePrivateKey,
            Self::TooLarge { .. } => Code::BundleTooLarge,
            Self::TooMany { .. } => Code::BundleTooMany,
        }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { certificate } => write!(f, "certificate {certificate} stands there twice"),
            Self::Empty => f.write_str("no certificate in it"),
            Self::Junk { line } => write!(f, "line {line} is neither a certificate nor a comment"),
            Self::Leaf { certificate } => write!(f, "certificate {certificate} is not a CA's"),
            Self::MayNotSign { certificate } => {
                write!(f, "the CA of certificate {certificate} may not sign certificates")
            }
            Self::NotX509 { certificate } => {
                write!(f, "certificate {certificate} is not an X.509 certificate")
            }
            Self::OtherBlock { label } => {
                write!(f, "a block that is no certificate: {}", label.escape_debug())
            }
            Self::PrivateKey => f.write_str("a private key"),
            Self::TooLarge { bytes } => write!(f, "at most {BUNDLE_BYTES_MAX} bytes allowed, {bytes} given"),
            Self::TooMany { certificates } => {
                write!(f, "at most {BUNDLE_CERTIFICATES_MAX} certificates allowed, {certificates} given")
            }
            Self::Trailing { certificate, bytes } => {
                write!(f, "{bytes} bytes follow the end of certificate {certificate}")
            }
        }
    }
}

impl core::error::Error for BundleError {}

fn in_state(charter: &Charter, wanted: &[CaState]) -> Vec<Anchor> {
    let listed = charter.tls_cas.iter().filter(|ca| wanted.contains(&ca.state));
    listed.filter_map(|ca| Anchor::parse(ca.certificate.clone(), 1).ok()).collect()
}

const CERTIFICATE: &str = "CERTIFICATE";
