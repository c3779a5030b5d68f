//! The example for axum does what it says.
#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::net::SocketAddr;

use muster_peer::{Header, Peer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[path = "../examples/axum.rs"]
#[expect(dead_code, reason = "its main is for `cargo run`")]
mod example;

async fn asks(at: SocketAddr, peer: Option<Peer>, path: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let header = Header { source: "[fd00::3]:40000".parse().unwrap(), destination: at, peer };
    stream.write_all(&header.encode()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    // It may be gone already.
    stream.write_all(request.as_bytes()).await.unwrap_or_default();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap_or_default();
    said
}

#[tokio::test]
async fn a_handler_of_axum_is_told_which_member_asks_and_nobody_else_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(example::serve(listener));
    let peer = |name: &str, role: &str| {
        let (name, roles) = (name.to_owned(), vec![role.to_owned(), "client".to_owned()]);
        Some(Peer { name, roles, key: "ab".repeat(32), ..Peer::default() })
    };
    let said = asks(at, peer("n3", "db"), "/").await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("hello n3, db and client\n"), "{said}");
    assert!(asks(at, peer("n3", "db"), "/restart").await.starts_with("HTTP/1.1 403"));
    assert!(asks(at, peer("n1", "operator"), "/restart").await.ends_with("restarted\n"));
    // A header that musterd did not write names nobody.
    assert_eq!(asks(at, None, "/").await, "");
}
