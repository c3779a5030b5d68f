//! BI of the first message, on lines and in an HTTP head.

use conn_auth::{Bind, HelloError, LineError, LineFault};
use curve25519_dalek::constants::EIGHT_TORSION;
use identity::{Code, encode_hex, limits::HELLO_BYTES_MAX};
use muster_tests::{listener::Refused, org::Person, raw::upgrade};

use crate::bench::{Bench, On, hello, hello_of};

/// What the listener's error says.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// The line departs from the format at this field.
    At(&'static str),
    /// Another version.
    Version,
    /// Longer than any HELLO.
    TooLong,
    /// The format is kept.
    Sense(HelloError),
}

#[tokio::test]
async fn every_bad_hello_on_a_line_is_refused_by_its_name() {
    let mut bench = Bench::new(On::Lines).await;
    for (name, line, want) in catalogue() {
        let (refused, words) = bench.said(&[&line[..], b"\n"].concat()).await;
        match (&refused, want) {
            (Refused::Hello(HelloError::Malformed(LineError { fault, field })), Want::Version) => {
                assert_eq!((*field, *fault), ("version", LineFault::Version), "{name}");
            }
            (Refused::Hello(HelloError::Malformed(why)), Want::At(field)) => {
                assert_eq!(why.field, field, "{name}: {why}");
            }
            (Refused::LineTooLong, Want::TooLong) => {}
            (Refused::Hello(got), Want::Sense(want)) => assert_eq!(*got, want, "{name}"),
            (got, want) => panic!("{name}: {want:?} wanted, {got:?} got"),
        }
        assert_eq!(refused.code(), code(want), "{name}");
        assert!(
            words.is_empty()
                || (words.starts_with(b"no ref=") && words.len() == "no ref=0123456789abcdef\n".len()),
            "{name}: {}",
            String::from_utf8_lossy(&words)
        );
        bench.serves(name).await;
    }
    bench.assert_clean();
}

