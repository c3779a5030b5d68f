//! `muster debug connection`: every step of a connection to a gateway, one line each, as the dialler of
//! preboot, of musterd and of this program would go, and what this machine says of itself.

mod elsewhere;
pub(crate) mod here;
mod known;
mod walk;

use std::time::Instant;

use diagnosis::{Certificate, Check, Stage, Status, date};
use identity::Code;
use serde_json::{Value, json};
use transport::Address;

use crate::{
    args::{Connection, Everywhere},
    failure::{Failure, Outcome},
    output::{self, talk},
    place::Places,
};

use known::Known;
use walk::Walked;

pub(crate) use elsewhere::answer;
pub(crate) use walk::now_unix_s;

/// Runs the command; its exit status.
pub(crate) fn run(everywhere: &Everywhere, args: &Connection) -> Outcome<u8> {
    if let Some(node) = &args.from {
        return elsewhere::ask(everywhere, args, node);
    }
    let places = Places::find(everywhere)?;
    let known = Known::find(everywhere, &places, args)?;
    let seen = look(&places, &known, args)?;
    output::print(everywhere.format(), seen.value, || seen.screen);
    Ok(u8::from(seen.failed))
}

/// What was seen, for programs and for people.
struct Seen {
    value: Value,
    screen: String,
    failed: bool,
}

fn look(places: &Places, known: &Known, args: &Connection) -> Outcome<Seen> {
    let began = Instant::now();
    let address = address(args, known)?;
    let walked = walk::run(&address, known)?;
    let mut checks = walked.checks.clone();
    checks.extend(here::checks(places, known));
    checks.sort_by_key(|check| check.stage);
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    let report = Report { address, known, walked: &walked, checks: &checks };
    Ok(Seen { value: report.value(began), screen: report.screen(), failed })
}

/// The way to the first gateway that is known here, for `muster doctor`; none if no gateway is.
pub(crate) fn to_known_gateway(
    everywhere: &Everywhere,
    places: &Places,
) -> Outcome<Option<(Address, Vec<Check>)>> {
    let args = Connection { address: None, org_ca: None, as_preboot: false, from: None };
    let known = Known::find(everywhere, places, &args)?;
    let Some(text) = known.gateways.first() else { return Ok(None) };
    let address = Address::parse(text).map_err(|why| Failure::usage(format_args!("{text:?}: {why}")))?;
    let walked = walk::run(&address, &known)?;
    Ok(Some((address, walked.checks)))
}

fn address(args: &Connection, known: &Known) -> Outcome<Address> {
    let (text, others) = match (&args.address, known.gateways.split_first()) {
        (Some(address), _) => (address, &[][..]),
        (None, Some((first, others))) => (first, others),
        (None, None) => {
            return Err(Failure::usage(format_args!("no gateway is named in {}", known.source))
                .remedy("Give its address: muster debug connection HOST:PORT"));
        }
    };
    if !others.is_empty() {
        talk(&format!("looking at {text}; there are more: {}", others.join(", ")));
    }
    Address::parse(text).map_err(|why| Failure::usage(format_args!("{text:?}: {why}")))
}

struct Report<'a> {
    address: Address,
    known: &'a Known,
    walked: &'a Walked,
    checks: &'a [Check],
}

impl Report<'_> {
    fn screen(&self) -> String {
        let anchors = self.known.anchors.as_ref().map_or(0, |bundle| bundle.certificates().len());
        let mut out = format!("connection to {}; CAs: {anchors}, from {}\n", self.address, self.known.source);
        for check in self.checks {
            out.push_str(&format!("{check}\n"));
        }
        out
    }

    fn value(&self, began: Instant) -> Value {
        let failed = self.checks.iter().filter(|check| check.status == Status::Fail).count();
        let anchors = self.known.anchors.iter().flat_map(|bundle| bundle.certificates());
        let anchors = anchors.filter_map(|anchor| Certificate::read(anchor.der()));
        json!({
            "address": self.address.to_string(),
            "ok": failed == 0,
            // What preboot, musterd or muster would end with: the dialler's own verdict.
            "client_code": self.walked.refused.map(|code| code.to_string()),
            "trust": {
                "source": self.known.source,
                "anchors": anchors.map(|anchor| certificate(&anchor)).collect::<Vec<_>>(),
            },
            "tls_reference": self.walked.tls_reference.map(|reference| reference.to_string()),
            "reference": self.walked.reference.map(|reference| reference.to_string()),
            "chain": self.walked.certificates.iter().map(certificate).collect::<Vec<_>>(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
            "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

fn check<S: ToString>(check: &Check<S>) -> Value {
    json!({
        "stage": check.stage.to_string(),
        "status": check.status.as_str(),
        "code": check.code.map(|code| code.to_string()),
        "seen": check.seen,
        "why": check.why(),
        "remedy": check.remedy(),
    })
}

fn certificate(certificate: &Certificate) -> Value {
    json!({
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "key": certificate.key,
        "names": certificate.names,
        "not_before": date(certificate.not_before_unix_s),
        "not_after": date(certificate.not_after_unix_s),
    })
}

/// Stages that nothing can be said of.
fn skipped(stages: &[Stage], why: &str) -> Vec<Check> {
    stages.iter().map(|&stage| Check::skip(stage, why)).collect()
}

/// For a network that does not answer.
const NO_ANSWER: Code = Code::GatewayUnreachable;
