//! docs/tutorial-revocation.md, done as it stands: every console block is run, and what it shows is what came.
//!
//! A line `n3$ muster ..` is run on the third machine; each line under it must be among what comes, `..` in it
//! standing for anything and `{key}` for a word that later commands name so; `[75]` is the exit status, 0 if none
//! stands there. `{n3}` is the address of the third machine. `lab$` does what people do by hand, honest ones and
//! others: see `Lab::act`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lab::org::Org;

use crate::{harness, thief::Thief};

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

/// Whether a line is as the tutorial shows it; then the words at its `{names}`.
fn fit(shown: &str, line: &str) -> Option<Names> {
    let Some(at) = shown.find("..").into_iter().chain(shown.find('{')).min() else {
        return (shown == line).then(Names::new);
    };
    let (plain, rest) = shown.split_at(at);
    let line = line.strip_prefix(plain)?;
    if let Some(rest) = rest.strip_prefix("..") {
        return line
            .char_indices()
            .map(|(at, _)| at)
            .chain([line.len()])
            .find_map(|at| fit(rest, &line[at..]));
    }
    let (name, rest) = rest.strip_prefix('{')?.split_once('}')?;
    let (word, line) = line.split_at(line.find(' ').unwrap_or(line.len()));
    let mut names = fit(rest, line)?;
    names.insert(name.to_owned(), word.to_owned());
    Some(names)
}

/// What was done before has arrived within this.
const ARRIVES: Duration = Duration::from_secs(40);

/// What words stood where the tutorial gives them a name.
type Names = BTreeMap<String, String>;

/// The machine of a name.
fn machine(name: &str) -> usize {
    name.strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).unwrap_or_else(|| panic!("{name}")) - 1
}

/// The machines, what stands for what, and who else is at work.
struct Story {
    org: Org,
    names: Names,
    thieves: BTreeMap<String, Thief>,
}

