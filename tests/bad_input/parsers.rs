//! BI of what is read from local sockets, from files and from members after the handshake: random bytes, a
//! valid value cut at each byte, and each single bit of it flipped. A typed error or another value that
//! reads back, and never a panic.
//!
//! The crates hold their own formats to the same, which is not repeated here:
//!
//! | format | test |
//! |---|---|
//! | the four lines | conn-auth `tests/properties.rs` and `tests/vectors` |
//! | charter, statement, report, enrolment request | org-trust `tests/records/{charters,statements,reports}.rs`: `every_flipped_bit_is_refused`, `a_cut_or_lengthened_..`, `random_bytes_are_..` |
//! | invite | org-trust `tests/records/invites.rs`: `every_flipped_bit_of_the_line_is_refused`, `a_part_that_was_lost_is_named_as_lost` |
//! | requests and replies after the handshake | org-trust `tests/records/exchange.rs`: `malformed_frames_are_refused_by_field` |
//! | malformed records, byte for byte | org-trust `tests/records/vectors.rs` |
//! | the member list's file | member-crdt `tests/rules.rs` |
//! | sealed keys | tpm-seal `src/blob.rs`: `a_flipped_bit_anywhere_is_malformed` |
//! | musterd's store | musterd `src/store/tests.rs` |
//! | the gateway's configuration | muster-gateway `src/config.rs`: by key and value |

use std::path::Path;

use control::{
    framing::{FrameError, decode, encode},
    gateway::{Bounds, Exporter, FromGateway, ToGateway},
    local::Request,
    text::{Bytes, Text},
};
use identity::{
    CharterId, Code, Name, StatementId,
    limits::{CONFIG_BYTES_MAX, CONTROL_MESSAGE_BYTES_MAX},
};
use member_crdt::{Replica, Session};
use muster_tests::{org::Person, pki::Authority};
use musterd::config::{Config, ConfigError};
use org_trust::{Admin, Charter, Record, TrustBundle, UnverifiedCharter};
use serde::{Serialize, de::DeserializeOwned};

use crate::mutations::Draw;

#[test]
fn no_request_on_the_control_socket_is_read_from_bad_bytes() {
    for request in [
        Request::Status {},
        Request::Member { node: "n1".to_owned() },
        Request::Ping { node: "n1".to_owned(), count: 3 },
        Request::Submit { records: vec![Bytes(vec![1, 2, 3]), Bytes(Vec::new())] },
        Request::Place { author: Text(Person::Victim.public()), lane: 1 },
        Request::Coverage { change: Text(StatementId([7; 32])) },
        Request::Why { reference: "0123456789abcdef".to_owned() },
        Request::Export { from: u64::MAX },
        Request::Leave {},
    ] {
        assert_strict(&request);
    }
}

#[test]
fn no_message_of_a_gateway_is_read_from_bad_bytes() {
    let id = 7;
    // IPv6 has more than one spelling, which nobody minds here.
    let source = "192.0.2.1:443".parse().unwrap();
    let exporter = Text(Exporter([9; 32]));
    let frame = || Bytes(vec![0, 255]);
    assert_strict(&FromGateway::Begin { id, exporter, hello: Bytes(b"hello".to_vec()), source });
    assert_strict(&FromGateway::Finish { id, proof: Bytes(b"proof".to_vec()) });
    assert_strict(&FromGateway::Data { id, frame: frame() });
    assert_strict(&FromGateway::Close { id });
    assert_strict(&FromGateway::Charters { id, after: Text(CharterId([7; 32])) });
    assert_strict(&ToGateway::Challenge { id, line: "line".to_owned() });
    assert_strict(&ToGateway::Verdict {
        id,
        line: "ok".to_owned(),
        session: Some(Bounds { frame_bytes_max: 1024 }),
    });
    assert_strict(&ToGateway::Data { id, frame: frame() });
    assert_strict(&ToGateway::Cut { id, code: Some(Text(Code::Revoked)), reason: "why".to_owned() });
    assert_strict(&ToGateway::Charters { id, known: true, charters: vec![frame()] });
}

#[test]
fn json_of_any_other_shape_is_refused() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (name, text) in [
        ("BI-json-empty", ""),
        ("BI-json-null", "null"),
        ("BI-json-byte-order-mark", "\u{feff}{\"status\":{}}"),
        ("BI-json-two-values", "{\"status\":{}}{\"status\":{}}"),
        ("BI-json-unknown-request", "{\"format-disk\":{}}"),
        ("BI-json-unknown-field", "{\"status\":{\"x\":1}}"),
        ("BI-json-doubled-field", "{\"export\":{\"from\":1,\"from\":2}}"),
        ("BI-json-number-negative", "{\"export\":{\"from\":-1}}"),
        ("BI-json-number-2-to-the-64", "{\"export\":{\"from\":18446744073709551616}}"),
        ("BI-json-number-1e400", "{\"export\":{\"from\":1e400}}"),
        ("BI-json-number-as-text", "{\"export\":{\"from\":\"1\"}}"),
        ("BI-json-lone-surrogate", "{\"member\":{\"node\":\"\\ud800\"}}"),
        ("BI-json-nested-ten-thousand-deep", deep.as_str()),
    ] {
        assert!(matches!(decode::<Request>(text.as_bytes()), Err(FrameError::Json(_))), "{name}");
    }
}

