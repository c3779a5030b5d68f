//! The same attacks on conn_auth v1.

use conn_auth::{Binding, ChallengeError, HelloError, LineError, LineFault, ProofError};
use ed25519_dalek::{Signature, VerifyingKey};
use identity::{Code, KeyError, Label, decode_hex};
use muster_tests::{
    attacker::{Attack, Orders, Trick},
    dialler::{Dialler, Failed},
    listener::{Listener, Refused, Wire},
    org::{Person, tunnel},
    pki::{Authority, Leaf},
    raw::Framing,
};
use transport::{Broken, MessageFault, ServeError};

use crate::{DIGEST, assert_believed, attacker, public};

/// The tunnels that a malicious member has with the victim and with the honest member.
const NEAR: Binding = tunnel(Person::Victim, Person::Malicious);
const FAR: Binding = tunnel(Person::Malicious, Person::Honest);
/// The tunnel that the victim and the honest member share; the attacker sits where its packets come out.
const SHARED: Binding = tunnel(Person::Victim, Person::Honest);

#[tokio::test]
async fn without_an_attacker_the_same_listeners_serve_on_v1() {
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(SHARED)).await;
    let victim = Dialler::victim(Person::Honest, "sync");
    assert_eq!(victim.lines(honest.address, SHARED).await.unwrap(), b"done: sync");
    assert_believed(&mut honest, &public(Person::Victim), "sync", "the victim's secret").await;

    let (authority, leaf) = certified();
    let mut gateway = Listener::start(Person::Gateway.key(), Wire::Tls(leaf.server())).await;
    let boot = Dialler::boot(Person::Gateway);
    assert_eq!(boot.tls(gateway.address, &authority.client()).await.unwrap(), b"done: boot");
    assert_believed(&mut gateway, &public(Person::Boot), "boot", "the victim's secret").await;
}

#[tokio::test]
async fn an_attacker_that_passes_everything_on_inside_the_tunnel_gains_nothing_on_v1() {
    // Bytes that somebody carries unchanged on the channel they were made for: the honest pair talks.
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(SHARED)).await;
    let carrier = attacker(Orders::new(Attack::Between, Framing::Lines).at(honest.address)).await;
    let answer = Dialler::victim(Person::Honest, "sync").lines(carrier.address, SHARED).await.unwrap();
    assert_eq!(answer, b"done: sync");
    assert_believed(&mut honest, &public(Person::Victim), "sync", "the victim's secret").await;
}

#[tokio::test]
async fn relay_fails_on_v1() {
    let victim = Dialler::victim(Person::Malicious, "sync");
    let between = |honest: &Listener| {
        let orders = Orders::new(Attack::Between, Framing::Lines).at(honest.address);
        orders.trick(Trick::SpeakForTheVictim)
    };

    // Passed on as it is, or redirected: the honest member answers, and the victim did not ask for it.
    for redirect in [false, true] {
        let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(FAR)).await;
        let mut orders = between(&honest);
        if redirect {
            orders = orders.redirected(Person::Malicious, Person::Honest);
        }
        let attacker = attacker(orders).await;
        let failed = victim.lines(attacker.address, NEAR).await.unwrap_err();
        assert_eq!(failed.code(), Code::WrongServer);
        let wrong = ChallengeError::WrongServer { got: Box::new(Person::Honest.public()) };
        assert!(matches!(failed, Failed::Challenge(why) if why == wrong));
        assert_left(&mut honest).await;
        assert_eq!(attacker.loot().await.proof, "", "nothing was signed");
    }

    // The malicious member answers for itself and takes the proof to the honest one.
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(FAR)).await;
    let orders = between(&honest).redirected(Person::Malicious, Person::Honest).trick(Trick::AnswerItself);
    let attacker = attacker(orders).await;
    let failed = victim.lines(attacker.address, NEAR).await.unwrap_err();
    assert!(matches!(failed, Failed::Broken(_)), "{failed:?}");
    assert_not_proved(&mut honest, Person::Victim).await;
    let loot = attacker.loot().await;
    assert!(loot.proof.starts_with("heads="), "the attacker had a proof in its hands");
    assert_bare_no(&loot.verdict);
    assert_eq!(loot.answer, "");
}

#[tokio::test]
async fn relay_through_an_edge_that_ends_tls_fails_on_v1() {
    let (authority, leaf) = certified();
    let mut gateway = Listener::start(Person::Gateway.key(), Wire::Tls(leaf.server())).await;
    let orders = Orders::new(Attack::Between, Framing::WebSocket).at(gateway.address);
    let edge = attacker(orders.with(authority.leaf())).await;
    // The right gateway, asked for by its key, by a certificate that holds: another channel.
    let failed = Dialler::boot(Person::Gateway).tls(edge.address, &authority.client()).await.unwrap_err();
    assert_eq!(failed.code(), Code::ServerProofWrong);
    assert!(matches!(failed, Failed::Challenge(ChallengeError::ProofWrong)));
    assert_left(&mut gateway).await;
    assert_eq!(edge.loot().await.proof, "");
}

