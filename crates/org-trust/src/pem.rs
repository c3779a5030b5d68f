//! PEM (RFC 7468) as strict as a trust bundle wants it: certificates, blank lines, lines that begin
//! with `#`, and nothing else.

use crate::base64::Alphabet;

/// One block.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) contents: Vec<u8>,
}

/// The line (from 1) that cannot stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotPem {
    pub(crate) line: usize,
}

/// Whether the bytes are meant as PEM.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

pub(crate) fn read(text: &str) -> Result<Vec<Block>, NotPem> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize, String)> = None;
    let mut last = 0;
    for (at, line) in text.lines().enumerate() {
        let wrong = NotPem { line: at + 1 };
        last = at + 1;
        let line = line.trim_ascii_end();
        open = match open {
            None if line.is_empty() || line.starts_with('#') => None,
            None => Some((label(line, BEGIN).ok_or(wrong)?, at, String::new())),
            Some((begun, since, mut digits)) => {
                if line.starts_with(END) {
                    if label(line, END) != Some(begun) {
                        return Err(wrong);
                    }
                    let contents =
                        Alphabet::Pem.decode(digits.as_bytes()).map_err(|_| NotPem { line: since + 1 })?;
                    blocks.push(Block { label: begun.to_owned(), contents: contents.to_vec() });
                    None
                } else {
                    digits.push_str(line);
                    Some((begun, since, digits))
                }
            }
        };
    }
    if open.is_some() { Err(NotPem { line: last + 1 }) } else { Ok(blocks) }
}

/// A block in lines of 64 characters.
pub(crate) fn write(label: &str, contents: &[u8], out: &mut String) {
    let digits = Alphabet::Pem.encode(contents);
    out.push_str(&format!("{BEGIN}{label}{DASHES}\n"));
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at.is_multiple_of(64) {
            out.push('\n');
        }
        out.push(digit);
    }
    out.push_str(&format!("\n{END}{label}{DASHES}\n"));
}

fn label<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker)?.strip_suffix(DASHES)
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
