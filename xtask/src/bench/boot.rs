//! `bench boot`: from power-on to a member that is linked, in an emulated machine. The console says when each
//! stage ended by the machine's own clock; the host's clock says when lines came.

use std::time::Duration;

use lab::{
    images,
    org::{Org, Programs, wait_for},
    vm::{Checkpoint, Firmware, Running, SECURE_BOOT_CERTIFICATE, Vm, open_secure_boot_key},
};
use serde_json::{Value, json};

use super::Options;
use crate::{
    demo::{self, Profile},
    machine::{self, Failure},
};

const ROUNDS: u32 = 3;
/// The places of the machine that boots and of one that stays up.
const PLACE: usize = 1;
const OTHER: usize = 2;
/// What ends each stage, in the order of the console; the first time that it is there.
const STAGES: [(&str, &str); 9] = [
    ("kernel", "muster-preboot "),
    ("modules", "kernel modules loaded"),
    ("TPM: what was measured", "the TPM measured"),
    ("pins, Secure Boot, disk", "disk of this machine's state"),
    ("network", "network: "),
    ("TPM: keys", "keys open"),
    ("TLS, proof, member list", "knows this machine"),
    ("hand-over", "handed over"),
    ("node image", "is the one that was signed"),
];
/// Of preboot itself: all but the kernel.
const PREBOOT_S_WANTED: f64 = 2.0;
const READY: &str = "took over what was handed over";
/// A session with the gateway in the tunnel has compared both lists.
const LINKED: &str = "the member list is compared";

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let sandbox = demo::enter_with("bench boot", Profile::Release, &[lab::packages::Purpose::Boot])?;
    let programs = Programs::in_dir(machine::target_dir().join("release"))?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let mut org = Org::build(&sandbox, 3, programs, None)?;
    org.found()?;
    // A gateway that has lost the only other member asks around before it lets anybody in.
    org.join(OTHER)?;
    let dir = images::dir(&org)?;
    let node = dir.join("node");
    std::fs::create_dir(&node).map_err(found)?;
    let node_bytes = images::node(&org, &node, 1)?.get("bytes").cloned();
    let mut rows = Vec::new();
    for (name, firmware) in [("open", Firmware::Open), ("secure-boot", Firmware::SecureBoot)] {
        let uki = dir.join(format!("{name}.efi"));
        let key = dir.join("secure-boot.key");
        let made = match firmware {
            Firmware::Open => images::preboot(&org, &uki, &[])?,
            Firmware::SecureBoot => {
                open_secure_boot_key(&key).map_err(found)?;
                let key = key.display().to_string();
                let signed = ["--secure-boot-key", &key, "--secure-boot-cert", SECURE_BOOT_CERTIFICATE];
                images::preboot(&org, &uki, &signed)?
            }
        };
        let vm = images::machine(&org, name, &uki, &node, firmware).map_err(found)?;
        eprintln!("{name}: first boot, which enrols");
        let mut member = None;
        let first = measure(&org, &vm, &mut member)?;
        let mut boots = Vec::new();
        for round in 1..=options.rounds.unwrap_or(ROUNDS) {
            eprintln!("{name}: returning boot {round}");
            let measured = measure(&org, &vm, &mut member)?;
            eprintln!("{measured}");
            boots.push(measured);
        }
        rows.push(json!({
            "firmware": name,
            "preboot_image_bytes": made.get("bytes"),
            "node_image_bytes": node_bytes,
            "first_boot": first,
            "boots": boots,
        }));
    }
    let measured = json!({ "schema_version": 1, "bench": "boot", "load": load, "rows": rows });
    show(&measured);
    if options.json {
        println!("{measured}");
    }
    Ok(())
}

