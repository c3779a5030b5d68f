//! Twenty-five machines under fire. `cargo xtask fire --partitions 100 --kills 200` does it for longer.

use lab::fire::{self, Fire};

use crate::harness;

#[test]
fn a_partition_and_ten_kills_lose_no_change_and_revive_nobody() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let fire = Fire { nodes: 25, partitions: 1, kills: 10, seed: 1, keep: None };
        let aftermath =
            fire::run(sandbox, harness::programs(&[]), &fire, &|line| eprintln!("{line}")).unwrap();
        let said = aftermath.json();
        assert!(aftermath.held(), "{said:#}");
        // What was to happen did happen.
        assert_eq!((aftermath.partitions, aftermath.kills, aftermath.revoked), (1, 10, 1), "{said:#}");
        assert!(aftermath.acknowledged >= 5 && aftermath.asked_alone >= 3, "{said:#}");
        let most = |held: &[lab::Held]| held.iter().map(|held| held.descriptors).max().unwrap();
        let (before, after) = (most(&aftermath.before), most(&aftermath.after));
        assert!(after <= before + 25, "descriptors: {before} before, {after} after");
    })
}