#[tokio::test]
async fn action_swap_fails_on_v1() {
    let swap = Trick::Rewrite { from: "action=ping".to_owned(), to: "action=sync".to_owned() };
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(SHARED)).await;
    let orders = Orders::new(Attack::Between, Framing::Lines).at(honest.address);
    let attacker = attacker(orders.trick(swap)).await;
    let failed = Dialler::victim(Person::Honest, "ping").lines(attacker.address, SHARED).await.unwrap_err();
    assert_eq!(failed.code(), Code::ServerProofWrong);
    assert!(matches!(failed, Failed::Challenge(ChallengeError::ProofWrong)));
    assert_left(&mut honest).await;
    assert_eq!(attacker.loot().await.proof, "");
}

#[tokio::test]
async fn signing_oracle_fails_on_v1() {
    let orders = Orders::new(Attack::Impostor(DIGEST), Framing::Lines).trick(Trick::AnswerItself);
    let attacker = attacker(orders).await;
    // A member like any other, dialled on purpose: the handshake itself is in order.
    Dialler::victim(Person::Malicious, "sync").lines(attacker.address, NEAR).await.unwrap();
    let loot = attacker.loot().await;
    assert_eq!(loot.secret, "the victim's secret");
    let (_, signature) = loot.proof.split_once(" sig=").unwrap();
    assert!(!signed_bare(Person::Victim, &DIGEST, signature));
    let parsed = identity::Signature(decode_hex(signature.as_bytes()).unwrap());
    for &label in Label::ALL {
        assert!(Person::Victim.public().verify(label, &DIGEST, &parsed).is_err(), "{label:?}");
    }
}

#[tokio::test]
async fn unauthenticated_server_fails_on_v1() {
    let impostor = || Orders::new(Attack::Impostor(DIGEST), Framing::Lines);
    let claims = Trick::ClaimKey(Person::Honest.public().to_string());
    let wrong_server = ChallengeError::WrongServer { got: Box::new(Person::Malicious.public()) };
    let malformed = ChallengeError::Malformed(LineError { field: "version", fault: LineFault::Version });
    for (orders, why, code) in [
        (impostor().trick(Trick::AnswerItself), wrong_server, Code::WrongServer),
        (impostor().trick(claims), ChallengeError::ProofWrong, Code::ServerProofWrong),
        // What was enough on v0.
        (impostor(), malformed, Code::VersionUnsupported),
    ] {
        let attacker = attacker(orders).await;
        let failed = Dialler::victim(Person::Honest, "sync").lines(attacker.address, NEAR).await.unwrap_err();
        match failed {
            // Thirty-two raw bytes are no line: the field at fault is the first one.
            Failed::Challenge(ChallengeError::Malformed(at)) => {
                assert!(matches!(why, ChallengeError::Malformed(_)) && at.field == "version", "{at:?}");
            }
            Failed::Challenge(got) => assert_eq!((got.code(), got), (code, why)),
            Failed::Verdict(_) | Failed::Broken(_) | Failed::Dial(_) => panic!("no challenge was refused"),
        }
        let loot = attacker.loot().await;
        assert_eq!((loot.proof.as_str(), loot.secret.as_str()), ("", ""));
    }
}

#[tokio::test]
async fn a_stolen_ca_impersonates_no_gateway_on_v1() {
    let (authority, _) = certified();
    let orders = Orders::new(Attack::Impostor(DIGEST), Framing::WebSocket).with(authority.leaf());
    let claims = Trick::ClaimKey(Person::Gateway.public().to_string());
    let impostor = attacker(orders.trick(claims)).await;
    let failed = Dialler::boot(Person::Gateway).tls(impostor.address, &authority.client()).await.unwrap_err();
    assert_eq!(failed.code(), Code::ServerProofWrong);
    assert_eq!(impostor.loot().await.secret, "");
}

#[tokio::test]
async fn reflection_fails_on_v1() {
    // The victim's HELLO comes back to the victim's own listener, as it was and readdressed.
    for redirect in [false, true] {
        let own = tunnel(Person::Malicious, Person::Victim);
        let mut victims_own = Listener::start(Person::Victim.key(), Wire::Lines(own)).await;
        let mut orders = Orders::new(Attack::Between, Framing::Lines).at(victims_own.address);
        if redirect {
            orders = orders.redirected(Person::Malicious, Person::Victim);
        }
        let attacker = attacker(orders.trick(Trick::SpeakForTheVictim)).await;
        let victim = Dialler::victim(Person::Malicious, "ping");
        let failed = victim.lines(attacker.address, NEAR).await.unwrap_err();
        // The listener's refusal is all there was to pass on.
        assert_eq!(failed.code(), Code::RefusedWithoutReason);
        assert!(matches!(failed, Failed::Challenge(ChallengeError::Refused { .. })));
        let refused = victims_own.refused().await;
        assert_eq!(refused.code(), Code::WrongServer);
        assert!(matches!(refused, Refused::Hello(HelloError::OwnKey)));
    }
}

