//! Files that a member keeps for others: brought whole, gone on with, cut by a revocation, and given to nobody who
//! neither put them nor may get them.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use control::{
    framing,
    local::{Answer, Request},
    stream::{self, Next},
};
use identity::{
    Code, Outline, Outliner,
    limits::{BLOB_PIECE_BYTES, CONTROL_MESSAGE_BYTES_MAX},
};
use lab::org::Org;
use org_trust::{PutReply, PutRequest};

use crate::harness::{self, code, within};

const ROOM: [(&str, &str); 2] = [("MUSTER_BLOBS_MAX", "64 MiB"), ("MUSTER_BLOBS_MEMBER", "40 MiB")];
const BYTES: usize = 5 * 1024 * 1024 + 77;
const PATIENCE: Duration = Duration::from_secs(20);

/// An org in which `n2` keeps files, for those that the rule says.
fn org(sandbox: &lab::Sandbox, machines: usize, rule: &str) -> Org {
    let org = harness::org_with(sandbox, machines, machines, &ROOM);
    for (node, role) in [("n2", "keeper"), ("n3", "putter")] {
        org.muster(0, &["member", "role", node, "add", role]).unwrap().ok().unwrap();
    }
    apply(&org, rule);
    org
}

fn apply(org: &Org, rule: &str) {
    let file = org.host(0).unwrap().dir().join("policy.toml");
    fs::write(&file, format!("[[rule]]\n{rule}")).unwrap();
    org.muster(0, &["policy", "apply", file.to_str().unwrap(), "--yes"]).unwrap().ok().unwrap();
}

const PUT: &str = "from = ['role:putter']\nto = ['role:keeper']\naction = 'blob-put'\n";

fn content(bytes: usize, fill: u8) -> (Vec<u8>, Outline) {
    let file: Vec<u8> = (0..bytes).map(|at| fill ^ (at / 251 + at * 7).to_le_bytes()[0]).collect();
    let mut outliner = Outliner::default();
    file.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    (file, outliner.finish().unwrap())
}

/// A file on a machine.
fn lay(org: &Org, node: usize, content: &[u8]) -> String {
    let path = org.host(node).unwrap().dir().join("file");
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Where `n2` keeps a file.
fn kept_in(org: &Org, outline: &Outline) -> PathBuf {
    org.state(1).unwrap().join("blobs").join(outline.hash().to_string())
}

fn names_in(dir: &PathBuf) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_str().unwrap().to_owned()).collect()
}

/// A session of `blob-put` with `n2` whose frames are the test's own.
struct Putter(UnixStream);

impl Putter {
    fn open(org: &Org, node: usize) -> Result<Self, Code> {
        let path = org.host(node).unwrap().dir().join("run/musterd.sock");
        let mut socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        let request = Request::Connect { node: "n2".to_owned(), action: "blob-put".to_owned() };
        socket.write_all(&framing::encode(&request, CONTROL_MESSAGE_BYTES_MAX).unwrap()).unwrap();
        let answer = answer(&mut socket);
        if let Answer::Failed(failed) = &answer {
            return Err(failed.code.0);
        }
        assert!(matches!(answer, Answer::Connected(_)), "{answer:?}");
        Ok(Self(socket))
    }

    fn say(&mut self, request: &PutRequest) -> bool {
        let frame = request.encode();
        self.0.write_all(&[&stream::head(&frame)[..], &frame].concat()).is_ok()
    }

    /// The next reply, or why there is none.
    fn hear(&mut self) -> Result<PutReply, Option<Code>> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).map_err(|_| None)?;
        match stream::next(head).unwrap() {
            Next::Bytes(length) => {
                let mut frame = vec![0; length];
                self.0.read_exact(&mut frame).unwrap();
                Ok(PutReply::decode(&frame).unwrap())
            }
            Next::End => Err(None),
            Next::Over => {
                let answer = answer(&mut self.0);
                let Answer::Failed(failed) = answer else { panic!("{answer:?}") };
                Err(Some(failed.code.0))
            }
        }
    }

    /// Up to where the keeper says from which piece on it has none.
    fn begin(&mut self, outline: &Outline) -> u32 {
        self.say(&PutRequest::Put { file: outline.hash(), bytes: outline.bytes() });
        assert_eq!(self.hear(), Ok(PutReply::Nodes));
        self.say(&PutRequest::Nodes(outline.encode()));
        match self.hear() {
            Ok(PutReply::From(first)) => first,
            other => panic!("{other:?}"),
        }
    }

    fn pieces(&mut self, file: &[u8], from: usize, to: usize) {
        for piece in file.chunks(BLOB_PIECE_BYTES).take(to).skip(from) {
            assert!(self.say(&PutRequest::Piece(piece.to_vec())));
        }
    }
}

