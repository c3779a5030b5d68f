//! What must hold. Each `invariant_*` is one claim; [`World`] asks it where it can first be broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control::local::Coverage;
use identity::{
    Code, PublicKey, StatementId, WireGuardKey,
    limits::{CLOSE_FLUSH_MS, PARTING_MS},
};
use member_crdt::{Member, MemberState, Replica, Roster, Standing};
use musterd::{
    sessions::{Purpose, Session, Sessions},
    store::Store,
};
use org_trust::{
    Payload, Record, Records, ReportTip, UnverifiedCharter, UnverifiedReport, UnverifiedStatement,
};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    disk::SimDisk,
    machine::Memory,
    network::Party,
    oracle::Oracle,
    plan::Sabotage,
    world::{MS, World, revoked},
};

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

/// I1: every session that is not being cut is with a key that the machine's own list lets in.
pub(crate) fn invariant_a_session_is_with_a_member(roster: &Roster, sessions: &Sessions) -> Held {
    for (_, session) in sessions.iter().filter(|(_, session)| !session.is_cut()) {
        let (peer, action) = (session.peer(), session.purpose.action());
        let lets_in = match (session.purpose, roster.standing(&peer)) {
            (_, Standing::Member(member)) => member.is_good(),
            (Purpose::Outside(_), Standing::Boot(member)) => member.is_good(),
            (Purpose::Outside(_), Standing::Admin(_)) => true,
            (Purpose::Outside("enrol"), Standing::Unknown) => true,
            (_, Standing::Boot(_) | Standing::Retired(_) | Standing::Admin(_) | Standing::Unknown) => false,
        };
        ensure(lets_in, || {
            format!("a session for {action} with {}: {:?}", peer.short(), roster.standing(&peer))
        })?;
    }
    Ok(())
}

/// I1, I2: a handshake is accepted only of a member in good standing, and never of a key of which this
/// machine knew before that it is revoked.
pub(crate) fn invariant_a_handshake_follows_the_list(
    roster: &Roster,
    memory: &Memory,
    key: &PublicKey,
    outcome: Result<(), Code>,
) -> Held {
    let is_good = roster.get(key).is_some_and(Member::is_good);
    match outcome {
        Ok(()) if memory.revoked.contains(key) => Err(format!("{} is revoked and was let in", key.short())),
        Ok(()) => ensure(is_good, || format!("{} is no member and was let in", key.short())),
        Err(_) => Ok(()),
    }
}

/// I2, membership 3: who was revoked stays revoked, also over a restart if it was on disk.
pub(crate) fn invariant_a_revocation_is_for_ever(before: &BTreeSet<PublicKey>, replica: &Replica) -> Held {
    for key in before {
        let still = match replica.roster().get(key) {
            Some(member) => matches!(member.state, MemberState::Revoked { .. }),
            // Its invite was cancelled too.
            None => replica.is_revoked_early(key),
        };
        ensure(still, || format!("{} was revoked and is not any more", key.short()))?;
    }
    Ok(())
}

/// I4, membership 2: every admission and every revocation that counts was signed by whoever may.
pub(crate) fn invariant_only_what_was_signed_counts(roster: &Roster, oracle: &Oracle) -> Held {
    for member in roster.members() {
        let by_admin = oracle.statements.contains(&member.admit);
        let by_gateway = oracle.gateways.contains(&member.admitted_by)
            && oracle.nodes.get(&member.node).is_some_and(|number| oracle.invited.contains(number))
            && member.invite.is_some_and(|invite| oracle.invites.contains_key(&invite));
        ensure(by_admin || by_gateway, || format!("{} counts, and nobody admitted it", member.node.short()))?;
        if let MemberState::Revoked { ids, .. } = &member.state {
            for id in ids {
                ensure(oracle.statements.contains(id), || format!("no admin signed {}", id.short()))?;
            }
        }
        if member.state == MemberState::Left {
            ensure(oracle.leaving.contains(&member.node), || {
                format!("{} did not leave", member.node.short())
            })?;
        }
    }
    Ok(())
}

