//! What a stranger with a socket can do before it has proved anything: little, briefly, in few bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use std::time::Duration;

use identity::limits::{
    HANDSHAKE_DEADLINE_MS, HELLO_BYTES_MAX, HELLO_DEADLINE_MS, HTTP_HEAD_BYTES_MAX, PROOF_BYTES_MAX,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use transport::{
    AwaitProof, Broken, Deadlines, HeadFault, Incoming, MessageFault, Request, ServeError, Status,
};

const UPGRADE: &str = "GET /auth HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Hello: hello you\r\n\r\n";

fn accepted() -> (DuplexStream, Incoming<DuplexStream>) {
    let (ours, theirs) = duplex(256 * 1024);
    (ours, Incoming::new(theirs, Deadlines::since(Instant::now())))
}

async fn said(bytes: &[u8]) -> (Result<(), ServeError>, Vec<u8>) {
    let (mut peer, incoming) = accepted();
    peer.write_all(bytes).await.unwrap();
    let result = incoming.next().await.map(drop);
    let mut answer = Vec::new();
    if result.is_err() {
        peer.read_to_end(&mut answer).await.unwrap();
    }
    (result, answer)
}

#[tokio::test]
async fn garbage_is_answered_once_and_closed() {
    let refused = |fault| Err(ServeError::Head(fault));
    let head = |extra: &str| UPGRADE.replace("Host: gw\r\n", &format!("Host: gw\r\n{extra}\r\n"));
    let cases: Vec<(Vec<u8>, HeadFault)> = vec![
        (b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n".to_vec(), HeadFault::Grammar),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), HeadFault::Grammar),
        (vec![b'x'; HTTP_HEAD_BYTES_MAX + 1], HeadFault::Oversize),
        (head("Muster-Hello: second").into_bytes(), HeadFault::Repeated),
        (head("Origin: https://evil.example").into_bytes(), HeadFault::Origin),
        (head("Transfer-Encoding: chunked").into_bytes(), HeadFault::Body),
        (head("Content-Length: 3").into_bytes(), HeadFault::Body),
        ([UPGRADE.as_bytes(), &[0x81, 0x80, 0, 0, 0, 0]].concat(), HeadFault::Trailing),
        (UPGRADE.replace("GET", "POST").into_bytes(), HeadFault::Method),
        (
            UPGRADE.replace("hello you", &"x".repeat(HELLO_BYTES_MAX + 1)).into_bytes(),
            HeadFault::Header("muster-hello"),
        ),
    ];
    for (bytes, fault) in cases {
        let (result, answer) = said(&bytes).await;
        assert_eq!(result, refused(fault), "{}", String::from_utf8_lossy(&bytes));
        assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n") && answer.ends_with(b"\r\n\r\n"));
    }
}

#[tokio::test]
async fn a_head_of_the_largest_size_passes_and_one_byte_more_does_not() {
    let room = HTTP_HEAD_BYTES_MAX - UPGRADE.len() - "X-Pad: \r\n".len();
    let padded =
        |n: usize| UPGRADE.replace("Host: gw\r\n", &format!("Host: gw\r\nX-Pad: {}\r\n", "p".repeat(n)));
    assert_eq!(padded(room).len(), HTTP_HEAD_BYTES_MAX);
    assert!(said(padded(room).as_bytes()).await.0.is_ok());
    let (over, _) = said(padded(room + 1).as_bytes()).await;
    assert_eq!(over, Err(ServeError::Head(HeadFault::Oversize)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_a_byte_a_second_is_cut_at_the_hello_deadline() {
    let (mut peer, incoming) = accepted();
    let begun = Instant::now();
    let slow = async {
        for byte in UPGRADE.as_bytes() {
            if peer.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let cut = async {
        let result = incoming.next().await.map(drop);
        assert_eq!(result, Err(ServeError::Broken(Broken::Deadline)));
        begun.elapsed()
    };
    let after = tokio::select! { after = cut => after, () = slow => panic!("it was let through") };
    assert_eq!(after, Duration::from_millis(HELLO_DEADLINE_MS));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_proves_itself_is_cut_at_the_handshake_deadline() {
    let (mut peer, pending) = challenged().await;
    let begun = Instant::now();
    // A frame that begins and never ends.
    peer.write_all(&[0x81, 0x80 | 100, 1, 2, 3, 4, b'h']).await.unwrap();
    assert_eq!(pending.proof().await.map(drop), Err(ServeError::Broken(Broken::Deadline)));
    assert_eq!(begun.elapsed(), Duration::from_millis(HANDSHAKE_DEADLINE_MS));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_cut_at_the_handshake_deadline() {
    let (mut peer, theirs) = duplex(64);
    let incoming = Incoming::new(theirs, Deadlines::since(Instant::now()));
    let begun = Instant::now();
    let (sent, served) = tokio::join!(peer.write_all(UPGRADE.as_bytes()), async {
        let Request::Upgrade(upgrade) = incoming.next().await.unwrap() else { panic!("no upgrade") };
        upgrade.challenge(&"c".repeat(300)).await.map(drop)
    });
    sent.unwrap();
    assert_eq!(served, Err(ServeError::Broken(Broken::Deadline)));
    assert_eq!(begun.elapsed(), Duration::from_millis(HANDSHAKE_DEADLINE_MS));
}

async fn challenged() -> (DuplexStream, AwaitProof<DuplexStream>) {
    let (mut peer, incoming) = accepted();
    peer.write_all(UPGRADE.as_bytes()).await.unwrap();
    let Request::Upgrade(upgrade) = incoming.next().await.unwrap() else { panic!("no upgrade") };
    assert_eq!((upgrade.target(), upgrade.hello()), ("/auth", &b"hello you"[..]));
    let pending = upgrade.challenge("challenge").await.unwrap();
    let mut head = vec![0; 1024];
    let got = peer.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..got]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("Muster-Challenge: challenge\r\n"), "{head}");
    (peer, pending)
}

#[tokio::test]
async fn nothing_but_the_proof_passes_before_the_verdict() {
    let too_long = u16::try_from(PROOF_BYTES_MAX + 1).unwrap().to_be_bytes();
    let masked = |first: u8, length: u8| vec![first, 0x80 | length, 0, 0, 0, 0];
    let cases: Vec<(Vec<u8>, MessageFault)> = vec![
        (masked(0x82, 0), MessageFault::Binary),
        (masked(0x89, 0), MessageFault::Control),
        (masked(0x8a, 0), MessageFault::Control),
        (masked(0x88, 0), MessageFault::Closed),
        (masked(0x01, 1), MessageFault::Fragment),
        (masked(0x80, 1), MessageFault::Fragment),
        (masked(0xc1, 1), MessageFault::Reserved),
        (masked(0x83, 1), MessageFault::Reserved),
        (vec![0x81, 1, b'x'], MessageFault::Mask),
        ([&[0x81, 0x80 | 126][..], &too_long, &[0; 4]].concat(), MessageFault::Oversize),
        (vec![0x81, 0x80 | 127, 0, 0, 0, 0, 1, 0, 0, 0], MessageFault::Oversize),
    ];
    for (frame, fault) in cases {
        let (mut peer, pending) = challenged().await;
        peer.write_all(&frame).await.unwrap();
        assert_eq!(pending.proof().await.map(drop), Err(ServeError::Message(fault)), "{frame:?}");
        let mut close = Vec::new();
        peer.read_to_end(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 2, 0x03, 0xea], "a close frame of status 1002");
    }
}

#[tokio::test]
async fn a_masked_proof_arrives_as_it_was_sent() {
    let (mut peer, pending) = challenged().await;
    peer.write_all(&proof_frame()).await.unwrap();
    let (proof, verdict) = pending.proof().await.unwrap();
    assert_eq!(proof, b"proof");
    verdict.refuse("no ref=0000000000000000").await.unwrap();
    let mut end = Vec::new();
    peer.read_to_end(&mut end).await.unwrap();
    assert_eq!(end, [&[0x81, 23][..], b"no ref=0000000000000000", &[0x88, 2, 0x03, 0xf0]].concat());
}

#[tokio::test]
async fn a_proof_that_arrives_byte_by_byte_is_the_proof() {
    let (mut peer, pending) = challenged().await;
    let sent = async {
        for byte in proof_frame() {
            peer.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (proof, ()) = tokio::join!(pending.proof(), sent);
    assert_eq!(proof.unwrap().0, b"proof");
}

#[tokio::test]
async fn bytes_after_proof_before_the_verdict_are_refused() {
    for behind in [&[0x82][..], &[0x82, 0x80, 0, 0, 0, 0], &[0x42; 4096]] {
        let (mut peer, pending) = challenged().await;
        peer.write_all(&[&proof_frame()[..], behind].concat()).await.unwrap();
        let refused = Err(ServeError::Message(MessageFault::Trailing));
        assert_eq!(pending.proof().await.map(drop), refused, "{} bytes", behind.len());
        let mut close = Vec::new();
        peer.read_to_end(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 2, 0x03, 0xea], "a close frame of status 1002");
    }
}

#[tokio::test]
async fn a_byte_behind_the_longest_proof_is_seen() {
    let longest = [
        &[0x81, 0x80 | 126][..],
        &u16::try_from(PROOF_BYTES_MAX).unwrap().to_be_bytes(),
        &[0; 4],
        &[b'p'; PROOF_BYTES_MAX],
    ]
    .concat();
    let (mut peer, pending) = challenged().await;
    peer.write_all(&longest).await.unwrap();
    assert_eq!(pending.proof().await.unwrap().0, [b'p'; PROOF_BYTES_MAX]);
    let (mut peer, pending) = challenged().await;
    peer.write_all(&[&longest[..], b"x"].concat()).await.unwrap();
    assert_eq!(pending.proof().await.map(drop), Err(ServeError::Message(MessageFault::Trailing)));
}

/// `proof`, masked with 1, 2, 3, 4.
fn proof_frame() -> Vec<u8> {
    let text = b"proof".iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m);
    [0x81, 0x85, 1, 2, 3, 4].into_iter().chain(text).collect()
}

#[tokio::test]
async fn no_line_can_smuggle_a_header() {
    let (mut peer, incoming) = accepted();
    peer.write_all(UPGRADE.as_bytes()).await.unwrap();
    let Request::Upgrade(upgrade) = incoming.next().await.unwrap() else { panic!("no upgrade") };
    assert_eq!(upgrade.challenge("x\r\nSet-Cookie: y").await.map(drop), Err(ServeError::Line));
}

#[tokio::test]
async fn pages_and_the_upgrade_share_one_connection() {
    let (mut peer, mut incoming) = accepted();
    for _ in 0..3 {
        peer.write_all(b"GET /charters?after=00 HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
        let Request::Get(get) = incoming.next().await.unwrap() else { panic!("no page") };
        assert_eq!(get.target(), "/charters?after=00");
        incoming = get.answer(b"body").await.unwrap();
        let mut answer = vec![0; 1024];
        let got = peer.read(&mut answer).await.unwrap();
        assert!(answer[..got].starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    peer.write_all(UPGRADE.as_bytes()).await.unwrap();
    let Request::Upgrade(upgrade) = incoming.next().await.unwrap() else { panic!("no upgrade") };
    upgrade.refuse(Status::NotFound).await.unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
}
