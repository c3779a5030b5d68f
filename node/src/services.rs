//! The programs of this machine that members may reach: those in its settings, and those that commands added,
//! which a file in the state directory keeps over restarts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use conn_auth::ServiceName;
use control::{local::LocalAddress, text::Text};
use identity::limits::{CONFIG_BYTES_MAX, SERVICES_MAX};
use serde::{Deserialize, Serialize};

/// Where a program is, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where it listens.
    pub to: LocalAddress,
    /// Whether a header says who the peer is.
    pub proxy_protocol: bool,
}

/// Programs by the names of their services.
pub type Offers = BTreeMap<ServiceName, Offer>;

/// All programs that are offered here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// In the settings. These win.
    pub declared: Offers,
    /// By command.
    pub kept: Offers,
}

impl Services {
    /// Where the program of this name is.
    #[must_use]
    pub fn get(&self, name: ServiceName) -> Option<&Offer> {
        self.declared.get(&name).or_else(|| self.kept.get(&name))
    }

    /// All, and whether the settings say so.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceName, &Offer, bool)> {
        let kept = self.kept.iter().filter(|(name, _)| !self.declared.contains_key(name));
        let declared = self.declared.iter().map(|(name, offer)| (*name, offer, true));
        declared.chain(kept.map(|(name, offer)| (*name, offer, false)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    action: String,
    to: Text<LocalAddress>,
    proxy_protocol: bool,
}

/// What commands added.
///
/// # Errors
/// The file cannot be read, or is not one that [`keep`] wrote.
pub fn kept(state_dir: &Path) -> io::Result<Offers> {
    let bytes = match fs::read(state_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Offers::new()),
        read => read?,
    };
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(invalid("too large".to_owned()));
    }
    let lines: Vec<Line> = serde_json::from_slice(&bytes).map_err(|why| invalid(why.to_string()))?;
    let offer = |line: Line| {
        let name = ServiceName::parse(&line.action).ok_or_else(|| invalid(line.action.clone()))?;
        Ok((name, Offer { to: line.to.0, proxy_protocol: line.proxy_protocol }))
    };
    lines.into_iter().take(SERVICES_MAX).map(offer).collect()
}

/// Writes them, whole or not at all.
///
/// # Errors
/// The disk refuses.
pub fn keep(state_dir: &Path, offers: &Offers) -> io::Result<()> {
    let line = |(name, offer): (&ServiceName, &Offer)| Line {
        action: name.to_string(),
        to: Text(offer.to.clone()),
        proxy_protocol: offer.proxy_protocol,
    };
    let lines: Vec<Line> = offers.iter().map(line).collect();
    let new = state_dir.join(format!("{FILE}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(&lines)?)?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join(FILE))?;
    File::open(state_dir)?.sync_all()
}

const FILE: &str = "services.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(names: &[(&str, &str)]) -> Offers {
        let offer = |to: &str| Offer { to: to.parse().unwrap(), proxy_protocol: false };
        names.iter().map(|(name, to)| (ServiceName::parse(name).unwrap(), offer(to))).collect()
    }

    #[test]
    fn what_commands_added_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept(dir.path()).unwrap(), Offers::new());
        let some = offers(&[("ssh", "127.0.0.1:22"), ("postgres", "unix:/run/postgresql/.s.PGSQL.5432")]);
        keep(dir.path(), &some).unwrap();
        assert_eq!(kept(dir.path()).unwrap(), some);
        fs::write(dir.path().join(FILE), r#"[{"action":"sync","to":"127.0.0.1:1","proxy_protocol":false}]"#)
            .unwrap();
        assert_eq!(
            kept(dir.path()).unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "a name of muster's own"
        );
    }

    #[test]
    fn the_settings_win_over_a_command() {
        let declared = offers(&[("ssh", "127.0.0.1:22")]);
        let services =
            Services { declared, kept: offers(&[("ssh", "127.0.0.1:2222"), ("web", "127.0.0.1:80")]) };
        let ssh = ServiceName::parse("ssh").unwrap();
        assert_eq!(services.get(ssh).unwrap().to.to_string(), "127.0.0.1:22");
        let listed: Vec<_> =
            services.iter().map(|(name, _, declared)| (name.to_string(), declared)).collect();
        assert_eq!(listed, [("ssh".to_owned(), true), ("web".to_owned(), false)]);
    }
}