fn answer(socket: &mut UnixStream) -> Answer {
    let mut prefix = [0; 4];
    socket.read_exact(&mut prefix).unwrap();
    let mut body = vec![0; framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).unwrap()];
    socket.read_exact(&mut body).unwrap();
    framing::decode(&body).unwrap()
}

/// Waits until the keeper has written this piece.
fn wait_for_piece(org: &Org, outline: &Outline, file: &[u8], index: usize) {
    let wanted = file.chunks(BLOB_PIECE_BYTES).nth(index).unwrap();
    within(PATIENCE, "the piece is on its way to the disk", || {
        let name = names_in(&kept_in(org, outline)).into_iter().find(|name| name.starts_with("part-"))?;
        let part = fs::read(kept_in(org, outline).join(name)).ok()?;
        (part.chunks(BLOB_PIECE_BYTES).nth(index)? == wanted).then_some(())
    });
}

#[test]
fn a_file_that_a_member_keeps_comes_back_to_who_put_it_and_to_nobody_else() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 4, PUT);
        let (file, outline) = content(BYTES, 0);
        let (hash, path) = (outline.hash().to_string(), lay(&org, 2, &file));
        assert_eq!(
            code(&org.muster(0, &["blob", "put", "n2", &path]).unwrap()),
            "MU-9001",
            "no rule is about n1"
        );
        assert_eq!(org.ask(0, &["trace", "n3", "n2", "blob-put"]).unwrap()["allowed"], true);
        assert_eq!(org.muster(0, &["trace", "n1", "n2", "blob-put"]).unwrap().status.code(), Some(77));
        let put = org.ask(2, &["blob", "put", "n2", &path]).unwrap();
        assert_eq!(put["blake3"], hash.as_str());
        assert_eq!(put["pieces_sent"], outline.pieces());
        let again = org.ask(2, &["blob", "put", "n2", &path]).unwrap();
        assert_eq!(again["pieces_sent"], 0, "it is there");
        let kept = org.ask(1, &["blob", "list"]).unwrap();
        assert_eq!(kept["used"], BYTES, "it is there once");
        assert_eq!(kept["files"][0]["by"], serde_json::json!(["n3"]));
        let out = org.host(2).unwrap().dir().join("back").to_str().unwrap().to_owned();
        org.ask(2, &["blob", "get", "n2", &hash, &out]).unwrap();
        assert!(fs::read(&out).unwrap() == file, "every byte is there");
        // Neither one that nobody keeps nor one that is not for it looks different.
        for hash in [&hash, &"01".repeat(32)] {
            let other = org.muster(3, &["blob", "get", "n2", hash, "/nowhere/at/all"]).unwrap();
            assert_eq!(code(&other), "MU-9043");
            assert_eq!(code(&org.muster(3, &["blob", "remove", "n2", hash]).unwrap()), "MU-9043");
        }
        // By the policy another gets it.
        apply(&org, "from = ['any']\nto = ['role:keeper']\naction = 'blob-get'\n");
        let out = org.host(3).unwrap().dir().join("got").to_str().unwrap().to_owned();
        within(PATIENCE, "the keeper has heard of the policy", || {
            org.ask(3, &["blob", "get", "n2", &hash, &out]).ok()
        });
        assert!(fs::read(&out).unwrap() == file, "every byte is there");
        // Who put it gets rid of it, although it may put no more.
        assert_eq!(code(&org.muster(2, &["blob", "put", "n2", &path]).unwrap()), "MU-9001");
        org.ask(2, &["blob", "remove", "n2", &hash]).unwrap();
        assert!(!kept_in(&org, &outline).exists());
        assert_eq!(org.ask(1, &["blob", "list"]).unwrap()["used"], 0);
    })
}

#[test]
fn a_revocation_cuts_a_put_on_its_way_and_what_came_is_given_to_nobody() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = org(sandbox, 3, "from = ['any']\nto = ['any']\naction = ['blob-put', 'blob-get']\n");
        let (file, outline) = content(BYTES, 1);
        let mut putter = Putter::open(&org, 2).unwrap();
        assert_eq!(putter.begin(&outline), 0);
        let half = file.len() / BLOB_PIECE_BYTES / 2;
        putter.pieces(&file, 0, half);
        wait_for_piece(&org, &outline, &file, half - 1);
        org.muster(0, &["revoke", "n3", "--wait", "0", "--yes"]).unwrap().ok().unwrap();
        assert_eq!(putter.hear(), Err(Some(Code::Revoked)));
        // What is sent now reaches nobody.
        for piece in file.chunks(BLOB_PIECE_BYTES).skip(half) {
            putter.say(&PutRequest::Piece(piece.to_vec()));
        }
        let names = names_in(&kept_in(&org, &outline));
        assert!(names.len() == 1 && names[0].starts_with("part-"), "{names:?}");
        let hash = outline.hash().to_string();
        let got = org.muster(0, &["blob", "get", "n2", &hash, "/nowhere/at/all"]).unwrap();
        assert_eq!(code(&got), "MU-9043", "also who may get all that is kept gets no part");
        let refused = org.muster(2, &["blob", "get", "n2", &hash, "/nowhere/at/all"]).unwrap();
        let refused = code(&refused);
        // Who has lost its tunnel hears nothing.
        assert!(["MU-1403", "MU-6009"].contains(&refused.as_str()), "{refused}");
        // Until the operator no longer wants it.
        assert_eq!(org.ask(1, &["blob", "list"]).unwrap()["files"][0]["whole"], false);
        org.ask(1, &["blob", "drop", &hash]).unwrap();
        assert!(!kept_in(&org, &outline).exists());
    })
}

