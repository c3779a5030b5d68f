//! Every published attack on the first version of the handshake: it succeeds there and fails here.
//! The tests on `v0` need the feature `seed-wire`; those on `v1` always run.

#![cfg(test)]

use conn_auth::{
    Accept, Action, AwaitProof, Binding, ChallengeError, Dial, HelloError, LineError, LineFault, ProofError,
    To,
};
use identity::{Heads, KeyError, Label, OrgId, PublicKey, SecretKey, Signature, decode_hex};

const ORG: OrgId = OrgId([1; 32]);
/// Two connections that an attacker in the middle ends on one side and opens on the other.
const NEAR: Binding = Binding::Tls([7; 32]);
const FAR: Binding = Binding::Tls([8; 32]);
/// An id that somebody would like to have signed.
const DIGEST: [u8; 32] = [0xd1; 32];
/// The neutral element: a key of small order.
const WEAK: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

#[cfg(feature = "seed-wire")]
mod on_v0 {
    use conn_auth::v0::{self, Token};
    use identity::encode_hex;

    use super::{Action, DIGEST, SecretKey, WEAK, key};

    #[test]
    fn relay_succeeds_on_v0() {
        let victim = key(1);
        let dial = dial(&victim, "sync");
        // The victim dials a malicious member, who forwards to an honest one.
        let honest = v0::on_hello(dial.hello().as_bytes(), [5; 32]).unwrap();
        let sig = dial.on_challenge(honest.challenge());
        let admitted = honest.on_signature(sig.as_bytes()).unwrap().admit(true).unwrap();
        assert_eq!(&admitted.peer(), victim.public().as_bytes());
    }

    #[test]
    fn action_swap_succeeds_on_v0() {
        let victim = key(1);
        let dial = dial(&victim, "fetch");
        let swapped = dial.hello().replace("action=fetch", "action=submit");
        let server = v0::on_hello(swapped.as_bytes(), [5; 32]).unwrap();
        let sig = dial.on_challenge(server.challenge());
        let admitted = server.on_signature(sig.as_bytes()).unwrap().admit(true).unwrap();
        assert_eq!(admitted.action().name(), "submit");
    }

    #[test]
    fn signing_oracle_succeeds_on_v0() {
        let victim = key(1);
        let signature = dial(&victim, "sync").on_challenge(&DIGEST);
        // A verifier of signatures over bare digests takes it for the victim's own.
        let hello = dial(&victim, "sync").hello();
        let verifier = v0::on_hello(hello.as_bytes(), DIGEST).unwrap();
        assert!(verifier.on_signature(signature.as_bytes()).is_ok());
    }

    #[test]
    fn unauthenticated_server_succeeds_on_v0() {
        // Whoever answers gets a valid signature and then the application data: no key is asked for.
        let victim = key(1);
        assert!(dial(&victim, "submit").on_challenge(&[0; 32]).starts_with("sig="));
    }

    #[test]
    fn reflection_succeeds_on_v0() {
        let victim = key(1);
        // The attacker opens a connection to the victim in the victim's own name ...
        let hello = format!("pubkey={} action=sync", victim.public());
        let server = v0::on_hello(hello.as_bytes(), [5; 32]).unwrap();
        // ... and has the victim answer it on a connection that the victim opened to the attacker.
        let sig = dial(&victim, "ping").on_challenge(server.challenge());
        assert!(server.on_signature(sig.as_bytes()).unwrap().admit(true).is_ok());
    }

    #[test]
    fn weak_key_succeeds_on_v0() {
        // One signature for every message, by nobody in particular.
        let forged = format!("sig={}{}", encode_hex(&WEAK), "00".repeat(32));
        for challenge in [[5; 32], [6; 32]] {
            let hello = format!("pubkey={} action=sync", encode_hex(&WEAK));
            let server = v0::on_hello(hello.as_bytes(), challenge).unwrap();
            assert!(server.on_signature(forged.as_bytes()).is_ok());
        }
    }

    #[test]
    fn token_replay_succeeds_on_v0() {
        let kept_by_gateway = Token::of(&[3; 32]);
        // An edge that ends TLS sees the token once ...
        let seen = Token::of(&[3; 32]).to_text();
        assert!(kept_by_gateway.matches(seen.as_bytes()));
        // ... and shows it for ever after.
        assert!(kept_by_gateway.matches(seen.as_bytes()));
        assert!(!kept_by_gateway.matches(Token::of(&[4; 32]).to_text().as_bytes()));
    }

