//! What the front would run with, for `muster config`: every setting, and all that is wrong at once.

use std::path::Path;

use control::settings::{Problem, Set, Survey};
use serde_json::Value as Json;
use toml::Table;

use crate::config::{self, Config, ConfigError, KEYS, MUSTERD};

/// Reads the file at `path` and the certificate and key that it names.
pub(crate) fn survey(path: &Path, credentials: Option<&Path>) -> Survey {
    let place = path.display().to_string();
    let mut survey = Survey { files: vec![place.clone()], settings: Vec::new(), problems: Vec::new() };
    let table = match config::text(path).and_then(|text| config::table(path, &text)) {
        Ok(table) => table,
        Err(why) => {
            survey.problems.push(problem(&place, &why));
            return survey;
        }
    };
    survey.settings = KEYS.iter().map(|key| set(&table, key, &place)).collect();
    match Config::of(&table) {
        Ok(config) => {
            let unusable = config.server_tls(credentials).err();
            survey.problems.extend(unusable.map(|why| problem(&place, &why)));
        }
        Err(wrong) => survey.problems.extend(wrong.iter().map(|why| problem(&place, why))),
    }
    survey
}

fn set(table: &Table, key: &str, place: &str) -> Set {
    let from_file = table.get(key).map(|value| serde_json::to_value(value).unwrap_or_default());
    let default = match key {
        "listen" => Json::from("[::]:443"),
        "musterd" => Json::from(MUSTERD),
        _ => Json::Null,
    };
    Set {
        key: key.to_owned(),
        from: from_file.is_some().then(|| place.to_owned()),
        value: from_file.unwrap_or(default),
    }
}

fn problem(place: &str, why: &ConfigError) -> Problem {
    Problem { code: why.code().into(), place: place.to_owned(), detail: format!("{place}: {why}") }
}

#[cfg(test)]
mod tests {
    use identity::Code;

    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_at_once_with_every_setting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("muster-gateway.toml");
        std::fs::write(&path, "listen = 443\ncertificate = 'c'\nkee = '/k'\n").unwrap();
        let survey = survey(&path, None);
        let said: Vec<_> = survey.problems.iter().map(|problem| problem.detail.as_str()).collect();
        assert_eq!(said.len(), 4, "{said:?}");
        for (words, detail) in
            ["kee, the nearest is key", "certificate", "key takes", "listen takes"].iter().zip(said)
        {
            assert!(
                detail.contains(words) && detail.starts_with(path.to_str().unwrap()),
                "{words}: {detail}"
            );
        }
        let musterd = survey.settings.iter().find(|set| set.key == "musterd").unwrap();
        assert_eq!((&musterd.value, &musterd.from), (&Json::from(MUSTERD), &None));
        let listen = survey.settings.iter().find(|set| set.key == "listen").unwrap();
        assert_eq!(listen.value, 443);
        assert!(listen.from.is_some());
    }

    #[test]
    fn a_certificate_that_cannot_be_served_is_found_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("muster-gateway.toml");
        std::fs::write(&path, "certificate = '/nowhere/c'\nkey = '/nowhere/k'\n").unwrap();
        let problems = survey(&path, None).problems;
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code.0, Code::ConfigUnreadable);
    }
}
