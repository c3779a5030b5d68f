//! The program as people and scripts run it: the real binary, its output, its exit status.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what broke by panicking"
)]

mod bench;
mod members;
mod policy;
mod roles;

use std::{fs, os::unix::fs::PermissionsExt as _};

use bench::{Bench, PASSPHRASE};
use serde_json::Value;

#[test]
fn org_create_founds_an_org_that_one_passphrase_opens() {
    let bench = Bench::new();
    let created = bench.create_org();
    assert_eq!(created.json["schema_version"], 1);
    assert_eq!(created.json["org"]["name"], "acme");
    assert_eq!(created.json["node"]["name"], "n1");
    assert_eq!(created.json["node"]["key_storage"], "file");
    assert_eq!(created.json["gateway"]["address"], "gw.example:8443");
    assert!(created.stderr.contains("admin key lies on this machine"), "{}", created.stderr);
    for (file, mode) in [
        ("admin/admin.age", 0o600),
        ("admin/org-keys.age", 0o600),
        ("admin/org.json", 0o644),
        ("admin/admin.age.signed/main-000000000000", 0o600),
        ("recovery.txt", 0o600),
        ("state/keys/node.key", 0o600),
        ("state/keys/boot.key", 0o600),
        ("state/handover/admit", 0o600),
        ("etc/gateway.key", 0o600),
        ("etc/gateway.crt", 0o644),
        ("etc/muster.toml", 0o644),
        ("etc/muster-gateway.toml", 0o644),
    ] {
        let found = fs::metadata(bench.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
    let sheet = fs::read_to_string(bench.path("recovery.txt")).unwrap();
    let org_keys = fs::read_to_string(bench.path("admin/org-keys.age")).unwrap();
    assert!(org_keys.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    assert!(sheet.contains(org_keys.trim_end()), "the sheet holds the key file");
}

#[test]
fn behind_an_edge_the_gateway_listens_at_its_own_port_and_not_the_edges() {
    for (gateway, listen) in [
        ("gw.example:8443", "listen = \"[::]:8443\"\n"),
        ("192.0.2.1:8443", "listen = \"0.0.0.0:8443\"\n"),
        ("wss://gw.example:8443", "listen = \"[::]:443\"\n"),
        ("wss://192.0.2.1:8443", "listen = \"[::]:443\"\n"),
    ] {
        let bench = Bench::new();
        bench.create_org_at(gateway);
        let config = fs::read_to_string(bench.path("etc/muster-gateway.toml")).unwrap();
        let (first, rest) = config.split_at(config.find("listen").unwrap());
        assert!(rest.starts_with(listen), "{gateway}: {config}");
        let says_why = format!("# Machines dial {gateway}.");
        assert_eq!(first.starts_with(&says_why), gateway.starts_with("wss://"), "{gateway}: {config}");
    }
}

#[test]
fn a_machine_with_a_tpm_seals_its_keys_and_says_what_kind_of_tpm_it_is() {
    let bench = Bench::new();
    let swtpm = lab::Swtpm::start(&bench.path("tpm")).unwrap();
    let mut args = bench.org_create_args();
    let storage = args.iter().position(|arg| arg == "--key-storage").unwrap();
    args[storage + 1] = "tpm".to_owned();
    args.extend(["--tpm".to_owned(), swtpm.device().display().to_string(), "--json".to_owned()]);
    let created = bench.run(&args);
    created.succeeded();
    assert_eq!(created.json["node"]["key_storage"], "tpm-software");
    for (file, there) in
        [("node.sealed", true), ("boot.sealed", true), ("node.key", false), ("boot.key", false)]
    {
        assert_eq!(bench.path("state/keys").join(file).exists(), there, "{file}");
    }
    let config = fs::read_to_string(bench.path("etc/muster.toml")).unwrap();
    assert!(config.contains(&format!("tpm = \"{}\"", swtpm.device().display())), "{config}");
}

#[test]
fn no_secret_is_printed_or_left_in_the_open() {
    let bench = Bench::new();
    let created = bench.create_org();
    let node_key = fs::read(bench.path("state/keys/node.key")).unwrap();
    // Magic (9 bytes), version, kind and flag, then the three seeds.
    let seeds: Vec<String> = node_key[12..108].chunks(32).map(identity::encode_hex).collect();
    let shown = format!("{}{}", created.stdout, created.stderr);
    let public = ["admin/org.json", "etc/muster.toml", "recovery.txt"]
        .map(|f| fs::read_to_string(bench.path(f)).unwrap());
    for text in public.iter().chain([&shown]) {
        assert!(!text.contains(PASSPHRASE), "{text}");
        assert!(seeds.iter().all(|seed| !text.contains(seed)), "{text}");
    }
}

#[test]
fn org_create_overwrites_nothing() {
    let bench = Bench::new();
    bench.create_org();
    let before = fs::read(bench.path("admin/org-keys.age")).unwrap();
    let again = bench.run(&bench.org_create_args());
    again.failed_with("MU-7007", 73);
    assert_eq!(fs::read(bench.path("admin/org-keys.age")).unwrap(), before);
    for file in ["state/keys/node.key", "etc/gateway.key", "state/handover"] {
        let fresh = Bench::new();
        let path = fresh.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        fresh.run(&fresh.org_create_args()).failed_with("MU-7007", 73);
        assert_eq!(fs::read(&path).unwrap(), b"mine", "{file}");
        assert!(!fresh.path("admin").exists(), "nothing else was made");
    }
}

#[test]
fn an_invite_is_one_line_that_anybody_can_check_offline() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let made = bench.run(&[
        "invite",
        "create",
        "--uses",
        "5",
        "--expires",
        "7d",
        "--label",
        "web",
        "--label",
        "blue",
    ]);
    assert_eq!(made.status, 0, "{}", made.stderr);
    let line = made.stdout.trim_end();
    assert!(line.starts_with("muster-invite-1:") && !line.contains('\n'), "{line}");
    assert!(!made.stderr.contains(line), "the line stands on stdout only");
    drop(musterd);

    let seen = bench.json(&["invite", "inspect", line]);
    assert_eq!(seen["org"]["name"], "acme");
    assert_eq!(seen["uses"], 5);
    assert_eq!(seen["labels"], serde_json::json!(["blue", "web"]));
    assert_eq!(seen["gateways"], serde_json::json!(["gw.example:8443"]));
    assert!(seen["expires"].as_str().unwrap().ends_with('Z'));
    let from_stdin = bench.run_with(&["invite", "inspect", "-", "--json"], line);
    assert_eq!(from_stdin.json["id"], seen["id"]);
}

#[test]
fn an_invite_in_a_file_is_for_its_user_alone_and_listed_and_cancelled() {
    let bench = Bench::new();
    bench.create_org();
    let _musterd = bench.musterd();
    let file = bench.path("invite.txt");
    let file = file.to_str().unwrap();
    let made = bench.json(&["invite", "create", "--out", file]);
    assert_eq!(made["file"], file);
    assert_eq!(made["invite"], Value::Null, "the line is in the file and nowhere else");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.json(&["invite", "inspect", file])["id"], made["id"]);
    bench.run(&["invite", "create", "--out", file]).failed_with("MU-7004", 2);

    let id = made["id"].as_str().unwrap();
    let listed = bench.json(&["invite", "list"]);
    assert_eq!((&listed["invites"][0]["id"], &listed["invites"][0]["status"]), (&made["id"], &"open".into()));
    bench.run(&["invite", "cancel", &id[..8]]).succeeded();
    assert_eq!(bench.json(&["invite", "list"])["invites"][0]["status"], "cancelled");
    bench.run(&["invite", "cancel", "ffffffff"]).failed_with("MU-2009", 65);
}

#[test]
fn revoke_says_who_has_applied_it() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    let victim = bench.admit(&musterd, "web-1", 40);
    bench.admit(&musterd, "web-2", 50);
    let revoked = bench.run(&["revoke", "web-1", "--timeout", "0s", "--reason", "stolen", "--json"]);
    assert_eq!(revoked.status, 75, "{}", revoked.stderr);
    assert!(revoked.stderr.contains("MU-2008"), "{}", revoked.stderr);
    assert_eq!(revoked.json["member"]["key"], victim.to_string());
    assert_eq!(revoked.json["complete"], false);
    assert_eq!(revoked.json["already_revoked"], false);
    assert!(revoked.json["accepted_at_unix_ns"].is_u64());
    assert_eq!(revoked.json["coverage"]["of"], 2);
    assert_eq!(revoked.json["coverage"]["missing"].as_array().unwrap().len(), 2);
    let shown = bench.json(&["member", "show", "web-1"]);
    assert_eq!((&shown["state"], &shown["revoked"]["reason"]), (&"revoked".into(), &"stolen".into()));

    let again = bench.run(&["revoke", "web-1", "--wait", "0", "--timeout", "0s", "--json"]);
    assert_eq!((again.status, &again.json["already_revoked"]), (0, &true.into()));
    assert_eq!(again.json["change"], revoked.json["change"], "nothing is signed twice");
}