    #[test]
    fn the_lines_are_those_that_were_published() {
        let dial = v0::Dial { key: &key(1), action: Action::new("sync", &[("b", "2"), ("a", "1")]).unwrap() };
        let hello = dial.hello();
        assert_eq!(hello, format!("pubkey={} action=sync a=1 b=2", key(1).public()));
        let unsorted = hello.replace("a=1 b=2", "b=2 a=1");
        let server = v0::on_hello(unsorted.as_bytes(), [5; 32]).unwrap();
        let sig = dial.on_challenge(&[5; 32]);
        assert_eq!(sig.len(), "sig=".len() + 128);
        let proven = server.on_signature(sig.as_bytes()).unwrap();
        assert_eq!(proven.action().parameter("b"), Some("2"));
        assert_eq!(proven.admit(false), Err(v0::SeedWireError::NotMember));
    }

    #[test]
    fn a_v1_acceptor_does_not_speak_v0_nor_the_reverse() {
        let (old, new) = (key(1), key(2));
        let hello = dial(&old, "sync").hello();
        assert!(super::accept(&new, super::NEAR).on_hello(hello.as_bytes(), [5; 32]).is_err());
        let new_dial = super::dial(&old, new.public(), super::NEAR, "sync");
        let new_dial = new_dial.start([4; 32]).unwrap();
        assert!(v0::on_hello(new_dial.hello().as_bytes(), [5; 32]).is_err());
        assert!(new_dial.on_challenge(&[5; 32]).is_err());
    }

    fn dial<'a>(key: &'a SecretKey, action: &str) -> v0::Dial<'a> {
        v0::Dial { key, action: Action::new(action, &[]).unwrap() }
    }
}

#[test]
fn relay_fails_on_v1() {
    let (victim, malicious, honest) = (key(1), key(2), key(3));
    // The victim dials the malicious member, who forwards to the honest one: the wrong key answers.
    let dialled = dial(&victim, malicious.public(), NEAR, "sync").start([4; 32]).unwrap();
    let far = accept(&honest, FAR).on_hello(dialled.hello().as_bytes(), [5; 32]).unwrap();
    let refused = dialled.on_challenge(far.challenge().as_bytes()).unwrap_err();
    assert_eq!(refused, ChallengeError::WrongServer { got: Box::new(honest.public()) });

    // The malicious member answers for itself and takes the proof elsewhere: it names another server.
    let dialled = dial(&victim, malicious.public(), NEAR, "sync").start([4; 32]).unwrap();
    let near = accept(&malicious, NEAR).on_hello(dialled.hello().as_bytes(), [5; 32]).unwrap();
    let redirected = dialled.hello().replace(&malicious.public().to_string(), &honest.public().to_string());
    let proof = dialled.on_challenge(near.challenge().as_bytes()).unwrap().prove(Heads([0; 32]), 0);
    let far = accept(&honest, FAR).on_hello(redirected.as_bytes(), [5; 32]).unwrap();
    assert_wrong(far, proof.proof(), &victim);

    // Somebody on the path forwards unchanged between two channels: the right key, another channel.
    let dialled = dial(&victim, honest.public(), NEAR, "sync").start([4; 32]).unwrap();
    let far = accept(&honest, FAR).on_hello(dialled.hello().as_bytes(), [5; 32]).unwrap();
    let refused = dialled.on_challenge(far.challenge().as_bytes()).unwrap_err();
    assert_eq!(refused, ChallengeError::ProofWrong);
}

#[test]
fn action_swap_fails_on_v1() {
    let (victim, server) = (key(1), key(2));
    let dialled = dial(&victim, server.public(), NEAR, "fetch").start([4; 32]).unwrap();
    let swapped = dialled.hello().replace("action=fetch", "action=submit");
    let accept = accept(&server, NEAR).on_hello(swapped.as_bytes(), [5; 32]).unwrap();
    let refused = dialled.on_challenge(accept.challenge().as_bytes()).unwrap_err();
    assert_eq!(refused, ChallengeError::ProofWrong);
}

#[test]
fn signing_oracle_fails_on_v1() {
    let (victim, malicious) = (key(1), key(2));
    let dialled = dial(&victim, malicious.public(), NEAR, "sync").start([4; 32]).unwrap();
    let accept = accept(&malicious, NEAR).on_hello(dialled.hello().as_bytes(), DIGEST).unwrap();
    let verdict = dialled.on_challenge(accept.challenge().as_bytes()).unwrap().prove(Heads(DIGEST), 0);
    let (_, sig) = verdict.proof().split_once(" sig=").unwrap();
    let signature = Signature(decode_hex(sig.as_bytes()).unwrap());
    for &label in Label::ALL {
        assert!(victim.public().verify(label, &DIGEST, &signature).is_err(), "{label:?}");
    }
    #[cfg(feature = "seed-wire")]
    {
        let hello = format!("pubkey={} action=sync", victim.public());
        let verifier = conn_auth::v0::on_hello(hello.as_bytes(), DIGEST).unwrap();
        assert!(verifier.on_signature(format!("sig={sig}").as_bytes()).is_err());
    }
}

