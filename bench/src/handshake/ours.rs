//! conn_auth over a bare stream, over a WebSocket, and over a WebSocket inside TLS.

use super::slice::Protocol;
use crate::Failure;

pub(crate) fn protocols() -> Result<Vec<Protocol>, Failure> {
    Ok(Vec::new())
}
