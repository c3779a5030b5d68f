//! One measured slice: a server thread, a client thread, connections one after the other.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime,
};

use crate::Failure;

type Step = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;
type Side = Arc<dyn Fn(TcpStream) -> Step + Send + Sync>;

/// One row: how each side authenticates a fresh TCP stream, up to one byte of the acceptor.
pub(crate) struct Protocol {
    name: &'static str,
    serve: Side,
    dial: Side,
}

/// What one slice measured.
pub(crate) struct Sample {
    /// CPU of both sides for each connection.
    pub(crate) cpu_us: f64,
    /// From connect to the byte.
    pub(crate) latencies_us: Vec<f64>,
    /// Connections a second, one at a time.
    pub(crate) per_s: f64,
}

impl Protocol {
    pub(crate) fn new<S, D>(
        name: &'static str,
        serve: impl Fn(TcpStream) -> S + Send + Sync + 'static,
        dial: impl Fn(TcpStream) -> D + Send + Sync + 'static,
    ) -> Self
    where
        S: Future<Output = Result<(), Failure>> + 'static,
        D: Future<Output = Result<(), Failure>> + 'static,
    {
        Self {
            name,
            serve: Arc::new(move |stream| Box::pin(serve(stream))),
            dial: Arc::new(move |stream| Box::pin(dial(stream))),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// TCP connect and one byte.
    pub(crate) fn tcp_floor() -> Self {
        Self::new("tcp floor", greet, greeted)
    }

    /// A WebSocket upgrade and one byte.
    pub(crate) fn websocket_floor() -> Self {
        Self::new("websocket floor", websocket_back, websocket)
    }
}

/// The last step of a dialler: the byte by which the acceptor shows that it trusts it.
pub(crate) async fn greeted(mut stream: impl AsyncRead + Unpin) -> Result<(), Failure> {
    stream.read_u8().await?;
    Ok(())
}

/// The last step of an acceptor, taken as soon as the dialler is proved.
pub(crate) async fn greet(mut stream: impl AsyncWrite + Unpin) -> Result<(), Failure> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    Ok(())
}

async fn websocket(stream: TcpStream) -> Result<(), Failure> {
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await?;
    socket.next().await.ok_or("the server went away")??;
    Ok(())
}

async fn websocket_back(stream: TcpStream) -> Result<(), Failure> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    socket.send(tokio_tungstenite::tungstenite::Message::binary(vec![1])).await?;
    Ok(())
}

/// Runs one row for `slice_ms`, after a few connections that are not counted.
pub(crate) fn measure(protocol: &Protocol, slice_ms: u64) -> Result<Sample, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let (address_tx, address_rx) = mpsc::channel();
    let server = {
        let (serve, stop) = (Arc::clone(&protocol.serve), Arc::clone(&stop));
        thread::spawn(move || serve_until(&serve, &stop, &address_tx))
    };
    let address = address_rx.recv()?;
    let client = dial_for(&protocol.dial, address, Duration::from_millis(slice_ms), &stop);
    let (count, served_us) = server.join().map_err(|_| "the server thread panicked")??;
    let (latencies_us, dialled_us, elapsed) = client.map_err(|why| format!("{}: {why}", protocol.name))?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
    let (served, dialled) = (count as f64, latencies_us.len() as f64);
    #[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
    let per_s = latencies_us.len() as f64 / elapsed.as_secs_f64();
    Ok(Sample { cpu_us: served_us / served + dialled_us / dialled, latencies_us, per_s })
}

/// Connections that are not counted, in time or CPU: a library's first use in a thread is dear (aws-lc-rs seeds its
/// randomness for some ten milliseconds) and no handshake's.
const WARM_UP: usize = 5;

fn serve_until(
    serve: &Side,
    stop: &AtomicBool,
    address: &mpsc::Sender<SocketAddr>,
) -> Result<(u64, f64), Failure> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        address.send(listener.local_addr()?)?;
        let mut start = thread_cpu_us();
        let mut count = 0;
        let mut warm_up = WARM_UP;
        loop {
            let (stream, _) = listener.accept().await?;
            if stop.load(Ordering::Acquire) {
                return Ok((count, thread_cpu_us() - start));
            }
            stream.set_nodelay(true)?;
            // A dialler that goes first shows up here as an error; what it says is the client's to report.
            serve(stream).await.ok();
            match warm_up.checked_sub(1) {
                Some(left) => (warm_up, start) = (left, thread_cpu_us()),
                None => count += 1,
            }
        }
    })
}

fn dial_for(
    dial: &Side,
    address: SocketAddr,
    slice: Duration,
    stop: &AtomicBool,
) -> Result<(Vec<f64>, f64, Duration), Failure> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let once = || async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            dial(stream).await
        };
        let outcome = async {
            for _ in 0..WARM_UP {
                once().await?;
            }
            let start_cpu = thread_cpu_us();
            let mut latencies = Vec::new();
            let start = Instant::now();
            while start.elapsed() < slice {
                let before = Instant::now();
                once().await?;
                latencies.push(before.elapsed().as_secs_f64() * 1e6);
            }
            Ok((latencies, thread_cpu_us() - start_cpu, start.elapsed()))
        };
        let outcome = outcome.await;
        stop.store(true, Ordering::Release);
        drop(TcpStream::connect(address).await);
        outcome
    })
}

fn thread_cpu_us() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a short run")]
    let us = now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3;
    us
}
