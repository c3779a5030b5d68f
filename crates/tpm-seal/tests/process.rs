//! What a process does for its own memory. Its own test program, since it changes the whole process.

use rustix::process::DumpableBehavior;
use tpm_seal::{harden_process, quiet_tpm_library};

#[test]
fn a_hardened_process_leaves_no_core_and_cannot_be_read() {
    // The test harness runs a second thread, so that the environment may not be touched.
    assert!(!quiet_tpm_library());
    let done = harden_process();
    assert!(done.undumpable);
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim().to_owned();
    assert_eq!(done.memory_locked, locked != "0 kB", "{locked}");
    // Memory taken later is locked as well, and can still be had.
    drop(vec![1_u8; 64 << 20]);
}
