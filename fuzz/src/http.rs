//! Connections as bytes in memory: HTTP heads both ways, and a WebSocket up to the end of a session.

use std::{sync::LazyLock, time::Duration};

use identity::limits::{HELLO_BYTES_MAX, HTTP_TARGET_BYTES_MAX, SYNC_FRAME_BYTES_MAX};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join, sink},
    runtime::{Builder, Runtime},
    time::Instant,
};
use transport::{Deadlines, Incoming, Request, Status, after_of, client};

use crate::fixture::{HANDSHAKE, ORG};

/// What an outside machine sends to a gateway: a head, then WebSocket frames.
pub fn http_request(data: &[u8]) {
    RUNTIME.block_on(async {
        let incoming = Incoming::new(stream(data), Deadlines::since(Instant::now()));
        match incoming.next().await {
            Ok(Request::Get(get)) => {
                assert!(get.target().len() <= HTTP_TARGET_BYTES_MAX);
                if after_of(get.target()).is_some() {
                    assert!(get.answer(b"page").await.is_ok());
                } else {
                    assert!(get.refuse(Status::NotFound).await.is_ok());
                }
            }
            Ok(Request::Upgrade(upgrade)) => {
                assert!((1..=HELLO_BYTES_MAX).contains(&upgrade.hello().len()));
                let Ok(pending) = upgrade.challenge(&HANDSHAKE.challenge).await else { return };
                let Ok((_proof, pending)) = pending.proof().await else { return };
                let Ok(mut session) = pending.accept(&HANDSHAKE.verdict, SYNC_FRAME_BYTES_MAX).await else {
                    return;
                };
                while let Ok(frame) = session.recv().await {
                    assert!(frame.len() <= SYNC_FRAME_BYTES_MAX);
                }
            }
            Ok(Request::Inner(inner)) => {
                let Ok(mut channel) = inner.open().await else { return };
                let mut inside = Vec::new();
                // Headers and masks take their part: never more comes out than went in.
                drop(channel.read_to_end(&mut inside).await);
                assert!(inside.len() < data.len());
            }
            Err(_) => {}
        }
    });
}

/// What a gateway, or whoever stands in its place, answers to a GET and to an upgrade.
pub fn http_answer(data: &[u8]) {
    RUNTIME.block_on(async {
        let until = Instant::now() + Duration::from_secs(5);
        let after = ORG.genesis.id();
        if let Ok(page) = client::charters(&mut stream(data), "gateway", &after, until).await {
            assert!(page.iter().map(Vec::len).sum::<usize>() <= data.len());
        }
        let held = (identity::Heads([1; 32]), 1);
        let pending = HANDSHAKE.dialled();
        let upgrade =
            client::authenticate(stream(data), "gateway", pending, held, SYNC_FRAME_BYTES_MAX, until);
        // The accept key is drawn anew each time, so no bytes of before can hold it.
        assert!(upgrade.await.is_err());
    });
}

/// The head comes alone, as it does from whoever waits for the answer; what is written goes nowhere.
fn stream(data: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin {
    let end = data.windows(4).position(|w| w == b"\r\n\r\n").map_or(data.len(), |at| at + 4);
    let (head, rest) = data.split_at_checked(end).unwrap_or((data, &[]));
    join(head.chain(rest), sink())
}

pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
