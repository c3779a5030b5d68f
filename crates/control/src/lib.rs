//! What local programs say to musterd: `muster` on the control socket ([`local`]), and a gateway's
//! front on its own socket ([`gateway`], `docs/spec/gateway-socket.md`).
//!
//! Pure: the messages and how they are framed. It opens no socket and holds no key, and no message
//! here carries a private key.

pub mod framing;
pub mod gateway;
pub mod local;
pub mod settings;
pub mod stream;
pub mod text;
