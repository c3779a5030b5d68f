//! What lies ready on the first machine: for musterd to take over at its first start, and for preboot
//! at every later one. Each is a directory that appears at once and whole, and that its reader checks
//! like anything from outside.

use std::{fs, path::Path};

use org_trust::{Record, Records, Statement, VerifiedCharter};
use transport::Address;

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// Its name in the state directory.
pub(crate) const DIRECTORY: &str = "handover";

/// What preboot trusts when this machine starts anew, without asking anybody: as after a `join`.
pub(crate) fn pin(
    state: &Path,
    genesis: &VerifiedCharter,
    bundle_pem: &str,
    gateway: &Address,
    admit: &Statement,
) -> Outcome<()> {
    let gateways = format!("{gateway}\n");
    let content: [(&str, &[u8]); 4] = [
        ("charters", &encode(Record::from(genesis))),
        ("bundle.pem", bundle_pem.as_bytes()),
        ("gateways", gateways.as_bytes()),
        ("admit", admit.bytes()),
    ];
    write_directory(state, "preboot", &content)
}

/// What musterd takes over at its first start.
pub(crate) fn write(
    state: &Path,
    genesis: &VerifiedCharter,
    bundle_pem: &str,
    admit: &Statement,
) -> Outcome<()> {
    let content: [(&str, &[u8]); 4] = [
        ("charters", &encode(Record::from(genesis))),
        ("bundle.pem", bundle_pem.as_bytes()),
        ("admit", admit.bytes()),
        ("records", &encode(Record::from(admit))),
    ];
    write_directory(state, DIRECTORY, &content)
}

fn encode(record: Record) -> Vec<u8> {
    Records::batches([record], usize::MAX).flatten().collect()
}

/// Writes the directory beside its place and moves it there.
fn write_directory(state: &Path, name: &str, content: &[(&str, &[u8])]) -> Outcome<()> {
    let place = state.join(name);
    let temporary = files::with_suffix(&place, ".new");
    files::remove_directory(&temporary)?;
    files::create_directory(&temporary, files::SECRET_DIRECTORY)?;
    for (name, bytes) in content {
        files::create(&temporary.join(name), files::SECRET, bytes)?;
    }
    fs::rename(&temporary, &place)
        .and_then(|()| files::sync_parent(&place))
        .map_err(|e| Failure::file(&place, &e))
}
