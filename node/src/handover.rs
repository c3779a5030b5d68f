//! What preboot or `muster` leaves for musterd: everything is checked as if a stranger had brought it.
//!
//! The directory appears whole, by a rename. It is removed once what was in it is on disk, so a stop
//! in between only repeats the work.

use core::fmt;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use identity::{Code, PublicKey, codec::DecodeError, limits::BUNDLE_BYTES_MAX};
use member_crdt::{Applied, LoadError, Rejected, Replica};
use org_trust::{
    BundleError, CharterError, Payload, Record, Records, TrustBundle, UnverifiedCharter, UnverifiedStatement,
};

use crate::keys::{Keys, KeysError};

/// The directory's name below the state directory.
pub const DIRECTORY: &str = "handover";

/// Why a hand-over is not taken. Nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandoverError {
    /// `admit` is not the admission of a machine.
    Admit,
    /// `bundle.pem` is no trust bundle.
    Bundle(BundleError),
    /// A charter does not hold.
    Charter(CharterError),
    /// A file cannot be read or written.
    File {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The keys are not those of `admit`.
    Keys(KeysError),
    /// The first charter does not begin an org.
    Load(LoadError),
    /// A file does not decode.
    Malformed(DecodeError),
    /// The org is another one than the one on disk.
    OtherOrg,
    /// A record does not hold.
    Record(Rejected),
    /// Something that the admission follows is missing.
    Incomplete,
}

impl HandoverError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::File { .. } => Code::FileProblem,
            Self::Keys(why) => why.code(),
            Self::Admit
            | Self::Bundle(_)
            | Self::Charter(_)
            | Self::Load(_)
            | Self::Malformed(_)
            | Self::OtherOrg
            | Self::Record(_)
            | Self::Incomplete => Code::HandoverRejected,
        }
    }
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admit => f.write_str("it does not say how this machine was admitted"),
            Self::Bundle(why) => write!(f, "trust bundle: {why}"),
            Self::Charter(why) => why.fmt(f),
            Self::File { name, source } => write!(f, "{DIRECTORY}/{name}: {source}"),
            Self::Keys(why) => why.fmt(f),
            Self::Load(why) => why.fmt(f),
            Self::Malformed(why) => why.fmt(f),
            Self::OtherOrg => f.write_str("it is of another org than this machine's"),
            Self::Record(why) => why.fmt(f),
            Self::Incomplete => f.write_str("a change in it follows one that is missing"),
        }
    }
}

impl core::error::Error for HandoverError {}

/// Takes in what lies in the state directory, if something does. The caller writes the replica to disk
/// and calls [`done`] after that.
///
/// # Errors
/// [`HandoverError`].
pub fn import(
    state_dir: &Path,
    keys: &Keys,
    held: Option<Replica>,
) -> Result<Option<Replica>, HandoverError> {
    let directory = state_dir.join(DIRECTORY);
    if !directory.is_dir() {
        return Ok(held);
    }
    let [charters, admit, records] = ["charters", "admit", "records"].map(|name| read(&directory, name));
    let (replica, admitted) = check(&charters?, &admit?, &records?, held)?;
    // The machine that was admitted may have other keys since.
    let ours = keys.whose(&replica.roster()).map_err(HandoverError::Keys)?.first();
    if ours != admitted {
        return Err(HandoverError::Keys(KeysError::Foreign));
    }
    let bundle = read(&directory, "bundle.pem")?;
    TrustBundle::read(&bundle).map_err(HandoverError::Bundle)?;
    write(state_dir, &bundle).map_err(|source| HandoverError::File { name: "bundle.pem", source })?;
    Ok(Some(replica))
}

/// What the files `charters`, `admit` and `records` say, with the node key that was admitted. Pure.
///
/// # Errors
/// [`HandoverError`].
pub fn check(
    charters: &[u8],
    admit: &[u8],
    records: &[u8],
    held: Option<Replica>,
) -> Result<(Replica, PublicKey), HandoverError> {
    let decode = |bytes| Records::decode_all(bytes).map_err(HandoverError::Malformed);
    let charters = decode(charters)?;
    let mut replica = match held {
        Some(replica) => replica,
        None => begin(&charters)?,
    };
    let admit = UnverifiedStatement::decode(admit).map_err(HandoverError::Malformed)?;
    let admit = admit.verify(&replica.org()).map_err(|_| HandoverError::OtherOrg)?;
    let Payload::Admit(admitted) = admit.payload() else { return Err(HandoverError::Admit) };
    let admitted = admitted.node;
    let rest = decode(records)?;
    take(&mut replica, charters.into_iter().chain(rest).chain([Record::from(&admit)]).collect())?;
    Ok((replica, admitted))
}

/// What was handed over is on disk: the directory goes.
///
/// # Errors
/// The disk refuses.
pub fn done(state_dir: &Path) -> io::Result<()> {
    let directory = state_dir.join(DIRECTORY);
    if directory.is_dir() {
        fs::remove_dir_all(&directory)?;
        File::open(state_dir)?.sync_all()?;
    }
    Ok(())
}

