//! The frames of docs/spec/sync.md.

use identity::{
    CharterId, Heads, PublicKey, StatementId,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{SYNC_FRAME_BYTES_MAX, SYNC_TIPS_MAX},
};
use org_trust::{Lane, Record, Records};

use crate::{
    descent::{Below, Told},
    held::Tip,
    trie::{BRANCH_NIBBLES_MAX, FAN, LEAF_IDS_MAX, Prefix, Short},
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
    /// Nodes of the sender's trie: its root when the records of a round did not suffice, then those
    /// below the nodes told where the two differ.
    Nodes(Vec<Told>),
    /// Ids of records wanted.
    Want(Vec<Short>),
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
            Self::Nodes(nodes) => {
                out.u8(NODES);
                nodes.iter().for_each(|node| node.write(&mut out));
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
            NODES => {
                let mut nodes = vec![Told::read(&mut r)?];
                while !r.rest().is_empty() {
                    nodes.push(Told::read(&mut r)?);
                }
                // Nothing is told twice: a peer cannot have us walk the same ids again and again.
                if !nodes.is_sorted_by(|a, b| a.prefix < b.prefix && !a.prefix.covers(&b.prefix)) {
                    return Err(DecodeError { field: "nodes", fault: Fault::NotAscending });
                }
                Ok(Self::Nodes(nodes))
            }
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

impl Told {
    fn write(&self, out: &mut Writer) {
        out.u8(self.prefix.nibbles()).bytes(self.prefix.bytes());
        match &self.below {
            Below::Leaf(ids) => out.count(ids.len()).bytes(ids.as_flattened()),
            Below::Branch(digests) => out.u8(BRANCH).bytes(digests.as_flattened()),
        };
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let malformed =
            |got: u8| DecodeError { field: "prefix", fault: Fault::OutOfRange { got: got.into() } };
        let nibbles = r.u8("prefix")?;
        let given = r.bytes("prefix", usize::from(nibbles.div_ceil(2)))?;
        let mut bits = [0; 32];
        for (out, byte) in bits.iter_mut().zip(given) {
            *out = *byte;
        }
        let prefix = Prefix::new(bits, nibbles).ok_or_else(|| malformed(nibbles))?;
        let below = match r.u8("node")? {
            BRANCH if nibbles > BRANCH_NIBBLES_MAX => return Err(malformed(nibbles)),
            BRANCH => {
                let mut digests = Box::new([[0; 16]; FAN]);
                for digest in digests.iter_mut() {
                    *digest = r.array("digest")?;
                }
                Below::Branch(digests)
            }
            count if usize::from(count) > LEAF_IDS_MAX => {
                let fault = Fault::TooLong { max: LEAF_IDS_MAX, got: count.into() };
                return Err(DecodeError { field: "node", fault });
            }
            count => {
                let ids: Vec<Short> = (0..count).map(|_| r.array("id")).collect::<Result<_, _>>()?;
                ascending("ids", &ids)?;
                if ids.iter().any(|id| !prefix.covers_short(id)) {
                    return Err(DecodeError {
                        field: "ids",
                        fault: Fault::OutOfRange { got: nibbles.into() },
                    });
                }
                Below::Leaf(ids)
            }
        };
        Ok(Self { prefix, below })
    }
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

const TIPS: u8 = 1;
const TIPS_REPLY: u8 = 2;
const RECORDS: u8 = 3;
const NODES: u8 = 4;
const WANT: u8 = 5;
/// Where a leaf has the number of its ids.
const BRANCH: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_has_one_encoding() {
        let author = identity::SecretKey::from_seed(&[1; 32]).public();
        let tip = Tip { author, lane: Lane::Revokes, seq: 3, id: StatementId([4; 32]) };
        let summary =
            Summary { heads: Heads([1; 32]), count: 9, charter: CharterId([2; 32]), tips: vec![tip] };
        let prefix = |bits: [u8; 2], nibbles| {
            let mut all = [0; 32];
            (all[0], all[1]) = (bits[0], bits[1]);
            Prefix::new(all, nibbles).unwrap()
        };
        let branch = Told { prefix: prefix([0x30, 0], 1), below: Below::Branch(Box::new([[3; 16]; FAN])) };
        let leaf = Told { prefix: prefix([0x42, 0x40], 3), below: Below::Leaf(vec![[0x42; 16]]) };
        let empty = Told { prefix: prefix([0x50, 0], 1), below: Below::Leaf(vec![]) };
        for frame in [
            Frame::Tips(summary.clone()),
            Frame::TipsReply(summary),
            Frame::Records(vec![Record::Statement(vec![1, 2]), Record::Report(vec![])]),
            Frame::Nodes(vec![branch.clone(), leaf.clone(), empty]),
            Frame::Want(vec![[1; 16], [2; 16]]),
        ] {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes), Ok(frame));
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Frame::decode(&longer).is_err(), "{bytes:?}");
        }
        assert!(Frame::decode(&[0]).is_err() && Frame::decode(&[]).is_err());
        let refused = |nodes: Vec<Told>| Frame::decode(&Frame::Nodes(nodes).encode()).is_err();
        assert!(refused(vec![]) && refused(vec![leaf.clone(), branch.clone()]));
        let root = Told { prefix: Prefix::ROOT, below: Below::Leaf(vec![]) };
        assert!(refused(vec![root, branch]), "one below another");
        assert!(refused(vec![Told { prefix: leaf.prefix, below: Below::Leaf(vec![[0x30; 16]]) }]));
        assert!(refused(vec![Told { prefix: leaf.prefix, below: Below::Leaf(vec![[0x42; 16]; 17]) }]));
    }
}
