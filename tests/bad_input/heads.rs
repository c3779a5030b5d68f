//! BI of the HTTP head around the first message.

use identity::{
    Code,
    limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX},
};
use muster_tests::{listener::Refused, raw::upgrade};
use transport::{HeadFault, ServeError};

use crate::bench::{Bench, On, hello};

/// What the listener makes of it.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// The head is refused.
    Fault(HeadFault),
    /// It is a head, for a path that is not here.
    NotFound,
}

#[tokio::test]
async fn every_bad_head_is_refused_by_its_name() {
    let mut bench = Bench::new(On::WebSocket).await;
    for (name, bytes, want) in catalogue() {
        let (refused, words) = bench.said(&bytes).await;
        let status: &[u8] = match (&refused, want) {
            (Refused::Serve(ServeError::Head(got)), Want::Fault(want)) => {
                assert_eq!(*got, want, "{name}");
                b"HTTP/1.1 400 Bad Request\r\n"
            }
            (Refused::NotFound, Want::NotFound) => b"HTTP/1.1 404 Not Found\r\n",
            (got, want) => panic!("{name}: {want:?} wanted, {got:?} got"),
        };
        assert_eq!(refused.code(), Code::HelloMalformed, "{name}");
        assert!(words.starts_with(status), "{name}: {}", String::from_utf8_lossy(&words));
        assert!(!words.windows(3).any(|w| w == b"101"), "{name}");
        bench.serves(name).await;
    }
    bench.assert_clean();
}

