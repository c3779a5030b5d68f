//! What the corpora begin with, from the published vectors: `cargo xtask fuzz --seed-corpora`.

#![cfg(test)]

use std::{fmt::Write as _, fs, io::Read as _, path::Path};

use boot_image::{Archive, DiskToken, PINS_DIRECTORY, Pins, Uki};
use flate2::read::GzDecoder;
use identity::{BlobHash, Code, Name, Outliner, SecretKey, limits::BLOB_PIECE_BYTES};
use member_crdt::{Replica, Session};
use muster_fuzz::{
    EXCHANGE,
    fixture::{HANDSHAKE, ORG, RELEASE, TPM, Tpm, stub},
};
use muster_peer::{Header, Peer};
use musterd::store::{Disk as _, Store};
use org_trust::{
    Admin, BlobReply, BlobRequest, Charter, CharterChain, Gateway, GatewayRequest, Invite, InviteManifest,
    Lane, Place, PutReply, PutRequest, Record, Records, Statement, TrustBundle, UnverifiedCharter,
};
use policy::PolicyFile;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::Value;
use tpm_seal::{Approval, Approvals, ImageKey};

#[test]
#[ignore = "writes fuzz/corpus"]
fn write_the_seeds() {
    lines();
    for kind in ["batch", "charter", "enrol", "reply", "report", "request", "statement"] {
        write(kind, ORG.of_kind(kind).map(<[u8]>::to_vec));
    }
    write("approvals", approvals());
    write("blob", frames());
    write("bundle", bundles());
    write("config", CONFIG.iter().map(|text| text.as_bytes().to_vec()));
    write("control", CONTROL.iter().map(|json| json.as_bytes().to_vec()));
    write("dhcp", leases());
    write("disk_token", tokens());
    write("gateway", GATEWAY.iter().map(|json| json.as_bytes().to_vec()));
    write("generation", [RELEASE.1.clone()]);
    write("http_answer", answers());
    write("http_request", requests());
    write("image", [image()]);
    write("initramfs", initramfs());
    write("invite", invites());
    write("outline", outlines());
    write("packet", packets());
    write("pins", pinned());
    write("policy", policies());
    write("proxy_header", proxy_headers());
    write("sealed_blob", blobs());
    #[cfg(feature = "seed-wire")]
    write("seed_wire", first_wire());
    write("stream", [connection()]);
    write("swim", probes());
    write("sync", dialogues());
    write("gateway_config", GATEWAY_CONFIG.iter().map(|text| text.as_bytes().to_vec()));
    write("gateway_request", gateway_requests());
    write("handover", handovers());
    write("store", stores());
    write("tls_files", tls_files());
    write("tpm_certificate", TPM.iter().flat_map(|tpm| [tpm.certificate.clone(), tpm.ca.clone()]));
    write("tpm_key", TPM.iter().map(|tpm| tpm.key.clone()));
    write("tpm_quote", TPM.iter().map(quote));
}

/// As a file, and as it is signed.
fn policies() -> [Vec<u8>; 2] {
    let page = include_str!("../../docs/policy.md");
    let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    [text.as_bytes().to_vec(), PolicyFile::parse(text).unwrap().policy.encode()]
}

fn quote(tpm: &Tpm) -> Vec<u8> {
    let length = u8::try_from(tpm.quote.len()).unwrap();
    [&[length], tpm.quote.as_slice(), &tpm.signature].concat()
}

