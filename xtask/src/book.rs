//! The documentation as a book to click through: the pages of `docs/` with an index of all codes, made by
//! mdBook, which is installed and run like a compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Where the book goes
    #[arg(long, value_name = "DIR", default_value = "target/book")]
    out: PathBuf,
}

const VERSION: &str = "0.5.4";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let program = install()?;
    let source = machine::target_dir().join("book-source");
    lay_out(&source)?;
    let mut build = Command::new(program);
    let out = machine::root().join(&options.out);
    machine::run(build.arg("build").arg(&source).arg("--dest-dir").arg(&out))?;
    println!("{}", out.join("index.html").display());
    Ok(())
}

/// The pages stay where they are; the book is made of copies, the README in front.
fn lay_out(source: &Path) -> Result<(), Failure> {
    let failed = |why: std::io::Error| Failure::Machine(format!("{}: {why}", source.display()));
    if source.exists() {
        fs::remove_dir_all(source).map_err(failed)?;
    }
    let (pages, root) = (source.join("src"), machine::root());
    fs::create_dir_all(pages.join("spec")).map_err(failed)?;
    for page in pages_of(&root.join("docs"))?.into_iter().chain(["spec".to_owned()]) {
        let from = root.join("docs").join(&page);
        let names = if from.is_dir() { pages_of(&from)? } else { vec![String::new()] };
        for name in names {
            let below = if name.is_empty() { page.clone() } else { format!("{page}/{name}") };
            fs::copy(root.join("docs").join(&below), pages.join(&below)).map_err(failed)?;
        }
    }
    let beside = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "images/README.md"];
    for page in beside {
        let text = fs::read_to_string(root.join(page)).map_err(failed)?;
        // In the book the pages of docs/ are beside these.
        let text = text
            .replace("](docs/", "](")
            .replace("](../docs/", "](")
            .replace("](images/README.md", "](images.md");
        let name = page.replace("images/README.md", "images.md");
        fs::write(pages.join(name), text).map_err(failed)?;
    }
    fs::write(pages.join("codes.md"), codes()?).map_err(failed)?;
    fs::write(pages.join("SUMMARY.md"), SUMMARY).map_err(failed)?;
    fs::write(source.join("book.toml"), BOOK).map_err(failed)
}

fn pages_of(directory: &Path) -> Result<Vec<String>, Failure> {
    let failed = |why: std::io::Error| Failure::Machine(format!("{}: {why}", directory.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Every code, from the code: what it means and what to do.
fn codes() -> Result<String, Failure> {
    let mut command = machine::cargo();
    command.args(["run", "--quiet", "--package", "muster", "--", "explain", "--json"]);
    let output = command.output().map_err(|why| Failure::NotStarted("muster".to_owned(), why))?;
    let failed = || Failure::Found("`muster explain --json` prints no list of codes".to_owned());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| failed())?;
    let mut page = String::from("# Codes\n\nAs `muster explain` has them.\n");
    for code in said.get("codes").and_then(|codes| codes.as_array()).ok_or_else(failed)? {
        let word = |name: &str| code.get(name).and_then(|word| word.as_str()).unwrap_or_default();
        let (number, title, cause, remedy) = (word("code"), word("title"), word("cause"), word("remedy"));
        let status = code.get("exit_status").and_then(|status| status.as_u64()).unwrap_or_default();
        page.push_str(&format!(
            "\n## {number} {title}\n\n{cause}\n\n*Do*: {remedy}\n\nExit status {status}.\n"
        ));
    }
    Ok(page)
}

/// Where the tool lies; built there once, which takes some minutes.
fn install() -> Result<PathBuf, Failure> {
    let root = machine::target_dir().join("mdbook");
    let program = root.join("bin/mdbook");
    let is_there = Command::new(&program).arg("--version").output();
    if is_there.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(VERSION)) {
        return Ok(program);
    }
    let mut install = machine::cargo();
    install.args(["install", "mdbook", "--version", VERSION, "--locked", "--no-default-features"]);
    install.args(["--features", "search"]);
    install.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build"));
    machine::run(&mut install)?;
    Ok(program)
}

const BOOK: &str =
    "[book]\ntitle = \"muster\"\nlanguage = \"en\"\n\n[output.html]\nno-section-label = true\n";

const SUMMARY: &str = "\
# muster

[muster](README.md)

# Begin

- [On ordinary machines](install.md)
- [A machine that boots as a member](images.md)
- [A revocation, from every side](tutorial-revocation.md)

# Operate

- [Commands](cli.md)
- [Looking after machines](operating.md)
- [Policy](policy.md)
- [Programs behind it](services.md)
- [Why a connection fails](debug-connection.md)
- [Codes](codes.md)
- [Words](glossary.md)
- [Beside other systems](comparison.md)
- [Figures](benchmarks.md)
- [Changes](CHANGELOG.md)

# How it works

- [Architecture](ARCHITECTURE.md)
- [Why it is so](design.md)
- [Threat model](threat-model.md)
- [Simulation](simulation.md)
- [conn_auth](spec/conn-auth.md)
- [Frames](spec/wire.md)
- [Records](spec/records.md)
- [Member list](spec/roster.md)
- [Comparing lists](spec/sync.md)
- [Overlay](spec/overlay.md)
- [Invites](spec/invite.md)
- [Attestation](spec/attestation.md)
- [Sealed objects](spec/sealed-objects.md)
- [Files that members keep](spec/blobs.md)
- [Images](spec/images.md)
- [Disk](spec/disk.md)
- [The gateway's socket](spec/gateway-socket.md)
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_has_every_page_once() {
        let docs = machine::root().join("docs");
        let specs = pages_of(&docs.join("spec")).unwrap();
        let pages =
            pages_of(&docs).unwrap().into_iter().chain(specs.iter().map(|page| format!("spec/{page}")));
        for page in pages {
            assert_eq!(SUMMARY.matches(&format!("({page})")).count(), 1, "{page}");
        }
    }
}
