//! The lab does what it says, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{
    Bridge, Host, Lab, LabConfig, NetworkError, Program, ProgramError, Ready, Sandbox, SandboxError, Signal,
    Tpms, Underlay,
};

#[test]
fn two_hosts_reach_each_other_until_they_are_cut_apart_and_again_when_healed() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let lab = Lab::build(sandbox, without_tpms(3)).unwrap();
        let [one, two, three] = lab.hosts() else { panic!("three hosts") };
        assert!(reaches(one, two) && reaches(two, one) && reaches(two, three));
        lab.bridge().cut(&[one.namespace()], &[two.namespace()]).unwrap();
        assert!(is_cut(one, two) && is_cut(two, one));
        assert!(reaches(one, three) && reaches(three, one), "a cut between others reached too far");
        lab.bridge().heal().unwrap();
        assert!(reaches(one, two) && reaches(two, one));

        lab.bridge().cut_one_way(&[one.namespace()], &[two.namespace()]).unwrap();
        assert!(is_cut(one, two));
        lab.bridge().heal().unwrap();

        lab.isolate(&["n3"]).unwrap();
        assert!(reaches(one, two) && is_cut(one, three) && is_cut(two, three));
        lab.bridge().heal().unwrap();

        lab.bridge().lose(100).unwrap();
        assert!(is_cut(one, two));
        lab.bridge().lose(0).unwrap();
        assert!(reaches(one, two));
        assert!(matches!(lab.bridge().lose(101), Err(NetworkError::Percent(101))));
    })
}

#[test]
fn hosts_reach_each_other_by_both_families_and_the_lab_reaches_them() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let lab = Lab::build(sandbox, without_tpms(2)).unwrap();
        let [one, two] = lab.hosts() else { panic!("two hosts") };
        let address = (two.address6().unwrap(), 0).into();
        let receiver = two.namespace().run(|| UdpSocket::bind::<SocketAddr>(address).unwrap()).unwrap();
        let sender = one.namespace().run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
        assert!(passes(&sender, &receiver));
        let receiver = two.namespace().run(|| UdpSocket::bind((two.address(), 0)).unwrap()).unwrap();
        assert!(passes(&UdpSocket::bind((Bridge::ADDRESS, 0)).unwrap(), &receiver));
    })
}

#[test]
fn a_program_runs_in_its_hosts_network_and_each_host_has_its_own_tpm() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let lab = Lab::build(sandbox, LabConfig::hosts(2)).unwrap();
        for host in lab.hosts() {
            let ended = host.program("ip").args(["-o", "addr"]).run(SOON).unwrap().ok().unwrap();
            assert!(ended.stdout.contains(&host.address().to_string()), "{}", ended.stdout);
            assert!(host.tpm().unwrap().device().exists());
        }
        let devices: Vec<_> = lab.hosts().iter().map(|host| host.tpm().unwrap().device()).collect();
        assert_ne!(devices[0], devices[1]);
        let failed = lab.hosts()[0].program("false").run(SOON).unwrap();
        assert!(failed.ok().is_err());
        assert!(lab.host("n2").is_some() && lab.host("n3").is_none());
    })
}

#[test]
fn dropping_the_lab_leaves_nothing() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        for _ in 0..2 {
            let lab = Lab::build(sandbox, LabConfig::hosts(3)).unwrap();
            let daemon = lab.hosts()[0].program("sleep").arg("1000").spawn(&Ready::AtOnce, SOON).unwrap();
            let mut pids = vec![daemon.pid()];
            pids.extend(lab.hosts().iter().map(|host| host.tpm().unwrap().pid()));
            let dir = lab.dir().to_owned();
            assert!(pids.iter().all(|pid| is_running(*pid)) && dir.exists());
            drop(daemon);
            drop(lab);
            assert!(!pids.iter().any(|pid| is_running(*pid)), "a process is left");
            assert!(!dir.exists());
            assert_eq!(output("ip", &["netns", "list"]), "");
            assert_eq!(output("ip", &["-o", "link"]).lines().count(), 1, "more than lo is left");
            assert_eq!(output("nft", &["list", "ruleset"]), "");
        }
    })
}

#[test]
fn killing_the_program_ends_everything_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("alive")).unwrap();
    let mut outside = this_test("to_be_killed").env(DIR, dir.path()).spawn().unwrap();
    let (mut alive, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(alive.try_clone().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "built\n");
    // Between the shell and swtpm a process has no name for a moment.
    assert!(soon(|| processes_naming(dir.path()) >= 2), "the TPMs do not run");
    outside.kill().unwrap();
    outside.wait().unwrap();
    // Ends when the process inside does.
    alive.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(alive.read(&mut [0]).unwrap(), 0);
    assert!(soon(|| processes_naming(dir.path()) == 0), "a process is left");
}

