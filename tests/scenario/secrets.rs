//! Where secrets are, and where they are not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use identity::SecretKey;
use lab::org::{Org, PASSPHRASE};
use org_trust::InviteManifest;
use tpm_seal::{BootSecrets, Custody, NodeSecrets, Seed, Tpm};

use crate::harness;

/// Secrets that lie open in a file, each because somebody asked for that.
const IN_A_FILE: &[(&str, &str)] = &[
    // The TLS front is not trusted with more than this; its user alone may read the file.
    ("the gateway's TLS key", "n1/etc/gateway.key"),
    // `invite create --out` was told to write the line there.
    ("the invite of n2", "n1/operator/invite-for-n2"),
    // `[keys] storage = "file"`, which every member is shown.
    ("n4's WireGuard key", "n4/state/keys/node.key"),
    ("n4's boot key", "n4/state/keys/boot.key"),
    ("n4's node key", "n4/state/keys/node.key"),
    ("n4's preboot secret", "n4/state/keys/boot.key"),
];
/// The operator's shell gives the passphrase to `muster`, which the lab starts by `ip netns exec`.
const GIVEN_THE_PASSPHRASE: &[&str] = &["environ of ip", "environ of muster"];

#[test]
fn no_secret_leaves_its_place() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = scope.spawn(|| watch_processes(&stop));
            let (org, invites) = live(sandbox);
            stop.store(true, Ordering::Relaxed);
            let processes = watching.join().unwrap();
            let secrets = collect(&org, &invites);
            let needles = Needles::new(&secrets);
            let mut found = BTreeSet::new();
            files(Path::new("/run"), &mut |path, content| {
                let place = path.strip_prefix(org.lab().dir()).unwrap_or(path).display().to_string();
                found.extend(needles.find(content).into_iter().map(|secret| (secret, place.clone())));
            });
            let expected = IN_A_FILE.iter().map(|&(secret, place)| (secret.to_owned(), place.to_owned()));
            assert_eq!(found, expected.collect());

            for name in ["muster", "musterd", "muster-gateway", "muster-preboot"] {
                for what in ["cmdline", "environ"] {
                    let place = format!("{what} of {name}");
                    assert!(processes.iter().any(|(process, _)| *process == place), "no {place} was seen");
                }
            }
            for (process, content) in &processes {
                for secret in needles.find(content) {
                    let given =
                        secret == "the passphrase" && GIVEN_THE_PASSPHRASE.contains(&process.as_str());
                    assert!(given, "{secret} is in the {process}");
                }
            }
        });
    })
}

/// An org that founds, invites, joins, links and revokes; its daemons have ended when this returns.
fn live(sandbox: &lab::Sandbox) -> (Org, Vec<String>) {
    let mut org = harness::machines(sandbox, 4);
    org.found().unwrap();
    let mut invites = Vec::new();
    for node in 1..4 {
        let out = org.host(0).unwrap().dir().join(format!("operator/invite-for-{}", Org::name(node)));
        let invite = match node {
            1 => {
                org.ask(0, &["invite", "create", "--out", &out.display().to_string()]).unwrap();
                fs::read_to_string(out).unwrap()
            }
            _ => org.invite(0, 1).unwrap(),
        };
        if node == 3 {
            org.set_key_storage(3, "file").unwrap();
        }
        org.enrol(node, &invite).unwrap().ok().unwrap();
        org.start_musterd(node).unwrap();
        invites.push(invite);
    }
    harness::know_each_other(&org, 4);
    for (from, to) in [(0, "n2"), (1, "n3"), (2, "n4"), (3, "n1")] {
        org.ask(from, &["link", to]).unwrap();
        org.ask(from, &["ping", to]).unwrap();
    }
    org.ask(0, &["revoke", "n3", "--reason", "lost", "--wait", "3", "--yes"]).unwrap();
    assert_eq!(org.boot(2).unwrap().status.code(), Some(77));
    org.boot(1).unwrap().ok().unwrap();
    for node in 0..4 {
        org.ask(node, &["status"]).unwrap();
        bundle(&org, node, "live");
        org.stop_musterd(node).unwrap();
    }
    org.stop_gateway(0).unwrap();
    (org, invites)
}

