//! The models of the handshake under Verifpal: every query of every model comes out as the table says.
//!
//! Verifpal is a tool that is installed and run, like a compiler; nothing links it. It searches within
//! bounds: "holds" means that it found no attack there, and is no proof.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use clap::Args;

use crate::machine::{self, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these models, by name
    models: Vec<String>,
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    model: &'a str,
    sessions: u8,
    /// Verifpal's result code: a letter for each query's kind, then 1 where an attack is found.
    code: &'a str,
}

const VERSION: &str = "1.6.7";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let table = read_table()?;
    let rows = rows(&table)?;
    if let Some(unknown) = options.models.iter().find(|name| !rows.iter().any(|row| row.model == *name)) {
        return Err(Failure::Machine(format!("no model {unknown} in {TABLE}")));
    }
    let program = install()?;
    let mut differ = Vec::new();
    println!("{:<26} {:>8}  {:<12} {:<12} {:>8}", "model", "sessions", "expected", "seen", "seconds");
    for row in
        rows.iter().filter(|row| options.models.is_empty() || options.models.iter().any(|m| m == row.model))
    {
        let began = Instant::now();
        let seen = verify(&program, row)?;
        let Row { model, sessions, code } = row;
        println!("{model:<26} {sessions:>8}  {code:<12} {seen:<12} {:>8.1}", began.elapsed().as_secs_f64());
        if seen != *code {
            differ.push(*model);
        }
    }
    match differ.is_empty() {
        true => Ok(()),
        false => Err(Failure::Found(format!("not as expected: {}", differ.join(", ")))),
    }
}

fn verify(program: &Path, row: &Row<'_>) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(["verify", "--quiet", "--result-code", "--color", "never"]);
    command.arg("--sessions").arg(row.sessions.to_string());
    command.arg(machine::root().join(DIRECTORY).join(row.model).with_extension("vp"));
    let output = command.output().map_err(|why| Failure::NotStarted("verifpal".to_owned(), why))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::Found(format!("{}: {said}", row.model)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().last().unwrap_or_default().trim().to_owned())
}

/// Where the tool lies; built there once, which takes some minutes.
fn install() -> Result<PathBuf, Failure> {
    let root = machine::target_dir().join("models/verifpal");
    let program = root.join("bin/verifpal");
    let is_there = Command::new(&program).arg("--version").output();
    if is_there.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(VERSION)) {
        return Ok(program);
    }
    let mut install = machine::cargo();
    // It declares a newer compiler than it needs.
    install.args(["install", "verifpal", "--version", VERSION, "--locked", "--ignore-rust-version", "-j1"]);
    install.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build"));
    machine::run(&mut install)?;
    Ok(program)
}

fn read_table() -> Result<String, Failure> {
    let path = machine::root().join(TABLE);
    fs::read_to_string(&path)
        .map_err(|why| Failure::Machine(format!("{} cannot be read: {why}", path.display())))
}

fn rows(table: &str) -> Result<Vec<Row<'_>>, Failure> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| row(line).ok_or_else(|| Failure::Machine(format!("{TABLE}: {line}")))).collect()
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut words = line.split_whitespace();
    let (model, sessions, code) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    words.next().is_none().then_some(Row { model, sessions, code })
}

const DIRECTORY: &str = "docs/models";
const TABLE: &str = "docs/models/expected.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_stands_in_the_table_with_a_code_for_each_query() {
        let table = read_table().unwrap();
        let rows = rows(&table).unwrap();
        let listing = fs::read_dir(machine::root().join(DIRECTORY)).unwrap();
        let mut files: Vec<String> = listing
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".vp").map(str::to_owned))
            .collect();
        files.sort();
        let mut named: Vec<&str> = rows.iter().map(|row| row.model).collect();
        named.sort_unstable();
        assert_eq!(files, named);
        for row in &rows {
            let path = machine::root().join(DIRECTORY).join(row.model).with_extension("vp");
            let model = fs::read_to_string(path).unwrap();
            assert_eq!(model.matches("? ").count(), row.code.len() / 2, "{}", row.model);
        }
    }

    #[test]
    fn what_the_page_says_was_seen_is_what_the_table_expects() {
        let table = read_table().unwrap();
        let page = fs::read_to_string(machine::root().join(DIRECTORY).join("README.md")).unwrap();
        for Row { model, sessions, code } in rows(&table).unwrap() {
            let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{model}` |"))).map(cells);
            let row = row.unwrap_or_else(|| panic!("{model} is not on the page"));
            // | model | question | sessions | expected | seen | seconds |
            assert_eq!(
                row.get(3..6).unwrap(),
                [sessions.to_string(), format!("`{code}`"), format!("`{code}`")]
            );
        }
    }
}
