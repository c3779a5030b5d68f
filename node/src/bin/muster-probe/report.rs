//! What came of it, one line of JSON each, and a summary at the end.

use std::{
    collections::BTreeSet,
    future::Future,
    io::{self, Write as _},
    time::Duration,
};

use identity::Code;
use serde::Serialize;
use tokio::sync::mpsc;

/// Failures kept to find the first after the last success, which may be reported late.
const FAILURES_KEPT_MAX: usize = 4096;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A fresh conn_auth.
    Probe,
    /// The held session.
    Session,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// VERDICT was ok.
    Ok,
    /// The target said no.
    Refused {
        /// Its reason.
        code: Option<Code>,
    },
    /// The target said nothing.
    Timeout,
    /// The connection or session ended otherwise.
    Closed {
        /// Its reason.
        code: Option<Code>,
        /// In words.
        detail: String,
    },
    /// Too many dials wait for an answer already.
    Skipped,
}

/// One outcome.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) target: usize,
    pub(crate) kind: Kind,
    /// Nanoseconds since 1970 when it began; for the end of a session, when it ended.
    pub(crate) began: u128,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Serialize)]
struct EventLine<'a> {
    t_unix_ns: u128,
    target: &'a str,
    kind: Kind,
    outcome: &'static str,
    took_us: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    kind: &'static str,
    target: &'a str,
    last_ok_ns: Option<u128>,
    first_refused_ns: Option<u128>,
    ok: u64,
    refused: u64,
    timeout: u64,
    closed: u64,
    skipped: u64,
    session_opened_ns: Option<u128>,
    session_ended_ns: Option<u128>,
    session_code: Option<String>,
}

/// Writes outcomes until `stop`, then the summaries.
pub(crate) async fn until(
    mut events: mpsc::Receiver<Event>,
    names: Vec<String>,
    stop: impl Future<Output = ()>,
) {
    let mut tallies: Vec<Tally> = names.into_iter().map(Tally::new).collect();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            event = events.recv() => {
                let Some(event) = event else { break };
                let Some(tally) = tallies.get_mut(event.target) else { continue };
                tally.count(&event);
                if event.outcome != Outcome::Skipped && write_line(&tally.line(&event)).is_err() {
                    // Nobody reads any more.
                    return;
                }
            }
        }
    }
    for tally in &tallies {
        if write_line(&tally.summary()).is_err() {
            return;
        }
    }
}

pub(crate) fn write_line(line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)
}

impl Outcome {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused { .. } => "refused",
            Self::Timeout => "timeout",
            Self::Closed { .. } => "closed",
            Self::Skipped => "skipped",
        }
    }

    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code } | Self::Closed { code, .. } => *code,
            Self::Ok | Self::Timeout | Self::Skipped => None,
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Closed { detail, .. } => Some(detail),
            Self::Ok | Self::Refused { .. } | Self::Timeout | Self::Skipped => None,
        }
    }
}

/// What became of one target.
struct Tally {
    name: String,
    ok: u64,
    refused: u64,
    timeout: u64,
    closed: u64,
    skipped: u64,
    last_ok_began: u128,
    last_ok_ended: Option<u128>,
    /// When the failures after the last success began.
    failures: BTreeSet<u128>,
    session_opened: Option<u128>,
    session_ended: Option<(u128, Option<Code>)>,
}

impl Tally {
    fn new(name: String) -> Self {
        Self {
            name,
            ok: 0,
            refused: 0,
            timeout: 0,
            closed: 0,
            skipped: 0,
            last_ok_began: 0,
            last_ok_ended: None,
            failures: BTreeSet::new(),
            session_opened: None,
            session_ended: None,
        }
    }

    fn count(&mut self, event: &Event) {
        let ended = event.began + event.took.as_nanos();
        match (event.kind, &event.outcome) {
            (Kind::Session, Outcome::Ok) => self.session_opened = Some(ended),
            (Kind::Session, outcome) if self.session_opened.is_some() => {
                self.session_ended = Some((ended, outcome.code()));
            }
            (Kind::Session, _) => {}
            (Kind::Probe, outcome) => self.count_probe(event.began, ended, outcome),
        }
    }

    fn count_probe(&mut self, began: u128, ended: u128, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Refused { .. } => &mut self.refused,
            Outcome::Timeout => &mut self.timeout,
            Outcome::Closed { .. } => &mut self.closed,
            Outcome::Skipped => &mut self.skipped,
        };
        *counter += 1;
        match outcome {
            Outcome::Ok => {
                self.last_ok_began = self.last_ok_began.max(began);
                self.last_ok_ended = self.last_ok_ended.max(Some(ended));
                self.failures = self.failures.split_off(&self.last_ok_began);
            }
            Outcome::Refused { .. } | Outcome::Timeout | Outcome::Closed { .. } => {
                if began > self.last_ok_began && self.failures.len() < FAILURES_KEPT_MAX {
                    self.failures.insert(began);
                }
            }
            Outcome::Skipped => {}
        }
    }

    fn line<'a>(&'a self, event: &'a Event) -> EventLine<'a> {
        EventLine {
            t_unix_ns: event.began,
            target: &self.name,
            kind: event.kind,
            outcome: event.outcome.name(),
            took_us: event.took.as_micros(),
            code: event.outcome.code().map(|code| code.to_string()),
            detail: event.outcome.detail(),
        }
    }

    fn summary(&self) -> SummaryLine<'_> {
        SummaryLine {
            kind: "summary",
            target: &self.name,
            last_ok_ns: self.last_ok_ended,
            first_refused_ns: self.failures.first().copied(),
            ok: self.ok,
            refused: self.refused,
            timeout: self.timeout,
            closed: self.closed,
            skipped: self.skipped,
            session_opened_ns: self.session_opened,
            session_ended_ns: self.session_ended.map(|(at, _)| at),
            session_code: self.session_ended.and_then(|(_, code)| code).map(|code| code.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(tally: &mut Tally, began: u128, outcome: Outcome) {
        let event = Event { target: 0, kind: Kind::Probe, began, took: Duration::from_nanos(3), outcome };
        tally.count(&event);
    }

    #[test]
    fn the_first_refusal_is_the_one_after_the_last_success_whenever_reported() {
        let mut tally = Tally::new("n1".to_owned());
        probe(&mut tally, 10, Outcome::Ok);
        probe(&mut tally, 40, Outcome::Refused { code: None });
        probe(&mut tally, 20, Outcome::Timeout);
        probe(&mut tally, 30, Outcome::Ok);
        let summary = tally.summary();
        assert_eq!((summary.last_ok_ns, summary.first_refused_ns), (Some(33), Some(40)));
        probe(&mut tally, 35, Outcome::Timeout);
        assert_eq!(tally.summary().first_refused_ns, Some(35));
        assert_eq!((tally.ok, tally.refused, tally.timeout), (2, 1, 2));
    }

    #[test]
    fn the_end_of_a_session_is_told_with_its_code() {
        let mut tally = Tally::new("n1".to_owned());
        let session =
            |began, outcome| Event { target: 0, kind: Kind::Session, began, took: Duration::ZERO, outcome };
        tally.count(&session(1, Outcome::Timeout));
        assert_eq!(tally.summary().session_ended_ns, None);
        tally.count(&session(2, Outcome::Ok));
        tally.count(&session(3, Outcome::Closed { code: None, detail: String::new() }));
        let summary = tally.summary();
        assert_eq!((summary.session_opened_ns, summary.session_ended_ns), (Some(2), Some(3)));
    }
}
