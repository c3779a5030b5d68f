//! The org's TLS CA and its gateways' certificates: Ed25519, long-lived, since a certificate here only
//! leads to the gateway's own key and nobody's membership hangs on it.

use std::time::{SystemTime, UNIX_EPOCH};

use identity::{Code, Name};
use org_trust::TrustBundle;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, date_time_ymd,
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
    issuer: Issuer<'static, KeyPair>,
    certificate_der: Vec<u8>,
    certificate_pem: String,
}

/// A gateway's certificate and key.
pub(crate) struct GatewayCertificate {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
}

/// The key of a gateway's certificate, made where the gateway runs.
pub(crate) struct GatewayKey {
    pair: KeyPair,
}

impl TlsCa {
    pub(crate) fn generate(org: &Name) -> Outcome<Self> {
        let issuer = CertifiedIssuer::self_signed(authority(org)?, key()?).map_err(failed)?;
        let (certificate_der, certificate_pem) = (issuer.der().to_vec(), issuer.pem());
        let pair = KeyPair::try_from(issuer.key().serialize_der()).map_err(failed)?;
        Ok(Self { issuer: Issuer::new(authority(org)?, pair), certificate_der, certificate_pem })
    }

    /// The CA of this key (PKCS #8), if its certificate is the one given (DER).
    pub(crate) fn open(org: &Name, key: &[u8], certificate: &[u8]) -> Outcome<Option<Self>> {
        let pair = KeyPair::try_from(key).map_err(failed)?;
        let public = pair.public_key_raw();
        if !certificate.windows(public.len()).any(|bytes| bytes == public) {
            return Ok(None);
        }
        let anchor = TrustBundle::read(certificate).map_err(|e| Failure::new(e.code(), e))?;
        Ok(Some(Self {
            issuer: Issuer::new(authority(org)?, pair),
            certificate_der: certificate.to_vec(),
            certificate_pem: anchor.to_pem(),
        }))
    }

    pub(crate) fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// PKCS #8.
    pub(crate) fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// A certificate for the host that machines dial, a name or an address, with a key made here.
    pub(crate) fn issue(&self, host: &str) -> Outcome<GatewayCertificate> {
        let key = GatewayKey::generate()?;
        Ok(GatewayCertificate { certificate_pem: self.certify(host, &key.public()?)?, key_pem: key.pem() })
    }

    /// A certificate for that host and a key made elsewhere: the raw Ed25519 public key.
    pub(crate) fn certify(&self, host: &str, public_key: &[u8; 32]) -> Outcome<String> {
        let mut params = params(vec![host.to_owned()], "muster gateway".to_owned(), GATEWAY_YEARS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&Ed25519(*public_key), &self.issuer).map_err(failed)?;
        Ok(certificate.pem())
    }
}

impl GatewayKey {
    pub(crate) fn generate() -> Outcome<Self> {
        Ok(Self { pair: key()? })
    }

    pub(crate) fn from_pem(pem: &str) -> Outcome<Self> {
        Ok(Self { pair: KeyPair::from_pem(pem).map_err(failed)? })
    }

    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    pub(crate) fn public(&self) -> Outcome<[u8; 32]> {
        let raw = self.pair.public_key_raw();
        raw.try_into().map_err(|_| Failure::new(Code::TlsFailed, "the gateway's TLS key is no Ed25519 key"))
    }
}

/// A public key that a certificate is made for.
struct Ed25519([u8; 32]);

impl PublicKeyData for Ed25519 {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// What the CA's certificate says; from it, what those that it signs say of it.
fn authority(org: &Name) -> Outcome<CertificateParams> {
    let mut params = params(Vec::new(), format!("{org} TLS CA"), CA_YEARS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
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
