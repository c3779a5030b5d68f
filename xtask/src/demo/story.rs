//! The story: an org comes to be, its machines talk, one is stolen and shut out.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use lab::{
    Sandbox,
    org::{Org, Programs, wait_until},
    probe::{self, Seen, age, percentile, signed_ms},
};
use serde_json::{Value, json};

use super::{Outcome, screen::Screen};
use crate::machine::Failure;

/// How long refusals are watched after the last one set in.
const WATCHED: Duration = Duration::from_secs(2);
/// How long a demo waits for a refusal before it says that there is none.
const GIVE_UP: Duration = Duration::from_secs(8);

pub(crate) fn tell(
    sandbox: &Sandbox,
    nodes: usize,
    programs: Programs,
    keep: Option<PathBuf>,
) -> Result<Outcome, Failure> {
    let screen = Screen::new();
    screen.step(&format!("{nodes} machines, each with a network and a TPM of its own"));
    let mut cluster = Org::build(sandbox, nodes, programs, keep)?;
    if !rustix::process::geteuid().is_root() || is_user_namespace() {
        screen.line("without root: separate local users cannot be shown; everything else is the same");
    }

    screen.step("n1 founds the org `demo` and is its gateway; the others join with an invite each");
    cluster.found()?;
    for node in 1..nodes {
        cluster.join(node)?;
    }
    let members = everybody_knows_everybody(&cluster)?;
    show_members(&screen, &members);

    screen.step("every two of them link: conn_auth inside WireGuard");
    let sessions_before = link_all(&cluster, &screen)?;

    let (gateway, admin, victim) = (0, 1, nodes - 1);
    let others: Vec<usize> = (admin..victim).collect();
    let victim_name = Org::name(victim);
    screen.step(&format!("{victim_name} is stolen: the thief runs a program of his own with its keys"));
    cluster.move_admin(gateway, admin)?;
    cluster.stop_gateway(gateway)?;
    cluster.stop_musterd(gateway)?;
    cluster.stop_musterd(victim)?;
    screen
        .line("the gateway and its musterd are stopped; n1's keys serve as control: they are never revoked");
    let org = text(&cluster.ask(admin, &["status"])?, &["org", "id"])?;
    let targets = cluster.targets(admin, &others)?;
    let (thief, control) = (cluster.probe(victim, &org, &targets)?, cluster.probe(gateway, &org, &targets)?);
    for node in [victim, gateway] {
        wait_until("both probes are served by every machine", || {
            let seen = probe::read(&cluster.log(node, "muster-probe")?);
            let served = seen.values().filter(|s| s.session_opened && s.accepted() > 3).count();
            Ok((served == others.len()).then_some(()))
        })?;
    }
    screen.line(&format!(
        "a fresh handshake to each of {} machines every 10 ms, one session held open to each",
        others.len()
    ));

    screen.step(&format!("an admin on {} revokes {victim_name}", Org::name(admin)));
    let wait = others.len().to_string();
    let arguments = ["revoke", &victim_name, "--wait", &wait, "--reason", "stolen", "--yes"];
    let revoked = cluster.ask(admin, &arguments)?;
    let fsync = revoked.get("accepted_at_unix_ns").and_then(Value::as_u64).map(u128::from);
    let fsync = fsync.ok_or_else(|| found(format!("no time in {revoked}")))?;
    let covered = |name: &str| revoked.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    let (applied, of) = (covered("/coverage/applied"), covered("/coverage/of"));
    screen.line(&format!("applied and stored by {applied} of {of}; missing: {}", missing(&revoked)));

    let (seen, control_seen) = watch(&cluster, victim, gateway)?;
    drop((thief, control));
    let verdict = judge(&screen, fsync, &seen, &control_seen, others.len());

    screen.step("the gateway comes back, hears of it from the others, and tells the thief why");
    cluster.start_musterd(gateway)?;
    cluster.start_gateway(gateway)?;
    let heard = caught_up(&cluster, gateway, &victim_name)?;
    let booted = cluster.boot(victim)?;
    let code =
        booted.stderr.split_whitespace().find(|word| word.starts_with("MU-")).unwrap_or("-").to_owned();
    let refused_at_gateway = booted.status.code() == Some(77) && code.starts_with("MU-1403");
    screen.check(heard, "the gateway's list has the revocation");
    screen.check(
        refused_at_gateway,
        &format!("{victim_name} is refused at the gateway: {}", last_line(&booted.stderr)),
    );

    let held = verdict.held && heard && refused_at_gateway;
    let json = json!({
        "schema_version": 1,
        "nodes": nodes,
        "enrolled": members.len(),
        "custody": custody(&members),
        "sessions_before": sessions_before,
        "revoked": victim_name,
        "coverage": { "applied": applied, "of": of },
        "live_sessions_closed": verdict.sessions_closed,
        "refused_everywhere": verdict.refused_everywhere,
        "control_served": verdict.control_served,
        "gateway_refusal": code.trim_end_matches(':'),
        "revoke_to_refused_ms": { "p50": verdict.p50_ms, "p99": verdict.p99_ms },
        "elapsed_s": (screen.elapsed_s() * 10.0).round() / 10.0,
    });
    screen.step(if held { "done" } else { "it did not hold" });
    Ok(Outcome { held, json })
}

fn everybody_knows_everybody(cluster: &Org) -> Result<Vec<Value>, Failure> {
    let mut members = Vec::new();
    for node in 0..cluster.nodes() {
        members = wait_until("every machine knows every other", || {
            let list = array(&cluster.ask(node, &["member", "list"])?, "members");
            let reachable = |m: &Value| {
                m.get("this_machine") == Some(&Value::Bool(true))
                    || m.get("endpoints").and_then(Value::as_array).is_some_and(|e| !e.is_empty())
            };
            Ok((list.len() == cluster.nodes() && list.iter().all(reachable)).then_some(list))
        })?;
    }
    members.sort_by_key(|m| m.get("name").map(Value::to_string));
    Ok(members)
}

