//! What stands in front of a gateway: nginx from Debian's package, as an edge that opens TLS, and as one that
//! passes it through.

use std::{fs, path::Path, process::Command, time::Duration};

use lab::{Daemon, Ready, org::GATEWAY_PORT};
use serde_json::Value;

use super::{
    Bench,
    pki::{Authority, GOOD, pem},
};

const NAME: &str = "gw.acme.example";
const OPENS: u16 = 8443;
const TAKES_UPGRADE: u16 = 8444;
const PASSES: u16 = 8445;

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
        let _nginx = nginx(&bench, dir.path());

        let bundle = pem(&[&root.certificate]);
        let found = |port| {
            let (exit, found) = bench.diagnose_at(&format!("{NAME}:{port}"), &bundle);
            println!("port {port}: exit {exit:?}, {}", shown(&found));
            found
        };
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

fn nginx(bench: &Bench, dir: &Path) -> Daemon {
    let (host, place) = (bench.host(), dir.display());
    let http = |port, upgrade: &str| {
        format!(
            "server {{ listen {port} ssl; ssl_certificate {place}/edge.pem; ssl_certificate_key {place}/edge.key;\n\
             ssl_protocols TLSv1.3; location / {{ proxy_pass https://{host}:{GATEWAY_PORT};\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off; proxy_http_version 1.1;\n\
             proxy_set_header Host $http_host; {upgrade} }} }}\n"
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
         {}{} }}\n\
         stream {{ map $ssl_preread_server_name $gateway {{ {NAME} {host}:{GATEWAY_PORT}; default {host}:9; }}\n\
         server {{ listen {PASSES}; ssl_preread on; proxy_pass $gateway; }} }}\n",
        http(OPENS, pass_on),
        http(TAKES_UPGRADE, ""),
    );
    let config = dir.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let program = bench.org.host(0).unwrap().program("nginx").arg("-p").arg(dir).arg("-c").arg(config);
    program.spawn(&Ready::Line("start worker process ".to_owned()), Duration::from_secs(20)).unwrap()
}
