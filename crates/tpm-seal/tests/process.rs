//! What a process does for its own memory. Its own test program, since it changes the whole process.

use std::process::Command;
use std::sync::mpsc;
use std::{env, fs, thread};

use rustix::process::DumpableBehavior;
use tpm_seal::{harden_process, quiet_tpm_library};

#[test]
fn a_hardened_process_leaves_no_core_and_cannot_be_read() {
    let done = harden_process();
    assert!(done.undumpable);
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim().to_owned();
    assert_eq!(done.memory_locked, locked != "0 kB", "{locked}");
    // Memory taken later is locked as well, and can still be had.
    drop(vec![1_u8; 64 << 20]);
}

#[test]
fn the_environment_is_not_touched_once_a_second_thread_runs() {
    let (end, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || wait.recv());
        let before = env::var_os("TSS2_LOG");
        assert!(!quiet_tpm_library());
        assert_eq!(env::var_os("TSS2_LOG"), before);
        drop(end);
    });
}

#[test]
fn the_tpm_library_is_quiet_in_a_process_with_one_thread() {
    if env::var_os(ALONE).is_some() {
        let alone = fs::read_dir("/proc/self/task").unwrap().count() == 1;
        assert_eq!(quiet_tpm_library(), alone);
        assert_eq!(env::var("TSS2_LOG").is_ok_and(|level| level == "all+NONE"), alone);
        return;
    }
    let name = "the_tpm_library_is_quiet_in_a_process_with_one_thread";
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .env(ALONE, "1")
        .env_remove("TSS2_LOG")
        .status()
        .unwrap();
    assert!(status.success());
}

const ALONE: &str = "TPM_SEAL_TEST_ALONE";
