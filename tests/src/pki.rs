//! Certificates of the org's CA for machines on the loopback.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};
use transport::{ClientTls, ServerTls};

/// A CA.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

/// A certificate with its key, PEM, and the CA that signed it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leaf {
    chain: String,
    key: String,
    anchor: Vec<u8>,
}

impl Authority {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, der }
    }

    /// A certificate for 127.0.0.1: the gateway's, or that of an edge in front of it.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let chain = params.signed_by(&key, &issuer).unwrap().pem();
        Leaf { chain, key: key.serialize_pem(), anchor: self.der.clone() }
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Trusts this CA and no other.
    #[must_use]
    pub fn client(&self) -> ClientTls {
        ClientTls::new([self.der()]).unwrap()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Leaf {
    /// Shows this certificate.
    #[must_use]
    pub fn server(&self) -> ServerTls {
        ServerTls::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// Trusts the CA that signed it.
    #[must_use]
    pub fn client(&self) -> ClientTls {
        ClientTls::new([self.anchor.as_slice()]).unwrap()
    }
}
