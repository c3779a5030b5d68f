//! An org under fire: its network falls apart, its musterds are killed, disks are full, machines are stolen
//! and revoked; an admin goes on working all the while. After each partition the network heals and it is
//! looked at what the machines made of it:
//!
//! * every change that was acknowledged is on every machine, stored, and all lists are equal;
//! * a machine that was killed and started again with its cable pulled still holds what it had confirmed;
//! * nobody serves a machine that was revoked.
//!
//! Everything runs for real: shipped programs, a network namespace and a TPM emulator each. Delay is not
//! part of it: the bridge between the namespaces has none. (The simulation has.)

mod fleet;
mod plan;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use identity::StatementId;
use serde_json::{Value, json};

use crate::{
    Daemon, Held, Sandbox,
    org::{Org, OrgError, Programs, wait_until},
    probe::{self, Seen, percentile},
};
use fleet::{COMMAND, Fleet};
use plan::{Blow, Episode, Split};

/// What to do.
#[derive(Clone, Debug)]
pub struct Fire {
    /// Machines of the org, 8 at least.
    pub nodes: usize,
    /// Partitions, one after the other.
    pub partitions: u32,
    /// Musterds killed, all partitions together.
    pub kills: u32,
    /// The plan is drawn from it.
    pub seed: u64,
    /// Where the machines' directories stay.
    pub keep: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// Partitions healed.
    pub partitions: u32,
    /// Musterds killed.
    pub kills: u32,
    /// Of these, started again alone and asked.
    pub asked_alone: u32,
    /// Disks filled.
    pub full_disks: u32,
    /// Machines stolen and revoked.
    pub revoked: u32,
    /// Changes that the admin was told to be in.
    pub acknowledged: usize,
    /// Changes that a machine had confirmed and did not have any more, or that somebody did not get.
    pub lost: Vec<String>,
    /// Machines that still served one that was revoked.
    pub served: Vec<String>,
    /// Accepted dials of a machine that was not revoked, by the same program, at the end.
    pub control_served: usize,
    /// From the end of each partition until every machine had everything.
    pub converged_s: Vec<f64>,
    /// What each musterd had open and in memory before.
    pub before: Vec<Held>,
    /// The same at the end.
    pub after: Vec<Held>,
    /// Seconds in all.
    pub elapsed_s: f64,
}

/// A dial every so often from a stolen machine to each other one.
const PROBE_MS: u64 = 500;
/// Dials to each machine that must all fail.
const REFUSED: usize = 3;
/// Everything is repaired within this, or it never will be.
const REPAIRED: Duration = Duration::from_secs(120);
/// Tries of the admin to revoke; each fails at once or takes some seconds.
const REVOKE_TRIES_MAX: u32 = 40;
/// The newest changes that are asked about when a machine is killed.
const ASKED_ABOUT: usize = 24;

/// Does it, saying on the way what it does.
///
/// # Errors
/// The lab itself fails; what the org does wrong is in the outcome.
pub fn run(
    sandbox: &Sandbox,
    programs: Programs,
    fire: &Fire,
    say: &dyn Fn(&str),
) -> Result<Aftermath, OrgError> {
    let start = Instant::now();
    let fleet = Fleet::found(sandbox, fire.nodes, programs, fire.keep.clone())?;
    let mut run = Run { fleet, say, acknowledged: BTreeSet::new(), outcome: Aftermath::default() };
    run.everybody_knows_everybody()?;
    run.outcome.before = run.fleet.held();
    say(&format!("{} machines are one org after {:.0} s", fire.nodes, start.elapsed().as_secs_f64()));
    // A quarter of the machines can go.
    let thefts = fire.partitions.min(u32::try_from(fire.nodes / 4).unwrap_or(0));
    for episode in plan::plan(fire.nodes, fire.partitions, fire.kills, thefts, fire.seed) {
        run.burn(&episode)?;
    }
    run.nobody_serves_the_revoked()?;
    run.outcome.after = run.fleet.held();
    run.outcome.acknowledged = run.acknowledged.len();
    run.outcome.elapsed_s = start.elapsed().as_secs_f64();
    Ok(run.outcome)
}

struct Run<'a> {
    fleet: Fleet,
    say: &'a dyn Fn(&str),
    acknowledged: BTreeSet<StatementId>,
    outcome: Aftermath,
}

/// A thief at work with a machine's keys.
struct Thief {
    node: usize,
    targets: usize,
    probe: Daemon,
}

