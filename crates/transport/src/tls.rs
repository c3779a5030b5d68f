//! TLS 1.3, judged by the org's anchors alone: the one verdict of preboot, node and CLI.

use core::fmt;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use conn_auth::TLS_EXPORTER_LABEL;
use identity::Code;
use org_trust::{Anchor, TrustBundle};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    server::NoServerSessionStorage,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The dialler's side: which gateways' certificates hold.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
}

/// What a server showed to a [`ClientTls`] that was made by [`ClientTls::witnessed`].
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Option<Shown>>>);

/// A chain, and what the verifier said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// As sent, the leaf first (DER).
    pub certificates: Vec<Vec<u8>>,
    /// The code with which it was refused; none if it holds.
    pub refused: Option<Code>,
    /// By this clock, in seconds since 1970.
    pub at_unix_s: u64,
}

/// The acceptor's side: which certificate to show.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

/// A certificate of the bundle is no usable anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleError {
    /// This one (from 0) does not parse as a certificate of a CA.
    Certificate {
        /// Its place in the bundle.
        at: usize,
    },
    /// There is none.
    Empty,
}

/// A gateway's own certificate cannot be served.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The file of certificates is no PEM, or holds none.
    Certificates,
    /// The file of the key is no PEM, or holds no private key.
    Key,
    /// The two do not belong together, or the key is of a kind that is not served.
    Pair(rustls::Error),
}

/// TLS with the other side failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The host is neither a DNS name nor an address.
    Host,
    /// The connection ended or broke during the handshake.
    Io(io::ErrorKind),
    /// The TLS library's verdict.
    Tls(rustls::Error),
}

impl ClientTls {
    /// Trusts the chains that end in one of `anchors` (DER), and no other. Dates of anchors are not
    /// looked at, as TLS libraries do: an anchor ends by leaving the bundle.
    ///
    /// # Errors
    /// [`BundleError`] when there is none or one is no certificate.
    pub fn new<'a>(anchors: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, BundleError> {
        let mut roots = RootCertStore::empty();
        for (at, anchor) in anchors.into_iter().enumerate() {
            roots.add(CertificateDer::from_slice(anchor)).map_err(|_| BundleError::Certificate { at })?;
        }
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|_| BundleError::Empty)?;
        Self::judged_by(Arc::clone(&verifier) as _, verifier)
    }

    /// What a bundle accepts, and refuses a chain in which a certificate shows the key of a CA that the org has
    /// retired: wherever it stands, and whoever signed it anew.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn trusting(bundle: &TrustBundle) -> Result<Self, BundleError> {
        let Self { verifier, .. } = Self::new(bundle.certificates().iter().map(Anchor::der))?;
        let verifier = Arc::new(NothingRetired { verifier, bundle: bundle.clone() });
        Self::judged_by(Arc::clone(&verifier) as _, verifier)
    }

    /// The same, which also tells what a server showed, and what was said of it. The verdict is that of the
    /// same verifier, whatever it is.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn witnessed(&self) -> Result<(Self, Witness), BundleError> {
        let witness = Witness::default();
        let verifier = Recording { verifier: Arc::clone(&self.verifier), witness: witness.clone() };
        Self::judged_by(Arc::new(verifier), Arc::clone(&self.verifier)).map(|tls| (tls, witness))
    }

    fn judged_by(
        judge: Arc<dyn ServerCertVerifier>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, BundleError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|_| BundleError::Empty)?.dangerous();
        let mut config = builder.with_custom_certificate_verifier(judge).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// TLS over `stream` with `host`, and the channel binding of the connection. The caller sets the
    /// deadline.
    ///
    /// # Errors
    /// [`TlsError`]; its code says which part of the certificate or protocol is at fault.
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<(client::TlsStream<S>, [u8; 32]), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host).map_err(|_| TlsError::Host)?.to_owned();
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        let exporter = connected.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(&[]));
        Ok((connected, exporter.map_err(TlsError::Tls)?))
    }
}

