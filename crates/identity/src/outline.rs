//! A large file, piece by piece: the nodes of its BLAKE3 tree that stand above its pieces.
//!
//! A file's name is its plain BLAKE3 hash, the one that `b3sum` prints. Whoever holds the outline that
//! belongs to such a name can check every piece by itself, in any order and from any source, and needs no
//! more memory than the outline and one piece.

use core::fmt;

use blake3::{
    Hasher,
    hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{
    BlobHash,
    limits::{BLOB_BYTES_MAX, BLOB_PIECE_BYTES},
};

/// The outline of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    hash: BlobHash,
    bytes: u64,
    nodes: Vec<[u8; NODE_BYTES]>,
}

/// Why something is not the outline, or not the piece, of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutlineError {
    /// The file would be empty, or longer than [`BLOB_BYTES_MAX`].
    Length {
        /// In bytes.
        got: u64,
    },
    /// The file has no piece of this number.
    NoPiece {
        /// The number.
        index: u32,
    },
    /// The outline has another length than the file's length asks for.
    NodeCount {
        /// Nodes wanted.
        wanted: usize,
        /// Bytes given.
        got: usize,
    },
    /// The bytes do not belong to the hash.
    Wrong,
}

/// Makes the outline of a file that is read once.
#[derive(Debug, Default)]
pub struct Outliner {
    nodes: Vec<[u8; NODE_BYTES]>,
    whole: Hasher,
    bytes: u64,
    /// A piece that was not a whole one came: it has to be the last.
    is_over: bool,
}

impl Outline {
    /// Reads the outline of a file with this hash and length, and checks that it is.
    ///
    /// # Errors
    /// [`OutlineError`].
    pub fn read(hash: BlobHash, bytes: u64, encoded: &[u8]) -> Result<Self, OutlineError> {
        let wanted = node_count(bytes)?;
        let (nodes, rest) = encoded.as_chunks::<NODE_BYTES>();
        if nodes.len() != wanted || !rest.is_empty() {
            return Err(OutlineError::NodeCount { wanted, got: encoded.len() });
        }
        if root(nodes, bytes) != Some(hash) {
            return Err(OutlineError::Wrong);
        }
        Ok(Self { hash, bytes, nodes: nodes.to_vec() })
    }

    /// The file's hash.
    #[must_use]
    pub const fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The file's length.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pieces the file has.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// The bytes that [`Self::read`] takes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.nodes.concat()
    }

    /// Checks one piece.
    ///
    /// # Errors
    /// [`OutlineError::Wrong`] also when it has another length than this piece has.
    pub fn check(&self, index: u32, piece: &[u8]) -> Result<(), OutlineError> {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let node = self.nodes.get(place).ok_or(OutlineError::NoPiece { index })?;
        let start = u64::from(index) * PIECE;
        let wanted = (self.bytes - start).min(PIECE);
        if u64::try_from(piece.len()) != Ok(wanted) || node_of(self.nodes.len(), start, piece) != *node {
            return Err(OutlineError::Wrong);
        }
        Ok(())
    }
}

impl Outliner {
    /// Takes the next piece: all of [`BLOB_PIECE_BYTES`] but for the last.
    ///
    /// # Errors
    /// [`OutlineError::Wrong`] when it follows one that was not whole, or is longer than one;
    /// [`OutlineError::Length`] when the file becomes too long.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), OutlineError> {
        if self.is_over || piece.is_empty() || piece.len() > BLOB_PIECE_BYTES {
            return Err(OutlineError::Wrong);
        }
        let bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        node_count(bytes)?;
        self.nodes.push(inner_node(self.bytes, piece));
        self.whole.update(piece);
        self.bytes = bytes;
        self.is_over = piece.len() < BLOB_PIECE_BYTES;
        Ok(())
    }

    /// The outline of all that was taken.
    ///
    /// # Errors
    /// [`OutlineError::Length`] when nothing was.
    pub fn finish(self) -> Result<Outline, OutlineError> {
        let hash = BlobHash(*self.whole.finalize().as_bytes());
        let nodes = if self.nodes.len() == 1 { vec![*hash.as_bytes()] } else { self.nodes };
        Outline::read(hash, self.bytes, &nodes.concat())
    }
}

/// How many pieces a file of this length has.
fn node_count(bytes: u64) -> Result<usize, OutlineError> {
    if bytes == 0 || bytes > BLOB_BYTES_MAX {
        return Err(OutlineError::Length { got: bytes });
    }
    usize::try_from(bytes.div_ceil(PIECE)).map_err(|_| OutlineError::Length { got: bytes })
}

/// The node above one piece. A file of one piece has no inner node: its outline is its hash.
fn node_of(pieces: usize, start: u64, piece: &[u8]) -> [u8; NODE_BYTES] {
    if pieces == 1 { *blake3::hash(piece).as_bytes() } else { inner_node(start, piece) }
}

