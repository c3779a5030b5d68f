//! `muster lab`: an org on a bench of its own, up in the background until it is taken down.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{Ended, Program};
use serde_json::Value;

use crate::harness::{code, within};

const PATIENCE: Duration = Duration::from_secs(120);

/// A directory for a lab; whatever is up in it goes with the sandbox of the test.
struct Place {
    parent: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { parent: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join("lab")
    }

    fn lab(&self, arguments: &[&str]) -> Ended {
        run(Program::new(muster()), &self.dir(), arguments)
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let ended = self.lab(&[&["--json"], arguments].concat()).ok().unwrap();
        serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {}", ended.stdout))
    }

    /// A command on a machine.
    fn exec(&self, machine: &str, words: &[&str]) -> Ended {
        self.lab(&[&["exec", machine, "--"], words].concat())
    }

    /// `muster` there, and its object.
    fn muster(&self, machine: &str, arguments: &[&str]) -> (Ended, Value) {
        let ended = self.exec(machine, &[&["muster", "--json", "--no-input"], arguments].concat());
        let value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        (ended, value)
    }
}

fn muster() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("muster")
}

fn run(program: Program, dir: &Path, arguments: &[&str]) -> Ended {
    let program = program.env("MUSTER_TEST_WORK_FACTOR", "2").args(["lab", "--dir"]).arg(dir);
    program.args(arguments).run(PATIENCE).unwrap()
}

/// The command behind a shell's preparations.
fn prepared(preparation: &str, flags: &[&str]) -> Program {
    let script = format!("{preparation} && exec \"$0\" \"$@\"");
    Program::new("unshare").args(flags.iter().copied()).args(["sh", "-c", &script]).arg(muster())
}

/// Every process here but those of this test, and the network namespaces they are in.
fn processes() -> (BTreeSet<u32>, BTreeSet<PathBuf>) {
    let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let all: BTreeSet<u32> = all.collect();
    let networks = all.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok());
    (all.clone(), networks.collect())
}

fn groups(of: &Value) -> Vec<String> {
    let names = |group: &Value| {
        let names = group.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        names.collect::<Vec<_>>().join(" ")
    };
    of["groups"].as_array().unwrap().iter().map(names).collect()
}

#[test]
fn a_lab_stays_up_is_partitioned_and_healed_and_leaves_nothing() -> Result<(), lab::SandboxError> {
    lab::test(|_sandbox| {
        let before = processes();
        let place = Place::new();
        let up = place.ask(&["up", "--nodes", "3", "--swtpm"]);
        assert_eq!(groups(&up), ["n1 n2 n3"]);
        assert_eq!(up["machines"][0]["gateway"], true);
        let again = place.lab(&["up"]);
        assert_eq!((again.status.code(), code(&again).as_str()), (Some(73), "MU-7101"));

        within(PATIENCE, "all are connected", || {
            let status = place.ask(&["status"]);
            let machines = status["machines"].as_array().unwrap().clone();
            let well = |m: &Value| m["health"] == "healthy" && m["connected"].as_array().unwrap().len() == 2;
            machines.iter().all(well).then_some(())
        });
        let (_, status) = place.muster("n2", &["status"]);
        assert_eq!(
            (&status["node"]["name"], &status["node"]["key_storage"]),
            (&"n2".into(), &"tpm-software".into())
        );
        assert_eq!(place.exec("n2", &["sh", "-c", "exit 7"]).status.code(), Some(7));
        // Its own network, and no way out of it.
        let addresses = place.exec("n3", &["ip", "-o", "-4", "address"]).ok().unwrap().stdout;
        assert!(addresses.contains("10.77.0.3/24"), "{addresses}");
        assert!(!place.exec("n3", &["ip", "route", "get", "192.0.2.1"]).status.success());

        let parted = place.ask(&["partition", "n2,n3"]);
        assert_eq!(groups(&parted), ["n1", "n2 n3"]);
        let (revoked, said) = place.muster("n1", &["revoke", "n3", "--timeout", "3s", "--yes"]);
        assert_eq!(revoked.status.code(), Some(75), "{}", revoked.stderr);
        let missing = said["coverage"]["missing"].as_array().unwrap();
        let missing: Vec<_> = missing.iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert_eq!(missing, ["n2"]);
        // It has not heard of it, and says so by answering.
        place.exec("n3", &["muster", "ping", "n2"]).ok().unwrap();

        assert_eq!(groups(&place.ask(&["heal"])), ["n1 n2 n3"]);
        within(PATIENCE, "both others have applied it", || {
            let (_, said) = place.muster("n1", &["revoke", "status", "n3"]);
            (said["complete"] == true).then_some(())
        });
        let status = within(PATIENCE, "the machine has been told", || {
            let status = place.ask(&["status"]);
            let problems = status["machines"][2]["problems"].as_array().unwrap().clone();
            problems.contains(&"MU-1403".into()).then_some(status)
        });
        assert_eq!(status["machines"][1]["refuses"], serde_json::json!(["n3"]));
        assert!(!place.exec("n3", &["muster", "ping", "n2"]).status.success());

        place.lab(&["down"]).ok().unwrap();
        assert!(!place.dir().exists());
        within(PATIENCE, "no process and no namespace is left", || (processes() == before).then_some(()));
        let gone = place.lab(&["status"]);
        assert_eq!((gone.status.code(), code(&gone).as_str()), (Some(69), "MU-7100"));
    })
}