#[test]
fn revoke_refuses_what_may_be_a_mistake() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    bench.admit(&musterd, "web", 40);
    bench.admit(&musterd, "web", 50);
    let vague = bench.run(&["revoke", "web"]);
    vague.failed_with("MU-2007", 65);
    assert!(vague.stderr.matches("web").count() >= 3, "both are listed: {}", vague.stderr);
    bench.run(&["revoke", "nobody"]).failed_with("MU-2006", 65);
    let gateway = bench.run(&["revoke", "n1"]);
    gateway.failed_with("MU-7008", 2);
    assert!(gateway.stderr.contains("last gateway"), "{}", gateway.stderr);
    bench.run(&["revoke", "n1", "--yes", "--wait", "0"]).succeeded();
}

#[test]
fn a_change_that_did_not_arrive_is_sent_again_and_not_signed_again() {
    let bench = Bench::new();
    bench.create_org();
    let musterd = bench.musterd();
    bench.admit(&musterd, "web-1", 40);
    musterd.lose_next_submit();
    bench.run(&["revoke", "web-1", "--wait", "0"]).failed_with("MU-6001", 69);
    let signed = bench.path("admin/admin.age.signed/revokes-000000000000");
    let first = fs::read(&signed).unwrap();
    let again = bench.run(&["revoke", "web-1", "--wait", "0"]);
    again.succeeded();
    assert!(again.stderr.contains("sending again"), "{}", again.stderr);
    assert_eq!(fs::read(&signed).unwrap(), first);
    assert!(!bench.path("admin/admin.age.signed/revokes-000000000001").exists());
}