#[tokio::test]
async fn every_bad_hello_in_a_head_is_refused_by_its_name() {
    let mut bench = Bench::new(On::WebSocket).await;
    for (name, line, want) in catalogue() {
        let (refused, words) = bench.said(&upgrade(&line)).await;
        // HTTP trims what surrounds a value, and has its own word for what no header may hold.
        assert!(matches!(refused, Refused::Hello(_) | Refused::Serve(_)), "{name}: {refused:?}");
        assert_eq!(refused.code(), code(want), "{name}");
        assert!(words.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{name}");
        bench.serves(name).await;
    }
    bench.assert_clean();
}

fn catalogue() -> Vec<(&'static str, Vec<u8>, Want)> {
    let good = hello();
    let words: Vec<&str> = good.split(' ').collect();
    let without = |at: usize| {
        let mut words = words.clone();
        words.remove(at);
        words.join(" ")
    };
    let twice = |at: usize| {
        let mut words = words.clone();
        words.insert(at, words[at]);
        words.join(" ")
    };
    let swapped = |at: usize| {
        let mut words = words.clone();
        words.swap(at, at + 1);
        words.join(" ")
    };
    let value = |at: usize, value: &str| {
        let (name, _) = words[at].split_once('=').unwrap();
        good.replace(words[at], &format!("{name}={value}"))
    };
    let digits = |at: usize| words[at].split_once('=').unwrap().1.to_owned();
    let upper = |at: usize| value(at, &encode_hex(&[0xab; 32]).to_uppercase());
    let pairs = |n: usize| (10..10 + n).map(|i| format!(" k{i}=v")).collect::<String>();
    let with = |tail: &str| format!("{good}{tail}");

    let mut cases: Vec<(&'static str, Vec<u8>, Want)> = Vec::new();
    let mut case = |name, line: String, want| cases.push((name, line.into_bytes(), want));
    case("BI-hello-empty-line", " ".to_owned(), Want::At("version"));
    case("BI-hello-version-missing", without(0), Want::At("version"));
    case("BI-hello-pubkey-missing", without(1), Want::At("pubkey"));
    case("BI-hello-to-missing", without(2), Want::At("to"));
    case("BI-hello-nonce-missing", without(3), Want::At("nonce"));
    case("BI-hello-bind-missing", without(4), Want::At("bind"));
    case("BI-hello-action-missing", without(5), Want::At("action"));
    case("BI-hello-version-doubled", twice(0), Want::At("pubkey"));
    case("BI-hello-pubkey-doubled", twice(1), Want::At("to"));
    case("BI-hello-to-doubled", twice(2), Want::At("nonce"));
    case("BI-hello-nonce-doubled", twice(3), Want::At("bind"));
    case("BI-hello-bind-doubled", twice(4), Want::At("action"));
    case("BI-hello-action-doubled", twice(5), Want::At("parameters"));
    case("BI-hello-version-after-pubkey", swapped(0), Want::At("version"));
    case("BI-hello-to-before-pubkey", swapped(1), Want::At("pubkey"));
    case("BI-hello-nonce-before-to", swapped(2), Want::At("to"));
    case("BI-hello-bind-before-nonce", swapped(3), Want::At("nonce"));
    case("BI-hello-action-before-bind", swapped(4), Want::At("bind"));
    case("BI-hello-pubkey-upper-case", upper(1), Want::At("pubkey"));
    case("BI-hello-to-upper-case", upper(2), Want::At("to"));
    case("BI-hello-nonce-upper-case", upper(3), Want::At("nonce"));
    case("BI-hello-pubkey-63-digits", value(1, &digits(1)[1..]), Want::At("pubkey"));
    case("BI-hello-to-63-digits", value(2, &digits(2)[1..]), Want::At("to"));
    case("BI-hello-nonce-63-digits", value(3, &digits(3)[1..]), Want::At("nonce"));
    case("BI-hello-pubkey-65-digits", value(1, &(digits(1) + "0")), Want::At("to"));
    case("BI-hello-to-65-digits", value(2, &(digits(2) + "0")), Want::At("nonce"));
    case("BI-hello-nonce-65-digits", value(3, &(digits(3) + "0")), Want::At("bind"));
    case("BI-hello-pubkey-empty", value(1, ""), Want::At("pubkey"));
    case("BI-hello-to-empty", value(2, ""), Want::At("to"));
    case("BI-hello-nonce-empty", value(3, ""), Want::At("nonce"));
    case("BI-hello-bind-empty", value(4, ""), Want::At("bind"));
    case("BI-hello-action-empty", value(5, ""), Want::At("action"));
    case("BI-hello-bind-unknown", value(4, "tcp"), Want::At("bind"));
    case("BI-hello-bind-upper-case", value(4, "WG"), Want::At("bind"));
    case("BI-hello-to-any-upper-case", value(2, "ANY"), Want::At("to"));
    case("BI-hello-action-upper-case", value(5, "Sync"), Want::At("action"));
    case("BI-hello-action-33", value(5, &"a".repeat(33)), Want::At("action"));
    case("BI-hello-two-spaces", good.replace(" to=", "  to="), Want::At("to"));
    case("BI-hello-tab", good.replace(" to=", "\tto="), Want::At("to"));
    case("BI-hello-nul", good.replace("action=", "action=\0"), Want::At("action"));
    case("BI-hello-nul-in-value", with(" k=\0"), Want::At("parameters"));
    case("BI-hello-not-ascii", with(" k=\u{e9}"), Want::At("parameters"));
    case("BI-hello-1025-bytes", with(&"x".repeat(HELLO_BYTES_MAX + 1 - good.len())), Want::TooLong);
    case("BI-hello-16-and-1-parameters", with(&pairs(17)), Want::At("parameters"));
    case("BI-hello-parameters-unsorted", with(" b=1 a=1"), Want::At("parameters"));
    case("BI-hello-parameter-repeated", with(" a=1 a=1"), Want::At("parameters"));
    case("BI-hello-parameter-key-capital", with(" A=1"), Want::At("parameters"));
    case("BI-hello-parameter-key-empty", with(" =1"), Want::At("parameters"));
    case("BI-hello-parameter-key-33", with(&format!(" {}=1", "k".repeat(33))), Want::At("parameters"));
    case("BI-hello-parameter-key-of-a-field", with(" pubkey=1"), Want::At("parameters"));
    case("BI-hello-parameter-without-value", with(" a"), Want::At("parameters"));
    case("BI-hello-parameter-value-257", with(&format!(" a={}", "v".repeat(257))), Want::At("parameters"));
    case("BI-hello-version-2", good.replace("auth/1", "auth/2"), Want::Version);
    case("BI-hello-version-01", good.replace("auth/1", "auth/01"), Want::Version);
    case("BI-hello-version-1-space", good.replace("auth/1 ", "auth/1  "), Want::At("pubkey"));
    case("BI-hello-version-empty", good.replace("auth/1", "auth/"), Want::Version);
    case("BI-hello-version-upper-case", good.replace("muster", "Muster"), Want::At("version"));
    let first_wire = format!("pubkey={} action=sync", Person::Victim.public());
    case("BI-hello-of-the-first-wire", first_wire, Want::At("version"));
    let proof = format!("heads={} count=0 sig={}", "00".repeat(32), "00".repeat(64));
    case("BI-proof-first", proof, Want::At("version"));
    let challenge =
        format!("muster-auth/1 {} challenge={} sig={}", words[1], "00".repeat(32), "00".repeat(64));
    case("BI-challenge-from-the-dialler", challenge, Want::At("to"));
    case(
        "BI-verdict-first",
        format!("ok ref={} heads={} count=0", "00".repeat(8), "00".repeat(32)),
        Want::At("version"),
    );

    let own = hello_of(Person::Honest, &Person::Honest.public().to_string(), "sync");
    case("BI-hello-of-our-own-key", own, Want::Sense(HelloError::OwnKey));
    case("BI-hello-to-any-in-a-tunnel", value(2, "any"), Want::Sense(HelloError::AnyNeedsTls));
    let mismatch = HelloError::BindingMismatch { named: Bind::Tls };
    case("BI-hello-bind-mismatched", value(4, "tls"), Want::Sense(mismatch));

    for point in &EIGHT_TORSION {
        let weak = encode_hex(point.compress().as_bytes());
        case("BI-hello-small-order", value(1, &weak), Want::At("pubkey"));
    }
    for key in not_canonical() {
        case("BI-hello-not-canonical", value(1, &encode_hex(&key)), Want::At("pubkey"));
    }
    cases
}

/// Every encoding with a y of p or more, each with both signs; and zero with the wrong sign.
fn not_canonical() -> Vec<[u8; 32]> {
    let mut all = Vec::new();
    for low in 0xed..=0xff_u8 {
        for sign in [0, 0x80] {
            let mut key = [0xff; 32];
            key[0] = low;
            key[31] = 0x7f | sign;
            all.push(key);
        }
    }
    let mut zero_x = [0; 32];
    (zero_x[0], zero_x[31]) = (1, 0x80);
    all.push(zero_x);
    all
}

fn code(want: Want) -> Code {
    match want {
        Want::At(_) | Want::TooLong => Code::HelloMalformed,
        Want::Version => Code::VersionUnsupported,
        Want::Sense(why) => why.code(),
    }
}

#[tokio::test]
async fn a_line_end_of_another_kind_is_part_of_the_line() {
    let mut bench = Bench::new(On::Lines).await;
    let (refused, _) = bench.said(format!("{}\r\n", hello()).as_bytes()).await;
    let at = |field| move |why: &LineError| why.field == field;
    assert!(matches!(refused, Refused::Hello(HelloError::Malformed(why)) if at("action")(&why)));
    bench.serves("BI-hello-crlf").await;
    let (refused, _) = bench.said(b"\n").await;
    assert!(matches!(refused, Refused::Hello(HelloError::Malformed(why)) if at("version")(&why)));
    bench.serves("BI-hello-empty").await;
    bench.assert_clean();
}
