//! What stands in front of a gateway: nginx from Debian's package, as an edge that opens TLS, and as one that
//! passes it through.

use std::{fs, path::Path, process::Command, time::Duration};

use lab::{
    Daemon, Ready,
    org::{GATEWAY_PORT, Org},
};
use serde_json::Value;

use super::{
    Bench,
    pki::{Authority, GOOD, pem},
};
use crate::harness;

const NAME: &str = "gw.acme.example";
const OPENS: u16 = 8443;
const TAKES_UPGRADE: u16 = 8444;
const PASSES: u16 = 8445;
const INNER_ONLY: u16 = 8446;

#[test]
fn an_edge_that_opens_tls_is_told_from_one_that_passes_it_through() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut bench = Bench::new(sandbox, &[]);
        let root = Authority::root("root");
        let leaf = root.leaf(NAME, GOOD);
        bench.install(&pem(&[&leaf.certificate]), &leaf.key.serialize_pem());
        bench.org.start_gateway(0).unwrap();
        // The org's own CA signed the edge's certificate too: by TLS alone nothing is wrong.
        let edge = root.leaf_for_openssl(NAME);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("edge.pem"), pem(&[&edge.certificate])).unwrap();
        fs::write(dir.path().join("edge.key"), edge.key.serialize_pem()).unwrap();
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, format!("{} {NAME}\n", bench.host())).unwrap();
        assert!(
            Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts").status().unwrap().success()
        );
        let _nginx = nginx(&bench.org, dir.path());

        let bundle = pem(&[&root.certificate]);
        let found_at = |address: &str| {
            let (exit, found) = bench.diagnose_at(address, &bundle);
            println!("{address}: exit {exit:?}, {}", shown(&found));
            found
        };
        let found = |port| found_at(&format!("{NAME}:{port}"));
        let edge = found(OPENS);
        assert_eq!(check(&edge, "exporter")["code"], "MU-7040", "{edge}");
        assert!(check(&edge, "exporter")["seen"].as_str().unwrap().contains("Server: nginx"), "{edge}");
        assert_eq!(
            (&edge["client_code"], &check(&edge, "chain")["status"]),
            (&"MU-1005".into(), &"ok".into())
        );
        let taken = found(TAKES_UPGRADE);
        assert_eq!(check(&taken, "websocket")["code"], "MU-7041", "{taken}");
        let passed = found(PASSES);
        assert_eq!(passed["ok"], true, "{passed}");
        assert_eq!(check(&passed, "exporter")["status"], "ok");
        // What is passed through is the gateway's own connection: its log has the same reference.
        assert!(passed["tls_reference"].is_string());
        assert_eq!(found(GATEWAY_PORT)["ok"], true);

        // TLS to the gateway inside a WebSocket, which is all that this edge lets through.
        for port in [INNER_ONLY, OPENS] {
            let inside = found_at(&format!("wss://{NAME}:{port}"));
            assert_eq!((&inside["ok"], &inside["client_code"]), (&true.into(), &Value::Null), "{inside}");
            let checks = inside["checks"].as_array().unwrap().iter();
            let stages: Vec<_> = checks.map(|check| check["stage"].as_str().unwrap()).collect();
            let first = ["bundle", "resolve", "tcp", "edge", "tls", "chain", "name", "time", "anchor"];
            assert_eq!(stages[..first.len()], first, "{inside}");
            let seen = check(&inside, "edge")["seen"].as_str().unwrap();
            assert!(seen.contains("CN=edge") && seen.contains("Server: nginx"), "{seen}");
            for stage in ["exporter", "conn_auth"] {
                assert_eq!(check(&inside, stage)["status"], "ok", "{inside}");
            }
        }
        let stripped = found_at(&format!("wss://{NAME}:{TAKES_UPGRADE}"));
        assert_eq!(check(&stripped, "edge")["code"], "MU-7044", "{stripped}");
        assert_eq!(stripped["client_code"], "MU-7044");
        // What passes TLS through has the gateway answer the outer TLS as well.
        assert_eq!(found_at(&format!("wss://{NAME}:{PASSES}"))["ok"], true);
        // Another gateway behind the edge: the diagnosis and a machine that starts say the same of it.
        let other = Authority::root("other");
        let leaf = other.leaf(NAME, GOOD);
        bench.install(&pem(&[&leaf.certificate]), &leaf.key.serialize_pem());
        bench.org.start_gateway(0).unwrap();
        let address = format!("wss://{NAME}:{INNER_ONLY}");
        let (_, swapped) = bench.diagnose_at(&address, &bundle);
        assert_eq!(
            (&swapped["client_code"], &check(&swapped, "edge")["status"]),
            (&"MU-5005".into(), &"ok".into())
        );
        assert_eq!(check(&swapped, "chain")["code"], "MU-7020", "{swapped}");
        fs::write(bench.org.state(1).unwrap().join("preboot/gateways"), format!("{address}\n")).unwrap();
        assert_eq!(bench.preboot(&bundle), "MU-5005");
    })
}

