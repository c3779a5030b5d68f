//! A peer's frames at a session of member list sync, over a small replica.

use identity::limits::SYNC_FRAME_BYTES_MAX;
use member_crdt::{Replica, Session, SyncError};
use org_trust::Record;

use crate::fixture::ORG;

/// Several frames, each behind its length as u16 LE, at a side that has begun a round.
pub fn sync(data: &[u8]) {
    let mut replica = replica();
    let (mut session, held) = (Session::new(), replica.count());
    session.open(&replica);
    let mut data = data;
    while let Some(frame) = next(&mut data) {
        let Ok(output) = session.handle(&mut replica, frame) else { break };
        for sent in &output.send {
            assert!(sent.len() <= SYNC_FRAME_BYTES_MAX);
            let read = Session::new().handle(&mut replica, sent);
            assert!(!matches!(read, Err(SyncError::Malformed(_) | SyncError::Record { .. })), "{read:?}");
        }
    }
    assert!(replica.count() >= held);
    if replica.count() > held {
        let mut again = Replica::new(&ORG.genesis).unwrap();
        for record in replica.records() {
            again.apply(&record).unwrap();
        }
        assert_eq!(again.heads(), replica.heads());
        assert_eq!(again.roster_digest(), replica.roster_digest());
    }
}

/// Holds the first charter and the invite of the vectors.
fn replica() -> Replica {
    let mut replica = Replica::new(&ORG.genesis).unwrap();
    replica.apply(&Record::Statement(ORG.named("statement: invite").to_vec())).unwrap();
    replica
}

/// What stands behind its length as u16 LE, or all of the rest.
pub(crate) fn next<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (frame, rest) = rest.split_at_checked(length)?;
    *data = rest;
    Some(frame)
}
