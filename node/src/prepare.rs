//! What must be in order before this machine can be who it is: keys, store, hand-over. Blocks on disk
//! and TPM; makes nothing that was not there.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    thread,
};

use control::local::State as Stage;
use identity::{Code, ShareKey};
use member_crdt::{Checked, Member, Replica, Unchecked};

use crate::{
    config::Config,
    handover,
    keys::{self, Beside, Keys, KeysError},
    store::{DirectoryDisk, Store},
    tunnel::TunnelError,
};

/// Ready to be a member.
#[derive(Debug)]
pub struct Prepared {
    /// This machine's keys.
    pub keys: Keys,
    /// The member list as on disk.
    pub replica: Replica,
    /// Its store, locked.
    pub store: Store<DirectoryDisk>,
    /// Whether the file must be written anew.
    pub replace: bool,
    /// What a rotation of the keys has left beside them.
    pub beside: Beside,
    /// With which this machine, as a gateway, gives shares of disk keys.
    pub shares: Vec<ShareKey>,
}

/// Why this machine is no member at the moment, as status says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// The code.
    pub code: Code,
    /// What exactly.
    pub detail: String,
    /// How far it came.
    pub stage: Stage,
}

impl Unready {
    fn new(code: Code, detail: impl ToString, stage: Stage) -> Self {
        Self { code, detail: detail.to_string(), stage }
    }

    fn unavailable(code: Code, detail: impl ToString) -> Self {
        Self::new(code, detail, Stage::IdentityUnavailable)
    }

    /// The tunnels cannot be made.
    #[must_use]
    pub fn tunnel(error: TunnelError) -> Self {
        let code = match &error {
            TunnelError::Interface { .. } => Code::TunUnavailable,
            TunnelError::Key(_) => Code::SealedKeyDamaged,
            TunnelError::Port { .. } => Code::PortInUse,
        };
        let source = core::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::unavailable(code, format!("{error}{}", source.unwrap_or_default()))
    }

    /// The port of conn_auth cannot be had.
    #[must_use]
    pub fn port(port: u16, error: &std::io::Error) -> Self {
        Self::unavailable(Code::PortInUse, format!("port {port} on the overlay address: {error}"))
    }

    /// A file or socket cannot be had.
    #[must_use]
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::unavailable(Code::FileProblem, format!("{}: {error}", path.display()))
    }
}

/// Opens and checks everything.
///
/// # Errors
/// [`Unready`] for the first thing that is not in order.
pub fn prepare(config: &Config) -> Result<Prepared, Unready> {
    let state_dir = &config.state_dir;
    own_directory(state_dir)?;
    let refused = |error: crate::store::StoreError| Unready::unavailable(error.code(), chain(&error));
    let disk = DirectoryDisk::open(&state_dir.join("store")).map_err(refused)?;
    let (mut store, contents) = Store::open(disk).map_err(refused)?;
    if contents.dropped > 0 {
        tracing::info!(bytes = contents.dropped, "a write that was never acknowledged was dropped");
    }
    if contents.org.is_none() && !state_dir.join(handover::DIRECTORY).is_dir() {
        return Err(Unready::new(Code::NotEnrolled, "", Stage::NotEnrolled));
    }
    let unopened = |why: KeysError| Unready::unavailable(why.code(), chain(&why));
    Keys::settle(config).map_err(unopened)?;
    let keys = Keys::load(config).map_err(unopened)?;
    let (held, torn) = match contents.org {
        Some(org) => {
            let loaded = Replica::load_with(&contents.document, &org, on_all_cores)
                .map_err(|why| Unready::unavailable(why.code(), chain(&why)))?;
            for why in &loaded.refused {
                tracing::warn!(MUSTER_CODE = %why.code(), "a change on disk does not hold: {why}");
            }
            (Some(loaded.replica), loaded.torn)
        }
        None => (None, false),
    };
    let replica = handover::import(state_dir, &keys, held)
        .map_err(|why| Unready::unavailable(why.code(), chain(&why)))?;
    let mut replica = replica.ok_or_else(|| Unready::new(Code::NotEnrolled, "", Stage::NotEnrolled))?;
    keys.whose(&replica.roster()).map_err(unopened)?;
    let (keys, beside) = newest_known(keys, config, &replica).map_err(unopened)?;
    if state_dir.join(handover::DIRECTORY).is_dir() || contents.org.is_none() {
        let document = replica.save().map_err(|why| Unready::unavailable(Code::StoreDamaged, why))?;
        store.replace(&replica.org(), &document).map_err(refused)?;
        handover::done(state_dir).map_err(|error| Unready::file(state_dir, &error))?;
        tracing::info!("took over what was handed over");
    }
    let replace = torn || store.wants_replacing_at_start();
    // Without them it is a gateway like any other.
    let shares = Keys::shares(config).unwrap_or_else(|why| {
        tracing::warn!(MUSTER_CODE = %why.code(), "the keys for shares of disk keys do not open: {}", chain(&why));
        Vec::new()
    });
    Ok(Prepared { keys, replica, store, replace, beside, shares })
}

