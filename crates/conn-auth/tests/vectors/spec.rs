//! The transcript and the signatures from the specification's text, apart from the crate's own code,
//! and the signatures that no honest side makes.

use conn_auth::Binding;
use curve25519_dalek::{Scalar, traits::Identity as _};
use ed25519_dalek::{Signer as _, SigningKey};
use identity::{HashContext, Label, OrgId};
use sha2::{Digest as _, Sha512};

pub(crate) fn t2(org: &OrgId, binding: &Binding, hello: &[u8], challenge: &[u8]) -> [u8; 32] {
    let (kind, channel) = match binding {
        Binding::Tls(exporter) => ("tls", *exporter),
        Binding::WireGuard { client, server } => {
            ("wg", HashContext::CHANNEL_WIREGUARD.hash(&[&client.0, &server.0]))
        }
    };
    let (covered, _) = split(challenge);
    let parts = [org.as_bytes().as_slice(), kind.as_bytes(), &channel, hello, covered];
    HashContext::CONN_AUTH_T2.hash(&[&parts.map(lp).concat()])
}

pub(crate) fn t3(t2: &[u8; 32], challenge: &[u8], proof: &[u8]) -> [u8; 32] {
    let (_, signature) = split(challenge);
    let (covered, _) = split(proof);
    HashContext::CONN_AUTH_T3.hash(&[t2, &signature, &lp(covered)])
}

pub(crate) fn session(t3: &[u8; 32]) -> [u8; 16] {
    HashContext::CONN_AUTH_SESSION.hash(&[t3])[..16].try_into().unwrap()
}

fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

/// What stands before ` sig=`, and the signature behind it.
fn split(line: &[u8]) -> (&[u8], [u8; 64]) {
    let (covered, sig) = line.split_at(line.len() - 133);
    (covered, identity::decode_hex(sig.strip_prefix(b" sig=").unwrap()).unwrap())
}

/// How a signature departs from the right one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Twist {
    None,
    /// The other role's label.
    OtherLabel,
    /// No label.
    Bare,
    /// S + L: the same residue, not reduced.
    Unreduced,
    /// R is the neutral element, S fits: plain verification takes it.
    SmallR,
}

pub(crate) fn sign(seed: &[u8; 32], label: Label, message: &[u8; 32], twist: Twist) -> [u8; 64] {
    let key = SigningKey::from_bytes(seed);
    let labelled = [label.as_bytes(), message].concat();
    match twist {
        Twist::None => key.sign(&labelled).to_bytes(),
        Twist::OtherLabel => {
            let other = if label == Label::CONN_AUTH_CLIENT {
                Label::CONN_AUTH_SERVER
            } else {
                Label::CONN_AUTH_CLIENT
            };
            key.sign(&[other.as_bytes(), message].concat()).to_bytes()
        }
        Twist::Bare => key.sign(message).to_bytes(),
        Twist::Unreduced => plus_order(key.sign(&labelled).to_bytes()),
        Twist::SmallR => {
            let r = curve25519_dalek::EdwardsPoint::identity().compress().to_bytes();
            let hash = Sha512::new().chain_update(r).chain_update(key.verifying_key().as_bytes());
            let k = hash.chain_update(&labelled).finalize();
            let k = Scalar::from_bytes_mod_order_wide(&k.as_slice().try_into().unwrap());
            let s = k * key.to_scalar();
            [r, s.to_bytes()].concat().try_into().unwrap()
        }
    }
}

/// Adds the group's order to S, in 256 bits.
fn plus_order(mut signature: [u8; 64]) -> [u8; 64] {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    signature
}
