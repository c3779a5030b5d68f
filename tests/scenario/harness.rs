//! Orgs for the scenarios, and reading what the programs say.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use age::{armor::ArmoredReader, scrypt, secrecy::SecretString};
use control::local::{Answer, Request};
use lab::{
    Ended, Sandbox,
    org::{Org, OrgError, PASSPHRASE, Programs, wait_until},
};
use serde_json::Value;

/// Machines with nothing on them yet. Key files are quick to open and weak.
pub(crate) fn machines(sandbox: &Sandbox, nodes: usize) -> Org {
    machines_with(sandbox, nodes, &[])
}

/// The same, with settings from the environment.
pub(crate) fn machines_with(sandbox: &Sandbox, nodes: usize, env: &[(&str, &str)]) -> Org {
    Org::build(sandbox, nodes, programs(env), None).unwrap()
}

/// The programs built beside this test.
pub(crate) fn programs(env: &[(&str, &str)]) -> Programs {
    let own = std::env::current_exe().unwrap();
    let mut programs = Programs::in_dir(own.ancestors().nth(2).unwrap()).unwrap();
    let weak = ("MUSTER_TEST_WORK_FACTOR", "2");
    programs.env = env.iter().chain([&weak]).map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    programs
}

/// An org in which the first `members` machines know each other.
pub(crate) fn org(sandbox: &Sandbox, machines: usize, members: usize) -> Org {
    org_with(sandbox, machines, members, &[])
}

/// The same, with settings from the environment.
pub(crate) fn org_with(sandbox: &Sandbox, machines: usize, members: usize, env: &[(&str, &str)]) -> Org {
    let mut org = machines_with(sandbox, machines, env);
    org.found().unwrap();
    for node in 1..members {
        org.join(node).unwrap();
    }
    know_each_other(&org, members);
    org
}

/// As an administrator prepares a machine that is to be a gateway; musterd sees it when it starts.
pub(crate) fn configure_gateway(org: &Org, node: usize) {
    let dir = org.host(node).unwrap().dir();
    let drop_ins = dir.join("etc/muster.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    let socket = format!("[gateway]\nsocket = \"{}/run-gateway/gateway.sock\"\n", dir.display());
    fs::write(drop_ins.join("gateway.toml"), socket).unwrap();
}

/// Waits until the first `members` machines list each other, with addresses.
pub(crate) fn know_each_other(org: &Org, members: usize) {
    for node in 0..members {
        wait_until("every machine knows every other", || {
            let list = members_on(org, node)?;
            let reachable = |m: &Value| {
                m["this_machine"] == true || m["endpoints"].as_array().is_some_and(|e| !e.is_empty())
            };
            Ok((list.len() == members && list.iter().all(reachable)).then_some(()))
        })
        .unwrap();
    }
}

/// Members in good standing, as a machine lists them.
pub(crate) fn members_on(org: &Org, node: usize) -> Result<Vec<Value>, OrgError> {
    Ok(org.ask(node, &["member", "list"])?["members"].as_array().cloned().unwrap_or_default())
}

/// What a machine says of a member: its first entry of that name, by standing.
pub(crate) fn member(org: &Org, node: usize, name: &str, state: &str) -> Option<Value> {
    let list = org.ask(node, &["member", "list", "--all"]).unwrap();
    let list = list["members"].as_array().unwrap();
    list.iter()
        .find(|m| m["name"].as_str().is_some_and(|n| n.starts_with(name)) && m["state"] == state)
        .cloned()
}

/// Waits until a machine says so of a member.
pub(crate) fn wait_for_state(org: &Org, node: usize, name: &str, state: &str) -> Value {
    wait_until(&format!("{} has {name} as {state}", Org::name(node)), || Ok(member(org, node, name, state)))
        .unwrap()
}

/// The code a program ended with, as it told people.
pub(crate) fn code(ended: &Ended) -> String {
    let text = format!("{}{}", ended.stderr, ended.stdout);
    let word = text.split_whitespace().rfind(|word| word.starts_with("MU-"));
    word.unwrap_or(&text).trim_end_matches([':', ',']).to_owned()
}

