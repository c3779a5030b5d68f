//! Seeds that once failed, each with its story. A new one is added with the fix of what it found, as
//! docs/simulation.md says.
#![cfg(not(feature = "danger-no-enforcement"))]

use muster_sim::{Options, run};

/// Seed, most machines, virtual seconds of faults; then what it found.
const SEEDS: [(u64, usize, u64, &str); 11] = [
    (
        3,
        25,
        90,
        "a machine that had heard of its own removal still let others in until its list changed again",
    ),
    (
        14,
        25,
        90,
        "status went on to say that a machine shut this one out which was no member any more itself",
    ),
    (6, 25, 60, "the gate of a link stayed open for half a second when its machine came up with newer keys"),
    (
        7,
        25,
        60,
        "status went on to say that this machine was revoked after settings had ended a thief's revocation",
    ),
    (
        156,
        25,
        60,
        "a machine that knew of its own suspension dialled on and refused the sessions that it got, for ever",
    ),
    (
        146,
        25,
        60,
        "settings that came before the changes their cuts name emptied a machine's list, itself included",
    ),
    (
        28,
        25,
        45,
        "a machine went on to show the word of one that had not heard of its new keys or settings yet",
    ),
    (164, 25, 60, "the same word of a machine that had not heard of the settings yet when it said so"),
    (9, 9, 60, "a machine whose new keys only a revoked one knew of stayed with them and with it for ever"),
    (341, 9, 60, "the same with two that had been removed behind a partition, and did not know it"),
    (102, 25, 45, "the only gateway had lost its list, and its operator asked a revoked one for it for ever"),
];

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, most, seconds, story) in SEEDS {
        let options = Options { nodes: 5..=most, seconds, ..Options::default() };
        let violation = run(seed, &options).violation;
        assert!(violation.is_none(), "seed {seed} ({story}): {violation:?}");
    }
}
