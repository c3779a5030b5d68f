//! One interface asks for an address.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use identity::Code;
use muster_preboot::dhcp::{Answer, Exchange, Lease};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use crate::failure::{Failure, Outcome};

/// Asks until somebody gives an address, some tries long.
pub(crate) async fn ask(interface: &str, hardware: [u8; 6]) -> Outcome<Lease> {
    let failed = |why: io::Error| Failure::new(Code::NoNetwork, format_args!("{interface}: {why}"));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT)).await.map_err(failed)?;
    socket.set_broadcast(true).map_err(failed)?;
    // Without an address there is no route either; this says where to.
    socket.bind_device(Some(interface.as_bytes())).map_err(failed)?;
    let mut wait = FIRST_WAIT;
    for _ in 0..TRIES {
        let exchange = Exchange { id: rand::random(), hardware };
        if let Some(lease) = exchanged(&socket, exchange, wait).await.map_err(failed)? {
            return Ok(lease);
        }
        wait *= 2;
    }
    Err(Failure::new(Code::NoNetwork, format_args!("{interface}: no DHCP server answers")))
}

async fn exchanged(socket: &UdpSocket, exchange: Exchange, wait: Duration) -> io::Result<Option<Lease>> {
    let until = Instant::now() + wait;
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER);
    // While the cable's other side wakes up there is no way out; the next try may find one.
    if let Err(error) = socket.send_to(&exchange.discover(), everybody).await {
        tracing::debug!(%error, "not sent");
        tokio::time::sleep_until(until).await;
        return Ok(None);
    }
    let mut packet = [0; 1500];
    loop {
        let Ok(received) = timeout_at(until, socket.recv_from(&mut packet)).await else { return Ok(None) };
        let (length, _) = received?;
        match exchange.read(packet.get(..length).unwrap_or_default()) {
            Some(Answer::Offer(offer)) => {
                socket.send_to(&exchange.request(&offer), everybody).await?;
            }
            Some(Answer::Acknowledged(lease)) => return Ok(Some(lease)),
            Some(Answer::Refused) => return Ok(None),
            None => {}
        }
    }
}

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// 1, 2, 4 and 8 seconds: a switch that learns spanning trees takes some of them.
const TRIES: u32 = 4;
