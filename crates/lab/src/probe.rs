//! What `muster-probe` saw, line by line: how long a machine's keys were still served, by whom.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    t_unix_ns: u128,
    target: String,
    kind: String,
    outcome: String,
    #[serde(default)]
    took_us: u128,
    code: Option<String>,
}

/// One target's story.
#[derive(Clone, Default, Debug)]
pub struct Seen {
    /// Fresh handshakes in the order they began: when each began, and when its VERDICT was ok, if it was.
    dials: Vec<(u128, Option<u128>)>,
    /// Codes of refusals, and how often each came.
    pub refusals: BTreeMap<String, u64>,
    /// Dials that met silence.
    pub silences: u64,
    /// Whether the session that is held open came about.
    pub session_opened: bool,
    /// When it ended and with which code.
    pub session_ended: Option<(u128, Option<String>)>,
}

impl Seen {
    /// Handshakes that were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.dials.iter().filter(|(_, ok)| ok.is_some()).count()
    }

    /// When the first fresh handshake began after the last VERDICT that was ok; all after it failed.
    #[must_use]
    pub fn refused_from(&self) -> Option<u128> {
        let last_ok = self.dials.iter().filter_map(|(_, ok)| *ok).max().unwrap_or(0);
        self.dials.iter().map(|(began, _)| *began).find(|began| *began > last_ok)
    }

    /// Accepted handshakes that began after a moment, and all that did.
    #[must_use]
    pub fn since(&self, moment: u128) -> (usize, usize) {
        let later = self.dials.iter().filter(|(began, _)| *began > moment);
        later.fold((0, 0), |(ok, all), (_, accepted)| (ok + usize::from(accepted.is_some()), all + 1))
    }
}

/// Reads the probe's output; a last line that is still being written is left out.
#[must_use]
pub fn read(log: &str) -> BTreeMap<String, Seen> {
    let mut targets: BTreeMap<String, Seen> = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        let seen = targets.entry(line.target).or_default();
        let ok = line.outcome == "ok";
        if line.kind == "session" {
            match ok {
                true => seen.session_opened = true,
                false if seen.session_opened => seen.session_ended = Some((line.t_unix_ns, line.code)),
                false => {}
            }
            continue;
        }
        seen.dials.push((line.t_unix_ns, ok.then_some(line.t_unix_ns + line.took_us * 1000)));
        match (ok, line.code) {
            (true, _) => {}
            (false, Some(code)) => *seen.refusals.entry(code).or_default() += 1,
            (false, None) => seen.silences += 1,
        }
    }
    for seen in targets.values_mut() {
        seen.dials.sort_unstable();
    }
    targets
}

/// How long ago a moment was.
#[must_use]
pub fn age(unix_ns: u128) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Duration::from_nanos(u64::try_from(now.saturating_sub(unix_ns)).unwrap_or(u64::MAX))
}

/// Milliseconds between two moments; negative when the second came first: machines enforce a revocation as
/// soon as they have verified it, and the admin's own machine still waits for its disk then.
#[must_use]
pub fn signed_ms(from: u128, to: u128) -> f64 {
    let us = u32::try_from(to.abs_diff(from) / 1000).unwrap_or(u32::MAX);
    let ms = f64::from(us) / 1000.0;
    if to < from { -ms } else { ms }
}

/// The value that so many percent of all do not exceed.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted.get(at).map(|value| (value * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(t: u128, outcome: &str) -> String {
        format!(r#"{{"t_unix_ns":{t},"target":"n2","kind":"probe","outcome":"{outcome}","took_us":5}}"#)
            + "\n"
    }

    #[test]
    fn refused_is_the_first_dial_after_the_last_accepted_one() {
        // Each takes 5 us: the dial that began at 33 began before the last VERDICT, at 35, and proves nothing.
        let log =
            [(10, "ok"), (40, "timeout"), (20, "timeout"), (30, "ok"), (33, "timeout"), (50, "timeout")];
        let log: Vec<String> = log.iter().map(|(t, outcome)| line(t * 1000, outcome)).collect();
        let seen = read(&(log.concat() + "{\"t_unix_ns\":6"));
        let seen = &seen["n2"];
        assert_eq!(seen.refused_from(), Some(40_000));
        assert_eq!((seen.accepted(), seen.silences, seen.since(33_000)), (2, 4, (0, 2)));
    }
}
