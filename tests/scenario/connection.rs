//! Chains of certificates: one verdict in every program, explained by `muster debug connection`, and told at
//! the gateway under the same reference.

mod broken;
mod edge;
mod elsewhere;
mod pki;
mod retired;
mod servers;

use std::{fs, path::PathBuf, time::Duration};

use lab::org::{GATEWAY_PORT, Org, wait_until};
use rcgen::{Certificate, KeyPair};
use serde_json::Value;

use crate::harness::{self, code};
use pki::{AHEAD, Authority, GOOD, PAST, pem};

/// One chain, what is trusted, and what has to come of it.
struct Row<'a> {
    id: &'static str,
    what: &'static str,
    sent: Vec<&'a Certificate>,
    key: &'a KeyPair,
    anchors: Vec<&'a Certificate>,
    /// With which every dialler ends; empty where it comes through.
    client: &'static str,
    /// What the diagnosis calls it, also a warning.
    diagnosis: &'static str,
    /// What the gateway is told; empty where it is told nothing.
    alert: &'static str,
}

#[test]
fn every_chain_has_one_verdict_in_every_program_and_one_reference_at_both_ends()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let world = Authority::root("Public CA");
        let store = tempfile::NamedTempFile::new().unwrap();
        fs::write(store.path(), pem(&[&world.certificate])).unwrap();
        // The system's store, as OpenSSL and every Rust loader of it finds it: nobody of ours may ask it.
        let path = store.path().display().to_string();
        let env = [("SSL_CERT_FILE", path.as_str()), ("SSL_CERT_DIR", "/nonexistent")];
        let mut bench = Bench::new(sandbox, &env);
        let host = bench.host();
        let host = host.as_str();

        let root = Authority::root("root");
        let inter = Authority::ca("inter", GOOD, Some(&root));
        let leaf = inter.leaf(host, GOOD);
        let other_name = inter.leaf("192.0.2.7", GOOD);
        let (expired, early) = (inter.leaf(host, PAST), inter.leaf(host, AHEAD));
        let alone = Authority::self_signed(host);
        let old_inter = Authority::ca("old inter", PAST, Some(&root));
        let under_old = old_inter.leaf(host, GOOD);
        let old_root = Authority::ca("old root", PAST, None);
        let under_old_root = old_root.leaf(host, GOOD);
        let (old, new) = (Authority::root("old"), Authority::root("new"));
        let (old_leaf, new_leaf) = (old.leaf(host, GOOD), new.leaf(host, GOOD));
        let old_inner = Authority::ca("old inner", GOOD, Some(&old));
        let old_deep = old_inner.leaf(host, GOOD);
        let cross = new.cross_signed_by(&old);
        let namesake = Authority::root("root");
        let of_namesake = namesake.leaf(host, GOOD);
        let public = world.public_leaf(host);

        let (l, i, r) = (&leaf, &inter.certificate, &root.certificate);
        let ok = ["", "", ""];
        let unknown = |diagnosis| ["MU-5005", diagnosis, "UnknownCA"];
        let rows = [
            row("S1", "l i r, trusted r", l, &[i, r], &[r], ok),
            row("S2", "l i r, trusted r i", l, &[i, r], &[r, i], ok),
            row("S3", "l, trusted r i", l, &[], &[r, i], ok),
            row("S4", "l i, trusted r", l, &[i], &[r], ok),
            row("S5", "l, trusted r", l, &[], &[r], unknown("MU-7020")),
            row("S6", "l, trusted i", l, &[], &[i], ok),
            row("S7", "another name", &other_name, &[i], &[r], ["MU-5006", "MU-5006", "BadCertificate"]),
            row("S8", "expired l", &expired, &[i], &[r], ["MU-5007", "MU-5007", "CertificateExpired"]),
            row("S9", "early l", &early, &[i], &[r], ["MU-5008", "MU-5008", "CertificateExpired"]),
            row("S10", "l signs itself", &alone, &[], &[r], unknown("MU-7022")),
            row("S10b", "that l as anchor", &alone, &[], &[&alone.certificate], ["MU-7031", "MU-7031", ""]),
            row(
                "S11",
                "l, expired i",
                &under_old,
                &[&old_inter.certificate],
                &[r],
                ["MU-5007", "MU-7024", "CertificateExpired"],
            ),
            row(
                "S12",
                "expired i as anchor",
                &under_old,
                &[],
                &[&old_inter.certificate],
                ["", "MU-7026", ""],
            ),
            row(
                "S13",
                "expired root as anchor",
                &under_old_root,
                &[],
                &[&old_root.certificate],
                ["", "MU-7026", ""],
            ),
            row("R1", "new CA's l, trusted old", &new_leaf, &[], &[&old.certificate], unknown("MU-7020")),
            row("R2", "old l, trusted both", &old_leaf, &[], &[&old.certificate, &new.certificate], ok),
            row("R3", "new l, trusted both", &new_leaf, &[], &[&old.certificate, &new.certificate], ok),
            row(
                "R4",
                "old l i, trusted new",
                &old_deep,
                &[&old_inner.certificate],
                &[&new.certificate],
                unknown("MU-7021"),
            ),
            row("R5", "new l, new by old", &new_leaf, &[&cross], &[&old.certificate], ok),
            row(
                "N1",
                "CA of the same name",
                &of_namesake,
                &[&namesake.certificate],
                &[r],
                ["MU-5005", "MU-7021", "DecryptError"],
            ),
            row("W1", "public CA, in the store", &public, &[], &[r], unknown("MU-7023")),
        ];
        let mut table = String::from(
            "row   sent, trusted             clients   diagnosis  at the gateway      what is said\n",
        );
        for row in &rows {
            table.push_str(&bench.holds(row));
        }
        println!("{table}");
        // D1: no gateway shows a certificate whose key it does not have.
        bench.install(&pem(&[&leaf.certificate]), &other_name.key.serialize_pem());
        let config = bench.org.host(0).unwrap().dir().join("etc/muster-gateway.toml");
        let gateway =
            bench.org.program(0, "muster-gateway").unwrap().arg("--config").arg(config).arg("--check");
        let refused = gateway.run(Duration::from_secs(20)).unwrap();
        assert_eq!(code(&refused), "MU-7002", "D1");
    })
}