/// The lines of many handshakes: those of the first one are what the targets can accept.
fn lines() {
    let text = include_str!("../../tests/vectors/conn-auth-v1.json");
    let all: Value = serde_json::from_str(text).unwrap();
    for target in ["hello", "challenge", "proof", "verdict"] {
        let sides = all["vectors"].as_array().unwrap().iter().flat_map(|v| [&v["dialler"], &v["acceptor"]]);
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for line in sides.filter_map(|side| side[target].as_str()) {
            let line: Vec<u8> = line.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        write(target, lines.into_iter().take(12));
    }
}

/// The whole, and what stands between its frame.
fn approvals() -> Vec<Vec<u8>> {
    let approval = |n| Approval { phase: [n; 32], image: [n + 1; 32], signature: [n + 2; 64] };
    let all = Approvals { key: ImageKey([9; 64]), preboot: approval(1), node: approval(4) }.encode();
    vec![all[9..all.len() - 32].to_vec(), all]
}

/// One question and one answer of each kind.
fn frames() -> Vec<Vec<u8>> {
    let file = BlobHash([7; 32]);
    let questions = [
        BlobRequest::Wanted,
        BlobRequest::Nodes { file, first: 1024 },
        BlobRequest::Pieces { file, first: 3, count: 16 },
    ];
    let answers = [
        BlobReply::Wanted(RELEASE.1.clone()),
        BlobReply::Nodes(vec![2; 64]),
        BlobReply::Piece(vec![3; 100]),
        BlobReply::Refused(Code::NodeImageNotHeld),
    ];
    let (bytes, mut outliner) = (vec![5; 100], Outliner::default());
    bytes.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
    let made = outliner.finish().unwrap();
    let mut puts = vec![
        PutRequest::Put { file: made.hash(), bytes: made.bytes() }.encode(),
        PutRequest::Nodes(made.encode()).encode(),
    ];
    puts.extend(bytes.chunks(BLOB_PIECE_BYTES).map(|piece| PutRequest::Piece(piece.to_vec()).encode()));
    let framed = |frame: &Vec<u8>| {
        let length = u16::try_from(frame.len()).unwrap().to_le_bytes();
        [&length[..], frame].concat()
    };
    let whole = puts.iter().map(framed).collect::<Vec<_>>().concat();
    let replies = [PutReply::Nodes, PutReply::From(3), PutReply::Kept, PutReply::Refused(Code::BlobsFull)];
    let mut frames: Vec<_> = questions.iter().map(BlobRequest::encode).collect();
    frames.extend(answers.iter().map(BlobReply::encode));
    frames.extend(puts.into_iter().take(2));
    frames.extend(replies.iter().map(PutReply::encode));
    frames.extend([BlobRequest::Remove { file }.encode(), whole]);
    frames
}

/// Hash, length and nodes of files of one piece and of several.
fn outlines() -> Vec<Vec<u8>> {
    let outline = |bytes: usize| {
        let (file, mut outliner) = (vec![5; bytes], Outliner::default());
        file.chunks(BLOB_PIECE_BYTES).for_each(|piece| outliner.push(piece).unwrap());
        let made = outliner.finish().unwrap();
        [made.hash().as_bytes().as_slice(), &made.bytes().to_le_bytes(), &made.encode()].concat()
    };
    [100, BLOB_PIECE_BYTES + 1, 5 * BLOB_PIECE_BYTES].map(outline).into()
}

fn image() -> Vec<u8> {
    let mut uki = Uki::new(&stub()).unwrap();
    for (name, content) in [(".osrel", "ID=muster\n"), (".cmdline", "quiet"), (".linux", "kernel")] {
        uki.add(name, content.as_bytes().to_vec()).unwrap();
    }
    uki.add(".initrd", tree().pack().unwrap()).unwrap();
    uki.assemble().unwrap()
}

/// The archive as it is kept, and unpacked.
fn initramfs() -> Vec<Vec<u8>> {
    let (packed, mut cpio) = (tree().pack().unwrap(), Vec::new());
    GzDecoder::new(packed.as_slice()).read_to_end(&mut cpio).unwrap();
    vec![packed, cpio]
}

fn tree() -> Archive {
    let mut tree = Archive::default();
    tree.file("usr/bin/muster-preboot", vec![0x7f; 40], true);
    tree.file("muster/gateways", b"g:443\n".to_vec(), false);
    tree.link("init", "usr/bin/muster-preboot");
    tree.directory("proc");
    tree
}

/// With all that an image can pin, and without what it need not.
fn pinned() -> Vec<Vec<u8>> {
    let [release, recovery] = [6, 7].map(|n| SecretKey::from_seed(&[n; 32]).public());
    let all = Pins {
        settings: Records::encode(&[Record::from(&ORG.genesis)]).unwrap(),
        bundle: certificate(true).pem(),
        gateways: vec!["g.example:443".to_owned(), "[fd00::1]:443".to_owned()],
        release,
        image_key: [5; 64],
        secure_boot: Some([6; 32]),
        recovery,
        built_unix_s: 1_800_000_000,
        share: Some(1),
        without_gateway: true,
        invite: Some("muster-invite-1:AAAA".to_owned()),
    };
    let least = Pins { secure_boot: None, share: None, without_gateway: false, invite: None, ..all.clone() };
    let files = |pins: Pins| {
        let (mut archive, mut files) = (Archive::default(), Vec::new());
        pins.put(&mut archive);
        let read = Pins::read(|name| {
            let content = archive.content(&format!("{PINS_DIRECTORY}/{name}"))?;
            files.extend(one(content));
            Some(content.to_vec())
        });
        assert_eq!(read, Ok(pins));
        files
    };
    vec![files(all), files(least)]
}

/// Of a disk as it was made, and of one whose key is another, with a gateway's share.
fn tokens() -> [Vec<u8>; 2] {
    let machine = SecretKey::from_seed(&[3; 32]).public();
    let first = DiskToken { machine, share: None, slot: 0 };
    [first, first.with_key_of(Some(1))].map(|token| {
        let json = format!("{{\"keyslots\":{{}},\"tokens\":{{\"0\":{}}}}}", token.to_json());
        json.into_bytes()
    })
}

/// Of a member inside a tunnel, and of somebody else's proxy.
fn proxy_headers() -> [Vec<u8>; 2] {
    let peer = Peer {
        name: "web-1".to_owned(),
        key: "ab".repeat(32),
        roles: vec!["db-client".to_owned(), "web".to_owned()],
        labels: vec!["eu".to_owned()],
        action: "postgres".to_owned(),
        reference: "00".repeat(8),
    };
    let (source, destination) = ("[fd00::1]:40000".parse().unwrap(), "[fd00::2]:4714".parse().unwrap());
    let (from, to) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    let ours = Header { source, destination, peer: Some(peer) };
    [ours, Header { source: from, destination: to, peer: None }].map(|header| header.encode())
}

/// An offer, what was asked of it being given, and a refusal.
fn leases() -> Vec<Vec<u8>> {
    let answer = |kind: u8| {
        let mut packet = EXCHANGE.discover();
        packet.truncate(240);
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
        packet.extend([53, 1, kind, 54, 4, 10, 0, 2, 2, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2]);
        packet.extend([6, 8, 10, 0, 2, 3, 10, 0, 2, 4, 255]);
        assert!(EXCHANGE.read(&packet).is_some());
        packet
    };
    [2, 5, 6].map(answer).into()
}

fn bundles() -> Vec<Vec<u8>> {
    let (one, other) = (certificate(true), certificate(false));
    vec![one.pem().into_bytes(), one.der().to_vec(), other.der().to_vec()]
}

fn certificate(ca: bool) -> rcgen::Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "acme");
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
    params.self_signed(&tls_key(u8::from(ca))).unwrap()
}