fn show_members(screen: &Screen, members: &[Value]) {
    for member in members {
        let field = |name: &str| member.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        screen.line(&format!(
            "{:<4} {}  {}  {}",
            field("name"),
            field("key").chars().take(8).collect::<String>(),
            field("address"),
            field("key_storage")
        ));
    }
}

fn link_all(cluster: &Org, screen: &Screen) -> Result<usize, Failure> {
    let mut sessions = 0;
    for node in 0..cluster.nodes() {
        for other in (node + 1)..cluster.nodes() {
            cluster.ask(node, &["link", &Org::name(other)])?;
        }
    }
    for node in 0..cluster.nodes() {
        let list = array(&cluster.ask(node, &["session", "list"])?, "sessions");
        let with = |action: &str| {
            let mut names: Vec<String> = list
                .iter()
                .filter(|s| s.get("action").and_then(Value::as_str) == Some(action))
                .filter_map(|s| Some(s.get("name")?.as_str()?.to_owned()))
                .collect();
            names.sort();
            names.dedup();
            names.join(" ")
        };
        screen.line(&format!(
            "{:<4} links {:<24} in step with {}",
            Org::name(node),
            with("link"),
            with("sync")
        ));
        sessions += list.len();
    }
    // Each session stands in the lists of both ends.
    Ok(sessions / 2)
}

type Log = std::collections::BTreeMap<String, Seen>;

/// Watches until every machine has refused for [`WATCHED`], or nobody seems to.
fn watch(cluster: &Org, victim: usize, gateway: usize) -> Result<(Log, Log), Failure> {
    let start = Instant::now();
    loop {
        let seen = probe::read(&cluster.log(victim, "muster-probe")?);
        let long_enough =
            |s: &Seen| s.refused_from().is_some_and(|from| s.since(from).1 > 0 && age(from) > WATCHED);
        if seen.values().all(long_enough) || start.elapsed() > GIVE_UP {
            let control = probe::read(&cluster.log(gateway, "muster-probe")?);
            return Ok((seen, control));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Verdict {
    held: bool,
    refused_everywhere: bool,
    control_served: bool,
    sessions_closed: usize,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

fn judge(screen: &Screen, fsync: u128, seen: &Log, control: &Log, targets: usize) -> Verdict {
    let mut after_ms = Vec::new();
    let mut sessions_closed = 0;
    for (name, seen) in seen {
        let refused = seen.refused_from().filter(|from| age(*from) > WATCHED);
        let ms = refused.map(|from| signed_ms(fsync, from));
        let closed = seen.session_ended.as_ref().and_then(|(_, code)| code.clone());
        sessions_closed += usize::from(closed.as_deref() == Some("MU-1403"));
        let text = match ms {
            Some(ms) => format!(
                "{name}: {} accepted before; refused {:.1} ms {} the revocation was on the admin's disk, then silence ({} unanswered); session ended with {}",
                seen.accepted(),
                ms.abs(),
                if ms < 0.0 { "before" } else { "after" },
                seen.silences,
                closed.as_deref().unwrap_or("-")
            ),
            None => format!("{name}: still served"),
        };
        screen.check(ms.is_some() && closed.is_some(), &text);
        after_ms.extend(ms);
    }
    let control_served = control.len() == targets
        && control.values().all(|s| {
            let (ok, all) = s.since(fsync);
            ok > 0 && ok == all && s.session_ended.is_none()
        });
    let served: usize = control.values().map(|s| s.since(fsync).0).sum();
    screen.check(
        control_served,
        &format!("control: n1's keys were accepted {served} times since, and never refused"),
    );
    let refused_everywhere = after_ms.len() == targets;
    Verdict {
        held: refused_everywhere && control_served && sessions_closed == targets,
        refused_everywhere,
        control_served,
        sessions_closed,
        p50_ms: percentile(&after_ms, 50),
        p99_ms: percentile(&after_ms, 99),
    }
}

fn caught_up(cluster: &Org, node: usize, victim: &str) -> Result<bool, Failure> {
    let caught_up = wait_until("the gateway hears of the revocation", || {
        let shown = cluster.ask(node, &["member", "show", victim])?;
        let status = shown.pointer("/member/state").or_else(|| shown.get("state")).and_then(Value::as_str);
        Ok((status == Some("revoked")).then_some(()))
    });
    Ok(caught_up.is_ok())
}

fn custody(members: &[Value]) -> Value {
    let mut counts = serde_json::Map::new();
    for member in members {
        let storage = member.get("key_storage").and_then(Value::as_str).unwrap_or("unknown");
        let count = counts.get(storage).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(storage.to_owned(), json!(count + 1));
    }
    Value::Object(counts)
}

fn missing(revoked: &Value) -> String {
    let names: Vec<&str> = revoked
        .pointer("/coverage/missing")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|m| m.get("name")?.as_str())
        .collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn array(value: &Value, name: &str) -> Vec<Value> {
    value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn text(value: &Value, path: &[&str]) -> Result<String, Failure> {
    let found_at = path.iter().try_fold(value, |v, key| v.get(key)).and_then(Value::as_str);
    found_at.map(str::to_owned).ok_or_else(|| found(format!("no {} in {value}", path.join("."))))
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| line.contains("MU-")).unwrap_or_default().trim().to_owned()
}

/// Whether root here is somebody else outside.
fn is_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim_end().ends_with("4294967295"))
}

fn found(why: impl std::fmt::Display) -> Failure {
    Failure::Found(why.to_string())
}
