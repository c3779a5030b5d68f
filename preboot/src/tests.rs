//! Whole starts, against a gateway that this file plays on the loopback.

use std::{cell::RefCell, collections::BTreeMap, fs, net::SocketAddr, path::Path, rc::Rc};

use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr};
use clap::Parser as _;
use conn_auth::{Accept, Binding, Holder, Reference, Standing};
use identity::{
    BlobHash, CharterId, Code, HashContext, Heads, Name, OrgId, Outline, Outliner, PublicKey, SecretKey,
    limits::BLOB_PIECE_BYTES,
};
use org_trust::{
    Admin, BlobReply, BlobRequest, CaState, Charter, CharterChain, EnrolRequest, Gateway, Invite,
    InviteManifest, Lane, Payload, Place, Record, Records, Reply, Request as Question, Statement, TlsCa,
    TrustBundle, UnverifiedCharter,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
    time::Instant,
};
use tpm_seal::{
    Approval, Approvals, BootSecrets, Custody, ImageKey, Kind, NextBoot, NodeSecrets, Phase, Seed, Tpm,
};
use transport::{Deadlines, Incoming, Request, ServerTls, Status, after_of, encode_charters};

use crate::{
    console::Console,
    failure::Outcome,
    gateway::Images,
    keys::Binding as ImageBinding,
    settings::Arguments,
    start::{Image, Started, start},
};

