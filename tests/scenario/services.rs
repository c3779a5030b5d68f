//! Programs that know nothing of muster are reached by the members that a policy lets use them, and by nobody
//! else; what they send ends with the permission.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lab::{Daemon, Ended, Ready, org::Org};

use crate::harness::{self, code};

const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);
const PATIENCE: Duration = Duration::from_secs(20);

/// An org in which `n3` may use any service of `n2`, and nobody else may use anything.
pub(super) fn org(sandbox: &lab::Sandbox, machines: usize) -> Org {
    let org = harness::org(sandbox, machines, machines);
    for (node, role) in [("n2", "server"), ("n3", "client")] {
        org.muster(0, &["member", "role", node, "add", role]).unwrap().ok().unwrap();
    }
    apply(&org, "from = ['role:client']\nto = ['role:server']\naction = 'any'\n");
    org
}

/// The org's policy is this one rule, and the first three machines know.
fn apply(org: &Org, rule: &str) {
    let file = org.host(0).unwrap().dir().join("policy.toml");
    std::fs::write(&file, format!("[[rule]]\n{rule}")).unwrap();
    org.muster(0, &["policy", "apply", file.to_str().unwrap(), "--yes"]).unwrap().ok().unwrap();
}

/// A program on a machine: what it does with each connection.
fn program(org: &Org, node: usize, at: SocketAddr, serve: fn(TcpStream)) {
    let listener = org.host(node).unwrap().namespace().run(|| TcpListener::bind(at)).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
}

/// Hears everything, and says it backwards: only somebody who can end one way and not the other gets it.
fn backwards(mut stream: TcpStream) {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard.reverse();
    stream.write_all(&heard).unwrap();
}

/// Talks until nobody listens.
fn endless(mut stream: TcpStream) {
    let some = [b'x'; 16 * 1024];
    while stream.write_all(&some).is_ok() {}
}

pub(super) fn expose(org: &Org, node: usize, arguments: &[&str]) -> Ended {
    org.muster(node, &[&["expose"], arguments].concat()).unwrap()
}

/// `muster connect` with a port of its own on `node`.
pub(super) fn connect(org: &Org, node: usize, action: &str, port: u16) -> Daemon {
    let listen = format!("127.0.0.1:{port}");
    let connect = org.program(node, "muster").unwrap().args(["connect", "n2", action, "--listen", &listen]);
    connect.spawn(&Ready::Line("listening on".to_owned()), PATIENCE).unwrap()
}

fn dial(org: &Org, node: usize, port: u16) -> TcpStream {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = org.host(node).unwrap().namespace().run(|| TcpStream::connect(at)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads what there is until it ends, however it does.
fn until_the_end(mut stream: TcpStream) -> u64 {
    let (mut all, mut some) = (0, vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return all,
            Ok(read) => all += read as u64,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("after {all} bytes: {error}"),
        }
    }
}

#[test]
fn a_program_is_reached_through_stdin_and_stdout_with_each_way_ending_by_itself()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 4);
        program(&org, 1, AT, backwards);
        expose(&org, 1, &["backwards", "--to", "127.0.0.1:7000"]).ok().unwrap();
        let connect = || org.program(2, "muster").unwrap().args(["connect", "n2", "backwards"]);
        let said = connect().input("hello").run(PATIENCE).unwrap().ok().unwrap();
        assert_eq!(said.stdout, "olleh");
        let long: String = (0..3_000_000_u32).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let said = connect().input(long.as_bytes()).run(PATIENCE).unwrap().ok().unwrap();
        assert!(said.stdout.chars().rev().eq(long.chars()), "{} bytes came back", said.stdout.len());
        let none = org.muster(2, &["connect", "n2", "nothing"]).unwrap();
        assert_eq!((none.status.code(), code(&none).as_str()), (Some(77), "MU-1408"));
        // Who may use nothing does not learn what there is.
        for action in ["backwards", "nothing"] {
            let refused = org.muster(3, &["connect", "n2", action]).unwrap();
            assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-9001"), "{action}");
        }
    })
}

#[test]
fn a_stream_is_cut_in_mid_transfer_by_a_revoke() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 3);
        program(&org, 1, AT, endless);
        expose(&org, 1, &["endless", "--to", "127.0.0.1:7000"]).ok().unwrap();
        let mut listening = connect(&org, 2, "endless", 7001);
        let mut stream = dial(&org, 2, 7001);
        let mut some = vec![0; 4 << 20];
        stream.read_exact(&mut some).unwrap();
        let reading = thread::spawn(move || (until_the_end(stream), Instant::now()));
        org.muster(0, &["revoke", "n3", "--wait", "1", "--yes"]).unwrap().ok().unwrap();
        let revoked = Instant::now();
        let (more, ended) = reading.join().unwrap();
        println!(
            "{more} bytes more, over {:?} after `muster revoke` was",
            ended.saturating_duration_since(revoked)
        );
        listening.wait_for_line("MU-1403", PATIENCE).unwrap();
    })
}