/// One boot, to a session with the gateway, in seconds. The first one says which member the machine is.
fn measure(org: &Org, vm: &Vm, member: &mut Option<String>) -> Result<Value, Failure> {
    let mut boot = vm.power_on(org.host(PLACE)?).map_err(found)?;
    // Seen as it comes: by it the machine's clock is set against the host's.
    let seen = at(&mut boot, "muster-preboot ")?;
    let taken_over = at(&mut boot, "takes over")?;
    let ready = at(&mut boot, READY)?;
    let linked = at(&mut boot, LINKED)?;
    let cpu = boot.cpu().unwrap_or_default();
    let console = boot.console();
    let returning = member.is_some();
    if let Some(short) = console.split("keys of node ").nth(1).and_then(|rest| rest.split_whitespace().next())
    {
        *member = named(&org.ask(0, &["member", "list"])?, short);
    }
    let key = member.as_deref().ok_or_else(|| found("it did not say which member it is"))?;
    let reached = reached(org, &boot, key)?;
    boot.cut_power();
    let said: Vec<Checkpoint> = console.lines().filter_map(Checkpoint::read).collect();
    let up = |text: &str| said.iter().find(|line| line.text.contains(text)).map(|line| line.up_s);
    let began = said.first().map(|line| line.up_s).ok_or_else(|| found("no checkpoint on the console"))?;
    let firmware = seen - began;
    let mut stages = vec![stage("firmware", firmware)];
    let mut before = 0.0;
    for (name, text) in STAGES {
        let end = if name == "kernel" { Some(began) } else { up(text) };
        // A first boot has others in their place.
        let Some(end) = end else { continue };
        stages.push(stage(name, end - before));
        before = end;
    }
    // From here on the machine's clock is not on the console.
    stages.push(stage("switch of the root", taken_over - firmware - before));
    stages.push(stage("musterd", ready - taken_over));
    stages.push(stage("link", linked - ready));
    if returning && stages.len() != STAGES.len() + 4 {
        return Err(found(format!("a stage is not on the console:\n{console}")));
    }
    Ok(json!({
        "stages": stages,
        "preboot_s": round(taken_over - firmware - began),
        "taken_over_s": round(taken_over),
        "ready_s": round(ready),
        "linked_s": round(linked),
        "gateway_reaches_it_s": round(reached),
        "cpu_s": round(cpu.as_secs_f64()),
    }))
}

fn at(boot: &mut Running, line: &str) -> Result<f64, Failure> {
    boot.wait_for(line, images::BOOT).map(|after| after.as_secs_f64()).map_err(found)
}

/// When the gateway has had an answer through the tunnel.
fn reached(org: &Org, boot: &Running, key: &str) -> Result<f64, Failure> {
    wait_for(Duration::from_secs(60), "the gateway reaches it", || {
        let answered = org.muster(0, &["ping", key, "--count", "1"])?;
        Ok(answered.status.success().then(|| boot.on_for().as_secs_f64()))
    })
    .map_err(Failure::from)
}

/// The member's key that begins so.
fn named(list: &Value, short: &str) -> Option<String> {
    let mut keys = list.get("members")?.as_array()?.iter().filter_map(|member| member.get("key")?.as_str());
    keys.find(|key| key.starts_with(short)).map(str::to_owned)
}

fn stage(name: &str, seconds: f64) -> Value {
    json!({ "stage": name, "s": round(seconds) })
}

fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

fn show(measured: &Value) {
    let list = |value: &Value, path: &str| {
        value.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    println!("load {}", measured.pointer("/load").map(Value::to_string).unwrap_or_default());
    for row in list(measured, "/rows") {
        let number = |path: &str| row.pointer(path).map(Value::to_string).unwrap_or_default();
        println!(
            "\n{}: preboot image {} bytes, node image {} bytes",
            number("/firmware"),
            number("/preboot_image_bytes"),
            number("/node_image_bytes")
        );
        let boots = list(&row, "/boots");
        let median = |of: &dyn Fn(&Value) -> Option<f64>| {
            let mut values: Vec<f64> = boots.iter().filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let names = boots.first().map(|boot| list(boot, "/stages")).unwrap_or_default();
        for (index, stage) in names.iter().enumerate() {
            let seconds = median(&|boot| boot.pointer(&format!("/stages/{index}/s"))?.as_f64());
            println!("{seconds:>8.2} s  {}", stage.get("stage").and_then(Value::as_str).unwrap_or_default());
        }
        let preboot = median(&|boot| boot.get("preboot_s")?.as_f64());
        let verdict = if preboot < PREBOOT_S_WANTED { "" } else { ": missed" };
        println!("{preboot:>8.2} s  preboot's own (wanted < {PREBOOT_S_WANTED:.0}{verdict})");
        for (field, what) in [
            ("taken_over_s", "power-on to the node image's start"),
            ("ready_s", "power-on to musterd"),
            ("linked_s", "power-on to linked"),
            ("cpu_s", "of a processor until then, all of the emulation"),
        ] {
            println!("{:>8.2} s  {what}", median(&|boot| boot.get(field)?.as_f64()));
        }
        println!("{:>8} s  first boot, which enrols, to linked", number("/first_boot/linked_s"));
    }
}

fn found(why: impl core::fmt::Display) -> Failure {
    Failure::Found(why.to_string())
}
