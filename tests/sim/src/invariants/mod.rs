//! What must hold. Each `invariant_*` is one claim; [`World`] asks it where it can first be broken.

use std::{collections::BTreeSet, sync::Arc};

use control::local::Coverage;
use identity::{Code, PublicKey, StatementId};
use member_crdt::{Member, Replica, Roster};
use musterd::store::Store;
use org_trust::{Record, ReportTip};

use crate::{
    disk::SimDisk,
    network::Party,
    plan::Sabotage,
    world::{World, revoked},
};

mod disks;
mod lists;
mod machines;
mod removals;
mod sessions;
#[cfg(test)]
mod tests;

pub use lists::invariant_clocks_decide_nothing;
pub(crate) use sessions::invariant_status_is_true;

use disks::*;
use lists::*;
use machines::*;
use removals::*;
use sessions::*;

/// What did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The name of the function.
    pub invariant: &'static str,
    /// Virtual seconds since the beginning.
    pub at_s: f64,
    /// What was seen.
    pub detail: String,
}

type Held = Result<(), String>;

/// The same statement under its signature's other form: to S the order of the group is added, which a
/// verifier that does not look closely takes for the same signature.
fn turned(statement: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut turned = statement.to_vec();
    let (start, mut carry) = (turned.len() - 32, 0);
    for (byte, more) in turned[start..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    turned
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(otherwise()) }
}

macro_rules! hold {
    ($world:expr, $invariant:ident($($argument:expr),* $(,)?)) => {{
        let held = $invariant($($argument),*);
        $world.held(stringify!($invariant), held);
    }};
}

impl World {
    fn held(&mut self, invariant: &'static str, held: Held) {
        if self.only.is_some_and(|only| only != invariant) {
            return;
        }
        self.totals.checks += 1;
        if let Err(detail) = held
            && self.violation.is_none()
        {
            self.trace.remark(self.now, || format!("{invariant} does not hold: {detail}"));
            self.violation = Some(Violation { invariant, at_s: self.now as f64 / 1e6, detail });
        }
    }

    /// After everything a machine did.
    pub(crate) fn check_machine(&mut self, number: Party) {
        let now = self.now;
        let machine = &mut self.machines[number];
        let (node, is_new) = (
            machine.node,
            machine
                .running()
                .is_some_and(|running| !Arc::ptr_eq(&running.roster, &running.state.replica().roster())),
        );
        let Some(running) = machine.running_mut() else { return };
        let before = Arc::clone(&running.roster);
        if is_new {
            running.roster = running.state.replica().roster();
            let is_out = |member: &&Member| !member.is_good() && !member.is_unsettled();
            for member in running.roster.members().into_iter().filter(is_out) {
                for keys in member.in_use() {
                    running.lost_at.entry(keys.wireguard.to_wireguard()).or_insert(now);
                }
            }
            if running.roster.get(&node).is_some_and(|me| !is_out(&me)) {
                running.out_at = None;
            } else {
                running.out_at.get_or_insert(now);
            }
            // Who came back has lost nothing.
            let roster = Arc::clone(&running.roster);
            running.lost_at.retain(|key, _| {
                let member = roster.by_wireguard(key);
                member.is_some_and(|member| is_out(&member))
            });
        }
        let roster = Arc::clone(&running.roster);
        let Some(running) = self.machines[number].running() else { return };
        let sessions = running.state.sessions();
        let a = invariant_a_session_is_with_a_member(&roster, sessions);
        let b = invariant_gates_need_links(running.gates.keys(), &roster, sessions);
        let c = invariant_tunnels_are_members(running.peers.keys().copied(), &running.lost_at, now);
        let d = invariant_a_former_member_serves_nobody(&roster, &node, sessions, running.out_at, now);
        let report = running.state.replica().report_of(&node);
        let seq = report.map(|report| report.body().seq);
        let memory = &self.machines[number].memory;
        let e = match report {
            Some(report) if seq != memory.report_seq && report.body().boot_nonce == running.boot_nonce => {
                invariant_reports_rest_on_disk(memory, &report.body().tips)
            }
            Some(_) | None => Ok(()),
        };
        if self.sabotage != Some(Sabotage::GatesStayOpen) {
            self.held("invariant_gates_need_links", b);
        }
        self.held("invariant_a_session_is_with_a_member", a);
        self.held("invariant_tunnels_are_members", c);
        self.held("invariant_a_former_member_serves_nobody", d);
        self.held("invariant_reports_rest_on_disk", e);
        self.machines[number].memory.report_seq = seq;
        self.check_copies(number);
        if is_new {
            let changes_nothing = self.sabotage == Some(Sabotage::RemovalsChangeNothing);
            self.check_roster(number, &roster, if changes_nothing { &before } else { &roster });
        }
    }

