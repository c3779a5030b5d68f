//! Programs of Debian's packages behind `muster expose`: reached by members that the policy lets use them, by
//! nobody else, and cut in the middle by a revocation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lab::{Daemon, Ready, org::Org};

use crate::{harness::code, services};

const PATIENCE: Duration = Duration::from_secs(20);

fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// sshd on the second machine, and what a client needs: its key, and where it keeps those of hosts.
fn sshd(org: &Org, dir: &Path) -> (Daemon, Vec<String>) {
    let (host, user) = (dir.join("host"), dir.join("user"));
    for key in [&host, &user] {
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(key)]);
    }
    let config = dir.join("sshd_config");
    fs::write(
        &config,
        format!(
            "ListenAddress 127.0.0.1:2222\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            host.display(),
            user.display()
        ),
    )
    .unwrap();
    fs::create_dir_all("/run/sshd").unwrap();
    let program = org.host(1).unwrap().program("/usr/sbin/sshd").args(["-D", "-e", "-f", text(&config)]);
    let daemon = program.spawn(&Ready::Line("Server listening".to_owned()), PATIENCE).unwrap();
    let options = [
        format!("-oIdentityFile={}", user.display()),
        "-oIdentitiesOnly=yes".to_owned(),
        format!("-oUserKnownHostsFile={}", dir.join("known_hosts").display()),
        "-oStrictHostKeyChecking=accept-new".to_owned(),
        "-oBatchMode=yes".to_owned(),
    ];
    (daemon, options.to_vec())
}

#[test]
fn sshd_is_reached_by_who_may_and_a_session_ends_with_the_machine_that_is_revoked()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = services::org(sandbox, 4);
        let dir = tempfile::tempdir().unwrap();
        let (_sshd, options) = sshd(&org, dir.path());
        services::expose(&org, 1, &["ssh", "--to", "127.0.0.1:2222"]).ok().unwrap();
        let ssh = |node: usize, command: &[&str]| {
            let ssh = org.program(node, "muster").unwrap().args(["ssh", "root@n2", "--"]).args(&options);
            ssh.args(command)
        };
        let said = ssh(2, &["echo", "hello"]).run(PATIENCE).unwrap().ok().unwrap();
        assert_eq!(said.stdout, "hello\n");
        // Debian's ssh hashes the names; this fails unless it knows this one.
        run("ssh-keygen", &["-F", "n2.demo.internal", "-f", text(&dir.path().join("known_hosts"))]);
        let refused = ssh(3, &["echo", "hello"]).run(PATIENCE).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(255), "MU-9001"));

        let endless = ["echo begun; while sleep 0.02; do echo more; done"];
        let ready = Ready::Line("begun".to_owned());
        let mut session = ssh(2, &endless).spawn(&ready, PATIENCE).unwrap();
        org.muster(0, &["revoke", "n3", "--wait", "1", "--yes"]).unwrap().ok().unwrap();
        let ended = session.wait(PATIENCE).unwrap();
        assert_eq!(ended.code(), Some(255), "{}", session.output());
        assert!(session.output().contains("MU-1403"), "{}", session.output());
    })
}

/// PostgreSQL on the second machine, on a socket in the file system only. It runs as no root.
fn postgres(org: &Org, dir: &Path) -> Daemon {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let bin: PathBuf = versions.map(|entry| entry.unwrap().path().join("bin")).max().unwrap();
    run("chown", &["postgres", text(dir)]);
    let data = dir.join("data");
    let (initdb, server) = (bin.join("initdb"), bin.join("postgres"));
    let as_postgres = ["-u", "postgres", "--"];
    let make = [&as_postgres[..], &[text(&initdb), "-A", "trust", "-N", "-D", text(&data)]].concat();
    run("runuser", &make);
    let settings = format!("unix_socket_directories={}", dir.display());
    let program = org.host(1).unwrap().program("runuser").args(as_postgres);
    let program =
        program.args([text(&server), "-D", text(&data), "-c", "listen_addresses=", "-c", &settings]);
    program.spawn(&Ready::Line("ready to accept connections".to_owned()), PATIENCE).unwrap()
}

#[test]
fn postgresql_is_reached_by_who_may_and_a_copy_ends_with_the_machine_that_is_revoked()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = services::org(sandbox, 4);
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let _postgres = postgres(&org, dir.path());
        let socket = format!("unix:{}", dir.path().join(".s.PGSQL.5432").display());
        services::expose(&org, 1, &["postgres", "--to", &socket]).ok().unwrap();
        let psql = |node: usize, question: &str| {
            let psql = org.host(node).unwrap().program("psql");
            psql.args(["-h", "127.0.0.1", "-p", "5433", "-U", "postgres", "-Atc", question])
        };
        let mut listening = services::connect(&org, 2, "postgres", 5433);
        let said = psql(2, "select 6 * 7").run(PATIENCE).unwrap().ok().unwrap();
        assert_eq!(said.stdout, "42\n");
        let mut refused = services::connect(&org, 3, "postgres", 5433);
        assert!(!psql(3, "select 1").run(PATIENCE).unwrap().status.success());
        refused.wait_for_line("MU-9001", PATIENCE).unwrap();

        let endless = psql(2, "copy (select generate_series(1, 1000000000000)) to stdout");
        let mut copy = endless.spawn(&Ready::Line("1000".to_owned()), PATIENCE).unwrap();
        org.muster(0, &["revoke", "n3", "--wait", "1", "--yes"]).unwrap().ok().unwrap();
        assert!(!copy.wait(PATIENCE).unwrap().success());
        listening.wait_for_line("MU-1403", PATIENCE).unwrap();
    })
}

#[test]
fn nginx_learns_from_the_proxy_protocol_which_machine_asks() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = services::org(sandbox, 3);
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display();
        let config = dir.path().join("nginx.conf");
        fs::write(
            &config,
            format!(
                "daemon off; worker_processes 1; pid {place}/pid; error_log stderr notice; user root;\nevents {{}}\n\
                 http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;\n\
                 fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
                 server {{ listen 127.0.0.1:8080 proxy_protocol;\n\
                 location / {{ return 200 \"you are $proxy_protocol_addr\"; }} }} }}\n"
            ),
        )
        .unwrap();
        let nginx = org.host(1).unwrap().program("nginx").args(["-p", text(dir.path()), "-c", text(&config)]);
        let _nginx = nginx.spawn(&Ready::Line("start worker process ".to_owned()), PATIENCE).unwrap();
        services::expose(&org, 1, &["web", "--to", "127.0.0.1:8080", "--proxy-protocol"]).ok().unwrap();
        let asked = org.program(2, "muster").unwrap().args(["connect", "n2", "web"]);
        let said = asked.input("GET / HTTP/1.0\r\n\r\n").run(PATIENCE).unwrap().ok().unwrap();
        let shown = org.ask(0, &["member", "show", "n3"]).unwrap();
        let expected = format!("you are {}", shown["address"].as_str().unwrap());
        assert!(said.stdout.ends_with(&expected), "{}", said.stdout);
    })
}
