//! Who holds which role, changed by the commands that operators type: admins and gateways come and go,
//! and what a stolen key did is undone.
use std::fs;

use org_trust::GatewayRequest;
use serde_json::{Value, json};

use crate::bench::{self, Bench, Musterd, node_key};

#[test]
fn a_device_makes_its_own_admin_key_which_counts_once_the_org_has_added_it() {
    let bench = Bench::new();
    bench.create_org();
    let _musterd = bench.musterd();
    let key = init(&bench, "anna-laptop");
    as_admin(&bench, "anna-laptop", &["invite", "create"]).failed_with("MU-2010", 77);
    let added = bench.json(&["admin", "add", "anna-laptop", "--key", &key, "--wait", "0"]);
    assert_eq!((&added["settings"], &added["admin"]["key"]), (&json!(2), &json!(key)));
    as_admin(&bench, "anna-laptop", &["invite", "create"]).succeeded();
    let listed = bench.json(&["admin", "list"]);
    let names: Vec<_> = listed["admins"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
    assert_eq!(names.len(), 2, "{listed}");
    let log = bench.json(&["org", "log"]);
    assert_eq!(log["settings"][1]["version"], 2);
    assert!(log["settings"][1]["changes"][0].as_str().unwrap().contains("anna-laptop added"), "{log}");
    assert_eq!(log["settings"][1]["signed_by"], bench.json(&["org", "show"])["root_keys"]);
    assert!(log["settings"][1]["signed_here_at"].is_string(), "{log}");
    bench.run(&["admin", "add", "anna-laptop", "--key", &key, "--wait", "0"]).failed_with("MU-7004", 2);
}

#[test]
fn removing_a_stolen_admin_key_undoes_its_mass_revocation() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    add_admin(&bench, "anna");
    bench.admit(&musterd, "old", 10);
    let names = ["web-1", "web-2", "web-3"];
    for (name, seed) in names.iter().zip([40, 50, 60]) {
        bench.admit(&musterd, name, seed);
    }
    as_admin(&bench, "anna", &["revoke", "old", "--wait", "0"]).succeeded();
    // The thief.
    for name in names {
        as_admin(&bench, "anna", &["revoke", name, "--wait", "0"]).succeeded();
    }
    assert!(names.iter().all(|name| state(&bench, name) == "revoked"));

    let log = bench.json(&["admin", "log", "anna"]);
    let revokes: Vec<&Value> =
        log["changes"].as_array().unwrap().iter().filter(|c| c["kind"] == "revoke").collect();
    assert_eq!(revokes.len(), 4);
    let first_wrong = revokes[1]["change"].as_str().unwrap();
    let removed = bench.json(&["admin", "remove", "anna", "--void-from", first_wrong, "--wait", "0"]);
    assert_eq!(removed["effect"]["members_back"], json!(names));
    assert_eq!(removed["effect"]["members_lost"], json!([]));
    assert!(names.iter().all(|name| state(&bench, name) == "good"));
    assert_eq!(state(&bench, "old"), "revoked", "what it signed before the theft counts");
    // The thief goes on.
    let more = as_admin(&bench, "anna", &["revoke", "web-1", "--wait", "0"]);
    assert_ne!(more.status, 0);
    assert_eq!(state(&bench, "web-1"), "good");
}

#[test]
fn what_a_removed_admin_signed_counts_unless_it_is_all_void() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    add_admin(&bench, "anna");
    let invite = as_admin(&bench, "anna", &["invite", "create", "--uses", "5"]);
    bench.admit_with(&musterd, &invite.stdout, "web-1", 40);
    bench.admit(&musterd, "web-2", 50);
    as_admin(&bench, "anna", &["revoke", "web-2", "--wait", "0"]).succeeded();
    // Members would be lost: that wants a clear yes.
    let refused = bench.run(&["admin", "remove", "anna", "--void-all", "--wait", "0"]);
    refused.failed_with("MU-7008", 2);
    assert!(refused.stderr.contains("web-1"), "{}", refused.stderr);
    assert_eq!(bench.json(&["org", "show"])["settings"], 2, "nothing was signed");

    let kept = bench.json(&["admin", "remove", "anna", "--wait", "0"]);
    assert_eq!(kept["settings"], 3);
    assert_eq!((state(&bench, "web-1"), state(&bench, "web-2")), ("good".into(), "revoked".into()));
    assert_eq!(bench.json(&["invite", "list"])["invites"].as_array().unwrap().len(), 2);

    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    add_admin(&bench, "anna");
    bench.admit(&musterd, "web-2", 50);
    as_admin(&bench, "anna", &["revoke", "web-2", "--wait", "0"]).succeeded();
    let gone = bench.json(&["admin", "remove", "anna", "--void-all", "--wait", "0"]);
    assert_eq!(gone["effect"]["members_back"], json!(["web-2"]));
    assert_eq!(state(&bench, "web-2"), "good");
}

