//! Words: a policy as a person writes it, and the word that was meant.

use core::fmt;

use strsim::levenshtein;

use crate::{Policy, rule::Rule};

/// As in a file: parsing this gives the policy back.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, rule) in self.rules().iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "[[rule]]\nfrom = ")?;
            list(f, rule.from())?;
            f.write_str("\nto = ")?;
            list(f, rule.to())?;
            f.write_str("\naction = ")?;
            list(f, rule.actions())?;
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// On one line: who, what, to whom.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words(f, self.from())?;
        f.write_str(" may ")?;
        words(f, self.actions())?;
        f.write_str(" to ")?;
        words(f, self.to())
    }
}

/// The known word that is closest in spelling.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> &'static str {
    known.iter().copied().min_by_key(|known| levenshtein(word, known)).unwrap_or_default()
}

/// No word of the language has a character that TOML would want escaped.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (n, item) in items.iter().enumerate() {
        write!(f, "{}\"{item}\"", if n > 0 { ", " } else { "" })?;
    }
    f.write_str("]")
}

fn words<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if n > 0 { ", " } else { "" })?;
    }
    Ok(())
}
