//! What an operator sets: flags first, then the few keys of muster.toml that concern keys and place.
//! musterd reads the whole file and is the one to refuse what it does not know.

use std::path::{Path, PathBuf};

use clap::Parser;
use identity::{Code, Name, limits::CONFIG_BYTES_MAX};
use toml::{Table, Value};

use crate::{
    failure::{Failure, Outcome},
    files,
    keys::Storage,
};

/// Makes this machine a member, or fetches what a member needs to start, before musterd runs.
#[derive(Debug, Parser)]
#[command(name = "muster-preboot", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Where keys and what is handed to musterd lie.
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY")]
    pub(crate) state: Option<PathBuf>,
    /// The invite, for the first start; - reads it from standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) invite: Option<PathBuf>,
    /// The org's CA certificates; those of the invite when not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// The configuration; /etc/muster/muster.toml if that is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// This machine's name in the org; the host's name when not given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The TPM that seals the keys.
    #[arg(long, value_name = "PATH", conflicts_with = "key_storage")]
    pub(crate) tpm: Option<PathBuf>,
    /// Keeps the keys in files instead; every member is shown that.
    #[arg(long, value_name = "file", value_parser = ["file", "tpm"])]
    pub(crate) key_storage: Option<String>,
    /// How often to try again when a failure may pass.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) attempts: u32,
    /// Writes its page of the manual to standard output, and ends.
    #[arg(long, hide = true)]
    pub(crate) manual: bool,
}

/// The settings that follow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) state: PathBuf,
    pub(crate) storage: Storage,
    pub(crate) name: Option<Name>,
}

impl Settings {
    pub(crate) fn of(arguments: &Arguments) -> Outcome<Self> {
        let table = table(arguments.config.as_deref())?;
        let keys = match table.get("keys") {
            None => None,
            Some(Value::Table(keys)) => Some(keys),
            Some(_) => return Err(bad("keys", "a section")),
        };
        let text = |table: Option<&Table>, key: &'static str| match table.and_then(|t| t.get(key)) {
            None => Ok(None),
            Some(value) => value.as_str().map(str::to_owned).map(Some).ok_or_else(|| bad(key, "text")),
        };
        let state = match &arguments.state {
            Some(state) => state.clone(),
            None => text(Some(&table), "state_dir")?.map_or_else(|| PathBuf::from(STATE), PathBuf::from),
        };
        let device = text(keys, "tpm")?.map_or_else(|| PathBuf::from(TPM), PathBuf::from);
        let configured = text(keys, "storage")?;
        let storage = match (&arguments.tpm, &arguments.key_storage) {
            (Some(device), _) => Storage::Tpm(device.clone()),
            (None, word) => match word.as_deref().or(configured.as_deref()) {
                Some("file") => Storage::File,
                Some("tpm") | None => Storage::Tpm(device),
                Some(_) => return Err(bad("keys.storage", "\"tpm\" or \"file\"")),
            },
        };
        let name = arguments.name.as_deref().map(Name::parse).transpose();
        let name = name.map_err(|why| Failure::new(Code::Usage, format_args!("--name: {why}")))?;
        Ok(Self { state, storage, name })
    }
}

fn table(path: Option<&Path>) -> Outcome<Table> {
    let unreadable = |path: &Path, why: &str| {
        Failure::new(Code::ConfigUnreadable, format_args!("{}: {why}", path.display()))
    };
    let place = path.unwrap_or_else(|| Path::new(CONFIG));
    let Some(bytes) = files::read(place, CONFIG_BYTES_MAX)? else {
        return match path {
            Some(path) => Err(unreadable(path, "not there")),
            None => Ok(Table::new()),
        };
    };
    let text = String::from_utf8(bytes).map_err(|_| unreadable(place, "not UTF-8"))?;
    text.parse().map_err(|error: toml::de::Error| unreadable(place, error.message()))
}

fn bad(key: &str, expected: &str) -> Failure {
    Failure::new(Code::ConfigBadValue, format_args!("{key} takes {expected}"))
}

const CONFIG: &str = "/etc/muster/muster.toml";
const STATE: &str = "/var/lib/muster";
const TPM: &str = "/dev/tpmrm0";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str, flags: &[&str]) -> Outcome<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("muster.toml");
        std::fs::write(&path, config).unwrap();
        let base = ["muster-preboot", "--config", path.to_str().unwrap()];
        Settings::of(&Arguments::try_parse_from(base.iter().chain(flags)).unwrap())
    }

    #[test]
    fn flags_win_over_the_configuration() {
        let config =
            "state_dir = \"/s\"\n[keys]\nstorage = \"file\"\ntpm = \"/dev/x\"\n[network]\nport = 1\n";
        let from_file = settings(config, &[]).unwrap();
        assert_eq!(from_file, Settings { state: "/s".into(), storage: Storage::File, name: None });
        let flags = settings(config, &["--state", "/t", "--tpm", "/dev/y", "--name", "web-1"]).unwrap();
        assert_eq!(flags.state, Path::new("/t"));
        assert_eq!(flags.storage, Storage::Tpm("/dev/y".into()));
        assert_eq!(
            settings(config, &["--key-storage", "tpm"]).unwrap().storage,
            Storage::Tpm("/dev/x".into())
        );
    }

    #[test]
    fn the_tpm_is_the_default_and_wrong_values_are_named() {
        assert_eq!(settings("", &[]).unwrap().storage, Storage::Tpm(TPM.into()));
        for (config, code) in [
            ("keys = 1", Code::ConfigBadValue),
            ("[keys]\nstorage = \"cloud\"", Code::ConfigBadValue),
            ("[keys]\ntpm = 7", Code::ConfigBadValue),
            ("= nonsense", Code::ConfigUnreadable),
        ] {
            assert_eq!(settings(config, &[]).unwrap_err().code, code, "{config}");
        }
        assert_eq!(settings("", &["--name", "No Name"]).unwrap_err().code, Code::Usage);
    }
}
