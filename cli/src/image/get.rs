//! `muster image get`: fetches an image from a member, through this machine's musterd. Every piece is checked
//! against the image's hash before it is written, so an earlier try is gone on with wherever it stopped.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use control::{
    local::{Answer, Request},
    text::Bytes,
};
use identity::{
    BlobHash, Code, Outline,
    limits::{BLOB_ASKED_MAX, BLOB_NODES_MAX, BLOB_PIECE_BYTES, BLOB_PIECES_MAX},
};
use org_trust::{BlobReply, BlobRequest, UnverifiedGeneration};
use serde_json::json;

use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    files,
    local::{self, Daemon},
    output::{self, talk},
    place::Places,
    progress::Progress,
};

pub(crate) fn run(everywhere: &Everywhere, hash: Option<&str>, from: &str, out: &Path) -> Outcome<()> {
    if out.exists() {
        return Err(Failure::usage(format_args!("{} is there already", out.display())));
    }
    let hash = hash
        .map(|digits| {
            BlobHash::from_hex(digits).map_err(|why| Failure::usage(format_args!("{digits}: {why}")))
        })
        .transpose()?;
    let mut member = Member { daemon: Daemon::connect(&Places::find(everywhere)?.socket)?, name: from };
    let file = match hash {
        Some(hash) => hash,
        None => member.wanted()?,
    };
    let outline = member.outline(file)?;
    let part = files::with_suffix(out, ".part");
    let mut kept = Kept::open(&part, &outline)?;
    let begun_at = kept.pieces;
    if begun_at > 0 {
        talk(&format!("{begun_at} of {} pieces are here already", outline.pieces()));
    }
    let at = |pieces: u32| u64::from(pieces) * BLOB_PIECE_BYTES as u64;
    let progress = Progress::bytes(everywhere, from, at(begun_at), outline.bytes());
    while kept.pieces < outline.pieces() {
        progress.at(at(kept.pieces));
        for piece in member.pieces(&outline, kept.pieces)? {
            kept.take(&outline, &piece)?;
        }
    }
    drop(progress);
    kept.finish(out)?;
    let value = json!({
        "file": out,
        "blake3": file.to_string(),
        "bytes": outline.bytes(),
        "pieces": outline.pieces(),
        "pieces_fetched": outline.pieces() - begun_at,
    });
    output::print(everywhere.format(), value, || {
        format!("{}: {} bytes, BLAKE3 {file}\n", out.display(), outline.bytes())
    });
    Ok(())
}

/// Who is asked, and by whom.
struct Member<'a> {
    daemon: Daemon,
    name: &'a str,
}

