//! Node images that this machine passes on, and which of them machines are to run.
//!
//! A thread of its own waits for the disk. An image lies under its hash, with its outline beside it; it
//! appears there when all of it has come and is what its hash says. Whose word a release is, is not judged
//! here: whoever starts it checks the signature of the org's release key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use control::local::{Answer, Failed, HeldImage, ImageUpload, Images as Shown, Slot};
use identity::{
    BlobHash, Code, HexError, Outline, Outliner, encode_hex,
    limits::{
        BLOB_NODES_MAX, BLOB_PIECE_BYTES, BLOB_QUESTIONS_MAX, BLOB_UPLOAD_BYTES_MAX, GENERATION_BYTES_MAX,
        NODE_IMAGE_BYTES_MAX,
    },
};
use org_trust::{BlobReply, BlobRequest, Generation, RunningImage, UnverifiedGeneration};
use tokio::sync::{mpsc, oneshot};

use crate::{
    blobs::{Asker, Blobs, BlobsError, What},
    run::Input,
    sessions::SessionKey,
};

/// What the thread is asked for.
#[derive(Debug)]
pub enum ImagesOrder {
    /// By a session of `blob-get`.
    Ask(SessionKey, BlobRequest, Option<Asker>),
    /// By the operator: a file that is kept for members no longer is.
    Drop(String, oneshot::Sender<Answer>),
    /// By a program: how far the image of this signed release has come.
    Offer(Vec<u8>, oneshot::Sender<Answer>),
    /// By a program: what is there.
    Show(oneshot::Sender<Answer>),
    /// By a program: a part of that image, from this byte on.
    Upload(Vec<u8>, u64, Vec<u8>, oneshot::Sender<Answer>),
}

/// Why it is not done.
#[derive(Debug)]
pub struct ImagesError {
    /// The code.
    pub code: Code,
    /// What exactly.
    pub detail: String,
}

/// The directory.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
    running: Option<RunningImage>,
    blobs: Option<Arc<Blobs>>,
}

/// Starts the thread. It ends when the sender is dropped.
///
/// # Errors
/// The operating system gives no thread.
pub fn spawn(
    images: Images,
    inputs: mpsc::Sender<Input>,
) -> io::Result<(mpsc::Sender<ImagesOrder>, thread::JoinHandle<()>)> {
    let (orders, mut received) = mpsc::channel(BLOB_QUESTIONS_MAX);
    let thread = thread::Builder::new().name("images".to_owned()).spawn(move || {
        while let Some(order) = received.blocking_recv() {
            match order {
                ImagesOrder::Drop(hash, reply) => tell(reply, images.drop_blob(&hash)),
                ImagesOrder::Ask(key, request, asker) => {
                    let frames = images.answer(&request, asker);
                    if inputs.blocking_send(Input::ImageRead(key, frames)).is_err() {
                        return;
                    }
                }
                ImagesOrder::Offer(release, reply) => tell(reply, images.offer(&release)),
                ImagesOrder::Show(reply) => tell(reply, images.show().map(Answer::Images)),
                ImagesOrder::Upload(release, at, part, reply) => {
                    tell(reply, images.upload(&release, at, &part));
                }
            }
        }
    })?;
    Ok((orders, thread))
}

impl Images {
    /// The images in a state directory.
    #[must_use]
    pub fn of(state_dir: &Path, running: Option<RunningImage>) -> Self {
        Self { dir: state_dir.join(DIRECTORY), running, blobs: None }
    }

    /// The same, with what is kept for members.
    #[must_use]
    pub fn with(self, blobs: Option<Arc<Blobs>>) -> Self {
        Self { blobs, ..self }
    }

