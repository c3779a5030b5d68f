//! `cargo xtask demo --boot`: two machines boot side by side, from firmware to members that talk to each other,
//! and one of them is shut out.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lab::{
    Sandbox, images,
    org::{Org, Programs, wait_for},
    vm::{self, Checkpoint, Firmware, Running, Vm},
};
use serde_json::{Value, json};

use super::{Outcome, screen::Screen};
use crate::machine::Failure;

/// For what follows a boot and is done in a second on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the consoles.
const LOOK: Duration = Duration::from_millis(100);
/// How a booted machine's musterd says that it talks to another member.
const LINK_UP: &str = "link up";
/// The ports of a and b on the bridge, both ways.
const PAIR: [(&str, &str); 2] = [("tap1", "tap2"), ("tap2", "tap1")];
/// More than a WireGuard handshake that nobody answers: what a session needs.
const DATAGRAMS: u64 = 8;

pub(crate) fn tell(sandbox: &Sandbox, programs: Programs, keep: Option<PathBuf>) -> Result<Outcome, Failure> {
    let screen = Screen::new();
    screen.step("n1 founds the org `demo` and is its gateway");
    let mut org = Org::build(sandbox, 1, programs, keep)?;
    org.found()?;
    let dir = images::dir(&org)?;
    let _addresses = vm::serve_addresses(org.lab().bridge(), &dir).map_err(found)?;

    screen
        .step("an image for each of two machines, with an invite that lets in one; one node image for both");
    let node = dir.join("node");
    std::fs::create_dir(&node).map_err(found)?;
    let made = images::node(&org, &node, 1)?;
    screen.line(&format!("node image: {}, BLAKE3 {}", size(&made), short(&made, "blake3")));
    let mut machines = Vec::new();
    for (name, number) in [("a", 1), ("b", 2)] {
        let uki = dir.join(format!("{name}.efi"));
        let image = images::preboot(&org, &uki, &[])?;
        let pcr = image.pointer("/pcr11/preboot").and_then(Value::as_str).unwrap_or_default();
        screen.line(&format!(
            "preboot image of {name}: {}, PCR 11 will be {}..",
            size(&image),
            pcr.get(..16).unwrap_or(pcr)
        ));
        let vm = images::machine(&org, name, &uki, &node, Firmware::Open).map_err(found)?;
        machines.push(Machine::new(name, number, vm));
    }

    screen.step("both are switched on: firmware, TPM, kernel, preboot, node image");
    for machine in &mut machines {
        machine.power_on(&org)?;
    }
    watch(&screen, &mut machines, "both are members and run musterd", |machine| {
        machine.said("took over what was handed over").is_some()
    })?;
    let members = wait_for(PATIENCE, "both are in the member list", || {
        let members = booted(&org)?;
        Ok((members.len() == machines.len()).then_some(members))
    })?;
    let claimed = claimed(&machines_keys(&machines), &members);
    for (machine, member) in machines.iter_mut().zip(claimed) {
        machine.member = member;
    }
    let bridge = org.lab().bridge();
    for (from, to) in PAIR {
        bridge.count(from, to).map_err(found)?;
    }
    // Each keeps in step with the other: that is said in tunnels between the two.
    let passed = wait_for(PATIENCE, "a and b talk to each other", || {
        let counts = PAIR.map(|(from, to)| bridge.counted(from, to).unwrap_or_default());
        Ok((counts.iter().all(|count| *count >= DATAGRAMS)).then_some(counts))
    });
    let linked = passed.is_ok();
    let [there, back] = passed.unwrap_or_default();
    screen
        .check(linked, &format!("a and b are linked: {there} WireGuard datagrams from a to b, {back} back"));
    for machine in &machines {
        let reached = org.muster(0, &["ping", &machine.key(), "--count", "1"])?.status.success();
        screen.check(reached, &format!("n1 reaches {} ({})", machine.name, machine.text("address")));
    }

    screen.step("an admin on n1 revokes b");
    let [a, b] = machines.as_mut_slice() else { return Err(found("two machines")) };
    let revoked = org.ask(0, &["revoke", &b.key(), "--wait", "all", "--reason", "stolen", "--yes"])?;
    let covered = revoked.pointer("/coverage/applied") == revoked.pointer("/coverage/of");
    screen.check(
        covered,
        &format!(
            "applied and stored by all: {}",
            revoked.pointer("/coverage/applied").unwrap_or(&Value::Null)
        ),
    );
    let silent = !org.muster(0, &["ping", &b.key(), "--count", "1"])?.status.success();
    screen.check(silent, "n1 does not reach b any more");
    b.cut_power();

    screen.step("b is switched on again");
    b.power_on(&org)?;
    watch(&screen, core::slice::from_mut(b), "its boot is refused", |machine| {
        machine.said("stopped after checkpoint").is_some()
    })?;
    let code =
        b.said("MU-").and_then(|line| line.split_whitespace().find(|w| w.starts_with("MU-"))).unwrap_or("-");
    let code = code.trim_end_matches(':').to_owned();
    let refused = code == "MU-1403" && b.said("takes over").is_none();
    let refused_after = b.running.as_ref().map_or(0.0, |running| running.on_for().as_secs_f64());
    screen.check(
        refused,
        &format!("b gets no node image: {code}, {refused_after:.1} s after it was switched on"),
    );
    let served = org.muster(0, &["ping", &a.key(), "--count", "1"])?.status.success();
    screen.check(served, "control: a goes on as before");

    let held = linked && covered && silent && refused && served;
    let json = json!({
        "schema_version": 1,
        "machines": [a.json(), b.json()],
        "linked_to_each_other": linked,
        "coverage": revoked.get("coverage"),
        "refused_boot": { "code": code, "after_s": round(refused_after) },
        "control_served": served,
        "elapsed_s": round(screen.elapsed_s()),
    });
    screen.step(if held { "done" } else { "it did not hold" });
    Ok(Outcome { held, json })
}

