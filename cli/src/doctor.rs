//! `muster doctor`: whether everything that this machine needs is in order, on one screen. It looks at what
//! it may see, also where musterd does not run, and says what it may not.

mod local;
mod running;

use core::fmt;

use diagnosis::{Check, Status};
use identity::Code;
use serde_json::{Value, json};

use crate::{args::Everywhere, config, connection, failure::Outcome, output, place::Places};

/// What is looked at, in the order in which one thing needs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Configuration,
    Files,
    Keys,
    Clock,
    Disk,
    Daemon,
    Membership,
    Interface,
    Port,
    List,
    Links,
    Gateway,
    Names,
}

type Finding = Check<Part>;

/// The answer of `status --check`; the numbers are the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well = 0,
    Degraded = 1,
    Down = 2,
    NotEnrolled = 3,
}

/// Runs the command; its exit status.
pub(crate) fn run(everywhere: &Everywhere) -> Outcome<u8> {
    let places = Places::find(everywhere)?;
    let survey = config::survey(everywhere, None);
    let mut findings = vec![local::configuration(&survey)];
    findings.extend(local::findings(&places));
    let seen = running::look(&places, survey.as_ref().ok());
    findings.extend(seen.findings);
    findings.push(gateway(everywhere, &places));
    findings.push(seen.names);
    let is = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let verdict = match seen.down {
        Some(verdict) => verdict,
        None if is(Status::Warn) + is(Status::Fail) > 0 => Verdict::Degraded,
        None => Verdict::Well,
    };
    let value = json!({
        "verdict": verdict.word(),
        "warnings": is(Status::Warn),
        "failures": is(Status::Fail),
        "checks": findings.iter().map(value).collect::<Vec<_>>(),
    });
    output::print(everywhere.format(), value, || {
        let mut screen: String = findings.iter().map(lines).collect();
        let (warnings, failures) = (is(Status::Warn), is(Status::Fail));
        let plural = |count: usize, word| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let (failures, warnings) = (plural(failures, "failure"), plural(warnings, "warning"));
        screen.push_str(&format!("{}: {failures}, {warnings}\n", verdict.word()));
        screen
    });
    Ok(verdict as u8)
}

/// The verdict of `debug connection`, where a gateway is known.
fn gateway(everywhere: &Everywhere, places: &Places) -> Finding {
    let part = Part::Gateway;
    match connection::to_known_gateway(everywhere, places) {
        Ok(None) => Check::skip(part, "no gateway's address is known here"),
        // Neither says anything about the gateway.
        Err(failure) if failure.code() == Code::Usage || failure.code() == Code::FileProblem => {
            Check::skip(part, "no gateway's address can be read here")
        }
        Err(failure) => Check::fail(part, failure.code(), failure.seen()),
        Ok(Some((address, checks))) => {
            let worst = |status| checks.iter().find(|check| check.status == status);
            match worst(Status::Fail).or_else(|| worst(Status::Warn)) {
                None => Check::ok(part, format!("{address}: reached, and it proved its key")),
                Some(check) => {
                    let told = check.seen.starts_with(&address.to_string());
                    let before = if told { String::new() } else { format!("{address}: ") };
                    let seen = format!("{before}{}: {}", check.stage, check.seen);
                    Check { stage: part, status: check.status, code: check.code, seen }
                }
            }
        }
    }
}

fn value(finding: &Finding) -> Value {
    json!({
        "check": finding.stage.to_string(),
        "status": finding.status.as_str(),
        "code": finding.code.map(|code| code.to_string()),
        "seen": finding.seen,
        "why": finding.why(),
        "remedy": finding.remedy(),
    })
}

/// One line, and where something is not in order what it is called and what to do.
fn lines(finding: &Finding) -> String {
    let word = if finding.status == Status::Fail { "FAIL" } else { finding.status.as_str() };
    let mut lines = format!("{word:4}  {:13}  {}\n", finding.stage.to_string(), finding.seen);
    if let Some(code) = finding.code {
        let indent = " ".repeat(21);
        lines.push_str(&format!("{indent}{code} {}\n{indent}do: {}\n", code.title(), finding.remedy()));
    }
    lines
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Files => "files",
            Self::Keys => "keys",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Daemon => "musterd",
            Self::Membership => "membership",
            Self::Interface => "interface",
            Self::Port => "port",
            Self::List => "member list",
            Self::Links => "links",
            Self::Gateway => "gateway",
            Self::Names => "names",
        })
    }
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Well => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::NotEnrolled => "not-enrolled",
        }
    }
}
