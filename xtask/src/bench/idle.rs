//! `bench idle`: what a musterd takes that has nothing to do, with many peers.

use std::{fs, thread, time::Duration};

use lab::{
    Daemon,
    org::{Org, Programs},
    probe::percentile,
};
use serde_json::json;

use super::Options;
use crate::{
    demo::{self, Profile},
    machine::{self, Failure},
};

/// What many machines on few cores get done in.
const PATIENCE: Duration = Duration::from_secs(120);
/// Until what came with the joins is over.
const SETTLES: Duration = Duration::from_secs(30);
const WATCHED: Duration = Duration::from_secs(60);
/// Of one core.
const CPU_PERCENT_WANTED: f64 = 0.5;
const MIB_WANTED: f64 = 40.0;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let peers = options.nodes.as_deref().unwrap_or("50").parse::<u16>();
    let Some(peers) = peers.ok().filter(|n| (1..=200).contains(n)).map(usize::from) else {
        return Err(Failure::Found("--nodes of idle is one number of peers, 1 to 200".to_owned()));
    };
    let nodes = peers + 1;
    let sandbox = demo::enter("bench idle", Profile::Release)?;
    let programs = Programs::in_dir(machine::target_dir().join("release"))?;
    let mut org = Org::build(&sandbox, nodes, programs, None)?;
    eprintln!("{nodes} machines join");
    org.found()?;
    org.join_all()?;
    org.know_each_other(nodes, PATIENCE)?;
    // One has a tunnel and a link to everybody; the others to whom they keep in step with.
    for node in 1..nodes {
        org.ask(0, &["link", &Org::name(node)])?;
    }
    let musterds = (0..nodes).map(|node| org.take_musterd(node)).collect::<Result<Vec<_>, _>>()?;
    eprintln!("they are left alone for {} s, then watched for {} s", SETTLES.as_secs(), WATCHED.as_secs());
    thread::sleep(SETTLES);
    let before: Vec<f64> = musterds.iter().map(cpu_s).collect();
    thread::sleep(WATCHED);
    let percent: Vec<f64> = musterds
        .iter()
        .zip(before)
        .map(|(musterd, before)| (cpu_s(musterd) - before) / WATCHED.as_secs_f64() * 100.0)
        .collect();
    let memory = |field: &str| musterds.iter().map(|musterd| mib(musterd, field)).collect::<Vec<_>>();
    let (resident, proportional, own) = (memory("Rss:"), memory("Pss:"), memory("Private_Dirty:"));
    let rows = [
        ("CPU, percent of a core", &percent, CPU_PERCENT_WANTED),
        ("resident, MiB", &resident, MIB_WANTED),
        ("proportional share, MiB", &proportional, MIB_WANTED),
        ("its own, MiB", &own, MIB_WANTED),
    ];
    println!(
        "| a musterd with {peers} peers | linked with all | others, median | others, most | wanted below |"
    );
    println!("|---|---|---|---|---|");
    let mut figures = Vec::new();
    for (name, values, wanted) in rows {
        let (first, others) = values.split_first().ok_or_else(|| Failure::Found("no machine".to_owned()))?;
        let (median, most) = (middle(others), others.iter().copied().fold(0.0, f64::max));
        println!("| {name} | {first:.2} | {median:.2} | {most:.2} | {wanted} |");
        figures.push(
            json!({ "of": name, "linked_with_all": first, "median": median, "most": most, "wanted": wanted }),
        );
    }
    if options.json {
        println!("{}", json!({ "schema_version": 1, "bench": "idle", "peers": peers, "figures": figures }));
    }
    drop(musterds);
    Ok(())
}

/// All its threads, by the scheduler's own clock.
fn cpu_s(musterd: &Daemon) -> f64 {
    let threads = fs::read_dir(format!("/proc/{}/task", musterd.pid())).into_iter().flatten().flatten();
    let ran = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    ran.sum::<f64>() / 1e9
}

fn mib(musterd: &Daemon, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", musterd.pid())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn middle(values: &[f64]) -> f64 {
    let hundredths: Vec<f64> = values.iter().map(|value| value * 100.0).collect();
    percentile(&hundredths, 50).unwrap_or_default() / 100.0
}