/// A message is read from its own bytes and, for each other spelling, not at all or as another message.
fn assert_strict<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(message: &T) {
    let bytes = encode(message, CONTROL_MESSAGE_BYTES_MAX).unwrap();
    let body = &bytes[4..];
    assert_eq!(&decode::<T>(body).unwrap(), message);
    for end in 0..body.len() {
        assert!(decode::<T>(&body[..end]).is_err(), "cut at {end}");
    }
    for bad in flipped(body) {
        if let Ok(other) = decode::<T>(&bad) {
            assert_ne!(&other, message, "{}", String::from_utf8_lossy(&bad));
        }
    }
    let mut draw = Draw::new(5);
    for _ in 0..200 {
        let noise: Vec<u8> = (0..draw.below(64)).map(|_| draw.byte()).collect();
        assert!(decode::<T>(&noise).is_err(), "{noise:?}");
        // Whatever comes of it, it comes without a panic.
        drop(decode::<T>(&draw.mutated(body)));
    }
}

/// A file that sets everything.
const CONFIG: &str = "state_dir = '/var/lib/muster'\n\
    [keys]\nstorage = 'tpm'\ntpm = '/dev/tpmrm0'\n\
    [network]\ninterface = 'muster0'\nport = 51820\nauth_port = 4714\nendpoints = ['192.0.2.1:3']\n\
    allow = ['tcp/22']\n[control]\nsocket = '/run/muster/musterd.sock'\n";

