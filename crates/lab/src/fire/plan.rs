//! What happens when, drawn from a seed: the same seed gives the same plan. What the programs make of it
//! depends on this machine's speed and differs from run to run.

use std::time::Duration;

/// A way in which a network falls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// Nothing passes between two groups.
    TwoSided,
    /// Nothing passes from the first group to the second; the other way is open.
    OneWay,
    /// Nothing passes between two groups, but one machine reaches both.
    Bridge,
}

/// Something that happens to one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// Its musterd is killed and started again so much later.
    Kill(Duration),
    /// The same, with its cable pulled until it has been asked what it still holds.
    KillInTheDark(Duration),
    /// Its disk is full until the partition is over.
    FillDisk,
}

/// One partition and what happens meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) split: Split,
    /// For each machine whether it is in the first group.
    pub(super) first_group: Vec<bool>,
    /// Of all frames between machines.
    pub(super) loss_percent: u8,
    /// In the order of their times since the partition began; the machine is drawn when it is time, among
    /// those that can be hit.
    pub(super) blows: Vec<(Duration, Blow, u64)>,
    /// Another draw: who signs, and who is stolen.
    pub(super) author: u64,
    pub(super) stolen: Option<u64>,
}

/// How long a partition lasts at least.
pub(super) const PARTITION: Duration = Duration::from_secs(8);
/// Machines are down for up to this.
const DOWN_MS_MAX: u64 = 1_500;
const LOSS_PERCENT_MAX: u64 = 15;
/// Of this many kills one is followed by a start in the dark.
const DARK_EVERY: u32 = 3;

/// All episodes of a run.
pub(super) fn plan(nodes: usize, partitions: u32, kills: u32, thefts: u32, seed: u64) -> Vec<Episode> {
    let mut draw = Draw(seed);
    let splits = [Split::TwoSided, Split::OneWay, Split::Bridge];
    let mut killed = 0;
    (0..partitions)
        .map(|number| {
            // Spread evenly: after each partition its share has happened.
            let share = |all: u32| {
                u64::from(all) * u64::from(number + 1) / u64::from(partitions)
                    - u64::from(all) * u64::from(number) / u64::from(partitions)
            };
            let mut blows: Vec<(Duration, Blow, u64)> = (0..share(kills))
                .map(|_| {
                    killed += 1;
                    let down = Duration::from_millis(draw.below(DOWN_MS_MAX));
                    let blow =
                        if killed % DARK_EVERY == 0 { Blow::KillInTheDark(down) } else { Blow::Kill(down) };
                    (draw.moment(), blow, draw.next())
                })
                .collect();
            blows.push((draw.moment() / 2, Blow::FillDisk, draw.next()));
            blows.sort_by_key(|(at, ..)| *at);
            let split = splits.get(draw.index(splits.len())).copied().unwrap_or(Split::TwoSided);
            Episode {
                split,
                first_group: draw.halves(nodes),
                loss_percent: u8::try_from(draw.below(LOSS_PERCENT_MAX + 1)).unwrap_or(0),
                blows,
                author: draw.next(),
                stolen: (share(thefts) > 0).then(|| draw.next()),
            }
        })
        .collect()
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.below(u64::try_from(PARTITION.as_millis()).unwrap_or(u64::MAX)))
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap_or(0)
    }

    /// Two groups, each of a quarter of the machines or more.
    fn halves(&mut self, nodes: usize) -> Vec<bool> {
        let quarter = nodes.div_ceil(4);
        let first = quarter + self.index((nodes + 1).saturating_sub(2 * quarter));
        let mut order: Vec<(u64, usize)> = (0..nodes).map(|node| (self.next(), node)).collect();
        order.sort_unstable();
        let mut group = vec![false; nodes];
        for (_, node) in order.into_iter().take(first) {
            if let Some(place) = group.get_mut(node) {
                *place = true;
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_what_was_asked_for_and_both_sides_of_a_partition_are_inhabited() {
        let episodes = plan(25, 7, 20, 3, 1);
        assert_eq!(episodes.len(), 7);
        let kills = |e: &Episode| e.blows.iter().filter(|(_, blow, _)| *blow != Blow::FillDisk).count();
        assert_eq!(episodes.iter().map(kills).sum::<usize>(), 20);
        assert_eq!(episodes.iter().filter(|e| e.stolen.is_some()).count(), 3);
        for episode in &episodes {
            let first = episode.first_group.iter().filter(|first| **first).count();
            assert!((7..=18).contains(&first), "{first}");
            assert!(episode.blows.iter().all(|(at, ..)| *at < PARTITION));
        }
        assert_eq!(format!("{:?}", plan(25, 7, 20, 3, 1)), format!("{episodes:?}"));
        assert_ne!(format!("{:?}", plan(25, 7, 20, 3, 2)), format!("{episodes:?}"));
    }
}
