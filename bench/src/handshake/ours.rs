//! conn_auth over a bare stream, over a WebSocket, and over a WebSocket inside TLS.
//!
//! The acceptor looks its client up among a thousand keys, as the TLS rows do. On the bare stream and on the
//! WebSocket the binding is that of a tunnel, whose keys would come from the tunnel's state; what it costs to have
//! that tunnel at first contact is the row `op wireguard handshake`. VERDICT is the byte by which the acceptor shows
//! that it trusts the dialler.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use conn_auth::{Accept, Action, AwaitProof, Binding, Dial, Holder, Reference, Standing, To};
use identity::{
    Heads, OrgId, PublicKey, SecretKey, WireGuardKey,
    limits::{DIAL_DEADLINE_MS, PING_FRAME_BYTES_MAX},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use transport::{
    ClientTls, Deadlines, Incoming, Request, ServerTls, StreamIncoming, authenticate_stream, client,
};

use super::slice::Protocol;
use crate::Failure;

const ORG: OrgId = OrgId([1; 32]);
const HELD: (Heads, u64) = (Heads([2; 32]), 1000);
const TUNNEL: Binding = Binding::WireGuard { client: WireGuardKey([3; 32]), server: WireGuardKey([4; 32]) };

/// Both ends' keys, and whom the acceptor knows.
struct Parties {
    client: SecretKey,
    server: SecretKey,
    members: BTreeSet<PublicKey>,
}

pub(crate) fn protocols() -> Result<Vec<Protocol>, Failure> {
    let client = SecretKey::from_seed(&[5; 32]);
    let others = (0..1000u32).map(|i| {
        let mut seed = [9; 32];
        seed.iter_mut().zip(i.to_le_bytes()).for_each(|(s, b)| *s = b);
        SecretKey::from_seed(&seed).public()
    });
    let members = others.chain([client.public()]).collect();
    let parties = Arc::new(Parties { client, server: SecretKey::from_seed(&[6; 32]), members });
    let (tls_server, tls_client) = tls()?;
    Ok(vec![
        row(
            "conn_auth raw",
            &parties,
            |p, stream| async move { serve_raw(stream, &p).await },
            |p, stream| async move { dial_raw(stream, &p).await },
        ),
        row(
            "conn_auth ws",
            &parties,
            |p, stream| async move { serve_websocket(stream, &p, TUNNEL).await },
            |p, stream| async move { dial_websocket(stream, &p, TUNNEL, "ping").await },
        ),
        row(
            "conn_auth ws in tls",
            &parties,
            move |p, stream| {
                let tls = tls_server.clone();
                async move {
                    let (stream, exporter) = tls.accept(stream).await?;
                    serve_websocket(stream, &p, Binding::Tls(exporter)).await
                }
            },
            move |p, stream| {
                let tls = Arc::clone(&tls_client);
                async move {
                    let (stream, exporter) = tls.connect("localhost", stream).await?;
                    dial_websocket(stream, &p, Binding::Tls(exporter), "fetch").await
                }
            },
        ),
    ])
}

fn row<S, D>(
    name: &'static str,
    parties: &Arc<Parties>,
    serve: impl Fn(Arc<Parties>, TcpStream) -> S + Send + Sync + 'static,
    dial: impl Fn(Arc<Parties>, TcpStream) -> D + Send + Sync + 'static,
) -> Protocol
where
    S: Future<Output = Result<(), Failure>> + 'static,
    D: Future<Output = Result<(), Failure>> + 'static,
{
    let (server, client) = (Arc::clone(parties), Arc::clone(parties));
    Protocol::new(name, move |s| serve(Arc::clone(&server), s), move |s| dial(Arc::clone(&client), s))
}

async fn dial_raw(stream: TcpStream, parties: &Parties) -> Result<(), Failure> {
    let pending = start(parties, TUNNEL, "ping")?;
    authenticate_stream(stream, pending, HELD, PING_FRAME_BYTES_MAX, deadline()).await?;
    Ok(())
}

async fn serve_raw(stream: TcpStream, parties: &Parties) -> Result<(), Failure> {
    let mut incoming = StreamIncoming::new(stream, Deadlines::since(Instant::now()));
    let hello = incoming.hello().await?.ok_or("a long line")?;
    let pending = challenge(parties, TUNNEL, &hello)?;
    incoming.say(pending.challenge()).await?;
    let proof = incoming.proof().await?.ok_or("a long line")?;
    incoming.say(&verdict(parties, pending, &proof)?).await?;
    incoming.accepted(PING_FRAME_BYTES_MAX);
    Ok(())
}

async fn dial_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    parties: &Parties,
    binding: Binding,
    action: &str,
) -> Result<(), Failure> {
    let pending = start(parties, binding, action)?;
    client::authenticate(stream, "localhost", pending, HELD, PING_FRAME_BYTES_MAX, deadline()).await?;
    Ok(())
}

async fn serve_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    parties: &Parties,
    binding: Binding,
) -> Result<(), Failure> {
    let Request::Upgrade(upgrade) = Incoming::new(stream, Deadlines::since(Instant::now())).next().await?
    else {
        return Err("no upgrade".into());
    };
    let pending = challenge(parties, binding, upgrade.hello())?;
    let (proof, unanswered) = upgrade.challenge(pending.challenge()).await?.proof().await?;
    let verdict = verdict(parties, pending, &proof)?;
    unanswered.accept(&verdict, PING_FRAME_BYTES_MAX).await?;
    Ok(())
}

fn start<'a>(
    parties: &'a Parties,
    binding: Binding,
    action: &str,
) -> Result<conn_auth::AwaitChallenge<'a>, Failure> {
    let dial = Dial {
        org: ORG,
        key: &parties.client,
        to: To::Key(parties.server.public()),
        binding,
        action: Action::new(action, &[])?,
    };
    Ok(dial.start(client::nonce()?)?)
}

fn challenge(parties: &Parties, binding: Binding, hello: &[u8]) -> Result<AwaitProof, Failure> {
    Ok(Accept { org: ORG, key: &parties.server, binding }.on_hello(hello, client::nonce()?)?)
}

fn verdict(parties: &Parties, pending: AwaitProof, proof: &[u8]) -> Result<String, Failure> {
    let proven = pending.on_proof(proof)?;
    let standing = match parties.members.contains(&proven.peer()) {
        true if proven.action().name() == "fetch" => Standing::Good(Holder::Admin),
        true => Standing::Good(Holder::Member),
        false => Standing::Unknown,
    };
    let admitted = proven.admit(standing).map_err(|refusal| refusal.code.to_string())?;
    Ok(admitted.verdict_ok(Reference([7; 8]), HELD.0, HELD.1))
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_millis(DIAL_DEADLINE_MS)
}

fn tls() -> Result<(ServerTls, Arc<ClientTls>), Failure> {
    let ca_key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])?
        .signed_by(&key, &Issuer::new(params, ca_key))?;
    let server = ServerTls::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes())?;
    Ok((server, Arc::new(ClientTls::new([ca.der().as_ref()])?)))
}
