//! A service that greets its peers by name. On a member:
//!
//! ```text
//! cargo run -p muster-peer --example greet -- 127.0.0.1:7000
//! muster expose greet --to 127.0.0.1:7000 --proxy-protocol
//! ```
//!
//! and on another, if the policy lets it: `muster connect NODE greet`.

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let listener = TcpListener::bind(&at).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(header) = muster_peer::accept(&mut stream).await else { return };
            let Some(peer) = header.peer else { return };
            let greeting = format!("hello {}, {}\n", peer.name, peer.roles.join(" and "));
            // Whoever left before the greeting misses nothing else.
            stream.write_all(greeting.as_bytes()).await.unwrap_or_default();
        });
    }
}