#[test]
fn nobody_locks_the_org_out_by_mistake() {
    let bench = Bench::new();
    bench.create_org();
    let _musterd = bench.musterd();
    let last = bench.run(&["admin", "remove", "admin", "--this-device"]);
    last.failed_with("MU-7004", 2);
    assert!(last.stderr.contains("last admin"), "{}", last.stderr);
    bench.run(&["admin", "remove", "nobody"]).failed_with("MU-2030", 65);
    add_admin(&bench, "anna");
    let own = bench.run(&["admin", "remove", "admin", "--wait", "0"]);
    own.failed_with("MU-7008", 2);
    assert!(own.stderr.contains("--this-device"), "{}", own.stderr);
    let gateway = bench.run(&["gateway", "remove", "n1", "--yes"]);
    gateway.failed_with("MU-7008", 2);
    assert!(gateway.stderr.contains("last gateway"), "{}", gateway.stderr);
    let both = init(&bench, "berta");
    bench.run(&["admin", "add", "berta", "--key", &both, "--to-revoke", "3", "--wait", "0"]).succeeded();
    bench.run(&["admin", "remove", "berta", "--wait", "0"]).failed_with("MU-7004", 2);
    bench.run(&["admin", "remove", "berta", "--to-revoke", "1", "--wait", "0"]).succeeded();
    bench.run(&["admin", "remove", "admin", "--this-device", "--wait", "0"]).succeeded();
    bench.run(&["gateway", "remove", "n1", "--last", "--wait", "0"]).succeeded();
    assert_eq!(bench.json(&["org", "show"])["gateways"], json!([]));
}

#[test]
fn a_stolen_gateway_and_a_leaked_invite_are_undone_by_one_admin() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let invite = bench.run(&["invite", "create", "--uses", "50"]);
    let invite = invite.stdout.as_str();
    bench.admit_with(&musterd, invite, "web-1", 40);
    bench.admit_with(&musterd, invite, "rogue-1", 50);
    bench.admit_with(&musterd, invite, "rogue-2", 60);
    // The org keys are elsewhere: the admin alone must be able to end it.
    fs::rename(bench.path("admin/org-keys.age"), bench.path("org-keys.age")).unwrap();
    let args = ["revoke", "n1", "--void-from", "rogue-1", "--reason", "stolen", "--yes", "--wait", "0"];
    let revoked = bench.run(&[&args[..], &["--json"]].concat());
    revoked.succeeded();
    assert!(revoked.stderr.contains("muster gateway remove"), "{}", revoked.stderr);
    assert_eq!(revoked.json["invites_cancelled"].as_array().unwrap().len(), 1);
    assert_eq!(revoked.json["settings"], Value::Null);
    bench.admit_with(&musterd, invite, "rogue-3", 70);
    let good: Vec<String> = members(&bench, "good");
    assert_eq!(good, ["web-1"], "whoever the thief lets in is nobody, before and after");

    // Where the org keys are, the role goes too.
    let keys = bench.path("org-keys.age");
    let keys = keys.to_str().unwrap();
    let first = bench.json(&["gateway", "list"])["gateways"][0]["key"].as_str().unwrap()[..8].to_owned();
    let removed = bench.json(&["gateway", "remove", &first, "--last", "--org-keys", keys, "--wait", "0"]);
    assert_eq!((&removed["settings"], &removed["effect"]["members_lost"]), (&json!(2), &json!([])));
    assert_eq!(members(&bench, "good"), ["web-1"]);
}

#[test]
fn an_invite_is_cancelled_with_the_machines_that_joined_wrongly() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let made = bench.json(&["invite", "create", "--uses", "50"]);
    let (line, id) = (made["invite"].as_str().unwrap(), made["id"].as_str().unwrap());
    for (name, seed) in [("web-1", 40), ("web-2", 50), ("web-3", 60)] {
        bench.admit_with(&musterd, line, name, seed);
    }
    bench.run(&["invite", "cancel", id, "--void-from", "web-2"]).failed_with("MU-7008", 2);
    bench.run(&["invite", "cancel", id, "--void-from", "web-2", "--yes"]).succeeded();
    assert_eq!(members(&bench, "good"), ["n1", "web-1"]);
    bench.run(&["invite", "cancel", id, "--void-all", "--yes"]).succeeded();
    assert_eq!(members(&bench, "good"), ["n1"]);
}

