//! A gateway that is played on the loopback, and machines that start at it.

use std::{cell::RefCell, collections::BTreeMap, fs, net::SocketAddr, path::Path, rc::Rc};

use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr};
use clap::Parser as _;
use conn_auth::{Accept, Binding, Holder, Reference, Standing};
use identity::{
    Code, HashContext, Heads, Name, OrgId, Outline, Outliner, PublicKey, SecretKey, limits::BLOB_PIECE_BYTES,
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
use tpm_seal::{Approval, Approvals, ImageKey, Tpm};
use transport::{Deadlines, Incoming, Request, ServerTls, Status, after_of, encode_charters};

use crate::{
    console::Console,
    failure::Outcome,
    gateway::Images,
    keys::Binding as ImageBinding,
    settings::Arguments,
    start::{Image, Started, start},
};

pub(super) fn seed(byte: u8) -> SecretKey {
    SecretKey::from_seed(&[byte; 32])
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// What the played gateway holds.
pub(super) struct Held {
    pub(super) chain: CharterChain,
    pub(super) invite: Statement,
    pub(super) tls: ServerTls,
    /// Admissions by node key.
    pub(super) admits: BTreeMap<PublicKey, Statement>,
    /// What is said to every boot key, when it is a refusal.
    pub(super) barred: Option<Code>,
    /// Requests to enrol.
    pub(super) asked: u32,
    /// The connection ends when the machine asks for its admission.
    pub(super) silent: bool,
    /// Answers to questions of `blob-get`.
    pub(super) images: fn(BlobRequest) -> Vec<BlobReply>,
}

pub(super) struct Bench {
    pub(super) held: Rc<RefCell<Held>>,
    pub(super) address: SocketAddr,
    pub(super) state: tempfile::TempDir,
    /// What the last start that went well left.
    pub(super) started: RefCell<Option<Started>>,
    /// The file with the invite.
    pub(super) invite: std::path::PathBuf,
    pub(super) _files: tempfile::TempDir,
}

/// An org with this salt whose gateway listens at this address, and an invite of it.
pub(super) fn org(salt: u8, address: SocketAddr) -> (Held, String) {
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

pub(super) fn signed(
    chain: &CharterChain,
    author: u8,
    seq: u64,
    prev: [u8; 32],
    payload: Payload,
) -> Statement {
    let place = Place { charter: chain.head().id(), lane: Lane::Main, seq, prev };
    Statement::sign(&chain.org(), &seed(author), place, &payload).unwrap()
}

impl Held {
    pub(super) fn extend(&mut self) {
        let next = self.chain.head().charter().successor();
        self.chain.extend(UnverifiedCharter::sign(next, &[&seed(1)]).unwrap()).unwrap();
    }

    pub(super) fn enrol(&mut self, bytes: &[u8]) -> Statement {
        self.asked += 1;
        let request = EnrolRequest::decode(bytes).unwrap();
        let admit = request.verify(&self.chain.org(), &seed(6).public()).unwrap().into_admit();
        let count = u64::try_from(self.admits.len()).unwrap();
        let made = || signed(&self.chain, 2, count, [0; 32], Payload::Admit(Box::new(admit.clone())));
        self.admits.entry(admit.node).or_insert_with(made).clone()
    }

    pub(super) fn standing(&self, action: &str) -> Standing {
        match (action, self.barred) {
            ("enrol", _) => Standing::Unknown,
            (_, Some(code)) => Standing::Barred(code),
            (_, None) => Standing::Good(Holder::BootKey),
        }
    }
}

/// Serves one connection; a peer that leaves early is none of its business.
pub(super) async fn serve(held: Rc<RefCell<Held>>, tcp: TcpStream) -> Option<()> {
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
            Request::Inner(_) => return None,
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
    pub(super) async fn new() -> Self {
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

    pub(super) async fn run(&self, more: &[&str]) -> Outcome<()> {
        self.run_with(&["--key-storage", "file"], more).await
    }

    pub(super) async fn run_with(&self, storage: &[&str], more: &[&str]) -> Outcome<()> {
        self.run_by(None, storage, more).await
    }

    pub(super) async fn run_by(&self, image: Option<Image>, storage: &[&str], more: &[&str]) -> Outcome<()> {
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
    pub(super) async fn images(&self) -> Outcome<Images> {
        let started = self.started.take().unwrap();
        let mut chain = started.member.chain.clone();
        let gateway = &started.member.gateways[0];
        let images = Box::pin(Images::open(gateway, &started.member, &mut chain, &started.boot)).await;
        self.started.replace(Some(started));
        images
    }

    /// As the first process of an image does: measured by firmware and stub, with the image's approvals.
    pub(super) async fn boot(&self, tpm: &lab::Swtpm, version: &[u8], more: &[&str]) -> Outcome<()> {
        let device = Tpm::open(tpm.device()).unwrap();
        device.extend(11, version).unwrap();
        let chain = self.held.borrow().chain.clone();
        let binding = ImageBinding { approvals: approvals(&chain.org(), version), secure_boot: true };
        let image = Image { chain, gateways: vec![self.address.to_string()], binding };
        let done = self.run_by(Some(image), &["--tpm", text(tpm.device())], more).await;
        device.extend(11, LEAVE_PREBOOT).unwrap();
        done
    }

    pub(super) fn keys_directory(&self) -> std::path::PathBuf {
        self.state.path().join("keys")
    }

    pub(super) async fn join(&self) -> Outcome<()> {
        self.run(&["--invite", self.invite.to_str().unwrap()]).await
    }

    pub(super) fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.state.path().join(path)).unwrap()
    }

    pub(super) fn remove(&self, path: &str) {
        let path = self.state.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    pub(super) fn keys(&self) -> [Vec<u8>; 2] {
        [self.file("keys/boot.key"), self.file("keys/node.key")]
    }

    pub(super) fn handed_over(&self) -> Vec<Record> {
        Records::decode_all(&self.file("handover/records")).unwrap()
    }
}

pub(super) async fn local(test: impl AsyncFnOnce(Bench)) {
    LocalSet::new().run_until(async { test(Bench::new().await).await }).await;
}

/// What the org's image key approves of an image.
pub(super) fn approvals(org: &OrgId, version: &[u8]) -> Approvals {
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

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A node image of more than one question.
pub(super) fn image() -> Vec<u8> {
    (0..20 * BLOB_PIECE_BYTES + 7).map(|at| u8::try_from(at % 253).unwrap()).collect()
}

pub(super) fn outline() -> Outline {
    let mut outliner = Outliner::default();
    image().chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    outliner.finish().unwrap()
}

/// An honest gateway.
pub(super) fn images(request: BlobRequest) -> Vec<BlobReply> {
    match request {
        BlobRequest::Wanted => vec![BlobReply::Wanted(b"signed".to_vec())],
        BlobRequest::Nodes { first: 0, .. } => vec![BlobReply::Nodes(outline().encode())],
        BlobRequest::Nodes { .. } | BlobRequest::Remove { .. } => {
            vec![BlobReply::Refused(Code::NodeImageNotHeld)]
        }
        BlobRequest::Pieces { first, count, .. } => {
            let from = usize::try_from(first).unwrap() * BLOB_PIECE_BYTES;
            let image = image();
            let pieces = image[from..].chunks(BLOB_PIECE_BYTES).take(count.into());
            pieces.map(|piece| BlobReply::Piece(piece.to_vec())).collect()
        }
    }
}