impl Run<'_> {
    fn everybody_knows_everybody(&self) -> Result<(), OrgError> {
        for node in self.fleet.up() {
            wait_until("every machine knows every other", || {
                Ok((self.fleet.holding(node)?.good == self.fleet.up().len()).then_some(()))
            })?;
        }
        Ok(())
    }

    fn burn(&mut self, episode: &Episode) -> Result<(), OrgError> {
        self.outcome.partitions += 1;
        self.fleet.move_author(episode.author)?;
        let thief = match episode.stolen.and_then(|draw| self.fleet.steal(draw)) {
            Some(node) => Some(self.thief(node)?),
            None => None,
        };
        self.partition(episode)?;
        let acknowledged = Mutex::new(Vec::new());
        let done = AtomicBool::new(false);
        // The admin works while the machines go down: another thread, with a copy of what it needs.
        let revoke = thief.as_ref().map(|thief| Org::name(thief.node));
        let desk = Desk { org_of: self.fleet.author(), revoke, done: &done, acknowledged: &acknowledged };
        let programs = desk.programs(&self.fleet.org)?;
        thread::scope(|scope| {
            scope.spawn(|| desk.work(&programs));
            let outcome = self.strike(episode, &acknowledged);
            done.store(true, Ordering::Relaxed);
            outcome
        })?;
        let news = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let revocations = news.len();
        self.acknowledged.extend(news);
        self.heal(revocations, thief)
    }

    fn partition(&self, episode: &Episode) -> Result<(), OrgError> {
        let hosts = self.fleet.org.lab().hosts();
        let side = |first: bool| {
            let members = hosts.iter().zip(&episode.first_group).filter(move |(_, f)| **f == first);
            members.map(|(host, _)| host.namespace()).collect::<Vec<_>>()
        };
        let (mut first, second) = (side(true), side(false));
        let bridge = self.fleet.org.lab().bridge();
        let cut = match episode.split {
            Split::TwoSided => bridge.cut(&first, &second),
            Split::OneWay => bridge.cut_one_way(&first, &second),
            Split::Bridge => {
                first.pop();
                bridge.cut(&first, &second)
            }
        };
        cut.and_then(|()| bridge.lose(episode.loss_percent)).map_err(OrgError::Network)?;
        (self.say)(&format!(
            "partition {}: {:?}, {} and {} machines, {} % of frames lost, the admin on {}",
            self.outcome.partitions,
            episode.split,
            first.len(),
            second.len(),
            episode.loss_percent,
            Org::name(self.fleet.author())
        ));
        Ok(())
    }

    /// Kills and starts, until the partition has lasted long enough.
    fn strike(&mut self, episode: &Episode, news: &Mutex<Vec<StatementId>>) -> Result<(), OrgError> {
        let start = Instant::now();
        for (at, blow, draw) in &episode.blows {
            thread::sleep(at.saturating_sub(start.elapsed()));
            match blow {
                Blow::FillDisk => {
                    // The admin's own machine refuses everything then: that is another story.
                    let others = self.fleet.up().into_iter().filter(|n| *n != self.fleet.author());
                    if let Some(node) = fleet::pick(&others.collect::<Vec<_>>(), *draw) {
                        self.fleet.fill_disk(node)?;
                        self.outcome.full_disks += 1;
                    }
                }
                Blow::Kill(down) | Blow::KillInTheDark(down) => {
                    let Some(node) = self.fleet.pick_up(*draw) else { continue };
                    self.fleet.kill(node);
                    self.outcome.kills += 1;
                    if matches!(blow, Blow::Kill(_)) {
                        thread::sleep(*down);
                        self.fleet.start(node)?;
                        continue;
                    }
                    let new = news.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let asked: Vec<StatementId> = new.into_iter().rev().take(ASKED_ABOUT).collect();
                    let mut confirmed = self.fleet.confirmed_by(node, &asked);
                    // What all had stored after the last partition.
                    confirmed.extend(&self.acknowledged);
                    thread::sleep(*down);
                    let holding = self.fleet.start_in_the_dark(node)?;
                    self.outcome.asked_alone += 1;
                    for change in confirmed.difference(&holding.changes) {
                        self.lost(format!("{} lost {change}, which it had confirmed", Org::name(node)));
                    }
                }
            }
        }
        thread::sleep(plan::PARTITION.saturating_sub(start.elapsed()));
        Ok(())
    }

    fn lost(&mut self, what: String) {
        (self.say)(&format!("LOST: {what}"));
        self.outcome.lost.push(what);
    }

    fn heal(&mut self, news: usize, thief: Option<Thief>) -> Result<(), OrgError> {
        let bridge = self.fleet.org.lab().bridge();
        bridge.heal().and_then(|()| bridge.lose(0)).map_err(OrgError::Network)?;
        self.fleet.free_disks()?;
        for node in self.fleet.good() {
            if !self.fleet.up().contains(&node) {
                self.fleet.start(node)?;
            }
        }
        let healed = Instant::now();
        let lacking = loop {
            let lacking = self.lacking()?;
            if lacking.is_empty() || healed.elapsed() > REPAIRED {
                break lacking;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let seconds = healed.elapsed().as_secs_f64();
        for what in lacking {
            self.lost(what);
        }
        self.outcome.converged_s.push(seconds);
        (self.say)(&format!("  healed: {news} more changes are on every machine after {seconds:.1} s"));
        match thief {
            Some(thief) => self.judge(thief),
            None => Ok(()),
        }
    }

    /// Who lacks what, or has another list than the first one; nothing when all is well.
    fn lacking(&self) -> Result<Vec<String>, OrgError> {
        let mut lacking = Vec::new();
        let mut list = None;
        for node in self.fleet.good() {
            let holding = self.fleet.holding(node)?;
            let missing = self.acknowledged.difference(&holding.changes).count();
            if missing > 0 {
                lacking.push(format!("{} lacks {missing} changes", Org::name(node)));
            }
            if *list.get_or_insert_with(|| holding.list.clone()) != holding.list {
                lacking.push(format!("{} has another list", Org::name(node)));
            }
        }
        if lacking.is_empty()
            && let Some(newest) = self.acknowledged.iter().find(|change| !self.is_stored_by_all(change))
        {
            lacking.push(format!("{newest} is not on every disk"));
        }
        Ok(lacking)
    }

    fn is_stored_by_all(&self, change: &StatementId) -> bool {
        let request = control::local::Request::Coverage { change: (*change).into() };
        let answer = self.fleet.org.control(self.fleet.author(), &request);
        matches!(answer, Ok(control::local::Answer::Coverage(c)) if c.missing.is_empty())
    }

    /// The thief's program, once every machine serves it.
    fn thief(&self, node: usize) -> Result<Thief, OrgError> {
        let up = self.fleet.up();
        let probe = self.probe(node, &up)?;
        wait_until("the thief is served by every machine", || {
            let seen = self.seen(node)?;
            let served = seen.values().filter(|s| s.session_opened && s.accepted() > 0).count();
            Ok((served == up.len()).then_some(()))
        })?;
        Ok(Thief { node, targets: up.len(), probe })
    }

    fn probe(&self, node: usize, targets: &[usize]) -> Result<Daemon, OrgError> {
        let org = &self.fleet.org;
        let status = org.ask(self.fleet.author(), &["status"])?;
        let id = status.pointer("/org/id").and_then(Value::as_str).unwrap_or_default().to_owned();
        // A stolen machine is a member still, so it is listed; a revoked one dials the same machines.
        let targets = org.targets(self.fleet.author(), targets)?;
        org.probe_every(PROBE_MS, node, &id, &targets)
    }

    fn seen(&self, node: usize) -> Result<std::collections::BTreeMap<String, Seen>, OrgError> {
        Ok(probe::read(&self.fleet.org.log(node, "muster-probe")?))
    }

    /// From here on every dial of the thief must fail, and the sessions he held must be over.
    fn judge(&mut self, thief: Thief) -> Result<(), OrgError> {
        self.outcome.revoked += 1;
        let name = Org::name(thief.node);
        let seen = self.refused(thief.node, thief.targets)?;
        for (target, seen) in &seen {
            if seen.session_ended.is_none() {
                self.outcome.served.push(format!("{target} keeps a session with {name}, which is revoked"));
            }
        }
        let codes: BTreeSet<String> = seen.values().filter_map(|s| s.session_ended.clone()?.1).collect();
        (self.say)(&format!("  {name} is revoked and nobody serves it; its sessions ended with {codes:?}"));
        thief.probe.kill();
        Ok(())
    }

    /// Waits for some more dials to every machine, and notes who accepts one.
    fn refused(
        &mut self,
        node: usize,
        targets: usize,
    ) -> Result<std::collections::BTreeMap<String, Seen>, OrgError> {
        let now = unix_ns();
        let seen = wait_until("the thief has dialled everybody again", || {
            let seen = self.seen(node)?;
            let dialled = seen.values().filter(|s| s.since(now).1 >= REFUSED).count();
            Ok((dialled == targets).then_some(seen))
        })?;
        for (target, _) in seen.iter().filter(|(_, s)| s.since(now).0 > 0) {
            self.outcome.served.push(format!("{target} serves {}, which is revoked", Org::name(node)));
        }
        Ok(seen)
    }

    /// Once more at the end, all together; and the same program with the keys of a member is served.
    fn nobody_serves_the_revoked(&mut self) -> Result<(), OrgError> {
        let good: Vec<usize> = self.fleet.good().into_iter().filter(|n| *n != self.fleet.author()).collect();
        let Some(control) = good.last().copied() else { return Ok(()) };
        self.fleet.kill(control);
        let targets = self.fleet.up();
        let stolen = self.fleet.stolen();
        let mut probes = Vec::new();
        for node in stolen.iter().chain([&control]) {
            probes.push(self.probe(*node, &targets)?);
        }
        for node in stolen {
            self.refused(node, targets.len())?;
        }
        self.outcome.control_served = wait_until("the control is served by every machine", || {
            let seen = self.seen(control)?;
            let served = seen.values().filter(|s| s.accepted() > 0).count();
            let all: usize = seen.values().map(Seen::accepted).sum();
            Ok((served == targets.len()).then_some(all))
        })?;
        drop(probes);
        self.fleet.start(control)
    }
}

/// Where the admin works: a thread of its own.
struct Desk<'a> {
    org_of: usize,
    revoke: Option<String>,
    done: &'a AtomicBool,
    acknowledged: &'a Mutex<Vec<StatementId>>,
}

