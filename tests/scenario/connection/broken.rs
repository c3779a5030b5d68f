//! Servers that are broken in one way each, and what `muster debug connection` calls it. All are this
//! test's own, on the loopback of a sandbox.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use lab::Program;
use org_trust::{CaState, Record, Records};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
};
use transport::{ClientTls, ServerTls, Status};

use super::{
    pki::{AHEAD, Authority, GOOD, PAST, pem},
    servers::{Behind, Does, HOST, Keys, serve, server},
};
use crate::harness;

/// One broken thing.
struct Fixture {
    name: &'static str,
    address: String,
    /// The state directory with what is known of the org.
    state: PathBuf,
    bundle: Option<PathBuf>,
    stage: &'static str,
    code: &'static str,
}

#[test]
fn every_broken_thing_has_a_code_of_its_own() -> Result<(), lab::SandboxError> {
    lab::test(|_| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(&runtime, dir.path());
        bench.network();
        bench.tls();
        bench.certificates();
        bench.behind();
        bench.bundles();
        let mut seen = BTreeMap::new();
        let mut table = String::new();
        for fixture in core::mem::take(&mut bench.fixtures) {
            table.push_str(&bench.holds(&fixture));
            let twin = seen.insert(fixture.code, fixture.name);
            assert!(twin.is_none(), "{} and {twin:?} have the same code", fixture.name);
        }
        println!("{table}{} broken things, as many codes", seen.len());
        assert!(seen.len() >= 20);
        bench.holds_dns();
        bench.holds_inside();
        // It is the fixtures that are broken, and not the bench.
        let well = bench.serve(Does::Tls(bench.served.clone(), Behind::Well));
        let (exit, found) = bench.look(&well, &bench.state.clone(), None);
        assert_eq!((exit, &found["ok"]), (Some(0), &Value::Bool(true)), "{found}");
    })
}

struct Bench<'a> {
    runtime: &'a Runtime,
    dir: &'a Path,
    muster: PathBuf,
    root: Authority,
    served: ServerTls,
    state: PathBuf,
    fixtures: Vec<Fixture>,
}

impl<'a> Bench<'a> {
    fn new(runtime: &'a Runtime, dir: &'a Path) -> Self {
        let root = Authority::root("root");
        let leaf = root.leaf(HOST, GOOD);
        let served = server(&[&leaf], &leaf);
        let state = state(dir, "state", &root, &[]);
        let muster = harness::programs(&[]).dir.join("muster");
        Self { runtime, dir, muster, root, served, state, fixtures: Vec::new() }
    }

    fn add(&mut self, name: &'static str, address: String, stage: &'static str, code: &'static str) {
        let state = self.state.clone();
        self.fixtures.push(Fixture { name, address, state, bundle: None, stage, code });
    }