/// A machine, and how far its console has been read.
struct Machine {
    name: &'static str,
    number: u8,
    vm: Vm,
    running: Option<Running>,
    seen: Vec<String>,
    /// What the first boot said, and when.
    times: Vec<(f64, String)>,
    member: Value,
}

impl Machine {
    const fn new(name: &'static str, number: u8, vm: Vm) -> Self {
        Self { name, number, vm, running: None, seen: Vec::new(), times: Vec::new(), member: Value::Null }
    }

    fn power_on(&mut self, org: &Org) -> Result<(), Failure> {
        self.seen.clear();
        self.running = Some(self.vm.power_on_at(org.lab().bridge(), self.number).map_err(found)?);
        Ok(())
    }

    fn cut_power(&mut self) {
        if let Some(running) = self.running.take() {
            running.cut_power();
        }
    }

    /// The lines that came since the last look and are worth a person's time, with when they came.
    fn look(&mut self) -> Vec<(f64, String)> {
        let Some(running) = &self.running else { return Vec::new() };
        let after = running.on_for().as_secs_f64();
        let mut new = Vec::new();
        for line in running.console().lines().skip(self.seen.len()) {
            let worth = match Checkpoint::read(line) {
                Some(Checkpoint { number, text, .. }) => Some(format!("{number:>2}  {text}")),
                None if line.contains(LINK_UP) || line.contains("took over what") => {
                    Some(format!("    musterd: {}", plain(line)))
                }
                None if line.contains("stopped after") || line.trim_start().starts_with("MU-") => {
                    Some(format!("    {}", line.trim()))
                }
                None => None,
            };
            new.extend(worth.map(|text| (after, text)));
            self.seen.push(line.to_owned());
        }
        self.times.extend(new.iter().cloned());
        new
    }

    fn said(&self, text: &str) -> Option<&str> {
        self.seen.iter().map(String::as_str).find(|line| line.contains(text))
    }

    fn text(&self, field: &str) -> String {
        self.member.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn key(&self) -> String {
        self.text("key")
    }

    fn json(&self) -> Value {
        let times = self.times.iter().map(|(at, text)| json!({ "after_s": round(*at), "said": text.trim() }));
        json!({ "name": self.name, "member": self.text("name"), "console": times.collect::<Vec<_>>() })
    }
}

/// Shows both consoles as they go on, until every machine has come so far.
fn watch(
    screen: &Screen,
    machines: &mut [Machine],
    what: &str,
    there: impl Fn(&Machine) -> bool,
) -> Result<(), Failure> {
    let until = Instant::now() + images::BOOT;
    loop {
        for machine in machines.iter_mut() {
            let name = machine.name;
            for (after, text) in machine.look() {
                screen.line(&format!("{name} {after:>5.1} s  {text}"));
            }
        }
        if machines.iter().all(&there) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(found(format!("{what}: not within {} s", images::BOOT.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
}

/// The short keys that the machines' consoles named as their own.
fn machines_keys(machines: &[Machine]) -> Vec<String> {
    let own = |machine: &Machine| {
        let line = machine.said("keys of node ")?;
        line.split("keys of node ").nth(1)?.split_whitespace().next().map(str::to_owned)
    };
    machines.iter().map(|machine| own(machine).unwrap_or_default()).collect()
}

/// The members of these short keys, in their order.
fn claimed(keys: &[String], members: &[Value]) -> Vec<Value> {
    let of = |key: &String| {
        let is =
            |m: &&Value| m.get("key").and_then(Value::as_str).is_some_and(|k| k.starts_with(key.as_str()));
        members.iter().find(is).cloned().unwrap_or_default()
    };
    keys.iter().map(of).collect()
}

fn booted(org: &Org) -> Result<Vec<Value>, lab::org::OrgError> {
    let list = org.ask(0, &["member", "list"])?;
    let members = list.get("members").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(members.into_iter().filter(|m| m.get("this_machine") != Some(&Value::Bool(true))).collect())
}

/// A log line without its time and its colours.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut parts = line.split('\x1b');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    let words = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
    words.trim().to_owned()
}

fn size(made: &Value) -> String {
    let path = made.get("file").and_then(Value::as_str).map(Path::new);
    let bytes = path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |m| m.len());
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn short(made: &Value, field: &str) -> String {
    let text = made.get(field).and_then(Value::as_str).unwrap_or_default();
    format!("{}..", text.get(..16).unwrap_or(text))
}

fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn found(why: impl core::fmt::Display) -> Failure {
    Failure::Found(why.to_string())
}
