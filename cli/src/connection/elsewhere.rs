//! `muster debug connection --from NODE`: the same look from another member's machine, which offers it as a
//! service like any program; and the answer of this machine to a member that asks for one.

use core::time::Duration;
use std::{
    io::{self, Cursor, Read as _, Write},
    sync::mpsc,
    thread,
    time::Instant,
};

use diagnosis::{Check, Stage, Status};
use identity::{
    Code,
    limits::{
        DIAGNOSE_ANSWER_BYTES_MAX, DIAGNOSE_ANSWER_MS, DIAGNOSE_QUESTION_BYTES_MAX, DIAGNOSE_QUESTION_MS,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use transport::Address;

use super::{known::Known, look};
use crate::{
    args::{Connection, Everywhere},
    connect::{self, Near},
    failure::{Failure, Outcome},
    output,
    place::Places,
};

/// The name under which a machine offers it.
const ACTION: &str = "diagnose";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    address: Option<String>,
    as_preboot: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Said {
    /// The object that `-o json` prints there.
    Looked(Value),
    Refused {
        code: String,
        seen: String,
    },
}

/// What people are shown of an answer. Programs get the rest, too, as far as it can do no harm.
#[derive(Deserialize)]
struct Looked {
    address: String,
    trust: Trust,
    checks: Vec<Line>,
}

#[derive(Deserialize)]
struct Trust {
    source: String,
    anchors: Vec<Value>,
}

#[derive(Deserialize)]
struct Line {
    stage: String,
    status: String,
    code: Option<String>,
    seen: String,
}

/// Asks the member; the exit status is that of a look from here.
pub(super) fn ask(everywhere: &Everywhere, args: &Connection, node: &str) -> Outcome<u8> {
    let question = Question { address: args.address.clone(), as_preboot: args.as_preboot };
    let mut question = serde_json::to_vec(&question).map_err(Failure::usage)?;
    question.push(b'\n');
    let socket = Places::find(everywhere)?.socket;
    let (stream, connected) = connect::open(&socket, node, ACTION).map_err(with_remedy)?;
    let name = &connected.name;
    let unsaid =
        |why: &dyn core::fmt::Display| Failure::new(Code::DiagnosisUnsaid, format_args!("{name}: {why}"));
    let patience = Duration::from_millis(DIAGNOSE_ANSWER_MS);
    let mut answer = Answer::until(Instant::now() + patience);
    stream.set_read_timeout(Some(patience)).map_err(|error| unsaid(&error))?;
    let carried = connect::carry(stream, Cursor::new(question), &mut answer);
    if answer.is_late() {
        return Err(unsaid(&format_args!("no whole answer within {} s", patience.as_secs())));
    }
    carried.map_err(with_remedy)?;
    let value = match serde_json::from_slice(&answer.bytes) {
        Ok(Said::Looked(value)) => value,
        Ok(Said::Refused { code, seen }) => {
            let (code, seen) = refused(&code, &seen);
            return Err(Failure::new(code, format_args!("{name}: {seen}")));
        }
        Err(_) if answer.bytes.is_empty() => return Err(unsaid(&"nothing came")),
        Err(why) => return Err(unsaid(&why)),
    };
    // A list of the right length would do for serde.
    if !value.is_object() {
        return Err(unsaid(&"its answer is no object"));
    }
    let looked = Looked::deserialize(&value).map_err(|why| unsaid(&why))?;
    let checks: Vec<Check<String>> = looked.checks.iter().map(Line::check).collect();
    if checks.is_empty() {
        return Err(unsaid(&"it looked at nothing"));
    }
    let from = json!({ "name": name, "key": connected.node.to_string() });
    let value = output::with(for_programs(value, &checks), [("from", from)]);
    output::print(everywhere.format(), value, || {
        let mut out = format!(
            "connection from {name} to {}; CAs: {}, from {}\n",
            harmless(&looked.address),
            looked.trust.anchors.len(),
            harmless(&looked.trust.source)
        );
        for check in &checks {
            out.push_str(&format!("{check}\n"));
        }
        out
    });
    Ok(u8::from(!is_well(&checks)))
}

/// What another machine says that it did not do. Only what it can say of the question itself goes by its own code:
/// any other would have this machine's people read of their own files and keys, and follow a remedy for them.
fn refused(code: &str, seen: &str) -> (Code, String) {
    match Code::parse(code) {
        Some(known @ (Code::GatewayNotKnown | Code::RequestMalformed)) => (known, harmless(seen)),
        Some(_) | None => (Code::DiagnosisUnsaid, format!("{} {}", harmless(code), harmless(seen))),
    }
}

fn is_well(checks: &[Check<String>]) -> bool {
    checks.iter().all(|check| check.status != Status::Fail)
}

/// The object for a program, which may show it to people: the verdict, why, and what to do are ours.
fn for_programs(value: Value, checks: &[Check<String>]) -> Value {
    let ours = checks.iter().map(super::check).collect();
    output::with(disarmed(value), [("ok", is_well(checks).into()), ("checks", Value::Array(ours))])
}

/// The same without text that could move a cursor. As deep as serde_json lets a value be.
fn disarmed(value: Value) -> Value {
    match value {
        Value::String(text) => harmless(&text).into(),
        Value::Array(values) => values.into_iter().map(disarmed).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (harmless(&name), disarmed(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Answers one question that stands on stdin.
pub(crate) fn answer(everywhere: &Everywhere) -> Outcome<()> {
    let said = match looked(everywhere) {
        Ok(value) => Said::Looked(value),
        Err(failure) => Said::Refused { code: failure.code().to_string(), seen: failure.seen().to_owned() },
    };
    let said = serde_json::to_vec(&said).map_err(|why| Failure::new(Code::DiagnosisUnsaid, why))?;
    let mut out = io::stdout().lock();
    let wrote = out.write_all(&said).and_then(|()| out.flush());
    wrote.map_err(|error| Failure::new(Code::DiagnosisUnsaid, error))
}

fn looked(everywhere: &Everywhere) -> Outcome<Value> {
    let malformed = |why: &dyn core::fmt::Display| Failure::new(Code::RequestMalformed, why);
    // One look is made at a time: who is permitted and says nothing is not to keep the others out.
    let (heard, asked) = mpsc::sync_channel(1);
    thread::spawn(move || heard.send(question()));
    let line = asked.recv_timeout(Duration::from_millis(DIAGNOSE_QUESTION_MS));
    let line = line.map_err(|_| malformed(&"no question came"))?.map_err(|error| malformed(&error))?;
    if line.len() > DIAGNOSE_QUESTION_BYTES_MAX {
        return Err(malformed(&"the question is too long"));
    }
    let question: Question = serde_json::from_slice(&line).map_err(|why| malformed(&why))?;
    let places = Places::find(everywhere)?;
    let args =
        Connection { address: question.address, org_ca: None, as_preboot: question.as_preboot, from: None };
    let known = Known::find(everywhere, &places, &args)?;
    if let Some(address) = &args.address
        && !is_known(address, &known.gateways)
    {
        return Err(Failure::new(Code::GatewayNotKnown, address));
    }
    Ok(look(&places, &known, &args)?.value)
}

/// What stands on stdin, up to its end: who asks has no more to say.
fn question() -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let most = u64::try_from(DIAGNOSE_QUESTION_BYTES_MAX).unwrap_or(u64::MAX);
    io::stdin().lock().take(most + 1).read_to_end(&mut line)?;
    Ok(line)
}

/// A member's word is no reason to reach anything but the org's gateways from here.
fn is_known(address: &str, gateways: &[String]) -> bool {
    let same = |text: &String| Address::parse(text).ok().zip(Address::parse(address).ok());
    gateways.iter().filter_map(same).any(|(known, wanted)| known.to_string() == wanted.to_string())
}

fn with_remedy(failure: Failure) -> Failure {
    const SOCKET: &str = "On that machine: `systemctl enable --now muster-diagnose.socket`";
    if failure.code() == Code::ActionUnknown {
        let expose = "`muster expose diagnose --to unix:/run/muster-diagnose.sock`";
        return failure.remedy(format_args!("{SOCKET}, and {expose}."));
    }
    if failure.code() == Code::ServiceDown {
        return failure.remedy(format_args!("Try again: it makes one look at a time. {SOCKET}."));
    }
    failure
}

impl Line {
    /// What was seen is the other machine's word; why, and what to do, are ours.
    fn check(&self) -> Check<String> {
        let status = [Status::Ok, Status::Warn, Status::Skip].into_iter().find(|s| s.as_str() == self.status);
        let code = self.code.as_deref();
        let known = code.and_then(Code::parse);
        let stage = match Stage::ALL.iter().find(|stage| stage.as_str() == self.stage) {
            Some(stage) => stage.to_string(),
            // Of another release.
            None => harmless(&self.stage),
        };
        let seen = match code.filter(|_| known.is_none()) {
            Some(code) => format!("{} {}", harmless(code), harmless(&self.seen)),
            None => harmless(&self.seen),
        };
        // What is not understood is not in order.
        Check { stage, status: status.unwrap_or(Status::Fail), code: known, seen }
    }
}

/// Text of another machine as it may stand on a terminal: nothing in it moves the cursor, turns the line
/// round, or goes on without end.
fn harmless(text: &str) -> String {
    const MOST: usize = 1024;
    let plain = |c: char| matches!(c, '"' | '\'' | '\\');
    let shown =
        text.chars().take(MOST).map(|c| if plain(c) { c.to_string() } else { c.escape_debug().to_string() });
    shown.collect()
}

/// The bytes of the answer, of which there are neither too many nor too late ones.
struct Answer {
    bytes: Vec<u8>,
    until: Instant,
}

impl Answer {
    const fn until(until: Instant) -> Self {
        Self { bytes: Vec::new(), until }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > DIAGNOSE_ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // The time to read bounds silence; this, an answer a byte at a time.
        if self.is_late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Near for Answer {
    /// That was all.
    fn end(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stage: &str, status: &str, code: Option<&str>, seen: &str) -> String {
        let code = code.map(str::to_owned);
        Line { stage: stage.to_owned(), status: status.to_owned(), code, seen: seen.to_owned() }
            .check()
            .to_string()
    }

    #[test]
    fn a_member_that_answers_cannot_write_on_the_askers_terminal() {
        let said = line("tcp\x1b[2J", "fail", Some("MU-5002\r"), "\x1b]0;x\x07 \u{202e}gateway\n\"ok\"");
        assert!(!said.chars().any(char::is_control) && !said.contains('\u{202e}'), "{said:?}");
        assert!(said.contains("\"ok\""), "what people write stays: {said}");
        assert!(harmless(&"x".repeat(100_000)).len() < 2000);
    }

    #[test]
    fn why_and_what_to_do_are_words_of_this_machine_and_what_is_not_understood_fails() {
        let said = line("tcp", "fail", Some("MU-5002"), "x");
        assert!(said.starts_with("FAIL MU-5002 tcp: x; "), "{said}");
        assert!(said.ends_with(Code::GatewayRefused.remedy()), "{said}");
        assert_eq!(line("tcp", "ok", None, "x"), "ok           tcp: x");
        assert_eq!(line("teleport", "fine", Some("MU-0000"), "x"), "FAIL         teleport: MU-0000 x");
    }

    #[test]
    fn a_refusal_is_told_as_the_other_machines_and_under_no_code_that_is_about_this_one() {
        assert_eq!(refused("MU-7046", "gw:22"), (Code::GatewayNotKnown, "gw:22".to_owned()));
        let own = Code::ALL.iter().filter(|code| refused(&code.to_string(), "").0 == **code);
        let own: Vec<Code> = own.copied().collect();
        assert_eq!(own, [Code::RequestMalformed, Code::DiagnosisUnsaid, Code::GatewayNotKnown]);
        let (code, seen) = refused("MU-1403", "revoked");
        assert_eq!(
            (code, seen.as_str()),
            (Code::DiagnosisUnsaid, "MU-1403 revoked"),
            "its word stays its word"
        );
        let (code, seen) = refused("\u{1b}[2J", "\r\u{202e}");
        assert_eq!(code, Code::DiagnosisUnsaid);
        assert!(!seen.contains(['\u{1b}', '\r', '\u{202e}']), "{seen:?}");
    }

    #[test]
    fn only_a_gateway_that_is_known_is_looked_at_for_another_member() {
        let gateways = ["gw.example:443".to_owned(), "wss://edge.example:443".to_owned()];
        assert!(is_known("gw.example:443", &gateways) && is_known("wss://edge.example:443", &gateways));
        for other in ["gw.example:22", "10.0.0.1:443", "wss://gw.example:443", "", "gw.example"] {
            assert!(!is_known(other, &gateways), "{other}");
        }
    }

    #[test]
    fn a_program_is_given_this_machines_verdict_and_words_and_nothing_that_moves_a_cursor() {
        let lie = json!({
            "address": "gw\u{9b}2J", "ok": true, "more": [{ "\u{202e}x": "\u{1b}[2J" }],
            "trust": { "source": "s", "anchors": [] },
            "checks": [{ "stage": "tcp", "status": "fail", "code": "MU-5002", "seen": "x",
                         "why": "theirs", "remedy": "run this" }],
        });
        let looked = Looked::deserialize(&lie).unwrap();
        let checks: Vec<_> = looked.checks.iter().map(Line::check).collect();
        let shown = for_programs(lie, &checks);
        assert_eq!(shown["ok"], false);
        assert_eq!(shown["checks"][0]["remedy"], Code::GatewayRefused.remedy());
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains(['\u{9b}', '\u{202e}']) && !text.contains("u001b"), "{text}");
        assert!(!text.contains("theirs") && !text.contains("run this"), "{text}");
    }

    #[test]
    fn an_answer_without_end_is_not_taken() {
        let mut answer = Answer::until(Instant::now() + Duration::from_secs(3600));
        let piece = vec![b'x'; DIAGNOSE_ANSWER_BYTES_MAX / 2];
        assert!(answer.write(&piece).is_ok() && answer.write(&piece).is_ok() && answer.write(b"x").is_err());
        let mut late = Answer::until(Instant::now());
        assert!(late.write(b"x").is_err() && late.is_late(), "a byte at a time");
    }
}
