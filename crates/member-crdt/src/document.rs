//! The local document: one automerge map from ids to the exact bytes of records, written by one actor
//! only, this replica. The one file that knows automerge.
//!
//! Nothing from another machine is ever parsed here: records arrive verified, and what a file holds is
//! verified again record by record when it is opened.

use std::collections::BTreeMap;

use automerge::{
    ActorId, AutoCommit, AutomergeError, ChangeHash, LoadOptions, ObjId, ObjType, OnPartialLoad, ROOT,
    ReadDoc, ScalarValue, Value,
    transaction::{CommitOptions, Transactable},
};
use identity::{OrgId, encode_hex};
use org_trust::Record;

use crate::trie::RecordId;

#[derive(Debug)]
pub(crate) struct Document {
    doc: AutoCommit,
    maps: Maps,
    /// Verified and in force, not yet in the document: a batch is one commit.
    pending: BTreeMap<Slot, Vec<u8>>,
    /// What the file has.
    saved: Vec<ChangeHash>,
}

#[derive(Debug)]
struct Maps {
    charters: ObjId,
    statements: ObjId,
    reports: ObjId,
    /// Node keys that two machines use, as this machine has seen: its own note, told to nobody.
    clones: ObjId,
}

/// A place in the document. A report's is its node's, so that the newest replaces the older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Charter(String),
    Statement(String),
    Report(String),
    Clone(String),
}

/// Why a file is not a member list.
#[derive(Debug)]
#[non_exhaustive]
pub enum DocumentError {
    /// Automerge does not read it.
    Damaged(AutomergeError),
    /// A map or version that every file of ours has is absent or of another kind.
    Missing {
        /// Which.
        field: &'static str,
    },
    /// Another org's list.
    OtherOrg {
        /// Its org.
        org: OrgId,
    },
}

/// What a file holds, not verified.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) document: Document,
    /// In the order in which they can be applied, but for lanes.
    pub(crate) records: Vec<Record>,
    /// Node keys that two machines were seen to use.
    pub(crate) clones: Vec<[u8; 32]>,
    /// The end of the file was not readable, as after a write that was cut off.
    pub(crate) torn: bool,
}

impl Document {
    pub(crate) fn new(org: OrgId) -> Result<Self, DocumentError> {
        let mut doc = AutoCommit::new().with_actor(actor(&org));
        let maps =
            write_frame(&mut doc, ScalarValue::Bytes(org.0.to_vec())).map_err(DocumentError::Damaged)?;
        doc.commit_with(timeless());
        Ok(Self { doc, maps, pending: BTreeMap::new(), saved: Vec::new() })
    }

    pub(crate) fn open(bytes: &[u8], org: &OrgId) -> Result<Opened, DocumentError> {
        let (doc, torn) = match AutoCommit::load(bytes) {
            Ok(doc) => (doc, false),
            Err(_) => {
                let lenient = LoadOptions::new().on_partial_load(OnPartialLoad::Ignore);
                (AutoCommit::load_with_options(bytes, lenient).map_err(DocumentError::Damaged)?, true)
            }
        };
        let mut doc = doc.with_actor(actor(org));
        if scalar(&doc, "version")? != ScalarValue::Uint(VERSION) {
            return Err(DocumentError::Missing { field: "version" });
        }
        let held = bytes_of(scalar(&doc, "org")?);
        let held = held.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(OrgId);
        match held {
            Some(held) if held == *org => {}
            Some(held) => return Err(DocumentError::OtherOrg { org: held }),
            None => return Err(DocumentError::Missing { field: "org" }),
        }
        let saved = doc.get_heads();
        let clones = match map(&doc, "clones") {
            Ok(clones) => clones,
            // A file of an earlier build.
            Err(_) => doc.put_object(ROOT, "clones", ObjType::Map).map_err(DocumentError::Damaged)?,
        };
        doc.commit_with(timeless());
        let maps = Maps {
            clones,
            charters: map(&doc, "charters")?,
            statements: map(&doc, "statements")?,
            reports: map(&doc, "reports")?,
        };
        let mut records: Vec<Record> = values(&doc, &maps.charters).map(Record::Charter).collect();
        records.extend(values(&doc, &maps.statements).map(Record::Statement));
        records.extend(values(&doc, &maps.reports).map(Record::Report));
        let clones = values(&doc, &maps.clones).filter_map(|bytes| bytes.try_into().ok()).collect();
        let document = Self { doc, maps, pending: BTreeMap::new(), saved };
        Ok(Opened { document, records, clones, torn })
    }

    pub(crate) fn put_charter(&mut self, version: u32, bytes: &[u8]) {
        self.pending.insert(Slot::Charter(format!("{version:010}")), bytes.to_vec());
    }

    pub(crate) fn put_statement(&mut self, id: &RecordId, bytes: &[u8]) {
        self.pending.insert(Slot::Statement(encode_hex(id)), bytes.to_vec());
    }

    pub(crate) fn put_report(&mut self, node: &RecordId, bytes: &[u8]) {
        self.pending.insert(Slot::Report(encode_hex(node)), bytes.to_vec());
    }