fn row<'a>(
    id: &'static str,
    what: &'static str,
    leaf: &'a Authority,
    others: &[&'a Certificate],
    anchors: &[&'a Certificate],
    [client, diagnosis, alert]: [&'static str; 3],
) -> Row<'a> {
    let sent = [&[&leaf.certificate], others].concat();
    Row { id, what, sent, key: &leaf.key, anchors: anchors.to_vec(), client, diagnosis, alert }
}

/// What somebody says to a gateway that is not just comparing member lists, as it does for some seconds after it
/// has lost a member from sight.
fn settled<T>(ask: impl Fn() -> (String, T)) -> T {
    harness::within(Duration::from_secs(20), "the gateway has compared", || {
        let (code, said) = ask();
        (code != "MU-1414").then_some(said)
    })
}

/// An org of a gateway and a member that dials it.
struct Bench {
    org: Org,
    certificate: PathBuf,
    key: PathBuf,
}

impl Bench {
    fn new(sandbox: &lab::Sandbox, env: &[(&str, &str)]) -> Self {
        let env = [env, &[("MUSTER_LOG", "debug")]].concat();
        let mut org = harness::machines_with(sandbox, 2, &env);
        org.found().unwrap();
        org.set_key_storage(1, "file").unwrap();
        org.join(1).unwrap();
        // What follows is preboot's: nobody else may use the keys meanwhile.
        org.stop_musterd(1).unwrap();
        let text = fs::read_to_string(org.host(0).unwrap().dir().join("etc/muster-gateway.toml")).unwrap();
        let path = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
            PathBuf::from(line.split('"').nth(1).unwrap())
        };
        Self { certificate: path("certificate"), key: path("key"), org }
    }

    fn host(&self) -> String {
        self.org.host(0).unwrap().address().to_string()
    }

    fn address(&self) -> String {
        format!("{}:{GATEWAY_PORT}", self.host())
    }

    fn install(&mut self, chain: &str, key: &str) {
        self.org.stop_gateway(0).unwrap();
        fs::write(&self.certificate, chain).unwrap();
        // In its place, so that its mode stays.
        fs::write(&self.key, key).unwrap();
    }

    fn diagnose(&self, bundle: &str) -> (Option<i32>, Value) {
        self.diagnose_at(&self.address(), bundle)
    }

    fn diagnose_at(&self, address: &str, bundle: &str) -> (Option<i32>, Value) {
        let file = self.org.host(1).unwrap().dir().join("given.pem");
        fs::write(&file, bundle).unwrap();
        let file = file.display().to_string();
        settled(|| {
            let ended = self.org.muster(1, &["--json", "debug", "connection", address, "--org-ca", &file]);
            let ended = ended.unwrap();
            let found: Value = serde_json::from_str(&ended.stdout).unwrap();
            let code = found["client_code"].as_str().unwrap_or_default().to_owned();
            (code, (ended.status.code(), found))
        })
    }

    /// The code with which a machine that starts ends.
    fn preboot(&self, bundle: &str) -> String {
        let pinned = self.org.state(1).unwrap().join("preboot/bundle.pem");
        fs::write(pinned, bundle).unwrap();
        settled(|| {
            let preboot = self.org.preboot(1).unwrap().args(["--attempts", "1"]);
            let ended = preboot.run(Duration::from_secs(20)).unwrap();
            let code = if ended.status.success() { String::new() } else { code(&ended) };
            (code.clone(), code)
        })
    }

    /// The code with which an admin's command ends that goes by the gateway.
    fn admin(&self, bundle: &str) -> String {
        let file = self.org.host(0).unwrap().dir().join("operator/muster/demo/org.json");
        let mut profile: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        profile["bundle"] = bundle.into();
        fs::write(&file, profile.to_string()).unwrap();
        settled(|| {
            let ended = self.org.muster(0, &["--socket", "/nonexistent", "member", "list"]).unwrap();
            let code = if ended.status.success() { String::new() } else { code(&ended) };
            (code.clone(), code)
        })
    }

    /// Holds a row against every program; its line of the table.
    fn holds(&mut self, row: &Row<'_>) -> String {
        let id = row.id;
        self.install(&pem(&row.sent), &row.key.serialize_pem());
        self.org.start_gateway(0).unwrap();
        let bundle = pem(&row.anchors);
        let (exit, found) = self.diagnose(&bundle);
        let said = found["client_code"].as_str().unwrap_or_default();
        assert_eq!(said, row.client, "{id}: the diagnosis' dialler, {found}");
        assert_eq!(self.preboot(&bundle), row.client, "{id}: preboot");
        assert_eq!(self.admin(&bundle), row.client, "{id}: muster");
        assert_eq!(exit, Some(i32::from(!row.client.is_empty())), "{id}: {found}");

        let checks = found["checks"].as_array().unwrap();
        let named = checks.iter().find(|check| check["code"] == row.diagnosis);
        let bad = |status: &str| checks.iter().any(|check| check["status"] == status);
        assert_eq!(bad("fail"), !row.client.is_empty(), "{id}: {found}");
        assert_eq!(named.is_some(), !row.diagnosis.is_empty(), "{id}: {found}");
        if row.client.is_empty() {
            let proved = checks.iter().find(|check| check["stage"] == "conn_auth").unwrap();
            assert_eq!(proved["status"], "ok", "{id}: {found}");
        }
        if !row.alert.is_empty() {
            let reference = found["tls_reference"].as_str().unwrap();
            let line = wait_until("the gateway's line", || {
                let log = self.org.log(0, "muster-gateway")?;
                Ok(log.lines().find(|line| line.contains(reference)).map(str::to_owned))
            });
            let line = line.unwrap_or_else(|why| {
                panic!("{id}: {why}: {found}\n{}", self.org.log(0, "muster-gateway").unwrap())
            });
            assert!(line.contains("MU-7043") && line.contains(row.alert), "{id}: {line}");
        }
        let seen = named.map_or("", |check| check["seen"].as_str().unwrap());
        let or_ok = |text: &'static str| if text.is_empty() { "ok" } else { text };
        let told = if row.alert.is_empty() { "-" } else { row.alert };
        format!(
            "{id:5} {:25} {:9} {:10} {told:19} {seen}\n",
            row.what,
            or_ok(row.client),
            or_ok(row.diagnosis)
        )
    }
}

