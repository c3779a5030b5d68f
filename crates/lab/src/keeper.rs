//! A lab that stays when the command that made it has ended, from inside: builds it, says how far it is on
//! standard output, and then answers on a socket until it is told to go.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::local::{Answer as Told, MemberStatus, Request, Status};
use serde::{Deserialize, Serialize};

use crate::hosts::{Host, LabConfig, Tpms};
use crate::kept::SOCKET;
use crate::org::{Org, OrgError, Programs};
use crate::sandbox::Sandbox;

/// What is asked of a lab.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How everything is.
    Standing {},
    /// Lets nothing pass between these machines and the others.
    Partition {
        /// By name.
        machines: Vec<String>,
    },
    /// Lets everything pass.
    Heal {},
    /// Ends it all.
    Down {},
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It is done.
    Done {},
    /// It cannot be done.
    Failed(String),
    /// How everything is.
    Standing(Standing),
}

/// How a lab is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Its machines.
    pub machines: Vec<Machine>,
    /// Groups of machines between which nothing passes; one group when the network is whole.
    pub groups: Vec<Vec<String>>,
}

/// One machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// On the bridge.
    pub address: std::net::Ipv4Addr,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// What its musterd says; nothing if it does not answer.
    pub status: Option<Status>,
    /// The members that it has a session with.
    pub connected: Vec<String>,
    /// Those that it knows to be shut out.
    pub refuses: Vec<String>,
}

/// How far it is, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    Step(String),
    Ready,
    Failed(String),
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Machines.
    pub nodes: usize,
    /// Whether they have TPMs.
    pub tpms: Tpms,
    /// Where the programs are.
    pub programs: PathBuf,
    /// Where the lab is.
    pub dir: PathBuf,
}

/// Makes a lab and answers until it is told to end, or nobody hears how far it is.
///
/// # Errors
/// It cannot be made; it has been told by then.
pub fn hold(sandbox: &Sandbox, plan: &Plan) -> Result<(), OrgError> {
    let made = make(sandbox, plan).and_then(|org| Ok((org, listen(&plan.dir)?)));
    let (org, listener) = match made {
        Ok(made) => made,
        Err(why) => {
            // If nobody hears it, it stands in the log.
            say(&Said::Failed(why.to_string())).ok();
            return Err(why);
        }
    };
    say(&Said::Ready).and_then(|()| fall_silent()).map_err(|source| file(&plan.dir, source))?;
    serve(org, &listener);
    Ok(())
}

fn make(sandbox: &Sandbox, plan: &Plan) -> Result<Org, OrgError> {
    // Whoever started this has gone, if a line does not reach him; then it is not wanted.
    let step = |text: String| say(&Said::Step(text)).map_err(|source| file(&plan.dir, source));
    let programs = Programs::shipped(&plan.programs)?;
    let tpms = if plan.tpms == Tpms::Each { "a network and a TPM" } else { "a network" };
    step(format!("{} machines, each with {tpms} of its own", plan.nodes))?;
    let config = LabConfig { dir: Some(plan.dir.clone()), tpms: plan.tpms, ..LabConfig::hosts(plan.nodes) };
    let mut org = Org::build_of(sandbox, programs, config)?;
    step("n1 founds the org `lab` and is its gateway".to_owned())?;
    org.found_on(0, "lab")?;
    if plan.nodes > 1 {
        step(match plan.nodes {
            2 => "n2 joins".to_owned(),
            3 => "n2 and n3 join".to_owned(),
            nodes => format!("n2 to n{nodes} join"),
        })?;
        org.join_all()?;
    }
    step("they get to know each other".to_owned())?;
    org.know_each_other(plan.nodes, SETTLES)?;
    Ok(org)
}

fn listen(dir: &Path) -> Result<UnixListener, OrgError> {
    let path = dir.join(SOCKET);
    UnixListener::bind(&path).map_err(|source| OrgError::File { path, source })
}

/// One asker after the other: what is asked is quick.
fn serve(org: Org, listener: &UnixListener) {
    let mut apart: Vec<Vec<String>> = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let Ok(ask) = read(&stream) else { continue };
        let going = matches!(ask, Ask::Down {});
        let answer = answer(&org, &mut apart, ask).unwrap_or_else(Answer::Failed);
        let line = serde_json::to_string(&answer).unwrap_or_default();
        // Whoever left before the answer misses it.
        stream.write_all(format!("{line}\n").as_bytes()).ok();
        if going {
            return;
        }
    }
}

