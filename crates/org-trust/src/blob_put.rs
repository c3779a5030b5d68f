//! What is said on `blob-put`: a file that one member keeps for another, checked piece by piece as it comes.
//!
//! The putter names the file by its hash and sends its nodes; only what belongs to them is taken after that.
//! Nothing in here touches a disk: bytes in, what is to be done out.

use identity::{
    BlobHash, Code, Outline,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{BLOB_BYTES_MAX, BLOB_NODES_MAX, BLOB_PIECE_BYTES},
};

/// What the putter sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRequest {
    /// The file that is to be kept. Answered by [`PutReply::Nodes`] or [`PutReply::Kept`].
    Put {
        /// Its hash.
        file: BlobHash,
        /// Its length.
        bytes: u64,
    },
    /// Nodes one behind the other, from the first on: [`BLOB_NODES_MAX`] in each frame but the last. The last
    /// is answered by [`PutReply::From`], or [`PutReply::Kept`] when no piece is missing.
    Nodes(Vec<u8>),
    /// The next piece. The last is answered by [`PutReply::Kept`].
    Piece(Vec<u8>),
}

/// What the keeper answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutReply {
    /// There is room for it: its nodes.
    Nodes,
    /// The pieces from this one on are missing.
    From(u32),
    /// All of it is on the keeper's disk.
    Kept,
    /// Nothing more is taken.
    Refused(Code),
}

impl PutRequest {
    /// The action it belongs to.
    pub const ACTION: &'static str = "blob-put";

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Put { file, bytes } => out.u8(PUT).bytes(file.as_bytes()).u64(*bytes),
            Self::Nodes(nodes) => out.u8(NODES).bytes(nodes),
            Self::Piece(piece) => out.u8(PIECE).bytes(piece),
        };
        out.into_bytes()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        Ok(match r.u8("put request tag")? {
            PUT => {
                let (file, bytes) = (BlobHash(r.array("file")?), r.u64("bytes")?);
                r.finish("end of put request")?;
                Self::Put { file, bytes }
            }
            NODES => Self::Nodes(rest(&mut r, "nodes", NODES_BYTES_MAX)?),
            PIECE => Self::Piece(rest(&mut r, "piece", BLOB_PIECE_BYTES)?),
            got => return Err(unknown("put request tag", got.into())),
        })
    }
}

impl PutReply {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Nodes => out.u8(NODES),
            Self::From(first) => out.u8(PIECE).u32(*first),
            Self::Kept => out.u8(KEPT),
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
        let reply = match r.u8("put reply tag")? {
            NODES => Self::Nodes,
            PIECE => Self::From(r.u32("first")?),
            KEPT => Self::Kept,
            REFUSED => {
                let number = r.u16("code")?;
                Self::Refused(Code::from_number(number).ok_or_else(|| unknown("code", number.into()))?)
            }
            got => return Err(unknown("put reply tag", got.into())),
        };
        r.finish("end of put reply")?;
        Ok(reply)
    }
}

/// What the keeper's disk is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutStep {
    /// See whether it is kept, or whether there is room: [`Putting::begun`].
    Begin {
        /// The file.
        file: BlobHash,
        /// Its length, 1 to [`BLOB_BYTES_MAX`].
        bytes: u64,
    },
    /// More nodes are on their way.
    Wait,
    /// See which pieces an earlier try left: [`Putting::resumed`].
    Resume(Outline),
    /// Write this piece, which was checked.
    Write {
        /// Its number.
        index: u32,
        /// Its bytes.
        piece: Vec<u8>,
        /// Whether it is the last: then all of it is to be kept.
        is_last: bool,
    },
}

/// One file on its way to its keeper.
#[derive(Debug, Default)]
pub struct Putting(Turn);

#[derive(Debug, Default)]
enum Turn {
    #[default]
    Fresh,
    /// The disk is asked, or all is said.
    Here,
    Nodes {
        file: BlobHash,
        bytes: u64,
        nodes: Vec<u8>,
    },
    Resuming(Outline),
    Pieces {
        outline: Outline,
        next: u32,
    },
}

