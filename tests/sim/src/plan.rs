//! What a seed stands for: how large the org is and how bad the weather.

use std::ops::RangeInclusive;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// How to run a seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Machines of the org, those that join on the way among them.
    pub nodes: RangeInclusive<usize>,
    /// Virtual seconds during which things go wrong.
    pub seconds: u64,
    /// Whether clocks jump.
    pub clock_jumps: bool,
    /// Whether what happened is kept as lines.
    pub keeps_lines: bool,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// The one invariant that is asked, where what is broken breaks several.
    pub only: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 5..=25, seconds: 60, clock_jumps: true, keeps_lines: false, sabotage: None, only: None }
    }
}

/// Something broken on purpose: an invariant has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Every machine says that a write is done before it is.
    AcknowledgesTooEarly,
    /// Approvals are signed, and no admin knows of them.
    ApprovalsAreForged,
    /// The checks believe that no assignment replaces another.
    AssignmentsAreMisread,
    /// New settings have no CA that signs.
    CaIsRetired,
    /// Gateways look at the date of invites, and invites have one: clocks decide.
    ClocksDecide,
    /// Machines go on without noticing that two use one key.
    CopiesAreOverlooked,
    /// Every disk forgets what it was told to keep.
    DisksForget,
    /// Disks rot, and nobody says so.
    DisksRot,
    /// Of two changes at one place of a lane the one that arrives later is not listened to.
    FirstComeCounts,
    /// Tunnels never close a gate.
    GatesStayOpen,
    /// A machine's replica is given a change by an admin's key that no admin signed.
    KeyIsStolen,
    /// Machines get keys, and nobody knows that they are theirs.
    KeysAreForeign,
    /// What the settings take away from a removed key goes on counting.
    RemovalsChangeNothing,
    /// The ends of suspensions are signed, and no admin knows of them.
    ResumesAreForged,
    /// Revocations are taken out of every frame.
    RevocationsAreWithheld,
    /// The org's settings are signed, and their holder does not know of them.
    SettingsAreForged,
    /// On every disk one change stands twice, the second time with its signature in another form.
    SignaturesAreTurned,
    /// Nobody undoes what thieves did.
    TheftsGoUnnoticed,
    /// The checks believe that one revocation less is enough.
    ThresholdIsMisread,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: usize,
    pub(crate) newcomers: usize,
    pub(crate) admins: usize,
    pub(crate) gateways: usize,
    pub(crate) threshold: u8,
    pub(crate) hostile: usize,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) delay: (u64, u64),
    pub(crate) partitions: usize,
    pub(crate) crashes: usize,
    pub(crate) disk_faults: usize,
    pub(crate) clock_jumps: usize,
    pub(crate) moves: usize,
    pub(crate) changes: usize,
    pub(crate) traffic: usize,
    pub(crate) probes: usize,
    /// Keys that are stolen, in turn: whether it is a gateway's, else an admin's.
    pub(crate) thefts: Vec<bool>,
    /// Machines of thieves.
    pub(crate) rogues: usize,
    /// Machines that are started twice from one disk.
    pub(crate) copies: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let all = rng.random_range(options.nodes.clone());
        let newcomers = rng.random_range(0..=all / 3);
        let members = all - newcomers;
        let admins = rng.random_range(1..=3);
        let minutes = usize::try_from(options.seconds.div_ceil(60)).unwrap_or(1);
        let is_calm = rng.random_bool(0.2);
        let mut draw = |most: usize| if is_calm { 0 } else { rng.random_range(0..=most) };
        let (partitions, crashes) = (draw(20.min(3 * minutes)), draw(50.min(8 * minutes)));
        let (disk_faults, moves) = (draw(3 * minutes), draw(minutes));
        let clock_jumps = rng.random_range(0..=2 * minutes);
        let loss = if is_calm { 0.0 } else { [0.0, 0.01, 0.05, 0.1, 0.3][rng.random_range(0..5)] };
        let duplicate = rng.random_range(0.0..0.05);
        let thefts: Vec<bool> = (0..minutes)
            .map(|_| rng.random_range(0..5))
            .filter(|draw| *draw < 2)
            .map(|draw| draw == 0)
            .collect();
        let copies = usize::from(rng.random_bool(0.2));
        let least = rng.random_range(200..=40_000);
        let most = least + [5_000, 50_000, 500_000, 3_000_000][rng.random_range(0..4)];
        Self {
            members,
            newcomers,
            admins,
            gateways: rng.random_range(1..=3.min(members - 2)),
            threshold: if admins > 1 && rng.random_bool(0.3) { 2 } else { 1 },
            hostile: rng.random_range(0..=(members / 6).min(3)),
            loss,
            duplicate,
            delay: (least, most),
            partitions,
            crashes,
            disk_faults,
            clock_jumps,
            moves,
            changes: 9 * minutes + newcomers,
            traffic: 20 * minutes,
            probes: 20 * minutes,
            rogues: if thefts.is_empty() { 0 } else { 3 },
            thefts,
            copies,
        }
    }
}