#[test]
fn without_a_musterd_an_admin_works_through_a_gateway() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.create_org_at(&listener.local_addr().unwrap().to_string());
    let musterd = bench.musterd();
    bench::gateway::start(&bench, &musterd, listener);
    bench.admit(&musterd, "web-1", 40);
    let away = |args: &[&str]| bench.run(&[args, &["--socket", "/nonexistent", "--json"]].concat());

    let invite = away(&["invite", "create"]);
    assert_eq!(invite.status, 0, "{}", invite.stderr);
    bench.run(&["invite", "inspect", invite.json["invite"].as_str().unwrap()]).succeeded();
    let revoked = away(&["revoke", "web-1", "--wait", "0"]);
    assert_eq!((revoked.status, &revoked.json["coverage"]["of"]), (0, &1.into()), "{}", revoked.stderr);
    assert_eq!((&revoked.json["told"], &revoked.json["others"]), (&0.into(), &0.into()));
    let members = away(&["member", "list", "--all"]);
    let states: Vec<_> = members.json["members"].as_array().unwrap().iter().map(|m| &m["state"]).collect();
    assert_eq!(states, ["good", "revoked"]);
    // What went by the gateway is where the musterd of a member finds it.
    assert_eq!(bench.json(&["member", "show", "web-1"])["state"], "revoked");
}

#[test]
fn an_admin_at_a_gateway_hears_how_many_it_told() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.create_org_at(&listener.local_addr().unwrap().to_string());
    let musterd = bench.musterd();
    bench::gateway::start(&bench, &musterd, listener);
    for (name, seed) in [("web-1", 40), ("web-2", 50), ("far-1", 60), ("far-2", 70)] {
        bench.admit(&musterd, name, seed);
    }
    let revoke = |name: &str| bench.run(&["revoke", name, "--wait", "0", "--socket", "/nonexistent"]);
    let revoked = revoke("web-1");
    revoked.succeeded();
    let told = "the gateway passed it on to 1 of 3 other members at once";
    assert!(revoked.stdout.contains(told), "{}", revoked.stdout);
    assert!(!revoked.stderr.contains("MU-2014"), "{}", revoked.stderr);
    let alone = revoke("web-2");
    alone.succeeded();
    assert!(alone.stdout.contains("to 0 of 2 other members"), "{}", alone.stdout);
    assert!(alone.stderr.contains("MU-2014"), "{}", alone.stderr);
}

