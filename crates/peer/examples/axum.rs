//! A web service that knows which member asks. On a member:
//!
//! ```text
//! cargo run -p muster-peer --example axum -- 127.0.0.1:7000
//! muster expose web --to 127.0.0.1:7000 --proxy-protocol
//! ```
//!
//! and on another, if the policy lets it: `muster connect NODE web --listen 127.0.0.1:8080`, then
//! `curl http://127.0.0.1:8080/`.

use std::{io, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::{StatusCode, request::Parts},
    routing::get,
    serve::{IncomingStream, Listener},
};
use muster_peer::Peer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    serve(TcpListener::bind(&at).await?).await
}

/// Serves until the listener breaks.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    let service = Router::new().route("/", get(greet)).route("/restart", get(restart));
    let service = service.into_make_service_with_connect_info::<Member>();
    axum::serve(Members::of(listener), service).await
}

async fn greet(Member(peer): Member) -> String {
    format!("hello {}, {}\n", peer.name, peer.roles.join(" and "))
}

/// The policy says who reaches this service; what a member may do in it, the service says.
async fn restart(Member(peer): Member) -> Result<&'static str, StatusCode> {
    if peer.roles.iter().any(|role| role == "operator") {
        Ok("restarted\n")
    } else {
        Err(StatusCode::FORBIDDEN)
    }
}

/// Who asks: its name, key and roles, as musterd proved them. A handler that names it gets it.
#[derive(Clone, Debug)]
struct Member(Peer);

impl<S: Send + Sync> FromRequestParts<S> for Member {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, StatusCode> {
        let found = ConnectInfo::<Self>::from_request_parts(parts, state).await;
        // Not served by `serve`, then: nobody proved anything.
        found.map(|ConnectInfo(member)| member).map_err(|_| StatusCode::UNAUTHORIZED)
    }
}

impl Connected<IncomingStream<'_, Members>> for Member {
    fn connect_info(stream: IncomingStream<'_, Members>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Connections that began with musterd's header, each with its member.
struct Members(mpsc::Receiver<(TcpStream, Member)>);

impl Members {
    fn of(listener: TcpListener) -> Self {
        let (arrives, arrived) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let arrives = arrives.clone();
                // A task each: who says nothing keeps nobody else waiting.
                tokio::spawn(async move {
                    let header = timeout(Duration::from_secs(3), muster_peer::accept(&mut stream)).await;
                    if let Ok(Ok(header)) = header
                        && let Some(peer) = header.peer
                    {
                        // The service may have ended meanwhile.
                        arrives.send((stream, Member(peer))).await.unwrap_or_default();
                    }
                });
            }
        });
        Self(arrived)
    }
}

impl Listener for Members {
    type Io = TcpStream;
    type Addr = Member;

    async fn accept(&mut self) -> (TcpStream, Member) {
        match self.0.recv().await {
            Some(arrived) => arrived,
            // No more will come.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Member> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
