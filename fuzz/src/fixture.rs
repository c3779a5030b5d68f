//! The keys, lines and records of the published vectors (`tests/vectors`): what the targets are checked
//! against, and what the corpora began with.

#![expect(clippy::indexing_slicing, reason = "files of ours, compiled in")]

use std::sync::LazyLock;

use conn_auth::{Accept, Action, AwaitChallenge, AwaitProof, AwaitVerdict, Binding, Dial, To};
use identity::{Heads, OrgId, PublicKey, SecretKey, WireGuardKey, decode_hex};
use org_trust::{CharterChain, Generation, UnverifiedCharter, VerifiedCharter};
use serde_json::Value;

/// One handshake between two members, and the lines of both sides.
#[derive(Debug)]
pub struct Handshake {
    org: OrgId,
    client: SecretKey,
    server: SecretKey,
    binding: Binding,
    nonce: [u8; 32],
    fresh: [u8; 32],
    heads: Heads,
    count: u64,
    /// HELLO.
    pub hello: String,
    /// CHALLENGE, the answer to it.
    pub challenge: String,
    /// PROOF, the answer to that.
    pub proof: String,
    /// VERDICT.
    pub verdict: String,
}

/// The records, all of one org.
#[derive(Debug)]
pub struct Org {
    /// The org.
    pub id: OrgId,
    /// The key of its invite.
    pub invite_key: PublicKey,
    /// Its first charter.
    pub genesis: VerifiedCharter,
    /// Kind, name and bytes of every record and frame.
    pub vectors: Vec<(String, String, Vec<u8>)>,
}

/// What one TPM said, and the CA of its maker.
#[derive(Debug)]
pub struct Tpm {
    /// That CA, DER.
    pub ca: Vec<u8>,
    /// The endorsement key's certificate.
    pub certificate: Vec<u8>,
    /// The attestation key.
    pub key: Vec<u8>,
    /// What it was asked.
    pub question: [u8; 32],
    /// Registers 7, 11 and 12.
    pub registers: [[u8; 32]; 3],
    /// What it said.
    pub quote: Vec<u8>,
    /// And signed.
    pub signature: Vec<u8>,
}

/// The TPMs of the vectors.
pub static TPM: LazyLock<Vec<Tpm>> = LazyLock::new(|| {
    let all: Value = serde_json::from_str(ATTESTATION).unwrap();
    let all = all["vectors"].as_array().unwrap().iter();
    all.map(|vector| Tpm {
        ca: unhex(&text(&vector["ca"])),
        certificate: unhex(&text(&vector["certificate"])),
        key: unhex(&text(&vector["key"])),
        question: bytes32(&vector["question"]),
        registers: [0, 1, 2].map(|at| bytes32(&vector["registers"][at])),
        quote: unhex(&text(&vector["quote"])),
        signature: unhex(&text(&vector["signature"])),
    })
    .collect()
});

/// The handshake of the vectors whose lines the targets know.
pub static HANDSHAKE: LazyLock<Handshake> = LazyLock::new(|| {
    let all: Value = serde_json::from_str(CONN_AUTH).unwrap();
    let first = &all["vectors"][0];
    let (dialler, acceptor) = (&first["dialler"], &first["acceptor"]);
    let wireguard = |side: &str| WireGuardKey(bytes32(&dialler["channel"]["wg"][side]));
    Handshake {
        org: OrgId(bytes32(&dialler["org"])),
        client: SecretKey::from_seed(&bytes32(&dialler["seed"])),
        server: SecretKey::from_seed(&bytes32(&acceptor["seed"])),
        binding: Binding::WireGuard { client: wireguard("client"), server: wireguard("server") },
        nonce: bytes32(&dialler["nonce"]),
        fresh: bytes32(&acceptor["fresh"]),
        heads: Heads(bytes32(&dialler["heads"])),
        count: dialler["count"].as_u64().unwrap(),
        hello: text(&dialler["hello"]),
        challenge: text(&dialler["challenge"]),
        proof: text(&dialler["proof"]),
        verdict: text(&dialler["verdict"]),
    }
});

