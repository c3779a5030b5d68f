//! Whoever walked off with a gateway, and has an invite that leaked: he lets a machine of his own in, with the
//! gateway's keys and without its programs, and uses the org with it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{Name, SecretKey};
use lab::{
    Daemon, Ready,
    org::{Org, wait_for},
    probe::{self, Seen},
};
use member_crdt::{Replica, Session};
use musterd::{
    enrol::{self, Enrolled},
    store::{DirectoryDisk, Store},
};
use org_trust::{Assurance, EnrolRequest, InviteManifest, NodeKeys, Record, Redemption};
use serde_json::json;
use tpm_seal::{Custody, NodeSecrets, Seed, Tpm};

use crate::harness;

/// His machine, at work: it holds a session with each target, and dials each over and over.
pub(crate) struct Thief {
    node: usize,
    targets: usize,
    _dials: Daemon,
}

impl Thief {
    /// Off a gateway, of which nothing runs any more, he lets in a machine with this name; `heard_by` is the
    /// member that he tells. The machine then dials everybody whom that member lists.
    pub(crate) fn lets_in(org: &Org, gateway: usize, invite: &str, name: &str, heard_by: usize) -> Self {
        let id = harness::id(org, heard_by);
        let key = |which: u8| SecretKey::from_seed(&[which; 32]);
        let (node, wireguard, boot) = ([0x61; 32], [0x62; 32], key(0x63));
        let keys = NodeKeys {
            node: &SecretKey::from_seed(&node),
            wireguard: &SecretKey::from_seed(&wireguard),
            boot: &boot,
        };
        let mine = org.host(gateway).unwrap().dir().join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(mine.join("keys")).unwrap();
        let file = |called: &str, text: String| {
            let path = mine.join(called);
            fs::write(&path, text).unwrap();
            path
        };
        // As the gateway, whose member keys he has as well, he says it to one member.
        let frame = admission(org, gateway, invite, keys, name);
        let frames = file("frames.json", json!([frame]).to_string());
        let told = file("told.json", org.targets(heard_by, &[heard_by]).unwrap().to_string());
        let tpm = org.host(gateway).unwrap().tpm().unwrap().device().to_owned();
        let says = org.program(gateway, "muster-probe").unwrap().arg("--tpm").arg(tpm).args(["--org", &id]);
        let says = says.arg("--state-dir").arg(org.state(gateway).unwrap()).arg("--targets").arg(told);
        let says = says.arg("--say").arg(frames).spawn(&Ready::AtOnce, PROGRAM_STARTS).unwrap();
        harness::wait_for_state(org, heard_by, name, "good");
        drop(says);

        let secrets =
            NodeSecrets { identity: Seed::new(&node), wireguard: Seed::new(&wireguard), gateway: None };
        Custody::File.store(&mine.join("keys"), &secrets).unwrap();
        let listed = harness::members_on(org, heard_by).unwrap();
        let is_listed = |node: usize| listed.iter().any(|member| member["name"] == *Org::name(node));
        let machines: Vec<usize> = (0..org.nodes()).filter(|n| *n != gateway && is_listed(*n)).collect();
        let targets = file("targets.json", org.targets(heard_by, &machines).unwrap().to_string());
        let dials = org.program(gateway, "muster-probe").unwrap();
        let dials = dials.arg("--state-dir").arg(&mine).args(["--org", &id, "--interval-ms", "200"]);
        let dials = dials.arg("--targets").arg(targets).spawn(&Ready::AtOnce, PROGRAM_STARTS).unwrap();
        Self { node: gateway, targets: machines.len(), _dials: dials }
    }

    /// Every machine has accepted his, and holds a session with it.
    pub(crate) fn is_served(&self, org: &Org) {
        self.wait(org, "the thief's machine is served everywhere", |seen| {
            seen.session_opened && seen.accepted() > 0
        });
    }

    /// Every machine ended that session, and refuses what he tries from now on.
    pub(crate) fn is_refused(&self, org: &Org) {
        self.wait(org, "the thief's sessions end everywhere", |seen| seen.session_ended.is_some());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let seen = self.wait(org, "the thief's machine has dialled everybody again", |seen| {
            seen.since(now).1 >= DIALS_REFUSED
        });
        for (target, seen) in seen {
            assert_eq!(seen.since(now).0, 0, "{target} serves the thief's machine");
        }
    }

    fn wait(&self, org: &Org, what: &str, holds: impl Fn(&Seen) -> bool) -> BTreeMap<String, Seen> {
        wait_for(EVERYWHERE, what, || {
            let seen = probe::read(&org.log(self.node, "muster-probe")?);
            Ok((seen.len() == self.targets && seen.values().all(&holds)).then_some(seen))
        })
        .unwrap()
    }
}

/// The change that makes a machine with these keys a member, signed as the gateway signs one, in a frame of
/// sync. All of it comes off the gateway's disk and TPM.
fn admission(org: &Org, gateway: usize, invite: &str, keys: NodeKeys<'_>, name: &str) -> Vec<u8> {
    let tpm = Tpm::open(org.host(gateway).unwrap().tpm().unwrap().device()).unwrap();
    let state = org.state(gateway).unwrap();
    let stolen: NodeSecrets = Custody::Tpm(tpm).load(&state.join("keys")).unwrap();
    let role = stolen.gateway.unwrap().expose(SecretKey::from_seed);
    let disk = DirectoryDisk::open(&state.join("store")).unwrap();
    let (_store, held) = Store::open(disk).unwrap();
    let held = Replica::load(&held.document, &held.org.unwrap()).unwrap().replica;

    let invite = InviteManifest::parse(invite).unwrap().check().unwrap();
    let redemption = Redemption { invite: invite.id(), key: invite.secret(), redeemer: role.public() };
    let called = Name::parse(name).unwrap();
    let request = EnrolRequest::sign(&held.org(), keys, redemption, called, Assurance::File, [0; 32]);
    let signed = enrol::decide(&held, &role, keys.node.public(), &request.encode(), None, 0).unwrap();
    let Enrolled::New(admit) = signed else { panic!("{name} is a member already") };
    Session::flood(&Record::from(&*admit))
}

const PROGRAM_STARTS: Duration = Duration::from_secs(5);
/// Many machines on few cores.
const EVERYWHERE: Duration = Duration::from_secs(90);
/// Dials to each machine that must all fail.
const DIALS_REFUSED: usize = 5;
