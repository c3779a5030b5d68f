//! What follows from a change to the member list: whose sessions end, who has a tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use conn_auth::{Holder, Standing};
use control::local::EventKind;
use identity::{Code, PublicKey, WireGuardKey, limits::CLOSE_FLUSH_MS};
use member_crdt::Member;

use super::{Effect, Now, State, events::Of, healing::OnClone};
use crate::{
    refusals::Refused,
    sessions::{Purpose, SessionKey},
    standing,
    tunnel::TunnelPeer,
};

/// What is known of members beside the list.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Admitted here, but not on disk yet: they do not count.
    fresh: BTreeSet<PublicKey>,
    /// No longer served, still being told why: their tunnel goes then at the latest.
    leaving: BTreeMap<PublicKey, Instant>,
    /// When each was last heard first-hand: a handshake of its tunnel, a session, a frame of it. What
    /// others pass on of it does not count.
    heard: BTreeMap<PublicKey, Instant>,
    /// When it was first known here that each is not served any more.
    ended_unix_ms: BTreeMap<PublicKey, Option<u64>>,
    peers: BTreeMap<PublicKey, TunnelPeer>,
    /// Members whose key two machines use, as their reports show.
    clones: BTreeSet<PublicKey>,
    /// Whether these are refused here.
    refuses_clones: bool,
}

impl Members {
    /// Whether two machines use this node's key, and it is not served here for that.
    pub(super) fn refuses(&self, node: &PublicKey) -> bool {
        self.refuses_clones && self.clones.contains(node)
    }

    pub(super) fn is_cloned(&self, node: &PublicKey) -> bool {
        self.clones.contains(node)
    }

    pub(super) fn next_removal(&self) -> Option<Instant> {
        self.leaving.values().min().copied()
    }

    pub(super) fn heard(&mut self, node: PublicKey, at: Instant) {
        self.heard.insert(node, at);
    }

    pub(super) fn last_heard(&self, node: &PublicKey) -> Option<Instant> {
        self.heard.get(node).copied()
    }

    pub(super) fn ended_unix_ms(&self, node: &PublicKey) -> Option<u64> {
        self.ended_unix_ms.get(node).copied().flatten()
    }

    /// These were no members any more before this start; since when is not known.
    pub(super) fn ended_before(&mut self, nodes: impl Iterator<Item = PublicKey>) {
        self.ended_unix_ms.extend(nodes.map(|node| (node, None)));
    }

    /// Whether the tunnels have other endpoints of a node than these.
    pub(super) fn moved(&self, node: &PublicKey, endpoints: &[SocketAddr]) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.endpoints != endpoints)
    }

    /// These were admitted and are not on disk.
    pub(super) fn admitted(&mut self, node: PublicKey) {
        self.fresh.insert(node);
    }

    /// These are on disk.
    pub(super) fn stored(&mut self, nodes: &[PublicKey]) {
        for node in nodes {
            self.fresh.remove(node);
        }
    }
}

impl State {
    /// What a machine is known by here, whichever of its keys it uses: the node key it was admitted with.
    pub(super) fn first_of(&self, node: &PublicKey) -> PublicKey {
        first_of(&self.roster, node)
    }

    /// Whether a key is, or was, this machine's node key.
    pub(super) fn is_mine(&self, node: &PublicKey) -> bool {
        self.first_of(node) == self.first_of(&self.me)
    }

    /// The tunnel key that goes with a node key in use.
    pub(super) fn wireguard_with(&self, node: &PublicKey) -> Option<WireGuardKey> {
        let keys = self.roster.get(node)?.in_use().find(|keys| keys.node == *node)?;
        Some(keys.wireguard.to_wireguard())
    }

    /// Only conn_auth passes the tunnel of this machine, whichever of its keys it has.
    pub(super) fn close_gates(&mut self, node: &PublicKey) {
        let Some(member) = self.roster.member_of(node) else { return };
        let gates = member.in_use().map(|keys| Effect::CloseGate(keys.wireguard.to_wireguard()));
        self.effects.extend(gates);
    }

    /// A tunnel came up with this key of a machine: sessions under earlier ones end.
    pub(super) fn replaced_by(&mut self, first: &PublicKey, wireguard: &WireGuardKey, now: Now) {
        let Some(member) = self.roster.member_of(first) else { return };
        let later = member.in_use().skip_while(|keys| keys.wireguard.to_wireguard() != *wireguard).skip(1);
        let earlier: Vec<PublicKey> = later.map(|keys| keys.node).collect();
        let live = self.sessions.live_of(*first);
        let old: Vec<SessionKey> =
            live.filter(|(_, s)| earlier.contains(&s.peer())).map(|(key, _)| key).collect();
        for key in old {
            self.replace_session(key, now);
        }
    }