/// What `muster debug bundle` writes on a machine, unpacked; the program's own words are in it as well.
fn bundle(org: &Org, node: usize, name: &str) -> Vec<u8> {
    let path = org.host(node).unwrap().dir().join(format!("{name}.tar.gz"));
    let shown = path.display().to_string();
    if !path.exists() {
        org.ask(node, &["debug", "bundle", "--out", &shown]).unwrap();
        let again = org.muster(node, &["debug", "bundle", "--out", &shown]).unwrap();
        assert_eq!(harness::code(&again), "MU-7080", "nothing is overwritten");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    let unpacked = std::process::Command::new("tar").args(["-xzOf", &shown]).output().unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
    unpacked.stdout
}

#[test]
fn a_bundle_for_whoever_helps_holds_no_secret() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let (mut org, invites) = live(sandbox);
        let secrets = collect(&org, &invites);
        let needles = Needles::new(&secrets);
        for node in 0..4 {
            let held = bundle(&org, node, "live");
            let text = String::from_utf8_lossy(&held);
            for word in
                ["\"health\":", "\"verdict\":", "\"members\":", "\"kind\":\"link-up\"", "network.port"]
            {
                assert!(text.contains(word), "{word} is not in the bundle of {}", Org::name(node));
            }
            assert_eq!(needles.find(&held), BTreeSet::new(), "{}", Org::name(node));
        }
        // The same search finds one that somebody put where it is shown.
        let hex: String = secrets["n1's node key"].iter().map(|byte| format!("{byte:02x}")).collect();
        org.start_musterd(0).unwrap();
        org.ask(0, &["expose", "planted", "--to", &format!("unix:/{hex}")]).unwrap();
        let found = needles.find(&bundle(&org, 0, "planted"));
        assert_eq!(found, BTreeSet::from(["n1's node key".to_owned()]));
    })
}

/// Every seed of the run, by what it is.
fn collect(org: &Org, invites: &[String]) -> BTreeMap<String, Vec<u8>> {
    let mut secrets = BTreeMap::new();
    let mut keep = |name: String, bytes: &[u8]| drop(secrets.insert(name, bytes.to_vec()));
    for node in 0..4 {
        let (name, keys) = (Org::name(node), org.state(node).unwrap().join("keys"));
        let custody = match node {
            3 => Custody::File,
            _ => Custody::Tpm(Tpm::open(org.host(node).unwrap().tpm().unwrap().device()).unwrap()),
        };
        let boot: BootSecrets = custody.load(&keys).unwrap();
        let node: NodeSecrets = custody.load(&keys).unwrap();
        let mut seed = |what: &str, seed: &Seed| seed.expose(|seed| keep(format!("{name}'s {what}"), seed));
        seed("boot key", &boot.boot);
        seed("preboot secret", &boot.preboot_secret);
        seed("node key", &node.identity);
        seed("WireGuard key", &node.wireguard);
        let scalar = node.wireguard.expose(|seed| SecretKey::from_seed(seed).wireguard_scalar());
        seed("WireGuard key as the tunnels use it", &Seed::new(&scalar));
        if let Some(gateway) = &node.gateway {
            seed("gateway role", gateway);
        }
    }
    let operator = org.host(0).unwrap().dir().join("operator/muster/demo");
    for (file, line) in [("admin.age", "key "), ("org-keys.age", "root "), ("org-keys.age", "tls-ca ")] {
        let text = harness::key_file(&operator.join(file));
        let digits = text.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        let bytes: Vec<u8> =
            digits.as_bytes().chunks(2).map(|pair| identity::decode_hex::<1>(pair).unwrap()[0]).collect();
        keep(format!("{file}: {}", line.trim_end()), ed25519_seed(&bytes));
    }
    let pem = fs::read_to_string(org.host(0).unwrap().dir().join("etc/gateway.key")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    keep("the gateway's TLS key".to_owned(), ed25519_seed(&from_base64(&base64)));
    for (number, invite) in invites.iter().enumerate() {
        let checked = InviteManifest::parse(invite).unwrap().check().unwrap();
        checked.secret().expose_seed(|seed| keep(format!("the invite of n{}", number + 2), seed));
    }
    keep("the passphrase".to_owned(), PASSPHRASE.as_bytes());
    secrets
}

/// A seed as it is, or what PKCS #8 has around it: 16 bytes before it.
fn ed25519_seed(bytes: &[u8]) -> &[u8] {
    match bytes.len() {
        32 => bytes,
        _ => &bytes[16..48],
    }
}

/// Command lines and environments of every process, sampled until `stop`.
fn watch_processes(stop: &AtomicBool) -> BTreeSet<(String, Vec<u8>)> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            for what in ["cmdline", "environ"] {
                let before = name();
                // It may have ended since, or have become another program, or be none.
                if let Ok(content) = fs::read(process.path().join(what))
                    && before == name()
                {
                    seen.insert((format!("{what} of {}", before.trim_end()), content));
                }
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
    seen
}

fn files(dir: &Path, each: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        // Namespaces are not files to read.
        if kind.is_dir() && entry.path() != Path::new("/run/netns") {
            files(&entry.path(), each);
        } else if kind.is_file() {
            each(&entry.path(), &fs::read(entry.path()).unwrap());
        }
    }
}

