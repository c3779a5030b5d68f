//! The way to a gateway as another member's machine sees it.

use std::{io::Read as _, net::TcpListener, process::Stdio, thread, time::Duration};

use lab::{Daemon, Ready, org::Org};
use serde_json::Value;

use crate::{
    harness::{self, code},
    services::{expose, org},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// n2 answers as with muster-diagnose.socket.
fn answering(org: &Org) -> Daemon {
    let host = org.host(1).unwrap();
    let socket = host.dir().join("diagnose.sock").display().to_string();
    let mut holder =
        host.program("systemd-socket-activate").args(["--accept", "--inetd", "--listen", &socket]);
    for (name, value) in lab::org::environment(host.dir()) {
        holder = holder.args([format!("--setenv={name}={}", value.display())]);
    }
    let holder = holder.arg(harness::programs(&[]).dir.join("muster")).args(["debug", "answer"]);
    let holder = holder.spawn(&Ready::Line("Listening on".to_owned()), PATIENCE).unwrap();
    expose(org, 1, &["diagnose", "--to", &format!("unix:{socket}")]).ok().unwrap();
    holder
}

fn look(org: &Org, from: usize, arguments: &[&str]) -> (Option<i32>, Value) {
    let command = [&["--json", "debug", "connection", "--from", "n2"], arguments].concat();
    let ended = org.program(from, "muster").unwrap().args(command).run(PATIENCE).unwrap();
    (ended.status.code(), serde_json::from_str(&ended.stdout).unwrap())
}

#[test]
fn a_member_that_a_policy_lets_sees_how_another_machine_reaches_the_gateway() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let org = org(sandbox, 3);
        let off = org.muster(2, &["debug", "connection", "--from", "n2"]).unwrap();
        assert_eq!(code(&off), "MU-1408", "nobody answers who was not told to");
        assert!(off.stderr.contains("systemctl enable --now muster-diagnose.socket"), "{}", off.stderr);
        let _answering = answering(&org);
        let refused = org.muster(0, &["debug", "connection", "--from", "n2"]).unwrap();
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-9001"), "by the policy");

        let well = org.muster(2, &["debug", "connection", "--from", "n2"]).unwrap().ok().unwrap();
        println!("{}", well.stdout);
        assert!(well.stdout.starts_with("connection from n2 to "), "{}", well.stdout);
        assert!(well.stdout.contains("membership: n2 is a member of demo"), "{}", well.stdout);
        let gateway = format!("{}:{}", org.host(0).unwrap().address(), lab::org::GATEWAY_PORT);
        let (exit, found) = look(&org, 2, &[&gateway]);
        assert_eq!((exit, &found["from"]["name"]), (Some(0), &Value::from("n2")), "{found}");
        let (exit, found) = look(&org, 2, &["--as-preboot"]);
        assert_eq!((exit, &found["ok"]), (Some(0), &Value::from(true)), "{found}");

        // It is sent nowhere else, and trusts nobody else.
        let port = format!("{}:22", org.host(0).unwrap().address());
        for other in [port.as_str(), "127.0.0.1:443", "192.0.2.1:443"] {
            let (exit, found) = look(&org, 2, &[other]);
            assert_eq!((exit, &found["error"]["code"]), (Some(77), &Value::from("MU-7046")), "{found}");
        }
        let file = org.host(2).unwrap().dir().join("any.pem").display().to_string();
        let usage = org.muster(2, &["debug", "connection", "--from", "n2", "--org-ca", &file]).unwrap();
        assert_eq!(usage.status.code(), Some(2));

        // Between n2 and the gateway nothing passes; from n3 all is well.
        let side = |node: usize| [org.host(node).unwrap().namespace()];
        org.lab().bridge().cut(&side(1), &side(0)).unwrap();
        let (exit, found) = look(&org, 2, &[]);
        let failed =
            found["checks"].as_array().unwrap().iter().find(|check| check["status"] == "fail").unwrap();
        assert_eq!((exit, &failed["stage"]), (Some(1), &Value::from("tcp")), "{found}");
        println!("{failed:#}");
        assert_eq!(org.ask(2, &["debug", "connection"]).unwrap()["ok"], true);
    })
}

#[test]
fn who_asks_for_a_look_and_says_nothing_holds_the_place_for_seconds_only() {
    let mut answering = std::process::Command::new(harness::programs(&[]).dir.join("muster"))
        .args(["debug", "answer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _silent = answering.stdin.take();
    let mut said = String::new();
    answering.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(answering.wait().unwrap().success());
    assert!(said.contains("no question came"), "{said}");
}

#[test]
fn a_member_that_answers_nonsense_is_not_believed() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 3);
        let at = "127.0.0.1:7000";
        let listener = org.host(1).unwrap().namespace().run(|| TcpListener::bind(at)).unwrap().unwrap();
        let answers: [&[u8]; 7] = [
            b"",
            // A refusal that would have its reader leave the org.
            b"{\"refused\":{\"code\":\"MU-1403\",\"seen\":\"\"}}",
            b"hello",
            b"{\"looked\":{}}",
            b"{\"looked\":{\"address\":\"\",\"trust\":{\"source\":\"\",\"anchors\":[]},\"checks\":[]}}",
            b"{\"looked\":[\"\",{\"source\":\"\",\"anchors\":[]},[{\"stage\":\"tcp\",\"status\":\"ok\",\"code\":null,\"seen\":\"\"}]]}",
            &[b'['; 300 * 1024],
        ];
        let answers = answers.map(<[u8]>::to_vec);
        let count = answers.len();
        let serving = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // Else the end of the connection would overtake the answer.
                stream.read_to_end(&mut Vec::new()).unwrap();
                // The rest of one that is too long is not read.
                let _cut = std::io::Write::write_all(&mut stream, &answer);
            }
        });
        expose(&org, 1, &["diagnose", "--to", at]).ok().unwrap();
        for _ in 0..count {
            let said = org.muster(2, &["debug", "connection", "--from", "n2"]).unwrap();
            let is_its_own_word = said.stderr.starts_with("error: MU-7045 ");
            assert_eq!((said.status.code(), is_its_own_word), (Some(75), true), "{said:?}");
        }
        serving.join().unwrap();
    })
}
