//! What a connection that failed was lacking, in words and codes.
//!
//! Explains and never decides: whether a certificate holds is said by the verifier that every dialler
//! uses, and comes in as an argument. Where that says yes, nothing here says no; where it says no, one
//! check here fails. Pure: what was seen comes in, what it means goes out.

mod answer;
mod certificate;
mod chain;
mod check;

pub use answer::{Spoken, edge_in};
pub use certificate::{Certificate, date};
pub use chain::{Explained, Sent, explain};
pub use check::{Check, Stage, Status};
