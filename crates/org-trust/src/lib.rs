//! Every record an org, its admins, gateways and nodes sign, and the files that carry them.
//!
//! | record | who signs | what it is |
//! |---|---|---|
//! | [`Charter`] | root keys, K of N | who holds which role, which CAs count; a hash chain ([`CharterChain`]) |
//! | [`Statement`] | an admin, a gateway, or a node of itself | one change to the member list |
//! | [`Report`] | a node | what that node holds and where it listens |
//! | [`EnrolRequest`] | three node keys and the invite | what a newcomer asks a gateway for |
//!
//! Bytes from a peer decode to an `Unverified` value, or are refused with the field's name. That value
//! becomes the record by being consumed together with what it must be checked against. Each record
//! has one encoding: whatever decodes encodes to the same bytes. The formats are written down in
//! `docs/spec/records.md`, `invite.md` and `wire.md`.
//!
//! This crate does no I/O, reads no clock, draws no randomness, and decides nobody's standing: whether
//! an author may say what it says, and in which order, is for `member-crdt`, which alone knows the rest.

mod admit;
mod assign;
mod assurance;
mod attestation;
mod base64;
mod blob;
mod blob_put;
mod bundle;
mod chain;
mod charter;
mod charter_signed;
mod endpoint;
mod enrol;
mod exchange;
mod gateway_request;
mod generation;
mod invite;
mod manifest;
mod payload;
mod pem;
mod record;
mod report;
mod revoke;
mod rotate;
mod running_image;
mod statement;

pub use admit::{Admit, NodeKeys, Possession, PossessionError};
pub use assign::Assign;
pub use assurance::Assurance;
pub use attestation::{Challenge, Offer, Quote, ShareOffer, question, share_question};
pub use blob::{BlobReply, BlobRequest};
pub use blob_put::{PutReply, PutRequest, PutStep, Putting};
pub use bundle::{Anchor, BundleError, TrustBundle};
pub use chain::CharterChain;
pub use charter::{Admin, CaState, Charter, Cut, Gateway, TlsCa};
pub use charter_signed::{CharterError, UnverifiedCharter, VerifiedCharter};
pub use endpoint::{MalformedAddress, check_address};
pub use enrol::{EnrolError, EnrolRequest, Redemption, VerifiedEnrol};
pub use exchange::{Outcome, Reply, Request, Select, Submitted};
pub use gateway_request::{GatewayRequest, GatewayRequestError, VerifiedGatewayRequest};
pub use generation::{Generation, GenerationError, UnverifiedGeneration};
pub use invite::{Cancel, Invite};
pub use manifest::{CheckedInvite, InviteManifest, ManifestError};
pub use payload::{Cosign, Lane, Payload, PolicyChange};
pub use record::{BatchTooLarge, Record, Records};
pub use report::{Report, ReportBody, ReportClaim, ReportError, ReportTip, UnverifiedReport};
pub use revoke::{Reason, Resume, Revoke, Suspend};
pub use rotate::{Retire, Rotate, RotatePossession};
pub use running_image::RunningImage;
pub use statement::{Place, Statement, StatementClaim, StatementError, UnverifiedStatement};
