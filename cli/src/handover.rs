//! What lies ready for musterd to take over at its first start: a directory that appears at once and
//! whole, and that musterd checks like anything from outside.

use std::{fs, path::Path};

use org_trust::{Record, Records, Statement, VerifiedCharter};

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// Its name in the state directory.
pub(crate) const DIRECTORY: &str = "handover";

/// Writes the directory beside its place and moves it there.
pub(crate) fn write(
    state: &Path,
    genesis: &VerifiedCharter,
    bundle_pem: &str,
    admit: &Statement,
) -> Outcome<()> {
    let (temporary, place) = (state.join("handover.new"), state.join(DIRECTORY));
    files::remove_directory(&temporary)?;
    files::create_directory(&temporary, files::SECRET_DIRECTORY)?;
    let charters = Records::batches([Record::from(genesis)], usize::MAX).collect::<Vec<_>>().concat();
    let records = Records::batches([Record::from(admit)], usize::MAX).collect::<Vec<_>>().concat();
    for (name, content) in [
        ("charters", charters.as_slice()),
        ("bundle.pem", bundle_pem.as_bytes()),
        ("admit", admit.bytes()),
        ("records", &records),
    ] {
        files::create(&temporary.join(name), files::SECRET, content)?;
    }
    fs::rename(&temporary, &place)
        .and_then(|()| files::sync_parent(&place))
        .map_err(|e| Failure::file(&place, &e))
}
