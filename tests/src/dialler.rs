//! Honest diallers: the real initiator of each wire.

use std::{net::SocketAddr, time::Duration};

use conn_auth::{Accepted, Action, AwaitChallenge, Binding, ChallengeError, Dial, To, VerdictError};
use identity::{Code, Heads, PublicKey, SecretKey};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use transport::{
    Broken, ClientTls, authenticate_stream,
    client::{DialError, DialFault, authenticate, secure},
};

use crate::{
    org::{ORG, Person},
    raw::{Framing, Message, Raw, Side},
};

/// Somebody who wants to tell somebody something.
#[derive(Debug)]
pub struct Dialler {
    /// Who dials.
    pub key: SecretKey,
    /// Whom.
    pub to: PublicKey,
    /// What for.
    pub action: &'static str,
    /// What is said as soon as the handshake is over.
    pub secret: &'static str,
}

/// Why nothing was said.
#[derive(Debug)]
pub enum Failed {
    /// CHALLENGE did not hold.
    Challenge(ChallengeError),
    /// VERDICT was no, or none.
    Verdict(VerdictError),
    /// The connection ended early or took too long.
    Broken(Broken),
    /// Another step of the transport.
    Dial(DialError),
}

impl Dialler {
    /// The victim, who wants `action` of `to`.
    #[must_use]
    pub fn victim(to: Person, action: &'static str) -> Self {
        Self { key: Person::Victim.key(), to: to.public(), action, secret: "the victim's secret" }
    }

    /// The victim's machine as it boots, by its boot key.
    #[must_use]
    pub fn boot(to: Person) -> Self {
        Self { key: Person::Boot.key(), to: to.public(), action: "boot", secret: "the victim's secret" }
    }

    /// conn_auth on lines, in the tunnel `binding`; what was answered to the secret.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn lines(&self, address: SocketAddr, binding: Binding) -> Result<Vec<u8>, Failed> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let held = (Heads([0; 32]), 0);
        let (mut session, _) =
            authenticate_stream(tcp, self.start(binding), held, 1024, until()).await.map_err(Failed::from)?;
        let answer = async {
            session.send(self.secret.as_bytes()).await.ok()?;
            session.recv().await.ok()
        };
        Ok(timeout(PATIENCE, answer).await.ok().flatten().unwrap_or_default())
    }

    /// conn_auth on a WebSocket over TLS.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tls(&self, address: SocketAddr, tls: &ClientTls) -> Result<Vec<u8>, Failed> {
        let until = until();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (stream, exporter) = secure(tls, "127.0.0.1", tcp, until).await.map_err(Failed::Dial)?;
        let pending = self.start(Binding::Tls(exporter));
        self.websocket(stream, pending).await.map(|(answer, _)| answer)
    }

    /// The same, and what was sent on the way: HELLO and PROOF.
    pub async fn recorded(&self, address: SocketAddr, tls: &ClientTls) -> Vec<String> {
        let (mut raw, exporter) = raw_tls(address, tls).await;
        let pending = self.start(Binding::Tls(exporter));
        let hello = pending.hello().to_owned();
        raw.send(Message::Hello, hello.as_bytes()).await.unwrap();
        let challenge = raw.recv(Message::Challenge).await.unwrap();
        let pending = pending.on_challenge(&challenge).unwrap().prove(Heads([0; 32]), 0);
        let proof = pending.proof().to_owned();
        raw.send(Message::Proof, proof.as_bytes()).await.unwrap();
        pending.on_verdict(&raw.recv(Message::Verdict).await.unwrap()).unwrap();
        raw.send(Message::Application, self.secret.as_bytes()).await.unwrap();
        raw.recv(Message::Application).await.unwrap();
        vec![hello, proof]
    }

    /// conn_auth on a WebSocket in the tunnel `binding`.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tunnel_websocket(&self, address: SocketAddr, binding: Binding) -> Result<Vec<u8>, Failed> {
        let tcp = TcpStream::connect(address).await.unwrap();
        self.websocket(tcp, self.start(binding)).await.map(|(answer, _)| answer)
    }

    /// The first handshake; what was answered.
    ///
    /// # Errors
    /// [`Failed::Broken`].
    #[cfg(feature = "seed-wire")]
    pub async fn seed(&self, address: SocketAddr) -> Result<Vec<u8>, Failed> {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let action = Action::new(self.action, &[]).unwrap();
        let dial = conn_auth::v0::Dial { key: &self.key, action };
        transport::seed_wire::dial(&mut tcp, dial, until()).await.map_err(Failed::Broken)?;
        transport::write_line(&mut tcp, self.secret, until()).await.map_err(Failed::Broken)?;
        Ok(rest(tcp).await)
    }

    /// The token of the first handshake's returning boot, over TLS; what was answered.
    ///
    /// # Errors
    /// [`Failed`].
    #[cfg(feature = "seed-wire")]
    pub async fn seed_token(
        address: SocketAddr,
        tls: &ClientTls,
        token: conn_auth::v0::Token,
    ) -> Result<Vec<u8>, Failed> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = secure(tls, "127.0.0.1", tcp, until()).await.map_err(Failed::Dial)?;
        transport::seed_wire::show_token(&mut stream, token, until()).await.map_err(Failed::Broken)?;
        Ok(rest(stream).await)
    }

    /// The first step, with a fresh nonce.
    pub fn start(&self, binding: Binding) -> AwaitChallenge<'_> {
        let action = Action::new(self.action, &[]).unwrap();
        let dial = Dial { org: ORG, key: &self.key, to: To::Key(self.to), binding, action };
        dial.start(rand::random()).unwrap()
    }

    async fn websocket<S: crate::raw::Duplex>(
        &self,
        stream: S,
        pending: AwaitChallenge<'_>,
    ) -> Result<(Vec<u8>, Accepted), Failed> {
        let held = (Heads([0; 32]), 0);
        let (mut session, accepted) =
            authenticate(stream, "127.0.0.1", pending, held, 1024, until()).await.map_err(Failed::from)?;
        let answer = async {
            session.send(self.secret.as_bytes().to_vec()).await.ok()?;
            session.recv().await.ok()
        };
        let answer = timeout(PATIENCE, answer).await.ok().flatten().unwrap_or_default();
        Ok((answer, accepted))
    }
}

impl Failed {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Challenge(why) => why.code(),
            Self::Verdict(why) => why.code(),
            Self::Broken(why) => why.code(),
            Self::Dial(why) => why.code(),
        }
    }
}

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        if let DialFault::Broken(why) = error.fault {
            return Self::Broken(why);
        }
        match error {
            DialError { fault: DialFault::Challenge(why), .. } => Self::Challenge(why),
            DialError { fault: DialFault::Verdict(why), .. } => Self::Verdict(why),
            other @ DialError { .. } => Self::Dial(other),
        }
    }
}

/// Everything until the other side closes, at most 1 KiB.
#[cfg(feature = "seed-wire")]
async fn rest(stream: impl crate::raw::Duplex) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;

    let mut answer = Vec::new();
    // A reset after the answer is an end like any other.
    drop(timeout(PATIENCE, stream.take(1024).read_to_end(&mut answer)).await);
    answer
}

/// A connection over TLS for the raw hand, with its channel binding.
pub async fn raw_tls(address: SocketAddr, tls: &ClientTls) -> (Raw, [u8; 32]) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (stream, exporter) = tls.connect("127.0.0.1", tcp).await.unwrap();
    (Raw::new(stream, Framing::WebSocket, Side::Dialler), exporter)
}

/// For the answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn until() -> Instant {
    Instant::now() + Duration::from_secs(10)
}
