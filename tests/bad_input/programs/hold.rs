//! What a process holds, by its kernel's word.

use std::{collections::HashSet, fs, time::Duration};

use super::member::AUTH_PORT;

/// Descriptors, without those of its own dials, and resident memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) descriptors: usize,
    resident_kib: u64,
}

/// How late a connection that ended may still be seen: the longest that a peer may be held.
const PATIENCE: Duration = Duration::from_secs(12);
/// What an allocator keeps of a peak, in percent; and what is kept on purpose: the last 4,096 refusals with
/// their reasons, for `muster debug why`, at most 1 KiB each.
const SLACK_PERCENT: u64 = 5;
const SLACK_KIB: u64 = 4096;

impl Hold {
    /// Of a process that nobody bothers: what it comes to rest at.
    pub(super) fn of(pid: u32) -> Self {
        let mut now = Self::read(pid);
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let next = Self::read(pid);
            if next.descriptors == now.descriptors && next.resident_kib == now.resident_kib {
                return next;
            }
            now = next;
        }
    }

    pub(super) fn read(pid: u32) -> Self {
        let dials = dials(pid);
        let is_held = |link: &std::path::Path| {
            // One that closes meanwhile is not held.
            fs::read_link(link).is_ok_and(|target| !dials.contains(target.to_string_lossy().as_ref()))
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let descriptors = open.filter(|entry| is_held(&entry.as_ref().unwrap().path())).count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Self { descriptors, resident_kib }
    }

    /// The process has no more descriptors than then, as soon as the last connection is over.
    pub(super) fn assert_closed(&self, pid: u32) {
        let start = std::time::Instant::now();
        while Self::read(pid).descriptors > self.descriptors {
            assert!(start.elapsed() < PATIENCE, "{:?} are open, before it was {self:?}", Self::read(pid));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The process holds what it held then, as soon as the last connection is over.
    pub(super) fn assert_back(&self, pid: u32, whose: &str) {
        let most = self.resident_kib + (self.resident_kib * SLACK_PERCENT / 100).max(SLACK_KIB);
        let is_back = |now: &Self| now.descriptors <= self.descriptors && now.resident_kib <= most;
        let start = std::time::Instant::now();
        let mut now = Self::read(pid);
        while !is_back(&now) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(200));
            now = Self::read(pid);
        }
        println!("{whose}: before {self:?}, after {now:?}");
        assert!(is_back(&now), "{whose} holds {now:?}, before it was {self:?}");
    }
}

/// What a musterd dials comes and goes by its own timers, and is no trace of whoever connected to it: the sockets
/// whose other end is the port that members listen on, as `/proc/PID/fd` names them.
fn dials(pid: u32) -> HashSet<String> {
    let mut sockets = HashSet::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if port(fields[2]) == AUTH_PORT {
                sockets.insert(format!("socket:[{}]", fields[9]));
            }
        }
    }
    sockets
}

/// Of an `address:port` of the kernel's tables.
pub(super) fn port(end: &str) -> u16 {
    u16::from_str_radix(end.rsplit_once(':').unwrap().1, 16).unwrap()
}
