//! Images that members pass on: between members through `muster image get`, and at a gateway to machines that
//! boot.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use conn_auth::Action;
use identity::{
    Code, Heads, OrgId, Outliner, SecretKey,
    limits::{BLOB_PIECE_BYTES, BLOB_QUIET_MS, BLOB_SESSIONS_PER_MEMBER_MAX},
};
use lab::{Daemon, Ready, Signal, org::Org};
use org_trust::{BlobReply, BlobRequest, Generation, InviteManifest};
use tokio::time::{Instant, sleep, timeout};
use tpm_seal::{BootSecrets, Custody, Tpm};
use transport::{
    Address, ClientTls, SessionError,
    client::{DialError, GatewayDial, GatewaySession, dial_gateway},
};

use crate::harness::{self, within};

/// Long enough to be stopped on the way.
pub(crate) const LONG: usize = 20 * 1024 * 1024 + 77;
/// So long that a revocation is made meanwhile.
const LONGER: usize = 3 * LONG;
const SHORT: usize = 3 * 1024 * 1024;
const SOME: u64 = 1024 * 1024;

/// A machine passes on an image of so many bytes. Its hash.
pub(crate) fn publish(org: &Org, node: usize, bytes: usize) -> (Vec<u8>, String) {
    let image: Vec<u8> = (0..bytes).map(|at| (at / 251 + at * 7).to_le_bytes()[0]).collect();
    let mut outliner = Outliner::default();
    image.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    let hash = outliner.finish().unwrap().hash();
    // Whose word a release is, only those judge who start it.
    let generation = Generation { number: 1, image: hash.0, image_bytes: bytes as u64, minimum: 0 };
    let dir = org.host(node).unwrap().dir().join("image");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("node.squashfs"), &image).unwrap();
    let signed = generation.sign(&OrgId([1; 32]), &SecretKey::from_seed(&[9; 32]));
    fs::write(dir.join("node.release"), signed).unwrap();
    org.muster(node, &["image", "publish", dir.to_str().unwrap()]).unwrap().ok().unwrap();
    (image, hash.to_string())
}

/// `muster image get` on a machine, as soon as some of it has come.
fn gets(org: &Org, node: usize, arguments: &[&str]) -> (Daemon, PathBuf) {
    let out = org.host(node).unwrap().dir().join("got");
    let get = org.program(node, "muster").unwrap().args(["image", "get", "--from", "n1", "--out"]).arg(&out);
    let get = get.args(arguments.iter().copied()).spawn(&Ready::AtOnce, Duration::from_secs(5)).unwrap();
    let part = out.with_extension("part");
    within(Duration::from_secs(30), "some of it comes", || {
        fs::metadata(&part).is_ok_and(|part| part.len() > SOME).then_some(())
    });
    (get, out)
}

fn fetches(org: &Org, name: &str) -> bool {
    let list = org.ask(0, &["session", "list"]).unwrap();
    let sessions = list["sessions"].as_array().unwrap();
    sessions.iter().any(|session| session["action"] == "blob-get" && session["name"] == name)
}

#[test]
fn an_image_that_broke_off_is_gone_on_with_and_is_what_its_hash_says() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        let (image, hash) = publish(&org, 0, LONG);
        let (get, out) = gets(&org, 1, &[&hash]);
        get.kill();
        let part = out.with_extension("part");
        let had = fs::metadata(&part).unwrap().len();
        assert!(had > SOME && had < image.len() as u64 && !out.exists(), "{had} bytes");
        // A torn end, as after a power cut.
        let mut torn = fs::read(&part).unwrap();
        torn.truncate(torn.len() - 5);
        *torn.last_mut().unwrap() ^= 1;
        fs::write(&part, &torn).unwrap();
        let to = out.to_str().unwrap().to_owned();
        let done = org.ask(1, &["image", "get", &hash, "--from", "n1", "--out", &to]).unwrap();
        assert!(fs::read(&out).unwrap() == image, "every byte is there");
        assert!(!part.exists());
        let pieces = image.len().div_ceil(BLOB_PIECE_BYTES) as u64;
        let kept = pieces - done["pieces_fetched"].as_u64().unwrap();
        let whole = torn.len() / BLOB_PIECE_BYTES;
        assert_eq!((&done["pieces"], kept), (&pieces.into(), whole as u64), "only what was missing came");
        // Without a hash it is the one that machines are to run; what is there is not written over.
        let again = org.muster(1, &["image", "get", "--from", "n1", "--out", &to]).unwrap();
        assert_eq!(harness::code(&again), "MU-7004");
        let other = ["image", "get", &"01".repeat(32), "--from", "n1", "--out", "/nowhere/at/all"];
        assert_eq!(harness::code(&org.muster(1, &other).unwrap()), "MU-8022");
    })
}

#[test]
fn a_revocation_cuts_a_transfer_on_its_way() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 3);
        let (image, _) = publish(&org, 0, LONGER);
        let (mut get, out) = gets(&org, 2, &[]);
        org.muster(0, &["revoke", "n3", "--wait", "0", "--yes"]).unwrap().ok().unwrap();
        let ended = get.wait(Duration::from_secs(40)).unwrap();
        assert_eq!(ended.code(), Some(77), "{}", get.output());
        assert!(get.output().contains("MU-1403"), "{}", get.output());
        within(Duration::from_secs(5), "the session is over", || (!fetches(&org, "n3")).then_some(()));
        cut_short(&out, &image);
    })
}

