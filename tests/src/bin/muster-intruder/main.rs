//! In the place of musterd in a node image that the org signed: it turns on the machine, and asks the TPM for
//! what only preboot may open. Everything it says goes to the machine's console.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program of a test, whose words the test reads"
)]

#[path = "../../../../crates/tpm-seal/tests/intruder/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod intruder;

use std::{path::Path, process::Command, thread};

use tpm_seal::{Approvals, BootSecrets, Custody, NodeSecrets, Tpm, quiet_tpm_library};

fn main() {
    quiet_tpm_library();
    let status = Command::new("/usr/bin/muster").args(["tpm", "status"]).output().unwrap();
    for line in String::from_utf8_lossy(&[status.stdout, status.stderr].concat()).lines() {
        println!("status: {line}");
    }
    let (device, keys) = (Path::new("/dev/tpmrm0"), Path::new("/state/muster/keys"));
    let approvals = Approvals::kept(keys).unwrap().unwrap();
    let boot = Custody::sealed_object::<BootSecrets>(keys).unwrap().unwrap();
    let node = Custody::sealed_object::<NodeSecrets>(keys).unwrap().unwrap();
    let tpm = Tpm::open(device).unwrap();
    let by_custody = Custody::sealed(tpm, keys).unwrap().load::<BootSecrets>(keys);
    println!("intruder: preboot's keys, as preboot would: {}", by_custody.map_or("refused", |_| "OPENED"));
    for (what, blob, approval) in [
        ("preboot's keys, by preboot's approval", &boot, &approvals.preboot),
        ("preboot's keys, by the node's approval", &boot, &approvals.node),
        ("the node's keys, by the node's approval", &node, &approvals.node),
    ] {
        let opened = intruder::open(device, blob, approval, &approvals.key);
        println!("intruder: {what}: {}", if opened.is_some() { "OPENED" } else { "refused" });
    }
    let reset = intruder::set_back(device);
    println!("intruder: register 11 set back: {}", if reset { "DONE" } else { "refused" });
    println!("intruder: done");
    // init would start it again.
    loop {
        thread::park();
    }
}
