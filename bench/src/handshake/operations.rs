//! Single operations, thread CPU time: what the rows are made of.

use std::{hint::black_box, time::Instant};

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey as X25519PublicKey, StaticSecret},
};
use identity::{HashContext, Label, SecretKey};

use crate::{Failure, table::median};

/// Name and microseconds.
pub(crate) type Costs = Vec<(&'static str, f64)>;

pub(crate) fn measure() -> Result<Costs, Failure> {
    let key = SecretKey::from_seed(&[1; 32]);
    let public = key.public();
    let signature = key.sign(Label::CONN_AUTH_CLIENT, &[7; 32]);
    let bytes = *public.as_bytes();
    Ok(vec![
        ("op sign", timed(400, || key.sign(Label::CONN_AUTH_CLIENT, &[7; 32]))),
        ("op verify_strict", timed(400, || public.verify(Label::CONN_AUTH_CLIENT, &[7; 32], &signature))),
        ("op parse key", timed(400, || identity::PublicKey::from_bytes(&bytes))),
        ("op transcript hash", timed(2000, || HashContext::CONN_AUTH_T2.hash(&[&[3; 600]]))),
        ("op wireguard handshake", timed(40, wireguard)),
    ])
}

/// Both ends of a WireGuard handshake, in memory.
fn wireguard() -> Option<()> {
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (a_public, b_public) = (X25519PublicKey::from(&a), X25519PublicKey::from(&b));
    let mut left = Tunn::new(a, b_public, None, None, 1, None);
    let mut right = Tunn::new(b, a_public, None, None, 2, None);
    let (mut one, mut two) = ([0; 256], [0; 256]);
    let TunnResult::WriteToNetwork(initiation) = left.format_handshake_initiation(&mut one, false) else {
        return None;
    };
    let TunnResult::WriteToNetwork(response) = right.decapsulate(None, initiation, &mut two) else {
        return None;
    };
    let TunnResult::WriteToNetwork(_) = left.decapsulate(None, response, &mut one) else { return None };
    Some(())
}

/// Median of runs, in microseconds.
fn timed<T>(runs: usize, operation: impl Fn() -> T) -> f64 {
    let samples: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(operation());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&samples)
}
