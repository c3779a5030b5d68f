//! What a machine's TPM says when the machine joins, checked without a TPM and without its library.
//!
//! Three questions, in this order:
//!
//! * Is there a TPM that somebody we named vouches for? [`Endorsement::of_certificate`]: the certificate of
//!   its endorsement key is signed by a CA that the operator configured.
//! * Does the key that speaks live in that TPM? [`AttestationKey::decode`] and
//!   [`Endorsement::make_credential`]: only the TPM that holds both keys opens the credential, and only if
//!   the second is exactly the one described.
//! * What does it say, and to whom? [`AttestationKey::verify_quote`]: the registers, and 32 bytes that tie
//!   the quote to one session, its keys, and the opened credential. [`Accepted`] says which registers will do.
//!
//! What a peer sends is read strictly and within bounds; what does not follow the TPM's own encoding is
//! refused with the name of the field. Pure: randomness comes in as bytes. X.509 appears here and nowhere
//! else as a word about a machine: it is the word of whoever made the TPM, and it says nothing about who is
//! a member.

mod credential;
mod endorsement;
mod key;
mod quote;
mod reader;

pub use credential::Credential;
pub use endorsement::{Endorsement, EndorsementError, certificate_in, tpm_of};
pub use key::{AttestationKey, KeyError};
pub use quote::{Accepted, QuoteError, Quoted, Registers};
pub use reader::Malformed;
