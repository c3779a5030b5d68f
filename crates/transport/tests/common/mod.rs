//! A small PKI and an org for the tests of this crate.

#![allow(dead_code, unreachable_pub, reason = "each test takes the part it needs")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use identity::{Name, SecretKey};
use org_trust::{Admin, Charter, CharterChain, Gateway, UnverifiedCharter};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// A CA or a leaf with its key.
pub struct Authority {
    pub certificate: Certificate,
    pub params: CertificateParams,
    pub key: KeyPair,
}

/// Years in which a certificate holds.
#[derive(Clone, Copy)]
pub struct Years(pub i32, pub i32);

pub const GOOD: Years = Years(2020, 2120);
pub const PAST: Years = Years(2001, 2002);
pub const AHEAD: Years = Years(2110, 2120);

impl Authority {
    pub fn root(name: &str) -> Self {
        Self::made(name, GOOD, None)
    }

    pub fn made(name: &str, years: Years, issuer: Option<&Self>) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self::with_key(name, years, issuer, key)
    }

    pub fn with_key(name: &str, years: Years, issuer: Option<&Self>, key: KeyPair) -> Self {
        let mut params = params(Vec::new(), name, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = match issuer {
            None => params.self_signed(&key).unwrap(),
            Some(issuer) => params.signed_by(&key, &issuer.issuer()).unwrap(),
        };
        Self { certificate, params, key }
    }

    /// The same CA once more, signed by another.
    pub fn cross_signed_by(&self, other: &Self) -> Certificate {
        self.params.signed_by(&self.key, &other.issuer()).unwrap()
    }

    pub fn leaf(&self, host: &str, years: Years) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = params(vec![host.to_owned()], "leaf", years);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self { certificate, params, key }
    }

    pub fn self_signed_leaf(host: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = params(vec![host.to_owned()], "alone", GOOD);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, params, key }
    }

    pub fn der(&self) -> &[u8] {
        self.certificate.der()
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

pub fn chain_pem(certificates: &[&Certificate]) -> Vec<u8> {
    certificates.iter().map(|c| c.pem()).collect::<String>().into_bytes()
}

/// An org of one root key, with `later` further settings.
pub struct Org {
    pub chain: CharterChain,
    pub root: SecretKey,
    pub gateway: SecretKey,
}

impl Org {
    pub fn new(later: usize) -> Self {
        Self::of(&SecretKey::from_seed(&[1; 32]), later)
    }

    pub fn of(root: &SecretKey, later: usize) -> Self {
        let root = root.expose_seed(SecretKey::from_seed);
        let gateway = SecretKey::from_seed(&[2; 32]);
        let mut charter = Charter::genesis(Name::parse("acme").unwrap(), 1, vec![root.public()], [3; 16]);
        let admin = SecretKey::from_seed(&[5; 32]).public();
        charter.admins = vec![Admin { key: admin, name: Name::parse("ann").unwrap() }];
        charter.gateways =
            vec![Gateway { key: gateway.public(), node: SecretKey::from_seed(&[4; 32]).public() }];
        let genesis = UnverifiedCharter::sign(charter, &[&root]).unwrap().verify_genesis().unwrap();
        let mut org = Self { chain: CharterChain::start(genesis).unwrap(), root, gateway };
        for _ in 0..later {
            org.extend();
        }
        org
    }

    pub fn extend(&mut self) {
        let next = self.chain.head().charter().successor();
        let next = UnverifiedCharter::sign(next, &[&self.root]).unwrap();
        self.chain.extend(next).unwrap();
    }

    pub fn genesis_only(&self) -> CharterChain {
        CharterChain::start(self.chain.genesis().clone()).unwrap()
    }
}