impl Member<'_> {
    fn wanted(&mut self) -> Outcome<BlobHash> {
        let answers = self.ask(&[BlobRequest::Wanted])?;
        let Some(BlobReply::Wanted(signed)) = answers.first() else { return Err(self.other()) };
        let wrong = |why| Failure::new(Code::NodeImageInvalid, format_args!("{}: {why}", self.name));
        Ok(BlobHash(UnverifiedGeneration::decode(signed).map_err(wrong)?.claimed().image))
    }

    /// The outline belongs to the hash, or it is none.
    fn outline(&mut self, file: BlobHash) -> Outcome<Outline> {
        let mut nodes = Vec::new();
        loop {
            let first = u32::try_from(nodes.len() / NODE_BYTES).unwrap_or(u32::MAX);
            match self.ask(&[BlobRequest::Nodes { file, first }])?.pop() {
                Some(BlobReply::Nodes(more)) => {
                    nodes.extend_from_slice(&more);
                    if more.len() < BLOB_NODES_MAX as usize * NODE_BYTES {
                        break;
                    }
                }
                // The last answer was as long as one can be, and was the last.
                Some(BlobReply::Refused(Code::NodeImageNotHeld | Code::BlobNotHeld)) if first > 0 => break,
                Some(BlobReply::Refused(code)) => return Err(self.refused(code)),
                Some(BlobReply::Wanted(_) | BlobReply::Piece(_) | BlobReply::Removed) | None => {
                    return Err(self.other());
                }
            }
        }
        let last = u32::try_from(nodes.len() / NODE_BYTES).unwrap_or(u32::MAX).saturating_sub(1);
        // How long the file is, its last piece tells.
        let tail = match self.ask(&[BlobRequest::Pieces { file, first: last, count: 1 }])?.pop() {
            Some(BlobReply::Piece(piece)) => piece.len() as u64,
            Some(BlobReply::Refused(code)) => return Err(self.refused(code)),
            Some(BlobReply::Wanted(_) | BlobReply::Nodes(_) | BlobReply::Removed) | None => {
                return Err(self.other());
            }
        };
        let bytes = u64::from(last) * BLOB_PIECE_BYTES as u64 + tail;
        Outline::read(file, bytes, &nodes).map_err(|why| self.damaged(&why))
    }

    /// Some pieces from this one on, not checked.
    fn pieces(&mut self, outline: &Outline, first: u32) -> Outcome<Vec<Vec<u8>>> {
        let (mut questions, mut next) = (Vec::new(), first);
        while next < outline.pieces() && questions.len() < BLOB_ASKED_MAX {
            let count = (outline.pieces() - next).min(BLOB_PIECES_MAX.into());
            let count = u8::try_from(count).unwrap_or(BLOB_PIECES_MAX);
            questions.push(BlobRequest::Pieces { file: outline.hash(), first: next, count });
            next += u32::from(count);
        }
        let mut pieces = Vec::new();
        for answer in self.ask(&questions)? {
            match answer {
                BlobReply::Piece(piece) => pieces.push(piece),
                BlobReply::Refused(code) => return Err(self.refused(code)),
                BlobReply::Wanted(_) | BlobReply::Nodes(_) | BlobReply::Removed => return Err(self.other()),
            }
        }
        if pieces.is_empty() { Err(self.other()) } else { Ok(pieces) }
    }

    fn ask(&mut self, questions: &[BlobRequest]) -> Outcome<Vec<BlobReply>> {
        let node = self.name.to_owned();
        let questions: Vec<Bytes> = questions.iter().map(|question| question.encode().into()).collect();
        let Answer::Blob(frames) = self.daemon.ask(&Request::AskForBlob { node, questions })? else {
            return Err(local::unexpected());
        };
        let read = |frame: &Bytes| {
            BlobReply::decode(&frame.0)
                .map_err(|why| Failure::new(Code::FrameMalformed, format_args!("{}: {why}", self.name)))
        };
        frames.iter().map(read).collect()
    }

    fn refused(&self, code: Code) -> Failure {
        Failure::new(code, self.name)
    }

    fn damaged(&self, why: &dyn core::fmt::Display) -> Failure {
        Failure::new(Code::NodeImageDamaged, format_args!("{}: {why}", self.name))
    }

    fn other(&self) -> Failure {
        Failure::new(
            Code::FrameMalformed,
            format_args!("{} sent another answer than was asked for", self.name),
        )
    }
}

/// What has come, in a file of its own.
struct Kept<'a> {
    path: &'a Path,
    file: File,
    pieces: u32,
}

impl<'a> Kept<'a> {
    /// What an earlier try left, as far as it is of this image.
    fn open(path: &'a Path, outline: &Outline) -> Outcome<Self> {
        let failed = |error: &std::io::Error| Failure::file(path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(path).map_err(|e| failed(&e))?;
        let (mut pieces, mut piece) = (0, Vec::new());
        loop {
            piece.clear();
            (&file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece).map_err(|e| failed(&e))?;
            if piece.is_empty() || outline.check(pieces, &piece).is_err() {
                break;
            }
            pieces += 1;
        }
        let good = (u64::from(pieces) * BLOB_PIECE_BYTES as u64).min(outline.bytes());
        file.set_len(good).and_then(|()| file.seek(SeekFrom::Start(good))).map_err(|e| failed(&e))?;
        Ok(Self { path, file, pieces })
    }

    fn take(&mut self, outline: &Outline, piece: &[u8]) -> Outcome<()> {
        outline.check(self.pieces, piece).map_err(|why| {
            Failure::new(Code::NodeImageDamaged, format_args!("piece {}: {why}", self.pieces))
        })?;
        self.file.write_all(piece).map_err(|e| Failure::file(self.path, &e))?;
        self.pieces += 1;
        Ok(())
    }

    /// All of it has come: it gets its name once it is on the disk.
    fn finish(self, out: &Path) -> Outcome<()> {
        let named = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(self.path, out))
            .and_then(|()| files::sync_parent(out));
        named.map_err(|e| Failure::file(out, &e))
    }
}

const NODE_BYTES: usize = 32;
