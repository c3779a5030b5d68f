//! What this machine is and knows, and every decision it takes. One task owns it.
//!
//! Inputs come by `on_*` with the time; what is to be done in the world comes out of
//! [`State::effects`], in the order in which it has to be done. Nothing in here waits.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use conn_auth::Reference;
use control::local::EventKind;
use identity::{BootNonce, Code, OrgId, PublicKey, SecretKey, ShareKey, WireGuardKey};
use member_crdt::{Replica, Roster};
use overlay::Overlay;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::oneshot;

use crate::{
    attestation::Attestation,
    blobs::Blobs,
    images::ImagesOrder,
    keys::{Beside, Keys, KeysOrder},
    refusals::{Refusals, Refused},
    services::Services,
    sessions::{Cut, SessionKey, Sessions},
    standing,
    tunnel::{Stats, TunnelPeer},
    writer::Write,
};

pub use admission::{Asking, Connecting, Decision, Dialled, Echo, Errand, Failure, Order, Proven};
pub use healing::{OnClone, OnStale, Policy};
pub use outside::{Outside, Socket};
pub use role::RoleKeyOrder;
pub use services::{Program, Serve, ServicesOrder};
pub use share::ShareOrder;

mod admission;
mod answers;
mod attestation;
mod disk;
mod events;
mod healing;
mod hearsay;
mod images;
mod liveness;
mod members;
mod outside;
mod parting;
mod records;
mod reports;
mod role;
mod rotation;
mod services;
mod share;
mod sync;
#[cfg(test)]
mod tests;

/// A moment: for intervals, and as people write it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Nanoseconds since 1970 by this machine's clock; never decides anything but an invite's date.
    pub unix_ns: u64,
}

impl Now {
    /// Milliseconds since 1970.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.unix_ns / 1_000_000
    }
}

/// Something to do in the world. Order matters: a gate opens before the verdict that lets the other
/// side use it.
#[derive(Debug)]
pub enum Effect {
    /// Only conn_auth passes this member's tunnel.
    CloseGate(WireGuardKey),
    /// Ask the images' thread.
    Images(ImagesOrder),
    /// Send this datagram of SWIM to the member with this overlay address.
    Datagram(Ipv6Addr, Vec<u8>),
    /// Tell a connection's task what was decided.
    Decide(oneshot::Sender<Decision>, Box<Decision>),
    /// Reach a member.
    Dial(Box<Order>),
    /// Make a key for the gateway role and keep it with the others.
    MakeRoleKey(Box<RoleKeyOrder>),
    /// Keep what this machine offers, on disk.
    Services(Box<ServicesOrder>),
    /// Keep or forget keys for shares of disk keys.
    Shares(Box<ShareOrder>),
    /// Do this with this machine's keys.
    Keys(KeysOrder),
    /// The filter decides about this member's tunnel.
    OpenGate(WireGuardKey),
    /// These are the tunnel's peers, all of them.
    Peers(Vec<TunnelPeer>),
    /// Datagrams of SWIM pass to and from the members with these overlay addresses, and nobody else.
    Probe(Vec<Ipv6Addr>),
    /// Write to disk.
    Write(Write),
}

/// What a state begins with.
#[derive(Debug)]
pub struct Beginning {
    /// This machine's keys.
    pub keys: Arc<Keys>,
    /// The member list, on disk as it is here.
    pub replica: Replica,
    /// Drawn for this start.
    pub boot_nonce: BootNonce,
    /// Where fresh bytes come from: seeded by the operating system, or by a simulation.
    pub randomness: StdRng,
    /// Where other members reach this machine.
    pub endpoints: Vec<SocketAddr>,
    /// Whether the store's file has to be written anew first.
    pub replace: bool,
    /// What a rotation of the keys has left beside them.
    pub beside: Beside,
}

/// What a peer that is refused wanted, and from where.
struct Asked {
    action: String,
    source: String,
}

