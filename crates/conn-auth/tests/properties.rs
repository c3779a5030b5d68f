//! What holds for every input, not for chosen ones.

#![cfg(test)]

use conn_auth::{
    Accept, Accepted, Action, Admitted, AwaitChallenge, AwaitProof, AwaitVerdict, Binding, Dial, Holder,
    Reference, Standing, To,
};
use identity::{Heads, OrgId, SecretKey, WireGuardKey};
use proptest::prelude::*;

const TUNNEL: Binding = Binding::WireGuard { client: WireGuardKey([2; 32]), server: WireGuardKey([3; 32]) };

proptest! {
    #[test]
    fn no_bytes_make_a_side_panic(line in proptest::collection::vec(any::<u8>(), 0..1100)) {
        feed_all(&line);
    }

    #[test]
    fn no_line_that_is_nearly_right_makes_a_side_panic(
        which in 0..4usize,
        at in any::<prop::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..4),
        cut in 0..4usize,
    ) {
        let (client, server) = (key(1), key(2));
        let lines = lines(&client, &server);
        let line = lines[which].as_bytes();
        let at = at.index(line.len());
        let rest = line.get(at + cut..).unwrap_or_default();
        feed_all(&[&line[..at], &with, rest].concat());
    }

    #[test]
    fn what_one_side_says_the_other_reads(
        name in "[a-z0-9-]{1,32}",
        parameters in proptest::collection::btree_map("x[a-z0-9_.-]{0,7}", "[!-~]{0,24}", 0..16),
        (client, server) in (any::<[u8; 32]>(), any::<[u8; 32]>()),
        (org, exporter) in (any::<[u8; 32]>(), any::<[u8; 32]>()),
        (nonce, challenge) in (any::<[u8; 32]>(), any::<[u8; 32]>()),
        (heads, count) in (any::<[u8; 32]>(), any::<u64>()),
    ) {
        prop_assume!(client != server);
        let (client, server) = (SecretKey::from_seed(&client), SecretKey::from_seed(&server));
        let (org, binding, heads) = (OrgId(org), Binding::Tls(exporter), Heads(heads));
        let pairs: Vec<(&str, &str)> = parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let action = Action::new(&name, &pairs).unwrap();
        let to = To::Key(server.public());
        let dial = Dial { org, key: &client, to, binding, action: action.clone() }.start(nonce).unwrap();
        let accept = Accept { org, key: &server, binding };
        let accept = accept.on_hello(dial.hello().as_bytes(), challenge).unwrap();
        let dial = dial.on_challenge(accept.challenge().as_bytes()).unwrap().prove(heads, count);
        let proven = accept.on_proof(dial.proof().as_bytes()).unwrap();
        prop_assert_eq!(proven.action(), &action);
        prop_assert_eq!((proven.peer(), proven.heads(), proven.count()), (client.public(), heads, count));
        prop_assert_eq!(proven.session(), dial.session());
    }
}

#[test]
fn every_flipped_bit_of_the_first_three_messages_is_refused_by_someone() {
    let (client, server) = (key(1), key(2));
    let mut flips = 0;
    for flipped in bit_flips(start(&client, &server).hello()) {
        flips += 1;
        let accept = Accept { org: OrgId([1; 32]), key: &server, binding: TUNNEL };
        if let Ok(accept) = accept.on_hello(&flipped, [5; 32]) {
            let trusted = start(&client, &server).on_challenge(accept.challenge().as_bytes());
            assert!(trusted.is_err(), "{}", String::from_utf8_lossy(&flipped));
        }
    }
    for flipped in bit_flips(await_proof(&client, &server).challenge()) {
        flips += 1;
        let trusted = start(&client, &server).on_challenge(&flipped);
        assert!(trusted.is_err(), "{}", String::from_utf8_lossy(&flipped));
    }
    for flipped in bit_flips(await_verdict(&client, &server).proof()) {
        flips += 1;
        let proven = await_proof(&client, &server).on_proof(&flipped);
        assert!(proven.is_err(), "{}", String::from_utf8_lossy(&flipped));
    }
    assert!(flips > 5000, "{flips}");
}

#[test]
fn no_flipped_bit_turns_a_no_into_a_yes() {
    let (client, server) = (key(1), key(2));
    let no = Reference([0xab; 8]).verdict_no();
    for line in [no.clone(), format!("{no} code=MU-1403")] {
        for flipped in bit_flips(&line) {
            assert!(await_verdict(&client, &server).on_verdict(&flipped).is_err());
        }
    }
}

fn bit_flips(line: &str) -> impl Iterator<Item = Vec<u8>> {
    let bytes = line.as_bytes().to_vec();
    (0..bytes.len() * 8).map(move |bit| {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

/// Shows a line to every state that reads one.
fn feed_all(line: &[u8]) {
    let (client, server) = (key(1), key(2));
    let accept = Accept { org: OrgId([1; 32]), key: &server, binding: TUNNEL };
    drop(accept.on_hello(line, [5; 32]));
    drop(start(&client, &server).on_challenge(line));
    drop(await_proof(&client, &server).on_proof(line));
    drop(await_verdict(&client, &server).on_verdict(line));
}

/// The four lines of one good handshake.
fn lines(client: &SecretKey, server: &SecretKey) -> [String; 4] {
    let (dial, accept) = (await_verdict(client, server), await_proof(client, server));
    let challenge = accept.challenge().to_owned();
    let admitted: Admitted =
        accept.on_proof(dial.proof().as_bytes()).unwrap().admit(Standing::Good(Holder::Member)).unwrap();
    let verdict = admitted.verdict_ok(Reference([0xab; 8]), Heads([8; 32]), u64::MAX);
    let proof = dial.proof().to_owned();
    let _accepted: Accepted = dial.on_verdict(verdict.as_bytes()).unwrap();
    [start(client, server).hello().to_owned(), challenge, proof, verdict]
}

fn start<'a>(client: &'a SecretKey, server: &SecretKey) -> AwaitChallenge<'a> {
    let action = Action::new("sync", &[("shard", "17"), ("since", "a=b")]).unwrap();
    let to = To::Key(server.public());
    Dial { org: OrgId([1; 32]), key: client, to, binding: TUNNEL, action }.start([4; 32]).unwrap()
}

fn await_proof(client: &SecretKey, server: &SecretKey) -> AwaitProof {
    let accept = Accept { org: OrgId([1; 32]), key: server, binding: TUNNEL };
    accept.on_hello(start(client, server).hello().as_bytes(), [5; 32]).unwrap()
}

fn await_verdict(client: &SecretKey, server: &SecretKey) -> AwaitVerdict {
    let challenge = await_proof(client, server).challenge().to_owned();
    let trusted = start(client, server).on_challenge(challenge.as_bytes()).unwrap();
    trusted.prove(Heads([9; 32]), 3)
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}