#[test]
#[ignore = "started and killed by another test"]
fn to_be_killed() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let Some(dir) = std::env::var_os(DIR) else { return };
        let dir = Path::new(&dir);
        let config = LabConfig { dir: Some(dir.to_owned()), ..LabConfig::hosts(2) };
        let _lab = Lab::build(sandbox, config).unwrap();
        let mut alive = UnixStream::connect(dir.join("alive")).unwrap();
        alive.write_all(b"built\n").unwrap();
        // For ever.
        assert_eq!(alive.read(&mut [0]).unwrap(), 1);
    })
}

#[test]
fn a_sandbox_is_not_this_machine() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        assert_eq!(output("ip", &["-o", "link"]).lines().count(), 1);
        assert_eq!(fs::read_dir("/run").unwrap().count(), 1, "/run is the machine's");
        assert_eq!(output("nft", &["list", "ruleset"]), "");
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("on disk"), "").unwrap();
        sandbox.cover_with_memory(scratch.path()).unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        // A second one is the same one.
        assert!(Sandbox::if_inside().unwrap().is_some());
    })
}

#[test]
fn a_program_that_enters_runs_again_inside_and_hands_out_its_status() {
    // As `cargo xtask demo` does: the process becomes the sandbox, its arguments stay.
    for (word, code) in [("succeed", 0), ("fail", 101)] {
        let ended = this_test("to_enter").env(DIR, word).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ended.code(), Some(code));
    }
}

#[test]
#[ignore = "started by another test"]
fn to_enter() {
    let Ok(word) = std::env::var(DIR) else { return };
    let _sandbox = Sandbox::enter().unwrap();
    assert_eq!(output("ip", &["-o", "link"]).lines().count(), 1);
    assert!(process::id() < 1000, "not in a process namespace of its own");
    assert_eq!(word, "succeed");
}

#[test]
fn a_test_body_that_failed_or_did_not_run_is_no_success() {
    fn not_a_test() -> Result<(), SandboxError> {
        lab::test(|_| {})
    }
    assert!(matches!(not_a_test(), Err(SandboxError::BodyNotFound { .. })));
    assert!(!this_test("to_fail").env(DIR, "").stderr(Stdio::null()).status().unwrap().success());
}

#[test]
#[ignore = "started by another test"]
fn to_fail() -> Result<(), SandboxError> {
    lab::test(|_| assert!(std::env::var_os(DIR).is_none(), "as it should"))
}

#[test]
fn a_host_can_make_the_overlays_interface() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let lab = Lab::build(sandbox, without_tpms(1)).unwrap();
        let ip = |args: &str| lab.hosts()[0].program("ip").args(args.split(' ')).run(SOON).unwrap().ok();
        ip("tuntap add muster0 mode tun").unwrap();
        ip("addr add fd00::1/128 dev muster0").unwrap();
        ip("link set muster0 up").unwrap();
        assert!(ip("-6 addr show dev muster0").unwrap().stdout.contains("fd00::1/128"));
    })
}

#[test]
fn a_program_that_leaves_a_child_running_has_ended_all_the_same() {
    let ended = shell("echo before; sleep 1000 & echo $!").run(SOON).unwrap().ok().unwrap();
    let (before, child) = ended.stdout.split_once('\n').unwrap();
    assert_eq!(before, "before");
    assert!(shell(&format!("kill {child}")).run(SOON).unwrap().status.success());
}

#[test]
fn a_copied_environment_is_no_sandbox() {
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    let output = this_test("to_enter")
        .env(DIR, "succeed")
        .env("MUSTER_LAB_OUTSIDE", here)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("is not a sandbox"), "{stderr}");
}

#[test]
fn a_lost_share_is_about_that_share() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let lab = Lab::build(sandbox, without_tpms(2)).unwrap();
        let [one, two] = lab.hosts() else { panic!("two hosts") };
        assert!(reaches(one, two) && reaches(two, one));
        let receiver = two.namespace().run(|| UdpSocket::bind((two.address(), 0)).unwrap()).unwrap();
        let sender = one.namespace().run(|| UdpSocket::bind((one.address(), 0)).unwrap()).unwrap();
        receiver.set_nonblocking(true).unwrap();
        lab.bridge().lose(30).unwrap();
        let mut arrived = 0;
        // On one machine a frame has arrived, or not, when the sending returns.
        for _ in 0..2000 {
            sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
            arrived += usize::from(receiver.recv(&mut [0; 1]).is_ok());
        }
        // 1400 expected, standard deviation 21.
        assert!((1250..1550).contains(&arrived), "{arrived} of 2000 arrived");
    })
}

#[test]
fn names_that_tools_would_misread_are_refused() -> Result<(), SandboxError> {
    lab::test(|sandbox| {
        let mut bridge = Bridge::new(sandbox, Underlay::V4).unwrap();
        for bad in ["", "-n1", "N1", "a b", "x\nlink del lab0", "twelve-bytes"] {
            assert!(matches!(bridge.attach(&[bad]), Err(NetworkError::Name(name)) if name == bad));
        }
        let hosts = bridge.attach(&["a", "eleven-by-1"]).unwrap();
        assert_eq!(hosts[1].address6(), None);
    })
}