    /// Frames that answer a machine.
    fn answer(&self, request: &BlobRequest, asker: Option<Asker>) -> Vec<Vec<u8>> {
        let answered = match request {
            BlobRequest::Wanted => self.wanted().map(|bytes| vec![BlobReply::Wanted(bytes)]),
            BlobRequest::Nodes { file, first } => {
                let (start, max) = (u64::from(*first) * NODE_BYTES, u64::from(BLOB_NODES_MAX) * NODE_BYTES);
                self.part((file, What::Outline), (start, max), asker)
                    .map(|bytes| vec![BlobReply::Nodes(bytes)])
            }
            BlobRequest::Pieces { file, first, count } => {
                let start = u64::from(*first) * BLOB_PIECE_BYTES as u64;
                let max = u64::from(*count) * BLOB_PIECE_BYTES as u64;
                self.part((file, What::Data), (start, max), asker).map(|bytes| {
                    bytes.chunks(BLOB_PIECE_BYTES).map(|piece| BlobReply::Piece(piece.to_vec())).collect()
                })
            }
            BlobRequest::Remove { file } => self
                .blob(|blobs, asker| blobs.remove(file, asker.member), asker)
                .map(|()| vec![BlobReply::Removed]),
        };
        let replies = answered.unwrap_or_else(|why| {
            tracing::debug!(MUSTER_CODE = %why.code, "a file that is not passed on: {}", why.detail);
            vec![BlobReply::Refused(why.code)]
        });
        replies.iter().map(BlobReply::encode).collect()
    }

    fn wanted(&self) -> Result<Vec<u8>, ImagesError> {
        read(&self.dir.join(WANTED), GENERATION_BYTES_MAX)?.ok_or_else(not_held)
    }

    /// Bytes of a file that is held, at least one: of an image, which is everybody's, or of what is kept.
    fn part(
        &self,
        (file, what): (&BlobHash, What),
        (start, max): (u64, u64),
        asker: Option<Asker>,
    ) -> Result<Vec<u8>, ImagesError> {
        let path = match what {
            What::Data => self.path(file, IMAGE),
            What::Outline => self.path(file, OUTLINE),
        };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.blob(|blobs, asker| blobs.read(file, asker, what, (start, max)), asker);
            }
            opened => opened.map_err(|e| problem(&path, &e))?,
        };
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.take(max).read_to_end(&mut bytes));
        read.map_err(|e| problem(&path, &e))?;
        if bytes.is_empty() { Err(not_held()) } else { Ok(bytes) }
    }

    /// Of what is kept, on behalf of a member.
    fn blob<T>(
        &self,
        ask: impl FnOnce(&Blobs, Asker) -> Result<T, BlobsError>,
        asker: Option<Asker>,
    ) -> Result<T, ImagesError> {
        let (Some(blobs), Some(asker)) = (&self.blobs, asker) else { return Err(not_held()) };
        ask(blobs, asker).map_err(|BlobsError { code, detail }| ImagesError { code, detail })
    }

    fn drop_blob(&self, hash: &str) -> Result<Answer, ImagesError> {
        let wrong = |why: HexError| ImagesError { code: Code::RequestMalformed, detail: why.to_string() };
        let file = BlobHash::from_hex(hash).map_err(wrong)?;
        let off = || ImagesError { code: Code::BlobsOff, detail: String::new() };
        let dropped = self.blobs.as_ref().ok_or_else(off)?.drop_all(&file);
        dropped.map_err(|BlobsError { code, detail }| ImagesError { code, detail })?;
        Ok(Answer::BlobDropped {})
    }

    /// How far an image has come; when it is whole, machines are to run it from now on.
    fn offer(&self, release: &[u8]) -> Result<Answer, ImagesError> {
        let generation = claimed(release)?;
        let mut made = fs::DirBuilder::new();
        made.recursive(true).mode(0o700).create(&self.dir).map_err(|e| problem(&self.dir, &e))?;
        let file = BlobHash(generation.image);
        let at = if self.path(&file, IMAGE).is_file() {
            self.want(release, &generation)?;
            generation.image_bytes
        } else {
            fs::metadata(self.path(&file, PART)).map_or(0, |part| part.len())
        };
        Ok(upload(at, &generation))
    }

    fn upload(&self, release: &[u8], at: u64, part: &[u8]) -> Result<Answer, ImagesError> {
        let generation = claimed(release)?;
        let file = BlobHash(generation.image);
        let path = self.path(&file, PART);
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let there = open.map_err(|e| problem(&path, &e))?;
        let length = there.metadata().map_err(|e| problem(&path, &e))?.len();
        let end = at.saturating_add(part.len() as u64);
        if at != length || end > generation.image_bytes || part.len() > BLOB_UPLOAD_BYTES_MAX {
            let detail = format!("bytes {at} to {end} where {length} of {} are", generation.image_bytes);
            return Err(ImagesError { code: Code::NodeImageOutOfOrder, detail });
        }
        there.write_all_at(part, at).map_err(|e| not_kept(&path, &e))?;
        if end < generation.image_bytes {
            return Ok(upload(end, &generation));
        }
        there.sync_all().map_err(|e| not_kept(&path, &e))?;
        let outline = outline(&path).map_err(|e| problem(&path, &e))?;
        if outline.hash() != file {
            fs::remove_file(&path).map_err(|e| problem(&path, &e))?;
            let detail = "the image is not the one that was signed".to_owned();
            return Err(ImagesError { code: Code::NodeImageInvalid, detail });
        }
        // First the outline: an image is there when its file is.
        self.write(&self.path(&file, OUTLINE), &outline.encode())?;
        fs::rename(&path, self.path(&file, IMAGE)).map_err(|e| problem(&path, &e))?;
        self.want(release, &generation)?;
        Ok(upload(end, &generation))
    }

    fn want(&self, release: &[u8], generation: &Generation) -> Result<(), ImagesError> {
        let before = self.wanted().ok().and_then(|release| claimed(&release).ok());
        self.write(&self.dir.join(WANTED), release)?;
        tracing::info!(release = generation.number, "machines that boot are to run this release");
        if let Some(before) = before.filter(|before| before.image != generation.image) {
            self.keep_only([before.image, generation.image]);
        }
        Ok(())
    }

    /// Every other image goes, and what came in part.
    fn keep_only(&self, kept: [[u8; 32]; 2]) {
        let kept = kept.map(|hash| encode_hex(&hash));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept =
                name == WANTED || name.split('.').next().is_some_and(|hash| kept.contains(&hash.to_owned()));
            if !is_kept && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, name, "an old image stays");
            }
        }
    }

    fn show(&self) -> Result<Box<Shown>, ImagesError> {
        let wanted = match self.wanted() {
            Ok(release) => Some(claimed(&release)?),
            Err(why) if why.code == Code::NodeImageNotHeld => None,
            Err(why) => return Err(why),
        };
        let slots = self.running.as_ref().and_then(|image| image.slot.as_ref()).map(PathBuf::from);
        let slots = slots.as_deref().and_then(Path::parent).map(slots_in).unwrap_or_default();
        Ok(Box::new(Shown {
            running: self.running.as_ref().map(|image| control::local::RunningImage {
                release: image.release,
                floor: image.floor,
                ready: image.tries_left.is_none() || image.slot.as_deref().is_some_and(is_ready),
                tries_left: image.tries_left,
                given_up: image.given_up,
                slot: image.slot.clone(),
            }),
            slots,
            wanted: wanted.map(|generation| HeldImage {
                release: generation.number,
                minimum: generation.minimum,
                bytes: generation.image_bytes,
                hash: encode_hex(&generation.image),
            }),
        }))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), ImagesError> {
        replace(path, content).map_err(|e| not_kept(path, &e))
    }

    fn path(&self, file: &BlobHash, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", encode_hex(file.as_bytes())))
    }
}

