//! The tunnels of one node without their sockets: datagrams, packets and time in, outputs out.
//!
//! WireGuard itself is `boringtun::noise::Tunn`, which reads its own clock and draws its own ephemeral
//! keys; everything around it (who may have a tunnel, which packet belongs to which, where a peer
//! lives, what may pass) is decided here from what the caller hands in.

mod receive;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, rate_limiter::RateLimiter},
    x25519::{PublicKey as X25519Public, StaticSecret},
};
use identity::{
    SecretKey, WireGuardKey,
    limits::{ENDPOINTS_MAX, TUNNEL_HANDSHAKES_PER_S, TUNNELS_MAX},
};

use super::{
    filter::{Allow, Filter, Gate, Verdict},
    held::Held,
    output::{Out, Output, PeerStats, Stats, TunnelEvent},
    packet::Packet,
    peer::{Index, Peer, Tunnel},
};

/// How often time must be reported.
const TICK: Duration = Duration::from_millis(250);
/// How often silent flows are looked for.
const PURGE: Duration = Duration::from_secs(2);
/// A member that is wanted but unlinked is reported this often at most.
const WANT_LINK_INTERVAL: Duration = Duration::from_secs(1);
/// The org's prefix is a /48 (RFC 4193).
const PREFIX_BYTES: usize = 6;
/// The largest UDP payload there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// `Tunn` wants 32 bytes more than the packet.
const SCRATCH_BYTES: usize = DATAGRAM_BYTES_MAX + 64;
/// What `Tunn` adds to a packet.
const OVERHEAD_BYTES: usize = 32;

/// A member to whom a tunnel may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Its newest WireGuard key.
    pub wireguard: WireGuardKey,
    /// Earlier ones that it may still use, newest first.
    pub earlier: Vec<WireGuardKey>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Where it said it can be reached; tried in turn.
    pub endpoints: Vec<SocketAddr>,
}

impl TunnelPeer {
    /// Its keys, newest first.
    fn keys(&self) -> impl Iterator<Item = WireGuardKey> {
        [self.wireguard].into_iter().chain(self.earlier.iter().copied())
    }
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Our overlay address.
    pub address: Ipv6Addr,
    /// The TCP port of conn_auth, ours and theirs.
    pub auth_port: u16,
    /// What members may reach once linked, besides conn_auth and echo.
    pub allow: Vec<Allow>,
}

/// The public half that WireGuard computes differs from the one the org signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMismatch;

impl fmt::Display for KeyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the WireGuard key does not match its public half")
    }
}

impl std::error::Error for KeyMismatch {}

/// All tunnels of one node.
pub struct Engine {
    secret: StaticSecret,
    public: X25519Public,
    address: Ipv6Addr,
    filter: Filter,
    peers: HashMap<WireGuardKey, Peer>,
    /// Of a member's keys the one that its packets pass by.
    by_address: HashMap<Ipv6Addr, WireGuardKey>,
    /// A member's keys, newest first, where it may use more than one.
    several: HashMap<Ipv6Addr, Vec<WireGuardKey>>,
    by_index: HashMap<Index, WireGuardKey>,
    held: Held,
    /// Counts handshakes of everyone; the only place that does.
    limiter: Arc<RateLimiter>,
    /// What the `Tunn`s ask once more, and which never refuses: otherwise each handshake counts twice.
    unlimited: Arc<RateLimiter>,
    tunnels_max: usize,
    draw_index: Box<dyn FnMut() -> u32 + Send>,
    next_tick: Instant,
    next_purge: Instant,
    scratch: Vec<u8>,
    out: Out,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("address", &self.address)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without peers. `draw_index` gives random numbers for receiver indices.
    ///
    /// # Errors
    /// [`KeyMismatch`] when X25519 and Ed25519 disagree about the key's public half.
    pub fn new(
        config: EngineConfig,
        key: &SecretKey,
        draw_index: Box<dyn FnMut() -> u32 + Send>,
        now: Instant,
    ) -> Result<Self, KeyMismatch> {
        let secret = StaticSecret::from(*key.wireguard_scalar());
        let public = X25519Public::from(&secret);
        if public.as_bytes() != &key.public().to_wireguard().0 {
            return Err(KeyMismatch);
        }
        Ok(Self {
            limiter: Arc::new(RateLimiter::new(&public, TUNNEL_HANDSHAKES_PER_S)),
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            secret,
            public,
            address: config.address,
            filter: Filter::new(config.auth_port, config.allow),
            peers: HashMap::new(),
            by_address: HashMap::new(),
            several: HashMap::new(),
            by_index: HashMap::new(),
            held: Held::default(),
            tunnels_max: TUNNELS_MAX,
            draw_index,
            next_tick: now + TICK,
            next_purge: now + PURGE,
            scratch: vec![0; SCRATCH_BYTES],
            out: Out::default(),
        })
    }

