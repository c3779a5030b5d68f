//! What is signed, exactly. Nothing else of this crate hashes or frames.

use identity::{HashContext, OrgId, SessionId, Signature};

use crate::Binding;

/// Everything up to the acceptor's proof.
#[derive(Debug)]
pub(crate) struct ServerTranscript([u8; 32]);

/// Everything up to the dialler's proof.
#[derive(Debug)]
pub(crate) struct ClientTranscript([u8; 32]);

impl ServerTranscript {
    /// T2, over the bytes as sent or received; `challenge` ends before ` sig=`.
    pub(crate) fn new(org: &OrgId, binding: &Binding, hello: &[u8], challenge: &[u8]) -> Self {
        let kind = binding.bind().as_str().as_bytes();
        let channel = binding.bytes();
        let parts = [org.as_bytes().as_slice(), kind, &channel, hello, challenge];
        let mut framed = Vec::with_capacity(parts.iter().map(|part| PREFIX_BYTES + part.len()).sum());
        for part in parts {
            length_prefixed(&mut framed, part);
        }
        Self(HashContext::CONN_AUTH_T2.hash(&[&framed]))
    }

    /// T3; `proof` ends before ` sig=`.
    pub(crate) fn client(&self, server: &Signature, proof: &[u8]) -> ClientTranscript {
        let mut framed = Vec::with_capacity(PREFIX_BYTES + proof.len());
        length_prefixed(&mut framed, proof);
        ClientTranscript(HashContext::CONN_AUTH_T3.hash(&[&self.0, &server.0, &framed]))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl ClientTranscript {
    /// The session's id, for logs.
    pub(crate) fn session(&self) -> SessionId {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
            HashContext::CONN_AUTH_SESSION.hash(&[&self.0]);
        SessionId([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

const PREFIX_BYTES: usize = 4;

/// Lines are at most 1,024 bytes, so the length always fits.
fn length_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}