impl Story {
    /// A command at `lab$`.
    fn act(&mut self, command: &str) {
        let command = self.filled(command);
        let org = &mut self.org;
        match *command.split_whitespace().collect::<Vec<_>>() {
            ["cut", range] => {
                let (from, to) = range.split_once("..").unwrap();
                let names: Vec<String> = (machine(from)..=machine(to)).map(Org::name).collect();
                org.lab().isolate(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            }
            ["heal"] => org.lab().bridge().heal().unwrap(),
            ["start", name] => org.start_musterd(machine(name)).unwrap(),
            ["reboot", name] => {
                let node = machine(name);
                org.stop_musterd(node).unwrap();
                org.boot(node).unwrap().ok().unwrap();
                org.start_musterd(node).unwrap();
            }
            // Its muster.toml gets the section, and musterd starts again.
            ["configure", name, "gateway"] => {
                let node = machine(name);
                harness::configure_gateway(org, node);
                org.stop_musterd(node).unwrap();
                org.start_musterd(node).unwrap();
            }
            // The certificate goes from the first machine to this one, where muster-gateway starts.
            ["serve", name, certificate] => {
                let from = org.host(0).unwrap().dir().join(certificate);
                std::fs::copy(from, org.host(machine(name)).unwrap().dir().join("etc/gateway.crt")).unwrap();
                org.start_gateway(machine(name)).unwrap();
            }
            ["steal", name, "with", invite, "for", called] => {
                let node = machine(name);
                org.stop_gateway(node).unwrap();
                org.stop_musterd(node).unwrap();
                let thief = Thief::lets_in(org, node, invite, called, 1);
                self.thieves.insert(called.to_owned(), thief);
            }
            [called, "is", "served", "everywhere"] => self.thieves[called].is_served(org),
            [called, "is", "refused", "everywhere"] => self.thieves[called].is_refused(org),
            _ => panic!("the lab cannot {command}"),
        }
    }

    fn filled(&self, command: &str) -> String {
        let fill =
            |command: String, (name, word): (&String, &String)| command.replace(&format!("{{{name}}}"), word);
        self.names.iter().fold(command.to_owned(), fill)
    }
}

/// What only looks may have to wait for what was done before to arrive.
const LOOKING: [&str; 3] = ["status", "member show", "ping"];

fn run(story: &mut Story, step: &Step<'_>) {
    let command = story.filled(step.command);
    let Some(arguments) = command.strip_prefix("muster ") else { panic!("{command} is not muster") };
    let waits = LOOKING.iter().any(|look| arguments.starts_with(look));
    let start = Instant::now();
    loop {
        match try_once(&story.org, step, arguments) {
            Ok(found) => return story.names.extend(found),
            Err(why) if !waits || start.elapsed() > ARRIVES => panic!("{}$ {command}\n{why}", step.at),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn try_once(org: &Org, step: &Step<'_>, arguments: &str) -> Result<Names, String> {
    let node = machine(step.at);
    let muster = org.program(node, "muster").unwrap().current_dir(org.host(node).unwrap().dir());
    let ended = muster.args(arguments.split_whitespace()).run(Duration::from_secs(120)).unwrap();
    let said = format!("{}{}", ended.stdout, ended.stderr);
    let mut lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    let mut names = Names::new();
    let status = |line: &&str| line.strip_prefix('[').and_then(|l| l.strip_suffix(']')?.parse::<i32>().ok());
    for shown in step.shown.iter().filter(|line| status(line).is_none() && !line.is_empty()) {
        let found = lines.iter().zip(0..).find_map(|(line, at)| Some((at, fit(shown, line)?)));
        let Some((at, found)) = found else { return Err(format!("should show\n{shown}\nand shows\n{said}")) };
        lines.remove(at);
        names.extend(found);
    }
    let expected = step.shown.iter().find_map(status).unwrap_or(0);
    match ended.status.code() {
        Some(code) if code == expected => Ok(names),
        code => Err(format!("should end with {expected} and ends with {code:?}\n{said}")),
    }
}

#[test]
fn the_tutorial_on_revocation_happens_as_it_is_written() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tutorial-revocation.md");
        let text = std::fs::read_to_string(page).unwrap();
        let steps = steps(&text);
        let (first, rest) = steps.split_first().unwrap();
        let nodes = first.command.strip_prefix("up ").and_then(|n| n.parse().ok()).unwrap();
        let machines = rest.iter().filter(|step| step.at != "lab").map(|step| machine(step.at) + 1);
        let mut org = harness::machines(sandbox, machines.max().unwrap());
        org.found().unwrap();
        org.join_first(nodes).unwrap();
        harness::know_each_other(&org, nodes);
        let address = |node| (Org::name(node), org.host(node).unwrap().address().to_string());
        let names = (0..org.nodes()).map(address).collect();
        let mut story = Story { org, names, thieves: BTreeMap::new() };
        for step in rest {
            match step.at {
                "lab" => story.act(step.command),
                _ => run(&mut story, step),
            }
        }
        assert!(steps.len() > 8, "only {} steps", steps.len());
    })
}

#[test]
fn a_line_of_the_tutorial_fits_what_it_stands_for_and_nothing_else() {
    assert!(fit("applied 6/9", "applied 6/9").is_some());
    assert!(fit("applied 6/9", "applied 6/91").is_none());
    assert!(fit("missing n7  last contact ..", "missing n7  last contact 3 s ago").is_some());
    assert!(fit("n8 .. revoked ..", "n8 af31 is revoked by admin").is_some());
    assert!(fit("n8 .. revoked", "n8 af31 is revoked by admin").is_none());
    assert_eq!(fit("{id}  ..  lost", "a7  2  revoke  lost").unwrap()["id"], "a7");
    assert!(fit("{id}  3", "a7  2").is_none());
    let steps = steps("n1$ no\n```console\nn1$ muster status\nwell\n[1]\nlab$ heal\n```\n");
    assert_eq!((steps.len(), steps[0].shown.len(), steps[1].command), (2, 2, "heal"));
}