    /// `counting`: what is said to count.
    fn check_roster(&mut self, number: Party, roster: &Roster, counting: &Roster) {
        let before = std::mem::take(&mut self.machines[number].memory.revoked);
        if let Some(running) = self.machines[number].running() {
            let replica = running.state.replica();
            let threshold = self.oracle.threshold;
            let checks = [
                (
                    "invariant_a_revocation_is_for_ever",
                    invariant_a_revocation_is_for_ever(&before, replica, threshold),
                ),
                (
                    "invariant_nothing_counts_beyond_a_cut",
                    invariant_nothing_counts_beyond_a_cut(replica, counting),
                ),
                (
                    "invariant_roles_follow_settings",
                    invariant_roles_follow_settings(replica, roster, &self.oracle),
                ),
                ("invariant_there_is_a_ca", invariant_there_is_a_ca(replica)),
            ];
            // Who is nobody for now is not forgotten.
            let mut known = revoked(replica);
            known.extend(before.into_iter().filter(|(key, _)| roster.member_of(key).is_none()));
            for (invariant, held) in checks {
                self.held(invariant, held);
            }
            self.machines[number].memory.revoked = known;
        }
        hold!(self, invariant_only_what_was_signed_counts(roster, &self.oracle));
        hold!(self, invariant_a_lineage_lives_and_dies_as_one(roster, &self.oracle));
        let digest = roster.digest();
        let bytes = *digest.as_bytes();
        self.trace.note(self.now, "list", [number, roster.len()], &bytes, || digest.short());
    }

    /// What a machine finds on its disk when it starts.
    pub(crate) fn check_start(&mut self, number: Party, replica: &Replica, was_given: bool, refused: usize) {
        let spoiled = self.machines[number].disk_is_spoiled || was_given;
        let node = self.machines[number].node;
        let memory = &mut self.machines[number].memory;
        memory.tips_on_disk.extend(replica.report_tips());
        memory.report_seq = replica.report_of(&node).map(|report| report.body().seq);
        let on_disk = std::mem::take(&mut self.machines[number].memory.revoked_on_disk);
        if !spoiled {
            hold!(self, invariant_files_read_back(false, None, refused));
        }
        let memory = &self.machines[number].memory;
        let (acknowledged, settings) = (
            invariant_acknowledged_is_on_disk(memory, replica),
            invariant_settings_never_go_back(memory, replica),
        );
        hold!(self, invariant_a_revocation_is_for_ever(&on_disk, replica, self.oracle.threshold));
        self.held("invariant_acknowledged_is_on_disk", acknowledged);
        self.held("invariant_settings_never_go_back", settings);
        let known = revoked(replica);
        let memory = &mut self.machines[number].memory;
        memory.revoked_on_disk.clone_from(&known);
        memory.revoked = known;
    }

    pub(crate) fn check_damage(&mut self, number: Party, why: &str) {
        let is_spoiled = self.machines[number].disk_is_spoiled;
        hold!(self, invariant_files_read_back(is_spoiled, Some(why), 0));
    }

    /// What a machine acknowledged would be found after a power cut now.
    pub(crate) fn check_acknowledged(&mut self, number: Party) {
        let machine = &self.machines[number];
        let (disk, org): (SimDisk, _) = (machine.disk.clone(), self.org.id);
        let lies = disk.has_lied() && self.sabotage != Some(Sabotage::DisksForget);
        if lies || machine.disk_is_spoiled || !self.totals.acknowledged.is_multiple_of(4) {
            return;
        }
        let Ok((_, contents)) = Store::open(disk.durable()) else { return };
        let Ok(loaded) = Replica::load(&contents.document, &org) else { return };
        hold!(self, invariant_acknowledged_is_on_disk(&self.machines[number].memory, &loaded.replica));
    }

