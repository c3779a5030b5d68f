//! The frames of docs/spec/sync.md.

use identity::{
    CharterId, Heads, PublicKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{SYNC_FRAME_BYTES_MAX, SYNC_TIPS_MAX},
};
use org_trust::{Lane, Record, Records};

use crate::{
    digest::{BUCKETS, RecordId},
    held::Tip,
};

/// One frame on a session of `action=sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Begins a round.
    Tips(Summary),
    /// Answers it, after the records that the other side was seen to lack.
    TipsReply(Summary),
    /// Records: an answer, or flooded at any time.
    Records(Vec<Record>),
    /// What the sender holds after the records of this round, when that differs.
    Check(Heads),
    /// One digest for each bucket.
    Buckets(Vec<[u8; 16]>),
    /// All ids of some buckets.
    Ids(Vec<(u8, Vec<RecordId>)>),
    /// Ids of records wanted.
    Want(Vec<RecordId>),
}

/// What a replica holds, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) heads: Heads,
    pub(crate) count: u64,
    pub(crate) charter: CharterId,
    pub(crate) tips: Vec<Tip>,
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Tips(summary) => summary.write(out.u8(TIPS)),
            Self::TipsReply(summary) => summary.write(out.u8(TIPS_REPLY)),
            Self::Records(records) => {
                out.u8(RECORDS);
                // A batch is made within the limit where it is cut; an empty one says nothing.
                out.bytes(&Records::encode(records).unwrap_or_default());
            }
            Self::Check(heads) => {
                out.u8(CHECK).bytes(heads.as_bytes());
            }
            Self::Buckets(digests) => {
                out.u8(BUCKET_DIGESTS);
                for digest in digests {
                    out.bytes(digest);
                }
            }
            Self::Ids(buckets) => {
                out.u8(IDS);
                for (bucket, ids) in buckets {
                    out.u8(*bucket).u16(u16::try_from(ids.len()).unwrap_or(u16::MAX));
                    for id in ids {
                        out.bytes(id);
                    }
                }
            }
            Self::Want(ids) => {
                out.u8(WANT);
                for id in ids {
                    out.bytes(id);
                }
            }
        }
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SYNC_FRAME_BYTES_MAX {
            let fault = Fault::TooLong { max: SYNC_FRAME_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "frame", fault });
        }
        let mut r = Reader::new(bytes);
        match r.u8("frame kind")? {
            TIPS => Ok(Self::Tips(Summary::read(r)?)),
            TIPS_REPLY => Ok(Self::TipsReply(Summary::read(r)?)),
            RECORDS => Ok(Self::Records(Records::decode(r.rest())?)),
            CHECK => {
                let heads = Heads(r.array("heads")?);
                r.finish("end of check")?;
                Ok(Self::Check(heads))
            }
            BUCKET_DIGESTS => {
                let digests = (0..BUCKETS).map(|_| r.array("bucket digest")).collect::<Result<_, _>>()?;
                r.finish("end of buckets")?;
                Ok(Self::Buckets(digests))
            }
            IDS => read_ids(r),
            WANT => {
                let mut ids = Vec::new();
                while !r.rest().is_empty() {
                    ids.push(r.array("wanted id")?);
                }
                ascending("wanted ids", &ids)?;
                Ok(Self::Want(ids))
            }
            got => Err(DecodeError { field: "frame kind", fault: Fault::Unknown { got: got.into() } }),
        }
    }
}

fn read_ids(mut r: Reader<'_>) -> Result<Frame, DecodeError> {
    let mut buckets: Vec<(u8, Vec<RecordId>)> = Vec::new();
    while !r.rest().is_empty() {
        let bucket = r.u8("bucket")?;
        let count = r.u16("ids in bucket")?;
        let ids: Vec<RecordId> = (0..count).map(|_| r.array("id")).collect::<Result<_, _>>()?;
        ascending("ids", &ids)?;
        if ids.iter().any(|id| id[0] != bucket) {
            return Err(DecodeError { field: "ids", fault: Fault::OutOfRange { got: bucket.into() } });
        }
        buckets.push((bucket, ids));
    }
    let numbers: Vec<u8> = buckets.iter().map(|(bucket, _)| *bucket).collect();
    ascending("buckets", &numbers)?;
    Ok(Frame::Ids(buckets))
}

impl Summary {
    fn write(&self, out: &mut Writer) {
        out.bytes(self.heads.as_bytes()).u64(self.count).bytes(self.charter.as_bytes());
        out.u16(u16::try_from(self.tips.len()).unwrap_or(u16::MAX));
        for tip in &self.tips {
            out.bytes(tip.author.as_bytes()).u8(tip.lane.number()).u64(tip.seq).bytes(tip.id.as_bytes());
        }
    }

    fn read(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let heads = Heads(r.array("heads")?);
        let count = r.u64("count")?;
        let charter = CharterId(r.array("charter")?);
        let got = usize::from(r.u16("tips")?);
        if got > SYNC_TIPS_MAX {
            let fault = Fault::TooLong { max: SYNC_TIPS_MAX, got };
            return Err(DecodeError { field: "tips", fault });
        }
        let tips: Vec<Tip> = (0..got).map(|_| read_tip(&mut r)).collect::<Result<_, _>>()?;
        ascending("tips", &tips)?;
        r.finish("end of tips")?;
        Ok(Self { heads, count, charter, tips })
    }
}

fn read_tip(r: &mut Reader<'_>) -> Result<Tip, DecodeError> {
    let author: PublicKey = r.key("tip author")?;
    let got = r.u8("tip lane")?;
    let fault = Fault::Unknown { got: got.into() };
    let lane = Lane::from_number(got).ok_or(DecodeError { field: "tip lane", fault })?;
    Ok(Tip { author, lane, seq: r.u64("tip seq")?, id: StatementId(r.array("tip id")?) })
}

/// The most ids that one frame holds, with a bucket's header for each.
pub(crate) const IDS_PER_FRAME: usize = (SYNC_FRAME_BYTES_MAX - 1) / 35;

const TIPS: u8 = 1;
const TIPS_REPLY: u8 = 2;
const RECORDS: u8 = 3;
const CHECK: u8 = 4;
const BUCKET_DIGESTS: u8 = 5;
const IDS: u8 = 6;
const WANT: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_has_one_encoding() {
        let author = identity::SecretKey::from_seed(&[1; 32]).public();
        let tip = Tip { author, lane: Lane::Revokes, seq: 3, id: StatementId([4; 32]) };
        let summary =
            Summary { heads: Heads([1; 32]), count: 9, charter: CharterId([2; 32]), tips: vec![tip] };
        for frame in [
            Frame::Tips(summary.clone()),
            Frame::TipsReply(summary),
            Frame::Records(vec![Record::Statement(vec![1, 2]), Record::Report(vec![])]),
            Frame::Check(Heads([7; 32])),
            Frame::Buckets(vec![[3; 16]; BUCKETS]),
            Frame::Ids(vec![(0, vec![]), (5, vec![[5; 32]])]),
            Frame::Want(vec![[1; 32], [2; 32]]),
        ] {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes), Ok(frame));
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Frame::decode(&longer).is_err(), "{bytes:?}");
        }
        assert!(Frame::decode(&[0]).is_err() && Frame::decode(&[]).is_err());
        assert!(Frame::decode(&[IDS, 5, 1, 0, 6]).is_err());
    }
}
