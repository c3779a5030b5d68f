//! Who has applied something, by the members' own signed word, and waiting for enough of them.

use core::time::Duration;
use std::{thread, time::Instant};

use control::local::Coverage;
use identity::{Code, StatementId};
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, Wait, Waiting},
    author::Carrier,
    failure::{Failure, Outcome},
    member,
    output::talk,
    progress::Progress,
};

/// What a wait came to.
pub(crate) struct Waited {
    wait: Wait,
    started: Instant,
    pub(crate) covered: Outcome<Coverage>,
}

/// Looks until enough members have applied it, or time is up. The last look counts.
pub(crate) fn wait(
    everywhere: &Everywhere,
    carrier: &mut dyn Carrier,
    change: StatementId,
    waiting: &Waiting,
) -> Waited {
    let started = Instant::now();
    let pause = carrier.pause();
    // Only once it takes a while: most are everywhere at the first look.
    let mut progress = None;
    let covered = loop {
        match carrier.coverage(change) {
            Ok(coverage)
                if reached(waiting.wait, &coverage) || started.elapsed() + pause > waiting.timeout =>
            {
                break Ok(coverage);
            }
            Ok(coverage) => {
                let begin = || Progress::count(everywhere, "applied by", coverage.of);
                progress.get_or_insert_with(begin).at(coverage.applied);
                thread::sleep(pause);
            }
            Err(failure) => break Err(failure),
        }
    };
    Waited { wait: waiting.wait, started, covered }
}

/// Whether that is as many as asked for.
pub(crate) fn reached(wait: Wait, coverage: &Coverage) -> bool {
    match wait {
        Wait::All => coverage.applied >= coverage.of,
        Wait::Quorum => coverage.applied > coverage.of / 2,
        Wait::Members(wanted) => coverage.applied >= wanted.min(coverage.of),
    }
}

/// For a program.
pub(crate) fn value(coverage: &Coverage) -> Value {
    json!({
        "applied": coverage.applied,
        "of": coverage.of,
        "missing": coverage.missing.iter().map(|m| json!({
            "name": m.name,
            "key": m.node.to_string(),
            "last_contact_ms_ago": m.heard_ms_ago,
        })).collect::<Vec<_>>(),
    })
}

/// For people: `applied 48/50`, and the two that have not, with when they were last heard.
pub(crate) fn lines(coverage: &Coverage) -> String {
    let mut out = format!("applied {}/{}\n", coverage.applied, coverage.of);
    for m in &coverage.missing {
        let contact = match m.heard_ms_ago {
            None => "no contact known".to_owned(),
            heard => format!("last contact {}", member::contact(heard)),
        };
        out.push_str(&format!("missing {}  {contact}\n", m.name));
    }
    out
}

impl Waited {
    pub(crate) fn complete(&self) -> bool {
        self.covered.as_ref().is_ok_and(|coverage| reached(self.wait, coverage))
    }

    /// The fields of a command's object.
    pub(crate) fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("complete", self.complete().into()),
            ("waited_ms", u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX).into()),
            ("coverage", self.covered.as_ref().map_or(Value::Null, value)),
        ]
    }

    pub(crate) fn text(&self) -> String {
        self.covered.as_ref().map(lines).unwrap_or_default()
    }

    /// Says what is missing and gives the exit status.
    pub(crate) fn exit_status(self) -> u8 {
        let elapsed = self.elapsed().as_millis();
        match &self.covered {
            Ok(_) if self.complete() => 0,
            Ok(c) => {
                let seen = format!("applied {}/{} within {elapsed} ms", c.applied, c.of);
                talk(Failure::new(Code::CoverageIncomplete, seen).text().trim_end());
                Code::CoverageIncomplete.exit_status()
            }
            Err(failure) => {
                talk("It is accepted; who has applied it could not be learnt:");
                talk(failure.text().trim_end());
                Code::CoverageIncomplete.exit_status()
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