fn read(stream: &UnixStream) -> io::Result<Ask> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn answer(org: &Org, apart: &mut Vec<Vec<String>>, ask: Ask) -> Result<Answer, String> {
    match ask {
        Ask::Standing {} => Ok(Answer::Standing(standing(org, apart))),
        Ask::Partition { machines } => {
            if org.lab().hosts().iter().all(|host| machines.iter().any(|name| name == host.name())) {
                return Err("these are all machines: there are no others to part them from".to_owned());
            }
            let names: Vec<&str> = machines.iter().map(String::as_str).collect();
            org.lab().isolate(&names).map_err(|why| why.to_string())?;
            apart.push(machines);
            Ok(Answer::Done {})
        }
        Ask::Heal {} => {
            org.lab().bridge().heal().map_err(|why| why.to_string())?;
            apart.clear();
            Ok(Answer::Done {})
        }
        Ask::Down {} => Ok(Answer::Done {}),
    }
}

fn standing(org: &Org, apart: &[Vec<String>]) -> Standing {
    let hosts = org.lab().hosts();
    Standing {
        machines: hosts.iter().enumerate().map(|(node, host)| machine(org, node, host)).collect(),
        groups: groups(hosts.iter().map(Host::name), apart),
    }
}

fn machine(org: &Org, node: usize, host: &Host) -> Machine {
    let status = match org.control(node, &Request::Status {}) {
        Ok(Told::Status(status)) => Some(*status),
        Ok(_) | Err(_) => None,
    };
    let members = match org.control(node, &Request::Members {}) {
        Ok(Told::Members(members)) => members,
        Ok(_) | Err(_) => Vec::new(),
    };
    let sessions = match org.control(node, &Request::Sessions {}) {
        Ok(Told::Sessions(sessions)) => sessions,
        Ok(_) | Err(_) => Vec::new(),
    };
    let shut_out = members.iter().filter(|m| !m.this && m.status != MemberStatus::Good);
    Machine {
        name: host.name().to_owned(),
        address: host.address(),
        tpm: host.tpm().is_some(),
        status,
        connected: in_order(sessions.into_iter().map(|session| session.name)),
        refuses: in_order(shut_out.map(|member| member.name.clone())),
    }
}

/// Each once, `n2` before `n10`.
fn in_order(names: impl Iterator<Item = String>) -> Vec<String> {
    let names: BTreeSet<(usize, String)> = names.map(|name| (name.len(), name)).collect();
    names.into_iter().map(|(_, name)| name).collect()
}

/// Machines on the same side of every partition are in one group.
fn groups<'a>(names: impl Iterator<Item = &'a str>, apart: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut groups: Vec<(Vec<bool>, Vec<String>)> = Vec::new();
    for name in names {
        let sides: Vec<bool> = apart.iter().map(|side| side.iter().any(|n| n == name)).collect();
        match groups.iter_mut().find(|(of, _)| *of == sides) {
            Some((_, group)) => group.push(name.to_owned()),
            None => groups.push((sides, vec![name.to_owned()])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn say(said: &Said) -> io::Result<()> {
    let line = serde_json::to_string(said)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// Nobody reads standard output any more.
fn fall_silent() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?)
}

fn file(path: &Path, source: io::Error) -> OrgError {
    OrgError::File { path: path.to_owned(), source }
}

/// Many machines on few cores.
const SETTLES: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_together_that_no_partition_parts() {
        let names = || ["n1", "n2", "n3", "n4"].into_iter();
        assert_eq!(groups(names(), &[]), [["n1", "n2", "n3", "n4"]]);
        let side = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(groups(names(), &[side(&["n3", "n4"])]), [side(&["n1", "n2"]), side(&["n3", "n4"])]);
        assert_eq!(
            groups(names(), &[side(&["n3", "n4"]), side(&["n4", "n1"])]),
            [side(&["n1"]), side(&["n2"]), side(&["n3"]), side(&["n4"])]
        );
    }
}
