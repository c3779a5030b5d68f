//! The endorsement key: who made this TPM, as its certificate says.

use core::fmt;

use identity::{TpmId, limits::EK_CERTIFICATE_BYTES_MAX};
use p256::PublicKey as EccKey;
use rsa::{BigUint, RsaPublicKey, traits::PublicKeyParts as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    der_parser::asn1_rs::{Oid, oid},
    extensions::ParsedExtension,
    prelude::{FromDer as _, X509Certificate, X509Version},
    public_key::PublicKey,
};

/// A TPM's endorsement key, for which a CA of ours vouches.
#[derive(Clone, Debug)]
pub struct Endorsement {
    pub(crate) key: EndorsementKey,
    tpm: TpmId,
    by: String,
}

/// The two kinds that the TCG's profile has a low-range template for; both name by SHA-256 and wrap with
/// AES-128.
#[derive(Clone, Debug)]
pub(crate) enum EndorsementKey {
    Ecc(EccKey),
    Rsa(RsaPublicKey),
}

/// Why a certificate vouches for no TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndorsementError {
    /// It is signed with the name of a CA of ours, and not with its key.
    BadSignature {
        /// That CA.
        issuer: String,
    },
    /// It is no X.509 certificate, or more than one.
    Malformed,
    /// It is not one of an endorsement key, or of one that is not known here.
    Unfit {
        /// What is wrong with it.
        what: &'static str,
    },
    /// No CA of ours has the name of its issuer.
    Untrusted {
        /// Its issuer.
        issuer: String,
    },
}

impl Endorsement {
    /// Checks an endorsement key's certificate against CAs, each in DER. The CA that signed it must be among
    /// them: no certificate that the machine could bring leads from one to the other. Dates are not looked
    /// at: a TPM cannot get a new certificate, and what it says does not become wrong.
    ///
    /// # Errors
    /// [`EndorsementError`].
    pub fn of_certificate<'a>(
        der: &[u8],
        cas: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, EndorsementError> {
        let certificate = parse(der)?;
        let key = key_of(&certificate)?;
        check_use(&certificate, &key)?;
        let issuer = certificate.issuer().to_string();
        let mut named = false;
        for ca in cas {
            let Ok(([], ca)) = X509Certificate::from_der(ca) else { continue };
            if ca.subject().as_raw() != certificate.issuer().as_raw() {
                continue;
            }
            named = true;
            if certificate.verify_signature(Some(ca.public_key())).is_ok() {
                return Ok(Self { key, tpm: named_by(&certificate), by: issuer });
            }
        }
        Err(if named {
            EndorsementError::BadSignature { issuer }
        } else {
            EndorsementError::Untrusted { issuer }
        })
    }

    /// Which TPM it is.
    #[must_use]
    pub const fn tpm(&self) -> TpmId {
        self.tpm
    }

    /// The CA that vouches for it.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }
}

/// Which TPM a certificate is about, whoever signed it.
///
/// # Errors
/// [`EndorsementError::Malformed`].
pub fn tpm_of(der: &[u8]) -> Result<TpmId, EndorsementError> {
    parse(der).map(|certificate| named_by(&certificate))
}

/// The certificate at the beginning of what a TPM keeps: some fill the rest of the place with anything.
///
/// # Errors
/// [`EndorsementError::Malformed`].
pub fn certificate_in(kept: &[u8]) -> Result<&[u8], EndorsementError> {
    let (rest, _) = X509Certificate::from_der(kept).map_err(|_| EndorsementError::Malformed)?;
    kept.get(..kept.len() - rest.len()).ok_or(EndorsementError::Malformed)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, EndorsementError> {
    if der.len() > EK_CERTIFICATE_BYTES_MAX {
        return Err(EndorsementError::Malformed);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| EndorsementError::Malformed)?;
    if !rest.is_empty() || certificate.version() != X509Version::V3 {
        return Err(EndorsementError::Malformed);
    }
    Ok(certificate)
}

fn named_by(certificate: &X509Certificate<'_>) -> TpmId {
    TpmId(Sha256::digest(certificate.public_key().raw).into())
}

fn key_of(certificate: &X509Certificate<'_>) -> Result<EndorsementKey, EndorsementError> {
    const OTHER: EndorsementError = EndorsementError::Unfit { what: "its key is neither P-256 nor RSA-2048" };
    match certificate.public_key().parsed() {
        // On the curve or refused: a point beside it would give the credential away.
        Ok(PublicKey::EC(point)) => {
            EccKey::from_sec1_bytes(point.data()).map(EndorsementKey::Ecc).map_err(|_| OTHER)
        }
        Ok(PublicKey::RSA(key)) => {
            let (n, e) = (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent));
            let key = RsaPublicKey::new(n, e).map_err(|_| OTHER)?;
            if key.n().bits() == 2048 { Ok(EndorsementKey::Rsa(key)) } else { Err(OTHER) }
        }
        _ => Err(OTHER),
    }
}

/// What the TCG's profile says of such certificates. Unknown critical extensions are refused; the profile
/// makes the alternative name critical, which holds maker and model and is not looked into.
fn check_use(certificate: &X509Certificate<'_>, key: &EndorsementKey) -> Result<(), EndorsementError> {
    let unfit = |what| Err(EndorsementError::Unfit { what });
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return unfit("it names two ways of signing");
    }
    if SHA1.contains(&certificate.signature_algorithm.algorithm) {
        return unfit("it is signed by SHA-1");
    }
    let mut seen: Vec<&Oid<'_>> = Vec::new();
    for extension in certificate.extensions() {
        if seen.contains(&&extension.oid) {
            return unfit("an extension stands in it twice");
        }
        seen.push(&extension.oid);
        let parsed = extension.parsed_extension();
        let known = matches!(
            parsed,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        if extension.critical && !known {
            return unfit("it has a critical extension that is not known here");
        }
        if matches!(parsed, ParsedExtension::BasicConstraints(constraints) if constraints.ca) {
            return unfit("it is a CA's");
        }
        if let ParsedExtension::KeyUsage(usage) = parsed {
            let fits = match key {
                EndorsementKey::Ecc(_) => usage.key_agreement() || usage.key_encipherment(),
                EndorsementKey::Rsa(_) => usage.key_encipherment(),
            };
            if !fits || usage.key_cert_sign() {
                return unfit("its key is for something else");
            }
        }
        if matches!(parsed, ParsedExtension::ExtendedKeyUsage(usage) if !usage.other.contains(&ENDORSEMENT)) {
            return unfit("it is not meant for an endorsement key");
        }
    }
    Ok(())
}

impl fmt::Display for EndorsementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature { issuer } => {
                write!(f, "the TPM's certificate names {} and is not signed by it", issuer.escape_debug())
            }
            Self::Malformed => f.write_str("the TPM's certificate is not an X.509 certificate"),
            Self::Unfit { what } => write!(f, "the TPM's certificate: {what}"),
            Self::Untrusted { issuer } => {
                write!(f, "the TPM's certificate is from {}, which is not accepted", issuer.escape_debug())
            }
        }
    }
}

impl core::error::Error for EndorsementError {}

/// tcg-kp-EKCertificate.
const ENDORSEMENT: Oid<'static> = oid!(2.23.133.8.1);
const SHA1: [Oid<'static>; 3] = [oid!(1.2.840.113549.1.1.5), oid!(1.3.14.3.2.29), oid!(1.2.840.10045.4.1)];
