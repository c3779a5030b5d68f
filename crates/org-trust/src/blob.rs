//! What is said on `blob-get`: which image is wanted, and a large file in pieces, each checked by itself; and
//! that a file which this member had put is no longer to be kept.
//!
//! The dialler asks, the acceptor answers, and only then the next question may come. So nothing waits but
//! what was asked for, a transfer begins at whichever piece is missing, and it can be cut between any two.

use identity::{
    BlobHash, Code,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{BLOB_NODES_MAX, BLOB_PIECE_BYTES, BLOB_PIECES_MAX, GENERATION_BYTES_MAX},
};

/// What the dialler asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobRequest {
    /// The signed generation that machines are to run. Answered by [`BlobReply::Wanted`].
    Wanted,
    /// Nodes of a file's outline. Answered by one [`BlobReply::Nodes`].
    Nodes {
        /// Which file.
        file: BlobHash,
        /// From this one on, at most [`BLOB_NODES_MAX`].
        first: u32,
    },
    /// Pieces of a file. Answered by one [`BlobReply::Piece`] each.
    Pieces {
        /// Which file.
        file: BlobHash,
        /// From this one on.
        first: u32,
        /// So many, 1 to [`BLOB_PIECES_MAX`].
        count: u8,
    },
    /// No longer to keep a file that the dialler has put. Answered by [`BlobReply::Removed`].
    Remove {
        /// Which file.
        file: BlobHash,
    },
}

/// What the acceptor answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobReply {
    /// The signed generation, whose signature the dialler checks.
    Wanted(Vec<u8>),
    /// Nodes one behind the other.
    Nodes(Vec<u8>),
    /// One piece.
    Piece(Vec<u8>),
    /// It is no longer kept for the dialler.
    Removed,
    /// Not here, or not now.
    Refused(Code),
}

impl BlobRequest {
    /// The action it belongs to.
    pub const ACTION: &'static str = "blob-get";

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Wanted => out.u8(WANTED),
            Self::Nodes { file, first } => out.u8(NODES).bytes(file.as_bytes()).u32(*first),
            Self::Pieces { file, first, count } => {
                out.u8(PIECES).bytes(file.as_bytes()).u32(*first).u8(*count)
            }
            Self::Remove { file } => out.u8(REMOVE).bytes(file.as_bytes()),
        };
        out.into_bytes()
    }

    /// How many replies answer it, if it is not refused and the file goes so far.
    #[must_use]
    pub const fn replies(&self) -> u8 {
        match self {
            Self::Wanted | Self::Nodes { .. } | Self::Remove { .. } => 1,
            Self::Pieces { count, .. } => *count,
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        let request = match r.u8("blob request tag")? {
            WANTED => Self::Wanted,
            NODES => Self::Nodes { file: BlobHash(r.array("file")?), first: r.u32("first")? },
            PIECES => {
                let (file, first, count) = (BlobHash(r.array("file")?), r.u32("first")?, r.u8("count")?);
                if !(1..=BLOB_PIECES_MAX).contains(&count) {
                    return Err(DecodeError {
                        field: "count",
                        fault: Fault::OutOfRange { got: count.into() },
                    });
                }
                Self::Pieces { file, first, count }
            }
            REMOVE => Self::Remove { file: BlobHash(r.array("file")?) },
            got => return Err(unknown("blob request tag", got.into())),
        };
        r.finish("end of blob request")?;
        Ok(request)
    }
}

impl BlobReply {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Wanted(bytes) => out.u8(WANTED).bytes(bytes),
            Self::Nodes(bytes) => out.u8(NODES).bytes(bytes),
            Self::Piece(bytes) => out.u8(PIECES).bytes(bytes),
            Self::Removed => out.u8(REMOVE),
            Self::Refused(code) => out.u8(REFUSED).u16(code.number()),
        };
        out.into_bytes()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        let tag = r.u8("blob reply tag")?;
        let rest = |r: &mut Reader<'_>, field, max: usize| match r.rest() {
            rest if rest.len() > max => {
                Err(DecodeError { field, fault: Fault::TooLong { max, got: rest.len() } })
            }
            rest => Ok(rest.to_vec()),
        };
        Ok(match tag {
            WANTED => Self::Wanted(rest(&mut r, "generation", GENERATION_BYTES_MAX)?),
            NODES => Self::Nodes(rest(&mut r, "nodes", NODES_BYTES_MAX)?),
            PIECES => Self::Piece(rest(&mut r, "piece", BLOB_PIECE_BYTES)?),
            REMOVE => {
                r.finish("end of blob reply")?;
                Self::Removed
            }
            REFUSED => {
                let number = r.u16("code")?;
                r.finish("end of blob reply")?;
                Self::Refused(Code::from_number(number).ok_or_else(|| unknown("code", number.into()))?)
            }
            got => return Err(unknown("blob reply tag", got.into())),
        })
    }
}

const fn unknown(field: &'static str, got: u64) -> DecodeError {
    DecodeError { field, fault: Fault::Unknown { got } }
}

const WANTED: u8 = 1;
const NODES: u8 = 2;
const PIECES: u8 = 3;
const REMOVE: u8 = 4;
/// As in every other answer of musterd.
const REFUSED: u8 = 5;

const NODES_BYTES_MAX: usize = BLOB_NODES_MAX as usize * 32;

#[cfg(test)]
mod tests {
    use identity::limits::SYNC_FRAME_BYTES_MAX;

    use super::*;

    const FILE: BlobHash = BlobHash([7; 32]);

    #[test]
    fn every_question_and_answer_reads_back_and_fits_its_frame() {
        for request in [
            BlobRequest::Wanted,
            BlobRequest::Nodes { file: FILE, first: 1024 },
            BlobRequest::Pieces { file: FILE, first: 3, count: BLOB_PIECES_MAX },
            BlobRequest::Remove { file: FILE },
        ] {
            let frame = request.encode();
            assert_eq!(BlobRequest::decode(&frame), Ok(request));
            for end in 0..frame.len() {
                assert!(BlobRequest::decode(&frame[..end]).is_err(), "{request:?} cut at {end}");
            }
            assert!(BlobRequest::decode(&[&frame[..], &[0]].concat()).is_err());
        }
        for reply in [
            BlobReply::Wanted(vec![1; GENERATION_BYTES_MAX]),
            BlobReply::Nodes(vec![2; NODES_BYTES_MAX]),
            BlobReply::Piece(vec![3; BLOB_PIECE_BYTES]),
            BlobReply::Removed,
            BlobReply::Refused(Code::NodeImageNotHeld),
        ] {
            let frame = reply.encode();
            assert!(frame.len() <= SYNC_FRAME_BYTES_MAX);
            assert_eq!(BlobReply::decode(&frame), Ok(reply));
        }
    }

    #[test]
    fn more_than_a_machine_keeps_is_refused() {
        for (tag, max) in
            [(WANTED, GENERATION_BYTES_MAX), (NODES, NODES_BYTES_MAX), (PIECES, BLOB_PIECE_BYTES)]
        {
            let frame = [vec![tag], vec![0; max + 1]].concat();
            let fault = BlobReply::decode(&frame).unwrap_err().fault;
            assert_eq!(fault, Fault::TooLong { max, got: max + 1 });
        }
        for count in [0, BLOB_PIECES_MAX + 1] {
            let request = BlobRequest::Pieces { file: FILE, first: 0, count }.encode();
            let fault = BlobRequest::decode(&request).unwrap_err().fault;
            assert_eq!(fault, Fault::OutOfRange { got: count.into() });
        }
        assert!(BlobReply::decode(&[REFUSED, 1, 0]).is_err(), "no such code");
    }
}
