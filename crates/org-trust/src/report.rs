//! Reports: what a node says of itself.

use core::{fmt, ops};
use std::net::SocketAddr;

use identity::{
    BootNonce, CharterId, Code, HashContext, Heads, Label, OrgId, PublicKey, SecretKey, Signature,
    StatementId,
    codec::{DecodeError, Fault, Reader, Writer, ascending},
    limits::{ENDPOINTS_MAX, REPORT_BYTES_MAX, REPORT_TIPS_MAX},
};

use crate::{
    charter::list,
    endpoint::{read_endpoint, write_endpoint},
    payload::Lane,
};

/// A decoded report whose signature nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedReport(ReportClaim);

/// A report that its node signed for this org. It never affects anybody's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(ReportClaim);

/// A node and what it says, whoever signed it. A [`Report`] derefs to it; a claim never becomes one
/// but by [`UnverifiedReport::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportClaim {
    id: [u8; 32],
    node: PublicKey,
    body: ReportBody,
    bytes: Vec<u8>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportBody {
    /// Drawn once for each start of the node.
    pub boot_nonce: BootNonce,
    /// Grows with every report, over restarts too; the highest one counts.
    pub seq: u64,
    /// Digest of everything it holds.
    pub heads: Heads,
    /// How many records that is.
    pub count: u64,
    /// The newest charter it has applied and written to disk.
    pub charter: CharterId,
    /// The newest statements it has applied and written to disk, by lane. Sorted when it is signed.
    pub tips: Vec<ReportTip>,
    /// Its release of muster, printable ASCII, at most 32 bytes.
    pub version: String,
    /// Where its tunnel listens, best first.
    pub endpoints: Vec<SocketAddr>,
}

/// The newest statement of one lane, by the first eight bytes of author and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportTip {
    /// Begins the author's key.
    pub author8: [u8; 8],
    /// The lane.
    pub lane: Lane,
    /// The statement's number in it.
    pub seq: u64,
    /// Begins the statement's id.
    pub id8: [u8; 8],
}

/// Why a report does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// Not signed by its node, or for another org.
    BadSignature,
    /// What should be signed is no report.
    Malformed(DecodeError),
}

impl UnverifiedReport {
    /// Reads a report.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > REPORT_BYTES_MAX {
            let fault = Fault::TooLong { max: REPORT_BYTES_MAX, got: bytes.len() };
            return Err(DecodeError { field: "report", fault });
        }
        let mut r = Reader::new(bytes);
        r.exactly("report format", FORMAT)?;
        r.exactly("report flags", NO_FLAGS)?;
        let node = r.key("node")?;
        let body = ReportBody::read(&mut r)?;
        r.signature("node signature")?;
        r.finish("end of report")?;
        let id = HashContext::REPORT_ID.hash(&[bytes]);
        Ok(Self(ReportClaim { id, node, body, bytes: bytes.to_vec() }))
    }

    /// Checks the node's signature.
    ///
    /// # Errors
    /// [`ReportError::BadSignature`].
    pub fn verify(self, org: &OrgId) -> Result<Report, ReportError> {
        let Some((body, signature)) = self.0.bytes.split_last_chunk() else {
            return Err(ReportError::BadSignature);
        };
        let message = [org.as_bytes(), body].concat();
        let verdict = self.0.node.verify(Label::REPORT, &message, &Signature(*signature));
        verdict.map_err(|_| ReportError::BadSignature)?;
        Ok(Report(self.0))
    }

    /// What it says, unverified: for the cheap checks that come before the signature's.
    #[must_use]
    pub const fn claimed(&self) -> &ReportClaim {
        &self.0
    }
}

impl Report {
    /// Signs a report by the node with this key.
    ///
    /// # Errors
    /// [`ReportError::Malformed`] when no reader would accept the outcome.
    pub fn sign(org: &OrgId, node: &SecretKey, mut body: ReportBody) -> Result<Self, ReportError> {
        body.tips.sort();
        let unsigned = unsigned(&node.public(), &body);
        let signature = node.sign(Label::REPORT, &[org.as_bytes(), unsigned.as_slice()].concat());
        let bytes = [unsigned.as_slice(), &signature.0].concat();
        let read = UnverifiedReport::decode(&bytes).map_err(ReportError::Malformed)?;
        if read.0.body == body {
            Ok(Self(read.0))
        } else {
            // Flow label and scope of an IPv6 endpoint are nothing for other machines.
            let fault = Fault::OutOfRange { got: 0 };
            Err(ReportError::Malformed(DecodeError { field: "endpoint", fault }))
        }
    }

