//! `bench connect`: `muster connect` beside `ssh -W` and plain TCP, to the same programs on the same machine,
//! in turn, round after round.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lab::{
    Daemon, LabConfig, Open, Program, Ready, Tpms,
    org::{Org, Programs},
    packages::Purpose,
    probe::percentile,
};
use serde_json::json;

use super::Options;
use crate::{
    demo::{self, Profile},
    machine::{self, Failure},
};

const ROUNDS: u32 = 5;
/// In one direction of one round.
const BYTES: u64 = 256 << 20;
const ECHOES: usize = 2_000;
const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// Who dials, and who is dialled.
const HERE: usize = 0;
const THERE: usize = 1;
const ECHO: u16 = 7001;
const SINK: u16 = 7002;
const SOURCE: u16 = 7003;

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let sandbox = demo::enter_with("bench connect", Profile::Release, &[Purpose::Ssh])?;
    if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim().ends_with("4294967295")) {
        let why = "sshd wants a user of its own: run bench connect as root";
        return Err(Failure::Machine(why.to_owned()));
    }
    let programs = Programs::in_dir(machine::target_dir().join("release"))?;
    let config = LabConfig { tpms: Tpms::None, ..LabConfig::hosts(2) };
    let mut org = Org::build_of(&sandbox, programs, config)?;
    org.found()?;
    org.join_all()?;
    org.know_each_other(2, PATIENCE)?;
    offer(&org)?;
    let ssh = Ssh::serve(&org).map_err(|why| Failure::Found(format!("sshd: {why}")))?;
    org.ask(HERE, &["ping", &Org::name(THERE)])?;
    let ways = [Way::Bridge, Way::Connect, Way::Ssh];
    let mut rows: Vec<(Way, Figures)> = ways.into_iter().map(|way| (way, Figures::default())).collect();
    for round in 1..=options.rounds.unwrap_or(ROUNDS) {
        eprintln!("round {round}");
        for (way, figures) in &mut rows {
            let dial = |port| way.dial(&org, &ssh, port);
            figures.measure(&dial).map_err(|why| Failure::Found(format!("{}: {why}", way.name())))?;
        }
    }
    show(&rows, options.json);
    Ok(())
}

/// Three programs on the one machine, and a policy that lets the other use them.
fn offer(org: &Org) -> Result<(), Failure> {
    let policy = org.host(HERE)?.dir().join("policy.toml");
    let text = "[[rule]]\nfrom = 'any'\nto = 'any'\naction = 'any'\n";
    fs::write(&policy, text).map_err(|why| Failure::Machine(why.to_string()))?;
    org.ask(HERE, &["policy", "apply", &policy.display().to_string(), "--yes"])?;
    let programs: [(&str, u16, Serve); 3] =
        [("echo", ECHO, echo), ("sink", SINK, sink), ("source", SOURCE, source)];
    for (name, port, serve) in programs {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = org.host(THERE)?.namespace().run(|| TcpListener::bind(at));
        let listener = listener.map_err(|why| Failure::Machine(why.to_string()))?;
        let listener = listener.map_err(|why| Failure::Machine(why.to_string()))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever leaves in the middle is missed where it is measured.
                thread::spawn(move || serve(stream).ok());
            }
        });
        org.ask(THERE, &["expose", name, "--to", &format!("127.0.0.1:{port}")])?;
    }
    Ok(())
}

/// What a program does with a connection.
type Serve = fn(TcpStream) -> io::Result<()>;

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            read => stream.write_all(bytes.get(..read).unwrap_or_default())?,
        }
    }
}

/// Says how much it heard once all is said.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let heard = io::copy(&mut stream, &mut io::sink())?;
    stream.write_all(&heard.to_be_bytes())
}

/// Talks once it is asked to.
fn source(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    io::copy(&mut io::repeat(b'x').take(BYTES), &mut stream).map(drop)
}

