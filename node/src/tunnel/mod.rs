//! The overlay's data path: WireGuard between members, and nothing between anyone else.
//!
//! One task owns every tunnel. It keeps a WireGuard session with members only: the handshake of an
//! unknown or removed key is dropped before it leaves any state, and a member that is removed has
//! lost its session, endpoints, flows and gate before [`TunnelHandle::set_peers`] returns.
//!
//! Until a link session opens a member's gate, a tunnel carries conn_auth and nothing else; after
//! that the filter passes what the configuration opens and the answers to what we asked. The inner
//! source is always the member's own overlay address.
//!
//! It decides nobody's standing, speaks no conn_auth, forwards nothing between members, and carries
//! no IPv4, fragments or extension headers.

mod device;
mod engine;
mod filter;
mod flow;
mod held;
mod output;
mod packet;
mod peer;
mod task;

pub use engine::{Engine, EngineConfig, KeyMismatch, TunnelPeer};
pub use filter::{Allow, AllowError, Filter, Gate, Verdict};
pub use flow::{Flow, FlowTable, Protocol};
pub use output::{Drops, Output, PeerStats, Stats, TunnelEvent};
pub use packet::{Malformed, Packet, Payload};
pub use task::{TunnelConfig, TunnelError, TunnelGone, TunnelHandle, spawn};
