//! A certificate, as far as people ask about it.

use std::net::IpAddr;

use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    oid_registry::Oid,
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

/// What was read of a certificate. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it, by its own word.
    pub issuer: String,
    /// BLAKE3 of its public key.
    pub key: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// From when on, in seconds since 1970.
    pub not_before_unix_s: i64,
    /// Until when.
    pub not_after_unix_s: i64,
    /// Whether it bears the marks of a CA that browsers trust.
    pub public: bool,
    pub(crate) subject_der: Vec<u8>,
    pub(crate) issuer_der: Vec<u8>,
}

impl Certificate {
    /// Reads one (DER).
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|found| &found.value.general_names).filter_map(name).collect();
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            key: blake3::hash(parsed.public_key().raw).to_hex().to_string(),
            names,
            not_before_unix_s: parsed.validity().not_before.timestamp(),
            not_after_unix_s: parsed.validity().not_after.timestamp(),
            public: is_public(&parsed),
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
        })
    }

    /// The first digits of its key's hash, for people.
    #[must_use]
    pub fn key_digits(&self) -> &str {
        self.key.get(..KEY_DIGITS).unwrap_or(&self.key)
    }

    /// Whether it names itself as its issuer.
    #[must_use]
    pub fn self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether it is for this host, by its own word.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.names.iter().any(|name| name.parse() == Ok(address));
        }
        let below = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(host)
                || name.strip_prefix("*.").zip(below).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    }
}

/// Browsers demand of every public CA a policy of the CA/Browser Forum, and proof that the certificate
/// stands in public logs. No private CA sets either by accident.
fn is_public(parsed: &X509Certificate<'_>) -> bool {
    parsed.extensions().iter().any(|extension| {
        if let ParsedExtension::CertificatePolicies(policies) = extension.parsed_extension() {
            policies.iter().any(|policy| starts_with(&policy.policy_id, BROWSER_FORUM))
        } else {
            starts_with(&extension.oid, LOG_PROOF)
        }
    })
}

fn starts_with(oid: &Oid<'_>, prefix: &[u64]) -> bool {
    oid.iter().is_some_and(|parts| parts.take(prefix.len()).eq(prefix.iter().copied()))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

/// A day, for people.
#[must_use]
pub fn date(unix_s: i64) -> String {
    ASN1Time::from_timestamp(unix_s)
        .map_or_else(|_| unix_s.to_string(), |time| time.to_datetime().date().to_string())
}

const KEY_DIGITS: usize = 16;
/// 2.23.140.1: policies of the CA/Browser Forum.
const BROWSER_FORUM: &[u64] = &[2, 23, 140, 1];
/// Signed timestamps of public logs, RFC 6962.
const LOG_PROOF: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
