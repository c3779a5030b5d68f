//! JSON values as YAML 1.2. Written here because it is forty lines and the crates for it are
//! abandoned or large: block style, every doubtful text in double quotes, JSON's escapes being YAML's.

use core::fmt::Write as _;

use serde_json::Value;

/// The value as a document that ends in a newline.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            scalar(&mut out, value);
            out.push('\n');
        }
    }
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (i, (key, inner)) in map.iter().enumerate() {
                if i > 0 {
                    indent(out, depth);
                }
                text(out, key);
                out.push(':');
                nested(out, inner, depth);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                if i > 0 {
                    indent(out, depth);
                }
                out.push('-');
                if is_block(inner) {
                    out.push(' ');
                    block(out, inner, depth + 1);
                } else {
                    nested(out, inner, depth);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalar(out, value),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    if is_block(value) {
        out.push('\n');
        indent(out, depth + 1);
        block(out, value, depth + 1);
    } else {
        out.push(' ');
        scalar(out, value);
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    value.as_object().is_some_and(|m| !m.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty())
}

fn indent(out: &mut String, depth: usize) {
    out.extend(core::iter::repeat_n("  ", depth));
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(content) => text(out, content),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Plain where no YAML reader, old or new, can take it for anything else.
fn text(out: &mut String, content: &str) {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = content.starts_with(|c: char| c.is_ascii_alphabetic())
        && content.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-./".contains(&c))
        && !WORDS.contains(&content.to_ascii_lowercase().as_str());
    if plain {
        out.push_str(content);
        return;
    }
    out.push('"');
    for c in content.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ['\u{2028}', '\u{2029}', '\u{feff}'].contains(&c) => {
                // Writing to a String does not fail.
                write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_and_lists_become_blocks() {
        let value = json!({"a": 1, "b": {"c": ["x", {"d": null, "e": []}]}, "f": {}});
        assert_eq!(to_yaml(&value), "a: 1\nb:\n  c:\n    - x\n    - d: null\n      e: []\nf: {}\n");
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        for (content, wanted) in [
            ("web-1", "web-1\n"),
            ("no", "\"no\"\n"),
            ("Null", "\"Null\"\n"),
            ("12e3", "\"12e3\"\n"),
            ("", "\"\"\n"),
            ("a: b", "\"a: b\"\n"),
            ("- x", "\"- x\"\n"),
            ("two\nlines\u{7}\u{2028}", "\"two\\nlines\\u0007\\u2028\"\n"),
            ("say \"hi\" \\", "\"say \\\"hi\\\" \\\\\"\n"),
        ] {
            assert_eq!(to_yaml(&json!(content)), wanted);
        }
    }

    #[test]
    fn lists_of_lists_keep_their_shape() {
        assert_eq!(to_yaml(&json!([[1, 2], [3]])), "- - 1\n  - 2\n- - 3\n");
    }
}
