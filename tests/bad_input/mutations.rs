//! BI-mutations: ten thousand changes drawn from a seed, to each message on each carrier. None is let in.

use identity::Code;
use muster_tests::{
    org::Person,
    raw::{TEXT, frame, upgrade},
};

use crate::{
    bench::{Bench, On, TUNNEL, hello},
    craft::Craft,
};

/// On each of four ways; every 500th is followed by an honest dialler.
const EACH: u32 = 2500;

#[tokio::test]
async fn no_mutated_hello_line_is_let_in() {
    let mut bench = Bench::new(On::Lines).await;
    let mut draw = Draw::new(1);
    let good = [hello().as_bytes(), b"\n"].concat();
    for round in 0..EACH {
        // With what was a proof once, so that a HELLO that is still one goes on.
        let bytes = [draw.mutated(&good), stale_proof().into_bytes(), b"\n".to_vec()].concat();
        let code = bench.said(&bytes).await.0.code();
        assert!(
            matches!(
                code,
                Code::HelloMalformed
                    | Code::VersionUnsupported
                    | Code::ClientProofWrong
                    | Code::ProofMalformed
                    | Code::ConnectionLost
                    | Code::BindingMismatch
                    | Code::WrongServer
            ),
            "{round}: {code}"
        );
        honest(&mut bench, round).await;
    }
    bench.assert_clean();
}

#[tokio::test]
async fn no_mutated_proof_line_is_let_in() {
    mutated_proofs(On::Lines, 2).await;
}

#[tokio::test]
async fn no_mutated_head_is_let_in() {
    let mut bench = Bench::new(On::WebSocket).await;
    let mut draw = Draw::new(3);
    let good = upgrade(hello().as_bytes());
    for round in 0..EACH {
        let bytes = draw.mutated(&good);
        let code = bench.said(&bytes).await.0.code();
        assert!(
            matches!(
                code,
                Code::HelloMalformed
                    | Code::VersionUnsupported
                    | Code::ConnectionLost
                    | Code::BindingMismatch
                    | Code::WrongServer
                    | Code::ProofMalformed
            ),
            "{round}: {code}"
        );
        honest(&mut bench, round).await;
    }
    bench.assert_clean();
}

#[tokio::test]
async fn no_mutated_proof_frame_is_let_in() {
    mutated_proofs(On::WebSocket, 4).await;
}

/// Every change of a good proof for the very challenge: all of it is covered by the signature, or is it.
async fn mutated_proofs(on: On, seed: u64) {
    let mut bench = Bench::new(on).await;
    let mut draw = Draw::new(seed);
    let (hello, key) = (hello(), Person::Victim.key());
    for round in 0..EACH {
        let (mut raw, challenge) = bench.challenged(&hello).await;
        let good = Craft::honest(&key, TUNNEL, &hello, &challenge).proof();
        let bad = draw.mutated(good.as_bytes());
        let bytes = if on == On::Lines { [&bad[..], b"\n"].concat() } else { frame(TEXT, true, &bad) };
        drop(raw.bytes(&bytes).await);
        let (refused, _) = bench.refused(raw).await;
        let code = refused.code();
        assert!(
            matches!(code, Code::ProofMalformed | Code::ClientProofWrong | Code::HelloMalformed),
            "{round}: {refused:?}"
        );
        honest(&mut bench, round).await;
    }
    bench.assert_clean();
}

async fn honest(bench: &mut Bench, round: u32) {
    if round % 500 == 499 {
        bench.serves("BI-mutations").await;
    }
}

fn stale_proof() -> String {
    let challenge = format!("muster-auth/1 pubkey={} challenge={}", Person::Honest.public(), "00".repeat(32));
    let challenge = format!("{challenge} sig={}", "00".repeat(64));
    Craft::honest(&Person::Victim.key(), TUNNEL, &hello(), &challenge).proof()
}

/// A generator that gives every run the same changes.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % end
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// One to four changes, the result never equal to `good`.
    pub(crate) fn mutated(&mut self, good: &[u8]) -> Vec<u8> {
        loop {
            let mut bytes = good.to_vec();
            for _ in 0..=self.below(4) {
                self.change(&mut bytes);
            }
            if bytes != good {
                return bytes;
            }
        }
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => bytes[at] = b" \n\r\t=:0/\0a"[self.below(10)],
            3 if bytes.len() > 1 => drop(bytes.drain(at..=at)),
            4 if bytes.len() < 2048 => {
                let until = (at + 1 + self.below(16)).min(bytes.len());
                let part = bytes[at..until].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.insert(at, self.byte()),
        }
    }
}
