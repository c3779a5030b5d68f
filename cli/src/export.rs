//! `muster export` and `muster names`: the members, for programs that know nothing of muster.

use core::fmt::Write as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use control::local::{Member, MemberStatus};
use identity::Code;
use serde_json::{Map, Value, json};

use crate::{
    args::{Everywhere, Export},
    failure::{Failure, Outcome},
    files,
    output::{self, talk},
    view::View,
    yaml::to_yaml,
};

/// Runs `export`.
pub(crate) fn run(everywhere: &Everywhere, what: &Export) -> Outcome<()> {
    let listed = Listed::read(everywhere)?;
    match what {
        Export::Hosts => listed.print_hosts(everywhere),
        Export::Ansible => {
            let inventory = listed.inventory();
            output::print(everywhere.format(), inventory.clone(), || to_yaml(&inventory));
        }
        Export::SshKnownHosts { port } => {
            let (found, silent) = listed.known_hosts(*port)?;
            for name in silent {
                talk(&format!("{name} does not answer on port {port}"));
            }
            output::print(everywhere.format(), json!({ "lines": found }), || lines(&found));
        }
    }
    Ok(())
}

/// `names hosts`.
pub(crate) fn names(everywhere: &Everywhere, write: Option<&Path>) -> Outcome<()> {
    let listed = Listed::read(everywhere)?;
    let Some(path) = write else {
        listed.print_hosts(everywhere);
        return Ok(());
    };
    let old = files::read_text(path, HOSTS_BYTES_MAX)?;
    let new = with_block(&old, &listed.org, &listed.hosts()).ok_or_else(|| {
        Failure::new(Code::FileProblem, format_args!("{}: a block of ours has no end", path.display()))
    })?;
    if new != old {
        files::replace(path, files::PUBLIC, new.as_bytes())?;
    }
    talk(&format!("{} names of {} members in {}", listed.hosts().len(), listed.org, path.display()));
    Ok(())
}

/// The members in good standing, by name.
struct Listed {
    org: String,
    members: Vec<Member>,
}

