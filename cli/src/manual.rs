//! What is made from the definitions of the command line: pages of the manual, and completions.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use identity::Code;
use roff::{Roff, bold, roman};

use crate::{
    args::Cli,
    failure::{Failure, Outcome},
};

/// `muster completion`: to standard output.
pub(crate) fn completion(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "muster", &mut io::stdout());
}

/// `muster manual`: a page for each command, and one for the codes.
pub(crate) fn write(directory: &Path) -> Outcome<()> {
    let failed = |error: io::Error| Failure::file(directory, &error);
    fs::create_dir_all(directory).map_err(failed)?;
    // Its own template lists the five that matter; a page has the sections that pages have.
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    fs::write(directory.join("muster-codes.7"), codes()).map_err(failed)
}

fn codes() -> String {
    let mut page = Roff::default();
    page.control("TH", ["muster-codes", "7"]);
    page.control("SH", ["NAME"]);
    page.text([roman("muster-codes - every refusal and failure: what it means, and what to do")]);
    page.control("SH", ["CODES"]);
    for code in Code::ALL {
        page.control("TP", []);
        page.text([bold(format!("{code} {}", code.title()))]);
        page.text([roman(code.cause())]);
        page.control("IP", []);
        page.text([roman(code.remedy())]);
    }
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_code_its_paragraph() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let page = read(&format!("muster-{}.1", command.get_name()));
            assert!(page.contains("SYNOPSIS"), "{}", command.get_name());
        }
        let codes = read("muster-codes.7");
        for code in Code::ALL {
            let digits = code.to_string();
            let number = digits.trim_start_matches("MU-");
            assert!(codes.lines().any(|line| line.contains(number)), "{code}");
        }
    }
}
