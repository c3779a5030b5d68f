//! An org of machines in the lab, driven by the programs that are shipped and the commands that an
//! operator types. Knows those only from outside: their options, their files and their JSON.

use core::fmt;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use control::{
    framing::{self, FrameError},
    local::{Answer, Request},
};
use identity::limits::CONTROL_MESSAGE_BYTES_MAX;
use serde_json::{Value, json};

use crate::{
    Daemon, Ended, Host, Lab, LabConfig, LabError, NetworkError, Program, ProgramError, Ready, Sandbox,
    SandboxError,
};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The directory of all of them.
    pub dir: PathBuf,
    /// Another musterd.
    pub musterd: Option<PathBuf>,
    /// Variables of their environment.
    pub env: Vec<(String, String)>,
}

impl Programs {
    /// Those in a directory, as cargo puts them.
    ///
    /// # Errors
    /// One is not there.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Result<Self, OrgError> {
        let programs = Self::shipped(dir)?;
        let program = programs.dir.join("muster-probe");
        if program.is_file() { Ok(programs) } else { Err(OrgError::NotBuilt { program }) }
    }

    /// Those that are shipped, as they lie where they are installed.
    ///
    /// # Errors
    /// One is not there.
    pub fn shipped(dir: impl Into<PathBuf>) -> Result<Self, OrgError> {
        let dir = dir.into();
        for name in ["muster", "musterd", "muster-gateway", "muster-preboot"] {
            if !dir.join(name).is_file() {
                return Err(OrgError::NotBuilt { program: dir.join(name) });
            }
        }
        Ok(Self { dir, musterd: None, env: Vec::new() })
    }
}

/// Machines and what runs on them. The first one founds the org and is its gateway. Machines are
/// numbered from 0 and named from `n1`.
#[derive(Debug)]
pub struct Org {
    // Dropped first: daemons end before the machines they run on.
    running: Vec<Running>,
    lab: Lab,
    programs: Programs,
}

#[derive(Debug, Default)]
struct Running {
    gateway: Option<Daemon>,
    musterd: Option<Daemon>,
    /// Other programs than the org's.
    programs: Option<PathBuf>,
}

impl Org {
    /// Builds the machines; nothing runs on them yet. `keep` is where their directories stay.
    ///
    /// # Errors
    /// The lab cannot be built.
    pub fn build(
        sandbox: &Sandbox,
        nodes: usize,
        programs: Programs,
        keep: Option<PathBuf>,
    ) -> Result<Self, OrgError> {
        Self::build_of(sandbox, programs, LabConfig { dir: keep, ..LabConfig::hosts(nodes) })
    }

    /// The same, of machines that may have no TPMs: they keep their keys in files then.
    ///
    /// # Errors
    /// The lab cannot be built.
    pub fn build_of(sandbox: &Sandbox, programs: Programs, config: LabConfig) -> Result<Self, OrgError> {
        let nodes = config.names.len();
        let lab = Lab::build(sandbox, config).map_err(OrgError::Lab)?;
        for host in lab.hosts() {
            for dir in ["etc", "run"] {
                let dir = host.dir().join(dir);
                fs::create_dir(&dir).map_err(file(&dir))?;
            }
            write_settings(host, storage(host), false)?;
        }
        let running = (0..nodes).map(|_| Running::default()).collect();
        Ok(Self { running, lab, programs })
    }

