//! What a process does for its own secrets, first thing in `main`.

use std::fs;

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// What could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardening {
    /// No core dump will be written and no other process of this user can read the memory.
    pub undumpable: bool,
    /// No page of this process will be swapped out.
    pub memory_locked: bool,
}

/// Keeps this process's memory out of core dumps and, where the limits allow it for good, out of swap.
///
/// Memory is locked only when the limit is, or can be made, infinite (`LimitMEMLOCK=infinity`): with
/// any other limit an allocation would fail one day instead.
#[must_use]
pub fn harden_process() -> Hardening {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let no_core = rustix::process::setrlimit(Resource::Core, none);
    let undumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let infinite = Rlimit { current: None, maximum: None };
    let memory_locked = rustix::process::setrlimit(Resource::Memlock, infinite).is_ok()
        && rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .is_ok();
    Hardening { undumpable: no_core.is_ok() && undumpable.is_ok(), memory_locked }
}

/// Stops the TPM library from writing its own lines to standard error; what matters in them is in our
/// errors. Call it first in `main`. Returns whether it was done: it is not once a second thread runs,
/// nor when `TSS2_LOG` says otherwise already.
pub fn quiet_tpm_library() -> bool {
    if std::env::var_os(TSS2_LOG).is_some() {
        return false;
    }
    let alone = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone {
        set_log_level();
    }
    alone
}

#[expect(unsafe_code, reason = "setting the environment is how the library is told, once, with one thread")]
fn set_log_level() {
    // SAFETY: the only caller has seen that this is the process's one thread, so none reads the
    // environment meanwhile and none can start before this returns.
    unsafe { std::env::set_var(TSS2_LOG, "all+NONE") };
}

const TSS2_LOG: &str = "TSS2_LOG";
