//! BI of the third message, and of conversations out of order.

use conn_auth::{LineFault, ProofError};
use curve25519_dalek::constants::EIGHT_TORSION;
use identity::{Code, Heads, Label, SecretKey, encode_hex};
use muster_tests::{
    dialler::raw_tls,
    listener::{Refused, Seen},
    org::{OTHER_ORG, Person, tunnel},
    raw::Message,
};

use crate::{
    bench::{Bench, On, TUNNEL, hello, hello_of},
    craft::Craft,
};

/// What the listener makes of it.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// The line departs from the format at this field.
    At(&'static str),
    /// The proof is not by the key that was claimed.
    Wrong,
    /// Longer than any PROOF.
    TooLong,
}

type Make = Box<dyn Fn(&Craft<'_>) -> String>;

#[tokio::test]
async fn every_bad_proof_is_refused_by_its_name_on_either_carrier() {
    for on in [On::Lines, On::WebSocket] {
        let mut bench = Bench::new(on).await;
        let (hello, key) = (hello(), Person::Victim.key());
        for (name, make, want) in catalogue() {
            let (mut raw, challenge) = bench.challenged(&hello).await;
            let proof = make(&Craft::honest(&key, TUNNEL, &hello, &challenge));
            raw.send(Message::Proof, proof.as_bytes()).await.unwrap();
            let (refused, words) = bench.refused(raw).await;
            match (&refused, want) {
                (Refused::Proof(ProofError::Malformed(why)), Want::At(field)) => {
                    assert_eq!(why.field, field, "{name}: {why}");
                }
                (Refused::Proof(ProofError::Wrong { claimed }), Want::Wrong) => {
                    assert_eq!(**claimed, Person::Victim.public(), "{name}");
                }
                (Refused::LineTooLong | Refused::Serve(_), Want::TooLong) => {}
                (got, want) => panic!("{name}: {want:?} wanted, {got:?} got"),
            }
            let words = String::from_utf8_lossy(&words);
            assert!(!words.contains("code") && !words.contains("ok"), "{name}: {words}");
            bench.serves(name).await;
        }
        bench.assert_clean();
    }
}

fn catalogue() -> Vec<(&'static str, Make, Want)> {
    let mut cases: Vec<(&'static str, Make, Want)> = Vec::new();
    let mut case = |name, want, make: fn(&Craft<'_>) -> String| cases.push((name, Box::new(make), want));
    case("BI-proof-heads-missing", Want::At("heads"), |c| {
        c.proof().replace(&zeros(), "").replace("heads= ", "")
    });
    case("BI-proof-count-missing", Want::At("count"), |c| c.proof().replace(" count=0", ""));
    case("BI-proof-sig-missing", Want::At("sig"), |c| c.covered());
    case("BI-proof-sig-empty", Want::At("sig"), |c| format!("{} sig=", c.covered()));
    case("BI-proof-heads-doubled", Want::TooLong, |c| {
        c.proof().replace(" count", &format!(" heads={} count", zeros()))
    });
    case("BI-proof-count-doubled", Want::At("sig"), |c| c.proof().replace(" count=0", " count=0 count=0"));
    case("BI-proof-sig-doubled", Want::TooLong, |c| {
        let proof = c.proof();
        let (_, sig) = proof.split_once(" sig=").unwrap();
        format!("{proof} sig={sig}")
    });
    case("BI-proof-count-before-heads", Want::At("heads"), |c| {
        c.proof().replace(&c.covered(), &format!("count=0 heads={}", zeros()))
    });
    case("BI-proof-heads-upper-case", Want::At("heads"), |c| c.proof().replace(&zeros(), &"AB".repeat(32)));
    case("BI-proof-sig-upper-case", Want::At("sig"), |c| format!("{} sig={}", c.covered(), "AB".repeat(64)));
    case("BI-proof-heads-63-digits", Want::At("heads"), |c| c.proof().replace(&zeros(), &zeros()[1..]));
    case("BI-proof-sig-127-digits", Want::At("sig"), |c| drop_last(&c.proof(), 1));
    case("BI-proof-sig-129-digits", Want::At("line"), |c| c.proof() + "0");
    case("BI-proof-count-negative", Want::At("count"), |c| c.proof().replace("count=0", "count=-1"));
    case("BI-proof-count-signed", Want::At("count"), |c| c.proof().replace("count=0", "count=+1"));
    case("BI-proof-count-leading-zero", Want::At("count"), |c| c.proof().replace("count=0", "count=01"));
    case("BI-proof-count-empty", Want::At("count"), |c| c.proof().replace("count=0", "count="));
    case("BI-proof-count-2-to-the-64", Want::At("count"), |c| {
        c.proof().replace("count=0", "count=18446744073709551616")
    });
    case("BI-proof-two-spaces", Want::At("count"), |c| c.proof().replace(" count", "  count"));
    case("BI-proof-nul", Want::At("count"), |c| c.proof().replace("count=0", "count=\0"));
    case("BI-proof-trailing-space", Want::At("line"), |c| c.proof() + " ");
    case("BI-proof-231-bytes", Want::TooLong, |c| c.proof() + &" ".repeat(231 - c.proof().len()));
    case("BI-hello-twice", Want::TooLong, |c| c.hello.to_owned());
    case("BI-verdict-from-the-dialler", Want::At("heads"), |_| {
        format!("ok ref={} heads={} count=0", "00".repeat(8), zeros())
    });

    case("BI-proof-count-changed-after-signing", Want::Wrong, |c| c.proof().replace("count=0", "count=1"));
    case("BI-proof-heads-changed-after-signing", Want::Wrong, |c| {
        c.proof().replace(&zeros(), &"01".repeat(32))
    });
    case("BI-proof-by-another-member", Want::Wrong, |c| by(c, &Person::Malicious.key()));
    case("BI-proof-by-the-acceptor", Want::Wrong, |c| by(c, &Person::Honest.key()));
    case("BI-proof-with-the-acceptors-label", Want::Wrong, |c| {
        Craft { label: Label::CONN_AUTH_SERVER, ..copy(c) }.proof()
    });
    case("BI-proof-is-the-acceptors-own-signature", Want::Wrong, |c| {
        format!("{} sig={}", c.covered(), c.challenge.split_once(" sig=").unwrap().1)
    });
    case("BI-proof-over-the-bare-challenge", Want::Wrong, |c| {
        let (_, rest) = c.challenge.split_once("challenge=").unwrap();
        let bare = identity::decode_hex::<32>(&rest.as_bytes()[..64]).unwrap();
        let signature = c.key.sign(Label::CONN_AUTH_CLIENT, &bare);
        format!("{} sig={}", c.covered(), encode_hex(&signature.0))
    });
    case("BI-proof-for-another-org", Want::Wrong, |c| Craft { org: OTHER_ORG, ..copy(c) }.proof());
    case("BI-proof-for-another-tunnel", Want::Wrong, |c| {
        Craft { binding: tunnel(Person::Malicious, Person::Honest), ..copy(c) }.proof()
    });
    case("BI-proof-for-the-tunnel-turned-round", Want::Wrong, |c| {
        Craft { binding: tunnel(Person::Honest, Person::Victim), ..copy(c) }.proof()
    });
    case("BI-proof-for-another-hello", Want::Wrong, |c| {
        let other = c.hello.replace("action=sync", "action=ping");
        Craft { hello: &other, ..copy(c) }.proof()
    });
    case("BI-proof-all-zero", Want::Wrong, |c| format!("{} sig={}", c.covered(), "00".repeat(64)));
    case("BI-proof-s-not-reduced", Want::Wrong, |c| with_s_raised(&c.proof()));
    case("BI-proof-s-all-ones", Want::Wrong, |c| drop_last(&c.proof(), 64) + &"ff".repeat(32));
    for point in &EIGHT_TORSION {
        let weak = encode_hex(point.compress().as_bytes());
        let make = move |c: &Craft<'_>| format!("{} sig={weak}{}", c.covered(), zeros());
        cases.push(("BI-proof-r-of-small-order", Box::new(make), Want::Wrong));
    }
    cases
}

#[tokio::test]
async fn a_proof_that_was_good_once_is_good_for_nothing_else() {
    let mut bench = Bench::new(On::Lines).await;
    let (hello, key) = (hello(), Person::Victim.key());
    let (mut first, challenge) = bench.challenged(&hello).await;
    let proof = Craft::honest(&key, TUNNEL, &hello, &challenge).proof();
    // Of a session that is still open, in another one with the very same HELLO.
    let (mut second, _) = bench.challenged(&hello).await;
    second.send(Message::Proof, proof.as_bytes()).await.unwrap();
    assert_eq!(bench.refused(second).await.0.code(), Code::ClientProofWrong, "BI-proof-of-another-session");
    first.send(Message::Proof, proof.as_bytes()).await.unwrap();
    assert!(first.recv(Message::Verdict).await.unwrap().starts_with(b"ok ref="));
    first.shutdown().await;
    assert!(matches!(bench.listener.seen().await, Seen::Accepted { said, .. } if said.is_empty()));
    // And once its own session is over.
    let (mut third, _) = bench.challenged(&hello).await;
    third.send(Message::Proof, proof.as_bytes()).await.unwrap();
    assert_eq!(bench.refused(third).await.0.code(), Code::ClientProofWrong, "BI-proof-replayed");
    drop(first);
    bench.serves("BI-proof-replayed").await;
    bench.assert_clean();
}

#[tokio::test]
async fn the_largest_count_is_a_hint_like_any_other() {
    let mut bench = Bench::new(On::Lines).await;
    let (hello, key) = (hello(), Person::Victim.key());
    let (mut raw, challenge) = bench.challenged(&hello).await;
    let craft = Craft { count: "18446744073709551615", ..Craft::honest(&key, TUNNEL, &hello, &challenge) };
    raw.send(Message::Proof, craft.proof().as_bytes()).await.unwrap();
    assert!(raw.recv(Message::Verdict).await.unwrap().starts_with(b"ok ref="));
    drop(raw);
    assert!(matches!(bench.listener.seen().await, Seen::Accepted { .. }));
    bench.serves("BI-proof-count-2-to-the-64-less-1").await;
}

#[tokio::test]
async fn whoever_proves_its_key_is_told_why_it_is_refused() {
    let mut bench = Bench::new(On::Lines).await;
    let honest = Person::Honest.public().to_string();
    for (name, peer, to, action, code) in [
        ("BI-to-another-node", Person::Victim, Person::Malicious.public().to_string(), "sync", None),
        ("BI-to-the-diallers-own-key", Person::Victim, Person::Victim.public().to_string(), "sync", None),
        ("BI-to-no-point-at-all", Person::Victim, "02".repeat(32), "sync", None),
        ("BI-member-unknown", Person::Stranger, honest.clone(), "sync", Some(Code::UnknownKey)),
        ("BI-member-revoked", Person::Revoked, honest.clone(), "sync", Some(Code::Revoked)),
        (
            "BI-member-revoked-asks-for-nonsense",
            Person::Revoked,
            honest.clone(),
            "nonsense",
            Some(Code::Revoked),
        ),
        ("BI-role-lacking", Person::Boot, honest.clone(), "sync", Some(Code::ActionNotAllowed)),
        (
            "BI-action-of-another-channel",
            Person::Victim,
            honest.clone(),
            "enrol",
            Some(Code::ActionNotAllowed),
        ),
        ("BI-action-unknown", Person::Victim, honest.clone(), "nonsense", Some(Code::NoPolicy)),
        (
            "BI-action-unknown-to-a-stranger",
            Person::Stranger,
            honest.clone(),
            "nonsense",
            Some(Code::UnknownKey),
        ),
    ] {
        let (hello, key) = (hello_of(peer, &to, action), peer.key());
        let (mut raw, challenge) = bench.challenged(&hello).await;
        let proof = Craft::honest(&key, TUNNEL, &hello, &challenge).proof();
        raw.send(Message::Proof, proof.as_bytes()).await.unwrap();
        let (refused, words) = bench.refused(raw).await;
        let words = String::from_utf8(words).unwrap();
        assert_eq!(refused.code(), code.unwrap_or(Code::WrongServer), "{name}: {refused:?}");
        match code {
            Some(code) => assert!(words.ends_with(&format!(" code={code}\n")), "{name}: {words}"),
            // Somebody else was asked for: that is nobody's business here.
            None => assert!(words.starts_with("no ref=") && !words.contains("code"), "{name}: {words}"),
        }
        bench.serves(name).await;
    }
    bench.assert_clean();
}

#[tokio::test]
async fn a_proof_made_for_one_tls_connection_is_worth_nothing_on_another() {
    let mut bench = Bench::new(On::Tls).await;
    let client = bench.authority.client();
    let key: SecretKey = Person::Boot.key();
    let (mut elsewhere, exporter) = raw_tls(bench.address(), &client).await;
    let (mut raw, _) = raw_tls(bench.address(), &client).await;
    let hello = hello_of(Person::Boot, "any", "boot").replace("bind=wg", "bind=tls");
    raw.send(Message::Hello, hello.as_bytes()).await.unwrap();
    let challenge = String::from_utf8(raw.recv(Message::Challenge).await.unwrap()).unwrap();
    let binding = conn_auth::Binding::Tls(exporter);
    let proof = Craft::honest(&key, binding, &hello, &challenge).proof();
    raw.send(Message::Proof, proof.as_bytes()).await.unwrap();
    assert_eq!(bench.refused(raw).await.0.code(), Code::ClientProofWrong, "BI-cb-of-another-connection");
    // The other connection is none the worse for it.
    elsewhere.send(Message::Hello, hello.as_bytes()).await.unwrap();
    let challenge = String::from_utf8(elsewhere.recv(Message::Challenge).await.unwrap()).unwrap();
    let proof = Craft::honest(&key, binding, &hello, &challenge).proof();
    elsewhere.send(Message::Proof, proof.as_bytes()).await.unwrap();
    assert!(elsewhere.recv(Message::Verdict).await.unwrap().starts_with(b"ok ref="));
    drop(elsewhere);
    assert!(matches!(bench.listener.seen().await, Seen::Accepted { .. }));
    bench.serves("BI-cb-of-another-connection").await;
}

#[tokio::test]
async fn a_nonce_used_twice_gives_nobody_anything() {
    // The acceptor's own randomness is in the transcript: two handshakes of one HELLO have two challenges.
    let mut bench = Bench::new(On::Lines).await;
    let hello = hello().replace(&"4e".repeat(32), &"00".repeat(32));
    let (first, one) = bench.challenged(&hello).await;
    let (second, two) = bench.challenged(&hello).await;
    assert_ne!(one, two, "BI-nonce-all-zero-and-repeated");
    for raw in [first, second] {
        assert_eq!(bench.refused(raw).await.0.code(), Code::ConnectionLost);
    }
    bench.assert_clean();
}

#[test]
fn the_second_hand_writes_what_the_first_one_does() {
    let (key, server) = (Person::Victim.key(), Person::Honest.key());
    let action = conn_auth::Action::new("sync", &[]).unwrap();
    let to = conn_auth::To::Key(server.public());
    let dial = conn_auth::Dial { org: muster_tests::org::ORG, key: &key, to, binding: TUNNEL, action };
    let pending = dial.start([0x4e; 32]).unwrap();
    let hello = pending.hello().to_owned();
    let accept = || conn_auth::Accept { org: muster_tests::org::ORG, key: &server, binding: TUNNEL };
    let challenge = accept().on_hello(hello.as_bytes(), [5; 32]).unwrap().challenge().to_owned();
    let proof =
        pending.on_challenge(challenge.as_bytes()).unwrap().prove(Heads([0; 32]), 0).proof().to_owned();
    assert_eq!(Craft::honest(&key, TUNNEL, &hello, &challenge).proof(), proof);
    // And what is malformed here is so for a reason that the parser can name.
    let bad = accept().on_hello(hello.replace("sync", "SYNC").as_bytes(), [5; 32]).unwrap_err();
    assert!(matches!(bad, conn_auth::HelloError::Malformed(why) if why.fault == LineFault::BadWord));
}

fn copy<'a>(craft: &Craft<'a>) -> Craft<'a> {
    let Craft { key, org, binding, label, hello, challenge, count } = craft;
    Craft { key, org: *org, binding: *binding, label: *label, hello, challenge, count }
}

fn by(craft: &Craft<'_>, key: &SecretKey) -> String {
    Craft { key, ..copy(craft) }.proof()
}

fn zeros() -> String {
    "00".repeat(32)
}

fn drop_last(text: &str, n: usize) -> String {
    text[..text.len() - n].to_owned()
}

/// The same signature with the group's order added to S: valid where S is not checked.
fn with_s_raised(proof: &str) -> String {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let at = proof.len() - 64;
    let mut s = identity::decode_hex::<32>(&proof.as_bytes()[at..]).unwrap();
    let mut carry = 0;
    for (byte, order) in s.iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    format!("{}{}", &proof[..at], encode_hex(&s))
}
