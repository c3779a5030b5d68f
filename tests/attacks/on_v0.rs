//! The handshake as first published. Nothing here is a surprise: it is what v1 is for.

use conn_auth::v0::Token;
use muster_tests::{
    attacker::{Attack, Orders, Trick},
    dialler::Dialler,
    listener::{Listener, Seen, Wire},
    org::{Person, WEAK},
    pki::Authority,
    raw::Framing,
};

use crate::{DIGEST, assert_believed, attacker, public};

#[tokio::test]
async fn relay_succeeds_on_v0() {
    let mut honest = Listener::start(Person::Honest.key(), Wire::Seed).await;
    let orders = Orders::new(Attack::Between, Framing::Seed).at(honest.address);
    let attacker = attacker(orders.trick(Trick::SpeakForTheVictim)).await;
    // The victim wants something of the malicious member itself and knows nobody else.
    let victim = Dialler::victim(Person::Malicious, "sync");
    victim.seed(attacker.address).await.unwrap();
    assert_believed(&mut honest, &public(Person::Victim), "sync", "the attacker's words").await;
    assert_eq!(attacker.loot().await.answer, "done: sync");
}

#[tokio::test]
async fn action_swap_succeeds_on_v0() {
    let mut honest = Listener::start(Person::Honest.key(), Wire::Seed).await;
    let swap = Trick::Rewrite { from: "action=ping".to_owned(), to: "action=sync".to_owned() };
    let orders = Orders::new(Attack::Between, Framing::Seed).at(honest.address);
    let attacker = attacker(orders.trick(swap)).await;
    let answer = Dialler::victim(Person::Honest, "ping").seed(attacker.address).await.unwrap();
    assert_believed(&mut honest, &public(Person::Victim), "sync", "the victim's secret").await;
    assert_eq!(answer, b"done: sync\n", "the victim asked for a ping");
}

#[tokio::test]
async fn signing_oracle_succeeds_on_v0() {
    let attacker = attacker(Orders::new(Attack::Impostor(DIGEST), Framing::Seed)).await;
    Dialler::victim(Person::Malicious, "sync").seed(attacker.address).await.unwrap();
    let proof = attacker.loot().await.proof;
    let signature = proof.strip_prefix("sig=").unwrap();
    assert!(crate::on_v1::signed_bare(Person::Victim, &DIGEST, signature), "the victim signed the digest");
}

#[tokio::test]
async fn unauthenticated_server_succeeds_on_v0() {
    // No honest member runs at all.
    let attacker = attacker(Orders::new(Attack::Impostor([0; 32]), Framing::Seed)).await;
    Dialler::victim(Person::Honest, "sync").seed(attacker.address).await.unwrap();
    assert_eq!(attacker.loot().await.secret, "the victim's secret");
}

#[tokio::test]
async fn reflection_succeeds_on_v0() {
    // The victim serves others too, and lets itself in.
    let mut victims_own = Listener::start(Person::Victim.key(), Wire::Seed).await;
    let swap = Trick::Rewrite { from: "action=ping".to_owned(), to: "action=sync".to_owned() };
    let orders = Orders::new(Attack::Between, Framing::Seed).at(victims_own.address);
    let attacker = attacker(orders.trick(swap).trick(Trick::SpeakForTheVictim)).await;
    Dialler::victim(Person::Malicious, "ping").seed(attacker.address).await.unwrap();
    assert_believed(&mut victims_own, &public(Person::Victim), "sync", "the attacker's words").await;
}

#[tokio::test]
async fn weak_key_succeeds_on_v0() {
    let mut honest = Listener::start(Person::Honest.key(), Wire::Seed).await;
    let attacker = attacker(Orders::new(Attack::Forge, Framing::Seed).at(honest.address)).await;
    // Nobody holds a secret for this key, and everybody can be it.
    assert_believed(&mut honest, &WEAK, "sync", "the attacker's words").await;
    assert_eq!(attacker.loot().await.answer, "done: sync");
}

#[tokio::test]
async fn token_replay_succeeds_on_v0() {
    let authority = Authority::new();
    let token = Token::of(&[3; 32]);
    let wire = Wire::SeedToken(authority.leaf().server(), token);
    let mut gateway = Listener::start(Person::Gateway.key(), wire).await;
    let orders = Orders::new(Attack::Replay { leaked: Vec::new(), token: true }, Framing::Seed);
    let edge = attacker(orders.at(gateway.address).with(authority.leaf())).await;
    let answer = Dialler::seed_token(edge.address, &authority.client(), token).await.unwrap();
    assert_eq!(answer, b"welcome back\n", "the victim notices nothing");
    assert!(matches!(gateway.seen().await, Seen::TokenShown), "once by the victim, through the edge");
    assert!(matches!(gateway.seen().await, Seen::TokenShown), "and once by the edge alone");
    assert_eq!(edge.loot().await.answer, "welcome back");
}
