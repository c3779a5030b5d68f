//! What must hold of disks, and of what is said about them.

use identity::PublicKey;
use member_crdt::Replica;
use org_trust::ReportTip;

use super::{Held, ensure};
use crate::machine::Memory;

/// Membership 8: what a disk once held of the org's settings is never older later.
pub(crate) fn invariant_settings_never_go_back(memory: &Memory, replica: &Replica) -> Held {
    let version = replica.chain().head().charter().version;
    ensure(version >= memory.settings_on_disk, || {
        format!("version {version} after {}", memory.settings_on_disk)
    })
}

/// I9: whatever a crash tore, the file opens and every record in it holds.
pub(crate) fn invariant_files_read_back(is_spoiled: bool, failed: Option<&str>, refused: usize) -> Held {
    if let Some(why) = failed.filter(|_| !is_spoiled) {
        return Err(format!("the store does not open: {why}"));
    }
    ensure(refused == 0, || format!("{refused} records of the file do not hold"))
}

/// What was acknowledged is on disk.
pub(crate) fn invariant_acknowledged_is_on_disk(memory: &Memory, replica: &Replica) -> Held {
    for id in &memory.acknowledged {
        ensure(replica.statement(id).is_some(), || format!("{} was acknowledged and is lost", id.short()))?;
    }
    Ok(())
}

/// What a machine says of itself that it has on disk is there.
pub(crate) fn invariant_reports_rest_on_disk(memory: &Memory, tips: &[ReportTip]) -> Held {
    for tip in tips {
        ensure(memory.tips_on_disk.contains(tip), || format!("{tip:?} is reported and not on disk"))?;
    }
    Ok(())
}

/// Nobody is counted as having applied a change that is not on its disk.
pub(crate) fn invariant_coverage_is_true(
    memory: &Memory,
    node: &PublicKey,
    from_it_on: &[ReportTip],
) -> Held {
    let has_it = from_it_on.iter().any(|tip| memory.tips_on_disk.contains(tip));
    ensure(has_it, || format!("{} is said to have applied what it has not on disk", node.short()))
}

/// Membership 11: a file gives back what was written to it.
pub(crate) fn invariant_a_file_gives_the_same(saved: &[u8], replica: &Replica) -> Held {
    let loaded = Replica::load(saved, &replica.org()).map_err(|why| format!("{why:?}"))?;
    let same = loaded.replica.roster_digest() == replica.roster_digest();
    ensure(same && loaded.refused.is_empty(), || "the list differs after it was written and read".to_owned())
}

/// What a gateway gives to a machine is a whole list.
pub(crate) fn invariant_a_list_given_is_whole(why: &str) -> Held {
    Err(why.to_owned())
}
