//! The org's TLS CA and its gateways' certificates: Ed25519, long-lived, since a certificate here only
//! leads to the gateway's own key and nobody's membership hangs on it.

use std::time::{SystemTime, UNIX_EPOCH};

use identity::{Code, Name};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use zeroize::Zeroizing;

use crate::{
    duration,
    failure::{Failure, Outcome},
};

/// A CA outlives the certificates it signs.
const CA_YEARS: u64 = 20;
const GATEWAY_YEARS: u64 = 10;

/// A CA that can sign.
pub(crate) struct TlsCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A gateway's certificate and key.
pub(crate) struct GatewayCertificate {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
}

impl TlsCa {
    pub(crate) fn generate(org: &Name) -> Outcome<Self> {
        let mut params = params(Vec::new(), format!("{org} TLS CA"), CA_YEARS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).map_err(failed)?;
        Ok(Self { issuer })
    }

    pub(crate) fn certificate_der(&self) -> &[u8] {
        self.issuer.der()
    }

    pub(crate) fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// PKCS #8.
    pub(crate) fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// A certificate for the host that machines dial: a name or an address.
    pub(crate) fn issue(&self, host: &str) -> Outcome<GatewayCertificate> {
        let mut params = params(vec![host.to_owned()], "muster gateway".to_owned(), GATEWAY_YEARS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(GatewayCertificate {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }
}

fn key() -> Outcome<KeyPair> {
    KeyPair::generate_for(&PKCS_ED25519).map_err(failed)
}

fn params(hosts: Vec<String>, common_name: String, years: u64) -> Outcome<CertificateParams> {
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    // A machine that joins within the hour may have a clock some hours behind.
    let (year, month, day) = ymd(today.saturating_sub(1));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = ymd(today + years * 365 + years / 4);
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

fn ymd(days: u64) -> (i32, u8, u8) {
    let (year, month, day) = duration::civil(days);
    let small = |n: u64| u8::try_from(n).unwrap_or(1);
    (i32::try_from(year).unwrap_or(i32::MAX), small(month), small(day))
}

fn failed(error: rcgen::Error) -> Failure {
    Failure::new(Code::TlsFailed, format_args!("making a certificate: {error}"))
        .remedy("Check the host name given to --gateway.")
}