/// Always the same, so that writing the seeds anew changes only what a format changed.
fn tls_key(seed: u8) -> KeyPair {
    // Ed25519 in PKCS 8.
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    KeyPair::try_from([&head[..], &[seed; 32]].concat()).unwrap()
}

fn requests() -> Vec<Vec<u8>> {
    let head = format!(
        "GET /auth HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Hello: {}\r\n\r\n",
        HANDSHAKE.hello
    );
    let mut session = head.into_bytes();
    // TEXT with PROOF, PING, BINARY, CLOSE; the mask is zero.
    let proof = HANDSHAKE.proof.as_bytes();
    session.extend([0x81, 0x80 | 126, 0, u8::try_from(proof.len()).unwrap(), 0, 0, 0, 0]);
    session.extend(proof);
    session.extend([0x89, 0x80, 0, 0, 0, 0, 0x82, 0x83, 0, 0, 0, 0, 1, 2, 3, 0x88, 0x80, 0, 0, 0, 0]);
    let get = format!("GET /charters?after={} HTTP/1.1\r\nHost: g\r\n\r\n", ORG.genesis.id());
    vec![session, get.into_bytes(), b"GET / HTTP/1.1\r\nHost: g\r\nOrigin: http://x\r\n\r\n".to_vec()]
}