    /// The machines and the network between them.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The same, to power-cycle their TPMs.
    pub const fn lab_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// How many machines there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.running.len()
    }

    /// One machine.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn host(&self, node: usize) -> Result<&Host, OrgError> {
        self.lab.hosts().get(node).ok_or(OrgError::NoMachine(node))
    }

    /// A machine's name, also in the org.
    #[must_use]
    pub fn name(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// A machine's state directory.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn state(&self, node: usize) -> Result<PathBuf, OrgError> {
        Ok(self.host(node)?.dir().join("state"))
    }

    /// Sets where a machine keeps its keys: `tpm` or `file`.
    ///
    /// # Errors
    /// Its settings cannot be written.
    pub fn set_key_storage(&self, node: usize, storage: &str) -> Result<(), OrgError> {
        write_settings(self.host(node)?, storage, node == 0)
    }

    /// The programs in `dir` on one machine from now on, as an upgrade leaves them; what runs goes on.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn install(&mut self, node: usize, dir: &Path) -> Result<(), OrgError> {
        self.slot(node)?.programs = Some(dir.to_owned());
        Ok(())
    }

    /// One of the programs on a machine, with its directories.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn program(&self, node: usize, name: &str) -> Result<Program, OrgError> {
        let host = self.host(node)?;
        let other = self.programs.musterd.clone().filter(|_| name == "musterd");
        let own = self.running.get(node).and_then(|running| running.programs.as_ref());
        let dir = own.unwrap_or(&self.programs.dir);
        let program = host.program(other.unwrap_or_else(|| dir.join(name)));
        let program = environment(host.dir())
            .into_iter()
            .fold(program, |program, (name, value)| program.env(name, value))
            .env("TSS2_LOG", "all+NONE");
        // Operators give it to `muster`; nothing else needs it.
        let program = if name == "muster" { program.env("MUSTER_PASSPHRASE", PASSPHRASE) } else { program };
        Ok(self.programs.env.iter().fold(program, |program, (name, value)| program.env(name, value)))
    }

    /// Runs `muster`, whatever its exit status.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn muster(&self, node: usize, arguments: &[&str]) -> Result<Ended, OrgError> {
        self.program(node, "muster")?.args(arguments).run(PATIENCE).map_err(OrgError::Program)
    }

    /// Runs `muster --json`, which must succeed, and reads its object.
    ///
    /// # Errors
    /// It fails, or says something else.
    pub fn ask(&self, node: usize, arguments: &[&str]) -> Result<Value, OrgError> {
        let ended = self.muster(node, &[&["--json", "--no-input"], arguments].concat())?;
        let ended = ended.ok().map_err(OrgError::Program)?;
        serde_json::from_str(&ended.stdout).map_err(|source| OrgError::Json { text: ended.stdout, source })
    }

    /// The first machine founds the org `demo` and is its gateway.
    ///
    /// # Errors
    /// A program fails.
    pub fn found(&mut self) -> Result<(), OrgError> {
        self.found_on(0, "demo")
    }

    /// Another machine founds another org and is its gateway.
    ///
    /// # Errors
    /// A program fails.
    pub fn found_on(&mut self, node: usize, org: &str) -> Result<(), OrgError> {
        let host = self.host(node)?;
        write_settings(host, storage(host), true)?;
        let gateway = format!("{}:{GATEWAY_PORT}", host.address());
        let sheet = host.dir().join("recovery-sheet.txt").display().to_string();
        let name = Self::name(node);
        let arguments = ["org", "create", org, "--gateway", &gateway, "--node-name", &name, "--yes"];
        let arguments = [&arguments[..], &["--recovery-sheet", &sheet]].concat();
        self.muster(node, &arguments)?.ok().map_err(OrgError::Program)?;
        self.start_musterd(node)?;
        self.start_gateway(node)
    }

    /// A line that lets machines join, made on the machine that holds the admin's key.
    ///
    /// # Errors
    /// `muster invite create` fails.
    pub fn invite(&self, admin: usize, uses: u32) -> Result<String, OrgError> {
        let uses = uses.to_string();
        let made = self.muster(admin, &["invite", "create", "--label", "demo", "--uses", &uses])?;
        Ok(made.ok().map_err(OrgError::Program)?.stdout.trim().to_owned())
    }

    /// `muster join`, whatever its exit status. The line is given on standard input.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn enrol(&self, node: usize, invite: &str) -> Result<Ended, OrgError> {
        let join =
            self.program(node, "muster")?.args(["join", "-", "--no-start", "--name", &Self::name(node)]);
        join.input(invite).run(PATIENCE).map_err(OrgError::Program)
    }

    /// Waits until each of the first so many machines lists all of them, with addresses.
    ///
    /// # Errors
    /// That does not come to be in time.
    pub fn know_each_other(&self, machines: usize, limit: Duration) -> Result<(), OrgError> {
        for node in 0..machines {
            wait_for(limit, "every machine knows every other", || {
                let Answer::Members(members) = self.control(node, &Request::Members {})? else {
                    return Err(OrgError::Other { program: format!("musterd on {}", Self::name(node)) });
                };
                let known = members.iter().filter(|m| m.this || !m.endpoints.is_empty()).count();
                Ok((known == machines).then_some(()))
            })?;
        }
        Ok(())
    }

    /// A machine joins with an invite made for it, and its musterd starts.
    ///
    /// # Errors
    /// A program fails.
    pub fn join(&mut self, node: usize) -> Result<(), OrgError> {
        let invite = self.invite(0, 1)?;
        self.enrol(node, &invite)?.ok().map_err(OrgError::Program)?;
        self.start_musterd(node)
    }

    /// All other machines join with one invite, some at a time, and their musterds start.
    ///
    /// # Errors
    /// A program fails.
    pub fn join_all(&mut self) -> Result<(), OrgError> {
        self.join_first(self.nodes())
    }

    /// The same for the first so many machines.
    ///
    /// # Errors
    /// A program fails.
    pub fn join_first(&mut self, nodes: usize) -> Result<(), OrgError> {
        let invite = self.invite(0, u32::try_from(nodes).unwrap_or(u32::MAX))?;
        let next = AtomicUsize::new(1);
        let join = || -> Result<Vec<(usize, Daemon)>, OrgError> {
            let mut joined = Vec::new();
            loop {
                let node = next.fetch_add(1, Ordering::Relaxed);
                if node >= nodes {
                    return Ok(joined);
                }
                self.enrol(node, &invite)?.ok().map_err(OrgError::Program)?;
                joined.push((node, self.spawn_musterd(node)?));
            }
        };
        let joined = thread::scope(|scope| {
            let threads: Vec<_> = (0..JOINING).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for joined in joined {
            for (node, daemon) in joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))? {
                self.slot(node)?.musterd = Some(daemon);
            }
        }
        Ok(())
    }

    /// Starts a machine's musterd and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_musterd(&mut self, node: usize) -> Result<(), OrgError> {
        let daemon = self.spawn(node, "musterd", "muster.toml")?;
        self.slot(node)?.musterd = Some(daemon);
        Ok(())
    }

    /// The same, and leaves it to the caller: so that it can be killed while this org is at work.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn spawn_musterd(&self, node: usize) -> Result<Daemon, OrgError> {
        self.spawn(node, "musterd", "muster.toml")
    }

    /// A machine's musterd, out of this org's hands: to be killed, or watched.
    ///
    /// # Errors
    /// None runs.
    pub fn take_musterd(&mut self, node: usize) -> Result<Daemon, OrgError> {
        self.slot(node)?.musterd.take().ok_or(OrgError::NoMachine(node))
    }

    /// Stops a machine's musterd.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn stop_musterd(&mut self, node: usize) -> Result<(), OrgError> {
        drop(self.slot(node)?.musterd.take());
        Ok(())
    }

    /// Starts the gateway's front on a machine and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_gateway(&mut self, node: usize) -> Result<(), OrgError> {
        let daemon = self.spawn(node, "muster-gateway", "muster-gateway.toml")?;
        self.slot(node)?.gateway = Some(daemon);
        Ok(())
    }

    /// The gateway's front, out of this org's hands.
    ///
    /// # Errors
    /// None runs.
    pub fn take_gateway(&mut self, node: usize) -> Result<Daemon, OrgError> {
        self.slot(node)?.gateway.take().ok_or(OrgError::NoMachine(node))
    }

    /// Stops the gateway's front.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn stop_gateway(&mut self, node: usize) -> Result<(), OrgError> {
        drop(self.slot(node)?.gateway.take());
        Ok(())
    }

    /// A start of a machine that has joined before: preboot asks the gateway by its boot key.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn boot(&self, node: usize) -> Result<Ended, OrgError> {
        self.preboot(node)?.run(PATIENCE).map_err(OrgError::Program)
    }

    /// `muster-preboot` with this machine's settings, to be given more or run.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn preboot(&self, node: usize) -> Result<Program, OrgError> {
        let dir = self.host(node)?.dir();
        let program = self.program(node, "muster-preboot")?.arg("--state").arg(dir.join("state"));
        Ok(program.arg("--config").arg(dir.join("etc/muster.toml")))
    }

    /// The admin's key moves to another machine.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn move_admin(&self, from: usize, to: usize) -> Result<(), OrgError> {
        let (from, to) = (self.host(from)?.dir().join("operator"), self.host(to)?.dir().join("operator"));
        fs::rename(&from, &to).map_err(file(&from))
    }

    /// A machine's keys in somebody else's program, `muster-probe`, which dials each target every 10 ms.
    ///
    /// # Errors
    /// It does not start.
    pub fn probe(&self, node: usize, org: &str, targets: &Value) -> Result<Daemon, OrgError> {
        self.probe_every(10, node, org, targets)
    }

    /// The same at another pace: many machines on few cores cannot answer so often.
    ///
    /// # Errors
    /// It does not start.
    pub fn probe_every(
        &self,
        interval_ms: u64,
        node: usize,
        org: &str,
        targets: &Value,
    ) -> Result<Daemon, OrgError> {
        let thief = self.thief(node, org, targets)?.args(["--interval-ms", &interval_ms.to_string()]);
        thief.spawn(&Ready::AtOnce, PATIENCE).map_err(OrgError::Program)
    }

    /// The same, saying these frames in sessions of sync and nothing else; what came of each, once all
    /// are said.
    ///
    /// # Errors
    /// It does not start, or does not end well.
    pub fn say(
        &self,
        node: usize,
        org: &str,
        targets: &Value,
        frames: &[Vec<u8>],
    ) -> Result<Vec<Value>, OrgError> {
        let path = self.host(node)?.dir().join("frames.json");
        fs::write(&path, json!(frames).to_string()).map_err(file(&path))?;
        let thief = self.thief(node, org, targets)?.arg("--say").arg(path);
        let ended = thief.run(SAYING).and_then(Ended::ok).map_err(OrgError::Program)?;
        Ok(ended.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn thief(&self, node: usize, org: &str, targets: &Value) -> Result<Program, OrgError> {
        let host = self.host(node)?;
        let list = host.dir().join("targets.json");
        fs::write(&list, targets.to_string()).map_err(file(&list))?;
        let program = self.program(node, "muster-probe")?.arg("--state-dir").arg(host.dir().join("state"));
        Ok(program.args(["--tpm", &tpm(host), "--org", org, "--targets"]).arg(list))
    }

    /// What `muster-probe` dials: these machines, as another one lists them.
    ///
    /// # Errors
    /// A program fails, or one of them is not listed.
    pub fn targets(&self, asked: usize, nodes: &[usize]) -> Result<Value, OrgError> {
        let list = self.ask(asked, &["member", "list"])?;
        let members = list.get("members").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut targets = Vec::new();
        for &node in nodes {
            let name = Self::name(node);
            let listed = members.iter().find(|m| m.get("name").and_then(Value::as_str) == Some(&name));
            let member = listed.ok_or(OrgError::NoMachine(node))?;
            targets.push(json!({
                "name": name,
                "node": member.get("key"),
                "wireguard": member.get("wireguard_key"),
                "address": member.get("address"),
                "endpoint": format!("{}:51820", self.host(node)?.address()),
            }));
        }
        Ok(Value::Array(targets))
    }

    /// Asks a machine's musterd on its control socket, as `muster` would.
    ///
    /// # Errors
    /// It does not answer.
    pub fn control(&self, node: usize, request: &Request) -> Result<Answer, OrgError> {
        let path = self.host(node)?.dir().join(CONTROL_SOCKET);
        exchange(&path, request).map_err(|source| OrgError::File { path, source })
    }

    /// Everything a program on a machine has written since the machine is there.
    ///
    /// # Errors
    /// It never ran, or its log cannot be read.
    pub fn log(&self, node: usize, program: &str) -> Result<String, OrgError> {
        let path = self.host(node)?.dir().join(format!("{program}.log"));
        fs::read_to_string(&path).map_err(file(&path))
    }

    fn spawn(&self, node: usize, program: &str, config: &str) -> Result<Daemon, OrgError> {
        let config = self.host(node)?.dir().join("etc").join(config);
        let program = self.program(node, program)?.arg("--config").arg(config);
        program.spawn(&Ready::Notify, PATIENCE).map_err(OrgError::Program)
    }

    fn slot(&mut self, node: usize) -> Result<&mut Running, OrgError> {
        self.running.get_mut(node).ok_or(OrgError::NoMachine(node))
    }
}

/// Where programs on a machine find its settings, its state, its musterd and its operator's keys.
#[must_use]
pub fn environment(dir: &Path) -> [(&'static str, PathBuf); 4] {
    [
        ("MUSTER_CONFIG_DIR", dir.join("etc")),
        ("MUSTER_STATE_DIR", dir.join("state")),
        ("MUSTER_CONTROL_SOCKET", dir.join(CONTROL_SOCKET)),
        ("XDG_CONFIG_HOME", dir.join("operator")),
    ]
}

/// Asks until the answer is there, for as long as anything on one machine may take.
///
/// # Errors
/// Asking fails, or the answer does not come.
pub fn wait_until<T>(what: &str, ask: impl FnMut() -> Result<Option<T>, OrgError>) -> Result<T, OrgError> {
    wait_for(PATIENCE, what, ask)
}

/// The same for something that takes longer: many machines on few cores.
///
/// # Errors
/// Asking fails, or the answer does not come.
pub fn wait_for<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>, OrgError>,
) -> Result<T, OrgError> {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > until {
            return Err(OrgError::Late { what: what.to_owned(), limit });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Why an org in the lab is not as asked.
#[non_exhaustive]
pub enum OrgError {
    /// The operating system refused.
    File {
        /// The file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A program printed something else than JSON.
    Json {
        /// What it printed.
        text: String,
        /// Where it stops to be JSON.
        source: serde_json::Error,
    },
    /// The machines cannot be made.
    Lab(LabError),
    /// What was waited for did not come.
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The network refused.
    Network(NetworkError),
    /// No machine of this number, or nothing runs on it.
    NoMachine(usize),
    /// A program has not been built.
    NotBuilt {
        /// Where it would be.
        program: PathBuf,
    },
    /// A program answered something else than it was asked.
    Other {
        /// Which.
        program: String,
    },
    /// A program failed.
    Program(ProgramError),
    /// The sandbox gave no disk.
    Sandbox(SandboxError),
}

impl fmt::Display for OrgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Json { text, source } => write!(f, "not JSON: {source}: {text}"),
            Self::Lab(error) => write!(f, "{error}"),
            Self::Late { what, limit } => write!(f, "{what}: not within {} s", limit.as_secs()),
            Self::Other { program } => write!(f, "{program} gave an answer to another question"),
            Self::Network(error) => write!(f, "{error}"),
            Self::NoMachine(number) => write!(f, "no machine {number}, or nothing runs on it"),
            Self::NotBuilt { program } => write!(
                f,
                "{} is not there: cargo build -p muster -p musterd -p muster-gateway -p muster-preboot",
                program.display()
            ),
            Self::Program(error) => write!(f, "{error}"),
            Self::Sandbox(error) => write!(f, "{error}"),
        }
    }
}

/// As [`fmt::Display`]: a test that unwraps it prints this.
impl fmt::Debug for OrgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for OrgError {}

fn write_settings(host: &Host, storage: &str, is_gateway: bool) -> Result<(), OrgError> {
    let dir = host.dir().display();
    let gateway = match is_gateway {
        true => format!("\n[gateway]\nsocket = \"{dir}/run-gateway/gateway.sock\"\n"),
        false => String::new(),
    };
    let tpm = if host.tpm().is_some() { format!("tpm = \"{}\"\n", tpm(host)) } else { String::new() };
    let text = format!(
        "state_dir = \"{dir}/state\"\n\n[keys]\nstorage = \"{storage}\"\n{tpm}\n\
         [control]\nsocket = \"{dir}/{CONTROL_SOCKET}\"\n{gateway}"
    );
    let path = host.dir().join("etc/muster.toml");
    fs::write(&path, text).map_err(file(&path))
}

const fn storage(host: &Host) -> &'static str {
    if host.tpm().is_some() { "tpm" } else { "file" }
}

fn tpm(host: &Host) -> String {
    host.tpm().map(|tpm| tpm.device().display().to_string()).unwrap_or_default()
}

fn exchange(path: &Path, request: &Request) -> io::Result<Answer> {
    let invalid = |why: FrameError| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&framing::encode(request, CONTROL_MESSAGE_BYTES_MAX).map_err(invalid)?)?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut body = vec![0; framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).map_err(invalid)?];
    stream.read_exact(&mut body)?;
    framing::decode(&body).map_err(invalid)
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> OrgError {
    let path = path.to_owned();
    move |source| OrgError::File { path, source }
}

/// In a machine's directory.
const CONTROL_SOCKET: &str = "run/musterd.sock";
/// What everything on one machine gets done in.
const PATIENCE: Duration = Duration::from_secs(20);
/// For some hundred sessions, one after the other.
const SAYING: Duration = Duration::from_secs(300);
/// Joins under way at once.
const JOINING: usize = 3;
/// Of the lab's key files; they go with the lab.
pub const PASSPHRASE: &str = "correct horse battery staple";
/// Where the gateway listens on the first machine.
pub const GATEWAY_PORT: u16 = 7443;
