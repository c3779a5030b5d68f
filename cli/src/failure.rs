//! How a command ends when it does not succeed: a code, what was seen, what to do.

use std::{fmt::Display, io, path::Path};

use identity::Code;

/// What a command answers.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// One failure, in the words an operator reads.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    seen: String,
    remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, seen: impl Display) -> Self {
        Self { code, seen: seen.to_string(), remedy: None }
    }

    /// Replaces the code's own remedy where this place knows a better one.
    pub(crate) fn remedy(mut self, remedy: impl Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    pub(crate) fn usage(seen: impl Display) -> Self {
        Self::new(Code::Usage, seen)
    }

    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::new(Code::FileProblem, format_args!("{}: {error}", path.display()))
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    pub(crate) fn what_to_do(&self) -> &str {
        self.remedy.as_deref().unwrap_or_else(|| self.code.remedy())
    }

    /// The lines for a person.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {} {}\n", self.code, self.code.title());
        for line in self.seen.lines() {
            text.push_str("  seen: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("  do:   ");
        text.push_str(self.what_to_do());
        text.push('\n');
        text
    }

    /// The object for a program.
    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "code": self.code.to_string(),
            "title": self.code.title(),
            "seen": self.seen,
            "remedy": self.what_to_do(),
            "exit_status": self.code.exit_status(),
        }})
    }
}