#[test]
fn unauthenticated_server_fails_on_v1() {
    let (victim, server, impostor) = (key(1), key(2), key(3));
    let start = || dial(&victim, server.public(), NEAR, "submit").start([4; 32]).unwrap();
    let answer = |line: &str| start().on_challenge(line.as_bytes()).unwrap_err();
    let own = accept(&impostor, NEAR).on_hello(start().hello().as_bytes(), [5; 32]).unwrap();
    let wrong = ChallengeError::WrongServer { got: Box::new(impostor.public()) };
    assert_eq!(answer(own.challenge()), wrong);
    let renamed = own.challenge().replace(&impostor.public().to_string(), &server.public().to_string());
    assert_eq!(answer(&renamed), ChallengeError::ProofWrong);
}

#[test]
fn reflection_fails_on_v1() {
    let (victim, attacker) = (key(1), key(2));
    // In the victim's own name: refused at once.
    let dialled = dial(&victim, attacker.public(), NEAR, "ping").start([4; 32]).unwrap();
    let refused = accept(&victim, NEAR).on_hello(dialled.hello().as_bytes(), [5; 32]);
    assert_eq!(refused.unwrap_err(), HelloError::OwnKey);
    // What the victim signs as a server is worth nothing as a client's proof, and the reverse.
    let hello = dial(&attacker, victim.public(), NEAR, "ping").start([4; 32]).unwrap();
    let served = accept(&victim, NEAR).on_hello(hello.hello().as_bytes(), [5; 32]).unwrap();
    let (_, sig) = served.challenge().split_once(" sig=").unwrap();
    let other = key(3);
    let elsewhere = dial(&victim, other.public(), NEAR, "ping").start([4; 32]).unwrap();
    let elsewhere = accept(&other, NEAR).on_hello(elsewhere.hello().as_bytes(), [5; 32]).unwrap();
    assert_wrong(elsewhere, &format!("heads={} count=0 sig={sig}", "00".repeat(32)), &victim);
}

#[test]
fn weak_key_fails_on_v1() {
    let server = key(2);
    let start = dial(&key(1), server.public(), NEAR, "sync").start([4; 32]).unwrap().hello().to_owned();
    let weak = identity::encode_hex(&WEAK);
    let hello = start.replace(&key(1).public().to_string(), &weak);
    let refused = accept(&server, NEAR).on_hello(hello.as_bytes(), [5; 32]).unwrap_err();
    let weak_key = LineError { field: "pubkey", fault: LineFault::BadKey(KeyError::Weak) };
    assert_eq!(refused, HelloError::Malformed(weak_key));
    let dialled = dial(&server, key(1).public(), NEAR, "sync").start([4; 32]).unwrap();
    let challenge =
        format!("muster-auth/1 pubkey={weak} challenge={} sig={weak}{}", "05".repeat(32), "00".repeat(32));
    assert_eq!(dialled.on_challenge(challenge.as_bytes()).unwrap_err(), ChallengeError::Malformed(weak_key));
}

#[test]
fn token_replay_fails_on_v1() {
    let (boot_key, gateway) = (key(1), key(2));
    let dialled = dial(&boot_key, gateway.public(), NEAR, "boot").start([4; 32]).unwrap();
    let hello = dialled.hello().to_owned();
    let first = accept(&gateway, NEAR).on_hello(hello.as_bytes(), [5; 32]).unwrap();
    let proof = dialled.on_challenge(first.challenge().as_bytes()).unwrap().prove(Heads([0; 32]), 0);
    assert!(first.on_proof(proof.proof().as_bytes()).is_ok());
    // All that was seen once, shown again: to the same gateway on its next challenge, and, with the same
    // challenge even, on another channel.
    let again = accept(&gateway, NEAR).on_hello(hello.as_bytes(), [6; 32]).unwrap();
    assert_wrong(again, proof.proof(), &boot_key);
    let other_channel = accept(&gateway, FAR).on_hello(hello.as_bytes(), [5; 32]).unwrap();
    assert_wrong(other_channel, proof.proof(), &boot_key);
}

fn assert_wrong(accept: AwaitProof, proof: &str, claimed: &SecretKey) {
    let refused = accept.on_proof(proof.as_bytes()).unwrap_err();
    assert_eq!(refused, ProofError::Wrong { claimed: Box::new(claimed.public()) });
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn dial<'a>(key: &'a SecretKey, to: PublicKey, binding: Binding, action: &str) -> Dial<'a> {
    Dial { org: ORG, key, to: To::Key(to), binding, action: Action::new(action, &[]).unwrap() }
}

fn accept(key: &SecretKey, binding: Binding) -> Accept<'_> {
    Accept { org: ORG, key, binding }
}