fn begin(charters: &[Record]) -> Result<Replica, HandoverError> {
    let Some(Record::Charter(genesis)) = charters.first() else { return Err(HandoverError::Incomplete) };
    let genesis = UnverifiedCharter::decode(genesis).map_err(HandoverError::Malformed)?;
    let genesis = genesis.verify_genesis().map_err(HandoverError::Charter)?;
    Replica::new(&genesis).map_err(HandoverError::Load)
}

/// Takes all, in whatever order they lie there; what its author or nobody is to blame for is left out.
fn take(replica: &mut Replica, mut records: Vec<Record>) -> Result<(), HandoverError> {
    loop {
        let before = records.len();
        let mut waiting = Vec::new();
        for record in records {
            match replica.apply(&record) {
                Ok(Applied::New { .. } | Applied::Known) => {}
                Ok(Applied::Waiting { .. }) => waiting.push(record),
                Err(why) if why.fault() == member_crdt::Fault::Sender => {
                    return Err(HandoverError::Record(why));
                }
                Err(why) => tracing::debug!("left out: {why}"),
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if waiting.len() == before {
            return Err(HandoverError::Incomplete);
        }
        records = waiting;
    }
}

fn read(directory: &Path, name: &'static str) -> Result<Vec<u8>, HandoverError> {
    fs::read(directory.join(name)).map_err(|source| HandoverError::File { name, source })
}

/// The trust bundle stays with the state, for whoever dials a gateway from here.
fn write(state_dir: &Path, bundle: &[u8]) -> io::Result<()> {
    if bundle.len() > BUNDLE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let new = state_dir.join("bundle.pem.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bundle)?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join("bundle.pem"))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::DirBuilderExt as _;

    use identity::SecretKey;

    use super::*;
    use crate::fixture::{self, gateway_key, key};

    /// What `muster org create` leaves for the first machine.
    pub(crate) fn hand_over(state_dir: &Path, salt: u8) {
        let directory = state_dir.join(DIRECTORY);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
        let (replica, admits) = fixture::org(salt);
        let charters = Records::encode(&[Record::from(replica.chain().genesis())]).unwrap();
        // Newest first: the order in the file is nobody's promise.
        let records: Vec<Record> = admits.iter().rev().map(Record::from).collect();
        fs::write(directory.join("charters"), charters).unwrap();
        fs::write(directory.join("records"), Records::encode(&records).unwrap()).unwrap();
        fs::write(directory.join("admit"), admits[0].bytes()).unwrap();
        fs::write(directory.join("bundle.pem"), BUNDLE).unwrap();
    }

    pub(crate) fn keys(node: SecretKey) -> Keys {
        Keys { node, wireguard: key(11), gateway: Some(gateway_key()) }
    }

    #[test]
    fn what_holds_is_taken_in_and_repeating_it_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(import(dir.path(), &keys(key(10)), None).unwrap().is_none(), "nothing lies there");
        hand_over(dir.path(), 0);
        let replica = import(dir.path(), &keys(key(10)), None).unwrap().unwrap();
        assert_eq!(replica.roster().good().count(), 3);
        let again = import(dir.path(), &keys(key(10)), Some(replica)).unwrap().unwrap();
        assert_eq!(again.heads(), fixture::org(0).0.heads());
        assert!(dir.path().join("bundle.pem").is_file());
        done(dir.path()).unwrap();
        assert!(!dir.path().join(DIRECTORY).exists());
    }

    #[test]
    fn each_file_is_checked_and_none_may_be_missing() {
        for name in ["charters", "records", "admit", "bundle.pem"] {
            let dir = tempfile::tempdir().unwrap();
            hand_over(dir.path(), 0);
            let file = dir.path().join(DIRECTORY).join(name);
            let whole = fs::read(&file).unwrap();
            fs::write(&file, &whole[..whole.len() - 40]).unwrap();
            let why = import(dir.path(), &keys(key(10)), None).unwrap_err();
            assert_eq!(why.code(), Code::HandoverRejected, "{name} cut short: {why}");
            fs::remove_file(&file).unwrap();
            let why = import(dir.path(), &keys(key(10)), None).unwrap_err();
            assert_eq!(why.code(), Code::FileProblem, "{name} missing: {why}");
            assert!(!dir.path().join("bundle.pem").exists(), "{name}");
        }
    }

    #[test]
    fn another_machines_keys_and_another_org_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        hand_over(dir.path(), 0);
        let foreign = import(dir.path(), &keys(key(20)), None).unwrap_err();
        assert!(matches!(foreign, HandoverError::Keys(KeysError::Foreign)), "{foreign}");
        let other_org = fixture::org(1).0;
        let why = import(dir.path(), &keys(key(10)), Some(other_org)).unwrap_err();
        assert!(matches!(why, HandoverError::OtherOrg), "{why}");
    }

    const BUNDLE: &str = include_str!("../testdata/ca.pem");
}