/// The state.
#[derive(Debug)]
pub struct State {
    keys: Arc<Keys>,
    me: PublicKey,
    org: OrgId,
    replica: Replica,
    roster: Arc<Roster>,
    overlay: Overlay,
    answering: liveness::Answering,
    randomness: StdRng,
    started: Instant,
    sessions: Sessions,
    sync: BTreeMap<SessionKey, sync::Peer>,
    healing: healing::Healing,
    disk: disk::Disk,
    report: reports::Own,
    paces: reports::Paces,
    endpoints: Vec<SocketAddr>,
    refusals: Refusals,
    events: events::Events,
    members: members::Members,
    dials: admission::Dials,
    outside: outside::Connections,
    attestation: Attestation,
    images: images::Transfers,
    /// Files that are kept for members; none while the settings give no room.
    blobs: Option<Arc<Blobs>>,
    /// A release that never became ready here, for which an earlier one runs.
    given_up: Option<u32>,
    effects: VecDeque<Effect>,
    stats: Option<Stats>,
    leaving: Option<parting::Leaving>,
    parting: parting::Parting,
    /// Made since the start: it is used instead of the one among `keys`.
    role_key: Option<SecretKey>,
    role_key_ordered: bool,
    /// With which machines that boot here get their shares of disk keys, if the org wants that.
    shares: Vec<ShareKey>,
    shares_ordered: bool,
    rotation: rotation::Rotation,
    hearsay: hearsay::Hearsay,
    services: Services,
}

impl State {
    /// A state, and with it the first effects: the tunnel's peers.
    #[must_use]
    pub fn new(beginning: Beginning, now: Now) -> Self {
        let Beginning { keys, mut replica, boot_nonce, mut randomness, endpoints, replace, beside } =
            beginning;
        let me = keys.node.public();
        replica.belongs_to(me);
        let roster = replica.roster();
        // Neighbours are chosen by the key that a machine was admitted with: a rotation moves nobody.
        let place = roster.member_of(&me).map_or(me, member_crdt::Member::first);
        let mut state = Self {
            me,
            org: replica.org(),
            overlay: Overlay::new(place, randomness.random()),
            answering: liveness::Answering::new(&place, StdRng::from_seed(randomness.random())),
            roster,
            randomness,
            started: now.at,
            sessions: Sessions::default(),
            sync: BTreeMap::new(),
            healing: healing::Healing::new(),
            disk: disk::Disk::new(replace),
            report: reports::Own::new(boot_nonce),
            paces: reports::Paces::default(),
            endpoints,
            refusals: Refusals::default(),
            events: events::Events::default(),
            members: members::Members::default(),
            dials: admission::Dials::default(),
            outside: outside::Connections::default(),
            attestation: Attestation::default(),
            images: images::Transfers::default(),
            blobs: None,
            given_up: None,
            effects: VecDeque::new(),
            stats: None,
            leaving: None,
            parting: parting::Parting::default(),
            role_key: None,
            role_key_ordered: false,
            shares: Vec::new(),
            shares_ordered: false,
            rotation: rotation::Rotation::default(),
            hearsay: hearsay::Hearsay::default(),
            services: Services::default(),
            keys,
            replica,
        };
        let members = state.roster.members().into_iter();
        state.members.ended_before(members.filter(|m| !standing::may_be_served(m)).map(|m| m.first()));
        state.notice_clones(now);
        state.members_changed(now);
        state.heal(now);
        state.persist(now);
        state.report_soon(now);
        state.resume_rotation(beside, now);
        state
    }

    /// What is to be done now, in order.
    pub fn effects(&mut self) -> impl Iterator<Item = Effect> {
        std::mem::take(&mut self.effects).into_iter()
    }

