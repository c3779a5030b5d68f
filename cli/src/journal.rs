//! What an admin key, or the org's keys, have signed, kept beside them.
//!
//! A change is on disk here before it leaves the machine, and the next command first sends what did
//! not arrive. So a crash between signing and sending repeats the same change, and one key never signs
//! two changes at one place. A lock keeps two commands of one key apart.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use identity::{
    Code, OrgId,
    limits::{CHARTER_BYTES_MAX, POLICY_STATEMENT_BYTES_MAX},
};
use org_trust::{Lane, Place, Statement, UnverifiedCharter, UnverifiedStatement};
use rustix::fs::{FlockOperation, flock};

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// The changes one key signed, with the lock on them.
pub(crate) struct Journal {
    directory: PathBuf,
    org: OrgId,
    _lock: File,
}

/// What has to be sent before anything new is signed, and where the next change then stands.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) undelivered: Vec<Statement>,
    pub(crate) next: Place,
}

impl Journal {
    /// Opens the journal beside a key file, making it if need be.
    pub(crate) fn open(key_file: &Path, org: OrgId) -> Outcome<Self> {
        let directory = files::with_suffix(key_file, ".signed");
        files::create_directory(&directory, files::SECRET_DIRECTORY)?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(files::SECRET)
            .open(&path)
            .map_err(|e| Failure::file(&path, &e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::new(Code::Busy, format_args!("another muster uses {} now", key_file.display()))
                .remedy("Wait until it has finished.")
        })?;
        Ok(Self { directory, org, _lock: lock })
    }

    /// Compares what the org holds (`held`: the place after the last change it knows) with what was
    /// signed here.
    pub(crate) fn resume(&self, held: Place) -> Outcome<Resume> {
        let signed_here = self.read_from(held.lane, held.seq)?;
        let before = held.seq.checked_sub(1).map(|seq| self.read(held.lane, seq)).transpose()?.flatten();
        if before.is_some_and(|last| last.id().0 != held.prev) {
            return Err(forked(held.seq.saturating_sub(1)));
        }
        let mut next = held;
        for change in &signed_here {
            if change.prev() != next.prev {
                return Err(forked(next.seq));
            }
            next = change.next_place(held.charter);
        }
        Ok(Resume { undelivered: signed_here, next })
    }

    /// Puts a change on disk; only then may it leave.
    pub(crate) fn record(&self, change: &Statement) -> Outcome<()> {
        files::replace_absent(&self.path(change.lane(), change.seq()), files::SECRET, change.bytes())
    }

    /// Puts org settings on disk; only then may they leave.
    pub(crate) fn record_settings(&self, settings: &UnverifiedCharter) -> Outcome<()> {
        let path = settings_path(&self.directory, settings.charter().version);
        files::replace_absent(&path, files::SECRET, &settings.to_bytes())
    }

    /// The org settings of this version that were signed here.
    pub(crate) fn settings(&self, version: u32) -> Outcome<Option<UnverifiedCharter>> {
        let path = settings_path(&self.directory, version);
        if !fs::exists(&path).map_err(|e| Failure::file(&path, &e))? {
            return Ok(None);
        }
        let bytes = files::read_secret(&path, CHARTER_BYTES_MAX)?;
        let settings = UnverifiedCharter::decode(&bytes).map_err(|e| damaged(&path, &e))?;
        Ok(Some(settings))
    }

    fn read_from(&self, lane: Lane, first: u64) -> Outcome<Vec<Statement>> {
        let mut found = Vec::new();
        while let Some(change) = self.read(lane, first.saturating_add(found.len() as u64))? {
            found.push(change);
        }
        Ok(found)
    }

    fn read(&self, lane: Lane, seq: u64) -> Outcome<Option<Statement>> {
        let path = self.path(lane, seq);
        if !fs::exists(&path).map_err(|e| Failure::file(&path, &e))? {
            return Ok(None);
        }
        let bytes = files::read_secret(&path, POLICY_STATEMENT_BYTES_MAX)?;
        let change = UnverifiedStatement::decode(&bytes).map_err(|e| damaged(&path, &e))?;
        let change = change.verify(&self.org).map_err(|e| damaged(&path, &e))?;
        if (change.lane(), change.seq()) == (lane, seq) {
            Ok(Some(change))
        } else {
            Err(damaged(&path, &"holds a change of another place"))
        }
    }