/// Says in its slot that the running image was ready, so that it is not given up.
///
/// # Errors
/// The disk refuses.
pub fn mark_ready(image: &RunningImage) -> io::Result<()> {
    match &image.slot {
        Some(slot) => replace(&Path::new(slot).join(RunningImage::READY), b"1\n"),
        None => Ok(()),
    }
}

fn is_ready(slot: &str) -> bool {
    Path::new(slot).join(RunningImage::READY).is_file()
}

fn slots_in(dir: &Path) -> Vec<Slot> {
    ["a", "b"]
        .into_iter()
        .filter_map(|name| {
            let slot = dir.join(name);
            let release = fs::read(slot.join("node.release")).ok()?;
            let generation = claimed(&release).ok()?;
            let ready = slot.join(RunningImage::READY).is_file();
            Some(Slot { name: name.to_owned(), release: generation.number, ready })
        })
        .collect()
}

fn claimed(release: &[u8]) -> Result<Generation, ImagesError> {
    let claimed = UnverifiedGeneration::decode(release)
        .map_err(|why| ImagesError { code: Code::NodeImageInvalid, detail: why.to_string() })?;
    let generation = claimed.claimed().clone();
    if generation.image_bytes > NODE_IMAGE_BYTES_MAX {
        let detail = format!("{} bytes", generation.image_bytes);
        return Err(ImagesError { code: Code::NodeImageTooLarge, detail });
    }
    Ok(generation)
}