#[test]
fn a_missing_link_is_named_and_a_healthy_gateway_is_looked_at_quickly() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut bench = Bench::new(sandbox, &[]);
        bench.org.start_musterd(1).unwrap();
        // As a person types it on a member: nothing but the command.
        let healthy = bench.org.muster(1, &["debug", "connection"]).unwrap().ok().unwrap();
        println!("{}", healthy.stdout);
        assert!(healthy.stdout.contains("ok           conn_auth: gateway "), "{}", healthy.stdout);
        let found = bench.org.ask(1, &["debug", "connection"]).unwrap();
        println!("debug connection against a healthy gateway: {} ms", found["took_ms"]);
        assert_eq!(found["schema_version"], 1);
        assert_eq!(bench.org.ask(1, &["debug", "connection", "--as-preboot"]).unwrap()["ok"], true);

        let root = Authority::root("root");
        let leaf = Authority::ca("The middle one", GOOD, Some(&root)).leaf(&bench.host(), GOOD);
        bench.install(&pem(&[&leaf.certificate]), &leaf.key.serialize_pem());
        bench.org.start_gateway(0).unwrap();
        let file = bench.org.host(1).unwrap().dir().join("given.pem");
        fs::write(&file, pem(&[&root.certificate])).unwrap();
        let file = file.display().to_string();
        let ended = bench.org.muster(1, &["debug", "connection", "--org-ca", &file]).unwrap();
        println!("{}", ended.stdout);
        let line = ended.stdout.lines().find(|line| line.starts_with("FAIL MU-7020 chain: ")).unwrap();
        assert!(line.contains("CN=The middle one"), "{line}");
        assert_eq!(ended.status.code(), Some(1));
        let usage = bench.org.muster(1, &["debug", "connection", "no port"]).unwrap();
        assert_eq!((usage.status.code(), code(&usage).as_str()), (Some(2), "MU-7004"));
    })
}
