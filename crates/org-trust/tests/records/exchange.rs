//! Records and requests as they travel.

use crate::fixture::*;
use identity::{Code, DiskShare, Heads, limits};
use org_trust::*;
use proptest::prelude::*;

fn records() -> Vec<Record> {
    let mut records = vec![Record::from(&genesis())];
    records.extend(statements().iter().map(Record::from));
    records.push(Record::from(&report()));
    records
}

fn requests() -> Vec<Request> {
    vec![
        Request::Enrol(enrol_request().encode()),
        Request::Attest(Box::new(Offer {
            request: enrol_request().encode(),
            certificate: vec![0x30; 16],
            key: vec![0x23; 8],
        })),
        Request::Quote(Box::new(Quote {
            registers: [[7; 32], [11; 32], [0; 32]],
            attest: vec![0xff; 9],
            signature: vec![0x18; 7],
        })),
        Request::Boot { charter: genesis().id(), floor: 4 },
        Request::Share(Box::new(ShareOffer { epoch: 2, certificate: vec![0x30; 16], key: vec![0x23; 8] })),
        Request::Submit(records()),
        Request::Submit(vec![]),
        Request::Fetch(Select::Everything),
        Request::Fetch(Select::Reports),
        Request::Fetch(Select::Author(key(ADMIN))),
    ]
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Admitted(invite_statement().bytes().to_vec()),
        Reply::Records(records()),
        Reply::Challenge(Box::new(Challenge { credential: vec![5; 68], seed: vec![6; 68] })),
        Reply::Share(DiskShare::new(&[9; 32])),
        Reply::End { heads: Heads([2; 32]), count: 8 },
        Reply::Submitted(Submitted {
            outcomes: vec![Outcome::Applied, Outcome::Known, Outcome::Refused(Code::ChangeBroken)],
            told: 4,
            others: 49,
        }),
        Reply::Refused(Code::InviteUsedUp),
    ]
}

#[test]
fn a_batch_survives_its_encoding() {
    let records = records();
    let batch = Records::encode(&records).unwrap();
    assert_eq!(Records::decode(&batch), Ok(records));
    assert_eq!(Records::decode(&[]), Ok(vec![]));
}

#[test]
fn a_batch_is_cut_at_whole_records() {
    let records = records();
    let ends: Vec<usize> = records
        .iter()
        .scan(0, |end, record| {
            *end += record.encoded_len();
            Some(*end)
        })
        .collect();
    let batch = Records::encode(&records).unwrap();
    for length in 0..batch.len() {
        let whole = length == 0 || ends.contains(&length);
        assert_eq!(Records::decode(&batch[..length]).is_ok(), whole);
    }
}

#[test]
fn batches_stay_below_their_limit_and_lose_nothing() {
    let many: Vec<_> = (0..40).flat_map(|_| records()).collect();
    let total: usize = many.iter().map(Record::encoded_len).sum();
    assert!(total > limits::SYNC_FRAME_BYTES_MAX);
    assert_eq!(Records::encode(&many), Err(BatchTooLarge { bytes: total }));
    let batches: Vec<_> = Records::batches(many.clone(), limits::SYNC_FRAME_BYTES_MAX).collect();
    assert!(batches.len() > 1 && batches.iter().all(|b| b.len() <= limits::SYNC_FRAME_BYTES_MAX));
    let read: Vec<_> = batches.iter().flat_map(|batch| Records::decode(batch).unwrap()).collect();
    assert_eq!(read, many);
    assert_eq!(Records::decode_all(&batches.concat()), Ok(many.clone()));
    let frames: Vec<_> = Reply::stream(many.clone()).collect();
    assert!(frames.iter().all(|frame| frame.len() <= limits::SYNC_FRAME_BYTES_MAX));
    let read = frames.iter().flat_map(|frame| match Reply::decode(frame) {
        Ok(Reply::Records(records)) => records,
        other => panic!("{other:?}"),
    });
    assert_eq!(read.collect::<Vec<_>>(), many);
}

