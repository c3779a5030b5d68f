//! The handshake that opens every connection between two machines of an org: *who is this*, proved
//! both ways with the keys themselves, before one byte of application data. Normative text:
//! `docs/spec/conn-auth.md`.
//!
//! ```text
//! dialler                                                                   acceptor
//! Dial::start           -- HELLO      who I am, whom I want, what for -->   Accept::on_hello
//! AwaitChallenge        <- CHALLENGE  who I am, fresh bytes, my proof --
//!   .on_challenge => ServerProven
//!   .prove              -- PROOF      what I hold, my proof ---------->     AwaitProof::on_proof
//!                                                                             => KeyProven
//!                                                                             .admit => Admitted
//! AwaitVerdict          <- VERDICT    ok | no ------------------------      Admitted::verdict_ok
//!   .on_verdict => Accepted                                                 Refusal::verdict
//! ```
//!
//! Both signatures cover the org, the channel underneath ([`Binding`]), and the exact bytes of every
//! message before them, so what was proved on one connection proves nothing on another. Each state is
//! a value that its one step consumes: another order of steps does not compile, and [`Admitted`] and
//! [`Accepted`] can be had in no other way.
//!
//! This crate has no socket, clock, randomness or member list: lines, fresh bytes and the standing of
//! a key come as arguments. It refuses to sign anything the other side chose alone, to talk about
//! standing with a key that is not proved, to accept itself as a peer, and to fall back to another
//! version.

mod action;
mod binding;
mod initiator;
mod refusal;
mod responder;
mod transcript;
#[cfg(feature = "seed-wire")]
pub mod v0;
mod wire;

pub use action::{ACTIONS, ANY_OTHER, Action, ActionError, ActionRule, ServiceName, Who};
pub use binding::{Bind, Binding, TLS_EXPORTER_LABEL};
pub use initiator::{
    Accepted, AwaitChallenge, AwaitVerdict, ChallengeError, Dial, DialError, ServerProven, To, VerdictError,
};
pub use refusal::{Holder, Reference, Refusal, Standing};
pub use responder::{Accept, Admitted, AwaitProof, HelloError, KeyProven, ProofError};
pub use wire::{LineError, LineFault, VERSION};
