//! What an operator is told is so.

use std::{
    net::{Ipv6Addr, UdpSocket},
    time::Duration,
};

use lab::{
    Signal,
    org::{Org, wait_until},
};

use crate::harness::{self, code};

fn check(org: &Org, node: usize) -> Option<i32> {
    org.muster(node, &["status", "--check"]).unwrap().status.code()
}

#[test]
fn status_check_tells_healthy_lonely_down_and_not_enrolled_apart() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 2);
        assert_eq!(check(&org, 2), Some(3), "never joined");
        for node in [0, 1] {
            wait_until("healthy", || Ok((check(&org, node) == Some(0)).then_some(()))).unwrap();
        }
        org.stop_musterd(1).unwrap();
        assert_eq!(check(&org, 1), Some(2), "joined, and no daemon");
        org.stop_musterd(0).unwrap();
        org.start_musterd(1).unwrap();
        assert_eq!(check(&org, 1), Some(1), "nobody to be in step with");
        org.start_musterd(0).unwrap();
        wait_until("healthy again", || Ok((check(&org, 1) == Some(0)).then_some(()))).unwrap();
    })
}

#[test]
fn a_machine_that_does_not_answer_is_shown_suspect_or_silent_and_alive_once_it_does()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let answers = |org: &Org| org.ask(0, &["member", "show", "n2"]).unwrap()["liveness"].clone();
        wait_until("alive", || Ok((answers(&org) == "alive").then_some(()))).unwrap();
        let mut frozen = org.take_musterd(1).unwrap();
        frozen.signal(Signal::STOP);
        let unwell = |word: &serde_json::Value| word == "suspect" || word == "silent";
        wait_until("not answering", || Ok(unwell(&answers(&org)).then_some(()))).unwrap();
        assert_eq!(
            org.ask(0, &["member", "show", "n2"]).unwrap()["state"],
            "good",
            "it is a member all the same"
        );
        frozen.signal(Signal::CONT);
        wait_until("alive again", || Ok((answers(&org) == "alive").then_some(()))).unwrap();
    })
}

#[test]
fn a_refused_machine_is_told_a_reference_that_explains_itself() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        org.ask(0, &["revoke", "n2", "--wait", "1", "--reason", "lost", "--yes"]).unwrap();
        let refused = org.boot(1).unwrap();
        assert_eq!(code(&refused), "MU-1403");
        let reference = refused.stderr.split_once("ref ").unwrap().1.split_whitespace().next().unwrap();
        let why = org.ask(0, &["debug", "why", reference]).unwrap();
        assert_eq!(why["code"], "MU-1403");
        assert_eq!(why["name"], "n2");
        assert_eq!(why["action"], "boot");
        assert_ne!(org.muster(0, &["debug", "why", "0000000000000000"]).unwrap().status.code(), Some(0));
    })
}

#[test]
fn a_revoked_machine_says_who_told_it_so() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        org.ask(1, &["link", "n1"]).unwrap();
        org.ask(0, &["revoke", "n2", "--wait", "1", "--yes"]).unwrap();
        let problem = wait_until("a problem is shown", || {
            let status = org.ask(1, &["status"])?;
            Ok(status["problems"].get(0).cloned())
        })
        .unwrap();
        assert_eq!(
            (problem["code"].as_str(), problem["detail"].as_str()),
            (Some("MU-1403"), Some("n1 says so"))
        );
        assert_eq!(check(&org, 1), Some(1), "the change itself never reaches it: degraded, not down");
    })
}

#[test]
fn events_tell_what_became_of_members_and_names_follow_a_rename() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 3);
        let kinds = |org: &Org, of: &str| -> Vec<String> {
            let told = org.muster(0, &["events", "-o", "json"]).unwrap().ok().unwrap().stdout;
            let events = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let of = events.filter(|event| event["name"] == of);
            of.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
        };
        org.muster(0, &["link", "n3"]).unwrap().ok().unwrap();
        wait_until("the link", || Ok(kinds(&org, "n3").contains(&"link-up".to_owned()).then_some(())))
            .unwrap();
        assert!(kinds(&org, "n2").contains(&"member-joined".to_owned()));
        org.ask(0, &["member", "rename", "n3", "db-1", "--wait", "1"]).unwrap();
        org.ask(0, &["member", "label", "db-1", "add", "rack-2", "--wait", "1"]).unwrap();
        assert!(kinds(&org, "db-1").contains(&"member-changed".to_owned()));

        let hosts = org.state(1).unwrap().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        let file = hosts.to_str().unwrap();
        for _ in 0..2 {
            org.muster(1, &["names", "hosts", "--write", file]).unwrap().ok().unwrap();
        }
        let written = std::fs::read_to_string(&hosts).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        let name = org.ask(0, &["org", "show"]).unwrap()["name"].as_str().unwrap().to_owned();
        assert_eq!(lines[..2], ["127.0.0.1 localhost", &format!("# BEGIN muster {name}")], "{written}");
        assert!(lines[2].ends_with(&format!("\tdb-1.{name}.internal")), "by name: {written}");
        assert_eq!(lines.len(), 6, "each member once: {written}");
        let inventory = org.ask(0, &["export", "ansible"]).unwrap();
        assert!(inventory["all"]["children"]["label_rack_2"]["hosts"]["db-1"].is_object(), "{inventory}");

        org.ask(0, &["revoke", "db-1", "--wait", "1", "--yes"]).unwrap();
        wait_until("told of the revocation", || {
            Ok(kinds(&org, "db-1").contains(&"member-revoked".to_owned()).then_some(()))
        })
        .unwrap();
        let hosts = org.ask(1, &["export", "hosts"]).unwrap();
        assert!(!hosts.to_string().contains("db-1"), "who is out has no name: {hosts}");
    })
}