    /// Whether it takes the place of `held`, of the same node. Every replica answers alike: the higher
    /// number wins, of equal ones the higher id.
    #[must_use]
    pub fn supersedes(&self, held: &Self) -> bool {
        self.node() == held.node() && (self.body().seq, self.id()) > (held.body().seq, held.id())
    }
}

impl ops::Deref for Report {
    type Target = ReportClaim;

    fn deref(&self) -> &ReportClaim {
        &self.0
    }
}

impl ReportClaim {
    /// Hash of its bytes.
    #[must_use]
    pub const fn id(&self) -> [u8; 32] {
        self.id
    }

    /// The node it is by and about.
    #[must_use]
    pub const fn node(&self) -> &PublicKey {
        &self.node
    }

    /// What it says.
    #[must_use]
    pub const fn body(&self) -> &ReportBody {
        &self.body
    }

    /// Its encoding.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoding of what was read, worked out anew: the same bytes, because there is one form. For
    /// whoever checks that.
    #[must_use]
    pub fn reencoded(&self) -> Vec<u8> {
        let signature = self.bytes.last_chunk::<64>().map_or(&[][..], |signature| signature);
        [unsigned(&self.node, &self.body).as_slice(), signature].concat()
    }
}

fn unsigned(node: &PublicKey, body: &ReportBody) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(FORMAT).u8(NO_FLAGS).bytes(node.as_bytes());
    body.write(&mut out);
    out.into_bytes()
}

impl ReportBody {
    fn write(&self, out: &mut Writer) {
        out.bytes(self.boot_nonce.as_bytes()).u64(self.seq);
        out.bytes(self.heads.as_bytes()).u64(self.count).bytes(self.charter.as_bytes());
        out.count(self.tips.len());
        for tip in &self.tips {
            out.bytes(&tip.author8).u8(tip.lane.number()).u64(tip.seq).bytes(&tip.id8);
        }
        out.short_bytes(self.version.as_bytes()).count(self.endpoints.len());
        for endpoint in &self.endpoints {
            write_endpoint(out, *endpoint);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let boot_nonce = BootNonce(r.array("boot nonce")?);
        let seq = r.u64("report seq")?;
        let heads = Heads(r.array("heads")?);
        let count = r.u64("count")?;
        let charter = CharterId(r.array("charter")?);
        let tips = list(r, "tips", REPORT_TIPS_MAX, |r| {
            let author8 = r.array("tip author")?;
            let lane = Lane::read(r, "tip lane")?;
            Ok(ReportTip { author8, lane, seq: r.u64("tip seq")?, id8: r.array("tip id")? })
        })?;
        ascending("tips", &tips)?;
        let version = r.text("version", VERSION_BYTES_MAX)?.to_owned();
        if !version.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(DecodeError { field: "version", fault: Fault::BadText });
        }
        let endpoints = list(r, "endpoints", ENDPOINTS_MAX, read_endpoint)?;
        let twice = endpoints.iter().enumerate().any(|(i, e)| endpoints.iter().skip(i + 1).any(|f| e == f));
        if twice {
            let fault = Fault::OutOfRange { got: 2 };
            return Err(DecodeError { field: "endpoints", fault });
        }
        Ok(Self { boot_nonce, seq, heads, count, charter, tips, version, endpoints })
    }
}

impl ReportTip {
    /// The tip that this statement is.
    #[must_use]
    pub fn new(author: &PublicKey, lane: Lane, seq: u64, id: &StatementId) -> Self {
        Self { author8: first8(author.as_bytes()), lane, seq, id8: first8(id.as_bytes()) }
    }
}

impl ReportError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadSignature => Code::ChangeBadSignature,
            Self::Malformed(_) => Code::ChangeMalformed,
        }
    }
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature => f.write_str("not signed by its node for this org"),
            Self::Malformed(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for ReportError {}

fn first8(bytes: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    for (out, byte) in first.iter_mut().zip(bytes) {
        *out = *byte;
    }
    first
}

const FORMAT: u8 = 1;
const NO_FLAGS: u8 = 0;
/// A release's version.
const VERSION_BYTES_MAX: usize = 32;
