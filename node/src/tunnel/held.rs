//! Packets of ours that came to a closed gate, until a link opens it or is given up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use identity::{
    WireGuardKey,
    limits::{DIAL_DEADLINE_MS, LINK_QUEUE_PACKETS_MAX, TUNNEL_QUEUE_PACKETS_MAX},
};

/// As long as the dial for a link may take.
const PATIENCE: Duration = Duration::from_millis(DIAL_DEADLINE_MS);

#[derive(Debug)]
struct Packet {
    to: WireGuardKey,
    since: Instant,
    bytes: Vec<u8>,
}

/// In the order in which they came, for all members together.
#[derive(Debug, Default)]
pub(super) struct Held {
    packets: VecDeque<Packet>,
}

impl Held {
    /// Says whether there was room for it.
    pub(super) fn keep(&mut self, to: WireGuardKey, bytes: &[u8], now: Instant) -> bool {
        let of_member = || self.packets.iter().filter(|packet| packet.to == to).count();
        let has_room = self.packets.len() < LINK_QUEUE_PACKETS_MAX && of_member() < TUNNEL_QUEUE_PACKETS_MAX;
        if has_room {
            self.packets.push_back(Packet { to, since: now, bytes: bytes.to_vec() });
        }
        has_room
    }

    /// The gate of this member opens.
    pub(super) fn take(&mut self, member: &WireGuardKey) -> Vec<Vec<u8>> {
        let (taken, stay): (VecDeque<_>, VecDeque<_>) =
            self.packets.drain(..).partition(|packet| packet.to == *member);
        self.packets = stay;
        taken.into_iter().map(|packet| packet.bytes).collect()
    }

    pub(super) fn forget(&mut self, member: &WireGuardKey) {
        self.packets.retain(|packet| packet.to != *member);
    }

    /// Gives up those for which no link came. Says how many.
    pub(super) fn give_up(&mut self, now: Instant) -> u64 {
        let is_late = |packet: &&Packet| now.saturating_duration_since(packet.since) >= PATIENCE;
        let late = self.packets.iter().take_while(is_late).count();
        self.packets.drain(..late).count() as u64
    }

    /// For whom there is something, some of them more than once.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &WireGuardKey> {
        self.packets.iter().map(|packet| &packet.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: usize) -> WireGuardKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        WireGuardKey(key)
    }

    #[test]
    fn packets_are_kept_up_to_a_bound_for_each_member_and_for_all_together() {
        let (mut held, now) = (Held::default(), Instant::now());
        let mut kept =
            |number| (0..=TUNNEL_QUEUE_PACKETS_MAX).filter(|_| held.keep(member(number), b"a", now)).count();
        let members = LINK_QUEUE_PACKETS_MAX / TUNNEL_QUEUE_PACKETS_MAX;
        for number in 0..members {
            assert_eq!(kept(number), TUNNEL_QUEUE_PACKETS_MAX);
        }
        assert_eq!(kept(members), 0);
        held.forget(&member(0));
        assert!(held.keep(member(members), b"b", now));
    }

    #[test]
    fn a_member_is_sent_its_own_in_their_order_and_once() {
        let (mut held, now) = (Held::default(), Instant::now());
        for (number, bytes) in [(1, b"a"), (2, b"b"), (1, b"c")] {
            held.keep(member(number), bytes, now);
        }
        assert_eq!(held.take(&member(1)), [b"a".to_vec(), b"c".to_vec()]);
        assert_eq!(held.take(&member(1)), Vec::<Vec<u8>>::new());
        assert_eq!(held.give_up(now), 0);
        assert_eq!(held.give_up(now + PATIENCE), 1);
        assert_eq!(held.wanted().count(), 0);
    }
}
