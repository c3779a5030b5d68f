//! An edge in front that opens TLS: honest, hostile, or somebody who only speaks as one.

use identity::limits::{EDGE_FRAME_BYTES_MAX, HELLO_DEADLINE_MS, UNPROVEN_MAX};
use tokio::{io::copy_bidirectional, net::TcpListener, time::Instant};
use tokio_rustls::client::TlsStream;
use transport::{
    Deadlines, Incoming, Request, Status, Way,
    client::{DialFault, Step, reach, secure, through},
};

use super::*;

/// What an edge does with the WebSocket that is asked of it.
#[derive(Clone)]
enum Edge {
    /// Passes everything on to the gateway, over TLS of its own.
    Honest,
    /// Answers it, and shows this certificate inside. What comes in there it passes on to the gateway.
    Opens(ServerTls),
    /// Answers with this status.
    Refuses(Status),
}

/// An edge with a certificate that nobody knows; its address as an invite has it.
async fn edge(bench: &Bench, does: Edge) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shown, gateway, to_gateway) = (Ca::new().server(), bench.address, bench.ca.client());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (shown, to_gateway, does) = (shown.clone(), to_gateway.clone(), does.clone());
            tokio::spawn(async move {
                let (mut outside, _) = shown.accept(tcp).await.unwrap();
                let tcp = TcpStream::connect(gateway).await.unwrap();
                let (mut inside, _) = to_gateway.connect("127.0.0.1", tcp).await.unwrap();
                if let Edge::Honest = does {
                    return drop(copy_bidirectional(&mut outside, &mut inside).await);
                }
                let incoming = Incoming::new(outside, Deadlines::since(Instant::now()));
                let Request::Inner(inner) = incoming.next().await.unwrap() else { return };
                match does {
                    Edge::Honest => {}
                    Edge::Refuses(status) => inner.refuse(status).await.unwrap(),
                    Edge::Opens(shown) => {
                        let Ok((mut opened, _)) = shown.accept(inner.open().await.unwrap()).await else {
                            return;
                        };
                        drop(copy_bidirectional(&mut opened, &mut inside).await);
                    }
                }
            });
        }
    });
    format!("wss://{address}")
}

#[tokio::test]
async fn through_an_edge_that_opens_tls_everything_goes_as_on_a_bare_connection() {
    let mut bench = Bench::with_musterd(GOOD).await;
    let edge = edge(&bench, Edge::Honest).await;
    let mut session = bench.dial_at(&edge).await.unwrap();
    for frame in [b"hello".to_vec(), vec![7; 1024]] {
        session.send(frame.clone()).await.unwrap();
        assert_eq!(session.recv().await.unwrap(), frame);
    }
    session.send(b"cut".to_vec()).await.unwrap();
    assert_eq!(session.recv().await.unwrap_err().code(), Code::Revoked);
    let mut ids = Vec::new();
    while let Ok(message) = bench.heard.try_recv() {
        ids.push(message.id());
    }
    assert!(ids.len() >= 5 && ids.iter().all(|id| *id == ids[0]), "one connection has one id: {ids:?}");
    // Without the word for it in the address the binding is to the edge, and does not hold.
    let bare = bench.dial_at(edge.strip_prefix("wss://").unwrap()).await.unwrap_err();
    assert_eq!((bare.step, bare.code()), (Step::Tls, Code::ChainUnknown));
    bench.stop().await;
}

#[tokio::test]
async fn the_same_gateway_needs_no_edge_for_the_websocket() {
    let bench = Bench::with_musterd(GOOD).await;
    let mut session = bench.dial_at(&format!("wss://{}", bench.address)).await.unwrap();
    session.send(b"hello".to_vec()).await.unwrap();
    assert_eq!(session.recv().await.unwrap(), b"hello");
    let (end, ()) = tokio::join!(session.recv(), bench.stop());
    assert_eq!(end.unwrap_err().code(), Code::ShuttingDown);
}

#[tokio::test]
async fn an_edge_that_opens_the_inner_tls_is_refused_by_its_certificate_or_by_the_binding() {
    let bench = Bench::with_musterd(GOOD).await;
    // Its own, or that of another org's gateway.
    let own = edge(&bench, Edge::Opens(Ca::new().server())).await;
    let refused = bench.dial_at(&own).await.unwrap_err();
    assert_eq!((refused.step, refused.code()), (Step::Tls, Code::ChainUnknown));
    // With a certificate of the org's own CA, stolen, it comes as far as the gateway's proof, which is bound to
    // the edge's connection and not to ours.
    let stolen = edge(&bench, Edge::Opens(bench.ca.server())).await;
    let refused = bench.dial_at(&stolen).await.unwrap_err();
    assert_eq!((refused.step, refused.code()), (Step::Challenge, Code::ServerProofWrong));
    bench.stop().await;
}

