//! Why a chain of certificates was refused, and where the one that holds comes from.
//!
//! Links are followed by name, as the certificates themselves have it. No signature is checked here: where
//! the names lead to an anchor and the verifier says no, the anchor has the name and another the key.

use identity::Code;
use org_trust::Anchor;

use crate::{
    certificate::{Certificate, date},
    check::{Check, Stage},
};

/// What a server sent, and how it was judged.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The certificates, leaf first (DER).
    pub certificates: &'a [Vec<u8>],
    /// The name that was dialled.
    pub host: &'a str,
    /// The CAs that were accepted.
    pub anchors: &'a [Anchor],
    /// CAs of this org that are accepted no more.
    pub retired: &'a [Anchor],
    /// The time of the verdict.
    pub now_unix_s: i64,
    /// The verifier's code; none where it said yes.
    pub refused: Option<Code>,
}

/// What is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Chain, name, time and anchor.
    pub checks: Vec<Check>,
    /// The certificates that could be read.
    pub certificates: Vec<Certificate>,
}

/// Explains the verdict. One check fails exactly if the verdict is no.
#[must_use]
pub fn explain(sent: &Sent<'_>) -> Explained {
    let certificates: Vec<_> = sent.certificates.iter().filter_map(|der| Certificate::read(der)).collect();
    let read_all = certificates.len() == sent.certificates.len();
    let checks = match certificates.first().filter(|_| read_all) {
        Some(leaf) => {
            Judged { sent, certificates: &certificates, leaf, walk: walk(sent, &certificates) }.checks()
        }
        None => {
            let code = sent.refused.unwrap_or(Code::TlsFailed);
            vec![Check::fail(Stage::Chain, code, "what the server sent is no certificate")]
        }
    };
    Explained { checks, certificates }
}

struct Judged<'a> {
    sent: &'a Sent<'a>,
    certificates: &'a [Certificate],
    leaf: &'a Certificate,
    walk: Walk,
}

/// The way from the leaf upwards, by names.
struct Walk {
    /// Places in what was sent, the leaf first.
    path: Vec<usize>,
    end: End,
}

enum End {
    /// At an anchor.
    Anchor(Box<Certificate>),
    /// At a CA that the org has retired.
    Retired(Box<Certificate>),
    /// At a certificate that names itself as its issuer.
    SelfIssued,
    /// The issuer is neither sent nor an anchor.
    Missing,
}

fn walk(sent: &Sent<'_>, certificates: &[Certificate]) -> Walk {
    let read = |anchors: &[Anchor]| -> Vec<Certificate> {
        anchors.iter().filter_map(|anchor| Certificate::read(anchor.der())).collect()
    };
    let (anchors, retired) = (read(sent.anchors), read(sent.retired));
    let mut path = vec![0];
    loop {
        let Some(at) = path.last().and_then(|at| certificates.get(*at)) else {
            return Walk { path, end: End::Missing };
        };
        if let Some(anchor) = anchors.iter().find(|anchor| anchor.subject_der == at.issuer_der) {
            return Walk { path, end: End::Anchor(Box::new(anchor.clone())) };
        }
        if let Some(gone) = retired.iter().find(|gone| gone.subject_der == at.issuer_der) {
            return Walk { path, end: End::Retired(Box::new(gone.clone())) };
        }
        if at.self_issued() {
            return Walk { path, end: End::SelfIssued };
        }
        let next = certificates
            .iter()
            .enumerate()
            .position(|(place, issuer)| !path.contains(&place) && issuer.subject_der == at.issuer_der);
        match next {
            Some(next) => path.push(next),
            None => return Walk { path, end: End::Missing },
        }
    }
}