    fn path(&self, lane: Lane, seq: u64) -> PathBuf {
        let lane = match lane {
            Lane::Main => "main",
            Lane::Revokes => "revokes",
        };
        self.directory.join(format!("{lane}-{seq:012}"))
    }
}

/// When org settings of this version were signed here: the age of the file beside the org's keys.
pub(crate) fn settings_signed_at(key_file: &Path, version: u32) -> Option<std::time::SystemTime> {
    let directory = files::with_suffix(key_file, ".signed");
    fs::metadata(settings_path(&directory, version)).and_then(|m| m.modified()).ok()
}

fn settings_path(directory: &Path, version: u32) -> PathBuf {
    directory.join(format!("settings-{version:012}"))
}

fn damaged(path: &Path, why: &dyn core::fmt::Display) -> Failure {
    Failure::new(Code::KeyFileMalformed, format_args!("{}: {why}", path.display()))
        .remedy("Restore the directory from the backup of the key file beside it.")
}

fn forked(seq: u64) -> Failure {
    Failure::new(
        Code::ForkDetected,
        format_args!("the org holds another change number {seq} of this admin key than the one signed here"),
    )
}

#[cfg(test)]
mod tests {
    use identity::{CharterId, PublicKey, SecretKey};
    use org_trust::{Payload, Reason, Revoke};

    use super::*;

    const ORG: OrgId = OrgId([5; 32]);
    const START: Place = Place { charter: CharterId([1; 32]), lane: Lane::Revokes, seq: 0, prev: [1; 32] };

    #[test]
    fn a_change_that_was_signed_and_not_sent_is_sent_again_and_nothing_else_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("admin.age");
        let first = revoke(START, 1);
        let second = revoke(first.next_place(START.charter), 2);
        let journal = Journal::open(&key_file, ORG).unwrap();
        journal.record(&first).unwrap();
        journal.record(&second).unwrap();
        drop(journal);

        let journal = Journal::open(&key_file, ORG).unwrap();
        let resume = journal.resume(START).unwrap();
        assert_eq!(resume.undelivered, [first.clone(), second.clone()]);
        assert_eq!(resume.next, second.next_place(START.charter));
        let resume = journal.resume(first.next_place(START.charter)).unwrap();
        assert_eq!(resume.undelivered, std::slice::from_ref(&second));
        let resume = journal.resume(second.next_place(START.charter)).unwrap();
        assert!(resume.undelivered.is_empty());
    }

    #[test]
    fn another_change_at_a_place_that_was_signed_here_is_a_fork() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("admin.age"), ORG).unwrap();
        journal.record(&revoke(START, 1)).unwrap();
        let elsewhere = revoke(START, 9).next_place(START.charter);
        assert_eq!(journal.resume(elsewhere).unwrap_err().code(), Code::ForkDetected);
        let other_start = Place { prev: [2; 32], ..START };
        assert_eq!(journal.resume(other_start).unwrap_err().code(), Code::ForkDetected);
        assert!(journal.record(&revoke(START, 2)).is_err(), "a recorded place is never taken again");
    }

    #[test]
    fn two_commands_never_use_one_key_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("admin.age");
        let first = Journal::open(&key_file, ORG).unwrap();
        assert_eq!(Journal::open(&key_file, ORG).err().map(|e| e.code()), Some(Code::Busy));
        drop(first);
        assert!(Journal::open(&key_file, ORG).is_ok());
    }

    fn revoke(place: Place, seed: u8) -> Statement {
        let payload =
            Payload::Revoke(Revoke { node: key(seed), reason: Reason::Unspecified, note: String::new() });
        Statement::sign(&ORG, &SecretKey::from_seed(&[200; 32]), place, &payload).unwrap()
    }

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }
}
