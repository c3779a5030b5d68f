//! Noise XX by `snow`: mutual, with session keys, no membership.

use std::sync::Arc;

use snow::{Builder, HandshakeState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::slice::{Protocol, greet, greeted};
use crate::Failure;

const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

pub(crate) fn protocol() -> Result<Protocol, Failure> {
    let (a, b) = (
        Builder::new(PATTERN.parse()?).generate_keypair()?,
        Builder::new(PATTERN.parse()?).generate_keypair()?,
    );
    let (server, client) = (Arc::new(a.private), Arc::new(b.private));
    Ok(Protocol::new(
        "noise xx",
        move |stream| {
            let key = Arc::clone(&server);
            async move { serve(stream, &key).await }
        },
        move |stream| {
            let key = Arc::clone(&client);
            async move { dial(stream, &key).await }
        },
    ))
}

async fn dial(mut stream: TcpStream, key: &[u8]) -> Result<(), Failure> {
    let mut state = Builder::new(PATTERN.parse()?).local_private_key(key)?.build_initiator()?;
    send(&mut stream, &mut state).await?;
    receive(&mut stream, &mut state).await?;
    send(&mut stream, &mut state).await?;
    std::hint::black_box(state.into_transport_mode()?);
    greeted(stream).await
}

async fn serve(mut stream: TcpStream, key: &[u8]) -> Result<(), Failure> {
    let mut state = Builder::new(PATTERN.parse()?).local_private_key(key)?.build_responder()?;
    receive(&mut stream, &mut state).await?;
    send(&mut stream, &mut state).await?;
    receive(&mut stream, &mut state).await?;
    std::hint::black_box(state.into_transport_mode()?);
    greet(stream).await
}

async fn send(stream: &mut TcpStream, state: &mut HandshakeState) -> Result<(), Failure> {
    let mut buffer = [0; 256];
    let length = state.write_message(&[], &mut buffer)?;
    let mut framed = vec![u8::try_from(length)?];
    framed.extend(buffer.iter().take(length));
    Ok(stream.write_all(&framed).await?)
}

async fn receive(stream: &mut TcpStream, state: &mut HandshakeState) -> Result<(), Failure> {
    let length = usize::from(stream.read_u8().await?);
    let (mut message, mut payload) = (vec![0; length], [0; 256]);
    stream.read_exact(&mut message).await?;
    state.read_message(&message, &mut payload)?;
    Ok(())
}
