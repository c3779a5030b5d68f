//! `cargo xtask upgrade --from REV`: an org that runs an older release is upgraded machine by machine, while it is at
//! work and somebody is revoked in the middle of it.

use std::{path::Path, process::Command, time::Duration};

use clap::Args;
use lab::{
    Sandbox,
    org::{Org, Programs, wait_for},
};
use serde_json::Value;

use crate::{
    demo,
    machine::{self, Failure},
};

#[derive(Args)]
pub(crate) struct Options {
    /// What the machines run before: a commit or tag of this repository
    #[arg(long, value_name = "REV")]
    from: String,
    /// Machines of the org; the last one is revoked half-way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(4..=25))]
    nodes: u16,
}

const PROGRAMS: [&str; 4] = ["muster", "musterd", "muster-gateway", "muster-preboot"];

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let older = machine::target_dir().join("older").join("build/debug");
    if Sandbox::if_inside().map_err(|why| Failure::Machine(why.to_string()))?.is_none() {
        demo::packages()?;
        build(&options.from)?;
    }
    let sandbox = demo::enter("upgrade", demo::Profile::Dev)?;
    let newer = machine::target_dir().join("debug");
    let mut programs = Programs::in_dir(older)?;
    programs.env.push(("MUSTER_TEST_WORK_FACTOR".to_owned(), "2".to_owned()));
    let nodes = usize::from(options.nodes);
    let mut org = Org::build(&sandbox, nodes, programs, None)?;
    org.found()?;
    org.join_all()?;
    let last = nodes - 1;
    println!("{nodes} machines run {}", options.from);
    // The gateway and its admin come last; the machine that is revoked never is upgraded.
    let order: Vec<usize> = (1..last).chain([0]).collect();
    for (at, &node) in order.iter().enumerate() {
        if at == order.len() / 2 {
            let revoked = org.ask(0, &["revoke", &name(last), "--yes"])?;
            println!("{} is revoked: {}", name(last), revoked.get("coverage").unwrap_or(&Value::Null));
        }
        let upgraded = upgrade(&mut org, node, &newer)?;
        let is_out = at >= order.len() / 2;
        for other in (0..nodes).filter(|other| *other != node && (*other != last || !is_out)) {
            reaches(&org, node, other)?;
            reaches(&org, other, node)?;
        }
        let refused = if is_out { refuses(&org, node, last)? } else { "" };
        println!("{} runs {upgraded}; it reaches every member, and every member it{refused}", name(node));
    }
    let lists: Vec<String> = (0..last).map(|node| list(&org, node)).collect::<Result<_, _>>()?;
    match lists.split_first() {
        Some((first, others)) if others.iter().all(|list| list == first) => {
            println!("{last} machines hold list version {first}");
            Ok(())
        }
        _ => Err(Failure::Found(format!("their member lists differ: {lists:?}"))),
    }
}

/// The older programs, from the history of this repository, in a work tree of their own.
fn build(rev: &str) -> Result<(), Failure> {
    let older = machine::target_dir().join("older");
    let tree = older.join("tree");
    let mut git = Command::new("git");
    git.arg("-C").arg(machine::root());
    if tree.exists() {
        git.arg("-C").arg(&tree).args(["checkout", "--quiet", "--detach", rev]);
    } else {
        git.args(["worktree", "add", "--quiet", "--detach"]).arg(&tree).arg(rev);
    }
    machine::run(&mut git)?;
    let mut cargo = machine::cargo();
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", older.join("build")).args(["build", "--quiet"]);
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    machine::run(&mut cargo)
}

/// Stops what runs there, and starts the newer programs on the same state; the release that then answers.
fn upgrade(org: &mut Org, node: usize, newer: &Path) -> Result<String, Failure> {
    let has_gateway = node == 0;
    if has_gateway {
        org.stop_gateway(node)?;
    }
    org.stop_musterd(node)?;
    org.install(node, newer)?;
    org.start_musterd(node)?;
    if has_gateway {
        org.start_gateway(node)?;
    }
    let status = org.ask(node, &["status"])?;
    Ok(format!("the newer release, {}", status.get("release").and_then(Value::as_str).unwrap_or_default()))
}

fn reaches(org: &Org, from: usize, to: usize) -> Result<(), Failure> {
    let what = format!("{} reaches {}", name(from), name(to));
    wait_for(PATIENCE, &what, || {
        let reached = org.muster(from, &["ping", &name(to), "--count", "1"])?;
        Ok(reached.status.success().then_some(()))
    })?;
    Ok(())
}

/// The revoked machine asks one that was upgraded.
fn refuses(org: &Org, node: usize, revoked: usize) -> Result<&'static str, Failure> {
    let asked = org.muster(revoked, &["ping", &name(node), "--count", "1"])?;
    match asked.status.success() {
        false => Ok(", and it refuses the revoked one"),
        true => Err(Failure::Found(format!("{} serves the revoked {}", name(node), name(revoked)))),
    }
}

fn list(org: &Org, node: usize) -> Result<String, Failure> {
    let status = org.ask(node, &["status"])?;
    Ok(status.pointer("/org/list_version").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

const PATIENCE: Duration = Duration::from_secs(60);
