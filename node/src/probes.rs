//! The datagrams that members probe one another with, between their socket and the state. On the port
//! of conn_auth, as UDP; the tunnels let through what comes from members that are probed.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use identity::limits::SWIM_DATAGRAM_BYTES_MAX;
use tokio::{net::UdpSocket, sync::mpsc};

use crate::link::Ground;

/// A datagram and the overlay address that it came from.
pub type Heard = (Ipv6Addr, Vec<u8>);

/// The socket, on the overlay address and for what comes out of the tunnels.
///
/// # Errors
/// The address or port cannot be had.
pub fn open(ground: &Ground) -> io::Result<Arc<UdpSocket>> {
    let address = SocketAddr::V6(SocketAddrV6::new(ground.address, ground.auth_port, 0, 0));
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.bind_device(Some(ground.interface.as_bytes()))?;
    Ok(Arc::new(socket))
}

/// Hands on what comes until the state is gone. What the state has no time for is lost, as UDP may.
pub async fn receive(socket: Arc<UdpSocket>, heard: mpsc::Sender<Heard>) {
    // One more than is allowed, so that a longer one shows as one.
    let mut buffer = [0; SWIM_DATAGRAM_BYTES_MAX + 1];
    loop {
        let received = tokio::select! {
            () = heard.closed() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error complains about something that was sent, and is gone once it was read.
        let Ok((length, SocketAddr::V6(source))) = received else { continue };
        let Some(bytes) = buffer.get(..length) else { continue };
        if heard.try_send((*source.ip(), bytes.to_vec())).is_err() {
            tracing::trace!("no time for a datagram");
        }
    }
}

/// Sends one. What does not go out now is lost.
pub fn send(socket: &UdpSocket, ground: &Ground, to: Ipv6Addr, bytes: &[u8]) {
    let to = SocketAddr::V6(SocketAddrV6::new(to, ground.auth_port, 0, 0));
    if let Err(error) = socket.try_send_to(bytes, to) {
        tracing::trace!(%error, %to, "datagram not sent");
    }
}
