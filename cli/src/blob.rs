//! `muster blob`: files that members keep for each other, by their hash.

use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use control::{
    framing,
    local::{Answer, Blobs, Request},
    stream::{self, Next},
};
use identity::{
    BlobHash, Code, Outline, Outliner,
    limits::{BLOB_BYTES_MAX, BLOB_NODES_MAX, BLOB_PIECE_BYTES, CONTROL_MESSAGE_BYTES_MAX},
};
use org_trust::{BlobReply, BlobRequest, PutReply, PutRequest};
use serde_json::json;

use crate::{
    args::{Blob, Everywhere},
    failure::{Failure, Outcome},
    image,
    local::{self, Daemon},
    output,
    place::Places,
    progress::Progress,
};

pub(crate) fn run(everywhere: &Everywhere, command: &Blob) -> Outcome<()> {
    match command {
        Blob::Put { node, file } => put(everywhere, node, file),
        Blob::Get { node, hash, file } => {
            let out = file.clone().unwrap_or_else(|| PathBuf::from(hash));
            image::get::run(everywhere, Some(hash), node, &out)
        }
        Blob::List => list(everywhere),
        Blob::Remove { node, hash } => remove(everywhere, node, hash),
        Blob::Drop { hash } => drop_here(everywhere, hash),
    }
}

fn put(everywhere: &Everywhere, node: &str, path: &Path) -> Outcome<()> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let outline = outline(path, &file)?;
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let request = Request::Connect { node: node.to_owned(), action: PutRequest::ACTION.to_owned() };
    let Answer::Connected(_) = daemon.ask(&request)? else { return Err(local::unexpected()) };
    let mut keeper = Keeper::new(daemon.into_stream()?, node)?;
    let (hash, bytes) = (outline.hash(), outline.bytes());
    keeper.say(&PutRequest::Put { file: hash, bytes })?;
    let mut first = outline.pieces();
    let mut reply = keeper.hear()?;
    if reply == PutReply::Nodes {
        for nodes in outline.encode().chunks(BLOB_NODES_MAX as usize * NODE_BYTES) {
            keeper.say(&PutRequest::Nodes(nodes.to_vec()))?;
        }
        reply = keeper.hear()?;
    }
    if let PutReply::From(missing) = reply {
        first = missing.min(outline.pieces());
        let at = |pieces: u32| u64::from(pieces) * BLOB_PIECE_BYTES as u64;
        if first > 0 {
            output::talk(&format!("{first} of {} pieces are there already", outline.pieces()));
        }
        let progress = Progress::bytes(everywhere, node, at(first), bytes);
        file.seek(SeekFrom::Start(at(first))).map_err(failed)?;
        let mut piece = Vec::with_capacity(BLOB_PIECE_BYTES);
        for index in first..outline.pieces() {
            piece.clear();
            (&file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece).map_err(failed)?;
            if outline.check(index, &piece).is_err() {
                let seen = format_args!("{} has changed meanwhile", path.display());
                return Err(Failure::new(Code::NodeImageDamaged, seen).remedy("Put it again."));
            }
            keeper.say(&PutRequest::Piece(piece.clone()))?;
            progress.at(at(index + 1).min(bytes));
        }
        reply = keeper.hear()?;
    }
    if reply != PutReply::Kept {
        return Err(keeper.other());
    }
    let value = json!({
        "node": node,
        "file": path,
        "blake3": hash.to_string(),
        "bytes": bytes,
        "pieces": outline.pieces(),
        "pieces_sent": outline.pieces() - first,
    });
    output::print(everywhere.format(), value, || format!("{hash}\n"));
    Ok(())
}

fn outline(path: &Path, mut file: &File) -> Outcome<Outline> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let length = file.metadata().map_err(failed)?.len();
    let wrong = || {
        let seen = format_args!("{}: {length} bytes, where 1 to {BLOB_BYTES_MAX} can be", path.display());
        Failure::new(Code::BlobTooLarge, seen)
    };
    if !(1..=BLOB_BYTES_MAX).contains(&length) {
        return Err(wrong());
    }
    let (mut outliner, mut piece) = (Outliner::default(), Vec::with_capacity(BLOB_PIECE_BYTES));
    loop {
        piece.clear();
        (&mut file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece).map_err(failed)?;
        if piece.is_empty() {
            return outliner.finish().map_err(|_| wrong());
        }
        outliner.push(&piece).map_err(|_| wrong())?;
    }
}

/// The member that is to keep it. What it says comes at any time, also while pieces are on their way to it.
struct Keeper<'a> {
    name: &'a str,
    to: UnixStream,
    heard: mpsc::Receiver<Outcome<PutReply>>,
}