    /// What the list says of a key that wants a session for this, with what the disk has not confirmed
    /// left out. Who is no member itself serves nobody; who cannot tell does what helps it to.
    pub(super) fn standing_of(&self, key: &PublicKey, purpose: Purpose) -> Standing {
        match self.own_refusal() {
            Some(Code::Unsettled) if !settles(purpose) => Standing::Barred(Code::Unsettled),
            None | Some(Code::Unsettled) => self.standing_among_others(key, purpose),
            Some(_) => Standing::Barred(Code::NotEnrolled),
        }
    }

    /// The same whatever this machine is itself.
    pub(super) fn standing_among_others(&self, key: &PublicKey, purpose: Purpose) -> Standing {
        standing_of(&self.roster, &self.members, (key, &self.me), purpose)
    }

    /// Why this machine is no member, by its own list.
    pub(super) fn own_refusal(&self) -> Option<Code> {
        let unknown = || self.roster.member_of(&self.me).map_or(Code::UnknownKey, |_| Code::KeyRetired);
        self.roster.get(&self.me).map_or_else(|| Some(unknown()), |me| standing::refusal(&me.state))
    }

    /// Why a key is refused, for people: with the time for a machine that was revoked.
    pub(super) fn reason(&self, key: &PublicKey, code: Code) -> String {
        let reason = standing::reason(&self.roster, key, code);
        let node = match self.roster.standing(key) {
            member_crdt::Standing::Boot(member)
            | member_crdt::Standing::Member(member)
            | member_crdt::Standing::Retired(member) => member.first(),
            member_crdt::Standing::Admin(_) | member_crdt::Standing::Unknown => return reason,
        };
        match self.members.ended_unix_ms(&node) {
            Some(at) => format!("{reason}, known here since {}", crate::clock::utc(at)),
            None => reason,
        }
    }

    /// Enforces the list as it stands. Called after every change, before anything else is done.
    pub(super) fn members_changed(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.roster, self.replica.roster());
        if !std::sync::Arc::ptr_eq(&before, &self.roster) {
            self.tell_changes(&before, now);
        }
        self.tell_settings(now);
        self.part_or_stay(now);
        self.members.refuses_clones = self.healing.policy.on_clone == OnClone::Suspend;
        for member in self.roster.members() {
            if standing::may_be_served(member) {
                self.members.ended_unix_ms.remove(&member.first());
            } else {
                self.members.ended_unix_ms.entry(member.first()).or_insert_with(|| Some(now.unix_ms()));
            }
        }
        let (roster, members, parting, me) = (&self.roster, &self.members, &self.parting, &self.me);
        let ours = self.own_refusal().filter(|ours| *ours == Code::Unsettled || !self.takes_part());
        let lost = self.sessions.recheck(
            // Who is no member itself keeps no session, once that is told; who cannot tell keeps those by
            // which it will.
            |session| match ours {
                Some(Code::Unsettled) if !settles(session.purpose) => Standing::Barred(Code::Unsettled),
                Some(ours) if ours != Code::Unsettled && !parting.keeps(session) => Standing::Barred(ours),
                Some(_) | None => standing_of(roster, members, (&session.peer(), me), session.purpose),
            },
            |key, code| standing::reason(roster, if ours.is_some() { &self.me } else { key }, code),
        );
        for lost in lost {
            self.outside.forget(lost.key);
            // The last word passes; everything else stops now.
            if !self.sessions.is_linked(lost.member) {
                self.close_gates(&lost.member);
            }
            // The overlay hears of it by the list, below.
            self.sync.remove(&lost.key);
            let flushed = now.at + Duration::from_millis(CLOSE_FLUSH_MS);
            self.members.leaving.entry(lost.member).or_insert(flushed);
            self.remember(
                lost.reference,
                Refused {
                    code: lost.cut.code,
                    detail: lost.cut.reason,
                    key: Some(lost.peer),
                    action: lost.purpose.action().to_owned(),
                    source: "open session".to_owned(),
                    at_unix_ms: now.unix_ms(),
                },
                now,
            );
        }
        self.set_peers();
        let goes_on = self.takes_part() || self.parting.is_telling();
        let good = if goes_on { self.others() } else { Vec::new() };
        self.overlay.handle_members(self.ms(now), good.iter().copied());
        self.follow_overlay(now);
    }

    /// A key that two machines use is shown, and refused where the settings say so. Which of the two is
    /// the right one nobody can tell here; whether the key stays is for an admin to say.
    pub(super) fn notice_clones(&mut self, now: Now) {
        let clones = self.replica.report_clashes();
        let new: Vec<PublicKey> =
            clones.into_iter().filter(|node| self.members.clones.insert(*node)).collect();
        for node in &new {
            let name = self.roster.get(node).map(|member| member.name.to_string()).unwrap_or_default();
            tracing::warn!(MUSTER_PEER = node.short(), MUSTER_CODE = %Code::CloneSuspected, name, "two machines use one key");
            let of = Of { code: Some(Code::CloneSuspected), ..Of::node(*node) };
            self.happened(EventKind::CloneSuspected, of, now);
        }
        if !new.is_empty() && self.members.refuses_clones {
            self.members_changed(now);
        }
    }

    /// An admin has ended the suspensions of a machine, those that settings made among them.
    pub(super) fn forgive_clones(&mut self, resumed: &[PublicKey], now: Now) {
        let members = resumed.iter().filter_map(|node| self.roster.member_of(node));
        let nodes: Vec<PublicKey> = members.flat_map(Member::nodes).collect();
        let mut forgiven = false;
        for node in nodes {
            forgiven |= self.replica.forgive_clash(&node);
            self.members.clones.remove(&node);
        }
        if forgiven {
            self.members_changed(now);
        }
    }

    /// Removes the tunnels of members that have been told why, or had the time to hear it.
    pub(super) fn remove_members_told(&mut self, now: Now) {
        let told: Vec<PublicKey> = self
            .members
            .leaving
            .iter()
            .filter(|(node, flushed)| **flushed <= now.at || !self.sessions.has_any(**node))
            .map(|(node, _)| *node)
            .collect();
        for node in &told {
            self.members.leaving.remove(node);
        }
        if !told.is_empty() {
            self.set_peers();
        }
    }

    /// Tells the tunnels who their peers are, if that changed.
    pub(super) fn set_peers(&mut self) {
        let served = |member: &&Member| {
            let has_any = self.sessions.has_any(member.first());
            let leaving = self.members.leaving.contains_key(&member.first()) && has_any;
            let hears = self.takes_part() || self.parting.is_telling() && has_any;
            let counts = standing::may_be_served(member) && !self.members.fresh.contains(&member.first());
            !member.uses(&self.me) && (counts && hears || leaving)
        };
        let members = self.roster.members().into_iter().filter(served);
        let peers: BTreeMap<_, _> = members.map(|member| (member.first(), self.peer(member))).collect();
        if peers != self.members.peers {
            self.effects.push_back(Effect::Peers(peers.values().cloned().collect()));
            self.members.peers = peers;
        }
    }

    #[cfg(test)]
    pub(super) fn members_with_tunnel(&self) -> usize {
        self.members.peers.len()
    }

    fn peer(&self, member: &Member) -> TunnelPeer {
        let report = self.replica.report_of(&member.node);
        TunnelPeer {
            wireguard: member.wireguard.to_wireguard(),
            earlier: member.in_use().skip(1).map(|keys| keys.wireguard.to_wireguard()).collect(),
            address: member.address,
            endpoints: report.map(|report| report.body().endpoints.clone()).unwrap_or_default(),
        }
    }

    /// Every other member that counts, or may.
    fn others(&self) -> Vec<PublicKey> {
        let counts = |member: &&Member| {
            !member.uses(&self.me)
                && standing::may_be_served(member)
                && !self.members.refuses(&member.node)
                && !self.members.fresh.contains(&member.first())
        };
        self.roster.members().into_iter().filter(counts).map(Member::first).collect()
    }
}