/// I5: under an invite no more machines count than it has uses, unless its gateway signed in two places
/// at once, and then both are shown.
pub(crate) fn invariant_invites_are_not_overspent(replica: &Replica, oracle: &Oracle) -> Held {
    let roster = replica.roster();
    let mut spent: BTreeMap<StatementId, u32> = BTreeMap::new();
    for invite in roster.members().iter().filter_map(|member| member.invite) {
        *spent.entry(invite).or_default() += 1;
    }
    for (invite, times) in spent {
        let (uses, redeemer) = oracle.invites.get(&invite).ok_or("an invite that nobody made")?;
        let shown = || replica.forks().iter().any(|fork| fork.author == *redeemer);
        ensure(times <= *uses || shown(), || {
            format!("{times} machines by {} of {uses} uses", invite.short())
        })?;
    }
    Ok(())
}

/// I6, membership 6: a key is revoked if and only if as many different admins revoked it as it takes.
pub(crate) fn invariant_enough_admins_revoke(replica: &Replica, threshold: usize) -> Held {
    let mut revokes: BTreeMap<PublicKey, BTreeSet<PublicKey>> = BTreeMap::new();
    for record in replica.records() {
        let Record::Statement(bytes) = record else { continue };
        let statement = UnverifiedStatement::decode(&bytes).map_err(|why| why.to_string())?;
        if let Payload::Revoke(revoke) = statement.claimed().payload() {
            revokes.entry(revoke.node).or_default().insert(*statement.claimed().author());
        }
    }
    for member in replica.roster().members() {
        let admins = revokes.get(&member.node).map_or(0, BTreeSet::len);
        let is_revoked = matches!(member.state, MemberState::Revoked { .. });
        ensure(is_revoked == (admins >= threshold), || {
            format!("{} is {:?} after {admins} of {threshold}", member.node.short(), member.state)
        })?;
    }
    Ok(())
}

/// Membership 8: what a disk once held of the org's settings is never older later.
pub(crate) fn invariant_settings_never_go_back(memory: &Memory, replica: &Replica) -> Held {
    let version = replica.chain().head().charter().version;
    ensure(version >= memory.settings_on_disk, || {
        format!("version {version} after {}", memory.settings_on_disk)
    })
}

/// I9: whatever a crash tore, the file opens and every record in it holds.
pub(crate) fn invariant_files_read_back(is_spoiled: bool, failed: Option<&str>, refused: usize) -> Held {
    if let Some(why) = failed.filter(|_| !is_spoiled) {
        return Err(format!("the store does not open: {why}"));
    }
    ensure(refused == 0, || format!("{refused} records of the file do not hold"))
}

/// What was acknowledged is on disk.
pub(crate) fn invariant_acknowledged_is_on_disk(memory: &Memory, replica: &Replica) -> Held {
    for id in &memory.acknowledged {
        ensure(replica.statement(id).is_some(), || format!("{} was acknowledged and is lost", id.short()))?;
    }
    Ok(())
}

/// What a machine says of itself that it has on disk is there.
pub(crate) fn invariant_reports_rest_on_disk(memory: &Memory, tips: &[ReportTip]) -> Held {
    for tip in tips {
        ensure(memory.tips_on_disk.contains(tip), || format!("{tip:?} is reported and not on disk"))?;
    }
    Ok(())
}

/// Nobody is counted as having applied a change that is not on its disk.
pub(crate) fn invariant_coverage_is_true(
    memory: &Memory,
    node: &PublicKey,
    from_it_on: &[ReportTip],
) -> Held {
    let has_it = from_it_on.iter().any(|tip| memory.tips_on_disk.contains(tip));
    ensure(has_it, || format!("{} is said to have applied what it has not on disk", node.short()))
}

/// A gate is open only as long as a link over it is.
pub(crate) fn invariant_gates_need_links(
    gates: &BTreeSet<WireGuardKey>,
    roster: &Roster,
    sessions: &Sessions,
) -> Held {
    for gate in gates {
        let member = roster.by_wireguard(gate).ok_or("an open gate for a key of nobody")?;
        ensure(sessions.is_linked(member.node), || {
            format!("the gate of {} is open without a link", member.name)
        })?;
    }
    Ok(())
}

