//! How a connection comes to be: TLS judged by the org's own anchors, one HTTP/1.1 head, a WebSocket,
//! and the four messages of conn_auth carried over it, each step within its deadline and its bound.
//!
//! ```text
//! dialler                                             acceptor
//! Address -> TCP -> ClientTls::connect                Unproven::admit -> ServerTls::accept
//! client::charters   GET /charters?after=ID  ------>  Incoming::next => Request::Get
//! client::authenticate                                Incoming::next => Request::Upgrade
//!                    Upgrade + Muster-Hello  ------>  Upgrade::challenge
//!                    <----- 101 + Muster-Challenge
//!                    PROOF (text)            ------>  AwaitProof::proof
//!                    <-------------- VERDICT (text)   AwaitVerdict::accept | refuse
//! Session            <-- binary frames, close -->     Session
//! ```
//!
//! Where an edge opens TLS, all of this runs inside a WebSocket of its own: `client::reach` and
//! `Request::Inner` give a [`Way`] that TLS takes like a TCP connection.
//!
//! The acceptor's caller decides between the steps; nothing here knows a member. What it refuses to
//! do: trust a public CA, resume TLS or speak anything older than 1.3, read more than its bound from
//! a stranger, wait without a deadline, or let anything but those four messages pass before VERDICT.

mod address;
mod channel;
pub mod client;
mod deadline;
mod descriptors;
mod head;
mod line;
#[cfg(feature = "seed-wire")]
pub mod seed_wire;
mod server;
mod session;
mod stream;
mod tap;
mod tls;
mod unproven;
mod way;
mod websocket;

pub use address::{Address, AddressError};
pub use channel::Channel;
pub use client::encode_charters;
pub use conn_auth::Reference;
pub use deadline::{Broken, Deadlines};
pub use descriptors::raise_descriptor_limit;
pub use head::HeadFault;
pub use line::{LineReader, write_line};
pub use server::{
    AwaitProof, AwaitVerdict, Get, Incoming, Inner, Request, ServeError, Status, Upgrade, after_of,
};
pub use session::{CLOSE_CUT, Session, SessionError, SessionReceiver, SessionSender};
pub use stream::{StreamIncoming, StreamSession, authenticate_stream};
pub use tap::{First, HELLO_PREFIX_BYTES, Tap, hello_reference};
pub use tls::{BundleError, CertificateFault, ClientTls, ServerTls, Shown, TlsError, Witness};
pub use unproven::{Admission, Ticket, Unproven};
pub use way::Way;
pub use websocket::MessageFault;

/// Where conn_auth is served.
pub const AUTH_PATH: &str = "/auth";
/// Where the org's settings are served, to anybody.
pub const CHARTERS_PATH: &str = "/charters";
/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "muster.auth.v1";
/// Where an edge that opens TLS passes TLS to the gateway on, inside a WebSocket.
pub const EDGE_PATH: &str = "/v1/tls";
/// The subprotocol of that WebSocket.
pub const EDGE_SUBPROTOCOL: &str = "muster.tls.v1";
