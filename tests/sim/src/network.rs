//! The network under the tunnels: delays, loss, repeats, and who cannot reach whom.

use std::collections::BTreeMap;

use rand::{RngExt as _, rngs::StdRng};

/// A machine by its number, or an admin's device behind all of them.
pub(crate) type Party = usize;

#[derive(Debug)]
pub(crate) struct Network {
    rng: StdRng,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// One way, least and most, in microseconds.
    pub(crate) delay: (u64, u64),
    /// Directions that carry nothing, by how many partitions say so.
    blocked: BTreeMap<(Party, Party), u32>,
}

/// Directions that one partition takes.
pub(crate) type Cuts = Vec<(Party, Party)>;

impl Network {
    pub(crate) const fn new(rng: StdRng, loss: f64, duplicate: f64, delay: (u64, u64)) -> Self {
        Self { rng, loss, duplicate, delay, blocked: BTreeMap::new() }
    }

    pub(crate) fn is_blocked(&self, from: Party, to: Party) -> bool {
        self.blocked.contains_key(&(from, to))
    }

    pub(crate) fn loses(&mut self) -> bool {
        self.rng.random_bool(self.loss)
    }

    pub(crate) fn repeats(&mut self) -> bool {
        self.rng.random_bool(self.duplicate)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        // Mostly near the least, sometimes far: what is sent later may arrive first.
        let (least, most) = self.delay;
        let far = self.rng.random_bool(0.1);
        self.rng.random_range(least..=if far { most } else { least + (most - least) / 4 })
    }

    pub(crate) fn block(&mut self, cuts: &Cuts) {
        for cut in cuts {
            *self.blocked.entry(*cut).or_default() += 1;
        }
    }

    pub(crate) fn unblock(&mut self, cuts: &Cuts) {
        for cut in cuts {
            if let Some(times) = self.blocked.get_mut(cut) {
                *times -= 1;
                if *times == 0 {
                    self.blocked.remove(cut);
                }
            }
        }
    }

    /// The weather clears.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        (self.loss, self.duplicate) = (0.0, 0.0);
        self.delay.1 = self.delay.1.min(200_000);
    }
}

/// A partition of these machines: in two halves, in one direction only, or joined by one machine.
pub(crate) fn partition(machines: &[Party], rng: &mut StdRng) -> (&'static str, Cuts) {
    let sides: BTreeMap<Party, bool> = machines.iter().map(|party| (*party, rng.random_bool(0.4))).collect();
    let bridge = machines[rng.random_range(0..machines.len())];
    let kind = rng.random_range(0..4);
    let mut cuts = Vec::new();
    for &from in machines {
        for &to in machines {
            let across = sides[&from] != sides[&to];
            let cut = match kind {
                0 | 1 => across,
                2 => across && sides[&from],
                _ => across && from != bridge && to != bridge,
            };
            if cut {
                cuts.push((from, to));
            }
        }
    }
    (["halves", "halves", "one way", "bridge"][kind], cuts)
}
