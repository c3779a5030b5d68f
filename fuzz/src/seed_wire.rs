//! The handshake as first published. It protects against nobody, but its parser is one of bytes from outside.

use conn_auth::v0;
use identity::limits::HELLO_BYTES_MAX;

/// The first line, or both behind each other.
pub fn seed_wire(data: &[u8]) {
    let (hello, rest) = data.split_at(data.iter().position(|c| *c == b'\n').unwrap_or(data.len()));
    let challenge = [5; 32];
    let Ok(pending) = v0::on_hello(hello, challenge) else { return };
    assert!(hello.len() <= HELLO_BYTES_MAX);
    assert_eq!(pending.challenge(), &challenge);
    let Ok(proven) = pending.on_signature(rest.strip_prefix(b"\n").unwrap_or(rest)) else { return };
    assert!(hello.starts_with(b"pubkey="));
    assert!(proven.admit(false).is_err());
}
