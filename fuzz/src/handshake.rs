//! The four lines of conn_auth, each shown to the one state that reads it.

use conn_auth::{Holder, Reference, Standing, VerdictError};
use identity::{
    Code, Heads,
    limits::{CHALLENGE_BYTES_MAX, HELLO_BYTES_MAX, VERDICT_BYTES_MAX},
};

use crate::fixture::HANDSHAKE;

/// HELLO at the acceptor.
pub fn hello(data: &[u8]) {
    let (accept, fresh) = HANDSHAKE.accept();
    let Ok(pending) = accept.on_hello(data, fresh) else { return };
    assert!(data.len() <= HELLO_BYTES_MAX);
    assert!(pending.challenge().len() <= CHALLENGE_BYTES_MAX);
    assert!(pending.challenge().bytes().all(|c| matches!(c, b' '..=b'~')));
    // A proof that was made for one HELLO proves nothing for another.
    let proven = pending.on_proof(HANDSHAKE.proof.as_bytes());
    assert_eq!(proven.is_ok(), data == HANDSHAKE.hello.as_bytes());
}

/// CHALLENGE at the dialler. The acceptor signed one, so no other may be accepted.
pub fn challenge(data: &[u8]) {
    if let Ok(proven) = HANDSHAKE.dialled().on_challenge(data) {
        assert_eq!(proven.server(), HANDSHAKE.keys().1);
        assert_eq!(data, HANDSHAKE.challenge.as_bytes());
    }
}

/// PROOF at the acceptor. The dialler signed one, so no other may be accepted.
pub fn proof(data: &[u8]) {
    let Ok(proven) = HANDSHAKE.challenged().on_proof(data) else { return };
    assert_eq!(data, HANDSHAKE.proof.as_bytes());
    assert_eq!(proven.peer(), HANDSHAKE.keys().0);
    assert!(proven.admit(Standing::Barred(Code::Revoked)).is_err());
    let unknown = HANDSHAKE.challenged().on_proof(data).unwrap().admit(Standing::Unknown);
    assert!(unknown.is_err());
    let admitted = HANDSHAKE.challenged().on_proof(data).unwrap().admit(Standing::Good(Holder::Member));
    verdict(admitted.unwrap().verdict_ok(Reference([7; 8]), Heads([8; 32]), u64::MAX).as_bytes());
}

/// VERDICT at the dialler.
pub fn verdict(data: &[u8]) {
    let line = match HANDSHAKE.proved().on_verdict(data) {
        Ok(accepted) => {
            assert_eq!(accepted.server(), HANDSHAKE.keys().1);
            let (reference, heads) = (accepted.reference(), accepted.heads());
            format!("ok ref={reference} heads={heads} count={}", accepted.count())
        }
        Err(VerdictError::Refused { reference, code: Some(code) }) => {
            format!("{} code={code}", reference.verdict_no())
        }
        // A later release's code is a refusal like any other.
        Err(VerdictError::Refused { reference, code: None }) => {
            assert!(data.starts_with(reference.verdict_no().as_bytes()));
            return;
        }
        Err(_) => return,
    };
    assert!(data.len() <= VERDICT_BYTES_MAX);
    assert_eq!(data, line.as_bytes());
}
