//! What is seen without asking anybody: settings, files, keys, clock, disk.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use control::settings::Survey;
use diagnosis::Check;
use identity::Code;
use tpm_seal::{Custody, NodeSecrets};

use super::{Finding, Part};
use crate::{
    connection::now_unix_s,
    duration,
    failure::Outcome,
    place::Places,
    tpm::{self, Finding as Opening},
};

pub(super) fn configuration(survey: &Outcome<Survey>) -> Finding {
    let part = Part::Configuration;
    match survey {
        Err(failure) => Check::fail(part, failure.code(), failure.seen()),
        Ok(Survey { files, problems, .. }) => match problems.first() {
            None if files.is_empty() => Check::ok(part, "no file, all defaults"),
            None => Check::ok(part, files.join(", ")),
            Some(problem) => {
                let more = problems.len().saturating_sub(1);
                let more = if more > 0 {
                    format!(" (and {more} more: `muster config check`)")
                } else {
                    String::new()
                };
                Check::fail(part, problem.code.0, format!("{}{more}", problem.detail))
            }
        },
    }
}

pub(super) fn findings(places: &Places) -> Vec<Finding> {
    vec![files(&places.state), keys(places), clock(&places.state), disk(&places.state)]
}

fn files(state: &Path) -> Finding {
    let part = Part::Files;
    let metadata = match fs::metadata(state) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Check::skip(part, format!("{} is not there", state.display()));
        }
        Err(error) => return Check::skip(part, format!("{}: {error}{MAY_NOT}", state.display())),
    };
    if metadata.mode() & 0o077 != 0 {
        return Check::fail(part, Code::FileModeTooOpen, mode(state, metadata.mode()));
    }
    let Ok(kept) = below(state, 2) else {
        let seen = format!(
            "{} has mode {:04o}; what is in it is not shown{MAY_NOT}",
            state.display(),
            MODE & metadata.mode()
        );
        return Check::skip(part, seen);
    };
    // Below a closed directory nobody gets to anything; a file of keys is closed by itself as well.
    let keys = kept.iter().filter(|(path, _)| path.parent().is_some_and(|parent| parent.ends_with("keys")));
    let open = keys.clone().find(|(_, metadata)| metadata.is_file() && metadata.mode() & 0o077 != 0);
    match open {
        Some((path, metadata)) => Check::fail(part, Code::FileModeTooOpen, mode(path, metadata.mode())),
        None => Check::ok(part, format!("{} is closed to others", state.display())),
    }
}

fn mode(path: &Path, mode: u32) -> String {
    format!("{} has mode {:04o}", path.display(), mode & MODE)
}

fn keys(places: &Places) -> Finding {
    let part = Part::Keys;
    let directory = places.state.join("keys");
    match fs::read_dir(&directory) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Check::skip(part, "this machine has none of an org");
        }
        Err(error) => return Check::skip(part, format!("{}: {error}{MAY_NOT}", directory.display())),
    }
    if Custody::File.path::<NodeSecrets>(&directory).exists() {
        return Check::ok(
            part,
            "in a file: whoever copies it is this machine, and every member is shown that",
        );
    }
    let seen = match tpm::look(places) {
        Ok(seen) => seen,
        Err(failure) => return Check::fail(part, failure.code(), failure.seen()),
    };
    for object in &seen.objects {
        match &object.finding {
            Opening::Closed(failure) => return Check::fail(part, failure.code(), failure.seen()),
            Opening::Missing => {
                let seen = format!("the {} keys are not there", object.name);
                return Check::fail(part, Code::KeysMissing, seen);
            }
            Opening::Opens | Opening::InItsPhase => {}
        }
    }
    Check::ok(part, format!("sealed by the TPM at {}, which opens them", places.tpm.display()))
}

