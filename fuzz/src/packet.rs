//! What comes out of a member's tunnel, at the gate and at the filter.

use std::time::Instant;

use musterd::tunnel::{Allow, Filter, Gate, Packet, Payload, Verdict};

const AUTH_PORT: u16 = 4714;
const OPEN_PORT: u16 = 22;

/// One inner packet. We asked for nothing, so nothing is an answer.
pub fn packet(data: &[u8]) {
    let Ok(packet) = Packet::parse(data) else { return };
    assert_eq!(packet.source.octets(), data.get(8..24).unwrap());
    assert_eq!(packet.destination.octets(), data.get(24..40).unwrap());
    let now = Instant::now();
    let mut filter = Filter::new(AUTH_PORT, vec![Allow::Tcp(OPEN_PORT)]);
    let (conn_auth, open) = match packet.payload {
        Payload::Tcp { destination, .. } => {
            (destination == AUTH_PORT, [AUTH_PORT, OPEN_PORT].contains(&destination))
        }
        Payload::EchoRequest(_) => (false, true),
        Payload::Udp { .. } | Payload::EchoReply(_) | Payload::Error { .. } | Payload::OtherIcmp => {
            (false, false)
        }
    };
    assert_eq!(filter.inbound(Gate::Closed, &packet, now) == Verdict::Pass, conn_auth);
    assert_eq!(filter.inbound(Gate::Open, &packet, now) == Verdict::Pass, open);
    assert_eq!(filter.flows(), 0);
    // And as one of our own: at a closed gate it opens conn_auth or nothing.
    let sent = filter.outbound(Gate::Closed, &packet, now);
    if sent == Verdict::Pass {
        assert!(matches!(
            packet.payload,
            Payload::Tcp { source, destination, .. } if source == AUTH_PORT || destination == AUTH_PORT
        ));
    }
}
