//! Certificates for the chains, each with its own fault or none.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A CA or a leaf with its key.
pub(crate) struct Authority {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
    params: CertificateParams,
}

/// Years in which a certificate holds.
#[derive(Clone, Copy)]
pub(crate) struct Years(i32, i32);

pub(crate) const GOOD: Years = Years(2020, 2120);
pub(crate) const PAST: Years = Years(2001, 2002);
pub(crate) const AHEAD: Years = Years(2110, 2120);

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::ca(name, GOOD, None)
    }

    pub(crate) fn ca(name: &str, years: Years, issuer: Option<&Self>) -> Self {
        let mut params = params(Vec::new(), name, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self::made(params, issuer)
    }

    pub(crate) fn leaf(&self, host: &str, years: Years) -> Self {
        Self::made(params(vec![host.to_owned()], "leaf", years), Some(self))
    }

    /// A leaf as a CA that browsers trust makes it: with a policy of the CA/Browser Forum.
    pub(crate) fn public_leaf(&self, host: &str) -> Self {
        // SEQUENCE { SEQUENCE { OID 2.23.140.1.2.1 } }
        let policies = vec![0x30, 0x0a, 0x30, 0x08, 0x06, 0x06, 0x67, 0x81, 0x0c, 0x01, 0x02, 0x01];
        let mut params = params(vec![host.to_owned()], host, GOOD);
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 32], policies)];
        Self::made(params, Some(self))
    }

    pub(crate) fn self_signed(host: &str) -> Self {
        Self::made(params(vec![host.to_owned()], "alone", GOOD), None)
    }

    /// The same CA once more, signed by another.
    pub(crate) fn cross_signed_by(&self, other: &Self) -> Certificate {
        self.params.signed_by(&self.key, &other.issuer()).unwrap()
    }

    /// With a key that OpenSSL reads: of Ed25519 keys it does not take the newer form, with the public key in it.
    pub(crate) fn leaf_for_openssl(&self, host: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self::made_with(key, params(vec![host.to_owned()], "edge", GOOD), Some(self))
    }

    fn made(params: CertificateParams, issuer: Option<&Self>) -> Self {
        Self::made_with(KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), params, issuer)
    }

    fn made_with(key: KeyPair, params: CertificateParams, issuer: Option<&Self>) -> Self {
        let certificate = match issuer {
            None => params.self_signed(&key),
            Some(issuer) => params.signed_by(&key, &issuer.issuer()),
        };
        Self { certificate: certificate.unwrap(), key, params }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

fn params(names: Vec<String>, subject: &str, Years(from, to): Years) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

pub(crate) fn pem(certificates: &[&Certificate]) -> String {
    certificates.iter().map(|certificate| certificate.pem()).collect()
}