    pub(crate) fn check_coverage(&mut self, at: Party, change: StatementId, coverage: &Coverage) {
        let Some(running) = self.machines[at].running() else { return };
        let missing: BTreeSet<PublicKey> = coverage.missing.iter().map(|missing| missing.node.0).collect();
        let good: Vec<PublicKey> =
            running.state.replica().roster().good().map(|member| member.node).collect();
        let from_it_on: Vec<ReportTip> = self
            .admins
            .iter()
            .flat_map(|admin| admin.signed())
            .skip_while(|statement| statement.id() != change)
            .map(|s| ReportTip::new(s.author(), s.lane(), s.seq(), &s.id()))
            .collect();
        let Some(first) = self.admins.iter().flat_map(|a| a.signed()).find(|s| s.id() == change) else {
            return;
        };
        let same: Vec<ReportTip> = from_it_on
            .into_iter()
            .zip(self.admins.iter().flat_map(|a| a.signed()).skip_while(|s| s.id() != change))
            .filter(|(_, s)| s.author() == first.author() && s.lane() == first.lane())
            .map(|(tip, _)| tip)
            .collect();
        for node in good.iter().filter(|node| !missing.contains(node)) {
            // What a copy reports stands on another disk.
            let machine = self.oracle.nodes.get(node).filter(|machine| !self.copied.contains(machine));
            let Some(machine) = machine.copied() else { continue };
            hold!(self, invariant_coverage_is_true(&self.machines[machine].memory, node, &same));
        }
    }

    pub(crate) fn check_packet(&mut self, from: Party, to: Party) {
        let key = self.machines[from].node;
        hold!(self, invariant_no_traffic_of_the_revoked(&self.machines[to].memory, &key));
    }

    /// `in_step`: who has just come into contact hears others before it serves anybody.
    pub(crate) fn check_handshake(
        &mut self,
        by: Party,
        at: Party,
        action: &str,
        outcome: Result<(), Code>,
        in_step: bool,
    ) {
        let key = self.machines[by].node;
        let Some(running) = self.machines[at].running() else { return };
        // Who was admitted a moment ago is served once that is on the disk.
        let is_stored = running.write.is_none();
        let roster = running.state.replica().roster();
        hold!(
            self,
            invariant_a_handshake_follows_the_list(&roster, &self.machines[at].memory, &key, action, outcome)
        );
        let is_good = roster.get(&self.machines[at].node).is_some_and(Member::is_good);
        if self.is_calm && in_step && is_stored && is_good {
            hold!(self, invariant_members_are_served(&roster, &key, action, outcome));
        }
    }

    pub(crate) fn hold_time_moves_on(&mut self, _machine: Party, wakes: u32) {
        hold!(self, invariant_time_moves_on(wakes));
    }

    pub(crate) fn hold_list_given(&mut self, machine: Party, why: &str) {
        let why = format!("machine {machine}: {why}");
        hold!(self, invariant_a_list_given_is_whole(&why));
    }

    pub(crate) fn hold_convergence(&mut self, apart: &[String], seconds: u64) {
        hold!(self, invariant_views_converge(apart, seconds));
    }

