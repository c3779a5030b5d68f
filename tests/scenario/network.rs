//! What the network is given, and what it can hold up.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use lab::org::{GATEWAY_PORT, Org};

use crate::harness;

const INTERFACE: &str = "muster0";
const UDP: u16 = 9000;
const AUTH: u16 = 4714;
/// The whole handshake must be over in this.
const CUT_WITHIN: Duration = Duration::from_secs(5);

fn address(org: &Org, node: usize) -> Ipv6Addr {
    let list = harness::members_on(org, node).unwrap();
    let own = list.iter().find(|m| m["this_machine"] == true).unwrap();
    own["address"].as_str().unwrap().parse().unwrap()
}

fn has_link(org: &Org, node: usize, with: &str) -> bool {
    let list = org.ask(node, &["session", "list"]).unwrap();
    list["sessions"].as_array().unwrap().iter().any(|s| s["action"] == "link" && s["name"] == with)
}

#[test]
fn what_is_sent_before_a_link_waits_for_it_and_arrives() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org_with(sandbox, 3, 3, &[("MUSTER_NETWORK_ALLOW", "udp/9000")]);
        let bound = |node: usize| {
            let address = SocketAddr::from((address(&org, node), UDP));
            let socket =
                org.host(node).unwrap().namespace().run(|| UdpSocket::bind(address)).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let (from, to) = (bound(1), bound(2));
        assert!(!has_link(&org, 1, "n3") && !has_link(&org, 2, "n2"));
        // Once, and nobody sends it again.
        from.send_to(b"once", to.local_addr().unwrap()).unwrap();
        let mut came = [0; 8];
        assert_eq!(to.recv(&mut came).unwrap(), 4);
        assert_eq!(came, *b"once\0\0\0\0");
        assert!(has_link(&org, 1, "n3") && has_link(&org, 2, "n2"), "it came up by itself");
    })
}

#[test]
fn an_interface_that_was_down_has_its_address_again() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        let reaches = || org.muster(1, &["ping", "n1", "--count", "1"]).unwrap().status.success();
        assert!(reaches());
        let own = address(&org, 1).to_string();
        let ip = |arguments: &[&str]| {
            let ip = org.host(1).unwrap().program("ip").args(arguments);
            ip.run(Duration::from_secs(5)).unwrap().ok().unwrap().stdout
        };
        let has_address = || ip(&["-6", "address", "show", "dev", INTERFACE]).contains(&own);
        assert!(has_address());
        ip(&["link", "set", INTERFACE, "down"]);
        assert!(!has_address(), "the kernel took it");
        ip(&["link", "set", INTERFACE, "up"]);
        harness::within(Duration::from_secs(5), "the address is back", || has_address().then_some(()));
        harness::within(Duration::from_secs(10), "members are reached again", || reaches().then_some(()));
    })
}

#[test]
fn one_byte_a_second_is_cut_within_five_seconds() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        let gateway = SocketAddr::from((org.host(0).unwrap().address(), GATEWAY_PORT));
        let overlay = SocketAddr::from((address(&org, 0), AUTH));
        let namespace = org.host(1).unwrap().namespace();
        // The start of a TLS hello of 512 bytes, and of an upgrade.
        let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        let upgrade: &[u8] = b"GET /auth HTTP/1.1\r\n";
        let idle = (connections(&org, GATEWAY_PORT), connections(&org, AUTH));
        let open = |to, bytes| (0..8).map(move |_| (TcpStream::connect(to).unwrap(), bytes));
        let mut slow =
            namespace.run(|| open(gateway, tls).chain(open(overlay, upgrade)).collect::<Vec<_>>()).unwrap();
        let start = Instant::now();
        harness::within(Duration::from_secs(2), "all are accepted", || {
            let now = (connections(&org, GATEWAY_PORT), connections(&org, AUTH));
            (now == (idle.0 + 8, idle.1 + 8)).then_some(())
        });
        let mut sent = 0;
        while !slow.is_empty() {
            slow.retain_mut(|(stream, bytes)| {
                // A connection that is over fails here or shows its end below.
                let written = bytes.get(sent).is_none_or(|byte| stream.write_all(&[*byte]).is_ok());
                written && is_open(stream)
            });
            sent += 1;
            assert!(
                start.elapsed() < CUT_WITHIN + Duration::from_millis(1500),
                "{} are still open",
                slow.len()
            );
            // Members are served meanwhile.
            assert!(org.muster(1, &["ping", "n1", "--count", "1"]).unwrap().status.success());
            std::thread::sleep(Duration::from_secs(u64::from(!slow.is_empty())));
        }
        assert!(sent >= 2, "they were not cut because they were many");
        harness::within(Duration::from_secs(2), "nothing of them is left", || {
            let now = (connections(&org, GATEWAY_PORT), connections(&org, AUTH));
            (now.0 <= idle.0 && now.1 <= idle.1).then_some(())
        });
    })
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0; 512]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Established connections that the first machine has accepted on a port, by its kernel's word.
fn connections(org: &Org, port: u16) -> usize {
    let read =
        || ["tcp", "tcp6"].map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")));
    let tables = org.host(0).unwrap().namespace().run(read).unwrap();
    let local = format!(":{port:04X}");
    let rows = tables.iter().flatten().flat_map(|table| table.lines());
    rows.filter(|row| {
        let mut fields = row.split_whitespace().skip(1);
        fields.next().is_some_and(|f| f.ends_with(&local)) && fields.nth(1) == Some("01")
    })
    .count()
}