impl Listed {
    fn read(everywhere: &Everywhere) -> Outcome<Self> {
        let mut view = View::open(everywhere)?;
        let mut members = view.members()?;
        members.retain(|member| member.status == MemberStatus::Good);
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { org: view.org_name()?, members })
    }

    /// Its full name. Two of one name have a part of their keys in it, as everywhere.
    fn full(&self, member: &Member) -> String {
        format!("{}.{}.{SUFFIX}", member.name, self.org)
    }

    fn hosts(&self) -> Vec<String> {
        self.members.iter().map(|m| format!("{}\t{}", m.address, self.full(m))).collect()
    }

    fn print_hosts(&self, everywhere: &Everywhere) {
        let hosts = self.members.iter().map(|m| json!({ "name": self.full(m), "address": m.address }));
        let value = json!({ "hosts": hosts.collect::<Vec<_>>() });
        output::print(everywhere.format(), value, || lines(&self.hosts()));
    }

    /// All under the org's name, and a group for each role and label.
    fn inventory(&self) -> Value {
        let mut groups: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let mut hosts = Map::new();
        for member in &self.members {
            let (roles, labels) = (member.roles.iter(), member.labels.iter());
            let tags = roles.map(|tag| format!("role_{tag}")).chain(labels.map(|tag| format!("label_{tag}")));
            for group in tags {
                groups.entry(group_name(&group)).or_default().insert(&member.name);
            }
            let host =
                json!({ "ansible_host": member.address.to_string(), "muster_key": member.node.to_string() });
            hosts.insert(member.name.clone(), host);
        }
        let mut children = Map::new();
        children.insert(group_name(&self.org), json!({ "hosts": hosts }));
        for (group, names) in groups {
            let hosts: Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
            children.insert(group, json!({ "hosts": hosts }));
        }
        json!({ "all": { "children": children } })
    }

    /// Asks every member's sshd for its keys, through tunnels that only the member itself can answer in: what
    /// comes back needs no first trust. Also who did not answer.
    fn known_hosts(&self, port: u16) -> Outcome<(Vec<String>, Vec<&str>)> {
        let failed = |why: std::io::Error| {
            Failure::new(Code::FileProblem, format_args!("ssh-keyscan: {why}"))
                .remedy("Install OpenSSH's client programs.")
        };
        let mut scan = Command::new("ssh-keyscan")
            .args(["-T", "5", "-p", &port.to_string(), "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let addresses: Vec<String> = self.members.iter().map(|member| member.address.to_string()).collect();
        if let Some(mut stdin) = scan.stdin.take() {
            stdin.write_all(lines(&addresses).as_bytes()).map_err(failed)?;
        }
        let answered = scan.wait_with_output().map_err(failed)?;
        Ok(self.named(&String::from_utf8_lossy(&answered.stdout)))
    }

    /// What ssh-keyscan says, under names as well as addresses.
    fn named(&self, scanned: &str) -> (Vec<String>, Vec<&str>) {
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for member in &self.members {
            let address = member.address.to_string();
            let before = found.len();
            for line in scanned.lines().filter(|line| !line.starts_with('#')) {
                let Some((host, key)) = line.split_once(' ') else { continue };
                let (bare, port) = match host.strip_prefix('[').and_then(|host| host.split_once("]:")) {
                    Some((bare, port)) => (bare, Some(port)),
                    None => (host, None),
                };
                if bare != address {
                    continue;
                }
                let names = [self.full(member), member.name.clone(), address.clone()];
                let names =
                    names.map(|name| port.map_or_else(|| name.clone(), |port| format!("[{name}]:{port}")));
                found.push(format!("{} {key}", names.join(",")));
            }
            if found.len() == before && !member.this {
                silent.push(member.name.as_str());
            }
        }
        (found, silent)
    }
}

/// The file with our block anew: where it was, or at the end. None if a block begins and does not end.
fn with_block(file: &str, org: &str, hosts: &[String]) -> Option<String> {
    let (begin, end) = (format!("# BEGIN muster {org}\n"), format!("# END muster {org}\n"));
    let block = format!("{begin}{}{end}", lines(hosts));
    let Some((before, rest)) = file.split_once(&begin) else {
        let gap = if file.is_empty() || file.ends_with('\n') { "" } else { "\n" };
        return Some(format!("{file}{gap}{block}"));
    };
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{block}{after}"))
}

fn lines(all: &[String]) -> String {
    all.iter().fold(String::new(), |mut out, line| {
        // Writing to a String does not fail.
        writeln!(out, "{line}").unwrap_or_default();
        out
    })
}

/// Ansible takes letters, digits and underscores.
fn group_name(tag: &str) -> String {
    tag.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The domain that is kept for private names.
const SUFFIX: &str = "internal";
const HOSTS_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_replaced_where_it_stands_and_nothing_else_is_touched() {
        let hosts = |name: &str| vec![format!("fd00::1\t{name}.home.internal")];
        let first = with_block("127.0.0.1 localhost", "home", &hosts("a")).unwrap();
        assert_eq!(
            first,
            "127.0.0.1 localhost\n# BEGIN muster home\nfd00::1\ta.home.internal\n# END muster home\n"
        );
        let other = with_block(&first, "work", &hosts("x")).unwrap() + "::1 tail\n";
        let again = with_block(&other, "home", &hosts("b")).unwrap();
        assert_eq!(again, other.replace("a.home", "b.home"));
        assert_eq!(with_block(&again, "home", &hosts("b")).unwrap(), again, "a second time changes nothing");
    }

    #[test]
    fn a_block_without_an_end_is_not_guessed_at() {
        assert_eq!(with_block("# BEGIN muster home\nfd00::1 a\n", "home", &[]), None);
    }

    #[test]
    fn groups_have_names_that_ansible_takes() {
        assert_eq!(group_name("label_eu-west.1"), "label_eu_west_1");
    }
}