#[test]
fn bad_input_is_refused_with_its_code() {
    let bench = Bench::new();
    for garbage in ["garbage", "muster-invite-1:", "muster-invite-1:AAAA", "muster-invite-9:AAAA"] {
        bench.run(&["invite", "inspect", garbage]).failed_with("MU-3001", 65);
        bench.run(&["join", garbage]).failed_with("MU-3001", 65);
    }
    bench.run(&["no-such-command"]).failed_with("MU-7004", 2);
    bench.run(&["status", "--no-such-option"]).failed_with("MU-7004", 2);
    bench.run(&["org", "create", "Acme", "--gateway", "gw:1"]).failed_with("MU-7004", 2);
    bench.run(&["org", "create", "acme", "--gateway", "https://gw"]).failed_with("MU-7004", 2);
    bench.run(&["explain", "MU-9999"]).failed_with("MU-7004", 2);
    bench.run(&["invite", "create"]).failed_with("MU-7004", 2);
    bench.run(&["member", "list"]).failed_with("MU-6001", 69);
    bench
        .run(&["org", "create", "acme", "--gateway", "gw:1", "--tpm", "/dev/null/none"])
        .failed_with("MU-4001", 69);
}

#[test]
fn the_admin_key_wants_its_passphrase_and_nobody_else_as_a_reader() {
    let bench = Bench::new();
    bench.create_org();
    let _musterd = bench.musterd();
    bench.with_passphrase("another passphrase").run(&["invite", "create"]).failed_with("MU-4007", 77);
    let silent = bench.with_passphrase("");
    silent.run(&["invite", "create", "--no-input"]).failed_with("MU-7004", 2);
    let key = bench.path("admin/admin.age");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    bench.run(&["invite", "create"]).failed_with("MU-4006", 78);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key").unwrap();
    bench.run(&["invite", "create"]).failed_with("MU-4010", 65);
}

#[test]
fn status_answers_by_its_exit_status() {
    let bench = Bench::new();
    let fresh = bench.run(&["status", "--check", "--json"]);
    assert_eq!((fresh.status, &fresh.json["health"]), (3, &"not-enrolled".into()));
    assert_eq!(bench.run(&["status"]).status, 78);
    bench.create_org();
    let down = bench.run(&["status", "--check", "--json"]);
    assert_eq!((down.status, &down.json["health"]), (2, &"down".into()));
    assert_eq!(bench.run(&["status"]).status, 69);
    let _musterd = bench.musterd();
    let up = bench.run(&["status", "--check", "--json"]);
    assert_eq!((up.status, &up.json["health"]), (0, &"healthy".into()));
    assert_eq!(up.json["org"]["name"], "acme");
    let screen = bench.run(&["status"]);
    assert!(screen.stdout.starts_with("acme"), "{}", screen.stdout);
}

#[test]
fn every_code_is_explained_offline() {
    let bench = Bench::new();
    let all = bench.json(&["explain"]);
    assert_eq!(all["codes"].as_array().unwrap().len(), identity::Code::ALL.len());
    let one = bench.json(&["explain", "mu-1403"]);
    assert_eq!((&one["code"], &one["title"]), (&"MU-1403".into(), &"revoked".into()));
}

#[test]
fn programs_get_one_object_on_stdout_also_for_a_failure() {
    let bench = Bench::new();
    for form in [&["--json"][..], &["-o", "json"]] {
        let failed = bench.run(&[&["member", "list"], form].concat());
        assert_eq!(failed.json["schema_version"], 1);
        assert_eq!(failed.json["error"]["code"], "MU-6001");
        assert!(failed.stderr.contains("MU-6001"));
    }
    let yaml = bench.run(&["explain", "MU-1403", "-o", "yaml"]);
    assert!(yaml.stdout.contains("code: MU-1403\n"), "{}", yaml.stdout);
    assert!(yaml.stdout.ends_with("schema_version: 1\ntitle: revoked\n"), "{}", yaml.stdout);
}
