//! Delays and losses, the same for both protocols.

/// Mean one-way delay.
pub(super) const MEAN_MS: f64 = 40.0;
const SHORTEST_MS: f64 = 20.0;
const LONGEST_MS: f64 = 100.0;
/// What Linux adds to a round trip before it takes a lone segment for lost.
const RETRANSMIT_MS: f64 = 200.0;

/// Every pair has a delay of its own, drawn from the seed.
pub(super) struct Network {
    seed: u64,
    loss: f64,
}

impl Network {
    pub(super) fn new(seed: u64, loss_percent: u8) -> Self {
        Self { seed, loss: f64::from(loss_percent) / 100.0 }
    }

    /// One way between two nodes.
    pub(super) fn delay_ms(&self, a: usize, b: usize) -> f64 {
        let mut draw = Draw::new(self.seed ^ ((a.min(b) as u64) << 32 | a.max(b) as u64));
        // The cube of a uniform draw has the mean a quarter: 20 + 80 / 4 is 40.
        SHORTEST_MS + (LONGEST_MS - SHORTEST_MS) * draw.uniform().powi(3)
    }

    /// What one small message on an idle TCP session takes.
    pub(super) fn segment_ms(&self, a: usize, b: usize, draw: &mut Draw) -> f64 {
        let delay = self.delay_ms(a, b);
        let mut timeout = 2.0 * delay + RETRANSMIT_MS;
        let mut waited = 0.0;
        while self.loses(draw) {
            waited += timeout;
            timeout *= 2.0;
        }
        waited + delay
    }

    /// Whether one packet is lost.
    pub(super) fn loses(&self, draw: &mut Draw) -> bool {
        draw.uniform() < self.loss
    }
}

/// SplitMix64: a few lines that give the same numbers for ever.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        let mut draw = Self(seed);
        // Neighbouring seeds start far apart.
        draw.0 = draw.next();
        draw
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.next() >> 11) as f64;
        bits / (1_u64 << 53) as f64
    }

    /// In 0..n.
    pub(super) fn below(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than n")]
        let at = (self.next() % (n.max(1) as u64)) as usize;
        at
    }
}

/// What happens, by its time; equal times in the order they were told.
pub(super) struct Agenda<E> {
    events: std::collections::BTreeMap<(u64, u64), E>,
    told: u64,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { events: std::collections::BTreeMap::new(), told: 0 }
    }

    pub(super) fn add(&mut self, at_ms: f64, event: E) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "microseconds of a minute"
        )]
        let at_us = (at_ms * 1000.0).max(0.0) as u64;
        self.told += 1;
        self.events.insert((at_us, self.told), event);
    }

    /// The next event that is due by then.
    pub(super) fn next(&mut self, until_ms: f64) -> Option<(f64, E)> {
        let entry = self.events.first_entry()?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
        let at_ms = entry.key().0 as f64 / 1000.0;
        (at_ms <= until_ms).then(|| (at_ms, entry.remove()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_20_to_100_ms_and_40_in_the_mean() {
        let network = Network::new(7, 5);
        let delays: Vec<f64> =
            (0..200).flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| network.delay_ms(a, b)).collect();
        assert!(delays.iter().all(|d| (SHORTEST_MS..LONGEST_MS).contains(d)));
        let mean = delays.iter().sum::<f64>() / f64::from(u32::try_from(delays.len()).unwrap());
        assert!((mean - MEAN_MS).abs() < 0.5, "{mean}");
        assert!((network.delay_ms(3, 9) - network.delay_ms(9, 3)).abs() < f64::EPSILON);
    }

    #[test]
    fn a_lost_segment_is_late_and_never_lost() {
        let (network, mut draw) = (Network::new(7, 50), Draw::new(1));
        let delay = network.delay_ms(1, 2);
        let times: Vec<f64> = (0..100).map(|_| network.segment_ms(1, 2, &mut draw)).collect();
        assert!(times.iter().any(|t| (t - delay).abs() < f64::EPSILON));
        assert!(times.iter().any(|t| (t - (3.0 * delay + RETRANSMIT_MS)).abs() < 1e-6));
    }
}
