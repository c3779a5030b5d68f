//! Health and metrics over HTTP, for programs that watch machines: `[health] listen`, off unless it is set.
//!
//! It asks what `muster status` asks, by the same way, so the two cannot differ; and a musterd that does
//! not answer is not alive. What it says is nobody's business but this machine's, so it listens on the
//! loopback only and answers nothing that was asked under another name than the loopback's: a page in a
//! browser here that has a name of its own point to this machine learns nothing.

mod metrics;
mod ready;

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use control::local::{Answer, Request as Ask, Status};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::sockets::Asked;

/// Opens the port.
///
/// # Errors
/// The operating system refuses, or the address is not of the loopback.
pub async fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    if !at.ip().is_loopback() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    TcpListener::bind(at).await
}

/// Serves until nobody takes requests any more.
pub async fn serve(listener: TcpListener, asked: mpsc::Sender<Asked>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = asked.closed() => return,
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(client(stream, asked.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn client(stream: TcpStream, asked: mpsc::Sender<Asked>) {
    let service = service_fn(|request| {
        let asked = asked.clone();
        async move { Ok::<_, Infallible>(answer(&request, &asked).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_IDLE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CLIENT_MAX, connection).await {
        tracing::debug!(%error, "a health client");
    }
}

async fn answer(request: &Request<Incoming>, asked: &mpsc::Sender<Asked>) -> Response<Full<Bytes>> {
    if !is_for_loopback(request) {
        return text(StatusCode::MISDIRECTED_REQUEST, TEXT, "this is not for that host\n");
    }
    if *request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n");
    }
    let path = request.uri().path();
    let known = path == "/livez" || path == "/metrics" || path == "/readyz" || path.starts_with("/readyz/");
    if !known {
        return text(StatusCode::NOT_FOUND, TEXT, "/livez, /readyz, /readyz/NAME or /metrics\n");
    }
    let Some(status) = status(asked).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, "musterd does not answer\n");
    };
    match path {
        "/livez" => text(StatusCode::OK, TEXT, "ok\n"),
        "/metrics" => text(StatusCode::OK, metrics::CONTENT, metrics::encode(&status)),
        "/readyz" => said(ready::all(&status)),
        _ => match ready::one(path.trim_start_matches("/readyz/"), &status) {
            Some(verdict) => said(verdict),
            None => text(StatusCode::NOT_FOUND, TEXT, ready::NAMES.join("\n")),
        },
    }
}

/// What musterd says of itself, if it does in time.
async fn status(asked: &mpsc::Sender<Asked>) -> Option<Status> {
    let (reply, answered) = oneshot::channel();
    let ask = async {
        asked.send(Asked { request: Ask::Status {}, reply, stream: None }).await.ok()?;
        answered.await.ok()
    };
    match timeout(ANSWERS_WITHIN, ask).await {
        Ok(Some(Answer::Status(status))) => Some(*status),
        Ok(Some(_) | None) | Err(_) => None,
    }
}

fn is_for_loopback<T>(request: &Request<T>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match host.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => {
            let name = host.split_once(':').map_or(host, |(name, _)| name);
            name == "localhost" || host == "[::1]" || name == "127.0.0.1"
        }
    }
}

fn said((ready, body): (bool, String)) -> Response<Full<Bytes>> {
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, "application/json", body)
}

fn text(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const CLIENTS_MAX: usize = 16;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const CLIENT_IDLE: Duration = Duration::from_secs(10);
/// Whoever watches connects anew after this long.
const CLIENT_MAX: Duration = Duration::from_secs(300);
/// Musterd answers in milliseconds; a write of a long list takes it half a second.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