#[test]
fn a_stream_is_cut_in_mid_transfer_by_a_change_of_policy() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 3);
        program(&org, 1, AT, endless);
        expose(&org, 1, &["endless", "--to", "127.0.0.1:7000"]).ok().unwrap();
        let mut listening = connect(&org, 2, "endless", 7001);
        let mut stream = dial(&org, 2, 7001);
        stream.read_exact(&mut vec![0; 4 << 20]).unwrap();
        let reading = thread::spawn(move || until_the_end(stream));
        apply(&org, "from = ['role:other']\nto = 'any'\naction = 'any'\n");
        reading.join().unwrap();
        listening.wait_for_line("MU-9001", PATIENCE).unwrap();
        // A member as before, and nothing of it but the service is gone.
        assert!(harness::member(&org, 1, "n3", "good").is_some());
        let sessions = org.ask(1, &["session", "list"]).unwrap();
        let sessions = sessions["sessions"].as_array().unwrap();
        assert!(sessions.iter().all(|session| session["action"] != "endless"), "{sessions:?}");
        assert!(sessions.iter().any(|session| session["action"] == "sync"), "{sessions:?}");
    })
}

/// Says who it was told is there, by the header in front of the stream.
fn greets(mut stream: TcpStream) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    let mut header = head.to_vec();
    header.resize(16 + usize::from(u16::from_be_bytes([head[14], head[15]])), 0);
    stream.read_exact(&mut header[16..]).unwrap();
    let header = muster_peer::Header::decode(&header).unwrap();
    let peer = header.peer.unwrap();
    let said = format!("{} {} {} {}", peer.name, peer.roles.join("+"), peer.action, header.source.ip());
    stream.write_all(said.as_bytes()).unwrap();
}

#[test]
fn a_program_learns_who_its_peer_is_by_a_header_or_by_asking() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 3);
        program(&org, 1, AT, greets);
        expose(&org, 1, &["greet", "--to", "127.0.0.1:7000", "--proxy-protocol"]).ok().unwrap();
        let members = harness::members_on(&org, 0).unwrap();
        let shown = members.iter().find(|member| member["name"] == "n3").unwrap();
        let (address, key) = (shown["address"].as_str().unwrap(), shown["key"].as_str().unwrap());
        let said = org.program(2, "muster").unwrap().args(["connect", "n2", "greet"]).run(PATIENCE).unwrap();
        assert_eq!(said.ok().unwrap().stdout, format!("n3 client greet {address}"));

        let asked = org.ask(1, &["whois", address]).unwrap();
        assert_eq!(
            (&asked["name"], &asked["key"], &asked["action"]),
            (&"n3".into(), &key.into(), &().into())
        );
        // A program that is told nothing asks for its peer's port.
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 7002));
        let namespace = org.host(1).unwrap().namespace();
        let listener = namespace.run(|| TcpListener::bind(at)).unwrap().unwrap();
        expose(&org, 1, &["quiet", "--to", "127.0.0.1:7002"]).ok().unwrap();
        let _listening = connect(&org, 2, "quiet", 7003);
        let held = dial(&org, 2, 7003);
        let (seen, from) = listener.accept().unwrap();
        let asked = org.ask(1, &["whois", &from.to_string()]).unwrap();
        assert_eq!((&asked["name"], &asked["action"]), (&"n3".into(), &"quiet".into()));
        assert_eq!(asked["roles"], serde_json::json!(["client"]));
        drop((held, seen));
        let nobody = org.muster(1, &["whois", "127.0.0.1:1"]).unwrap();
        assert_eq!((nobody.status.code(), code(&nobody).as_str()), (Some(1), "MU-9006"));
    })
}

#[test]
fn what_a_machine_offers_is_there_after_a_restart_and_ends_when_it_is_withdrawn()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = org(sandbox, 3);
        let dir = org.host(1).unwrap().dir().join("etc/muster.toml.d");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("web.toml"), "[expose.web]\nto = '127.0.0.1:80'\n").unwrap();
        program(&org, 1, AT, endless);
        expose(&org, 1, &["endless", "--to", "127.0.0.1:7000"]).ok().unwrap();
        org.stop_musterd(1).unwrap();
        org.start_musterd(1).unwrap();
        let listed = org.ask(1, &["expose", "list"]).unwrap();
        let listed: Vec<_> = listed["services"].as_array().unwrap().iter().collect();
        assert_eq!((&listed[0]["action"], &listed[0]["declared"]), (&"endless".into(), &false.into()));
        assert_eq!((&listed[1]["action"], &listed[1]["declared"]), (&"web".into(), &true.into()));
        for (arguments, expected) in [
            (&["web", "--to", "127.0.0.1:81"][..], "MU-9003"),
            (&["remove", "web"], "MU-9003"),
            (&["remove", "nothing"], "MU-9004"),
            (&["sync", "--to", "127.0.0.1:81"], "MU-9005"),
        ] {
            assert_eq!(code(&expose(&org, 1, arguments)), expected, "{arguments:?}");
        }
        // Nobody listens behind it.
        let down = org.muster(2, &["connect", "n2", "web"]).unwrap();
        assert_eq!((down.status.code(), code(&down).as_str()), (Some(75), "MU-9002"));

        let mut listening = connect(&org, 2, "endless", 7001);
        let mut stream = dial(&org, 2, 7001);
        stream.read_exact(&mut [0; 1024]).unwrap();
        expose(&org, 1, &["remove", "endless"]).ok().unwrap();
        until_the_end(stream);
        listening.wait_for_line("MU-1408", PATIENCE).unwrap();
    })
}