impl Putting {
    /// A frame has come.
    ///
    /// # Errors
    /// The code with which the putter is refused; the session is over.
    pub fn on_frame(&mut self, frame: &[u8]) -> Result<PutStep, Code> {
        let request = PutRequest::decode(frame).map_err(|_| Code::RequestMalformed)?;
        match (core::mem::take(&mut self.0), request) {
            (Turn::Fresh, PutRequest::Put { file, bytes }) => match bytes {
                0 => Err(Code::RequestMalformed),
                1..=BLOB_BYTES_MAX => {
                    self.0 = Turn::Nodes { file, bytes, nodes: Vec::new() };
                    Ok(PutStep::Begin { file, bytes })
                }
                _ => Err(Code::BlobTooLarge),
            },
            (Turn::Nodes { file, bytes, mut nodes }, PutRequest::Nodes(more)) => {
                nodes.extend_from_slice(&more);
                let wanted = bytes.div_ceil(PIECE_BYTES).saturating_mul(NODE_BYTES);
                let came = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
                if came < wanted {
                    // Frames that carry little would cost more than they say.
                    if more.len() != NODES_BYTES_MAX {
                        return Err(Code::RequestMalformed);
                    }
                    self.0 = Turn::Nodes { file, bytes, nodes };
                    return Ok(PutStep::Wait);
                }
                let outline = Outline::read(file, bytes, &nodes).map_err(|_| Code::NodeImageDamaged)?;
                self.0 = Turn::Resuming(outline.clone());
                Ok(PutStep::Resume(outline))
            }
            (Turn::Pieces { outline, next }, PutRequest::Piece(piece)) => {
                outline.check(next, &piece).map_err(|_| Code::NodeImageDamaged)?;
                let is_last = next.saturating_add(1) >= outline.pieces();
                self.0 =
                    if is_last { Turn::Here } else { Turn::Pieces { outline, next: next.saturating_add(1) } };
                Ok(PutStep::Write { index: next, piece, is_last })
            }
            (
                Turn::Fresh | Turn::Here | Turn::Nodes { .. } | Turn::Resuming(_) | Turn::Pieces { .. },
                PutRequest::Put { .. } | PutRequest::Nodes(_) | PutRequest::Piece(_),
            ) => {
                self.0 = Turn::Here;
                Err(Code::RequestMalformed)
            }
        }
    }

    /// So many pieces from the first on are there and checked; true when none is missing.
    pub fn resumed(&mut self, pieces: u32) -> bool {
        match core::mem::take(&mut self.0) {
            Turn::Resuming(outline) if pieces < outline.pieces() => {
                self.0 = Turn::Pieces { outline, next: pieces };
                false
            }
            Turn::Fresh | Turn::Here | Turn::Nodes { .. } | Turn::Resuming(_) | Turn::Pieces { .. } => {
                self.0 = Turn::Here;
                true
            }
        }
    }
}

fn rest(r: &mut Reader<'_>, field: &'static str, max: usize) -> Result<Vec<u8>, DecodeError> {
    match r.rest() {
        [] => Err(DecodeError { field, fault: Fault::OutOfRange { got: 0 } }),
        rest if rest.len() > max => {
            Err(DecodeError { field, fault: Fault::TooLong { max, got: rest.len() } })
        }
        rest => Ok(rest.to_vec()),
    }
}

const fn unknown(field: &'static str, got: u64) -> DecodeError {
    DecodeError { field, fault: Fault::Unknown { got } }
}

const PUT: u8 = 1;
const NODES: u8 = 2;
const PIECE: u8 = 3;
const KEPT: u8 = 4;
/// As in every other answer of musterd.
const REFUSED: u8 = 5;

const NODE_BYTES: u64 = 32;
const PIECE_BYTES: u64 = BLOB_PIECE_BYTES as u64;
const NODES_BYTES_MAX: usize = BLOB_NODES_MAX as usize * 32;

#[cfg(test)]
mod tests {
    use identity::{Outliner, limits::SERVICE_FRAME_BYTES_MAX};

    use super::*;

