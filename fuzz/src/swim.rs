//! What a member says of who answers.

use std::{convert::Infallible, sync::LazyLock};

use identity::{PublicKey, SecretKey};
use overlay::{Liveness, Swim, SwimOutput};
use rand_core::TryRng;

/// This node, and two that it probes; the first speaks.
static KEYS: LazyLock<[PublicKey; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|n| SecretKey::from_seed(&[n; 32]).public()));

/// Behind kind, number and incarnation.
const NAMES: usize = 4;

/// Datagrams of one member within one moment, each a byte for its length and its bytes: in the names of
/// the right two where there is room for them. Whatever he says, the other one is not silent for it.
pub fn swim(data: &[u8]) {
    let [me, peer, other] = &*KEYS;
    let mut swim = Swim::new(me, Count(0));
    swim.handle_probed(0, [*peer, *other]);
    let (mut rest, mut said) = (data, 0);
    while let Some((length, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let mut datagram = datagram.to_vec();
        if let Some(names) = datagram.get_mut(NAMES..NAMES + 64) {
            names.copy_from_slice(&[*peer.as_bytes(), *me.as_bytes()].concat());
        }
        let _refused = swim.handle_datagram(1, peer, &datagram);
        said += 1;
    }
    let mut sent = 0;
    while let Some(output) = swim.poll_output() {
        sent += usize::from(matches!(output, SwimOutput::Send(..)));
    }
    // An answer for each, and what is said once because somebody is suspected.
    assert!(sent <= said + 8, "{sent} for {said}");
    assert_ne!(swim.liveness(other), Some(Liveness::Silent));
}

/// Numbers that follow one another.
struct Count(u64);

impl TryRng for Count {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|n| u32::try_from(n >> 32).unwrap())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        dst.fill(0x5a);
        Ok(())
    }
}
