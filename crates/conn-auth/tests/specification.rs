//! docs/spec/conn-auth.md says what the code does: its tables and its example are held to it.

#![cfg(test)]

use conn_auth::{ACTIONS, Who};
use identity::{
    HashContext, Label,
    limits::{
        CHALLENGE_BYTES_MAX, HANDSHAKE_DEADLINE_MS, HELLO_BYTES_MAX, HELLO_DEADLINE_MS, PARAMETERS_MAX,
        PROOF_BYTES_MAX, UNPROVEN_MAX, VERDICT_BYTES_MAX,
    },
};

const TEXT: &str = include_str!("../../../docs/spec/conn-auth.md");

#[test]
fn the_table_of_actions_is_the_registry() {
    let rows: Vec<&str> = section("## Actions").lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), ACTIONS.len());
    for (row, rule) in rows.iter().zip(ACTIONS) {
        let size = match rule.frame_bytes_max {
            bytes if bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
            bytes => format!("{bytes} B"),
        };
        assert!(row.starts_with(&format!("| `{}` |", rule.name)), "{row}");
        assert!(row.ends_with(&format!("| {} | {size} |", rule.bind)), "{row}");
        assert_eq!(row.contains("unknown key"), rule.who == Who::Newcomer, "{row}");
    }
}

#[test]
fn every_context_and_label_of_the_handshake_is_listed() {
    let listed = section("### Contexts and labels");
    let contexts = HashContext::ALL.iter().map(|context| context.as_str().to_owned());
    let labels =
        Label::ALL.iter().map(|label| String::from_utf8_lossy(label.as_bytes()).replace('\n', "\\n"));
    let ours: Vec<String> = contexts.chain(labels).filter(|text| text.contains(" conn_auth v1 ")).collect();
    assert_eq!(ours.len(), 6);
    for text in ours {
        assert!(listed.contains(&format!("`{text}`")), "{text}");
    }
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let messages = section("## Messages");
    for (line, bound) in [
        ("HELLO", format!("{HELLO_BYTES_MAX}")),
        ("CHALLENGE", format!("{CHALLENGE_BYTES_MAX} (always)")),
        ("PROOF", format!("{PROOF_BYTES_MAX}")),
        ("VERDICT", format!("{VERDICT_BYTES_MAX}")),
    ] {
        assert!(messages.contains(&format!("| {line} | {bound} |")), "{line}");
    }
    let limits = section("## Limits");
    assert!(limits.contains(&format!("TLS included | {} s |", HELLO_DEADLINE_MS / 1000)));
    assert!(
        limits.contains(&format!("VERDICT sent, from TCP accept | {} s |", HANDSHAKE_DEADLINE_MS / 1000))
    );
    assert!(limits.contains(&format!("at once | {UNPROVEN_MAX};")));
    assert!(limits.contains(&format!("| parameters | {PARAMETERS_MAX} |")));
}

#[test]
fn the_example_is_the_first_vector() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/conn-auth-v1.json");
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let dialler = &file["vectors"][0]["dialler"];
    let example: Vec<&str> = section("## Example").lines().filter_map(|l| l.get(6..)).collect();
    for message in ["hello", "challenge", "proof", "verdict"] {
        let line: Vec<String> = dialler[message].as_str().unwrap().split(' ').map(cut).collect();
        assert!(example.contains(&line.join(" ").as_str()), "{line:?}");
    }
}

/// A field with a long value as the example prints it.
fn cut(field: &str) -> String {
    match field.split_once('=') {
        Some((name, value)) if value.len() > 16 => format!("{name}={}....", &value[..8]),
        Some(_) | None => field.to_owned(),
    }
}

/// From a heading to the next of its rank or a higher one.
fn section(heading: &str) -> &'static str {
    let start = TEXT.find(&format!("{heading}\n")).unwrap() + heading.len();
    let text = &TEXT[start..];
    let end = ["\n## ", "\n### "].iter().filter_map(|next| text.find(next)).min();
    &text[..end.unwrap_or(text.len())]
}