/// How an invite stands on a machine.
pub(crate) fn invites(org: &Org, node: usize) -> Vec<Value> {
    org.ask(node, &["invite", "list"]).unwrap()["invites"].as_array().unwrap().clone()
}

/// Targets for `muster-probe`.
pub(crate) fn targets(org: &Org, nodes: &[usize]) -> Value {
    org.targets(nodes[0], nodes).unwrap()
}

/// The org's id.
pub(crate) fn id(org: &Org, node: usize) -> String {
    org.ask(node, &["status"]).unwrap()["org"]["id"].as_str().unwrap().to_owned()
}

/// One line of `muster-probe`.
pub(crate) struct Knock {
    pub(crate) began_ns: u64,
    pub(crate) target: String,
    pub(crate) is_session: bool,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
}

/// What the probe on a machine saw until now, in the order of beginnings.
pub(crate) fn knocks(org: &Org, node: usize) -> Vec<Knock> {
    let log = org.log(node, "muster-probe").unwrap();
    let mut knocks: Vec<_> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["t_unix_ns"].is_u64())
        .map(|line| Knock {
            began_ns: line["t_unix_ns"].as_u64().unwrap(),
            target: line["target"].as_str().unwrap().to_owned(),
            is_session: line["kind"] == "session",
            outcome: line["outcome"].as_str().unwrap().to_owned(),
            code: line["code"].as_str().map(str::to_owned),
        })
        .collect();
    knocks.sort_by_key(|knock| knock.began_ns);
    knocks
}

/// Waits until every target has served the probe and holds a session with it.
pub(crate) fn wait_until_served(org: &Org, node: usize, targets: &[usize]) {
    wait_until("the probe is served everywhere", || {
        let knocks = knocks(org, node);
        let served = |name: &str, session: bool| {
            knocks.iter().any(|k| k.target == name && k.is_session == session && k.outcome == "ok")
        };
        let all = targets.iter().all(|&t| served(&Org::name(t), true) && served(&Org::name(t), false));
        Ok(all.then_some(()))
    })
    .unwrap();
}

/// Waits until the last 50 fresh handshakes with each target have failed.
pub(crate) fn wait_until_refused(org: &Org, node: usize, targets: &[usize]) {
    wait_until("the probe is refused everywhere", || {
        let knocks = knocks(org, node);
        let refused = |name: &str| {
            let fresh: Vec<_> = knocks.iter().filter(|k| k.target == name && !k.is_session).collect();
            fresh.len() > 50 && fresh.iter().rev().take(50).all(|k| k.outcome != "ok")
        };
        Ok(targets.iter().all(|&t| refused(&Org::name(t))).then_some(()))
    })
    .unwrap();
}

/// The code with which a target ended the probe's session.
pub(crate) fn session_ended_with(org: &Org, node: usize, target: usize) -> Option<String> {
    let name = Org::name(target);
    let knocks = knocks(org, node);
    let opened = knocks.iter().position(|k| k.target == name && k.is_session && k.outcome == "ok")?;
    let mut after = knocks.iter().skip(opened).filter(|k| k.target == name && k.is_session);
    after.find(|k| k.outcome != "ok")?.code.clone()
}

/// What lies in an operator's key file.
pub(crate) fn key_file(path: &Path) -> String {
    let file = fs::read(path).unwrap();
    let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(&file[..])).unwrap();
    let identity = scrypt::Identity::new(SecretString::from(PASSPHRASE.to_owned()));
    let mut text = String::new();
    decryptor.decrypt(std::iter::once(&identity as _)).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Asks a machine's musterd on its control socket.
pub(crate) fn control(org: &Org, node: usize, request: &Request) -> Answer {
    org.control(node, request).unwrap()
}

/// Waits for something that may take as long as the network does.
pub(crate) fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