/// Who is no member has no tunnel, once it has had the time to hear why.
pub(crate) fn invariant_tunnels_are_members(
    peers: impl Iterator<Item = WireGuardKey>,
    lost_at: &BTreeMap<WireGuardKey, u64>,
    now: u64,
) -> Held {
    for peer in peers {
        let since = lost_at.get(&peer).map(|at| now - at);
        ensure(since.is_none_or(|since| since <= (CLOSE_FLUSH_MS + 50) * MS), || {
            format!("a tunnel {} ms after its member lost its standing", since.unwrap_or_default() / MS)
        })?;
    }
    Ok(())
}

/// No packet of an application passes from a key that the receiver knows to be revoked.
pub(crate) fn invariant_no_traffic_of_the_revoked(memory: &Memory, from: &PublicKey) -> Held {
    ensure(!memory.revoked.contains(from), || format!("a packet of {}, which is revoked", from.short()))
}

/// I3, membership 1: once things go wrong no more, everybody soon holds the same and sees the same.
pub(crate) fn invariant_views_converge(apart: &[String], seconds: u64) -> Held {
    ensure(apart.is_empty(), || format!("after {seconds} s these differ: {}", apart.join(", ")))
}

/// I2: a revocation that was acknowledged has reached everybody by then.
pub(crate) fn invariant_a_revocation_reaches_all(replica: &Replica, oracle: &Oracle) -> Held {
    for node in oracle.revokes.keys().filter(|node| oracle.is_revoked(node)) {
        let roster = replica.roster();
        let refuses = match roster.get(node) {
            Some(member) => matches!(member.state, MemberState::Revoked { .. }),
            None => replica.is_revoked_early(node),
        };
        ensure(refuses, || {
            let state = roster.get(node).map(|member| &member.state);
            format!("{} is revoked, and here it is {state:?}", node.short())
        })?;
    }
    Ok(())
}

/// Membership 1, 11: the same records give the same list in any order, one by one.
pub(crate) fn invariant_order_does_not_matter(replica: &Replica, rng: &mut StdRng) -> Held {
    let genesis = replica.chain().genesis();
    let mut waiting: Vec<Record> = replica.records().collect();
    let mut other = Replica::new(genesis).map_err(|why| format!("{why:?}"))?;
    for at in (1..waiting.len()).rev() {
        waiting.swap(at, rng.random_range(0..=at));
    }
    // What comes before its predecessor is offered again, and so is what came already.
    for _ in 0..=waiting.len() {
        let before = other.count();
        for record in &waiting {
            drop(other.apply(record));
        }
        if other.count() == before {
            break;
        }
    }
    let same = (other.heads(), other.roster_digest()) == (replica.heads(), replica.roster_digest());
    ensure(same, || format!("{} records in another order give another list", replica.count()))
}

/// Membership 11: a file gives back what was written to it.
pub(crate) fn invariant_a_file_gives_the_same(saved: &[u8], replica: &Replica) -> Held {
    let loaded = Replica::load(saved, &replica.org()).map_err(|why| format!("{why:?}"))?;
    let same = loaded.replica.roster_digest() == replica.roster_digest();
    ensure(same && loaded.refused.is_empty(), || "the list differs after it was written and read".to_owned())
}

/// Membership 10: what is kept has one form.
pub(crate) fn invariant_records_have_one_form(replica: &Replica) -> Held {
    for record in replica.records() {
        let one = Records::encode(std::slice::from_ref(&record)).map_err(|why| why.to_string())?;
        let read = Records::decode(&one).map_err(|why| why.to_string())?;
        ensure(read == [record], || "a record is read back as another".to_owned())?;
    }
    Ok(())
}

