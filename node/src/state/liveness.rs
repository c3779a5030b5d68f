//! Who answers: SWIM among the members that this machine keeps in step with.
//!
//! What is learned here is shown to people, and lets the overlay dial the next member on a ring before a
//! dead session is noticed. Nothing else asks for it: neither standing nor coverage.

use std::{collections::BTreeMap, net::Ipv6Addr};

use control::local;
use identity::PublicKey;
use member_crdt::Member;
use overlay::{Liveness, Swim, SwimOutput};
use rand::rngs::StdRng;

use super::{Effect, Now, State};

#[derive(Debug)]
pub(super) struct Answering {
    swim: Swim<StdRng>,
    /// Who is probed, by overlay address: datagrams of others are nobody's.
    probed: BTreeMap<Ipv6Addr, PublicKey>,
}

impl Answering {
    /// By the key that this machine was admitted with.
    pub(super) fn new(me: &PublicKey, randomness: StdRng) -> Self {
        Self { swim: Swim::new(me, randomness), probed: BTreeMap::new() }
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.swim.poll_timeout()
    }

    /// What is known of a member by the key that it was admitted with; nothing of who is not probed.
    pub(super) fn of(&self, node: &PublicKey) -> Option<local::Liveness> {
        self.swim.liveness(node).map(|liveness| match liveness {
            Liveness::Alive => local::Liveness::Alive,
            Liveness::Suspect => local::Liveness::Suspect,
            Liveness::Silent => local::Liveness::Silent,
        })
    }

    /// Everybody who is probed.
    pub(super) fn probed(&self) -> impl Iterator<Item = &PublicKey> {
        self.probed.values()
    }
}

impl State {
    /// A datagram came out of the tunnel that this overlay address belongs to.
    pub fn on_datagram(&mut self, source: Ipv6Addr, bytes: &[u8], now: Now) {
        let Some(peer) = self.answering.probed.get(&source).copied() else { return };
        match self.answering.swim.handle_datagram(self.ms(now), &peer, bytes) {
            Ok(()) => self.members.heard(peer, now.at),
            Err(why) => tracing::debug!(MUSTER_PEER = peer.short(), "a datagram was dropped: {why}"),
        }
        self.follow_swim(now);
    }

    pub(super) fn probe_on(&mut self, now: Now) {
        self.answering.swim.handle_timeout(self.ms(now));
        self.follow_swim(now);
    }

    /// Probes those, and only those, that there is a session with which keeps both in step.
    pub(super) fn probe_neighbours(&mut self, now: Now) {
        let address = |node: PublicKey| Some((self.roster.member_of(&node)?.address, node));
        let probed: BTreeMap<Ipv6Addr, PublicKey> =
            self.overlay.sessions().filter_map(|(node, _)| address(node)).collect();
        if probed != self.answering.probed {
            self.effects.push_back(Effect::Probe(probed.keys().copied().collect()));
            self.answering.swim.handle_probed(self.ms(now), probed.values().copied());
            self.answering.probed = probed;
            self.follow_swim(now);
        }
    }

    fn follow_swim(&mut self, now: Now) {
        let mut changed = false;
        while let Some(output) = self.answering.swim.poll_output() {
            match output {
                SwimOutput::Send(node, bytes) => {
                    if let Some(address) = self.roster.member_of(&node).map(|member: &Member| member.address)
                    {
                        self.effects.push_back(Effect::Datagram(address, bytes));
                    }
                }
                SwimOutput::Changed(node, liveness) => {
                    tracing::debug!(MUSTER_PEER = node.short(), ?liveness, "answers or does not");
                    self.overlay.handle_liveness(self.ms(now), &node, liveness);
                    changed = true;
                }
            }
        }
        if changed {
            self.follow_overlay(now);
        }
    }
}
