//! Reads all there is, and keeps what is wrong beside what is right: a person who checks settings wants to
//! hear of every mistake at once, and which file a value is from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use conn_auth::ServiceName;
use control::settings::{Problem, Set, Survey};
use identity::limits;
use org_trust::TrustBundle;
use serde_json::json;
use strsim::levenshtein;
use toml::{Table, Value};

use super::{
    Config, ConfigError, DEFAULT_PATH, file,
    given::Given,
    setting::{EXPOSED, SERVICE_NAME, SETTINGS},
};
use crate::services::Offer;

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    config: Config,
    /// In the order in which they were read.
    files: Vec<PathBuf>,
    /// Where each setting that is set was set last.
    from: BTreeMap<String, String>,
    problems: Vec<ConfigError>,
}

impl Reading {
    /// File, drop-ins and environment. Without `path` the default file may be missing.
    #[must_use]
    pub fn of(path: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut reading = Self::default();
        let main = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        if path.is_some() || main.exists() {
            reading.file(main);
        }
        match file::drop_ins(main) {
            Ok(files) => files.iter().for_each(|file| reading.file(file)),
            Err(problem) => reading.problems.push(problem),
        }
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort();
        for (name, value) in &environment {
            reading.variable(name, value);
        }
        reading.keep_apart();
        reading.makers();
        reading
    }

    /// One file's text; `place` names it in errors.
    pub(super) fn of_text(place: &str, text: &str) -> Self {
        let mut reading = Self::default();
        reading.text(place, text);
        reading.keep_apart();
        reading
    }

    /// The settings, if all of them are in order.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is not.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        match self.problems.into_iter().next() {
            None => Ok(self.config),
            Some(problem) => Err(problem),
        }
    }

    /// All of it, for whoever asked.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let files = self.files.iter().map(|file| file.display().to_string()).collect();
        let set = |key: String, value| Set { from: self.from.get(&key).cloned(), key, value };
        let mut settings: Vec<Set> =
            SETTINGS.iter().map(|setting| set(setting.key.to_owned(), (setting.get)(&self.config))).collect();
        for (name, offer) in &self.config.exposed {
            settings.push(set(format!("expose.{name}.to"), json!(offer.to.to_string())));
            settings.push(set(format!("expose.{name}.proxy_protocol"), json!(offer.proxy_protocol)));
        }
        let problem = |error: &ConfigError| Problem {
            code: error.code().into(),
            place: error.place().to_owned(),
            detail: error.to_string(),
        };
        Survey { files, settings, problems: self.problems.iter().map(problem).collect() }
    }

    fn file(&mut self, path: &Path) {
        let place = path.display().to_string();
        self.files.push(path.to_owned());
        match file::read(path) {
            Ok(text) => self.text(&place, &text),
            Err(why) => self.problems.push(ConfigError::Unreadable { place, why }),
        }
    }

    pub(super) fn text(&mut self, place: &str, text: &str) {
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return self.problems.push(not_toml(place, text, &error)),
        };
        for (key, value) in &table {
            match value {
                Value::Table(section) if key == "expose" => {
                    for (action, offer) in section {
                        let applied = self.exposed(place, action, offer);
                        self.problems.extend(applied.err());
                    }
                }
                Value::Table(section) => {
                    for (inner, value) in section {
                        self.apply(place, &format!("{key}.{inner}"), Given::Toml(value));
                    }
                }
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => self.apply(place, key, Given::Toml(value)),
            }
        }
    }

    fn exposed(&mut self, place: &str, action: &str, value: &Value) -> Result<(), ConfigError> {
        let bad = |key, expected| ConfigError::BadValue { place: place.to_owned(), key, expected };
        let name = ServiceName::parse(action).ok_or_else(|| bad("expose", SERVICE_NAME))?;
        let table = value.as_table().ok_or_else(|| bad("expose", EXPOSED))?;
        let (mut to, mut proxy_protocol) = (None, false);
        for (key, value) in table {
            match key.as_str() {
                "to" => to = value.as_str().and_then(|text| text.parse().ok()),
                "proxy_protocol" => {
                    proxy_protocol = value.as_bool().ok_or_else(|| bad("expose", EXPOSED))?;
                }
                other => {
                    let known =
                        [("to", "expose.ACTION.to"), ("proxy_protocol", "expose.ACTION.proxy_protocol")];
                    let nearest = known.into_iter().min_by_key(|(word, _)| levenshtein(other, word));
                    let nearest = nearest.map(|(_, key)| key).unwrap_or_default();
                    let key = format!("expose.{action}.{other}");
                    return Err(ConfigError::UnknownKey { place: place.to_owned(), key, nearest });
                }
            }
        }
        let to = to.ok_or_else(|| bad("expose", EXPOSED))?;
        for key in table.keys() {
            self.from.insert(format!("expose.{name}.{key}"), place.to_owned());
        }
        self.config.exposed.insert(name, Offer { to, proxy_protocol });
        if self.config.exposed.len() > limits::SERVICES_MAX {
            Err(bad("expose", "at most 64 services"))
        } else {
            Ok(())
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        let Some(rest) = name.strip_prefix("MUSTER_") else { return };
        let lower = rest.to_ascii_lowercase();
        let sectioned =
            SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).find_map(|(section, _)| {
                let inner = lower.strip_prefix(section)?.strip_prefix('_')?;
                Some(format!("{section}.{inner}"))
            });
        match sectioned {
            Some(key) => self.apply(name, &key, Given::Text(value)),
            None if lower == "state_dir" => self.apply(name, &lower, Given::Text(value)),
            // Passphrases and the like belong to other programs.
            None => {}
        }
    }

    fn apply(&mut self, place: &str, key: &str, given: Given<'_>) {
        let place = place.to_owned();
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let nearest = nearest(key);
            return self.problems.push(ConfigError::UnknownKey { place, key: key.to_owned(), nearest });
        };
        match (setting.set)(&mut self.config, given) {
            Some(()) => drop(self.from.insert(key.to_owned(), place)),
            None => {
                let (key, expected) = (setting.key, setting.expected);
                self.problems.push(ConfigError::BadValue { place, key, expected });
            }
        }
    }

    /// A socket belongs to the group of its directory. If both had one directory, whoever takes over the
    /// gateway's front could ask what operators ask, to leave the org among it.
    fn keep_apart(&mut self) {
        let Config { control_socket, gateway_socket, .. } = &self.config;
        let shared = |gateway: &PathBuf| gateway.parent() == control_socket.parent();
        if gateway_socket.as_ref().is_some_and(shared) {
            let key = "gateway.socket";
            let place = self.from.get(key).cloned().unwrap_or_else(|| "settings".to_owned());
            let expected = "a directory of its own, apart from the control socket's";
            self.problems.push(ConfigError::BadValue { place, key, expected });
        }
    }

    fn makers(&mut self) {
        let Some(path) = &self.config.makers else { return };
        let place = path.display().to_string();
        let bundle = file::read(path)
            .and_then(|text| TrustBundle::read(text.as_bytes()).map_err(|why| why.to_string()));
        match bundle {
            Ok(makers) => self.config.attestation.makers = Some(makers),
            Err(why) => self.problems.push(ConfigError::Unreadable { place, why }),
        }
    }
}

/// The parser's own words, with the line.
fn not_toml(place: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    let why = format!("line {line}: {}", error.message());
    ConfigError::Unreadable { place: place.to_owned(), why }
}

fn nearest(key: &str) -> &'static str {
    let known = SETTINGS.iter().map(|setting| setting.key);
    known.min_by_key(|known| levenshtein(key, known)).unwrap_or_default()
}