#[test]
fn a_daemon_is_ready_when_it_says_so_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut daemon = shell("echo one; echo listening on 7 >&2; read x < /dev/zero; exec sleep 1000")
        .log(&log)
        .spawn(&Ready::Line("listening".to_owned()), SOON)
        .unwrap();
    assert_eq!(daemon.wait_for_line("one", SOON).unwrap(), "one");
    assert_eq!(fs::read_to_string(&log).unwrap(), "one\nlistening on 7\n");
    assert!(daemon.ended().is_none());
    daemon.kill();
}

#[test]
fn a_daemon_is_ready_when_it_notifies() {
    let mut daemon = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "notifier", "--ignored", "--nocapture"])
        .spawn(&Ready::Notify, SOON)
        .unwrap();
    // Everything it sends later is read too, or it would stand still.
    daemon.wait_for_line("sent a hundred more", SOON).unwrap();
}

#[test]
#[ignore = "started by another test"]
fn notifier() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"STATUS=up\nREADY=1\n", &path).unwrap();
    for _ in 0..100 {
        socket.send_to(b"STATUS=busy", &path).unwrap();
    }
    println!("sent a hundred more");
    // Until it is ended.
    let (_end, mut wait) = UnixStream::pair().unwrap();
    assert_eq!(wait.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_daemon_that_ends_early_or_is_late_tells_its_last_words() {
    let early = shell("echo no such key >&2; exit 3").spawn(&Ready::Line("ready".to_owned()), SOON);
    let Err(ProgramError::Ended { status, tail, .. }) = early else { panic!("did not end early") };
    assert_eq!((status.code(), tail.as_str()), (Some(3), "no such key\n"));

    let late = shell("echo $$; exec sleep 1000").spawn(&Ready::Notify, Duration::from_millis(300));
    let Err(ProgramError::Late { tail, .. }) = late else { panic!("was not late") };
    assert!(!is_running(tail.trim().parse().unwrap()), "it still runs");

    let late = shell("exec sleep 1000").run(Duration::from_millis(200));
    assert!(matches!(late, Err(ProgramError::Late { .. })));
}

#[test]
fn a_daemon_is_asked_to_end_and_then_made_to() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let asked = shell("trap 'echo bye; exit 7' TERM; echo up; while :; do read -t 1 x < /dev/zero; done");
    let asked = asked.log(&log).spawn(&Ready::Line("up".to_owned()), SOON).unwrap();
    assert_eq!(asked.stop(SOON).code(), Some(7));
    assert_eq!(fs::read_to_string(&log).unwrap(), "up\nbye\n");

    let deaf = shell("trap '' TERM; echo up; while :; do :; done");
    let deaf = deaf.spawn(&Ready::Line("up".to_owned()), SOON).unwrap();
    let status = deaf.stop(Duration::from_millis(200));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_program_gets_its_input_and_environment() {
    let program = shell("cat; echo $WORD >&2").env("WORD", "said").input(vec![b'x'; 200_000]);
    let ended = program.run(SOON).unwrap().ok().unwrap();
    assert_eq!((ended.stdout.len(), ended.stderr.as_str()), (200_000, "said\n"));
}

const SOON: Duration = Duration::from_secs(20);
const DIR: &str = "LAB_TEST_DIR";

fn without_tpms(hosts: usize) -> LabConfig {
    LabConfig { tpms: Tpms::None, ..LabConfig::hosts(hosts) }
}

fn reaches(from: &Host, to: &Host) -> bool {
    let (sender, receiver) = sockets(from, to);
    passes(&sender, &receiver)
}

/// Whether nothing of ten passes, where something did before.
fn is_cut(from: &Host, to: &Host) -> bool {
    let (sender, receiver) = sockets(from, to);
    !(0..10).any(|_| passes_once(&sender, &receiver))
}

fn sockets(from: &Host, to: &Host) -> (UdpSocket, UdpSocket) {
    let bind = |host: &Host| host.namespace().run(|| UdpSocket::bind((host.address(), 0)).unwrap()).unwrap();
    (bind(from), bind(to))
}

/// The first may be lost to the search for the neighbour, and on a busy machine that takes its time.
fn passes(sender: &UdpSocket, receiver: &UdpSocket) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if passes_once(sender, receiver) {
            return true;
        }
    }
    false
}

fn passes_once(sender: &UdpSocket, receiver: &UdpSocket) -> bool {
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // Refused at once while the neighbour is known to be unreachable.
    let sent = sender.send_to(b"ping", receiver.local_addr().unwrap()).is_ok();
    receiver.recv(&mut [0; 8]).is_ok() && sent
}

fn shell(script: &str) -> Program {
    Program::new("bash").args(["-c", script])
}

fn this_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).stdout(Stdio::null());
    command
}

fn output(program: &str, args: &[&str]) -> String {
    Program::new(program).args(args).run(SOON).unwrap().ok().unwrap().stdout
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn soon(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn processes_naming(path: &Path) -> usize {
    let path = path.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(path))
        .count()
}
