//! Whom to keep a session of `action=sync` with, when to compare tips, whom to cut.
//!
//! Members stand on two rings, in the orders of two hashes of their keys. Each keeps a session with the
//! first member behind it on either that it can reach. One ring alone connects everybody who is up; the
//! two together are a random graph in which the way between any two is short. A large org has a third
//! ring, whose sessions only flood.
//!
//! [`Swim`] tells sooner than a session does which of these members answer. Liveness is nobody's verdict:
//! who cannot be reached is tried again later and stays a member.
//!
//! [`Overlay`] is shaped by polling: give it what happened by `handle_*` with the time, then take
//! [`Overlay::poll_output`] until it is empty, and call [`Overlay::handle_timeout`] at
//! [`Overlay::poll_timeout`]. It opens no socket, reads no clock, draws no randomness, and trusts nobody:
//! who is a member is told to it.

mod backoff;
mod overlay;
mod ring;
mod swim;

pub use overlay::{Direction, Output, Overlay};
pub use ring::Rings;
pub use swim::{Liveness, Swim, SwimError, SwimOutput};
