//! TLS 1.3 by rustls: mutual with Ed25519 chains, full and resumed, and with raw public keys (RFC 7250), each on
//! aws-lc-rs and on ring. X25519 and AES-128-GCM only; the server looks its client up among a thousand keys.

use std::{collections::BTreeSet, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::slice::{Protocol, greet, greeted};
use crate::Failure;

pub(crate) fn protocols() -> Result<Vec<Protocol>, Failure> {
    let aws_lc = || {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        Arc::new(provider)
    };
    let ring = || {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        Arc::new(provider)
    };
    let chain = Chain::new()?;
    Ok(vec![
        mutual("mtls aws-lc", &chain, aws_lc(), false)?,
        mutual("mtls ring", &chain, ring(), false)?,
        mutual("mtls resumed aws-lc", &chain, aws_lc(), true)?,
        mutual("mtls resumed ring", &chain, ring(), true)?,
        raw("rpk aws-lc", aws_lc())?,
        raw("rpk ring", ring())?,
    ])
}

/// One CA and a leaf for each side.
struct Chain {
    ca: CertificateDer<'static>,
    server: (CertificateDer<'static>, Vec<u8>),
    client: (CertificateDer<'static>, Vec<u8>),
}

impl Chain {
    fn new() -> Result<Self, Failure> {
        let ca_key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::new(params, ca_key);
        let leaf = |name: &str| -> Result<(CertificateDer<'static>, Vec<u8>), Failure> {
            let key = KeyPair::generate_for(&PKCS_ED25519)?;
            let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
            Ok((certificate.der().clone(), key.serialize_der()))
        };
        Ok(Self { ca: ca.der().clone(), server: leaf("localhost")?, client: leaf("client")? })
    }
}

fn private(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(der.to_vec()).into()
}

fn mutual(
    name: &'static str,
    chain: &Chain,
    provider: Arc<CryptoProvider>,
    resumed: bool,
) -> Result<Protocol, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(chain.ca.clone())?;
    let roots = Arc::new(roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![chain.server.0.clone()], private(&chain.server.1))?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![chain.client.0.clone()], private(&chain.client.1))?;
    if !resumed {
        never_resume(&mut server, &mut client);
    }
    protocol(name, server, client)
}

fn raw(name: &'static str, provider: Arc<CryptoProvider>) -> Result<Protocol, Failure> {
    let certified = || -> Result<(Arc<CertifiedKey>, Vec<u8>), Failure> {
        let pair = KeyPair::generate_for(&PKCS_ED25519)?;
        let key = provider.key_provider.load_private_key(private(&pair.serialize_der()))?;
        let spki = key.public_key().ok_or("no public key")?.to_vec();
        Ok((Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.clone())], key)), spki))
    };
    let ((server_key, server_spki), (client_key, client_spki)) = (certified()?, certified()?);
    let algorithms = provider.signature_verification_algorithms;
    let mut known: BTreeSet<Vec<u8>> = (0..1000u32).map(|i| i.to_le_bytes().to_vec()).collect();
    known.insert(client_spki);
    let clients = Arc::new(RawKeys { known, algorithms });
    let servers = Arc::new(RawKeys { known: BTreeSet::from([server_spki]), algorithms });
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(server_key)));
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(client_key)));
    never_resume(&mut server, &mut client);
    protocol(name, server, client)
}

fn never_resume(server: &mut ServerConfig, client: &mut ClientConfig) {
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    client.resumption = Resumption::disabled();
}

fn protocol(name: &'static str, server: ServerConfig, client: ClientConfig) -> Result<Protocol, Failure> {
    let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
    let host = ServerName::try_from("localhost")?;
    Ok(Protocol::new(
        name,
        move |stream: TcpStream| {
            let acceptor = acceptor.clone();
            async move { greet(acceptor.accept(stream).await?).await }
        },
        move |stream: TcpStream| {
            let (connector, host) = (connector.clone(), host.clone());
            async move { greeted(connector.connect(host, stream).await?).await }
        },
    ))
}

/// Accepts exactly the raw keys it knows.
#[derive(Debug)]
struct RawKeys {
    known: BTreeSet<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeys {
    fn knows(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        match self.known.contains(key.as_ref()) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.knows(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.knows(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
