//! `muster debug bundle`: what somebody who helps from afar wants to see of this machine, in one file. It is what
//! the commands of this program print, nothing that an operator could not look at first, and no secret.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::limits::BUNDLE_PART_BYTES_MAX;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    archive::{self, Entry, Recipients},
    args::{Bundle, Everywhere},
    config, duration,
    failure::{Failure, Outcome},
    output::{self, talk},
    place, program,
};

/// Each file in it that a command of this program makes.
const COMMANDS: &[(&str, &[&str])] = &[
    ("status.json", &["status", "--json"]),
    ("doctor.json", &["doctor", "--json"]),
    ("config.json", &["config", "show", "--effective", "--json"]),
    ("members.json", &["member", "list", "--all", "--json"]),
    ("sessions.json", &["session", "list", "--json"]),
    ("services.json", &["expose", "list", "--json"]),
    ("keys.json", &["key", "show", "--json"]),
    ("org.json", &["org", "show", "--json"]),
    ("org-log.json", &["org", "log", "--json"]),
    ("revocations.json", &["revoke", "status", "--json"]),
    ("events.ndjson", &["events", "--json"]),
];

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere, args: &Bundle) -> Outcome<()> {
    let to = Recipients::parse(&args.to)?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => default_path(!to.is_empty()),
    };
    let mut parts = vec![("versions.txt".to_owned(), versions())];
    for (name, arguments) in COMMANDS {
        parts.push(((*name).to_owned(), own(everywhere, arguments)?));
    }
    let refusals = refusals(parts.last().map_or(&[][..], |(_, events)| events));
    parts.push(("refusals.ndjson".to_owned(), refusals));
    parts.push(("metrics.txt".to_owned(), metrics(everywhere)));
    parts.push(("journal.txt".to_owned(), journal()));
    for (_, content) in &mut parts {
        *content = redacted(content);
    }
    parts.insert(0, ("README.txt".to_owned(), ABOUT.as_bytes().to_vec()));
    let names: Vec<String> = parts.iter().map(|(name, _)| name.clone()).collect();
    let entry = |(name, content)| Entry {
        name: format!("{ROOT}/{name}"),
        mode: 0o600,
        content: Zeroizing::new(content),
    };
    let entries: Vec<Entry> = parts.into_iter().map(entry).collect();
    archive::write(&path, &entries, &to)?;
    let value = json!({ "file": path, "encrypted": !to.is_empty(), "parts": names });
    output::print(everywhere.format(), value, || format!("{}\n", path.display()));
    talk(&format!("It holds {}.", names.join(", ")));
    talk(
        "No secret is in it. It names members, addresses and public keys: give it to whom you would show those.",
    );
    Ok(())
}

fn default_path(encrypted: bool) -> PathBuf {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = duration::rfc3339(now).replace(['-', ':'], "");
    let end = if encrypted { ".age" } else { "" };
    PathBuf::from(format!("{ROOT}-{host}-{at}.tar.gz{end}"))
}

fn versions() -> Vec<u8> {
    let system = rustix::system::uname();
    let mut text = format!(
        "muster {}\n{} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    );
    for name in ["musterd", "muster-gateway", "muster-preboot"] {
        let said = program::find(name).and_then(|path| {
            let mut command = Command::new(path);
            command.arg("--version");
            program::said(command)
        });
        match said {
            Ok(said) => text.push_str(&String::from_utf8_lossy(&said)),
            Err(failure) => text.push_str(&format!("{name}: {}\n", failure.seen())),
        }
    }
    text.push_str(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    text.into_bytes()
}

/// What this program itself prints when asked so.
fn own(everywhere: &Everywhere, arguments: &[&str]) -> Outcome<Vec<u8>> {
    let path = std::env::current_exe().map_err(|error| Failure::file(Path::new("muster"), &error))?;
    let mut command = Command::new(path);
    command.args(arguments).arg("--no-input").arg("--config-dir").arg(&everywhere.config_dir);
    for (flag, value) in [("--state", &everywhere.state), ("--socket", &everywhere.socket)] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    program::said(command)
}

/// Of the events those in which somebody was refused.
fn refusals(events: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(events);
    let is_refusal = |line: &&str| {
        serde_json::from_str::<serde_json::Value>(line)
            .is_ok_and(|event| event.get("kind").is_some_and(|kind| kind == "refused"))
    };
    text.lines().filter(is_refusal).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn metrics(everywhere: &Everywhere) -> Vec<u8> {
    let listen = config::survey(everywhere, None).ok().and_then(|survey| {
        let set = survey.settings.into_iter().find(|set| set.key == "health.listen")?;
        set.value.as_str()?.parse::<SocketAddr>().ok()
    });
    let Some(at) = listen else { return b"[health] listen is not set\n".to_vec() };
    fetch(at).unwrap_or_else(|error| format!("{at}: {error}\n").into_bytes())
}

fn fetch(at: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(BUNDLE_PART_BYTES_MAX as u64).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The last lines of the daemons, where systemd keeps them.
fn journal() -> Vec<u8> {
    if !Path::new(place::SYSTEMD).exists() {
        return b"no systemd here\n".to_vec();
    }
    let mut command = Command::new("journalctl");
    command.args([
        "-u",
        "musterd",
        "-u",
        "muster-gateway",
        "-n",
        "2000",
        "--no-pager",
        "-o",
        "short-iso-precise",
    ]);
    program::said(command).unwrap_or_else(|failure| failure.text().into_bytes())
}

/// Nothing here should hold a secret. Somebody may have pasted one where it does not belong all the same: a line
/// that looks like one goes.
fn redacted(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(content.get(..BUNDLE_PART_BYTES_MAX).unwrap_or(content)).into_owned();
    let looks_secret = |line: &str| SECRET_WORDS.iter().any(|word| line.contains(word));
    let line = |line| if looks_secret(line) { "[a line was taken out here]" } else { line };
    text.lines().map(|text| format!("{}\n", line(text))).collect::<String>().into_bytes()
}

/// How invites, keys of age, and keys in PEM begin.
const SECRET_WORDS: [&str; 3] = ["muster-invite-", "AGE-SECRET-KEY-", "PRIVATE KEY-----"];
const ROOT: &str = "muster-bundle";
const PATIENCE: Duration = Duration::from_secs(3);
const ABOUT: &str = "\
What `muster debug bundle` saw of one machine: each file is what a command of that name prints, or said why it\n\
could not. It holds no key, no invite and no passphrase. It names members, their addresses and public keys.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_looks_like_a_secret_is_taken_out() {
        for word in SECRET_WORDS {
            let text = format!("before\nsomebody said {word}abc\nafter\n");
            assert_eq!(redacted(text.as_bytes()), b"before\n[a line was taken out here]\nafter\n");
        }
    }

    #[test]
    fn refusals_are_those_of_the_events() {
        let events = b"{\"kind\":\"link-up\"}\n{\"kind\":\"refused\",\"name\":\"x\"}\nno event\n";
        assert_eq!(refusals(events), b"{\"kind\":\"refused\",\"name\":\"x\"}\n");
    }
}
