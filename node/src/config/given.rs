//! A value as it was written, and what it may be read as.

use std::{path::PathBuf, time::Duration};

use identity::limits;
use toml::Value;

/// Units of lengths, and which power of two each is.
pub(super) const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A value as TOML or as the text of a variable.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Toml(&'a Value),
    Text(&'a str),
}

impl<'a> Given<'a> {
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
        .filter(|text| !text.is_empty())
    }

    pub(super) fn path(self) -> Option<PathBuf> {
        self.text().map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::Toml(value) => value.as_integer().and_then(|port| u16::try_from(port).ok()),
            Self::Text(text) => text.parse().ok(),
        }
        .filter(|&port| port != 0)
    }

    pub(super) fn span(self) -> Option<Duration> {
        let text = self.text()?;
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        // More than some centuries overflow the clock.
        let span = number.parse::<u32>().ok().and_then(|number| seconds.checked_mul(number.into()))?;
        Some(Duration::from_secs(span))
    }

    /// A number of bytes, with its unit.
    pub(super) fn bytes(self) -> Option<u64> {
        let text = self.text()?;
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let (_, power) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
        number.parse::<u64>().ok()?.checked_mul(1 << power).filter(|bytes| *bytes > 0)
    }

    pub(super) fn registers(self) -> Option<Vec<[u8; 32]>> {
        let values = self.list(|item| identity::decode_hex(item.as_bytes()).ok())?;
        (values.len() <= limits::ACCEPTED_REGISTERS_MAX).then_some(values)
    }

    pub(super) fn list<T>(self, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        match self {
            Self::Toml(value) => value.as_array()?.iter().map(|item| one(item.as_str()?)).collect(),
            Self::Text(text) => {
                text.split(',').filter(|item| !item.is_empty()).map(|item| one(item.trim())).collect()
            }
        }
    }
}
