//! `muster lab`: an org to try things with, on machines that are network namespaces of this one. The bench
//! itself is the crate `lab`, the same that the tests and benchmarks are run on.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use ::lab::{
    Kept, KeptError, Presence, Sandbox, SandboxError, Tpms,
    keeper::{self, Machine, Plan, Standing},
    packages::{self, Purpose},
};
use control::local::State;
use identity::Code;
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, Lab, LabCommand, LabUp},
    failure::{Failure, Outcome},
    output::{self, Format, talk},
    program, status,
};

pub(crate) fn run(everywhere: &Everywhere, args: &Lab) -> Outcome<()> {
    let lab = Kept::at(directory(args.dir.as_deref())?);
    match &args.command {
        LabCommand::Up(up) => begin(everywhere, &lab, up),
        LabCommand::Hold(up) => hold(&lab, up),
        LabCommand::Status => show(everywhere, &lab),
        LabCommand::Exec { machine, command } => {
            let programs = program::directory(None)?;
            match lab.exec(machine, &programs, command) {
                Ok(never) => match never {},
                Err(error) => Err(failure(&lab, error)),
            }
        }
        LabCommand::Partition { machines } => {
            lab.partition(machines).map_err(|error| failure(&lab, error))?;
            show(everywhere, &lab)
        }
        LabCommand::Heal => {
            lab.heal().map_err(|error| failure(&lab, error))?;
            show(everywhere, &lab)
        }
        LabCommand::Down => {
            let presence = lab.down().map_err(|error| failure(&lab, error))?;
            let value = json!({ "dir": lab.dir(), "was_up": presence != Presence::Gone });
            output::print(everywhere.format(), value, || match presence {
                Presence::Gone => "What an earlier lab left is removed.\n".to_owned(),
                Presence::None | Presence::Up(_) => "The lab is gone, with all it had.\n".to_owned(),
            });
            Ok(())
        }
    }
}

fn begin(everywhere: &Everywhere, lab: &Kept, up: &LabUp) -> Outcome<()> {
    complete(up)?;
    let programs = program::directory(up.programs.as_deref())?;
    let nodes = up.nodes.to_string();
    let mut arguments: Vec<OsString> =
        ["lab", "hold", "--nodes", &nodes, "--dir"].map(OsString::from).to_vec();
    arguments.extend([lab.dir().into(), "--programs".into(), programs.into()]);
    arguments.extend(up.swtpm.then(|| "--swtpm".into()));
    lab.up(arguments, talk).map_err(|error| failure(lab, error))?;
    show(everywhere, lab)?;
    if everywhere.format() == Format::Table {
        talk(&next(lab, usize::from(up.nodes)));
    }
    Ok(())
}

/// What a lab needs of this machine, before anything is made.
fn complete(up: &LabUp) -> Outcome<()> {
    let tpm: &[Purpose] = if up.swtpm { &[Purpose::Tpm] } else { &[] };
    let missing = packages::missing(&[&[Purpose::Lab], tpm].concat());
    if !missing.is_empty() {
        let seen = format_args!("Debian packages are missing: {}", missing.join(" ")).to_string();
        return Err(Failure::new(Code::LabLacks, seen)
            .remedy(format_args!("As root: {}", packages::install_line(&missing))));
    }
    if !Path::new(TUN).exists() {
        return Err(Failure::new(Code::LabLacks, format_args!("{TUN} is not there"))
            .remedy("`modprobe tun`; a container is given it, as with `--device /dev/net/tun`."));
    }
    Ok(())
}

/// Inside, until `down`.
fn hold(lab: &Kept, up: &LabUp) -> Outcome<()> {
    let inside = Sandbox::if_inside().map_err(|why| failure(lab, KeptError::Sandbox(why)))?;
    let inside = inside.ok_or_else(|| Failure::usage("this is what `muster lab up` runs inside"))?;
    let plan = Plan {
        nodes: usize::from(up.nodes),
        tpms: if up.swtpm { Tpms::Each } else { Tpms::None },
        programs: program::directory(up.programs.as_deref())?,
        dir: lab.dir().to_owned(),
    };
    keeper::hold(&inside, &plan).map_err(|why| Failure::new(Code::LabFailed, why))
}

fn show(everywhere: &Everywhere, lab: &Kept) -> Outcome<()> {
    let standing = lab.standing().map_err(|error| failure(lab, error))?;
    let value = json!({
        "dir": lab.dir(),
        "groups": standing.groups,
        "machines": standing.machines.iter().map(machine).collect::<Vec<_>>(),
    });
    output::print(everywhere.format(), value, || screen(&standing));
    Ok(())
}

