//! BI of what comes too slowly or never: cut in time, and nobody else waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use identity::{
    Code,
    limits::{HANDSHAKE_DEADLINE_MS, HELLO_DEADLINE_MS},
};
use muster_tests::{
    dialler::Dialler,
    listener::Seen,
    org::Person,
    raw::{Raw, TEXT, upgrade},
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::bench::{Bench, On, hello};

/// Between the deadline and the moment the peer sees the end.
const SLACK: Duration = Duration::from_millis(500);

/// A peer that is too slow.
struct Slow {
    name: &'static str,
    on: On,
    /// Whether it gets as far as CHALLENGE before it slows down.
    challenged: bool,
    /// Sent at once.
    first: Vec<u8>,
    /// Sent a byte a second.
    then: Vec<u8>,
}

#[tokio::test]
async fn whoever_sends_nothing_garbage_or_a_byte_a_second_is_cut_in_time() {
    let line = format!("{}\n", hello()).into_bytes();
    let head = upgrade(hello().as_bytes());
    let client_hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 500]].concat();
    let no_end = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    let opening = |name, on, first, then| Slow { name, on, challenged: false, first, then };
    let proving = |name, on, first, then| Slow { name, on, challenged: true, first, then };
    let half = vec![TEXT, 0x80 | 100, 1, 2, 3, 4];
    let cases = [
        opening("BI-slow-nothing-on-lines", On::Lines, vec![], vec![]),
        opening("BI-slow-nothing-on-http", On::WebSocket, vec![], vec![]),
        opening("BI-slow-nothing-on-tls", On::Tls, vec![], vec![]),
        opening("BI-slow-line-without-end", On::Lines, no_end(&line), vec![]),
        opening("BI-slow-head-without-end", On::WebSocket, no_end(&head), vec![]),
        opening("BI-slow-line-byte-a-second", On::Lines, vec![], line),
        opening("BI-slow-head-byte-a-second", On::WebSocket, vec![], head),
        opening("BI-slow-tls-byte-a-second", On::Tls, vec![], client_hello),
        proving("BI-slow-no-proof-on-lines", On::Lines, vec![], vec![]),
        proving("BI-slow-no-proof-on-a-websocket", On::WebSocket, vec![], vec![]),
        proving("BI-slow-proof-byte-a-second", On::Lines, vec![], b"heads=0000000000".to_vec()),
        proving("BI-slow-half-a-frame", On::WebSocket, half, vec![]),
        proving("BI-slow-frame-byte-a-second", On::WebSocket, vec![TEXT], vec![0x80 | 100; 16]),
    ];
    let late = Lateness::watch();
    let mut running = JoinSet::new();
    for Slow { name, on, challenged, first, then } in cases {
        let late = late.clone();
        running.spawn(async move {
            let due = if challenged { HANDSHAKE_DEADLINE_MS } else { HELLO_DEADLINE_MS };
            let due = Duration::from_millis(due);
            let mut bench = Bench::new(on).await;
            let begun = Instant::now();
            let mut raw = if challenged { bench.challenged(&hello()).await.0 } else { bench.raw().await };
            drop(raw.bytes(&first).await);
            dribble(&mut raw, &then).await;
            let lasted = begun.elapsed();
            let refused = bench.listener.refused().await;
            assert_eq!(refused.code(), Code::HandshakeTimeout, "{name}: {refused:?}");
            assert!(lasted + SLACK >= due, "{name}: cut after {lasted:?} already");
            assert!(lasted <= due + SLACK + late.so_far(), "{name}: cut after {lasted:?}");
            bench.serves(name).await;
            drop(raw);
            bench.assert_clean();
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_waiting() {
    const CROWD: usize = 200;
    let mut bench = Bench::new(On::Tls).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(bench.address()).await.unwrap());
    }
    let boot = Dialler::boot(Person::Gateway);
    assert_eq!(boot.tls(bench.address(), &bench.authority.client()).await.unwrap(), b"done: boot");
    let mut served = 0;
    for _ in 0..=CROWD {
        match bench.listener.seen().await {
            Seen::Accepted { .. } => served += 1,
            Seen::Refused(why) => assert_eq!(why.code(), Code::HandshakeTimeout),
            Seen::TokenShown => panic!("no token is served here"),
        }
    }
    assert_eq!(served, 1);
    drop(crowd);
    bench.assert_clean();
}

/// How late timers fire here: a test machine that has no time for us is not the listener's fault.
#[derive(Clone)]
struct Lateness(Arc<AtomicU64>);

impl Lateness {
    fn watch() -> Self {
        const TICK: Duration = Duration::from_millis(20);
        let sum = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sum);
        tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                sleep(TICK).await;
                let late = begun.elapsed().saturating_sub(TICK);
                if late > TICK {
                    count.fetch_add(u64::try_from(late.as_millis()).unwrap(), Ordering::SeqCst);
                }
            }
        });
        Self(sum)
    }

    fn so_far(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Sends a byte a second until the other side ends it.
async fn dribble(raw: &mut Raw, bytes: &[u8]) {
    for byte in bytes {
        if raw.bytes(&[*byte]).await.is_err() || timeout(Duration::from_secs(1), raw.rest()).await.is_ok() {
            return;
        }
    }
    timeout(Duration::from_secs(10), raw.rest()).await.expect("never cut");
}
