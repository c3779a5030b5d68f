//! An org of machines in the lab, driven by the commands an operator types.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lab::{Daemon, Ended, Host, Lab, LabConfig, Program, Ready, Sandbox};
use serde_json::Value;

use crate::machine::{self, Failure};

/// What everything on one machine gets done in.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the demo's key files; they go with the demo.
const PASSPHRASE: &str = "correct horse battery staple";
const GATEWAY_PORT: u16 = 7443;

/// The machines and what runs on them.
pub(crate) struct Cluster {
    // Dropped first: daemons end before the machines they run on.
    running: Vec<Running>,
    lab: Lab,
    musterd: PathBuf,
}

#[derive(Default)]
struct Running {
    gateway: Option<Daemon>,
    musterd: Option<Daemon>,
}

impl Cluster {
    pub(crate) fn build(
        sandbox: &Sandbox,
        nodes: usize,
        musterd: &Path,
        keep: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let config = LabConfig { dir: keep, ..LabConfig::hosts(nodes) };
        let lab = Lab::build(sandbox, config).map_err(found)?;
        for host in lab.hosts() {
            for dir in ["etc", "run"] {
                fs::create_dir(host.dir().join(dir)).map_err(found)?;
            }
            fs::write(host.dir().join("etc/muster.toml"), settings(host)).map_err(found)?;
        }
        let running = (0..nodes).map(|_| Running::default()).collect();
        Ok(Self { running, lab, musterd: musterd.to_owned() })
    }

    pub(crate) fn nodes(&self) -> usize {
        self.running.len()
    }

    /// Machines by number, from 0.
    pub(crate) fn host(&self, node: usize) -> Result<&Host, Failure> {
        self.lab.hosts().get(node).ok_or_else(|| Failure::Found(format!("no machine {node}")))
    }

