//! Builds a lab and keeps it until Ctrl-C: `cargo run -p lab --example hosts -- 5`.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::Instant;

use lab::{Lab, LabConfig, Sandbox, packages};

fn main() -> Result<(), Box<dyn Error>> {
    let missing = packages::missing(&[packages::Purpose::Lab, packages::Purpose::Tpm]);
    if !missing.is_empty() {
        return Err(format!("packages are missing: {}", packages::install_line(&missing)).into());
    }
    let count = std::env::args().nth(1).map_or(Ok(3), |count| count.parse())?;
    let sandbox = Sandbox::enter()?;
    let started = Instant::now();
    let lab = Lab::build(&sandbox, LabConfig::hosts(count))?;
    println!("{count} hosts in {:?}, directories in {}", started.elapsed(), lab.dir().display());
    for host in lab.hosts() {
        let tpm = host.tpm().map(|tpm| tpm.device().display().to_string()).unwrap_or_default();
        println!("{:<8} {:<14} {tpm}", host.name(), host.address());
    }
    println!("Ctrl-C, or the end of standard input, ends it");
    io::stdin().read_to_end(&mut Vec::new())?;
    let started = Instant::now();
    drop(lab);
    println!("gone in {:?}", started.elapsed());
    Ok(())
}