/// How the one machine reaches a program on the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// TCP, as if there were nobody else.
    Bridge,
    /// In the tunnel, with the handshake and the policy in front.
    Connect,
    /// Through sshd, on the bridge.
    Ssh,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "TCP on the bridge",
            Self::Connect => "muster connect",
            Self::Ssh => "ssh -W on the bridge",
        }
    }

    fn dial(self, org: &Org, ssh: &Ssh, port: u16) -> io::Result<Line> {
        let address = |why: lab::org::OrgError| io::Error::other(why.to_string());
        let at = match self {
            Self::Bridge => SocketAddr::from((org.host(THERE).map_err(address)?.address(), port)),
            Self::Connect => {
                let action = match port {
                    ECHO => "echo",
                    SINK => "sink",
                    _ => "source",
                };
                let muster = org.program(HERE, "muster").map_err(address)?;
                return Line::of(muster.args(["connect", &Org::name(THERE), action]));
            }
            Self::Ssh => return Line::of(ssh.client(port)),
        };
        let namespace = org.host(HERE).map_err(address)?.namespace();
        let stream =
            namespace.run(|| TcpStream::connect(at)).map_err(|why| io::Error::other(why.to_string()))??;
        stream.set_nodelay(true)?;
        Ok(Line::Socket(stream))
    }
}

/// Both ways of a connection.
enum Line {
    Program(Open),
    Socket(TcpStream),
}

impl Line {
    fn of(program: Program) -> io::Result<Self> {
        program.open().map(Self::Program).map_err(|why| io::Error::other(why.to_string()))
    }

