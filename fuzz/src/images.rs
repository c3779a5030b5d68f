//! What a machine boots: the image itself and what is in it, who released it, and how it gets there.

use std::io::{Read as _, Write as _};

use boot_image::{Archive, DiskToken, PINS_DIRECTORY, Pcr, Pins, Uki};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use identity::{
    BlobHash, Outline, OutlineError, Outliner, SecretKey,
    limits::{BLOB_BYTES_MAX, BLOB_PIECE_BYTES},
};
use muster_preboot::dhcp::{ADDRESSES_MAX, Answer, Exchange};
use org_trust::{BlobReply, BlobRequest, PutReply, PutRequest, PutStep, Putting, UnverifiedGeneration};
use sha2::{Digest as _, Sha256};
use tpm_seal::Approvals;

use crate::{
    fixture::{ORG, RELEASE, stub},
    sync::next,
};

/// What is said on `blob-get` and `blob-put`, by either side; and a keeper that hears what is left, frame by frame.
pub fn blob(data: &[u8]) {
    if let Ok(request) = BlobRequest::decode(data) {
        assert_eq!(request.encode(), data);
    }
    if let Ok(reply) = BlobReply::decode(data) {
        assert_eq!(reply.encode(), data);
        if let BlobReply::Wanted(bytes) = reply {
            generation(&bytes);
        }
    }
    if let Ok(request) = PutRequest::decode(data) {
        assert_eq!(request.encode(), data);
    }
    if let Ok(reply) = PutReply::decode(data) {
        assert_eq!(reply.encode(), data);
    }
    let (mut putting, mut rest, mut written) = (Putting::default(), data, 0);
    while let Some(frame) = next(&mut rest) {
        match putting.on_frame(frame) {
            Ok(PutStep::Begin { bytes, .. }) => assert!((1..=BLOB_BYTES_MAX).contains(&bytes)),
            Ok(PutStep::Wait) => {}
            Ok(PutStep::Resume(_)) => assert!(!putting.resumed(0)),
            Ok(PutStep::Write { index, piece, .. }) => {
                assert_eq!(index, written);
                assert!((1..=BLOB_PIECE_BYTES).contains(&piece.len()));
                written += 1;
            }
            Err(_) => return,
        }
    }
}

/// A file's nodes: hash, length and nodes as they are; the same with the hash that belongs to one node; and
/// those of a file made of the same bytes, of which none can be another.
pub fn outline(data: &[u8]) {
    if let Some((hash, rest)) = data.split_first_chunk::<32>()
        && let Some((bytes, nodes)) = rest.split_first_chunk::<8>()
    {
        let bytes = u64::from_le_bytes(*bytes);
        read_outline(BlobHash(*hash), bytes, nodes);
        read_outline(BlobHash(*nodes.first_chunk().unwrap_or(&[0; 32])), bytes, nodes);
    }
    let Some(first) = data.first() else { return };
    let bytes = usize::from(first % 4) * BLOB_PIECE_BYTES + data.len().min(BLOB_PIECE_BYTES);
    let mut file: Vec<u8> = data.iter().copied().cycle().take(bytes).collect();
    let mut outliner = Outliner::default();
    file.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    let made = outliner.finish().unwrap();
    let mut encoded = made.encode();
    let length = u64::try_from(bytes).unwrap();
    assert_eq!(Outline::read(made.hash(), length, &encoded), Ok(made.clone()));
    // Somewhere a bit turns, in the nodes and in the file.
    let at = data.iter().fold(0, |sum, byte| sum + usize::from(*byte));
    let node = at % encoded.len();
    encoded.get_mut(node).map(|byte| *byte ^= 1).unwrap();
    assert_eq!(Outline::read(made.hash(), length, &encoded), Err(OutlineError::Wrong));
    let turned = at % file.len();
    file.get_mut(turned).map(|byte| *byte ^= 1).unwrap();
    for (index, piece) in (0..).zip(file.chunks(BLOB_PIECE_BYTES)) {
        let is_whole = usize::try_from(index).unwrap() != turned / BLOB_PIECE_BYTES;
        assert_eq!(made.check(index, piece).is_ok(), is_whole);
    }
}

fn read_outline(hash: BlobHash, bytes: u64, nodes: &[u8]) {
    let Ok(outline) = Outline::read(hash, bytes, nodes) else { return };
    assert_eq!(outline.encode(), nodes);
    assert_eq!((outline.hash(), outline.bytes()), (hash, bytes));
    assert!((1..=BLOB_BYTES_MAX).contains(&bytes));
    assert!(outline.check(outline.pieces(), &[]).is_err());
}

/// What the org released: one encoding, and no signature that its release key did not make.
pub fn generation(data: &[u8]) {
    let Ok(read) = UnverifiedGeneration::decode(data) else { return };
    assert!(read.claimed().minimum <= read.claimed().number);
    let again = read.claimed().sign(&ORG.id, &SecretKey::from_seed(&[0xee; 32]));
    let unsigned = |file: &[u8]| file.split_last_chunk::<64>().map(|(body, _)| body.to_vec());
    assert_eq!(unsigned(&again), unsigned(data));
    let (release, signed) = &*RELEASE;
    if read.verify(&ORG.id, release).is_ok() {
        assert_eq!(data, signed);
    }
}