fn outline(path: &Path) -> io::Result<Outline> {
    let file = File::open(path)?;
    let (mut outliner, mut piece) = (Outliner::default(), Vec::new());
    loop {
        piece.clear();
        (&file).take(BLOB_PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return outliner.finish().map_err(io::Error::other);
        }
        outliner.push(&piece).map_err(io::Error::other)?;
    }
}

fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, ImagesError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| problem(path, &e))?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64).read_to_end(&mut bytes).map_err(|e| problem(path, &e))?;
    Ok(Some(bytes))
}

/// Puts a file in the place of any that is there, whole.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn upload(at: u64, generation: &Generation) -> Answer {
    Answer::ImageUpload(ImageUpload { release: generation.number, at, bytes: generation.image_bytes })
}

fn tell(reply: oneshot::Sender<Answer>, answered: Result<Answer, ImagesError>) {
    let answer =
        answered.unwrap_or_else(|why| Answer::Failed(Failed { code: why.code.into(), detail: why.detail }));
    if reply.send(answer).is_err() {
        tracing::debug!("nobody waited for the answer");
    }
}

fn not_held() -> ImagesError {
    ImagesError { code: Code::NodeImageNotHeld, detail: String::new() }
}

fn problem(path: &Path, error: &io::Error) -> ImagesError {
    ImagesError { code: Code::FileProblem, detail: format!("{}: {error}", path.display()) }
}

fn not_kept(path: &Path, error: &io::Error) -> ImagesError {
    ImagesError { code: Code::NodeImageNotKept, detail: format!("{}: {error}", path.display()) }
}

/// Below the state directory.
const DIRECTORY: &str = "images";
/// The signed release that machines are to run.
const WANTED: &str = "wanted";
const IMAGE: &str = "image";
const OUTLINE: &str = "outline";
const PART: &str = "part";
const NODE_BYTES: u64 = 32;

#[cfg(test)]
mod tests {
    use identity::{OrgId, SecretKey};

    use super::*;

    const ORG: OrgId = OrgId([7; 32]);

    fn image(fill: u8) -> Vec<u8> {
        (0..3 * BLOB_PIECE_BYTES + 77).map(|at| fill ^ u8::try_from(at % 251).unwrap()).collect()
    }

    fn release(number: u32, image: &[u8]) -> Vec<u8> {
        let hash = *blake3_of(image).as_bytes();
        let generation = Generation { number, image: hash, image_bytes: image.len() as u64, minimum: 0 };
        generation.sign(&ORG, &SecretKey::from_seed(&[3; 32]))
    }

    fn blake3_of(image: &[u8]) -> BlobHash {
        let mut outliner = Outliner::default();
        image.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
        outliner.finish().unwrap().hash()
    }

    fn publish(images: &Images, release: &[u8], image: &[u8], steps: usize) -> Result<u64, Code> {
        let at = |answer: Result<Answer, ImagesError>| {
            let answer = answer.map_err(|why| why.code)?;
            let Answer::ImageUpload(upload) = answer else { panic!("{answer:?}") };
            Ok(upload.at)
        };
        let mut done = at(images.offer(release))?;
        for _ in 0..steps {
            let from = usize::try_from(done).unwrap();
            let part = &image[from..image.len().min(from + BLOB_PIECE_BYTES + 9)];
            if !part.is_empty() {
                done = at(images.upload(release, done, part))?;
            }
        }
        Ok(done)
    }

    fn replies(images: &Images, request: BlobRequest) -> Vec<BlobReply> {
        images.answer(&request, None).iter().map(|frame| BlobReply::decode(frame).unwrap()).collect()
    }