fn answers() -> Vec<Vec<u8>> {
    let body = transport::encode_charters([[1, 2, 3].as_slice(), &[4]]);
    let mut page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    page.extend(body);
    let refused =
        "HTTP/1.1 400 Bad Request\r\nMuster-Challenge: no ref=0011223344556677\r\nContent-Length: 0\r\n\r\n";
    let switched = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: muster.auth.v1\r\n\
         Muster-Challenge: {}\r\n\r\n",
        HANDSHAKE.challenge
    );
    vec![page, refused.as_bytes().to_vec(), switched.into_bytes()]
}

/// All that a dialler sends in a tunnel: two lines and two frames.
fn connection() -> Vec<u8> {
    let lines = format!("{}\n{}\n", HANDSHAKE.hello, HANDSHAKE.proof);
    [lines.as_bytes(), &[0; 4], &[3, 0, 0, 0], b"abc", &[0, 2, 0, 0]].concat()
}

/// The first line of the handshake as first published, with parameters and with what answers a challenge.
#[cfg(feature = "seed-wire")]
fn first_wire() -> Vec<Vec<u8>> {
    let key = SecretKey::from_seed(&[1; 32]);
    let dial = conn_auth::v0::Dial { key: &key, action: conn_auth::Action::new("boot", &[]).unwrap() };
    let hello = dial.hello();
    let both = format!("{hello}\n{}", dial.on_challenge(&[5; 32]));
    vec![hello.clone().into_bytes(), format!("{hello} a=1 b=two").into_bytes(), both.into_bytes()]
}