impl<'a> Keeper<'a> {
    fn new(to: UnixStream, name: &'a str) -> Outcome<Self> {
        let from = to.try_clone().map_err(|error| lost(&error))?;
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let reply = hear(&mut from);
                let is_over = reply.is_err();
                if tell.send(reply).is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Self { name, to, heard })
    }

    fn say(&mut self, request: &PutRequest) -> Outcome<()> {
        // Nothing is said unasked but why there is an end.
        if let Ok(reply) = self.heard.try_recv() {
            return Err(self.refused(reply));
        }
        let frame = request.encode();
        let sent = self.to.write_all(&stream::head(&frame)).and_then(|()| self.to.write_all(&frame));
        match sent {
            Ok(()) => Ok(()),
            // It says why, if it still could.
            Err(error) => Err(self.heard.recv().map_or_else(|_| lost(&error), |reply| self.refused(reply))),
        }
    }

    fn hear(&self) -> Outcome<PutReply> {
        match self.heard.recv() {
            Ok(Ok(PutReply::Refused(code))) => Err(Failure::new(code, self.name)),
            Ok(reply) => reply,
            Err(_) => Err(self.other()),
        }
    }

    fn refused(&self, reply: Outcome<PutReply>) -> Failure {
        match reply {
            Err(failure) => failure,
            Ok(PutReply::Refused(code)) => Failure::new(code, self.name),
            Ok(PutReply::Nodes | PutReply::From(_) | PutReply::Kept) => self.other(),
        }
    }

    fn other(&self) -> Failure {
        Failure::new(
            Code::FrameMalformed,
            format_args!("{} sent another answer than was asked for", self.name),
        )
    }
}

fn hear(from: &mut BufReader<UnixStream>) -> Outcome<PutReply> {
    let malformed = |why: framing::FrameError| Failure::new(Code::RequestMalformed, why);
    let mut read = |length: usize| {
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).map_err(|error| lost(&error)).map(|()| bytes)
    };
    let head = |bytes: Vec<u8>| <[u8; 4]>::try_from(bytes).unwrap_or_default();
    match stream::next(head(read(4)?)).map_err(malformed)? {
        Next::Bytes(length) => {
            PutReply::decode(&read(length)?).map_err(|why| Failure::new(Code::FrameMalformed, why))
        }
        Next::End => Err(Failure::new(Code::PeerUnreachable, "the member ended the session")),
        Next::Over => {
            let length =
                framing::body_length(head(read(4)?), CONTROL_MESSAGE_BYTES_MAX).map_err(malformed)?;
            let Answer::Failed(failed) = framing::decode(&read(length)?).map_err(malformed)? else {
                return Err(local::unexpected());
            };
            let code = failed.code.0;
            let seen = if failed.detail.is_empty() { code.cause() } else { &failed.detail };
            Err(Failure::new(code, seen))
        }
    }
}

fn list(everywhere: &Everywhere) -> Outcome<()> {
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let Answer::Blobs(blobs) = daemon.ask(&Request::Blobs {})? else { return Err(local::unexpected()) };
    let value = json!({
        "max": blobs.max,
        "member": blobs.member,
        "used": blobs.used,
        "files": blobs.files.iter().map(|file| json!({
            "blake3": file.hash,
            "bytes": file.bytes,
            "whole": file.whole,
            "by": file.by,
        })).collect::<Vec<_>>(),
    });
    output::print(everywhere.format(), value, || table(&blobs));
    if blobs.max == 0 {
        output::talk("This machine keeps no files for others: `[blobs] max` is not set in muster.toml.");
    }
    Ok(())
}

fn table(blobs: &Blobs) -> String {
    let row = |file: &control::local::KeptBlob| {
        let state = if file.whole { "whole" } else { "in part" };
        [file.hash.clone(), file.bytes.to_string(), state.to_owned(), file.by.join(" ")]
    };
    let rows: Vec<_> = blobs.files.iter().map(row).collect();
    output::columns(["BLAKE3", "BYTES", "IS HERE", "FOR"], &rows)
}

fn remove(everywhere: &Everywhere, node: &str, digits: &str) -> Outcome<()> {
    let file = hash(digits)?;
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let questions = vec![BlobRequest::Remove { file }.encode().into()];
    let request = Request::AskForBlob { node: node.to_owned(), questions };
    let Answer::Blob(frames) = daemon.ask(&request)? else { return Err(local::unexpected()) };
    let reply = frames.first().and_then(|frame| BlobReply::decode(&frame.0).ok());
    match reply {
        Some(BlobReply::Removed) => {
            let value = json!({ "node": node, "blake3": file.to_string() });
            output::print(everywhere.format(), value, || format!("{node} no longer keeps {file}\n"));
            Ok(())
        }
        Some(BlobReply::Refused(code)) => Err(Failure::new(code, node)),
        Some(BlobReply::Wanted(_) | BlobReply::Nodes(_) | BlobReply::Piece(_)) | None => {
            Err(Failure::new(Code::FrameMalformed, node))
        }
    }
}

fn drop_here(everywhere: &Everywhere, digits: &str) -> Outcome<()> {
    let file = hash(digits)?;
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let Answer::BlobDropped {} = daemon.ask(&Request::DropBlob { hash: file.to_string() })? else {
        return Err(local::unexpected());
    };
    let value = json!({ "blake3": file.to_string() });
    output::print(everywhere.format(), value, || format!("{file} is no longer kept here\n"));
    Ok(())
}

fn hash(digits: &str) -> Outcome<BlobHash> {
    BlobHash::from_hex(digits).map_err(|why| Failure::usage(format_args!("{digits}: {why}")))
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Code::DaemonNotRunning, format_args!("the connection to musterd ended: {error}"))
        .remedy("Look at its log: `journalctl -u musterd`.")
}

const NODE_BYTES: usize = 32;