/// Whether a session may bring what is missing here to say who is a member.
fn settles(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Sync | Purpose::Outside("submit" | "fetch"))
}

pub(super) fn first_of(roster: &member_crdt::Roster, node: &PublicKey) -> PublicKey {
    roster.member_of(node).map_or(*node, Member::first)
}

fn standing_of(
    roster: &member_crdt::Roster,
    members: &Members,
    (key, me): (&PublicKey, &PublicKey),
    purpose: Purpose,
) -> Standing {
    let is_unsettled = || roster.get(key).is_some_and(Member::is_unsettled);
    match standing::of_key(roster, key) {
        // Also who waits for approval: it still has to hear so.
        Standing::Good(_) | Standing::Barred(Code::ApprovalPending | Code::Unsettled)
            if members.fresh.contains(&first_of(roster, key)) =>
        {
            Standing::Unknown
        }
        Standing::Good(Holder::Member) if members.refuses(key) => Standing::Barred(Code::CloneSuspected),
        Standing::Good(Holder::BootKey) if roster.by_boot(key).is_some_and(|m| members.refuses(&m.node)) => {
            Standing::Barred(Code::CloneSuspected)
        }
        // It may have what is missing here, or need what is here.
        Standing::Barred(Code::Unsettled)
            if purpose == Purpose::Sync && is_unsettled() && !members.refuses(key) =>
        {
            Standing::Good(Holder::Member)
        }
        // One place for all: a handshake, and every change after it.
        Standing::Good(Holder::Member)
            if purpose.is_permitted() && standing::permits(roster, key, me, purpose.action()) =>
        {
            Standing::Permitted
        }
        standing @ (Standing::Good(_) | Standing::Permitted | Standing::Barred(_) | Standing::Unknown) => {
            standing
        }
    }
}