fn catalogue() -> Vec<(&'static str, Vec<u8>, Want)> {
    let good = String::from_utf8(upgrade(hello().as_bytes())).unwrap();
    let with =
        |header: &str| good.replace("Host: 127.0.0.1\r\n", &format!("Host: 127.0.0.1\r\n{header}\r\n"));
    let without = |header: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
        lines.collect::<String>()
    };
    let path = |path: &str| good.replace("GET /auth ", &format!("GET {path} "));
    let header = |name| Want::Fault(HeadFault::Header(name));
    let grammar = Want::Fault(HeadFault::Grammar);
    let oversize = Want::Fault(HeadFault::Oversize);
    let padding = HTTP_HEAD_BYTES_MAX + 1 - good.len() - "X-Pad: \r\n".len();

    let mut cases: Vec<(&'static str, Vec<u8>, Want)> = Vec::new();
    let mut case = |name, head: String, want| cases.push((name, head.into_bytes(), want));
    case("BI-head-no-host", without("Host"), header("host"));
    case("BI-head-empty-host", good.replace("Host: 127.0.0.1", "Host: "), header("host"));
    case("BI-head-two-hosts", with("Host: other"), Want::Fault(HeadFault::Repeated));
    let two = with("Content-Length: 0\r\nContent-Length: 3");
    case("BI-head-two-content-lengths", two, Want::Fault(HeadFault::Repeated));
    case("BI-head-chunked", with("Transfer-Encoding: chunked"), Want::Fault(HeadFault::Body));
    let both = with("Content-Length: 3\r\nTransfer-Encoding: chunked");
    case("BI-head-chunked-and-length", both, Want::Fault(HeadFault::Body));
    case("BI-head-content-length-0", with("Content-Length: 0"), Want::Fault(HeadFault::Body));
    case("BI-head-one-byte-too-long", with(&format!("X-Pad: {}", "p".repeat(padding))), oversize);
    case("BI-head-8-KiB-and-1", with(&format!("X-Pad: {}", "p".repeat(8 * 1024 + 1))), oversize);
    case("BI-head-one-header-too-many", with("X: 1\r\n".repeat(HTTP_HEADERS_MAX).trim_end()), oversize);
    case("BI-head-200-headers", with("A: 1\r\n".repeat(200).trim_end()), oversize);
    case("BI-head-header-without-colon", with("nonsense"), grammar);
    case("BI-head-folded-header", with("X-Fold: a\r\n b"), grammar);
    case("BI-head-space-before-colon", with("X-Space : a"), grammar);
    case("BI-head-nul-in-header", with("X-Nul: \0"), grammar);
    case("BI-head-lone-lf", good.replacen("\r\n", "\n", 1), grammar);
    case("BI-head-http-1.0", good.replace("HTTP/1.1", "HTTP/1.0"), grammar);
    case("BI-head-http-2.0", good.replace("HTTP/1.1", "HTTP/2.0"), grammar);
    case("BI-head-http-2-preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), grammar);
    case("BI-head-method-post", good.replacen("GET", "POST", 1), Want::Fault(HeadFault::Method));
    case("BI-head-method-lower-case", good.replacen("GET", "get", 1), Want::Fault(HeadFault::Method));
    case("BI-head-method-junk", good.replacen("GET", "G\u{1}T", 1), grammar);
    case("BI-head-method-missing", good.replacen("GET ", "", 1), grammar);
    case("BI-head-absolute-uri", path("http://127.0.0.1/auth"), Want::NotFound);
    case("BI-head-other-path", path("/auth2"), Want::NotFound);
    case("BI-head-path-dot-dot", path("/x/../auth"), Want::NotFound);
    case("BI-head-path-dot-dot-encoded", path("/x/%2e%2e/auth"), Want::NotFound);
    case("BI-head-path-nul-encoded", path("/auth%00"), Want::NotFound);
    case("BI-head-path-nul", path("/auth\0"), grammar);
    case("BI-head-path-query", path("/auth?x=1"), Want::NotFound);
    case("BI-head-path-257", path(&format!("/{}", "p".repeat(256))), oversize);
    case("BI-head-get-without-upgrade", "GET /auth HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Want::NotFound);
    case("BI-upgrade-header-missing", without("Upgrade"), header("upgrade"));
    case("BI-upgrade-other", good.replace("Upgrade: websocket", "Upgrade: h2c"), header("upgrade"));
    case("BI-upgrade-without-connection", without("Connection"), header("connection"));
    case(
        "BI-upgrade-connection-close",
        good.replace("Connection: Upgrade", "Connection: close"),
        header("connection"),
    );
    case("BI-upgrade-without-key", without("Sec-WebSocket-Key"), header("sec-websocket-key"));
    let short_key = good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j");
    case("BI-upgrade-key-of-15-bytes", short_key, header("sec-websocket-key"));
    let bad_key = good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q==");
    case("BI-upgrade-key-not-base64", bad_key, header("sec-websocket-key"));
    let version = |n: &str| good.replace("Version: 13", &format!("Version: {n}"));
    case("BI-upgrade-version-8", version("8"), header("sec-websocket-version"));
    case("BI-upgrade-version-14", version("14"), header("sec-websocket-version"));
    case("BI-upgrade-version-missing", without("Sec-WebSocket-Version"), header("sec-websocket-version"));
    let protocol = |p: &str| good.replace("muster.auth.v1", p);
    case("BI-upgrade-wrong-subprotocol", protocol("muster.auth.v2"), header("sec-websocket-protocol"));
    case("BI-upgrade-two-subprotocols", protocol("muster.auth.v1, chat"), header("sec-websocket-protocol"));
    case(
        "BI-upgrade-without-subprotocol",
        without("Sec-WebSocket-Protocol"),
        header("sec-websocket-protocol"),
    );
    case("BI-upgrade-origin", with("Origin: https://evil.example"), Want::Fault(HeadFault::Origin));
    case("BI-upgrade-two-hellos", with("Muster-Hello: x"), Want::Fault(HeadFault::Repeated));
    case("BI-upgrade-two-hellos-one-lower-case", with("muster-hello: x"), Want::Fault(HeadFault::Repeated));
    case("BI-upgrade-without-hello", without("Muster-Hello"), header("muster-hello"));
    case("BI-upgrade-and-a-proof-too-early", format!("{good}\u{1}"), Want::Fault(HeadFault::Trailing));
    case("BI-upgrade-twice-at-once", format!("{good}{good}"), Want::Fault(HeadFault::Trailing));
    let tls_hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 600], b"\r\n\r\n"].concat();
    cases.push(("BI-tls-to-the-plain-port", tls_hello, grammar));
    cases
}

#[tokio::test]
async fn plain_http_to_the_tls_port_is_refused_as_not_tls() {
    let mut bench = Bench::new(On::Tls).await;
    for (name, bytes) in [
        ("BI-http-to-the-tls-port", upgrade(hello().as_bytes())),
        ("BI-conn-auth-to-the-tls-port", format!("{}\n", hello()).into_bytes()),
        ("BI-zeros-to-the-tls-port", vec![0; 64]),
        // A ClientHello of TLS 1.2 and no newer one.
        ("BI-tls-1.2-only", tls12_hello()),
    ] {
        let (refused, words) = bench.said(&bytes).await;
        assert!(matches!(&refused, Refused::Tls(_)), "{name}: {refused:?}");
        assert_eq!(refused.code(), Code::NotTls, "{name}: {refused:?}");
        // At most a TLS alert.
        assert!(words.is_empty() || words.starts_with(b"\x15\x03"), "{name}: {words:?}");
        bench.serves(name).await;
    }
    bench.assert_clean();
}

/// One suite, no extensions.
fn tls12_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2b], &[1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &body].concat();
    [&[0x16, 3, 1, 0, length + 4][..], &handshake].concat()
}