#[test]
fn revoking_a_gateway_takes_its_invites_and_its_role_in_one_command() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    bench.admit(&musterd, "web-1", 40);
    let open = bench.json(&["invite", "create"]);
    // A wrong passphrase of the org keys is found before anything is signed.
    let file = bench.path("other-passphrase");
    fs::write(&file, "another passphrase\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = ["revoke", "n1", "--yes", "--wait", "0", "--org-passphrase-file", file.to_str().unwrap()];
    bench.run(&wrong).failed_with("MU-4007", 77);
    assert_eq!(state(&bench, "n1"), "good");

    let revoked = bench.json(&["revoke", "n1", "--yes", "--wait", "0"]);
    assert_eq!(revoked["invites_cancelled"], json!([open["id"]]));
    assert_eq!(revoked["settings"], 2);
    assert_eq!(state(&bench, "n1"), "revoked");
    assert_eq!(state(&bench, "web-1"), "good", "whom it let in stays");
    assert_eq!(bench.json(&["gateway", "list"])["gateways"], json!([]));
    bench.run(&["invite", "create"]).failed_with("MU-5010", 77);
}

#[test]
fn an_admin_whose_key_was_on_the_machine_goes_with_it() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    add_admin(&bench, "anna-laptop");
    bench.admit(&musterd, "laptop", 40);
    let revoked = bench.json(&["revoke", "laptop", "--with-admin", "anna-laptop", "--wait", "0"]);
    assert_eq!(revoked["settings"], 3);
    let admins = bench.json(&["admin", "list"]);
    assert_eq!(admins["admins"].as_array().unwrap().len(), 1, "{admins}");
}

#[test]
fn settings_that_were_signed_and_did_not_arrive_are_sent_again_and_not_signed_again() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let (anna, berta) = (init(&bench, "anna"), init(&bench, "berta"));
    musterd.lose_next_submit();
    bench.run(&["admin", "add", "anna", "--key", &anna, "--wait", "0"]).failed_with("MU-6001", 69);
    let path = bench.path("admin/org-keys.age.signed/settings-000000000002");
    let signed = fs::read(&path).unwrap();
    let added = bench.run(&["admin", "add", "berta", "--key", &berta, "--wait", "0", "--json"]);
    added.succeeded();
    assert!(added.stderr.contains("sending again"), "{}", added.stderr);
    assert_eq!(added.json["settings"], 3);
    assert_eq!(fs::read(&path).unwrap(), signed);
    assert_eq!(bench.json(&["admin", "list"])["admins"].as_array().unwrap().len(), 3);
}

#[test]
fn without_a_musterd_settings_reach_the_org_through_a_second_gateway() {
    let bench = Bench::new();
    // Nobody listens at the first gateway's address.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.create_org_at(&unused.local_addr().unwrap().to_string());
    drop(unused);
    let musterd = bench.musterd();
    bench.admit(&musterd, "gw-2", 40);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let public = tls.public_key_raw().try_into().unwrap();
    let org = identity::OrgId::from_hex(bench.json(&["org", "show"])["id"].as_str().unwrap()).unwrap();
    let role = node_key(99);
    let request = |org: &identity::OrgId, node: u8| {
        GatewayRequest::sign(org, &node_key(node), &role, public, &address).unwrap().to_line()
    };

    // Of another org, or of nobody in this one.
    let foreign = request(&identity::OrgId([1; 32]), 40);
    bench.run(&["gateway", "add", &foreign, "--wait", "0"]).failed_with("MU-2031", 65);
    bench.run(&["gateway", "add", &request(&org, 77), "--wait", "0"]).failed_with("MU-2006", 65);
    bench.run(&["gateway", "add", "muster-gateway-1:AAAA", "--wait", "0"]).failed_with("MU-2031", 65);

    let added = bench.run(&["gateway", "add", &request(&org, 40), "--wait", "0"]);
    added.succeeded();
    assert!(added.stdout.starts_with("-----BEGIN CERTIFICATE-----"), "{}", added.stdout);
    assert_eq!(bench.json(&["gateway", "list"])["gateways"].as_array().unwrap().len(), 2);
    let server = transport::ServerTls::from_pem(added.stdout.as_bytes(), tls.serialize_pem().as_bytes());
    bench::gateway::start_as(server.unwrap(), role, &musterd, listener);

    let key = init(&bench, "anna");
    let away = |args: &[&str]| bench.run(&[args, &["--socket", "/nonexistent", "--json"]].concat());
    let by_gateway = away(&["admin", "add", "anna", "--key", &key, "--wait", "0"]);
    by_gateway.succeeded();
    assert_eq!(by_gateway.json["settings"], 3);
    assert_eq!(bench.json(&["admin", "list"])["admins"].as_array().unwrap().len(), 2, "musterd has it");
    // A new device has old settings: it walks to the newest on its first dial.
    let invite = bench.run(&["invite", "create", "--gateway", "gw-2", "--json"]);
    invite.succeeded();
    let first = away(&["invite", "create", "--admin", bench.path("anna").to_str().unwrap()]);
    first.succeeded();
}