fn seed(byte: u8) -> SecretKey {
    SecretKey::from_seed(&[byte; 32])
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// What the played gateway holds.
struct Held {
    chain: CharterChain,
    invite: Statement,
    tls: ServerTls,
    /// Admissions by node key.
    admits: BTreeMap<PublicKey, Statement>,
    /// What is said to every boot key, when it is a refusal.
    barred: Option<Code>,
    /// Requests to enrol.
    asked: u32,
    /// The connection ends when the machine asks for its admission.
    silent: bool,
    /// Answers to questions of `blob-get`.
    images: fn(BlobRequest) -> Vec<BlobReply>,
}

struct Bench {
    held: Rc<RefCell<Held>>,
    address: SocketAddr,
    state: tempfile::TempDir,
    /// What the last start that went well left.
    started: RefCell<Option<Started>>,
    /// The file with the invite.
    invite: std::path::PathBuf,
    _files: tempfile::TempDir,
}

/// An org with this salt whose gateway listens at this address, and an invite of it.
fn org(salt: u8, address: SocketAddr) -> (Held, String) {
    let ca_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_der = ca.self_signed(&ca_key).unwrap().der().to_vec();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let tls = ServerTls::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();

    let mut charter = Charter::genesis(name("acme"), 1, vec![seed(1).public()], [salt; 16]);
    charter.admins = vec![Admin { key: seed(5).public(), name: name("ann") }];
    charter.gateways = vec![Gateway { key: seed(2).public(), node: seed(4).public() }];
    charter.tls_cas = vec![TlsCa { state: CaState::Active, certificate: ca_der.clone() }];
    let genesis = UnverifiedCharter::sign(charter, &[&seed(1)]).unwrap().verify_genesis().unwrap();
    let chain = CharterChain::start(genesis).unwrap();
    let invite = Invite {
        key: seed(6).public(),
        uses: 1,
        redeemer: seed(2).public(),
        labels: Vec::new(),
        expires_unix_s: 0,
        note: String::new(),
        approval: false,
        attestation: false,
        tpms: Vec::new(),
    };
    let invite = signed(&chain, 5, 0, [0; 32], Payload::Invite(Box::new(invite)));
    let bundle = TrustBundle::from_certificates([ca_der]).unwrap();
    let manifest =
        InviteManifest::new(&chain, &bundle, vec![address.to_string()], &invite, &seed(6)).unwrap();
    let line = manifest.to_line().to_string();
    let admits = BTreeMap::new();
    (Held { chain, invite, tls, admits, barred: None, asked: 0, silent: false, images }, line)
}

fn signed(chain: &CharterChain, author: u8, seq: u64, prev: [u8; 32], payload: Payload) -> Statement {
    let place = Place { charter: chain.head().id(), lane: Lane::Main, seq, prev };
    Statement::sign(&chain.org(), &seed(author), place, &payload).unwrap()
}

impl Held {
    fn extend(&mut self) {
        let next = self.chain.head().charter().successor();
        self.chain.extend(UnverifiedCharter::sign(next, &[&seed(1)]).unwrap()).unwrap();
    }

    fn enrol(&mut self, bytes: &[u8]) -> Statement {
        self.asked += 1;
        let request = EnrolRequest::decode(bytes).unwrap();
        let admit = request.verify(&self.chain.org(), &seed(6).public()).unwrap().into_admit();
        let count = u64::try_from(self.admits.len()).unwrap();
        let made = || signed(&self.chain, 2, count, [0; 32], Payload::Admit(Box::new(admit.clone())));
        self.admits.entry(admit.node).or_insert_with(made).clone()
    }

    fn standing(&self, action: &str) -> Standing {
        match (action, self.barred) {
            ("enrol", _) => Standing::Unknown,
            (_, Some(code)) => Standing::Barred(code),
            (_, None) => Standing::Good(Holder::BootKey),
        }
    }
}

/// Serves one connection; a peer that leaves early is none of its business.
async fn serve(held: Rc<RefCell<Held>>, tcp: TcpStream) -> Option<()> {
    let tls = held.borrow().tls.clone();
    let (stream, exporter) = tls.accept(tcp).await.ok()?;
    let mut incoming = Incoming::new(stream, Deadlines::since(Instant::now()));
    let upgrade = loop {
        match incoming.next().await.ok()? {
            Request::Get(get) => {
                let after = after_of(get.target())?;
                let page = {
                    let held = held.borrow();
                    held.chain.get(&after)?;
                    encode_charters(held.chain.after(&after).map(|c| c.bytes()))
                };
                incoming = get.answer(&page).await.ok()?;
            }
            Request::Upgrade(upgrade) => break upgrade,
        }
    };
    let org = held.borrow().chain.org();
    let gateway = seed(2);
    let accept = Accept { org, key: &gateway, binding: Binding::Tls(exporter) };
    let Ok(pending) = accept.on_hello(upgrade.hello(), [5; 32]) else {
        upgrade.refuse(Status::BadRequest).await.ok()?;
        return None;
    };
    let (proof, verdict) = upgrade.challenge(pending.challenge()).await.ok()?.proof().await.ok()?;
    let proven = pending.on_proof(&proof).ok()?;
    let standing = held.borrow().standing(proven.action().name());
    let fetches = proven.action().name() == BlobRequest::ACTION;
    let mut session = match proven.admit(standing) {
        Ok(admitted) => {
            let line = admitted.verdict_ok(Reference([6; 8]), Heads([0; 32]), 0);
            verdict.accept(&line, 64 * 1024).await.ok()?
        }
        Err(refusal) => {
            verdict.refuse(&refusal.verdict(Reference([6; 8]), true)).await.ok()?;
            return None;
        }
    };
    loop {
        if !fetches {
            break;
        }
        let request = BlobRequest::decode(&session.recv().await.ok()?).ok()?;
        let answers = (held.borrow().images)(request);
        for answer in answers {
            session.send(answer.encode()).await.ok()?;
        }
    }
    let answers = match Question::decode(&session.recv().await.ok()?).ok()? {
        Question::Enrol(_) if held.borrow().silent => return None,
        Question::Enrol(bytes) => vec![Reply::Admitted(held.borrow_mut().enrol(&bytes).bytes().to_vec())],
        Question::Boot { .. } => {
            let held = held.borrow();
            let charters = held.chain.iter().map(Record::from);
            let statements = [&held.invite].into_iter().chain(held.admits.values()).map(Record::from);
            vec![
                Reply::Records(charters.collect()),
                Reply::Records(statements.collect()),
                Reply::End { heads: Heads([0; 32]), count: 2 },
            ]
        }
        Question::Attest(_)
        | Question::Quote(_)
        | Question::Share(_)
        | Question::Submit(_)
        | Question::Fetch(_) => return None,
    };
    for answer in answers {
        session.send(answer.encode()).await.ok()?;
    }
    // Until the other side has read it all.
    drop(session.recv().await);
    Some(())
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, line) = org(3, address);
        let held = Rc::new(RefCell::new(held));
        let serving = Rc::clone(&held);
        tokio::task::spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(Rc::clone(&serving), tcp));
            }
        });
        let files = tempfile::tempdir().unwrap();
        let invite = files.path().join("invite");
        fs::write(&invite, line).unwrap();
        let started = RefCell::new(None);
        Self { held, address, state: tempfile::tempdir().unwrap(), started, invite, _files: files }
    }

    async fn run(&self, more: &[&str]) -> Outcome<()> {
        self.run_with(&["--key-storage", "file"], more).await
    }

    async fn run_with(&self, storage: &[&str], more: &[&str]) -> Outcome<()> {
        self.run_by(None, storage, more).await
    }

    async fn run_by(&self, image: Option<Image>, storage: &[&str], more: &[&str]) -> Outcome<()> {
        let state = self.state.path().to_str().unwrap();
        // No configuration of this host, and no waiting.
        let config = self.state.path().with_extension("toml");
        fs::write(&config, "").unwrap();
        let base = ["muster-preboot", "--state", state, "--name", "web-1", "--attempts", "1", "--config"];
        let all = base.iter().copied().chain([config.to_str().unwrap()]);
        let arguments =
            Arguments::try_parse_from(all.chain(storage.iter().copied()).chain(more.iter().copied()));
        let result = Box::pin(start(&arguments.unwrap(), image, &mut Console::default())).await;
        fs::remove_file(config).unwrap();
        result.map(|started| drop(self.started.borrow_mut().replace(started)))
    }

    /// A session of the machine that has started, for its node image.
    async fn images(&self) -> Outcome<Images> {
        let started = self.started.take().unwrap();
        let mut chain = started.member.chain.clone();
        let gateway = &started.member.gateways[0];
        let images = Box::pin(Images::open(gateway, &started.member, &mut chain, &started.boot)).await;
        self.started.replace(Some(started));
        images
    }

    /// As the first process of an image does: measured by firmware and stub, with the image's approvals.
    async fn boot(&self, tpm: &lab::Swtpm, version: &[u8], more: &[&str]) -> Outcome<()> {
        let device = Tpm::open(tpm.device()).unwrap();
        device.extend(11, version).unwrap();
        let chain = self.held.borrow().chain.clone();
        let binding = ImageBinding { approvals: approvals(&chain.org(), version), secure_boot: true };
        let image = Image { chain, gateways: vec![self.address.to_string()], binding };
        let done = self.run_by(Some(image), &["--tpm", text(tpm.device())], more).await;
        device.extend(11, LEAVE_PREBOOT).unwrap();
        done
    }

    fn keys_directory(&self) -> std::path::PathBuf {
        self.state.path().join("keys")
    }

    async fn join(&self) -> Outcome<()> {
        self.run(&["--invite", self.invite.to_str().unwrap()]).await
    }

    fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.state.path().join(path)).unwrap()
    }

    fn remove(&self, path: &str) {
        let path = self.state.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn keys(&self) -> [Vec<u8>; 2] {
        [self.file("keys/boot.key"), self.file("keys/node.key")]
    }

    fn handed_over(&self) -> Vec<Record> {
        Records::decode_all(&self.file("handover/records")).unwrap()
    }
}