    /// No more goes out.
    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Program(program) => drop(program.input.take()),
            Self::Socket(stream) => stream.shutdown(Shutdown::Write)?,
        }
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Program(program) => program.output.as_mut().map_or(Ok(0), |output| output.read(bytes)),
            Self::Socket(stream) => stream.read(bytes),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Program(program) => program
                .input
                .as_mut()
                .map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |input| input.write(bytes)),
            Self::Socket(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was seen, round by round.
#[derive(Default)]
struct Figures {
    start_ms: Vec<f64>,
    echo_us: Vec<f64>,
    echo_p99_us: Vec<f64>,
    up_mib_s: Vec<f64>,
    down_mib_s: Vec<f64>,
}

impl Figures {
    fn measure(&mut self, dial: &dyn Fn(u16) -> io::Result<Line>) -> io::Result<()> {
        for _ in 0..STARTS {
            let start = Instant::now();
            round_trip(&mut dial(ECHO)?)?;
            self.start_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let mut line = dial(ECHO)?;
        round_trip(&mut line)?;
        let mut echoes = Vec::with_capacity(ECHOES);
        for _ in 0..ECHOES {
            let start = Instant::now();
            round_trip(&mut line)?;
            echoes.push(start.elapsed().as_secs_f64() * 1e6);
        }
        self.echo_us.extend(percentile(&echoes, 50));
        self.echo_p99_us.extend(percentile(&echoes, 99));
        let mut line = dial(SINK)?;
        let start = Instant::now();
        io::copy(&mut io::repeat(b'x').take(BYTES), &mut line)?;
        line.end()?;
        let mut heard = [0; 8];
        line.read_exact(&mut heard)?;
        complete(u64::from_be_bytes(heard))?;
        self.up_mib_s.push(mib_s(start));
        let mut line = dial(SOURCE)?;
        let start = Instant::now();
        line.write_all(&[1])?;
        let mut bytes = vec![0; 64 * 1024];
        let mut heard = 0;
        while let read @ 1.. = line.read(&mut bytes)? {
            heard += read as u64;
        }
        complete(heard)?;
        self.down_mib_s.push(mib_s(start));
        Ok(())
    }
}

fn round_trip(line: &mut Line) -> io::Result<()> {
    line.write_all(&[1])?;
    line.read_exact(&mut [0])
}

fn complete(heard: u64) -> io::Result<()> {
    if heard == BYTES { Ok(()) } else { Err(io::Error::other(format!("{heard} of {BYTES} bytes came"))) }
}

fn mib_s(start: Instant) -> f64 {
    f64::from(u32::try_from(BYTES >> 20).unwrap_or(u32::MAX)) / start.elapsed().as_secs_f64()
}

/// sshd with keys of its own, on the machine that is dialled.
struct Ssh {
    dir: std::path::PathBuf,
    at: Ipv4Addr,
    _daemon: Daemon,
}

impl Ssh {
    fn serve(org: &Org) -> Result<Self, Box<dyn std::error::Error>> {
        let there = org.host(THERE).map_err(|why| why.to_string())?;
        let dir = there.dir().join("ssh");
        fs::create_dir(&dir)?;
        // Where sshd locks up the part of it that strangers talk to.
        fs::create_dir_all("/run/sshd")?;
        for key in ["host", "user"] {
            let made =
                Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
            made.run(PATIENCE)?.ok()?;
        }
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o600));
        open(&dir.join("host"))?;
        open(&dir.join("user"))?;
        let shown = dir.display();
        let config = format!(
            "ListenAddress {}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/user.pub\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n",
            there.address()
        );
        fs::write(dir.join("config"), config)?;
        // By its whole name, or it does not start itself anew for a connection.
        let sshd = there.program("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(dir.join("config"));
        let daemon = sshd.spawn(&Ready::Line("Server listening".to_owned()), PATIENCE)?;
        Ok(Self { at: there.address(), dir, _daemon: daemon })
    }

    fn client(&self, port: u16) -> Program {
        let there = format!("127.0.0.1:{port}");
        let program = Program::new("ssh").in_namespace(&Org::name(HERE)).args(["-F", "none", "-i"]);
        let program = program.arg(self.dir.join("user")).args(["-o", "StrictHostKeyChecking=no"]);
        let program = program.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        program.args(["-W", &there, &format!("root@{}", self.at)])
    }
}

fn show(rows: &[(Way, Figures)], json: bool) {
    let median = |values: &[f64]| percentile(values, 50).unwrap_or_default();
    println!("| way | first byte back, ms | echo p50, us | echo p99, us | sent, MiB/s | received, MiB/s |");
    println!("|---|---|---|---|---|---|");
    for (way, figures) in rows {
        println!(
            "| {} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} |",
            way.name(),
            median(&figures.start_ms),
            median(&figures.echo_us),
            median(&figures.echo_p99_us),
            median(&figures.up_mib_s),
            median(&figures.down_mib_s)
        );
    }
    let of = |wanted: Way| rows.iter().find(|(way, _)| *way == wanted).map(|(_, figures)| figures);
    let connect = of(Way::Connect);
    let beside = [("ssh -W", of(Way::Ssh)), ("TCP on the bridge", of(Way::Bridge))];
    let mut ratios = Vec::new();
    for (name, other) in beside {
        let (Some(connect), Some(other)) = (connect, other) else { continue };
        let ratio = |of: fn(&Figures) -> &Vec<f64>| median(of(connect)) / median(of(other));
        let (start, up, down) = (ratio(|f| &f.start_ms), ratio(|f| &f.up_mib_s), ratio(|f| &f.down_mib_s));
        let added_us = median(&connect.echo_us) - median(&other.echo_us);
        println!(
            "muster connect against {name}: sent {up:.2}, received {down:.2}, first byte {start:.2}, echo {added_us:+.0} us"
        );
        ratios.push(json!({
            "against": name, "sent": up, "received": down, "first_byte": start, "echo_added_us": added_us,
        }));
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(way, figures)| {
                json!({
                    "way": way.name(),
                    "first_byte_ms": median(&figures.start_ms),
                    "echo_us": { "p50": median(&figures.echo_us), "p99": median(&figures.echo_p99_us) },
                    "sent_mib_s": median(&figures.up_mib_s),
                    "received_mib_s": median(&figures.down_mib_s),
                })
            })
            .collect();
        println!("{}", json!({ "schema_version": 1, "bench": "connect", "rows": rows, "ratios": ratios }));
    }
}