#[test]
fn a_machine_joins_and_starts_through_an_edge_that_opens_tls() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::machines(sandbox, 2);
        org.found().unwrap();
        let host = org.host(0).unwrap().address().to_string();
        // Of a CA that nobody of ours has heard of.
        let edge = Authority::root("the CDN's").leaf_for_openssl(&host);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("edge.pem"), pem(&[&edge.certificate])).unwrap();
        fs::write(dir.path().join("edge.key"), edge.key.serialize_pem()).unwrap();
        let _nginx = nginx(&org, dir.path());
        let address = format!("wss://{host}:{INNER_ONLY}");
        let profile = org.host(0).unwrap().dir().join("operator/muster/demo/org.json");
        let mut given: Value = serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap();
        given["gateways"] = vec![address.clone()].into();
        fs::write(&profile, given.to_string()).unwrap();

        let invite = org.invite(0, 1).unwrap();
        let read = org.muster(0, &["--json", "invite", "inspect", &invite]).unwrap().ok().unwrap();
        assert!(read.stdout.contains(&address), "{}", read.stdout);
        org.set_key_storage(1, "file").unwrap();
        org.enrol(1, &invite).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        harness::know_each_other(&org, 2);
        let pinned = fs::read_to_string(org.state(1).unwrap().join("preboot/gateways")).unwrap();
        assert_eq!(pinned, format!("{address}\n"));
        let found = org.ask(1, &["debug", "connection"]).unwrap();
        assert_eq!((&found["ok"], &found["address"]), (&true.into(), &address.as_str().into()), "{found}");
        println!("{}", org.muster(1, &["debug", "connection"]).unwrap().stdout);
        // Its next start goes the same way, and so does an admin's command from elsewhere.
        org.stop_musterd(1).unwrap();
        org.preboot(1).unwrap().run(Duration::from_secs(20)).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        org.muster(0, &["--socket", "/nonexistent", "member", "list"]).unwrap().ok().unwrap();
    })
}

fn check<'a>(found: &'a Value, stage: &str) -> &'a Value {
    found["checks"].as_array().unwrap().iter().find(|check| check["stage"] == stage).unwrap()
}

fn shown(found: &Value) -> String {
    let checks = found["checks"].as_array().unwrap().iter();
    let words = checks
        .filter(|check| check["status"] != "skip" && check["status"] != "ok")
        .map(|check| format!("{} {} {}", check["stage"], check["code"], check["seen"]));
    let words: Vec<_> = words.collect();
    if words.is_empty() { "all in order".to_owned() } else { words.join("; ") }
}

fn nginx(org: &Org, dir: &Path) -> Daemon {
    let (host, place) = (org.host(0).unwrap().address().to_string(), dir.display());
    let to_gateway = |path: &str, upgrade: &str| {
        format!(
            "location {path} {{ proxy_pass https://{host}:{GATEWAY_PORT};\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off; proxy_http_version 1.1;\n\
             proxy_set_header Host $http_host; {upgrade} }}\n"
        )
    };
    let http = |port, locations: &str| {
        format!(
            "server {{ listen {port} ssl; ssl_certificate {place}/edge.pem; ssl_certificate_key {place}/edge.key;\n\
             ssl_protocols TLSv1.3; {locations} }}\n"
        )
    };
    let pass_on = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $pass_on_connection;";
    let text = format!(
        "daemon off; worker_processes 1; pid {place}/nginx.pid; error_log stderr notice; user root;\n\
         load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
         map $http_upgrade $pass_on_connection {{ default upgrade; '' close; }}\n\
         {}{}{} }}\n\
         stream {{ map $ssl_preread_server_name $gateway {{ {NAME} {host}:{GATEWAY_PORT}; default {host}:9; }}\n\
         server {{ listen {PASSES}; ssl_preread on; proxy_pass $gateway; }} }}\n",
        http(OPENS, &to_gateway("/", pass_on)),
        http(TAKES_UPGRADE, &to_gateway("/", "")),
        http(INNER_ONLY, &to_gateway("= /v1/tls", pass_on)),
    );
    let config = dir.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let program = org.host(0).unwrap().program("nginx").arg("-p").arg(dir).arg("-c").arg(config);
    program.spawn(&Ready::Line("start worker process ".to_owned()), Duration::from_secs(20)).unwrap()
}