/// The org of the vectors.
pub static ORG: LazyLock<Org> = LazyLock::new(|| {
    let all: Value = serde_json::from_str(RECORDS).unwrap();
    let vectors: Vec<_> = all["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (text(&v["kind"]), text(&v["name"]), unhex(&text(&v["bytes"]))))
        .collect();
    let genesis = UnverifiedCharter::decode(&vectors.first().unwrap().2).unwrap();
    let genesis = genesis.verify_genesis().unwrap();
    let invite_key = PublicKey::from_hex(&text(&all["invite_key"])).unwrap();
    Org { id: OrgId(bytes32(&all["org"])), invite_key, genesis, vectors }
});

/// A release key of that org, and the one generation that it signed.
pub static RELEASE: LazyLock<(PublicKey, Vec<u8>)> = LazyLock::new(|| {
    let key = SecretKey::from_seed(&[6; 32]);
    let generation = Generation { number: 3, image: [9; 32], image_bytes: 12, minimum: 2 };
    (key.public(), generation.sign(&ORG.id, &key))
});

/// The smallest program that takes the parts of an image: one section, and room in its head for more.
#[must_use]
pub fn stub() -> Vec<u8> {
    let mut file = vec![0; 0x600];
    let fields: [(usize, &[u8]); 13] = [
        (0, b"MZ"),
        (0x3c, &[0x40]),
        (0x40, b"PE\0\0"),
        // x86-64; one section; the length of what follows.
        (0x44, &[0x64, 0x86, 1]),
        (0x54, &[112]),
        (0x58, &[0x0b, 0x02]),
        // Alignments in memory and in the file, the length of the head.
        (0x58 + 32, &[0, 0x10]),
        (0x58 + 36, &[0, 2]),
        (0x58 + 60, &[0, 4]),
        (0xc8, b".text"),
        (0xc8 + 8, &[0, 2, 0, 0, 0, 0x10]),
        (0xc8 + 16, &[0, 2, 0, 0]),
        (0xc8 + 20, &[0, 4]),
    ];
    for (at, bytes) in fields {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

impl Handshake {
    /// The acceptor before HELLO, and the fresh bytes of its CHALLENGE.
    #[must_use]
    pub fn accept(&self) -> (Accept<'_>, [u8; 32]) {
        (Accept { org: self.org, key: &self.server, binding: self.binding }, self.fresh)
    }

    /// The dialler that has sent HELLO.
    pub fn dialled(&self) -> AwaitChallenge<'_> {
        let to = To::Key(self.server.public());
        let action = Action::new("sync", &[]).unwrap();
        let dial = Dial { org: self.org, key: &self.client, to, binding: self.binding, action };
        dial.start(self.nonce).unwrap()
    }

    /// The acceptor that has sent CHALLENGE.
    pub fn challenged(&self) -> AwaitProof {
        let (accept, fresh) = self.accept();
        accept.on_hello(self.hello.as_bytes(), fresh).unwrap()
    }

    /// The dialler that has sent PROOF.
    pub fn proved(&self) -> AwaitVerdict {
        let proven = self.dialled().on_challenge(self.challenge.as_bytes()).unwrap();
        proven.prove(self.heads, self.count)
    }

    /// The keys of dialler and acceptor.
    #[must_use]
    pub fn keys(&self) -> (PublicKey, PublicKey) {
        (self.client.public(), self.server.public())
    }
}

impl Org {
    /// The bytes of the vectors of one kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &[u8]> {
        self.vectors.iter().filter(move |(of, ..)| of == kind).map(|(_, _, bytes)| bytes.as_slice())
    }

    /// The bytes of the vector of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> &[u8] {
        self.vectors.iter().find(|(_, its, _)| its == name).map(|(_, _, bytes)| bytes.as_slice()).unwrap()
    }

    /// The chain of its first charter alone.
    #[must_use]
    pub fn chain(&self) -> CharterChain {
        CharterChain::start(self.genesis.clone()).unwrap()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn bytes32(value: &Value) -> [u8; 32] {
    decode_hex(text(value).as_bytes()).unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    digits.as_bytes().chunks(2).map(|pair| decode_hex::<1>(pair).unwrap()[0]).collect()
}

const ATTESTATION: &str = include_str!("../../tests/vectors/attestation-v1.json");
const CONN_AUTH: &str = include_str!("../../tests/vectors/conn-auth-v1.json");
const RECORDS: &str = include_str!("../../tests/vectors/records-v1.json");
