//! What a client and musterd say to each other after the verdict, on `enrol`, `boot`, `submit` and
//! `fetch`. One frame is one [`Request`] or [`Reply`]; a session carries one request and its replies, and a
//! second request between them when a TPM speaks.

use identity::{
    CharterId, Code, DiskShare, Heads, PublicKey,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{CHARTER_BYTES_MAX, ENROL_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX, STATEMENT_BYTES_MAX},
};

use crate::{
    attestation::{Challenge, Offer, Quote, ShareOffer},
    record::{Record, Records},
};

/// What a client asks. Each belongs to one action, of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `enrol`: an encoded [`crate::EnrolRequest`].
    Enrol(Vec<u8>),
    /// `enrol`: the same with the word of the machine's TPM. [`Reply::Challenge`] follows.
    Attest(Box<Offer>),
    /// `enrol` and `boot`: the answer to [`Reply::Challenge`].
    Quote(Box<Quote>),
    /// `boot`: what a member that starts has on its disk.
    Boot {
        /// The newest charter it holds.
        charter: CharterId,
        /// The lowest generation of the system it accepts.
        floor: u32,
    },
    /// `boot`: the machine's share of the key of its disk, on the word of its TPM. [`Reply::Challenge`]
    /// follows.
    Share(Box<ShareOffer>),
    /// `submit`: charters and statements to apply, each after what it continues.
    Submit(Vec<Record>),
    /// `fetch`.
    Fetch(Select),
}

/// Which records a `fetch` asks for. Charters come with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Everything.
    Everything,
    /// Every member's report.
    Reports,
    /// The statements of one author: its next place follows from them.
    Author(PublicKey),
}

/// What musterd answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `enrol`: the encoded statement that admits the machine. [`Self::Records`] follow.
    Admitted(Vec<u8>),
    /// To [`Request::Attest`] and [`Request::Share`]: what the TPM must open.
    Challenge(Box<Challenge>),
    /// Some of the records asked for, charters first, each after what it continues.
    Records(Vec<Record>),
    /// No more records: what the server holds.
    End {
        /// Digest of everything it holds.
        heads: Heads,
        /// How many records that is.
        count: u64,
    },
    /// To `boot` when the machine's TPM has spoken: the share.
    Share(DiskShare),
    /// To `submit`.
    Submitted(Submitted),
    /// The request is refused; nothing follows.
    Refused(Code),
}

/// What became of what was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Of each record, in their order.
    pub outcomes: Vec<Outcome>,
    /// Members that they were passed on to at once, who pass them on.
    pub told: u32,
    /// Other members that there are.
    pub others: u32,
}

/// What became of a submitted record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied and on disk.
    Applied,
    /// Held before.
    Known,
    /// Refused.
    Refused(Code),
}

impl Request {
    /// The action that this belongs to. A quote belongs to whichever asked for it.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Enrol(_) | Self::Attest(_) | Self::Quote(_) => "enrol",
            Self::Boot { .. } | Self::Share(_) => "boot",
            Self::Submit(_) => "submit",
            Self::Fetch(_) => "fetch",
        }
    }

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Enrol(request) => out.u8(ENROL).bytes(request),
            Self::Attest(offer) => {
                offer.write(out.u8(ATTEST));
                &mut out
            }
            Self::Quote(quote) => {
                quote.write(out.u8(QUOTE));
                &mut out
            }
            Self::Share(offer) => {
                offer.write(out.u8(SHARE));
                &mut out
            }
            Self::Boot { charter, floor } => out.u8(BOOT).bytes(charter.as_bytes()).u32(*floor),
            Self::Submit(records) => {
                out.u8(SUBMIT);
                write_records(&mut out, records)
            }
            Self::Fetch(Select::Everything) => out.u8(FETCH).u8(EVERYTHING),
            Self::Fetch(Select::Reports) => out.u8(FETCH).u8(REPORTS),
            Self::Fetch(Select::Author(author)) => out.u8(FETCH).u8(AUTHOR).bytes(author.as_bytes()),
        };
        out.into_bytes()
    }

    /// Reads a frame. The caller checks that [`Self::action`] is the session's.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        let tag = r.u8("request tag")?;
        let max = match tag {
            ENROL | ATTEST | QUOTE | SHARE => ENROL_FRAME_BYTES_MAX,
            _ => REQUEST_FRAME_BYTES_MAX,
        };
        if frame.len() > max {
            let fault = Fault::TooLong { max, got: frame.len() };
            return Err(DecodeError { field: "request", fault });
        }
        let request = match tag {
            ENROL => return Ok(Self::Enrol(r.rest().to_vec())),
            SUBMIT => return Records::decode(r.rest()).map(Self::Submit),
            ATTEST => Self::Attest(Box::new(Offer::read(&mut r)?)),
            QUOTE => Self::Quote(Box::new(Quote::read(&mut r)?)),
            SHARE => Self::Share(Box::new(ShareOffer::read(&mut r)?)),
            BOOT => Self::Boot { charter: CharterId(r.array("charter")?), floor: r.u32("floor")? },
            FETCH => Self::Fetch(match r.u8("selection")? {
                EVERYTHING => Select::Everything,
                REPORTS => Select::Reports,
                AUTHOR => Select::Author(r.key("author")?),
                got => return Err(unknown("selection", got.into())),
            }),
            got => return Err(unknown("request tag", got.into())),
        };
        r.finish("end of request")?;
        Ok(request)
    }
}

