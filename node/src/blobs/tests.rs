use std::{
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use identity::{
    Outline, Outliner, SecretKey,
    limits::{BLOB_PART_KEPT_MS, BLOB_PIECE_BYTES, BLOBS_KEPT_MAX, BLOBS_PER_MEMBER_MAX},
};
use org_trust::{PutReply, PutRequest, Putting};

use super::{session::Keeper, *};

const KIB: u64 = 1024;
const PIECE: usize = BLOB_PIECE_BYTES;

struct Bench(PathBuf);

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("muster-blobs-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn blobs(&self, max: u64, member: u64) -> Arc<Blobs> {
        Arc::new(Blobs::open(&self.0, Room { max, member }).unwrap())
    }

    fn names(&self, file: &BlobHash) -> Vec<String> {
        let dir = self.0.join(DIRECTORY).join(file.to_string());
        let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
        let mut names: Vec<_> =
            found.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn member(seed: u8) -> PublicKey {
    SecretKey::from_seed(&[seed; 32]).public()
}

fn file(pieces: usize, fill: u8) -> (Vec<u8>, Outline) {
    let file: Vec<u8> = (0..pieces * PIECE).map(|at| fill ^ u8::try_from(at % 251).unwrap()).collect();
    let mut outliner = Outliner::default();
    file.chunks(PIECE).for_each(|piece| outliner.push(piece).unwrap());
    (file, outliner.finish().unwrap())
}

fn keeper(blobs: &Arc<Blobs>, by: u8) -> Keeper {
    Keeper { blobs: Arc::clone(blobs), by: member(by), putting: Putting::default(), taking: None }
}

fn open(keeper: &mut Keeper, outline: &Outline) -> PutReply {
    let put = PutRequest::Put { file: outline.hash(), bytes: outline.bytes() };
    match keeper.on_frame(&put.encode()).unwrap() {
        PutReply::Nodes => keeper.on_frame(&PutRequest::Nodes(outline.encode()).encode()).unwrap(),
        reply @ (PutReply::From(_) | PutReply::Kept | PutReply::Refused(_)) => reply,
    }
}

fn send(keeper: &mut Keeper, file: &[u8], from: usize, to: usize) -> Option<PutReply> {
    let pieces = file.chunks(PIECE).take(to).skip(from);
    pieces.map(|piece| keeper.on_frame(&PutRequest::Piece(piece.to_vec()).encode())).last().flatten()
}

fn put(blobs: &Arc<Blobs>, by: u8, (file, outline): &(Vec<u8>, Outline)) -> PutReply {
    let mut keeper = keeper(blobs, by);
    match open(&mut keeper, outline) {
        PutReply::From(first) => {
            send(&mut keeper, file, usize::try_from(first).unwrap(), usize::MAX).unwrap()
        }
        reply @ (PutReply::Nodes | PutReply::Kept | PutReply::Refused(_)) => reply,
    }
}

fn get(blobs: &Blobs, file: &BlobHash, by: u8, permitted: bool) -> Result<Vec<u8>, Code> {
    let who = Asker { member: member(by), permitted };
    blobs.read(file, who, What::Data, (0, u64::MAX)).map_err(|why| why.code)
}

#[test]
fn what_was_kept_is_there_after_a_start_and_for_whom_it_was_put() {
    let bench = Bench::new();
    let one = file(3, 0);
    let hash = one.1.hash();
    assert_eq!(put(&bench.blobs(1024 * KIB, 512 * KIB), 1, &one), PutReply::Kept);
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    assert_eq!(get(&blobs, &hash, 1, false).unwrap(), one.0);
    assert_eq!(get(&blobs, &hash, 2, true).unwrap(), one.0, "by the policy");
    assert_eq!(get(&blobs, &hash, 2, false), Err(Code::BlobNotHeld));
    assert_eq!(blobs.remove(&hash, member(2)).unwrap_err().code, Code::BlobNotHeld);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = bench.0.join(DIRECTORY);
    assert_eq!((mode(&dir), mode(&dir.join(hash.to_string()))), (0o700, 0o700));
    assert_eq!(mode(&dir.join(hash.to_string()).join(DATA)), 0o600);
}

#[test]
fn who_knows_a_hash_and_not_the_file_gets_nothing_by_putting_it() {
    let bench = Bench::new();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    let one = file(3, 0);
    let hash = one.1.hash();
    assert_eq!(put(&blobs, 1, &one), PutReply::Kept);
    let mut second = keeper(&blobs, 2);
    assert_eq!(open(&mut second, &one.1), PutReply::From(0), "it has to send all of it");
    assert_eq!(get(&blobs, &hash, 2, false), Err(Code::BlobNotHeld));
    assert_eq!(send(&mut second, &one.0, 0, 3), Some(PutReply::Kept));
    assert_eq!(get(&blobs, &hash, 2, false).unwrap(), one.0);
    assert_eq!(blobs.room().1, one.1.bytes(), "it is there once");
    // For the other it stays.
    blobs.remove(&hash, member(1)).unwrap();
    assert_eq!(get(&blobs, &hash, 1, false), Err(Code::BlobNotHeld));
    assert_eq!(get(&blobs, &hash, 2, false).unwrap(), one.0);
    blobs.remove(&hash, member(2)).unwrap();
    assert_eq!((bench.names(&hash), blobs.room().1), (Vec::<String>::new(), 0));
}

#[test]
fn a_part_is_gone_on_with_as_far_as_it_is_right_and_belongs_to_who_sends_it() {
    let bench = Bench::new();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    let (bytes, outline) = file(5, 0);
    let mut first = keeper(&blobs, 1);
    assert_eq!(open(&mut first, &outline), PutReply::From(0));
    assert_eq!(open(&mut keeper(&blobs, 1), &outline), PutReply::Refused(Code::Busy), "twice at once");
    send(&mut first, &bytes, 0, 4);
    assert_eq!(get(&blobs, &outline.hash(), 1, true), Err(Code::BlobNotHeld), "a part is nobody's");
    drop(first);
    assert_eq!(open(&mut keeper(&blobs, 2), &outline), PutReply::From(0), "another has to send all of it");
    let part = bench.0.join(DIRECTORY).join(outline.hash().to_string()).join(part_of(&member(1)));
    let mut torn = fs::read(&part).unwrap();
    torn[2 * PIECE] ^= 1;
    fs::write(&part, torn).unwrap();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    let mut again = keeper(&blobs, 1);
    assert_eq!(open(&mut again, &outline), PutReply::From(2));
    assert_eq!(send(&mut again, &bytes, 2, 5), Some(PutReply::Kept));
    assert_eq!(get(&blobs, &outline.hash(), 1, false).unwrap(), bytes);
}

#[test]
fn a_wrong_piece_ends_a_put_and_leaves_what_was_right() {
    let bench = Bench::new();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    let (bytes, outline) = file(3, 0);
    let mut hostile = keeper(&blobs, 1);
    open(&mut hostile, &outline);
    send(&mut hostile, &bytes, 0, 1);
    let wrong = PutRequest::Piece(vec![9; PIECE]).encode();
    assert_eq!(hostile.on_frame(&wrong), Some(PutReply::Refused(Code::NodeImageDamaged)));
    drop(hostile);
    assert_eq!(open(&mut keeper(&blobs, 1), &outline), PutReply::From(1));
}

#[test]
fn nobody_takes_more_room_than_the_settings_give() {
    let bench = Bench::new();
    let piece = PIECE as u64;
    let blobs = bench.blobs(8 * piece, 4 * piece);
    assert_eq!(open(&mut keeper(&blobs, 1), &file(5, 0).1), PutReply::Refused(Code::BlobsFull));
    assert_eq!(put(&blobs, 1, &file(3, 1)), PutReply::Kept);
    assert_eq!(put(&blobs, 1, &file(2, 2)), PutReply::Refused(Code::BlobsFull), "its own share");
    assert_eq!(put(&blobs, 1, &file(3, 1)), PutReply::Kept, "what is kept is");
    assert_eq!(put(&blobs, 2, &file(4, 3)), PutReply::Kept);
    assert_eq!(put(&blobs, 3, &file(2, 4)), PutReply::Refused(Code::BlobsFull), "all there is");
    assert_eq!(put(&blobs, 3, &file(1, 5)), PutReply::Kept);
    assert_eq!(blobs.room().1, 8 * piece);
    blobs.drop_all(&file(4, 3).1.hash()).unwrap();
    assert_eq!(put(&blobs, 3, &file(2, 4)), PutReply::Kept);
}

#[test]
fn a_part_counts_in_full_and_makes_room_when_nobody_sends_it() {
    let bench = Bench::new();
    let piece = PIECE as u64;
    let blobs = bench.blobs(8 * piece, 6 * piece);
    let (torn, next) = (file(6, 0), file(4, 1));
    let mut sends = keeper(&blobs, 1);
    open(&mut sends, &torn.1);
    assert_eq!(blobs.room().1, 6 * piece, "as it was announced");
    assert_eq!(put(&blobs, 2, &next), PutReply::Refused(Code::BlobsFull));
    drop(sends);
    assert_eq!(put(&blobs, 2, &next), PutReply::Kept);
    assert_eq!(blobs.room().1, 4 * piece);
    assert!(bench.names(&torn.1.hash()).is_empty());
}

#[test]
fn parts_that_are_old_go_and_opens_without_end_leave_no_more_than_there_is_room_for() {
    let bench = Bench::new();
    let piece = PIECE as u64;
    let blobs = bench.blobs(64 * piece, 8 * piece);
    for fill in 0..40 {
        open(&mut keeper(&blobs, 1), &file(2, fill).1);
    }
    assert_eq!(blobs.room().1, 8 * piece, "its own parts make room for its own");
    assert_eq!(fs::read_dir(bench.0.join(DIRECTORY)).unwrap().count(), 4);
    let long_ago = SystemTime::now() - Duration::from_millis(BLOB_PART_KEPT_MS + 60_000);
    for entry in blobs.index().values_mut() {
        entry.parts.values_mut().for_each(|part| part.touched = long_ago);
    }
    assert_eq!(put(&blobs, 2, &file(1, 99)), PutReply::Kept);
    assert_eq!(blobs.room().1, piece);
}

#[test]
fn files_are_counted_of_one_member_and_of_all_however_small_they_are() {
    let bench = Bench::new();
    let blobs = bench.blobs(u64::MAX, u64::MAX);
    let (one, two, three) = (file(1, 1), file(1, 2), file(1, 3));
    // As many as there may be would take long to put: they stand in the index alone.
    let fill = |until: usize, of: u8| {
        let mut index = blobs.index();
        for n in index.len()..until {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            let owners = BTreeSet::from([member(of)]);
            index.insert(BlobHash(hash), Entry { bytes: Some(1), owners, ..Entry::default() });
        }
        assert_eq!(index.len(), until);
    };
    fill(BLOBS_PER_MEMBER_MAX - 1, 1);
    assert_eq!(put(&blobs, 1, &one), PutReply::Kept);
    assert_eq!(put(&blobs, 1, &two), PutReply::Refused(Code::BlobsFull), "its own share");
    fill(BLOBS_KEPT_MAX - 1, 3);
    assert_eq!(put(&blobs, 2, &two), PutReply::Kept);
    assert_eq!(put(&blobs, 2, &three), PutReply::Refused(Code::BlobsFull), "all there may be");
    assert!(bench.names(&three.1.hash()).is_empty());
    blobs.remove(&two.1.hash(), member(2)).unwrap();
    assert_eq!(open(&mut keeper(&blobs, 4), &two.1), PutReply::From(0));
    // A part counts, too, and goes first.
    assert_eq!(put(&blobs, 2, &three), PutReply::Kept);
    assert!(bench.names(&two.1.hash()).is_empty());
    assert_eq!(blobs.list().len(), BLOBS_KEPT_MAX);
}

#[test]
fn what_a_power_cut_left_is_put_right_at_the_next_start() {
    let bench = Bench::new();
    let one = file(2, 0);
    let hash = one.1.hash();
    let dir = bench.0.join(DIRECTORY).join(hash.to_string());
    // Before the rename: who put it stands there, and the file does not.
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(owner(&member(1))), []).unwrap();
    fs::write(dir.join(OUTLINE), one.1.encode()).unwrap();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    assert!(!dir.exists() && blobs.list().is_empty());
    assert_eq!(get(&blobs, &hash, 1, true), Err(Code::BlobNotHeld));
    assert_eq!(put(&blobs, 1, &one), PutReply::Kept);
    // In the middle of a removal: it is kept for nobody.
    fs::remove_file(dir.join(owner(&member(1)))).unwrap();
    assert!(bench.blobs(1024 * KIB, 512 * KIB).list().is_empty() && !dir.exists());
}

#[test]
fn a_disk_that_refuses_is_said_with_its_code_and_nothing_is_acknowledged() {
    let bench = Bench::new();
    let blobs = bench.blobs(1024 * KIB, 512 * KIB);
    let (bytes, outline) = file(2, 0);
    let dir = bench.0.join(DIRECTORY).join(outline.hash().to_string());
    fs::write(&dir, []).unwrap();
    assert_eq!(put(&blobs, 1, &(bytes.clone(), outline.clone())), PutReply::Refused(Code::BlobNotKept));
    fs::remove_file(&dir).unwrap();
    let mut keeper = keeper(&blobs, 1);
    open(&mut keeper, &outline);
    // Where the nodes are to lie stands a directory.
    fs::create_dir(dir.join(OUTLINE)).unwrap();
    assert_eq!(send(&mut keeper, &bytes, 0, 2), Some(PutReply::Refused(Code::BlobNotKept)));
    assert_eq!(get(&blobs, &outline.hash(), 1, true), Err(Code::BlobNotHeld));
}
