//! Data on stdout in the form that was asked for; talk on stderr.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Value, json};

use crate::{failure::Failure, yaml::to_yaml};

/// The version of every object printed here. Fields are added without raising it; none is renamed,
/// removed or given another meaning.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// In what form a command prints its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints `value`, an object, or its `table` form.
pub(crate) fn print(format: Format, value: Value, table: impl FnOnce() -> String) {
    match format {
        Format::Table => stdout(&table()),
        Format::Json => stdout(&format!("{}\n", versioned(value))),
        Format::Yaml => stdout(&to_yaml(&versioned(value))),
    }
}

/// An object with more fields.
pub(crate) fn with(value: Value, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let Value::Object(mut object) = value else { return value };
    object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

/// Prints a failure: for people on stderr, and as an object on stdout where a program reads that.
pub(crate) fn print_failure(format: Format, failure: &Failure) {
    match format {
        Format::Table => {}
        Format::Json => stdout(&format!("{}\n", versioned(failure.value()))),
        Format::Yaml => stdout(&to_yaml(&versioned(failure.value()))),
    }
    talk_raw(&failure.text());
}

/// One line to the person at the terminal.
pub(crate) fn talk(line: &str) {
    talk_raw(&format!("{line}\n"));
}

/// Whether stderr may carry colour.
pub(crate) fn colour_on_stdout() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Begins a new screen, where there is one.
pub(crate) fn clear() {
    if io::stdout().is_terminal() {
        stdout("\u{1b}[H\u{1b}[2J");
    }
}

/// Columns padded to their widest cell; two spaces between.
pub(crate) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|h| h.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = line(&widths, head.iter().copied());
    for row in rows {
        out.push_str(&line(&widths, row.iter().map(String::as_str)));
    }
    out
}

fn line<'a>(widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
    let padded: Vec<String> =
        cells.zip(widths).map(|(cell, &width)| format!("{cell:width$}", width = width)).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// The object with the version of its form in front.
pub(crate) fn versioned(value: Value) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
    if let Value::Object(fields) = value {
        object.extend(fields);
    }
    Value::Object(object)
}

/// A reader that went away (`| head`) is not our failure, and nobody is left to tell about another.
fn stdout(text: &str) {
    io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).unwrap_or_default();
}

fn talk_raw(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["web-1".to_owned(), "x".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(columns(["NAME", "K"], &rows), "NAME   K\nweb-1  x\na\n");
    }
}