    /// When [`Self::on_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn timeout(&self) -> Option<Instant> {
        let core = [self.overlay.poll_timeout(), self.answering.poll_timeout()].into_iter().flatten().min();
        let core = core.map(|ms| self.started + Duration::from_millis(ms));
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        let parting = self.parting.due();
        let removal = self.members.next_removal();
        // No report is made while the disk refuses: a timer for it would always be due.
        let report = self.report.due().filter(|_| self.disk.refused().is_none());
        let healing = self.healing.due();
        let guests = self.sync.values().filter_map(sync::Peer::guest_until).min();
        let (rotation, hearsay) = (self.rotation.due(), self.hearsay.due());
        let (disk, dials) = (self.disk.retry_at(), self.dials.next_try());
        let attestation = self.attestation_due();
        let images = self.images.due(self.started);
        let core = [core, leaving, parting, removal, report, disk, dials].into_iter().flatten().min();
        [core, healing, guests, rotation, attestation, images, hearsay].into_iter().flatten().min()
    }

    /// Some time has passed.
    pub fn on_timeout(&mut self, now: Now) {
        self.part_on(now);
        self.remove_members_told(now);
        self.write_on(now);
        self.report_if_due(now);
        self.rotate_on(now);
        self.dials.forget_old(now.at);
        self.end_guests(now);
        self.end_silent_attestations(now);
        self.end_silent_transfers(now);
        self.overlay.handle_timeout(self.ms(now));
        self.follow_overlay(now);
        self.probe_on(now);
        self.heal_on(now);
        self.ask_again(now);
    }

    /// The tunnels' counters, for status.
    pub fn on_stats(&mut self, stats: Stats) {
        self.stats = Some(stats);
    }

    /// Other members reach this machine elsewhere from now on.
    pub fn on_endpoints(&mut self, endpoints: Vec<SocketAddr>, now: Now) {
        self.endpoints = endpoints;
        self.report_soon(now);
    }

    /// Ends every session, telling why.
    pub fn on_stop(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            let reason = Code::ShuttingDown.title().to_owned();
            self.sessions.cut(key, Cut { code: Code::ShuttingDown, reason });
        }
    }

    /// Whether nothing is left to be sent or written.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sessions.is_empty() && !self.disk.is_writing()
    }

    /// One line for the service manager.
    #[must_use]
    pub fn summary(&self) -> String {
        let linked = self.roster.good().filter(|member| self.sessions.is_linked(member.first())).count();
        match self.disk.refused() {
            Some(why) => format!("disk refuses: {why}"),
            None => format!("{} members, {linked} linked", self.roster.good().count()),
        }
    }

    /// Whether this machine keeps up tunnels and sessions: as a member, or one that may be one, or while
    /// it is suspended, when the others shut it out and it must find out by itself that they no longer do.
    pub(super) fn takes_part(&self) -> bool {
        self.may_be_member() || self.roster.get(&self.me).is_some_and(standing::may_return)
    }

    /// Whether this machine is a member, or that is not settled here.
    pub(super) fn may_be_member(&self) -> bool {
        self.roster.get(&self.me).is_some_and(standing::may_be_served)
    }

    /// Whether this machine is a member in good standing.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.roster.get(&self.me).is_some_and(standing::is_served)
    }

    /// What is held here.
    #[must_use]
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The sessions there are.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A name for a handshake.
    fn new_reference(&mut self) -> Reference {
        Reference(self.randomness.random())
    }

    fn ms(&self, now: Now) -> u64 {
        u64::try_from(now.at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Somebody who proved a key is refused.
    fn refuse(&mut self, reference: Reference, key: PublicKey, code: Code, asked: Asked, now: Now) {
        let Asked { action, source } = asked;
        let detail = self.reason(&key, code);
        let at_unix_ms = now.unix_ms();
        let refused = Refused { code, detail, key: Some(key), action, source, at_unix_ms };
        self.remember(reference, refused, now);
    }

    /// What strangers do does not fill the log: one refusal a second stands in it, with how many did not;
    /// all are remembered.
    fn remember(&mut self, reference: Reference, refused: Refused, now: Now) {
        let quiet = self.refusals.shown_unix_ms().is_some_and(|at| refused.at_unix_ms < at + 1000);
        let peer = refused.key.map(|key| key.short()).unwrap_or_default();
        let Refused { code, detail, action, source, key, .. } = &refused;
        if quiet {
            tracing::debug!(MUSTER_CODE = %code, MUSTER_PEER = peer, %reference, action, source, "refused: {detail}");
        } else {
            let hidden = self.refusals.hidden();
            let more = if hidden > 0 { format!("; {hidden} more before it") } else { String::new() };
            tracing::info!(MUSTER_CODE = %code, MUSTER_PEER = peer, %reference, action, source, "refused: {detail}{more}");
            let detail = format!("{detail}{more}");
            let of = events::Of { node: *key, code: Some(*code), detail, reference: Some(reference) };
            self.happened(EventKind::Refused, of, now);
        }
        self.refusals.remember(reference, refused, !quiet);
    }
}