#[test]
fn a_bad_configuration_is_refused_by_its_name() {
    let one_key = |text: &str| text.as_bytes().to_vec();
    let huge = vec![b'#'; CONFIG_BYTES_MAX + 1];
    for (name, bytes, code) in [
        ("BI-config-unknown-key", one_key("[network]\nprot = 1"), Code::ConfigUnknownKey),
        ("BI-config-unknown-section", one_key("[netwrok]\nport = 1"), Code::ConfigUnknownKey),
        ("BI-config-seed-wire", one_key("seed_wire = true"), Code::ConfigUnknownKey),
        ("BI-config-port-0", one_key("[network]\nport = 0"), Code::ConfigBadValue),
        ("BI-config-port-65536", one_key("[network]\nport = 65536"), Code::ConfigBadValue),
        ("BI-config-port-negative", one_key("[network]\nport = -1"), Code::ConfigBadValue),
        ("BI-config-port-as-text", one_key("[network]\nport = '1'"), Code::ConfigBadValue),
        ("BI-config-port-as-list", one_key("[network]\nport = [1]"), Code::ConfigBadValue),
        ("BI-config-relative-path", one_key("state_dir = 'muster'"), Code::ConfigBadValue),
        ("BI-config-empty-path", one_key("state_dir = ''"), Code::ConfigBadValue),
        ("BI-config-doubled-key", one_key("[network]\nport = 1\nport = 2"), Code::ConfigUnreadable),
        (
            "BI-config-number-too-large",
            one_key("[network]\nport = 9223372036854775808"),
            Code::ConfigUnreadable,
        ),
        ("BI-config-no-toml", one_key("port: 1"), Code::ConfigUnreadable),
        ("BI-config-nul", one_key("state_dir = '\0'"), Code::ConfigUnreadable),
        ("BI-config-not-utf-8", b"state_dir = '\xff'".to_vec(), Code::ConfigUnreadable),
        ("BI-config-too-large", huge, Code::ConfigUnreadable),
    ] {
        assert_eq!(config(&bytes).unwrap_err().code(), code, "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let load = |path: &Path| Config::load(Some(path), []).unwrap_err().code();
    assert_eq!(load(&dir.path().join("absent")), Code::ConfigUnreadable, "BI-config-missing");
    assert_eq!(load(dir.path()), Code::ConfigUnreadable, "BI-config-directory");
    let circle = dir.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    assert_eq!(load(&circle), Code::ConfigUnreadable, "BI-config-link-to-itself");
}

#[test]
fn no_configuration_of_bad_bytes_stops_musterd_without_a_word() {
    let good = CONFIG.as_bytes();
    config(good).unwrap();
    let mut draw = Draw::new(8);
    let noise: Vec<Vec<u8>> = (0..500).map(|_| (0..draw.below(64)).map(|_| draw.byte()).collect()).collect();
    let mutated: Vec<Vec<u8>> = (0..500).map(|_| draw.mutated(good)).collect();
    let cuts = (0..good.len()).map(|end| good[..end].to_vec());
    // A tenth of all flips: each is a file to write.
    let flips = flipped(good).step_by(11);
    for bytes in cuts.chain(flips).chain(noise).chain(mutated) {
        if let Err(why) = config(&bytes) {
            let known = [Code::ConfigBadValue, Code::ConfigUnknownKey, Code::ConfigUnreadable];
            assert!(known.contains(&why.code()) && !why.to_string().is_empty(), "{why}");
        }
    }
}

fn config(bytes: &[u8]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("muster.toml");
    std::fs::write(&path, bytes).unwrap();
    Config::load(Some(&path), [])
}

#[test]
fn no_trust_bundle_of_bad_bytes_passes_for_the_good_one() {
    let (one, two) = (Authority::new(), Authority::new());
    let good = TrustBundle::from_certificates([one.der().to_vec(), two.der().to_vec()]).unwrap();
    let pem = good.to_pem();
    let certificates =
        |bundle: &TrustBundle| bundle.certificates().iter().map(|c| c.der().to_vec()).collect::<Vec<_>>();
    for end in 0..pem.len() {
        // A bundle that lost its tail at a certificate's end is a smaller bundle, and no other.
        if let Ok(cut) = TrustBundle::read(&pem.as_bytes()[..end]) {
            let cut = certificates(&cut);
            assert!(certificates(&good).starts_with(&cut) && !cut.is_empty(), "cut at {end}");
        }
    }
    for der in [one.der(), pem.as_bytes()] {
        for bad in flipped(der) {
            // Nobody signs a bundle: what is another certificate is refused later, by whom it vouches for.
            drop(TrustBundle::read(&bad));
        }
    }
    for end in 0..one.der().len() {
        assert!(TrustBundle::read(&one.der()[..end]).is_err(), "cut at {end}");
    }
    let mut draw = Draw::new(6);
    for _ in 0..500 {
        let noise: Vec<u8> = (0..draw.below(400)).map(|_| draw.byte()).collect();
        assert!(TrustBundle::read(&noise).is_err());
    }
}

#[test]
fn a_sync_peer_that_sends_bad_bytes_changes_nothing() {
    let root = Person::Gateway.key();
    let mut charter = Charter::genesis(Name::parse("acme").unwrap(), 1, vec![root.public()], [3; 16]);
    charter.admins = vec![Admin { key: Person::Victim.public(), name: Name::parse("ann").unwrap() }];
    let genesis = UnverifiedCharter::sign(charter, &[&root]).unwrap().verify_genesis().unwrap();
    let next = UnverifiedCharter::sign(genesis.charter().successor(), &[&root]).unwrap();
    let mut ahead = Replica::new(&genesis).unwrap();
    ahead.apply(&Record::Charter(next.to_bytes())).unwrap();
    // Every frame that the two exchange until they are equal.
    let (mut behind, mut a, mut b) = (Replica::new(&genesis).unwrap(), Session::new(), Session::new());
    let before = behind.heads();
    let mut frames = vec![a.open(&ahead)];
    let mut to_behind = frames.clone();
    let mut to_ahead = vec![b.open(&behind)];
    while !to_behind.is_empty() || !to_ahead.is_empty() {
        let answers: Vec<_> =
            to_behind.drain(..).flat_map(|f| b.handle(&mut behind, &f).unwrap().send).collect();
        to_ahead.extend(answers);
        let answers: Vec<_> =
            to_ahead.drain(..).flat_map(|f| a.handle(&mut ahead, &f).unwrap().send).collect();
        to_behind.extend(answers.iter().cloned());
        frames.extend(answers);
    }
    let after = behind.heads();
    assert_eq!(after, ahead.heads());
    assert_ne!(after, before);
    let mut draw = Draw::new(7);
    let mut replica = Replica::new(&genesis).unwrap();
    for frame in &frames {
        let noise = (0..200).map(|_| draw.mutated(frame)).collect::<Vec<_>>();
        let cuts = (0..frame.len()).map(|end| frame[..end].to_vec());
        for bad in flipped(frame).chain(cuts).chain(noise) {
            let mut session = Session::new();
            session.open(&replica);
            let held = session.handle(&mut replica, &bad).map(|output| output.new.len());
            // Records are signed: what was taken in is what was signed, or nothing.
            if replica.heads() != before {
                assert_eq!((replica.heads(), held), (after, Ok(1)), "{bad:?}");
                replica = Replica::new(&genesis).unwrap();
            }
        }
    }
}

fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    })
}