    fn network(&mut self) {
        let closed = self
            .runtime
            .block_on(async { TcpListener::bind((HOST, 0)).await.unwrap().local_addr().unwrap() });
        self.add("nobody listens", closed.to_string(), "tcp", "MU-5002");
        // Its queue is full, so that whoever comes is not answered.
        let full = self.runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let first = TcpStream::connect(address).await.unwrap();
            // Held until the end of the test, which is that of the process.
            core::mem::forget((listener, first));
            address
        });
        self.add("no answer to TCP", full.to_string(), "tcp", "MU-5003");
        self.add("no route", "192.0.2.1:443".to_owned(), "tcp", "MU-7011");
    }

    fn tls(&mut self) {
        let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
        for (name, does, code) in [
            ("plain HTTP", Does::Says(http), "MU-7012"),
            ("SSH", Does::Says(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "MU-5004"),
            // The alert protocol_version, as OpenSSL sends it where 1.3 is off.
            ("TLS 1.2 only", Does::Says(vec![21, 3, 3, 0, 2, 2, 70]), "MU-7013"),
            // The alert internal_error.
            ("TLS that fails", Does::Says(vec![21, 3, 3, 0, 2, 2, 80]), "MU-5012"),
            ("closes at once", Does::Says(Vec::new()), "MU-1014"),
            ("says nothing", Does::Nothing, "MU-1009"),
        ] {
            let address = self.serve(does);
            self.add(name, address, "tls", code);
        }
    }

    fn certificates(&mut self) {
        let inter = Authority::ca("inter", GOOD, Some(&self.root));
        let past = Authority::ca("past inter", PAST, Some(&self.root));
        let (other, alone) = (Authority::root("other"), Authority::self_signed(HOST));
        let of_inter = inter.leaf(HOST, GOOD);
        let (name, old) = (self.root.leaf("192.0.2.9", GOOD), self.root.leaf(HOST, PAST));
        let (early, of_past) = (self.root.leaf(HOST, AHEAD), past.leaf(HOST, GOOD));
        let (of_other, public) = (other.leaf(HOST, GOOD), other.public_leaf(HOST));
        for (what, chain, stage, code) in [
            ("a link is missing", vec![&of_inter], "chain", "MU-7020"),
            ("another CA", vec![&of_other, &other], "chain", "MU-7021"),
            ("signed by itself", vec![&alone], "chain", "MU-7022"),
            ("a public CA", vec![&public, &other], "chain", "MU-7023"),
            ("another name", vec![&name], "name", "MU-5006"),
            ("expired", vec![&old], "time", "MU-5007"),
            ("not valid yet", vec![&early], "time", "MU-5008"),
            ("an expired link", vec![&of_past, &past], "time", "MU-7024"),
        ] {
            let address = self.serve(Does::Tls(server(&chain, chain[0]), Behind::Well));
            self.add(what, address, stage, code);
        }
        let address = self.serve(Does::Tls(server(&[&of_other], &of_other), Behind::Well));
        let state = state(self.dir, "retired", &self.root, &[(CaState::Retired, &other)]);
        let (name, stage, code) = ("a retired CA", "anchor", "MU-7025");
        self.fixtures.push(Fixture { name, address, state, bundle: None, stage, code });
    }

    fn behind(&mut self) {
        let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: muster.auth.v1\r\n\
             Muster-Challenge: x\r\n\r\n";
        for (name, behind, stage, code) in [
            ("musterd is away", Behind::Settings(Status::Unavailable), "settings", "MU-5014"),
            ("settings unknown", Behind::Settings(Status::NotFound), "settings", "MU-5013"),
            ("no settings", Behind::JunkSettings, "settings", "MU-5011"),
            (
                "no WebSocket",
                Behind::Answer(
                    "HTTP/1.1 426 Upgrade Required\r\nServer: edge/1\r\nContent-Length: 0\r\n\r\n",
                ),
                "websocket",
                "MU-7041",
            ),
            ("a cached WebSocket", Behind::Answer(switched), "websocket", "MU-7042"),
            ("no HTTP", Behind::Answer("hello\r\n\r\n"), "websocket", "MU-1012"),
            ("another server's key", Behind::OtherKey, "conn_auth", "MU-5010"),
            ("refused at once", Behind::HelloRefused, "conn_auth", "MU-1013"),
            ("no challenge", Behind::Challenge("x"), "conn_auth", "MU-1002"),
            ("another version", Behind::Challenge("muster-auth/2 x"), "conn_auth", "MU-1011"),
            ("suspended", Behind::Suspended, "conn_auth", "MU-1404"),
            ("no verdict", Behind::Verdict("maybe"), "conn_auth", "MU-1004"),
        ] {
            let address = self.serve(Does::Tls(self.served.clone(), behind));
            self.add(name, address, stage, code);
        }
        let gateway = self.serve(Does::Tls(self.served.clone(), Behind::Well)).parse().unwrap();
        let client = ClientTls::new([self.root.certificate.der().as_ref()]).unwrap();
        let address = self.serve(Does::Edge(self.served.clone(), client, gateway));
        self.add("an edge that opens TLS", address, "exporter", "MU-7040");
    }

    fn bundles(&mut self) {
        let address = self.serve(Does::Tls(self.served.clone(), Behind::Well));
        let good = pem(&[&self.root.certificate]);
        let leaf = self.root.leaf(HOST, GOOD);
        let many: String = (0..17).map(|n| Authority::root(&n.to_string()).certificate.pem()).collect();
        let ahead = pem(&[&Authority::ca("ahead", AHEAD, None).certificate]);
        for (name, text, stage, code) in [
            ("a bundle that is none", "# nothing\n".to_owned(), "bundle", "MU-5009"),
            ("no bytes", String::new(), "bundle", "MU-7030"),
            ("a leaf in the bundle", pem(&[&leaf.certificate]), "bundle", "MU-7031"),
            ("a key in the bundle", format!("{good}{}", leaf.key.serialize_pem()), "bundle", "MU-7032"),
            ("17 certificates", many, "bundle", "MU-7033"),
            ("64 KiB and more", format!("{good}{}", "#\n".repeat(40_000)), "bundle", "MU-7034"),
            ("junk behind the certificate", format!("{good}junk\n"), "bundle", "MU-7035"),
            ("a certificate twice", format!("{good}{good}"), "bundle", "MU-7036"),
            ("a clock before every CA", ahead, "clock", "MU-7060"),
        ] {
            let file = self.dir.join(format!("{code}.pem"));
            fs::write(&file, text).unwrap();
            let (state, address) = (self.state.clone(), address.clone());
            self.fixtures.push(Fixture { name, address, state, bundle: Some(file), stage, code });
        }
    }

    fn holds(&self, fixture: &Fixture) -> String {
        let Fixture { name, address, state, bundle, stage, code } = fixture;
        let (exit, found) = self.look(address, state, bundle.as_deref());
        assert_eq!(exit, Some(1), "{name}: {found}");
        let checks = found["checks"].as_array().unwrap();
        let failed = checks.iter().find(|check| check["status"] == "fail" && check["code"] == *code);
        let failed = failed.unwrap_or_else(|| panic!("{name}: no {code}: {found}"));
        assert_eq!(failed["stage"], *stage, "{name}: {found}");
        for part in ["seen", "why", "remedy"] {
            assert!(failed[part].as_str().is_some_and(|text| !text.is_empty()), "{name}: no {part}");
        }
        format!("{name:27} {stage:9} {code}  {}\n", failed["seen"].as_str().unwrap())
    }

    /// Names, which take a resolver of the sandbox's own.
    fn holds_dns(&mut self) {
        let resolv = self.dir.join("resolv.conf");
        fs::write(&resolv, "nameserver 127.0.0.1\noptions attempts:1\n").unwrap();
        let mount = Command::new("mount").arg("--bind").arg(&resolv).arg("/etc/resolv.conf").status();
        assert!(mount.unwrap().success());
        let fixture = |name, code| Fixture {
            name,
            address: "gw.nowhere.example:443".to_owned(),
            state: self.state.clone(),
            bundle: None,
            stage: "resolve",
            code,
        };
        print!("{}", self.holds(&fixture("no name server", "MU-7010")));
        let server = UdpSocket::bind("127.0.0.1:53").unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut query) {
                let mut answer = query[..length].to_vec();
                // An answer, with recursion, that says that there is no such name; no further records.
                answer[2..4].copy_from_slice(&[0x81, 0x83]);
                answer[6..12].fill(0);
                // What follows the question is the sender's word on sizes.
                let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                server.send_to(&answer[..end], from).unwrap();
            }
        });
        print!("{}", self.holds(&fixture("no such name", "MU-5001")));
    }

    /// Who has the gateway's own TLS key, where machines dial `wss://`: nothing but the binding tells.
    fn holds_inside(&self) {
        let gateway = self.serve(Does::Tls(self.served.clone(), Behind::Well)).parse().unwrap();
        let shown = Authority::root("the CDN's").leaf(HOST, GOOD);
        let client = ClientTls::new([self.root.certificate.der().as_ref()]).unwrap();
        let edge = Does::EdgeInside(server(&[&shown], &shown), self.served.clone(), client, gateway);
        let address = format!("wss://{}", self.serve(edge));
        let (exit, found) = self.look(&address, &self.state, None);
        assert_eq!((exit, &found["client_code"]), (Some(1), &Value::from("MU-1005")), "{found}");
        let checks = found["checks"].as_array().unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "fail").collect();
        assert_eq!(failed.len(), 1, "{found}");
        assert_eq!(
            (&failed[0]["stage"], &failed[0]["code"]),
            (&"exporter".into(), &"MU-7040".into()),
            "{found}"
        );
        let is_well =
            |stage: &str| checks.iter().any(|check| check["stage"] == stage && check["status"] == "ok");
        let before = ["edge", "tls", "chain", "name", "time", "anchor", "settings", "websocket"];
        assert!(before.iter().all(|stage| is_well(stage)), "{found}");
    }

    fn look(&self, address: &str, state: &Path, bundle: Option<&Path>) -> (Option<i32>, Value) {
        let nowhere = self.dir.join("nowhere");
        let mut program = Program::new(&self.muster)
            .env("MUSTER_CONFIG_DIR", &nowhere)
            .env("MUSTER_CONTROL_SOCKET", &nowhere)
            .env("XDG_CONFIG_HOME", &nowhere)
            .env("MUSTER_STATE_DIR", state)
            .args(["--json", "debug", "connection", address, "--as-preboot"]);
        if let Some(bundle) = bundle {
            program = program.arg("--org-ca").arg(bundle);
        }
        let ended = program.run(Duration::from_secs(40)).unwrap();
        let found = serde_json::from_str(&ended.stdout);
        (ended.status.code(), found.unwrap_or_else(|_| panic!("{}{}", ended.stdout, ended.stderr)))
    }

    /// A server on a port of its own.
    fn serve(&self, does: Does) -> String {
        let listener = self.runtime.block_on(TcpListener::bind((HOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let org = Arc::new(Keys::new(&self.root, &[]));
        self.runtime.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(tcp, does.clone(), Arc::clone(&org)));
            }
        });
        address.to_string()
    }
}

/// A state directory as muster-preboot leaves it.
fn state(dir: &Path, name: &str, root: &Authority, more: &[(CaState, &Authority)]) -> PathBuf {
    let state = dir.join(name);
    let pinned = state.join("preboot");
    fs::create_dir_all(&pinned).unwrap();
    let keys = Keys::new(root, more);
    let charters = Records::batches(keys.chain.iter().map(Record::from), usize::MAX);
    fs::write(pinned.join("charters"), charters.flatten().collect::<Vec<u8>>()).unwrap();
    fs::write(pinned.join("bundle.pem"), pem(&[&root.certificate])).unwrap();
    fs::write(pinned.join("gateways"), "127.0.0.1:1\n").unwrap();
    state
}