/// Membership 9: whatever the hostile send, nothing is kept that no member and no admin signed.
pub(crate) fn invariant_nothing_else_is_kept(replica: &Replica, oracle: &Oracle) -> Held {
    for record in replica.records() {
        let is_ours = match &record {
            Record::Charter(bytes) => UnverifiedCharter::decode(bytes)
                .is_ok_and(|charter| charter.id() == replica.chain().genesis().id()),
            Record::Report(bytes) => UnverifiedReport::decode(bytes)
                .is_ok_and(|report| oracle.nodes.contains_key(report.claimed().node())),
            Record::Statement(bytes) => {
                let statement = UnverifiedStatement::decode(bytes).map_err(|why| why.to_string())?;
                let (author, payload) = (statement.claimed().author(), statement.claimed().payload());
                oracle.statements.contains(&StatementId(record.id()))
                    || match payload {
                        Payload::Admit(admit) => {
                            oracle.gateways.contains(author) && oracle.nodes.contains_key(&admit.node)
                        }
                        Payload::Leave => oracle.leaving.contains(author),
                        Payload::Revoke(_)
                        | Payload::Invite(_)
                        | Payload::Cancel(_)
                        | Payload::Suspend(_)
                        | Payload::Resume(_)
                        | Payload::Assign(_)
                        | Payload::Rotate(_)
                        | Payload::Retire(_)
                        | Payload::Cosign(_) => false,
                    }
            }
        };
        ensure(is_ours, || format!("a record that nobody signed is kept: {record:?}"))?;
    }
    Ok(())
}

/// A machine has something to do at one moment only so often.
pub(crate) fn invariant_time_moves_on(wakes: u32) -> Held {
    ensure(wakes < 100, || format!("woken {wakes} times at one moment"))
}

/// After all is well members let each other in, and nobody else.
pub(crate) fn invariant_members_are_served(
    roster: &Roster,
    key: &PublicKey,
    outcome: Result<(), Code>,
) -> Held {
    let is_good = roster.get(key).is_some_and(Member::is_good);
    ensure(is_good == outcome.is_ok(), || {
        format!(
            "{} is {}a member, and the answer is {outcome:?}",
            key.short(),
            if is_good { "" } else { "not " }
        )
    })
}

/// Who is no member any more keeps no session, but for passing on the change that says so.
pub(crate) fn invariant_a_former_member_serves_nobody(
    roster: &Roster,
    me: &PublicKey,
    sessions: &Sessions,
    lost_at: Option<u64>,
    now: u64,
) -> Held {
    let is_member = roster.get(me).is_some_and(Member::is_good);
    let tells = lost_at.is_some_and(|at| now - at <= (PARTING_MS + 50) * MS);
    let passes_on =
        |session: &Session| tells && matches!(session.purpose, Purpose::Sync | Purpose::Outside("submit"));
    let live = sessions.iter().filter(|(_, session)| !session.is_cut() && !passes_on(session)).count();
    ensure(is_member || live == 0, || format!("{live} sessions of a machine that is no member"))
}

/// Health never lies: after all is well a member does not say that it is shut out.
pub(crate) fn invariant_status_is_true(problems: &[control::local::Failed]) -> Held {
    let shut_out = |failed: &&control::local::Failed| {
        matches!(failed.code.0, Code::Revoked | Code::Left | Code::UnknownKey | Code::DiskRefused)
    };
    match problems.iter().find(shut_out) {
        Some(failed) => Err(format!("status says {} {}", failed.code, failed.detail)),
        None => Ok(()),
    }
}

/// What a gateway gives to a machine is a whole list.
pub(crate) fn invariant_a_list_given_is_whole(why: &str) -> Held {
    Err(why.to_owned())
}

