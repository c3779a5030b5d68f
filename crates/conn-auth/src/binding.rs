//! What the signatures tie the handshake to: the channel it runs in.

use core::fmt;

use identity::{HashContext, WireGuardKey};

/// The exporter label of RFC 9266; the context is empty and the length 32 bytes. TLS 1.3 only, without
/// resumption and early data.
pub const TLS_EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The kind of channel, as HELLO names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bind {
    /// `tls`: a TLS 1.3 connection.
    Tls,
    /// `wg`: a WireGuard tunnel between two members.
    WireGuard,
}

impl Bind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::WireGuard => "wg",
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The channel itself, from one's own end of it and never from a peer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The exporter value of this TLS connection; see [`TLS_EXPORTER_LABEL`].
    Tls([u8; 32]),
    /// The two keys of the tunnel that carries the connection, from one's own tunnel state for the
    /// packet's source address.
    WireGuard {
        /// Who dialled the connection (not necessarily the tunnel).
        client: WireGuardKey,
        /// Who accepted it.
        server: WireGuardKey,
    },
}

impl Binding {
    /// Its kind.
    #[must_use]
    pub const fn bind(&self) -> Bind {
        match self {
            Self::Tls(_) => Bind::Tls,
            Self::WireGuard { .. } => Bind::WireGuard,
        }
    }

    /// The 32 bytes that enter the transcript.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        match self {
            Self::Tls(exporter) => *exporter,
            Self::WireGuard { client, server } => {
                HashContext::CHANNEL_WIREGUARD.hash(&[&client.0, &server.0])
            }
        }
    }
}