impl Desk<'_> {
    fn programs(&self, org: &Org) -> Result<[crate::Program; 2], OrgError> {
        let muster = |arguments: &[&str]| -> Result<crate::Program, OrgError> {
            Ok(org.program(self.org_of, "muster")?.args(["--json", "--no-input"]).args(arguments))
        };
        let victim = self.revoke.as_deref().unwrap_or_default();
        let revoke = ["revoke", victim, "--wait", "1", "--timeout", "1s", "--reason", "stolen", "--yes"];
        Ok([muster(&["invite", "create"])?, muster(&revoke)?])
    }

    /// Makes changes until told to stop, and revokes as soon as it can. What a command says to be in counts.
    fn work(&self, programs: &[crate::Program; 2]) {
        let [invite, revoke] = programs;
        let mut revoked = self.revoke.is_none();
        let mut tries = 0;
        // The revocation must be in before the network heals: it is what the check is about.
        while !self.done.load(Ordering::Relaxed) || (!revoked && tries < REVOKE_TRIES_MAX) {
            tries += u32::from(!revoked);
            let program = if revoked { invite } else { revoke };
            let Ok(ended) = program.clone().run(COMMAND) else { continue };
            // 75: it is in, and not yet applied by as many as were asked for.
            if !matches!(ended.status.code(), Some(0 | 75)) {
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
            let id = said.get(if revoked { "id" } else { "change" }).and_then(Value::as_str);
            let Some(id) = id.and_then(|id| StatementId::from_hex(id).ok()) else { continue };
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            revoked = true;
        }
    }
}

impl Aftermath {
    /// Whether all is as it must be.
    #[must_use]
    pub fn held(&self) -> bool {
        self.lost.is_empty() && self.served.is_empty() && self.control_served > 0
    }

    /// One object for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema_version": 1,
            "held": self.held(),
            "partitions": self.partitions,
            "kills": self.kills,
            "started_alone": self.asked_alone,
            "full_disks": self.full_disks,
            "revoked": self.revoked,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "served_though_revoked": self.served,
            "control_served": self.control_served,
            "converged_s": { "median": percentile(&self.converged_s, 50), "most": percentile(&self.converged_s, 100) },
            "descriptors": self.figures(|held| held.descriptors),
            "resident_kilobytes": self.figures(|held| held.kilobytes),
            "delay": "not simulated: the bridge between the namespaces has none",
            "elapsed_s": round(self.elapsed_s),
        })
    }

    fn figures(&self, of: impl Fn(&Held) -> u64) -> Value {
        let one = |held: &[Held]| {
            let mut all: Vec<u64> = held.iter().map(&of).collect();
            all.sort_unstable();
            json!({ "median": all.get(all.len() / 2), "most": all.last() })
        };
        json!({ "before": one(&self.before), "after": one(&self.after) })
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn unix_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
