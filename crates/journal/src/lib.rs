//! Where a daemon's words go: to the journal, each field under its name, when systemd reads its standard
//! error; to standard error as lines otherwise.
//!
//! ```text
//! tracing::info!(MUSTER_CODE = %code, MUSTER_PEER = peer, action, "refused: ..")
//!
//! MESSAGE=refused: .. (code MU-1403, peer 1817d53a, action sync)
//! MUSTER_CODE=MU-1403      MUSTER_PEER=1817d53a      MUSTER_ACTION=sync
//! MESSAGE_ID=.. of the code: `journalctl -x` shows cause and remedy from the catalog
//! ```

use std::{fmt::Write as _, io};

use identity::Code;
use libsystemd::logging::{Priority, connected_to_journal, journal_send};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// Takes all events from here on. `program` is what the journal calls this process.
pub fn begin(program: &'static str, filter: EnvFilter) {
    let registry = tracing_subscriber::registry().with(filter);
    if connected_to_journal() {
        registry.with(Journal { program }).init();
    } else {
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr);
        registry.with(lines).init();
    }
}

/// The catalog that belongs to the events: an entry for each code, in the form of `journalctl
/// --update-catalog`.
#[must_use]
pub fn catalog() -> String {
    let mut out = String::from("# Cause and remedy of every code, for `journalctl -x`.\n");
    for code in Code::ALL {
        let (id, title) = (message_id(*code), code.title());
        // Writing to a String does not fail.
        write!(
            out,
            "\n-- {id}\nSubject: {code}: {title}\nDefined-By: muster\nDocumentation: man:muster-codes(7)\n\n\
             {}\n\nWhat to do: {}\n",
            code.cause(),
            code.remedy()
        )
        .unwrap_or_default();
    }
    out
}

/// The id of the events that carry a code: 28 digits that stand for muster, and the number.
#[must_use]
pub fn message_id(code: Code) -> String {
    format!("{FAMILY}{:04x}", code.number())
}

const FAMILY: &str = "b6a2f0c94d1e47d38e5a7c31f90d";

struct Journal {
    program: &'static str,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let (message, mut fields) = entry.finish();
        fields.push(("SYSLOG_IDENTIFIER".to_owned(), self.program.to_owned()));
        fields.push(("TARGET".to_owned(), event.metadata().target().to_owned()));
        // A journal that does not take it is no reason to stop, and there is nobody else to tell.
        journal_send(priority(*event.metadata().level()), &message, fields.into_iter()).unwrap_or_default();
    }
}

const fn priority(level: Level) -> Priority {
    match level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        Level::DEBUG | Level::TRACE => Priority::Debug,
    }
}

/// One event's fields as the journal names them.
#[derive(Default)]
struct Entry {
    message: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn add(&mut self, name: &str, value: String) {
        self.fields.push((name.to_owned(), value));
    }

    fn take(&mut self, name: &str, value: String) {
        match name {
            "message" => self.message = value,
            _ if name.starts_with(PREFIX) => self.add(name, value),
            _ => self.add(&format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "_")), value),
        }
    }

    /// What is read without asking for fields has them as well, behind the words.
    fn finish(mut self) -> (String, Vec<(String, String)>) {
        for (at, (name, value)) in self.fields.iter().enumerate() {
            let name = name.trim_start_matches(PREFIX).to_ascii_lowercase();
            let before = if at == 0 { " (" } else { ", " };
            write!(self.message, "{before}{name} {value}").unwrap_or_default();
        }
        if !self.fields.is_empty() {
            self.message.push(')');
        }
        let code = self.fields.iter().find(|(name, _)| name == "MUSTER_CODE");
        if let Some(id) = code.and_then(|(_, code)| Code::parse(code)).map(message_id) {
            self.add("MESSAGE_ID", id);
        }
        (self.message, self.fields)
    }
}

const PREFIX: &str = "MUSTER_";

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn core::fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Sent = (String, Vec<(String, String)>);

    struct Kept(Arc<Mutex<Vec<Sent>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut entry = Entry::default();
            event.record(&mut entry);
            self.0.lock().unwrap().push(entry.finish());
        }
    }

    #[test]
    fn a_refusal_carries_its_code_the_peer_and_the_id_that_leads_to_the_remedy() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&kept)));
        tracing::subscriber::with_default(subscriber, || {
            let peer = "1817d53a";
            tracing::info!(MUSTER_CODE = %Code::Revoked, MUSTER_PEER = peer, action = "sync", "refused: {}", 1);
        });
        let all = kept.lock().unwrap();
        let (message, fields) = &all[0];
        let of = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(message, "refused: 1 (code MU-1403, peer 1817d53a, action sync)");
        assert_eq!(of("MUSTER_CODE"), Some("MU-1403"));
        assert_eq!((of("MUSTER_PEER"), of("MUSTER_ACTION")), (Some("1817d53a"), Some("sync")));
        assert_eq!(of("MESSAGE_ID"), Some(message_id(Code::Revoked).as_str()));
    }

    #[test]
    fn the_catalog_has_every_code_once_under_an_id_of_its_own() {
        let catalog = catalog();
        let ids: Vec<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((ids.len(), distinct.len()), (Code::ALL.len(), Code::ALL.len()));
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
        assert!(catalog.contains(Code::Revoked.remedy()));
    }
}
