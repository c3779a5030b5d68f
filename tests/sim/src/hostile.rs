//! Members that do not play by the rules: what their daemon says is changed, held back or made up
//! before it leaves.

use identity::{PublicKey, codec::Writer};
use member_crdt::Session;
use org_trust::{Payload, Record, Records, UnverifiedStatement};
use rand::{RngExt as _, rngs::StdRng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hostility {
    /// Sends what is no frame, or a frame with turned bits.
    Garbles,
    /// Says that it holds what it does not, so that nobody gives or asks.
    LiesAboutHeads,
    /// Sends old frames again.
    Replays,
    /// Passes no record on.
    Withholds,
}

impl Hostility {
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        [Self::Garbles, Self::LiesAboutHeads, Self::Replays, Self::Withholds][rng.random_range(0..4)]
    }

    /// What leaves instead of a frame; `heard` are frames seen before.
    pub(crate) fn twist(self, mut frame: Vec<u8>, heard: &[Vec<u8>], rng: &mut StdRng) -> Vec<Vec<u8>> {
        match self {
            Self::Garbles if rng.random_bool(0.2) => {
                match rng.random_range(0..3) {
                    0 => frame = (0..rng.random_range(0..300)).map(|_| rng.random()).collect(),
                    1 => frame.truncate(rng.random_range(0..=frame.len())),
                    _ => {
                        if !frame.is_empty() {
                            let at = rng.random_range(0..frame.len());
                            frame[at] ^= 1 << rng.random_range(0..8);
                        }
                    }
                }
                vec![frame]
            }
            Self::LiesAboutHeads if is_summary(&frame) => {
                // The digest follows the kind.
                for byte in frame.iter_mut().skip(1).take(32) {
                    *byte = rng.random();
                }
                vec![frame]
            }
            Self::Replays if rng.random_bool(0.3) && !heard.is_empty() => {
                vec![heard[rng.random_range(0..heard.len())].clone(), frame]
            }
            Self::Withholds if records(&frame).is_some() => Vec::new(),
            Self::Garbles | Self::LiesAboutHeads | Self::Replays | Self::Withholds => vec![frame],
        }
    }
}

/// The same datagram of SWIM with other news: that these are down.
pub(crate) fn that_all_are_dead(datagram: &[u8], others: impl Iterator<Item = PublicKey>) -> Vec<u8> {
    // Kind, number, incarnation, two keys; kinds 3 to 6 name a third.
    let head = if matches!(datagram.first(), Some(3..=6)) { 100 } else { 68 };
    let mut bytes: Vec<u8> = datagram.iter().take(head).copied().collect();
    let dead: Vec<PublicKey> = others.take(11).collect();
    bytes.extend(u16::try_from(dead.len()).unwrap_or_default().to_be_bytes());
    for node in dead {
        bytes.extend(node.as_bytes());
        bytes.extend([0, 0, 2]);
    }
    bytes
}

/// The same frame without revocations; none when nothing is left of it.
pub(crate) fn without_revocations(frame: &[u8]) -> Option<Vec<u8>> {
    let Some(records) = records(frame) else { return Some(frame.to_vec()) };
    let is_revocation = |record: &Record| match record {
        Record::Statement(bytes) => UnverifiedStatement::decode(bytes)
            .is_ok_and(|statement| matches!(statement.claimed().payload(), Payload::Revoke(_))),
        Record::Charter(_) | Record::Report(_) => false,
    };
    let rest: Vec<Record> = records.into_iter().filter(|record| !is_revocation(record)).collect();
    let mut out = Writer::new();
    out.u8(frame[0]).bytes(&Records::encode(&rest).ok()?);
    (!rest.is_empty()).then(|| out.into_bytes())
}

/// The records of a frame that carries some.
pub(crate) fn records(frame: &[u8]) -> Option<Vec<Record>> {
    let kind = *Session::flood(&Record::Report(Vec::new())).first()?;
    let (first, rest) = frame.split_first()?;
    if *first == kind { Records::decode(rest).ok() } else { None }
}

/// Tips, as a beginning or as an answer: the two kinds before records.
fn is_summary(frame: &[u8]) -> bool {
    let kind = Session::flood(&Record::Report(Vec::new())).first().copied().unwrap_or_default();
    frame.len() > 33 && frame.first().is_some_and(|first| *first < kind)
}