async fn local(test: impl AsyncFnOnce(Bench)) {
    LocalSet::new().run_until(async { test(Bench::new().await).await }).await;
}

#[tokio::test]
async fn a_machine_joins_once_and_starts_by_its_boot_key_from_then_on() {
    local(async |bench| {
        bench.join().await.unwrap();
        let admit = bench.file("handover/admit");
        assert_eq!(admit, bench.held.borrow().admits.values().next().unwrap().bytes());
        assert_eq!(bench.handed_over().len(), 3, "one of the org's settings, the invite, the admission");
        TrustBundle::read(&bench.file("handover/bundle.pem")).unwrap();
        let keys = bench.keys();
        // musterd takes the hand-over away.
        bench.remove("handover");
        bench.run(&[]).await.unwrap();
        assert_eq!(bench.file("handover/admit"), admit);
        assert_eq!(bench.keys(), keys);
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_power_cut_at_any_step_the_same_keys_get_the_same_admission() {
    local(async |bench| {
        bench.join().await.unwrap();
        let (keys, admit) = (bench.keys(), bench.file("handover/admit"));
        // Before the hand-over; before the admission was kept; before the node's half was sealed would
        // need a second machine, see below.
        bench.remove("handover");
        bench.join().await.unwrap();
        bench.remove("handover");
        bench.remove("preboot/admit");
        bench.join().await.unwrap();
        assert_eq!((bench.keys(), bench.file("handover/admit")), (keys, admit));
        assert_eq!(bench.held.borrow().admits.len(), 1);
        // What an interrupted replacement leaves beside is no obstacle.
        fs::create_dir(bench.state.path().join("handover.new")).unwrap();
        fs::create_dir(bench.state.path().join("preboot.new")).unwrap();
        bench.run(&[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn between_the_two_sealed_objects_only_the_missing_one_is_made() {
    local(async |bench| {
        bench.held.borrow_mut().barred = Some(Code::UnknownKey);
        bench.join().await.unwrap_err();
        let [boot, node] = bench.keys();
        bench.remove("keys/node.key");
        bench.remove("preboot/admit");
        bench.held.borrow_mut().barred = None;
        bench.held.borrow_mut().admits.clear();
        bench.join().await.unwrap();
        assert_eq!(bench.keys()[0], boot);
        assert_ne!(bench.keys()[1], node);
        // The other way round somebody took it away.
        bench.remove("keys/boot.key");
        bench.remove("preboot/admit");
        assert_eq!(bench.join().await.unwrap_err().code, Code::KeysMissing);
        assert!(!bench.state.path().join("keys/boot.key").exists());
    })
    .await;
}

#[tokio::test]
async fn lost_keys_of_a_member_are_never_made_anew() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.remove("keys");
        assert_eq!(bench.join().await.unwrap_err().code, Code::KeysMissing);
        assert!(!bench.state.path().join("keys").exists());
    })
    .await;
}

#[tokio::test]
async fn an_invite_of_another_org_is_refused_and_changes_nothing() {
    local(async |bench| {
        bench.join().await.unwrap();
        let (_, other) = org(4, bench.address);
        fs::write(&bench.invite, other).unwrap();
        let before = (bench.keys(), bench.file("preboot/charters"));
        assert_eq!(bench.join().await.unwrap_err().code, Code::InviteOtherOrg);
        assert_eq!((bench.keys(), bench.file("preboot/charters")), before);
    })
    .await;
}

/// Every file below a directory.
fn tree(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Cut at some places, with a bit changed at some, and with a byte more.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let places = (0..bytes.len()).step_by(bytes.len() / 16 + 1);
    let cut = places.clone().map(|at| bytes[..at].to_vec());
    let flipped = places.map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    cut.chain(flipped).chain([[bytes, b"x"].concat()]).collect()
}

#[tokio::test]
async fn what_is_pinned_and_damaged_is_named_and_stays_as_it_is() {
    local(async |bench| {
        bench.join().await.unwrap();
        let whole = tree(bench.state.path());
        let file = |name: &str| bench.state.path().join("preboot").join(name);
        let mut rows: Vec<(&str, Vec<u8>, Code)> = Vec::new();
        for name in ["charters", "admit"] {
            let bytes = fs::read(file(name)).unwrap();
            rows.extend(damaged(&bytes).into_iter().map(|bytes| (name, bytes, Code::HandoverRejected)));
        }
        let pem = fs::read_to_string(file("bundle.pem")).unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for (text, code) in [
            ("", Code::BundleEmpty),
            ("junk", Code::BundleInvalid),
            (&pem[..pem.len() / 2], Code::BundleJunk),
            (&format!("{pem}{key}"), Code::BundlePrivateKey),
        ] {
            rows.push(("bundle.pem", text.as_bytes().to_vec(), code));
        }
        rows.push(("gateways", vec![0xff], Code::HandoverRejected));
        for text in ["", "http://127.0.0.1:1\n", "127.0.0.1:0\n", "127.0.0.1:70000\n"] {
            rows.push(("gateways", text.as_bytes().to_vec(), Code::InviteBroken));
        }
        for (name, bytes, code) in rows {
            fs::write(file(name), &bytes).unwrap();
            let before = tree(bench.state.path());
            let failure = bench.run(&[]).await.unwrap_err();
            assert_eq!(failure.code, code, "{name}, {} bytes: {failure}", bytes.len());
            assert_eq!(tree(bench.state.path()), before, "{name}: something was written");
            fs::write(file(name), &whole[&file(name)]).unwrap();
        }
        bench.run(&[]).await.unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn a_boot_key_that_is_damaged_or_another_object_is_named_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    local(async |bench| {
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap();
        let path = bench.keys_directory().join("boot.sealed");
        let good = fs::read(&path).unwrap();
        let node = fs::read(path.with_file_name("node.sealed")).unwrap();
        let rows = damaged(&good).into_iter().map(|bytes| (bytes, Code::SealedKeyDamaged));
        // What musterd opens is nothing for preboot, under whatever name.
        for (bytes, code) in rows.chain([(node, Code::ImageNotApproved)]) {
            fs::write(&path, &bytes).unwrap();
            let before = tree(bench.state.path());
            tpm.power_cycle().unwrap();
            let failure = bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap_err();
            assert_eq!(failure.code, code, "{} bytes: {failure}", bytes.len());
            assert_eq!(tree(bench.state.path()), before, "something was written");
        }
        fs::write(&path, good).unwrap();
        let away = bench.state.path().join("away");
        fs::rename(&path, &away).unwrap();
        tpm.power_cycle().unwrap();
        let failure = bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap_err();
        assert_eq!((failure.code, path.exists()), (Code::KeysMissing, false));
        fs::rename(&away, &path).unwrap();
        tpm.power_cycle().unwrap();
        bench.boot(&tpm, b"image", &[]).await.unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn an_invite_that_is_damaged_makes_nothing() {
    local(async |bench| {
        let line = fs::read(&bench.invite).unwrap();
        let bodies = [b"\xef\xbb\xbf".as_slice(), b"\0", b"\xff\xfe"].map(|head| [head, &line].concat());
        for bytes in damaged(line.trim_ascii()).into_iter().chain(bodies) {
            fs::write(&bench.invite, &bytes).unwrap();
            let failure = bench.join().await.unwrap_err();
            assert_eq!(failure.code.number() / 1000, 3, "{} bytes: {failure}", bytes.len());
            assert!(tree(bench.state.path()).is_empty(), "something was made");
        }
        fs::write(&bench.invite, line).unwrap();
        bench.join().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_machine_is_told_so_and_hands_nothing_over() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.remove("handover");
        bench.held.borrow_mut().barred = Some(Code::Revoked);
        let failure = bench.run(&[]).await.unwrap_err();
        assert_eq!((failure.code, failure.code.exit_status()), (Code::Revoked, 77));
        assert!(!bench.state.path().join("handover").exists());
    })
    .await;
}

#[tokio::test]
async fn a_gateway_set_back_behind_the_anchor_is_refused() {
    local(async |bench| {
        let old = bench.held.borrow().chain.clone();
        bench.held.borrow_mut().extend();
        bench.join().await.unwrap();
        assert_eq!(chain_length(&bench.file("handover/charters")), 2);
        // The disk is set back too; the anchor beside the boot key is not.
        bench.held.borrow_mut().chain = old;
        let first: CharterId = bench.held.borrow().chain.head().id();
        let genesis = bench.held.borrow().chain.genesis().clone();
        let charters = Records::encode(&[Record::from(&genesis)]).unwrap();
        fs::write(bench.state.path().join("preboot/charters"), charters).unwrap();
        assert_eq!(bench.held.borrow().chain.genesis().id(), first);
        assert_eq!(bench.run(&[]).await.unwrap_err().code, Code::GatewayBehind);
        bench.held.borrow_mut().extend();
        bench.run(&[]).await.unwrap();
    })
    .await;
}

fn chain_length(charters: &[u8]) -> usize {
    Records::decode_all(charters).unwrap().len()
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    local(async |bench| {
        assert_eq!(bench.run(&[]).await.unwrap_err().code, Code::NotEnrolled);
        assert_eq!(bench.run(&["--invite", "/nowhere"]).await.unwrap_err().code, Code::FileProblem);
        let line = fs::read_to_string(&bench.invite).unwrap();
        for (text, code) in [
            (line[..line.len() - 5].to_owned(), Code::InviteMalformed),
            ("hello".to_owned(), Code::InviteMalformed),
        ] {
            fs::write(&bench.invite, text).unwrap();
            assert_eq!(bench.join().await.unwrap_err().code, code);
        }
        assert!(!bench.state.path().join("keys").exists(), "nothing was made");
        fs::write(&bench.invite, line).unwrap();
        let bundle = bench.invite.with_extension("pem");
        fs::write(&bundle, "junk").unwrap();
        let flags = ["--invite", bench.invite.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()];
        assert_eq!(bench.run(&flags).await.unwrap_err().code, Code::BundleInvalid);
        // A pinned bundle of another CA stands above the invite's.
        let (other, _) = org(9, bench.address);
        let der = other.chain.head().charter().tls_cas[0].certificate.clone();
        fs::write(&bundle, TrustBundle::from_certificates([der]).unwrap().to_pem()).unwrap();
        // The org's own settings name the right CA, so it is found even so.
        bench.run(&flags).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keys_sealed_by_a_tpm_open_at_the_next_start_and_not_in_another_tpm() {
    let dir = tempfile::tempdir().unwrap();
    let first = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    let second = lab::Swtpm::start(&dir.path().join("two")).unwrap();
    let [tpm, other] = [&first, &second].map(|tpm| text(tpm.device()));
    local(async |bench| {
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.run_with(&["--tpm", tpm], &["--invite", &invite]).await.unwrap();
        let admit = bench.held.borrow().admits.values().next().unwrap().clone();
        let Payload::Admit(admit) = admit.payload() else { panic!("another statement") };
        assert_eq!(admit.assurance, org_trust::Assurance::TpmSoftware);
        bench.run_with(&["--tpm", tpm], &[]).await.unwrap();
        let failure = bench.run_with(&["--tpm", other], &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::TpmReplaced);
        let failure = bench.run_with(&["--key-storage", "file"], &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::KeyFileNotAllowed);
    })
    .await;
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What the org's image key approves of an image.
fn approvals(org: &OrgId, version: &[u8]) -> Approvals {
    let key = ImageSecretKey::from_bytes(&[6; 32]).unwrap();
    let approval = |context: HashContext, image: Pcr| {
        let phase = context.hash(&[org.as_bytes()]);
        let unsigned = Approval { phase, image: *image.as_bytes(), signature: [0; 64] };
        Approval { signature: key.sign(&unsigned.message()), ..unsigned }
    };
    let measured = Pcr::ZERO.extended(version);
    Approvals {
        key: ImageKey(key.public()),
        preboot: approval(HashContext::IMAGE_PREBOOT_PHASE, measured),
        node: approval(HashContext::IMAGE_NODE_PHASE, measured.extended(LEAVE_PREBOOT)),
    }
}

#[tokio::test]
async fn keys_open_to_preboot_until_the_machine_is_a_member_and_to_the_node_phase_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    let mut other = lab::Swtpm::start(&dir.path().join("other")).unwrap();
    local(async |bench| {
        let (keys, device) = (bench.keys_directory(), Tpm::open(tpm.device()).unwrap());
        let invite = bench.invite.to_str().unwrap().to_owned();
        let kept = || Custody::sealed(device.clone(), &keys).unwrap();
        let bound = |phase| kept().is_bound_to::<NodeSecrets>(phase, &keys).unwrap();
        // The power goes before the admission is here.
        bench.held.borrow_mut().silent = true;
        bench.boot(&tpm, b"image 1", &["--invite", &invite]).await.unwrap_err();
        assert!(bound(Phase::Preboot), "it has to ask again with these");
        let error = kept().load::<NodeSecrets>(&keys).unwrap_err();
        assert_eq!(error.kind(), Kind::Image, "preboot is over, and nothing behind it needs them");
        let node = bench.file("keys/node.sealed");
        tpm.power_cycle().unwrap();
        bench.held.borrow_mut().silent = false;
        bench.boot(&tpm, b"image 1", &["--invite", &invite]).await.unwrap();
        assert_eq!(bench.held.borrow().admits.len(), 1);
        assert!(bound(Phase::Node) && bench.file("keys/node.sealed") != node);
        kept().load::<NodeSecrets>(&keys).unwrap();
        assert_eq!(kept().load::<BootSecrets>(&keys).unwrap_err().kind(), Kind::Image, "not the node's");
        // A later image of the org opens them; the settings went on in between.
        tpm.power_cycle().unwrap();
        bench.held.borrow_mut().extend();
        bench.boot(&tpm, b"image 2", &[]).await.unwrap();
        kept().load::<NodeSecrets>(&keys).unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
        // One that nobody approved, and none.
        tpm.power_cycle().unwrap();
        device.extend(12, b"init=/bin/sh").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::AddedToImage);
        tpm.power_cycle().unwrap();
        device.extend(7, b"Secure Boot is off").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::FirmwareChanged);
        tpm.power_cycle().unwrap();
        device.extend(11, b"something before the image").unwrap();
        assert_eq!(bench.boot(&tpm, b"image 2", &[]).await.unwrap_err().code, Code::ImageNotApproved);
        let plain = bench.run_with(&["--tpm", text(tpm.device())], &[]).await.unwrap_err();
        assert_eq!(plain.code, Code::OtherImageKey);
        // A bad disk, another TPM, and back.
        let good = bench.file("keys/boot.sealed");
        let mut flipped = good.clone();
        flipped[200] ^= 1;
        for (tpm, bytes, code) in
            [(&mut tpm, &flipped, Code::SealedKeyDamaged), (&mut other, &good, Code::TpmReplaced)]
        {
            fs::write(keys.join("boot.sealed"), bytes).unwrap();
            tpm.power_cycle().unwrap();
            assert_eq!(bench.boot(tpm, b"image 2", &[]).await.unwrap_err().code, code);
        }
        tpm.power_cycle().unwrap();
        bench.boot(&tpm, b"image 2", &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keys_sealed_without_an_image_are_bound_to_the_first_that_boots_and_a_renewed_boot_key_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(dir.path()).unwrap();
    local(async |bench| {
        let (keys, device) = (bench.keys_directory(), Tpm::open(tpm.device()).unwrap());
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.run_with(&["--tpm", text(tpm.device())], &["--invite", &invite]).await.unwrap();
        let before: NodeSecrets = Custody::Tpm(device.clone()).load(&keys).unwrap();
        bench.boot(&tpm, b"image 1", &[]).await.unwrap();
        let kept = Custody::sealed(device.clone(), &keys).unwrap();
        assert!(kept.is_bound_to::<BootSecrets>(Phase::Preboot, &keys).unwrap());
        assert!(kept.load::<NodeSecrets>(&keys).unwrap() == before, "the same machine");
        assert_eq!(bench.held.borrow().asked, 1);
        // musterd, which cannot open the boot half, lays a new key beside it.
        let seed = || Seed::new(&[77; 32]);
        kept.store(&keys, &NextBoot { boot: seed() }).unwrap();
        tpm.power_cycle().unwrap();
        let refused = bench.boot(&tpm, b"image 1", &[]).await.unwrap_err();
        assert_eq!(refused.code, Code::HandoverRejected, "no change of the org names that key");
        assert!(!Custody::is_kept::<NextBoot>(&keys).unwrap());
        tpm.power_cycle().unwrap();
        device.extend(11, b"image 1").unwrap();
        let boot: BootSecrets = kept.load(&keys).unwrap();
        assert!(boot.boot == seed());
    })
    .await;
}

/// A node image of more than one question.
fn image() -> Vec<u8> {
    (0..20 * BLOB_PIECE_BYTES + 7).map(|at| u8::try_from(at % 253).unwrap()).collect()
}

fn outline() -> Outline {
    let mut outliner = Outliner::default();
    image().chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    outliner.finish().unwrap()
}

/// An honest gateway.
fn images(request: BlobRequest) -> Vec<BlobReply> {
    match request {
        BlobRequest::Wanted => vec![BlobReply::Wanted(b"signed".to_vec())],
        BlobRequest::Nodes { first: 0, .. } => vec![BlobReply::Nodes(outline().encode())],
        BlobRequest::Nodes { .. } => vec![BlobReply::Refused(Code::NodeImageNotHeld)],
        BlobRequest::Pieces { first, count, .. } => {
            let from = usize::try_from(first).unwrap() * BLOB_PIECE_BYTES;
            let image = image();
            let pieces = image[from..].chunks(BLOB_PIECE_BYTES).take(count.into());
            pieces.map(|piece| BlobReply::Piece(piece.to_vec())).collect()
        }
    }
}

async fn fetched(bench: &Bench, first: u32) -> Outcome<Vec<u8>> {
    let mut images = bench.images().await?;
    let outline = images.outline(outline().hash(), outline().bytes()).await?;
    let mut got = Vec::new();
    images
        .pieces(&outline, first, |piece| {
            got.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    images.close().await;
    Ok(got)
}

#[tokio::test]
async fn a_node_image_is_fetched_with_the_boot_key_from_the_piece_that_is_missing() {
    local(async |bench| {
        bench.join().await.unwrap();
        let mut session = bench.images().await.unwrap();
        assert_eq!(session.wanted().await.unwrap().unwrap(), b"signed");
        assert!(fetched(&bench, 0).await.unwrap() == image());
        assert!(fetched(&bench, 19).await.unwrap() == image()[19 * BLOB_PIECE_BYTES..]);
        bench.held.borrow_mut().images = |_| vec![BlobReply::Refused(Code::NodeImageNotHeld)];
        assert_eq!(bench.images().await.unwrap().wanted().await.unwrap(), None);
        assert_eq!(fetched(&bench, 0).await.unwrap_err().code, Code::NodeImageNotHeld);
        bench.held.borrow_mut().barred = Some(Code::Revoked);
        assert_eq!(bench.images().await.unwrap_err().code, Code::Revoked);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_sends_another_image_is_refused_at_the_first_piece() {
    local(async |bench| {
        bench.join().await.unwrap();
        bench.held.borrow_mut().images = |request| {
            let mut replies = images(request);
            if let (BlobRequest::Pieces { .. }, [_, BlobReply::Piece(piece), ..]) =
                (request, &mut replies[..])
            {
                piece[100] ^= 1;
            }
            replies
        };
        let mut session = bench.images().await.unwrap();
        let outline = session.outline(outline().hash(), outline().bytes()).await.unwrap();
        let mut taken = 0;
        let refused = session.pieces(&outline, 0, |_| {
            taken += 1;
            Ok(())
        });
        assert_eq!(refused.await.unwrap_err().code, Code::NodeImageDamaged);
        assert_eq!(taken, 1, "nothing of the wrong one or after it");
        // An outline of another image, and one that is cut short.
        assert_eq!(
            bench.images().await.unwrap().outline(BlobHash([1; 32]), outline.bytes()).await.unwrap_err().code,
            Code::NodeImageDamaged
        );
        bench.held.borrow_mut().images = |_| vec![BlobReply::Nodes(vec![0; 32])];
        assert_eq!(fetched(&bench, 0).await.unwrap_err().code, Code::NodeImageDamaged);
    })
    .await;
}