fn inner_node(start: u64, piece: &[u8]) -> [u8; NODE_BYTES] {
    Hasher::new().set_input_offset(start).update(piece).finalize_non_root()
}

fn root(nodes: &[[u8; NODE_BYTES]], bytes: u64) -> Option<BlobHash> {
    if let [node] = nodes {
        return Some(BlobHash(*node));
    }
    let (left, right) = halves(nodes, bytes)?;
    Some(BlobHash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
}

/// As deep as the tree is high: fifteen for the longest file.
fn inner(nodes: &[[u8; NODE_BYTES]], bytes: u64) -> Option<[u8; NODE_BYTES]> {
    if let [node] = nodes {
        return Some(*node);
    }
    let (left, right) = halves(nodes, bytes)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

fn halves(nodes: &[[u8; NODE_BYTES]], bytes: u64) -> Option<([u8; NODE_BYTES], [u8; NODE_BYTES])> {
    // More than one piece, and a piece is a power of two of chunks: so no piece lies in both halves.
    let left_bytes = left_subtree_len(bytes);
    let (left, right) = nodes.split_at_checked(usize::try_from(left_bytes / PIECE).ok()?)?;
    Some((inner(left, left_bytes)?, inner(right, bytes.checked_sub(left_bytes)?)?))
}

impl fmt::Display for OutlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { got } => write!(f, "{got} bytes, where 1 to {BLOB_BYTES_MAX} can be"),
            Self::NoPiece { index } => write!(f, "there is no piece {index}"),
            Self::NodeCount { wanted, got } => write!(f, "an outline of {wanted} nodes in {got} bytes"),
            Self::Wrong => f.write_str("the bytes are not those of the hash"),
        }
    }
}

impl core::error::Error for OutlineError {}

const NODE_BYTES: usize = 32;
const PIECE: u64 = BLOB_PIECE_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
    }

    fn outline(file: &[u8]) -> Outline {
        let mut outliner = Outliner::default();
        file.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
        outliner.finish().unwrap()
    }

    #[test]
    fn a_files_name_is_its_plain_hash_and_every_piece_checks_by_itself() {
        for pieces in [0, 1, 2, 3, 5, 8] {
            for more in [1, 1023, 1025, BLOB_PIECE_BYTES] {
                let file = file(pieces * BLOB_PIECE_BYTES + more);
                let made = outline(&file);
                assert_eq!(made.hash().0, *blake3::hash(&file).as_bytes(), "{pieces} pieces and {more}");
                let bytes = u64::try_from(file.len()).unwrap();
                assert_eq!(Outline::read(made.hash(), bytes, &made.encode()), Ok(made.clone()));
                for (index, piece) in (0..).zip(file.chunks(BLOB_PIECE_BYTES)) {
                    made.check(index, piece).unwrap();
                    let mut changed = piece.to_vec();
                    *changed.last_mut().unwrap() ^= 1;
                    assert_eq!(made.check(index, &changed), Err(OutlineError::Wrong));
                    assert_eq!(made.check(index, &piece[1..]), Err(OutlineError::Wrong));
                    if index > 0 {
                        assert_eq!(made.check(0, piece), Err(OutlineError::Wrong), "another's place");
                    }
                }
            }
        }
    }

    #[test]
    fn an_outline_that_does_not_belong_to_the_hash_is_refused() {
        let file = file(3 * BLOB_PIECE_BYTES + 5);
        let made = outline(&file);
        let (hash, bytes, encoded) = (made.hash(), made.bytes(), made.encode());
        assert_eq!(Outline::read(BlobHash([1; 32]), bytes, &encoded), Err(OutlineError::Wrong));
        for at in [0, 40, encoded.len() - 1] {
            let mut changed = encoded.clone();
            changed[at] ^= 1;
            assert_eq!(Outline::read(hash, bytes, &changed), Err(OutlineError::Wrong), "byte {at}");
        }
        let got = encoded.len() - 1;
        let short = Outline::read(hash, bytes, &encoded[..got]);
        assert_eq!(short, Err(OutlineError::NodeCount { wanted: 4, got }));
        for bytes in [0, BLOB_BYTES_MAX + 1] {
            assert_eq!(Outline::read(hash, bytes, &encoded), Err(OutlineError::Length { got: bytes }));
        }
        assert_eq!(made.check(4, &[]), Err(OutlineError::NoPiece { index: 4 }));
        assert_eq!(Outliner::default().finish(), Err(OutlineError::Length { got: 0 }));
        let mut outliner = Outliner::default();
        assert_eq!(outliner.push(&[0; BLOB_PIECE_BYTES + 1]), Err(OutlineError::Wrong));
        outliner.push(&[0; BLOB_PIECE_BYTES - 1]).unwrap();
        assert_eq!(outliner.push(&[0]), Err(OutlineError::Wrong), "after the last");
    }
}