#[tokio::test]
async fn an_edge_that_does_not_pass_the_websocket_on_has_its_code() {
    let bench = Bench::with_musterd(GOOD).await;
    for status in [Status::BadRequest, Status::NotFound, Status::Unavailable] {
        let edge = edge(&bench, Edge::Refuses(status)).await;
        let refused = bench.dial_at(&edge).await.unwrap_err();
        assert_eq!((refused.step, refused.code()), (Step::Edge, Code::EdgeRefused), "{refused}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn inside_the_websocket_there_is_no_way_in_once_more() {
    let bench = Bench::with_musterd(GOOD).await;
    let address = Address::parse(&format!("wss://{}", bench.address)).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let tcp = TcpStream::connect(bench.address).await.unwrap();
    let way = reach(&address, tcp, until).await.unwrap();
    let (inside, _) = secure(&bench.ca.client(), "127.0.0.1", way, until).await.unwrap();
    let refused = through(&address, inside, until).await.unwrap_err();
    assert!(matches!(refused.fault, DialFault::Status(404)), "{refused}");
    bench.stop().await;
}

/// The outer TLS connection with the WebSocket open, for frames made by hand.
async fn opened(bench: &Bench) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(bench.address).await.unwrap();
    let (mut stream, _) = bench.ca.client().connect("127.0.0.1", tcp).await.unwrap();
    let head = "GET /v1/tls HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: muster.tls.v1\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// Masked with zeros, as long as it says.
fn frame(first: u8, length: usize) -> Vec<u8> {
    let header = match u8::try_from(length) {
        Ok(short) if short < 126 => vec![first, 0x80 | short],
        _ => [&[first, 0xfe][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [header, vec![0; 4], vec![22; length]].concat()
}

#[tokio::test]
async fn whoever_sends_no_tls_in_binary_messages_is_cut_at_once() {
    let bench = Bench::with_musterd(GOOD).await;
    for (what, bytes) in [
        ("a text message", frame(0x81, 5)),
        ("pings without end", [frame(0x89, 0), frame(0x89, 125)].concat().repeat(100)),
        ("a pong", frame(0x8a, 0)),
        ("an empty message", frame(0x82, 0)),
        ("a frame of 64 KiB and more", [&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 4]].concat()),
        ("a reserved bit", frame(0xc2, 5)),
        ("no mask", vec![0x82, 1, 22]),
        ("a close frame", frame(0x88, 0)),
        ("HTTP", [frame(0x82, 3), b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat()),
        ("bytes that are no TLS", frame(0x82, EDGE_FRAME_BYTES_MAX)),
    ] {
        let began = Instant::now();
        let mut stream = opened(&bench).await;
        // It may be gone before all of it is sent.
        drop(stream.write_all(&bytes).await);
        let mut rest = Vec::new();
        drop(timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await.expect(what));
        assert!(began.elapsed() < Duration::from_millis(HELLO_DEADLINE_MS), "{what}: {:?}", began.elapsed());
    }
    // Half of it closed is all of it closed.
    let began = Instant::now();
    let mut stream = opened(&bench).await;
    stream.shutdown().await.unwrap();
    drop(timeout(Duration::from_secs(8), stream.read_to_end(&mut Vec::new())).await.expect("a half-close"));
    assert!(began.elapsed() < Duration::from_millis(HELLO_DEADLINE_MS));
    bench.dial().await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn the_time_for_hello_runs_from_tcp_on_also_inside_the_websocket() {
    let bench = Bench::with_musterd(GOOD).await;
    let began = Instant::now();
    let (mut silent, mut slow) = (opened(&bench).await, opened(&bench).await);
    let silent = async {
        drop(silent.read_to_end(&mut Vec::new()).await);
        began.elapsed()
    };
    let slow = async {
        // One byte of a long record in a frame of its own, again and again.
        let record = [22, 3, 1, 0x3f, 0xff, 1].into_iter().chain(std::iter::repeat(0));
        for byte in record {
            let sent = slow.write_all(&[0x82, 0x81, 0, 0, 0, 0, byte]).await;
            let ended = timeout(Duration::from_millis(100), slow.read_u8()).await;
            if sent.is_err() || ended.is_ok() {
                break;
            }
        }
        began.elapsed()
    };
    let hello = Duration::from_millis(HELLO_DEADLINE_MS);
    for took in
        timeout(Duration::from_secs(20), async { <[_; 2]>::from(tokio::join!(silent, slow)) }).await.unwrap()
    {
        assert!(took >= hello - Duration::from_millis(500) && took < 2 * hello, "{took:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_connection_keeps_its_place_among_those_that_proved_nothing_inside_the_websocket() {
    let bench = Bench::with_musterd(GOOD).await;
    let began = Instant::now();
    let address = Address::parse(&format!("wss://{}", bench.address)).unwrap();
    let until = began + Duration::from_secs(10);
    let tcp = TcpStream::connect(bench.address).await.unwrap();
    let way: Way = reach(&address, tcp, until).await.unwrap();
    let (mut inside, _) = secure(&bench.ca.client(), "127.0.0.1", way, until).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..UNPROVEN_MAX / 2 {
        crowd.push(TcpStream::connect(bench.address).await.unwrap());
    }
    // The strangers' half is full: the oldest goes, which is the one inside.
    let ended = timeout(Duration::from_secs(8), inside.read_u8()).await.expect("its place was freed early");
    assert!(ended.is_err());
    assert!(began.elapsed() < Duration::from_millis(HELLO_DEADLINE_MS), "{:?}", began.elapsed());
    bench.stop().await;
}