    #[test]
    fn an_image_is_passed_on_once_all_of_it_has_come_and_publishing_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::of(dir.path(), None);
        let (image, refused) = (image(0), [BlobReply::Refused(Code::NodeImageNotHeld)]);
        let (signed, file) = (release(4, &image), blake3_of(&image));
        assert_eq!(replies(&images, BlobRequest::Wanted), refused);
        assert_eq!(publish(&images, &signed, &image, 2), Ok(2 * (BLOB_PIECE_BYTES as u64 + 9)));
        assert_eq!(replies(&images, BlobRequest::Wanted), refused, "not all of it is there");
        // The program ended; another one goes on.
        assert_eq!(publish(&images, &signed, &image, 9), Ok(image.len() as u64));
        assert_eq!(replies(&images, BlobRequest::Wanted), [BlobReply::Wanted(signed)]);

        let nodes = replies(&images, BlobRequest::Nodes { file, first: 0 });
        let [BlobReply::Nodes(nodes)] = nodes.as_slice() else { panic!("{nodes:?}") };
        let outline = Outline::read(file, image.len() as u64, nodes).unwrap();
        let pieces = replies(&images, BlobRequest::Pieces { file, first: 1, count: 16 });
        assert_eq!(pieces.len(), 3, "to the end and no further");
        for (index, piece) in (1..).zip(&pieces) {
            let BlobReply::Piece(piece) = piece else { panic!("{piece:?}") };
            outline.check(index, piece).unwrap();
        }
        assert_eq!(replies(&images, BlobRequest::Pieces { file, first: 4, count: 1 }), refused);
        let other = BlobHash([1; 32]);
        assert_eq!(replies(&images, BlobRequest::Pieces { file: other, first: 0, count: 1 }), refused);
    }

    #[test]
    fn what_is_not_the_signed_image_is_refused_and_what_was_wanted_stays() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::of(dir.path(), None);
        let (first, second) = (image(0), image(1));
        let signed = release(1, &first);
        publish(&images, &signed, &first, 9).unwrap();
        assert_eq!(publish(&images, &release(2, &second), &first, 9), Err(Code::NodeImageInvalid));
        assert_eq!(publish(&images, b"junk", &first, 9), Err(Code::NodeImageInvalid));
        let bytes = NODE_IMAGE_BYTES_MAX + 1;
        let huge = Generation { number: 3, image: [1; 32], image_bytes: bytes, minimum: 0 };
        let huge = huge.sign(&ORG, &SecretKey::from_seed(&[3; 32]));
        assert_eq!(publish(&images, &huge, &first, 9), Err(Code::NodeImageTooLarge));
        let out_of_order = images.upload(&release(2, &second), 5, b"x").unwrap_err().code;
        assert_eq!(out_of_order, Code::NodeImageOutOfOrder);
        assert_eq!(replies(&images, BlobRequest::Wanted), [BlobReply::Wanted(signed)]);
    }

    #[test]
    fn the_wanted_image_and_the_one_before_it_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::of(dir.path(), None);
        for fill in 0..4 {
            let image = image(fill);
            publish(&images, &release(fill.into(), &image), &image, 9).unwrap();
        }
        let held = |fill| images.path(&blake3_of(&image(fill)), IMAGE).is_file();
        assert_eq!([held(0), held(1), held(2), held(3)], [false, false, true, true]);
        let first = image(2);
        publish(&images, &release(2, &first), &first, 0).unwrap();
        let BlobReply::Wanted(wanted) = replies(&images, BlobRequest::Wanted).remove(0) else { panic!() };
        assert_eq!(wanted, release(2, &first), "back to the one before, without sending it again");
    }

    #[test]
    fn a_running_image_is_marked_ready_in_its_slot_and_shown_so() {
        let dir = tempfile::tempdir().unwrap();
        let slot = dir.path().join("slots/b");
        fs::create_dir_all(&slot).unwrap();
        fs::write(slot.join("node.release"), release(4, &image(0))).unwrap();
        let path = slot.to_str().unwrap().to_owned();
        let running =
            RunningImage { release: 4, floor: 2, slot: Some(path), tries_left: Some(2), given_up: None };
        let images = Images::of(dir.path(), Some(running.clone()));
        let shown = images.show().unwrap();
        assert!(!shown.running.unwrap().ready);
        assert!(!shown.slots[0].ready);
        mark_ready(&running).unwrap();
        let shown = images.show().unwrap();
        assert_eq!((shown.slots[0].release, shown.slots[0].ready), (4, true));
        assert!(shown.running.unwrap().ready);
    }
}