    fn outline(pieces: usize) -> (Vec<u8>, Outline) {
        let file: Vec<u8> =
            (0..pieces * BLOB_PIECE_BYTES - 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut outliner = Outliner::default();
        file.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
        (file, outliner.finish().unwrap())
    }

    fn put(outline: &Outline) -> Vec<u8> {
        PutRequest::Put { file: outline.hash(), bytes: outline.bytes() }.encode()
    }

    fn nodes(outline: &Outline) -> Vec<u8> {
        PutRequest::Nodes(outline.encode()).encode()
    }

    #[test]
    fn every_frame_reads_back_and_fits() {
        let file = BlobHash([7; 32]);
        for request in [
            PutRequest::Put { file, bytes: 9 },
            PutRequest::Nodes(vec![1; NODES_BYTES_MAX]),
            PutRequest::Piece(vec![2; BLOB_PIECE_BYTES]),
        ] {
            let frame = request.encode();
            assert!(frame.len() <= SERVICE_FRAME_BYTES_MAX);
            assert_eq!(PutRequest::decode(&frame), Ok(request));
        }
        for reply in [PutReply::Nodes, PutReply::From(3), PutReply::Kept, PutReply::Refused(Code::BlobsFull)]
        {
            let frame = reply.encode();
            assert_eq!(PutReply::decode(&frame), Ok(reply));
            assert!(PutReply::decode(&[&frame[..], &[0]].concat()).is_err());
            assert!(PutReply::decode(&frame[..frame.len() - 1]).is_err());
        }
        for (tag, max) in [(NODES, NODES_BYTES_MAX), (PIECE, BLOB_PIECE_BYTES)] {
            let long = [vec![tag], vec![0; max + 1]].concat();
            assert_eq!(PutRequest::decode(&long).unwrap_err().fault, Fault::TooLong { max, got: max + 1 });
            assert!(PutRequest::decode(&[tag]).is_err(), "a frame that brings nothing");
        }
    }

    #[test]
    fn a_file_is_taken_piece_by_piece_from_where_an_earlier_try_stopped() {
        let (file, outline) = outline(4);
        let mut putting = Putting::default();
        let begin = PutStep::Begin { file: outline.hash(), bytes: outline.bytes() };
        assert_eq!(putting.on_frame(&put(&outline)), Ok(begin));
        assert_eq!(putting.on_frame(&nodes(&outline)), Ok(PutStep::Resume(outline.clone())));
        assert!(!putting.resumed(2));
        for (index, piece) in (0..).zip(file.chunks(BLOB_PIECE_BYTES)).skip(2) {
            let step = putting.on_frame(&PutRequest::Piece(piece.to_vec()).encode());
            assert_eq!(step, Ok(PutStep::Write { index, piece: piece.to_vec(), is_last: index == 3 }));
        }
        let more = PutRequest::Piece(vec![1]).encode();
        assert_eq!(putting.on_frame(&more), Err(Code::RequestMalformed), "more than was announced");
    }

    #[test]
    fn nothing_is_written_that_does_not_belong_to_the_hash() {
        let (file, outline) = outline(3);
        let fresh = || {
            let mut putting = Putting::default();
            putting.on_frame(&put(&outline)).unwrap();
            putting
        };
        let mut wrong = outline.encode();
        wrong[40] ^= 1;
        let wrong = PutRequest::Nodes(wrong).encode();
        assert_eq!(fresh().on_frame(&wrong), Err(Code::NodeImageDamaged));
        let short = PutRequest::Nodes(outline.encode()[..64].to_vec()).encode();
        assert_eq!(fresh().on_frame(&short), Err(Code::RequestMalformed));
        let long = PutRequest::Nodes([outline.encode(), vec![0; 32]].concat()).encode();
        assert_eq!(fresh().on_frame(&long), Err(Code::NodeImageDamaged));
        let mut piece = file[..BLOB_PIECE_BYTES].to_vec();
        piece[9] ^= 1;
        for piece in [piece, file[..BLOB_PIECE_BYTES - 1].to_vec(), file[BLOB_PIECE_BYTES..][..7].to_vec()] {
            let mut putting = fresh();
            putting.on_frame(&nodes(&outline)).unwrap();
            putting.resumed(0);
            let step = putting.on_frame(&PutRequest::Piece(piece).encode());
            assert_eq!(step, Err(Code::NodeImageDamaged));
        }
    }

    #[test]
    fn what_comes_out_of_turn_or_is_too_long_is_refused() {
        let (file, outline) = outline(2);
        let piece = PutRequest::Piece(file[..BLOB_PIECE_BYTES].to_vec()).encode();
        assert_eq!(Putting::default().on_frame(&piece), Err(Code::RequestMalformed));
        assert_eq!(Putting::default().on_frame(&nodes(&outline)), Err(Code::RequestMalformed));
        assert_eq!(Putting::default().on_frame(&[]), Err(Code::RequestMalformed));
        let of = |bytes| PutRequest::Put { file: outline.hash(), bytes }.encode();
        assert_eq!(Putting::default().on_frame(&of(0)), Err(Code::RequestMalformed));
        assert_eq!(Putting::default().on_frame(&of(BLOB_BYTES_MAX + 1)), Err(Code::BlobTooLarge));
        let mut putting = Putting::default();
        putting.on_frame(&put(&outline)).unwrap();
        assert_eq!(putting.on_frame(&put(&outline)), Err(Code::RequestMalformed), "one file a session");
    }
}
