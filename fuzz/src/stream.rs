//! conn_auth on a bare stream, as it comes out of a tunnel: two lines, then frames behind their lengths.

use conn_auth::{Holder, Reference, Standing};
use identity::{
    Heads,
    limits::{HELLO_BYTES_MAX, PROOF_BYTES_MAX},
};
use tokio::{
    io::{join, sink},
    time::Instant,
};
use transport::{Deadlines, StreamIncoming};

use crate::{fixture::HANDSHAKE, http::RUNTIME};

/// Everything that a dialler sends on one connection.
pub fn stream(data: &[u8]) {
    const FRAME_BYTES_MAX: usize = 256;
    RUNTIME.block_on(async {
        let mut incoming = StreamIncoming::new(join(data, sink()), Deadlines::since(Instant::now()));
        let Ok(Some(hello)) = incoming.hello().await else { return };
        assert!(hello.len() <= HELLO_BYTES_MAX && !hello.contains(&b'\n'));
        let (accept, fresh) = HANDSHAKE.accept();
        let Ok(pending) = accept.on_hello(&hello, fresh) else { return };
        assert!(incoming.say(pending.challenge()).await.is_ok());
        let Ok(Some(proof)) = incoming.proof().await else { return };
        assert!(proof.len() <= PROOF_BYTES_MAX && !proof.contains(&b'\n'));
        let Ok(proven) = pending.on_proof(&proof) else { return };
        assert_eq!((&*hello, &*proof), (HANDSHAKE.hello.as_bytes(), HANDSHAKE.proof.as_bytes()));
        let admitted = proven.admit(Standing::Good(Holder::Member)).unwrap();
        let verdict = admitted.verdict_ok(Reference([7; 8]), Heads([8; 32]), 0);
        assert!(incoming.say(&verdict).await.is_ok());
        let mut session = incoming.accepted(FRAME_BYTES_MAX);
        let mut left = data.len();
        while let Ok(frame) = session.recv().await {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            left = left.checked_sub(frame.len() + 4).unwrap();
        }
    });
}