    /// Notes that two machines use a node key, or that this is over.
    pub(crate) fn put_clone(&mut self, node: &[u8; 32], is_one: bool) {
        let note = if is_one { node.to_vec() } else { Vec::new() };
        self.pending.insert(Slot::Clone(encode_hex(node)), note);
    }

    /// A Leave that a lower one replaced; both may stand in the file, where the lower one wins again.
    pub(crate) fn forget_statement(&mut self, id: &RecordId) {
        self.pending.remove(&Slot::Statement(encode_hex(id)));
    }

    /// What was just read from the file need not be written to it.
    pub(crate) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What changed since the last save of either kind.
    pub(crate) fn save_incremental(&mut self) -> Result<Vec<u8>, DocumentError> {
        self.write_pending()?;
        let bytes = self.doc.save_after(&self.saved);
        self.saved = self.doc.get_heads();
        Ok(bytes)
    }

    /// Everything that counts, in a new document: automerge keeps what was replaced for ever, and some
    /// kilobytes of memory for each commit. No other document is ever merged with this one, so nobody
    /// needs its history.
    pub(crate) fn save(&mut self) -> Result<Vec<u8>, DocumentError> {
        self.write_pending()?;
        let org = scalar(&self.doc, "org")?;
        let mut doc = AutoCommit::new().with_actor(self.doc.get_actor().clone());
        let maps = write_frame(&mut doc, org).map_err(DocumentError::Damaged)?;
        for (from, to) in self.maps.each().into_iter().zip(maps.each()) {
            for item in self.doc.map_range(from, ..) {
                if let Value::Scalar(value) = item.value.into_value()
                    && !matches!(value.as_ref(), ScalarValue::Bytes(bytes) if bytes.is_empty())
                {
                    doc.put(to, item.key.as_ref(), value.into_owned()).map_err(DocumentError::Damaged)?;
                }
            }
        }
        doc.commit_with(timeless());
        self.saved = doc.get_heads();
        (self.doc, self.maps) = (doc, maps);
        Ok(self.doc.save())
    }

    fn write_pending(&mut self) -> Result<(), DocumentError> {
        for (slot, bytes) in core::mem::take(&mut self.pending) {
            let (map, key) = match slot {
                Slot::Charter(key) => (&self.maps.charters, key),
                Slot::Statement(key) => (&self.maps.statements, key),
                Slot::Report(key) => (&self.maps.reports, key),
                Slot::Clone(key) => (&self.maps.clones, key),
            };
            self.doc.put(map, key, ScalarValue::Bytes(bytes)).map_err(DocumentError::Damaged)?;
        }
        self.doc.commit_with(timeless());
        Ok(())
    }
}

impl Maps {
    const fn each(&self) -> [&ObjId; 4] {
        [&self.charters, &self.statements, &self.reports, &self.clones]
    }
}

fn write_frame(doc: &mut AutoCommit, org: ScalarValue) -> Result<Maps, AutomergeError> {
    doc.put(ROOT, "version", ScalarValue::Uint(VERSION))?;
    doc.put(ROOT, "org", org)?;
    Ok(Maps {
        charters: doc.put_object(ROOT, "charters", ObjType::Map)?,
        statements: doc.put_object(ROOT, "statements", ObjType::Map)?,
        reports: doc.put_object(ROOT, "reports", ObjType::Map)?,
        clones: doc.put_object(ROOT, "clones", ObjType::Map)?,
    })
}

fn scalar(doc: &AutoCommit, field: &'static str) -> Result<ScalarValue, DocumentError> {
    match doc.get(ROOT, field).map_err(DocumentError::Damaged)? {
        Some((Value::Scalar(value), _)) => Ok(value.into_owned()),
        Some((Value::Object(_), _)) | None => Err(DocumentError::Missing { field }),
    }
}

fn map(doc: &AutoCommit, field: &'static str) -> Result<ObjId, DocumentError> {
    match doc.get(ROOT, field).map_err(DocumentError::Damaged)? {
        Some((Value::Object(ObjType::Map), id)) => Ok(id),
        Some(_) | None => Err(DocumentError::Missing { field }),
    }
}

fn values(doc: &AutoCommit, map: &ObjId) -> impl Iterator<Item = Vec<u8>> {
    doc.map_range(map, ..).filter_map(|item| match item.value.into_value() {
        Value::Scalar(value) => bytes_of(value.into_owned()),
        Value::Object(_) => None,
    })
}

fn bytes_of(value: ScalarValue) -> Option<Vec<u8>> {
    if let ScalarValue::Bytes(bytes) = value { Some(bytes) } else { None }
}

/// No document of ours is ever merged with another, so an org's documents may share one actor; what
/// matters is that a replica never has a second one.
fn actor(org: &OrgId) -> ActorId {
    ActorId::from(org.0)
}

fn timeless() -> CommitOptions {
    CommitOptions::default().with_time(0)
}

const VERSION: u64 = 1;

impl core::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Damaged(_) => f.write_str("the file is damaged"),
            Self::Missing { field } => write!(f, "the file has no {field}"),
            Self::OtherOrg { org } => write!(f, "the file belongs to org {}", org.short()),
        }
    }
}

impl core::error::Error for DocumentError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Damaged(why) => Some(why),
            Self::Missing { .. } | Self::OtherOrg { .. } => None,
        }
    }
}
