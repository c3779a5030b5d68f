//! docs/tutorial-revocation.md, done as it stands: every console block is run, and what it shows is what came.
//!
//! A line `n3$ muster ..` is run on the third machine; each line under it must be among what comes, `..` in it
//! standing for anything; `[75]` is the exit status, 0 if none stands there. `lab$` does to the network
//! and to machines what people do by hand: `up N`, `cut A..B`, `heal`.

use lab::org::Org;

use crate::harness;

struct Step<'a> {
    at: &'a str,
    command: &'a str,
    shown: Vec<&'a str>,
}

/// The steps of all console blocks.
fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.split_once("$ ") {
                Some((at, command)) if !at.contains(' ') => {
                    steps.push(Step { at, command, shown: Vec::new() });
                }
                _ => steps.last_mut().unwrap().shown.push(line),
            },
        }
    }
    steps
}

/// Whether a line is as the tutorial shows it.
fn fits(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("..");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || (open && shown.ends_with(".."))
}

/// The machine of a name.
fn machine(name: &str) -> usize {
    name.strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).unwrap_or_else(|| panic!("{name}")) - 1
}

fn do_to_lab(org: &Org, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cut", range] => {
            let (from, to) = range.split_once("..").unwrap();
            let names: Vec<String> = (machine(from)..=machine(to)).map(Org::name).collect();
            org.lab().isolate(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
        ["heal"] => org.lab().bridge().heal().unwrap(),
        _ => panic!("the lab cannot {command}"),
    }
}

fn run(org: &Org, step: &Step<'_>) {
    let words: Vec<&str> = step.command.split_whitespace().collect();
    let Some(("muster", arguments)) = words.split_first().map(|(first, rest)| (*first, rest)) else {
        panic!("{} is not muster", step.command);
    };
    let muster = org.program(machine(step.at), "muster").unwrap();
    let ended = muster.args(arguments).run(std::time::Duration::from_secs(120)).unwrap();
    let said = format!("{}{}", ended.stdout, ended.stderr);
    let mut lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    let status = |line: &&str| line.strip_prefix('[').and_then(|l| l.strip_suffix(']')?.parse::<i32>().ok());
    for shown in step.shown.iter().filter(|line| status(line).is_none() && !line.is_empty()) {
        let Some(at) = lines.iter().position(|line| fits(shown, line)) else {
            panic!("{}$ {}\nshould show\n{shown}\nand shows\n{said}", step.at, step.command);
        };
        lines.remove(at);
    }
    let expected = step.shown.iter().find_map(status).unwrap_or(0);
    assert_eq!(ended.status.code(), Some(expected), "{}$ {}\n{said}", step.at, step.command);
    eprintln!("{}$ {}\n{said}", step.at, step.command);
}

#[test]
fn the_tutorial_on_revocation_happens_as_it_is_written() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tutorial-revocation.md");
        let text = std::fs::read_to_string(page).unwrap();
        let steps = steps(&text);
        let (first, rest) = steps.split_first().unwrap();
        let nodes = first.command.strip_prefix("up ").and_then(|n| n.parse().ok()).unwrap();
        let mut org = harness::machines(sandbox, nodes);
        org.found().unwrap();
        org.join_all().unwrap();
        harness::know_each_other(&org, nodes);
        for step in rest {
            match step.at {
                "lab" => do_to_lab(&org, step.command),
                _ => run(&org, step),
            }
        }
        assert!(steps.len() > 8, "only {} steps", steps.len());
    })
}

#[test]
fn a_line_of_the_tutorial_fits_what_it_stands_for_and_nothing_else() {
    assert!(fits("applied 6/9", "applied 6/9"));
    assert!(!fits("applied 6/9", "applied 6/91"));
    assert!(fits("missing n7  last contact ..", "missing n7  last contact 3 s ago"));
    assert!(fits("n8 .. revoked ..", "n8 af31 is revoked by admin"));
    assert!(!fits("n8 .. revoked", "n8 af31 is revoked by admin"));
    let steps = steps("n1$ no\n```console\nn1$ muster status\nwell\n[1]\nlab$ heal\n```\n");
    assert_eq!((steps.len(), steps[0].shown.len(), steps[1].command), (2, 2, "heal"));
}