#[test]
fn a_put_goes_on_where_it_was_cut_also_after_its_keeper_was_killed() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = org(sandbox, 3, PUT);
        let (file, outline) = content(BYTES, 2);
        // The connection breaks.
        let mut putter = Putter::open(&org, 2).unwrap();
        putter.begin(&outline);
        putter.pieces(&file, 0, 40);
        wait_for_piece(&org, &outline, &file, 39);
        drop(putter);
        let mut putter = within(PATIENCE, "the keeper has noticed", || {
            let mut putter = Putter::open(&org, 2).ok()?;
            putter.say(&PutRequest::Put { file: outline.hash(), bytes: outline.bytes() });
            (putter.hear() == Ok(PutReply::Nodes)).then_some(putter)
        });
        putter.say(&PutRequest::Nodes(outline.encode()));
        assert_eq!(putter.hear(), Ok(PutReply::From(40)));
        putter.pieces(&file, 40, 80);
        wait_for_piece(&org, &outline, &file, 79);
        // The keeper is killed, and what it wrote is torn.
        org.take_musterd(1).unwrap().kill();
        let name = names_in(&kept_in(&org, &outline)).remove(0);
        let part = kept_in(&org, &outline).join(name);
        let mut torn = fs::read(&part).unwrap();
        torn[70 * BLOB_PIECE_BYTES + 9] ^= 1;
        fs::write(&part, torn).unwrap();
        org.start_musterd(1).unwrap();
        let path = lay(&org, 2, &file);
        let put = within(PATIENCE, "the keeper is back", || org.ask(2, &["blob", "put", "n2", &path]).ok());
        assert_eq!(put["pieces_sent"], outline.pieces() - 70, "only what was missing or wrong");
        assert!(fs::read(kept_in(&org, &outline).join("data")).unwrap() == file, "every byte is there");
        assert!(!names_in(&kept_in(&org, &outline)).iter().any(|name| name.starts_with("part-")));
        // A keeper whose disk has turned a bit, or who lies, is found out by who gets it.
        let mut wrong = file.clone();
        wrong[50 * BLOB_PIECE_BYTES] ^= 1;
        fs::write(kept_in(&org, &outline).join("data"), wrong).unwrap();
        let out = org.host(2).unwrap().dir().join("back");
        let got = ["blob", "get", "n2", &outline.hash().to_string(), out.to_str().unwrap()];
        assert_eq!(code(&org.muster(2, &got).unwrap()), "MU-8021");
        assert!(!out.exists());
    })
}

#[test]
fn a_putter_has_four_sessions_and_who_says_nothing_more_loses_its_own() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = org(sandbox, 3, PUT);
        let (_, outline) = content(BYTES, 3);
        let mut mute = Putter::open(&org, 2).unwrap();
        let mut half = Putter::open(&org, 2).unwrap();
        half.begin(&outline);
        let mut wrong = Putter::open(&org, 2).unwrap();
        let _fourth = Putter::open(&org, 2).unwrap();
        assert_eq!(Putter::open(&org, 2).err(), Some(Code::Busy), "a fifth");
        wrong.say(&PutRequest::Piece(vec![1]));
        assert_eq!(wrong.hear(), Ok(PutReply::Refused(Code::RequestMalformed)));
        assert_eq!(mute.hear(), Err(Some(Code::TransferSilent)));
        assert_eq!(half.hear(), Err(Some(Code::TransferSilent)));
        within(PATIENCE, "there is room again", || Putter::open(&org, 2).ok());
        // Without a directory to keep them in it keeps none, and is a member all the same.
        org.take_musterd(1).unwrap().kill();
        let dir = org.state(1).unwrap().join("blobs");
        fs::rename(&dir, dir.with_extension("old")).unwrap();
        fs::write(&dir, []).unwrap();
        org.start_musterd(1).unwrap();
        within(PATIENCE, "it says so", || {
            (Putter::open(&org, 2).err() == Some(Code::BlobsOff)).then_some(())
        });
    })
}