#[test]
fn unknown_tags_and_long_records_are_refused() {
    let field = |bytes: &[u8]| Records::decode(bytes).unwrap_err().field;
    assert_eq!([field(&[0, 0, 0]), field(&[4, 0, 0])], ["record tag"; 2]);
    assert_eq!(field(&[1, 0x01, 0x40]), "charter");
    assert_eq!(field(&[2, 0x01, 0x04]), "statement");
    assert_eq!(field(&[3, 0x01, 0x04]), "report");
    assert_eq!(field(&vec![0; limits::SYNC_FRAME_BYTES_MAX + 1]), "batch");
}

#[test]
fn requests_and_replies_survive_their_encoding() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn each_request_belongs_to_one_action() {
    let actions: Vec<_> = requests().iter().map(Request::action).collect();
    assert_eq!(
        actions,
        ["enrol", "enrol", "enrol", "boot", "boot", "submit", "submit", "fetch", "fetch", "fetch"]
    );
}

#[test]
fn malformed_frames_are_refused_by_field() {
    let request = |frame: &[u8]| Request::decode(frame).unwrap_err().field;
    assert_eq!(request(&[]), "request tag");
    assert_eq!([request(&[0]), request(&[8])], ["request tag"; 2]);
    assert_eq!([request(&[5]), request(&[6])], ["enrolment request", "register 7"]);
    assert_eq!([request(&[7]), request(&[vec![7], vec![0; 9]].concat())], ["epoch", "end of request"]);
    for tag in [5, 7] {
        assert_eq!(request(&[vec![tag], vec![0; 4096]].concat()), "request");
    }
    assert_eq!(request(&[vec![5], vec![0; 7]].concat()), "end of request");
    assert_eq!([request(&[4, 0]), request(&[4, 4])], ["selection"; 2]);
    assert_eq!(request(&[4, 1, 0]), "end of request");
    assert_eq!(request(&[4, 3, 0]), "author");
    assert_eq!(request(&[2, 0]), "charter");
    assert_eq!(request(&[vec![1], vec![0; 4096]].concat()), "request");
    assert_eq!(request(&[vec![3], vec![0; 32 * 1024]].concat()), "request");
    let reply = |frame: &[u8]| Reply::decode(frame).unwrap_err().field;
    assert_eq!([reply(&[]), reply(&[0]), reply(&[8])], ["reply tag"; 3]);
    assert_eq!([reply(&[7]), reply(&[vec![7], vec![0; 33]].concat())], ["share", "end of reply"]);
    assert_eq!([reply(&[6]), reply(&[6, 0, 0, 1, 2])], ["credential", "credential's seed"]);
    assert_eq!([reply(&[4, 0]), reply(&[4, 0, 0, 0, 0, 1])], ["told", "others"]);
    assert_eq!(reply(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]), "code");
    assert_eq!(reply(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 2]), "outcome");
    assert_eq!(reply(&[5, 0, 0]), "code");
    assert_eq!(reply(&[vec![1], vec![0; 1025]].concat()), "admission");
    assert_eq!(reply(&[vec![3], vec![0; 41]].concat()), "end of reply");
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        random: Vec<u8>,
        tag in 0..9_u8,
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut frames: Vec<_> = requests().iter().map(Request::encode).collect();
        frames.extend(replies().iter().map(Reply::encode));
        for frame in &mut frames {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frames.push([vec![tag], random].concat());
        for frame in frames {
            if let Ok(request) = Request::decode(&frame) {
                prop_assert_eq!(request.encode(), frame.clone());
            }
            if let Ok(reply) = Reply::decode(&frame) {
                prop_assert_eq!(reply.encode(), frame.clone());
            }
            if let Ok(records) = Records::decode(&frame) {
                prop_assert_eq!(Records::encode(&records).unwrap(), frame);
            }
        }
    }
}
