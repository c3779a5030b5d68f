//! Programs that are killed in the middle of their work.

use std::{collections::BTreeSet, fs, path::Path, sync::mpsc, thread, time::Duration};

use control::local::{Answer, Request};
use identity::StatementId;
use lab::{
    Ready,
    org::{Org, wait_until},
};
use tpm_seal::{Custody, NodeSecrets, Tpm};

use crate::harness::{self, invites, member};

const PATIENCE: Duration = Duration::from_secs(20);

/// Makes invites on the first machine until one is not acknowledged; adds the ids of those that were, and
/// tells of each.
fn make_invites(org: &Org, acknowledged: &mut BTreeSet<String>, tell: &mpsc::Sender<()>) {
    loop {
        let ended = org.muster(0, &["--json", "--no-input", "invite", "create"]).unwrap();
        if !ended.status.success() {
            return;
        }
        let made: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        acknowledged.insert(made["id"].as_str().unwrap().to_owned());
        // After the kill nobody listens.
        tell.send(()).unwrap_or_default();
    }
}

fn held(org: &Org, node: usize) -> BTreeSet<String> {
    invites(org, node).iter().map(|invite| invite["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_musterd_keeps_every_change_it_acknowledged() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let mut acknowledged = BTreeSet::new();
        for round in 0..12 {
            let daemon = org.take_musterd(0).unwrap();
            thread::scope(|scope| {
                // Every round at another moment of the same work, which is under way: how fast it goes is the
                // machine's affair.
                let (tell, made) = mpsc::channel();
                let killer = scope.spawn(move || {
                    made.recv_timeout(PATIENCE).unwrap();
                    thread::sleep(Duration::from_millis(23 * round));
                    daemon.kill()
                });
                make_invites(&org, &mut acknowledged, &tell);
                killer.join().unwrap();
            });
            org.start_musterd(0).unwrap();
            let held = held(&org, 0);
            let lost: Vec<_> = acknowledged.difference(&held).collect();
            assert!(lost.is_empty(), "round {round}: {lost:?} were acknowledged and are gone");
        }
        assert!(acknowledged.len() >= 12, "only {} changes", acknowledged.len());
        // The author's chain goes on, and the other machine follows.
        org.invite(0, 1).unwrap();
        wait_until("the other machine has all", || Ok((held(&org, 1) == held(&org, 0)).then_some(())))
            .unwrap();
    })
}

#[test]
fn a_killed_member_keeps_every_change_it_confirmed() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let mut made = BTreeSet::new();
        for round in 0..6 {
            for number in 0..round + 2 {
                let invite = org.ask(0, &["invite", "create"]).unwrap();
                let id = invite["id"].as_str().unwrap().to_owned();
                if number == round {
                    wait_until("all but the last ones are confirmed", || {
                        Ok(is_confirmed(&org, &id).then_some(()))
                    })
                    .unwrap();
                }
                made.insert(id);
            }
            org.take_musterd(1).unwrap().kill();
            let confirmed: BTreeSet<_> = made.iter().filter(|id| is_confirmed(&org, id)).cloned().collect();
            // Alone, so that it has only what it kept.
            org.stop_musterd(0).unwrap();
            org.start_musterd(1).unwrap();
            let held = held(&org, 1);
            let lost: Vec<_> = confirmed.difference(&held).collect();
            assert!(lost.is_empty(), "round {round}: {lost:?} were confirmed and are gone");
            org.start_musterd(0).unwrap();
            wait_until("it catches up", || Ok((self::held(&org, 1) == self::held(&org, 0)).then_some(())))
                .unwrap();
        }
    })
}

/// Whether every member has said that it applied and stored a change.
fn is_confirmed(org: &Org, id: &str) -> bool {
    let change = StatementId::from_hex(id).unwrap();
    let answer = harness::control(org, 0, &Request::Coverage { change: change.into() });
    let Answer::Coverage(coverage) = answer else { panic!("{answer:?}") };
    coverage.missing.is_empty()
}