#[test]
fn what_a_lab_leaves_when_it_is_killed_is_told_and_cleared() -> Result<(), lab::SandboxError> {
    lab::test(|_sandbox| {
        let before = processes();
        let place = Place::new();
        place.lab(&["up", "--nodes", "2"]).ok().unwrap();
        for arguments in
            [&["exec", "n3", "--", "true"][..], &["partition", "n3"], &["exec", "..", "--", "true"]]
        {
            assert_eq!(code(&place.lab(arguments)), "MU-7105", "{arguments:?}");
        }
        // With all on one side there is no other.
        assert_eq!(code(&place.lab(&["partition", "n1,n2"])), "MU-7104");
        let record: Value = serde_json::from_slice(&fs::read(place.dir().join("lab.json")).unwrap()).unwrap();
        Program::new("kill").args(["-9", &record["pid"].to_string()]).run(PATIENCE).unwrap().ok().unwrap();
        within(PATIENCE, "the kernel has cleared it away", || (processes() == before).then_some(()));
        let gone = place.lab(&["status"]);
        assert!(
            code(&gone) == "MU-7100" && gone.stderr.contains("without being taken down"),
            "{}",
            gone.stderr
        );
        place.lab(&["up", "--nodes", "1"]).ok().unwrap();
        assert_eq!(groups(&place.ask(&["status"])), ["n1"]);
        place.lab(&["down"]).ok().unwrap();
        assert!(!place.dir().exists());
    })
}

#[test]
fn a_lab_says_what_it_lacks_and_leaves_nothing_behind() -> Result<(), lab::SandboxError> {
    lab::test(|_sandbox| {
        let before = processes();
        let place = Place::new();
        let masked = prepared("mount --bind /dev/null /usr/sbin/nft", &["--mount"]);
        let lacks = run(masked, &place.dir(), &["up"]);
        assert_eq!((lacks.status.code(), code(&lacks).as_str()), (Some(69), "MU-7102"));
        assert!(lacks.stderr.contains("--no-install-recommends nftables"), "{}", lacks.stderr);
        let forbidden =
            prepared("echo 0 > /proc/sys/user/max_net_namespaces", &["--user", "--map-root-user"]);
        let refused = run(forbidden, &place.dir(), &["up"]);
        assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(77), "MU-7103"));
        assert!(refused.stderr.contains("user.max_net_namespaces"), "{}", refused.stderr);

        // Programs that are not ours.
        let programs = place.parent.path().join("programs");
        fs::create_dir(&programs).unwrap();
        let none = place.lab(&["up", "--programs", programs.to_str().unwrap()]);
        assert_eq!((none.status.code(), code(&none).as_str()), (Some(75), "MU-7104"));
        for name in ["muster", "musterd", "muster-gateway", "muster-preboot"] {
            std::os::unix::fs::symlink("/bin/false", programs.join(name)).unwrap();
        }
        let failed = place.lab(&["up", "--programs", programs.to_str().unwrap()]);
        assert_eq!((failed.status.code(), code(&failed).as_str()), (Some(75), "MU-7104"));
        assert!(failed.stderr.contains("org create"), "{}", failed.stderr);

        let full = place.parent.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("notes"), "mine").unwrap();
        for dir in [full.as_path(), Path::new("/run/lab"), &place.parent.path().join("x".repeat(100))] {
            let refused = run(Program::new(muster()), dir, &["up"]);
            assert_eq!((refused.status.code(), code(&refused).as_str()), (Some(73), "MU-7106"), "{dir:?}");
        }
        assert!(full.join("notes").exists());
        within(PATIENCE, "nothing runs", || (processes() == before).then_some(()));
    })
}
