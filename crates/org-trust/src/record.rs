//! Records as they travel and are kept: a tag, a length, the exact bytes.

use core::fmt;

use identity::{
    Code, HashContext,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{CHARTER_BYTES_MAX, POLICY_STATEMENT_BYTES_MAX, REPORT_BYTES_MAX, SYNC_FRAME_BYTES_MAX},
};

use crate::{charter::id_of_body, charter_signed::VerifiedCharter, report::Report, statement::Statement};

/// The bytes of one record, not even decoded. Its id is cheap, so that what is held already costs
/// nothing more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// A charter with its signatures.
    Charter(Vec<u8>),
    /// A statement.
    Statement(Vec<u8>),
    /// A report.
    Report(Vec<u8>),
}

/// Batches of records, each at most [`SYNC_FRAME_BYTES_MAX`] long.
#[derive(Clone, Copy, Debug)]
pub struct Records;

/// The records do not fit into one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTooLarge {
    /// Their encoded length.
    pub bytes: usize,
}

impl Record {
    /// The id of the charter, statement or report that these bytes are, if they are one.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        match self {
            // Signatures gather on a charter, so its id is its body's. Bytes without a body are no
            // charter, and their id is that of none.
            Self::Charter(bytes) => {
                let body = Reader::new(bytes).long_bytes("charter body", CHARTER_BYTES_MAX);
                id_of_body(body.unwrap_or_default()).0
            }
            Self::Statement(bytes) => HashContext::STATEMENT_ID.hash(&[bytes]),
            Self::Report(bytes) => HashContext::REPORT_ID.hash(&[bytes]),
        }
    }

    /// The record's own bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Charter(bytes) | Self::Statement(bytes) | Self::Report(bytes) => bytes,
        }
    }

    /// Bytes it takes in a batch.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.bytes().len()
    }

    fn write(&self, out: &mut Writer) {
        out.u8(match self {
            Self::Charter(_) => CHARTER,
            Self::Statement(_) => STATEMENT,
            Self::Report(_) => REPORT,
        });
        out.long_bytes(self.bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8("record tag")? {
            CHARTER => Ok(Self::Charter(r.long_bytes("charter", CHARTER_BYTES_MAX)?.to_vec())),
            STATEMENT => Ok(Self::Statement(r.long_bytes("statement", POLICY_STATEMENT_BYTES_MAX)?.to_vec())),
            REPORT => Ok(Self::Report(r.long_bytes("report", REPORT_BYTES_MAX)?.to_vec())),
            got => Err(DecodeError { field: "record tag", fault: Fault::Unknown { got: got.into() } }),
        }
    }
}

impl Records {
    /// One batch.
    ///
    /// # Errors
    /// [`BatchTooLarge`].
    pub fn encode(records: &[Record]) -> Result<Vec<u8>, BatchTooLarge> {
        let bytes = records.iter().map(Record::encoded_len).sum();
        if bytes > SYNC_FRAME_BYTES_MAX {
            return Err(BatchTooLarge { bytes });
        }
        let mut out = Writer::new();
        for record in records {
            record.write(&mut out);
        }
        Ok(out.into_bytes())
    }

    /// As many batches as it takes, each of at most `max` bytes; a record longer than that is alone in
    /// its batch.
    pub fn batches(records: impl IntoIterator<Item = Record>, max: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut records = records.into_iter().peekable();
        core::iter::from_fn(move || {
            let mut out = Writer::new();
            let first = records.next()?;
            let mut length = first.encoded_len();
            first.write(&mut out);
            while let Some(next) = records.next_if(|next| length + next.encoded_len() <= max) {
                length += next.encoded_len();
                next.write(&mut out);
            }
            Some(out.into_bytes())
        })
    }

    /// Reads one batch; the records in it are not decoded.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
        if bytes.len() > SYNC_FRAME_BYTES_MAX {
            let fault = Fault::TooLong { max: SYNC_FRAME_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "batch", fault });
        }
        Self::decode_all(bytes)
    }

    /// Reads records of any number, as in a file of our own.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
        let mut r = Reader::new(bytes);
        let mut records = Vec::new();
        while !r.rest().is_empty() {
            records.push(Record::read(&mut r)?);
        }
        Ok(records)
    }
}

impl From<&VerifiedCharter> for Record {
    fn from(charter: &VerifiedCharter) -> Self {
        Self::Charter(charter.bytes().to_vec())
    }
}

impl From<&Statement> for Record {
    fn from(statement: &Statement) -> Self {
        Self::Statement(statement.bytes().to_vec())
    }
}

impl From<&Report> for Record {
    fn from(report: &Report) -> Self {
        Self::Report(report.bytes().to_vec())
    }
}

impl BatchTooLarge {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::ChangeMalformed
    }
}

impl fmt::Display for BatchTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of changes do not fit into one frame", self.bytes)
    }
}

impl core::error::Error for BatchTooLarge {}

const CHARTER: u8 = 1;
const STATEMENT: u8 = 2;
const REPORT: u8 = 3;
/// Tag and length.
const HEADER_BYTES: usize = 3;