/// Signatures are what a start takes its time for, and none depends on another.
fn on_all_cores(mut pieces: Vec<Unchecked>) -> Vec<Checked> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = pieces.len().div_ceil(cores).max(PIECES_MIN);
    thread::scope(|scope| {
        let mut others = Vec::new();
        while pieces.len() > share {
            let part = pieces.split_off(pieces.len() - share);
            others.push(scope.spawn(|| check(part)));
        }
        let mut checked = check(pieces);
        for other in others {
            match other.join() {
                Ok(part) => checked.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        checked
    })
}

fn check(pieces: Vec<Unchecked>) -> Vec<Checked> {
    pieces.into_iter().map(Unchecked::check).collect()
}

/// Fewer are not worth a thread.
const PIECES_MIN: usize = 64;

/// The keys to use: those that a rotation made, if the list has them as the newest and another member
/// knows of them, and else the old ones.
fn newest_known(keys: Keys, config: &Config, replica: &Replica) -> Result<(Keys, Beside), KeysError> {
    let mut beside = keys::beside(config)?;
    let Some(next) = Keys::load_next(config)? else { return Ok((keys, beside)) };
    let roster = replica.roster();
    let (old, new) = (keys.node.public(), next.node.public());
    let ours = |member: &Member| member.node == new && member.nodes().any(|node| node == old);
    beside.next = next.whose(&roster).is_ok_and(ours);
    Ok((if beside.next && beside.known { next } else { keys }, beside))
}

/// The state directory is this user's alone.
fn own_directory(path: &Path) -> Result<(), Unready> {
    let at = |error: std::io::Error| Unready::file(path, &error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at)?;
    let mode = fs::metadata(path).map_err(at)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        let detail = format!("{} has mode {mode:03o}, not 700", path.display());
        Err(Unready::unavailable(Code::FileModeTooOpen, detail))
    }
}

/// An error and what led to it, in one line.
fn chain(error: &dyn core::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        line.push_str(": ");
        line.push_str(&source.to_string());
        next = source.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use tpm_seal::{Custody, NodeSecrets, Seed};

    use super::*;
    use crate::{config::Storage, fixture, handover::tests::hand_over};

    #[test]
    fn a_machine_comes_up_from_what_was_handed_over_and_again_from_its_own_disk() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let why = prepare(&config).unwrap_err();
        assert_eq!((why.code, why.stage), (Code::NotEnrolled, Stage::NotEnrolled));
        hand_over(&config.state_dir, 0);
        assert_eq!(prepare(&config).unwrap_err().code, Code::KeysMissing);
        store_keys(&config, 10);
        let first = prepare(&config).unwrap();
        assert!(!config.state_dir.join(handover::DIRECTORY).exists());
        assert_eq!(prepare(&config).unwrap_err().code, Code::StoreInUse, "one daemon at a time");
        let heads = first.replica.heads();
        drop(first);
        let again = prepare(&config).unwrap();
        assert_eq!((again.replica.heads(), again.replace), (heads, false));
        assert_eq!(again.replica.heads(), fixture::org(0).0.heads());
    }

    #[test]
    fn keys_that_are_not_this_machines_make_no_member() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        hand_over(&config.state_dir, 0);
        store_keys(&config, 10);
        drop(prepare(&config).unwrap());
        fs::remove_dir_all(config.state_dir.join("keys")).unwrap();
        store_keys(&config, 40);
        let why = prepare(&config).unwrap_err();
        assert_eq!((why.code, why.stage), (Code::SealedKeyDamaged, Stage::IdentityUnavailable));
    }

    #[test]
    fn a_state_directory_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        fs::create_dir(&config.state_dir).unwrap();
        fs::set_permissions(&config.state_dir, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(prepare(&config).unwrap_err().code, Code::FileModeTooOpen);
    }

    fn config(dir: &Path) -> Config {
        Config { state_dir: dir.join("state"), storage: Storage::File, ..Config::default() }
    }

    fn store_keys(config: &Config, seed: u8) {
        let keys = config.state_dir.join("keys");
        fs::DirBuilder::new().mode(0o700).create(&keys).unwrap();
        let secrets = NodeSecrets {
            identity: Seed::new(&[seed; 32]),
            wireguard: Seed::new(&[seed + 1; 32]),
            gateway: None,
        };
        Custody::File.store(&keys, &secrets).unwrap();
    }
}
