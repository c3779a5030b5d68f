//! `muster events`: what happened lately, and what happens now.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use control::local::{Answer, Event, Events, Request};
use identity::Code;
use serde_json::{Value, json};

use crate::{
    args::{EventsArgs, Everywhere},
    duration,
    failure::{Failure, Outcome},
    local::{self, Daemon},
    output::{self, Format, talk},
    place::Places,
};

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere, args: &EventsArgs) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    let mut told = ask(&mut Daemon::connect(&places.socket)?, 0)?;
    if args.follow && args.new {
        told.events.clear();
    }
    loop {
        for event in &told.events {
            show(everywhere.format(), event);
            if let Some(program) = &args.exec {
                hand_over(program, event)?;
            }
        }
        if told.lost > 0 {
            talk(&format!("{} earlier events are kept no more", told.lost));
        }
        if !args.follow {
            return Ok(());
        }
        told = next(&places, told.last);
    }
}

/// Waits until there is something new. A musterd that restarts is waited for: who follows wants to hear of
/// what comes after that as well.
fn next(places: &Places, after: u64) -> Events {
    let mut told_away = false;
    loop {
        thread::sleep(PACE);
        let asked = Daemon::connect(&places.socket).and_then(|mut daemon| ask(&mut daemon, after));
        match asked {
            Ok(told) if told.last != after => return told,
            Ok(_) => {}
            Err(failure) if !told_away => {
                talk(&format!("{} {}; waiting for it", failure.code(), failure.seen()));
                told_away = true;
            }
            Err(_) => {}
        }
    }
}

fn ask(daemon: &mut Daemon, after: u64) -> Outcome<Events> {
    let Answer::Events(events) = daemon.ask(&Request::Events { after })? else {
        return Err(local::unexpected());
    };
    Ok(events)
}

/// One line for each: a stream is read line by line, in whatever form.
fn show(format: Format, event: &Event) {
    let form = if format == Format::Yaml { Format::Json } else { format };
    output::print(form, value(event), || {
        let name = event.name.clone().or_else(|| event.node.map(|node| node.0.short()));
        let code = event.code.map(|code| code.0.to_string());
        let words = [
            Some(duration::rfc3339(event.at_unix_ms / 1_000)),
            Some(event.kind.as_str().to_owned()),
            name,
            code,
            Some(event.detail.clone()).filter(|detail| !detail.is_empty()),
            event.reference.as_ref().map(|reference| format!("(ref {reference})")),
        ];
        format!("{}\n", words.into_iter().flatten().collect::<Vec<_>>().join("  "))
    });
}

fn value(event: &Event) -> Value {
    json!({
        "number": event.number,
        "at": duration::rfc3339(event.at_unix_ms / 1_000),
        "at_unix_ms": event.at_unix_ms,
        "kind": event.kind.as_str(),
        "key": event.node.map(|node| node.to_string()),
        "name": event.name,
        "code": event.code.map(|code| code.to_string()),
        "title": event.code.map(|code| code.0.title()),
        "detail": event.detail,
        "remedy": event.code.map(|code| code.0.remedy()),
        "reference": event.reference,
    })
}

/// The program reads the event as one JSON object; its words go where ours go. That it fails is said, and
/// the next event comes all the same.
fn hand_over(program: &str, event: &Event) -> Outcome<()> {
    let failed = |why: String| Failure::new(Code::FileProblem, format_args!("{program}: {why}"));
    let mut child = Command::new("/bin/sh")
        .args(["-c", program])
        .env("MUSTER_EVENT", event.kind.as_str())
        .env("MUSTER_EVENT_NAME", event.name.as_deref().unwrap_or_default())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = format!("{}\n", output::versioned(value(event)));
        // Who does not want to read it need not.
        std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap_or_default();
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        talk(&format!("{program}: {status}, at event {}", event.number));
    }
    Ok(())
}

const PACE: Duration = Duration::from_millis(500);
