//! BI of WebSocket frames where PROOF is due, and of connections that end in each state.

use conn_auth::ProofError;
use identity::Code;
use muster_tests::{
    listener::{Refused, Seen},
    org::Person,
    raw::{BINARY, CLOSE, Message, TEXT, frame},
};
use transport::{Broken, MessageFault, ServeError};

use crate::{
    bench::{Bench, On, TUNNEL, hello},
    craft::Craft,
};

const CONTINUATION: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[tokio::test]
async fn every_bad_frame_is_refused_by_its_name() {
    let long = |length: u64| [&[TEXT, 0x80 | 127][..], &length.to_be_bytes()].concat();
    let bits = |first: u8| frame(first, true, b"heads=");
    let cases: Vec<(&str, Vec<u8>, MessageFault)> = vec![
        ("BI-frame-unmasked", frame(TEXT, false, b"heads="), MessageFault::Mask),
        ("BI-frame-rsv1", bits(TEXT | 0x40), MessageFault::Reserved),
        ("BI-frame-rsv2", bits(TEXT | 0x20), MessageFault::Reserved),
        ("BI-frame-rsv3", bits(TEXT | 0x10), MessageFault::Reserved),
        ("BI-frame-reserved-opcode-3", bits(0x83), MessageFault::Reserved),
        ("BI-frame-reserved-opcode-7", bits(0x87), MessageFault::Reserved),
        ("BI-frame-reserved-opcode-15", bits(0x8f), MessageFault::Reserved),
        ("BI-frame-binary", bits(BINARY), MessageFault::Binary),
        (
            "BI-frame-fragmented",
            [frame(TEXT & 0x7f, true, b"heads"), bits(CONTINUATION)].concat(),
            MessageFault::Fragment,
        ),
        ("BI-frame-continuation-without-start", bits(CONTINUATION), MessageFault::Fragment),
        ("BI-frame-ping-flood", frame(PING, true, b"ping").repeat(500), MessageFault::Control),
        ("BI-frame-pong", frame(PONG, true, b""), MessageFault::Control),
        ("BI-frame-control-126", frame(PING, true, &[0; 126]), MessageFault::Control),
        ("BI-frame-close-1000", frame(CLOSE, true, &1000u16.to_be_bytes()), MessageFault::Closed),
        ("BI-frame-close-999", frame(CLOSE, true, &999u16.to_be_bytes()), MessageFault::Closed),
        ("BI-frame-close-1005", frame(CLOSE, true, &1005u16.to_be_bytes()), MessageFault::Closed),
        ("BI-frame-close-of-one-byte", frame(CLOSE, true, &[3]), MessageFault::Closed),
        ("BI-frame-16-MiB", long(16 << 20), MessageFault::Oversize),
        ("BI-frame-2-to-the-63", long(1 << 63), MessageFault::Oversize),
        ("BI-frame-one-byte-too-long", frame(TEXT, true, &[b'x'; 231]), MessageFault::Oversize),
        ("BI-http-after-the-upgrade", b"GET /auth HTTP/1.1\r\n\r\n".to_vec(), MessageFault::Reserved),
    ];
    let mut bench = Bench::new(On::WebSocket).await;
    for (name, bytes, fault) in cases {
        let (mut raw, _) = bench.challenged(&hello()).await;
        drop(raw.bytes(&bytes).await);
        let (refused, _) = bench.refused(raw).await;
        assert!(
            matches!(refused, Refused::Serve(ServeError::Message(got)) if got == fault),
            "{name}: {refused:?}"
        );
        bench.serves(name).await;
    }
    bench.assert_clean();
}

#[tokio::test]
async fn text_that_is_no_proof_is_refused_at_its_first_field() {
    let mut bench = Bench::new(On::WebSocket).await;
    for (name, text) in [
        ("BI-frame-empty-text", &b""[..]),
        ("BI-frame-invalid-utf-8", b"\xff\xfe\xfd"),
        ("BI-frame-line-end-in-text", b"\n"),
    ] {
        let (mut raw, _) = bench.challenged(&hello()).await;
        raw.send(Message::Proof, text).await.unwrap();
        let (refused, _) = bench.refused(raw).await;
        let malformed =
            matches!(&refused, Refused::Proof(ProofError::Malformed(why)) if why.field == "heads");
        assert!(malformed, "{name}: {refused:?}");
        bench.serves(name).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_any_state_leaves_nothing_behind() {
    for on in [On::Lines, On::WebSocket, On::Tls] {
        let mut bench = Bench::new(on).await;
        // Before the first byte, inside HELLO, and (where the raw hand speaks the carrier) after CHALLENGE.
        drop(bench.raw().await);
        assert_lost(&mut bench, "BI-close-at-once").await;
        let mut raw = bench.raw().await;
        raw.bytes(if on == On::Tls { b"\x16\x03\x01" } else { b"GET /a" }).await.unwrap();
        drop(raw);
        assert_lost(&mut bench, "BI-close-inside-hello").await;
        if on != On::Tls {
            let (raw, _) = bench.challenged(&hello()).await;
            drop(raw);
            assert_lost(&mut bench, "BI-close-after-challenge").await;
            let (mut raw, _) = bench.challenged(&hello()).await;
            raw.bytes(if on == On::Lines { b"heads=00" } else { &[TEXT, 0x80 | 100, 1] }).await.unwrap();
            drop(raw);
            assert_lost(&mut bench, "BI-close-inside-proof").await;
            let hello = hello();
            let (mut raw, challenge) = bench.challenged(&hello).await;
            let proof = Craft::honest(&Person::Victim.key(), TUNNEL, &hello, &challenge).proof();
            raw.send(Message::Proof, proof.as_bytes()).await.unwrap();
            drop(raw);
            // Whether VERDICT still left is the kernel's business; nothing was said either way.
            match bench.listener.seen().await {
                Seen::Accepted { said, .. } => assert!(said.is_empty()),
                Seen::Refused(why) => assert_eq!(why.code(), Code::ConnectionLost),
                Seen::TokenShown => panic!("no token is served here"),
            }
        }
        bench.serves("BI-close-in-each-state").await;
        bench.assert_clean();
    }
}

async fn assert_lost(bench: &mut Bench, name: &str) {
    let refused = bench.listener.refused().await;
    assert_eq!(refused.code(), Code::ConnectionLost, "{name}: {refused:?}");
    let broken = matches!(
        refused,
        Refused::Broken(Broken::Ended | Broken::Io(_))
            | Refused::Serve(ServeError::Broken(Broken::Ended | Broken::Io(_)))
            | Refused::Tls(_)
    );
    assert!(broken, "{name}: {refused:?}");
}