/// The approvals that travel with an image, as they are and with a right frame around them.
pub fn approvals(data: &[u8]) {
    read_approvals(data);
    let mut framed = [b"MUSTAPPR\x01", data].concat();
    let sum = Sha256::digest(&framed);
    framed.extend_from_slice(&sum);
    read_approvals(&framed);
}

fn read_approvals(data: &[u8]) {
    if let Ok(approvals) = Approvals::decode(data) {
        assert_eq!(approvals.encode(), data);
    }
}

/// A unified kernel image: what is in it is in it once, and is measured the same behind another stub.
pub fn image(data: &[u8]) {
    if let Ok(mut begun) = Uki::new(data) {
        begun.add(".linux", vec![1]).unwrap();
        drop(begun.assemble());
    }
    let Ok(read) = Uki::read(data) else { return };
    let parts: usize = read.parts().map(|(_, content)| content.len()).sum();
    assert!(parts <= 8 * data.len());
    let mut uki = Uki::new(&stub()).unwrap();
    for (name, content) in read.parts() {
        uki.add(name, content.to_vec()).unwrap();
    }
    let file = uki.assemble().unwrap();
    let again = Uki::read(&file).unwrap();
    assert!(again.parts().eq(read.parts()) && !again.is_signed());
    assert_eq!(Pcr::of_image(&again), Pcr::of_image(&read));
}

/// An initramfs, as it is and compressed: whoever unpacks it finds one tree.
pub fn initramfs(data: &[u8]) {
    read_initramfs(data);
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(data).unwrap();
    read_initramfs(&packed.finish().unwrap());
}

fn read_initramfs(packed: &[u8]) {
    let Ok(archive) = Archive::unpack(packed) else { return };
    let again = archive.pack().unwrap();
    assert_eq!(Archive::unpack(&again).unwrap(), archive);
    assert_eq!(inflated(&again), inflated(packed));
}

fn inflated(packed: &[u8]) -> Vec<u8> {
    let (mut cpio, mut decoder) = (Vec::new(), GzDecoder::new(packed));
    decoder.read_to_end(&mut cpio).unwrap();
    assert!(decoder.into_inner().is_empty());
    cpio
}

/// What an image pins, each file behind its length, in the order in which they are asked for.
pub fn pins(mut data: &[u8]) {
    let mut found = Vec::new();
    let read = Pins::read(|name| {
        let content = next(&mut data)?;
        found.push((name, content));
        Some(content.to_vec())
    });
    let Ok(pins) = read else { return };
    let mut archive = Archive::default();
    pins.put(&mut archive);
    assert_eq!(Pins::of(&archive), Ok(pins));
    for (name, content) in found {
        assert_eq!(archive.content(&format!("{PINS_DIRECTORY}/{name}")), Some(content));
    }
}

/// What stands in the header of an encrypted disk, as it is and where cryptsetup puts it.
pub fn disk_token(data: &[u8]) {
    read_token(data);
    read_token(&luks(data));
}

fn read_token(head: &[u8]) {
    let Some(token) = DiskToken::find(head) else { return };
    assert!(matches!(token.slot, 0 | 2));
    let next = token.with_key_of(Some(7));
    assert_ne!(next.slot, token.slot, "the key that opens is never written over");
    for token in [token, next] {
        let header = format!("{{\"tokens\":{{\"0\":{}}}}}", token.to_json());
        assert_eq!(DiskToken::find(&luks(header.as_bytes())), Some(token));
    }
}

/// The first copy of a header with this JSON in it.
fn luks(json: &[u8]) -> Vec<u8> {
    let mut header = b"LUKS\xba\xbe\0\x02".to_vec();
    header.resize(4096, 0);
    header.extend_from_slice(json);
    header.resize(DiskToken::HEAD_BYTES.max(header.len()), 0);
    header
}

/// What a DHCP server says, or whoever is on the cable: as it is, and as an answer to what was asked.
pub fn dhcp(data: &[u8]) {
    read_answer(data);
    let mut ours = data.to_vec();
    for (at, bytes) in [(0, &[2][..]), (4, &EXCHANGE.id.to_be_bytes()), (28, &EXCHANGE.hardware)] {
        let Some(place) = ours.get_mut(at..at + bytes.len()) else { return };
        place.copy_from_slice(bytes);
    }
    read_answer(&ours);
}

fn read_answer(packet: &[u8]) {
    let Some(Answer::Offer(lease) | Answer::Acknowledged(lease)) = EXCHANGE.read(packet) else { return };
    assert!(lease.prefix <= 32);
    assert!(lease.routers.len() <= ADDRESSES_MAX && lease.name_servers.len() <= ADDRESSES_MAX);
    let request = EXCHANGE.request(&lease);
    let wanted = [&[50, 4][..], &lease.address.octets(), &[54, 4], &lease.server.octets()].concat();
    assert!(request.windows(wanted.len()).any(|options| options == wanted));
    assert_eq!(EXCHANGE.read(&request), None);
    assert_eq!(Exchange { id: EXCHANGE.id + 1, ..EXCHANGE }.read(packet), None);
}

/// What this machine asked.
pub const EXCHANGE: Exchange = Exchange { id: 0x6d75_7374, hardware: [2, 0, 0, 0, 0, 1] };