/// One datagram of each kind, all of them, and news of the third node and of the reader.
fn probes() -> Vec<Vec<u8>> {
    let [me, peer, other] = [1, 2, 3].map(|n| *SecretKey::from_seed(&[n; 32]).public().as_bytes());
    let datagram = |kind: u8, news: &[([u8; 32], u8)]| {
        let mut bytes = [&[kind, u8::from(kind != 7), 0, 0][..], &peer, &me].concat();
        if (3..=6).contains(&kind) {
            bytes.extend(other);
        }
        bytes.extend([0, u8::try_from(news.len()).unwrap()]);
        for (node, state) in news {
            bytes.extend([&node[..], &[0, 0, *state]].concat());
        }
        [&[u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
    };
    let mut all: Vec<Vec<u8>> = (1..=7).map(|kind| datagram(kind, &[])).collect();
    all.push(datagram(7, &[(other, 1), (me, 1), (other, 2), (me, 2)]));
    all.push(all.concat());
    all
}

/// A packet of each kind that may pass a tunnel, and one that may not.
fn packets() -> Vec<Vec<u8>> {
    let ipv6 = |next: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let mut packet = [&[0x60, 0, 0, 0][..], &length, &[next, 64]].concat();
        packet.extend([0xfd; 16]);
        packet.extend([0xfc; 16]);
        packet.extend(body);
        packet
    };
    let tcp = |to: u16, flags: u8| {
        let mut body = [&4000u16.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &[0x50, flags]].concat();
        body.extend([0; 6]);
        ipv6(6, &body)
    };
    let udp = |to: u16| ipv6(17, &[&53u16.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat());
    let about = tcp(4714, 2);
    vec![
        tcp(4714, 2),
        tcp(22, 2),
        tcp(4000, 0x12),
        udp(53),
        ipv6(58, &[128, 0, 0, 0, 0, 7, 0, 1]),
        ipv6(58, &[129, 0, 0, 0, 0, 7, 0, 1]),
        ipv6(58, &[&[1, 0, 0, 0, 0, 0, 0, 0][..], &about].concat()),
        ipv6(44, &[6, 0, 0, 0, 0, 0, 0, 0]),
    ]
}

/// A line, and the contents of it.
fn invites() -> Vec<Vec<u8>> {
    let [root, admin, gateway, node, secret] = [1, 2, 3, 4, 5].map(|n| SecretKey::from_seed(&[n; 32]));
    let name = |text| Name::parse(text).unwrap();
    let mut charter = Charter::genesis(name("acme"), 1, vec![root.public()], [9; 16]);
    charter.admins = vec![Admin { key: admin.public(), name: name("ada") }];
    charter.gateways = vec![Gateway { key: gateway.public(), node: node.public() }];
    let genesis = UnverifiedCharter::sign(charter, &[&root]).unwrap().verify_genesis().unwrap();
    let place = Place { charter: genesis.id(), lane: Lane::Main, seq: 0, prev: genesis.id().0 };
    let invite = Invite {
        key: secret.public(),
        uses: 1,
        redeemer: gateway.public(),
        labels: vec![],
        expires_unix_s: 0,
        note: String::new(),
        approval: false,
        attestation: false,
        tpms: Vec::new(),
    };
    let invite = Statement::sign(&genesis.org(), &admin, place, &invite.into()).unwrap();
    let bundle = TrustBundle::from_certificates([certificate(true).der().to_vec()]).unwrap();
    let chain = CharterChain::start(genesis).unwrap();
    let manifest = InviteManifest::new(&chain, &bundle, vec!["g:443".to_owned()], &invite, &secret).unwrap();
    let line = manifest.to_line().to_string();
    let contents = base64url(line.strip_prefix(InviteManifest::PREFIX).unwrap());
    vec![contents[..contents.len() - 8].to_vec(), line.into_bytes(), b"muster-invite-2:AAAA".to_vec()]
}

fn base64url(digits: &str) -> Vec<u8> {
    let alphabet = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect::<String>();
    let bits = digits.chars().fold(String::new(), |mut bits, c| {
        write!(bits, "{:06b}", alphabet.find(c).unwrap()).unwrap();
        bits
    });
    bits.as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(core::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

/// What stands between version and checksum, by docs/spec/sealed-objects.md.
fn blobs() -> Vec<Vec<u8>> {
    use sha2::{Digest as _, Sha256};
    let policy = Sha256::new()
        .chain_update([0; 32])
        .chain_update([0x00, 0x00, 0x01, 0x6c])
        .chain_update([0x00, 0x00, 0x01, 0x5e])
        .finalize();
    let mut blob = vec![1, 1, 0x00, 0x0b];
    blob.extend([7; 32]);
    blob.extend([0x00, 0x08, 0x00, 0x0b, 0x00, 0x00, 0x04, 0x12, 0x00, 0x20]);
    blob.extend(policy);
    blob.extend([0x00, 0x10, 0x00, 0x20]);
    blob.extend([3; 32]);
    blob.extend([190, 0]);
    blob.extend([5; 190]);
    let mut whole = [b"MUSTSEAL\x01", blob.as_slice()].concat();
    let sum = Sha256::digest(&whole);
    whole.extend_from_slice(&sum);
    muster_fuzz::sealed_blob(&whole);
    vec![blob, whole]
}

/// What peers send in whole rounds, and every frame of the published vectors alone.
fn dialogues() -> Vec<Vec<u8>> {
    let most = ["invite", "admit by invite", "admit by an admin", "revoke"];
    // The same place in the admin's lane as the invite's: tips do not tell these two apart.
    let fork = ["invite with approval"];
    let mut seeds: Vec<Vec<u8>> =
        [(&most[..], true), (&most[..], false), (&fork[..], true), (&fork[..], false)]
            .map(|(held, begun_here)| dialogue(held, begun_here))
            .into();
    let all: Value = serde_json::from_str(include_str!("../../tests/vectors/sync-v1.json")).unwrap();
    seeds.extend(all["frames"].as_array().unwrap().iter().map(|frame| {
        let frame = frame["bytes"].as_str().unwrap().as_bytes();
        let frame: Vec<u8> =
            frame.chunks(2).map(|pair| identity::decode_hex::<1>(pair).unwrap()[0]).collect();
        one(&frame)
    }));
    seeds
}

/// All frames of a peer that holds these statements of the vectors, in a round that this side began
/// or that the peer did.
fn dialogue(held: &[&str], begun_here: bool) -> Vec<u8> {
    let mut here = Replica::new(&ORG.genesis).unwrap();
    here.apply(&Record::Statement(ORG.named("statement: invite").to_vec())).unwrap();
    let mut there = Replica::new(&ORG.genesis).unwrap();
    for name in held {
        there.apply(&Record::Statement(ORG.named(&format!("statement: {name}")).to_vec())).unwrap();
    }
    drop(there.apply(&Record::Report(ORG.named("report").to_vec())));
    let (mut session, mut peer) = (Session::new(), Session::new());
    let mut inward = Vec::new();
    let opened = session.open(&here);
    let mut outward = vec![opened];
    if !begun_here {
        inward.push(peer.open(&there));
        outward.clear();
    }
    let mut seen = Vec::new();
    while !inward.is_empty() || !outward.is_empty() {
        for frame in outward.drain(..) {
            inward.extend(peer.handle(&mut there, &frame).unwrap().send);
        }
        for frame in inward.drain(..) {
            seen.extend(one(&frame));
            outward.extend(session.handle(&mut here, &frame).unwrap().send);
        }
    }
    assert_eq!(here.heads(), there.heads());
    seen
}

fn one(part: &[u8]) -> Vec<u8> {
    [&u16::try_from(part.len()).unwrap().to_le_bytes()[..], part].concat()
}

/// The line, and what is in it.
fn gateway_requests() -> Vec<Vec<u8>> {
    let [node, gateway] = [4, 3].map(|n| SecretKey::from_seed(&[n; 32]));
    let request = GatewayRequest::sign(&ORG.id, &node, &gateway, [7; 32], "g.example:443").unwrap();
    let line = request.to_line();
    let contents = base64url(line.strip_prefix(GatewayRequest::PREFIX).unwrap());
    vec![line.into_bytes(), contents, b"muster-gateway-2:AAAA".to_vec()]
}

/// Settings, admission and records, each behind its length; all there is, and without the last.
fn handovers() -> Vec<Vec<u8>> {
    let statement = |name: &str| Record::Statement(ORG.named(&format!("statement: {name}")).to_vec());
    let settings = Records::encode(&[Record::from(&ORG.genesis)]).unwrap();
    let records = ["admit by an admin", "invite", "revoke", "cancel"].map(statement);
    let records = Records::encode(&records).unwrap();
    let admit = ORG.named("statement: admit by invite");
    vec![[one(&settings), one(admit), one(&records)].concat(), [one(&settings), one(admit)].concat()]
}

/// A file of one whole document and one change to it, with and without the note beside it.
fn stores() -> Vec<Vec<u8>> {
    let mut replica = Replica::new(&ORG.genesis).unwrap();
    let mut disk = muster_fuzz::Memory::default();
    let (mut store, _) = Store::open(disk.clone()).unwrap();
    store.replace(&ORG.id, &replica.save().unwrap()).unwrap();
    replica.apply(&Record::Statement(ORG.named("statement: invite").to_vec())).unwrap();
    store.append(&replica.save_incremental().unwrap()).unwrap();
    drop(store);
    let (members, note) = (disk.read().unwrap().unwrap(), disk.read_acknowledged().unwrap().unwrap());
    vec![[one(&note), members.clone()].concat(), [one(&[]), members].concat()]
}

/// A certificate and its key.
fn tls_files() -> Vec<Vec<u8>> {
    let key = tls_key(2);
    let certificate = CertificateParams::new(vec!["g".to_owned()]).unwrap().self_signed(&key).unwrap();
    vec![[one(certificate.pem().as_bytes()), key.serialize_pem().into_bytes()].concat()]
}

fn write(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:02}")), seed).unwrap();
    }
}

const CONFIG: &[&str] = &[
    "state_dir = '/var/lib/muster'\n[keys]\nstorage = 'tpm'\ntpm = '/dev/tpmrm0'\n[network]\n\
     interface = 'muster0'\nport = 51820\nauth_port = 4714\nendpoints = ['192.0.2.1:3', '[fd00::1]:4']\n\
     allow = ['tcp/22', 'udp/53', 'all']\n[control]\nsocket = '/run/muster/musterd.sock'\n\
     [gateway]\nsocket = '/run/muster-gateway/gateway.sock'\n",
    "[network]\nprot = 1",
    "[network]\nport = 65536",
    "[members]\non_stale = 'deny-new'\nstale_after = '10m'\non_clone = 'refuse'\n",
];

const GATEWAY_CONFIG: &[&str] = &[
    "listen = '[::]:443'\ncertificate = '/etc/muster/gateway.crt'\nkey = '/etc/muster/gateway.key'\n\
     musterd = '/run/muster-gateway/gateway.sock'\n",
    "listen = ['192.0.2.1:443', '[fd00::1]:443']\ncertificate = '/a'\nkey = '/b'\n",
    "listne = '[::]:443'",
];

const CONTROL: &[&str] = &[
    r#"{"status":{}}"#,
    r#"{"member":{"node":"web-1"}}"#,
    r#"{"ping":{"node":"web-1","count":3}}"#,
    r#"{"submit":{"records":["0200","01"]}}"#,
    r#"{"place":{"author":"8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394","lane":1}}"#,
    r#"{"coverage":{"change":"0101010101010101010101010101010101010101010101010101010101010101"}}"#,
    r#"{"export":{"from":18446744073709551615}}"#,
    r#"{"failed":{"code":"MU-1403","detail":"web-1"}}"#,
    r#"{"linked":{"name":"n","node":"8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394","address":"fd00::1","already":true}}"#,
    r#"{"members":[]}"#,
];

const GATEWAY: &[&str] = &[
    r#"{"begin":{"id":7,"exporter":"0101010101010101010101010101010101010101010101010101010101010101","hello":"6869","source":"192.0.2.1:5000"}}"#,
    r#"{"finish":{"id":7,"proof":"00"}}"#,
    r#"{"data":{"id":7,"frame":"0102"}}"#,
    r#"{"close":{"id":7}}"#,
    r#"{"charters":{"id":7,"after":"0101010101010101010101010101010101010101010101010101010101010101"}}"#,
    r#"{"challenge":{"id":7,"line":"x"}}"#,
    r#"{"verdict":{"id":7,"line":"ok","session":{"frame_bytes_max":4096}}}"#,
    r#"{"cut":{"id":7,"code":"MU-1403","reason":"revoked"}}"#,
    r#"{"charters":{"id":7,"known":true,"charters":["00"]}}"#,
];
