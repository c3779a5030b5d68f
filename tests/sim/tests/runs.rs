//! A seed is a run, to the byte; and clocks have no part in it.
#![cfg(not(feature = "danger-no-enforcement"))]

use muster_sim::{Options, Sabotage, invariant_clocks_decide_nothing, run};

fn small() -> Options {
    Options { nodes: 5..=10, seconds: 60, ..Options::default() }
}

#[test]
fn one_seed_gives_one_run_and_another_seed_another() {
    let traces: Vec<_> = (1..=4).map(|seed| run(seed, &small()).trace).collect();
    for (seed, trace) in (1..).zip(&traces) {
        let again = run(seed, &small());
        assert_eq!(again.trace, *trace, "seed {seed}");
        assert_eq!(
            run(seed, &Options { keeps_lines: true, ..small() }).trace,
            *trace,
            "looking changes nothing"
        );
    }
    assert!(traces.iter().enumerate().all(|(at, trace)| !traces[..at].contains(trace)));
}

#[test]
fn clocks_that_jump_by_years_change_nothing() {
    let mut jumps = 0;
    for seed in 1..=12 {
        let with = run(seed, &small());
        let without = run(seed, &Options { clock_jumps: false, ..small() });
        invariant_clocks_decide_nothing(&with.trace, &without.trace).unwrap();
        jumps += with.totals.clock_jumps;
    }
    assert!(jumps > 0, "no clock jumped");
}

#[test]
fn a_date_that_decides_is_noticed() {
    let dated = Options { nodes: 8..=12, sabotage: Some(Sabotage::ClocksDecide), ..small() };
    let differs = |seed| {
        let still = Options { clock_jumps: false, ..dated.clone() };
        invariant_clocks_decide_nothing(&run(seed, &dated).trace, &run(seed, &still).trace).is_err()
    };
    assert!((1..=40).any(differs), "no run noticed that clocks decide");
}