/// Secrets in every form in which a program might let one slip.
struct Needles {
    by_start: BTreeMap<[u8; 4], Vec<(String, Vec<u8>)>>,
}

impl Needles {
    fn new(secrets: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut by_start: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, bytes) in secrets {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut forms = vec![bytes.clone(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
            for alphabet in [STANDARD, URL] {
                forms.extend((0..3).map(|before| base64_within(bytes, before, alphabet)));
            }
            for form in forms {
                by_start.entry(*form.first_chunk().unwrap()).or_default().push((name.clone(), form));
            }
        }
        Self { by_start }
    }

    /// Names of the secrets in it, also where white space was put between.
    fn find(&self, content: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let dense: Vec<u8> = content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        for content in [content, &dense] {
            for at in 0..content.len().saturating_sub(3) {
                let rest = &content[at..];
                for (name, form) in self.by_start.get(rest.first_chunk::<4>().unwrap()).into_iter().flatten()
                {
                    if rest.starts_with(form) {
                        found.insert(name.clone());
                    }
                }
            }
        }
        found
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The characters that depend on nothing but `bytes` when they follow `before` others in base64.
fn base64_within(bytes: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits =
        |at: usize| at.checked_sub(before * 8).is_some_and(|at| bytes[at / 8] >> (7 - at % 8) & 1 == 1);
    let characters = (before * 8).div_ceil(6)..(before + bytes.len()) * 8 / 6;
    characters
        .map(|c| alphabet[(0..6).fold(0, |value, bit| value << 1 | usize::from(bits(c * 6 + bit)))])
        .collect()
}

fn from_base64(text: &str) -> Vec<u8> {
    let values = text.bytes().filter_map(|byte| STANDARD.iter().position(|&c| c == byte));
    let bits: Vec<usize> = values.flat_map(|value| (0..6).rev().map(move |bit| value >> bit & 1)).collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit == 1)))
        .collect()
}

#[test]
fn the_search_finds_every_form_of_a_secret() {
    let secret: Vec<u8> = (130..162).map(|n: u8| n.wrapping_mul(7)).collect();
    let needles = Needles::new(&BTreeMap::from([("it".to_owned(), secret.clone())]));
    let hex: String = secret.iter().map(|byte| format!("{byte:02X}")).collect();
    for before in 0..3 {
        let around = [&vec![b'x'; before][..], &secret, b"yz"].concat();
        let whole = base64_within(&around, 0, STANDARD);
        let lines = [&whole[..20], b"\n", &whole[20..]].concat();
        for content in [around, whole, lines] {
            assert_eq!(needles.find(&content).len(), 1, "{before}");
        }
    }
    assert_eq!(needles.find(hex.as_bytes()).len(), 1);
    assert_eq!(needles.find(hex.to_lowercase().as_bytes()).len(), 1);
    assert!(needles.find(&secret[1..]).is_empty());
    assert_eq!(from_base64("AAECAwQ="), [0, 1, 2, 3, 4]);
}
