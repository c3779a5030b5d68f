//! `muster image recovery`: what opens a machine's encrypted disk when nothing else does. It needs the disk
//! and the org keys; no gateway, no member list and no machine.

use std::{fs::File, io::Read as _, path::Path};

use boot_image::DiskToken;
use identity::{Code, recovery_key, recovery_passphrase};
use serde_json::json;

use crate::{
    args::{Everywhere, ImageRecovery},
    failure::{Failure, Outcome},
    org_keys, output,
};

pub(super) fn run(everywhere: &Everywhere, args: &ImageRecovery) -> Outcome<()> {
    let mut head = Vec::new();
    let read = File::open(&args.disk)
        .and_then(|disk| disk.take(DiskToken::HEAD_BYTES as u64).read_to_end(&mut head));
    read.map_err(|e| Failure::file(&args.disk, &e))?;
    let DiskToken { machine, share, .. } = DiskToken::find(&head).ok_or_else(|| no_such_disk(&args.disk))?;
    let (profile, path) = super::org(everywhere, args.org.as_deref(), &args.org_keys)?;
    let keys = org_keys::unlock(everywhere, &args.org_keys, &path, profile.org())?;
    let passphrase = recovery_passphrase(&recovery_key(&keys.release), &machine, &profile.org());
    let value = json!({ "passphrase": passphrase.as_str(), "machine": machine.to_string(), "share": share });
    output::print(everywhere.format(), value, || format!("{}\n", passphrase.as_str()));
    Ok(())
}

fn no_such_disk(path: &Path) -> Failure {
    Failure::new(Code::PersistDisk, format_args!("{}: not a disk that a muster machine made", path.display()))
        .remedy("Name the disk or partition that holds the LUKS header, or a copy of its first 16 MiB.")
}
