//! Every published attack on the first version of the handshake, on real listeners, by one attacker: it
//! succeeds on v0, which shows that the attacker is able, and fails on v1.
//!
//! The listeners are honest ones (`muster_tests::listener`), the victim dials as ours do, and the attacker
//! is the process `muster-attack`, which gets the same orders on both wires but for the framing and for
//! what only v1 makes necessary (a `to=` to rewrite, an answer of its own). Each test says what the honest
//! listener came to believe, and on v1 which error each side ends with.
//!
//! The half on v0 needs the feature `seed-wire` of this package:
//! `cargo test --package muster-tests --features seed-wire --test attacks`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod features;
#[cfg(feature = "seed-wire")]
mod on_v0;
mod on_v1;

use std::path::Path;

use muster_tests::{
    attacker::{Attacker, Orders},
    listener::{Listener, Seen},
    org::Person,
};

/// An id, of a change to the member list perhaps, that somebody would like to have signed.
const DIGEST: [u8; 32] = [0xd1; 32];

async fn attacker(orders: Orders) -> Attacker {
    Attacker::start(Path::new(env!("CARGO_BIN_EXE_muster-attack")), &orders).await
}

/// The listener let `peer` in for `action` and heard `said`.
async fn assert_believed(listener: &mut Listener, peer: &[u8; 32], action: &str, said: &str) {
    match listener.seen().await {
        Seen::Accepted { peer: got, action: for_action, said: heard } => {
            assert_eq!((&got, for_action.as_str()), (peer, action));
            assert_eq!(String::from_utf8(heard).unwrap(), said);
        }
        other @ (Seen::TokenShown | Seen::Refused(_)) => panic!("{other:?}"),
    }
}

fn public(person: Person) -> [u8; 32] {
    *person.public().as_bytes()
}