#[test]
fn a_join_that_is_cut_off_anywhere_is_completed_with_the_same_keys() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 1);
        // One use: a join that spent another would be refused.
        let invite = org.invite(0, 1).unwrap();
        let (line, state) = (org.host(1).unwrap().dir().join("invite"), org.state(1).unwrap());
        fs::write(&line, invite).unwrap();
        let mut sealed = None;
        let mut cuts = 0;
        loop {
            let preboot = org.preboot(1).unwrap().arg("--invite").arg(&line).args(["--name", "n2"]);
            let mut preboot = preboot.spawn(&Ready::AtOnce, PATIENCE).unwrap();
            // Not in time, or ended by itself in the moment before it would have been killed.
            let ended = preboot.wait(Duration::from_millis(cuts * 4)).ok().or_else(|| preboot.ended());
            if let Some(status) = ended {
                assert!(status.success(), "after {cuts} cuts: {}", preboot.output());
                break;
            }
            preboot.kill();
            // The machine lost its power, its TPM too.
            org.lab_mut().hosts_mut()[1].tpm_mut().unwrap().power_cycle().unwrap();
            let now = fs::read(state.join("keys/node.sealed")).ok();
            assert!(sealed.is_none() || sealed == now, "keys were made anew after {cuts} cuts");
            sealed = now;
            cuts += 1;
            assert!(cuts < 400, "a join does not come to its end");
        }
        assert!(cuts >= 6, "it was cut only {cuts} times");
        assert_eq!(sealed, fs::read(state.join("keys/node.sealed")).ok());
        assert_eq!(invites(&org, 0)[0]["used"], 1);
        let key = node_key(&org, 1, &state);
        org.start_musterd(1).unwrap();
        let joined = harness::wait_for_state(&org, 0, "n2", "good");
        assert_eq!(joined["key"], *key);
        harness::know_each_other(&org, 2);
    })
}

#[test]
fn a_gateway_killed_during_a_join_admits_once_when_it_is_back() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 1);
        for round in 0..8_usize {
            let invite = org.ask(0, &["invite", "create"]).unwrap();
            let (line, state) = (org.host(1).unwrap().dir().join("invite"), org.state(1).unwrap());
            fs::write(&line, invite["invite"].as_str().unwrap()).unwrap();
            let preboot = org.preboot(1).unwrap().arg("--invite").arg(&line);
            let mut preboot =
                preboot.args(["--name", &format!("r{round}")]).spawn(&Ready::AtOnce, PATIENCE).unwrap();
            preboot.wait_for_line("keys of node", PATIENCE).unwrap();
            thread::sleep(Duration::from_millis(u64::try_from(round / 2).unwrap() * 15));
            match round % 2 {
                0 => drop((org.take_gateway(0).unwrap().kill(), org.start_gateway(0).unwrap())),
                _ => drop((org.take_musterd(0).unwrap().kill(), org.start_musterd(0).unwrap())),
            }
            // It tries again by itself.
            assert!(preboot.wait(PATIENCE).unwrap().success(), "round {round}: {}", preboot.output());
            let spent = invites(&org, 0).into_iter().find(|i| i["id"] == invite["id"]).unwrap();
            assert_eq!(spent["used"], 1, "round {round}");
            let admitted = member(&org, 0, &format!("r{round}"), "good").unwrap();
            assert_eq!(admitted["key"], *node_key(&org, 1, &state), "round {round}");
            // The next round is another machine.
            fs::rename(&state, state.with_extension(round.to_string())).unwrap();
        }
    })
}

/// The key that a machine's TPM opens.
fn node_key(org: &Org, node: usize, state: &Path) -> String {
    let tpm = Tpm::open(org.host(node).unwrap().tpm().unwrap().device()).unwrap();
    let secrets: NodeSecrets = Custody::Tpm(tpm).load(&state.join("keys")).unwrap();
    secrets.identity.expose(|seed| identity::SecretKey::from_seed(seed).public().to_string())
}