#[test]
fn names_are_answered_from_the_member_list_and_end_with_a_revocation() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let config = org.state(0).unwrap().parent().unwrap().join("etc/muster.toml.d");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("names.toml"), format!("[names]\nlisten = '{NAMES}'\n")).unwrap();
        org.stop_musterd(0).unwrap();
        org.start_musterd(0).unwrap();
        let address = |name: &str| {
            org.ask(0, &["member", "show", name]).unwrap()["address"].as_str().unwrap().parse::<Ipv6Addr>()
        };
        let zone = org.ask(0, &["org", "show"]).unwrap()["name"].as_str().unwrap().to_owned();
        let resolve = |name: &str| {
            let ask = || look_up(name);
            org.host(0).unwrap().namespace().run(ask).unwrap()
        };
        let third = address("n3").unwrap();
        assert_eq!(resolve(&format!("n3.{zone}.internal")), (0, Some(third)));
        assert_eq!(resolve(&format!("N3.{zone}.INTERNAL")), (0, Some(third)), "case means nothing");
        assert_eq!(resolve(&format!("n9.{zone}.internal")), (NO_SUCH_NAME, None));
        assert_eq!(resolve("example.org"), (REFUSED, None), "another resolver's");
        let back = |address| org.host(0).unwrap().namespace().run(|| name_at(address)).unwrap();
        assert_eq!(back(third), (0, format!("n3.{zone}.internal")));
        assert_eq!(back(Ipv6Addr::from_bits(third.to_bits() ^ 1)), (NO_SUCH_NAME, String::new()));
        assert_eq!(back(Ipv6Addr::from_bits(third.to_bits() ^ (1 << 80))).0, REFUSED, "of another org");
        org.ask(0, &["member", "rename", "n3", "db-1", "--wait", "1"]).unwrap();
        assert_eq!(back(third), (0, format!("db-1.{zone}.internal")));
        assert_eq!(resolve(&format!("db-1.{zone}.internal")), (0, Some(third)));
        assert_eq!(resolve(&format!("n3.{zone}.internal")), (NO_SUCH_NAME, None));
        org.ask(0, &["revoke", "db-1", "--wait", "1", "--yes"]).unwrap();
        assert_eq!(resolve(&format!("db-1.{zone}.internal")), (NO_SUCH_NAME, None));
        assert_eq!(back(third).0, NO_SUCH_NAME, "nor has its address a name");
    })
}

/// Asks for AAAA, as a stub resolver does: the response code, and the address if there is one.
fn look_up(name: &str) -> (u8, Option<Ipv6Addr>) {
    let (code, record) = ask(name, AAAA);
    (code, record.and_then(|data| data.try_into().ok()).map(|octets: [u8; 16]| octets.into()))
}

/// Asks for PTR: the response code, and the name.
fn name_at(address: Ipv6Addr) -> (u8, String) {
    let digits = format!("{:032x}", address.to_bits());
    let reversed: Vec<String> = digits.chars().rev().map(String::from).collect();
    let (code, record) = ask(&format!("{}.ip6.arpa", reversed.join(".")), PTR);
    let (mut labels, mut left) = (Vec::new(), record.unwrap_or_default());
    while let Some((&length, rest)) = left.split_first().filter(|(length, _)| **length > 0) {
        let (label, rest) = rest.split_at(length.into());
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        left = rest.to_vec();
    }
    (code, labels.join("."))
}

/// The response code, and the data of the one record of that type if there is one.
fn ask(name: &str, kind: u8) -> (u8, Option<Vec<u8>>) {
    let mut question = vec![0x4d, 0x55, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, kind, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&question, NAMES).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(answer[..2], question[..2]);
    let record = answer[question.len()..length].to_vec();
    assert_eq!(answer[7], u8::from(!record.is_empty()));
    let data = (!record.is_empty()).then(|| {
        // The name, which ends in a zero or a pointer; then type and class, four bytes of TTL, and the length.
        let mut at = 0;
        while (1..0xc0).contains(&record[at]) {
            at += 1 + usize::from(record[at]);
        }
        let rest = &record[at + if record[at] == 0 { 1 } else { 2 }..];
        assert_eq!(rest[..4], [0, kind, 0, 1]);
        rest[10..10 + usize::from(rest[9])].to_vec()
    });
    (answer[3] & 0x0f, data)
}

const AAAA: u8 = 28;
const PTR: u8 = 12;

const NAMES: &str = "127.0.0.1:5355";
const NO_SUCH_NAME: u8 = 3;
const REFUSED: u8 = 5;
