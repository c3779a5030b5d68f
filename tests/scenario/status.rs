//! What an operator is told is so.

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
