//! `cargo xtask demo`: the main job on this machine, with nothing prepared and nothing pretended.
//!
//! Machines are network namespaces with a TPM emulator each, inside a sandbox that the kernel clears away when
//! this program ends, however it ends. The programs on them are those that are shipped.

mod boot;
mod screen;
mod story;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::Args;
use lab::{
    Sandbox,
    org::Programs,
    packages::{self, Purpose},
};
use serde_json::Value;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Machines of the org, the first one its gateway
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=50))]
    nodes: u16,
    /// Instead: two whole machines boot, in QEMU, and one of them is refused at its next boot
    #[arg(long, conflicts_with_all = ["nodes", "musterd"])]
    boot: bool,
    /// Print one object last
    #[arg(long)]
    json: bool,
    /// Run this musterd on every machine instead
    #[arg(long, hide = true)]
    musterd: Option<PathBuf>,
    /// Keep the machines' directories here
    #[arg(long)]
    keep: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let more: &[Purpose] = if options.boot { &[Purpose::Boot] } else { &[] };
    let sandbox = enter_with("the demo", Profile::Dev, more)?;
    let mut programs = Programs::in_dir(machine::target_dir().join("debug"))?;
    programs.musterd = options.musterd.clone();
    let keep = options.keep.clone();
    let outcome = match options.boot {
        true => boot::tell(&sandbox, programs, keep)?,
        false => story::tell(&sandbox, usize::from(options.nodes), programs, keep)?,
    };
    if options.json {
        println!("{}", outcome.json);
    }
    match outcome.held {
        true => Ok(()),
        false => Err(Failure::Found("the revocation did not hold".to_owned())),
    }
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) held: bool,
    pub(crate) json: Value,
}

/// Sees to packages and programs, then goes on in a sandbox.
pub(crate) fn enter(who: &str, profile: Profile) -> Result<Sandbox, Failure> {
    enter_with(who, profile, &[])
}

/// The same, with packages for more than the demo.
pub(crate) fn enter_with(who: &str, profile: Profile, more: &[Purpose]) -> Result<Sandbox, Failure> {
    if Sandbox::if_inside().map_err(|why| Failure::Machine(why.to_string()))?.is_none() {
        packages()?;
        install(more)?;
        build(profile)?;
    }
    Sandbox::enter().map_err(|why| {
        Failure::Machine(format!(
            "{why}\n{who} makes network namespaces: run it as root, or allow user namespaces"
        ))
    })
}

/// What the demo and the tests need from Debian: said, then installed.
pub(crate) fn packages() -> Result<(), Failure> {
    install(&[Purpose::Build, Purpose::Lab, Purpose::Tpm, Purpose::Run])
}

/// The same for other purposes.
pub(crate) fn install(purposes: &[Purpose]) -> Result<(), Failure> {
    let missing = packages::missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("missing Debian packages: {}", missing.join(" "));
    packages::install(&missing).map_err(|why| Failure::Machine(why.to_string()))
}

/// How programs are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds the programs that are shipped.
pub(crate) fn build(profile: Profile) -> Result<(), Failure> {
    let mut command = machine::cargo();
    command.args(["build", "--quiet"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for package in ["musterd", "muster-gateway", "muster-preboot", "muster"] {
        command.args(["--package", package]);
    }
    machine::run(&mut command)
}

/// The demo as a test: it holds, and says so in its object.
pub(crate) fn check(nodes: u16) -> Result<(), Failure> {
    let (held, said) = run_itself(&["--nodes", &nodes.to_string()])?;
    let closed = said.get("live_sessions_closed").and_then(Value::as_u64);
    let expected = u64::from(nodes) - 2;
    match held && said.get("refused_everywhere") == Some(&Value::Bool(true)) && closed == Some(expected) {
        true => Ok(()),
        false => Err(Failure::Found(format!("the demo did not hold: {said}"))),
    }
}

/// Two whole machines boot, link, and one of them is refused.
pub(crate) fn check_boot() -> Result<(), Failure> {
    let (held, said) = run_itself(&["--boot"])?;
    let linked = said.get("linked_to_each_other") == Some(&Value::Bool(true));
    let code = said.pointer("/refused_boot/code").and_then(Value::as_str);
    match held && linked && code == Some("MU-1403") {
        true => Ok(()),
        false => Err(Failure::Found(format!("two machines that boot: it did not hold: {said}"))),
    }
}

/// The control: with machines that ignore revocations the demo must fail, or it proves nothing.
pub(crate) fn check_fails_without_enforcement() -> Result<(), Failure> {
    let lawless = machine::target_dir().join("debug/lawless-musterd");
    let package = ["build", "--quiet", "--package", "musterd", "--bin", "musterd"];
    machine::run(machine::cargo().args(package).args(["--features", "danger-no-enforcement"]))?;
    let built = machine::target_dir().join("debug/musterd");
    std::fs::copy(&built, &lawless)
        .map_err(|why| Failure::Machine(format!("{} cannot be copied: {why}", built.display())))?;
    machine::run(machine::cargo().args(package))?;
    let (held, said) = run_itself(&["--nodes", "3", "--musterd", &lawless.display().to_string()])?;
    match !held && said.get("refused_everywhere") == Some(&Value::Bool(false)) {
        true => Ok(()),
        false => Err(Failure::Found(format!("nobody enforced, and the demo did not notice: {said}"))),
    }
}

fn run_itself(arguments: &[&str]) -> Result<(bool, Value), Failure> {
    // By its place: the file this process began from may have been built anew since.
    let program = machine::target_dir().join("debug/xtask");
    let output = Command::new(program)
        .args(["demo", "--json"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| Failure::NotStarted("the demo".to_owned(), why))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    match said {
        Some(said) => Ok((output.status.success(), said)),
        None => Err(Failure::Found(format!("the demo ended early:\n{text}"))),
    }
}
