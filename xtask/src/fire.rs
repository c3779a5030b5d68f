//! `cargo xtask fire`: an org in namespaces, under fire for as long as asked. The scenario suite does it
//! once with one partition and ten kills; here is room for a hundred and two hundred.

use clap::Args;
use lab::fire::{self, Fire};

use crate::{
    demo,
    machine::{self, Failure},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Machines of the org
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(8..=60))]
    nodes: u16,
    /// Partitions, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Musterds killed with kill -9, all partitions together
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// What is drawn comes from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one object last
    #[arg(long)]
    json: bool,
    /// Keep the machines' directories here
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let sandbox = demo::enter("fire", demo::Profile::Dev)?;
    let mut programs = lab::org::Programs::in_dir(machine::target_dir().join("debug"))?;
    // Key files that are quick to open: the admin's commands are not what is measured.
    programs.env.push(("MUSTER_TEST_WORK_FACTOR".to_owned(), "2".to_owned()));
    let fire = Fire {
        nodes: usize::from(options.nodes),
        partitions: options.partitions,
        kills: options.kills,
        seed: options.seed,
        keep: options.keep.clone(),
    };
    eprintln!(
        "seed {}; no delay is simulated here: there is no netem, so the network is as fast as this machine",
        fire.seed
    );
    let aftermath = fire::run(&sandbox, programs, &fire, &|line| eprintln!("{line}"))?;
    let said = aftermath.json();
    match options.json {
        true => println!("{said}"),
        false => println!("{}", serde_json::to_string_pretty(&said).unwrap_or_default()),
    }
    match aftermath.held() {
        true => Ok(()),
        false => Err(Failure::Found(format!("it did not hold with seed {}", fire.seed))),
    }
}