impl Judged<'_> {
    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.chain(), self.name(), self.time(), self.anchor()];
        let failed = checks.iter().any(|check| check.status == crate::Status::Fail);
        // The verdict stands, also where the names show nothing wrong.
        if let (Some(code), false) = (self.sent.refused, failed)
            && let Some(chain) = checks.first_mut()
        {
            *chain = Check::fail(Stage::Chain, code, format!("{} was refused", quoted(self.leaf)));
        }
        checks
    }

    /// The last certificate of the way.
    fn last(&self) -> &Certificate {
        self.walk.path.last().and_then(|at| self.certificates.get(*at)).unwrap_or(self.leaf)
    }

    fn chain(&self) -> Check {
        let fail = |code, seen| Check::fail(Stage::Chain, code, seen);
        let count = counted(self.certificates.len());
        let last = self.last();
        let unknown = matches!(self.sent.refused, Some(Code::ChainUnknown));
        match &self.walk.end {
            _ if self.sent.refused.is_none() => {
                Check::ok(Stage::Chain, format!("the server sent {count}: {}", self.way()))
            }
            End::Anchor(anchor) if unknown => {
                let sent = self.certificates.iter().find(|c| c.subject_der == anchor.subject_der);
                let other = sent.map_or("not sent", Certificate::key_digits);
                fail(
                    Code::ChainOtherRoot,
                    format!(
                        "{} is signed by a CA with the name of the anchor {} and another key: {other}; \
                         the anchor's is {}",
                        quoted(last),
                        quoted(anchor),
                        anchor.key_digits()
                    ),
                )
            }
            End::Anchor(_) => Check::ok(Stage::Chain, format!("the server sent {count}: {}", self.way())),
            End::Retired(gone) => {
                Check::ok(Stage::Chain, format!("the server sent {count}, which lead to {}", quoted(gone)))
            }
            End::SelfIssued | End::Missing if self.leaf.public => {
                fail(Code::ChainWorldCa, format!("{} is issued by {:?}", quoted(self.leaf), last.issuer))
            }
            End::SelfIssued if self.leaf.self_issued() => {
                fail(Code::ChainSelfSigned, format!("{} is its own issuer", quoted(self.leaf)))
            }
            End::Missing if self.certificates.len() == 1 => fail(
                Code::ChainMissingIntermediate,
                format!(
                    "the server sent 1 certificate, {}, and not that of its issuer {:?}; {}",
                    quoted(last),
                    last.issuer,
                    self.anchors()
                ),
            ),
            End::SelfIssued => fail(
                Code::ChainOtherRoot,
                format!(
                    "the server sent {count}, which end in {}, key {}; {}",
                    quoted(last),
                    last.key_digits(),
                    self.anchors()
                ),
            ),
            End::Missing => fail(
                Code::ChainOtherRoot,
                format!(
                    "the server sent {count}, which end in {}, key {}, signed by {:?}; {}",
                    quoted(last),
                    last.key_digits(),
                    last.issuer,
                    self.anchors()
                ),
            ),
        }
    }

    fn name(&self) -> Check {
        let names = match self.leaf.names.as_slice() {
            [] => "no name at all".to_owned(),
            names => names.join(", "),
        };
        let wrong = match self.sent.refused {
            None => false,
            Some(Code::CertificateName) => true,
            Some(_) => !self.leaf.is_for(self.sent.host),
        };
        if wrong {
            let seen = format!("{} was dialled, the certificate is for {names}", self.sent.host);
            Check::fail(Stage::Name, Code::CertificateName, seen)
        } else {
            Check::ok(Stage::Name, format!("the certificate is for {names}"))
        }
    }

    fn time(&self) -> Check {
        let now = self.sent.now_unix_s;
        let fail = |code, seen| Check::fail(Stage::Time, code, seen);
        let today = date(now);
        let span = |c: &Certificate| {
            format!(
                "{} holds from {} to {}; this machine's clock says {today}",
                quoted(c),
                date(c.not_before_unix_s),
                date(c.not_after_unix_s)
            )
        };
        let on_the_way = self.walk.path.iter().skip(1).filter_map(|at| self.certificates.get(*at));
        let others: Vec<_> = if self.sent.refused.is_some() { on_the_way.collect() } else { Vec::new() };
        let late = others.iter().find(|c| c.not_after_unix_s < now);
        let early = others.iter().find(|c| c.not_before_unix_s > now);
        if self.sent.refused.is_some() && self.leaf.not_after_unix_s < now {
            return fail(Code::CertificateExpired, span(self.leaf));
        }
        if self.sent.refused.is_some() && self.leaf.not_before_unix_s > now {
            return fail(Code::CertificateNotYetValid, span(self.leaf));
        }
        match (late, early, self.sent.refused) {
            (Some(late), ..) => fail(Code::IntermediateExpired, span(late)),
            (None, Some(early), _) => fail(Code::CertificateNotYetValid, span(early)),
            (None, None, Some(code @ (Code::CertificateExpired | Code::CertificateNotYetValid))) => {
                fail(code, span(self.leaf))
            }
            (None, None, _) => Check::ok(Stage::Time, span(self.leaf)),
        }
    }

    fn anchor(&self) -> Check {
        let described = |anchor: &Certificate| {
            let kind = if anchor.self_issued() { "" } else { ", an intermediate" };
            let (key, until) = (anchor.key_digits(), date(anchor.not_after_unix_s));
            format!("{}, key {key}, until {until}{kind}", quoted(anchor))
        };
        if let (Some(Code::AnchorRetired), Some(gone)) = (self.sent.refused, self.shown_retired()) {
            let seen = format!("the server sends {}", described(gone));
            return Check::fail(Stage::Anchor, Code::AnchorRetired, seen);
        }
        match &self.walk.end {
            End::Retired(gone) if self.sent.refused.is_some() => {
                Check::fail(Stage::Anchor, Code::AnchorRetired, described(gone))
            }
            End::Anchor(anchor) if anchor.not_after_unix_s < self.sent.now_unix_s => {
                Check::warn(Stage::Anchor, Code::AnchorExpired, described(anchor))
            }
            End::Anchor(anchor) | End::Retired(anchor) => Check::ok(Stage::Anchor, described(anchor)),
            End::SelfIssued | End::Missing => Check::skip(Stage::Anchor, "the chain ends at none"),
        }
    }

    /// The first certificate sent that bears the key of a retired CA, used or not.
    fn shown_retired(&self) -> Option<&Certificate> {
        let retired = self.sent.retired.iter().filter_map(|anchor| Certificate::read(anchor.der()));
        let retired: Vec<_> = retired.map(|gone| gone.key).collect();
        self.certificates.iter().find(|sent| retired.contains(&sent.key))
    }

    fn way(&self) -> String {
        let sent = self.walk.path.iter().filter_map(|at| self.certificates.get(*at)).map(quoted);
        let end = match &self.walk.end {
            End::Anchor(anchor) => Some(quoted(anchor)),
            End::Retired(_) | End::SelfIssued | End::Missing => None,
        };
        sent.chain(end).collect::<Vec<_>>().join(" < ")
    }

    fn anchors(&self) -> String {
        let known = self.sent.anchors.iter().filter_map(|anchor| Certificate::read(anchor.der()));
        let known: Vec<_> = known.map(|c| format!("{} (key {})", quoted(&c), c.key_digits())).collect();
        format!("accepted: {}", known.join(", "))
    }
}

fn quoted(certificate: &Certificate) -> String {
    format!("{:?}", certificate.subject)
}

fn counted(certificates: usize) -> String {
    if certificates == 1 { "1 certificate".to_owned() } else { format!("{certificates} certificates") }
}
