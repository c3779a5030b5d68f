//! `tests/vectors/conn-auth-v1.json`: byte-exact handshakes, good and bad, that a second implementation
//! (`tests/vectors/conn_auth.py`) reads as well.
//!
//! `cargo test -p conn-auth --test vectors -- --ignored` writes the file anew; the other tests hold the
//! file to this implementation and to the outcomes that the cases state.

#![cfg(test)]

mod cases;
mod format;
mod malformed;
mod spec;

use std::{collections::BTreeSet, fs, path::PathBuf};

use format::{File, Outcome};

const ABOUT: &str = "conn_auth v1, docs/spec/conn-auth.md. Written by crates/conn-auth/tests/vectors; \
     bytes are lower-case hexadecimal, a line is a string of U+0000 to U+00FF, one character a byte.";

#[test]
fn the_file_is_what_this_implementation_writes() {
    let written = generate();
    let kept = fs::read_to_string(path()).unwrap();
    let file: File = serde_json::from_str(&kept).unwrap();
    for (kept, written) in file.vectors.iter().zip(&written.vectors) {
        assert_eq!(kept, written, "{}", kept.name);
    }
    assert!(kept == to_json(&written), "the file has another form or number of vectors");
}

#[test]
fn every_vector_in_the_file_replays() {
    let file: File = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    for vector in &file.vectors {
        if let Some(dialler) = &vector.dialler {
            assert_eq!(&dialler.replay(), dialler, "{}", vector.name);
        }
        if let Some(acceptor) = &vector.acceptor {
            assert_eq!(&acceptor.replay(), acceptor, "{}", vector.name);
        }
    }
}

#[test]
fn the_file_has_every_kind_of_outcome_and_no_name_twice() {
    let file = generate();
    let names: BTreeSet<_> = file.vectors.iter().map(|vector| &vector.name).collect();
    assert_eq!(names.len(), file.vectors.len());
    assert!(names.len() >= 40, "{}", names.len());
    let outcomes: BTreeSet<String> = (file.vectors.iter())
        .flat_map(|v| [v.dialler.as_ref().map(|d| &d.outcome), v.acceptor.as_ref().map(|a| &a.outcome)])
        .flatten()
        .map(|outcome| match outcome {
            Outcome::Refused { at, error, .. } => format!("{at} {error}"),
            Outcome::Accepted { .. } | Outcome::Admitted { .. } | Outcome::Open => outcome.to_string(),
        })
        .collect();
    for wanted in [
        "accepted",
        "admitted",
        "admit refused",
        "challenge malformed",
        "challenge own-key",
        "challenge proof-wrong",
        "challenge refused",
        "challenge wrong-server",
        "hello any-needs-tls",
        "hello binding-mismatch",
        "hello malformed",
        "hello own-key",
        "proof malformed",
        "proof not-for-us",
        "proof wrong",
        "start any-needs-tls",
        "start nobody-named",
        "start own-key",
        "start too-long",
        "verdict malformed",
        "verdict refused",
    ] {
        assert!(outcomes.contains(wanted), "{wanted}");
    }
}

#[test]
#[ignore = "writes the file of vectors"]
fn write_the_file() {
    fs::write(path(), to_json(&generate())).unwrap();
}

fn generate() -> File {
    let vectors = cases::all().into_iter().chain(malformed::all()).collect();
    File { about: ABOUT.to_owned(), vectors }
}

/// One vector a line.
fn to_json(file: &File) -> String {
    let about = serde_json::to_string(&file.about).unwrap();
    let vectors: Vec<_> = file.vectors.iter().map(|v| serde_json::to_string(v).unwrap()).collect();
    format!("{{\"about\":{about},\n\"vectors\":[\n{}\n]}}\n", vectors.join(",\n"))
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/conn-auth-v1.json"))
}
