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

use identity::{Code, codec::DecodeError, limits::BUNDLE_BYTES_MAX};
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
    let charters = records(&directory, "charters")?;
    let mut replica = match held {
        Some(replica) => replica,
        None => begin(&charters)?,
    };
    let admit = read(&directory, "admit")?;
    let admit = UnverifiedStatement::decode(&admit).map_err(HandoverError::Malformed)?;
    let admit = admit.verify(&replica.org()).map_err(|_| HandoverError::OtherOrg)?;
    let Payload::Admit(admitted) = admit.payload() else { return Err(HandoverError::Admit) };
    keys.fit(admitted).map_err(HandoverError::Keys)?;
    let rest = records(&directory, "records")?;
    take(&mut replica, charters.into_iter().chain(rest).chain([Record::from(&admit)]).collect())?;
    if replica.roster().get(&keys.node.public()).is_none() {
        return Err(HandoverError::Admit);
    }
    let bundle = read(&directory, "bundle.pem")?;
    TrustBundle::read(&bundle).map_err(HandoverError::Bundle)?;
    write(state_dir, &bundle).map_err(|source| HandoverError::File { name: "bundle.pem", source })?;
    Ok(Some(replica))
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

fn records(directory: &Path, name: &'static str) -> Result<Vec<Record>, HandoverError> {
    Records::decode_all(&read(directory, name)?).map_err(HandoverError::Malformed)
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
