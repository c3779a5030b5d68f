//! `bench revoke`: from the moment a revocation is on its author's disk until every machine refuses the
//! revoked key and has ended its session, seen from outside: a program holds one session to each machine and
//! dials each anew, with the machine's own keys.

use std::time::Duration;

use lab::{
    org::{Org, Programs, wait_for},
    probe::{self, age, percentile, signed_ms},
};
use serde_json::{Value, json};

use super::Options;
use crate::{
    demo::{self, Profile},
    machine::{self, Failure},
};

/// Both ends of a dial take about a millisecond and a half of CPU; half of two cores is left to the org.
const CPU_US_PER_DIAL: u64 = 1_500;
/// What many machines on few cores get done in.
const PATIENCE: Duration = Duration::from_secs(120);
/// Until dials and sessions have found their pace.
const SETTLES: Duration = Duration::from_secs(3);
/// How long refusals are watched after the last one set in.
const WATCHED: Duration = Duration::from_secs(3);
const P99_MS_WANTED: f64 = 1_000.0;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let nodes = options.nodes.as_deref().unwrap_or("50").parse::<u16>();
    let Some(nodes) = nodes.ok().filter(|n| (3..=200).contains(n)).map(usize::from) else {
        return Err(Failure::Found("--nodes of revoke is one number, 3 to 200".to_owned()));
    };
    let interval_ms = options.interval_ms.unwrap_or_else(|| {
        // At full pace one core: 10 ms at least, and no finer than the machines can answer.
        (u64::try_from(nodes).unwrap_or(u64::MAX) * CPU_US_PER_DIAL / 1000).max(10)
    });
    let sandbox = demo::enter("bench revoke", Profile::Release)?;
    let programs = Programs::in_dir(machine::target_dir().join("release"))?;
    let mut org = Org::build(&sandbox, nodes, programs, None)?;
    eprintln!("{nodes} machines join");
    org.found()?;
    org.join_all()?;
    org.know_each_other(nodes, PATIENCE)?;
    let measured = measure(&mut org, options.loss, interval_ms)?;
    show(&measured, options.json);
    match measured.pointer("/refused_by").and_then(Value::as_u64) == u64::try_from(nodes - 1).ok() {
        true => Ok(()),
        false => Err(Failure::Found("somebody still serves the revoked key".to_owned())),
    }
}

fn measure(org: &mut Org, loss: u8, interval_ms: u64) -> Result<Value, Failure> {
    let victim = org.nodes() - 1;
    let targets: Vec<usize> = (0..victim).collect();
    org.stop_musterd(victim)?;
    let status = org.ask(0, &["status"])?;
    let id = status.pointer("/org/id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let thief = org.probe_every(interval_ms, victim, &id, &org.targets(0, &targets)?)?;
    let seen = || Ok(probe::read(&org.log(victim, "muster-probe")?));
    wait_for(PATIENCE, "the thief is served by every machine", || {
        let seen = seen()?;
        let served = seen.values().filter(|s| s.session_opened && s.accepted() > 2).count();
        Ok((served == targets.len()).then_some(()))
    })?;
    org.lab().bridge().lose(loss).map_err(|why| Failure::Machine(why.to_string()))?;
    std::thread::sleep(SETTLES);
    let served: usize = seen()?.values().map(probe::Seen::accepted).sum();
    eprintln!("a dial to each of {} machines every {interval_ms} ms: {served} were accepted", targets.len());

    let name = Org::name(victim);
    let arguments = ["--json", "--no-input", "revoke", &name, "--wait", "all", "--timeout", "60s", "--yes"];
    let ended = org.program(0, "muster")?.args(arguments).run(PATIENCE);
    let said = ended.map_err(|why| Failure::Found(why.to_string()))?.stdout;
    let said: Value = serde_json::from_str(&said).map_err(|why| Failure::Found(format!("{why}: {said}")))?;
    let fsync = said.get("accepted_at_unix_ns").and_then(Value::as_u64).map(u128::from);
    let fsync = fsync.ok_or_else(|| Failure::Found(format!("no time in {said}")))?;
    let refused = wait_for(PATIENCE, "every machine refuses the thief", || {
        let seen = seen()?;
        let settled = seen
            .values()
            .all(|s| s.refused_from().is_some_and(|from| age(from) > WATCHED && s.since(from).1 > 2));
        Ok(settled.then_some(seen))
    });
    // Who still serves shows in the figures.
    let log = refused.or_else(|_| seen())?;
    drop(thief);
    let after: Vec<f64> =
        log.values().filter_map(|s| s.refused_from()).map(|from| signed_ms(fsync, from)).collect();
    let closed: Vec<f64> =
        log.values().filter_map(|s| s.session_ended.as_ref()).map(|(at, _)| signed_ms(fsync, *at)).collect();
    let by_word = log
        .values()
        .filter(|s| s.session_ended.as_ref().is_some_and(|(_, code)| code.as_deref() == Some("MU-1403")));
    Ok(json!({
        "schema_version": 1,
        "bench": "revoke",
        "nodes": org.nodes(),
        "loss_percent": loss,
        "probe_interval_ms": interval_ms,
        "refused_by": after.len(),
        "revoke_to_refused_ms": { "p50": percentile(&after, 50), "p99": percentile(&after, 99) },
        "sessions_closed": closed.len(),
        "sessions_closed_with_a_word": by_word.count(),
        "session_closed_ms": { "p50": percentile(&closed, 50), "p99": percentile(&closed, 99) },
        "last_session_closed_ms": percentile(&closed, 100),
        "coverage": {
            "applied": said.pointer("/coverage/applied"),
            "of": said.pointer("/coverage/of"),
            "missing": said.pointer("/coverage/missing"),
            "after_ms": said.get("waited_ms"),
        },
        "how": format!(
            "release builds, one namespace and TPM emulator each, no delay; from the author's fsync to the first of \
             the unanswered or refused dials, one every {interval_ms} ms to each machine: that is how fine the \
             refusal is known. The end of a held session is known as it happens."
        ),
    }))
}

fn show(measured: &Value, json: bool) {
    let at = |path: &str| measured.pointer(path).map(Value::to_string).unwrap_or_default();
    println!("machines {}, {} % of frames lost", at("/nodes"), at("/loss_percent"));
    println!("refused by                   {}", at("/refused_by"));
    let p99 = measured.pointer("/revoke_to_refused_ms/p99").and_then(Value::as_f64);
    let verdict = if p99.is_some_and(|ms| ms < P99_MS_WANTED) { "" } else { ": missed" };
    println!("fsync to refusal, p50        {} ms", at("/revoke_to_refused_ms/p50"));
    println!(
        "fsync to refusal, p99        {} ms (wanted < {P99_MS_WANTED} without loss{verdict})",
        at("/revoke_to_refused_ms/p99")
    );
    println!("session closed, p50          {} ms", at("/session_closed_ms/p50"));
    println!("last session closed          {} ms", at("/last_session_closed_ms"));
    println!("applied and stored by        {} of {}", at("/coverage/applied"), at("/coverage/of"));
    println!("{}", measured.get("how").and_then(Value::as_str).unwrap_or_default());
    if json {
        println!("{measured}");
    }
}