/// I11: the same run with clocks that jump and with clocks that do not.
pub fn invariant_clocks_decide_nothing(with: &str, without: &str) -> Result<(), String> {
    ensure(with == without, || "the run is another one when clocks jump".to_owned())
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
        if is_new {
            running.roster = running.state.replica().roster();
            for member in running.roster.members().into_iter().filter(|member| !member.is_good()) {
                running.lost_at.entry(member.wireguard.to_wireguard()).or_insert(now);
            }
            if !running.roster.get(&node).is_some_and(Member::is_good) {
                running.out_at.get_or_insert(now);
            }
        }
        let roster = Arc::clone(&running.roster);
        let Some(running) = self.machines[number].running() else { return };
        let sessions = running.state.sessions();
        let a = invariant_a_session_is_with_a_member(&roster, sessions);
        let b = invariant_gates_need_links(&running.gates, &roster, sessions);
        let c = invariant_tunnels_are_members(running.peers.keys().copied(), &running.lost_at, now);
        let d = invariant_a_former_member_serves_nobody(&roster, &node, sessions, running.out_at, now);
        let report = running.state.replica().report_of(&node);
        let seq = report.map(|report| report.body().seq);
        let memory = &self.machines[number].memory;
        let e = match report {
            Some(report) if seq != memory.report_seq => {
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
        if is_new {
            self.check_roster(number, &roster);
        }
    }

    fn check_roster(&mut self, number: Party, roster: &Roster) {
        let before = std::mem::take(&mut self.machines[number].memory.revoked);
        if let Some(running) = self.machines[number].running() {
            hold!(self, invariant_a_revocation_is_for_ever(&before, running.state.replica()));
        }
        hold!(self, invariant_only_what_was_signed_counts(roster, &self.oracle));
        let gone =
            roster.members().into_iter().filter(|member| matches!(member.state, MemberState::Revoked { .. }));
        self.machines[number].memory.revoked = gone.map(|member| member.node).collect();
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
        hold!(self, invariant_a_revocation_is_for_ever(&on_disk, replica));
        self.held("invariant_acknowledged_is_on_disk", acknowledged);
        self.held("invariant_settings_never_go_back", settings);
        let known: BTreeSet<PublicKey> = revoked(replica).collect();
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
            let Some(machine) = self.oracle.nodes.get(node).copied() else { continue };
            hold!(self, invariant_coverage_is_true(&self.machines[machine].memory, node, &same));
        }
    }

    pub(crate) fn check_packet(&mut self, from: Party, to: Party) {
        let key = self.machines[from].node;
        hold!(self, invariant_no_traffic_of_the_revoked(&self.machines[to].memory, &key));
    }

    /// `in_step`: who has just come into contact hears others before it serves anybody.
    pub(crate) fn check_handshake(&mut self, by: Party, at: Party, outcome: Result<(), Code>, in_step: bool) {
        let key = self.machines[by].node;
        let Some(running) = self.machines[at].running() else { return };
        let roster = running.state.replica().roster();
        hold!(
            self,
            invariant_a_handshake_follows_the_list(&roster, &self.machines[at].memory, &key, outcome)
        );
        if self.is_calm && in_step && roster.get(&self.machines[at].node).is_some_and(Member::is_good) {
            hold!(self, invariant_members_are_served(&roster, &key, outcome));
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
        let threshold =
            self.oracle.threshold - usize::from(self.sabotage == Some(Sabotage::ThresholdIsMisread));
        let checks = [
            ("invariant_a_revocation_reaches_all", invariant_a_revocation_reaches_all(replica, &self.oracle)),
            (
                "invariant_invites_are_not_overspent",
                invariant_invites_are_not_overspent(replica, &self.oracle),
            ),
            ("invariant_enough_admins_revoke", invariant_enough_admins_revoke(replica, threshold)),
            ("invariant_nothing_else_is_kept", invariant_nothing_else_is_kept(replica, &self.oracle)),
            ("invariant_records_have_one_form", invariant_records_have_one_form(replica)),
        ];
        for (invariant, held) in checks {
            self.held(invariant, held);
        }
    }

    pub(crate) fn check_status(&mut self, problems: &[control::local::Failed]) {
        hold!(self, invariant_status_is_true(problems));
    }

    /// What one machine holds, in other orders and from a file.
    pub(crate) fn check_replica(&mut self, number: Party) {
        let Some(running) = self.machines[number].running() else { return };
        let replica = running.state.replica();
        let order = invariant_order_does_not_matter(replica, &mut self.rng);
        let Ok((_, contents)) = Store::open(self.machines[number].disk.durable()) else { return };
        let has_lied = self.machines[number].disk.has_lied();
        let file = invariant_a_file_gives_the_same(&contents.document, replica);
        self.held("invariant_order_does_not_matter", order);
        if !has_lied {
            self.held("invariant_a_file_gives_the_same", file);
        }
    }
}