    /// Makes `wanted` the peers, all of them. Whoever is missing has lost its tunnel, session,
    /// endpoints, flows and gate when this returns. Returns the entries that were left out: ourselves,
    /// an address outside the org's network, a key or address that stands twice.
    pub fn set_peers(&mut self, wanted: Vec<TunnelPeer>) -> Vec<TunnelPeer> {
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        let (accepted, left_out): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|peer| {
            peer.keys().all(|key| key.0 != *self.public.as_bytes())
                && peer.address != self.address
                && self.is_overlay(IpAddr::V6(peer.address))
                && peer.keys().all(|key| keys.insert(key))
                && addresses.insert(peer.address)
        });
        let stays: HashMap<WireGuardKey, Ipv6Addr> =
            accepted.iter().flat_map(|p| p.keys().map(|key| (key, p.address))).collect();
        let gone: Vec<WireGuardKey> = self
            .peers
            .iter()
            .filter(|(key, peer)| stays.get(key) != Some(&peer.address))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.remove(&key);
        }
        for peer in accepted {
            self.set_peer(peer);
        }
        left_out
    }

    /// A key before one that has completed a handshake has no place any more.
    fn set_peer(&mut self, peer: TunnelPeer) {
        let mut keys: Vec<WireGuardKey> = peer.keys().collect();
        let is_up = |key: &WireGuardKey| self.peers.get(key).is_some_and(|p| p.established.is_some());
        if let Some(newest_up) = keys.iter().position(is_up) {
            for key in keys.split_off(newest_up + 1) {
                self.remove(&key);
            }
        }
        let endpoints = self.usable(peer.endpoints);
        let active = self.by_address.get(&peer.address).filter(|active| keys.contains(active));
        self.by_address.insert(peer.address, active.copied().unwrap_or(peer.wireguard));
        for key in &keys {
            self.peers
                .entry(*key)
                .and_modify(|known| known.report_endpoints(endpoints.clone()))
                .or_insert_with(|| Peer::new(peer.address, endpoints.clone()));
        }
        if keys.len() > 1 {
            self.several.insert(peer.address, keys);
        } else {
            self.several.remove(&peer.address);
        }
    }

    /// A handshake with this key of a member was completed: its packets pass by it from now on, and its
    /// earlier keys are done with.
    fn came_up(&mut self, key: &WireGuardKey) {
        let Some(address) = self.peers.get(key).map(|peer| peer.address) else { return };
        let Some(keys) = self.several.get_mut(&address) else { return };
        let Some(place) = keys.iter().position(|other| other == key) else { return };
        let earlier = keys.split_off(place + 1);
        if keys.len() < 2 {
            self.several.remove(&address);
        }
        if self.by_address.insert(address, *key).is_some_and(|before| before != *key) {
            // The gate of the new tunnel opens with a link under the new key.
            self.filter.closed(address);
        }
        for key in earlier {
            self.remove(&key);
        }
    }

    /// Which of its keys a member uses shows when it answers.
    fn call_others(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(keys) = self.several.get(&address) else { return };
        let active = self.by_address.get(&address).copied();
        let heard = active.and_then(|active| self.peers.get(&active)?.endpoint);
        for key in keys.clone() {
            if Some(key) == active {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.endpoint = peer.endpoint.or(heard);
            if peer.tunnel.is_none() && peer.can_be_called() {
                let tunnel = self.new_tunnel(&key, now);
                self.keep(&key, tunnel);
            }
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.initiate(false, &mut self.scratch, now, &mut self.out);
            }
        }
    }

    /// A link session with the member was accepted: the filter decides from now on, also about what waited
    /// for it. Says whether the member is a peer.
    pub fn open_gate(&mut self, key: &WireGuardKey, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        peer.open(now);
        if self.by_address.get(&peer.address) == Some(key) {
            self.filter.opened(peer.address);
        }
        for packet in self.held.take(key) {
            self.handle_packet(&packet, now);
        }
        true
    }

    /// The last link session with the member ended: only conn_auth passes. Says whether
    /// the member is a peer.
    pub fn close_gate(&mut self, key: &WireGuardKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        peer.gate = Gate::Closed;
        if self.by_address.get(&peer.address) == Some(key) {
            self.filter.closed(peer.address);
        }
        true
    }

    /// The datagrams of SWIM pass to and from the members with these addresses, and nobody else.
    pub fn set_probed(&mut self, members: &[Ipv6Addr]) {
        self.filter.set_probed(members);
    }

    /// The key behind an overlay address, if a WireGuard session with it exists.
    #[must_use]
    pub fn channel_of(&self, address: Ipv6Addr) -> Option<WireGuardKey> {
        let key = self.by_address.get(&address)?;
        self.peers.get(key)?.tunnel.as_ref()?.has_session().then_some(*key)
    }

    /// What may be shown to a person.
    #[must_use]
    pub fn stats(&self, now: Instant) -> Stats {
        let mut peers: Vec<_> = self.peers.iter().map(|(key, peer)| PeerStats::of(*key, peer, now)).collect();
        peers.sort_by_key(|peer| peer.address);
        Stats { peers, tunnels: self.by_index.len(), flows: self.filter.flows(), drops: self.out.drops }
    }

    /// The network stack sent a packet.
    pub fn handle_packet(&mut self, bytes: &[u8], now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else {
            self.out.drops.unreadable_out += 1;
            return;
        };
        if packet.source != self.address || bytes.len() > SCRATCH_BYTES - OVERHEAD_BYTES {
            self.out.drops.unreadable_out += 1;
            return;
        }
        let Some(key) = self.by_address.get(&packet.destination).copied() else {
            self.out.drops.no_such_member += 1;
            return;
        };
        self.call_others(packet.destination, now);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match self.filter.outbound(peer.gate, &packet, now) {
            Verdict::Pass => {
                if self.filter.uses_link(&packet) {
                    peer.uses_link(now);
                }
                self.send_packet(key, bytes, now);
            }
            Verdict::GateClosed => {
                if !self.held.keep(key, bytes, now) {
                    self.out.drops.gate_out += 1;
                }
                if peer.want_link_due(now, WANT_LINK_INTERVAL) {
                    self.out.event(TunnelEvent::WantLink(key));
                }
            }
            Verdict::NotAllowed => self.out.drops.filter_out += 1,
            Verdict::FlowsFull => self.out.drops.flows_full += 1,
        }
    }

    /// Time passed. Must be called when [`Engine::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.limiter.reset_count();
        if now >= self.next_purge {
            self.next_purge = now + PURGE;
            self.purge(now);
        }
        for peer in self.peers.values_mut() {
            peer.tick(&mut self.scratch, now, &mut self.out);
        }
    }

    fn purge(&mut self, now: Instant) {
        self.filter.purge(now);
        self.out.drops.gate_out += self.held.give_up(now);
        for key in self.held.wanted() {
            if self.peers.get_mut(key).is_some_and(|peer| peer.want_link_due(now, WANT_LINK_INTERVAL)) {
                self.out.event(TunnelEvent::WantLink(*key));
            }
        }
        for (key, peer) in &self.peers {
            if peer.has_quiet_link(now) {
                self.out.event(TunnelEvent::QuietLink(*key));
            }
        }
    }

    /// When [`Engine::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next_tick
    }

    /// What is to be done, one thing at a time, until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.queue.pop_front()
    }

    fn send_packet(&mut self, key: WireGuardKey, bytes: &[u8], now: Instant) {
        if self.peers.get(&key).is_some_and(|peer| peer.tunnel.is_none() && peer.can_be_called()) {
            let tunnel = self.new_tunnel(&key, now);
            self.keep(&key, tunnel);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.send(bytes, &mut self.scratch, now, &mut self.out);
        }
    }

    fn new_tunnel(&mut self, key: &WireGuardKey, now: Instant) -> Box<Tunnel> {
        let index = self.free_index();
        let (secret, peer) = (self.secret.clone(), X25519Public::from(key.0));
        let tunn = Tunn::new(secret, peer, None, None, index.number(), Some(Arc::clone(&self.unlimited)));
        Tunnel::new(tunn, index, now)
    }

    fn free_index(&mut self) -> Index {
        loop {
            let index = Index::from_draw((self.draw_index)());
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    fn keep(&mut self, key: &WireGuardKey, tunnel: Box<Tunnel>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        self.by_index.insert(tunnel.index, *key);
        peer.tunnel = Some(tunnel);
        self.evict_above_limit(key);
    }

    /// Gives up the tunnel that was silent for longest; its peer, gate and flows stay.
    fn evict_above_limit(&mut self, keep: &WireGuardKey) {
        while self.by_index.len() > self.tunnels_max {
            let idle = self
                .peers
                .iter_mut()
                .filter(|(key, peer)| *key != keep && peer.tunnel.is_some())
                .min_by_key(|(_, peer)| peer.tunnel.as_ref().map(|tunnel| tunnel.used));
            let Some((_, peer)) = idle else { return };
            if let Some(tunnel) = peer.tunnel.take() {
                self.by_index.remove(&tunnel.index);
            }
        }
    }

    fn remove(&mut self, key: &WireGuardKey) {
        let Some(peer) = self.peers.remove(key) else { return };
        if let Some(tunnel) = &peer.tunnel {
            self.by_index.remove(&tunnel.index);
        }
        if self.by_address.get(&peer.address) == Some(key) {
            self.by_address.remove(&peer.address);
            self.several.remove(&peer.address);
            self.filter.forget(peer.address);
        }
        self.held.forget(key);
    }

    /// An endpoint inside the org's own network would send a tunnel through itself.
    fn usable(&self, endpoints: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut usable = Vec::new();
        for endpoint in endpoints {
            let ip = endpoint.ip().to_canonical();
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            let bad = ip.is_unspecified() || ip.is_multicast() || broadcast || endpoint.port() == 0;
            let endpoint = SocketAddr::new(ip, endpoint.port());
            if !bad && !self.is_overlay(ip) && !usable.contains(&endpoint) && usable.len() < ENDPOINTS_MAX {
                usable.push(endpoint);
            }
        }
        usable
    }

    fn is_overlay(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => {
                ip.octets().iter().zip(self.address.octets()).take(PREFIX_BYTES).all(|(a, b)| *a == b)
            }
        }
    }
}

#[cfg(test)]
mod tests;