impl Witness {
    /// What was shown last, if it came to that.
    #[must_use]
    pub fn shown(&self) -> Option<Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks the verifier only where no certificate shows a retired key.
#[derive(Debug)]
struct NothingRetired {
    verifier: Arc<dyn ServerCertVerifier>,
    bundle: TrustBundle,
}

impl ServerCertVerifier for NothingRetired {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.bundle.shows_retired(core::iter::once(leaf).chain(others).map(AsRef::as_ref)) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        self.verifier.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Notes what passes and adds nothing to it: every answer is the verifier's own.
#[derive(Debug)]
struct Recording {
    verifier: Arc<dyn ServerCertVerifier>,
    witness: Witness,
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.verifier.verify_server_cert(leaf, others, name, ocsp, now);
        let shown = Shown {
            certificates: core::iter::once(leaf).chain(others).map(|der| der.to_vec()).collect(),
            refused: verdict.as_ref().err().map(code_of),
            at_unix_s: now.as_secs(),
        };
        *self.witness.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// TLS with an edge, of which nothing is believed: everything of worth runs in TLS inside it, and whoever
/// stands in its place can do no more than it could. Neither the org's CAs nor the system's are asked.
pub(crate) async fn connect_unverified<S>(host: &str, stream: S) -> Result<client::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(TlsError::Tls)?.dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Unverified)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    let name = ServerName::try_from(host).map_err(|_| TlsError::Host)?.to_owned();
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// Takes any certificate, since it proves nothing either way.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerTls {
    /// Serves the chain (leaf first) and its key, both PEM.
    ///
    /// # Errors
    /// [`CertificateFault`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateFault> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|c| !c.is_empty()).ok_or(CertificateFault::Certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateFault::Key)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(CertificateFault::Pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(CertificateFault::Pair)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config) })
    }

    /// TLS over an accepted `stream`, and the channel binding of the connection. The caller sets the
    /// deadline.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn accept<S>(&self, stream: S) -> Result<(server::TlsStream<S>, [u8; 32]), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
        let exporter = accepted.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(&[]));
        Ok((accepted, exporter.map_err(TlsError::Tls)?))
    }
}

impl BundleError {
    /// The code for people.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::BundleInvalid
    }
}

impl TlsError {
    /// The code for people.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Host => Code::NameNotResolved,
            Self::Io(_) => Code::ConnectionLost,
            Self::Tls(error) => code_of(error),
        }
    }
}

/// One provider, named: two may be compiled in, and then rustls refuses to guess. TLS 1.3 suites only.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

const fn code_of(error: &rustls::Error) -> Code {
    use rustls::{AlertDescription as Alert, Error};
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's enums grow; the rest has no better name"
    )]
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Code::CertificateExpired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Code::CertificateNotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Code::CertificateName
            }
            // No lists of revoked certificates are read: this is our own word for a retired key.
            CertificateError::Revoked => Code::AnchorRetired,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Code::ChainUnknown,
            _ => Code::TlsFailed,
        },
        Error::InvalidMessage(_) | Error::PeerIncompatible(_) => Code::NotTls,
        Error::AlertReceived(Alert::ProtocolVersion) => Code::NotTls,
        // Only who was shown a certificate says so, and we show none but a gateway's.
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        ) => Code::CertificateRefused,
        _ => Code::TlsFailed,
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        match error.into_inner().map(|inner| inner.downcast::<rustls::Error>()) {
            Some(Ok(error)) => Self::Tls(*error),
            Some(Err(_)) | None => Self::Io(kind),
        }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { at } => {
                write!(f, "certificate {at} of the trust bundle is no CA certificate")
            }
            Self::Empty => f.write_str("the trust bundle is empty"),
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates => f.write_str("no certificate in PEM"),
            Self::Key => f.write_str("no private key in PEM"),
            Self::Pair(why) => write!(f, "certificate and key cannot be served: {why}"),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host is neither a name nor an address"),
            Self::Io(kind) => write!(f, "the connection broke during TLS: {kind}"),
            Self::Tls(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for BundleError {}
impl core::error::Error for CertificateFault {}
impl core::error::Error for TlsError {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(..)")
    }
}
