//! The words in front of people.
#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::process::Command;

/// Words of the code that an operator has no use for.
const INNER: [&str; 11] = [
    "charter",
    "cut",
    "statement",
    "cosign",
    "tip",
    "standing",
    "resolve",
    "roster",
    "assurance",
    "digest",
    "generation",
];

#[test]
fn every_help_speaks_to_an_operator() {
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        for flag in ["--help", "-h"] {
            let help = help(&path, flag);
            for word in help.split(|c: char| !c.is_ascii_alphabetic()) {
                let word = word.to_ascii_lowercase();
                let plain = word.strip_suffix('s').unwrap_or(&word);
                assert!(!INNER.contains(&plain), "muster {} {flag} says {word:?}", path.join(" "));
            }
            if flag == "--help" {
                waiting
                    .extend(subcommands(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
            }
        }
        seen += 1;
    }
    assert!(seen > 15, "{seen} commands found");
}

#[test]
fn the_five_that_matter_stand_first() {
    let help = help(&[], "--help");
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text:?} is missing:\n{help}"));
    let five = ["org create NAME", "invite create", "join INVITE", "muster status", "revoke NODE"];
    assert!(five.iter().map(|text| at(text)).is_sorted());
    assert!(at("revoke NODE") < at("All commands:"));
}

fn help(path: &[String], flag: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_muster")).args(path).arg(flag).output().unwrap();
    assert!(output.status.success(), "muster {} {flag}", path.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn subcommands(help: &str) -> Vec<String> {
    let lines =
        help.lines().skip_while(|line| !line.starts_with("Commands:") && !line.starts_with("All commands:"));
    let names = lines.skip(1).take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}