#[tokio::test]
async fn reflection_of_a_servers_proof_as_a_clients_fails_on_v1() {
    let own = tunnel(Person::Malicious, Person::Victim);
    let mut victims_own = Listener::start(Person::Victim.key(), Wire::Lines(own)).await;
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(FAR)).await;
    let orders = Orders::new(Attack::Mirror { other: honest.address }, Framing::Lines);
    let attacker = attacker(orders.at(victims_own.address)).await;
    assert_not_proved(&mut honest, Person::Victim).await;
    assert_left(&mut victims_own).await;
    assert_bare_no(&attacker.loot().await.verdict);
}

#[tokio::test]
async fn weak_key_fails_on_v1() {
    let mut honest = Listener::start(Person::Honest.key(), Wire::Lines(FAR)).await;
    let attacker = attacker(Orders::new(Attack::Forge, Framing::Lines).at(honest.address)).await;
    let refused = honest.refused().await;
    assert_eq!(refused.code(), Code::HelloMalformed);
    let weak = LineError { field: "pubkey", fault: LineFault::BadKey(KeyError::Weak) };
    assert!(matches!(refused, Refused::Hello(HelloError::Malformed(why)) if why == weak));
    assert_eq!(attacker.loot().await.answer, "");
}

#[tokio::test]
async fn token_replay_fails_on_v1() {
    let (authority, leaf) = certified();
    let mut gateway = Listener::start(Person::Gateway.key(), Wire::Tls(leaf.server())).await;
    // Even somebody who read all that an honest boot of this machine sent to this gateway has nothing to
    // show again.
    let leaked = Dialler::boot(Person::Gateway).recorded(gateway.address, &authority.client()).await;
    assert_believed(&mut gateway, &public(Person::Boot), "boot", "the victim's secret").await;
    let orders = Orders::new(Attack::Replay { leaked, token: false }, Framing::WebSocket);
    let edge = attacker(orders.at(gateway.address).with(authority.leaf())).await;
    let failed = Dialler::boot(Person::Gateway).tls(edge.address, &authority.client()).await.unwrap_err();
    assert!(matches!(failed, Failed::Challenge(ChallengeError::ProofWrong)), "{failed:?}");
    assert_left(&mut gateway).await;
    // What the edge shows on its own connection: HELLO and PROOF of the boot that went well.
    assert_not_proved(&mut gateway, Person::Boot).await;
    let loot = edge.loot().await;
    assert_bare_no(&loot.verdict);
    assert_eq!((loot.proof.as_str(), loot.answer.as_str()), ("", ""));
}

/// Whether this is the person's signature over exactly these bytes, as verifiers of old take it.
pub(crate) fn signed_bare(person: Person, bytes: &[u8; 32], signature: &str) -> bool {
    let key = VerifyingKey::from_bytes(person.public().as_bytes()).unwrap();
    let signature = Signature::from_bytes(&decode_hex(signature.as_bytes()).unwrap());
    key.verify_strict(bytes, &signature).is_ok()
}

/// The listener's peer went away without having proved anything.
async fn assert_left(listener: &mut Listener) {
    let refused = listener.refused().await;
    assert_eq!(refused.code(), Code::ConnectionLost, "{refused:?}");
    // A close frame is how an edge that gives up looks from inside the WebSocket.
    let left = matches!(
        refused,
        Refused::Broken(Broken::Ended | Broken::Io(_))
            | Refused::Serve(ServeError::Broken(Broken::Ended | Broken::Io(_)))
            | Refused::Serve(ServeError::Message(MessageFault::Closed))
    );
    assert!(left);
}

/// The listener got a proof that is not by `claimed`.
async fn assert_not_proved(listener: &mut Listener, claimed: Person) {
    let refused = listener.refused().await;
    assert_eq!(refused.code(), Code::ClientProofWrong, "{refused:?}");
    let wrong = ProofError::Wrong { claimed: Box::new(claimed.public()) };
    assert!(matches!(refused, Refused::Proof(why) if why == wrong));
}

/// A refusal that tells nothing.
fn assert_bare_no(verdict: &str) {
    assert!(verdict.starts_with("no ref=") && !verdict.contains("code"), "{verdict}");
}

fn certified() -> (Authority, Leaf) {
    let authority = Authority::new();
    let leaf = authority.leaf();
    (authority, leaf)
}
