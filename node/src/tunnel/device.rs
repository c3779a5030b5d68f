//! The TUN device and the UDP socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::Duration,
};

use identity::limits::TUNNEL_MTU;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, socket_with,
        sockopt::{self, Ipv4PathMtuDiscovery},
    },
};
use tokio::net::UdpSocket;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Bits of the org's network.
const PREFIX_BITS: u8 = 48;
/// Room for a burst of about two hundred packets from each of a few peers.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Usually the first or second try; a second in all.
const ADDRESS_TRIES: usize = 1_000;
const ADDRESS_RETRY: Duration = Duration::from_millis(1);

/// Makes the interface with our address. The address carries the org's prefix length, so the kernel
/// adds the route to the whole network by itself and removes it with the device.
pub(super) fn open_tun(interface: &str, address: Ipv6Addr) -> io::Result<AsyncDevice> {
    let tun =
        DeviceBuilder::new().name(interface).mtu(TUNNEL_MTU).ipv6(address, PREFIX_BITS).build_async()?;
    wait_for(address)?;
    Ok(tun)
}

/// Puts our address back if it is not there: the kernel takes it, and the route with it, when somebody takes
/// the interface down. Whether it did.
pub(super) fn restore_address(tun: &AsyncDevice, address: Ipv6Addr) -> io::Result<bool> {
    match std::net::UdpSocket::bind((address, 0)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
        bound => return bound.map(|_| false),
    }
    match tun.add_address_v6(address, PREFIX_BITS) {
        // It is there, and nothing can use it while the interface is down.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        added => added.map(|()| true),
    }
}

/// The kernel gives a new address out only after it has looked for duplicates, in a work queue of its
/// own even where, as here, there is nowhere to look. Until then no listener can have it.
fn wait_for(address: Ipv6Addr) -> io::Result<()> {
    for _ in 0..ADDRESS_TRIES {
        match std::net::UdpSocket::bind((address, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => thread::sleep(ADDRESS_RETRY),
            bound => return bound.map(drop),
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// A UDP socket for both families, or for IPv4 where there is no IPv6. Never connected: a connected
/// socket would not hear a peer that moved.
pub(super) fn open_udp(port: u16) -> io::Result<UdpSocket> {
    let socket = match udp(AddressFamily::INET6, port) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => udp(AddressFamily::INET, port)?,
        other => other?,
    };
    UdpSocket::from_std(socket)
}

fn udp(family: AddressFamily, port: u16) -> Result<std::net::UdpSocket, Errno> {
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // The kernel caps both at its own limits and says nothing.
    sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    // As WireGuard in the kernel: a router with a narrower link cuts packets up instead of dropping them
    // with a message that may never arrive.
    sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
        bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    } else {
        bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    }
    Ok(socket.into())
}

/// The form in which a socket of both families wants an IPv4 address.
pub(super) fn mapped(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(to) => SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0).into(),
        SocketAddr::V6(_) => to,
    }
}