    pub(crate) fn name(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// One of our programs on a machine, with its directories.
    fn program(&self, node: usize, name: &str) -> Result<Program, Failure> {
        let host = self.host(node)?;
        let bin = machine::target_dir().join("debug");
        let program = if name == "musterd" { self.musterd.clone() } else { bin.join(name) };
        Ok(host
            .program(program)
            .env("MUSTER_CONFIG_DIR", host.dir().join("etc"))
            .env("MUSTER_STATE_DIR", host.dir().join("state"))
            .env("MUSTER_CONTROL_SOCKET", host.dir().join("run/musterd.sock"))
            .env("MUSTER_PASSPHRASE", PASSPHRASE)
            .env("XDG_CONFIG_HOME", host.dir().join("operator"))
            .env("TSS2_LOG", "all+NONE"))
    }

    /// Runs `muster`, whatever its exit status.
    pub(crate) fn muster(&self, node: usize, arguments: &[&str]) -> Result<Ended, Failure> {
        self.program(node, "muster")?.args(arguments).run(PATIENCE).map_err(found)
    }

    /// Runs `muster --json`, which must succeed, and reads its object.
    pub(crate) fn ask(&self, node: usize, arguments: &[&str]) -> Result<Value, Failure> {
        let ended =
            self.muster(node, &[&["--json", "--no-input"], arguments].concat())?.ok().map_err(found)?;
        serde_json::from_str(&ended.stdout).map_err(found)
    }

    /// The first machine founds the org and is its gateway.
    pub(crate) fn found(&mut self) -> Result<(), Failure> {
        let host = self.host(0)?;
        let gateway = format!("{}:{GATEWAY_PORT}", host.address());
        let tpm = host.tpm().map(|t| t.device().display().to_string()).unwrap_or_default();
        let arguments =
            ["org", "create", "demo", "--gateway", &gateway, "--node-name", "n1", "--tpm", &tpm, "--yes"];
        let sheet = host.dir().join("recovery-sheet.txt").display().to_string();
        let arguments = [&arguments[..], &["--recovery-sheet", &sheet]].concat();
        self.muster(0, &arguments)?.ok().map_err(found)?;
        self.start_musterd(0)?;
        self.start_gateway(0)
    }

    /// A machine joins with an invite made for it.
    pub(crate) fn join(&mut self, node: usize) -> Result<(), Failure> {
        let invite = self.muster(0, &["invite", "create", "--label", "demo"])?.ok().map_err(found)?.stdout;
        let tpm = self.host(node)?.tpm().map(|t| t.device().display().to_string()).unwrap_or_default();
        let name = Self::name(node);
        self.muster(node, &["join", invite.trim(), "--name", &name, "--tpm", &tpm, "--no-start"])?
            .ok()
            .map_err(found)?;
        self.start_musterd(node)
    }

    pub(crate) fn start_musterd(&mut self, node: usize) -> Result<(), Failure> {
        let config = self.host(node)?.dir().join("etc/muster.toml");
        let program = self.program(node, "musterd")?.arg("--config").arg(config);
        let daemon = program.spawn(&Ready::Notify, PATIENCE).map_err(found)?;
        self.slot(node)?.musterd = Some(daemon);
        Ok(())
    }

    pub(crate) fn stop_musterd(&mut self, node: usize) -> Result<(), Failure> {
        drop(self.slot(node)?.musterd.take());
        Ok(())
    }

    pub(crate) fn start_gateway(&mut self, node: usize) -> Result<(), Failure> {
        let config = self.host(node)?.dir().join("etc/muster-gateway.toml");
        let program = self.program(node, "muster-gateway")?.arg("--config").arg(config);
        let daemon = program.spawn(&Ready::Notify, PATIENCE).map_err(found)?;
        self.slot(node)?.gateway = Some(daemon);
        Ok(())
    }

    pub(crate) fn stop_gateway(&mut self, node: usize) -> Result<(), Failure> {
        drop(self.slot(node)?.gateway.take());
        Ok(())
    }

    /// A start of a machine that has joined before: preboot asks the gateway by its boot key.
    pub(crate) fn boot(&self, node: usize) -> Result<Ended, Failure> {
        let host = self.host(node)?;
        let tpm = host.tpm().map(|t| t.device().display().to_string()).unwrap_or_default();
        let program = self.program(node, "muster-preboot")?.arg("--state").arg(host.dir().join("state"));
        program.args(["--tpm", &tpm]).run(PATIENCE).map_err(found)
    }

    /// The admin's key moves to another machine.
    pub(crate) fn move_admin(&self, from: usize, to: usize) -> Result<(), Failure> {
        fs::rename(self.host(from)?.dir().join("operator"), self.host(to)?.dir().join("operator"))
            .map_err(found)
    }

    /// A machine's keys in somebody else's program.
    pub(crate) fn probe(&self, node: usize, org: &str, targets: &Value) -> Result<Daemon, Failure> {
        let host = self.host(node)?;
        let list = host.dir().join("targets.json");
        fs::write(&list, targets.to_string()).map_err(found)?;
        let tpm = host.tpm().map(|t| t.device().to_owned()).unwrap_or_default();
        self.program(node, "muster-probe")?
            .arg("--state-dir")
            .arg(host.dir().join("state"))
            .arg("--tpm")
            .arg(tpm)
            .args(["--org", org, "--targets"])
            .arg(list)
            .spawn(&Ready::AtOnce, PATIENCE)
            .map_err(found)
    }

    /// What the probe on a machine has written.
    pub(crate) fn probe_log(&self, node: usize) -> Result<String, Failure> {
        fs::read_to_string(self.host(node)?.dir().join("muster-probe.log")).map_err(found)
    }

    fn slot(&mut self, node: usize) -> Result<&mut Running, Failure> {
        self.running.get_mut(node).ok_or_else(|| Failure::Found(format!("no machine {node}")))
    }
}

/// Asks until the answer is there; a demo that waits for ever explains nothing.
pub(crate) fn wait_until<T>(
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > until {
            return Err(Failure::Found(format!("{what}: not within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn found(why: impl std::fmt::Display) -> Failure {
    Failure::Found(why.to_string())
}

fn settings(host: &Host) -> String {
    let dir = host.dir().display();
    let gateway = match host.name() == Cluster::name(0) {
        true => format!("\n[gateway]\nsocket = \"{dir}/run/gateway.sock\"\n"),
        false => String::new(),
    };
    let tpm = host.tpm().map(|t| t.device().display().to_string()).unwrap_or_default();
    format!(
        "state_dir = \"{dir}/state\"\n\n[keys]\nstorage = \"tpm\"\ntpm = \"{tpm}\"\n\n\
         [control]\nsocket = \"{dir}/run/musterd.sock\"\n{gateway}"
    )
}
