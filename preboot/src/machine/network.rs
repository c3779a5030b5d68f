//! The way to the gateway: every Ethernet interface comes up, and one of them has to get an address. The
//! kernel takes IPv6 addresses and routes from router advertisements by itself.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use identity::Code;
use muster_preboot::dhcp::Lease;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinSet;

use super::{lease, modules::Drivers};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// Waits a moment for a card, where none is there yet.
pub(crate) fn await_card(drivers: &mut Drivers, console: &Console) {
    let since = Instant::now();
    drivers.load(console);
    while ethernet().is_empty() {
        if since.elapsed() > CARDS_COME_WITHIN {
            // For a device that does not say what it is; without one the failure is named where it counts.
            return drivers.load_all(console);
        }
        thread::sleep(Duration::from_millis(50));
        drivers.load(console);
    }
}

/// Brings the network up; the name of the interface with an address by DHCP.
pub(crate) async fn up(console: &mut Console) -> Outcome<Option<String>> {
    let failed = |why: &dyn core::fmt::Display| Failure::new(Code::NoNetwork, why);
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let mut asking = JoinSet::new();
    for interface in interfaces() {
        let link = LinkUnspec::new_with_index(interface.index).up().build();
        netlink.link().set(link).execute().await.map_err(|e| failed(&e))?;
        if !interface.is_loopback {
            asking.spawn(async move {
                let lease = lease::ask(&interface.name, interface.hardware).await?;
                Ok::<_, Failure>((interface, lease))
            });
        }
    }
    let mut last = Failure::new(Code::NoNetwork, "no Ethernet interface");
    while let Some(asked) = asking.join_next().await {
        match asked.map_err(|e| failed(&e))? {
            Ok((interface, lease)) => {
                configure(&netlink, &interface, &lease).await.map_err(|e| failed(&e))?;
                write_name_servers(&lease.name_servers)?;
                hand_over(&interface.name, &lease)?;
                let (name, address) = (&interface.name, lease.address);
                console.checkpoint(format_args!("network: {name} has {address}/{}", lease.prefix));
                connection.abort();
                return Ok(Some(interface.name));
            }
            Err(failure) => {
                console.note(&failure);
                last = failure;
            }
        }
    }
    connection.abort();
    advertised(console).ok_or(last).map(|()| None)
}

/// Puts one interface in the place of another, which is shut.
pub(crate) async fn change(from: Option<&str>, to: &str, console: &mut Console) -> Outcome<()> {
    let failed = |why: &dyn core::fmt::Display| Failure::new(Code::NoNetwork, why);
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let changed = async {
        for interface in ethernet() {
            let link = LinkUnspec::new_with_index(interface.index);
            if interface.name == to {
                netlink.link().set(link.up().build()).execute().await.map_err(|e| failed(&e))?;
                let lease = lease::ask(&interface.name, interface.hardware).await?;
                configure(&netlink, &interface, &lease).await.map_err(|e| failed(&e))?;
                write_name_servers(&lease.name_servers)?;
                console.checkpoint(format_args!("network: {to} has {}/{}", lease.address, lease.prefix));
            } else if Some(interface.name.as_str()) == from {
                netlink.link().set(link.down().build()).execute().await.map_err(|e| failed(&e))?;
            }
        }
        Ok(())
    };
    let changed: Outcome<()> = changed.await;
    connection.abort();
    changed.or_else(|failure| advertised(console).ok_or(failure))
}

/// The interface after this one, in a circle; none where there is no other.
pub(crate) fn other(than: Option<&str>) -> Option<String> {
    next(&ethernet().into_iter().map(|interface| interface.name).collect::<Vec<_>>(), than)
}

fn next(names: &[String], current: Option<&str>) -> Option<String> {
    let at = names.iter().position(|name| Some(name.as_str()) == current);
    let after = at.map_or(0, |at| at + 1);
    let name = names.iter().cycle().nth(after)?;
    (Some(name.as_str()) != current).then(|| name.clone())
}

fn ethernet() -> Vec<Interface> {
    let mut found = interfaces();
    found.retain(|interface| !interface.is_loopback);
    found
}

fn advertised(console: &mut Console) -> Option<()> {
    let address = global_address6()?;
    console.checkpoint(format_args!("network: {address} by router advertisement"));
    Some(())
}

struct Interface {
    name: String,
    index: u32,
    hardware: [u8; 6],
    is_loopback: bool,
}

fn interfaces() -> Vec<Interface> {
    let listing = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut found: Vec<_> = listing.filter_map(|entry| interface(&entry.path())).collect();
    found.sort_by_key(|interface| interface.index);
    found
}

fn interface(path: &Path) -> Option<Interface> {
    let read = |name: &str| fs::read_to_string(path.join(name)).ok();
    let kind = read("type")?;
    let is_loopback = kind.trim() == LOOPBACK;
    if !is_loopback && kind.trim() != ETHERNET {
        return None;
    }
    let text = read("address")?;
    let mut hardware = [0; 6];
    for (byte, digits) in hardware.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(Interface {
        name: path.file_name()?.to_str()?.to_owned(),
        index: read("ifindex")?.trim().parse().ok()?,
        hardware,
        is_loopback,
    })
}

async fn configure(netlink: &Handle, interface: &Interface, lease: &Lease) -> Result<(), rtnetlink::Error> {
    // Again, where it was shut in between.
    let address = netlink.address().add(interface.index, lease.address.into(), lease.prefix);
    address.replace().execute().await?;
    if let Some(router) = lease.routers.first() {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(*router).build();
        netlink.route().add(route).replace().execute().await?;
    }
    Ok(())
}

fn write_name_servers(servers: &[Ipv4Addr]) -> Outcome<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let path = Path::new("/etc/resolv.conf");
    fs::create_dir_all("/etc").and_then(|()| fs::write(path, text)).map_err(|e| Failure::file(path, &e))
}

/// For the node OS, which asks for the same address again and renews its lease.
fn hand_over(interface: &str, lease: &Lease) -> Outcome<()> {
    let path = Path::new("/run/network/lease");
    let text = format!("{interface} {} {}\n", lease.address, lease.prefix);
    fs::create_dir_all("/run/network")
        .and_then(|()| fs::write(path, text))
        .map_err(|e| Failure::file(path, &e))
}

/// An address that reaches beyond the link; the fourth column is its scope, 00 for global.
fn global_address6() -> Option<String> {
    let listing = fs::read_to_string("/proc/net/if_inet6").ok()?;
    listing.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let address = columns.next()?;
        (columns.nth(2)? == "00").then(|| address.to_owned())
    })
}

const CARDS_COME_WITHIN: Duration = Duration::from_secs(1);
const ETHERNET: &str = "1";
const LOOPBACK: &str = "772";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_tried_in_a_circle_and_none_is_its_own_other() {
        let names = ["eth0", "eth1", "eth2"].map(str::to_owned);
        assert_eq!(next(&names, Some("eth0")).as_deref(), Some("eth1"));
        assert_eq!(next(&names, Some("eth2")).as_deref(), Some("eth0"));
        assert_eq!(next(&names, None).as_deref(), Some("eth0"));
        assert_eq!(next(&names[..1], Some("eth0")), None);
        assert_eq!((next(&[], None), next(&[], Some("eth0"))), (None, None));
    }
}