/// Nothing here was written after now, and no release is older than the first.
fn clock(state: &Path) -> Finding {
    let now = now_unix_s();
    let written = below(state, 2).unwrap_or_default();
    let newest = written.iter().map(|(path, metadata)| (metadata.mtime(), path)).max();
    match newest {
        _ if now < FIRST_RELEASE_UNIX_S => {
            let seen = format!("{}, before this release was made", utc(now));
            Check::fail(Part::Clock, Code::ClockImplausible, seen)
        }
        Some((at, path)) if now.saturating_add(SLACK_S) < at => {
            let seen = format!("{}, and {} was written on {}", utc(now), path.display(), utc(at));
            Check::fail(Part::Clock, Code::ClockImplausible, seen)
        }
        Some(_) | None => Check::ok(Part::Clock, utc(now)),
    }
}

fn utc(unix_s: i64) -> String {
    duration::rfc3339(u64::try_from(unix_s).unwrap_or_default())
}

fn disk(state: &Path) -> Finding {
    let part = Part::Disk;
    let Some(there) = state.ancestors().find(|path| path.exists()) else {
        return Check::skip(part, format!("{} is not there", state.display()));
    };
    let room = match rustix::fs::statvfs(there) {
        Ok(room) => room,
        Err(error) => return Check::skip(part, format!("{}: {error}", there.display())),
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let no_names = room.f_files > 0 && room.f_favail == 0;
    of_room(&format!("{}: {} MiB free", there.display(), free >> 20), free, no_names)
}

fn of_room(seen: &str, free: u64, no_names: bool) -> Finding {
    let part = Part::Disk;
    match free {
        _ if no_names => {
            Check::fail(part, Code::DiskAlmostFull, format!("{seen}, and no room for new files"))
        }
        0..DISK_FAILS_BELOW => Check::fail(part, Code::DiskAlmostFull, seen),
        DISK_FAILS_BELOW..DISK_WARNS_BELOW => Check::warn(part, Code::DiskAlmostFull, seen),
        DISK_WARNS_BELOW.. => Check::ok(part, seen),
    }
}

/// Everything to a depth, with what it is.
fn below(directory: &Path, depth: usize) -> std::io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && depth > 1 {
            found.extend(below(&entry.path(), depth.saturating_sub(1))?);
        }
        found.push((entry.path(), metadata));
    }
    Ok(found)
}

/// What a user sees who is not root.
const MAY_NOT: &str = " (run this as root to see it)";
const MODE: u32 = 0o7777;
/// 2026-11-01: no release of muster is older.
const FIRST_RELEASE_UNIX_S: i64 = 1_793_491_200;
/// Clocks are set by small steps all the time.
const SLACK_S: i64 = 120;
/// The member list of a thousand machines takes some megabytes, and is written beside itself when it is compacted.
const DISK_WARNS_BELOW: u64 = 64 << 20;
const DISK_FAILS_BELOW: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use diagnosis::Status;

    use super::*;

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(state.path().join("keys")).unwrap();
        fs::write(state.path().join("keys/node.key"), "x").unwrap();
        state
    }

    #[test]
    fn files_that_others_may_read_are_a_failure() {
        let state = state();
        let key = state.path().join("keys/node.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(files(state.path()).code, Some(Code::FileModeTooOpen));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(files(state.path()).status, Status::Ok);
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(files(state.path()).code, Some(Code::FileModeTooOpen));
    }

    #[test]
    fn a_disk_that_fills_is_a_warning_before_it_is_a_failure() {
        let of = |free, no_names| of_room("", free, no_names).status;
        let [little, less, enough] = [DISK_WARNS_BELOW - 1, DISK_FAILS_BELOW - 1, DISK_WARNS_BELOW];
        let seen = [of(enough, false), of(little, false), of(less, false), of(enough, true)];
        assert_eq!(seen, [Status::Ok, Status::Warn, Status::Fail, Status::Fail]);
    }

    #[test]
    fn a_clock_behind_what_was_written_here_is_a_failure() {
        let state = state();
        assert_eq!(clock(state.path()).status, Status::Ok);
        let file = fs::File::open(state.path().join("keys/node.key")).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(3_600)).unwrap();
        assert_eq!(clock(state.path()).code, Some(Code::ClockImplausible));
    }
}