impl Reply {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Admitted(statement) => out.u8(ADMITTED).bytes(statement),
            Self::Challenge(challenge) => {
                challenge.write(out.u8(CHALLENGE));
                &mut out
            }
            Self::Share(share) => out.u8(SHARED).bytes(share.as_bytes()),
            Self::Records(records) => {
                out.u8(RECORDS);
                write_records(&mut out, records)
            }
            Self::End { heads, count } => out.u8(END).bytes(heads.as_bytes()).u64(*count),
            Self::Submitted(Submitted { outcomes, told, others }) => {
                out.u8(SUBMITTED).u32(*told).u32(*others);
                for outcome in outcomes {
                    out.u16(outcome.number());
                }
                &mut out
            }
            Self::Refused(code) => out.u8(REFUSED).u16(code.number()),
        };
        out.into_bytes()
    }

    /// [`Self::Records`] frames for these records, as many as it takes.
    pub fn stream(records: impl IntoIterator<Item = Record>) -> impl Iterator<Item = Vec<u8>> {
        Records::batches(records, identity::limits::SYNC_FRAME_BYTES_MAX - 1).map(|batch| {
            let mut out = Writer::new();
            out.u8(RECORDS).bytes(&batch);
            out.into_bytes()
        })
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        let reply = match r.u8("reply tag")? {
            ADMITTED if r.rest().len() > STATEMENT_BYTES_MAX => {
                let fault = Fault::TooLong { max: STATEMENT_BYTES_MAX, got: r.rest().len() };
                return Err(DecodeError { field: "admission", fault });
            }
            ADMITTED => return Ok(Self::Admitted(r.rest().to_vec())),
            RECORDS => return Records::decode(r.rest()).map(Self::Records),
            CHALLENGE => Self::Challenge(Box::new(Challenge::read(&mut r)?)),
            SHARED => Self::Share(DiskShare::new(&r.array("share")?)),
            END => Self::End { heads: Heads(r.array("heads")?), count: r.u64("count")? },
            SUBMITTED => {
                let (told, others, mut outcomes) = (r.u32("told")?, r.u32("others")?, Vec::new());
                while !r.rest().is_empty() {
                    outcomes.push(Outcome::read(&mut r)?);
                }
                Self::Submitted(Submitted { outcomes, told, others })
            }
            REFUSED => Self::Refused(read_code(r.u16("code")?)?),
            got => return Err(unknown("reply tag", got.into())),
        };
        r.finish("end of reply")?;
        Ok(reply)
    }
}

impl Outcome {
    /// Codes begin at 1001, so small numbers are free.
    const fn number(self) -> u16 {
        match self {
            Self::Applied => APPLIED,
            Self::Known => KNOWN,
            Self::Refused(code) => code.number(),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u16("outcome")? {
            APPLIED => Ok(Self::Applied),
            KNOWN => Ok(Self::Known),
            number => read_code(number).map(Self::Refused),
        }
    }
}

fn read_code(number: u16) -> Result<Code, DecodeError> {
    Code::from_number(number).ok_or_else(|| unknown("code", number.into()))
}

fn write_records<'a>(out: &'a mut Writer, records: &[Record]) -> &'a mut Writer {
    for batch in Records::batches(records.iter().cloned(), CHARTER_BYTES_MAX) {
        out.bytes(&batch);
    }
    out
}

const fn unknown(field: &'static str, got: u64) -> DecodeError {
    DecodeError { field, fault: Fault::Unknown { got } }
}

const ENROL: u8 = 1;
const BOOT: u8 = 2;
const SUBMIT: u8 = 3;
const FETCH: u8 = 4;
const ATTEST: u8 = 5;
const QUOTE: u8 = 6;
const SHARE: u8 = 7;

const EVERYTHING: u8 = 1;
const REPORTS: u8 = 2;
const AUTHOR: u8 = 3;

const ADMITTED: u8 = 1;
const RECORDS: u8 = 2;
const END: u8 = 3;
const SUBMITTED: u8 = 4;
const REFUSED: u8 = 5;
const CHALLENGE: u8 = 6;
const SHARED: u8 = 7;

const APPLIED: u16 = 0;
const KNOWN: u16 = 1;