/// A machine that stands still cannot be told why: what waits for it is longer than what its kernel keeps, and
/// its tunnel is gone 500 ms after the session.
#[test]
fn a_revocation_cuts_a_transfer_of_a_machine_that_stands_still() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let (image, _) = publish(&org, 0, LONG);
        let (mut get, out) = gets(&org, 2, &[]);
        let mut musterd = org.take_musterd(2).unwrap();
        within(Duration::from_secs(20), "it stands still with a session open", || {
            musterd.signal(Signal::STOP);
            let is_open = fetches(&org, "n3");
            if !is_open {
                musterd.signal(Signal::CONT);
            }
            is_open.then_some(())
        });
        assert!(get.ended().is_none());
        org.muster(0, &["revoke", "n3", "--wait", "0", "--yes"]).unwrap().ok().unwrap();
        within(Duration::from_secs(5), "the session is over", || (!fetches(&org, "n3")).then_some(()));
        musterd.signal(Signal::CONT);
        let ended = get.wait(Duration::from_secs(40)).unwrap();
        let (code, told) = (ended.code(), get.output());
        let is_told = code == Some(77) && told.contains("MU-1403");
        let hears_nothing = code == Some(75) && told.contains("MU-6009");
        assert!(is_told || hears_nothing, "{code:?} {told}");
        cut_short(&out, &image);
        drop(musterd);
    })
}

fn cut_short(out: &Path, image: &[u8]) {
    assert!(!out.exists(), "nothing is called whole");
    let got = fs::metadata(out.with_extension("part")).unwrap().len();
    assert!(got < image.len() as u64, "{got} bytes");
}

/// Who boots with the key of another machine of the org.
struct Boots {
    address: Address,
    tls: ClientTls,
    chain: org_trust::CharterChain,
    key: SecretKey,
}

impl Boots {
    fn of(org: &Org, node: usize) -> Self {
        let invite = InviteManifest::parse(&org.invite(0, 1).unwrap()).unwrap().check().unwrap();
        let tpm = Tpm::open(org.host(node).unwrap().tpm().unwrap().device()).unwrap();
        let secrets: BootSecrets = Custody::Tpm(tpm).load(&org.state(node).unwrap().join("keys")).unwrap();
        Self {
            address: Address::parse(&invite.gateways()[0]).unwrap(),
            tls: ClientTls::new(invite.bundle().certificates().iter().map(|c| c.der())).unwrap(),
            chain: invite.chain().clone(),
            key: secrets.boot.expose(SecretKey::from_seed),
        }
    }

    async fn dial(&self) -> Result<GatewaySession, DialError> {
        let action = Action::new("blob-get", &[]).unwrap();
        let (address, tls, key, heads) = (&self.address, &self.tls, &self.key, Heads([0; 32]));
        let dial = GatewayDial { address, tls, anchor: None, key, action, heads, count: 0 };
        dial_gateway(dial, &mut self.chain.clone()).await.map(|(session, _)| session)
    }
}

async fn asks(session: &mut GatewaySession, question: BlobRequest) -> BlobReply {
    session.send(question.encode()).await.unwrap();
    BlobReply::decode(&session.recv().await.unwrap()).unwrap()
}

/// How a session ended whose machine reads at last.
async fn end(session: &mut GatewaySession) -> SessionError {
    let ended = async {
        loop {
            if let Err(why) = session.recv().await {
                return why;
            }
        }
    };
    timeout(Duration::from_secs(5), ended).await.unwrap_or_else(|_| panic!("it is held open"))
}

#[test]
fn machines_that_ask_for_nothing_more_hold_few_places_at_a_gateway_and_not_for_long()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        let (_, hash) = publish(&org, 0, SHORT);
        let file = identity::BlobHash::from_hex(&hash).unwrap();
        let boots = Boots::of(&org, 1);
        let gateway = org.take_gateway(0).unwrap();
        let before = gateway.holds().unwrap();
        let drive = async {
            let quiet = Duration::from_millis(BLOB_QUIET_MS);
            let begun = Instant::now();
            let mut honest = boots.dial().await.unwrap();
            let (mut mute, mut once, mut deaf) =
                (boots.dial().await.unwrap(), boots.dial().await.unwrap(), boots.dial().await.unwrap());
            assert_eq!(BLOB_SESSIONS_PER_MEMBER_MAX, 4);
            assert_eq!(boots.dial().await.err().map(|why| why.code()), Some(Code::Busy), "a fifth");
            let wanted = |reply: &BlobReply| matches!(reply, BlobReply::Wanted(_));
            assert!(wanted(&asks(&mut once, BlobRequest::Wanted).await));
            deaf.send(BlobRequest::Pieces { file, first: 0, count: 16 }.encode()).await.unwrap();
            // One that takes its time goes on for as long as it likes.
            while begun.elapsed() < quiet + Duration::from_secs(3) {
                assert!(wanted(&asks(&mut honest, BlobRequest::Wanted).await));
                sleep(Duration::from_secs(3)).await;
            }
            for (name, session) in [("mute", &mut mute), ("once", &mut once), ("deaf", &mut deaf)] {
                let why = end(session).await;
                // The front itself ends those that have asked nothing at all, and sooner.
                let is_cut = matches!(why, SessionError::Closed { code: Some(Code::TransferSilent), .. });
                assert!(is_cut || name == "mute", "{name}: {why:?}");
            }
            assert!(wanted(&asks(&mut honest, BlobRequest::Wanted).await));
            let mut again = boots.dial().await.unwrap();
            assert!(wanted(&asks(&mut again, BlobRequest::Wanted).await), "there is room again");
            (honest, again)
        };
        let namespace = org.host(1).unwrap().namespace();
        let held = namespace.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            drop(runtime.block_on(drive));
        });
        held.unwrap();
        within(Duration::from_secs(15), "the gateway holds what it held", || {
            (gateway.holds().unwrap().descriptors <= before.descriptors).then_some(())
        });
    })
}
