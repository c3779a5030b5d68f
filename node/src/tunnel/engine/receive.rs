//! What came from the network, by its WireGuard type.

use std::{net::SocketAddr, time::Instant};

use boringtun::noise::{Packet as WireGuard, Tunn, TunnResult, handshake::parse_handshake_anon};
use identity::WireGuardKey;

use super::{DATAGRAM_BYTES_MAX, Engine};
use crate::tunnel::{
    filter::Verdict,
    output::{Output, TunnelEvent},
    packet::Packet,
    peer::Index,
};

pub(super) const COOKIE_REPLY_BYTES: usize = 64;

impl Engine {
    /// A datagram came from the network.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if datagram.len() > DATAGRAM_BYTES_MAX || self.is_overlay(from.ip()) {
            self.out.drops.malformed += 1;
            return;
        }
        match Tunn::parse_incoming_packet(datagram) {
            Ok(WireGuard::HandshakeInit(_)) => self.on_initiation(from, datagram, now),
            Ok(WireGuard::HandshakeResponse(response)) => {
                self.on_response(from, datagram, response.receiver_idx, now)
            }
            Ok(WireGuard::PacketCookieReply(reply)) => {
                self.on_cookie_reply(from, datagram, reply.receiver_idx)
            }
            Ok(WireGuard::PacketData(data)) => self.on_data(from, datagram, data.receiver_idx, now),
            Err(_) => self.out.drops.malformed += 1,
        }
    }

    /// Only here can a stranger's packet cost more than a table lookup, and it leaves no state behind:
    /// the limiter first, then the key inside, then the member's whole handshake.
    fn on_initiation(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if !self.within_limit(from, datagram) {
            return;
        }
        let Ok(WireGuard::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(datagram) else { return };
        let Ok(half) = parse_handshake_anon(&self.secret, &self.public, &initiation) else {
            self.out.drops.handshake += 1;
            return;
        };
        let key = WireGuardKey(half.peer_static_public);
        if !self.peers.contains_key(&key) {
            self.out.drops.unknown_key += 1;
            return;
        }
        // Naming a member's key is not having it: a new tunnel is kept only if the handshake verifies.
        let known = self.peers.get_mut(&key).and_then(|peer| peer.tunnel.take());
        let created = known.is_none();
        let mut tunnel = known.unwrap_or_else(|| self.new_tunnel(&key, now));
        let verified = match tunnel.tunn.decapsulate(Some(from.ip()), datagram, &mut self.scratch) {
            TunnResult::WriteToNetwork(response) => {
                tunnel.answered(response, now);
                self.out.datagram(Some(from), response);
                true
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {
                self.out.drops.handshake += 1;
                false
            }
        };
        if verified || !created {
            self.keep(&key, tunnel);
        }
    }

    fn on_response(&mut self, from: SocketAddr, datagram: &[u8], receiver: u32, now: Instant) {
        let Some(key) = self.by_index.get(&Index::of_receiver(receiver)).copied() else {
            self.out.drops.unknown_index += 1;
            return;
        };
        if !self.within_limit(from, datagram) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(tunnel) = &mut peer.tunnel else { return };
        match tunnel.tunn.decapsulate(Some(from.ip()), datagram, &mut self.scratch) {
            TunnResult::WriteToNetwork(keepalive) => {
                self.out.datagram(Some(from), keepalive);
                self.out.event(TunnelEvent::Handshake { wireguard: key, endpoint: from });
                peer.established(from, now);
                peer.flush(&mut self.scratch, &mut self.out);
                self.came_up(&key);
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => self.out.drops.handshake += 1,
        }
    }

    /// A cookie reply says nothing about where a peer lives: anyone who saw our initiation can replay
    /// one, so the endpoint stays.
    fn on_cookie_reply(&mut self, from: SocketAddr, datagram: &[u8], receiver: u32) {
        let Some(key) = self.by_index.get(&Index::of_receiver(receiver)).copied() else {
            self.out.drops.unknown_index += 1;
            return;
        };
        let Some(tunnel) = self.peers.get_mut(&key).and_then(|peer| peer.tunnel.as_mut()) else { return };
        if let TunnResult::Err(_) = tunnel.tunn.decapsulate(Some(from.ip()), datagram, &mut self.scratch) {
            self.out.drops.handshake += 1;
        }
    }

    fn on_data(&mut self, from: SocketAddr, datagram: &[u8], receiver: u32, now: Instant) {
        let Some(key) = self.by_index.get(&Index::of_receiver(receiver)).copied() else {
            self.out.drops.unknown_index += 1;
            return;
        };
        let Self { peers, scratch, out, filter, address, .. } = self;
        let Some(peer) = peers.get_mut(&key) else { return };
        let Some(tunnel) = &mut peer.tunnel else { return };
        let inner = match tunnel.tunn.decapsulate(Some(from.ip()), datagram, scratch) {
            TunnResult::Done => None,
            TunnResult::WriteToTunnelV6(inner, _) | TunnResult::WriteToTunnelV4(inner, _) => Some(inner),
            TunnResult::Err(_) | TunnResult::WriteToNetwork(_) => {
                out.drops.undecryptable += 1;
                return;
            }
        };
        let mut is_use = false;
        if let Some(inner) = inner {
            peer.rx_bytes += inner.len() as u64;
            tunnel.used = now;
            match Packet::parse(inner) {
                Err(_) => out.drops.unreadable_in += 1,
                Ok(packet) if packet.source != peer.address || packet.destination != *address => {
                    out.drops.foreign_address += 1;
                }
                Ok(packet) => match filter.inbound(peer.gate, &packet, now) {
                    Verdict::Pass => {
                        is_use = filter.uses_link(&packet);
                        out.queue.push_back(Output::Packet(inner.to_vec()));
                    }
                    Verdict::GateClosed => out.drops.gate_in += 1,
                    Verdict::NotAllowed | Verdict::FlowsFull => out.drops.filter_in += 1,
                },
            }
        }
        // Data proves that the peer holds the session's keys, so it lives where this came from.
        tunnel.heard();
        let confirms = tunnel.confirms(receiver);
        if confirms {
            out.event(TunnelEvent::Handshake { wireguard: key, endpoint: from });
            peer.established(from, now);
        }
        peer.endpoint = Some(from);
        if is_use {
            peer.uses_link(now);
        }
        peer.flush(scratch, out);
        if confirms {
            self.came_up(&key);
        }
    }

    /// Counts a handshake message against the one limiter; above it, a cookie is all there is.
    fn within_limit(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let mut reply = [0; COOKIE_REPLY_BYTES];
        match self.limiter.verify_packet(Some(from.ip()), datagram, &mut reply) {
            Ok(_) => true,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.out.drops.rate_limited += 1;
                self.out.datagram(Some(from), cookie);
                false
            }
            Err(_) => {
                self.out.drops.handshake += 1;
                false
            }
        }
    }
}