    /// What one machine holds when all is quiet.
    pub(crate) fn check_list(&mut self, number: Party) {
        let Some(running) = self.machines[number].running() else { return };
        let replica = running.state.replica();
        let rogues: BTreeSet<Party> =
            (0..self.machines.len()).filter(|number| self.machines[*number].is_rogue).collect();
        let replaces = self.sabotage != Some(Sabotage::AssignmentsAreMisread);
        let threshold =
            self.oracle.threshold - usize::from(self.sabotage == Some(Sabotage::ThresholdIsMisread));
        let checks = [
            ("invariant_a_revocation_reaches_all", invariant_a_revocation_reaches_all(replica, &self.oracle)),
            (
                "invariant_invites_are_not_overspent",
                invariant_invites_are_not_overspent(replica, &self.oracle),
            ),
            ("invariant_enough_admins_revoke", invariant_enough_admins_revoke(replica, threshold)),
            (
                "invariant_concurrent_changes_take_away",
                invariant_concurrent_changes_take_away(replica, replaces),
            ),
            ("invariant_approval_is_an_admins", invariant_approval_is_an_admins(replica, &self.oracle)),
            (
                "invariant_thieves_gain_nothing",
                invariant_thieves_gain_nothing(replica, &self.oracle, &rogues),
            ),
            ("invariant_what_was_honest_counts", invariant_what_was_honest_counts(replica, &self.oracle)),
            ("invariant_nothing_else_is_kept", invariant_nothing_else_is_kept(replica, &self.oracle)),
        ];
        self.check_form(number);
        for (invariant, held) in checks {
            // Whom hostile members kept apart to the end has not heard what admins said last.
            if self.totals.eclipsed == 0 || invariant != "invariant_what_was_honest_counts" {
                self.held(invariant, held);
            }
        }
    }

    /// What stands on one machine's disk, as it stands there.
    fn check_form(&mut self, number: Party) {
        let disk = self.machines[number].disk.durable();
        let Ok((_, contents)) = Store::open(disk) else { return };
        let mut records = match Replica::read_records(&contents.document, &self.org.id) {
            Ok(records) => records,
            Err(why) => return self.held("invariant_records_have_one_form", Err(format!("{why:?}"))),
        };
        if self.sabotage == Some(Sabotage::SignaturesAreTurned) {
            let turned = records.iter().find_map(|record| match record {
                Record::Statement(bytes) => Some(Record::Statement(turned(bytes))),
                Record::Charter(_) | Record::Report(_) => None,
            });
            records.extend(turned);
        }
        self.totals.records_on_disk += records.len() as u64;
        hold!(self, invariant_records_have_one_form(&records));
    }

    /// Whether this machine has noticed a copy as soon as it could.
    fn check_copies(&mut self, number: Party) {
        for copied in self.copied.clone() {
            let node = self.machines[copied].node;
            let Some(running) = self.machines[number].running() else { return };
            let replica = running.state.replica();
            let Some(report) = replica.report_of(&node) else { continue };
            let nonce = report.body().boot_nonce;
            let overlooked = self.sabotage == Some(Sabotage::CopiesAreOverlooked);
            let is_noticed = !overlooked && replica.report_clashes().contains(&node);
            let resumes = self.oracle.resumes.get(&copied).into_iter().flatten();
            let resumes = resumes.filter(|id| replica.statement(id).is_some()).count();
            let memory = &mut self.machines[number].memory;
            let starts = memory.starts_seen.entry(node).or_default();
            if memory.resumes_seen.insert(node, resumes).is_some_and(|before| before != resumes) {
                // What was seen of it before an admin let it in again counts no more.
                starts.clear();
            }
            if starts.last() == Some(&nonce) {
                continue;
            }
            let returns = starts.contains(&nonce);
            starts.push(nonce);
            let held = invariant_copies_are_noticed(starts, is_noticed);
            self.held("invariant_copies_are_noticed", held);
            self.totals.copies_noticed += u64::from(returns && is_noticed);
        }
    }

    pub(crate) fn check_status(&mut self, problems: &[control::local::Failed]) {
        hold!(self, invariant_status_is_true(problems));
    }

    /// What one machine holds, in other orders and from a file.
    pub(crate) fn check_replica(&mut self, number: Party) {
        let Some(running) = self.machines[number].running() else { return };
        let replica = running.state.replica();
        let arrival = match self.sabotage {
            Some(Sabotage::FirstComeCounts) => Arrival::FirstComeCounts,
            Some(_) | None => Arrival::AnyOrder,
        };
        let records: Vec<Record> = replica.records().collect();
        let order = invariant_order_does_not_matter(replica, &records, arrival, &mut self.rng);
        let Ok((_, contents)) = Store::open(self.machines[number].disk.durable()) else { return };
        let has_lied = self.machines[number].disk.has_lied();
        let file = invariant_a_file_gives_the_same(&contents.document, replica);
        self.held("invariant_order_does_not_matter", order);
        if !has_lied {
            self.held("invariant_a_file_gives_the_same", file);
        }
    }
}
