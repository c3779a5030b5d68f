//! Asking before something that cannot be undone.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use identity::Code;

use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    output::talk,
};

/// What to do when there is nobody to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// The command itself is clear enough.
    GoOn,
    /// Only `--yes` will do.
    Refuse,
}

/// Goes on after `--yes` or a "y" at the terminal.
pub(crate) fn ask(everywhere: &Everywhere, question: &str, unasked: Unasked) -> Outcome<()> {
    if everywhere.yes {
        return Ok(());
    }
    let answerable = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if everywhere.no_input || !answerable {
        return match unasked {
            Unasked::GoOn => Ok(()),
            Unasked::Refuse => Err(Failure::new(Code::NeedsYes, question)),
        };
    }
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "{question}\nGo on? [y/N] ").and_then(|()| stderr.flush());
    let mut line = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut line));
    if read.is_ok() && ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    talk("Nothing was done.");
    Err(Failure::new(Code::NeedsYes, "the answer was not yes"))
}