fn machine(machine: &Machine) -> Value {
    json!({
        "name": machine.name,
        "address": machine.address,
        "overlay_address": machine.status.as_ref().and_then(|s| s.node.as_ref()).map(|node| node.address),
        "tpm": machine.tpm,
        "health": health(machine),
        "state": machine.status.as_ref().map(|status| status::state_word(status.state)),
        "gateway": machine.status.as_ref().is_some_and(|status| status.gateway),
        "problems": machine.status.iter().flat_map(|s| &s.problems).map(|p| p.code.to_string()).collect::<Vec<_>>(),
        "connected": machine.connected,
        "refuses": machine.refuses,
    })
}

fn health(machine: &Machine) -> &'static str {
    machine.status.as_ref().map_or("down", |status| status::word(status::health(status)))
}

fn screen(standing: &Standing) -> String {
    let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(" ") };
    let row = |machine: &Machine| {
        let status = machine.status.as_ref();
        let is_told = status.is_some_and(|s| s.problems.iter().any(|p| p.code.0 == Code::Revoked));
        let what = match status.map(|status| status.state) {
            Some(_) if is_told => "revoked, it is told",
            Some(State::NotMember) => "no member any more",
            Some(State::NotEnrolled) => "no member",
            Some(_) if status.is_some_and(|status| status.gateway) => "gateway",
            Some(_) => "member",
            None => "musterd does not answer",
        };
        [
            machine.name.clone(),
            machine.address.to_string(),
            what.to_owned(),
            health(machine).to_owned(),
            list(&machine.connected),
            list(&machine.refuses),
        ]
    };
    let rows: Vec<_> = standing.machines.iter().map(row).collect();
    let groups: Vec<_> = standing.groups.iter().map(|group| group.join(" ")).collect();
    let network = match groups.as_slice() {
        [] | [_] => "network: whole".to_owned(),
        groups => format!("network: nothing passes between  {}", groups.join("  |  ")),
    };
    let table = output::columns(["MACHINE", "ADDRESS", "IS", "HEALTH", "CONNECTED WITH", "REFUSES"], &rows);
    format!("{table}{network}\n")
}

/// What one does next, to be copied.
fn next(lab: &Kept, nodes: usize) -> String {
    let elsewhere = if default_directory().is_ok_and(|default| default == lab.dir()) {
        String::new()
    } else {
        format!(" --dir {}", lab.dir().display())
    };
    let last = format!("n{nodes}");
    let lines = [
        ("exec n1 -- muster member list", "any command on a machine; n1 has the admin's key"),
        (&format!("exec {last} -- bash"), "a shell there"),
        (&format!("partition {last}"), "nothing passes between it and the others"),
        ("heal", "and everything again"),
        (&format!("exec n1 -- muster revoke {last} --yes"), "shut it out, and see who has applied it"),
        ("down", "the end"),
    ];
    let width = lines.iter().map(|(words, _)| words.len()).max().unwrap_or_default();
    let lines = lines.map(|(words, why)| format!("  muster lab{elsewhere} {words:width$}  {why}"));
    format!("\nThe lab is up and stays until `muster lab down`. Some things to try:\n{}", lines.join("\n"))
}

fn directory(given: Option<&Path>) -> Outcome<PathBuf> {
    match given {
        Some(given) => std::path::absolute(given).map_err(|error| Failure::file(given, &error)),
        None => default_directory(),
    }
}

fn default_directory() -> Outcome<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    state.map(|state| state.join("muster/lab")).ok_or_else(|| Failure::usage("no home directory: give --dir"))
}

fn failure(lab: &Kept, error: KeptError) -> Failure {
    let dir = lab.dir().display();
    match error {
        KeptError::IsUp(holder) => {
            Failure::new(Code::LabIsUp, format_args!("{dir}, held by process {}", holder.pid))
        }
        KeptError::NotUp { left: true } => Failure::new(Code::LabNotUp, format_args!("{dir}: {error}"))
            .remedy("`muster lab up` begins anew; `muster lab down` only removes what is left."),
        KeptError::NotUp { left: false } => Failure::new(Code::LabNotUp, dir),
        KeptError::NoMachine(name) => Failure::new(Code::LabNoMachine, name),
        KeptError::Place { .. } => Failure::new(Code::LabPlace, error),
        KeptError::Sandbox(SandboxError::Missing { package, .. }) => Failure::new(Code::LabLacks, &error)
            .remedy(format_args!("As root: {}", packages::install_line(&[package]))),
        KeptError::Sandbox(_) => Failure::new(Code::LabRefused, error),
        KeptError::Failed(why) => Failure::new(Code::LabFailed, why),
        KeptError::Io { .. } => Failure::new(Code::FileProblem, error),
    }
}

const TUN: &str = "/dev/net/tun";