#[test]
fn revoke_status_names_who_has_not_applied_it() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    for (name, seed) in [("web-1", 40), ("web-2", 50), ("web-3", 60), ("web-4", 70)] {
        bench.admit(&musterd, name, seed);
    }
    bench.run(&["revoke", "status", "web-1"]).failed_with("MU-7004", 2);
    bench.run(&["revoke", "web-1", "--timeout", "0s"]).failed_with("MU-2008", 75);
    for seed in [50, 60] {
        musterd.report_of(&node_key(seed));
    }
    let short = bench.run(&["revoke", "web-1", "--timeout", "0s", "--wait", "quorum"]);
    short.failed_with("MU-2008", 75);
    assert!(short.stdout.contains("applied 2/4") && short.stdout.contains("missing web-4  last contact 3h"));
    let status = bench.run(&["revoke", "status", "--json"]);
    assert_eq!((status.status, &status.json["complete"]), (75, &json!(false)));
    let one = &status.json["revocations"][0];
    assert_eq!((&one["member"]["name"], &one["coverage"]["applied"]), (&json!("web-1"), &json!(2)));
    let missing: Vec<_> =
        one["coverage"]["missing"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(missing.len(), 2);
    assert!(missing.contains(&"web-4") && missing.contains(&"n1"), "{missing:?}");

    musterd.report_of(&node_key(70));
    bench.run(&["revoke", "web-1", "--timeout", "0s", "--wait", "quorum"]).succeeded();
    bench.run(&["revoke", "web-1", "--timeout", "0s", "--wait", "3"]).succeeded();
    let watching = std::thread::scope(|scope| {
        let watch = scope.spawn(|| bench.run(&["revoke", "status", "--watch", "--json"]));
        report_of_the_first(&bench, &musterd);
        watch.join().unwrap()
    });
    assert_eq!(watching.status, 0, "{}", watching.stdout);
    let lines: Vec<Value> = watching.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["complete"], true);
    assert_eq!(bench.run(&["revoke", "status"]).status, 0);
}

fn report_of_the_first(bench: &Bench, musterd: &Musterd) {
    let secrets: tpm_seal::NodeSecrets = tpm_seal::Custody::File.load(&bench.path("state/keys")).unwrap();
    musterd.report_of(&secrets.identity.expose(identity::SecretKey::from_seed));
}

/// Makes an admin key on a device of its own; its public half.
fn init(bench: &Bench, name: &str) -> String {
    let (org, dir) = (bench.path("admin/org.json"), bench.path(name));
    let args = ["admin", "init", name, "--org", org.to_str().unwrap(), "--admin-dir", dir.to_str().unwrap()];
    let made = bench.run(&args);
    made.succeeded();
    made.stdout.trim_end().to_owned()
}

fn add_admin(bench: &Bench, name: &str) {
    add_admin_who(bench, name, &[]);
}

/// Somebody becomes an admin, and what goes with it.
pub(crate) fn add_admin_who(bench: &Bench, name: &str, more: &[&str]) {
    let key = init(bench, name);
    bench.run(&[&["admin", "add", name, "--key", &key, "--wait", "0"], more].concat()).succeeded();
}

pub(crate) fn as_admin(bench: &Bench, name: &str, args: &[&str]) -> bench::Ran {
    let dir = bench.path(name);
    bench.run(&[args, &["--admin", dir.to_str().unwrap()]].concat())
}

pub(crate) fn state(bench: &Bench, member: &str) -> String {
    bench.json(&["member", "show", member])["state"].as_str().unwrap().to_owned()
}

fn members(bench: &Bench, state: &str) -> Vec<String> {
    let listed = bench.json(&["member", "list", "--all"]);
    let members = listed["members"].as_array().unwrap().iter().filter(|m| m["state"] == state);
    let mut names: Vec<_> = members.map(|m| m["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}
