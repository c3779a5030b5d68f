//! `muster explain`: what a code means, without asking anybody.

use core::fmt::Write as _;

use identity::Code;
use serde_json::json;

use crate::{
    failure::{Failure, Outcome},
    output::{self, Format},
};

/// Prints one code, or the list of all.
pub(crate) fn run(format: Format, code: Option<&str>) -> Outcome<()> {
    let Some(text) = code else {
        let all: Vec<_> = Code::ALL.iter().map(|&code| value(code)).collect();
        output::print(format, json!({ "codes": all }), || {
            let rows: Vec<_> = Code::ALL.iter().map(|c| [c.to_string(), c.title().to_owned()]).collect();
            output::columns(["CODE", "MEANING"], &rows)
        });
        return Ok(());
    };
    let code = read(text).ok_or_else(|| {
        Failure::usage(format_args!("{text:?} is not a code of this release"))
            .remedy("`muster explain` without a code lists all of them.")
    })?;
    output::print(format, value(code), || {
        let mut out = format!("{code} {}\n\n", code.title());
        for (head, body) in [("cause", code.cause()), ("do", code.remedy())] {
            // Writing to a String does not fail.
            writeln!(out, "{head:6} {body}").unwrap_or_default();
        }
        out
    });
    Ok(())
}

/// `MU-1403`, `mu-1403` or `1403`.
fn read(text: &str) -> Option<Code> {
    let digits =
        text.get(..3).filter(|p| p.eq_ignore_ascii_case("mu-")).and_then(|_| text.get(3..)).unwrap_or(text);
    Code::parse(&format!("MU-{digits}"))
}

fn value(code: Code) -> serde_json::Value {
    json!({
        "code": code.to_string(),
        "title": code.title(),
        "cause": code.cause(),
        "remedy": code.remedy(),
        "exit_status": code.exit_status(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_in_any_case_and_without_its_prefix() {
        for text in ["MU-1403", "mu-1403", "1403"] {
            assert_eq!(read(text), Some(Code::Revoked), "{text}");
        }
        for text in ["", "MU-", "MU-14", "MU-9999", "MU-+403", "ü-1403"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
